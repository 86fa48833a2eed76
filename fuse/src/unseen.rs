//! New files whose writes the kernel passes to the file below, so that nobody sees them.
//!
//! Such a file is held back from its beginning. It is looked at when somebody looks for it or closes it: what is nothing to hold back gets
//! its name then, and loses it again if a later look finds that it has become something. What the hook finishes is not shown before the
//! last descriptor is closed, since until then it may still change.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    os::{fd::AsFd as _, unix::fs::FileExt as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{fs::OFlags, io::Errno};

use crate::{
    HEAD,
    content::has_data,
    files::{Close, Register, Released},
    held::{has_begun, rename_over_nothing},
    node::{Backing, Content, NOWHERE, Name, Node, Phase, State, Writing},
    open::{Access, OpenFile, Target, Way},
    tree::{self, Tree, head, held_name},
};

/// The longest name in bytes. Source: Linux include/uapi/linux/limits.h, `NAME_MAX`.
const LONGEST_NAME: usize = 255;

/// The files with descriptors that write past this program.
#[derive(Debug, Default)]
pub(crate) struct Unseen(Mutex<HashMap<u64, Arc<Node>>>);

impl Unseen {
    pub(crate) fn add(&self, node: &Arc<Node>) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(node.number, node.clone());
    }

    fn remove(&self, node: &Node) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.remove(&node.number);
    }

    fn those(&self, is_one: impl Fn(&Node) -> bool) -> Vec<Arc<Node>> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let those = files.values().filter(|node| is_one(node));
        those.cloned().collect()
    }
}

/// Why a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Somebody looks for it, or nobody writes to it any more.
    Looks,
    /// A copy of a descriptor is being closed.
    Closes,
}

/// What tells one content of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    len: i64,
    /// In seconds and nanoseconds since 1970.
    modified: (i64, u32),
}

impl Stamp {
    /// The same for what was modified then.
    pub(crate) fn modified(self, modified: (i64, u32)) -> Self {
        Self { modified, ..self }
    }
}

impl Tree {
    /// Whether the writes of a new file may be passed: by a descriptor that only writes, and so cannot be mapped.
    pub(crate) fn may_be_unseen(&self, (parent, name): Name<'_>, flags: OFlags) -> bool {
        let only_writes = flags & OFlags::RWMODE == OFlags::WRONLY;
        let lasts = flags.intersects(OFlags::SYNC | OFlags::DSYNC);
        only_writes
            && !lasts
            && self.passes()
            && held_name(name).len() <= LONGEST_NAME
            && self
                .path_of(parent, name)
                .is_some_and(|path| self.hook.checks_itself(&path))
    }

    /// Holds a new file back from its beginning, and sees to it that its writes are passed. Where the kernel does not do that after all, the
    /// file gets its name.
    pub(crate) fn begin_unseen(
        &self,
        node: &Arc<Node>,
        content: &mut Content,
        file: &File,
        register: Register<'_>,
    ) -> Result<(), Errno> {
        content.state = State::Held(Phase::Written);
        self.enter(node);
        match self.register(file, register) {
            Some(id) => {
                content.backing = Some(Backing { id, writes: true });
                Ok(())
            }
            None => self
                .give_name(node, content)
                .inspect_err(|_| self.leave(node)),
        }
    }

    /// Looks at a file that may have been written unseen: what shows an artifact is held back, what does not gets its name.
    pub(crate) fn judge(&self, node: &Arc<Node>, content: &mut Content) -> Result<(), Errno> {
        if content.unseen == 0 || content.state == State::Held(Phase::Finishing) {
            return Ok(());
        }
        let file = self.open_content(node, OFlags::RDONLY)?;
        self.judge_open(node, content, &file, Why::Looks)
            .map(|_| ())
    }

    /// The same, by a descriptor. Answers whether the hook is to finish it when it is closed.
    fn judge_open(
        &self,
        node: &Arc<Node>,
        content: &mut Content,
        file: &File,
        why: Why,
    ) -> Result<bool, Errno> {
        let is_held = match content.state {
            State::Held(_) => true,
            State::Plain => false,
            State::Nameless | State::Unknown | State::Seen | State::Replaced => return Ok(false),
        };
        let head = match has_data(file)? {
            true => head(file)?,
            false => Vec::new(),
        };
        match (is_held, self.shows_artifact(node, content, file, &head)?) {
            (true, true) => Ok(true),
            (false, true) => self.hold_written(node, content, file).map(|()| true),
            (false, false) => Ok(false),
            // It gets its name when it is released, for which no close waits. Who finds none yet waits.
            (true, false) if why == Why::Closes && !content.may_replace => {
                let waits = self.is_undecided(node, &head);
                content.closing = waits.then(|| self.settling.begin_closing(node));
                Ok(false)
            }
            (true, false) => {
                if content.unseen > 0 && self.is_undecided(node, &head) {
                    return Ok(false);
                }
                match self.give_name(node, content) {
                    Ok(()) => Ok(false),
                    // It is to take the place of another file, and does when it is closed.
                    Err(Errno::EXIST) => Ok(true),
                    Err(errno) => Err(errno),
                }
            }
        }
    }

    /// A file gets a name, perhaps one of several.
    pub(crate) fn note_name(&self, content: &mut Content, path: Option<&Path>) {
        content.by_any_name |= path.is_none_or(|path| !self.hook.checks_itself(path));
    }

    /// Whether a file's first bytes are such that it is held back. Where its name is not known, or is one of several, its content tells.
    fn shows_artifact(
        &self,
        node: &Node,
        content: &Content,
        file: &File,
        head: &[u8],
    ) -> Result<bool, Errno> {
        let path = self.only_path(node, file)?;
        let other = match content.by_any_name {
            true => "",
            false => "-",
        };
        Ok(self.concerns(Some(path.as_deref().unwrap_or(Path::new(other))), head))
    }

    /// Holds a file back that has been written already. Where its names do not allow that, or nobody is left to try it again, its first bytes
    /// are made zeros: as if writing them had failed, which its closes tell. Not where its name leads elsewhere behind the mount's back.
    fn hold_written(
        &self,
        node: &Arc<Node>,
        content: &mut Content,
        file: &File,
    ) -> Result<(), Errno> {
        let Err(errno) = self.hold(node, content, file) else {
            content.failed = None;
            return Ok(());
        };
        if rustix::fs::fstat(file)?.st_nlink == 0 {
            content.state = State::Nameless;
            return Ok(());
        }
        content.failed = Some(errno);
        content.epoch += 1;
        let is_elsewhere = matches!(errno, Errno::NOENT | Errno::STALE);
        let stays = matches!(errno, Errno::BUSY | Errno::NAMETOOLONG)
            || content.unseen == 0 && !is_elsewhere
            || node.place().0 == NOWHERE;
        if stays {
            let file = self.open_content(node, OFlags::RDWR)?;
            file.write_all_at(&[0; HEAD], 0)
                .map_err(|error| tree::errno(&error))?;
        }
        Err(errno)
    }

    /// Whether nobody may see a file yet that may be written unseen: nothing tells yet what it is, but its name.
    fn is_undecided(&self, node: &Node, head: &[u8]) -> bool {
        !is_decided(head) && self.path(node).is_none_or(|path| self.hook.expects(&path))
    }

    /// How somebody reads a file that others may write unseen. What nothing tells of yet may become what is held back.
    pub(crate) fn way_unseen(
        &self,
        node: &Node,
        content: &Content,
        file: &File,
    ) -> Result<Way, Errno> {
        let head = head(file)?;
        if self.shows_artifact(node, content, file, &head)? {
            // It has become one since it was looked at.
            return Err(Errno::BUSY);
        }
        Ok(match is_decided(&head) {
            true => Way::Passes,
            false => Way::Asks,
        })
    }

    /// Gives a file its name that turns out to be nothing to hold back.
    fn give_name(&self, node: &Arc<Node>, content: &mut Content) -> Result<(), Errno> {
        let (parent, name) = node.place();
        let directory = self.directory(parent)?;
        rename_over_nothing(&directory, &held_name(&name), &directory, &name)?;
        let was_refused = content.state == State::Held(Phase::Refused);
        (content.state, content.ready, content.closing) = (State::Plain, None, None);
        content.epoch += 1;
        self.leave(node);
        if was_refused && let Some(path) = self.path_of(parent, &name) {
            self.hook.moved(&path, None);
        }
        Ok(())
    }

    /// Looks at the files that may have been written unseen. Of one that cannot be looked at, its own closes tell.
    pub(crate) fn judge_those(&self, are: impl Fn(&Node) -> bool) {
        for node in self.unseen.those(are) {
            let _ = self.judge(&node, &mut node.content());
        }
    }

    /// The same for those in a directory.
    pub(crate) fn judge_within(&self, directory: u64) {
        self.judge_those(|node| node.place().0 == directory);
    }

    /// The same for what has a name, or is going to.
    pub(crate) fn judge_named(&self, directory: u64, name: &OsStr) {
        self.judge_those(|node| node.is_at((directory, name)));
    }

    /// A copy of a descriptor that writes unseen is being closed.
    pub(crate) fn flush_unseen(&self, open: &OpenFile) -> Result<Option<Close>, Errno> {
        let mut target = open.target();
        let node = target.node.clone();
        let mut content = node.content();
        content.writers.insert(open.number, Writing::Ended);
        let is_unchanged = self.is_unchanged(&node, &content);
        if let Some(errno) = self.refusal(&node, &content).filter(|_| is_unchanged) {
            return Err(errno);
        }
        match content.state {
            State::Held(Phase::Finishing) => {
                let awaits = true;
                let is_last = content.is_last(open.number);
                drop(content);
                return Ok(is_last.then_some(Close { node, awaits }));
            }
            State::Held(Phase::Ready) if is_unchanged => {
                if let Some(ready) = &content.ready {
                    ready.closes();
                }
                return Ok(None);
            }
            // What has been written since is in a file that nobody is ever going to see.
            State::Replaced if !is_unchanged => return Err(Errno::STALE),
            State::Replaced | State::Seen => return Ok(None),
            State::Held(_) | State::Plain | State::Nameless | State::Unknown => {}
        }
        let file = self.kept_file(Access::Writes, &mut target)?;
        let finishes = self.judge_open(&node, &mut content, &file, Why::Closes)?;
        if let Some(failed) = content.failed {
            return Err(failed);
        }
        if !finishes || content.state == State::Nameless {
            return Ok(None);
        }
        content.anew();
        let is_last = content.is_last(open.number);
        drop(content);
        let awaits = false;
        Ok(is_last.then_some(Close { node, awaits }))
    }

    /// A descriptor that writes unseen is not open any more. Where it was the last one, nothing changes from here on.
    pub(crate) fn release_unseen(&self, target: &mut Target) -> Released {
        let node = target.node.clone();
        let mut content = node.content();
        content.unseen = content.unseen.saturating_sub(1);
        if content.unseen > 0 {
            return Released::Left;
        }
        let released = self.end_unseen(&node, &mut content, self.kept_file(Access::Writes, target));
        // Not before it has its name: whoever looks for it meanwhile waits for its content.
        self.unseen.remove(&node);
        node.tell_finished();
        released
    }

    fn end_unseen(
        &self,
        node: &Arc<Node>,
        content: &mut Content,
        file: Result<Arc<File>, Errno>,
    ) -> Released {
        content.closing = None;
        let is_unchanged = self.is_unchanged(node, content);
        match content.state {
            State::Held(Phase::Ready) if is_unchanged => {
                if let Some(ready) = content.ready.take() {
                    content.state = State::Held(Phase::Finishing);
                    return Released::Shows(node.clone(), *ready);
                }
            }
            State::Held(Phase::Refused) if is_unchanged => return Released::Left,
            // Whoever finishes it has begun before.
            State::Held(Phase::Finishing) => return Released::Left,
            _ => {}
        }
        // Not closed yet, or written to after the last close.
        let finishes = file.and_then(|file| self.judge_open(node, content, &file, Why::Looks));
        content.failed = None;
        match (finishes, content.state) {
            (Ok(true), State::Held(_)) => {
                content.anew();
                Released::Finishes(node.clone())
            }
            // What could not be looked at, or held back, is not seen.
            (Err(errno), State::Held(_)) => {
                content.state = State::Held(Phase::Refused);
                (content.ready, content.refused) = (None, Some(errno));
                Released::Left
            }
            _ => Released::Left,
        }
    }

    pub(crate) fn stamp(&self, node: &Node) -> Option<Stamp> {
        let stat = rustix::fs::fstat(self.reach(node).ok()?.as_fd()).ok()?;
        Some(Stamp {
            len: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
        })
    }

    /// Whether a file is what it was when the hook finished or refused it.
    pub(crate) fn is_unchanged(&self, node: &Node, content: &Content) -> bool {
        content.since.is_some() && content.since == self.stamp(node)
    }

    /// When the mount ends, and the kernel tells of nothing any more: where nobody has anything open, everything has been closed. Else what is
    /// nothing to hold back gets its name, but what may become anything yet.
    pub(crate) fn leave_unseen(self: &Arc<Self>, is_closed: bool) {
        for node in self.unseen.those(|_| true) {
            let mut content = node.content();
            if is_closed {
                content.unseen = 0;
                content.writers.clear();
                let file = self.open_content(&node, OFlags::RDWR).map(Arc::new);
                let released = self.end_unseen(&node, &mut content, file);
                self.unseen.remove(&node);
                drop(content);
                self.go_on(released);
                continue;
            }
            let file = self.open_content(&node, OFlags::RDONLY);
            if file
                .and_then(|file| head(&file))
                .is_ok_and(|head| is_decided(&head))
            {
                // What cannot be looked at stays held back.
                let _ = self.judge(&node, &mut content);
            }
        }
    }
}

impl Content {
    /// What the hook has made of a file counts no more: it was written to.
    pub(crate) fn anew(&mut self) {
        (self.ready, self.refused, self.since) = (None, None, None);
        self.closing = None;
        self.state = State::Held(Phase::Written);
        self.dirty = true;
    }
}

/// Whether no more first bytes can make a file what is held back, unless they are written over.
fn is_decided(head: &[u8]) -> bool {
    head.len() == HEAD && has_begun(head)
}
