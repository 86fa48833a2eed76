//! What a mount asks of its user.

use std::{ffi::OsStr, os::fd::BorrowedFd, path::Path};

use rustix::io::Errno;

/// How many of a file's first bytes are shown to [`Hook::concerns`] at the most.
pub const HEAD: usize = 64;

/// Decides which files are held back until their writers have closed them, and finishes these.
///
/// Paths are relative to the mount's root, and names of the mount. Methods are called from several threads at once, and
/// must not use the mount themselves.
pub trait Hook: Send + Sync + 'static {
    /// Whether files at this path may ever be held back. Where not, the kernel passes reads and writes to the file below.
    fn watches(&self, path: &Path) -> bool;

    /// Whether a file at this path that begins like this (with [`HEAD`] bytes, or all it has) is held back. The path is empty
    /// where the file's name is not known: then, whether it would be by any name.
    fn concerns(&self, path: &Path, head: &[u8]) -> bool;

    /// Whether a file of this name is expected to become one that is held back. Nobody reads such a file before its first bytes have been
    /// written.
    fn expects(&self, path: &Path) -> bool;

    /// Whether what is held back at this path tells itself if a part of it was not written. Then the kernel may pass the writes of a new
    /// file to the file below, where nobody sees one that fails.
    fn checks_itself(&self, path: &Path) -> bool;

    /// Finishes a file whose writers have closed it. Nobody can open or change it through the mount meanwhile, but for what
    /// [`Held::has_writers`] says.
    ///
    /// The file may be changed, or be replaced under its present name.
    ///
    /// # Errors
    /// What `close` is to answer. The file then stays held back.
    fn finish(&self, held: &Held<'_>) -> Result<Finished, Errno>;

    /// Whether a name is one that the hook itself gives for a while to a file beside the one that it finishes. Such names are
    /// the mount's own: nobody sees or makes them.
    fn makes(&self, name: &OsStr) -> bool;

    /// When the mount is made, such a name lies in a directory below: an earlier run may have left it there.
    fn left(&self, directory: BorrowedFd<'_>, name: &OsStr);

    /// The file that was finished is seen now, under its path.
    fn seen(&self, path: &Path);

    /// The file was finished in vain before, and has another path now, or is not held back any more.
    fn moved(&self, from: &Path, to: Option<&Path>);

    /// Whether a file that is finished at one path is so at the other. A rename where it is not answers `EXDEV`, so that
    /// it is copied instead, and finished anew.
    fn is_same(&self, from: &Path, to: &Path) -> bool;

    /// Whether that is so of all files that may lie below two directories. Where it is not, or cannot be told, they are looked at one by
    /// one.
    fn is_same_below(&self, from: &Path, to: &Path) -> bool;
}

/// What a hook has done.
pub struct Finished {
    /// What makes the file last and shows it then, for which `close` need not wait; nothing where it is on the disk already.
    pub make_last: Option<MakeLast>,
    /// When the file was modified last, in seconds and nanoseconds since 1970, as the hook left it: what is written later has another time.
    pub modified: (i64, u32),
}

impl std::fmt::Debug for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finished")
            .field("modified", &self.modified)
            .finish_non_exhaustive()
    }
}

/// Makes what was finished last, and calls what it is given then, by which the file is seen. Where either fails, the file stays held
/// back.
pub type MakeLast =
    Box<dyn FnOnce(&mut dyn FnMut() -> Result<(), Errno>) -> Result<(), Errno> + Send>;

/// A file that is held back.
#[derive(Debug)]
pub struct Held<'a> {
    /// Where it is going to be seen.
    pub path: &'a Path,
    /// The directory that it is in.
    pub directory: BorrowedFd<'a>,
    /// Its name there for now.
    pub name: &'a OsStr,
    /// Whether a writer may rely on what he has written being on the disk, as after fsync(2).
    pub is_flushed: bool,
    /// Whether a copy of a descriptor may still be open that writes past the mount. What it writes is noticed, and the file finished anew, as
    /// long as it stays the same file.
    pub has_writers: bool,
}
