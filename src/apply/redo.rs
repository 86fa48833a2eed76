//! What was about to be written in place, so that a crash leaves no mixture behind.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{Error, Flush, stamp_of};
use crate::{edit::Splices, flushes::Flushes, place::Place, record::now};

/// Bytes of a slot: old and new bytes of the largest edit that is made in place, and some more.
const SLOT: u64 = 3 * super::MOST_IN_PLACE;
/// Bytes of a record's length.
const LEN: usize = 8;
/// Bytes in front of a record: its length, and its SHA-256.
const HEAD: usize = LEN + 32;
/// Bytes in front of an edited end by which its file is known again.
const ANCHOR: u64 = 4096;
/// How many seconds an edit that a crash cut off is kept whose file is not found: its filesystem may not be mounted.
const KEPT: u64 = 30 * 24 * 60 * 60;
/// A disk writes this many bytes or none of them.
const SECTOR: u64 = 512;

/// One edit that has begun.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// When the edit began, in Unix seconds.
    at: u64,
    inode: u64,
    /// The file's length before the edit.
    len: u64,
    stretches: Vec<Stretch>,
}

/// What is replaced by what. Only at the file's end do the lengths differ, and begin both with what is in front of the edit.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stretch {
    at: u64,
    old: Vec<u8>,
    new: Vec<u8>,
}

/// What an edit that had begun before a crash has left of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The file is whole, before or after the edit, or no longer the one that was edited.
    Whole,
    /// The file was a mixture, and has been brought to the edit's end.
    Healed,
}

/// An edit that has begun.
#[derive(Debug, Clone)]
#[must_use = "it has to be ended, or left to be healed"]
pub(super) struct Begun {
    slot: u64,
    record: Record,
}

/// The log of edits in place: a file of slots, each with room for one record.
///
/// A record holds the old bytes and the new. A file that a crash left is then one of three things, sector by sector: all old, all
/// new, or a mixture. Only a mixture is written to; whatever else is found there is somebody else's and stays.
#[derive(Debug)]
pub struct Redo {
    file: File,
    flushes: Flushes,
    free: Mutex<Free>,
    /// What the last run left, by inode: the name may have changed since, and the device's number too.
    left: Mutex<HashMap<u64, Vec<(u64, Record)>>>,
}

/// The slots that no record is in.
#[derive(Debug, Default)]
struct Free {
    used_before: Vec<u64>,
    /// The first slot that has never been used.
    next: u64,
}

impl Redo {
    /// Opens the log in `state_dir` and reads what the last run left in it.
    ///
    /// # Errors
    /// [`Error::Redo`], which may pass.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state_dir.join("redo"))
            .map_err(failed)?;
        // The file's name lasts from here on.
        File::open(state_dir)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)?;
        let slots = file.metadata().map_err(failed)?.len().div_ceil(SLOT);
        let mut left: HashMap<u64, Vec<(u64, Record)>> = HashMap::new();
        let mut free = Free {
            used_before: Vec::new(),
            next: slots,
        };
        for slot in 0..slots {
            match read_slot(&file, slot) {
                Some(record) if now() < record.at.saturating_add(KEPT) => {
                    left.entry(record.inode).or_default().push((slot, record));
                }
                // What cannot be read was cut off before it counted, and so before its file was touched, or belongs to a file of which
                // nothing was to last yet. It goes, so that what is in the log is what counts.
                Some(_) | None => {
                    file.write_all_at(&[0; HEAD], slot * SLOT).map_err(failed)?;
                    free.used_before.push(slot);
                }
            }
        }
        Ok(Self {
            file,
            flushes: Flushes::default(),
            free: Mutex::new(free),
            left: Mutex::new(left),
        })
    }

    /// Notes an edit that is about to be written in place. When this returns, the note is on the disk, if the edit is to be so too.
    pub(super) fn begin(
        &self,
        file: &File,
        splices: &Splices,
        flush: Flush,
    ) -> Result<Begun, Error> {
        let stamp = stamp_of(file)?;
        let mut stretches = Vec::new();
        for splice in splices.as_slice() {
            // Where the length changes, little or nothing may be left of the old bytes to know the file by.
            let anchor = match splice.keeps_length() {
                true => 0,
                false => splice.at.min(ANCHOR),
            };
            let at = splice.at - anchor;
            let mut old = vec![0; (anchor + splice.old_len) as usize];
            file.read_exact_at(&mut old, at)
                .map_err(Error::io("read the file"))?;
            let mut new = old.get(..anchor as usize).unwrap_or_default().to_vec();
            new.extend_from_slice(&splice.new);
            stretches.push(Stretch { at, old, new });
        }
        let record = Record {
            at: now(),
            inode: stamp.inode(),
            len: stamp.len(),
            stretches,
        };
        let bytes = encode(&record).ok_or(Error::DoesNotFit)?;
        let slot = self.free_slot();
        let begun = Begun { slot, record };
        let written = self.file.write_all_at(&bytes, slot * SLOT);
        let flushed = written
            .map_err(|error| error.to_string())
            .and_then(|()| match flush {
                Flush::Now => self.flushes.join(|| self.file.sync_data()),
                Flush::Later => Ok(()),
            });
        match flushed {
            Ok(()) => Ok(begun),
            Err(reason) => {
                self.end(begun)?;
                Err(Error::Redo(reason))
            }
        }
    }

    /// Drops the note. That need not be on the disk: a file that is all new is left alone.
    pub(super) fn end(&self, begun: Begun) -> Result<(), Error> {
        self.clear(begun.slot)
    }

    fn clear(&self, slot: u64) -> Result<(), Error> {
        self.file
            .write_all_at(&[0; HEAD], slot * SLOT)
            .map_err(failed)?;
        self.free().used_before.push(slot);
        Ok(())
    }

    fn free_slot(&self) -> u64 {
        let mut free = self.free();
        free.used_before.pop().unwrap_or_else(|| {
            free.next += 1;
            free.next - 1
        })
    }

    /// Leaves an edit that failed half way to [`Redo::heal`].
    pub(super) fn leave(&self, begun: Begun) {
        let mut left = self.left();
        let records = left.entry(begun.record.inode).or_default();
        records.push((begun.slot, begun.record));
    }

    /// Brings a file that the last run left as a mixture to the edit's end.
    ///
    /// # Errors
    /// [`Error::Io`], which may pass; the note stays.
    pub(super) fn heal(&self, place: &Place, inode: u64) -> Result<Left, Error> {
        let Some(records) = self.left().get(&inode).cloned() else {
            return Ok(Left::Whole);
        };
        let mut left = Left::Whole;
        for (slot, record) in records {
            let file = place
                .open_for_writing()
                .map_err(Error::io("open the file for writing"))?;
            if record.heal(&file)? == Left::Healed {
                left = Left::Healed;
            }
            self.clear(slot)?;
        }
        self.left().remove(&inode);
        Ok(left)
    }

    /// Whether an edit of the file with this inode has begun and not ended.
    pub(super) fn has_left(&self, inode: u64) -> bool {
        self.left().contains_key(&inode)
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Vec<(u64, Record)>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(error: io::Error) -> Error {
    Error::Redo(error.to_string())
}

/// A record as its slot holds it: its length, its SHA-256, itself. `None` where it does not fit.
fn encode(record: &Record) -> Option<Vec<u8>> {
    let bytes = postcard::to_extend(record, vec![0; HEAD]).ok()?;
    let mut bytes = Some(bytes).filter(|bytes| bytes.len() as u64 <= SLOT)?;
    let (head, body) = bytes.split_at_mut(HEAD);
    let (len, sum) = head.split_at_mut(LEN);
    len.copy_from_slice(&(body.len() as u64).to_be_bytes());
    sum.copy_from_slice(digest(&SHA256, body).as_ref());
    Some(bytes)
}

/// The record of a slot, or nothing where there is none that is whole.
fn read_slot(file: &File, slot: u64) -> Option<Record> {
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, slot * SLOT).ok()?;
    let (len, sum) = head.split_at(LEN);
    let len = u64::from_be_bytes(len.try_into().ok()?);
    let mut body = vec![
        0;
        usize::try_from(len)
            .ok()
            .filter(|len| *len > 0 && *len as u64 <= SLOT)?
    ];
    file.read_exact_at(&mut body, slot * SLOT + HEAD as u64)
        .ok()?;
    if digest(&SHA256, &body).as_ref() != sum {
        return None;
    }
    postcard::from_bytes(&body).ok()
}

/// What a file is that an edit has begun on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// What it was before the edit.
    Before,
    /// What it is after the edit.
    After,
    /// Something in between.
    Mixture,
    /// Somebody else's.
    Foreign,
}

impl Record {
    fn heal(&self, file: &File) -> Result<Left, Error> {
        match self.found(file)? {
            Found::Before | Found::After | Found::Foreign => Ok(Left::Whole),
            Found::Mixture => {
                self.write(file, |stretch| &stretch.new, self.new_len())?;
                Ok(Left::Healed)
            }
        }
    }

    /// Compares what is in the file with what was and what was to be, sector by sector.
    fn found(&self, file: &File) -> Result<Found, Error> {
        let stamp = stamp_of(file)?;
        let new_len = self.new_len();
        let possible = self.len.min(new_len)..=self.len.max(new_len);
        if stamp.inode() != self.inode || !possible.contains(&stamp.len()) {
            return Ok(Found::Foreign);
        }
        let (mut some_old, mut some_new) = (false, false);
        for stretch in &self.stretches {
            let (old, new) = stretch.images();
            let reach = stamp.len().saturating_sub(stretch.at);
            let mut now = vec![0; new.len().min(reach as usize)];
            file.read_exact_at(&mut now, stretch.at)
                .map_err(Error::io("read the file"))?;
            for range in sectors(stretch.at, now.len()) {
                let (now, old, new) = (
                    now.get(range.clone()),
                    old.get(range.clone()),
                    new.get(range),
                );
                match (now == old, now == new) {
                    (true, true) => {}
                    (true, false) => some_old = true,
                    (false, true) => some_new = true,
                    (false, false) => return Ok(Found::Foreign),
                }
            }
        }
        Ok(if stamp.len() == self.len && !some_new {
            Found::Before
        } else if stamp.len() == new_len && !some_old {
            Found::After
        } else {
            Found::Mixture
        })
    }

    /// The file's length after the edit.
    fn new_len(&self) -> u64 {
        let longer = |len: u64, stretch: &Stretch| {
            (len + stretch.new.len() as u64).saturating_sub(stretch.old.len() as u64)
        };
        self.stretches.iter().fold(self.len, longer)
    }

    /// Makes the stretches what `side` says and the file `len` bytes long, to stay.
    fn write(
        &self,
        file: &File,
        side: impl Fn(&Stretch) -> &Vec<u8>,
        len: u64,
    ) -> Result<(), Error> {
        for stretch in &self.stretches {
            file.write_all_at(side(stretch), stretch.at)
                .map_err(Error::io("write the file"))?;
        }
        file.set_len(len)
            .map_err(Error::io("give the file its length"))?;
        rustix::fs::fdatasync(file).map_err(Error::io("make the file last"))
    }
}

impl Stretch {
    /// What may be found on the disk, before and after the stretch was written: where it makes the file longer, the new room is
    /// full of zeros first; where it makes the file shorter, the old end is cut off last.
    fn images(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut old, mut new) = (self.old.clone(), self.new.clone());
        new.extend(old.iter().skip(new.len()));
        old.resize(new.len(), 0);
        (old, new)
    }
}

/// Whether a file is again what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undone {
    Yes,
    /// It is somebody else's now.
    No,
}

impl Begun {
    /// Makes the file again what it was before the edit, to stay, unless somebody else has written to it.
    ///
    /// # Errors
    /// [`Error::Io`], which may pass.
    pub(super) fn undo(&self, file: &File) -> Result<Undone, Error> {
        match self.record.found(file)? {
            Found::Foreign => Ok(Undone::No),
            Found::Before | Found::After | Found::Mixture => {
                let len = self.record.len;
                self.record.write(file, |stretch| &stretch.old, len)?;
                Ok(Undone::Yes)
            }
        }
    }
}

/// Cuts a stretch of the file where its sectors meet; the ranges count from the stretch's start.
fn sectors(at: u64, len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start >= len {
            return None;
        }
        let to_boundary = (SECTOR - (at + start as u64) % SECTOR) as usize;
        let range = start..len.min(start + to_boundary);
        start = range.end;
        Some(range)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::edit::Edit;

    fn record(at: u64, old: &[u8], new: &[u8], file: &File) -> Record {
        let stamp = stamp_of(file).unwrap();
        Record {
            at: now(),
            inode: stamp.inode(),
            len: stamp.len(),
            stretches: vec![Stretch {
                at,
                old: old.to_vec(),
                new: new.to_vec(),
            }],
        }
    }

    #[test]
    fn sectors_end_where_the_disk_ends_them() {
        assert_eq!(
            sectors(96, 1000).collect::<Vec<_>>(),
            [0..416, 416..928, 928..1000]
        );
        assert_eq!(sectors(512, 1024).collect::<Vec<_>>(), [0..512, 512..1024]);
        assert_eq!(sectors(0, 0).count(), 0);
    }

    #[test]
    fn only_a_mixture_of_old_and_new_sectors_is_written_to() {
        let (old, new) = ([b'o'; 2000], [b'n'; 2000]);
        let mut torn = old;
        torn[..416].fill(b'n');
        let mut foreign = torn;
        foreign[1999] = b'x';
        for (now, left, after) in [
            (old, Left::Whole, old),
            (new, Left::Whole, new),
            (torn, Left::Healed, new),
            (foreign, Left::Whole, foreign),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[b'.'; 96]).unwrap();
            file.write_all(&now).unwrap();
            assert_eq!(record(96, &old, &new, &file).heal(&file).unwrap(), left);
            let mut found = [0; 2000];
            file.read_exact_at(&mut found, 96).unwrap();
            assert_eq!(found, after);
        }
    }

    #[test]
    fn a_file_of_another_length_is_left_alone() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"on").unwrap();
        let record = record(0, b"oo", b"nn", &file);
        file.write_all(b".").unwrap();
        assert_eq!(record.heal(&file).unwrap(), Left::Whole);
    }

    /// An edit of the end, of which a crash left `found`; what is healed has to be `new` then, all else stays.
    fn heals_tail(old: &[u8], new: &[u8], found: &[u8], left: Left) {
        let start = [b'.'; 1000];
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[&start[..], old].concat()).unwrap();
        let record = record(start.len() as u64, old, new, &file);
        file.set_len(start.len() as u64).unwrap();
        file.write_all_at(found, start.len() as u64).unwrap();
        assert_eq!(record.heal(&file).unwrap(), left);
        let after = match left {
            Left::Whole => found,
            Left::Healed => new,
        };
        let len = file.metadata().unwrap().len() as usize;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == [&start[..], after].concat());
    }

    #[test]
    fn an_end_that_was_to_grow_is_healed_from_every_mixture() {
        let new = [b'n'; 1500];
        for old in [&[][..], &[b'o'; 700]] {
            heals_tail(old, &new, old, Left::Whole);
            heals_tail(old, &new, &new, Left::Whole);
            heals_tail(old, &new, &new[..1300], Left::Healed);
            // The file has got its length, and some sectors of it nothing else.
            let mut unwritten = [0; 1500];
            unwritten[..old.len()].copy_from_slice(old);
            heals_tail(old, &new, &unwritten, Left::Healed);
            unwritten[..24].copy_from_slice(&new[..24]);
            heals_tail(old, &new, &unwritten, Left::Healed);
            let mut foreign = new;
            foreign[1400] = b'x';
            heals_tail(old, &new, &foreign, Left::Whole);
            heals_tail(old, &new, &[b'n'; 1501], Left::Whole);
        }
    }

    #[test]
    fn an_end_that_was_to_shrink_is_healed_from_every_mixture() {
        let old = [b'o'; 1500];
        for new in [&[][..], &[b'n'; 700]] {
            heals_tail(&old, new, &old, Left::Whole);
            heals_tail(&old, new, new, Left::Whole);
            heals_tail(&old, new, &old[..1499], Left::Healed);
            let mut uncut = old;
            uncut[..new.len()].copy_from_slice(new);
            let left = match new {
                [] => Left::Whole,
                _ => Left::Healed,
            };
            heals_tail(&old, new, &uncut, left);
            let mut foreign = old;
            foreign[0] = b'x';
            heals_tail(&old, new, &foreign, Left::Whole);
            heals_tail(&old, new, &foreign[..1499], Left::Whole);
        }
    }

    /// What the log makes of an append to, or a cut of, the first file, where the second has taken its place.
    fn heals_another(first: &[u8], edit: Edit, second: &[u8]) -> Left {
        let state = tempfile::tempdir().unwrap();
        let redo = Redo::open(state.path()).unwrap();
        let file = tempfile::NamedTempFile::new_in(state.path()).unwrap();
        file.as_file().write_all_at(first, 0).unwrap();
        let Edit::Splices(splices) = edit else {
            unreachable!("it is no rewrite")
        };
        redo.leave(redo.begin(file.as_file(), &splices, Flush::Now).unwrap());
        file.as_file().set_len(0).unwrap();
        file.as_file().write_all_at(second, 0).unwrap();
        let place = Place::of_path(file.path()).unwrap();
        let inode = stamp_of(file.as_file()).unwrap().inode();
        let left = redo.heal(&place, inode).unwrap();
        if left == Left::Whole {
            assert!(std::fs::read(file.path()).unwrap() == second);
        }
        left
    }

    #[test]
    fn another_file_of_a_length_in_between_is_left_alone() {
        // Modules end in zeros, and their lengths are multiples of eight.
        let module = |byte: u8, len: usize| {
            let mut bytes = vec![byte; len];
            bytes[len - 15..].fill(0);
            bytes
        };
        let append = || Edit::replace(8440, 0, vec![b's'; 400]);
        let cut = || Edit::replace(8440, 400, Vec::new());
        let signed = [module(1, 8440), vec![b's'; 400]].concat();
        for len in [8440, 8448, 8500, 8839, 8840] {
            let other = module(2, len);
            assert_eq!(
                heals_another(&module(1, 8440), append(), &other),
                Left::Whole
            );
            assert_eq!(heals_another(&signed, cut(), &other), Left::Whole);
        }
        let torn = &signed[..8600];
        assert_eq!(
            heals_another(&module(1, 8440), append(), torn),
            Left::Healed
        );
        assert_eq!(heals_another(&signed, cut(), torn), Left::Healed);
    }

    #[test]
    fn a_note_that_was_cut_off_is_cleared_by_the_next_start() {
        let state = tempfile::tempdir().unwrap();
        let file = tempfile::tempfile().unwrap();
        let begun = {
            let redo = Redo::open(state.path()).unwrap();
            let Edit::Splices(splices) = Edit::replace(0, 0, vec![1; 9000]) else {
                unreachable!("it is no rewrite")
            };
            redo.begin(&file, &splices, Flush::Now).unwrap()
        };
        let log = OpenOptions::new()
            .write(true)
            .open(state.path().join("redo"))
            .unwrap();
        log.set_len(begun.slot * SLOT + 4096).unwrap();
        let redo = Redo::open(state.path()).unwrap();
        assert!(!redo.has_left(begun.record.inode));
        let mut head = [1; HEAD];
        redo.file
            .read_exact_at(&mut head, begun.slot * SLOT)
            .unwrap();
        assert_eq!(head, [0; HEAD]);
    }

    #[test]
    fn what_somebody_else_has_written_meanwhile_is_not_undone() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[b'o'; 700]).unwrap();
        let record = record(0, &[b'o'; 700], &[b'n'; 1500], &file);
        file.write_all_at(&[b'x'; 900], 0).unwrap();
        let begun = Begun { slot: 0, record };
        assert_eq!(begun.undo(&file).unwrap(), Undone::No);
        assert_eq!(file.metadata().unwrap().len(), 900);
    }

    #[test]
    fn an_edit_that_failed_half_way_is_undone() {
        let (old, new) = ([b'o'; 700], [b'n'; 1500]);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&old).unwrap();
        let record = record(0, &old, &new, &file);
        file.write_all_at(&new[..900], 0).unwrap();
        let begun = Begun { slot: 0, record };
        assert_eq!(begun.undo(&file).unwrap(), Undone::Yes);
        let mut bytes = [0; 700];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, old);
        assert_eq!(file.metadata().unwrap().len(), 700);
    }
}
