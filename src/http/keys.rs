//! Requests about keys.

use std::{collections::HashMap, sync::Arc};

use hyper::StatusCode;
use percent_encoding::percent_decode;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Problem, bytes, json};
use crate::{
    config::Validity,
    daemon::Daemon,
    digest::Digest,
    identity::Identity,
    key::{Algorithm, RawSignature},
    keyring::ProjectKey,
    keystore::{Creation, KeyEntry, NewKey},
    signer::{self, DigestSigner, Purpose},
};

/// How many keys a page has, unless the request says another number, and at the most.
const PAGE: (usize, usize) = (100, 1000);
/// Bytes that the name in a user id may have at the most.
const NAME_LEN: usize = 200;

/// A key as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyInfo {
    /// The e-mail that names the key.
    pub identity: Identity,
    /// The whole user id, `NAME <EMAIL>`.
    pub user_id: String,
    /// Algorithm and size.
    pub algorithm: Algorithm,
    /// The fingerprint in upper-case hexadecimal.
    pub fingerprint: String,
    /// When the key was made, in Unix seconds.
    pub created: u64,
    /// When it expires, in Unix seconds, if it does.
    pub expires: Option<u64>,
}

impl KeyInfo {
    /// What the API shows of a key.
    ///
    /// # Errors
    /// Those of reading the certificate, which stay.
    pub fn of(entry: &KeyEntry) -> Result<Self, crate::key::openpgp::Error> {
        Ok(Self {
            identity: entry.identity.clone(),
            user_id: entry.certificate()?.user_id(),
            algorithm: entry.algorithm,
            fingerprint: entry.fingerprint.clone(),
            created: entry.created,
            expires: entry.expires,
        })
    }
}

/// A wish for a key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// The e-mail that is to name the key.
    pub identity: Identity,
    /// The name in the user id; the part of the e-mail before its last @ where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Algorithm and size; the configuration's where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// How long it is valid, such as `never` or `5y`; the configuration's where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// A page of keys.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyPage {
    /// The keys, in the order of their e-mails.
    pub keys: Vec<KeyInfo>,
    /// What to pass as `after` for the next page; nothing where this is the last.
    pub next: Option<String>,
}

/// A wish for a later end of a key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendRequest {
    /// How long the key is valid from now on.
    pub expires: Validity,
}

/// A wish for a signature over a finished hash.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignRequest {
    /// What made the hash.
    pub digest: Digest,
    /// The hash in hexadecimal.
    pub hash: String,
    /// What the signature becomes a part of.
    pub purpose: Purpose,
}

/// A signature over a finished hash; numbers are big-endian hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignAnswer {
    /// RSA, PKCS#1 v1.5.
    Rsa {
        /// The signature.
        s: String,
    },
    /// Ed25519.
    Ed25519 {
        /// First half.
        r: String,
        /// Second half.
        s: String,
    },
    /// ECDSA.
    Ecdsa {
        /// First number.
        r: String,
        /// Second number.
        s: String,
    },
}

impl From<RawSignature> for SignAnswer {
    fn from(signature: RawSignature) -> Self {
        let hex = hex::encode::<Vec<u8>>;
        match signature {
            RawSignature::Rsa(s) => Self::Rsa { s: hex(s) },
            RawSignature::Ed25519 { r, s } => Self::Ed25519 {
                r: hex(r),
                s: hex(s),
            },
            RawSignature::Ecdsa { r, s } => Self::Ecdsa {
                r: hex(r),
                s: hex(s),
            },
        }
    }
}

impl SignAnswer {
    /// The signature, or nothing where the text is not hexadecimal.
    pub fn into_raw(self) -> Option<RawSignature> {
        let bytes = |text: String| hex::decode(text).ok();
        Some(match self {
            Self::Rsa { s } => RawSignature::Rsa(bytes(s)?),
            Self::Ed25519 { r, s } => RawSignature::Ed25519 {
                r: bytes(r)?,
                s: bytes(s)?,
            },
            Self::Ecdsa { r, s } => RawSignature::Ecdsa {
                r: bytes(r)?,
                s: bytes(s)?,
            },
        })
    }
}

impl KeyRequest {
    /// The wish with the configuration's values where it leaves something open.
    ///
    /// # Errors
    /// A text that says what is wrong with the wish.
    pub fn into_new_key(self, defaults: &crate::config::Keys) -> Result<NewKey, String> {
        let default_name = || {
            let (local, _) = self
                .identity
                .as_str()
                .rsplit_once('@')
                .unwrap_or((self.identity.as_str(), ""));
            local.to_owned()
        };
        let name = self.name.clone().unwrap_or_else(default_name);
        check_name(&name)?;
        let expires = match &self.expires {
            Some(text) => text.parse::<Validity>()?,
            None => defaults.expires,
        };
        Ok(NewKey {
            name,
            algorithm: self.algorithm.unwrap_or(defaults.algorithm),
            expires: expires.lifetime(),
            identity: self.identity,
        })
    }
}

/// Whether a name can stand in a user id.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let forbidden = |c: char| c.is_control() || matches!(c, '<' | '>');
    if name.trim().is_empty() || name.len() > NAME_LEN || name.contains(forbidden) {
        return Err(format!(
            "a name has 1 to {NAME_LEN} bytes, none of them a control character, < or >"
        ));
    }
    Ok(())
}

pub(super) fn create(daemon: &Daemon, body: &[u8]) -> Result<Answer, Problem> {
    let request: KeyRequest = parse(body)?;
    let new = request
        .into_new_key(&daemon.config().keys)
        .map_err(Problem::bad_request)?;
    let (status, entry) = made(daemon, &new)?;
    Ok(json(status, &info(&entry)?))
}

/// Makes a key and answers it: 201 where it is new, 200 where there was one.
pub(super) fn made(daemon: &Daemon, new: &NewKey) -> Result<(StatusCode, KeyEntry), Problem> {
    Ok(match daemon.keyring.create(new)? {
        Creation::New(entry) => {
            tracing::info!(identity = %entry.identity, key = entry.fingerprint, "key created");
            (StatusCode::CREATED, entry)
        }
        Creation::Existing(entry) => (StatusCode::OK, entry),
    })
}

pub(super) fn list(daemon: &Daemon, query: &str) -> Result<Answer, Problem> {
    let query: HashMap<String, String> = form(query.as_bytes())?;
    if let Some(unknown) = query
        .keys()
        .find(|key| !matches!(key.as_str(), "after" | "limit"))
    {
        return Err(Problem::bad_request(format!(
            "unknown parameter {unknown:?}; known are after and limit"
        )));
    }
    let (default, most) = PAGE;
    let limit = match query.get("limit") {
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=most).contains(limit))
            .ok_or_else(|| Problem::bad_request(format!("limit is a number from 1 to {most}")))?,
        None => default,
    };
    let after = query.get("after").map(String::as_str);
    // One more than asked for tells whether there is a next page.
    let mut entries = daemon.keyring.keystore().list(after, limit + 1)?;
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries
        .last()
        .filter(|_| has_more)
        .map(|entry| entry.identity.to_string());
    let keys = entries.iter().map(info).collect::<Result<_, _>>()?;
    Ok(json(StatusCode::OK, &KeyPage { keys, next }))
}

pub(super) fn show(daemon: &Daemon, identity: &Identity) -> Result<Answer, Problem> {
    Ok(json(StatusCode::OK, &info(&find(daemon, identity)?)?))
}

pub(super) fn public(daemon: &Daemon, identity: &Identity) -> Result<Answer, Problem> {
    let certificate = find(daemon, identity)?.certificate();
    let armour = certificate
        .and_then(|certificate| certificate.to_armour())
        .map_err(|error| Problem::internal(&error, error.may_pass()))?;
    Ok(bytes(StatusCode::OK, "application/pgp-keys", armour))
}

/// How a certificate is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Base64 between lines that say what it is (RFC 7468).
    Pem,
    /// The bytes themselves.
    Der,
}

/// Whether a certificate is made that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is made: the caller may use every key.
    Made,
    /// It is missing: anybody may have asked.
    NotFound,
}

pub(super) fn certificate(
    daemon: &Daemon,
    identity: &Identity,
    encoding: Encoding,
    missing: Missing,
) -> Result<Answer, Problem> {
    let certificate = match missing {
        Missing::Made => {
            let key = find_unlocked(daemon, identity)?;
            let config = daemon.config();
            let made = daemon
                .keyring
                .certificate(&key, || config.keys.new_module_key());
            made?.clone()
        }
        // Whoever may have asked unlocks no key.
        Missing::NotFound => {
            let key = find(daemon, identity)?;
            let keystore = daemon.keyring.keystore();
            let _lock = keystore.lock(identity);
            keystore
                .find_module_key(&key)?
                .ok_or_else(|| no_certificate(identity))?
                .certificate()?
        }
    };
    Ok(match encoding {
        Encoding::Pem => {
            let pem = certificate
                .to_pem()
                .map_err(|error| Problem::internal(&error, error.may_pass()))?;
            bytes(StatusCode::OK, "application/x-pem-file", pem)
        }
        Encoding::Der => bytes(
            StatusCode::OK,
            "application/pkix-cert",
            certificate.as_der().to_vec(),
        ),
    })
}

fn find_unlocked(daemon: &Daemon, identity: &Identity) -> Result<Arc<ProjectKey>, Problem> {
    daemon
        .keyring
        .open(identity)?
        .ok_or_else(|| unknown(identity))
}

fn no_certificate(identity: &Identity) -> Problem {
    Problem::not_found(format!(
        "{identity} has no certificate for kernel modules yet: its first module makes it, or a request for it over the Unix socket"
    ))
}

pub(super) fn extend(
    daemon: &Daemon,
    identity: &Identity,
    request: &ExtendRequest,
) -> Result<Answer, Problem> {
    let entry = daemon
        .keyring
        .extend(identity, request.expires)?
        .ok_or_else(|| unknown(identity))?;
    daemon.forget_expiring_keys();
    tracing::info!(identity = %entry.identity, key = entry.fingerprint, expires = entry.expires, "key extended");
    Ok(json(StatusCode::OK, &info(&entry)?))
}

pub(super) fn delete(daemon: &Daemon, identity: &Identity) -> Result<Answer, Problem> {
    let entry = daemon
        .delete_key(identity)?
        .ok_or_else(|| unknown(identity))?;
    Ok(json(StatusCode::OK, &info(&entry)?))
}

/// Whether the configuration lets the user at the other end of a Unix socket have digests signed.
pub(super) fn check_signer(
    daemon: &Daemon,
    user: Option<u32>,
    identity: &Identity,
) -> Result<(), Problem> {
    if daemon.config().api.may_sign(user) {
        return Ok(());
    }
    tracing::warn!(user, %identity, "a user who may not have digests signed was refused");
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "this user may not have digests signed: `signers` in the section [api] of the configuration lists who may",
    ))
}

pub(super) fn sign(
    daemon: &Daemon,
    user: Option<u32>,
    identity: &Identity,
    request: &SignRequest,
) -> Result<Answer, Problem> {
    let key = find_unlocked(daemon, identity)?;
    if key.entry().has_expired() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            format!("the key of {identity} has expired; `signdrop key extend` prolongs it"),
        ));
    }
    if request.purpose == Purpose::Cms {
        if request.digest == Digest::Sha1 {
            return Err(Problem::bad_request("modules are not signed with SHA-1"));
        }
        daemon
            .keyring
            .find_certificate(&key)?
            .ok_or_else(|| no_certificate(identity))?;
    }
    let in_use = daemon.keyring.begin(&key).map_err(|error| match error {
        signer::Error::Deleted => unknown(identity),
        error => Problem::internal(&error, error.may_pass()),
    })?;
    signed(&in_use, identity, user, request)
}

/// Signs a finished hash.
pub(super) fn signed(
    signer: &dyn DigestSigner,
    identity: &Identity,
    user: Option<u32>,
    request: &SignRequest,
) -> Result<Answer, Problem> {
    let (purpose, digest) = (request.purpose, request.digest);
    let hash = hex::decode(&request.hash)
        .ok()
        .filter(|hash| hash.len() == digest.len_bytes())
        .ok_or_else(|| {
            Problem::bad_request(format!(
                "hash is the {} bytes of a {digest} hash in hexadecimal",
                digest.len_bytes(),
            ))
        })?;
    let key = signer.public();
    if purpose == Purpose::OpenPgp && key.digest(digest) != digest {
        return Err(Problem::bad_request(format!(
            "{digest} is too weak for this key, which signs with {} at the least",
            key.digest(digest)
        )));
    }
    let signature = signer
        .sign(purpose, digest, &hash)
        .map_err(|error| Problem::internal(&error, error.may_pass()))?;
    tracing::info!(
        %identity,
        user,
        key = %key.fingerprint(),
        ?purpose,
        %digest,
        hash = request.hash,
        "digest signed"
    );
    Ok(json(StatusCode::OK, &SignAnswer::from(signature)))
}

fn find(daemon: &Daemon, identity: &Identity) -> Result<KeyEntry, Problem> {
    daemon
        .keyring
        .keystore()
        .find(identity)?
        .ok_or_else(|| unknown(identity))
}

fn unknown(identity: &Identity) -> Problem {
    Problem::not_found(format!("unknown key: {identity}"))
}

fn info(entry: &KeyEntry) -> Result<KeyInfo, Problem> {
    KeyInfo::of(entry).map_err(|error| Problem::internal(&error, error.may_pass()))
}

/// Understands a JSON body.
pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(error.to_string()))
}

/// Understands `application/x-www-form-urlencoded` text.
pub(super) fn form(text: &[u8]) -> Result<HashMap<String, String>, Problem> {
    // The parser would put the same character into the place of all that is not UTF-8, and so make different e-mails one.
    percent_decode(text)
        .decode_utf8()
        .map_err(|_| Problem::bad_request("the form is not UTF-8"))?;
    Ok(form_urlencoded::parse(text).into_owned().collect())
}
