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
    /// The time is up, and nothing else is to be done.
    Time,
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
            Chore::Time => {}
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
                return Chore::Time;
            }
            list = self
                .grown
                .wait_timeout(list, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
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
        std::mem::take(&mut self.round).then_some(Chore::Round)
    }
}
