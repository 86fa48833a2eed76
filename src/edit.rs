//! The bytes to change in an artifact, as a value.
//!
//! A format answers an [`Edit`]; only [`crate::apply`] writes one.

use std::fs::File;

/// What has to change in an artifact.
#[derive(Debug)]
pub enum Edit {
    /// Stretches of it are replaced, and the rest stays.
    Splices(Splices),
    /// All of it is replaced by what this file holds, from its start to its end.
    Rewrite(File),
}

impl Edit {
    /// Replaces `old_len` bytes at `at` by `new`.
    pub fn replace(at: u64, old_len: u64, new: Vec<u8>) -> Self {
        Self::Splices(Splices {
            splices: vec![Splice { at, old_len, new }],
        })
    }
}

/// One stretch of an artifact that is replaced by other bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    /// Where the replaced stretch begins, in bytes from the start of the file.
    pub at: u64,
    /// How many bytes of the file are replaced; 0 inserts.
    pub old_len: u64,
    /// The bytes that take their place.
    pub new: Vec<u8>,
}

impl Splice {
    /// Whether as many bytes are put in as are taken out.
    pub fn keeps_length(&self) -> bool {
        self.old_len == self.new.len() as u64
    }
}

/// Stretches in rising order that do not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splices {
    splices: Vec<Splice>,
}

impl Splices {
    /// The stretches, in rising order.
    pub fn as_slice(&self) -> &[Splice] {
        &self.splices
    }

    /// Whether every byte that is not replaced keeps its place in a file of `len` bytes, so that the edit can be written in place:
    /// only a stretch that reaches the file's end may change its length.
    pub fn keeps_places(&self, len: u64) -> bool {
        self.splices.iter().all(|splice| {
            splice.keeps_length() || splice.at.checked_add(splice.old_len) == Some(len)
        })
    }

    /// How many bytes a file of `len` bytes has after the edit, or nothing where the edit does not lie within the file.
    pub fn new_len(&self, len: u64) -> Option<u64> {
        let (mut end, mut new_len) = (0, len);
        for splice in &self.splices {
            if splice.at < end {
                return None;
            }
            end = splice
                .at
                .checked_add(splice.old_len)
                .filter(|end| *end <= len)?;
            new_len = (new_len - splice.old_len).checked_add(splice.new.len() as u64)?;
        }
        Some(new_len)
    }

    /// How many bytes are taken out or put in, whichever are more.
    pub fn changed_len(&self) -> u64 {
        let of = |splice: &Splice| splice.old_len.max(splice.new.len() as u64);
        self.splices.iter().map(of).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splices(at: u64, old_len: u64, new_len: usize) -> Splices {
        match Edit::replace(at, old_len, vec![0; new_len]) {
            Edit::Splices(splices) => splices,
            Edit::Rewrite(_) => unreachable!("a replacement is no rewrite"),
        }
    }

    #[test]
    fn an_edit_past_the_end_does_not_fit() {
        assert_eq!(splices(8, 4, 4).new_len(12), Some(12));
        assert_eq!(splices(8, 4, 1).new_len(12), Some(9));
        assert_eq!(splices(8, 4, 4).new_len(11), None);
        assert_eq!(splices(u64::MAX, 4, 0).new_len(u64::MAX), None);
    }

    #[test]
    fn only_at_the_end_may_a_length_change_without_moving_anything() {
        assert!(splices(0, 3, 3).keeps_places(9));
        assert!(splices(6, 3, 4).keeps_places(9));
        assert!(splices(9, 0, 4).keeps_places(9));
        assert!(!splices(0, 3, 4).keeps_places(9));
    }
}
