//! The kinds of artifact that can be signed: each reads a file, asks a signer, and answers an edit.

pub mod kmod;
pub mod rpm;

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    time::SystemTime,
};

pub use kmod::UnpackLimit;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    edit::Edit,
    key::{openpgp, x509},
    signer::{self, DigestSigner},
};

/// How the names of kernel modules end.
const KMOD_NAMES: [&str; 4] = [".ko", ".ko.gz", ".ko.xz", ".ko.zst"];

/// A kind of artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An RPM package.
    Rpm,
    /// A Linux kernel module, as it is or compressed.
    Kmod,
}

/// Why a file could not be taken for a sound artifact, or not be signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is about a package; its source says whether it may pass.
    #[error(transparent)]
    Rpm(#[from] rpm::Error),
    /// It is about a kernel module; its source says whether it may pass.
    #[error(transparent)]
    Kmod(#[from] kmod::Error),
    /// The file could not be read. May pass.
    #[error("cannot read")]
    Read(#[source] io::Error),
    /// It begins as no artifact does. Stays.
    #[error("neither an RPM package nor a kernel module")]
    Unknown,
}

impl Error {
    /// Whether the same file may succeed later without having changed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Rpm(error) => error.may_pass(),
            Self::Kmod(error) => error.may_pass(),
            Self::Read(_) => true,
            Self::Unknown => false,
        }
    }

    /// Whether the key was deleted while it was to sign.
    pub fn is_deleted_key(&self) -> bool {
        matches!(
            self,
            Self::Rpm(rpm::Error::OpenPgp(openpgp::Error::Signer(
                signer::Error::Deleted
            ))) | Self::Kmod(kmod::Error::X509(x509::Error::Signer(
                signer::Error::Deleted
            )))
        )
    }

    /// Whether the file has the name of an artifact and is something else, rather than an artifact that is broken.
    pub fn is_no_artifact(&self) -> bool {
        matches!(self, Self::Kmod(kmod::Error::NotAModule(_)))
    }
}

impl Format {
    /// Every format.
    pub fn all() -> Vec<Self> {
        vec![Self::Rpm, Self::Kmod]
    }

    /// The name as configuration and records write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rpm => "rpm",
            Self::Kmod => "kmod",
        }
    }

    /// The format that a file of this name has to have, if it is an artifact at all.
    pub fn of_name(name: &OsStr) -> Option<Self> {
        let name = name.as_bytes();
        if name.ends_with(b".rpm") {
            return Some(Self::Rpm);
        }
        let is_module = KMOD_NAMES.iter().any(|end| name.ends_with(end.as_bytes()));
        is_module.then_some(Self::Kmod)
    }

    /// The format that a file begins as, whatever it is called.
    ///
    /// # Errors
    /// [`Error::Read`] may pass, [`Error::Unknown`] stays.
    pub fn of_content(file: &File) -> Result<Self, Error> {
        let start = start_of(file).map_err(Error::Read)?;
        if rpm::recognises(&start) {
            Ok(Self::Rpm)
        } else if kmod::recognises(&start) {
            Ok(Self::Kmod)
        } else {
            Err(Error::Unknown)
        }
    }

    /// The format that a file which is still being written is going to be of, told by its first bytes; of a module, whose
    /// compression says nothing of what is in it, by its name too, if that is known.
    pub fn of_beginning(start: &[u8], name: Option<&OsStr>) -> Option<Self> {
        if rpm::recognises(start) {
            return Some(Self::Rpm);
        }
        let has_name = name.is_none_or(Self::may_become_module);
        (has_name && kmod::recognises(start)).then_some(Self::Kmod)
    }

    /// Whether a file of this name, which may be a temporary one, is a module if its content is one.
    pub fn may_become_module(name: &OsStr) -> bool {
        name.as_bytes().windows(3).any(|part| part == b".ko")
    }

    /// Reads and checks the whole artifact; `digest` is what a signature is going to use.
    ///
    /// # Errors
    /// [`Error`], which says itself whether it may pass.
    pub fn check(self, file: &File, digest: Digest, limit: UnpackLimit) -> Result<Sound, Error> {
        Ok(match self {
            Self::Rpm => Sound::Rpm(rpm::Package::read(file)?.check(file, digest)?),
            Self::Kmod => Sound::Kmod(kmod::Module::read(file, limit)?.check(digest)?),
        })
    }
}

/// The first bytes of a file, by which its format or compression is recognised: sixteen, or all where it is shorter.
fn start_of(file: &File) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len().min(16);
    let mut start = vec![0; len as usize];
    file.read_exact_at(&mut start, 0)?;
    Ok(start)
}

/// An artifact that is what it claims to be; only such a one is ever signed or unsigned.
#[derive(Debug)]
pub enum Sound {
    /// A package.
    Rpm(rpm::Whole),
    /// A kernel module.
    Kmod(kmod::Whole),
}

impl Sound {
    /// Whether the artifact is signed already as [`Sound::sign`] would sign it.
    ///
    /// # Errors
    /// Those of finding the key's public half, which may pass.
    pub fn is_signed_by(&self, signer: &dyn DigestSigner) -> Result<bool, signer::Error> {
        Ok(match self {
            Self::Rpm(package) => package.is_signed_by(signer.public()),
            Self::Kmod(module) => module.is_signed_by(signer.certificate()?),
        })
    }

    /// The edit that makes `signer`'s signature the only one.
    ///
    /// # Errors
    /// [`Error`], which says itself whether it may pass.
    pub fn sign(&self, signer: &dyn DigestSigner, created: SystemTime) -> Result<Edit, Error> {
        Ok(match self {
            Self::Rpm(package) => package.sign(signer, created)?,
            // What is appended to a module holds no time.
            Self::Kmod(module) => module.sign(signer)?,
        })
    }

    /// The edit that removes every signature, or nothing where there is none.
    ///
    /// # Errors
    /// [`Error`], which says itself whether it may pass.
    pub fn unsign(&self) -> Result<Option<Edit>, Error> {
        Ok(match self {
            Self::Rpm(package) => package.unsign(),
            Self::Kmod(module) => module.unsign()?,
        })
    }
}
