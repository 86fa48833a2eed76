//! Keys that a client keeps and lends for each signature, as obs-sign's clients do: the daemon makes them and remembers nothing of them.

use std::{str::FromStr, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{Error, Keystore, NewKey, RECORD_VERSION, vault};
use crate::{
    digest::Digest,
    identity::Identity,
    key::{
        Algorithm, RawSignature, SecretKey,
        openpgp::{self, Certificate, PublicKey},
        x509,
    },
    signer::{self, DigestSigner, Purpose},
};

/// A private key as its client keeps it: encrypted under the master key, and bound to the user for whom it was made. As text, it is
/// hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntrustedKey {
    algorithm: Algorithm,
    /// The public packets, which anybody may read.
    certificate: Vec<u8>,
    secret: vault::Entrusted,
}

/// A text that is no entrusted key. Stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a private key as this daemon makes them for its clients")]
pub struct NotEntrusted;

impl FromStr for EntrustedKey {
    type Err = NotEntrusted;

    fn from_str(text: &str) -> Result<Self, NotEntrusted> {
        let bytes = hex::decode(text.trim_ascii()).map_err(|_| NotEntrusted)?;
        bytes
            .strip_prefix(&[RECORD_VERSION])
            .and_then(|bytes| match postcard::take_from_bytes(bytes) {
                Ok((key, [])) => Some(key),
                Ok(_) | Err(_) => None,
            })
            .ok_or(NotEntrusted)
    }
}

impl EntrustedKey {
    /// The text that a client keeps.
    ///
    /// # Errors
    /// [`Error::Record`], which stays.
    pub fn to_hex(&self) -> Result<String, Error> {
        super::encode(self, "an entrusted key").map(hex::encode)
    }

    /// The certificate that the key was made with.
    ///
    /// # Errors
    /// [`openpgp::Error::NotACertificate`], which stays.
    pub fn certificate(&self) -> Result<Certificate, openpgp::Error> {
        Certificate::parse(&self.certificate)
    }

    /// What the encryption is bound to.
    fn associated(&self, user: &Identity) -> Vec<u8> {
        let (version, algorithm) = (RECORD_VERSION, self.algorithm);
        let head = format!("signdrop entrusted key {version}\0{user}\0{algorithm}\0");
        [head.as_bytes(), &self.certificate].concat()
    }
}

/// An entrusted key for as long as its client lends it.
#[derive(Debug)]
pub struct Lent {
    public: PublicKey,
    secret: SecretKey,
}

impl DigestSigner for Lent {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn certificate(&self) -> Result<&x509::Certificate, signer::Error> {
        Err(signer::Error::NoCertificate)
    }

    fn sign(
        &self,
        purpose: Purpose,
        digest: Digest,
        hash: &[u8],
    ) -> Result<RawSignature, signer::Error> {
        match purpose {
            Purpose::OpenPgp => Ok(self.secret.sign(digest, hash)?),
            Purpose::Cms => Err(signer::Error::NoCertificate),
        }
    }
}

impl Keystore {
    /// Makes a key that the client keeps and that signs for `user` alone. Nothing of it stays here.
    ///
    /// # Errors
    /// Those of the store and of key generation, which may pass.
    pub fn make_entrusted(&self, user: &Identity, new: &NewKey) -> Result<EntrustedKey, Error> {
        let secret = match self.take_prepared(new.algorithm)? {
            Some((secret, sealed)) => {
                self.vault.erase(&sealed)?;
                secret
            }
            None => SecretKey::generate(new.algorithm)?,
        };
        let now = SystemTime::now();
        let certificate = Certificate::make(&secret, &new.name, &new.identity, now, new.expires)?;
        let mut key = EntrustedKey {
            algorithm: new.algorithm,
            certificate: certificate.to_bytes()?,
            secret: vault::Entrusted::default(),
        };
        key.secret = self
            .vault
            .entrust(&key.associated(user), &secret.to_pkcs8()?)?;
        Ok(key)
    }

    /// Decrypts a key that a client lends.
    ///
    /// # Errors
    /// [`vault::Error::Sealed`], which stays, where it is damaged, another user's or another daemon's.
    pub fn unlock_entrusted(&self, user: &Identity, key: &EntrustedKey) -> Result<Lent, Error> {
        let pkcs8 = self
            .vault
            .open_entrusted(&key.secret, &key.associated(user))?;
        Ok(Lent {
            public: key.certificate()?.public_key(),
            secret: SecretKey::from_pkcs8(key.algorithm, &pkcs8)?,
        })
    }
}
