//! A fixed number of locks for any number of names.

use std::hash::{BuildHasher as _, Hash, RandomState};

/// How many there are. Names that share a lock only wait for each other.
const COUNT: usize = 256;

/// Locks that are found by hashing a name, so that memory does not grow with the names.
#[derive(Debug)]
pub(crate) struct Stripes<L> {
    locks: Vec<L>,
    hasher: RandomState,
}

impl<L: Default> Default for Stripes<L> {
    fn default() -> Self {
        Self {
            locks: (0..COUNT).map(|_| L::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl<L> Stripes<L> {
    /// The lock of a name.
    pub(crate) fn of<N: Hash>(&self, name: &N) -> &L {
        #[expect(clippy::indexing_slicing, reason = "the remainder is below COUNT")]
        &self.locks[self.hasher.hash_one(name) as usize % COUNT]
    }
}
