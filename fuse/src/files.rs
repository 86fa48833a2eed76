//! Files: opening and closing them.

use std::{
    ffi::OsStr,
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use fuser::{BackingId, FopenFlags};
use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};

use crate::{
    attributes::drop_set_id,
    content::has_data,
    finishing::Ready,
    names::{Caller, NewMode, Told},
    node::{Backing, Content, NOWHERE, Node, Phase, State, Writing},
    open::{Access, OpenFile, Target, Way},
    redirects::Start,
    tree::{Tree, errno, held_name, magic_link, remove},
};

/// What the kernel is told of a file that has been opened.
pub(crate) struct Opened {
    pub(crate) number: u64,
    pub(crate) flags: FopenFlags,
    pub(crate) backing: Option<Arc<BackingId>>,
}

/// Registers a file with the kernel, so that reads and writes are passed to it.
pub(crate) type Register<'a> = &'a dyn Fn(&File) -> std::io::Result<BackingId>;

impl Tree {
    /// Makes and opens a file that was not there.
    pub(crate) fn create(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        mode: NewMode,
        flags: OFlags,
        register: Register<'_>,
    ) -> Result<(Told, Opened), Errno> {
        self.redirects.arrived(caller.thread);
        let directory = self.directory_for(parent, name)?;
        let make =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let bits = Mode::from_raw_mode(mode.mode & 0o7777);
        let passing = self.passing(|| self.path_of(parent, name));
        let held = held_name(name);
        let mut is_unseen = passing.is_none() && self.may_be_unseen((parent, name), flags);
        let make_as = |name: &OsStr| rustix::fs::openat(&directory, name, make, bits);
        let made = match is_unseen.then(|| make_as(&held)) {
            // What an earlier run held back there is not this mount's.
            None | Some(Err(Errno::EXIST)) => {
                is_unseen = false;
                make_as(name)
            }
            // The kernel has just found nothing by the name itself.
            Some(made) => made,
        };
        let made = match made {
            // Made behind the kernel's back: it has to look again.
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => return Err(Errno::STALE),
            made => made?,
        };
        let made_as = if is_unseen { held.as_os_str() } else { name };
        let found = self.find(&directory, made_as);
        let given = found.and_then(|found| {
            self.give(&directory, &found, caller, mode)?;
            let stat = rustix::fs::fstat(&found.file)?;
            let node = self.look_up(&found, (parent, name.to_owned()))?;
            node.anchor().get_or_insert_with(|| Arc::new(found.file));
            Ok((node, stat))
        });
        let (node, stat) = given.inspect_err(|_| {
            let _ = remove(&directory, made_as);
        })?;
        let mut content = node.content();
        let opened = match (&passing, is_unseen) {
            (Some(_), _) => self.open_passed(&node, &mut content, flags, caller, register),
            (None, false) => {
                content.state = State::Plain;
                self.opened(&node, &mut content, made.into(), flags, None)
            }
            (None, true) => {
                let file = made.into();
                let begun = self.begin_unseen(&node, &mut content, &file, register);
                begun.and_then(|()| self.opened(&node, &mut content, file, flags, None))
            }
        };
        drop(content);
        let opened = opened.inspect_err(|_| {
            let _ = remove(&directory, made_as);
            // The kernel is not told.
            self.nodes.forget(node.number, 1);
        })?;
        Ok((Told::new(node, stat), opened))
    }

    /// Opens a file that the kernel knows.
    pub(crate) fn open_file(
        &self,
        number: u64,
        flags: OFlags,
        caller: Caller,
        register: Register<'_>,
    ) -> Result<Opened, Errno> {
        let node = self.node(number)?;
        if node.kind != FileType::RegularFile {
            return Err(Errno::NXIO);
        }
        let writes = access(flags) == Access::Writes;
        let passing = self.passing(|| self.path(&node));
        // Known by none of its names: the kernel looks the one up that it has.
        if writes && self.has_lost_its_name(&node)? {
            return Err(Errno::STALE);
        }
        let mut content = if writes {
            node.content_at_rest()
        } else {
            node.content()
        };
        self.judge(&node, &mut content)?;
        if (content.is_held() || content.telling > 0) && !writes {
            drop(content);
            // Where the kernel found it by a name that has an older version, it looks that up once more.
            return Err(match self.has_older(&node) {
                true => Errno::STALE,
                false => Errno::BUSY,
            });
        }
        let start = match flags.contains(OFlags::TRUNC) {
            true => Start::Empty,
            false => Start::Copy,
        };
        if content.state == State::Replaced {
            drop(content);
            // The kernel looks the name up once more, and only once: a writer is led on at that look-up.
            if writes && let Ok(successor) = self.successor(&node) {
                self.redirects.lead(caller.thread, &successor, start);
            }
            return Err(Errno::STALE);
        }
        if passing.is_some() && !content.is_held() {
            return self.open_passed(&node, &mut content, flags, caller, register);
        }
        if !writes && flags.contains(OFlags::TRUNC) {
            drop(content);
            self.truncate(&node, 0, caller.drops_set_id())?;
            content = node.content();
            if content.is_held() {
                return Err(Errno::BUSY);
            }
        }
        let file = self.open_content(&node, if writes { OFlags::RDWR } else { OFlags::RDONLY })?;
        if content.state == State::Unknown {
            let shows = self.shows(self.only_path(&node, &file)?.as_deref(), &file)?;
            content.state = if shows { State::Seen } else { State::Plain };
        }
        if writes && content.state == State::Seen {
            drop(content);
            return Err(match self.redirects.lead(caller.thread, &node, start) {
                true => Errno::STALE,
                false => Errno::BUSY,
            });
        }
        if writes {
            // It would not be passed, and fail: see `opened`.
            if content
                .backing
                .as_ref()
                .is_some_and(|backing| !backing.writes)
            {
                return Err(Errno::BUSY);
            }
            self.redirects.arrived(caller.thread);
        }
        if writes && flags.contains(OFlags::TRUNC) {
            empty(&file, caller)?;
            (content.dirty, content.failed) = (true, None);
            if let State::Held(Phase::Refused) = content.state {
                content.state = State::Held(Phase::Written);
            }
        }
        self.opened(&node, &mut content, file, flags, Some(register))
    }

    /// Whether a file was known by a name that is gone, and has others.
    fn has_lost_its_name(&self, node: &Node) -> Result<bool, Errno> {
        Ok(node.place().0 == NOWHERE && rustix::fs::fstat(&*self.reach(node)?)?.st_nlink > 0)
    }

    /// Opens a file that is never held back, and has the kernel pass everything to it.
    fn open_passed(
        &self,
        node: &Arc<Node>,
        content: &mut Content,
        flags: OFlags,
        caller: Caller,
        register: Register<'_>,
    ) -> Result<Opened, Errno> {
        let truncates = flags.contains(OFlags::TRUNC);
        let file = self.open_content(
            node,
            if truncates || access(flags) == Access::Writes {
                OFlags::RDWR
            } else {
                OFlags::RDONLY
            },
        )?;
        if truncates {
            empty(&file, caller)?;
        }
        let way = self.way(content, &file, Some(register));
        Ok(self.add(node, content, file, flags, way))
    }

    fn opened(
        &self,
        node: &Arc<Node>,
        content: &mut Content,
        file: File,
        flags: OFlags,
        register: Option<Register<'_>>,
    ) -> Result<Opened, Errno> {
        let backing = content.backing.as_ref();
        let way = match (access(flags), content.state) {
            // As long as the kernel passes one descriptor to the file below, it fails each other one (EIO) that is not opened by what it
            // passes to. Source: Linux fs/fuse/iomode.c, `fuse_file_io_open`.
            (Access::Writes, _) if backing.is_some() => Way::Unseen,
            (Access::Writes, _) => Way::Asks,
            (Access::Reads, State::Plain) if backing.is_some() => {
                self.way_unseen(node, content, &file)?
            }
            (Access::Reads, _) if backing.is_some() => Way::Passes,
            // What is seen does not change.
            (Access::Reads, State::Seen) => self.way(content, &file, register),
            (Access::Reads, _) if content.writers.is_empty() => Way::Caches,
            // It may become what is held back at any moment.
            (Access::Reads, _) => Way::Asks,
        };
        Ok(self.add(node, content, file, flags, way))
    }

    /// Passed, where the kernel does that and has no descriptor of the file that is not.
    fn way(&self, content: &mut Content, file: &File, register: Option<Register<'_>>) -> Way {
        if content.backing.is_some() {
            return Way::Passes;
        }
        let Some(register) = register.filter(|_| self.passes() && content.unpassed == 0) else {
            return Way::Caches;
        };
        match self.register(file, register) {
            Some(id) => {
                content.backing = Some(Backing { id, writes: false });
                Way::Passes
            }
            None => Way::Caches,
        }
    }

    /// Registers a file with the kernel, so that reads and writes can be passed to it.
    pub(crate) fn register(&self, file: &File, register: Register<'_>) -> Option<Arc<BackingId>> {
        match register(file) {
            Ok(id) => Some(Arc::new(id)),
            Err(error) => {
                // The kernel or the rights do not allow it, or the filesystem below is a stack itself. All else is this file's
                // own matter. Source: Linux fs/fuse/backing.c, `fuse_backing_open`.
                if matches!(
                    errno(&error),
                    Errno::PERM | Errno::OPNOTSUPP | Errno::NOTTY | Errno::LOOP
                ) {
                    self.set_passes(false);
                }
                None
            }
        }
    }

    fn add(
        &self,
        node: &Arc<Node>,
        content: &mut Content,
        file: File,
        flags: OFlags,
        way: Way,
    ) -> Opened {
        let number = self.opens.number();
        let access = access(flags);
        if access == Access::Writes && flags.intersects(OFlags::SYNC | OFlags::DSYNC) {
            content.is_flushed = true;
        }
        content.opens += 1;
        content.made = None;
        let mut kept = node.anchor();
        if kept.is_none()
            && let Ok(anchor) = rustix::fs::open(
                magic_link(file.as_fd()),
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
            )
        {
            *kept = Some(Arc::new(anchor));
        }
        drop(kept);
        let mut answer = FopenFlags::empty();
        match way {
            Way::Asks => answer |= FopenFlags::FOPEN_DIRECT_IO,
            Way::Caches => answer |= FopenFlags::FOPEN_KEEP_CACHE,
            Way::Passes => {}
            Way::Unseen => {
                content.unseen += 1;
                self.unseen.add(node);
            }
        }
        let backing = content.backing.as_ref().map(|backing| backing.id.clone());
        match &backing {
            Some(_) => content.backed += 1,
            None => content.unpassed += 1,
        }
        if access == Access::Writes && way != Way::Passes {
            content.writers.insert(number, Writing::Goes);
        } else {
            answer |= FopenFlags::FOPEN_NOFLUSH;
        }
        let target = Target {
            node: node.clone(),
            file: Some(Arc::new(file)),
        };
        let open = OpenFile::new(number, target, access, way, backing.is_some());
        self.opens.add(open);
        Opened {
            number,
            flags: answer,
            backing,
        }
    }

    /// A descriptor does not have a file open any more: it is being released, or led on.
    pub(crate) fn unopen(&self, node: &Node, open: &OpenFile) {
        let mut content = node.content();
        content.writers.remove(&open.number);
        // It was led on to this file.
        if node.number != open.node.number {
            self.nodes.unpin(node.number);
        }
        content.opens = content.opens.saturating_sub(1);
        // What has no name any more is kept until the kernel forgets it.
        let mut anchor = node.anchor();
        if content.opens == 0
            && anchor.as_ref().is_some_and(|anchor| {
                rustix::fs::fstat(&**anchor).is_ok_and(|stat| stat.st_nlink > 0)
            })
        {
            *anchor = None;
        }
    }

    /// The kernel does not have a descriptor open any more. It has had it open by the same inode all the time, also where that
    /// was led on to another file: so only the release ends its way there.
    fn end_way(open: &OpenFile) {
        let mut content = open.node.content();
        match open.is_backed {
            false => content.unpassed = content.unpassed.saturating_sub(1),
            true => content.backed = content.backed.saturating_sub(1),
        }
        if content.backed == 0 {
            content.backing = None;
        }
    }

    /// A copy of a descriptor is being closed. Answers what has to be done before that is answered.
    pub(crate) fn flush(&self, open: u64) -> Result<Option<Close>, Errno> {
        let open = self.opens.file(open)?;
        match (open.access, open.way) {
            (Access::Writes, Way::Asks) => {}
            (Access::Writes, Way::Unseen) => return self.flush_unseen(&open),
            _ => return Ok(None),
        }
        let mut target = open.target();
        let node = target.node.clone();
        let mut content = node.content();
        content.writers.insert(open.number, Writing::Ended);
        // Whoever has a copy of the descriptor is told, not only the first to close one.
        if let Some(errno) = self.refusal(&node, &content) {
            return Err(errno);
        }
        if content.dirty && content.state == State::Plain {
            self.judge_once_more(&mut target, &mut content)?;
        }
        // Where the hook has it already, another copy was closed a moment ago.
        let awaits = content.state == State::Held(Phase::Finishing);
        let finish = (awaits || content.dirty && matches!(content.state, State::Held(_)))
            && content.is_last(open.number);
        drop(content);
        Ok(finish.then_some(Close { node, awaits }))
    }

    /// Every write has been judged before it was done. What was overlooked then must not stay seen.
    fn judge_once_more(&self, target: &mut Target, content: &mut Content) -> Result<(), Errno> {
        let node = target.node.clone();
        let file = self.kept_file(Access::Writes, target)?;
        if has_data(&file)? && self.shows(self.only_path(&node, &file)?.as_deref(), &file)? {
            return self.hold(&node, content, &file);
        }
        content.dirty = false;
        Ok(())
    }

    /// The last copy of a descriptor has been closed.
    pub(crate) fn release(&self, open: u64) -> Released {
        let Some(open) = self.opens.remove(open) else {
            return Released::Left;
        };
        let mut target = open.target().clone();
        self.unopen(&target.node, &open);
        Self::end_way(&open);
        if open.way == Way::Unseen {
            return self.release_unseen(&mut target);
        }
        let content = target.node.content();
        let left = content.dirty
            && content.writers.is_empty()
            && content.state == State::Held(Phase::Written);
        match left {
            true => Released::Finishes(target.node.clone()),
            false => Released::Left,
        }
    }

    pub(crate) fn open_directory(&self, number: u64) -> Result<u64, Errno> {
        let node = self.node(number)?;
        let file: OwnedFd = node
            .id
            .open(&self.root, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(self.opens.add_directory(file, number))
    }
}

/// A file that has to be finished before a close is answered.
pub(crate) struct Close {
    pub(crate) node: Arc<Node>,
    /// Somebody else has it finished already.
    pub(crate) awaits: bool,
}

/// What is to be done for a file when a descriptor is not open any more.
pub(crate) enum Released {
    /// Nothing.
    Left,
    /// It is to be finished, though nobody waits for it.
    Finishes(Arc<Node>),
    /// It has been finished, and can be shown now.
    Shows(Arc<Node>, Ready),
}

/// Whether whoever opens a file like this changes it, or may.
pub(crate) fn changes(flags: OFlags) -> bool {
    access(flags) == Access::Writes || flags.contains(OFlags::TRUNC)
}

fn access(flags: OFlags) -> Access {
    match (flags & OFlags::RWMODE) == OFlags::RDONLY {
        true => Access::Reads,
        false => Access::Writes,
    }
}

/// Truncates a file that is opened for it.
fn empty(file: &File, caller: Caller) -> Result<(), Errno> {
    if caller.drops_set_id() {
        drop_set_id(file.as_fd())?;
    }
    rustix::fs::ftruncate(file, 0)
}
