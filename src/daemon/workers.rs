//! The threads that take arrivals from the queue and settle them.

use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::Daemon;
use crate::{
    arrival::{Freshness, Settlement, reason},
    queue::{Job, Next},
    record::{Lasting, Outcome, Record},
};

/// Workers for each processor: most of their time goes by waiting for disks.
const PER_PROCESSOR: usize = 8;
/// How often it is seen whether an RSA key should be prepared.
const PREPARE: Duration = Duration::from_secs(1);

/// The threads that run.
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(super) fn start(daemon: &Arc<Daemon>) -> Self {
        let count = daemon.config().workers.map_or_else(
            || thread::available_parallelism().map_or(1, NonZeroUsize::get) * PER_PROCESSOR,
            NonZeroUsize::get,
        );
        let mut threads = Vec::new();
        for number in 0..count {
            threads.extend(spawn(format!("worker-{number}"), daemon, |daemon| {
                while let Some(job) = daemon.queue.next() {
                    work(daemon, &job);
                }
            }));
        }
        // Not joined: they may be in the middle of finding primes, or of a walk through many records, when the daemon stops.
        drop(spawn("prepare".into(), daemon, prepare));
        drop(spawn("forget".into(), daemon, super::watches::forget));
        Self { threads }
    }

    /// Waits until each has ended what it was working on.
    pub(super) fn join(self) {
        for thread in self.threads {
            // A worker that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn spawn(
    name: String,
    daemon: &Arc<Daemon>,
    body: impl FnOnce(&Daemon) + Send + 'static,
) -> Option<JoinHandle<()>> {
    let daemon = daemon.clone();
    thread::Builder::new()
        .name(name)
        .spawn(move || body(&daemon))
        .inspect_err(|error| tracing::error!(%error, "cannot start a thread"))
        .ok()
}

fn work(daemon: &Daemon, job: &Job) {
    let config = daemon.config();
    let arrival = &job.arrival;
    let Some(drop) = config.drops.iter().find(|drop| drop.root == arrival.root) else {
        // The directory was taken out of the configuration.
        return daemon.queue.done(arrival, Next::Done(None));
    };
    // One bad file must not end a worker; a panic leaves the file as a failure of any other kind does.
    let settled = catch_unwind(AssertUnwindSafe(|| {
        daemon
            .way
            .settle(drop, &arrival.relative, job.why, &config.keys)
    }))
    .or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panic".into());
        catch_unwind(AssertUnwindSafe(|| {
            daemon.way.internal_error(drop, &arrival.relative, message)
        }))
    });
    let next = match settled.unwrap_or(Settlement::Nothing) {
        Settlement::Nothing => Next::Done(None),
        Settlement::Again => Next::Again,
        Settlement::BeingWritten => Next::BeingWritten,
        Settlement::Settled(record, freshness) => {
            if freshness == Freshness::Fresh {
                tell(daemon, &arrival.root, &arrival.path(), job.since, &record);
            }
            match record.lasting {
                Lasting::Stays => Next::Done(Some(record)),
                Lasting::MayPass => Next::Retry(record),
            }
        }
    };
    daemon.queue.done(arrival, next);
}

/// Counts and logs an outcome.
pub(super) fn tell(daemon: &Daemon, root: &Path, artifact: &Path, since: Instant, record: &Record) {
    let latency = since.elapsed();
    daemon
        .metrics
        .settled(&root.to_string_lossy(), record.outcome, latency);
    // Debug, so that control characters in names cannot forge lines of the log.
    let (artifact, outcome) = (artifact.as_os_str(), record.outcome.name());
    match record.outcome {
        Outcome::Failed => {
            let retry = record.lasting == Lasting::MayPass;
            tracing::warn!(?artifact, outcome, reason = ?record.reason, retry, "settled");
        }
        Outcome::Ignored => tracing::info!(?artifact, outcome, reason = ?record.reason, "settled"),
        Outcome::Signed | Outcome::Unsigned | Outcome::Unchanged => {
            tracing::info!(
                ?artifact,
                outcome,
                latency_ms = latency.as_secs_f64() * 1e3,
                "settled"
            );
        }
    }
}

/// Keeps some RSA keys ready while there is nothing else to do.
fn prepare(daemon: &Daemon) {
    loop {
        let keys = &daemon.config().keys;
        if daemon.queue.is_closed() {
            return;
        }
        let prepared = daemon.queue.is_empty()
            && match daemon
                .keyring
                .keystore()
                .prepare(keys.algorithm, keys.prepared)
            {
                Ok(prepared) => prepared,
                Err(error) => {
                    tracing::error!(error = reason(&error), "cannot prepare a key");
                    thread::sleep(Duration::from_secs(10));
                    false
                }
            };
        if !prepared {
            thread::sleep(PREPARE);
        }
    }
}
