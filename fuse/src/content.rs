//! Content: reading and writing what is open.

use std::{
    fs::File,
    os::{fd::AsFd as _, unix::fs::FileExt as _},
    path::PathBuf,
    sync::Arc,
};

use rustix::{
    fs::{FallocateFlags, OFlags, SeekFrom, Stat},
    io::Errno,
};

use crate::{
    HEAD,
    attributes::drop_set_id,
    node::{Content, Node, Phase, State, Writing},
    open::{Access, OpenFile, Target, Way},
    settling::Settles,
    tree::{Tree, errno, head},
};

/// The longest copy that is made by one call, so that no thread is kept for long.
const LONGEST_COPY: usize = 16 << 20;

impl Tree {
    /// Reads for a caller or, where `keeps`, for the kernel's cache.
    pub(crate) fn read(
        &self,
        open: u64,
        (offset, size): (u64, u32),
        keeps: bool,
    ) -> Result<Vec<u8>, Errno> {
        let open = self.opens.file(open)?;
        // It does not see what writers are passed: sendfile(2), which reads by it even here, would go on to get what it has kept.
        if keeps && open.way == Way::Asks && open.is_backed {
            return Err(Errno::BUSY);
        }
        let mut bytes = vec![0; size as usize];
        loop {
            let node = open.target().node.clone();
            let before = self.may_read(&open, &node)?;
            let file = self.file(&open, &mut open.target())?;
            let read = read_fully(&file, &mut bytes, offset)?;
            if self.may_read(&open, &node)? == before {
                bytes.truncate(read);
                return Ok(bytes);
            }
        }
    }

    /// The file that a descriptor reads which was opened before there was anything to hold back, if that settles.
    pub(crate) fn settling_for_reader(&self, open: u64) -> Option<(Arc<Node>, Vec<Arc<Settles>>)> {
        let open = self.opens.file(open).ok()?;
        if open.access != Access::Reads || open.way != Way::Asks {
            return None;
        }
        let settling = self.settling.of(open.node.number);
        (!settling.is_empty()).then(|| (open.node.clone(), settling))
    }

    /// Waits until such a file may be read, which is when it has been shown, and no later: the kernel may keep a page locked for such a read,
    /// for which it would be waited before the end.
    pub(crate) fn wait_to_read(node: &Node, settling: &[Arc<Settles>]) {
        for file in settling {
            file.wait_for_close();
        }
        drop(node.content_at_rest());
    }

    /// The file that a descriptor reads and writes now.
    fn file(&self, open: &OpenFile, target: &mut Target) -> Result<Arc<File>, Errno> {
        // The hook may ask the kernel whether anybody can write to it.
        if target.file.is_none() && target.node.content().state == State::Held(Phase::Finishing) {
            return Ok(Arc::new(self.open_content(&target.node, OFlags::RDONLY)?));
        }
        self.kept_file(open.access, target)
    }

    /// The same, where the hook does not have it; may be called with the content locked.
    pub(crate) fn kept_file(
        &self,
        access: Access,
        target: &mut Target,
    ) -> Result<Arc<File>, Errno> {
        if let Some(file) = &target.file {
            return Ok(file.clone());
        }
        let flags = match access {
            Access::Reads => OFlags::RDONLY,
            Access::Writes => OFlags::RDWR,
        };
        let file = Arc::new(self.open_content(&target.node, flags)?);
        target.file = Some(file.clone());
        Ok(file)
    }

    /// Answers the content's epoch, if the descriptor may read it.
    fn may_read(&self, open: &OpenFile, node: &Arc<Node>) -> Result<u64, Errno> {
        let mut content = node.content();
        if open.access == Access::Reads {
            self.judge(node, &mut content)?;
            // Where each read is asked for, the kernel has nothing of before.
            if content.telling > 0 && open.way != Way::Asks {
                return Err(Errno::BUSY);
            }
            match content.state {
                State::Held(_) | State::Nameless => return Err(Errno::BUSY),
                State::Replaced => return Err(Errno::STALE),
                State::Unknown | State::Plain | State::Seen => {}
            }
        }
        Ok(content.epoch)
    }

    /// Changes a file's content: `new_head` tells what its first bytes are going to be, where they are among those that change.
    fn change<T>(
        &self,
        open: &OpenFile,
        drops_set_id: bool,
        new_head: impl Fn(&File) -> Result<Option<Vec<u8>>, Errno>,
        change: impl FnOnce(&File) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if open.access != Access::Writes {
            return Err(Errno::BADF);
        }
        let change = |file: &File| {
            if drops_set_id {
                drop_set_id(file.as_fd())?;
            }
            change(file)
        };
        // Never held back, or noticed later.
        if matches!(open.way, Way::Passes | Way::Unseen) {
            return change(&*self.file(open, &mut open.target())?);
        }
        loop {
            // Waited for with nothing locked: whoever finishes the file takes it away from its descriptors.
            let node = open.target().node.clone();
            drop(node.content_at_rest());
            self.wait_for(&node.place());
            let mut target = open.target();
            let state = target.node.content().state;
            if matches!(state, State::Seen | State::Replaced) {
                self.lead_on(open, &mut target)?;
            }
            let node = target.node.clone();
            let mut content = node.content();
            if matches!(
                content.state,
                State::Held(Phase::Finishing) | State::Seen | State::Replaced
            ) {
                // The hook may ask the kernel whether anybody can write to it.
                target.file = None;
                continue;
            }
            let file = self.kept_file(open.access, &mut target)?;
            self.begin_change(open, &node, &mut content, &file, &new_head)?;
            let changed = change(&file);
            // What the filesystem cannot do at all is done otherwise, or not, by whoever asked.
            content.failed =
                changed.as_ref().err().copied().filter(|errno| {
                    ![Errno::OPNOTSUPP, Errno::INVAL, Errno::NODEV].contains(errno)
                });
            return changed;
        }
    }

    /// Sees to it that a file which is going to show what it is, is held back before.
    fn begin_change(
        &self,
        open: &OpenFile,
        node: &Arc<Node>,
        content: &mut Content,
        file: &File,
        new_head: &impl Fn(&File) -> Result<Option<Vec<u8>>, Errno>,
    ) -> Result<(), Errno> {
        match content.state {
            State::Unknown | State::Plain => {
                if let Some(head) = new_head(file)?
                    && self.concerns(self.only_path(node, file)?.as_deref(), &head)
                {
                    self.hold(node, content, file)?;
                }
            }
            State::Held(Phase::Refused) => content.state = State::Held(Phase::Written),
            State::Held(_) | State::Nameless | State::Seen | State::Replaced => {}
        }
        content.dirty = true;
        content.writers.insert(open.number, Writing::Goes);
        Ok(())
    }

    /// The path that a file is seen under; nothing where it is seen under several, of which only one is known.
    pub(crate) fn only_path(&self, node: &Node, file: &File) -> Result<Option<PathBuf>, Errno> {
        let names = rustix::fs::fstat(file)?.st_nlink;
        Ok((names < 2).then(|| self.path(node)).flatten())
    }

    pub(crate) fn write(
        &self,
        open: u64,
        offset: u64,
        bytes: &[u8],
        flags: OFlags,
        drops_set_id: bool,
    ) -> Result<usize, Errno> {
        let open = self.opens.file(open)?;
        let appends = flags.contains(OFlags::APPEND);
        let place = |file: &File| -> Result<u64, Errno> {
            // The kernel does not know where the end is when somebody else appends below.
            Ok(if appends {
                rustix::fs::fstat(file)?.st_size.cast_unsigned()
            } else {
                offset
            })
        };
        let new_head = |file: &File| {
            let at = place(file)?;
            if at >= HEAD as u64 {
                return Ok(None);
            }
            merged(file, at as usize, bytes).map(Some)
        };
        let sync = flags.intersects(OFlags::SYNC | OFlags::DSYNC);
        if sync {
            open.target().node.content().is_flushed = true;
        }
        self.change(&open, drops_set_id, new_head, |file| {
            let written = write_at(file, bytes, place(file)?)?;
            if sync {
                rustix::fs::fdatasync(file)?;
            }
            Ok(written)
        })
    }

    pub(crate) fn copy(
        &self,
        from: (u64, u64),
        to: (u64, u64),
        len: u64,
        drops_set_id: bool,
    ) -> Result<usize, Errno> {
        let (source, sink) = (self.opens.file(from.0)?, self.opens.file(to.0)?);
        let len = usize::try_from(len)
            .unwrap_or(LONGEST_COPY)
            .min(LONGEST_COPY);
        loop {
            let node = source.target().node.clone();
            let before = self.may_read(&source, &node)?;
            let from_file = self.file(&source, &mut source.target())?;
            // What is judged is what is written, whatever the source becomes meanwhile.
            let mut first = match to.1 < HEAD as u64 {
                true => vec![0; HEAD.min(len)],
                false => Vec::new(),
            };
            let read = read_fully(&from_file, &mut first, from.1)?;
            first.truncate(read);
            if self.may_read(&source, &node)? != before {
                continue;
            }
            let mut copied = 0;
            if !first.is_empty() {
                copied = self.write(to.0, to.1, &first, OFlags::empty(), drops_set_id)?;
            }
            if copied < first.len() || copied == len {
                return Ok(copied);
            }
            let rest = self.change(
                &sink,
                drops_set_id,
                |_| Ok(None),
                |file| {
                    let mut places = (from.1 + copied as u64, to.1 + copied as u64);
                    let (read, written) = (Some(&mut places.0), Some(&mut places.1));
                    rustix::fs::copy_file_range(&*from_file, read, file, written, len - copied)
                },
            );
            if self.may_read(&source, &node)? == before {
                // What has been written counts; the next call says why no more.
                return match rest {
                    Err(_) if copied > 0 => Ok(copied),
                    rest => Ok(copied + rest?),
                };
            }
        }
    }

    pub(crate) fn truncate_open(
        &self,
        open: u64,
        len: u64,
        drops_set_id: bool,
    ) -> Result<Stat, Errno> {
        let open = self.opens.file(open)?;
        self.change(
            &open,
            drops_set_id,
            |file| grown(file, len),
            |file| {
                rustix::fs::ftruncate(file, len)?;
                rustix::fs::fstat(file)
            },
        )
    }

    /// Sets the length of a file that nobody has open for it. One that is seen does not change.
    pub(crate) fn truncate(&self, node: &Node, len: u64, drops_set_id: bool) -> Result<(), Errno> {
        let mut content = node.content_at_rest();
        // The kernel looks the name up once more.
        if content.state == State::Replaced {
            return Err(Errno::STALE);
        }
        let file = self.open_content(node, OFlags::RDWR)?;
        if content.state == State::Unknown {
            let shows = self.shows(self.only_path(node, &file)?.as_deref(), &file)?;
            content.state = if shows { State::Seen } else { State::Plain };
        }
        // Nobody's close would finish what becomes an artifact by this.
        let becomes = |head: &[u8]| {
            let path = self.only_path(node, &file)?;
            Ok(content.state == State::Plain && self.concerns(path.as_deref(), head))
        };
        if content.state == State::Seen
            || grown(&file, len)?.map_or(Ok(false), |head| becomes(&head))?
        {
            return Err(Errno::BUSY);
        }
        if drops_set_id {
            drop_set_id(file.as_fd())?;
        }
        (content.dirty, content.failed) = (true, None);
        rustix::fs::ftruncate(&file, len)
    }

    pub(crate) fn allocate(
        &self,
        open: u64,
        (offset, len): (u64, u64),
        mode: i32,
        drops_set_id: bool,
    ) -> Result<(), Errno> {
        let open = self.opens.file(open)?;
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let zeroes = mode.intersects(FallocateFlags::ZERO_RANGE | FallocateFlags::PUNCH_HOLE);
        let end = offset.saturating_add(len);
        self.change(
            &open,
            drops_set_id,
            |file| match zeroes && offset < HEAD as u64 {
                true => zeroed(file, offset as usize, end),
                false => grown(file, end),
            },
            |file| rustix::fs::fallocate(file, mode, offset, len),
        )
    }

    pub(crate) fn seek(&self, open: u64, offset: i64, whence: i32) -> Result<u64, Errno> {
        let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        let place = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        // The position of this descriptor is used by nothing else.
        let open = self.opens.file(open)?;
        rustix::fs::seek(self.file(&open, &mut open.target())?, place)
    }

    pub(crate) fn sync(&self, open: u64, only_content: bool) -> Result<(), Errno> {
        let open = self.opens.file(open)?;
        let mut target = open.target();
        let file = self.file(&open, &mut target)?;
        let node = target.node.clone();
        drop(target);
        // Whatever comes of it: an error is told to one only.
        node.content().is_flushed = true;
        match only_content {
            true => rustix::fs::fdatasync(&file),
            false => rustix::fs::fsync(&file),
        }
    }
}

/// What a file's first bytes are when it has grown, where that adds any.
fn grown(file: &File, len: u64) -> Result<Option<Vec<u8>>, Errno> {
    let grows = rustix::fs::fstat(file)?.st_size.cast_unsigned() < len.min(HEAD as u64);
    if !grows || !has_data(file)? {
        return Ok(None);
    }
    let mut head = head(file)?;
    head.resize(HEAD.min(usize::try_from(len).unwrap_or(HEAD)), 0);
    Ok(Some(head))
}

/// What a file's first bytes are when some of them have been made zeros.
fn zeroed(file: &File, from: usize, end: u64) -> Result<Option<Vec<u8>>, Errno> {
    let end = HEAD.min(usize::try_from(end).unwrap_or(HEAD));
    if !has_data(file)? {
        return Ok(None);
    }
    merged(file, from, &vec![0; end.saturating_sub(from)]).map(Some)
}

/// Whether any of a file's first bytes was ever written. Reading those that were not would make data of them for lseek(2).
pub(crate) fn has_data(file: &File) -> Result<bool, Errno> {
    match rustix::fs::seek(file, SeekFrom::Data(0)) {
        Ok(place) => Ok(place < HEAD as u64),
        Err(Errno::NXIO) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// What a file's first bytes are when others have been written over them.
fn merged(file: &File, at: usize, bytes: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut head = head(file)?;
    let end = HEAD.min(at + bytes.len());
    if head.len() < end {
        head.resize(end, 0);
    }
    for (old, new) in head.iter_mut().skip(at).zip(bytes) {
        *old = *new;
    }
    Ok(head)
}

fn read_fully(file: &File, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut have = 0;
    while let Some(room) = bytes.get_mut(have..).filter(|room| !room.is_empty()) {
        match file.read_at(room, offset + have as u64) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno(&error)),
        }
    }
    Ok(have)
}

/// Writes as much as there is room for.
fn write_at(file: &File, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(written) => done += written,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // What has been written counts; the next write says why no more.
            Err(_) if done > 0 => break,
            Err(error) => return Err(errno(&error)),
        }
    }
    Ok(done)
}
