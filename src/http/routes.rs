//! Which request goes where, and through which door it may come.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
};
use matchit::Router;
use percent_encoding::percent_decode_str;
use tokio::sync::{Semaphore, watch};

use super::{
    OPENAPI,
    answer::{Answer, Problem, bytes, json, not_allowed, text},
    entrusted::{self, EntrustedSignRequest},
    gen_key,
    keys::{self, Encoding, ExtendRequest, Missing, SignRequest},
    retry, wait,
};
use crate::{daemon::Daemon, identity::Identity};

/// Bytes that a request's body may have at the most.
const BODY_LIMIT: usize = 1 << 20;
/// The same over TCP, where nobody is authenticated and only small bodies make sense.
const TCP_BODY_LIMIT: usize = 64 << 10;
/// How long a client may take to send a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests that are worked on at once, of those that came by TCP: far fewer than there are threads, so that whoever may only come by TCP
/// cannot keep others waiting. Nobody closes these semaphores.
static TCP: Semaphore = Semaphore::const_new(8);
/// Those of them that may have to generate a key, which takes a processor for a second.
static TCP_GENERATING: Semaphore = Semaphore::const_new(2);
/// Requests over Unix sockets that may have to generate a key: not on all threads at once, so that there is always one for others.
static GENERATING: Semaphore = Semaphore::const_new(16);

/// What a connection came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// A Unix socket: whoever may open it may do everything, but for what the configuration gives to some users only. The number
    /// is the user's, as the kernel says (unix(7), `SO_PEERCRED`).
    Unix(Option<u32>),
    /// TCP on this machine: nobody is authenticated.
    Tcp,
}

impl Door {
    /// The user at the other end, where the kernel names one.
    fn user(self) -> Option<u32> {
        match self {
            Self::Unix(user) => user,
            Self::Tcp => None,
        }
    }
}

/// What a path is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Ping,
    Live,
    Ready,
    Metrics,
    OpenApi,
    GenKey,
    Keys,
    Key,
    Extend,
    PublicKey,
    Certificate(Encoding),
    Sign,
    EntrustedKeys,
    EntrustedSign,
    Wait,
    Retry,
    Status,
}

impl Route {
    /// The methods that the path takes, for its `Allow` header.
    fn methods(self) -> &'static str {
        match self {
            Self::Ping
            | Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::OpenApi
            | Self::PublicKey
            | Self::Certificate(_)
            | Self::Status => "GET",
            Self::GenKey
            | Self::Extend
            | Self::Sign
            | Self::EntrustedKeys
            | Self::EntrustedSign
            | Self::Wait
            | Self::Retry => "POST",
            Self::Keys => "GET, POST",
            Self::Key => "GET, DELETE",
        }
    }

    /// How the path tells a problem: copr-keygen's know text only.
    fn problem(self) -> fn(Problem) -> Answer {
        match self {
            Self::GenKey => |problem| problem.permanent_as_bad_request().into_text(),
            Self::Ping => Problem::into_text,
            Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::OpenApi
            | Self::Keys
            | Self::Key
            | Self::Extend
            | Self::PublicKey
            | Self::Certificate(_)
            | Self::Sign
            | Self::EntrustedKeys
            | Self::EntrustedSign
            | Self::Wait
            | Self::Retry
            | Self::Status => Problem::into_answer,
        }
    }

    /// Whether TCP offers it: what anybody on the machine may do.
    fn is_open_to_all(self) -> bool {
        match self {
            Self::Ping
            | Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::OpenApi
            | Self::GenKey
            | Self::PublicKey
            | Self::Certificate(_) => true,
            Self::Keys
            | Self::Key
            | Self::Extend
            | Self::Sign
            | Self::EntrustedKeys
            | Self::EntrustedSign
            | Self::Wait
            | Self::Retry
            | Self::Status => false,
        }
    }
}

fn router() -> Router<Route> {
    let mut router = Router::new();
    for (path, route) in [
        ("/ping", Route::Ping),
        ("/livez", Route::Live),
        ("/readyz", Route::Ready),
        ("/metrics", Route::Metrics),
        ("/openapi.json", Route::OpenApi),
        ("/gen_key", Route::GenKey),
        ("/v1/keys", Route::Keys),
        ("/v1/keys/{email}", Route::Key),
        ("/v1/keys/{email}/extend", Route::Extend),
        ("/v1/keys/{email}/public.asc", Route::PublicKey),
        (
            "/v1/keys/{email}/certificate.pem",
            Route::Certificate(Encoding::Pem),
        ),
        (
            "/v1/keys/{email}/certificate.der",
            Route::Certificate(Encoding::Der),
        ),
        ("/v1/keys/{email}/sign", Route::Sign),
        ("/v1/entrusted-keys", Route::EntrustedKeys),
        ("/v1/entrusted-keys/sign", Route::EntrustedSign),
        ("/v1/wait", Route::Wait),
        ("/v1/retry", Route::Retry),
        ("/v1/status", Route::Status),
    ] {
        #[expect(clippy::expect_used, reason = "the paths above do not conflict")]
        router.insert(path, route).expect("routes are distinct");
    }
    router
}

/// Answers one request.
///
/// `stopping` changes when the daemon stops, which ends what would go on waiting.
pub(super) async fn answer(
    daemon: &Arc<Daemon>,
    door: Door,
    request: Request<Incoming>,
    stopping: watch::Receiver<()>,
) -> Answer {
    static ROUTER: std::sync::LazyLock<Router<Route>> = std::sync::LazyLock::new(router);
    let path = request.uri().path().to_owned();
    let Ok(found) = ROUTER.at(&path) else {
        return Problem::not_found(format!("there is no {path}; see /openapi.json")).into_answer();
    };
    let route = *found.value;
    if door == Door::Tcp && !route.is_open_to_all() {
        return Problem::new(
            StatusCode::FORBIDDEN,
            "not offered over TCP, where nobody is authenticated: use the Unix socket",
        )
        .into_answer();
    }
    if !route
        .methods()
        .split(", ")
        .any(|method| method == request.method().as_str())
    {
        return not_allowed(route.methods(), route.problem());
    }
    let email = found.params.get("email").map(identity).transpose();
    let email = match email {
        Ok(email) => email,
        Err(problem) => return problem.into_answer(),
    };
    dispatch(daemon, door, route, email, request, stopping)
        .await
        .unwrap_or_else(route.problem())
}

async fn dispatch(
    daemon: &Arc<Daemon>,
    door: Door,
    route: Route,
    email: Option<Identity>,
    request: Request<Incoming>,
    stopping: watch::Receiver<()>,
) -> Result<Answer, Problem> {
    let daemon = daemon.clone();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let method = request.method().clone();
    match (route, email) {
        (Route::Ping, _) => Ok(text(StatusCode::OK, "pong\n")),
        (Route::Live, _) => Ok(text(StatusCode::OK, "ok\n")),
        (Route::Ready, _) => ready(door, daemon).await,
        (Route::Metrics, _) => {
            blocking(door, move || {
                let keys = daemon.keyring.keystore().count()?;
                let expiring = daemon.expiring_keys()?.len();
                let text = daemon.metrics.text(daemon.queue.len(), keys, expiring);
                let content_type = "application/openmetrics-text;version=1.0.0;charset=utf-8";
                Ok(bytes(StatusCode::OK, content_type, text))
            })
            .await
        }
        (Route::OpenApi, _) => Ok(bytes(StatusCode::OK, "application/json", OPENAPI)),
        (Route::Status, _) => {
            blocking(door, move || Ok(json(StatusCode::OK, &daemon.status()?))).await
        }
        (Route::GenKey, _) => {
            let content_type = content_type(&request);
            let body = read_body(door, request).await?;
            generating(door, move || gen_key::answer(&daemon, &content_type, &body)).await
        }
        (Route::Keys, _) if method == Method::POST => {
            let body = read_body(door, request).await?;
            generating(door, move || keys::create(&daemon, &body)).await
        }
        (Route::Keys, _) => blocking(door, move || keys::list(&daemon, &query)).await,
        (Route::Key, Some(email)) if method == Method::DELETE => {
            blocking(door, move || keys::delete(&daemon, &email)).await
        }
        (Route::Key, Some(email)) => blocking(door, move || keys::show(&daemon, &email)).await,
        (Route::Extend, Some(email)) => {
            let request: ExtendRequest = keys::parse(&read_body(door, request).await?)?;
            blocking(door, move || keys::extend(&daemon, &email, &request)).await
        }
        (Route::PublicKey, Some(email)) => {
            blocking(door, move || keys::public(&daemon, &email)).await
        }
        (Route::Certificate(encoding), Some(email)) => {
            let missing = match door {
                Door::Unix(_) => Missing::Made,
                Door::Tcp => Missing::NotFound,
            };
            let work = move || keys::certificate(&daemon, &email, encoding, missing);
            match missing {
                Missing::Made => generating(door, work).await,
                Missing::NotFound => blocking(door, work).await,
            }
        }
        (Route::Sign, Some(email)) => {
            let user = door.user();
            keys::check_signer(&daemon, user, &email)?;
            let request: SignRequest = keys::parse(&read_body(door, request).await?)?;
            blocking(door, move || keys::sign(&daemon, user, &email, &request)).await
        }
        (Route::EntrustedKeys, _) => {
            let request = keys::parse(&read_body(door, request).await?)?;
            generating(door, move || entrusted::create(&daemon, request)).await
        }
        (Route::EntrustedSign, _) => {
            let user = door.user();
            let request: EntrustedSignRequest = keys::parse(&read_body(door, request).await?)?;
            keys::check_signer(&daemon, user, &request.user)?;
            blocking(door, move || entrusted::sign(&daemon, user, &request)).await
        }
        (Route::Retry, _) => {
            let body = read_body(door, request).await?;
            blocking(door, move || retry::answer(&daemon, &body)).await
        }
        (Route::Wait, _) => {
            let accept = header(&request, hyper::header::ACCEPT);
            let body = read_body(door, request).await?;
            wait::answer(daemon, &accept, &body, stopping).await
        }
        (
            Route::Key | Route::Extend | Route::PublicKey | Route::Certificate(_) | Route::Sign,
            None,
        ) => Err(Problem::bad_request("the path names no key")),
    }
}

async fn ready(door: Door, daemon: Arc<Daemon>) -> Result<Answer, Problem> {
    blocking(door, move || {
        let health = daemon.health();
        let status = if health.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let mut lines = health.troubles.join("\n");
        if health.ready {
            lines.push_str("ok");
        }
        Ok(text(status, lines + "\n"))
    })
    .await
}

/// Runs what waits for disks or computes for long on a thread of its own.
async fn blocking(
    door: Door,
    work: impl FnOnce() -> Result<Answer, Problem> + Send + 'static,
) -> Result<Answer, Problem> {
    match door {
        Door::Unix(_) => tokio::task::spawn_blocking(work).await?,
        Door::Tcp => tokio::task::spawn_blocking(in_place(&TCP, work).await).await?,
    }
}

/// The same for what may have to generate a key.
async fn generating(
    door: Door,
    work: impl FnOnce() -> Result<Answer, Problem> + Send + 'static,
) -> Result<Answer, Problem> {
    let limit = match door {
        Door::Unix(_) => &GENERATING,
        Door::Tcp => &TCP_GENERATING,
    };
    blocking(door, in_place(limit, work).await).await
}

/// Work that has one of the places that there are. It is given back when the work is done, and not when the client goes away.
async fn in_place<T>(
    limit: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> impl FnOnce() -> T + Send + 'static {
    let place = limit.acquire().await.ok();
    move || {
        let _place = place;
        work()
    }
}

fn identity(encoded: &str) -> Result<Identity, Problem> {
    let text = percent_decode_str(encoded)
        .decode_utf8()
        .map_err(|_| Problem::bad_request("the e-mail in the path is not UTF-8"))?;
    Ok(text.parse::<Identity>()?)
}

fn header(request: &Request<Incoming>, name: hyper::header::HeaderName) -> String {
    let value = request.headers().get(name);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase()
}

fn content_type(request: &Request<Incoming>) -> String {
    header(request, hyper::header::CONTENT_TYPE)
}

async fn read_body(door: Door, request: Request<Incoming>) -> Result<Bytes, Problem> {
    let limit = match door {
        Door::Unix(_) => BODY_LIMIT,
        Door::Tcp => TCP_BODY_LIMIT,
    };
    let body = Limited::new(request.into_body(), limit).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body has at most {limit} bytes"),
        )),
        Ok(Err(_)) => Err(Problem::bad_request("the body could not be read")),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        )),
    }
}
