//! What is to be looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Beyond this many places, looking at everything is the lesser work, and memory stays bounded.
const MOST: usize = 65_536;

/// What to look at next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// End the thread.
    End,
    /// This path and all below it.
    Below(PathBuf),
    /// Everything.
    Whole,
}

/// The looks that are wanted. One that another covers is dropped.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    wanted: Mutex<Wanted>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Wanted {
    end: bool,
    whole: bool,
    below: BTreeSet<PathBuf>,
}

impl Looks {
    pub(crate) fn add(&self, look: Look) {
        let mut wanted = self.lock();
        match look {
            Look::End => wanted.end = true,
            Look::Whole => wanted.whole = true,
            Look::Below(path) if wanted.covers(&path) => {}
            Look::Below(path) => {
                wanted.below.insert(path);
            }
        }
        if wanted.below.len() > MOST {
            wanted.whole = true;
        }
        if wanted.whole {
            wanted.below.clear();
        }
        self.grown.notify_one();
    }

    /// The next look, waiting for one.
    pub(crate) fn wait(&self) -> Look {
        let mut wanted = self.lock();
        loop {
            if wanted.end {
                return Look::End;
            }
            if let Some(path) = wanted.below.pop_first() {
                return Look::Below(path);
            }
            if std::mem::take(&mut wanted.whole) {
                return Look::Whole;
            }
            wanted = self
                .grown
                .wait(wanted)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next place to look at, if there is one.
    pub(crate) fn below(&self) -> Option<PathBuf> {
        self.lock().below.pop_first()
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    fn covers(&self, path: &Path) -> bool {
        self.whole || path.ancestors().any(|above| self.below.contains(above))
    }
}
