//! Secret keys with their certificates, as other programs export them.
//!
//! Source: RFC 9580, section 10.2.

use std::{collections::HashMap, time::Duration};

use sequoia_openpgp::{
    Cert,
    cert::CertParser,
    crypto::{Password, mpi},
    packet::key::SecretKeyMaterial,
    parse::Parse as _,
};

use super::{Certificate, Error};
use crate::key::SecretKey;

/// Reads exported RSA keys, decrypting with `passphrase` those that are protected; by their fingerprints.
///
/// What is no key ends the reading: those behind it are missing.
pub fn read(
    bytes: &[u8],
    passphrase: &[u8],
) -> HashMap<String, Result<(SecretKey, Certificate), Error>> {
    let passphrase = Password::from(passphrase);
    let certs = CertParser::from_bytes(bytes).into_iter().flatten();
    certs
        .map_while(Result::ok)
        .map(|cert| (cert.fingerprint().to_hex(), read_one(cert, &passphrase)))
        .collect()
}

/// # Errors
/// [`Error::NotACertificate`] and [`Error::Signer`], which stay.
fn read_one(cert: Cert, passphrase: &Password) -> Result<(SecretKey, Certificate), Error> {
    let refused = |why: &str| Error::NotACertificate(why.into());
    let mut key = cert
        .primary_key()
        .key()
        .clone()
        .parts_into_secret()
        .map_err(|_| refused("its secret half is missing"))?;
    if key.secret().is_encrypted() {
        key = key
            .decrypt_secret(passphrase)
            .map_err(|_| refused("the passphrase is not its own"))?;
    }
    let mpi::PublicKey::RSA { n, e } = key.mpis() else {
        return Err(refused("it is not an RSA key"));
    };
    let SecretKeyMaterial::Unencrypted(numbers) = key.secret() else {
        return Err(refused("it is still encrypted"));
    };
    let secret = numbers.map(|numbers| match numbers {
        mpi::SecretKeyMaterial::RSA { d, p, q, u } => Ok(SecretKey::from_rsa(
            [n.value(), e.value()],
            [d.value(), p.value(), q.value(), u.value()],
        )?),
        _ => Err(refused("it is not an RSA key")),
    })?;
    let cert = cert.strip_secret_key_material();
    Ok((secret, Certificate { cert }))
}

impl Certificate {
    /// How long the key is valid from its making on, as the newest self-signature on a user id says; for ever where none does.
    pub fn lifetime(&self) -> Option<Duration> {
        self.cert
            .userids()
            .flat_map(|user_id| user_id.self_signatures())
            .max_by_key(|signature| signature.signature_creation_time())?
            .key_validity_period()
    }
}
