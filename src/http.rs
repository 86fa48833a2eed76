//! The HTTP API. Unix sockets offer everything, TCP what needs no authentication.

mod answer;
mod entrusted;
mod gen_key;
mod keys;
mod retry;
mod routes;
mod wait;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use routes::Door;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{config::Listen, daemon::Daemon};

pub use answer::{OPENAPI, Problem};
pub use entrusted::{EntrustedKeyRequest, EntrustedSignRequest};
pub use keys::{ExtendRequest, KeyInfo, KeyPage, KeyRequest, SignAnswer, SignRequest};
pub use retry::RetryRequest;
pub use wait::{FailedArtifact, WaitAnswer, WaitRequest, WaitState};

/// How many connections each door serves at once; further ones wait in the kernel. Each door for itself, so that whoever may only
/// come by TCP cannot keep others from the Unix socket.
const CONNECTIONS: usize = 1024;
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a TCP connection lasts at the most, even if its client never reads the answers; nothing that TCP offers takes longer.
const TCP_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a door cannot be opened. Stays.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A Unix socket cannot be made.
    #[error("cannot listen on unix:{}", .path.display())]
    Unix {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A TCP address cannot be listened on.
    #[error("cannot listen on tcp:{address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Another daemon answers on the socket.
    #[error("another signdrop is listening on unix:{}", .0.display())]
    InUse(PathBuf),
}

enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// The open doors.
pub struct Server {
    listeners: Vec<Listener>,
}

impl Server {
    /// Opens the doors. Has to be called within the runtime.
    ///
    /// # Errors
    /// [`Error`].
    pub fn bind(listen: &[Listen]) -> Result<Self, Error> {
        let listeners = listen
            .iter()
            .map(|listen| match listen {
                Listen::Unix(path) => Ok(Listener::Unix(bind_unix(path)?, path.clone())),
                Listen::Tcp(address) => bind_tcp(*address).map(Listener::Tcp),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { listeners })
    }

    /// Serves until `stopped` changes; then takes no more connections and ends the requests that are under way.
    pub(crate) async fn run(self, daemon: Arc<Daemon>, stopped: watch::Receiver<()>) {
        let mut doors = JoinSet::new();
        for listener in self.listeners {
            doors.spawn(serve(listener, daemon.clone(), stopped.clone()));
        }
        while doors.join_next().await.is_some() {}
    }
}

fn bind_unix(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Unix {
        path: path.to_owned(),
        source,
    };
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(Error::InUse(path.to_owned())),
            // Left behind by a daemon that was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, Error> {
    let failed = |source| Error::Tcp { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    TcpListener::from_std(listener).map_err(failed)
}

async fn serve(listener: Listener, daemon: Arc<Daemon>, mut stopped: watch::Receiver<()>) {
    let limit = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let stopping = stopped.clone();
    loop {
        let next = async {
            // Nobody closes the semaphore.
            let permit = limit.clone().acquire_owned().await.ok();
            (permit, accept(&listener).await)
        };
        tokio::select! {
            (permit, connection) = next => match connection {
                Ok((stream, door)) => {
                    let (daemon, stopping) = (daemon.clone(), stopping.clone());
                    let service = service_fn(move |request| {
                        let (daemon, stopping) = (daemon.clone(), stopping.clone());
                        async move {
                            Ok::<_, Infallible>(routes::answer(&daemon, door, request, stopping).await)
                        }
                    });
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_TIMEOUT)
                        .serve_connection(TokioIo::new(stream), service);
                    let connection = graceful.watch(connection);
                    tokio::spawn(async move {
                        // A client that goes away or breaks the protocol is its own business.
                        let _ = match door {
                            Door::Unix(_) => Ok(connection.await),
                            Door::Tcp => tokio::time::timeout(TCP_TIMEOUT, connection).await,
                        };
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            _ = stopped.changed() => break,
        }
    }
    if let Listener::Unix(_, path) = &listener {
        // A socket that stays is taken over by the next start.
        let _ = std::fs::remove_file(path);
    }
    drop(listener);
    graceful.shutdown().await;
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn accept(listener: &Listener) -> io::Result<(Box<dyn Stream>, Door)> {
    match listener {
        Listener::Unix(listener, _) => {
            let (stream, _) = listener.accept().await?;
            let user = stream.peer_cred().ok().map(|peer| peer.uid());
            Ok((Box::new(stream), Door::Unix(user)))
        }
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream), Door::Tcp))
        }
    }
}
