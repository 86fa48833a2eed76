//! The kernel's own lasting names of files: they stay through renames, and an inode that is used again gets another one.
//!
//! A table of these costs no descriptor for each file that somebody once looked up. Only those are ever opened that were
//! made from a descriptor below the root, so they lead nowhere else.
#![expect(
    unsafe_code,
    reason = "neither std nor rustix knows name_to_handle_at(2) and open_by_handle_at(2)"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use rustix::{fs::OFlags, io::Errno};

/// The longest handle. Source: Linux include/linux/exportfs.h, `MAX_HANDLE_SZ`.
const LONGEST: usize = 128;

/// A file's lasting name on its filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    kind: libc::c_int,
    bytes: Box<[u8]>,
}

/// `struct file_handle` with room behind it. Source: open_by_handle_at(2).
#[repr(C)]
struct Raw {
    len: libc::c_uint,
    kind: libc::c_int,
    bytes: [u8; LONGEST],
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

impl FileId {
    /// The lasting name of what is open, be it as a mere path.
    ///
    /// # Errors
    /// [`Errno::OPNOTSUPP`] where the filesystem has none.
    pub(crate) fn of(file: impl AsFd) -> Result<Self, Errno> {
        let mut raw = Raw {
            len: LONGEST as libc::c_uint,
            kind: 0,
            bytes: [0; LONGEST],
        };
        let mut mount: libc::c_int = 0;
        // SAFETY: the handle has the room that `len` tells, the path is a C string, all of them live through the call.
        let result = unsafe {
            libc::name_to_handle_at(
                file.as_fd().as_raw_fd(),
                c"".as_ptr(),
                (&raw mut raw).cast(),
                &raw mut mount,
                libc::AT_EMPTY_PATH,
            )
        };
        if result < 0 {
            return Err(last_errno());
        }
        let bytes = raw.bytes.get(..raw.len as usize).ok_or(Errno::OVERFLOW)?;
        Ok(Self {
            kind: raw.kind,
            bytes: bytes.into(),
        })
    }

    /// Opens the file, on the filesystem that `root` is of. Permissions of directories above it do not count.
    ///
    /// # Errors
    /// [`Errno::STALE`] where the file is gone; [`Errno::PERM`] without `CAP_DAC_READ_SEARCH`; those of open(2).
    pub(crate) fn open(&self, root: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut raw = Raw {
            len: self.bytes.len() as libc::c_uint,
            kind: self.kind,
            bytes: [0; LONGEST],
        };
        let room = raw
            .bytes
            .get_mut(..self.bytes.len())
            .ok_or(Errno::OVERFLOW)?;
        room.copy_from_slice(&self.bytes);
        let flags = (flags | OFlags::CLOEXEC).bits().cast_signed();
        // SAFETY: the handle holds as many bytes as it tells, and lives through the call.
        let result = unsafe {
            libc::open_by_handle_at(root.as_fd().as_raw_fd(), (&raw mut raw).cast(), flags)
        };
        if result < 0 {
            return Err(last_errno());
        }
        // SAFETY: the kernel has just given this descriptor to nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(result) })
    }
}
