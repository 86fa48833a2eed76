//! Writers that are led to another inode than the one that they wanted to open.
//!
//! A file that is seen does not change. Whoever opens one for writing is answered `ESTALE`, at which the kernel looks the
//! name up once more (Linux fs/namei.c, `do_filp_open`) and is given the inode of a new version then. The thread's number
//! tells that look-up from those of others, who go on finding the old version.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{file_id::FileId, node::Node};

/// How long the second look-up may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The threads that are to be led elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Redirects(Mutex<HashMap<u32, Wanted>>);

/// What a writer wanted to open.
#[derive(Debug)]
struct Wanted {
    /// The file, whose inode the kernel may forget and be told of anew meanwhile.
    id: FileId,
    start: Start,
    at: Instant,
}

/// What a new version begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Empty,
    /// The old version's content.
    Copy,
}

impl Redirects {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Wanted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leads the thread elsewhere at its next look-up. Answers false, and gives up, where it was to be led already: it has not
    /// looked again, or has found another file than it was to be led from.
    pub(crate) fn lead(&self, thread: u32, node: &Node, start: Start) -> bool {
        let mut wanted = self.lock();
        wanted.retain(|_, wanted| wanted.at.elapsed() < PATIENCE);
        if wanted.remove(&thread).is_some() {
            return false;
        }
        let (id, at) = (node.id.clone(), Instant::now());
        wanted.insert(thread, Wanted { id, start, at });
        true
    }

    /// What the thread wanted of the inode that its look-up would find.
    pub(crate) fn wanted(&self, thread: u32, node: &Node) -> Option<Start> {
        let wanted = self.lock();
        let wanted = wanted.get(&thread)?;
        (wanted.id == node.id && wanted.at.elapsed() < PATIENCE).then_some(wanted.start)
    }

    /// Whether the thread is to be led elsewhere.
    pub(crate) fn is_led(&self, thread: u32) -> bool {
        self.lock().contains_key(&thread)
    }

    /// The thread has opened what it was led to, or does something else.
    pub(crate) fn arrived(&self, thread: u32) {
        self.lock().remove(&thread);
    }
}
