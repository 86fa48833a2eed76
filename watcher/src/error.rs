//! What can go wrong, and whether it passes by itself.

use std::io;
use std::path::PathBuf;

/// Why a directory is not watched or not looked at. Paths are those of the system, not relative to the root.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The root is not there, or is another directory than the one that was watched. May pass: it is tried again until
    /// the root is back.
    #[error("{}: the root is gone", root.display())]
    RootGone {
        /// The root.
        root: PathBuf,
        /// What opening it said.
        source: io::Error,
    },

    /// The user has no inotify watch left. Stays until the limit is raised or directories are removed.
    #[error(
        "{}: too few inotify watches, raise fs.inotify.max_user_watches (it is {})",
        directory.display(), number(*limit)
    )]
    TooFewWatches {
        /// The first directory that got no watch.
        directory: PathBuf,
        /// The present value of the limit, if it can be read.
        limit: Option<u64>,
    },

    /// The user has no inotify instance left. Stays until the limit is raised or another program ends.
    #[error("too few inotify instances, raise fs.inotify.max_user_instances (it is {})", number(*limit))]
    TooFewInstances {
        /// The present value of the limit, if it can be read.
        limit: Option<u64>,
    },

    /// The directory cannot be watched. May pass.
    #[error("{}: cannot be watched", directory.display())]
    Unwatchable {
        /// The directory.
        directory: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },

    /// The directory cannot be read, so that files in it stay unseen. May pass.
    #[error("{}: cannot be read", directory.display())]
    Unreadable {
        /// The directory.
        directory: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },

    /// There is nothing of that name below the root. May pass.
    #[error("{}: not found", path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },

    /// The path is absolute, has a `..` in it, or leads through a symbolic link. Stays.
    #[error("{}: leads out of the root", path.display())]
    Outside {
        /// The path.
        path: PathBuf,
    },

    /// The system refused a thread, a descriptor, or another resource. May pass.
    #[error("the watcher cannot run")]
    Resources {
        /// The kernel's reason.
        source: io::Error,
    },
}

impl Error {
    /// Says whether the same call may succeed later without anybody's doing.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::RootGone { .. }
            | Self::Unwatchable { .. }
            | Self::Unreadable { .. }
            | Self::NotFound { .. }
            | Self::Resources { .. } => true,
            Self::TooFewWatches { .. } | Self::TooFewInstances { .. } | Self::Outside { .. } => {
                false
            }
        }
    }
}

fn number(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unknown".to_owned(), |limit| limit.to_string())
}
