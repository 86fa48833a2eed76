//! A directory, mounted elsewhere: a pass-through file system that shows certain files only when a hook has finished them.
//!
//! Writers use the mount like any directory. A file whose first bytes concern the [`Hook`] is held back from then on: it is
//! renamed to a reserved name beside its own, directories do not list it, and only its writers can read it. When the last of
//! them closes it, the hook finishes it before `close` is answered, and it takes its name. What had that name before is read
//! until then, and a file that is seen does not change any more: whoever opens it for writing gets a new version.
//!
//! All other files pass through untouched. The crate knows nothing of what the hook does.
//!
//! Where to start reading: `mount.rs` for its life, `filesystem.rs` for the kernel's requests, `files.rs` and `content.rs` for what is open,
//! `held.rs` for what is held back.

mod attributes;
mod closers;
mod content;
mod copy;
mod error;
mod file_id;
mod files;
mod filesystem;
mod finishing;
mod held;
mod hook;
mod mount;
mod names;
mod node;
mod open;
mod redirects;
mod renames;
mod settling;
mod tree;
mod unseen;

pub use error::Error;
pub use hook::{Finished, HEAD, Held, Hook, MakeLast};
pub use mount::{HeldBack, Mount, Progress, Reading, Unreadable};
pub use rustix::io::Errno;
