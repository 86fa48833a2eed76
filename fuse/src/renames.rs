//! Renames, and what must not be renamed but has to be copied.

use std::{
    ffi::OsStr,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};

use crate::{
    node::Node,
    tree::{Found, Tree, head, is_reserved, magic_link},
};

/// How often a rename is tried of what gets another name below meanwhile.
const RENAMES: usize = 3;

impl Tree {
    pub(crate) fn rename(
        &self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let mut result = self.rename_once(from, to, flags);
        for _ in 1..RENAMES {
            // It came to be held back, or to be seen, in this moment, and has the other name now.
            if !matches!(result, Err(Errno::NOENT | Errno::STALE | Errno::EXIST)) {
                break;
            }
            result = self.rename_once(from, to, flags);
        }
        result
    }

    fn rename_once(
        &self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        if is_reserved(from.1) {
            return Err(Errno::NOENT);
        }
        if is_reserved(to.1) {
            return Err(Errno::PERM);
        }
        let (old, new) = (self.directory(from.0)?, self.directory(to.0)?);
        let (held, over) = (self.index.find(from.0, from.1), self.index.find(to.0, to.1));
        let source = match self.find(&old, from.1) {
            Ok(found) => Some(found),
            Err(Errno::NOENT) if held.is_some() => None,
            Err(errno) => return Err(errno),
        };
        if flags.contains(RenameFlags::EXCHANGE) {
            if held.is_some() || over.is_some() {
                return Err(Errno::BUSY);
            }
            let target = self.find(&new, to.1)?;
            if let Some(source) = &source {
                self.check_rename(source, from, to)?;
            }
            self.check_rename(&target, to, from)?;
            rustix::fs::renameat_with(&old, from.1, &new, to.1, flags)?;
            self.moved(source.as_ref(), to);
            self.moved(Some(&target), from);
            return Ok(());
        }
        if flags.contains(RenameFlags::NOREPLACE) && over.is_some() {
            return Err(Errno::EXIST);
        }
        let Some(source) = source else {
            return self.rename_held(held, (&old, from), (&new, to), flags);
        };
        self.check_rename(&source, from, to)?;
        if source.kind() != FileType::Directory || over.is_none() {
            let doomed = self.find(&new, to.1).ok();
            rustix::fs::renameat_with(&old, from.1, &new, to.1, flags)?;
            self.keep(doomed);
        } else {
            return Err(Errno::NOTDIR);
        }
        self.moved(Some(&source), to);
        if from == to {
            return Ok(());
        }
        self.discard(to.0, to.1, &new)?;
        match held {
            Some(held) => self.move_held(&held, &old, &new, (to.0, to.1.to_owned())),
            None => Ok(()),
        }
    }

    /// Renames what only its name is seen of. What has the other name goes on being seen until this is finished.
    fn rename_held(
        &self,
        held: Option<Arc<Node>>,
        (old, from): (&OwnedFd, (u64, &OsStr)),
        (new, to): (&OwnedFd, (u64, &OsStr)),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let held = held.ok_or(Errno::NOENT)?;
        match self.find(new, to.1) {
            Ok(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EXIST),
            Ok(target) if target.kind() == FileType::Directory => return Err(Errno::ISDIR),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        if from == to {
            return Ok(());
        }
        let watched = self.is_watched(self.nodes.path(to.0, to.1).as_deref());
        if !watched {
            return Err(Errno::XDEV);
        }
        self.discard(to.0, to.1, new)?;
        self.move_held(&held, old, new, (to.0, to.1.to_owned()))
    }

    fn check_rename(
        &self,
        found: &Found,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
    ) -> Result<(), Errno> {
        let (from, to) = (self.nodes.path(from.0, from.1), self.nodes.path(to.0, to.1));
        match found.kind() {
            FileType::Directory => self.check_same(from.as_deref(), to.as_deref()),
            FileType::RegularFile => self.check_file(found, from.as_deref(), to.as_deref()),
            _ => Ok(()),
        }
    }

    fn check_same(&self, from: Option<&Path>, to: Option<&Path>) -> Result<(), Errno> {
        match (from, to) {
            (Some(from), Some(to)) if from == to || self.hook.is_same(from, to) => Ok(()),
            _ => Err(Errno::XDEV),
        }
    }

    /// What is seen must not come by a name under which it would have been finished otherwise.
    fn check_file(
        &self,
        found: &Found,
        from: Option<&Path>,
        to: Option<&Path>,
    ) -> Result<(), Errno> {
        let same = self.check_same(from, to).is_ok();
        // What the kernel passes is not seen to by anybody.
        if !same && self.is_watched(from) != self.is_watched(to) {
            return Err(Errno::XDEV);
        }
        let file = rustix::fs::open(
            magic_link(found.file.as_fd()),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let head = head(&file.into())?;
        // Some are told by their names too: what was nothing to finish may be something by its new name.
        let finished = same && self.concerns(from, &head);
        if self.concerns(to, &head) && !finished {
            return Err(Errno::XDEV);
        }
        Ok(())
    }

    pub(crate) fn check_move(&self, node: &Node, to: Option<&Path>) -> Result<(), Errno> {
        let file = self.reach(node)?;
        let stat = rustix::fs::fstat(&*file)?;
        let file = file
            .try_clone()
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        self.check_file(&Found { file, stat }, self.path(node).as_deref(), to)
    }

    /// Keeps in mind where something is now.
    fn moved(&self, found: Option<&Found>, to: (u64, &OsStr)) {
        if let Some(node) = found.and_then(|found| self.known(found)) {
            node.set_place((to.0, to.1.to_owned()));
        }
    }
}
