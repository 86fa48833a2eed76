//! Secret keys with their certificates, as other programs export them.
//!
//! Source: RFC 9580, section 10.2.

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, SystemTime},
};

use sequoia_openpgp::{
    self as sequoia, Packet,
    cert::CertParser,
    crypto::{Password, S2K, mpi},
    packet::{
        Signature,
        key::{Encrypted, SecretKeyMaterial},
    },
    parse::Parse as _,
    types::{Curve, SymmetricAlgorithm},
};

use super::{Certificate, Error};
use crate::{
    digest::Digest,
    identity::Identity,
    key::{PublicNumbers, SecretKey, SecretNumbers},
};

/// Reads certificates one behind the other, armoured or not. What cannot be read is an error in its place.
///
/// # Errors
/// [`Error::NotACertificate`], which stays, where `bytes` are no OpenPGP packets at all.
pub fn certificates<'a>(
    bytes: impl io::Read + Send + Sync + 'a,
) -> Result<impl Iterator<Item = Result<Certificate, Error>> + 'a, Error> {
    let certs = CertParser::from_reader(bytes).map_err(unreadable)?;
    Ok(certs.map(|cert| cert.map(|cert| Certificate { cert }).map_err(unreadable)))
}

fn unreadable(error: sequoia::anyhow::Error) -> Error {
    Error::NotACertificate(error.to_string())
}

/// A secret half as RFC 9580, section 5.5.3, has it encrypted, with a key that is derived from a passphrase, and with a SHA-1 of it.
pub(crate) struct Protected {
    /// What it is encrypted with.
    pub(crate) cipher: SymmetricAlgorithm,
    /// What derives that key.
    pub(crate) digest: Digest,
    /// What is hashed before the passphrase.
    pub(crate) salt: [u8; 8],
    /// How many bytes are hashed.
    pub(crate) hash_bytes: u32,
    /// Behind the initialisation vector.
    pub(crate) ciphertext: Vec<u8>,
}

/// When the last of some signatures was made.
fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<SystemTime> {
    signatures
        .filter_map(|signature| signature.signature_creation_time())
        .max()
}

impl Certificate {
    /// The primary key's numbers, or nothing where its algorithm or size is not ours.
    pub fn public_numbers(&self) -> Option<PublicNumbers> {
        let numbers = match self.cert.primary_key().key().mpis() {
            mpi::PublicKey::RSA { n, e } => PublicNumbers::Rsa {
                n: n.value().to_vec(),
                e: e.value().to_vec(),
            },
            mpi::PublicKey::EdDSA {
                curve: Curve::Ed25519,
                q,
            } => PublicNumbers::Ed25519(q.value().strip_prefix(&[0x40])?.to_vec()),
            mpi::PublicKey::ECDSA { curve, q } => match curve {
                Curve::NistP256 => PublicNumbers::NistP256(q.value().to_vec()),
                Curve::NistP384 => PublicNumbers::NistP384(q.value().to_vec()),
                _ => return None,
            },
            _ => return None,
        };
        numbers.algorithm().map(|_| numbers)
    }

    /// The numbers that tell the primary key, the first, and the subkeys from all others: the modulus of RSA, `y` of DSA and
    /// Elgamal, the point on a curve.
    pub fn distinct_numbers(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.cert.keys().map(|key| match key.key().mpis() {
            mpi::PublicKey::RSA { n: number, .. }
            | mpi::PublicKey::DSA { y: number, .. }
            | mpi::PublicKey::ElGamal { y: number, .. }
            | mpi::PublicKey::EdDSA { q: number, .. }
            | mpi::PublicKey::ECDSA { q: number, .. }
            | mpi::PublicKey::ECDH { q: number, .. } => Some(number.value()),
            _ => None,
        })
    }

    /// The primary key's algorithm and size, for people.
    pub fn algorithm_name(&self) -> String {
        let key = self.cert.primary_key().key();
        let bits = key.mpis().bits().unwrap_or_default();
        format!("{} of {bits} bits", key.pk_algo())
    }

    /// The e-mails of the user ids that the key's owner has signed and not revoked since.
    pub fn identities(&self) -> BTreeSet<Identity> {
        let user_ids = self.cert.userids().filter(|user_id| {
            newest(user_id.self_signatures()) > newest(user_id.self_revocations())
        });
        user_ids
            .filter_map(|user_id| {
                let text = std::str::from_utf8(user_id.userid().value()).ok()?;
                let (_, email) = text.rsplit_once('<')?;
                email.strip_suffix('>')?.parse().ok()
            })
            .collect()
    }

    /// Whether its owner has revoked the key.
    pub fn is_revoked(&self) -> bool {
        self.cert.primary_key().self_revocations().next().is_some()
    }

    /// Whether the primary key may sign, as the newest self-signature on a user id says; it may where that does not speak of it.
    pub fn may_sign(&self) -> bool {
        self.newest_binding()
            .and_then(|signature| signature.key_flags())
            .is_none_or(|flags| flags.for_signing())
    }

    /// How long the key is valid from its making on, as the newest self-signature on a user id says; for ever where none does.
    pub fn lifetime(&self) -> Option<Duration> {
        self.newest_binding()?.key_validity_period()
    }

    fn newest_binding(&self) -> Option<&Signature> {
        self.cert
            .userids()
            .flat_map(|user_id| user_id.self_signatures())
            .max_by_key(|signature| signature.signature_creation_time())
    }

    /// Whether the packets hold the primary key's secret half, and not just GnuPG's mark that it is elsewhere.
    ///
    /// Source: GnuPG, doc/DETAILS, "GNU extensions to the S2K algorithm".
    pub fn has_secret(&self) -> bool {
        match self.cert.primary_key().key().optional_secret() {
            Some(SecretKeyMaterial::Encrypted(secret)) => {
                !matches!(secret.s2k(), S2K::Private { tag: 101, .. })
            }
            secret => secret.is_some(),
        }
    }

    /// Whether that needs a passphrase.
    pub fn is_protected(&self) -> bool {
        self.has_secret() && !self.cert.primary_key().key().has_unencrypted_secret()
    }

    /// The private key that the packets hold, decrypted with `passphrase` where it is protected.
    ///
    /// # Errors
    /// [`Error::NotACertificate`] and [`Error::Signer`], which stay.
    pub fn secret_key(&self, passphrase: &[u8]) -> Result<SecretKey, Error> {
        let refused = |why: &str| Error::NotACertificate(why.into());
        let not_ours = || refused("its algorithm is none that a store holds");
        let mut key = self
            .cert
            .primary_key()
            .key()
            .clone()
            .parts_into_secret()
            .map_err(|_| refused("its secret half is missing"))?;
        if key.secret().is_encrypted() {
            key = key
                .decrypt_secret(&Password::from(passphrase))
                .map_err(|_| refused("the passphrase is not its own"))?;
        }
        let SecretKeyMaterial::Unencrypted(numbers) = key.secret() else {
            return Err(refused("it is still encrypted"));
        };
        let public = self.public_numbers().ok_or_else(not_ours)?;
        numbers.map(|numbers| {
            let numbers = match numbers {
                mpi::SecretKeyMaterial::RSA { d, p, q, u } => SecretNumbers::Rsa {
                    d: d.value(),
                    p: p.value(),
                    q: q.value(),
                    u: u.value(),
                },
                mpi::SecretKeyMaterial::EdDSA { scalar }
                | mpi::SecretKeyMaterial::ECDSA { scalar } => SecretNumbers::Scalar(scalar.value()),
                _ => return Err(not_ours()),
            };
            Ok(SecretKey::from_numbers(&public, &numbers)?)
        })
    }

    /// The certificate with its key's secret half in its own packets, still encrypted.
    pub(crate) fn with_protected_secret(&self, protected: Protected) -> Result<Self, Error> {
        let s2k = S2K::Iterated {
            hash: protected.digest.openpgp(),
            salt: protected.salt,
            hash_bytes: protected.hash_bytes,
        };
        let secret = Encrypted::new(
            s2k,
            protected.cipher,
            Some(mpi::SecretKeyChecksum::SHA1),
            protected.ciphertext.into(),
        );
        let (key, _) = self
            .cert
            .primary_key()
            .key()
            .clone()
            .add_secret(SecretKeyMaterial::Encrypted(secret));
        let (cert, _) = self
            .cert
            .clone()
            .insert_packets(Packet::from(key))
            .map_err(unreadable)?;
        Ok(Self { cert })
    }

    /// The public packets alone.
    #[must_use]
    pub fn without_secret(self) -> Self {
        Self {
            cert: self.cert.strip_secret_key_material(),
        }
    }
}
