//! Whether the daemon can do its work.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{Daemon, watches::Watched};
use crate::arrival::reason;

/// What has to be right for arrivals to be signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether all is right.
    pub ready: bool,
    /// What is wrong, each with the place it is about.
    pub troubles: Vec<String>,
}

/// How long the store's answer counts, so that questions cannot wear it out.
const PROBE: Duration = Duration::from_secs(1);

impl Daemon {
    /// What is wrong with the store, if anything.
    fn probe(&self) -> Option<String> {
        let mut probed = self.probed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, answer)) = &*probed
            && at.elapsed() < PROBE
        {
            return answer.clone();
        }
        let answer = self
            .keyring
            .keystore()
            .probe()
            .err()
            .map(|error| reason(&error));
        *probed = Some((Instant::now(), answer.clone()));
        answer
    }

    /// Asks every part; writes to the store to see whether it can be written. A daemon that runs has the right master key.
    pub fn health(&self) -> Health {
        let mut troubles = Vec::new();
        if let Some(error) = self.probe() {
            troubles.push(format!("store: {error}"));
        }
        for drop in &self.config().drops {
            let root = drop.root.display();
            match self.watches.watched(&drop.root) {
                Watched::Fully => {}
                Watched::Beginning => troubles.push(format!("{root}: the watches are being set")),
                Watched::Partly(why) => troubles.push(format!("{root}: {why}")),
            }
        }
        troubles.extend(self.mount_troubles());
        Health {
            ready: troubles.is_empty(),
            troubles,
        }
    }
}
