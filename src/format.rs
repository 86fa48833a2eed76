//! The kinds of artifact that can be signed: each reads a file, asks a signer, and answers an edit.

pub mod rpm;

use std::{ffi::OsStr, fs::File, os::unix::ffi::OsStrExt as _, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, edit::Edit, key::openpgp::PublicKey, signer::DigestSigner};

/// A kind of artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An RPM package.
    Rpm,
}

/// Why a file could not be taken for a sound artifact, or not be signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is about a package.
    #[error(transparent)]
    Rpm(#[from] rpm::Error),
}

impl Error {
    /// Whether the same file may succeed later without having changed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Rpm(error) => error.may_pass(),
        }
    }
}

impl Format {
    /// Every format.
    pub fn all() -> Vec<Self> {
        vec![Self::Rpm]
    }

    /// The name as configuration and records write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rpm => "rpm",
        }
    }

    /// The format that a file of this name has to have, if it is an artifact at all.
    pub fn of_name(name: &OsStr) -> Option<Self> {
        name.as_bytes().ends_with(b".rpm").then_some(Self::Rpm)
    }

    /// Reads and checks the whole artifact; `digest` is what a signature is going to use.
    ///
    /// # Errors
    /// [`Error`], which says itself whether it may pass.
    pub fn check(self, file: &File, digest: Digest) -> Result<Sound, Error> {
        match self {
            Self::Rpm => Ok(Sound::Rpm(rpm::Package::read(file)?.check(file, digest)?)),
        }
    }
}

/// An artifact that is what it claims to be; only such a one is ever signed or unsigned.
#[derive(Debug)]
pub enum Sound {
    /// A package.
    Rpm(rpm::Whole),
}

impl Sound {
    /// Whether the artifact is signed already as [`Sound::sign`] would sign it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        match self {
            Self::Rpm(package) => package.is_signed_by(key),
        }
    }

    /// The edit that makes `signer`'s signature the only one.
    ///
    /// # Errors
    /// [`Error`], which says itself whether it may pass.
    pub fn sign(&self, signer: &dyn DigestSigner, created: SystemTime) -> Result<Edit, Error> {
        match self {
            Self::Rpm(package) => Ok(package.sign(signer, created)?),
        }
    }

    /// The edit that removes every signature, or nothing where there is none.
    pub fn unsign(&self) -> Option<Edit> {
        match self {
            Self::Rpm(package) => package.unsign(),
        }
    }
}
