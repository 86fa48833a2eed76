//! What became of each artifact, kept so that no file is worked on twice.

use std::{
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{
    place::Stamp,
    store::{self, Store, Tree},
};

/// The version of the records' encoding, their first byte.
const VERSION: u8 = 1;

/// What became of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It got its project's signature.
    Signed,
    /// It lost its signatures.
    Unsigned,
    /// It was already as it should be.
    Unchanged,
    /// It has an artifact's name, but is none: a symbolic link, a FIFO, a translation file called `.ko`.
    Ignored,
    /// It could not be worked on; it is as it was.
    Failed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Signed,
        Self::Unsigned,
        Self::Unchanged,
        Self::Ignored,
        Self::Failed,
    ];

    /// The name as logs, metrics and the API write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Unsigned => "unsigned",
            Self::Unchanged => "unchanged",
            Self::Ignored => "ignored",
            Self::Failed => "failed",
        }
    }
}

/// Whether the same artifact may have another outcome without having changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lasting {
    /// The outcome stays until the file or the configuration changes.
    Stays,
    /// It is worth trying again.
    MayPass,
}

/// What was wanted of an artifact: a changed configuration makes another policy, and its artifacts arrive again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy(u64);

impl Policy {
    /// The policy that `description` describes completely.
    pub fn of(description: &str) -> Self {
        use aws_lc_rs::digest::{SHA256, digest};
        let hash = digest(&SHA256, description.as_bytes());
        let start = hash.as_ref().first_chunk().copied().unwrap_or_default();
        Self(u64::from_be_bytes(start))
    }
}

/// The time in Unix seconds.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The outcome of one content of a file under one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The content.
    pub stamp: Stamp,
    /// What was wanted.
    pub policy: Policy,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether that may change by itself.
    pub lasting: Lasting,
    /// Why, where there is something to tell.
    pub reason: String,
    /// When, in Unix seconds.
    pub at: u64,
}

impl Record {
    /// A lasting outcome of now.
    pub fn new(stamp: Stamp, policy: Policy, outcome: Outcome, reason: String) -> Self {
        Self {
            stamp,
            policy,
            outcome,
            lasting: Lasting::Stays,
            reason,
            at: now(),
        }
    }

    /// Whether nothing is left to do for this content under this policy.
    pub fn settles(&self, stamp: Stamp, policy: Policy) -> bool {
        self.is_of(stamp, policy) && self.lasting == Lasting::Stays
    }

    /// Whether it is the outcome of this content under this policy.
    pub fn is_of(&self, stamp: Stamp, policy: Policy) -> bool {
        self.stamp == stamp && self.policy == policy
    }

    /// Whether the file was written to.
    pub fn is_written(&self) -> bool {
        matches!(self.outcome, Outcome::Signed | Outcome::Unsigned)
    }

    /// Whether another record tells nothing that this one did not.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.is_of(other.stamp, other.policy)
            && self.outcome == other.outcome
            && self.reason == other.reason
    }
}

/// The records of all drop directories, by absolute path.
///
/// They are not flushed one by one: a record that is lost is made anew by looking at the file.
#[derive(Debug)]
pub struct Records {
    all: Tree,
    /// The paths whose outcome is `failed`, so that they are found without reading all.
    failed: Tree,
}

impl Records {
    /// Opens the records of `store`.
    ///
    /// # Errors
    /// [`store::Error`], which may pass; so for all methods.
    pub fn open(store: &Store) -> Result<Self, store::Error> {
        Ok(Self {
            all: store.tree("records")?,
            failed: store.tree("failed")?,
        })
    }

    /// The record of a path. One that cannot be understood counts as none.
    ///
    /// # Errors
    /// [`store::Error`], which may pass.
    pub fn find(&self, path: &Path) -> Result<Option<Record>, store::Error> {
        Ok(self
            .all
            .find(path.as_os_str().as_bytes())?
            .and_then(|bytes| decode(&bytes)))
    }

    /// Keeps a record.
    ///
    /// # Errors
    /// [`store::Error`], which may pass.
    pub fn put(&self, path: &Path, record: &Record) -> Result<(), store::Error> {
        let key = path.as_os_str().as_bytes();
        let bytes = postcard::to_extend(record, vec![VERSION])
            .map_err(|error| store::Error::Access(error.to_string()))?;
        self.all.set(key, bytes)?;
        match record.outcome {
            Outcome::Failed => self.failed.set(key, Vec::new()),
            Outcome::Signed | Outcome::Unsigned | Outcome::Unchanged | Outcome::Ignored => {
                self.failed.unset(key)
            }
        }
    }

    /// Drops the record of a path.
    ///
    /// # Errors
    /// [`store::Error`], which may pass.
    pub fn remove(&self, path: &Path) -> Result<(), store::Error> {
        let key = path.as_os_str().as_bytes();
        self.all.unset(key)?;
        self.failed.unset(key)
    }

    /// The paths at or below `path` that have a record, in order.
    pub fn below(
        &self,
        path: &Path,
    ) -> impl Iterator<Item = Result<PathBuf, store::Error>> + use<> {
        below(&self.all, path)
    }

    /// The failed artifacts at or below `path`, with their records.
    pub fn failed_below(
        &self,
        path: &Path,
    ) -> impl Iterator<Item = Result<(PathBuf, Record), store::Error>> + '_ {
        below(&self.failed, path).filter_map(|path| match path {
            Ok(path) => match self.find(&path) {
                Ok(record) => record
                    .filter(|record| record.outcome == Outcome::Failed)
                    .map(|record| Ok((path, record))),
                Err(error) => Some(Err(error)),
            },
            Err(error) => Some(Err(error)),
        })
    }
}

/// The paths in `tree` at or below `path`, in order: `/a/bc` begins as `/a/b` does, and is not below it.
///
/// # Errors
/// [`store::Error`], which may pass.
pub fn below(
    tree: &Tree,
    path: &Path,
) -> impl Iterator<Item = Result<PathBuf, store::Error>> + use<> {
    let key = path.as_os_str().as_bytes();
    let own = match tree.find(key) {
        Ok(found) => found.map(|_| Ok(path.to_owned())),
        Err(error) => Some(Err(error)),
    };
    let mut prefix = key.to_vec();
    if prefix.last() != Some(&b'/') {
        prefix.push(b'/');
    }
    let rest = tree.entries(&prefix, None);
    own.into_iter().chain(
        rest.map(|entry| entry.map(|(key, _)| PathBuf::from(std::ffi::OsString::from_vec(key)))),
    )
}

fn decode(bytes: &[u8]) -> Option<Record> {
    postcard::from_bytes(bytes.strip_prefix(&[VERSION])?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lasting_record_of_the_same_content_and_policy_settles() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = || Stamp::of(&rustix::fs::fstat(file.as_file()).unwrap());
        let policy = Policy::of("sign with a key");
        let before = stamp();
        let mut record = Record::new(before, policy, Outcome::Signed, String::new());
        assert!(record.settles(stamp(), policy));
        assert!(!record.settles(stamp(), Policy::of("sign with another key")));
        file.as_file().set_len(1).unwrap();
        assert!(!record.settles(stamp(), policy));
        record.lasting = Lasting::MayPass;
        assert!(!record.settles(before, policy));
    }

    #[test]
    fn a_directory_whose_name_begins_alike_is_not_below() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(&Store::open(dir.path()).unwrap()).unwrap();
        let file = tempfile::tempfile().unwrap();
        let stamp = Stamp::of(&rustix::fs::fstat(&file).unwrap());
        let record = Record::new(stamp, Policy::of(""), Outcome::Failed, "why".into());
        for path in ["/a/b/x.rpm", "/a/bc/x.rpm", "/a/b.rpm"] {
            records.put(Path::new(path), &record).unwrap();
        }
        let failed: Vec<PathBuf> = records
            .failed_below(Path::new("/a/b"))
            .map(|found| found.unwrap().0)
            .collect();
        assert_eq!(failed, [PathBuf::from("/a/b/x.rpm")]);
        assert_eq!(records.below(Path::new("/a")).count(), 3);
    }
}
