//! The kernel's inotify, through the `notify` crate. No other file knows of `notify`.
//!
//! What its version 9.0.0-rc.7 does, and what is built on it:
//! - All its work is done by one thread. It reads events until none is left (a batch), then drops the watches of
//!   directories that the batch has said to be gone, each with all below it, and only then sets or drops watches for us.
//!   So an answer to any request of ours means that every batch before it has had its effect.
//! - It names an event's path by the path that was watched. Within a batch, events of a directory that has just been
//!   renamed still come under the old path.
//! - Setting a watch on a path that it believes watched does nothing, even if there is another directory there by now.
//! - Dropping a watch looks through all of them, and the end of each watched directory drops one. Deleting m of n
//!   directories takes it time in m * n (5,000 of 50,000: most of a minute), in which nothing is heard; if the queue runs
//!   over meanwhile, that is [`Change::Lost`] and everything is looked at, so it costs time and no file.
//! - Its recursive mode sees a new directory too late to see the files already in it, so it is not used.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};

use notify::event::{AccessKind, AccessMode, CreateKind, Flag, ModifyKind, RemoveKind, RenameMode};
use notify::{
    Config, ErrorKind, EventKind, EventKindMask, INotifyWatcher, RecursiveMode, WatchPathConfig,
    Watcher as _,
};

use crate::Error;

/// What an event says. Paths are relative to the root; the empty path is the root itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A writer closed the file.
    Closed(PathBuf),
    /// Anything but a directory was created or linked.
    Created(PathBuf),
    CreatedDirectory(PathBuf),
    /// A file or directory was renamed to this name.
    MovedIn(PathBuf),
    /// A file or directory had this name and was renamed.
    MovedOut(PathBuf),
    Removed(PathBuf),
    /// The file system mounted at this path was unmounted.
    Unmounted(PathBuf),
    /// The root itself was renamed.
    RootMoved,
    /// The kernel's queue ran over, or could not be read.
    Lost,
}

/// Why a directory was not watched.
#[derive(Debug)]
pub(crate) enum Refusal {
    NotFound,
    TooFewWatches,
    /// There is no inotify instance to ask.
    NoInstance,
    /// The directory above is not watched (any more).
    Orphan,
    Other(io::Error),
}

/// One inotify instance.
pub(crate) struct Inotify {
    root: PathBuf,
    watcher: INotifyWatcher,
    /// Disconnected when notify's thread has ended.
    ended: Receiver<()>,
}

impl Inotify {
    /// Begins without a watch. `root` is absolute; `on_change` is called from notify's thread and must not call back.
    pub(crate) fn start(
        root: &Path,
        mut on_change: impl FnMut(Change) + Send + 'static,
    ) -> Result<Self, Error> {
        let (running, ended) = mpsc::channel::<()>();
        let base = root.to_owned();
        let on_event = move |event: notify::Result<notify::Event>| {
            let _alive = &running;
            match event {
                Ok(event) => {
                    if let Some(change) = change(&base, event) {
                        on_change(change);
                    }
                }
                Err(_) => on_change(Change::Lost),
            }
        };
        // Not the opens, the writes and the attributes: they are many, and would push the rest out of the queue.
        let kinds = EventKindMask::CREATE
            | EventKindMask::REMOVE
            | EventKindMask::MODIFY_NAME
            | EventKindMask::ACCESS_CLOSE;
        let config = Config::default()
            .with_event_kinds(kinds)
            .with_follow_symlinks(false);
        let watcher = INotifyWatcher::new(on_event, config).map_err(no_instance)?;
        let mut inotify = Self {
            root: root.to_owned(),
            watcher,
            ended,
        };
        if !inotify.settle() {
            // notify does not say that its thread could not be started, and would panic when dropped without one.
            std::mem::forget(inotify.watcher);
            return Err(Error::Resources {
                source: io::ErrorKind::WouldBlock.into(),
            });
        }
        Ok(inotify)
    }

    /// Watches one directory, and nothing below it.
    pub(crate) fn watch(&mut self, path: &Path) -> Result<(), Refusal> {
        let is_root = path.as_os_str().is_empty();
        let config =
            WatchPathConfig::new(RecursiveMode::NonRecursive).with_dereference_symlinks(is_root);
        let watched = self.watcher.watch_with(&self.absolute(path), config);
        watched.map_err(|error| match error.kind {
            ErrorKind::PathNotFound => Refusal::NotFound,
            ErrorKind::MaxFilesWatch => Refusal::TooFewWatches,
            ErrorKind::Io(error) => Refusal::Other(error),
            ErrorKind::Generic(_) | ErrorKind::WatchNotFound | ErrorKind::InvalidConfig(_) => {
                Refusal::Other(io::Error::other(error.to_string()))
            }
        })
    }

    /// Drops a directory's watch, if there is one.
    pub(crate) fn unwatch(&mut self, path: &Path) {
        // It fails only if there is none.
        let _ = self.watcher.unwatch(&self.absolute(path));
    }

    /// Waits until the batch of events that is being read, if any, has had all its effect. False if notify has died.
    pub(crate) fn settle(&mut self) -> bool {
        // The one request that notify answers without doing anything.
        self.watcher.configure(Config::default()).is_ok()
    }

    /// Drops all watches and waits until the last event has been delivered.
    pub(crate) fn end(self) {
        drop(self.watcher);
        // Nothing is ever sent: it answers when the sender goes.
        let _ = self.ended.recv();
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() {
            return self.root.clone();
        }
        self.root.join(path)
    }
}

fn change(root: &Path, event: notify::Event) -> Option<Change> {
    if event.attrs.flag() == Some(Flag::Rescan) {
        return Some(Change::Lost);
    }
    let is_cookie = event.attrs.tracker().is_some();
    let path = event.paths.first()?.strip_prefix(root).ok()?.to_owned();
    let is_root = path.as_os_str().is_empty();
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Change::Closed(path)),
        EventKind::Create(CreateKind::Folder) => Some(Change::CreatedDirectory(path)),
        EventKind::Create(_) => Some(Change::Created(path)),
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Change::MovedIn(path)),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) if is_cookie => {
            Some(Change::MovedOut(path))
        }
        // Without a cookie it is a watched directory's word on itself. Its parent has said so, too, with names that are
        // right; but the root's parent is not watched.
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) if is_root => Some(Change::RootMoved),
        EventKind::Remove(RemoveKind::Other) if event.attrs.info() == Some("unmount") => {
            Some(Change::Unmounted(path))
        }
        EventKind::Remove(_) => Some(Change::Removed(path)),
        EventKind::Any | EventKind::Access(_) | EventKind::Modify(_) | EventKind::Other => None,
    }
}

fn no_instance(error: notify::Error) -> Error {
    let source = match error.kind {
        ErrorKind::Io(source) => source,
        _ => io::Error::other(error.to_string()),
    };
    let limit = limit("max_user_instances");
    // The kernel says EMFILE also if the process has too many files open, but then the limit could not be read either.
    if source.raw_os_error() == Some(libc::EMFILE) && limit.is_some() {
        return Error::TooFewInstances { limit };
    }
    Error::Resources { source }
}

/// The present value of an inotify limit.
pub(crate) fn limit(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(Path::new("/proc/sys/fs/inotify").join(name)).ok()?;
    text.trim().parse().ok()
}
