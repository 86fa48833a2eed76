//! The parts of signdrop, a daemon that signs what is dropped. ARCHITECTURE.md tells how they belong together.
//!
//! This library exists for the program and its tests; its interface is not stable.

pub mod apply;
pub mod arrival;
pub mod barrier;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod digest;
pub mod edit;
mod flushes;
pub mod format;
pub mod http;
pub mod identity;
pub mod key;
pub mod keyring;
pub mod keystore;
pub mod master_key;
pub mod metrics;
pub mod obs;
pub mod place;
mod private_file;
pub mod project;
pub mod queue;
pub mod record;
pub mod signer;
mod step;
pub mod store;
mod stripes;
