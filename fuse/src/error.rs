//! Why a mount cannot be.

use std::{io, path::PathBuf};

/// Why a mount could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory below cannot be used. May pass: it is made, or mounted.
    #[error("cannot open the backing directory {}", .path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The filesystem below cannot give its files lasting names. Stays.
    #[error(
        "the filesystem of {} has no file handles, which the mount needs: use ext4, XFS, btrfs or tmpfs; or the daemon lacks CAP_DAC_READ_SEARCH",
        .path.display()
    )]
    NoHandles {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The mount point cannot be used. Stays until somebody makes way.
    #[error("cannot use the mount point {}", .path.display())]
    MountPoint {
        /// The mount point.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else is mounted there. Stays until somebody unmounts it.
    #[error("{} is a mount point already, of {kind} {source_name}; unmount that first", .path.display())]
    Occupied {
        /// The mount point.
        path: PathBuf,
        /// The kind of filesystem.
        kind: String,
        /// What is mounted.
        source_name: String,
    },
    /// The kernel does not mount it. Stays: rights or /dev/fuse are missing.
    #[error("cannot mount on {}; it takes /dev/fuse and CAP_SYS_ADMIN", .path.display())]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is held back below cannot be found. May pass.
    #[error("cannot look for what was held back below {}", .path.display())]
    Look {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Root { .. } | Self::Look { .. } => true,
            Self::NoHandles { .. }
            | Self::MountPoint { .. }
            | Self::Occupied { .. }
            | Self::Mount { .. } => false,
        }
    }
}
