//! Secret keys with their certificates, protected with a passphrase, for other programs.
//!
//! Source: RFC 9580, sections 5.5.3 and 10.2; RFC 4880bis for the older Ed25519 keys.

use openssl::pkey::{PKey, Private};
use sequoia_openpgp::{
    Packet,
    crypto::{Password, mpi},
    packet::key::SecretKeyMaterial,
    serialize::SerializeInto as _,
};

use super::{Certificate, Error};
use crate::{
    key::{self, Algorithm, SecretKey},
    signer,
};

impl Certificate {
    /// The certificate with its key's secret half, encrypted with `passphrase` as GnuPG 2 reads it, ASCII-armoured.
    ///
    /// # Errors
    /// [`Error::Signer`] stays, where the library does not give out the key's numbers; [`Error::Certificate`] stays.
    pub fn with_secret(&self, secret: &SecretKey, passphrase: &str) -> Result<Vec<u8>, Error> {
        let broken = |error: sequoia_openpgp::anyhow::Error| Error::Certificate(error.to_string());
        let numbers = numbers(secret)
            .ok_or(key::Error::Unreadable(secret.algorithm()))
            .map_err(signer::Error::from)?;
        let public = self.cert.primary_key().key().clone();
        let (key, _) = public.add_secret(SecretKeyMaterial::from(numbers));
        let key = key
            .encrypt_secret(&Password::from(passphrase))
            .map_err(broken)?;
        let (cert, _) = self
            .cert
            .clone()
            .insert_packets(Packet::from(key))
            .map_err(broken)?;
        cert.as_tsk().armored().to_vec().map_err(broken)
    }
}

/// The private numbers as OpenPGP has them; sequoia clears them when they are dropped.
fn numbers(secret: &SecretKey) -> Option<mpi::SecretKeyMaterial> {
    let key: PKey<Private> = secret.openssl_key()?;
    // The library takes the bytes over, and clears them.
    let protected = mpi::ProtectedMPI::from;
    Some(match secret.algorithm() {
        Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
            let rsa = key.rsa().ok()?;
            // PKCS#1 has the inverse of its second prime, OpenPGP that of its first one: they change places.
            mpi::SecretKeyMaterial::RSA {
                d: protected(rsa.d().to_vec()),
                p: protected(rsa.q()?.to_vec()),
                q: protected(rsa.p()?.to_vec()),
                u: protected(rsa.iqmp()?.to_vec()),
            }
        }
        Algorithm::Ed25519 => mpi::SecretKeyMaterial::EdDSA {
            scalar: protected(key.raw_private_key().ok()?),
        },
        Algorithm::NistP256 | Algorithm::NistP384 => mpi::SecretKeyMaterial::ECDSA {
            scalar: protected(key.ec_key().ok()?.private_key().to_vec()),
        },
    })
}
