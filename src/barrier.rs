//! The barrier: waits until every artifact below a path is settled.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use signdrop_watcher::{Entry, Error as WalkError, Kind, walk};
use tokio::sync::Notify;

use crate::{
    arrival::{self, Way},
    config::{Config, Drop},
    queue::{Arrival, Queue, Waiter},
    record::{Outcome, Record},
};

/// Why a wait cannot begin. Stays, until path or configuration are other ones.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path is not absolute.
    #[error("{} is not an absolute path", .0.display())]
    NotAbsolute(PathBuf),
    /// No drop directory holds the path, nor is one below it.
    #[error("{} is in no drop directory; `signdrop check` lists them", .0.display())]
    NotDropped(PathBuf),
    /// The path does not exist or cannot be walked.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

/// How far a wait has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many artifacts were found.
    pub found: u64,
    /// How many of them have an outcome.
    pub settled: u64,
    /// Those that failed, with the reason.
    pub failed: BTreeMap<PathBuf, String>,
    /// Whether every path has been walked.
    pub walked: bool,
}

impl Progress {
    /// Whether every artifact has an outcome.
    pub fn is_settled(&self) -> bool {
        self.walked && self.settled >= self.found
    }
}

/// A wait that has begun.
#[derive(Debug, Default)]
pub struct Wait {
    progress: Mutex<Progress>,
    changed: Notify,
    given_up: AtomicBool,
}

impl Wait {
    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.lock().clone()
    }

    /// How far it has come, without what failed.
    pub fn counts(&self) -> Progress {
        let progress = self.lock();
        Progress {
            failed: BTreeMap::new(),
            ..*progress
        }
    }

    /// Returns when everything is settled.
    pub async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().is_settled() {
                return;
            }
            changed.await;
        }
    }

    /// Ends a look that is under way: nobody waits any more.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, path: PathBuf, record: Option<&Record>) {
        let mut progress = self.lock();
        progress.settled += 1;
        if let Some(record) = record.filter(|record| record.outcome == Outcome::Failed) {
            progress.failed.insert(path, record.reason.clone());
        }
        drop(progress);
        self.changed.notify_waiters();
    }

    fn fail(&self, path: PathBuf, reason: String) {
        self.lock().failed.insert(path, reason);
    }
}

impl Waiter for Wait {
    fn settled(&self, arrival: &Arrival, record: Option<&Record>) {
        self.count(arrival.path(), record);
    }
}

/// Looks at everything below `paths` and has whatever is not settled worked on; `wait` is told.
///
/// Does not rely on events: a file counts whose writing had ended when this is called. Blocks while it walks.
///
/// # Errors
/// [`Error`], before anything is counted.
pub fn look(
    wait: &Arc<Wait>,
    paths: &[PathBuf],
    config: &Config,
    way: &Way,
    queue: &Queue,
) -> Result<(), Error> {
    let mut walks = Vec::new();
    for path in paths {
        let found = walks_of(path, config)?;
        if found.is_empty() {
            return Err(Error::NotDropped(path.clone()));
        }
        walks.extend(found);
    }
    for (drop, below) in walks {
        look_below(wait, drop, &below, way, queue)?;
    }
    wait.lock().walked = true;
    wait.changed.notify_waiters();
    Ok(())
}

/// The drop directories that hold `path`, or that it holds, and what of each is meant.
fn walks_of<'a>(path: &Path, config: &'a Config) -> Result<Vec<(&'a Drop, PathBuf)>, Error> {
    if !path.is_absolute() {
        return Err(Error::NotAbsolute(path.to_owned()));
    }
    Ok(config
        .drops
        .iter()
        .filter_map(|drop| {
            if let Ok(below) = path.strip_prefix(&drop.root) {
                Some((drop, below.to_owned()))
            } else {
                drop.root.starts_with(path).then(|| (drop, PathBuf::new()))
            }
        })
        .collect())
}

fn look_below(
    wait: &Arc<Wait>,
    drop: &Drop,
    below: &Path,
    way: &Way,
    queue: &Queue,
) -> Result<(), Error> {
    let skip = |path: &Path| drop.ignores(path);
    let mut is_link = false;
    let mut projects = BTreeSet::new();
    let mut visit = |entry| {
        match entry {
            Entry::File { path, .. } | Entry::Special { path, .. }
                if arrival::is_candidate(drop, &path) =>
            {
                wait.lock().found += 1;
                if drop.public_key.is_some()
                    && projects.insert(
                        path.iter()
                            .take(drop.templates.depth())
                            .collect::<PathBuf>(),
                    )
                    && let Err(error) = way.publish(drop, &path)
                {
                    wait.fail(drop.root.join(&path), arrival::reason(&error));
                }
                match way.known(drop, &path) {
                    Some(record) => wait.count(drop.root.join(&path), Some(&record)),
                    None => {
                        let arrival = Arrival {
                            root: drop.root.clone(),
                            relative: path,
                        };
                        let waiter: Weak<dyn Waiter> = Arc::<Wait>::downgrade(wait);
                        queue.push_found(arrival, drop.templates.depth(), Some(waiter));
                    }
                }
            }
            // Nothing behind it is looked at, so that it must not count as settled.
            Entry::Special {
                path,
                kind: Kind::Symlink,
            } if path == below => is_link = true,
            Entry::File { .. } | Entry::Special { .. } => {}
            Entry::Failed(error) => {
                wait.fail(drop.root.join(below), arrival::reason(&error));
            }
        }
        if wait.given_up.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    // One that was broken off is nobody's any more.
    walk(&drop.root, below, &skip, &mut visit).map(|_| ())?;
    if is_link {
        let path = drop.root.join(below);
        return Err(WalkError::Outside { path }.into());
    }
    Ok(())
}
