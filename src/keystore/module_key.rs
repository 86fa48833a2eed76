//! The keys that sign kernel modules, each beside its project's OpenPGP key.
//!
//! A module key is encrypted with its project's slot, so that erasing the slot takes both keys at once.

use std::time::{Duration, SystemTime};

use openssl::sha::sha256;
use serde::{Deserialize, Serialize};

use super::{Error, KeyEntry, Keystore, RECORD_VERSION, decode, encode, vault::Sealed};
use crate::{
    key::{
        Algorithm, SecretKey,
        x509::{Certificate, ModuleAlgorithm, NotForModules, SubjectTemplate},
    },
    store,
};

/// Which private key a certificate for kernel modules is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleKeySource {
    /// A key of its own, made for it.
    Own(ModuleAlgorithm),
    /// The project's OpenPGP key, which has to be RSA.
    OpenPgp,
}

/// What a new certificate for kernel modules is to be.
#[derive(Debug, Clone)]
pub struct NewModuleKey {
    /// The private key.
    pub source: ModuleKeySource,
    /// Whom the certificate names.
    pub subject: SubjectTemplate,
    /// How long it is valid; for ever where nothing is said.
    pub expires: Option<Duration>,
}

/// What is known of a module key without unlocking it.
#[derive(Debug, Clone)]
pub struct ModuleKeyEntry {
    certificate: Vec<u8>,
    secret: ModuleSecret,
}

/// Where the private key is. The position of a variant is part of the encoding.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum ModuleSecret {
    Own {
        algorithm: Algorithm,
        sealed: Sealed,
    },
    OpenPgp,
}

/// What stands under an identity.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The project's OpenPGP key, with which this one comes and goes.
    fingerprint: String,
    certificate: Vec<u8>,
    secret: ModuleSecret,
}

impl ModuleKeyEntry {
    /// The certificate.
    ///
    /// # Errors
    /// [`crate::key::x509::Error::NotACertificate`], which stays.
    pub fn certificate(&self) -> Result<Certificate, Error> {
        Ok(Certificate::from_der(&self.certificate)?)
    }
}

impl Keystore {
    /// The module key of a project, or nothing where none has been made yet. The caller holds [`Keystore::lock`].
    ///
    /// # Errors
    /// [`Error::Store`] may pass, [`Error::Record`] stays.
    pub fn find_module_key(&self, key: &KeyEntry) -> Result<Option<ModuleKeyEntry>, Error> {
        store::check()?;
        let name = key.identity.as_str();
        let Some(bytes) = self.modules.find(name.as_bytes())? else {
            return Ok(None);
        };
        let record: Record = decode(&bytes, name)?;
        // One of an earlier key of the identity's went with that key.
        Ok(
            (record.fingerprint == key.fingerprint).then_some(ModuleKeyEntry {
                certificate: record.certificate,
                secret: record.secret,
            }),
        )
    }

    /// Makes a project's module key and certificate. Both are on the disk when this returns. The caller holds [`Keystore::lock`],
    /// has looked for one before, and has the project's OpenPGP key unlocked.
    ///
    /// # Errors
    /// [`Error::Deleted`] stays; [`Error::NotForModules`], and those of the store and of key generation, may pass.
    pub fn create_module_key(
        &self,
        key: &KeyEntry,
        openpgp: &SecretKey,
        new: &NewModuleKey,
    ) -> Result<ModuleKeyEntry, Error> {
        // What is sealed with an erased slot would be lost.
        if self.is_deleted(key)? {
            return Err(Error::Deleted);
        }
        let subject = new.subject.subject(&key.identity)?;
        let made = |secret: &SecretKey| {
            Certificate::make(secret, &subject, SystemTime::now(), new.expires)
        };
        match new.source {
            ModuleKeySource::OpenPgp => {
                if !key.algorithm.is_rsa() {
                    return Err(Error::NotForModules(NotForModules(key.algorithm)));
                }
                self.keep_module_key(key, &made(openpgp)?, ModuleSecret::OpenPgp)
            }
            ModuleKeySource::Own(algorithm) => {
                let algorithm = algorithm.into();
                let secret = match self.take_prepared(algorithm)? {
                    Some((secret, prepared)) => {
                        // It lives on under the project's slot, with which it has to go.
                        self.vault.erase(&prepared)?;
                        secret
                    }
                    None => SecretKey::generate(algorithm)?,
                };
                let certificate = made(&secret)?;
                let sealed = self.vault.seal(
                    key.secret.slot(),
                    &associated(key, &certificate),
                    &secret.to_pkcs8()?,
                )?;
                let secret = ModuleSecret::Own { algorithm, sealed };
                self.keep_module_key(key, &certificate, secret)
            }
        }
    }

    fn keep_module_key(
        &self,
        key: &KeyEntry,
        certificate: &Certificate,
        secret: ModuleSecret,
    ) -> Result<ModuleKeyEntry, Error> {
        let name = key.identity.as_str();
        let record = Record {
            fingerprint: key.fingerprint.clone(),
            certificate: certificate.as_der().to_vec(),
            secret,
        };
        self.modules.set(name.as_bytes(), encode(&record, name)?)?;
        self.store.flush()?;
        Ok(ModuleKeyEntry {
            certificate: record.certificate,
            secret: record.secret,
        })
    }

    /// Decrypts a module key, or answers nothing where the project's OpenPGP key is it.
    ///
    /// # Errors
    /// [`super::VaultError::Sealed`], which stays, where records do not belong together or are damaged.
    pub fn unlock_module_key(
        &self,
        key: &KeyEntry,
        module: &ModuleKeyEntry,
    ) -> Result<Option<SecretKey>, Error> {
        match &module.secret {
            ModuleSecret::OpenPgp => {
                let openpgp = key.certificate()?.public_key();
                if !module.certificate()?.is_of(&openpgp) {
                    return Err(Error::Record(key.identity.to_string()));
                }
                Ok(None)
            }
            ModuleSecret::Own { algorithm, sealed } => {
                let associated = associated(key, &module.certificate()?);
                let pkcs8 = self.vault.open_sealed(sealed, &associated)?;
                Ok(Some(SecretKey::from_pkcs8(*algorithm, &pkcs8)?))
            }
        }
    }
}

/// What a module key's encryption is bound to, so that no record can be put in another's place.
fn associated(key: &KeyEntry, certificate: &Certificate) -> Vec<u8> {
    format!(
        "signdrop module key {RECORD_VERSION}\0{}\0{}\0{}",
        key.identity,
        key.fingerprint,
        hex::encode(sha256(certificate.as_der()))
    )
    .into_bytes()
}
