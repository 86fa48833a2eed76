//! Files that are held back: under another name beside the one that they get, until the hook has finished them.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags},
    io::Errno,
};

use crate::{
    copy,
    file_id::FileId,
    node::{Content, Name, Node, Phase, Place, State, Writing},
    open::{OpenFile, Target},
    redirects::{PATIENCE, Start},
    tree::{Found, Tree, held_name, is_same_inode, magic_link, remove},
};

/// The files that are held back, by the names that they get.
#[derive(Debug, Default)]
pub(crate) struct Index {
    nodes: Mutex<HashMap<Place, Arc<Node>>>,
    making: Mutex<()>,
}

impl Index {
    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held back for a name.
    pub(crate) fn find(&self, directory: u64, name: &OsStr) -> Option<Arc<Node>> {
        let index = self.lock();
        if index.is_empty() {
            return None;
        }
        index.get(&(directory, name.to_owned())).cloned()
    }

    /// What is held back in a directory.
    pub(crate) fn within(&self, directory: u64) -> Vec<Arc<Node>> {
        let index = self.lock();
        let within = index.iter().filter(|((parent, _), _)| *parent == directory);
        within.map(|(_, node)| node.clone()).collect()
    }

    /// Kept by whoever puts a new version beside a file.
    fn making(&self) -> MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        self.lock().values().cloned().collect()
    }
}

impl Tree {
    pub(crate) fn enter(&self, node: &Arc<Node>) {
        let place = node.place();
        self.nodes.pin(node.number);
        self.nodes.pin(place.0);
        self.index.lock().insert(place, node.clone());
    }

    pub(crate) fn leave(&self, node: &Node) {
        let place = node.place();
        let mut index = self.index.lock();
        // Another one may have come to be held back for that name.
        let is_there = index
            .get(&place)
            .is_some_and(|there| there.number == node.number);
        if is_there {
            index.remove(&place);
            drop(index);
            self.nodes.unpin(place.0);
            self.nodes.unpin(node.number);
        }
    }

    /// Holds a file back that has been seen so far: its next write shows what it is.
    ///
    /// # Errors
    /// [`Errno::BUSY`] where it has other names, under which it would go on being seen; those of rename(2).
    pub(crate) fn hold(
        &self,
        node: &Arc<Node>,
        content: &mut Content,
        file: &File,
    ) -> Result<(), Errno> {
        let (parent, name) = node.place();
        let directory = self.directory(parent)?;
        let stat = rustix::fs::fstat(file)?;
        if stat.st_nlink > 1 {
            return Err(Errno::BUSY);
        }
        if stat.st_nlink == 0 {
            content.state = State::Nameless;
            content.epoch += 1;
            return Ok(());
        }
        let has_name = || match is_same_inode(&self.find(&directory, &name)?.stat, &stat) {
            true => Ok(()),
            false => Err(Errno::STALE),
        };
        has_name()?;
        // What was held back for this name is superseded. Where the hook has just finished it, it has taken the name.
        self.discard(parent, &name, &directory)?;
        has_name()?;
        // Before the name is gone, so that whoever looks finds the one or the other.
        self.enter(node);
        let held = held_name(&name);
        rename_over_nothing(&directory, &name, &directory, &held)
            .inspect_err(|_| self.leave(node))?;
        // Another may have been renamed there in this moment.
        let is_other = |found: Found| !is_same_inode(&found.stat, &stat);
        if self.find(&directory, &held).is_ok_and(is_other) {
            match rename_over_nothing(&directory, &held, &directory, &name) {
                // A newer one has come.
                Err(Errno::EXIST) => remove(&directory, &held)?,
                result => result?,
            }
            self.leave(node);
            return Err(Errno::STALE);
        }
        content.state = State::Held(Phase::Written);
        content.epoch += 1;
        Ok(())
    }

    /// Holds a file back for another name than it has been seen by so far.
    ///
    /// # Errors
    /// Those of rename(2).
    pub(crate) fn hold_for(
        &self,
        node: &Arc<Node>,
        content: &mut Content,
        (old, name): (&OwnedFd, &OsStr),
        (new, place): (&OwnedFd, Place),
    ) -> Result<(), Errno> {
        let (before, held) = (node.place(), held_name(&place.1));
        node.set_place(place);
        self.enter(node);
        rename_over_nothing(old, name, new, &held).inspect_err(|_| {
            self.leave(node);
            node.set_place(before);
        })?;
        content.state = State::Held(Phase::Written);
        content.dirty = true;
        content.may_replace = true;
        content.epoch += 1;
        Ok(())
    }

    /// A new version of the file that is seen under a name, held back from its beginning. The kernel is going to be told.
    pub(crate) fn new_version(
        &self,
        directory: &OwnedFd,
        place: &Place,
        old: &OwnedFd,
        start: Start,
    ) -> Result<(Arc<Node>, Stat), Errno> {
        if let Some(version) = self.version(directory, place)? {
            return Ok(version);
        }
        // Without a name until it is whole, so that nothing is left of it if it never is.
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(directory, ".", flags, Mode::RUSR | Mode::WUSR)?.into();
        copy::attributes(old.as_fd(), &file)?;
        if start == Start::Copy {
            copy::content(old.as_fd(), &file)?;
            mark_half(&file)?;
        }
        // One at a time from here on: who comes second takes what the first one has made. Nobody waits for the hook meanwhile.
        let _making = loop {
            let making = self.index.making();
            if self.index.find(place.0, &place.1).is_none() {
                break making;
            }
            drop(making);
            if let Some(version) = self.version(directory, place)? {
                return Ok(version);
            }
        };
        let is_same = |found: &Found| Ok(is_same_inode(&found.stat, &rustix::fs::fstat(old)?));
        if !self
            .find(directory, &place.1)
            .and_then(|found| is_same(&found))?
        {
            return Err(Errno::STALE);
        }
        let held = held_name(&place.1);
        rustix::fs::linkat(&file, "", directory, &held, AtFlags::EMPTY_PATH)?;
        let found = self.find(directory, &held);
        let node = found.and_then(|found| Ok((self.look_up(&found, place.clone())?, found.stat)));
        let (node, stat) = node.inspect_err(|_| {
            // What cannot be removed now is found by the next start.
            let _ = remove(directory, &held);
        })?;
        {
            let mut content = node.content();
            content.state = State::Held(Phase::Written);
            content.dirty = true;
            content.made = Some(Instant::now());
        }
        self.enter(&node);
        Ok((node, stat))
    }

    /// The new version that there is of a file already. The kernel is going to be told.
    fn version(
        &self,
        directory: &OwnedFd,
        place: &Place,
    ) -> Result<Option<(Arc<Node>, Stat)>, Errno> {
        let node = loop {
            let Some(node) = self.index.find(place.0, &place.1) else {
                return Ok(None);
            };
            let content = node.content_at_rest();
            if !self.is_held_for(&node, (place.0, &place.1)) {
                continue;
            }
            // Whoever it was made for does not come any more.
            if content.made.is_some_and(|made| made.elapsed() > PATIENCE) {
                self.discard_locked(&node, content, (place.0, &place.1), directory)?;
                return Ok(None);
            }
            drop(content);
            break node;
        };
        let stat = rustix::fs::fstat(&*self.reach(&node)?)?;
        self.nodes.told(&node);
        Ok(Some((node, stat)))
    }

    /// Takes a file in that an earlier run held back.
    ///
    /// One that does not begin like what is held back gets its name again, if that is free. If not, what has the name stays,
    /// and the other one stays held back as if the hook had refused it, and is not answered.
    ///
    /// So does one that was being written over the old content: what is whole may be a mixture of both.
    ///
    /// One without first bytes is none that its writer meant. Beside a file that has the name, an earlier run ended before
    /// they were written, and it is removed. Without, they were lost, as by a power cut: it stays held back as refused.
    pub(crate) fn take_in(
        &self,
        directory: &OwnedFd,
        place: Place,
    ) -> Result<Option<Arc<Node>>, Errno> {
        let found = self.find(directory, &held_name(&place.1))?;
        if found.kind() != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let path = self.path_of(place.0, &place.1);
        let head = found.head()?;
        let shows = self.concerns(path.as_deref(), &head);
        let (is_half, has_begun) = (is_half(found.file.as_fd())?, has_begun(&head));
        let held = held_name(&place.1);
        if !shows && !is_half && has_begun {
            match rename_over_nothing(directory, &held, directory, &place.1) {
                Err(Errno::EXIST) => {}
                result => return result.map(|()| None),
            }
        } else if !shows && !has_begun && self.find(directory, &place.1).is_ok() {
            return remove(directory, &held).map(|()| None);
        }
        let node = self.look_up(&found, place)?;
        let is_whole = shows && !is_half;
        {
            let mut content = node.content();
            content.state = State::Held(match is_whole {
                true => Phase::Written,
                false => Phase::Refused,
            });
            content.dirty = true;
            // Until somebody writes to it: no retry makes it what was meant.
            content.failed = (!is_whole).then_some(Errno::IO);
        }
        self.enter(&node);
        self.nodes.forget(node.number, 1);
        Ok(is_whole.then_some(node))
    }

    /// Removes what is held back for a name, if anything. Whoever has it open goes on with it, nameless.
    pub(crate) fn discard(
        &self,
        parent: u64,
        name: &OsStr,
        directory: &OwnedFd,
    ) -> Result<bool, Errno> {
        loop {
            let Some(node) = self.index.find(parent, name) else {
                return Ok(false);
            };
            let content = node.content_at_rest();
            if self.is_held_for(&node, (parent, name)) {
                return self.discard_locked(&node, content, (parent, name), directory);
            }
        }
    }

    /// Whether a file is still what is held back for a name, after a wait for the hook, which may have put another one there.
    fn is_held_for(&self, node: &Node, (parent, name): Name<'_>) -> bool {
        let held = self.index.find(parent, name);
        held.is_some_and(|held| held.number == node.number)
    }

    /// The same, where its content has been locked already.
    pub(crate) fn discard_locked(
        &self,
        node: &Arc<Node>,
        mut content: MutexGuard<'_, Content>,
        (parent, name): Name<'_>,
        directory: &OwnedFd,
    ) -> Result<bool, Errno> {
        // It may have come to be seen, or be held back for another name by now.
        if !matches!(content.state, State::Held(_)) || !node.is_at((parent, name)) {
            return Ok(false);
        }
        let was_refused = content.state == State::Held(Phase::Refused);
        let doomed = self.find(directory, &held_name(name)).ok();
        match remove(directory, &held_name(name)) {
            // Somebody has removed it behind the mount's back.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        (content.state, content.ready) = (State::Nameless, None);
        // By the place that it has until it is kept.
        self.leave(node);
        self.keep(doomed, (parent, name));
        drop(content);
        if was_refused && let Some(path) = self.path_of(parent, name) {
            self.hook.moved(&path, None);
        }
        Ok(true)
    }

    /// Waits until the hook has none of what is held back for a name. With nothing locked: whoever asks for what is locked
    /// would wait as well.
    pub(crate) fn wait_for(&self, place: &Place) {
        if let Some(node) = self.index.find(place.0, &place.1) {
            drop(node.content_at_rest());
        }
    }

    /// Whether whoever asks something about a name may have to wait for the hook.
    pub(crate) fn waits_for_name(&self, directory: u64, name: &OsStr) -> bool {
        let held = self.index.find(directory, name);
        held.is_some_and(|node| node.is_finishing())
    }

    /// The same of whoever changes a file that the kernel knows.
    pub(crate) fn waits_for_file(&self, number: u64) -> bool {
        self.node(number).is_ok_and(|node| node.is_finishing())
    }

    /// The same of whoever changes a file that is open.
    pub(crate) fn waits_for_open(&self, open: u64) -> bool {
        self.opens.file(open).is_ok_and(|open| {
            let node = open.target().node.clone();
            let (directory, name) = node.place();
            node.is_finishing() || self.waits_for_name(directory, &name)
        })
    }

    /// Gives what is held back another name to get.
    pub(crate) fn move_held(
        &self,
        node: &Arc<Node>,
        from: &OwnedFd,
        to: &OwnedFd,
        place: Place,
    ) -> Result<(), Errno> {
        let mut content = node.content_at_rest();
        if !matches!(content.state, State::Held(_)) {
            return Err(Errno::STALE);
        }
        if content.state == State::Held(Phase::Ready) {
            // Of its old name: the last close has it finished anew.
            content.anew();
        }
        let (parent, name) = node.place();
        let was = self.path_of(parent, &name);
        rename_over_nothing(from, &held_name(&name), to, &held_name(&place.1))?;
        content.may_replace = true;
        self.leave(node);
        node.set_place(place);
        self.enter(node);
        if content.state == State::Held(Phase::Refused)
            && let Some(was) = was
        {
            self.hook.moved(&was, self.path(node).as_deref());
        }
        Ok(())
    }

    /// Whether the name that a file is going to get is that of another one until then; where it cannot be told, it is.
    pub(crate) fn has_older(&self, node: &Node) -> bool {
        let (parent, name) = node.place();
        let older = self
            .directory(parent)
            .and_then(|directory| self.find(&directory, &name));
        !matches!(older, Err(Errno::NOENT | Errno::STALE))
    }

    /// The file that the hook has put in another's place, if it is there.
    pub(crate) fn successor(&self, node: &Node) -> Result<Arc<Node>, Errno> {
        let place = node.place();
        let directory = self.directory(place.0)?;
        let found = self.find(&directory, &place.1)?;
        let successor = self.look_up(&found, place)?;
        // The kernel is not told.
        self.nodes.forget(successor.number, 1);
        let file = self.open_content(&successor, OFlags::RDONLY)?;
        match self.shows(self.path(&successor).as_deref(), &file)? {
            true => Ok(successor),
            false => Err(Errno::STALE),
        }
    }

    /// Leads a descriptor that writes on after its file came to be seen to a new version of that.
    pub(crate) fn lead_on(&self, open: &OpenFile, target: &mut Target) -> Result<(), Errno> {
        let place = target.node.place();
        let directory = self.directory(place.0)?;
        let (left, has_become, is_flushed) = {
            let content = target.node.content();
            let successor = content.successor.clone();
            (
                self.left_of(&target.node, &content),
                successor.unwrap_or_else(|| target.node.id.clone()),
                content.is_flushed,
            )
        };
        let node = match left {
            Some(left) => {
                self.nodes.told(&left);
                left
            }
            None => {
                let old = self.find(&directory, &place.1)?;
                // Only to what has become of it: another file that has the name by now is none of this descriptor's.
                if FileId::of(&old.file)? != has_become {
                    return Err(Errno::STALE);
                }
                let (version, _) = self.new_version(&directory, &place, &old.file, Start::Copy)?;
                version
            }
        };
        let file = self.open_content(&node, OFlags::RDWR);
        if file.is_ok() {
            // Until the descriptor writes to it no more: see `unopen`.
            self.nodes.pin(node.number);
        }
        // The kernel is not told.
        self.nodes.forget(node.number, 1);
        let file = file?;
        self.unopen(&target.node, open);
        {
            let mut content = node.content();
            content.opens += 1;
            content.made = None;
            content.is_flushed |= is_flushed;
            content.writers.insert(open.number, Writing::Goes);
        }
        *target = Target {
            node,
            file: Some(Arc::new(file)),
        };
        Ok(())
    }
}

/// The extended attribute of what begins with old content, until its writers have closed it. Nobody but an administrator sees
/// it, and nobody sees the file. Source: xattr(7), trusted extended attributes.
const HALF: &str = "trusted.signdrop.half";

/// Notes for the next start that a file may be half old and half new.
fn mark_half(file: &File) -> Result<(), Errno> {
    match rustix::fs::fsetxattr(file, HALF, b"", XattrFlags::empty()) {
        // The filesystem below has none.
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

pub(crate) fn unmark_half(file: BorrowedFd<'_>) -> Result<(), Errno> {
    match rustix::fs::removexattr(magic_link(file), HALF) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn is_half(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    match rustix::fs::getxattr(magic_link(file), HALF, &mut [0_u8; 0]) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether anything has been written where a file's first bytes are.
pub(crate) fn has_begun(head: &[u8]) -> bool {
    head.iter().any(|byte| *byte != 0)
}

pub(crate) fn rename_over_nothing(
    from: &OwnedFd,
    name: &OsStr,
    to: &OwnedFd,
    new_name: &OsStr,
) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from, name, to, new_name, RenameFlags::NOREPLACE) {
        // The filesystem below does not know the flag.
        Err(Errno::INVAL) => match rustix::fs::statat(to, new_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => rustix::fs::renameat(from, name, to, new_name),
            Err(errno) => Err(errno),
        },
        result => result,
    }
}
