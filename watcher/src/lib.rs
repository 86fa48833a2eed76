//! Tells which files below a directory their writers have finished. Linux only (openat2: 5.6).
//!
//! ```no_run
//! # use std::path::Path;
//! use signdrop_watcher::{Event, Watcher};
//!
//! let watcher = Watcher::start(
//!     Path::new("/srv/drop"),
//!     |path| path.ends_with("repodata"),
//!     |event| match event {
//!         Event::Finished(path) => println!("finished: {}", path.display()),
//!         other => println!("{other:?}"),
//!     },
//! )?;
//! # Ok::<(), signdrop_watcher::Error>(())
//! ```
//!
//! # Threads
//! - notify's own reads the kernel's queue and runs the listener, which tells [`Event::Finished`] and [`Event::Gone`] at
//!   once and leaves all else to the others.
//! - The sentry keeps every directory watched: a new one is watched first and then looked at, so that what was in it
//!   before the watch stood is found. It goes round all of them at the start, after lost events, when asked, and from time
//!   to time while some are not watched.
//! - The looker reads directories and tells [`Event::Found`]. It alone may be kept waiting by the sink.
//!
//! # Names that cannot be relied on
//! inotify watches directories, not names. When a directory is renamed, notify goes on to report under its old name for a
//! while. The listener disbelieves what comes from a directory once its name has been reported gone, until the sentry has
//! made sure that notify has forgotten the old name and the directory is watched under the new one.
//!
//! # What is not noticed
//! A directory that is mounted twice within the tree (a bind mount) is watched under one of its names. What is mounted
//! over a directory of the tree is noticed at the next look; over the root, within a minute. A file that goes on being
//! written under one name after it was hard-linked to another is not reported under the latter when it is closed.

mod beneath;
mod chores;
mod directories;
mod error;
mod event;
mod inotify;
mod listener;
mod looker;
mod looks;
mod sentry;
mod shared;
mod troubles;
mod walk;
mod watcher;
mod writers;

pub use error::Error;
pub use event::{Coverage, Event, Shortfall};
pub use walk::{Entry, Kind, Stat, walk};
pub use watcher::Watcher;
pub use writers::{Writers, writers};
