//! Flushes that are shared by all who wait for one at the same time.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, PoisonError},
};

/// Lets callers share flushes: each waits for one that began after it came, so that a thousand of them cost a few.
///
/// One that has failed is the last: the kernel tells of a write that failed once only, and may have tried what others wrote, too, so that the
/// next flush would succeed without any of it being on the disk (fsync(2), "Errors").
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
    /// Why a flush failed, if one did.
    failure: Option<String>,
}

impl Flushes {
    /// Returns when a flush that began after the call has ended: another's, or `flush` itself.
    ///
    /// # Errors
    /// Why that flush failed, or an earlier one.
    pub(crate) fn join(&self, flush: impl FnOnce() -> io::Result<()>) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = state.begun + 1;
        while state.begun > state.ended && state.ended < mine {
            state = self
                .ended
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(reason) = &state.failure {
            return Err(reason.clone());
        }
        if state.ended >= mine {
            return Ok(());
        }
        state.begun += 1;
        drop(state);
        // Whoever waits has to hear of an end, be it by a panic.
        let result = catch_unwind(AssertUnwindSafe(flush))
            .unwrap_or_else(|_| Err(io::Error::other("panic")))
            .map_err(|error| error.to_string());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ended += 1;
        if let Err(reason) = &result {
            state.failure.get_or_insert_with(|| reason.clone());
        }
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
    fn a_flush_that_fails_or_panics_is_told_to_all_who_come_later() {
        let full = || Err(io::Error::other("full"));
        let panics = || std::panic::resume_unwind(Box::new(()));
        for fail in [&full as &dyn Fn() -> io::Result<()>, &panics] {
            let flushes = Flushes::default();
            flushes.join(|| Ok(())).unwrap();
            let reason = flushes.join(fail).unwrap_err();
            assert_eq!(flushes.join(|| Ok(())).unwrap_err(), reason);
        }
    }
}
