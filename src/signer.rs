//! The seam between those who need a signature and those who hold the key.

use crate::{
    digest::Digest,
    key::{self, RawSignature, openpgp::PublicKey},
};

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
            Self::Remote(_) | Self::Unknown(_) => true,
        }
    }
}

/// Signs finished hashes with one key.
pub trait DigestSigner {
    /// The key's public half.
    fn public(&self) -> &PublicKey;

    /// Signs `hash`, which `digest` produced.
    ///
    /// # Errors
    /// [`Error`], which says itself whether it may pass.
    fn sign(&self, digest: Digest, hash: &[u8]) -> Result<RawSignature, Error>;
}
