//! How an edit reaches the disk: whole or not at all, and to stay. Nothing else writes artifacts.

mod publish;
pub mod redo;
pub(crate) mod replace;

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{Mutex, PoisonError},
};

pub(crate) use publish::publish;
use redo::{Begun, Left, Redo, Undone};
use replace::ByClone;
use rustix::{
    fs::{Advice, Mode, Timespec, Timestamps, UTIME_OMIT},
    io::Errno,
};

use crate::{
    config::Update,
    edit::{Edit, Splices},
    place::{Place, Stamp},
    step,
};

/// Why an edit did not reach the disk. The file is then as it was, or is healed by the next start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file changed since it was read; what changed it is an arrival of its own. May pass.
    #[error("the file changed while it was worked on")]
    Changed,
    /// The edit reaches beyond the file. Stays.
    #[error("the edit does not fit the file")]
    DoesNotFit,
    /// The file or its directory cannot be written. May pass: disks are emptied, rights are given.
    #[error("cannot {what}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The file could not be written, and has got another stamp by that: it is again what it was, or waits to be healed. May pass, as
    /// its source does.
    #[error("the write was given up")]
    GivenUp {
        /// The file's present stamp.
        stamp: Stamp,
        /// What failed.
        source: Box<Self>,
    },
    /// The redo log cannot be written. May pass.
    #[error("cannot write the redo log: {0}")]
    Redo(String),
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Changed | Self::Io { .. } | Self::Redo(_) => true,
            Self::GivenUp { source, .. } => source.may_pass(),
            Self::DoesNotFit => false,
        }
    }

    /// The same for a file that has got another stamp by the attempt.
    fn given_up(self, stamp: Stamp) -> Self {
        Self::GivenUp {
            stamp,
            source: Box::new(self),
        }
    }

    fn io<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            what,
            source: source.into(),
        }
    }
}

/// Bytes that are written in place at the most; the redo log is made for headers of a few kilobytes.
const MOST_IN_PLACE: u64 = 64 << 10;

/// Whether files of a filesystem can be cloned, so that a copy costs no more than what is edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cloning {
    Works,
    Fails,
}

/// When what is written is flushed to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Before it is answered.
    Now,
    /// By the caller, with [`flush`], before anybody relies on it. Until then a power cut may take the file's whole content, as it
    /// may with any file that was written and not flushed. A crash of the program alone takes nothing.
    Later,
}

/// Writes edits.
#[derive(Debug)]
pub struct Apply {
    redo: Option<Redo>,
    /// What was found out of each device.
    cloning: Mutex<HashMap<u64, Cloning>>,
}

impl Apply {
    /// With a redo log, edits can be written in place.
    pub fn new(redo: Redo) -> Self {
        Self {
            redo: Some(redo),
            cloning: Mutex::default(),
        }
    }

    /// Without a redo log, every edit is written into a copy that takes the file's place.
    pub fn without_redo() -> Self {
        Self {
            redo: None,
            cloning: Mutex::default(),
        }
    }

    /// Writes `edit` into the file at `place`, which has to be as it was when it was stamped, and answers its new stamp.
    ///
    /// When this returns, the edit is on the disk, unless that was to be later. Owner, mode, ACLs and extended attributes stay; hard
    /// links elsewhere keep the old content; the modification time moves to another second, since caches such as createrepo_c's compare seconds.
    ///
    /// # Errors
    /// [`Error`]; the file is as it was, or, where [`Error::GivenUp`] says so, waits to be healed.
    pub fn apply(
        &self,
        place: &Place,
        stamp: Stamp,
        edit: &Edit,
        update: Update,
        flush: Flush,
    ) -> Result<Stamp, Error> {
        let splices = match edit {
            Edit::Splices(splices) if splices.new_len(stamp.len()).is_none() => {
                return Err(Error::DoesNotFit);
            }
            Edit::Splices(splices) => Some(splices),
            Edit::Rewrite(_) => None,
        };
        let stat = place.stat().map_err(Error::io("look at the file"))?;
        if Stamp::of(&stat) != stamp {
            return Err(Error::Changed);
        }
        let in_place = self
            .redo
            .as_ref()
            .zip(splices)
            .filter(|_| update == Update::Auto && stat.st_nlink == 1)
            .filter(|(_, splices)| {
                splices.keeps_places(stamp.len()) && splices.changed_len() <= MOST_IN_PLACE
            });
        let Some((redo, splices)) = in_place else {
            return replace::replace(place, stamp, edit, flush);
        };
        // What known writers have open has to stay the file that they have open, so that it is noticed what they go on writing.
        if place.has_known_writers() || self.cloning(stat.st_dev) == Some(Cloning::Fails) {
            return write_in_place(redo, place, stamp, splices, flush);
        }
        match replace::replace_by_clone(place, stamp, splices, flush)? {
            ByClone::Done(stamp) => {
                self.remember(stat.st_dev, Cloning::Works);
                Ok(stamp)
            }
            ByClone::CannotClone => {
                self.remember(stat.st_dev, Cloning::Fails);
                write_in_place(redo, place, stamp, splices, flush)
            }
            ByClone::NoFileBeside => write_in_place(redo, place, stamp, splices, flush),
        }
    }

    /// Brings a file that a crash, or a failed write, left as a mixture to its edit's end.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::GivenUp`], which may pass.
    pub fn heal(&self, place: &Place, inode: u64) -> Result<Left, Error> {
        let Some(redo) = &self.redo else {
            return Ok(Left::Whole);
        };
        redo.heal(place, inode).map_err(|error| match place.stat() {
            Ok(stat) => error.given_up(Stamp::of(&stat)),
            Err(_) => error,
        })
    }

    /// Whether a crash, or a failed write, may have left the file with this inode as a mixture.
    pub fn has_left(&self, inode: u64) -> bool {
        self.redo.as_ref().is_some_and(|redo| redo.has_left(inode))
    }

    fn cloning(&self, device: u64) -> Option<Cloning> {
        self.cloning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&device)
            .copied()
    }

    fn remember(&self, device: u64, cloning: Cloning) {
        self.cloning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(device, cloning);
    }
}

/// Writes the edit over the file's own bytes, after a redo record has made that safe.
fn write_in_place(
    redo: &Redo,
    place: &Place,
    stamp: Stamp,
    splices: &Splices,
    flush: Flush,
) -> Result<Stamp, Error> {
    let original = unchanged(place.open().map_err(Error::io("open the file"))?, stamp)?;
    if loses_by_writing(&original)? {
        return replace::replace_by_copy(place, stamp, splices, flush);
    }
    let begun = match redo.begin(&original, splices, flush) {
        Ok(begun) => begun,
        // Without a note, only a copy is safe.
        Err(Error::Redo(reason)) => {
            tracing::warn!(
                reason,
                "a file is copied, since it cannot be noted how to repair it"
            );
            return replace::replace_by_copy(place, stamp, splices, flush);
        }
        Err(error) => return Err(error),
    };
    step::reached("redo");
    // Flushing the record took its time, in which a writer may have come. From here to the write it is microseconds.
    if place.is_written(&original) {
        redo.end(begun)?;
        return Err(Error::Changed);
    }
    let opened = place
        .open_for_writing()
        .map_err(Error::io("open the file for writing"));
    let file = match opened.and_then(|file| unchanged(file, stamp)) {
        Ok(file) => file,
        Err(error) => {
            redo.end(begun)?;
            return Err(error);
        }
    };
    match overwrite(&file, stamp, splices, flush) {
        Ok(stamp) => {
            redo.end(begun)?;
            step::reached("end");
            Ok(stamp)
        }
        Err(error) => {
            drop(file);
            undo(redo, begun, place, &original);
            Err(error.given_up(stamp_of(&original)?))
        }
    }
}

/// Makes a file that could not be written what it was: a disk that is too full for a longer one has room for it. What cannot be undone, or
/// is no longer ours, is left to be healed.
fn undo(redo: &Redo, begun: Begun, place: &Place, original: &File) {
    // The write may have waited long for its disk, in which a writer may have come.
    let undone = !place.is_written(original)
        && place
            .open_for_writing()
            .is_ok_and(|file| begun.undo(&file).is_ok_and(|undone| undone == Undone::Yes));
    if !undone || redo.end(begun.clone()).is_err() {
        redo.leave(begun);
    }
}

/// The file that has been opened, if it is the one that was stamped.
fn unchanged(file: File, stamp: Stamp) -> Result<File, Error> {
    if stamp_of(&file)? == stamp {
        Ok(file)
    } else {
        Err(Error::Changed)
    }
}

/// Whether the kernel would take something from the file at a write: capabilities, and set-id bits where the writer is not root.
fn loses_by_writing(file: &File) -> Result<bool, Error> {
    let failed = "look at the file";
    let stat = rustix::fs::fstat(file).map_err(Error::io(failed))?;
    if Mode::from_raw_mode(stat.st_mode).intersects(Mode::SUID | Mode::SGID) {
        return Ok(true);
    }
    match rustix::fs::fgetxattr(file, c"security.capability", &mut [0_u8; 0]) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(Error::io(failed)(errno)),
    }
}

fn overwrite(file: &File, before: Stamp, splices: &Splices, flush: Flush) -> Result<Stamp, Error> {
    for splice in splices.as_slice() {
        step::write_torn(file, splice);
        file.write_all_at(&splice.new, splice.at)
            .map_err(Error::io("write the file"))?;
        step::reached("write");
    }
    set_len(file, before, splices)?;
    move_modified_second(file, before)?;
    // Taken now: what anybody else writes while this is made to last has another one.
    let stamp = stamp_of(file)?;
    if flush == Flush::Now {
        rustix::fs::fdatasync(file).map_err(Error::io("make the file last"))?;
        step::reached("sync");
    }
    Ok(stamp)
}

/// Makes a file last to which an edit was written that was to be flushed later.
///
/// # Errors
/// [`Error::Io`]; what of the file is on the disk is not known then.
pub fn flush(file: &File) -> Result<(), Error> {
    if let Err(errno) = rustix::fs::fsync(file) {
        // Whoever looks once more is to find what the disk has, not what it should have got.
        let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
        return Err(Error::io("make the file last")(errno));
    }
    step::reached("flush");
    Ok(())
}

/// Cuts off what an edit that keeps all places leaves behind its end.
fn set_len(file: &File, before: Stamp, splices: &Splices) -> Result<(), Error> {
    let new_len = splices.new_len(before.len()).ok_or(Error::DoesNotFit)?;
    if new_len < before.len() {
        file.set_len(new_len)
            .map_err(Error::io("cut the file to its new length"))?;
        step::reached("cut");
    }
    Ok(())
}

/// The stamp of an open file.
pub(crate) fn stamp_of(file: &File) -> Result<Stamp, Error> {
    let stat = rustix::fs::fstat(file).map_err(Error::io("look at the file"))?;
    Ok(Stamp::of(&stat))
}

/// Sees to it that the modification time is in a later second than before, or in the present one where that was in the future. It is none that
/// the kernel gives: a write in the same tick of its clock, which is some milliseconds long before Linux 6.13, has another one.
fn move_modified_second(file: &File, before: Stamp) -> Result<(), Error> {
    let (second, nanosecond) = stamp_of(file)?.modified();
    let modified = match second == before.modified().0 {
        true => (second + 1, 0),
        false => (second, (nanosecond + 1) % 1_000_000_000),
    };
    let set = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    rustix::fs::futimens(
        file,
        &Timestamps {
            last_access: set(0, UTIME_OMIT),
            last_modification: set(modified.0, modified.1.into()),
        },
    )
    .map_err(Error::io("set the file's modification time"))
}

/// Whether an error says that the filesystem cannot do what was asked, rather than that it failed.
fn is_unsupported(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::INVAL | Errno::NOSYS
    )
}
