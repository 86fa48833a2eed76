//! The parts of signdrop.
