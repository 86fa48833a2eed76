//! The kinds of artifact that can be signed.

pub mod rpm;
