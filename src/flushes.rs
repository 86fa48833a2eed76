//! Flushes that are shared by all who wait for one at the same time.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, PoisonError},
};

/// Lets callers share flushes: each waits for one that began after it came, so that a thousand of them cost a few.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many flushes have begun.
    begun: u64,
    /// How many flushes have ended.
    ended: u64,
    /// Why the last flush failed, if it did.
    failure: Option<String>,
}

impl Flushes {
    /// Returns when a flush that began after the call has ended: another's, or `flush` itself.
    ///
    /// # Errors
    /// Why that flush failed.
    pub(crate) fn join(&self, flush: impl FnOnce() -> io::Result<()>) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = state.begun + 1;
        while state.begun > state.ended && state.ended < mine {
            state = self
                .ended
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.ended >= mine {
            return match &state.failure {
                Some(reason) => Err(reason.clone()),
                None => Ok(()),
            };
        }
        state.begun += 1;
        drop(state);
        // Whoever waits has to hear of an end, be it by a panic.
        let result = catch_unwind(AssertUnwindSafe(flush))
            .unwrap_or_else(|_| Err(io::Error::other("panic")))
            .map_err(|error| error.to_string());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ended += 1;
        state.failure = result.as_ref().err().cloned();
        self.ended.notify_all();
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn callers_share_flushes_and_each_has_one_that_began_after_it_came() {
        let (flushes, written, flushed, count) = (
            Flushes::default(),
            AtomicU64::new(0),
            AtomicU64::new(0),
            AtomicU64::new(0),
        );
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let mine = written.fetch_add(1, Ordering::SeqCst) + 1;
                        let flush = || {
                            count.fetch_add(1, Ordering::SeqCst);
                            let all = written.load(Ordering::SeqCst);
                            std::thread::yield_now();
                            flushed.fetch_max(all, Ordering::SeqCst);
                            Ok(())
                        };
                        flushes.join(flush).unwrap();
                        assert!(flushed.load(Ordering::SeqCst) >= mine);
                    }
                });
            }
        });
        assert!(count.into_inner() < 3200);
    }

    #[test]
    fn a_flush_that_fails_or_panics_is_told_and_the_next_one_begins_anew() {
        let flushes = Flushes::default();
        assert!(flushes.join(|| Err(io::Error::other("full"))).is_err());
        assert!(
            flushes
                .join(|| std::panic::resume_unwind(Box::new(())))
                .is_err()
        );
        assert!(flushes.join(|| Ok(())).is_ok());
    }
}
