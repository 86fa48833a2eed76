//! The bytes to change in an artifact, as a value.
//!
//! A format answers an [`Edit`]; only [`crate::apply`] writes one.

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

/// What has to change in an artifact: stretches in rising order that do not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    splices: Vec<Splice>,
}

impl Edit {
    /// Replaces `old_len` bytes at `at` by `new`.
    pub fn replace(at: u64, old_len: u64, new: Vec<u8>) -> Self {
        Self {
            splices: vec![Splice { at, old_len, new }],
        }
    }

    /// The stretches, in rising order.
    pub fn splices(&self) -> &[Splice] {
        &self.splices
    }

    /// Whether every byte that is not replaced keeps its place, so that the edit can be written in place.
    pub fn keeps_length(&self) -> bool {
        self.splices
            .iter()
            .all(|splice| splice.old_len == splice.new.len() as u64)
    }

    /// How many bytes are written where nothing is moved.
    pub fn new_len(&self) -> usize {
        self.splices.iter().map(|splice| splice.new.len()).sum()
    }

    /// Whether the edit lies within a file of `len` bytes.
    pub fn fits(&self, len: u64) -> bool {
        let mut end = 0;
        self.splices.iter().all(|splice| {
            let starts_after = splice.at >= end;
            match splice.at.checked_add(splice.old_len) {
                Some(next) => {
                    end = next;
                    starts_after && next <= len
                }
                None => false,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_past_the_end_does_not_fit() {
        let edit = Edit::replace(8, 4, vec![0; 4]);
        assert!(edit.fits(12));
        assert!(!edit.fits(11));
        assert!(!Edit::replace(u64::MAX, 4, vec![]).fits(u64::MAX));
    }

    #[test]
    fn only_an_edit_of_equal_lengths_keeps_the_length() {
        assert!(Edit::replace(0, 3, vec![1, 2, 3]).keeps_length());
        assert!(!Edit::replace(0, 3, vec![1, 2, 3, 4]).keeps_length());
    }
}
