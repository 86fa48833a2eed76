//! Encryption of key material at rest, and its erasure.
//!
//! Each secret is encrypted with AES-256-GCM under a key of its own, which is derived (HKDF-SHA-256, RFC 5869) from the master key
//! and from 32 random bytes in a slot of the file `slots`. The database never overwrites what it once wrote before it needs the
//! room, so old parts of its files may hold a deleted key's ciphertext for long; overwriting the slot makes all of it worthless.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    flushes::Flushes,
    key::random,
    store::{self, Store, Tree},
};

/// Bytes of a master key.
const MASTER_KEY_LEN: usize = 32;
/// Bytes of a slot.
const SLOT_LEN: usize = 32;
/// Bytes of a nonce of AES-GCM.
const NONCE_LEN: usize = 12;
/// What the keys are for that are derived from slots.
const PURPOSE: &[u8] = b"signdrop key material 1";
/// What the keys are for that encrypt what somebody else keeps.
const ENTRUSTED: &[u8] = b"signdrop entrusted key material 1";
/// Where the number of slots is kept that have been given out.
const SLOTS: &[u8] = b"slots";
/// Encrypted into the store by the first start, to tell a wrong master key from a damaged record.
const CHECK: &[u8] = b"the master key is right";

/// Why key material could not be encrypted, decrypted or erased.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The master key's text is not 32 bytes in base64. Stays.
    #[error("a master key is {MASTER_KEY_LEN} random bytes in base64")]
    NotAMasterKey,
    /// The store was made with another master key. Stays.
    #[error(
        "the master key is not the one that this store was made with: restore the right one, or start with an empty state directory"
    )]
    WrongMasterKey,
    /// Encryption failed, or the operating system gave no random bytes. May pass.
    #[error("cannot encrypt key material")]
    Seal,
    /// A secret cannot be decrypted: it is damaged, erased or another record's. Stays.
    #[error("the key material is damaged or another record's")]
    Sealed,
    /// The file of slots is shorter than it was: it is a copy that was made before the store's. May pass, where the right one comes back.
    #[error(
        "{} has {len} bytes of {wanted}: it is older than the store. Restore the one that belongs to it; where that is lost, so are the newest \
         keys, and `truncate -s {wanted}` counts them as deleted",
        .path.display()
    )]
    SlotsShort {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        len: u64,
        /// The bytes that the store knows of.
        wanted: u64,
    },
    /// The file of slots cannot be read or written. May pass.
    #[error("cannot read or write {}", .path.display())]
    Slots {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store failed. May pass.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotAMasterKey | Self::WrongMasterKey | Self::Sealed => false,
            Self::Seal | Self::Slots { .. } | Self::SlotsShort { .. } => true,
            Self::Store(error) => error.may_pass(),
        }
    }
}

/// The key under which all others are encrypted. It stays where it is in memory when it is passed on, and is cleared when dropped.
pub struct MasterKey(Zeroizing<Vec<u8>>);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl MasterKey {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Seal`] where the operating system gives no random bytes; may pass.
    pub fn generate() -> Result<Self, Error> {
        let bytes: [u8; MASTER_KEY_LEN] = random().ok_or(Error::Seal)?;
        let bytes = Zeroizing::new(bytes);
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    /// Reads the base64 of a master key; white space around it is allowed.
    ///
    /// # Errors
    /// [`Error::NotAMasterKey`], which stays.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let bytes = Zeroizing::new(
            STANDARD
                .decode(text.trim_ascii())
                .map_err(|_| Error::NotAMasterKey)?,
        );
        match bytes.len() {
            MASTER_KEY_LEN => Ok(Self(bytes)),
            _ => Err(Error::NotAMasterKey),
        }
    }

    /// The base64, as the file holds it.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(&*self.0))
    }

    fn derive(&self, purpose: &[u8], salt: &[u8; SLOT_LEN]) -> Result<LessSafeKey, Error> {
        let prk = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let info = [purpose];
        let okm = prk.expand(&info, &AES_256_GCM).map_err(|_| Error::Seal)?;
        Ok(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

/// An encrypted secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sealed {
    slot: u64,
    nonce: [u8; NONCE_LEN],
    ciphertext: Vec<u8>,
}

/// An encrypted secret that somebody else keeps, so that no slot can make it unreadable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entrusted {
    salt: [u8; SLOT_LEN],
    nonce: [u8; NONCE_LEN],
    ciphertext: Vec<u8>,
}

impl Sealed {
    pub(super) fn slot(&self) -> u64 {
        self.slot
    }
}

#[derive(Debug)]
pub(super) struct Vault {
    master: MasterKey,
    slots: File,
    path: PathBuf,
    flushes: Flushes,
    /// Where the number of slots is kept. Held while a slot is appended.
    count: Mutex<Tree>,
}

impl Vault {
    /// Opens the file of slots, and checks the master key against what the store's first start left.
    pub(super) fn open(store: &Store, state_dir: &Path, master: MasterKey) -> Result<Self, Error> {
        let path = state_dir.join("slots");
        let slots = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            // The file's name lasts from here on.
            .and_then(|slots| File::open(state_dir)?.sync_all().map(|()| slots))
            .map_err(|source| Error::Slots {
                path: path.clone(),
                source,
            })?;
        let vault = Self {
            master,
            slots,
            path,
            flushes: Flushes::default(),
            count: Mutex::new(store.tree("meta")?),
        };
        vault.check_master_key(store)?;
        Ok(vault)
    }

    fn check_master_key(&self, store: &Store) -> Result<(), Error> {
        let meta = store.tree("meta")?;
        if let Some(bytes) = meta.find(b"master")? {
            let sealed = postcard::from_bytes(&bytes).map_err(|_| Error::Sealed)?;
            return match self.open_sealed(&sealed, CHECK) {
                Ok(_) => Ok(()),
                Err(Error::Sealed) => Err(Error::WrongMasterKey),
                Err(error) => Err(error),
            };
        }
        let sealed = self.seal(self.new_slot()?, CHECK, CHECK)?;
        let bytes = postcard::to_stdvec(&sealed).map_err(|_| Error::Seal)?;
        meta.set(b"master", bytes)?;
        Ok(store.flush()?)
    }

    /// A slot that no secret has used, on the disk. The store counts it afterwards, and before its secret's record.
    pub(super) fn new_slot(&self) -> Result<u64, Error> {
        let bytes: [u8; SLOT_LEN] = random().ok_or(Error::Seal)?;
        let count = self.count();
        let len = self.len()?;
        // A crash may have left a part of a slot; it belongs to nobody.
        let slot = len.div_ceil(SLOT_LEN as u64);
        let known = count.number(SLOTS)?;
        if slot < known {
            return Err(self.short(len, known));
        }
        self.write(slot, &bytes)?;
        drop(count);
        self.flush()?;
        let count = self.count();
        let known = count.number(SLOTS)?.max(slot + 1);
        count.set(SLOTS, known.to_be_bytes().to_vec())?;
        Ok(slot)
    }

    fn count(&self) -> MutexGuard<'_, Tree> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> Result<u64, Error> {
        let metadata = self.slots.metadata();
        Ok(metadata.map_err(|source| self.failed(source))?.len())
    }

    fn short(&self, len: u64, slots: u64) -> Error {
        Error::SlotsShort {
            path: self.path.clone(),
            len,
            wanted: slots.saturating_mul(SLOT_LEN as u64),
        }
    }

    pub(super) fn seal(
        &self,
        slot: u64,
        associated: &[u8],
        secret: &[u8],
    ) -> Result<Sealed, Error> {
        let key = self.master.derive(PURPOSE, &self.read(slot)?)?;
        let (nonce, ciphertext) = encrypt(&key, associated, secret)?;
        Ok(Sealed {
            slot,
            nonce,
            ciphertext,
        })
    }

    pub(super) fn open_sealed(
        &self,
        sealed: &Sealed,
        associated: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let key = self.master.derive(PURPOSE, &self.read(sealed.slot)?)?;
        decrypt(&key, associated, sealed.nonce, &sealed.ciphertext)
    }

    pub(super) fn entrust(&self, associated: &[u8], secret: &[u8]) -> Result<Entrusted, Error> {
        let salt = random().ok_or(Error::Seal)?;
        let (nonce, ciphertext) =
            encrypt(&self.master.derive(ENTRUSTED, &salt)?, associated, secret)?;
        Ok(Entrusted {
            salt,
            nonce,
            ciphertext,
        })
    }

    pub(super) fn open_entrusted(
        &self,
        entrusted: &Entrusted,
        associated: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let key = self.master.derive(ENTRUSTED, &entrusted.salt)?;
        decrypt(&key, associated, entrusted.nonce, &entrusted.ciphertext)
    }

    /// Whether the secret's slot has been overwritten: the one sign that a key is deleted. One whose slot is missing is not.
    pub(super) fn is_erased(&self, sealed: &Sealed) -> Result<bool, Error> {
        Ok(self.find(sealed.slot)? == Some([0; SLOT_LEN]))
    }

    /// Makes the secret unreadable for ever, on the disk when this returns. One whose slot is missing is unreadable already.
    pub(super) fn erase(&self, sealed: &Sealed) -> Result<(), Error> {
        if self.find(sealed.slot)?.is_some() {
            self.write(sealed.slot, &[0; SLOT_LEN])?;
            self.flush()?;
        }
        Ok(())
    }

    /// A slot, or nothing where the file is too short for it.
    fn find(&self, slot: u64) -> Result<Option<[u8; SLOT_LEN]>, Error> {
        let mut bytes = [0; SLOT_LEN];
        let read = self
            .slots
            .read_exact_at(&mut bytes, slot.saturating_mul(SLOT_LEN as u64));
        match read {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn read(&self, slot: u64) -> Result<[u8; SLOT_LEN], Error> {
        match self.find(slot)? {
            Some(bytes) => Ok(bytes),
            None => {
                let known = self.count().number(SLOTS)?.max(slot.saturating_add(1));
                Err(self.short(self.len()?, known))
            }
        }
    }

    fn write(&self, slot: u64, bytes: &[u8; SLOT_LEN]) -> Result<(), Error> {
        self.slots
            .write_all_at(bytes, slot.saturating_mul(SLOT_LEN as u64))
            .map_err(|source| self.failed(source))
    }

    fn flush(&self) -> Result<(), Error> {
        self.flushes
            .join(|| self.slots.sync_data())
            .map_err(|reason| {
                store::fail();
                self.failed(io::Error::other(reason))
            })
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Slots {
            path: self.path.clone(),
            source,
        }
    }
}

fn encrypt(
    key: &LessSafeKey,
    associated: &[u8],
    secret: &[u8],
) -> Result<([u8; NONCE_LEN], Vec<u8>), Error> {
    let nonce: [u8; NONCE_LEN] = random().ok_or(Error::Seal)?;
    // With room for the tag, so that the secret is encrypted where it is and no copy of it stays behind.
    let mut ciphertext = Vec::with_capacity(secret.len() + AES_256_GCM.tag_len());
    ciphertext.extend_from_slice(secret);
    // Where encryption fails half way, the buffer may still hold the secret.
    let result = key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(associated),
        &mut ciphertext,
    );
    if result.is_err() {
        ciphertext.zeroize();
        return Err(Error::Seal);
    }
    Ok((nonce, ciphertext))
}

fn decrypt(
    key: &LessSafeKey,
    associated: &[u8],
    nonce: [u8; NONCE_LEN],
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    let len = key
        .open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated),
            &mut buffer,
        )
        .map_err(|_| Error::Sealed)?
        .len();
    buffer.truncate(len);
    Ok(buffer)
}
