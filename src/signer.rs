//! The seam between those who need a signature and those who hold the key.

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    key::{
        self, RawSignature,
        openpgp::{PublicKey, finished::Packet},
        x509::Certificate,
    },
};

/// What a signature becomes a part of, and so which of a project's private keys makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// An OpenPGP signature.
    OpenPgp,
    /// A CMS signature, as kernel modules carry it.
    Cms,
}

/// Why a signature was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The private key failed.
    #[error(transparent)]
    Key(#[from] key::Error),
    /// Whether the key is still there could not be found out. May pass.
    #[error("cannot tell whether the key is still there: {0}")]
    Unknown(String),
    /// The key was deleted while it was to be used. Stays.
    #[error("the key has been deleted")]
    Deleted,
    /// The project has no certificate for kernel modules yet. May pass: it is made on first need.
    #[error("there is no certificate for kernel modules yet")]
    NoCertificate,
    /// Whoever holds the key could not be asked. May pass.
    #[error("cannot ask for a signature: {0}")]
    Remote(String),
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Key(error) => error.may_pass(),
            Self::Deleted => false,
            Self::NoCertificate | Self::Remote(_) | Self::Unknown(_) => true,
        }
    }
}

/// Signs finished hashes with one project's keys.
pub trait DigestSigner {
    /// The OpenPGP key's public half.
    fn public(&self) -> &PublicKey;

    /// The certificate of the key that signs kernel modules.
    ///
    /// # Errors
    /// [`Error::NoCertificate`] and [`Error::Remote`], which may pass.
    fn certificate(&self) -> Result<&Certificate, Error>;

    /// What is put around OpenPGP signatures: version 4, but where readers want what is older.
    fn packet(&self) -> Packet {
        Packet::V4
    }

    /// Signs `hash`, which `digest` produced, with the key for `purpose`.
    ///
    /// # Errors
    /// [`Error`], which says itself whether it may pass.
    fn sign(&self, purpose: Purpose, digest: Digest, hash: &[u8]) -> Result<RawSignature, Error>;
}
