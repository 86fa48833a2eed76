//! Which directories are watched, and whether their names can be relied on.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use crate::beneath::Identity;

/// The watched directories, by path relative to the root. Memory grows with their number.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    places: BTreeMap<PathBuf, Place>,
    /// How often names have become unreliable. See [`Directories::changes`].
    changes: u64,
    /// How often all watches have gone.
    epoch: u64,
    /// How many watches have been noted.
    watches: u64,
    /// The kernel has dropped events: no name can be relied on.
    is_lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The watch on this directory reports under this path.
    Watched {
        identity: Identity,
        round: u64,
        number: u64,
    },
    /// There may be a watch that reports under this path what happens elsewhere. It is to be dropped.
    Stale,
}

/// What is known of the directory above one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Above {
    /// It is to be watched.
    Watchable,
    /// The kernel refuses a watch. What is below it is better watched than not, though its name is not to be relied on.
    Unwatchable,
}

impl Directories {
    /// Says whether an event that names something in the directory is to be believed.
    pub(crate) fn is_watched(&self, path: &Path) -> bool {
        !self.is_lost && matches!(self.places.get(path), Some(Place::Watched { .. }))
    }

    /// Says whether this very directory is watched under the path, and notes that the round has seen it.
    pub(crate) fn confirm(&mut self, path: &Path, wanted: Identity, this_round: u64) -> bool {
        match self.places.get_mut(path) {
            Some(Place::Watched {
                identity, round, ..
            }) if *identity == wanted => {
                *round = this_round;
                true
            }
            Some(Place::Watched { .. } | Place::Stale) | None => false,
        }
    }

    /// The identity of the directory that is watched under the path.
    pub(crate) fn identity(&self, path: &Path) -> Option<Identity> {
        match self.places.get(path)? {
            Place::Watched { identity, .. } => Some(*identity),
            Place::Stale => None,
        }
    }

    /// Which watch reports what happens in this very directory. As long as the answer stays the same, no removal of a
    /// name in it has gone untold.
    pub(crate) fn watch(&self, path: &Path, wanted: Identity) -> Option<u64> {
        match self.places.get(path)? {
            Place::Watched {
                identity, number, ..
            } if *identity == wanted && !self.is_lost => Some(*number),
            Place::Watched { .. } | Place::Stale => None,
        }
    }

    /// Notes a watch that is about to be set. Refuses if the directory above is not watched: nobody would hear when this one
    /// is renamed, so its name cannot be relied on. The sentry takes it up after the one above.
    #[must_use]
    pub(crate) fn insert(
        &mut self,
        path: &Path,
        identity: Identity,
        round: u64,
        above: Above,
    ) -> bool {
        let is_heard = path.parent().is_none_or(|parent| {
            above == Above::Unwatchable
                || matches!(self.places.get(parent), Some(Place::Watched { .. }))
        });
        if !is_heard {
            return false;
        }
        self.watches += 1;
        let place = Place::Watched {
            identity,
            round,
            number: self.watches,
        };
        self.places.insert(path.to_owned(), place);
        true
    }

    /// Forgets a path.
    pub(crate) fn remove(&mut self, path: &Path) {
        self.places.remove(path);
    }

    /// Forgets a path and all below it. Answers those that may have a watch, which is to be dropped.
    pub(crate) fn remove_below(&mut self, path: &Path) -> Vec<PathBuf> {
        let removed = self.below(path, |_| true);
        for path in &removed {
            self.places.remove(path);
        }
        removed
    }

    /// Forgets a path if its watch is stale; says whether it was.
    pub(crate) fn remove_stale(&mut self, path: &Path) -> bool {
        let is_stale = self.places.get(path) == Some(&Place::Stale);
        if is_stale {
            self.remove(path);
        }
        is_stale
    }

    /// The path, and what is below it, is gone. Answers the paths whose watches are to be dropped.
    pub(crate) fn gone(&mut self, path: &Path) -> Vec<PathBuf> {
        // notify drops the watches below a directory that it watches when that is gone, but not those below one that it
        // does not, for want of a watch.
        if matches!(self.places.get(path), Some(Place::Watched { .. })) {
            self.changes += 1;
            let watched = self.below(path, |place| place != Place::Stale);
            for path in watched {
                self.places.remove(&path);
            }
            return self.below(path, |place| place == Place::Stale);
        }
        self.replaced(path)
    }

    /// Another directory has taken the path without its being reported gone. Answers the paths whose watches are to be
    /// dropped.
    pub(crate) fn replaced(&mut self, path: &Path) -> Vec<PathBuf> {
        let stale = self.below(path, |_| true);
        for path in &stale {
            self.places.insert(path.clone(), Place::Stale);
        }
        if !stale.is_empty() {
            self.changes += 1;
        }
        stale
    }

    /// Events were lost: until [`Directories::clear`], no event is believed.
    pub(crate) fn lose(&mut self) {
        self.is_lost = true;
    }

    /// Says whether everything is about to be watched and looked at anew.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// How often all watches have gone.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All watches are gone.
    pub(crate) fn clear(&mut self) {
        self.epoch += 1;
        self.places.clear();
        self.is_lost = false;
    }

    /// Grows each time that names have become unreliable.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The paths that the round has not seen.
    pub(crate) fn unseen(&self, this_round: u64) -> Vec<PathBuf> {
        self.below(Path::new(""), |place| match place {
            Place::Watched { round, .. } => round != this_round,
            Place::Stale => true,
        })
    }

    fn below(&self, path: &Path, wanted: impl Fn(Place) -> bool) -> Vec<PathBuf> {
        // Paths are ordered by their components, so that what is below one follows it.
        self.places
            .range::<Path, _>((Bound::Included(path), Bound::Unbounded))
            .take_while(|(found, _)| found.starts_with(path))
            .filter(|(_, place)| wanted(**place))
            .map(|(found, _)| found.clone())
            .collect()
    }
}
