//! Speaks to obs-sign's clients as signd does, so that they work unchanged.
//!
//! A connection carries one request and one answer. Nobody is authenticated but by address and port, as ever.

pub mod reply;
pub mod request;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use reply::Reply;
use request::{Command, Error as RequestError, HEAD_LEN, Hash, Request};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    arrival::reason,
    config::{Obs, Validity},
    daemon::Daemon,
    digest::Digest,
    http::KeyRequest,
    identity::{self, Identity, MAX_LEN},
    key::openpgp::finished::{Packet, sign_finished},
    keyring::ProjectKey,
    keystore::{self, VaultError},
    signer::{self, DigestSigner},
};

/// How many connections are served at once; further ones wait in the kernel. A request takes at most 128 KiB.
const CONNECTIONS: usize = 256;
/// Requests that are answered at once, so that the HTTP API always finds a thread. Nobody closes the semaphore.
static ANSWERING: Semaphore = Semaphore::const_new(16);
/// Keys that are made at once, which takes a processor for seconds: signatures do not wait for them.
static MAKING_KEYS: Semaphore = Semaphore::const_new(2);
/// Requests for keys that are taken at once; those that wait hold connections.
static KEY_REQUESTS: Semaphore = Semaphore::const_new(32);
/// How long a client may take to send its request, and then to take its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the address cannot be listened on. Stays.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on tcp:{address} for obs-sign's clients")]
pub struct Error {
    address: SocketAddr,
    source: io::Error,
}

/// The open listener.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Opens the listener. Has to be called within the runtime.
    ///
    /// # Errors
    /// [`Error`], which stays.
    pub fn bind(obs: &Obs) -> Result<Self, Error> {
        let address = obs.listen;
        let failed = |source| Error { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        Ok(Self { listener })
    }

    /// Serves until `stopped` changes; then takes no more connections and answers the requests that are under way.
    pub(crate) async fn run(self, daemon: Arc<Daemon>, mut stopped: watch::Receiver<()>) {
        let limit = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let next = async {
                // Nobody closes the semaphore.
                let permit = limit.clone().acquire_owned().await.ok();
                (permit, self.listener.accept().await)
            };
            tokio::select! {
                (permit, accepted) = next => match accepted {
                    Ok((stream, peer)) => {
                        let daemon = daemon.clone();
                        connections.spawn(async move {
                            serve(&daemon, stream, peer).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection of obs-sign's");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                _ = stopped.changed() => break,
            }
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

async fn serve(daemon: &Arc<Daemon>, mut stream: TcpStream, peer: SocketAddr) {
    let is_allowed = daemon
        .config()
        .obs
        .as_ref()
        .is_some_and(|obs| obs.allows(peer));
    if !is_allowed {
        tracing::warn!(%peer, "a client of obs-sign was turned away: not an address or port that [obs] allows");
        return;
    }
    // A client that goes away or is too slow is its own business.
    let Ok(Ok((head, body))) = tokio::time::timeout(TIMEOUT, read(&mut stream)).await else {
        return;
    };
    let request = Request::parse(head, &body);
    let Some(bytes) = reply(daemon, peer, request).await else {
        return;
    };
    let _ = tokio::time::timeout(TIMEOUT, async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await
    })
    .await;
}

/// The answer's bytes, or nothing after a panic, which has been told already. Its places are given back before it is sent, so that whoever is
/// slow to read keeps nobody from being answered.
async fn reply(
    daemon: &Arc<Daemon>,
    peer: SocketAddr,
    request: Result<Request, RequestError>,
) -> Option<Vec<u8>> {
    let makes_key = matches!(
        &request,
        Ok(Request {
            command: Command::MakeKey { .. },
            ..
        })
    );
    let (limit, place) = match makes_key {
        true => (&MAKING_KEYS, Some(KEY_REQUESTS.try_acquire())),
        false => (&ANSWERING, None),
    };
    if matches!(place, Some(Err(_))) {
        let reply = Reply::Failed("too many keys are being made: try again".into());
        return Some(reply.to_bytes());
    }
    let _permit = limit.acquire().await.ok();
    let daemon = daemon.clone();
    tokio::task::spawn_blocking(move || answer(&daemon, peer, request).to_bytes())
        .await
        .ok()
}

async fn read(stream: &mut TcpStream) -> io::Result<([u8; HEAD_LEN], Vec<u8>)> {
    let mut head = [0; HEAD_LEN];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; request::body_len(head)];
    stream.read_exact(&mut body).await?;
    Ok((head, body))
}

fn answer(daemon: &Daemon, peer: SocketAddr, request: Result<Request, RequestError>) -> Reply {
    let done = request
        .map_err(|error| error.to_string())
        .and_then(|Request { form, command }| {
            let values = values(daemon, peer, command)?;
            Ok(Reply::Done { form, values })
        });
    done.unwrap_or_else(|reason| {
        tracing::info!(%peer, ?reason, "a request of obs-sign's failed");
        Reply::Failed(reason)
    })
}

/// What is asked for, or a text for the client's standard error.
fn values(daemon: &Daemon, peer: SocketAddr, command: Command) -> Result<Vec<Vec<u8>>, String> {
    match command {
        Command::Ping => Ok(Vec::new()),
        Command::PublicKey { user } => {
            let found = daemon.keyring.keystore().find(&identity(&user)?);
            let entry = found
                .map_err(|error| reason(&error))?
                .ok_or_else(|| unknown(&user))?;
            let armour = entry
                .certificate()
                .and_then(|certificate| certificate.to_armour());
            Ok(vec![armour.map_err(|error| reason(&error))?.into_bytes()])
        }
        Command::Sign {
            user,
            digest,
            hashes,
            key: Some(key),
        } => {
            let lent = daemon
                .keyring
                .keystore()
                .unlock_entrusted(&identity(&user)?, &key);
            let lent = lent.map_err(|error| match error {
                keystore::Error::Vault(VaultError::Sealed) => {
                    format!("bad private key: it was not made for {user} here, or is damaged")
                }
                error => reason(&error),
            })?;
            sign(&lent, peer, &user, digest, &hashes)
        }
        Command::Sign {
            user,
            digest,
            hashes,
            key: None,
        } => {
            let key = daemon.keyring.open(&identity(&user)?);
            let key: Arc<ProjectKey> = key
                .map_err(|error| reason(&error))?
                .ok_or_else(|| unknown(&user))?;
            if key.entry().has_expired() {
                return Err(format!("the key of {user} has expired"));
            }
            let in_use = daemon.keyring.begin(&key).map_err(|error| match error {
                signer::Error::Deleted => unknown(&user),
                error => reason(&error),
            })?;
            sign(&in_use, peer, &user, digest, &hashes)
        }
        Command::MakeKey {
            user,
            algorithm,
            days,
            name,
            email,
        } => {
            let request = KeyRequest {
                identity: email.parse().map_err(|error| {
                    format!("bad e-mail: {}", reason(&error as &identity::Error))
                })?,
                name: Some(name),
                algorithm: Some(algorithm),
                expires: Some(Validity::days(days)?.to_string()),
            };
            let new = request.into_new_key(&daemon.config().keys)?;
            let made = daemon
                .make_entrusted_key(&identity(&user)?, &new)
                .map_err(|error| reason(&error))?;
            Ok(vec![
                made.public_key.into_bytes(),
                made.private_key.into_bytes(),
            ])
        }
    }
}

fn sign(
    signer: &dyn DigestSigner,
    peer: SocketAddr,
    user: &str,
    digest: Digest,
    hashes: &[Hash],
) -> Result<Vec<Vec<u8>>, String> {
    let mut packets = Vec::new();
    for hash in hashes {
        let packet = if hash.is_probe() {
            Packet::V4
        } else {
            Packet::V3
        };
        let signed = sign_finished(signer, packet, digest, &hash.hash, hash.class, hash.created);
        packets.push(signed.map_err(|error| reason(&error))?);
        tracing::info!(
            identity = user,
            key = %signer.public().fingerprint(),
            %peer,
            purpose = "OpenPgp",
            %digest,
            hash = hex::encode(&hash.hash),
            "digest signed"
        );
    }
    Ok(packets)
}

/// A user as the name of a key; one that cannot be a name has no key.
fn identity(user: &str) -> Result<Identity, String> {
    user.parse().map_err(|_| unknown(user))
}

/// What clients look for; of a name that is longer than any key's, the beginning will do.
fn unknown(user: &str) -> String {
    format!("unknown key: {user:.MAX_LEN$}")
}
