//! The mounts: each runs with a hook that takes what it holds back the one way through.

use std::{
    error::Error as StdError,
    ffi::OsStr,
    io,
    os::{fd::BorrowedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use signdrop_fuse::{Errno, Held, Hook, MakeLast, Mount, Progress, Reading};

use super::{Daemon, watches, workers};
use crate::{
    apply::{Flush, replace::is_temporary},
    arrival::{Finished, Freshness, Settlement},
    config::{self, Drop},
    format::Format,
    place::Place,
    record::Outcome,
};

/// How many files of one mount are finished at once.
const CLOSERS: usize = 16;
/// How long files that are open when the daemon stops may go on being used.
const GRACE: Duration = Duration::from_secs(5);
/// How often a file is looked at anew that changed while it was worked on, and how long later.
const LOOKS: u32 = 50;
const LATER: Duration = Duration::from_millis(10);

/// Why a file is held back that was never tried.
const NOT_WHOLE: &str = "not whole: a write failed, its writer ended before the first bytes, or goes on writing below since an earlier run; write it again, remove it, or try `signdrop retry` when nobody writes";

/// Why a file is held back that has been signed.
const CLOSING: &str =
    "finished, and seen as soon as the last copy of its writer's descriptor is closed";

/// The mounts that run.
#[derive(Debug, Default)]
pub(super) struct Mounts(Mutex<Vec<Running>>);

#[derive(Debug)]
struct Running {
    root: PathBuf,
    at: PathBuf,
    /// Shared with those who try files again, which takes as long as it takes.
    mount: Arc<Mount>,
}

/// A report on one mount.
#[derive(Debug, Serialize, Deserialize)]
pub struct MountStatus {
    /// The mount point.
    pub at: PathBuf,
    /// The directory below.
    pub root: PathBuf,
    /// How files that are seen are read: `passed` by the kernel to the files below, or `asked` of the daemon.
    pub reading: String,
    /// The files that are held back.
    pub held: Vec<HeldFile>,
}

/// A file that is held back.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeldFile {
    /// Where it is going to be seen; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// `written`, `finishing`, `closing` or `failed`.
    pub progress: String,
    /// Why it failed.
    pub reason: String,
}

/// What came of trying a file again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Retried {
    /// The file.
    pub path: String,
    /// Why it failed again; empty where it is seen now.
    pub reason: String,
}

impl Mounts {
    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounts all that the configuration names.
    pub(super) fn start(daemon: &Arc<Daemon>) -> Result<(), signdrop_fuse::Error> {
        for config::Mount { drop, at } in &daemon.config().mounts {
            let finisher = Finisher {
                daemon: Arc::downgrade(daemon),
                root: drop.root.clone(),
            };
            let mount = Mount::start(&drop.root, at, CLOSERS, Arc::new(finisher))?;
            for unreadable in mount.unreadable() {
                let (path, error) = (drop.root.join(&unreadable.path), unreadable.errno);
                tracing::warn!(?path, %error, "cannot take in what was held back there; it stays so");
            }
            let reads = reading(&mount);
            tracing::info!(at = %at.display(), root = %drop.root.display(), reads, "mounted");
            if mount.is_hidden() {
                tracing::warn!(at = %at.display(), "nobody outside of this service may see what is mounted there: a drop-in that is read after the mount's own may have ReadWritePaths= or the like");
            }
            daemon.mounts.running().push(Running {
                root: drop.root.clone(),
                at: at.clone(),
                mount: Arc::new(mount),
            });
        }
        Ok(())
    }

    /// Unmounts all, and waits for what is being finished.
    pub(super) fn stop(&self) {
        let all = std::mem::take(&mut *self.running());
        for running in all {
            running.mount.stop(GRACE);
            tracing::info!(at = %running.at.display(), "unmounted");
        }
    }
}

fn reading(mount: &Mount) -> &'static str {
    match mount.reading() {
        Reading::Passed => "passed",
        Reading::Asked => "asked",
    }
}

impl Daemon {
    /// What is wrong with the mounts.
    pub(super) fn mount_troubles(&self) -> Vec<String> {
        let config = self.config();
        let running = self.mounts.running();
        let trouble = |mount: &config::Mount| {
            let found = running.iter().find(|running| running.at == mount.at);
            let what = match found {
                Some(running) if running.mount.is_mounted() => return None,
                Some(_) => "is not mounted any more; a restart mounts it",
                None => "is not mounted yet",
            };
            Some(format!("{}: {what}", mount.at.display()))
        };
        config.mounts.iter().filter_map(trouble).collect()
    }

    /// What the mounts hold back.
    pub fn mount_status(&self) -> Vec<MountStatus> {
        let running = self.mounts.running();
        let report = |running: &Running| {
            let held = running.mount.held_back().into_iter().map(|held| HeldFile {
                path: running.at.join(&held.path).to_string_lossy().into_owned(),
                progress: match held.progress {
                    Progress::Written => "written",
                    Progress::Finishing => "finishing",
                    Progress::Closing => "closing",
                    Progress::Refused => "failed",
                }
                .into(),
                reason: match held.progress {
                    Progress::Refused => self
                        .failure(&running.root.join(&held.path))
                        .unwrap_or_else(|| NOT_WHOLE.into()),
                    Progress::Closing => CLOSING.into(),
                    Progress::Written | Progress::Finishing => String::new(),
                },
            });
            let mut held: Vec<HeldFile> = held.collect();
            held.sort_by(|one, other| one.path.cmp(&other.path));
            MountStatus {
                at: running.at.clone(),
                root: running.root.clone(),
                reading: reading(&running.mount).into(),
                held,
            }
        };
        running.iter().map(report).collect()
    }

    /// Why signing or unsigning failed, if it was tried.
    fn failure(&self, path: &Path) -> Option<String> {
        let record = self.way.records.find(path).ok().flatten()?;
        (record.outcome == Outcome::Failed).then_some(record.reason)
    }

    /// Tries again what failed at or below a path of a mount. `None` where no mount holds the path.
    pub fn retry(&self, path: &Path) -> Option<Vec<Retried>> {
        let (root, at, mount, below) = self.mounts.running().iter().find_map(|running| {
            let below = path.strip_prefix(&running.at).ok()?;
            let Running { root, at, mount } = running;
            Some((root.clone(), at.clone(), mount.clone(), below))
        })?;
        let told = mount.retry(below).into_iter().map(|(path, result)| {
            let reason = match result {
                Ok(()) => String::new(),
                Err(errno) => self
                    .failure(&root.join(&path))
                    .unwrap_or_else(|| errno.to_string()),
            };
            Retried {
                path: at.join(&path).to_string_lossy().into_owned(),
                reason,
            }
        });
        Some(told.collect())
    }
}

/// The hook of one mount.
struct Finisher {
    /// The daemon owns the mount.
    daemon: Weak<Daemon>,
    root: PathBuf,
}

impl Finisher {
    /// Asks with the mount's section of the configuration as it is now; nothing while the daemon ends.
    fn with<T>(&self, ask: impl FnOnce(&Daemon, &config::Config, &Drop) -> T) -> Option<T> {
        let daemon = self.daemon.upgrade()?;
        let config = daemon.config();
        let mut mounts = config.mounts.iter();
        let mount = mounts.find(|mount| mount.drop.root == self.root)?;
        Some(ask(&daemon, &config, &mount.drop))
    }
}

impl Hook for Finisher {
    fn watches(&self, path: &Path) -> bool {
        self.with(|_, _, drop| !drop.ignores(path)).unwrap_or(true)
    }

    fn concerns(&self, path: &Path, head: &[u8]) -> bool {
        let format = Format::of_beginning(head, path.file_name());
        format.is_some_and(|format| {
            self.with(|_, _, drop| drop.formats.contains(&format))
                .unwrap_or(true)
        })
    }

    fn expects(&self, path: &Path) -> bool {
        path.file_name()
            .is_some_and(|name| Format::of_name(name).is_some())
    }

    fn checks_itself(&self, path: &Path) -> bool {
        // A module has no digest of its content.
        path.file_name()
            .is_some_and(|name| !Format::may_become_module(name))
    }

    fn finish(&self, held: &Held<'_>) -> Result<signdrop_fuse::Finished, Errno> {
        let finish = |daemon: &Daemon, config: &config::Config, drop: &Drop| {
            let begun = Instant::now();
            let place =
                Place::within(held.directory, held.name).map_err(|error| errno_of(&error))?;
            let place = match held.has_writers {
                true => place.with_known_writers(),
                false => place,
            };
            let (root, artifact) = (drop.root.clone(), drop.root.join(held.path));
            // The last close of one who goes on writing has it finished anew.
            let looks = if held.has_writers { 2 } else { LOOKS };
            for _ in 0..looks {
                let way = &daemon.way;
                let Finished {
                    settlement,
                    error,
                    unflushed,
                    flush,
                } = way.finish(drop, held.path, &place, &config.keys, held.is_flushed);
                let failed = || Err(error.as_ref().map_or(Errno::IO, |error| errno_of(error)));
                match settlement {
                    Settlement::Settled(record, freshness) if record.outcome == Outcome::Failed => {
                        if freshness == Freshness::Fresh {
                            workers::tell(daemon, &root, &artifact, begun, &record);
                        }
                        return failed();
                    }
                    Settlement::Settled(record, freshness) => {
                        let daemon = self.daemon.clone();
                        let modified = record.stamp.modified();
                        let make_last: MakeLast = Box::new(move |show| {
                            let daemon = daemon.upgrade().ok_or(Errno::IO)?;
                            let way = &daemon.way;
                            let (record, error) =
                                way.make_last(&artifact, unflushed.as_ref(), record, show);
                            if freshness == Freshness::Fresh || error.is_some() {
                                workers::tell(&daemon, &root, &artifact, begun, &record);
                            }
                            error.map_or(Ok(()), |error| Err(errno_of(&error)))
                        });
                        let make_last = match flush {
                            Flush::Later => Some(make_last),
                            Flush::Now => make_last(&mut || Ok(())).map(|()| None)?,
                        };
                        return Ok(signdrop_fuse::Finished {
                            make_last,
                            modified,
                        });
                    }
                    Settlement::BeingWritten | Settlement::Again => thread::sleep(LATER),
                    Settlement::Nothing => return failed(),
                }
            }
            if held.has_writers {
                return Err(Errno::BUSY);
            }
            tracing::warn!(
                ?artifact,
                "it goes on changing below the mount, and is held back"
            );
            Err(Errno::BUSY)
        };
        self.with(finish).unwrap_or(Err(Errno::IO))
    }

    fn makes(&self, name: &OsStr) -> bool {
        is_temporary(name.as_bytes())
    }

    fn left(&self, directory: BorrowedFd<'_>, name: &OsStr) {
        if let (Some(daemon), Ok(place)) = (self.daemon.upgrade(), Place::within(directory, name)) {
            watches::remove_if_left_behind(&daemon, &place);
        }
    }

    fn seen(&self, path: &Path) {
        self.with(|daemon, _, drop| daemon.way.seen(drop, path));
    }

    fn moved(&self, from: &Path, to: Option<&Path>) {
        self.with(|daemon, _, drop| daemon.way.moved(drop, from, to));
    }

    fn is_same(&self, from: &Path, to: &Path) -> bool {
        let alike = |drop: &Drop| {
            // Of a directory, what is in it counts.
            [from, to].map(|path| {
                let within = path.join("-");
                let project = |path: &Path| {
                    let project = drop.templates.project(path);
                    project.ok().map(|project| project.identity)
                };
                (
                    (project(path), project(&within)),
                    (drop.digest(path), drop.digest(&within)),
                    (drop.ignores(path), drop.ignores(&within)),
                )
            })
        };
        self.with(|_, _, drop| {
            let [from, to] = alike(drop);
            // A name that belongs to no project gives no signature that the other would not.
            from == to && from.0.1.is_some()
        })
        .unwrap_or(false)
    }

    fn is_same_below(&self, from: &Path, to: &Path) -> bool {
        self.with(|_, _, drop| drop.is_alike_below(from, to))
            .unwrap_or(false)
            && self.is_same(from, to)
    }
}

/// What a writer is told: the disk's own errors as they are, all else as EIO.
fn errno_of(error: &(dyn StdError + 'static)) -> Errno {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let found = error
            .downcast_ref::<io::Error>()
            .and_then(Errno::from_io_error);
        if let Some(errno) =
            found.filter(|errno| [Errno::NOSPC, Errno::DQUOT, Errno::ROFS].contains(errno))
        {
            return errno;
        }
        cause = error.source();
    }
    Errno::IO
}

/// For a path that no mount holds.
pub(crate) fn not_mounted(path: &Path) -> String {
    format!(
        "{} is in no mount; `signdrop check` lists them",
        path.display()
    )
}
