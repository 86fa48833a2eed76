//! Named steps at which a test may have the program die.

use std::fs::File;

use crate::edit::Splice;

/// Says that `step` has been reached.
///
/// In a build with debug assertions, and only there, the environment variable `SIGNDROP_DIE_AT=STEP:N` has the program send
/// itself SIGKILL when `STEP` is reached for the N-th time, which is how the tests show what a crash leaves behind.
pub(crate) fn reached(step: &'static str) {
    #[cfg(debug_assertions)]
    debug::die_if_asked(step);
    #[cfg(not(debug_assertions))]
    let _ = step;
}

/// Where a test has asked for it, writes a part of `splice` and dies, as a machine may that loses power.
pub(crate) fn write_torn(file: &File, splice: &Splice) {
    #[cfg(debug_assertions)]
    debug::write_torn_if_asked(file, splice);
    #[cfg(not(debug_assertions))]
    let _ = (file, splice);
}

#[cfg(debug_assertions)]
mod debug {
    use std::{
        fs::File,
        os::unix::fs::FileExt as _,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    use rustix::process::{Signal, getpid, kill_process};

    static DIE_AT: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("SIGNDROP_DIE_AT").ok()?;
        let (step, count) = text.rsplit_once(':')?;
        Some((step.to_owned(), count.parse().ok()?))
    });
    static SEEN: AtomicU64 = AtomicU64::new(0);

    fn is_asked(step: &str) -> bool {
        DIE_AT.as_ref().is_some_and(|(wanted, count)| {
            step == wanted && SEEN.fetch_add(1, Ordering::SeqCst) + 1 == *count
        })
    }

    pub(super) fn die_if_asked(step: &str) {
        if is_asked(step) {
            // Nothing follows SIGKILL.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }

    pub(super) fn write_torn_if_asked(file: &File, splice: &crate::edit::Splice) {
        if is_asked("torn") {
            // Up to the end of the file's first sector: a power cut ends between sectors, never within one.
            let part = splice.new.get(..416).unwrap_or(&splice.new);
            let _ = file.write_all_at(part, splice.at);
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}
