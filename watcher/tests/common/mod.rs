//! A watch over a temporary directory, and what it has told.

#![allow(dead_code, reason = "no test program uses all of it")]
#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests, but not what they share"
)]

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use signdrop_watcher::{Coverage, Event, Watcher};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine; a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What was told, in order.
#[derive(Debug, Default)]
pub(crate) struct Log {
    events: Mutex<Vec<Event>>,
    grown: Condvar,
}

impl Log {
    pub(crate) fn add(&self, event: Event) {
        self.events.lock().unwrap().push(event);
        self.grown.notify_all();
    }

    /// Waits until the events so far are as wanted.
    #[track_caller]
    pub(crate) fn wait(&self, what: impl Debug, wanted: impl Fn(&[Event]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut events = self.events();
        while !wanted(&events) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what:?} in {:#?}", events.as_slice());
            events = self.grown.wait_timeout(events, left).unwrap().0;
        }
    }

    pub(crate) fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap()
    }

    pub(crate) fn clear(&self) {
        self.events().clear();
    }

    #[track_caller]
    pub(crate) fn wait_finished(&self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        self.wait(("finished", path), |events| {
            events.iter().any(|event| is_finished(event, path))
        });
    }

    #[track_caller]
    pub(crate) fn wait_found(&self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        self.wait(("found", path), |events| {
            events.iter().any(|event| is_found(event, path))
        });
    }

    /// Waits for a file to be reported, this way or that.
    #[track_caller]
    pub(crate) fn wait_reported(&self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        self.wait(("report of", path), |events| {
            events
                .iter()
                .any(|event| is_finished(event, path) || is_found(event, path))
        });
    }

    #[track_caller]
    pub(crate) fn wait_gone(&self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        self.wait(("gone", path), |events| {
            events
                .iter()
                .any(|event| matches!(event, Event::Gone(gone) if gone == path))
        });
    }

    /// Waits for the end of a look, and answers what it has covered.
    #[track_caller]
    pub(crate) fn wait_looked(&self) -> Coverage {
        self.wait("looked", |events| coverage(events).is_some());
        coverage(&self.events()).unwrap()
    }

    /// Waits for the end of a look that has covered everything.
    #[track_caller]
    pub(crate) fn wait_complete(&self) {
        self.wait("complete look", |events| {
            coverage(events) == Some(Coverage::Complete)
        });
    }

    /// Says whether the file has been reported finished.
    pub(crate) fn has_finished(&self, path: impl AsRef<Path>) -> bool {
        self.events()
            .iter()
            .any(|event| is_finished(event, path.as_ref()))
    }

    /// The messages of all failures.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.events()
            .iter()
            .filter_map(|event| match event {
                Event::Failed(error) => Some(error.to_string()),
                _ => None,
            })
            .collect()
    }
}

pub(crate) fn is_finished(event: &Event, path: &Path) -> bool {
    matches!(event, Event::Finished(finished) if finished == path)
}

pub(crate) fn is_found(event: &Event, path: &Path) -> bool {
    matches!(event, Event::Found(found) if found == path)
}

fn coverage(events: &[Event]) -> Option<Coverage> {
    events.iter().rev().find_map(|event| match event {
        Event::Looked(coverage) => Some(*coverage),
        _ => None,
    })
}

/// A temporary directory that is watched.
pub(crate) struct Watched {
    pub(crate) log: Arc<Log>,
    pub(crate) watcher: Watcher,
    pub(crate) directory: TempDir,
}

impl Watched {
    /// Watches an empty directory; the first look is over, and nothing is in the log.
    pub(crate) fn empty() -> Self {
        Self::over(tempfile::tempdir().unwrap(), |_| false)
    }

    /// Watches what is there; the first look is over, and nothing is in the log.
    pub(crate) fn over(
        directory: TempDir,
        skip: impl Fn(&Path) -> bool + Send + Sync + 'static,
    ) -> Self {
        let watched = Self::starting(directory, skip);
        assert_eq!(watched.log.wait_looked(), Coverage::Complete);
        watched.log.clear();
        watched
    }

    /// Begins to watch what is there.
    pub(crate) fn starting(
        directory: TempDir,
        skip: impl Fn(&Path) -> bool + Send + Sync + 'static,
    ) -> Self {
        let log = Arc::new(Log::default());
        let sink = Arc::clone(&log);
        let retry = Duration::from_millis(100);
        let watcher = Watcher::start_retrying(directory.path(), retry, skip, move |event| {
            sink.add(event);
        });
        Self {
            log,
            watcher: watcher.unwrap(),
            directory,
        }
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Writes and closes a file.
    pub(crate) fn write(&self, name: impl AsRef<Path>) {
        write(&self.path(name));
    }

    /// Writes a file and leaves it open.
    pub(crate) fn begin(&self, name: impl AsRef<Path>) -> File {
        begin(&self.path(name))
    }

    /// Waits until all events up to now have come: the kernel keeps them in order.
    #[track_caller]
    pub(crate) fn fence(&self) {
        let file = tempfile::Builder::new()
            .prefix("fence")
            .tempfile_in(self.root())
            .unwrap();
        let name = file.path().strip_prefix(self.root()).unwrap().to_owned();
        drop(file);
        self.log.wait_gone(name);
    }
}

pub(crate) fn begin(path: &Path) -> File {
    let mut file = File::create(path).unwrap();
    file.write_all(path.as_os_str().as_encoded_bytes()).unwrap();
    file
}

pub(crate) fn write(path: &Path) {
    drop(begin(path));
}

/// Set for the test that runs in namespaces of its own.
const INSIDE: &str = "SIGNDROP_WATCHER_TEST_INSIDE";

/// Runs the named test of this program once more in a user namespace with its own limits and mounts. False if that is
/// where it is running already.
#[must_use]
pub(crate) fn ran_in_namespaces(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args([OsStr::new("--exact"), OsStr::new(test)])
        .arg("--nocapture")
        .env(INSIDE, "1")
        .status()
        .expect("this test needs unshare(1) of util-linux (apt install util-linux)");
    assert!(
        status.success(),
        "{test} failed in its namespaces; it needs user namespaces (sysctl user.max_user_namespaces)"
    );
    true
}

/// Runs a program that has to succeed.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&OsStr]) {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .unwrap_or_else(|error| panic!("this test needs {program} (apt install mount): {error}"));
    assert!(status.success(), "{program} {arguments:?}");
}

/// Unmounts what is mounted at the path. A look that is going on keeps it busy for its duration, no longer.
#[track_caller]
pub(crate) fn unmount(path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = Command::new("umount").arg(path).status();
        let is_unmounted = status
            .expect("this test needs umount (apt install mount)")
            .success();
        if is_unmounted {
            return;
        }
        assert!(Instant::now() < deadline, "{} stays busy", path.display());
    }
}

/// Makes directories below the path until the lowest has a path that the kernel refuses as too long.
pub(crate) fn deepen(path: &Path) {
    use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = open(path, flags, Mode::empty()).unwrap();
    let name = "deep".repeat(50);
    for _ in 0..25 {
        mkdirat(&directory, &name, Mode::RWXU).unwrap();
        directory = openat(&directory, &name, flags, Mode::empty()).unwrap();
    }
}
