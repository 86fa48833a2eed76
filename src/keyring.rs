//! Unlocked keys, kept ready for the next signature and given up when they are deleted.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard},
};

use lru::LruCache;

use crate::{
    config::Validity,
    digest::Digest,
    identity::Identity,
    key::{RawSignature, SecretKey, openpgp::PublicKey, x509::Certificate},
    keystore::{self, Creation, KeyEntry, Keystore, ModuleKeyEntry, NewKey, NewModuleKey},
    signer::{self, DigestSigner, Purpose},
    stripes::Stripes,
};

/// How many unlocked keys are kept; the one unused for longest goes first.
const KEPT: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// A project's unlocked keys. They sign only through [`Keyring::begin`].
#[derive(Debug)]
pub struct ProjectKey {
    entry: KeyEntry,
    public: PublicKey,
    secret: SecretKey,
    module: OnceLock<ModuleKey>,
}

/// What signs a project's kernel modules.
#[derive(Debug)]
struct ModuleKey {
    certificate: Certificate,
    /// Nothing where the project's OpenPGP key does it.
    secret: Option<SecretKey>,
}

impl ProjectKey {
    /// What is known of the key without unlocking it.
    pub fn entry(&self) -> &KeyEntry {
        &self.entry
    }

    /// The key's public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

/// Leave to use a key: as long as one is held, the answer to the key's deletion waits.
#[derive(Debug)]
pub struct InUse<'a> {
    key: &'a ProjectKey,
    _use: RwLockReadGuard<'a, ()>,
}

impl DigestSigner for InUse<'_> {
    fn public(&self) -> &PublicKey {
        &self.key.public
    }

    fn certificate(&self) -> Result<&Certificate, signer::Error> {
        Ok(&self.module()?.certificate)
    }

    fn sign(
        &self,
        purpose: Purpose,
        digest: Digest,
        hash: &[u8],
    ) -> Result<RawSignature, signer::Error> {
        let secret = match purpose {
            Purpose::OpenPgp => &self.key.secret,
            Purpose::Cms => self.module()?.secret.as_ref().unwrap_or(&self.key.secret),
        };
        Ok(secret.sign(digest, hash)?)
    }
}

impl InUse<'_> {
    fn module(&self) -> Result<&ModuleKey, signer::Error> {
        self.key.module.get().ok_or(signer::Error::NoCertificate)
    }
}

/// The keystore with a bounded number of unlocked keys in front of it.
#[derive(Debug)]
pub struct Keyring {
    keystore: Keystore,
    unlocked: Mutex<LruCache<Identity, Arc<ProjectKey>>>,
    uses: Stripes<RwLock<()>>,
}

impl Keyring {
    /// A keyring with nothing unlocked yet.
    pub fn new(keystore: Keystore) -> Self {
        Self {
            keystore,
            unlocked: Mutex::new(LruCache::new(KEPT)),
            uses: Stripes::default(),
        }
    }

    /// The keystore, for all that needs no unlocked key.
    pub fn keystore(&self) -> &Keystore {
        &self.keystore
    }

    /// The identity's key, unlocked, or nothing where there is none.
    ///
    /// # Errors
    /// Those of the keystore.
    pub fn open(&self, identity: &Identity) -> Result<Option<Arc<ProjectKey>>, keystore::Error> {
        if let Some(key) = self.unlocked().get(identity) {
            return Ok(Some(key.clone()));
        }
        // Under the lock, so that a deletion does not come between reading the key and keeping it.
        let _lock = self.keystore.lock(identity);
        if let Some(key) = self.unlocked().get(identity) {
            return Ok(Some(key.clone()));
        }
        let Some(entry) = self.keystore.find_locked(identity)? else {
            return Ok(None);
        };
        let key = Arc::new(ProjectKey {
            public: entry.certificate()?.public_key(),
            secret: self.keystore.unlock(&entry)?,
            module: OnceLock::new(),
            entry,
        });
        self.unlocked().put(identity.clone(), key.clone());
        Ok(Some(key))
    }

    /// The certificate by which kernels know the project's modules, or nothing where none has been made yet. From here on, the key signs
    /// modules too.
    ///
    /// # Errors
    /// Those of the keystore.
    pub fn find_certificate<'a>(
        &self,
        key: &'a ProjectKey,
    ) -> Result<Option<&'a Certificate>, keystore::Error> {
        if let Some(module) = key.module.get() {
            return Ok(Some(&module.certificate));
        }
        let _lock = self.keystore.lock(&key.entry.identity);
        match self.keystore.find_module_key(&key.entry)? {
            Some(entry) => self.unlock_module_key(key, &entry).map(Some),
            None => Ok(None),
        }
    }

    /// As [`Keyring::find_certificate`], but makes the certificate, with the private key behind it, where there is none.
    ///
    /// # Errors
    /// Those of the keystore; [`keystore::Error::Deleted`] where the project's key has gone meanwhile.
    pub fn certificate<'a>(
        &self,
        key: &'a ProjectKey,
        new: impl FnOnce() -> NewModuleKey,
    ) -> Result<&'a Certificate, keystore::Error> {
        if let Some(certificate) = self.find_certificate(key)? {
            return Ok(certificate);
        }
        // Under the lock, so that it is made once, and no deletion comes between.
        let _lock = self.keystore.lock(&key.entry.identity);
        if let Some(entry) = self.keystore.find_module_key(&key.entry)? {
            return self.unlock_module_key(key, &entry);
        }
        let entry = self
            .keystore
            .create_module_key(&key.entry, &key.secret, &new())?;
        let certificate = self.unlock_module_key(key, &entry)?;
        tracing::info!(identity = %key.entry.identity, key = key.entry.fingerprint, certificate = certificate.serial(), "certificate created");
        Ok(certificate)
    }

    fn unlock_module_key<'a>(
        &self,
        key: &'a ProjectKey,
        entry: &ModuleKeyEntry,
    ) -> Result<&'a Certificate, keystore::Error> {
        let module = ModuleKey {
            certificate: entry.certificate()?,
            secret: self.keystore.unlock_module_key(&key.entry, entry)?,
        };
        Ok(&key.module.get_or_init(|| module).certificate)
    }

    /// Leave to sign with a key and to write what was signed: neither ever follows the answer to the key's deletion.
    ///
    /// # Errors
    /// [`signer::Error::Deleted`] stays, [`signer::Error::Unknown`] may pass.
    pub fn begin<'a>(&'a self, key: &'a ProjectKey) -> Result<InUse<'a>, signer::Error> {
        let in_use = self
            .uses
            .of(&key.entry.identity)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        match self.keystore.is_deleted(&key.entry) {
            Ok(false) => Ok(InUse { key, _use: in_use }),
            Ok(true) => Err(signer::Error::Deleted),
            Err(error) => Err(signer::Error::Unknown(error.to_string())),
        }
    }

    /// Makes the identity's key, unless there is one.
    ///
    /// # Errors
    /// Those of the keystore.
    pub fn create(&self, new: &NewKey) -> Result<Creation, keystore::Error> {
        self.keystore.create(new)
    }

    /// Gives the identity's key a later end, counted from now.
    ///
    /// # Errors
    /// Those of the keystore.
    pub fn extend(
        &self,
        identity: &Identity,
        validity: Validity,
    ) -> Result<Option<KeyEntry>, keystore::Error> {
        let _lock = self.keystore.lock(identity);
        let extended = self.keystore.extend(identity, validity);
        // It is read anew, with its new certificate.
        self.unlocked().pop(identity);
        extended
    }

    /// Deletes the identity's key for good, and returns once every use of it that had begun is over.
    ///
    /// # Errors
    /// Those of the keystore.
    pub fn delete(&self, identity: &Identity) -> Result<Option<KeyEntry>, keystore::Error> {
        let lock = self.keystore.lock(identity);
        let deleted = self.keystore.delete(identity);
        self.unlocked().pop(identity);
        // No use begins any more, and others need not wait for those that go on.
        drop(lock);
        drop(
            self.uses
                .of(identity)
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
        deleted
    }

    fn unlocked(&self) -> MutexGuard<'_, LruCache<Identity, Arc<ProjectKey>>> {
        self.unlocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
