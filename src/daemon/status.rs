//! What `signdrop status` shows.

use std::{cmp::Reverse, collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Daemon, ExpiringKey, MountStatus};
use crate::{
    config::Action,
    keystore,
    record::{Lasting, Outcome},
};

/// How many failures are shown of each drop directory.
const FAILURES: usize = 10;
/// How many keys are shown that expire soon.
const EXPIRING: usize = 10;

/// A report on the whole daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// How long it has run, in seconds.
    pub uptime_seconds: u64,
    /// Whether it can do its work.
    pub ready: bool,
    /// What is wrong.
    pub troubles: Vec<String>,
    /// How many keys there are.
    pub keys: u64,
    /// How many of them expire within 90 days or have expired.
    pub keys_expiring: u64,
    /// The first of these to expire.
    pub expiring: Vec<ExpiringKey>,
    /// The drop directories.
    pub drops: Vec<DropStatus>,
    /// The mounts.
    pub mounts: Vec<MountStatus>,
}

/// A report on one drop directory.
#[derive(Debug, Serialize, Deserialize)]
pub struct DropStatus {
    /// The directory.
    pub root: PathBuf,
    /// What is done with artifacts.
    pub action: Action,
    /// How many artifacts got each outcome since the start.
    pub counts: BTreeMap<String, u64>,
    /// How many arrivals wait for a worker or are being worked on.
    pub queue: usize,
    /// How many files somebody is writing.
    pub being_written: usize,
    /// How long the oldest of these has waited, in seconds.
    pub oldest_waiting_seconds: Option<f64>,
    /// How many artifacts are failed now.
    pub failed: usize,
    /// The last of them.
    pub failures: Vec<Failure>,
}

/// An artifact that failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The artifact; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Why.
    pub reason: String,
    /// When, in Unix seconds.
    pub at: u64,
    /// Whether it is tried again.
    pub retry: bool,
}

impl Daemon {
    /// What the daemon does, and what it could not do.
    ///
    /// # Errors
    /// Those of the store, which may pass.
    pub fn status(&self) -> Result<Status, keystore::Error> {
        let health = self.health();
        let mut drops = Vec::new();
        for drop in &self.config().drops {
            let root = drop.root.to_string_lossy();
            let counts = Outcome::ALL
                .into_iter()
                .map(|outcome| {
                    let count = self.metrics.count(&root, outcome);
                    (outcome.name().to_owned(), count)
                })
                .collect();
            let mut failures = Vec::new();
            for failed in self.way.records.failed_below(&drop.root) {
                let (path, record) = failed?;
                failures.push(Failure {
                    path: path.to_string_lossy().into_owned(),
                    reason: record.reason,
                    at: record.at,
                    retry: record.lasting == Lasting::MayPass,
                });
            }
            let failed = failures.len();
            failures.sort_by_key(|failure| Reverse(failure.at));
            failures.truncate(FAILURES);
            let waiting = self.queue.waiting_below(&drop.root);
            drops.push(DropStatus {
                root: drop.root.clone(),
                action: drop.action,
                counts,
                queue: waiting.queued,
                being_written: waiting.being_written,
                oldest_waiting_seconds: waiting.oldest.map(|age| age.as_secs_f64()),
                failed,
                failures,
            });
        }
        let mut expiring = self.expiring_keys()?;
        let keys_expiring = expiring.len() as u64;
        expiring.truncate(EXPIRING);
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: health.ready,
            troubles: health.troubles,
            keys: self.keyring.keystore().count()?,
            keys_expiring,
            expiring,
            drops,
            mounts: self.mount_status(),
        })
    }
}
