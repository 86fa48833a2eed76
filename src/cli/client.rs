//! Talks to the daemon.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::{TcpStream, UnixStream},
    runtime::Runtime,
};

use crate::{
    config::Validity,
    daemon::EntrustedKeyPair,
    digest::Digest,
    http::{
        EntrustedKeyRequest, EntrustedSignRequest, ExtendRequest, KeyInfo, KeyPage, KeyRequest,
        Problem, SignAnswer, SignRequest,
    },
    identity::Identity,
    key::{
        RawSignature,
        openpgp::{Certificate, PublicKey, finished::Packet},
        x509,
    },
    keystore::EntrustedKey,
    signer::{self, DigestSigner, Purpose},
};

/// Where the daemon is looked for.
pub(super) const DEFAULT: &str = "unix:/run/signdrop/api.sock";
/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the daemon did not answer what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody listens, or the connection broke.
    #[error(
        "cannot reach the daemon at {address}; is it running? `systemctl status signdrop` tells, --api names another one"
    )]
    Unreachable {
        address: String,
        #[source]
        source: io::Error,
    },
    /// The daemon refused.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// An address that is none.
    #[error("\"{0}\" is neither unix:/PATH nor tcp:ADDRESS:PORT")]
    Address(String),
}

/// The daemon's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(String),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(Path::new(path).to_owned()));
        }
        ["tcp:", "http://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .map(|host| Self::Tcp(host.trim_end_matches('/').to_owned()))
            .ok_or_else(|| Error::Address(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp:{host}"),
        }
    }
}

/// A client of the daemon's API.
#[derive(Debug)]
pub(crate) struct Client {
    address: Address,
    runtime: Runtime,
}

impl Client {
    pub(super) fn new(address: &Address) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Ok(Self {
            address: address.clone(),
            runtime: runtime.map_err(unreachable_at(address))?,
        })
    }

    pub(super) fn find(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.call(Method::GET, path, Vec::new())
    }

    pub(super) fn find_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.understood(&self.find(path)?)
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = self.encoded(body)?;
        self.understood(&self.call(Method::POST, path, body)?)
    }

    fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.runtime.block_on(async {
            let response = self.send(method, path, "application/json", body).await?;
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| self.broken(error))?;
            Ok(body.to_bytes().to_vec())
        })
    }

    /// Posts and hands each line of the answer on as it comes.
    pub(super) fn post_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        mut each: impl FnMut(T),
    ) -> Result<(), Error> {
        let body = self.encoded(body)?;
        self.runtime.block_on(async {
            let mut response = self
                .send(Method::POST, path, "application/x-ndjson", body)
                .await?;
            let mut pending = Vec::new();
            while let Some(frame) = response.body_mut().frame().await {
                let frame = frame.map_err(|error| self.broken(error))?;
                pending.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    if let Ok(problem) = serde_json::from_slice::<Problem>(&line) {
                        return Err(Error::Refused(problem));
                    }
                    each(self.understood(&line)?);
                }
            }
            Ok(())
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "signdrop")
            .header(ACCEPT, accept)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::<Bytes>::from(body))
            .map_err(|error| self.broken(error))?;
        let response = match &self.address {
            Address::Unix(path) => {
                let stream = self.in_time(UnixStream::connect(path)).await?;
                self.exchange(TokioIo::new(stream), request).await?
            }
            Address::Tcp(host) => {
                let stream = self.in_time(TcpStream::connect(host)).await?;
                self.exchange(TokioIo::new(stream), request).await?
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| self.broken(error))?.to_bytes();
        Err(Error::Refused(problem(status, &body)))
    }

    async fn in_time<S>(
        &self,
        connecting: impl Future<Output = io::Result<S>>,
    ) -> Result<S, Error> {
        tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(unreachable_at(&self.address))
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(stream)
            .await
            .map_err(|error| self.broken(error))?;
        // It ends with the answer; what goes wrong with it is the answer's error.
        tokio::spawn(connection);
        sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(error))
    }

    fn encoded(&self, body: &impl Serialize) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(body).map_err(|error| self.broken(error))
    }

    fn understood<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| self.broken(error))
    }

    fn broken(&self, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        unreachable_at(&self.address)(io::Error::other(error))
    }

    pub(super) fn generate(&self, request: &KeyRequest) -> Result<KeyInfo, Error> {
        self.post("/v1/keys", request)
    }

    pub(super) fn list(&self, after: Option<&str>) -> Result<KeyPage, Error> {
        let after = after.map_or(String::new(), |after| format!("&after={}", encode(after)));
        self.find_json(&format!("/v1/keys?limit=1000{after}"))
    }

    pub(super) fn show(&self, identity: &Identity) -> Result<KeyInfo, Error> {
        self.find_json(&key_path(identity))
    }

    pub(super) fn export(&self, identity: &Identity) -> Result<String, Error> {
        let armour = self.find(&format!("{}/public.asc", key_path(identity)))?;
        Ok(String::from_utf8_lossy(&armour).into_owned())
    }

    fn public_key(&self, identity: &Identity) -> Result<PublicKey, super::Error> {
        let armour = self.export(identity)?;
        Ok(Certificate::parse(armour.as_bytes())?.public_key())
    }

    /// The certificate of the identity's kernel modules; the daemon makes it where there is none.
    pub(super) fn certificate(
        &self,
        identity: &Identity,
    ) -> Result<x509::Certificate, super::Error> {
        let der = self.find(&format!("{}/certificate.der", key_path(identity)))?;
        Ok(x509::Certificate::from_der(&der)?)
    }

    pub(super) fn extend(&self, identity: &Identity, validity: Validity) -> Result<KeyInfo, Error> {
        let request = ExtendRequest { expires: validity };
        self.post(&format!("{}/extend", key_path(identity)), &request)
    }

    /// Has a key made that the caller keeps.
    pub(super) fn make_entrusted(
        &self,
        request: &EntrustedKeyRequest,
    ) -> Result<EntrustedKeyPair, Error> {
        self.post("/v1/entrusted-keys", request)
    }

    pub(super) fn delete(&self, identity: &Identity) -> Result<KeyInfo, Error> {
        let body = self.call(Method::DELETE, &key_path(identity), Vec::new())?;
        self.understood(&body)
    }
}

fn unreachable_at(address: &Address) -> impl Fn(io::Error) -> Error + use<> {
    let address = address.to_string();
    move |source| Error::Unreachable {
        address: address.clone(),
        source,
    }
}

fn problem(status: StatusCode, body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| Problem {
        title: status.to_string(),
        status: status.as_u16(),
        detail: String::from_utf8_lossy(body).trim().to_owned(),
    })
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn key_path(identity: &Identity) -> String {
    format!("/v1/keys/{}", encode(identity.as_str()))
}

/// Signs with a key that the daemon holds, or makes out of what the caller keeps.
#[derive(Debug)]
pub(super) struct RemoteSigner {
    client: Arc<Client>,
    identity: Identity,
    /// What the caller keeps, in hexadecimal, where it is not the daemon.
    entrusted: Option<String>,
    public: PublicKey,
    packet: Packet,
    /// Asked for on first need, and once.
    certificate: OnceLock<x509::Certificate>,
}

impl RemoteSigner {
    /// Asks for the identity's public key.
    pub(super) fn new(client: &Arc<Client>, identity: &Identity) -> Result<Self, super::Error> {
        Ok(Self {
            client: client.clone(),
            identity: identity.clone(),
            entrusted: None,
            packet: Packet::V4,
            public: client.public_key(identity)?,
            certificate: OnceLock::new(),
        })
    }

    /// Signs with a key that the caller keeps, made for `user`.
    pub(super) fn entrusted(
        client: &Arc<Client>,
        user: &Identity,
        key: &EntrustedKey,
    ) -> Result<Self, super::Error> {
        Ok(Self {
            client: client.clone(),
            identity: user.clone(),
            entrusted: Some(key.to_hex()?),
            packet: Packet::V4,
            public: key.certificate()?.public_key(),
            certificate: OnceLock::new(),
        })
    }

    /// The same, with another packet around its signatures.
    pub(super) fn with_packet(self, packet: Packet) -> Self {
        Self { packet, ..self }
    }
}

impl DigestSigner for RemoteSigner {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn packet(&self) -> Packet {
        self.packet
    }

    fn certificate(&self) -> Result<&x509::Certificate, signer::Error> {
        if self.entrusted.is_some() {
            return Err(signer::Error::NoCertificate);
        }
        if let Some(certificate) = self.certificate.get() {
            return Ok(certificate);
        }
        let certificate = self
            .client
            .certificate(&self.identity)
            .map_err(|error| signer::Error::Remote(crate::arrival::reason(&error)))?;
        Ok(self.certificate.get_or_init(|| certificate))
    }

    fn sign(
        &self,
        purpose: Purpose,
        digest: Digest,
        hash: &[u8],
    ) -> Result<RawSignature, signer::Error> {
        let hash = hex::encode(hash);
        let answer: Result<SignAnswer, Error> = match &self.entrusted {
            None => {
                let path = format!("{}/sign", key_path(&self.identity));
                let request = SignRequest {
                    digest,
                    hash,
                    purpose,
                };
                self.client.post(&path, &request)
            }
            Some(_) if purpose == Purpose::Cms => return Err(signer::Error::NoCertificate),
            Some(key) => {
                let request = EntrustedSignRequest {
                    user: self.identity.clone(),
                    private_key: key.clone(),
                    digest,
                    hash,
                };
                self.client.post("/v1/entrusted-keys/sign", &request)
            }
        };
        answer
            .map_err(|error| signer::Error::Remote(crate::arrival::reason(&error)))?
            .into_raw()
            .ok_or_else(|| signer::Error::Remote("the answer is no signature".into()))
    }
}
