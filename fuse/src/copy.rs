//! Copies of files: content and everything that belongs to it.

use std::{
    fs::File,
    os::fd::{AsFd as _, BorrowedFd},
};

use rustix::{
    buffer::spare_capacity,
    fs::{Gid, Mode, OFlags, Uid, XattrFlags},
    io::Errno,
};

use crate::tree::magic_link;

/// How much is copied by one call.
const PIECE: usize = 16 << 20;

/// Gives `to` the owner, mode, ACLs and extended attributes of `from`.
pub(crate) fn attributes(from: BorrowedFd<'_>, to: &File) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let from = magic_link(from);
    let mut names = Vec::with_capacity(64 << 10);
    match rustix::fs::listxattr(&from, spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        // Those of the old content have no meaning for the new one.
        if name == b"security.ima" || name == b"security.evm" || name == b"security.capability" {
            continue;
        }
        let mut value = Vec::with_capacity(64 << 10);
        rustix::fs::getxattr(&from, name, spare_capacity(&mut value))?;
        match rustix::fs::fsetxattr(to, name, &value, XattrFlags::empty()) {
            // Labels are the policy's own affair.
            Err(Errno::PERM | Errno::OPNOTSUPP) if name.starts_with(b"security.") => {}
            result => result?,
        }
    }
    Ok(())
}

/// Gives `to`, which is empty, the content of `from`, which is open as a mere path.
pub(crate) fn content(from: BorrowedFd<'_>, to: &File) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let from = rustix::fs::open(magic_link(from), flags, Mode::empty())?;
    if rustix::fs::ioctl_ficlone(to, from.as_fd()).is_ok() {
        return Ok(());
    }
    let (mut read, mut written) = (0, 0);
    loop {
        match rustix::fs::copy_file_range(&from, Some(&mut read), to, Some(&mut written), PIECE) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
