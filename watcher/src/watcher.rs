//! The watch as its owner sees it.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::beneath::Root;
use crate::chores::Chore;
use crate::looker::Looker;
use crate::sentry::Sentry;
use crate::shared::Shared;
use crate::{Error, Event};

/// How long to wait before what has failed is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// A watch over everything below a root. No symbolic link is followed below it.
///
/// When it is dropped, the sink is called no more, its threads end and its watches go. A call of the sink that is under
/// way is not waited for: the thread that makes it ends when the call returns.
pub struct Watcher {
    shared: Arc<Shared>,
}

impl Watcher {
    /// Begins to watch, and to look at everything: what is there already comes as [`Event::Found`], the end of the look
    /// as [`Event::Looked`]. Does not wait for it.
    ///
    /// `root` may be or lead through a symbolic link. `skip` gets paths relative to it; a directory that it answers true
    /// for is not watched, and neither that nor a file it answers true for is reported. It must answer quickly, and
    /// always the same for the same path.
    ///
    /// `sink` is called from threads of this crate, from several at once, and must not panic. It may take its time with
    /// [`Event::Found`] and [`Event::Looked`]; nothing else waits for them, and looking goes no faster than they are
    /// taken. All other events are to be taken quickly: while it keeps one, the kernel queues the next ones, and
    /// beyond `fs.inotify.max_queued_events` drops them, which leads to [`Event::Lost`].
    ///
    /// # Errors
    /// [`Error::RootGone`] and [`Error::Resources`] may pass; [`Error::TooFewInstances`] stays.
    pub fn start(
        root: &Path,
        skip: impl Fn(&Path) -> bool + Send + Sync + 'static,
        sink: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Self::start_retrying(root, RETRY, skip, sink)
    }

    /// As [`Watcher::start`], but tries what has failed again after `retry` instead of a minute.
    ///
    /// # Errors
    /// As [`Watcher::start`].
    pub fn start_retrying(
        root: &Path,
        retry: Duration,
        skip: impl Fn(&Path) -> bool + Send + Sync + 'static,
        sink: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let resources = |source: io::Error| Error::Resources { source };
        let root = std::path::absolute(root).map_err(resources)?;
        drop(Root::open(&root)?);
        let shared = Arc::new(Shared::new(root, Box::new(skip), Box::new(sink)));
        let sentry = Sentry::new(Arc::clone(&shared), retry)?;
        let looker = Looker::new(Arc::clone(&shared));
        // From here on, an early return ends the threads.
        let watcher = Self { shared };
        thread::Builder::new()
            .name("watcher-sentry".to_owned())
            .spawn(move || sentry.run())
            .map_err(resources)?;
        thread::Builder::new()
            .name("watcher-looker".to_owned())
            .spawn(move || looker.run())
            .map_err(resources)?;
        Ok(watcher)
    }

    /// Asks for a look at everything, which ends with [`Event::Looked`]. Does not wait for it.
    ///
    /// Several requests may be met by one look; it begins after the last of them.
    pub fn look(&self) {
        self.shared.chores.add(Chore::Round);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Watcher")
            .field("root", &self.shared.root)
            .finish_non_exhaustive()
    }
}
