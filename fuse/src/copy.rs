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
    let from = magic_link(from);
    let names = attribute_names(&from)?;
    // The directory's default ACL has given it rights that the old one does not have.
    for name in attribute_names(&magic_link(to.as_fd()))? {
        if !name.starts_with(b"security.") && !names.contains(&name) {
            match rustix::fs::fremovexattr(to, &*name) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for name in names {
        // Those of the old content have no meaning for the new one.
        if name == b"security.ima" || name == b"security.evm" || name == b"security.capability" {
            continue;
        }
        let mut value = Vec::with_capacity(64 << 10);
        rustix::fs::getxattr(&from, &*name, spare_capacity(&mut value))?;
        match rustix::fs::fsetxattr(to, &*name, &value, XattrFlags::empty()) {
            // Labels are the policy's own affair.
            Err(Errno::PERM | Errno::OPNOTSUPP) if name.starts_with(b"security.") => {}
            result => result?,
        }
    }
    Ok(())
}

/// The names of a file's extended attributes; none where the filesystem has no such.
fn attribute_names(path: &str) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::with_capacity(64 << 10);
    match rustix::fs::listxattr(path, spare_capacity(&mut names)) {
        Ok(_) | Err(Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno),
    }
    let names = names.split(|byte| *byte == 0);
    Ok(names
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
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
