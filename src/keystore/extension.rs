//! Keys whose validity is prolonged.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Error, KeyEntry, Keystore, Record, decode, encode, unix_seconds};
use crate::{config::Validity, identity::Identity, signer, store};

/// How long to wait at the most until it is another second than that of the newest self-signature.
const SECOND: Duration = Duration::from_secs(1);

impl Keystore {
    /// Gives the identity's key a later end, counted from now, and answers it, or nothing where there is none. It is on the disk when this
    /// returns. The caller holds [`Keystore::lock`].
    ///
    /// # Errors
    /// [`Error::Earlier`], where the key is valid for longer already, and [`Error::TooLate`] stay; those of the store may pass.
    pub fn extend(
        &self,
        identity: &Identity,
        validity: Validity,
    ) -> Result<Option<KeyEntry>, Error> {
        store::check()?;
        let name = identity.as_str();
        let Some(bytes) = self.keys.find(name.as_bytes())? else {
            return Ok(None);
        };
        let record: Record = decode(&bytes, name)?;
        let Some(entry) = self.entry(identity.clone(), record.clone())? else {
            return Ok(None);
        };
        let certificate = entry.certificate()?;
        let now = later_than(certificate.newest_self_signature());
        let lifetime = validity
            .since(entry.created, unix_seconds(now))
            .ok_or_else(|| Error::TooLate(identity.to_string()))?;
        let expires = lifetime.map(|time| entry.created + time.as_secs());
        let is_later = match (entry.expires, expires) {
            (Some(old), Some(new)) => new > old,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !is_later {
            return Err(Error::Earlier(identity.to_string()));
        }
        let secret = self.unlock(&entry)?;
        let sign = |digest, hash: &[u8]| secret.sign(digest, hash).map_err(signer::Error::from);
        let extended = certificate.extended(&sign, now, lifetime)?;
        let entry = KeyEntry {
            expires,
            certificate: extended.to_bytes()?,
            ..entry
        };
        let record = match record {
            Record::Key {
                algorithm,
                fingerprint,
                created,
                secret,
                former,
                ..
            } => Record::Key {
                algorithm,
                fingerprint,
                created,
                expires,
                certificate: entry.certificate.clone(),
                secret,
                former,
            },
            tombstone @ Record::Tombstone { .. } => tombstone,
        };
        self.keys.set(name.as_bytes(), encode(&record, name)?)?;
        self.store.flush()?;
        Ok(Some(entry))
    }
}

/// Now, or the next second where the last one is that of `other`: of two self-signatures of one second, neither is the newer.
pub fn later_than(other: Option<SystemTime>) -> SystemTime {
    let now = SystemTime::now();
    let earliest = other.map_or(UNIX_EPOCH, |other| other + SECOND);
    let pause = earliest.duration_since(now).unwrap_or_default();
    // One that is further in the future was made by a clock that was wrong, and is not waited for.
    thread::sleep(pause.min(SECOND));
    earliest.max(SystemTime::now())
}
