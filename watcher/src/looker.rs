//! Looks at directories and reports the files in them. The only thread that waits for the sink to take what was found.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::beneath::Identity;
use crate::chores::{Chore, Urgent};
use crate::looks::Look;
use crate::shared::Shared;
use crate::walk::{Access, Visitor, walk_with};
use crate::{Entry, Error, Event};

/// Looks at directories.
pub(crate) struct Looker {
    shared: Arc<Shared>,
}

impl Looker {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn run(self) {
        loop {
            match self.shared.looks.wait() {
                Look::End => return,
                Look::Below(path) => self.look_below(&path),
                Look::Whole => self.look_at_everything(),
            }
        }
    }

    fn look_at_everything(&self) {
        let epoch = self.shared.directories().epoch();
        self.shared.troubles().begin_look();
        let looked = self.look(Path::new(""), &|| {
            // A new directory is not to wait until a long look has ended.
            while let Some(path) = self.shared.looks.below() {
                self.look_below(&path);
            }
        });
        let coverage = self.shared.troubles().end_look();
        let is_void = {
            let directories = self.shared.directories();
            directories.is_lost() || directories.epoch() != epoch
        };
        match looked {
            // Events were lost, or the root was, while it was going on. The look that follows counts.
            Ok(()) if is_void => {}
            Ok(()) => self.shared.tell(Event::Looked(coverage)),
            Err(Error::RootGone { .. }) => self.shared.chores.add(Chore::Check),
            Err(error) => self.shared.fail(error),
        }
    }

    fn look_below(&self, path: &Path) {
        match self.look(path, &|| {}) {
            // It went away again, or a link took its place.
            Ok(()) | Err(Error::NotFound { .. } | Error::Outside { .. }) => {}
            Err(Error::RootGone { .. }) => self.shared.chores.add(Chore::Check),
            Err(error) => self.report(path, error),
        }
    }

    fn look(&self, below: &Path, between: &dyn Fn()) -> Result<(), Error> {
        let skip = |path: &Path| self.shared.is_skipped(path);
        let mut visit = Visit {
            looker: self,
            below,
            between,
            entered: None,
        };
        // It breaks only at the end of the watcher, when nothing is told any more.
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
            walk_with(&self.shared.root, below, &skip, &mut visit)?;
        Ok(())
    }

    fn report(&self, below: &Path, error: Error) {
        let directory: PathBuf = match &error {
            Error::Unreadable { directory, .. } => directory.clone(),
            _ => self.shared.absolute(below),
        };
        if self.shared.troubles().unread(&directory) {
            self.shared.fail(error);
        }
    }
}

/// One look.
struct Visit<'l> {
    looker: &'l Looker,
    below: &'l Path,
    /// Called between any two entries.
    between: &'l dyn Fn(),
    /// The directory that is being read, and the watch that reports on it.
    entered: Option<(Identity, u64)>,
}

impl Visitor for Visit<'_> {
    /// A directory is read only while it is watched: else a file could be found here and then removed without an event,
    /// and nobody would ever tell that it is gone.
    fn enter(&mut self, path: &Path, identity: Identity) -> Access {
        let shared = &self.looker.shared;
        let (watch, is_lost) = {
            let directories = shared.directories();
            (directories.watch(path, identity), directories.is_lost())
        };
        self.entered = watch.map(|watch| (identity, watch));
        if is_lost {
            return Access::Denied;
        }
        if watch.is_some() || shared.troubles().is_unwatched(&shared.absolute(path)) {
            return Access::Granted;
        }
        // The sentry has it looked at once it is watched.
        let urgent = Urgent::Watch(path.to_owned());
        shared.chores.add(Chore::Urgent(urgent));
        Access::Denied
    }

    fn visit(&mut self, entry: Entry) -> ControlFlow<()> {
        (self.between)();
        let shared = &self.looker.shared;
        match entry {
            Entry::File { path, .. } => shared.tell(Event::Found(path)),
            Entry::Special { .. } => {}
            Entry::Failed(error) => self.looker.report(self.below, error),
        }
        if shared.has_ended() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn leave(&mut self, path: &Path) {
        let shared = &self.looker.shared;
        let Some((identity, watch)) = self.entered.take() else {
            return;
        };
        // What was found may have been told after it was told that the directory is gone. If the directory is there again,
        // the sentry has it looked at once more.
        if shared.directories().watch(path, identity) != Some(watch) {
            shared.tell(Event::Gone(path.to_owned()));
        }
    }
}
