//! Renames, and what must not be renamed but has to be copied.

use std::{
    ffi::OsStr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLockWriteGuard},
};

use rustix::{
    fs::{FileType, OFlags, RenameFlags},
    io::Errno,
};

use crate::{
    file_id::FileId,
    node::{Content, Name, Node, State},
    settling::Settles,
    tree::{Found, Tree, errno},
};

/// What becomes of a file by a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// It is seen, or not, as before.
    Stays,
    /// It has to be finished before it is seen by its new name.
    Finishes,
}

/// How many names are looked at before a directory is renamed that has another meaning by its new path.
const LONGEST_LOOK: usize = 10_000;
/// How often a rename is tried of what gets another name below meanwhile.
const RENAMES: usize = 3;

impl Tree {
    pub(crate) fn rename(
        &self,
        from: Name<'_>,
        to: Name<'_>,
        flags: RenameFlags,
    ) -> Result<Option<Arc<Node>>, Errno> {
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

    /// What may settle in a directory that is renamed: anywhere, since it may be deep in it.
    pub(crate) fn settling_with(&self, names: [Name<'_>; 2]) -> Vec<Arc<Settles>> {
        let is_directory = |(parent, name): Name<'_>| {
            let found = self
                .directory(parent)
                .and_then(|above| self.find(&above, name));
            found.is_ok_and(|found| found.kind() == FileType::Directory)
        };
        match self.settling.len() > 0 && names.into_iter().any(is_directory) {
            true => self.settling.all(),
            false => Vec::new(),
        }
    }

    fn rename_once(
        &self,
        from: Name<'_>,
        to: Name<'_>,
        flags: RenameFlags,
    ) -> Result<Option<Arc<Node>>, Errno> {
        if self.is_reserved(from.1) {
            return Err(Errno::NOENT);
        }
        if self.is_reserved(to.1) {
            return Err(Errno::PERM);
        }
        let (old, new) = (self.directory(from.0)?, self.directory(to.0)?);
        for place in [from, to] {
            self.wait_for(&(place.0, place.1.to_owned()));
        }
        self.judge_named(from.0, from.1);
        self.judge_named(to.0, to.1);
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
            let source = source.ok_or(Errno::NOENT)?;
            return self
                .exchange((&old, from, &source), (&new, to, &target))
                .map(|()| None);
        }
        if flags.contains(RenameFlags::NOREPLACE) && over.is_some() {
            return Err(Errno::EXIST);
        }
        let Some(source) = source else {
            self.rename_held(held, (&old, from), (&new, to), flags)?;
            return Ok(None);
        };
        if source.kind() == FileType::Directory {
            self.judge_those(|_| true);
        }
        let _alone = self.alone(&[(&source, from, to)]);
        let node = self.mover(&source, from)?;
        // Kept until it has its new name, by which its next write is judged.
        let mut content = node.content_at_rest();
        self.note_name(&mut content, self.path_of(to.0, to.1).as_deref());
        if self.check_rename(&source, &content, from, to)? == Move::Finishes {
            if held.is_some() {
                return Err(Errno::BUSY);
            }
            self.rename_unfinished(&node, &mut content, (&old, from.1), (&new, to), flags)?;
            return Ok(Some(node.clone()));
        }
        if source.kind() == FileType::Directory && over.is_some() {
            return Err(Errno::NOTDIR);
        }
        // What the hook has gets its name first.
        let over = over.as_ref().filter(|over| over.number != node.number);
        let over = over.map(|over| (over, over.content_at_rest()));
        let doomed = self.find(&new, to.1).ok();
        rustix::fs::renameat_with(&old, from.1, &new, to.1, flags)?;
        self.keep(doomed, to);
        node.set_place((to.0, to.1.to_owned()));
        if from == to {
            return Ok(None);
        }
        match over {
            Some((over, over_content)) => self.discard_locked(over, over_content, to, &new)?,
            // One that has come since. Not this file, which is kept.
            None => self.discard(to.0, to.1, &new)?,
        };
        drop(content);
        if let Some(held) = held {
            self.move_held(&held, &old, &new, (to.0, to.1.to_owned()))?;
        }
        Ok(None)
    }

    fn exchange(
        &self,
        (old, from, source): (&OwnedFd, Name<'_>, &Found),
        (new, to, target): (&OwnedFd, Name<'_>, &Found),
    ) -> Result<(), Errno> {
        let _alone = self.alone(&[(source, from, to), (target, to, from)]);
        let (one, other) = (self.mover(source, from)?, self.mover(target, to)?);
        if one.number == other.number {
            return Ok(());
        }
        // By their numbers, so that no two exchanges wait for each other.
        let (first, second) = match one.number < other.number {
            true => (&one, &other),
            false => (&other, &one),
        };
        let (mut first, mut second) = (first.content_at_rest(), second.content_at_rest());
        for content in [&mut first, &mut second] {
            for (parent, name) in [from, to] {
                self.note_name(content, self.path_of(parent, name).as_deref());
            }
        }
        let (content, other_content) = match one.number < other.number {
            true => (&first, &second),
            false => (&second, &first),
        };
        // Both names are seen all the time: there is no moment to finish anything in.
        if self.check_rename(source, content, from, to)? == Move::Finishes
            || self.check_rename(target, other_content, to, from)? == Move::Finishes
        {
            return Err(Errno::XDEV);
        }
        rustix::fs::renameat_with(old, from.1, new, to.1, RenameFlags::EXCHANGE)?;
        one.set_place((to.0, to.1.to_owned()));
        other.set_place((from.0, from.1.to_owned()));
        Ok(())
    }

    /// Keeps everybody from opening files that are not held back, if a directory is renamed to where they may be.
    fn alone(&self, moves: &[(&Found, Name<'_>, Name<'_>)]) -> Option<RwLockWriteGuard<'_, ()>> {
        let may_change = moves.iter().any(|(found, from, to)| {
            let [from, to] = [from, to].map(|place| self.path_of(place.0, place.1));
            found.kind() == FileType::Directory
                && !self.is_same_below(from.as_deref(), to.as_deref())
        });
        may_change.then(|| self.passing.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The inode that is renamed. The kernel knows it already.
    fn mover(&self, found: &Found, place: Name<'_>) -> Result<Arc<Node>, Errno> {
        let node = self.look_up(found, (place.0, place.1.to_owned()))?;
        self.nodes.forget(node.number, 1);
        Ok(node)
    }

    /// Renames what has to be finished because of its new name: it is held back first, and seen by that name when the hook
    /// has had it. Where somebody still writes to it, his close finishes it.
    fn rename_unfinished(
        &self,
        node: &Arc<Node>,
        content: &mut Content,
        (old, name): (&OwnedFd, &OsStr),
        (new, to): (&OwnedFd, Name<'_>),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        self.check_over(new, to.1, flags)?;
        self.discard(to.0, to.1, new)?;
        self.hold_for(node, content, (old, name), (new, (to.0, to.1.to_owned())))
    }

    /// Renames what only its name is seen of. What has the other name goes on being seen until this is finished.
    fn rename_held(
        &self,
        held: Option<Arc<Node>>,
        (old, from): (&OwnedFd, Name<'_>),
        (new, to): (&OwnedFd, Name<'_>),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let held = held.ok_or(Errno::NOENT)?;
        self.check_over(new, to.1, flags)?;
        if from == to {
            return Ok(());
        }
        let watched = self.is_watched(self.path_of(to.0, to.1).as_deref());
        if !watched {
            return Err(Errno::XDEV);
        }
        self.discard(to.0, to.1, new)?;
        self.move_held(&held, old, new, (to.0, to.1.to_owned()))
    }

    /// Whether a file that is not seen yet may get a name, whatever has that.
    fn check_over(&self, new: &OwnedFd, name: &OsStr, flags: RenameFlags) -> Result<(), Errno> {
        match self.find(new, name) {
            Ok(_) if flags.contains(RenameFlags::NOREPLACE) => Err(Errno::EXIST),
            Ok(target) if target.kind() == FileType::Directory => Err(Errno::ISDIR),
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn check_rename(
        &self,
        found: &Found,
        content: &Content,
        from: Name<'_>,
        to: Name<'_>,
    ) -> Result<Move, Errno> {
        let (from, to) = (self.path_of(from.0, from.1), self.path_of(to.0, to.1));
        match found.kind() {
            FileType::Directory => {
                let (from, to) = (from.as_deref(), to.as_deref());
                if !self.is_same_below(from, to) {
                    let (from, to) = from.zip(to).ok_or(Errno::XDEV)?;
                    self.check_within(found, from, to)?;
                }
                Ok(Move::Stays)
            }
            FileType::RegularFile => {
                self.check_file(found, content, from.as_deref(), to.as_deref())
            }
            _ => Ok(Move::Stays),
        }
    }

    /// A directory whose new path may be another to the hook may be renamed if nothing in it is another to it, or concerns it under either.
    fn check_within(&self, found: &Found, from: &Path, to: &Path) -> Result<(), Errno> {
        let mut looked_at = 0;
        let mut pending = vec![(PathBuf::new(), FileId::of(&found.file)?)];
        while let Some((path, id)) = pending.pop() {
            let directory = id.open(&self.root, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let mut names = rustix::fs::Dir::read_from(&directory)?;
            while let Some(entry) = names.read() {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                looked_at += 1;
                if looked_at > LONGEST_LOOK || self.is_reserved(name) {
                    return Err(Errno::XDEV);
                }
                let (path, found) = (path.join(name), self.find(&directory, name)?);
                match found.kind() {
                    FileType::Directory => pending.push((path, FileId::of(&found.file)?)),
                    FileType::RegularFile => {
                        let (from, to) = (from.join(&path), to.join(&path));
                        if self.check_same(Some(&from), Some(&to)).is_err() {
                            self.check_unconcerned(&found, &from, &to)?;
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn check_unconcerned(&self, found: &Found, from: &Path, to: &Path) -> Result<(), Errno> {
        let changes = self.is_watched(Some(from)) != self.is_watched(Some(to));
        // Whoever has it open would go on as under the old path.
        let is_open = || {
            self.known(found)
                .is_some_and(|node| node.content().opens > 0)
        };
        let head = found.head()?;
        match self.concerns(Some(from), &head) || self.concerns(Some(to), &head) {
            false if !(changes && is_open()) => Ok(()),
            _ => Err(Errno::XDEV),
        }
    }

    fn is_same_below(&self, from: Option<&Path>, to: Option<&Path>) -> bool {
        from.zip(to)
            .is_some_and(|(from, to)| from == to || self.hook.is_same_below(from, to))
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
        content: &Content,
        from: Option<&Path>,
        to: Option<&Path>,
    ) -> Result<Move, Errno> {
        // What the kernel passes is not seen to by anybody.
        if self.is_watched(from) != self.is_watched(to) {
            return Err(Errno::XDEV);
        }
        if content.state == State::Replaced {
            return Err(Errno::STALE);
        }
        let head = found.head()?;
        if !self.concerns(to, &head) {
            return Ok(Move::Stays);
        }
        self.check_same(from, to)?;
        // Some are told by their names too: what was nothing to finish may be something by its new name.
        match content.state == State::Seen || self.concerns(from, &head) {
            true => Ok(Move::Stays),
            // By its other names it would be seen while the hook has it.
            false if found.stat.st_nlink > 1 => Err(Errno::XDEV),
            false => Ok(Move::Finishes),
        }
    }

    /// Whether a file may get one more name.
    pub(crate) fn check_link(
        &self,
        node: &Node,
        content: &Content,
        to: Option<&Path>,
    ) -> Result<(), Errno> {
        let file = self.reach(node)?;
        let stat = rustix::fs::fstat(&*file)?;
        let file = file.try_clone().map_err(|error| errno(&error))?;
        let found = Found { file, stat };
        match self.check_file(&found, content, self.path(node).as_deref(), to)? {
            Move::Stays => Ok(()),
            Move::Finishes => Err(Errno::XDEV),
        }
    }
}
