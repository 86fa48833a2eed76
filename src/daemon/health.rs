//! Whether the daemon can do its work.

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

impl Daemon {
    /// Asks every part; writes to the store to see whether it can be written. A daemon that runs has the right master key.
    pub fn health(&self) -> Health {
        let mut troubles = Vec::new();
        if let Err(error) = self.keyring.keystore().probe() {
            troubles.push(format!("store: {}", reason(&error)));
        }
        for drop in &self.config().drops {
            let root = drop.root.display();
            match self.watches.watched(&drop.root) {
                Watched::Fully => {}
                Watched::Beginning => troubles.push(format!("{root}: the watches are being set")),
                Watched::Partly(why) => troubles.push(format!("{root}: {why}")),
            }
        }
        Health {
            ready: troubles.is_empty(),
            troubles,
        }
    }
}
