//! A small file that anybody may read, such as a public key, put where it belongs.

use std::{
    fs::File,
    io::{Read as _, Write as _},
};

use rustix::{
    fs::{Gid, Mode, Uid},
    io::Errno,
};

use super::{Error, replace::Temporary};
use crate::place::Place;

/// Sees to it that the file at `place` has exactly `content`: a reader sees the old file or the new one, never a part.
///
/// A file that has the content already is not touched, so that caches in front of a web server keep it. A new one is readable for
/// all and belongs to whom its directory belongs, who can then replace it as before; where this program may not give files away,
/// it stays its own. A symbolic link or special file of that name is replaced, not followed.
///
/// # Errors
/// [`Error::Io`], which may pass; what was there is still there.
pub(crate) fn publish(place: &Place, content: &[u8]) -> Result<(), Error> {
    if place.open().is_ok_and(|file| has(file, content)) {
        return Ok(());
    }
    let mut new = Temporary::create(place)?;
    let file = new.file();
    file.write_all(content)
        .map_err(Error::io("write a new file"))?;
    let directory =
        rustix::fs::fstat(place.directory()).map_err(Error::io("look at a directory"))?;
    let owner = Uid::from_raw(directory.st_uid);
    let group = Gid::from_raw(directory.st_gid);
    match rustix::fs::fchown(&*file, Some(owner), Some(group)) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(Error::io("give a new file its owner")(errno)),
    }
    let for_all = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    rustix::fs::fchmod(&*file, for_all).map_err(Error::io("give a new file its mode"))?;
    rustix::fs::fsync(&*file).map_err(Error::io("make a new file last"))?;
    new.take_name()
}

/// Whether a file's content is `content`. Reads no more than one byte beyond that.
fn has(file: File, content: &[u8]) -> bool {
    let is_regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let mut present = Vec::with_capacity(content.len() + 1);
    is_regular
        && file
            .take(content.len() as u64 + 1)
            .read_to_end(&mut present)
            .is_ok()
        && present == content
}
