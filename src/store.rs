//! The embedded database in which state is kept. The only place that knows sled.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::flushes::Flushes;

/// Bytes of the database that are kept in memory, whatever its size on disk.
const CACHE_BYTES: u64 = 16 << 20;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program has the store open. May pass.
    #[error("the store {} is in use by another signdrop", .0.display())]
    InUse(PathBuf),
    /// The store cannot be opened. Stays.
    #[error("cannot open the store {}: {reason}", .path.display())]
    Open {
        /// The store's directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Reading or writing failed; a full disk is the usual cause. May pass.
    #[error("cannot read or write the store: {0}")]
    Access(String),
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::InUse(_) | Self::Access(_) => true,
            Self::Open { .. } => false,
        }
    }
}

impl From<sled::Error> for Error {
    fn from(error: sled::Error) -> Self {
        if let sled::Error::Io(_) | sled::Error::ReportableBug(_) | sled::Error::Corruption { .. } =
            error
        {
            HAS_FAILED.store(true, Ordering::Relaxed);
        }
        Self::Access(error.to_string())
    }
}

/// The database refuses everything once a write has failed, until it is opened anew.
static HAS_FAILED: AtomicBool = AtomicBool::new(false);

/// Whether a store of this program has failed for good, as after a full disk: only a new start opens it again.
pub fn has_failed() -> bool {
    HAS_FAILED.load(Ordering::Relaxed)
}

/// Refuses to go on with a store that has failed: what memory has and the disk has not is nothing to rely on, nor to build on.
///
/// # Errors
/// [`Error::Access`], which may pass: the next start opens the store again.
pub fn check() -> Result<(), Error> {
    if has_failed() {
        return Err(Error::Access("an earlier write failed".into()));
    }
    Ok(())
}

/// An open store; only one program at a time has it open.
#[derive(Debug, Clone)]
pub struct Store {
    db: sled::Db,
    /// The database's file, opened once more: its own flush leaves length and disk cache to a later one.
    file: Arc<File>,
    flushes: Arc<Flushes>,
}

impl Store {
    /// Opens the store in the directory `path`, which is made where it is missing.
    ///
    /// # Errors
    /// [`Error::InUse`] and [`Error::Open`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            // What has to last is flushed by those who need it to; the rest is made anew by looking.
            .flush_every_ms(Some(1000))
            .open()
            .map_err(|error| match error {
                sled::Error::Io(io) if io.to_string().contains("lock") => {
                    Error::InUse(path.to_owned())
                }
                error => Error::Open {
                    path: path.to_owned(),
                    reason: error.to_string(),
                },
            })?;
        let opened = || {
            let file = File::open(path.join("db"))?;
            // The names of new files last from here on.
            File::open(path)?.sync_all()?;
            if let Some(parent) = path.parent() {
                File::open(parent)?.sync_all()?;
            }
            Ok(file)
        };
        let file = opened().map_err(|error: std::io::Error| Error::Open {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            db,
            file: Arc::new(file),
            flushes: Arc::default(),
        })
    }

    /// The tree of that name, made where it is missing.
    ///
    /// # Errors
    /// [`Error::Access`], which may pass.
    pub fn tree(&self, name: &str) -> Result<Tree, Error> {
        Ok(Tree {
            tree: self.db.open_tree(name)?,
        })
    }

    /// Returns when everything that was written before the call is on the disk.
    ///
    /// Callers that come while a flush is under way share the next one, so that a thousand of them cost a few.
    ///
    /// # Errors
    /// [`Error::Access`], which may pass.
    pub fn flush(&self) -> Result<(), Error> {
        let flushed = self.flushes.join(|| {
            self.db.flush().map_err(io::Error::other)?;
            self.file.sync_data()
        });
        flushed.map_err(|reason| {
            // The next one would succeed without having written what this one lost.
            HAS_FAILED.store(true, Ordering::Relaxed);
            Error::Access(reason)
        })
    }
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A map from bytes to bytes, in the order of its keys.
#[derive(Debug, Clone)]
pub struct Tree {
    tree: sled::Tree,
}

impl Tree {
    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Access`], which may pass; so for all methods.
    pub fn find(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.tree.get(key)?.map(|value| value.to_vec()))
    }

    /// Sets the value of a key; it lasts from the next [`Store::flush`] on.
    ///
    /// # Errors
    /// [`Error::Access`], which may pass.
    pub fn set(&self, key: &[u8], value: Vec<u8>) -> Result<(), Error> {
        self.tree.insert(key, value)?;
        Ok(())
    }

    /// Sets the value of a key and moves a number kept in another tree, both or neither.
    ///
    /// # Errors
    /// [`Error::Access`], which may pass.
    pub fn set_and_count(
        &self,
        key: &[u8],
        value: Vec<u8>,
        (numbers, name, by): (&Self, &[u8], i64),
    ) -> Result<(), Error> {
        use sled::{
            Transactional as _,
            transaction::{ConflictableTransactionError, TransactionError},
        };
        (&self.tree, &numbers.tree)
            .transaction(|(tree, numbers)| {
                tree.insert(key, value.as_slice())?;
                let number = number_of(numbers.get(name)?.as_deref()).saturating_add_signed(by);
                numbers.insert(name, &number.to_be_bytes())?;
                Ok::<(), ConflictableTransactionError<()>>(())
            })
            .map_err(|error| match error {
                TransactionError::Abort(()) => Error::Access("the change was given up".into()),
                TransactionError::Storage(error) => error.into(),
            })
    }

    /// A number that [`Tree::set_and_count`] keeps; 0 where it never did.
    ///
    /// # Errors
    /// [`Error::Access`], which may pass.
    pub fn number(&self, name: &[u8]) -> Result<u64, Error> {
        Ok(number_of(self.tree.get(name)?.as_deref()))
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`Error::Access`], which may pass.
    pub fn unset(&self, key: &[u8]) -> Result<(), Error> {
        self.tree.remove(key)?;
        Ok(())
    }

    /// Takes out the first entry whose key starts with `prefix`; no two callers get the same.
    ///
    /// # Errors
    /// [`Error::Access`], which may pass.
    pub fn take_first(&self, prefix: &[u8]) -> Result<Option<Entry>, Error> {
        while let Some(entry) = self.tree.scan_prefix(prefix).next() {
            let (key, _) = entry?;
            // Whoever gets the value back is the one who removed it.
            if let Some(value) = self.tree.remove(&key)? {
                return Ok(Some((key.to_vec(), value.to_vec())));
            }
        }
        Ok(None)
    }

    /// The entries whose keys start with `prefix`, in order, from the first key behind `after` on.
    pub fn entries(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<Entry, Error>> + use<> {
        use std::ops::Bound;
        let start = match after {
            Some(after) => Bound::Excluded(after.to_vec()),
            None => Bound::Included(prefix.to_vec()),
        };
        let prefix = prefix.to_vec();
        self.tree
            .range((start, Bound::Unbounded))
            .map(|entry| {
                let (key, value) = entry?;
                Ok((key.to_vec(), value.to_vec()))
            })
            .take_while(move |entry| {
                entry
                    .as_ref()
                    .map_or(true, |(key, _)| key.starts_with(&prefix))
            })
    }
}

fn number_of(bytes: Option<&[u8]>) -> u64 {
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}
