//! What follows from each change that inotify tells of. Runs on notify's thread and never waits, but for the sink.

use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Stat};

use crate::beneath::{Root, is_gone};
use crate::chores::{Chore, Urgent};
use crate::inotify::Change;
use crate::looks::Look;
use crate::shared::Shared;
use crate::{Event, Writers, writers};

/// How many files that were linked while they were open are remembered. The close of one that is forgotten is missed
/// until the next look.
const MOST_LINKED: usize = 1024;

/// Turns changes into events for the owner and chores for the sentry.
pub(crate) struct Listener {
    shared: Arc<Shared>,
    /// Files that were open for writing when their name appeared, by inode number, the latest last.
    linked: VecDeque<(u64, PathBuf)>,
}

impl Listener {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            linked: VecDeque::new(),
        }
    }

    pub(crate) fn hear(&mut self, change: Change) {
        if self.shared.has_ended() {
            return;
        }
        match change {
            Change::Lost => {
                self.shared.directories().lose();
                self.shared.chores.add(Chore::Renew);
            }
            Change::RootMoved => self.shared.chores.add(Chore::RootLost),
            Change::Removed(path) | Change::Unmounted(path) if path.as_os_str().is_empty() => {
                self.shared.chores.add(Chore::RootLost);
            }
            Change::Closed(path) if self.is_heeded(&path) => self.take_closed(path),
            Change::Created(path) if self.is_heeded(&path) => self.take_created(path),
            Change::CreatedDirectory(path) if self.is_heeded(&path) => self.watch(path),
            Change::MovedIn(path) if self.is_heeded(&path) => self.take_moved(path),
            Change::MovedOut(path) if self.is_heeded(&path) => {
                self.take_gone(&path);
                // Two names can be exchanged in one go (RENAME_EXCHANGE). The kernel tells it as two renames, the second
                // of which seems to take away what the first has brought.
                self.take_created(path);
            }
            Change::Removed(path) if self.is_heeded(&path) => self.take_gone(&path),
            Change::Unmounted(path) if self.is_heeded(&path) => {
                self.take_gone(&path);
                self.watch(path);
            }
            Change::Closed(_)
            | Change::Created(_)
            | Change::CreatedDirectory(_)
            | Change::MovedIn(_)
            | Change::MovedOut(_)
            | Change::Removed(_)
            | Change::Unmounted(_) => {}
        }
    }

    /// Within a batch, a directory that was renamed still reports under its old name; nothing below it is believed until
    /// the sentry has taken it up again. It is looked at then, so nothing is missed.
    fn is_heeded(&self, path: &Path) -> bool {
        let parent = path.parent().unwrap_or(Path::new(""));
        self.shared.directories().is_watched(parent) && !self.shared.is_skipped(path)
    }

    fn watch(&self, path: PathBuf) {
        self.shared.chores.add(Chore::Urgent(Urgent::Watch(path)));
    }

    fn unwatch(&self, paths: Vec<PathBuf>) {
        if !paths.is_empty() {
            self.shared
                .chores
                .add(Chore::Urgent(Urgent::Unwatch(paths)));
        }
    }

    fn take_closed(&self, path: PathBuf) {
        // A file from O_TMPFILE that is linked while it is open, as is usual, is closed under a name that it never had:
        // a hash and its inode number (Linux fs/dcache.c, `d_tmpfile`).
        let linked = nameless(&path).and_then(|inode| {
            let found = self
                .linked
                .iter()
                .rev()
                .find(|(linked, _)| *linked == inode);
            found.map(|(_, path)| path.clone())
        });
        if let Some(linked) = linked
            && self.stat(&path).is_err()
        {
            return self.shared.tell(Event::Finished(linked));
        }
        self.shared.tell(Event::Finished(path));
    }

    fn take_gone(&self, path: &Path) {
        let stale = self.shared.directories().gone(path);
        self.unwatch(stale);
        self.shared.troubles().gone(&self.shared.absolute(path));
        self.shared.tell(Event::Gone(path.to_owned()));
    }

    fn take_moved(&self, path: PathBuf) {
        match self.stat(&path) {
            Ok(stat) if is_directory(&stat) => {
                // It may have replaced an empty directory, whose removal the kernel does not tell.
                let stale = self.shared.directories().replaced(&path);
                self.unwatch(stale);
                self.watch(path);
            }
            Ok(_) => self.shared.tell(Event::Finished(path)),
            Err(Unclear::Gone) => {}
            Err(Unclear::Unknown) => {
                self.watch(path.clone());
                self.shared.tell(Event::Finished(path));
            }
        }
    }

    /// A name has appeared: created by a writer who will close it, or linked, after which nobody closes anything.
    fn take_created(&mut self, path: PathBuf) {
        match self.stat(&path) {
            Ok(stat) if is_directory(&stat) => self.watch(path),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {}
            Ok(stat) if stat.st_nlink > 1 => self.shared.tell(Event::Finished(path)),
            // A writer who has just created it may not have got it open yet. Nothing is worth telling of an empty file.
            Ok(stat) if stat.st_size == 0 => {}
            // A file from O_TMPFILE that was linked, or one whose first name is gone already; or a quick writer.
            Ok(stat) => match self.writers(&path) {
                Writers::None => self.shared.tell(Event::Finished(path)),
                Writers::Some => {
                    if self.linked.len() == MOST_LINKED {
                        self.linked.pop_front();
                    }
                    self.linked.push_back((stat.st_ino, path));
                }
                Writers::Unknown => self.shared.looks.add(Look::Below(path)),
            },
            Err(Unclear::Gone) => {}
            Err(Unclear::Unknown) => {
                self.watch(path.clone());
                self.shared.looks.add(Look::Below(path));
            }
        }
    }

    fn stat(&self, path: &Path) -> Result<Stat, Unclear> {
        let root = Root::open(&self.shared.root).map_err(|_| Unclear::Gone)?;
        root.stat(path).map_err(|errno| {
            if is_gone(errno) {
                Unclear::Gone
            } else {
                Unclear::Unknown
            }
        })
    }

    fn writers(&self, path: &Path) -> Writers {
        let file = Root::open(&self.shared.root).map(|root| root.file(path));
        match file {
            Ok(Ok(file)) => writers(&file.into()),
            Ok(Err(_)) | Err(_) => Writers::Unknown,
        }
    }
}

/// Why it is not known what is at a path.
enum Unclear {
    Gone,
    Unknown,
}

/// The inode number in a name that the kernel gives to a file without one.
fn nameless(path: &Path) -> Option<u64> {
    let name = path.file_name()?.as_bytes().strip_prefix(b"#")?;
    std::str::from_utf8(name).ok()?.parse().ok()
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
