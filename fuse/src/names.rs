//! Names: looking up, making, moving and removing them.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid},
    io::Errno,
};

use crate::{
    node::{Node, Phase, State},
    tree::{Found, Tree, magic_link, name_of_held, remove},
};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Of the thread; 0 where it is in a namespace that cannot be looked into.
    pub(crate) thread: u32,
}

impl Caller {
    /// Whether his changes of a file's content take its set-id bits away. For a write, the kernel says so; where it says so of a
    /// truncation, fuser does not hand it on, and root's, who may have given up `CAP_FSETID`, is taken not to.
    pub(crate) fn drops_set_id(self) -> bool {
        self.uid != 0
    }
}

/// What mode something is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewMode {
    pub(crate) mode: u32,
    pub(crate) umask: u32,
}

/// An answer about a name.
pub(crate) struct Told {
    pub(crate) node: Arc<Node>,
    pub(crate) stat: Stat,
    /// Whether another file is going to take its place.
    pub(crate) is_contested: bool,
}

impl Told {
    pub(crate) fn new(node: Arc<Node>, stat: Stat) -> Self {
        Self {
            node,
            stat,
            is_contested: false,
        }
    }
}

impl Tree {
    pub(crate) fn look(&self, parent: u64, name: &OsStr, caller: Caller) -> Result<Told, Errno> {
        if self.is_reserved(name) {
            return Err(Errno::NOENT);
        }
        let directory = self.directory(parent)?;
        let place = (parent, name.to_owned());
        let found = match self.find(&directory, name) {
            // It may come to be seen just before it is looked for among what is held back.
            Err(Errno::NOENT) if self.index.find(parent, name).is_none() => {
                self.find(&directory, name)
            }
            found => found,
        };
        match found {
            Ok(found) => {
                let node = self.look_up(&found, place.clone())?;
                let Some(start) = self.redirects.wanted(caller.thread, &node) else {
                    return Ok(Told {
                        node,
                        stat: found.stat,
                        is_contested: self.index.find(parent, name).is_some(),
                    });
                };
                self.nodes.forget(node.number, 1);
                let (node, stat) = self.new_version(&directory, &place, &found.file, start)?;
                Ok(Told::new(node, stat))
            }
            Err(Errno::NOENT) => {
                let node = self.index.find(parent, name).ok_or(Errno::NOENT)?;
                match self.reach(&node) {
                    Ok(file) => {
                        let stat = rustix::fs::fstat(&*file)?;
                        self.nodes.told(&node);
                        Ok(Told::new(node, stat))
                    }
                    // Somebody has removed it behind the mount's back.
                    Err(Errno::STALE) => match self.discard(parent, name, &directory)? {
                        true => Err(Errno::NOENT),
                        // It is seen by now: the kernel looks once more.
                        false => Err(Errno::STALE),
                    },
                    Err(errno) => Err(errno),
                }
            }
            Err(errno) => Err(errno),
        }
    }

    /// A directory in which a name may be made.
    pub(crate) fn directory_for(&self, parent: u64, name: &OsStr) -> Result<OwnedFd, Errno> {
        if self.is_reserved(name) {
            return Err(Errno::PERM);
        }
        if self.index.find(parent, name).is_some() {
            return Err(Errno::EXIST);
        }
        self.directory(parent)
    }

    /// Gives something new to the caller, and the mode that it would have had if the caller had made it.
    pub(crate) fn give(
        &self,
        directory: impl AsFd,
        found: &Found,
        caller: Caller,
        mode: NewMode,
    ) -> Result<(), Errno> {
        let stat = &found.stat;
        let above = rustix::fs::fstat(&directory)?;
        // The filesystem has seen to it that a setgid directory gives its group.
        let gid = (above.st_mode & libc::S_ISGID == 0).then_some(caller.gid);
        let owner = (stat.st_uid != caller.uid).then_some(caller.uid);
        let group = gid.filter(|gid| *gid != stat.st_gid);
        if owner.is_some() || group.is_some() {
            let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
            rustix::fs::chownat(&found.file, "", owner, group, AtFlags::EMPTY_PATH)?;
        }
        if found.kind() == FileType::Symlink {
            return Ok(());
        }
        let inherited = stat.st_mode & libc::S_ISGID;
        let mut wanted = mode.mode & !mode.umask & 0o7777;
        if found.kind() == FileType::Directory {
            wanted |= inherited;
        }
        let has = rustix::fs::fstat(&found.file)?.st_mode & 0o7777;
        if has == wanted {
            return Ok(());
        }
        // With a default ACL the umask does not count, and the filesystem has done what is right but for set-id bits.
        let acl = rustix::fs::getxattr(
            magic_link(directory.as_fd()),
            "system.posix_acl_default",
            &mut [0_u8; 0],
        );
        if acl.is_ok() {
            wanted = (stat.st_mode & 0o777) | (wanted & 0o7000);
        }
        rustix::fs::chmod(magic_link(found.file.as_fd()), Mode::from_raw_mode(wanted))
    }

    /// Makes something that is no file with content.
    fn make(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        mode: NewMode,
        make: impl FnOnce(&OwnedFd) -> Result<AtFlags, Errno>,
    ) -> Result<Told, Errno> {
        let directory = self.directory_for(parent, name)?;
        let kind = make(&directory)?;
        let made = self.find(&directory, name);
        let given =
            made.and_then(|found| self.give(&directory, &found, caller, mode).map(|()| found));
        let given = given.inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&directory, name, kind);
        })?;
        let node = self.look_up(&given, (parent, name.to_owned()))?;
        let stat = rustix::fs::fstat(&given.file)?;
        Ok(Told::new(node, stat))
    }

    pub(crate) fn make_directory(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        mode: NewMode,
    ) -> Result<Told, Errno> {
        self.make(parent, name, caller, mode, |directory| {
            rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(mode.mode & 0o7777))?;
            Ok(AtFlags::REMOVEDIR)
        })
    }

    pub(crate) fn make_node(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        mode: NewMode,
        device: u32,
    ) -> Result<Told, Errno> {
        self.make(parent, name, caller, mode, |directory| {
            let (kind, bits) = (FileType::from_raw_mode(mode.mode), mode.mode & 0o7777);
            rustix::fs::mknodat(
                directory,
                name,
                kind,
                Mode::from_raw_mode(bits),
                device.into(),
            )?;
            Ok(AtFlags::empty())
        })
    }

    pub(crate) fn make_symlink(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        target: &Path,
    ) -> Result<Told, Errno> {
        let mode = NewMode {
            mode: 0o777,
            umask: 0,
        };
        self.make(parent, name, caller, mode, |directory| {
            rustix::fs::symlinkat(target, directory, name)?;
            Ok(AtFlags::empty())
        })
    }

    pub(crate) fn read_link(&self, number: u64) -> Result<Vec<u8>, Errno> {
        let link = self.reach(&*self.node(number)?)?;
        Ok(rustix::fs::readlinkat(&*link, "", Vec::new())?.into_bytes())
    }

    pub(crate) fn link(&self, number: u64, parent: u64, name: &OsStr) -> Result<Told, Errno> {
        let node = self.node(number)?;
        let directory = self.directory_for(parent, name)?;
        // Kept until it has both names: whoever holds it back meanwhile counts them.
        let mut content = node.content_at_rest();
        if node.kind == FileType::RegularFile {
            self.judge(&node, &mut content)?;
            if content.is_held() {
                return Err(Errno::BUSY);
            }
            let to = self.path_of(parent, name);
            self.note_name(&mut content, to.as_deref());
            self.note_name(&mut content, self.path(&node).as_deref());
            self.check_link(&node, &content, to.as_deref())?;
        }
        let file = self.reach(&node)?;
        rustix::fs::linkat(&*file, "", &directory, name, AtFlags::EMPTY_PATH)?;
        drop(content);
        self.nodes.told(&node);
        let stat = rustix::fs::fstat(&*file)?;
        Ok(Told::new(node, stat))
    }

    pub(crate) fn unlink(&self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        if self.is_reserved(name) {
            return Err(Errno::NOENT);
        }
        let directory = self.directory(parent)?;
        self.judge_named(parent, name);
        match self.remove_name(parent, name, &directory) {
            // It may have come to be held back in this moment.
            Err(Errno::NOENT) => self.remove_name(parent, name, &directory),
            result => result,
        }
    }

    fn remove_name(&self, parent: u64, name: &OsStr, directory: &OwnedFd) -> Result<(), Errno> {
        let was_held = self.discard(parent, name, directory)?;
        let doomed = self.find(directory, name).ok();
        let removed = remove(directory, name);
        if removed.is_ok() {
            self.keep(doomed, (parent, name));
        }
        match removed {
            Err(Errno::NOENT) if was_held => Ok(()),
            result => result,
        }
    }

    pub(crate) fn remove_directory(&self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        if self.is_reserved(name) {
            return Err(Errno::NOENT);
        }
        let directory = self.directory(parent)?;
        let removed = self.remove_empty(parent, &directory, name);
        if removed != Err(Errno::NOTEMPTY) {
            return removed;
        }
        // Nobody sees what was refused, so it must not keep its directory.
        let found = self.find(&directory, name)?;
        let node = self.look_up(&found, (parent, name.to_owned()))?;
        let result = self.remove_refused(&node);
        self.nodes.forget(node.number, 1);
        result?;
        self.remove_empty(parent, &directory, name)
    }

    fn remove_empty(&self, parent: u64, directory: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        let doomed = self.find(directory, name).ok();
        let removed = rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR);
        self.keep(doomed.filter(|_| removed.is_ok()), (parent, name));
        removed
    }

    fn remove_refused(&self, node: &Node) -> Result<(), Errno> {
        let held = self.index.within(node.number);
        let is_left = |node: &Arc<Node>| {
            let content = node.content();
            content.state == State::Held(Phase::Refused) && content.writers.is_empty()
        };
        if held.is_empty() || !held.iter().all(is_left) {
            return Err(Errno::NOTEMPTY);
        }
        // Only where nothing else is in it: what is refused is not lost by a mistake.
        let directory = node
            .id
            .open(&self.root, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = rustix::fs::Dir::read_from(&directory)?;
        while let Some(entry) = names.read() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." && name_of_held(name).is_none() {
                return Err(Errno::NOTEMPTY);
            }
        }
        for node in held {
            let (parent, name) = node.place();
            self.discard(parent, &name, &directory)?;
        }
        Ok(())
    }
}
