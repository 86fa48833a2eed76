//! The tree below a mount: how its inodes are reached on the disk, and what every operation shares.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::FileExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use fuser::{FileAttr, INodeNo, Notifier};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use crate::{
    Error, HEAD, Hook,
    closers::Closers,
    file_id::FileId,
    held::Index,
    node::{NOWHERE, Name, Node, Nodes, Place, ROOT},
    open::Opens,
    redirects::Redirects,
    settling::Settling,
    unseen::Unseen,
};

/// How long the kernel may believe what it was told. What changes through the mount is told at once.
pub(crate) const TRUST: Duration = Duration::from_secs(60);
/// For what may become something else at any time.
pub(crate) const DISTRUST: Duration = Duration::ZERO;

/// A directory that is open as a mere path.
pub(crate) const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const AS_PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The tree.
pub(crate) struct Tree {
    /// Open for reading, since handles are opened by it.
    pub(crate) root: OwnedFd,
    device: u64,
    pub(crate) nodes: Nodes,
    pub(crate) opens: Opens,
    pub(crate) index: Index,
    pub(crate) redirects: Redirects,
    pub(crate) hook: Arc<dyn Hook>,
    pub(crate) closers: Closers,
    /// Make files last whose closes are answered. Whoever waits for such a file may have the kernel keep its directory locked, which
    /// these never wait for, either.
    pub(crate) flushers: Closers,
    /// Finish what is being renamed. The kernel keeps both directories locked meanwhile, so that closers may have to wait for
    /// that to tell it of changes; these never wait for the kernel.
    pub(crate) renamers: Closers,
    /// Tells the kernel of changes that it did not make itself.
    pub(crate) notifier: OnceLock<Notifier>,
    passes: AtomicBool,
    /// Shared by those who open a file that is not held back because of its path. Whoever renames a directory to where that is
    /// otherwise has it alone, so that no such file comes along unseen.
    pub(crate) passing: RwLock<()>,
    pub(crate) settling: Arc<Settling>,
    pub(crate) unseen: Unseen,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree")
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

/// A file that has been found: open as a mere path, and what the kernel says of it.
pub(crate) struct Found {
    pub(crate) file: OwnedFd,
    pub(crate) stat: Stat,
}

impl Found {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// The first bytes of what is a regular file.
    pub(crate) fn head(&self) -> Result<Vec<u8>, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(magic_link(self.file.as_fd()), flags, Mode::empty())?;
        head(&file.into())
    }
}

impl Tree {
    pub(crate) fn open(path: &Path, hook: Arc<dyn Hook>) -> Result<Self, Error> {
        let failed = |errno: Errno| Error::Root {
            path: path.to_owned(),
            source: errno.into(),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        let device = rustix::fs::fstat(&root).map_err(failed)?.st_dev;
        let no_handles = |errno: Errno| Error::NoHandles {
            path: path.to_owned(),
            source: errno.into(),
        };
        let id = FileId::of(&root).map_err(no_handles)?;
        id.open(&root, DIRECTORY).map_err(no_handles)?;
        Ok(Self {
            root,
            device,
            nodes: Nodes::new(id),
            opens: Opens::default(),
            index: Index::default(),
            redirects: Redirects::default(),
            hook,
            closers: Closers::default(),
            renamers: Closers::default(),
            flushers: Closers::default(),
            notifier: OnceLock::new(),
            passes: AtomicBool::new(false),
            passing: RwLock::default(),
            settling: Arc::default(),
            unseen: Unseen::default(),
        })
    }

    /// Whether the kernel passes reads and writes to the files below.
    pub(crate) fn passes(&self) -> bool {
        self.passes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_passes(&self, passes: bool) {
        self.passes.store(passes, Ordering::Relaxed);
    }

    pub(crate) fn node(&self, number: u64) -> Result<Arc<Node>, Errno> {
        self.nodes.find(number).ok_or(Errno::STALE)
    }

    /// Opens an inode as a mere path.
    pub(crate) fn reach(&self, node: &Node) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(anchor) = node.anchor().clone() {
            return Ok(anchor);
        }
        Ok(Arc::new(node.id.open(&self.root, AS_PATH)?))
    }

    /// Opens a directory as a mere path.
    pub(crate) fn directory(&self, number: u64) -> Result<OwnedFd, Errno> {
        if number == ROOT {
            return rustix::fs::openat(&self.root, ".", DIRECTORY, Mode::empty());
        }
        self.node(number)?.id.open(&self.root, DIRECTORY)
    }

    /// Opens a file's content. `flags` are for this program alone, so that no request of a caller reaches the disk unread.
    pub(crate) fn open_content(&self, node: &Node, flags: OFlags) -> Result<File, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        let anchor = node.anchor().clone();
        let open = |flags| match &anchor {
            Some(anchor) => rustix::fs::open(magic_link(anchor.as_fd()), flags, Mode::empty()),
            None => node.id.open(&self.root, flags | OFlags::NOFOLLOW),
        };
        match open(flags | OFlags::NONBLOCK) {
            // Somebody below has a lease on it for a moment, to see whether anybody writes. Source: fcntl(2), F_SETLEASE.
            Err(Errno::AGAIN) => open(flags),
            opened => opened,
        }
        .map(File::from)
    }

    /// The inode of what has been found, where the kernel knows it.
    pub(crate) fn known(&self, found: &Found) -> Option<Arc<Node>> {
        let id = FileId::of(&found.file).ok()?;
        self.nodes
            .find(number(&found.stat))
            .filter(|node| node.id == id)
    }

    /// Keeps what has lost a name, and was opened before that, until the kernel has forgotten it: another file must not get
    /// its number before, and whoever has just found it still opens it.
    ///
    /// One that has other names can be opened by its handle. If it was known by the name that is gone, it is known by none now:
    /// what it is written must not be judged by that.
    pub(crate) fn keep(&self, found: Option<Found>, lost: Name<'_>) {
        let Some(found) = found else { return };
        let Some(node) = self.known(&found) else {
            return;
        };
        let has_names = rustix::fs::fstat(&found.file).is_ok_and(|stat| stat.st_nlink > 0);
        if !has_names {
            node.anchor().get_or_insert_with(|| Arc::new(found.file));
        } else if node.is_at(lost) {
            node.set_place((NOWHERE, OsString::new()));
        }
    }

    /// Finds a name in a directory, whatever it is; what is on another filesystem is not there.
    pub(crate) fn find(&self, directory: impl AsFd, name: &OsStr) -> Result<Found, Errno> {
        let file = rustix::fs::openat(directory, name, AS_PATH, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if stat.st_dev != self.device {
            return Err(Errno::XDEV);
        }
        Ok(Found { file, stat })
    }

    /// The inode of what has been found; the kernel is going to be told of it.
    pub(crate) fn look_up(&self, found: &Found, place: Place) -> Result<Arc<Node>, Errno> {
        let id = FileId::of(&found.file)?;
        let number = number(&found.stat);
        let node = self.nodes.look_up(id, number, found.kind(), place.clone());
        // The root's place is nowhere, and a file that is held back keeps the one it is going to.
        if number != ROOT && !node.is_at((place.0, &place.1)) {
            let directory = self.directory(place.0)?;
            let content = node.content();
            // It may have been renamed since it was found; that is done with the content kept.
            let is_there = self
                .find(&directory, &place.1)
                .is_ok_and(|there| is_same_inode(&there.stat, &found.stat));
            if is_there && !content.is_held() {
                node.set_place(place);
            }
        }
        // It may have lost its name before it was known: then nobody has kept it.
        if rustix::fs::fstat(&found.file)?.st_nlink == 0
            && let Ok(file) = found.file.try_clone()
        {
            node.anchor().get_or_insert_with(|| Arc::new(file));
        }
        Ok(node)
    }

    /// The path that a node is, or is going to be, seen under.
    pub(crate) fn path(&self, node: &Node) -> Option<PathBuf> {
        let (directory, name) = node.place();
        self.path_of(directory, &name)
    }

    /// The path of a name in a directory, relative to the root.
    pub(crate) fn path_of(&self, directory: u64, name: &OsStr) -> Option<PathBuf> {
        let known = self.nodes.path(directory, name);
        // The kernel forgets directories that are above what is held back.
        known.or_else(|| Some(self.path_below(directory)?.join(name)))
    }

    /// The path of a directory as it is on the disk.
    fn path_below(&self, directory: u64) -> Option<PathBuf> {
        let directory = self.directory(directory).ok()?;
        // One that was removed still tells a path.
        if rustix::fs::fstat(&directory).ok()?.st_nlink == 0 {
            return None;
        }
        let path = std::fs::read_link(magic_link(directory.as_fd())).ok()?;
        let root = std::fs::read_link(magic_link(self.root.as_fd())).ok()?;
        path.strip_prefix(root).ok().map(Path::to_owned)
    }

    /// Whether a name is the mount's own, which nobody else sees or makes.
    pub(crate) fn is_reserved(&self, name: &OsStr) -> bool {
        name_of_held(name).is_some() || self.hook.makes(name)
    }

    /// Whether the file at a path may be held back; where the path is not known, it may.
    pub(crate) fn is_watched(&self, path: Option<&Path>) -> bool {
        path.is_none_or(|path| self.hook.watches(path))
    }

    /// Whether the file at a path may be held back, for whoever opens it. If it may not, that stays so as long as the guard is kept.
    pub(crate) fn passing(
        &self,
        path: impl Fn() -> Option<PathBuf>,
    ) -> Option<RwLockReadGuard<'_, ()>> {
        if self.is_watched(path().as_deref()) {
            return None;
        }
        let passing = self.passing.read().unwrap_or_else(PoisonError::into_inner);
        (!self.is_watched(path().as_deref())).then_some(passing)
    }

    /// Whether the file's first bytes are such that it is held back.
    pub(crate) fn shows(&self, path: Option<&Path>, file: &File) -> Result<bool, Errno> {
        let head = head(file)?;
        Ok(self.concerns(path, &head))
    }

    pub(crate) fn concerns(&self, path: Option<&Path>, head: &[u8]) -> bool {
        self.is_watched(path) && self.hook.concerns(path.unwrap_or(Path::new("")), head)
    }
}

/// The system's number of an error.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// A file's first bytes.
pub(crate) fn head(file: &File) -> Result<Vec<u8>, Errno> {
    let mut head = vec![0; HEAD];
    let mut have = 0;
    while let Some(room) = head.get_mut(have..).filter(|room| !room.is_empty()) {
        match file.read_at(room, have as u64) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno(&error)),
        }
    }
    head.truncate(have);
    Ok(head)
}

/// A path that means an inode which is open as a mere path. Source: proc(5), `/proc/self/fd`.
///
/// For the calls that take no such descriptor: extended attributes and chmod(2).
pub(crate) fn magic_link(file: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// The number of a file, which is that of the root for none but the root.
fn number(stat: &Stat) -> u64 {
    match stat.st_ino {
        ROOT => u64::MAX,
        number => number,
    }
}

/// What the kernel is told of an inode.
pub(crate) fn attributes(stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(number(stat)),
        size: stat.st_size.cast_unsigned(),
        blocks: stat.st_blocks.cast_unsigned(),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(FileType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32,
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

/// The name for FUSE of a kind of file.
pub(crate) fn kind(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharacterDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
        FileType::RegularFile | FileType::Unknown => fuser::FileType::RegularFile,
    }
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(nanoseconds)))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The name that a file has while it is held back: beside the one that it gets, so that it follows its directory.
pub(crate) fn held_name(name: &OsStr) -> OsString {
    let mut held = OsString::from(".signdrop-held-");
    held.push(name);
    // No name of an artifact ends so, for whoever else looks at the directory below.
    held.push("~");
    held
}

/// The name that a file is going to have which is held back under this one.
pub(crate) fn name_of_held(held: &OsStr) -> Option<&OsStr> {
    let name = held
        .as_bytes()
        .strip_prefix(b".signdrop-held-")?
        .strip_suffix(b"~")?;
    (!name.is_empty()).then(|| OsStr::from_bytes(name))
}

/// Whether two descriptors are of one inode.
pub(crate) fn is_same_inode(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Removes a name of a file.
pub(crate) fn remove(directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    rustix::fs::unlinkat(directory, name, AtFlags::empty())
}

/// As much as a directory tells of a name that is not looked up.
pub(crate) fn bare(number: u64, file_type: FileType) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(file_type),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}
