//! The embedded database in which state is kept. The only place that knows sled.

use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::FlockOperation;

use crate::flushes::Flushes;

/// Bytes of the database that are kept in memory, whatever its size on disk.
const CACHE_BYTES: u64 = 16 << 20;
/// Bytes of a segment of the database's log. A page of more than a quarter of that would go to a file of its own, which the database
/// never synchronises, so that a power cut could leave a log that cannot be read. No page gets there: a leaf has 17 entries at the most, a page
/// above them 257 keys, some more where pages are merged at the same time, and there is room for 29 and 509 of the longest.
///
/// Source: `Node::should_split`, `Node::should_merge` and `Log::reserve_inner` of sled 0.34.
const SEGMENT_BYTES: usize = 8 << 20;
/// Bytes of a key at the most, as of a path (`PATH_MAX`).
const KEY_BYTES: usize = 4096;
/// Bytes of a value at the most.
const VALUE_BYTES: usize = 64 << 10;

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
    /// A key or a value is too long. Stays.
    #[error("a record of {len} bytes is more than the {most} that the store keeps")]
    TooLong {
        /// Its length.
        len: usize,
        /// What is possible.
        most: usize,
    },
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::InUse(_) | Self::Access(_) => true,
            Self::Open { .. } | Self::TooLong { .. } => false,
        }
    }
}

impl From<sled::Error> for Error {
    fn from(error: sled::Error) -> Self {
        if let sled::Error::Io(_) | sled::Error::ReportableBug(_) | sled::Error::Corruption { .. } =
            error
        {
            fail();
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

/// Notes that a write to a disk has failed: the next one would succeed without having written what this one lost.
pub(crate) fn fail() {
    HAS_FAILED.store(true, Ordering::Relaxed);
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
        // The database's own files can be read by whoever gets there.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| Error::Open {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        remove_unfinished(path);
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
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
            // Written once, by the first start, and not synchronised by it.
            File::open(path.join("conf"))?.sync_all()?;
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
            fail();
            Error::Access(reason)
        })
    }
}

/// Removes summaries of the log that a crash has cut off while they were made. The database takes one for the last that was made, and does not
/// open then; without it, it reads the log.
///
/// Source: `write_snapshot` and `get_snapshot_files` of sled 0.34.
fn remove_unfinished(path: &Path) {
    let Ok(file) = File::open(path.join("db")) else {
        return;
    };
    // As the database locks it, so that nobody is making one.
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    let names = std::fs::read_dir(path).into_iter().flatten().flatten();
    for name in names {
        let is_unfinished = name
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating"));
        if is_unfinished {
            // What stays is met by the database, which says so.
            let _ = std::fs::remove_file(name.path());
        }
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
    /// [`Error::Access`] may pass, [`Error::TooLong`] stays.
    pub fn set(&self, key: &[u8], value: Vec<u8>) -> Result<(), Error> {
        check_length(key, &value)?;
        self.tree.insert(key, value)?;
        Ok(())
    }

    /// Sets the value of a key and moves a number kept in another tree, both or neither.
    ///
    /// # Errors
    /// [`Error::Access`] may pass, [`Error::TooLong`] stays.
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
        check_length(key, &value)?;
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

fn check_length(key: &[u8], value: &[u8]) -> Result<(), Error> {
    for (len, most) in [(key.len(), KEY_BYTES), (value.len(), VALUE_BYTES)] {
        if len > most {
            return Err(Error::TooLong { len, most });
        }
    }
    Ok(())
}

fn number_of(bytes: Option<&[u8]>) -> u64 {
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_crash_while_the_log_is_summed_up_does_not_keep_the_store_from_opening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Store::open(&path).unwrap();
        store
            .tree("some")
            .unwrap()
            .set(b"key", b"value".to_vec())
            .unwrap();
        store.flush().unwrap();
        // Nobody else's is taken away.
        let unfinished = path.join("snap.00000000000000FF.generating");
        fs::copy(path.join("conf"), &unfinished).unwrap();
        assert!(matches!(Store::open(&path), Err(Error::InUse(_))));
        assert!(unfinished.exists());
        drop(store);
        let store = Store::open(&path).unwrap();
        let found = store.tree("some").unwrap().find(b"key").unwrap();
        assert_eq!(found, Some(b"value".to_vec()));
        assert!(!unfinished.exists());
    }

    #[test]
    fn the_longest_keys_and_values_never_get_to_files_that_nobody_synchronises() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        // Begins like all others, so that pages above the leaves have long keys, too.
        let key = |number: u64| {
            let mut key = vec![b'x'; KEY_BYTES - 8];
            key.extend(number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            key
        };
        let store = Store::open(&path).unwrap();
        let (long, short) = (store.tree("long").unwrap(), store.tree("short").unwrap());
        let blobs = path.join("blobs");
        let flush = || {
            store.flush().unwrap();
            assert_eq!(fs::read_dir(&blobs).unwrap().count(), 0);
        };
        let four_at_once = |work: &(dyn Fn(u64) + Sync)| {
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let flush = &flush;
                    scope.spawn(move || {
                        for number in (0..1000).map(|number| number * 4 + thread) {
                            work(number);
                            if number % 64 < 4 {
                                flush();
                            }
                        }
                    });
                }
            });
        };
        let set = |number: u64| {
            short.set(&key(number), Vec::new()).unwrap();
            if number < 400 {
                long.set(&key(number), vec![1; VALUE_BYTES]).unwrap();
            }
        };
        four_at_once(&set);
        // Pages that shrink are merged.
        four_at_once(&|number| {
            if number % 16 != 0 {
                short.unset(&key(number)).unwrap();
                long.unset(&key(number)).unwrap();
            }
        });
        four_at_once(&set);
        flush();
        let mode = fs::metadata(&path).unwrap().permissions();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
            0o700
        );
        drop((store, long, short));
        let store = Store::open(&path).unwrap();
        assert_eq!(
            store.tree("short").unwrap().entries(b"", None).count(),
            4000
        );
        let long = store.tree("long").unwrap();
        assert_eq!(long.find(&key(1)).unwrap().unwrap().len(), VALUE_BYTES);
        let refused = |result| matches!(result, Err(Error::TooLong { .. }));
        assert!(refused(long.set(&[0; KEY_BYTES + 1], Vec::new())));
        assert!(refused(long.set(b"key", vec![0; VALUE_BYTES + 1])));
        assert!(refused(long.set_and_count(
            b"key",
            vec![0; VALUE_BYTES + 1],
            (&long, b"number", 1)
        )));
    }
}
