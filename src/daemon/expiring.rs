//! Keys that expire soon, so that somebody prolongs them before packages are refused.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::Daemon;
use crate::{identity::Identity, keystore, record::now};

/// How soon is soon, in seconds.
const SOON: u64 = 90 * 24 * 60 * 60;
/// How long what was found is good for at the least.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// And at the least this many times as long as finding it took, so that it never costs more than a hundredth of a processor.
const SHARE: u32 = 100;

/// A key that expires soon, or has expired.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExpiringKey {
    /// The e-mail that names the key.
    pub identity: Identity,
    /// When, in Unix seconds.
    pub expires: u64,
}

/// What the last look at all keys has found.
#[derive(Debug, Default)]
pub(super) struct Expiring {
    look: Mutex<Option<Look>>,
}

#[derive(Debug)]
struct Look {
    good_until: Instant,
    found: Vec<ExpiringKey>,
}

impl Daemon {
    /// The keys that expire within 90 days or have expired, the first to expire first. Keys that were made within the last minute, or
    /// longer where there are very many, may be missing.
    ///
    /// # Errors
    /// Those of the keystore.
    pub fn expiring_keys(&self) -> Result<Vec<ExpiringKey>, keystore::Error> {
        let mut look = self
            .expiring
            .look
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = look
            .as_ref()
            .filter(|look| Instant::now() < look.good_until)
        {
            return Ok(look.found.clone());
        }
        let began = Instant::now();
        let found = self.find_expiring()?;
        *look = Some(Look {
            good_until: Instant::now() + GOOD_FOR.max(began.elapsed() * SHARE),
            found: found.clone(),
        });
        Ok(found)
    }

    /// Has the next question looked at all keys anew: one of them has another end.
    pub fn forget_expiring_keys(&self) {
        *self
            .expiring
            .look
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn find_expiring(&self) -> Result<Vec<ExpiringKey>, keystore::Error> {
        let soon = now() + SOON;
        let mut found = Vec::new();
        for entry in self.keyring.keystore().entries(None) {
            let entry = entry?;
            if let Some(expires) = entry.expires.filter(|at| *at <= soon) {
                found.push(ExpiringKey {
                    identity: entry.identity,
                    expires,
                });
            }
        }
        found.sort_by_key(|key| key.expires);
        Ok(found)
    }
}
