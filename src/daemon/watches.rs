//! The watches over the drop directories, and what they tell.

use std::{
    collections::HashMap,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::fs::AtFlags;
use signdrop_watcher::{Coverage, Error as WatchError, Event, Watcher, Writers, writers};

use super::{Daemon, removals};
use crate::{
    apply::replace::is_temporary,
    arrival::{is_candidate, reason},
    config::Drop,
    place::Place,
    queue::{Arrival, Full},
};

/// How long until a drop directory that cannot be watched is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is seen whether directories have gone.
const FORGET: Duration = Duration::from_millis(100);

/// How far a drop directory is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Watched {
    /// The watches are being set.
    Beginning,
    /// Everything is watched.
    Fully,
    /// Something is amiss.
    Partly(String),
}

#[derive(Debug)]
struct Watch {
    /// Nothing where it cannot be watched at all for the moment.
    watcher: Option<Watcher>,
    ignore: Vec<String>,
    watched: Watched,
    /// What cannot be watched, as was last said.
    trouble: Option<String>,
}

/// One watch for each drop directory.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_root: Mutex<HashMap<PathBuf, Watch>>,
}

impl Watches {
    /// Makes the watches what the configuration says. A watch that goes on looks at everything again, since what is wanted of the
    /// files may have changed.
    pub(super) fn follow(daemon: &Arc<Daemon>) {
        let config = daemon.config();
        let mut watches = daemon.watches.lock();
        watches.retain(|root, watch| {
            config
                .drops
                .iter()
                .any(|drop| drop.root == *root && drop.ignore_patterns == watch.ignore)
        });
        for drop in &config.drops {
            if let Some(watch) = watches.get(&drop.root) {
                if let Some(watcher) = &watch.watcher {
                    watcher.look();
                }
                continue;
            }
            let watch = Watch {
                watcher: None,
                ignore: drop.ignore_patterns.clone(),
                watched: Watched::Beginning,
                trouble: None,
            };
            watches.insert(drop.root.clone(), watch);
            start(daemon, drop, &mut watches);
        }
    }

    /// Whether every watch stands, as far as that is possible, so that every arrival from now on is noticed.
    pub(super) fn stand(&self) -> bool {
        self.lock()
            .values()
            .all(|watch| watch.watched != Watched::Beginning)
    }

    /// How far a drop directory is watched.
    pub(super) fn watched(&self, root: &Path) -> Watched {
        self.lock()
            .get(root)
            .map_or(Watched::Beginning, |watch| watch.watched.clone())
    }

    pub(super) fn end(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Watch>> {
        self.by_root.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts to watch, and tries again later where that cannot be.
fn start(daemon: &Arc<Daemon>, drop: &Drop, watches: &mut HashMap<PathBuf, Watch>) {
    let Some(watch) = watches.get_mut(&drop.root) else {
        return;
    };
    let skip = {
        let drop = drop.clone();
        // Temporary files have to be found wherever they were left.
        move |path: &Path| drop.ignores(path) && !has_temporary_name(path)
    };
    let sink = {
        let (daemon, root) = (Arc::downgrade(daemon), drop.root.clone());
        move |event| {
            if let Some(daemon) = daemon.upgrade() {
                hear(&daemon, &root, event);
            }
        }
    };
    match Watcher::start(&drop.root, skip, sink) {
        Ok(watcher) => watch.watcher = Some(watcher),
        Err(error) => {
            let text = reason(&error);
            let watched = Watched::Partly(text.clone());
            if watch.watched != watched {
                tracing::error!(drop = %drop.root.display(), error = text, "cannot watch");
            }
            watch.watched = watched;
            start_later(daemon, drop.root.clone(), RETRY);
        }
    }
}

fn start_later(daemon: &Arc<Daemon>, root: PathBuf, pause: Duration) {
    later(daemon, pause, move |daemon| {
        let config = daemon.config();
        let mut watches = daemon.watches.lock();
        let unwatched = watches
            .get(&root)
            .is_some_and(|watch| watch.watcher.is_none());
        if let Some(drop) = config.drops.iter().find(|drop| drop.root == root)
            && unwatched
        {
            start(daemon, drop, &mut watches);
        }
    });
}

/// Does something after a pause, unless the daemon has ended by then.
fn later(daemon: &Arc<Daemon>, pause: Duration, what: impl FnOnce(&Arc<Daemon>) + Send + 'static) {
    let daemon = Arc::downgrade(daemon);
    let result = thread::Builder::new().name("later".into()).spawn(move || {
        thread::sleep(pause);
        if let Some(daemon) = daemon.upgrade() {
            what(&daemon);
        }
    });
    if let Err(error) = result {
        tracing::error!(%error, "cannot try again later");
    }
}

/// Takes what a watcher tells. Called from the watcher's threads.
fn hear(daemon: &Arc<Daemon>, root: &Path, event: Event) {
    let config = daemon.config();
    let Some(drop) = config.drops.iter().find(|drop| drop.root == root) else {
        return;
    };
    let arrival = |relative| Arrival {
        root: root.to_owned(),
        relative,
    };
    match &event {
        Event::Finished(path) | Event::Found(path) => removals::seen(daemon, drop, path),
        // A project may be called as artifacts are.
        Event::Gone(path) if path.components().count() <= drop.templates.depth() => {
            daemon.gone().insert(root.join(path));
        }
        _ => {}
    }
    match event {
        // A name that is gone may have been taken again meanwhile; settling finds out, and forgets it if not.
        Event::Finished(path) | Event::Gone(path) if is_candidate(drop, &path) => {
            // The look waits for room with what it finds.
            if daemon.queue.push(arrival(path), drop.templates.depth()) == Err(Full)
                && let Some(watch) = daemon.watches.lock().get(root)
                && let Some(watcher) = &watch.watcher
            {
                watcher.look();
            }
        }
        Event::Found(path) => {
            if is_candidate(drop, &path) && daemon.way.known(drop, &path).is_none() {
                let depth = drop.templates.depth();
                daemon.queue.push_found(arrival(path), depth, None);
            } else {
                if has_temporary_name(&path)
                    && let Ok(place) = Place::beneath(&drop.root, &path)
                {
                    remove_if_left_behind(daemon, &place);
                }
            }
        }
        Event::Finished(_) => {}
        Event::Gone(path) => {
            daemon.gone().insert(root.join(path));
        }
        Event::Lost => {
            daemon.metrics.lost();
            tracing::warn!(drop = %root.display(), "the kernel dropped events; looking at everything");
        }
        Event::Watched(coverage) => covered(daemon, root, coverage),
        Event::Looked(coverage) => {
            covered(daemon, root, coverage);
            // Files may have gone while nobody was watching.
            daemon.gone().insert(root.to_owned());
        }
        Event::Failed(error) => {
            let text = reason(&error);
            tracing::error!(drop = %root.display(), error = text, "the watch is impaired");
            let mut watches = daemon.watches.lock();
            let Some(watch) = watches.get_mut(root) else {
                return;
            };
            if let WatchError::RootGone { .. } = error {
                // Nothing is watched until there is a directory of that name again.
                watch.watcher = None;
                watch.watched = Watched::Partly(text);
                start_later(daemon, root.to_owned(), Duration::ZERO);
            } else {
                watch.trouble = Some(text);
            }
        }
    }
}

fn covered(daemon: &Daemon, root: &Path, coverage: Coverage) {
    if let Some(watch) = daemon.watches.lock().get_mut(root) {
        watch.watched = match coverage {
            Coverage::Complete => {
                watch.trouble = None;
                Watched::Fully
            }
            Coverage::Partial(shortfall) => Watched::Partly(match &watch.trouble {
                Some(trouble) => format!("{shortfall}: {trouble}"),
                None => shortfall.to_string(),
            }),
        };
    }
}

fn has_temporary_name(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| is_temporary(name.as_bytes()))
}

/// Removes a temporary file that a crash of an earlier run has left; one of this run may be in use.
pub(super) fn remove_if_left_behind(daemon: &Daemon, place: &Place) {
    if !has_temporary_name(Path::new(place.name())) {
        return;
    }
    let is_old = place.stat().is_ok_and(|stat| {
        let (seconds, nanoseconds) = daemon.started_at;
        (stat.st_ctime, stat.st_ctime_nsec as u32) < (seconds, nanoseconds)
    });
    let is_unused = || {
        place
            .open()
            .is_ok_and(|file| writers(&file) != Writers::Some)
    };
    if is_old
        && is_unused()
        && rustix::fs::unlinkat(place.directory(), place.name(), AtFlags::empty()).is_ok()
    {
        tracing::info!(name = ?place.name(), "removed a temporary file of an earlier run");
    }
}

/// Forgets files below directories that have gone, and projects, on a thread of its own: there may be many, and events must not wait.
pub(super) fn forget(daemon: &Daemon) {
    while !daemon.queue.is_closed() {
        let gone = std::mem::take(&mut *daemon.gone());
        for path in gone {
            removals::note(daemon, &path);
            for found in daemon.way.records.below(&path) {
                let Ok(found) = found else { break };
                if is_gone(&found) {
                    // One that stays is forgotten after the next look.
                    let _ = daemon.way.records.remove(&found);
                }
            }
        }
        removals::delete_keys(daemon);
        thread::sleep(FORGET);
    }
}

/// Whether there is certainly nothing of that name.
pub(super) fn is_gone(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        )
    })
}
