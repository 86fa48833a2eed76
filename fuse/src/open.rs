//! What is open: files and directories, by the numbers that the kernel has for them.

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    fs::File,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{FileType, RawDir, SeekFrom},
    io::Errno,
};

use crate::node::Node;

/// A file that somebody has open.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) number: u64,
    /// The inode that the kernel has it open by.
    pub(crate) node: Arc<Node>,
    pub(crate) access: Access,
    pub(crate) way: Way,
    /// Whether the kernel has it open by what it passes this inode's reads and writes to, be they passed for this descriptor or not.
    pub(crate) is_backed: bool,
    target: Mutex<Target>,
}

/// What a descriptor reads and writes: another file than at first where it went on writing after a close.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) node: Arc<Node>,
    /// Nothing while the hook has it, which may ask the kernel whether anybody can write to it, and until it is used again.
    pub(crate) file: Option<Arc<File>>,
}

/// What a descriptor was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Reads,
    /// Writes, and perhaps reads.
    Writes,
}

/// How the kernel reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Each read and write is asked for.
    Asks,
    /// Through the kernel's cache.
    Caches,
    /// Passed to the file below, which is not held back as long as the descriptor is open.
    Passes,
    /// Writes are passed to the file below, and it is looked at when somebody looks for it or closes it: see `unseen`.
    Unseen,
}

impl OpenFile {
    pub(crate) fn new(
        number: u64,
        target: Target,
        access: Access,
        way: Way,
        is_backed: bool,
    ) -> Self {
        Self {
            number,
            node: target.node.clone(),
            access,
            way,
            is_backed,
            target: Mutex::new(target),
        }
    }

    pub(crate) fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name in a directory, as the directory tells it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) number: u64,
    pub(crate) kind: FileType,
    /// Where the next one is.
    pub(crate) next: u64,
}

/// A directory that somebody reads.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    pub(crate) file: OwnedFd,
    pub(crate) number: u64,
    reading: Mutex<Reading>,
}

/// What has been read ahead, and where that begins.
#[derive(Debug, Default)]
struct Reading {
    at: u64,
    ahead: VecDeque<Entry>,
    /// Where the descriptor stands.
    position: u64,
}

impl OpenDirectory {
    /// Shows the entries from `offset` on until `take` wants no more. The offsets are the directory's own, which stay.
    pub(crate) fn read(
        &self,
        offset: u64,
        take: &mut dyn FnMut(&Entry) -> bool,
    ) -> Result<(), Errno> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if reading.at != offset || offset == 0 {
            *reading = Reading {
                at: offset,
                ahead: VecDeque::new(),
                position: u64::MAX,
            };
        }
        loop {
            while let Some(entry) = reading.ahead.front() {
                if !take(entry) {
                    return Ok(());
                }
                reading.at = entry.next;
                reading.ahead.pop_front();
            }
            if !self.fill(&mut reading)? {
                return Ok(());
            }
        }
    }

    /// Reads some entries ahead; none are left where the answer is false.
    fn fill(&self, reading: &mut Reading) -> Result<bool, Errno> {
        if reading.position != reading.at {
            rustix::fs::seek(&self.file, SeekFrom::Start(reading.at))?;
        }
        let mut room = [MaybeUninit::uninit(); 32 << 10];
        let mut raw = RawDir::new(&self.file, &mut room);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let next = entry.next_entry_cookie();
            reading.ahead.push_back(Entry {
                name: OsString::from_vec(entry.file_name().to_bytes().to_vec()),
                number: entry.ino(),
                kind: entry.file_type(),
                next,
            });
            reading.position = next;
            if raw.is_buffer_empty() {
                break;
            }
        }
        Ok(!reading.ahead.is_empty())
    }
}

/// Everything that is open.
#[derive(Debug, Default)]
pub(crate) struct Opens {
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    directories: RwLock<HashMap<u64, Arc<OpenDirectory>>>,
    last: AtomicU64,
}

impl Opens {
    /// A number that nothing else has.
    pub(crate) fn number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn add(&self, open: OpenFile) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.insert(open.number, Arc::new(open));
    }

    pub(crate) fn file(&self, number: u64) -> Result<Arc<OpenFile>, Errno> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&number).cloned().ok_or(Errno::BADF)
    }

    /// Whether the kernel has an inode open for writing. Looks through everything that is open.
    pub(crate) fn is_written(&self, inode: u64) -> bool {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files
            .values()
            .any(|open| open.access == Access::Writes && open.node.number == inode)
    }

    pub(crate) fn remove(&self, number: u64) -> Option<Arc<OpenFile>> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.remove(&number)
    }

    pub(crate) fn add_directory(&self, file: OwnedFd, node: u64) -> u64 {
        let number = self.number();
        let directory = OpenDirectory {
            file,
            number: node,
            reading: Mutex::default(),
        };
        let mut directories = self
            .directories
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        directories.insert(number, Arc::new(directory));
        number
    }

    pub(crate) fn directory(&self, number: u64) -> Result<Arc<OpenDirectory>, Errno> {
        let directories = self
            .directories
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        directories.get(&number).cloned().ok_or(Errno::BADF)
    }

    pub(crate) fn remove_directory(&self, number: u64) {
        let mut directories = self
            .directories
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        directories.remove(&number);
    }
}
