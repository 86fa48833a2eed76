//! Where a file is: a directory that is held open, and a name in it.
//!
//! Names are looked up without following a symbolic link below the root, so that nobody can lead the daemon out of a drop
//! directory, and every later step means the same directory whatever becomes of its name.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use signdrop_watcher::{Writers, writers};

/// What tells one content of a file from the next: any write, truncation, replacement or rename moves one of these.
///
/// The device is left out, since its number may differ after each boot. The default is no file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Stamp {
    /// The stamp of what `stat` speaks of.
    pub fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            len: stat.st_size as u64,
            modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
            changed: (stat.st_ctime, stat.st_ctime_nsec as u32),
        }
    }

    /// The inode's number.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The file's length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has been written between the two: names, owner and mode may have changed.
    pub fn has_content_of(&self, other: &Self) -> bool {
        (self.inode, self.len, self.modified) == (other.inode, other.len, other.modified)
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The last change to the content, in seconds and nanoseconds since 1970.
    pub fn modified(&self) -> (i64, u32) {
        self.modified
    }
}

/// A name in a directory that is held open.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    name: OsString,
    has_known_writers: bool,
}

impl Place {
    /// The place of `path` below `root`. Symbolic links are followed in `root` only.
    ///
    /// # Errors
    /// Those of openat2(2); [`Errno::LOOP`] for a symbolic link, [`Errno::XDEV`] for a path that leads outside.
    pub fn beneath(root: &Path, path: &Path) -> Result<Self, Errno> {
        let root = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
        let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => rustix::fs::openat2(
                &root,
                parent,
                DIRECTORY,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
            )?,
            _ => root,
        };
        Ok(Self {
            directory: parent,
            name,
            has_known_writers: false,
        })
    }

    /// A name in a directory that the caller holds open.
    ///
    /// # Errors
    /// Those of dup(2).
    pub fn within(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Self> {
        Ok(Self {
            directory: directory.try_clone_to_owned()?,
            name: name.to_owned(),
            has_known_writers: false,
        })
    }

    /// The same where the caller knows who has the file open for writing, and sees to it himself that what they go on writing is noticed.
    pub fn with_known_writers(self) -> Self {
        Self {
            has_known_writers: true,
            ..self
        }
    }

    /// The place of a path that the caller may name freely; symbolic links are followed, but for its last component.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn of_path(path: &Path) -> Result<Self, Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let directory = rustix::fs::openat(CWD, parent, DIRECTORY, Mode::empty())?;
        Ok(Self {
            directory,
            name,
            has_known_writers: false,
        })
    }

    /// Whether the caller knows who has the file open for writing.
    pub(crate) fn has_known_writers(&self) -> bool {
        self.has_known_writers
    }

    /// Whether somebody whom the caller does not know of has this file open for writing, which is the one at this place.
    pub(crate) fn is_written(&self, file: &File) -> bool {
        !self.has_known_writers && writers(file) == Writers::Some
    }

    /// The directory.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The name.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Opens the file for reading. Never waits, be the name a FIFO's.
    ///
    /// # Errors
    /// Those of openat(2); [`Errno::LOOP`] for a symbolic link.
    pub fn open(&self) -> Result<File, Errno> {
        self.open_with(OFlags::RDONLY)
    }

    /// Opens the file for reading and writing.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub fn open_for_writing(&self) -> Result<File, Errno> {
        self.open_with(OFlags::RDWR)
    }

    fn open_with(&self, access: OFlags) -> Result<File, Errno> {
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty()).map(File::from)
    }

    /// What the kernel says of the name, a symbolic link being itself.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Makes the directory's present names last.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn sync_directory(&self) -> io::Result<()> {
        // What is open as a mere path cannot be synchronised.
        let directory = rustix::fs::openat(
            &self.directory,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(rustix::fs::fsync(directory)?)
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
