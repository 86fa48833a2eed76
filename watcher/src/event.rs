//! What the watcher tells.

use std::fmt;
use std::path::PathBuf;

use crate::Error;

/// What became of a file, a directory or the watch itself. Every path is relative to the watched root.
///
/// A path names what was there at that moment, and is not a promise about what is there now: open it without
/// following links, and look at what was opened.
#[derive(Debug)]
pub enum Event {
    /// A writer closed the file, or it was renamed or linked into place. Comes as soon as the kernel says so.
    ///
    /// Another writer may be at it: a file can be open twice, or be renamed while it is open. Its close comes as an
    /// event of its own; [`writers`](fn@crate::writers) tells. A close that follows the removal of the name is reported as
    /// well, although there may be another file of that name by then.
    Finished(PathBuf),

    /// A regular file that was found by looking: at the start, in a new or moved directory, after lost events, or
    /// because [`Watcher::look`](crate::Watcher::look) asked.
    ///
    /// It may still be being written: ask [`writers`](fn@crate::writers). If somebody has it open, their close comes as
    /// [`Event::Finished`], or as another [`Event::Found`] if the directory is renamed meanwhile. A file can be found more
    /// than once, and both found and finished.
    Found(PathBuf),

    /// The name is gone: deleted or moved away, a file or a directory with all below it. The empty path is the root.
    ///
    /// May come more than once for one removal, and for a directory that is there again by then; what is in it is reported
    /// anew.
    Gone(PathBuf),

    /// The kernel dropped events. The watch is set up anew and a look at everything follows, up to
    /// [`Event::Looked`]. What was moved or deleted meanwhile is not reported one by one.
    Lost,

    /// Every directory has been visited and is watched, as far as that was possible: what happens from now on is
    /// noticed. A look at everything follows, up to [`Event::Looked`].
    Watched(Coverage),

    /// A look at everything has ended. What was being moved about meanwhile is looked at right after it.
    Looked(Coverage),

    /// Something went wrong. The watcher goes on, and tries again by itself; a trouble that stays is reported once,
    /// until it has passed.
    Failed(Error),
}

/// How much of the tree a look has covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// Every directory is watched, and every file in it was reported.
    Complete,

    /// Some directories are not watched or could not be read. Until that has passed, the watcher looks at everything
    /// again each minute. What is deleted or renamed in a directory without a watch is not told as [`Event::Gone`], and
    /// after a rename there, what is below may be reported under its old name until the next look.
    Partial(Shortfall),
}

/// The directories that a look has not covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// Directories without a watch: what happens in them is noticed at the next look only.
    pub unwatched: usize,
    /// Directories that are watched, but could not be read.
    pub unread: usize,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} directories not watched, {} not read",
            self.unwatched, self.unread
        )
    }
}
