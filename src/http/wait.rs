//! `POST /v1/wait`: the barrier over HTTP.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Channel};
use hyper::{
    Response, StatusCode,
    body::{Bytes, Frame},
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use super::{
    answer::{Answer, Problem, json},
    keys::parse,
};
use crate::{
    arrival::reason,
    barrier::{self, Progress, Wait},
    daemon::Daemon,
};

/// How long a wait lasts at the most, unless the request says another time: longer than any build takes.
const TIMEOUT: u64 = 24 * 60 * 60;
/// How often a client that asked for it hears how far the wait has come.
const PROGRESS: Duration = Duration::from_millis(500);
/// The media type that asks for a line now and then instead of one answer at the end.
const LINES: &str = "application/x-ndjson";

/// What is waited for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitRequest {
    /// Files or directories, absolute, each in or above a drop directory.
    pub paths: Vec<PathBuf>,
    /// How long, in seconds; a day where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// How far a wait has come, or how it ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct WaitAnswer {
    /// How it stands.
    pub state: WaitState,
    /// How many artifacts were found so far.
    pub found: u64,
    /// How many of them have an outcome.
    pub settled: u64,
    /// Those that failed, told at the end; bytes of paths that are not UTF-8 are replaced.
    pub failed: Vec<FailedArtifact>,
}

/// How a wait stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitState {
    /// Not everything has an outcome yet.
    Waiting,
    /// Everything has an outcome.
    Settled,
    /// The time is over.
    TimedOut,
}

/// An artifact that failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct FailedArtifact {
    /// The artifact.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl WaitAnswer {
    fn new(state: WaitState, progress: Progress) -> Self {
        Self {
            state,
            found: progress.found,
            settled: progress.settled,
            failed: progress
                .failed
                .into_iter()
                .map(|(path, reason)| FailedArtifact {
                    path: path.to_string_lossy().into_owned(),
                    reason,
                })
                .collect(),
        }
    }
}

pub(super) async fn answer(
    daemon: Arc<Daemon>,
    accept: &str,
    body: &[u8],
    mut stopping: watch::Receiver<()>,
) -> Result<Answer, Problem> {
    let request: WaitRequest = parse(body)?;
    if request.paths.is_empty() {
        return Err(Problem::bad_request("paths is empty"));
    }
    let timeout = Duration::from_secs(request.timeout.unwrap_or(TIMEOUT).min(TIMEOUT));
    let waiting = Waiting(Arc::default());
    let wait = waiting.0.clone();
    let end = async move {
        let settled = async {
            look(&daemon, &waiting.0, request.paths).await?;
            waiting.0.settled().await;
            Ok::<_, Problem>(())
        };
        let settled = tokio::select! {
            settled = tokio::time::timeout(timeout, settled) => settled,
            // Nothing is settled any more, so what is not would be waited for in vain.
            _ = stopping.changed() => return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the daemon is stopping; wait again when it is back",
            )),
        };
        let state = match settled {
            Ok(settled) => settled.map(|()| WaitState::Settled)?,
            Err(_) => WaitState::TimedOut,
        };
        Ok(WaitAnswer::new(state, waiting.0.progress()))
    };
    if accept.contains(LINES) {
        Ok(lines(wait, end))
    } else {
        drop(wait);
        Ok(json(StatusCode::OK, &end.await?))
    }
}

/// A wait that is given up when it is dropped, as when the client goes away.
struct Waiting(Arc<Wait>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Looks at the paths on a thread of its own; not on all of them at once, so that there is always one for other requests.
async fn look(daemon: &Arc<Daemon>, wait: &Arc<Wait>, paths: Vec<PathBuf>) -> Result<(), Problem> {
    static LOOKS: Semaphore = Semaphore::const_new(16);
    // Nobody closes the semaphore.
    let permit = LOOKS.acquire().await.ok();
    let (wait, daemon) = (wait.clone(), daemon.clone());
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        barrier::look(&wait, &paths, &daemon.config(), &daemon.way, &daemon.queue)
    })
    .await?
    .map_err(|error| refused(&error))
}

fn refused(error: &barrier::Error) -> Problem {
    match error {
        barrier::Error::NotAbsolute(_) => Problem::bad_request(reason(error)),
        barrier::Error::NotDropped(_) => Problem::not_found(reason(error)),
        barrier::Error::Walk(cause) if cause.may_pass() => Problem::not_found(reason(error)),
        barrier::Error::Walk(_) => Problem::bad_request(reason(error)),
    }
}

/// An answer that tells now and then how far the wait has come, a JSON object a line; the last line is the end, or a problem.
fn lines(
    wait: Arc<Wait>,
    end: impl Future<Output = Result<WaitAnswer, Problem>> + Send + 'static,
) -> Answer {
    let (mut sender, body) = Channel::<Bytes>::new(1);
    tokio::spawn(async move {
        let mut end = std::pin::pin!(end);
        let mut tick = tokio::time::interval(PROGRESS);
        loop {
            let (last, line) = tokio::select! {
                result = &mut end => (true, match result {
                    Ok(answer) => line(&answer),
                    Err(problem) => line(&problem),
                }),
                // What failed is told at the end, once.
                _ = tick.tick() => {
                    (false, line(&WaitAnswer::new(WaitState::Waiting, wait.counts())))
                }
            };
            // A client that has gone away waits no more.
            if sender.send(Frame::data(line)).await.is_err() {
                return;
            }
            if last {
                // The body may end before a frame that is sent while it looks for the sender's end. This one waits until the last line
                // has been taken, and is nothing by itself.
                let _ = sender.send(Frame::data(Bytes::new())).await;
                return;
            }
        }
    });
    let mut answer = Response::new(body.boxed());
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(LINES));
    answer
}

fn line<T: Serialize>(value: &T) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
