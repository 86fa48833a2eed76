//! What the sentry has to do.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Beyond this many, setting up everything anew is the lesser work, and memory stays bounded.
const MOST: usize = 65_536;

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    /// End the thread.
    End,
    /// The root was deleted, renamed or unmounted.
    RootLost,
    /// Set up the watch anew: events were lost.
    Renew,
    /// Something about a few directories. Goes before a round, and in the midst of one.
    Urgent(Urgent),
    /// Go round all directories.
    Round,
    /// See whether the root is there, and try again what has failed. Also when the time is up.
    Check,
}

/// What events have said about directories.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Urgent {
    /// There is a new directory.
    Watch(PathBuf),
    /// These paths may have watches that report under a wrong name.
    Unwatch(Vec<PathBuf>),
}

/// Chores by urgency. What can be said twice is done once.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    list: Mutex<List>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct List {
    end: bool,
    root_lost: bool,
    renew: bool,
    urgent: VecDeque<Urgent>,
    round: bool,
    check: bool,
}

impl Chores {
    pub(crate) fn add(&self, chore: Chore) {
        let mut list = self.lock();
        match chore {
            Chore::End => list.end = true,
            Chore::RootLost => list.root_lost = true,
            Chore::Renew => list.renew = true,
            Chore::Urgent(urgent) => list.urgent.push_back(urgent),
            Chore::Round => list.round = true,
            Chore::Check => list.check = true,
        }
        if list.urgent.len() > MOST {
            list.urgent.clear();
            list.renew = true;
        }
        self.grown.notify_one();
    }

    /// The next chore, waiting for one until `deadline`.
    pub(crate) fn wait(&self, deadline: Instant) -> Chore {
        let mut list = self.lock();
        loop {
            if let Some(chore) = list.take() {
                return chore;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Chore::Check;
            }
            list = self
                .grown
                .wait_timeout(list, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Drops what an inotify instance has said that is no more: nothing of it is to be done after all was set up anew.
    pub(crate) fn drop_losses(&self) {
        let mut list = self.lock();
        list.root_lost = false;
        list.renew = false;
        list.urgent.clear();
    }

    /// The next urgent chore, if there is one.
    pub(crate) fn urgent(&self) -> Option<Urgent> {
        self.lock().urgent.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn take(&mut self) -> Option<Chore> {
        if self.end {
            return Some(Chore::End);
        }
        if std::mem::take(&mut self.root_lost) {
            return Some(Chore::RootLost);
        }
        if std::mem::take(&mut self.renew) {
            return Some(Chore::Renew);
        }
        if let Some(urgent) = self.urgent.pop_front() {
            return Some(Chore::Urgent(urgent));
        }
        if std::mem::take(&mut self.round) {
            return Some(Chore::Round);
        }
        std::mem::take(&mut self.check).then_some(Chore::Check)
    }
}
