//! Files whose writers were answered that they are finished, though they are not seen yet: who looks for one waits for it.

use std::{
    ffi::OsStr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::node::Node;

/// All that settles.
#[derive(Debug, Default)]
pub(crate) struct Settling(Mutex<Vec<Arc<Settles>>>);

/// One file that settles.
#[derive(Debug)]
pub(crate) struct Settles {
    node: Arc<Node>,
    has_ended: Mutex<bool>,
    ended: Condvar,
}

/// Ends the settling of a file when it is dropped, whatever came of it.
#[derive(Debug)]
pub(crate) struct Ending {
    settling: Arc<Settling>,
    file: Arc<Settles>,
}

impl Settles {
    /// Waits until the file is seen, or is not going to be.
    pub(crate) fn wait(&self) {
        let has_ended = self
            .has_ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let ended = self.ended.wait_while(has_ended, |has_ended| !*has_ended);
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Settling {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Settles>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on, whoever looks for the file waits.
    pub(crate) fn begin(self: &Arc<Self>, node: &Arc<Node>) -> Ending {
        let file = Arc::new(Settles {
            node: node.clone(),
            has_ended: Mutex::new(false),
            ended: Condvar::new(),
        });
        self.lock().push(file.clone());
        Ending {
            settling: self.clone(),
            file,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
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
        self.lock().clone()
    }

    fn those(&self, is_one: impl Fn(&Node) -> bool) -> Vec<Arc<Settles>> {
        let files = self.lock();
        files
            .iter()
            .filter(|file| is_one(&file.node))
            .cloned()
            .collect()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.settling
            .lock()
            .retain(|file| !Arc::ptr_eq(file, &self.file));
        let mut has_ended = self
            .file
            .has_ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *has_ended = true;
        self.file.ended.notify_all();
    }
}
