//! Projects' keys on the disk: made once, encrypted, listed, deleted for good.

mod entrusted;
mod extension;
mod module_key;
mod vault;

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use entrusted::{EntrustedKey, Lent, NotEntrusted};
pub use extension::later_than;
pub use module_key::{ModuleKeyEntry, ModuleKeySource, NewModuleKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
pub use vault::{Error as VaultError, MasterKey};
use vault::{Sealed, Vault};

use crate::{
    identity::Identity,
    key::{
        self, Algorithm, SecretKey,
        openpgp::{self, Certificate},
        x509::{self, NotForModules},
    },
    store::{self, Store, Tree},
    stripes::Stripes,
};

/// The version of the records' encoding, their first byte.
const RECORD_VERSION: u8 = 1;

/// How many deleted keys are remembered of an identity: a record's length is limited.
const FORMER: usize = 500;

/// Where the number of keys is kept.
const COUNT: &[u8] = b"keys";

/// Why the keystore did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A key could not be made or read.
    #[error(transparent)]
    Key(#[from] key::Error),
    /// A certificate could not be made or read.
    #[error(transparent)]
    OpenPgp(#[from] openpgp::Error),
    /// A certificate for kernel modules could not be made or read.
    #[error(transparent)]
    X509(#[from] x509::Error),
    /// The project's key cannot sign kernel modules. May pass: somebody changes the configuration, or makes another key.
    #[error(transparent)]
    NotForModules(NotForModules),
    /// The key material could not be encrypted, decrypted or kept.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The project's key has been deleted meanwhile. Stays.
    #[error("the key has been deleted")]
    Deleted,
    /// The key is valid for longer than it was to be. Stays.
    #[error(
        "the key of {0} is valid for as long or longer already; only a later end can be given to it"
    )]
    Earlier(String),
    /// The key would be valid for longer than OpenPGP can say. Stays.
    #[error(
        "the key of {0} cannot be given so late an end: OpenPGP counts a key's validity from its making, up to 136 years; \"never\" is possible"
    )]
    TooLate(String),
    /// The key was deleted before. Stays.
    #[error("the key {0} has been deleted, and does not come back")]
    Formerly(String),
    /// A record cannot be understood: another version wrote it, or the store is damaged. Stays.
    #[error("the record of {0} cannot be read: it is damaged or of a newer version")]
    Record(String),
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => error.may_pass(),
            Self::Key(error) => error.may_pass(),
            Self::OpenPgp(error) => error.may_pass(),
            Self::X509(error) => error.may_pass(),
            Self::Vault(error) => error.may_pass(),
            Self::NotForModules(_) => true,
            Self::Record(_)
            | Self::Formerly(_)
            | Self::Earlier(_)
            | Self::TooLate(_)
            | Self::Deleted => false,
        }
    }
}

/// What is known of a key without unlocking it.
#[derive(Debug, Clone)]
pub struct KeyEntry {
    /// The e-mail that names the key.
    pub identity: Identity,
    /// Algorithm and size.
    pub algorithm: Algorithm,
    /// The fingerprint in upper-case hexadecimal.
    pub fingerprint: String,
    /// When the key was made, in Unix seconds.
    pub created: u64,
    /// When the key expires, in Unix seconds, if it does.
    pub expires: Option<u64>,
    /// The public packets.
    certificate: Vec<u8>,
    secret: Sealed,
}

impl KeyEntry {
    /// Whether nobody would accept a signature of the key any more.
    pub fn has_expired(&self) -> bool {
        self.expires
            .is_some_and(|at| at <= unix_seconds(SystemTime::now()))
    }

    /// The certificate.
    ///
    /// # Errors
    /// [`openpgp::Error::NotACertificate`], which stays.
    pub fn certificate(&self) -> Result<Certificate, openpgp::Error> {
        Certificate::parse(&self.certificate)
    }
}

/// What a new key is to be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The e-mail that names the key.
    pub identity: Identity,
    /// The name in the user id, `NAME <EMAIL>`.
    pub name: String,
    /// Algorithm and size.
    pub algorithm: Algorithm,
    /// How long the key is valid; for ever where nothing is said.
    pub expires: Option<Duration>,
}

/// What came of a wish for a key.
#[derive(Debug)]
pub enum Creation {
    /// The key is new.
    New(KeyEntry),
    /// The identity had a key already, which is left as it is.
    Existing(KeyEntry),
}

impl Creation {
    /// The key, new or not.
    pub fn into_entry(self) -> KeyEntry {
        match self {
            Self::New(entry) | Self::Existing(entry) => entry,
        }
    }
}

/// What stands under an identity. The position of a variant is part of the encoding.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Record {
    Key {
        algorithm: Algorithm,
        fingerprint: String,
        created: u64,
        expires: Option<u64>,
        certificate: Vec<u8>,
        secret: Sealed,
        /// Fingerprints of the identity's deleted keys, so that none of them is ever taken in again.
        former: Vec<String>,
    },
    Tombstone {
        former: Vec<String>,
        /// When the last key was deleted, in Unix seconds.
        deleted: u64,
    },
}

/// All keys of an installation.
#[derive(Debug)]
pub struct Keystore {
    store: Store,
    keys: Tree,
    modules: Tree,
    pool: Tree,
    meta: Tree,
    vault: Vault,
    locks: Stripes<Mutex<()>>,
    /// Held while a key is made, and taken before the one above.
    making: Stripes<Mutex<()>>,
}

impl Keystore {
    /// Opens the keys of `store`; key material that has to be erasable lies in a file below `state_dir`.
    ///
    /// Takes the same time whatever the number of keys.
    ///
    /// # Errors
    /// [`vault::Error::WrongMasterKey`], which stays, where the keys were encrypted under another master key.
    pub fn open(store: &Store, state_dir: &Path, master: MasterKey) -> Result<Self, Error> {
        Ok(Self {
            keys: store.tree("keys")?,
            modules: store.tree("modules")?,
            pool: store.tree("pool")?,
            meta: store.tree("meta")?,
            vault: Vault::open(store, state_dir, master)?,
            store: store.clone(),
            locks: Stripes::default(),
            making: Stripes::default(),
        })
    }

    /// The identity's key.
    ///
    /// # Errors
    /// [`Error::Store`] may pass, [`Error::Record`] stays.
    pub fn find(&self, identity: &Identity) -> Result<Option<KeyEntry>, Error> {
        // A key that is being made is not there before it is on the disk.
        let _lock = self.lock(identity);
        self.find_locked(identity)
    }

    /// As [`Keystore::find`], for a caller that holds [`Keystore::lock`].
    ///
    /// # Errors
    /// As [`Keystore::find`].
    pub fn find_locked(&self, identity: &Identity) -> Result<Option<KeyEntry>, Error> {
        store::check()?;
        let Some(bytes) = self.keys.find(identity.as_str().as_bytes())? else {
            return Ok(None);
        };
        self.entry(identity.clone(), decode(&bytes, identity.as_str())?)
    }

    /// The key that a record speaks of, or nothing where it is deleted, be the tombstone written yet or not.
    fn entry(&self, identity: Identity, record: Record) -> Result<Option<KeyEntry>, Error> {
        match record {
            Record::Key {
                algorithm,
                fingerprint,
                created,
                expires,
                certificate,
                secret,
                former: _,
            } if !self.vault.is_erased(&secret)? => Ok(Some(KeyEntry {
                identity,
                algorithm,
                fingerprint,
                created,
                expires,
                certificate,
                secret,
            })),
            Record::Key { .. } | Record::Tombstone { .. } => Ok(None),
        }
    }

    /// Keeps others from changing what stands under `identity`.
    pub fn lock(&self, identity: &Identity) -> MutexGuard<'_, ()> {
        self.locks
            .of(identity)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the identity's key, unless there is one. It is on the disk when this returns.
    ///
    /// However many ask at once, one key is made. The caller does not hold [`Keystore::lock`].
    ///
    /// # Errors
    /// Those of the store and of key generation, which may pass.
    pub fn create(&self, new: &NewKey) -> Result<Creation, Error> {
        // Whoever only looks for a key of these need not wait for what takes long.
        let _making = self
            .making
            .of(&new.identity)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = self.find(&new.identity)? {
            return Ok(Creation::Existing(entry));
        }
        let (secret, slot) = self.fresh_secret(new.algorithm)?;
        let now = SystemTime::now();
        let certificate = Certificate::make(&secret, &new.name, &new.identity, now, new.expires)?;
        self.take_in(&new.identity, || Ok((secret, slot, certificate)))
    }

    /// Takes in a key with the certificate that it has elsewhere, unless the identity has a key; otherwise as [`Keystore::create`].
    ///
    /// # Errors
    /// [`Error::Formerly`] stays, where the key was deleted here; those of the store may pass.
    pub fn import(
        &self,
        identity: &Identity,
        secret: SecretKey,
        certificate: Certificate,
    ) -> Result<Creation, Error> {
        self.take_in(identity, || {
            Ok((secret, self.vault.new_slot()?, certificate))
        })
    }

    /// Whether a key of that fingerprint was the identity's, and has been deleted.
    ///
    /// # Errors
    /// [`Error::Store`] may pass, [`Error::Record`] stays.
    pub fn was_deleted(&self, identity: &Identity, fingerprint: &str) -> Result<bool, Error> {
        let name = identity.as_str();
        Ok(match self.keys.find(name.as_bytes())? {
            // A key that is still there is among them only where its deletion was cut off between its two steps.
            Some(bytes) => {
                let former = former(decode(&bytes, name)?);
                self.find(identity)?.is_none() && former.iter().any(|key| key == fingerprint)
            }
            None => false,
        })
    }

    /// Seals and keeps a key, the slot of its seal and its certificate, unless the identity has a key.
    fn take_in(
        &self,
        identity: &Identity,
        key: impl FnOnce() -> Result<(SecretKey, u64, Certificate), Error>,
    ) -> Result<Creation, Error> {
        let _lock = self.lock(identity);
        if let Some(entry) = self.find_locked(identity)? {
            return Ok(Creation::Existing(entry));
        }
        let (secret, slot, certificate) = key()?;
        let public = certificate.public_key();
        let fingerprint = public.fingerprint().to_string();
        let sealed = self.vault.seal(
            slot,
            &associated(identity, &fingerprint),
            &secret.to_pkcs8()?,
        )?;
        let created = unix_seconds(public.created());
        let entry = KeyEntry {
            identity: identity.clone(),
            algorithm: secret.algorithm(),
            fingerprint,
            created,
            expires: certificate.lifetime().map(|time| created + time.as_secs()),
            certificate: certificate.to_bytes()?,
            secret: sealed,
        };
        self.keep(&entry)?;
        Ok(Creation::New(entry))
    }

    /// Writes a new key's record. It is on the disk when this returns.
    fn keep(&self, entry: &KeyEntry) -> Result<(), Error> {
        let name = entry.identity.as_str();
        let present = match self.keys.find(name.as_bytes())? {
            Some(bytes) => Some(decode(&bytes, name)?),
            None => None,
        };
        // One whose deletion was cut off between its two steps is still counted.
        let counts = match present {
            Some(Record::Key { .. }) => 0,
            Some(Record::Tombstone { .. }) | None => 1,
        };
        let former = present.map_or(Vec::new(), former);
        if former.contains(&entry.fingerprint) {
            return Err(Error::Formerly(entry.fingerprint.clone()));
        }
        let record = Record::Key {
            algorithm: entry.algorithm,
            fingerprint: entry.fingerprint.clone(),
            created: entry.created,
            expires: entry.expires,
            certificate: entry.certificate.clone(),
            secret: entry.secret.clone(),
            former,
        };
        let bytes = encode(&record, name)?;
        self.keys
            .set_and_count(name.as_bytes(), bytes, (&self.meta, COUNT, counts))?;
        Ok(self.store.flush()?)
    }

    /// Whether the key has been deleted since `entry` was read. Costs one read of 32 bytes.
    ///
    /// # Errors
    /// [`vault::Error::Slots`], which may pass.
    pub fn is_deleted(&self, entry: &KeyEntry) -> Result<bool, Error> {
        store::check()?;
        Ok(self.vault.is_erased(&entry.secret)?)
    }

    /// Decrypts a key.
    ///
    /// # Errors
    /// [`vault::Error::Sealed`], which stays, where record and identity do not belong together or are damaged.
    pub fn unlock(&self, entry: &KeyEntry) -> Result<SecretKey, Error> {
        let pkcs8 = self.vault.open_sealed(
            &entry.secret,
            &associated(&entry.identity, &entry.fingerprint),
        )?;
        Ok(SecretKey::from_pkcs8(entry.algorithm, &pkcs8)?)
    }

    /// Deletes the identity's key for good and answers it, or nothing where there is none. The caller holds [`Keystore::lock`].
    ///
    /// What decrypts the key is overwritten first; from then on nobody can read it, not even out of old parts of the store's files.
    ///
    /// # Errors
    /// Those of the store, which may pass; the key may be gone all the same, and is then not found any more.
    pub fn delete(&self, identity: &Identity) -> Result<Option<KeyEntry>, Error> {
        let name = identity.as_str();
        let Some(bytes) = self.keys.find(name.as_bytes())? else {
            return Ok(None);
        };
        let record: Record = decode(&bytes, name)?;
        let present = self.entry(identity.clone(), record.clone())?;
        if let Record::Key { secret, .. } = &record {
            self.vault.erase(secret)?;
            let tombstone = Record::Tombstone {
                former: former(record),
                deleted: unix_seconds(SystemTime::now()),
            };
            let bytes = encode(&tombstone, name)?;
            self.keys
                .set_and_count(name.as_bytes(), bytes, (&self.meta, COUNT, -1))?;
            // Worthless since the slot is gone; what a crash leaves of it counts no more.
            self.modules.unset(name.as_bytes())?;
            self.store.flush()?;
        }
        Ok(present)
    }

    /// The keys in the order of their identities, from the first behind `after` on.
    ///
    /// # Errors
    /// [`Error::Store`] may pass, [`Error::Record`] stays.
    pub fn entries(
        &self,
        after: Option<&str>,
    ) -> impl Iterator<Item = Result<KeyEntry, Error>> + '_ {
        let understood = |(name, bytes): (Vec<u8>, Vec<u8>)| {
            let name = String::from_utf8_lossy(&name).into_owned();
            let identity = name.parse().map_err(|_| Error::Record(name.clone()))?;
            self.entry(identity, decode(&bytes, &name)?)
        };
        let records = self.keys.entries(b"", after.map(str::as_bytes));
        records
            .filter_map(move |record| record.map_err(Error::from).and_then(understood).transpose())
    }

    /// At most `limit` keys, as [`Keystore::entries`].
    ///
    /// # Errors
    /// [`Error::Store`] may pass, [`Error::Record`] stays.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<KeyEntry>, Error> {
        self.entries(after).take(limit).collect()
    }

    /// How many keys there are. Takes the same time however many.
    ///
    /// # Errors
    /// [`Error::Store`], which may pass.
    pub fn count(&self) -> Result<u64, Error> {
        Ok(self.meta.number(COUNT)?)
    }

    /// Returns when everything that was written before is on the disk.
    ///
    /// # Errors
    /// [`Error::Store`], which may pass.
    pub fn flush(&self) -> Result<(), Error> {
        Ok(self.store.flush()?)
    }

    /// Prepares one RSA key so that a later [`Keystore::create`] need not wait for it, unless `target` are there already.
    ///
    /// Answers whether one was prepared.
    ///
    /// # Errors
    /// Those of the store and of key generation, which may pass.
    pub fn prepare(&self, algorithm: Algorithm, target: usize) -> Result<bool, Error> {
        let prefix = pool_prefix(algorithm);
        if !algorithm.is_rsa() || self.pool.entries(&prefix, None).count() >= target {
            return Ok(false);
        }
        let secret = SecretKey::generate(algorithm)?;
        let slot = self.vault.new_slot()?;
        let sealed = self.vault.seal(slot, &prefix, &secret.to_pkcs8()?)?;
        let mut place = prefix;
        place.extend_from_slice(&slot.to_be_bytes());
        self.pool.set(&place, encode(&sealed, "a prepared key")?)?;
        Ok(true)
    }

    /// A prepared key, or one that is generated now, and the slot that it is to be encrypted with.
    fn fresh_secret(&self, algorithm: Algorithm) -> Result<(SecretKey, u64), Error> {
        match self.take_prepared(algorithm)? {
            Some((secret, sealed)) => Ok((secret, sealed.slot())),
            None => Ok((SecretKey::generate(algorithm)?, self.vault.new_slot()?)),
        }
    }

    /// A prepared key, which nobody else gets, and what it was encrypted as.
    fn take_prepared(&self, algorithm: Algorithm) -> Result<Option<(SecretKey, Sealed)>, Error> {
        let prefix = pool_prefix(algorithm);
        while let Some((_, bytes)) = self.pool.take_first(&prefix)? {
            let sealed: Sealed = decode(&bytes, "a prepared key")?;
            // A crash may have come between the erasure of its slot and its removal.
            if !self.vault.is_erased(&sealed)? {
                let pkcs8 = self.vault.open_sealed(&sealed, &prefix)?;
                return Ok(Some((SecretKey::from_pkcs8(algorithm, &pkcs8)?, sealed)));
            }
        }
        Ok(None)
    }

    /// Writes and removes a record, durably: whether the store can be written at all.
    ///
    /// # Errors
    /// [`Error::Store`], which may pass.
    pub fn probe(&self) -> Result<(), Error> {
        let probe = self.store.tree("probe")?;
        probe.set(b"probe", vec![RECORD_VERSION])?;
        self.store.flush()?;
        Ok(probe.unset(b"probe")?)
    }
}

/// The deleted keys that are remembered of an identity, once its present one is deleted, too.
fn former(record: Record) -> Vec<String> {
    match record {
        Record::Key {
            mut former,
            fingerprint,
            ..
        } => {
            former.push(fingerprint);
            let forgotten = former.len().saturating_sub(FORMER);
            former.drain(..forgotten);
            former
        }
        Record::Tombstone { former, .. } => former,
    }
}

/// What a key's encryption is bound to, so that no record can be put in another's place.
fn associated(identity: &Identity, fingerprint: &str) -> Vec<u8> {
    format!("signdrop key {RECORD_VERSION}\0{identity}\0{fingerprint}").into_bytes()
}

fn pool_prefix(algorithm: Algorithm) -> Vec<u8> {
    format!("{algorithm}/").into_bytes()
}

/// A time in Unix seconds; one before 1970 is 0.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn encode<T: Serialize>(record: &T, name: &str) -> Result<Vec<u8>, Error> {
    postcard::to_extend(record, vec![RECORD_VERSION]).map_err(|_| Error::Record(name.to_owned()))
}

fn decode<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T, Error> {
    bytes
        .strip_prefix(&[RECORD_VERSION])
        .and_then(|record| postcard::from_bytes(record).ok())
        .ok_or_else(|| Error::Record(name.to_owned()))
}
