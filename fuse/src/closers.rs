//! The threads on which files are finished, so that those that answer the kernel never wait for it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

type Work = Box<dyn FnOnce() + Send>;

/// Threads that finish files.
#[derive(Debug)]
pub(crate) struct Closers {
    sender: Mutex<Option<Sender<Work>>>,
    receiver: Arc<Mutex<Receiver<Work>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Default for Closers {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self {
            sender: Mutex::new(Some(sender)),
            receiver: Arc::new(Mutex::new(receiver)),
            threads: Mutex::default(),
        }
    }
}

impl Closers {
    /// Starts so many threads.
    pub(crate) fn start(&self, name: &str, count: usize) -> std::io::Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for number in 0..count {
            let receiver = self.receiver.clone();
            threads.push(
                thread::Builder::new()
                    .name(format!("{name}-{number}"))
                    .spawn(move || {
                        loop {
                            let work = receiver
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .recv();
                            let Ok(work) = work else { return };
                            // A fault of one must not take the thread from all others. It has been told.
                            let _ = catch_unwind(AssertUnwindSafe(work));
                        }
                    })?,
            );
        }
        Ok(())
    }

    /// Does the work on one of the threads. Dropped where they have ended: whoever waits is answered by that.
    pub(crate) fn hand_over(&self, work: impl FnOnce() + Send + 'static) {
        drop(self.take(Box::new(work)));
    }

    /// Does the work on one of the threads, or here where they have ended.
    pub(crate) fn hand_over_or_do(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(work) = self.take(Box::new(work)) {
            work();
        }
    }

    /// Answers the work where nobody takes it.
    fn take(&self, work: Work) -> Option<Work> {
        let sender = self
            .sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match sender {
            Some(sender) => sender.send(work).err().map(|unsent| unsent.0),
            None => Some(work),
        }
    }

    /// Ends the threads when they have done what was handed over.
    pub(crate) fn end(&self) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}
