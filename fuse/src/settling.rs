//! Files whose writers were answered that they are finished, though they are not seen yet: who looks for one waits for it.

use std::{
    ffi::OsStr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::node::Node;

/// How long it is waited for the last copy of a descriptor to be closed after one was. The kernel tells of it at once where that was
/// the last.
pub(crate) const CLOSING: Duration = Duration::from_secs(1);

/// All that settles.
#[derive(Debug, Default)]
pub(crate) struct Settling(Mutex<Vec<Arc<Settles>>>);

/// One file that settles.
#[derive(Debug)]
pub(crate) struct Settles {
    node: Arc<Node>,
    stage: Mutex<Stage>,
    changed: Condvar,
}

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A copy of a descriptor was closed then, and it is not known yet whether it was the last.
    Closes(Instant),
    /// It is made to last.
    Flushes,
    /// It is seen, or is not going to be.
    Ended,
}

/// Ends the settling of a file when it is dropped, whatever came of it.
#[derive(Debug)]
pub(crate) struct Ending {
    settling: Arc<Settling>,
    file: Arc<Settles>,
}

impl Settles {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the file is seen, or is not going to be soon: somebody has a copy of the descriptor open.
    pub(crate) fn wait(&self) {
        self.wait_while(|stage| stage != Stage::Ended);
    }

    /// Waits until the last copy of the descriptor is closed, or is not going to be soon.
    pub(crate) fn wait_for_close(&self) {
        self.wait_while(|stage| matches!(stage, Stage::Closes(_)));
    }

    fn wait_while(&self, waits: impl Fn(Stage) -> bool) {
        let mut stage = self.stage();
        while waits(*stage) {
            stage = match *stage {
                Stage::Closes(since) => {
                    let left = CLOSING.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        return;
                    }
                    let waited = self.changed.wait_timeout(stage, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                Stage::Flushes | Stage::Ended => self
                    .changed
                    .wait(stage)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Whether it is worth to wait for it.
    fn is_awaited(&self) -> bool {
        match *self.stage() {
            Stage::Closes(since) => since.elapsed() < CLOSING,
            Stage::Flushes => true,
            Stage::Ended => false,
        }
    }
}

impl Ending {
    /// Another copy of the descriptor is being closed.
    pub(crate) fn closes(&self) {
        *self.file.stage() = Stage::Closes(Instant::now());
    }

    /// The last copy of the descriptor has been closed.
    pub(crate) fn flushes(&self) {
        *self.file.stage() = Stage::Flushes;
        self.file.changed.notify_all();
    }
}

impl Settling {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Settles>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on, whoever looks for the file waits.
    pub(crate) fn begin(self: &Arc<Self>, node: &Arc<Node>) -> Ending {
        self.begin_with(node, Stage::Flushes)
    }

    /// The same from the moment on at which a copy of its descriptor is being closed.
    pub(crate) fn begin_closing(self: &Arc<Self>, node: &Arc<Node>) -> Ending {
        self.begin_with(node, Stage::Closes(Instant::now()))
    }

    fn begin_with(self: &Arc<Self>, node: &Arc<Node>, stage: Stage) -> Ending {
        let file = Arc::new(Settles {
            node: node.clone(),
            stage: Mutex::new(stage),
            changed: Condvar::new(),
        });
        self.lock().push(file.clone());
        Ending {
            settling: self.clone(),
            file,
        }
    }

    /// How many are waited for.
    pub(crate) fn len(&self) -> usize {
        self.all().len()
    }

    /// Waits until fewer than so many are waited for.
    pub(crate) fn wait_for_room(&self, most: usize) {
        loop {
            let all = self.all();
            match all.first() {
                Some(first) if all.len() >= most => first.wait(),
                _ => return,
            }
        }
    }

    /// What settles by a name.
    pub(crate) fn named(&self, directory: u64, name: &OsStr) -> Vec<Arc<Settles>> {
        self.those(|node| node.is_at((directory, name)))
    }

    /// What settles of an inode.
    pub(crate) fn of(&self, number: u64) -> Vec<Arc<Settles>> {
        self.those(|node| node.number == number)
    }

    /// What settles in a directory.
    pub(crate) fn within(&self, directory: u64) -> Vec<Arc<Settles>> {
        self.those(|node| node.place().0 == directory)
    }

    /// All.
    pub(crate) fn all(&self) -> Vec<Arc<Settles>> {
        self.those(|_| true)
    }

    fn those(&self, is_one: impl Fn(&Node) -> bool) -> Vec<Arc<Settles>> {
        let files = self.lock();
        files
            .iter()
            .filter(|file| is_one(&file.node) && file.is_awaited())
            .cloned()
            .collect()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.settling
            .lock()
            .retain(|file| !Arc::ptr_eq(file, &self.file));
        *self.file.stage() = Stage::Ended;
        self.file.changed.notify_all();
    }
}
