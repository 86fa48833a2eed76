//! A mount: from start to stop.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
    mount::UnmountFlags,
};

use crate::{
    Error, Hook,
    file_id::FileId,
    filesystem::Requests,
    node::{Node, Phase, ROOT, State},
    tree::{Tree, name_of_held},
};

/// The threads that answer the kernel. What waits for the hook gets a thread of its own.
const ANSWERING: usize = 8;
/// How many renames that finish a file are done at once.
const RENAMERS: usize = 4;
/// How many links lead to a mount point at the most. Source: path_resolution(7).
const LINKS: usize = 40;
/// What the mount's source is called in the list of mounts.
const SOURCE: &str = "signdrop";

/// How the content of files that do not change any more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The kernel passes reads to the files below.
    Passed,
    /// Through the kernel's cache, which asks this program for what it has not.
    Asked,
}

/// A file that is held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBack {
    /// Where it is going to be seen, relative to the mount.
    pub path: PathBuf,
    /// How far it is.
    pub progress: Progress,
}

/// How far a file is that is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is being written.
    Written,
    /// The hook works on it.
    Finishing,
    /// The hook has finished it, and a copy of its writer's descriptor is still open.
    Closing,
    /// The hook has refused it.
    Refused,
}

/// A directory below that cannot be read, or a file in it: what an earlier run held back there stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The directory or file, relative to the mount.
    pub path: PathBuf,
    /// Why.
    pub errno: Errno,
}

/// A directory that is mounted elsewhere. Unmounted when dropped.
pub struct Mount {
    tree: Arc<Tree>,
    at: PathBuf,
    unreadable: Vec<Unreadable>,
    session: Mutex<Option<BackgroundSession>>,
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Mount {
    /// Mounts `root` at `at`, and has the hook finish what an earlier run held back, on `closers` threads.
    ///
    /// A mount of an earlier run that has died is cleared away. When this returns the mount can be used; what was held back
    /// is worked on meanwhile.
    ///
    /// # Errors
    /// [`Error`], which says itself whether it may pass. Nothing is mounted then.
    pub fn start(
        root: &Path,
        at: &Path,
        closers: usize,
        hook: Arc<dyn Hook>,
    ) -> Result<Self, Error> {
        let at = &clear(at)?;
        let tree = Arc::new(Tree::open(root, hook)?);
        let left = find_held(&tree, root)?;
        let failed = |source| Error::Mount {
            path: at.to_owned(),
            source,
        };
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(SOURCE.into()),
            MountOption::DefaultPermissions,
            MountOption::NoDev,
            MountOption::NoSuid,
        ];
        config.acl = SessionACL::All;
        config.n_threads = Some(ANSWERING);
        config.clone_fd = true;
        tree.closers.start("closer", closers).map_err(failed)?;
        tree.renamers.start("renamer", RENAMERS).map_err(failed)?;
        tree.flushers.start("flusher", closers).map_err(failed)?;
        let session = Session::new(Requests(tree.clone()), at, &config).map_err(failed)?;
        // Set once, here.
        let _ = tree.notifier.set(session.notifier());
        let session = session.spawn().map_err(failed)?;
        for node in left.held {
            let tree_too = tree.clone();
            tree.closers.hand_over(move || {
                // The hook has said why not.
                let _ = tree_too.finish(&node);
            });
        }
        Ok(Self {
            tree,
            at: at.to_owned(),
            unreadable: left.unreadable,
            session: Mutex::new(Some(session)),
        })
    }

    /// What could not be looked through for what was held back when the mount was made.
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }

    /// How content is read now.
    pub fn reading(&self) -> Reading {
        match self.tree.passes() {
            true => Reading::Passed,
            false => Reading::Asked,
        }
    }

    /// The files that are held back now, in no order.
    pub fn held_back(&self) -> Vec<HeldBack> {
        let progress = |node: &Node| match node.content().state {
            State::Held(Phase::Written) => Some(Progress::Written),
            State::Held(Phase::Finishing) => Some(Progress::Finishing),
            State::Held(Phase::Ready) => Some(Progress::Closing),
            State::Held(Phase::Refused) => Some(Progress::Refused),
            State::Unknown | State::Plain | State::Nameless | State::Seen | State::Replaced => None,
        };
        self.tree.judge_those(|_| true);
        let all = self.tree.index.all();
        let shown = all.iter().filter_map(|node| {
            Some(HeldBack {
                path: self.tree.path(node)?,
                progress: progress(node)?,
            })
        });
        shown.collect()
    }

    /// Has the hook try once more with what it has refused at or below a path. Answers each with what came of it.
    pub fn retry(&self, path: &Path) -> Vec<(PathBuf, Result<(), Errno>)> {
        let refused = self.tree.index.all().into_iter().filter(|node| {
            let content = node.content();
            content.state == State::Held(Phase::Refused) && content.is_last(0)
        });
        let chosen: Vec<(Arc<Node>, PathBuf)> = refused
            .filter_map(|node| self.tree.path(&node).map(|path| (node, path)))
            .filter(|(_, found)| found.starts_with(path))
            .collect();
        let (tell, told) = mpsc::channel();
        for (node, path) in chosen {
            let (tree, tell) = (self.tree.clone(), tell.clone());
            self.tree.closers.hand_over(move || {
                // Nobody listens any more where this fails.
                let _ = tell.send((path, tree.finish(&node)));
            });
        }
        drop(tell);
        told.into_iter().collect()
    }

    /// Whether it is still mounted, and answers.
    pub fn is_mounted(&self) -> bool {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = session
            .as_ref()
            .is_some_and(|session| !session.guard.is_finished());
        answers
            && mounted(&self.at)
                .is_ok_and(|found| found.is_some_and(|found| found.source == SOURCE))
    }

    /// Whether this process sees what others mount, and they do not see what it mounts: they find what lies under the mount.
    ///
    /// Source: proc(5), `/proc/pid/mountinfo`, the optional field `master`; mount_namespaces(7).
    pub fn is_hidden(&self) -> bool {
        let is_hidden = || {
            let above = mounted(&self.at).ok()??.above;
            let all = all_mounts().ok()?;
            all.into_iter()
                .find(|found| found.id == above)
                .map(|found| found.is_slave)
        };
        is_hidden().unwrap_or(false)
    }

    /// How many inodes are kept in memory, for the kernel or for files that are held back.
    pub fn inodes(&self) -> usize {
        self.tree.nodes.len()
    }

    /// Unmounts, and waits for what is being finished. What is open goes on for `grace` at the most, and is cut off then.
    pub fn stop(&self, grace: Duration) {
        self.end(grace);
    }

    fn end(&self, grace: Duration) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = session.take() else {
            return;
        };
        if rustix::mount::unmount(&self.at, UnmountFlags::NOFOLLOW).is_err() {
            // Busy: no new names, but whoever has something open goes on.
            let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
        let (tell, told) = mpsc::channel();
        let joined = thread::Builder::new()
            .name("unmount".into())
            .spawn(move || {
                // It says nothing that has not been seen by those who asked.
                let _ = session.join();
                let _ = tell.send(());
            });
        let is_closed = joined.is_ok() && told.recv_timeout(grace).is_ok();
        self.tree.leave_unseen(is_closed);
        // These hand over to those.
        self.tree.renamers.end();
        self.tree.closers.end();
        self.tree.flushers.end();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// Sees to it that nothing is mounted at a mount point, and clears a dead mount of our own away. Answers its real path: a path
/// with links in it is not in the list of mounts, and is not unmounted; whoever configured it meant where they lead.
fn clear(at: &Path) -> Result<PathBuf, Error> {
    let failed = |source| Error::MountPoint {
        path: at.to_owned(),
        source,
    };
    let real = real_path(at).map_err(failed)?;
    // One may lie upon the other.
    while let Some(Listed { kind, source, .. }) = mounted(&real).map_err(failed)? {
        // Not stat(2), which the kernel answers from what it was told before.
        let dead = matches!(
            rustix::fs::open(
                &real,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty()
            ),
            Err(Errno::NOTCONN | Errno::CONNABORTED)
        );
        if !(dead && source == SOURCE && kind.starts_with("fuse")) {
            return Err(Error::Occupied {
                path: at.to_owned(),
                kind,
                source_name: source,
            });
        }
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        rustix::mount::unmount(&real, flags).map_err(|errno| failed(errno.into()))?;
    }
    let metadata = fs::metadata(&real).map_err(failed)?;
    match metadata.is_dir() {
        true => Ok(real),
        false => Err(failed(io::ErrorKind::NotADirectory.into())),
    }
}

/// Where a path leads, be it to a dead mount, which has no real path but that of the directory it is in.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let real = std::path::absolute(parent)?.canonicalize()?.join(name);
        match fs::read_link(&real) {
            Ok(target) => path = real.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(real),
        }
    }
    Err(Errno::LOOP.into())
}

/// A line of the list of mounts.
struct Listed {
    id: Vec<u8>,
    /// The mount that it is mounted upon.
    above: Vec<u8>,
    at: Vec<u8>,
    is_slave: bool,
    kind: String,
    source: String,
}

/// Source: proc(5), `/proc/pid/mountinfo`.
fn all_mounts() -> io::Result<Vec<Listed>> {
    let list = fs::read("/proc/self/mountinfo")?;
    let listed = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let end = fields.iter().position(|field| *field == b"-")?;
        let options = fields.get(6..end)?;
        let text = |at: usize| Some(String::from_utf8_lossy(fields.get(at)?).into_owned());
        Some(Listed {
            id: fields.first()?.to_vec(),
            above: fields.get(1)?.to_vec(),
            at: unescaped(fields.get(4)?),
            is_slave: options.iter().any(|option| option.starts_with(b"master:")),
            kind: text(end + 1)?,
            source: text(end + 2)?,
        })
    };
    Ok(list
        .split(|byte| *byte == b'\n')
        .filter_map(listed)
        .collect())
}

/// What is mounted at a path last.
fn mounted(at: &Path) -> io::Result<Option<Listed>> {
    let at = at.as_os_str().as_bytes();
    Ok(all_mounts()?.into_iter().rfind(|found| found.at == at))
}

/// A path as it was before blanks and the like were written as `\040`.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

/// What an earlier run left below.
#[derive(Default)]
struct Left {
    held: Vec<Arc<Node>>,
    unreadable: Vec<Unreadable>,
}

/// Finds what earlier runs held back. A directory that cannot be read is told of, and keeps nobody from the others.
fn find_held(tree: &Tree, root: &Path) -> Result<Left, Error> {
    let mut left = Left::default();
    let top = FileId::of(&tree.root)
        .and_then(|id| read_left(tree, &id, Path::new(""), &mut left))
        .map_err(|errno| Error::Look {
            path: root.to_owned(),
            source: errno.into(),
        })?;
    // By their handles, which are of any depth; inodes are kept only of those with something in them.
    let mut pending = top;
    while let Some((path, id)) = pending.pop() {
        match read_left(tree, &id, &path, &mut left) {
            Ok(below) => pending.extend(below),
            // It went while its name was read.
            Err(Errno::NOENT | Errno::STALE) => {}
            Err(errno) => left.unreadable.push(Unreadable { path, errno }),
        }
    }
    Ok(left)
}

/// Takes in what was held back in a directory, and answers the directories in it.
fn read_left(
    tree: &Tree,
    id: &FileId,
    path: &Path,
    left: &mut Left,
) -> Result<Vec<(PathBuf, FileId)>, Errno> {
    let directory = id.open(&tree.root, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names = rustix::fs::Dir::read_from(&directory)?;
    let (mut held, mut below) = (Vec::new(), Vec::new());
    while let Some(entry) = names.read() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        if let Some(name) = name_of_held(name) {
            held.push(name.to_owned());
        } else if tree.is_reserved(name) {
            tree.hook.left(directory.as_fd(), name);
        } else if matches!(entry.file_type(), FileType::Directory | FileType::Unknown)
            // What is mounted there is no part of the mount; what went meanwhile is nothing.
            && let Ok(found) = tree.find(&directory, name)
            && found.kind() == FileType::Directory
        {
            below.push((path.join(name), FileId::of(&found.file)?));
        }
    }
    if !held.is_empty() {
        let number = reach(tree, path)?;
        for name in held {
            match tree.take_in(&directory, (number, name.clone())) {
                Ok(Some(node)) => left.held.push(node),
                // Something else of that name is nothing that the mount made.
                Ok(None) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(errno) => left.unreadable.push(Unreadable {
                    path: path.join(name),
                    errno,
                }),
            }
        }
    }
    Ok(below)
}

/// The inode of a directory, with all above it. They stay known as long as something in it is held back.
fn reach(tree: &Tree, path: &Path) -> Result<u64, Errno> {
    let mut number = ROOT;
    for name in path {
        let directory = tree.directory(number)?;
        let found = tree.find(&directory, name)?;
        number = tree.look_up(&found, (number, name.to_owned()))?.number;
    }
    Ok(number)
}
