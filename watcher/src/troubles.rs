//! The directories that are not watched or not read, so that each is reported once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::{Coverage, Shortfall};

/// Directories in trouble, by absolute path.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    unwatched: Recent,
    unread: Recent,
    /// The last look to end did not cover everything.
    is_partial: bool,
}

/// What a pass over everything has met so far, and what the pass before it had met.
#[derive(Debug, Default)]
struct Recent {
    now: BTreeSet<PathBuf>,
    before: BTreeSet<PathBuf>,
}

impl Troubles {
    /// Notes that a directory has no watch; says whether that is news.
    pub(crate) fn unwatched(&mut self, path: &Path) -> bool {
        self.unwatched.add(path)
    }

    /// Says whether the directory is known to have no watch.
    pub(crate) fn is_unwatched(&self, path: &Path) -> bool {
        self.unwatched.now.contains(path) || self.unwatched.before.contains(path)
    }

    /// Notes that a directory could not be read; says whether that is news.
    pub(crate) fn unread(&mut self, path: &Path) -> bool {
        // Whoever has heard that it cannot be watched knows enough.
        !self.unwatched.now.contains(path) && self.unread.add(path)
    }

    /// The directory is watched.
    pub(crate) fn watched(&mut self, path: &Path) {
        self.unwatched.now.remove(path);
    }

    /// The path is gone with all below it.
    pub(crate) fn gone(&mut self, path: &Path) {
        self.unwatched.now.retain(|found| !found.starts_with(path));
        self.unread.now.retain(|found| !found.starts_with(path));
    }

    /// A round over all directories begins.
    pub(crate) fn begin_round(&mut self) {
        self.unwatched.begin();
    }

    /// A look at everything begins.
    pub(crate) fn begin_look(&mut self) {
        self.unread.begin();
    }

    /// The round has ended.
    pub(crate) fn end_round(&mut self) {
        self.unwatched.before.clear();
    }

    /// The look has ended. Answers the coverage that is to be told.
    pub(crate) fn end_look(&mut self) -> Coverage {
        self.unread.before.clear();
        let coverage = self.coverage();
        self.is_partial = coverage != Coverage::Complete;
        coverage
    }

    /// Says whether a directory is in trouble, or the owner has yet to hear that none is any more.
    pub(crate) fn persist(&self) -> bool {
        self.is_partial || self.coverage() != Coverage::Complete
    }

    /// How much is covered now.
    pub(crate) fn coverage(&self) -> Coverage {
        let shortfall = Shortfall {
            unwatched: self.unwatched.len(),
            unread: self.unread.len(),
        };
        if shortfall.unwatched == 0 && shortfall.unread == 0 {
            return Coverage::Complete;
        }
        Coverage::Partial(shortfall)
    }
}

impl Recent {
    fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// In the midst of a pass it is not known yet which of the troubles before it have passed.
    fn len(&self) -> usize {
        self.now.len().max(self.before.len())
    }

    fn add(&mut self, path: &Path) -> bool {
        self.now.insert(path.to_owned()) && !self.before.contains(path)
    }
}
