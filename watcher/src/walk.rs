//! Walks a tree without ever following a symbolic link below its root.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::Error;
use crate::beneath::{Identity, Root, check, is_gone, is_skipped, names, stat_at};

/// One thing a walk has met. Paths are relative to the root.
#[derive(Debug)]
pub enum Entry {
    /// A regular file.
    File {
        /// Its path.
        path: PathBuf,
        /// What the kernel says about it.
        stat: Stat,
    },

    /// Neither a regular file nor a directory.
    Special {
        /// Its path.
        path: PathBuf,
        /// What it is instead.
        kind: Kind,
    },

    /// A directory could not be read, or not to its end: files below it stay unseen. The walk goes on elsewhere.
    Failed(Error),
}

/// What the kernel says about a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The device that the file is on.
    pub device: u64,
    /// The inode's number there.
    pub inode: u64,
    /// How many names the file has.
    pub links: u64,
    /// The size in bytes.
    pub length: u64,
    /// When the content was last written.
    pub modified: SystemTime,
    /// When the content, the owner, the mode or the names last changed. Nobody can set it back.
    pub changed: SystemTime,
}

/// What is neither a regular file nor a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A symbolic link, wherever it leads.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character or block device.
    Device,
}

/// Visits each regular file at or below `below`, which is relative to `root` (empty for all of it).
///
/// No symbolic link is followed below `root`, not even if one takes a directory's place during the walk. What `skip`
/// answers true for is neither visited nor entered; it is asked for `below` and each directory above it, too. What is
/// renamed during the walk may be visited twice or not at all; all else is visited once. Names are bytes.
///
/// Memory grows with the number of directories, not with that of files. Answers `Break` if `visit` did.
///
/// # Errors
/// [`Error::RootGone`], [`Error::NotFound`] and [`Error::Unreadable`] if the walk could not begin; they may pass.
/// [`Error::Outside`] if `below` leads out of `root`; it stays. A directory that cannot be read later on is an
/// [`Entry::Failed`] and no error.
pub fn walk(
    root: &Path,
    below: &Path,
    skip: &dyn Fn(&Path) -> bool,
    visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Error> {
    /// Visits everything.
    struct All<'v>(&'v mut dyn FnMut(Entry) -> ControlFlow<()>);

    impl Visitor for All<'_> {
        fn enter(&mut self, _path: &Path, _identity: Identity) -> Access {
            Access::Granted
        }

        fn visit(&mut self, entry: Entry) -> ControlFlow<()> {
            (self.0)(entry)
        }

        fn leave(&mut self, _path: &Path) {}
    }

    walk_with(root, below, skip, &mut All(visit))
}

/// Sees a walk from nearer by.
pub(crate) trait Visitor {
    /// A directory has been opened and is about to be read; of a single file, the one that it is in.
    fn enter(&mut self, path: &Path, identity: Identity) -> Access;

    fn visit(&mut self, entry: Entry) -> ControlFlow<()>;

    /// The directory that was entered last has been read. Not told after a break.
    fn leave(&mut self, path: &Path);
}

/// Whether a directory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Granted,
    Denied,
}

/// As [`walk`].
pub(crate) fn walk_with(
    root: &Path,
    below: &Path,
    skip: &dyn Fn(&Path) -> bool,
    visitor: &mut dyn Visitor,
) -> Result<ControlFlow<()>, Error> {
    check(root, below)?;
    let at_root = Root::open(root)?;
    let missing = |errno| missing(root.join(below), errno);
    let stat = at_root.stat(below).map_err(missing)?;
    if is_skipped(below, skip) {
        return Ok(ControlFlow::Continue(()));
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        let parent = below.parent().unwrap_or(Path::new(""));
        let identity = Identity::of(&at_root.stat(parent).map_err(missing)?);
        if visitor.enter(parent, identity) == Access::Denied {
            return Ok(ControlFlow::Continue(()));
        }
        // Once more, so that it is seen after its directory was entered.
        let stat = at_root.stat(below).map_err(missing)?;
        let flow = visitor.visit(entry(below.to_owned(), &stat));
        visitor.leave(parent);
        return Ok(flow);
    }

    let mut pending = vec![below.to_owned()];
    while let Some(path) = pending.pop() {
        let flow = at_root
            .directory(&path)
            .and_then(|directory| read(directory, &path, &mut pending, skip, visitor));
        let flow = match flow {
            Ok(flow) => flow,
            // It was deleted or renamed since its name was read.
            Err(errno) if is_gone(errno) => ControlFlow::Continue(()),
            Err(errno) => visitor.visit(Entry::Failed(Error::Unreadable {
                directory: root.join(path),
                source: errno.into(),
            })),
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Visits the files in one directory and adds its directories to `pending`. Fails at the end if there was a name that
/// the kernel says nothing about.
fn read(
    directory: OwnedFd,
    path: &Path,
    pending: &mut Vec<PathBuf>,
    skip: &dyn Fn(&Path) -> bool,
    visitor: &mut dyn Visitor,
) -> rustix::io::Result<ControlFlow<()>> {
    let identity = Identity::of(&rustix::fs::fstat(&directory)?);
    if visitor.enter(path, identity) == Access::Denied {
        return Ok(ControlFlow::Continue(()));
    }
    let mut failure = None;
    let flow = names(directory, &mut |directory, name, kind| {
        let path = path.join(name);
        if skip(&path) {
            return ControlFlow::Continue(());
        }
        if kind == FileType::Directory {
            pending.push(path);
            return ControlFlow::Continue(());
        }
        match stat_at(directory, name) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                pending.push(path);
                ControlFlow::Continue(())
            }
            Ok(stat) => visitor.visit(entry(path, &stat)),
            Err(errno) => {
                if !is_gone(errno) {
                    failure = Some(errno);
                }
                ControlFlow::Continue(())
            }
        }
    });
    if !matches!(flow, Ok(ControlFlow::Break(()))) {
        visitor.leave(path);
    }
    match (flow?, failure) {
        (ControlFlow::Continue(()), Some(errno)) => Err(errno),
        (flow, _) => Ok(flow),
    }
}

fn entry(path: PathBuf, stat: &rustix::fs::Stat) -> Entry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            return Entry::File {
                path,
                stat: Stat::of(stat),
            };
        }
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Directory
        | FileType::Unknown => Kind::Device,
    };
    Entry::Special { path, kind }
}

fn missing(path: PathBuf, errno: Errno) -> Error {
    let source = errno.into();
    match errno {
        Errno::LOOP => Error::Outside { path },
        errno if is_gone(errno) => Error::NotFound { path, source },
        _ => Error::Unreadable {
            directory: path,
            source,
        },
    }
}

impl Stat {
    fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            links: stat.st_nlink,
            length: u64::try_from(stat.st_size).unwrap_or(0),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            changed: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// A file system may say a time before 1970 or beyond what `SystemTime` holds; neither is worth a failure.
fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    moment
        .and_then(|moment| moment.checked_add(Duration::from_nanos(nanoseconds)))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
