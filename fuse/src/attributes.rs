//! Attributes: stat, chmod, chown, times, extended attributes.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    time::SystemTime,
};

use fuser::TimeOrNow;
use rustix::{
    buffer::spare_capacity,
    fs::{
        AtFlags, FileType, Gid, Mode, Stat, StatVfs, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
        Uid, XattrFlags,
    },
    io::Errno,
};

use crate::{
    names::Caller,
    node::Node,
    tree::{Tree, magic_link},
};

/// What is to be changed. Nothing at all is what the kernel asks for before it passes a write of somebody whose writes take
/// the set-id bits away.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Changes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) len: Option<u64>,
    pub(crate) accessed: Option<TimeOrNow>,
    pub(crate) modified: Option<TimeOrNow>,
    /// The descriptor by which the length is to be set.
    pub(crate) open: Option<u64>,
}

impl Changes {
    /// Whether nothing is to be changed.
    pub(crate) fn is_nothing(self) -> bool {
        let asked = Self { open: None, ..self };
        asked == Self::default()
    }
}

/// The longest value of an extended attribute. Source: Linux include/uapi/linux/limits.h, `XATTR_SIZE_MAX`.
const LONGEST: usize = 64 << 10;

impl Tree {
    pub(crate) fn stat(&self, number: u64) -> Result<Stat, Errno> {
        rustix::fs::fstat(&*self.reach(&*self.node(number)?)?)
    }

    pub(crate) fn change_attributes(
        &self,
        number: u64,
        changes: Changes,
        caller: Caller,
    ) -> Result<Stat, Errno> {
        let node = self.node(number)?;
        let file = self.reach(&node)?;
        if changes.is_nothing() && node.kind == FileType::RegularFile {
            self.drop_set_id_for(&node, &file, caller)?;
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            let (uid, gid) = (
                changes.uid.map(Uid::from_raw),
                changes.gid.map(Gid::from_raw),
            );
            rustix::fs::chownat(&*file, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = changes.mode {
            rustix::fs::chmod(magic_link(file.as_fd()), Mode::from_raw_mode(mode & 0o7777))?;
        }
        let by_open = match (changes.len, changes.open) {
            (Some(len), Some(open)) => {
                Some(self.truncate_open(open, len, caller.drops_set_id())?)
            }
            (Some(len), None) => {
                self.truncate(&node, len, caller.drops_set_id())?;
                None
            }
            (None, _) => None,
        };
        if changes.accessed.is_some() || changes.modified.is_some() {
            let times = Timestamps {
                last_access: timespec(changes.accessed),
                last_modification: timespec(changes.modified),
            };
            rustix::fs::utimensat(&*file, "", &times, AtFlags::EMPTY_PATH)?;
        }
        match by_open {
            // A descriptor that was led on has another file's length.
            Some(stat) if changes.accessed.is_none() && changes.modified.is_none() => {
                let own = rustix::fs::fstat(&*file)?;
                Ok(if stat.st_ino == own.st_ino { stat } else { own })
            }
            _ => rustix::fs::fstat(&*file),
        }
    }

    /// A change of nothing. chown(2) with neither an owner nor a group looks the same, by whomever it is, and is for the owner and root alone
    /// where there are bits to be taken; but whoever may write may take them anyhow.
    fn drop_set_id_for(&self, node: &Node, file: &OwnedFd, caller: Caller) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(file)?;
        let has_bits = stat.st_mode & (libc::S_ISUID | libc::S_ISGID) != 0;
        let may =
            || caller.uid == 0 || caller.uid == stat.st_uid || self.opens.is_written(node.number);
        match has_bits && !may() {
            true => Err(Errno::PERM),
            false => drop_set_id(file.as_fd()),
        }
    }

    pub(crate) fn space(&self) -> Result<StatVfs, Errno> {
        rustix::fs::fstatvfs(&self.root)
    }

    pub(crate) fn attribute(&self, number: u64, name: &OsStr) -> Result<Vec<u8>, Errno> {
        let file = self.reach(&*self.node(number)?)?;
        let mut value = Vec::with_capacity(LONGEST);
        rustix::fs::getxattr(magic_link(file.as_fd()), name, spare_capacity(&mut value))?;
        Ok(value)
    }

    pub(crate) fn attribute_names(&self, number: u64, caller: Caller) -> Result<Vec<u8>, Errno> {
        let file = self.reach(&*self.node(number)?)?;
        let mut names = Vec::with_capacity(LONGEST);
        rustix::fs::listxattr(magic_link(file.as_fd()), spare_capacity(&mut names))?;
        if caller.uid == 0 {
            return Ok(names);
        }
        // Nobody but an administrator sees these. Source: xattr(7), trusted extended attributes.
        let seen = names
            .split_inclusive(|byte| *byte == 0)
            .filter(|name| !name.starts_with(b"trusted."));
        Ok(seen.flatten().copied().collect())
    }

    pub(crate) fn set_attribute(
        &self,
        number: u64,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Result<(), Errno> {
        let file = self.reach(&*self.node(number)?)?;
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        rustix::fs::setxattr(magic_link(file.as_fd()), name.as_bytes(), value, flags)
    }

    pub(crate) fn remove_attribute(&self, number: u64, name: &OsStr) -> Result<(), Errno> {
        let file = self.reach(&*self.node(number)?)?;
        rustix::fs::removexattr(magic_link(file.as_fd()), name)
    }
}

/// Takes the bits from a file, open or a mere path, that a change by somebody without `CAP_FSETID` takes from it. Set-group-ID
/// without the group's right to execute, which means nothing, goes too: below, members of the group keep it, and no request tells who is one.
///
/// Source: Linux fs/attr.c, `setattr_should_drop_suidgid`.
pub(crate) fn drop_set_id(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let mode = rustix::fs::fstat(file)?.st_mode;
    let left = mode & !(libc::S_ISUID | libc::S_ISGID);
    if left != mode {
        rustix::fs::chmod(magic_link(file), Mode::from_raw_mode(left & 0o7777))?;
    }
    Ok(())
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    match time {
        None => special(UTIME_OMIT),
        Some(TimeOrNow::Now) => special(UTIME_NOW),
        Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Timespec {
                tv_sec: since.as_secs().cast_signed(),
                tv_nsec: since.subsec_nanos().into(),
            },
            // fuser takes the nanoseconds away from a time before 1970, where the kernel adds them.
            Err(before) => Timespec {
                tv_sec: -before.duration().as_secs().cast_signed(),
                tv_nsec: before.duration().subsec_nanos().into(),
            },
        },
    }
}
