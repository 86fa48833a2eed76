//! Opens what is below a root, and nothing else.

use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::Error;

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// A root that is open. It keeps its file system mounted, so it is not to be kept for longer than a walk.
#[derive(Debug)]
pub(crate) struct Root {
    descriptor: OwnedFd,
}

/// Which directory it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

impl Root {
    /// The root itself may be reached through symbolic links: whoever configured it meant where they lead.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        match rustix::fs::open(root, OFlags::PATH | READ, Mode::empty()) {
            Ok(descriptor) => Ok(Self { descriptor }),
            Err(errno) => Err(Error::RootGone {
                root: root.to_owned(),
                source: errno.into(),
            }),
        }
    }

    /// Which directory the root is.
    pub(crate) fn identity(&self) -> Result<Identity, Error> {
        match rustix::fs::fstat(&self.descriptor) {
            Ok(stat) => Ok(Identity::of(&stat)),
            Err(errno) => Err(Error::Resources {
                source: errno.into(),
            }),
        }
    }

    /// Opens a directory for reading.
    pub(crate) fn directory(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, READ | OFlags::NOFOLLOW)
    }

    /// Opens a file for reading. Never waits, not even at a FIFO.
    pub(crate) fn file(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.open_with(path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC)
    }

    /// What is at the path; of a symbolic link itself.
    pub(crate) fn stat(&self, path: &Path) -> rustix::io::Result<Stat> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::fstat(self.open_with(path, flags)?)
    }

    fn open_with(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        // `O_PATH` with `O_NOFOLLOW` opens a symbolic link at the end itself; anywhere else a link is refused.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.descriptor, path, flags, Mode::empty(), resolve)
    }
}

/// Accepts a path of plain names only, so that what is asked of `skip` and what is opened are the same.
pub(crate) fn check(root: &Path, path: &Path) -> Result<(), Error> {
    if path
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return Ok(());
    }
    Err(Error::Outside {
        path: root.join(path),
    })
}

/// Says whether the path, or a directory above it, is to be skipped.
pub(crate) fn is_skipped(path: &Path, skip: &dyn Fn(&Path) -> bool) -> bool {
    path.ancestors()
        .any(|above| !above.as_os_str().is_empty() && skip(above))
}

/// Says whether the errno means that there is no directory of this name (any more). `EXDEV` is said of one that was
/// moved out of the root while it was being opened.
pub(crate) fn is_gone(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV
    )
}

/// Calls `visit` with each name in the directory, and with its type where the file system keeps it there.
pub(crate) fn names(
    directory: OwnedFd,
    visit: &mut dyn FnMut(&Dir, &OsStr, FileType) -> ControlFlow<()>,
) -> rustix::io::Result<ControlFlow<()>> {
    let mut directory = Dir::new(directory)?;
    while let Some(entry) = directory.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if visit(&directory, OsStr::from_bytes(name), entry.file_type()).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// What is at the name in an open directory; of a symbolic link itself.
pub(crate) fn stat_at(directory: &Dir, name: &OsStr) -> rustix::io::Result<Stat> {
    rustix::fs::statat(directory.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// The directories in an open directory.
pub(crate) fn directories(directory: OwnedFd, path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let _: ControlFlow<()> = names(directory, &mut |directory, name, kind| {
        let kind = match kind {
            FileType::Unknown => stat_at(directory, name).map_or(FileType::Unknown, |stat| {
                FileType::from_raw_mode(stat.st_mode)
            }),
            kind => kind,
        };
        if kind == FileType::Directory {
            found.push(path.join(name));
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}
