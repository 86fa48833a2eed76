//! What the threads of one watcher share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::chores::{Chore, Chores};
use crate::directories::Directories;
use crate::looks::{Look, Looks};
use crate::troubles::Troubles;
use crate::{Error, Event};

type Skip = dyn Fn(&Path) -> bool + Send + Sync;
type Sink = dyn Fn(Event) + Send + Sync;

/// What the threads of one watcher share. No lock is held while the sink is called or notify is asked for something.
pub(crate) struct Shared {
    /// Absolute.
    pub(crate) root: PathBuf,
    pub(crate) chores: Chores,
    pub(crate) looks: Looks,
    skip: Box<Skip>,
    sink: Box<Sink>,
    directories: Mutex<Directories>,
    troubles: Mutex<Troubles>,
    has_ended: AtomicBool,
}

impl Shared {
    pub(crate) fn new(root: PathBuf, skip: Box<Skip>, sink: Box<Sink>) -> Self {
        Self {
            root,
            chores: Chores::default(),
            looks: Looks::default(),
            skip,
            sink,
            directories: Mutex::default(),
            troubles: Mutex::default(),
            has_ended: AtomicBool::new(false),
        }
    }

    /// Tells the owner, unless the owner has dropped the watcher.
    pub(crate) fn tell(&self, event: Event) {
        if !self.has_ended() {
            (self.sink)(event);
        }
    }

    /// Tells the owner of a failure.
    pub(crate) fn fail(&self, error: Error) {
        self.tell(Event::Failed(error));
    }

    /// Says whether the owner wants to hear nothing of the path. The root is never skipped.
    pub(crate) fn is_skipped(&self, path: &Path) -> bool {
        !path.as_os_str().is_empty() && (self.skip)(path)
    }

    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() {
            return self.root.clone();
        }
        self.root.join(path)
    }

    pub(crate) fn directories(&self) -> MutexGuard<'_, Directories> {
        // Each change of the map is whole before anything can panic, so a poisoned lock guards nothing broken.
        self.directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the threads end.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.chores.add(Chore::End);
        self.looks.add(Look::End);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }
}
