//! What the tests share: a mount that is never left behind, and a hook that does real work.
#![allow(dead_code, reason = "each test target uses a part")]
#![allow(unreachable_pub, reason = "a module of several test targets")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unsafe_code,
    reason = "what fails here fails the test"
)]

pub(crate) mod guard;
pub(crate) mod reading;
pub mod script;

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{BorrowedFd, IntoRawFd as _},
        unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};
use signdrop_fuse::{Errno, Finished, Held, Hook, MakeLast, Mount};

/// How long anything may take that has to happen; generous, since machines are slow at times, and no measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A backing directory, a plain directory beside it on the same filesystem, and the mount.
pub struct Mounted {
    // Ended before the directory below is removed.
    mount: Option<Mount>,
    // Until nothing waits for the mount any more.
    _guard: guard::Guard,
    pub dir: tempfile::TempDir,
    pub hook: Arc<Seal>,
}

impl Mounted {
    pub fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    pub fn within(dir: tempfile::TempDir) -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "there is no /dev/fuse: load the kernel's module fuse, or give the container the device"
        );
        for name in ["below", "at", "plain"] {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut mounted = Self {
            mount: None,
            _guard: guard::Guard::new(&dir.path().join("at")),
            dir,
            hook: Arc::default(),
        };
        mounted.start();
        mounted
    }

    pub fn start(&mut self) {
        let mount = Mount::start(&self.below(), &self.at(), 16, self.hook.clone());
        self.mount = Some(mount.unwrap_or_else(|error| {
            panic!(
                "{error}: {:?}; the tests of the mount run as root",
                std::error::Error::source(&error)
            )
        }));
    }

    pub fn stop(&mut self, grace: Duration) {
        if let Some(mount) = self.mount.take() {
            mount.stop(grace);
        }
    }

    pub fn mount(&self) -> &Mount {
        self.mount.as_ref().unwrap()
    }

    pub fn at(&self) -> PathBuf {
        self.dir.path().join("at")
    }

    pub fn below(&self) -> PathBuf {
        self.dir.path().join("below")
    }

    pub fn plain(&self) -> PathBuf {
        self.dir.path().join("plain")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// Both ways in which a hook may change a file.
pub fn each_manner(test: impl Fn(&mut Mounted)) {
    for manner in [Manner::InPlace, Manner::ByCopy] {
        let mut mounted = Mounted::new();
        *mounted.hook.manner.lock().unwrap() = manner;
        test(&mut mounted);
    }
}

/// Closes a file and answers what close(2) answered.
pub fn close(file: File) -> Result<(), Errno> {
    // SAFETY: the descriptor is this function's own, and used by nobody afterwards.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap()),
    }
}

/// Makes a file whose writes are seen, since it could be mapped: the kernel passes those of others where it can.
pub fn create_seen(path: &Path) -> File {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    options.open(path).unwrap()
}

/// The system's number of an error that has to be.
pub fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).unwrap()
}

/// Waits for something that has to happen.
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "not {what} in time");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A letter: `LTTR`, the payload's length and checksum, room for a seal, the payload. A hook seals what is whole.
pub fn letter(text: &[u8]) -> Vec<u8> {
    letter_of(*b"LTTR", text)
}

/// A letter of another kind, whose first bytes end in a zero.
pub fn nul_letter(text: &[u8]) -> Vec<u8> {
    letter_of(*b"NUL\0", text)
}

fn letter_of(kind: [u8; 4], text: &[u8]) -> Vec<u8> {
    let mut letter = kind.to_vec();
    letter.extend((text.len() as u64).to_le_bytes());
    letter.extend(sum(0, text).to_le_bytes());
    letter.extend([0; 8]);
    letter.extend(text);
    letter
}

fn is_letter(bytes: &[u8]) -> bool {
    bytes.starts_with(b"LTTR") || bytes.starts_with(b"NUL\0")
}

const START: usize = 28;
const SECRET: u64 = 0x9e37_79b9_7f4a_7c15;

fn sum(start: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(start ^ 0xcbf2_9ce4_8422_2325, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// What a reader finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Sealed,
    /// Whole, but without a seal that fits.
    Open,
    Torn,
}

/// What a reader finds in a file.
pub fn found(path: &Path) -> Found {
    read_letter(&fs::read(path).unwrap())
}

pub fn read_letter(bytes: &[u8]) -> Found {
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let whole = is_letter(bytes)
        && word(4) == Some((bytes.len().saturating_sub(START)) as u64)
        && word(12) == Some(sum(0, bytes.get(START..).unwrap_or_default()));
    match (whole, word(20)) {
        (false, _) => Found::Torn,
        (true, Some(seal)) if seal == sum(SECRET, &bytes[START..]) => Found::Sealed,
        (true, _) => Found::Open,
    }
}

/// How letters are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    /// In the file itself.
    #[default]
    InPlace,
    /// By a copy that takes its place, as where files are cloned.
    ByCopy,
}

/// Seals letters, but for those that are called drafts.
#[derive(Debug, Default)]
pub struct Seal {
    pub manner: Mutex<Manner>,
    /// Fails the n-th call from now on, counted from one.
    pub fail_at: AtomicU32,
    /// Fails once more when it has done everything else.
    pub fails_late: AtomicBool,
    /// Counts the calls that know how long they wait.
    pub calls: AtomicU32,
    /// Waits so long in each call.
    pub delay: Mutex<Duration>,
    /// Each call waits for it.
    pub gate: RwLock<()>,
    /// What makes letters last, where that takes its time: none of them that is flushed already.
    pub disk: Mutex<Option<Arc<Disk>>>,
    pub seen: Mutex<Vec<PathBuf>>,
    pub moved: Mutex<Vec<(PathBuf, Option<PathBuf>)>>,
}

/// A disk that takes its time.
#[derive(Debug, Default)]
pub struct Disk {
    /// Each flush waits for it.
    pub gate: RwLock<()>,
    pub fails: AtomicBool,
}

impl Disk {
    fn flush(&self) -> Result<(), Errno> {
        drop(self.gate.read().unwrap());
        match self.fails.load(Ordering::SeqCst) {
            true => Err(Errno::IO),
            false => Ok(()),
        }
    }
}

impl Hook for Seal {
    fn watches(&self, path: &Path) -> bool {
        !path.starts_with("unwatched")
    }

    fn concerns(&self, path: &Path, head: &[u8]) -> bool {
        let is_draft = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"draft"));
        is_letter(head) && !is_draft
    }

    fn expects(&self, path: &Path) -> bool {
        path.starts_with("expected")
    }

    fn checks_itself(&self, _path: &Path) -> bool {
        true
    }

    fn finish(&self, held: &Held<'_>) -> Result<Finished, Errno> {
        let modified = self.seal(held)?;
        let Some(disk) = self.disk.lock().unwrap().clone() else {
            return Ok(Finished {
                make_last: None,
                modified,
            });
        };
        let make_last: Option<MakeLast> = match held.is_flushed {
            true => disk.flush().map(|()| None)?,
            false => Some(Box::new(move |show| disk.flush().and_then(|()| show()))),
        };
        Ok(Finished {
            make_last,
            modified,
        })
    }

    fn makes(&self, name: &std::ffi::OsStr) -> bool {
        name == ".signdrop-copy.tmp"
    }

    fn left(&self, directory: BorrowedFd<'_>, name: &std::ffi::OsStr) {
        rustix::fs::unlinkat(directory, name, rustix::fs::AtFlags::empty()).unwrap();
    }

    fn seen(&self, path: &Path) {
        self.seen.lock().unwrap().push(path.to_owned());
    }

    fn moved(&self, from: &Path, to: Option<&Path>) {
        let moved = (from.to_owned(), to.map(Path::to_owned));
        self.moved.lock().unwrap().push(moved);
    }

    fn is_same(&self, from: &Path, to: &Path) -> bool {
        let first = |path: &Path| {
            path.iter()
                .next()
                .map(|name| name == "other" || name == "unwatched")
        };
        first(from) == first(to)
    }

    fn is_same_below(&self, from: &Path, to: &Path) -> bool {
        self.is_same(from, to)
    }
}

impl Seal {
    fn seal(&self, held: &Held<'_>) -> Result<(i64, u32), Errno> {
        let delay = *self.delay.lock().unwrap();
        self.calls.fetch_add(1, Ordering::SeqCst);
        thread::sleep(delay);
        drop(self.gate.read().unwrap());
        let left = self.fail_at.load(Ordering::SeqCst);
        if left > 0 && self.fail_at.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(Errno::NOSPC);
        }
        let file = open(held.directory, held.name, OFlags::RDWR);
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes).unwrap();
        match read_letter(&bytes) {
            Found::Sealed => return Ok(modified(&file)),
            Found::Torn => return Err(Errno::IO),
            Found::Open => {}
        }
        let seal = sum(SECRET, &bytes[START..]).to_le_bytes();
        match *self.manner.lock().unwrap() {
            Manner::InPlace => {
                file.write_all_at(&seal, 20).unwrap();
                // What the kernel's clock, which ticks slowly, never gives.
                let now = file.metadata().unwrap().modified().unwrap();
                file.set_modified(now + Duration::from_nanos(1)).unwrap();
            }
            Manner::ByCopy => {
                bytes[20..28].copy_from_slice(&seal);
                let copy = open(
                    held.directory,
                    ".signdrop-copy.tmp".as_ref(),
                    OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
                );
                (&copy).write_all(&bytes).unwrap();
                copy.set_permissions(file.metadata().unwrap().permissions())
                    .unwrap();
                rustix::fs::renameat(
                    held.directory,
                    ".signdrop-copy.tmp",
                    held.directory,
                    held.name,
                )
                .unwrap();
            }
        }
        match self.fails_late.swap(false, Ordering::SeqCst) {
            true => Err(Errno::NOSPC),
            false => Ok(modified(&file)),
        }
    }
}

fn modified(file: &File) -> (i64, u32) {
    let metadata = file.metadata().unwrap();
    (metadata.mtime(), metadata.mtime_nsec() as u32)
}

fn open(directory: BorrowedFd<'_>, name: &std::ffi::OsStr, flags: OFlags) -> File {
    rustix::fs::openat(
        directory,
        name,
        flags | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o644),
    )
    .unwrap()
    .into()
}
