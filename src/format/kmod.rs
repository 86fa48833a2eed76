//! Linux kernel modules, as they are or compressed with gzip, xz or zstd.
//!
//! A module is an ELF file; a signature is appended to it: a CMS structure, 12 bytes that tell its length, a marker of 28 bytes. A
//! compressed module has its signature inside.
//!
//! Source: Linux, Documentation/admin-guide/module-signing.rst, include/linux/module_signature.h, scripts/sign-file.c.

mod elf;
mod packing;
mod signature;
mod trailer;

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
};

use aws_lc_rs::digest as aws_digest;
pub use packing::UnpackLimit;
use packing::{Packed, Packing, Unpacked};
pub use signature::Held;

use crate::{
    digest::Digest,
    key::x509::{self, cms},
};

/// Bytes read at a time: small enough for the processor's cache, large enough that system calls do not count.
const CHUNK: usize = 64 << 10;

/// Why a file is not taken for a sound module, or could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The content is something else: no artifact, whatever the file is called. Stays.
    #[error("not a kernel module: {0}")]
    NotAModule(&'static str),
    /// The module ends before the section does. Stays, until a writer goes on with the file.
    #[error("truncated in the {section}: {have} bytes, {needed} needed")]
    Truncated {
        /// The section that is cut short.
        section: &'static str,
        /// The module's length.
        have: u64,
        /// The length that the section would need.
        needed: u64,
    },
    /// The ELF file breaks a rule of its format. Stays.
    #[error("malformed module: {0}")]
    Malformed(&'static str),
    /// Behind the module's end are bytes that are no whole signature. Stays.
    #[error("{0} bytes behind the module's end belong to no signature")]
    Garbage(u64),
    /// What follows the module has a signature's marker, and is none. Stays.
    #[error("malformed signature: {0}")]
    Signature(&'static str),
    /// What is compressed is damaged, or something follows it. Stays.
    #[error("cannot unpack the {packing} file")]
    Unpack {
        /// The kind of compression.
        packing: &'static str,
        /// What is wrong.
        source: io::Error,
    },
    /// The module is larger than is allowed. Stays.
    #[error("unpacked, it is larger than the {0} that unpack_limit_mib allows")]
    TooLarge(UnpackLimit),
    /// The unpacked or newly compressed module could not be kept meanwhile. May pass.
    #[error("cannot keep the unpacked module in {}", packing::spool_dir().display())]
    Spool(#[source] io::Error),
    /// The file could not be read. May pass.
    #[error("cannot read")]
    Read(#[source] io::Error),
    /// What was compressed anew does not unpack to what was compressed: memory or disk are at fault. May pass.
    #[error("the newly compressed module does not unpack to what it was")]
    Repacked,
    /// The signature could not be made or did not verify; its source says whether it may pass.
    #[error(transparent)]
    X509(#[from] x509::Error),
}

impl Error {
    /// Whether the same file may succeed later without having changed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Read(_) | Self::Spool(_) | Self::Repacked => true,
            Self::X509(error) => error.may_pass(),
            Self::NotAModule(_)
            | Self::Truncated { .. }
            | Self::Malformed(_)
            | Self::Garbage(_)
            | Self::Signature(_)
            | Self::Unpack { .. }
            | Self::TooLarge(_) => false,
        }
    }
}

/// Whether `start`, the first bytes of a file, are such as a module's may be, compressed or not.
pub fn recognises(start: &[u8]) -> bool {
    start.starts_with(&elf::MAGIC) || Packing::of(start).is_some()
}

/// A module whose structure is understood, and what is appended to it.
#[derive(Debug)]
pub struct Module {
    /// The module without compression.
    content: File,
    packed: Option<Packed>,
    /// Where the module ends and the first signature begins, in bytes.
    end: u64,
    /// The content's length with all signatures, in bytes.
    len: u64,
    held: Vec<Held>,
    information: Vec<u8>,
}

impl Module {
    /// Reads a module's structure. One that is compressed is unpacked into an unnamed file, so that memory never grows with it; of these, as many
    /// as there are processors are held at once, so a thread that holds one must not read another.
    ///
    /// # Errors
    /// All of [`Error`] but [`Error::X509`].
    pub fn read(file: &File, limit: UnpackLimit) -> Result<Self, Error> {
        let Unpacked {
            content,
            len,
            packed,
        } = packing::unpack(file, limit)?;
        let elf = elf::read(&content, len)?;
        let held = trailer::read(&content, elf.end, len)?;
        Ok(Self {
            content,
            packed,
            end: elf.end,
            len,
            held,
            information: elf.information,
        })
    }

    /// The signatures that are appended, valid or not, in the order in which they were; a kernel looks at the last.
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// How the module is compressed, if it is: `gzip`, `xz` or `zstd`.
    pub fn packing_name(&self) -> Option<&'static str> {
        self.packed.as_ref().map(|packed| packed.packing.name())
    }

    /// What the module says of itself under a name such as `name` or `vermagic` (modinfo(8)), if it does.
    pub fn information(&self, name: &str) -> Option<String> {
        let mut entries = self.information.split(|byte| *byte == 0);
        entries.find_map(|entry| {
            let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    }

    /// Hashes the module, as a stream; `digest` is what a signature is going to use, unless kernels do not take it.
    ///
    /// # Errors
    /// [`Error::Read`], which may pass.
    pub fn check(self, digest: Digest) -> Result<Whole, Error> {
        let digest = cms::digest(digest);
        let hash = self.hash(digest, self.end)?;
        Ok(Whole {
            module: self,
            digest,
            hash,
        })
    }

    fn hash(&self, digest: Digest, len: u64) -> Result<Vec<u8>, Error> {
        let mut context = aws_digest::Context::new(match digest {
            Digest::Sha1 => &aws_digest::SHA1_FOR_LEGACY_USE_ONLY,
            Digest::Sha256 => &aws_digest::SHA256,
            Digest::Sha384 => &aws_digest::SHA384,
            Digest::Sha512 => &aws_digest::SHA512,
        });
        let mut stretch = Stretch::new(&self.content, len);
        let mut buffer = vec![0; CHUNK.min(len as usize)];
        loop {
            match stretch.read(&mut buffer) {
                Ok(0) => return Ok(context.finish().as_ref().to_vec()),
                Ok(read) => context.update(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
    }
}

/// A module that has been read as a whole.
///
/// Only [`Module::check`] makes one, and only one of these can be signed or unsigned.
#[derive(Debug)]
pub struct Whole {
    module: Module,
    digest: Digest,
    /// Over the module without signatures.
    hash: Vec<u8>,
}

/// The first bytes of a file, read from its start.
struct Stretch<'a> {
    file: &'a File,
    at: u64,
    len: u64,
}

impl<'a> Stretch<'a> {
    fn new(file: &'a File, len: u64) -> Self {
        Self { file, at: 0, len }
    }
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.len - self.at).unwrap_or(usize::MAX);
        let want = buffer.len().min(rest);
        if want == 0 {
            return Ok(0);
        }
        let read = self
            .file
            .read_at(buffer.get_mut(..want).unwrap_or_default(), self.at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}
