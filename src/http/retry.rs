//! `POST /v1/retry`: tries again what mounts hold back.

use std::path::PathBuf;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    answer::{Answer, Problem, json},
    keys::parse,
};
use crate::daemon::{Daemon, not_mounted};

/// What is tried again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// Files or directories, absolute, each in a mount.
    pub paths: Vec<PathBuf>,
}

pub(super) fn answer(daemon: &Daemon, body: &[u8]) -> Result<Answer, Problem> {
    let request: RetryRequest = parse(body)?;
    let mut all = Vec::new();
    for path in &request.paths {
        let retried = daemon.retry(path);
        all.extend(retried.ok_or_else(|| Problem::not_found(not_mounted(path)))?);
    }
    Ok(json(StatusCode::OK, &all))
}
