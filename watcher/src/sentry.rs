//! Keeps every directory watched. The only thread that sets and drops watches; it never waits for a look.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::beneath::{Identity, Root, directories, is_gone};
use crate::chores::{Chore, Urgent};
use crate::directories::Above;
use crate::inotify::{Inotify, Refusal, limit};
use crate::listener::Listener;
use crate::looks::Look;
use crate::shared::Shared;
use crate::{Error, Event};

/// A directory that is replaced while it is being watched is tried this often.
const ATTEMPTS: usize = 8;

/// Keeps every directory watched.
pub(crate) struct Sentry {
    shared: Arc<Shared>,
    retry: Duration,
    /// None while the kernel refuses one, and while the root is gone.
    inotify: Option<Inotify>,
    /// The number of the present or last round.
    round: u64,
    /// [`Directories::changes`](crate::directories::Directories::changes) when notify was last waited for.
    settled: u64,
    is_root_gone: bool,
    /// It has been reported that there are too few watches.
    is_short: bool,
    /// The present round has met too few watches.
    was_refused: bool,
}

impl Sentry {
    /// Takes an inotify instance, but sets no watch yet.
    pub(crate) fn new(shared: Arc<Shared>, retry: Duration) -> Result<Self, Error> {
        let inotify = instance(&shared)?;
        Ok(Self {
            shared,
            retry,
            inotify: Some(inotify),
            round: 0,
            settled: 0,
            is_root_gone: false,
            is_short: false,
            was_refused: false,
        })
    }

    pub(crate) fn run(mut self) {
        self.go_round();
        let mut deadline = Instant::now() + self.retry;
        loop {
            match self.shared.chores.wait(deadline) {
                Chore::End => return,
                Chore::Urgent(urgent) => {
                    self.attend(urgent);
                    continue;
                }
                Chore::RootLost => {
                    let source = io::Error::other("it was deleted, renamed or unmounted");
                    self.lose_root(source);
                    self.renew();
                }
                Chore::Renew => {
                    self.shared.directories().lose();
                    self.shared.tell(Event::Lost);
                    self.renew();
                }
                Chore::Round => self.go_round(),
                Chore::Check => self.check(),
            }
            deadline = Instant::now() + self.retry;
        }
    }

    /// What is done from time to time: what has failed is tried again, and the root is looked for, of whose parents'
    /// renaming and of mounts on it inotify does not tell.
    fn check(&mut self) {
        if self.inotify.is_none() {
            return self.renew();
        }
        let watched = self.shared.directories().identity(Path::new(""));
        let there = Root::open(&self.shared.root).and_then(|root| root.identity());
        match (watched, there) {
            (_, Err(error)) => self.lose_root_by(error),
            (Some(watched), Ok(there)) if watched != there => {
                self.lose_root(io::Error::other("another directory has taken its place"));
                self.renew();
            }
            (_, Ok(_)) => {
                if self.shared.troubles().persist() {
                    self.go_round();
                }
            }
        }
    }

    /// Sets up all watches anew, with an inotify instance that cannot have a stale one.
    fn renew(&mut self) {
        self.drop_watches();
        match instance(&self.shared) {
            Ok(inotify) => self.inotify = Some(inotify),
            Err(error) => {
                if self.shared.troubles().unwatched(&self.shared.root) {
                    self.shared.fail(error);
                }
            }
        }
        self.go_round();
    }

    /// Watches every directory that is not, then has everything looked at.
    fn go_round(&mut self) {
        self.round += 1;
        self.was_refused = false;
        let root = match Root::open(&self.shared.root) {
            Ok(root) => root,
            Err(error) => return self.lose_root_by(error),
        };
        self.is_root_gone = false;
        self.shared.troubles().begin_round();
        self.watch_below(&root, PathBuf::new(), Pace::Interruptible);
        self.drop_vanished(&root);
        self.shared.troubles().end_round();
        self.is_short = self.was_refused;
        let coverage = self.shared.troubles().coverage();
        self.shared.tell(Event::Watched(coverage));
        self.shared.looks.add(Look::Whole);
    }

    fn attend(&mut self, urgent: Urgent) {
        match urgent {
            Urgent::Watch(path) => {
                // If the root is gone, everything is done anew when it is back.
                if let Ok(root) = Root::open(&self.shared.root) {
                    self.watch_below(&root, path.clone(), Pace::Straight);
                    self.shared.looks.add(Look::Below(path));
                }
            }
            Urgent::Unwatch(paths) => {
                for path in paths {
                    // If it is not stale any more, it has been taken up again, with a watch of its own.
                    if self.shared.directories().remove_stale(&path) {
                        self.drop_watch(&path);
                    }
                }
            }
        }
    }

    fn watch_below(&mut self, root: &Root, path: PathBuf, pace: Pace) {
        let mut pending = vec![path];
        while let Some(path) = pending.pop() {
            if self.shared.has_ended() {
                return;
            }
            if pace == Pace::Interruptible {
                while let Some(urgent) = self.shared.chores.urgent() {
                    self.attend(urgent);
                }
            }
            // The watch stands before the directory is read: what comes later is an event, what was there is read.
            let Some(directory) = self.watch(root, &path) else {
                continue;
            };
            // Whatever cannot be read is reported by the look that follows.
            let found = directories(directory, &path).unwrap_or_default();
            pending.extend(
                found
                    .into_iter()
                    .filter(|path| !self.shared.is_skipped(path)),
            );
        }
    }

    /// Sees to it that the directory is watched, and opens it. It may be open without being watched: then that has been
    /// reported, and what is below it is better watched than not.
    fn watch(&mut self, root: &Root, path: &Path) -> Option<OwnedFd> {
        for _ in 0..ATTEMPTS {
            let opened = root.directory(path).and_then(|directory| {
                let stat = rustix::fs::fstat(&directory)?;
                Ok((directory, Identity::of(&stat)))
            });
            let (directory, identity) = match opened {
                Ok(opened) => opened,
                Err(errno) if is_gone(errno) => {
                    self.forget(path);
                    return None;
                }
                Err(errno) => {
                    self.report_unwatched(path, Refusal::Other(errno.into()));
                    return None;
                }
            };
            let is_watched = {
                let mut directories = self.shared.directories();
                directories.confirm(path, identity, self.round)
            };
            if is_watched {
                self.shared.troubles().watched(&self.shared.absolute(path));
                return Some(directory);
            }
            // Whether it is the right directory that is watched shows when the path is opened once more.
            match self.set_watch(path, identity) {
                Ok(()) => {}
                Err(Refusal::Orphan) => return None,
                Err(refusal) => {
                    self.report_unwatched(path, refusal);
                    return Some(directory);
                }
            }
        }
        self.report_unwatched(
            path,
            Refusal::Other(io::Error::other("it keeps being replaced")),
        );
        None
    }

    fn set_watch(&mut self, path: &Path, identity: Identity) -> Result<(), Refusal> {
        if self.forget(path) {
            // Another directory has taken the place without an event: a mount, or its parent is not watched.
            self.shared.tell(Event::Gone(path.to_owned()));
        }
        let Some(inotify) = &mut self.inotify else {
            return Err(Refusal::NoInstance);
        };
        // A batch that has taken names away may still report under them. It must be over before they are believed again.
        let changes = self.shared.directories().changes();
        if changes != self.settled {
            inotify.settle();
            self.settled = changes;
        }
        let parent = path.parent().map(|parent| self.shared.absolute(parent));
        let above = match parent {
            Some(parent) if self.shared.troubles().is_unwatched(&parent) => Above::Unwatchable,
            Some(_) | None => Above::Watchable,
        };
        // Before the watch, so that no event of it is disbelieved.
        let is_noted = {
            let mut directories = self.shared.directories();
            directories.insert(path, identity, self.round, above)
        };
        if !is_noted {
            return Err(Refusal::Orphan);
        }
        match inotify.watch(path) {
            Ok(()) => {
                if self.shared.directories().identity(path) != Some(identity) {
                    // The name was taken away meanwhile, so that the watch may be on whatever took its place.
                    self.forget(path);
                    self.drop_watch(path);
                }
                Ok(())
            }
            Err(Refusal::NotFound) => {
                self.shared.directories().remove(path);
                Ok(())
            }
            Err(refusal) => {
                self.shared.directories().remove(path);
                Err(refusal)
            }
        }
    }

    /// Drops what stands in the path's name, and below it; says whether the path was believed to be watched.
    fn forget(&mut self, path: &Path) -> bool {
        let (was_watched, removed) = {
            let mut directories = self.shared.directories();
            let was_watched = directories.identity(path).is_some();
            (was_watched, directories.remove_below(path))
        };
        for path in removed {
            self.drop_watch(&path);
        }
        was_watched
    }

    fn drop_watch(&mut self, path: &Path) {
        if let Some(inotify) = &mut self.inotify {
            inotify.unwatch(path);
        }
    }

    /// Forgets the directories that went away without an event: events were lost, or their parents are not watched.
    fn drop_vanished(&mut self, root: &Root) {
        let unseen = self.shared.directories().unseen(self.round);
        for path in unseen {
            if root.directory(&path).is_err_and(is_gone) {
                self.forget(&path);
                self.shared.tell(Event::Gone(path));
            }
        }
    }

    fn drop_watches(&mut self) {
        if let Some(inotify) = self.inotify.take() {
            inotify.end();
        }
        self.shared.chores.drop_losses();
        self.shared.directories().clear();
    }

    fn lose_root_by(&mut self, error: Error) {
        match error {
            Error::RootGone { source, .. } => self.lose_root(source),
            error => self.shared.fail(error),
        }
    }

    fn lose_root(&mut self, source: io::Error) {
        self.drop_watches();
        if !std::mem::replace(&mut self.is_root_gone, true) {
            self.shared.troubles().gone(&self.shared.root);
            self.shared.tell(Event::Gone(PathBuf::new()));
            let root = self.shared.root.clone();
            self.shared.fail(Error::RootGone { root, source });
        }
    }

    fn report_unwatched(&mut self, path: &Path, refusal: Refusal) {
        let directory = self.shared.absolute(path);
        let is_news = self.shared.troubles().unwatched(&directory);
        match refusal {
            Refusal::TooFewWatches => {
                self.was_refused = true;
                // One report stands for all the directories that get none.
                if !std::mem::replace(&mut self.is_short, true) {
                    let limit = limit("max_user_watches");
                    self.shared.fail(Error::TooFewWatches { directory, limit });
                }
            }
            Refusal::Other(source) if is_news => {
                self.shared.fail(Error::Unwatchable { directory, source });
            }
            // The instance's absence has been reported.
            Refusal::Other(_) | Refusal::NoInstance | Refusal::NotFound | Refusal::Orphan => {}
        }
    }
}

/// Whether a walk makes way for urgent chores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Interruptible,
    Straight,
}

fn instance(shared: &Arc<Shared>) -> Result<Inotify, Error> {
    let mut listener = Listener::new(Arc::clone(shared));
    Inotify::start(&shared.root, move |change| listener.hear(change))
}
