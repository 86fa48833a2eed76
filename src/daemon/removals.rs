//! Projects whose directories have been removed: their keys go too, after a grace period, where the configuration says so.
//!
//! A disk that is not mounted looks like a tree without projects. So a directory counts as removed only while the drop directory is the very
//! one that it was in.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Daemon, watches::is_gone};
use crate::{
    arrival::reason,
    config::{Config, Drop},
    identity::Identity,
    keystore::unix_seconds,
    record::{below, now},
    store::{self, Store, Tree},
};

/// A project's directory, as it was last seen.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    identity: Identity,
    /// Which directory the drop directory was.
    root: Root,
}

/// A directory by its inode's number and birth, in Unix seconds where the filesystem knows it: neither changes when a disk is mounted anew, and
/// another disk in its place has others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Root {
    inode: u64,
    born: Option<u64>,
}

impl Root {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            born: metadata.created().ok().map(unix_seconds),
        })
    }
}

/// The directories of projects, by absolute path. Nothing is flushed: what a crash loses is found again by looking.
#[derive(Debug)]
pub(super) struct Removals {
    /// [`Seen`] as JSON.
    seen: Tree,
    /// Since when directories are missing, in Unix seconds, so that they are found without reading all.
    missing: Tree,
    /// When the clock was last looked at: in Unix seconds, and by the clock that nobody sets.
    clock: Mutex<(u64, Instant)>,
}

/// By how many seconds the clock may be put forward before that counts as having been wrong.
const JUMP: u64 = 60;

impl Removals {
    pub(super) fn open(store: &Store) -> Result<Self, store::Error> {
        Ok(Self {
            seen: store.tree("projects")?,
            missing: store.tree("missing projects")?,
            clock: Mutex::new((now(), Instant::now())),
        })
    }

    /// A directory as it was seen. What cannot be understood counts as never seen.
    fn find(&self, directory: &Path) -> Result<Option<Seen>, store::Error> {
        let bytes = self.seen.find(directory.as_os_str().as_bytes())?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Whether another second has passed since this was asked. Sees to it that a clock that was wrong, and has been put right, shortens
    /// nobody's grace period.
    fn follow_clock(&self, now: u64, at: Instant) -> Result<bool, store::Error> {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = at.saturating_duration_since(clock.1).as_secs();
        if passed < 1 {
            return Ok(false);
        }
        let (then, _) = std::mem::replace(&mut *clock, (now, at));
        let jump = now.saturating_sub(then).saturating_sub(passed);
        if jump < JUMP {
            return Ok(true);
        }
        tracing::warn!(
            seconds = jump,
            "the clock was put forward: the grace periods of removed projects end that much later"
        );
        for entry in self.missing.entries(b"", None) {
            let (name, since) = entry?;
            self.missing.set(
                &name,
                seconds(since).saturating_add(jump).to_be_bytes().to_vec(),
            )?;
        }
        Ok(true)
    }

    fn forget(&self, directories: &BTreeSet<PathBuf>) -> Result<(), store::Error> {
        directories.iter().try_for_each(|directory| {
            let name = directory.as_os_str().as_bytes();
            self.missing.unset(name)?;
            self.seen.unset(name)
        })
    }
}

/// Takes note of the project that a file is in.
pub(super) fn seen(daemon: &Daemon, drop: &Drop, relative: &Path) {
    let config = daemon.config();
    // A directory that keeps its key keeps it from being deleted for the sake of another one.
    if config.drops.iter().any(|drop| drop.removal_grace.is_some()) {
        told(try_see(daemon, drop, relative));
    }
}

fn try_see(daemon: &Daemon, drop: &Drop, relative: &Path) -> Result<(), store::Error> {
    let (Ok(project), Some(root)) = (drop.templates.project(relative), Root::of(&drop.root)) else {
        return Ok(());
    };
    let depth = drop.templates.depth();
    let directory = drop
        .root
        .join(relative.iter().take(depth).collect::<PathBuf>());
    let name = directory.as_os_str().as_bytes();
    let seen = Seen {
        identity: project.identity,
        root,
    };
    let removals = &daemon.removals;
    if removals.find(&directory)?.as_ref() != Some(&seen) {
        let bytes =
            serde_json::to_vec(&seen).map_err(|error| store::Error::Access(error.to_string()))?;
        removals.seen.set(name, bytes)?;
        // Word of the file may have come later than word of the directory's end.
        daemon.gone().insert(directory);
    } else if removals.missing.find(name)?.is_some() && !is_gone(&directory) {
        there_again(removals, &directory)?;
    }
    Ok(())
}

/// Ends a grace period.
fn there_again(removals: &Removals, directory: &Path) -> Result<(), store::Error> {
    removals.missing.unset(directory.as_os_str().as_bytes())?;
    tracing::info!(
        ?directory,
        "a project's directory is there again, or nobody is to delete its key any more: it stays"
    );
    Ok(())
}

/// Begins the grace period of the projects at or below `path` whose directories have gone.
pub(super) fn note(daemon: &Daemon, path: &Path) {
    told(try_note(daemon, path));
}

fn try_note(daemon: &Daemon, path: &Path) -> Result<(), store::Error> {
    let config = daemon.config();
    let Some((drop, grace)) = deleting(&config, path) else {
        return Ok(());
    };
    let removals = &daemon.removals;
    for directory in below(&removals.seen, path) {
        let directory = directory?;
        let name = directory.as_os_str().as_bytes();
        if removals.missing.find(name)?.is_some() {
            continue;
        }
        let Some(seen) = removals.find(&directory)? else {
            continue;
        };
        if is_removed(&directory, &seen, drop) {
            removals.missing.set(name, now().to_be_bytes().to_vec())?;
            tracing::warn!(
                ?directory,
                identity = %seen.identity,
                "a project's directory is gone: unless it comes back or the project has another one, its key will be deleted in {}",
                humantime::format_duration(grace)
            );
        }
    }
    Ok(())
}

/// Deletes the keys of projects whose last directory has been gone for the grace period.
pub(super) fn delete_keys(daemon: &Daemon) {
    told(try_delete_keys(daemon));
}

fn try_delete_keys(daemon: &Daemon) -> Result<(), store::Error> {
    let (config, removals) = (daemon.config(), &daemon.removals);
    if !removals.follow_clock(now(), Instant::now())? {
        return Ok(());
    }
    let mut due: BTreeMap<Identity, BTreeSet<PathBuf>> = BTreeMap::new();
    for directory in below(&removals.missing, Path::new("/")) {
        let directory = directory?;
        let name = directory.as_os_str().as_bytes();
        let removed = match (deleting(&config, &directory), removals.find(&directory)?) {
            (Some((drop, grace)), Some(seen)) if is_removed(&directory, &seen, drop) => {
                Some((seen.identity, grace))
            }
            _ => None,
        };
        let Some((identity, grace)) = removed else {
            there_again(removals, &directory)?;
            continue;
        };
        let since = removals.missing.find(name)?.map_or(u64::MAX, seconds);
        if now() >= since.saturating_add(grace.as_secs()) {
            due.entry(identity).or_default().insert(directory);
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    // What a project has elsewhere keeps its key; if that goes too, it has a grace period of its own.
    let mut kept = BTreeSet::new();
    for directory in below(&removals.seen, Path::new("/")) {
        let directory = directory?;
        if let Some(seen) = removals.find(&directory)?
            && let Some(due) = due.get(&seen.identity)
            && !due.contains(&directory)
            && (deleting(&config, &directory).is_some() || !is_gone(&directory))
        {
            kept.insert(seen.identity);
        }
    }
    for (identity, directories) in due {
        if !kept.contains(&identity) {
            tracing::warn!(%identity, ?directories, "no directory of the project is left, and the grace period is over: deleting its key");
            if let Err(error) = daemon.delete_key(&identity) {
                tracing::error!(%identity, error = reason(&error), "cannot delete the key of a removed project");
                continue;
            }
        }
        removals.forget(&directories)?;
    }
    Ok(())
}

/// The drop directory that a path is in, and its grace period, if keys are deleted there.
fn deleting<'a>(config: &'a Config, path: &Path) -> Option<(&'a Drop, Duration)> {
    let drop = config
        .drops
        .iter()
        .find(|drop| path.starts_with(&drop.root))?;
    Some((drop, drop.removal_grace?))
}

fn is_removed(directory: &Path, seen: &Seen, drop: &Drop) -> bool {
    // In this order: a disk that is unmounted between the two questions is noticed by the second.
    is_gone(directory) && Root::of(&drop.root) == Some(seen.root)
}

/// A time as it is kept; what cannot be understood never comes.
fn seconds(kept: Vec<u8>) -> u64 {
    kept.try_into().map_or(u64::MAX, u64::from_be_bytes)
}

fn told(result: Result<(), store::Error>) {
    if let Err(error) = result {
        tracing::error!(
            error = reason(&error),
            "cannot keep track of removed projects"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_put_forward_shortens_no_grace_period() {
        let dir = tempfile::tempdir().unwrap();
        let removals = Removals::open(&Store::open(dir.path()).unwrap()).unwrap();
        let (start, at) = *removals.clock.lock().unwrap();
        let since = || seconds(removals.missing.find(b"/a").unwrap().unwrap());
        removals
            .missing
            .set(b"/a", start.to_be_bytes().to_vec())
            .unwrap();
        let hour = Duration::from_secs(3600);
        // Time goes by as it should, however long it takes.
        removals.follow_clock(start + 3600, at + hour).unwrap();
        assert_eq!(since(), start);
        // Six years within an hour, as from a clock that had stopped.
        removals
            .follow_clock(start + 7200 + 200_000_000, at + 2 * hour)
            .unwrap();
        assert_eq!(since(), start + 200_000_000);
        // Put back: the periods end later, which harms nobody.
        removals.follow_clock(start, at + 2 * hour).unwrap();
        assert_eq!(since(), start + 200_000_000);
    }
}
