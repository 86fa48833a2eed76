//! A copy with the edit in it that takes the file's place.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::unix::fs::FileExt as _,
};

use rustix::{
    buffer::spare_capacity,
    fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Uid, XattrFlags},
    io::Errno,
};

use super::{Error, Flush, is_unsupported, move_modified_second, set_len, stamp_of, unchanged};
use crate::{
    edit::{Edit, Splices},
    place::{Place, Stamp},
    step,
};

/// What the names of temporary files begin and end with.
const TEMPORARY: (&str, &str) = (".signdrop-", ".tmp");

/// Whether a name is one that only this program gives, to files that a crash may leave behind.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    name.strip_prefix(TEMPORARY.0.as_bytes())
        .and_then(|name| name.strip_suffix(TEMPORARY.1.as_bytes()))
        .is_some_and(|middle| middle.len() == 16 && middle.iter().all(u8::is_ascii_hexdigit))
}

/// Replaces the file by an edited copy.
pub(super) fn replace(
    place: &Place,
    stamp: Stamp,
    edit: &Edit,
    flush: Flush,
) -> Result<Stamp, Error> {
    match edit {
        Edit::Splices(splices) => replace_by_copy(place, stamp, splices, flush),
        Edit::Rewrite(content) => {
            let original = open(place, stamp)?;
            let copy = Temporary::create(place)?;
            let len = content
                .metadata()
                .map_err(Error::io("look at the new content"))?
                .len();
            copy.copy(content, 0, 0, len)?;
            copy.take_over(&original, stamp, flush)
        }
    }
}

/// Replaces the file by a copy with stretches of it replaced.
pub(super) fn replace_by_copy(
    place: &Place,
    stamp: Stamp,
    splices: &Splices,
    flush: Flush,
) -> Result<Stamp, Error> {
    let original = open(place, stamp)?;
    let copy = Temporary::create(place)?;
    if splices.keeps_places(stamp.len()) && copy.clone_of(&original)? {
        copy.overwrite(stamp, splices)?;
    } else {
        copy.fill(&original, stamp.len(), splices)?;
    }
    copy.take_over(&original, stamp, flush)
}

fn open(place: &Place, stamp: Stamp) -> Result<File, Error> {
    unchanged(place.open().map_err(Error::io("open the file"))?, stamp)
}

/// What came of replacing a file by an edited clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByClone {
    /// It is replaced.
    Done(Stamp),
    /// The filesystem does not clone; nothing has been done.
    CannotClone,
    /// No file may be made beside it; nothing has been done.
    NoFileBeside,
}

/// Replaces the file by an edited clone, where that can be.
pub(super) fn replace_by_clone(
    place: &Place,
    stamp: Stamp,
    splices: &Splices,
    flush: Flush,
) -> Result<ByClone, Error> {
    let original = open(place, stamp)?;
    let copy = match Temporary::create(place) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(ByClone::NoFileBeside);
        }
        copy => copy?,
    };
    if !copy.clone_of(&original)? {
        return Ok(ByClone::CannotClone);
    }
    copy.overwrite(stamp, splices)?;
    copy.take_over(&original, stamp, flush).map(ByClone::Done)
}

/// A new file beside the one that is to be replaced; its name goes when it is dropped.
pub(super) struct Temporary<'a> {
    place: &'a Place,
    name: CString,
    file: File,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next look.
        let _ = rustix::fs::unlinkat(self.place.directory(), &self.name, AtFlags::empty());
    }
}

impl<'a> Temporary<'a> {
    /// A new file that only this program may read yet.
    ///
    /// # Errors
    /// [`Error::Io`], which may pass.
    pub(super) fn create(place: &'a Place) -> Result<Self, Error> {
        // Straight from the kernel: no secret is made of it, and aws-lc takes 50 ms to seed its own generator, once in each process.
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(Error::io("get random bytes"))?;
        let (begin, end) = TEMPORARY;
        let name = CString::new(format!("{begin}{}{end}", hex::encode(random)))
            .map_err(|error| Error::io("name a copy")(io::Error::from(error)))?;
        let file = rustix::fs::openat(
            place.directory(),
            &name,
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )
        .map_err(Error::io("create a copy beside the file"))?;
        step::reached("create");
        Ok(Self {
            place,
            name,
            file: file.into(),
        })
    }

    /// The file, to be written.
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the file the name that the place has, whatever bore it before, and makes that last.
    ///
    /// # Errors
    /// [`Error::Io`], which may pass.
    pub(super) fn take_name(self) -> Result<(), Error> {
        let (directory, name) = (self.place.directory(), self.place.name());
        rustix::fs::renameat(directory, &self.name, directory, name)
            .map_err(Error::io("put a new file in its place"))?;
        self.place
            .sync_directory()
            .map_err(Error::io("make a new file's name last"))
    }

    fn clone_of(&self, original: &File) -> Result<bool, Error> {
        match rustix::fs::ioctl_ficlone(&self.file, original) {
            Ok(()) => Ok(true),
            Err(errno) if is_unsupported(errno) => Ok(false),
            Err(errno) => Err(Error::io("clone the file")(errno)),
        }
    }

    fn overwrite(&self, before: Stamp, splices: &Splices) -> Result<(), Error> {
        for splice in splices.as_slice() {
            self.file
                .write_all_at(&splice.new, splice.at)
                .map_err(Error::io("write the copy"))?;
        }
        set_len(&self.file, before, splices)
    }

    /// Writes the original's bytes with the edit's in their places.
    fn fill(&self, original: &File, len: u64, splices: &Splices) -> Result<(), Error> {
        let (mut from, mut to) = (0, 0);
        for splice in splices.as_slice() {
            to += self.copy(original, from, to, splice.at - from)?;
            self.file
                .write_all_at(&splice.new, to)
                .map_err(Error::io("write the copy"))?;
            to += splice.new.len() as u64;
            from = splice.at + splice.old_len;
        }
        self.copy(original, from, to, len - from)?;
        Ok(())
    }

    /// Copies within the kernel and answers `len`.
    fn copy(&self, original: &File, from: u64, to: u64, len: u64) -> Result<u64, Error> {
        let (mut from, mut to, mut rest) = (from, to, len);
        while rest > 0 {
            let chunk = usize::try_from(rest).unwrap_or(usize::MAX).min(1 << 30);
            let copied = rustix::fs::copy_file_range(
                original,
                Some(&mut from),
                &self.file,
                Some(&mut to),
                chunk,
            );
            match copied {
                // Some filesystems say so where they mean that they cannot.
                Ok(0) => {
                    self.copy_by_hand(original, from, to, rest)?;
                    rest = 0;
                }
                Ok(copied) => rest -= copied as u64,
                Err(Errno::INTR) => {}
                Err(errno) if is_unsupported(errno) => {
                    self.copy_by_hand(original, from, to, rest)?;
                    rest = 0;
                }
                Err(errno) => return Err(Error::io("write the copy")(errno)),
            }
        }
        Ok(len)
    }

    /// Copies through memory, for filesystems that cannot do it by themselves.
    fn copy_by_hand(&self, original: &File, from: u64, to: u64, len: u64) -> Result<(), Error> {
        let mut buffer = vec![0; 1 << 18];
        let mut done = 0;
        while done < len {
            let want = buffer.len().min((len - done) as usize);
            let chunk = buffer.get_mut(..want).unwrap_or_default();
            original
                .read_exact_at(chunk, from + done)
                .map_err(Error::io("read the file"))?;
            self.file
                .write_all_at(chunk, to + done)
                .map_err(Error::io("write the copy"))?;
            done += want as u64;
        }
        Ok(())
    }

    /// Puts the copy into the original's place, with everything that belongs to the original but its content.
    fn take_over(self, original: &File, stamp: Stamp, flush: Flush) -> Result<Stamp, Error> {
        copy_attributes(original, &self.file)?;
        move_modified_second(&self.file, stamp)?;
        if flush == Flush::Now {
            rustix::fs::fsync(&self.file).map_err(Error::io("make the copy last"))?;
        }
        step::reached("fill");
        self.exchange(original, stamp)?;
        step::reached("exchange");
        // Taken now: what anybody else writes while this is made to last has another one.
        let stamp = stamp_of(&self.file)?;
        if flush == Flush::Now {
            self.place
                .sync_directory()
                .map_err(Error::io("make the copy's name last"))?;
        }
        Ok(stamp)
    }

    /// Exchanges the two names, and exchanges them back where what came out is not the file that was copied: a writer may have
    /// put a newer one there at the last moment, which must not be lost. Nor must one that comes while that is put back.
    fn exchange(&self, original: &File, stamp: Stamp) -> Result<(), Error> {
        let (directory, name) = (self.place.directory(), self.place.name());
        if Stamp::of(&self.place.stat().map_err(Error::io("look at the file"))?) != stamp {
            return Err(Error::Changed);
        }
        // The exchange itself moves the change time, so that only inodes are compared.
        let copy = stamp_of(&self.file)?.inode();
        let (mut put, mut expected) = (copy, stamp.inode());
        loop {
            let swapped = rustix::fs::renameat_with(
                directory,
                &self.name,
                directory,
                name,
                RenameFlags::EXCHANGE,
            );
            match swapped {
                Ok(()) => {}
                Err(errno) if is_unsupported(errno) => {
                    return rustix::fs::renameat(directory, &self.name, directory, name)
                        .map_err(Error::io("put the copy in the file's place"));
                }
                Err(Errno::NOENT) => return Err(Error::Changed),
                Err(errno) => return Err(Error::io("put the copy in the file's place")(errno)),
            }
            let out = rustix::fs::statat(directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(Error::io("look at the file"))?
                .st_ino;
            if out != expected {
                // It is newer than what has been put in its place, and goes back.
                (put, expected) = (out, put);
            } else if put != copy {
                return Err(Error::Changed);
            } else if self.place.is_written(original) || is_changed(original, stamp)? {
                // Nobody can open the original by its name any more, but somebody had it open before.
                (put, expected) = (out, put);
            } else {
                return Ok(());
            }
        }
    }
}

/// Whether somebody has written to a file since it was stamped.
fn is_changed(file: &File, stamp: Stamp) -> Result<bool, Error> {
    Ok(!stamp_of(file)?.has_content_of(&stamp))
}

/// Gives the copy the original's owner, mode, ACLs and extended attributes.
fn copy_attributes(original: &File, copy: &File) -> Result<(), Error> {
    let failed = "give the copy the file's owner, mode and attributes";
    let stat = rustix::fs::fstat(original).map_err(Error::io(failed))?;
    let own = rustix::fs::fstat(copy).map_err(Error::io(failed))?;
    if (stat.st_uid, stat.st_gid) != (own.st_uid, own.st_gid) {
        rustix::fs::fchown(
            copy,
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
        )
        .map_err(Error::io(failed))?;
    }
    rustix::fs::fchmod(copy, Mode::from_raw_mode(stat.st_mode)).map_err(Error::io(failed))?;

    let wanted = attributes(original).map_err(Error::io(failed))?;
    let present = attributes(copy).map_err(Error::io(failed))?;
    for (name, value) in &wanted {
        // Measurements of the old content, which nobody but their owner could set, and which would be wrong for the new.
        if [c"security.ima", c"security.evm"].contains(&name.as_c_str()) {
            continue;
        }
        if present
            .iter()
            .any(|other| other == &(name.clone(), value.clone()))
        {
            continue;
        }
        rustix::fs::fsetxattr(copy, name, value, XattrFlags::empty()).map_err(Error::io(failed))?;
    }
    // A default ACL of the directory, or the security policy, may have given the copy what the file does not have.
    for (name, _) in present {
        let is_foreign = !wanted.iter().any(|(other, _)| *other == name);
        if is_foreign && !name.to_bytes().starts_with(b"security.") {
            match rustix::fs::fremovexattr(copy, &name) {
                // XFS lists an ACL under two names, and both go at once.
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(Error::io(failed)(errno)),
            }
        }
    }
    Ok(())
}

fn attributes(file: &File) -> Result<Vec<(CString, Vec<u8>)>, Errno> {
    let mut names: Vec<u8> = Vec::with_capacity(64 << 10);
    match rustix::fs::flistxattr(file, spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    }
    let mut attributes = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let mut value: Vec<u8> = Vec::with_capacity(64 << 10);
        match rustix::fs::fgetxattr(file, name, spare_capacity(&mut value)) {
            Ok(_) => attributes.push((name.to_owned(), value)),
            // It went between the two questions.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_temporary() {
        assert!(is_temporary(b".signdrop-0123456789abcdef.tmp"));
        for name in [
            ".signdrop-.tmp",
            ".signdrop-0123456789abcdeg.tmp",
            "signdrop-0123456789abcdef.tmp",
            ".signdrop-0123456789abcdef.rpm",
            ".signdrop-0123456789abcdef0.tmp",
        ] {
            assert!(!is_temporary(name.as_bytes()), "{name}");
        }
    }
}
