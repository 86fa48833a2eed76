//! The inodes that the kernel knows, and what is known of their content.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fuser::BackingId;
use rustix::{fs::FileType, io::Errno};

use crate::{file_id::FileId, finishing::Ready, settling::Ending, unseen::Stamp};

/// The number of the root. Source: Linux include/uapi/linux/fuse.h, `FUSE_ROOT_ID`.
pub(crate) const ROOT: u64 = 1;
/// The number of no directory: in it is what is not known by any name.
pub(crate) const NOWHERE: u64 = 0;

/// A name in a directory.
pub(crate) type Place = (u64, OsString);
/// The same, where nobody keeps it.
pub(crate) type Name<'a> = (u64, &'a OsStr);

/// An inode.
#[derive(Debug)]
pub(crate) struct Node {
    /// The number that the kernel has for it: that of the file below.
    pub(crate) number: u64,
    /// Tells it from earlier files that had the same number.
    pub(crate) generation: u64,
    pub(crate) kind: FileType,
    pub(crate) id: FileId,
    place: Mutex<Place>,
    content: Mutex<Content>,
    /// Keeps a file alive that is open, or has no name any more. Locked by itself: who waits for the content of one file may
    /// have to be told of another's name.
    anchor: Mutex<Option<Arc<OwnedFd>>>,
    finished: Condvar,
}

/// What is known of a file's content, and who has it open.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) state: State,
    /// Counts the moments at which the content came to be held back, or to be seen.
    pub(crate) epoch: u64,
    /// Whether it was written since it was finished last.
    pub(crate) dirty: bool,
    /// The descriptors that are open for writing, and what each did last.
    pub(crate) writers: HashMap<u64, Writing>,
    /// How many descriptors the kernel has open otherwise than by `backing`. As long as there is one, or the kernel has not even
    /// learned yet that it is opened, none may be passed: the kernel would fail either.
    pub(crate) unpassed: usize,
    /// How many descriptors the kernel has open by `backing`.
    pub(crate) backed: usize,
    /// What reads and writes are passed to. The kernel wants the same for all descriptors.
    pub(crate) backing: Option<Backing>,
    /// How many descriptors write past this program.
    pub(crate) unseen: usize,
    /// What the file was when the hook finished or refused it, while such descriptors were open.
    pub(crate) since: Option<Stamp>,
    /// Whether one of several names may be such that the content alone does not tell what it is.
    pub(crate) by_any_name: bool,
    /// While a copy of a descriptor was closed, and it is not known yet whether it was the last, nor what the file is.
    pub(crate) closing: Option<Ending>,
    /// Whether it may have been renamed to where it is to take the place of another file.
    pub(crate) may_replace: bool,
    /// What the hook has finished meanwhile.
    pub(crate) ready: Option<Box<Ready>>,
    /// How many descriptors there are.
    pub(crate) opens: usize,
    /// When it was made as a new version of another, until somebody has it open.
    pub(crate) made: Option<Instant>,
    /// Why the last write failed: what is there is not what its writer meant.
    pub(crate) failed: Option<Errno>,
    /// Why the hook has refused it, while it is held back as refused.
    pub(crate) refused: Option<Errno>,
    /// How many times the kernel is being told just now that it has changed: until then nobody reads it.
    pub(crate) telling: usize,
    /// What the hook has put in its place.
    pub(crate) successor: Option<FileId>,
    /// Whether a writer may rely on its being on the disk.
    pub(crate) is_flushed: bool,
}

/// A file below that the kernel passes reads and writes to.
#[derive(Debug, Clone)]
pub(crate) struct Backing {
    pub(crate) id: Arc<BackingId>,
    /// Whether it is open for writing.
    pub(crate) writes: bool,
}

/// Whether a file is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    /// It is none that would be held back.
    Plain,
    /// It is held back, under another name.
    Held(Phase),
    /// It is held back and has no name any more.
    Nameless,
    /// It has been finished, and is seen. Its content does not change any more.
    Seen,
    /// The hook has put another file in its place: what is left is the unfinished one, which nobody reads.
    Replaced,
}

/// How far a file is that is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is being written.
    Written,
    /// The hook has it.
    Finishing,
    /// The hook has finished it, and it is shown when no copy of a descriptor is open any more that writes past this program.
    Ready,
    /// The hook has refused it.
    Refused,
}

/// What a descriptor did last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    /// It was opened, or has written.
    Goes,
    /// It was closed, or a copy of it was.
    Ended,
}

impl Content {
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.state, State::Held(_) | State::Nameless)
    }

    /// Whether no other descriptor than this one has anything to write that is known of.
    pub(crate) fn is_last(&self, open: u64) -> bool {
        let mut others = self.writers.iter().filter(|(number, _)| **number != open);
        others.all(|(_, writing)| *writing == Writing::Ended)
    }
}

impl Node {
    /// The name that it was last known under.
    pub(crate) fn place(&self) -> Place {
        self.place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn is_at(&self, (directory, name): Name<'_>) -> bool {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.0 == directory && place.1 == name
    }

    pub(crate) fn set_place(&self, place: Place) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    pub(crate) fn anchor(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody writes unseen who has closed a copy of his descriptor, for so long at the most.
    pub(crate) fn wait_for_release(&self, longest: Duration) {
        let waited = self
            .finished
            .wait_timeout_while(self.content(), longest, |content| {
                content.unseen > 0 && content.is_last(0)
            });
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The content, when the hook does not have it.
    pub(crate) fn content_at_rest(&self) -> MutexGuard<'_, Content> {
        self.finished
            .wait_while(self.content(), |content| {
                content.state == State::Held(Phase::Finishing)
            })
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the hook has it.
    pub(crate) fn is_finishing(&self) -> bool {
        self.content().state == State::Held(Phase::Finishing)
    }

    /// Whether the hook has put another file in its place.
    pub(crate) fn is_replaced(&self) -> bool {
        self.content().state == State::Replaced
    }

    /// Tells those that wait that the hook has ended.
    pub(crate) fn tell_finished(&self) {
        self.finished.notify_all();
    }
}

/// All inodes that the kernel, or something in here, refers to.
#[derive(Debug)]
pub(crate) struct Nodes(Mutex<Table>);

#[derive(Debug)]
struct Table {
    by_number: HashMap<u64, Entry>,
    /// The last generation that was given.
    generation: u64,
}

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    /// How many answers have told the kernel of it; it takes them back one day.
    lookups: u64,
    /// How often something in here needs it.
    pins: u64,
}

impl Nodes {
    /// A table with nothing but the root in it.
    pub(crate) fn new(root: FileId) -> Self {
        let nodes = Self(Mutex::new(Table {
            by_number: HashMap::new(),
            generation: 0,
        }));
        nodes.look_up(root, ROOT, FileType::Directory, (NOWHERE, OsString::new()));
        nodes
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inode of a file that has been found at a place; the kernel is going to be told of it.
    pub(crate) fn look_up(
        &self,
        id: FileId,
        number: u64,
        kind: FileType,
        place: Place,
    ) -> Arc<Node> {
        let mut table = self.table();
        if let Some(entry) = table.by_number.get_mut(&number)
            && entry.node.id == id
        {
            entry.lookups += 1;
            return entry.node.clone();
        }
        table.generation += 1;
        let node = Arc::new(Node {
            number,
            generation: table.generation,
            kind,
            id,
            place: Mutex::new(place),
            content: Mutex::default(),
            anchor: Mutex::default(),
            finished: Condvar::new(),
        });
        // Where a file that is gone had the number, the kernel still takes back what it was told of that one.
        let entry = table.by_number.entry(number).or_insert_with(|| Entry {
            node: node.clone(),
            lookups: 0,
            pins: 0,
        });
        entry.node = node.clone();
        entry.lookups += 1;
        node
    }

    /// Counts one more answer that tells the kernel of an inode.
    pub(crate) fn told(&self, node: &Node) {
        if let Some(entry) = self.table().by_number.get_mut(&node.number) {
            entry.lookups += 1;
        }
    }

    /// The inode of a number.
    pub(crate) fn find(&self, number: u64) -> Option<Arc<Node>> {
        let table = self.table();
        table.by_number.get(&number).map(|entry| entry.node.clone())
    }

    /// The kernel takes back that many answers.
    pub(crate) fn forget(&self, number: u64, lookups: u64) {
        if number != ROOT {
            self.table().change(number, |entry| {
                entry.lookups = entry.lookups.saturating_sub(lookups);
            });
        }
    }

    /// Keeps an inode, whatever the kernel forgets.
    pub(crate) fn pin(&self, number: u64) {
        self.table().change(number, |entry| entry.pins += 1);
    }

    /// Takes back one [`Self::pin`].
    pub(crate) fn unpin(&self, number: u64) {
        self.table().change(number, |entry| {
            entry.pins = entry.pins.saturating_sub(1);
        });
    }

    /// How many inodes are known.
    pub(crate) fn len(&self) -> usize {
        self.table().by_number.len()
    }

    /// The path of a name in a directory, relative to the root. Nothing where a directory above is not known any more.
    pub(crate) fn path(&self, directory: u64, name: &OsStr) -> Option<PathBuf> {
        let table = self.table();
        let mut names = vec![name.to_owned()];
        let mut above = directory;
        while above != ROOT {
            let (parent, name) = table.by_number.get(&above)?.node.place();
            names.push(name);
            above = parent;
            // Nobody nests deeper than a path can be long.
            if names.len() > 4096 {
                return None;
            }
        }
        Some(names.iter().rev().collect())
    }
}

impl Table {
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.by_number.get_mut(&number) else {
            return;
        };
        change(entry);
        if entry.lookups == 0 && entry.pins == 0 {
            self.by_number.remove(&number);
            // Freed tables are given back, so that a walk through millions of files leaves nothing behind.
            if self.by_number.capacity() > 4096
                && self.by_number.len() * 4 < self.by_number.capacity()
            {
                self.by_number.shrink_to_fit();
            }
        }
    }
}
