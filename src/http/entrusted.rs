//! Requests about keys that clients keep.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    answer::{Answer, Problem, json},
    keys::{KeyRequest, SignRequest, signed},
};
use crate::{
    daemon::Daemon,
    digest::Digest,
    identity::Identity,
    keystore::{EntrustedKey, Error, VaultError},
    signer::Purpose,
};

/// A wish for a key that the client keeps.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntrustedKeyRequest {
    /// For whom it signs.
    pub user: Identity,
    /// What it is to be; its `identity` is the e-mail in the user id.
    pub key: KeyRequest,
}

/// A wish for an OpenPGP signature by a key that the client keeps.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntrustedSignRequest {
    /// For whom the key was made.
    pub user: Identity,
    /// The key as the client keeps it, in hexadecimal.
    pub private_key: String,
    /// What made the hash.
    pub digest: Digest,
    /// The hash in hexadecimal.
    pub hash: String,
}

pub(super) fn create(daemon: &Daemon, request: EntrustedKeyRequest) -> Result<Answer, Problem> {
    let new = request
        .key
        .into_new_key(&daemon.config().keys)
        .map_err(Problem::bad_request)?;
    let made = daemon.make_entrusted_key(&request.user, &new)?;
    Ok(json(StatusCode::CREATED, &made))
}

pub(super) fn sign(
    daemon: &Daemon,
    caller: Option<u32>,
    request: &EntrustedSignRequest,
) -> Result<Answer, Problem> {
    let user = &request.user;
    let key: EntrustedKey = request
        .private_key
        .parse()
        .map_err(|error| Problem::bad_request(format!("private_key: {error}")))?;
    let lent = daemon.keyring.keystore().unlock_entrusted(user, &key);
    let lent = lent.map_err(|error| match error {
        Error::Vault(VaultError::Sealed) => Problem::bad_request(format!(
            "private_key: it was not made for {user} here, or is damaged"
        )),
        error => error.into(),
    })?;
    let request = SignRequest {
        digest: request.digest,
        hash: request.hash.clone(),
        purpose: Purpose::OpenPgp,
    };
    signed(&lent, user, caller, &request)
}
