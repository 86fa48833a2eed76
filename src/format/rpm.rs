//! RPM packages, of format v4 and v6, binary and source.
//!
//! A package is lead, signature header, main header, payload. Signing changes the signature header and nothing else.
//!
//! Source: rpm manual, package formats v4 and v6, "signature header".

mod header;
mod signature;
mod whole;

use std::{
    fs::File,
    io,
    ops::RangeInclusive,
    os::unix::fs::FileExt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use header::{Header, INTRO_LEN, Intro, Limits};
pub use signature::{Covers, Held};
pub use whole::Whole;

use crate::key::openpgp;

/// Bytes of the lead, the fixed start of every package.
const LEAD_LEN: u64 = 96;
/// Bytes of a header from which on it counts as large.
const LARGE_HEADER: usize = 8 << 20;
/// How many signatures a v6 package may hold; each costs the time to read it.
const MOST_SIGNATURES: u32 = 64;
/// First four bytes of a package.
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
/// The versions that a lead may state, whatever the package's format is; rpm reads no other.
const LEAD_MAJOR: RangeInclusive<u8> = 3..=4;
/// The lead's statement that a signature header follows.
const SIGNATURE_TYPE_HEADER: u16 = 5;

/// Tags of the signature header.
mod sigtag {
    pub(super) const REGION: u32 = 62;
    pub(super) const DSAHEADER: u32 = 267;
    pub(super) const RSAHEADER: u32 = 268;
    pub(super) const SHA1HEADER: u32 = 269;
    pub(super) const LONGSIZE: u32 = 270;
    pub(super) const SHA256HEADER: u32 = 273;
    pub(super) const OPENPGP: u32 = 278;
    pub(super) const SHA3_256HEADER: u32 = 279;
    pub(super) const RESERVED: u32 = 999;
    pub(super) const SIZE: u32 = 1000;
    pub(super) const PGP: u32 = 1002;
    pub(super) const MD5: u32 = 1004;
    pub(super) const GPG: u32 = 1005;
    pub(super) const RESERVEDSPACE: u32 = 1008;
}

/// Tags of the main header.
mod tag {
    pub(super) const REGION: u32 = 63;
    pub(super) const NAME: u32 = 1000;
    pub(super) const VERSION: u32 = 1001;
    pub(super) const RELEASE: u32 = 1002;
    pub(super) const BUILDTIME: u32 = 1006;
    pub(super) const EPOCH: u32 = 1003;
    pub(super) const ARCH: u32 = 1022;
    pub(super) const SOURCERPM: u32 = 1044;
    pub(super) const PAYLOADSHA256: u32 = 5092;
    pub(super) const PAYLOADSHA256ALGO: u32 = 5093;
    pub(super) const RPMFORMAT: u32 = 5114;
    pub(super) const PAYLOADSHA512: u32 = 5121;
    pub(super) const PAYLOADSHA3_256: u32 = 5123;
}

/// Why a file is not taken for a sound package, or could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file does not begin as a package does. Stays.
    #[error("not an RPM package: {0}")]
    NotAPackage(&'static str),
    /// The file ends before the section does. Stays, until a writer goes on with the file.
    #[error("truncated in the {section}: {have} bytes, {needed} needed")]
    Truncated {
        /// The section that is cut short.
        section: &'static str,
        /// The file's length.
        have: u64,
        /// The length that the section would need.
        needed: u64,
    },
    /// A header breaks a rule of the format. Stays.
    #[error("malformed {section}: {what}")]
    Malformed {
        /// The section that is at fault.
        section: &'static str,
        /// The rule that is broken.
        what: &'static str,
    },
    /// A digest that the package carries does not match its content. Stays.
    #[error("corrupt: the {0} does not match")]
    Corrupt(&'static str),
    /// The package carries no digest by which its payload could be checked. Stays.
    #[error("the package carries no digest of its payload")]
    NoDigest,
    /// A payload digest of a kind that is not known. Stays.
    #[error("payload digest of the unknown kind {0}")]
    UnknownDigest(u32),
    /// The file could not be read. May pass.
    #[error("cannot read")]
    Read(#[source] io::Error),
    /// The signature could not be made or did not verify.
    #[error(transparent)]
    OpenPgp(#[from] openpgp::Error),
}

impl Error {
    /// Whether the same file may succeed later without having changed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Read(_) => true,
            Self::OpenPgp(error) => error.may_pass(),
            Self::NotAPackage(_)
            | Self::Truncated { .. }
            | Self::Malformed { .. }
            | Self::Corrupt(_)
            | Self::NoDigest
            | Self::UnknownDigest(_) => false,
        }
    }
}

/// Whether `start`, the first bytes of a file, are those of a package.
pub fn recognises(start: &[u8]) -> bool {
    start.starts_with(&LEAD_MAGIC)
}

/// A package whose headers are understood; nothing is known yet of its payload.
#[derive(Debug)]
pub struct Package {
    signature: Header,
    main: Header,
    /// Where the main header starts, in bytes from the start of the file.
    main_at: u64,
    /// The file's length in bytes.
    len: u64,
    _large: Option<MutexGuard<'static, ()>>,
}

impl Package {
    /// Reads lead and headers. Memory grows with the headers, never with the payload nor with a length that the file only claims.
    ///
    /// # Errors
    /// All of [`Error`] that speak of lead and headers, and [`Error::Read`].
    pub fn read(file: &File) -> Result<Self, Error> {
        let len = file.metadata().map_err(Error::Read)?.len();
        check_lead(file, len)?;
        let mut large = None;
        let (signature, signature_end) = read_header(
            file,
            &mut large,
            len,
            LEAD_LEN,
            "signature header",
            Limits::SIGNATURE,
            sigtag::REGION,
        )?;
        let main_at = signature_end.next_multiple_of(8);
        let (main, _) = read_header(
            file,
            &mut large,
            len,
            main_at,
            "main header",
            Limits::MAIN,
            tag::REGION,
        )?;
        main.require_full_region("main header")?;
        let signatures = signature.entry(sigtag::OPENPGP);
        if signatures.is_some_and(|entry| entry.count > MOST_SIGNATURES) {
            return Err(Error::Malformed {
                section: "signature header",
                what: "too many signatures",
            });
        }
        Ok(Self {
            signature,
            main,
            main_at,
            len,
            _large: large,
        })
    }

    /// Name, epoch, version, release and architecture, as rpm writes them.
    pub fn nevra(&self) -> String {
        let text = |tag| {
            self.main
                .string(tag)
                .map_or("?".into(), String::from_utf8_lossy)
        };
        let epoch = self
            .main
            .int32(tag::EPOCH)
            .map_or(String::new(), |epoch| format!("{epoch}:"));
        let arch = if self.main.entry(tag::SOURCERPM).is_some() {
            text(tag::ARCH)
        } else {
            "src".into()
        };
        format!(
            "{}-{epoch}{}-{}.{arch}",
            text(tag::NAME),
            text(tag::VERSION),
            text(tag::RELEASE)
        )
    }

    /// When the package was built, where it says so.
    pub fn build_time(&self) -> Option<SystemTime> {
        let seconds = self.main.int32(tag::BUILDTIME)?;
        Some(UNIX_EPOCH + Duration::from_secs(seconds.into()))
    }

    /// The digests that the package carries, by name, in hexadecimal.
    pub fn digests(&self) -> Vec<(&'static str, String)> {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let mut digests = Vec::new();
        for (tag, name) in [
            (sigtag::SHA1HEADER, "header SHA-1"),
            (sigtag::SHA256HEADER, "header SHA-256"),
            (sigtag::SHA3_256HEADER, "header SHA3-256"),
        ] {
            digests.extend(self.signature.string(tag).map(|value| (name, text(value))));
        }
        for (tag, name) in [
            (tag::PAYLOADSHA256, "payload SHA-256"),
            (tag::PAYLOADSHA512, "payload SHA-512"),
            (tag::PAYLOADSHA3_256, "payload SHA3-256"),
        ] {
            digests.extend(self.main.string(tag).map(|value| (name, text(value))));
        }
        if let Some(md5) = self.signature.bin(sigtag::MD5) {
            digests.push(("header and payload MD5", hex::encode(md5)));
        }
        digests
    }

    /// The package format's number, 4 or 6.
    pub fn version(&self) -> u32 {
        self.main.int32(tag::RPMFORMAT).unwrap_or(4)
    }

    fn payload_at(&self) -> u64 {
        self.main_at + self.main.bytes().len() as u64
    }

    /// Whether the main header, and with it any signature of the main header, covers the payload by a digest.
    fn has_payload_digest(&self) -> bool {
        self.main.entry(tag::PAYLOADSHA256).is_some()
    }
}

fn check_lead(file: &File, len: u64) -> Result<(), Error> {
    if len == 0 {
        return Err(Error::NotAPackage("the file is empty"));
    }
    let mut lead = [0; LEAD_LEN as usize];
    let have = len.min(LEAD_LEN) as usize;
    let start = lead.get_mut(..have).unwrap_or_default();
    file.read_exact_at(start, 0).map_err(Error::Read)?;
    if !recognises(&lead) {
        return Err(Error::NotAPackage("wrong magic"));
    }
    if len < LEAD_LEN {
        return Err(Error::Truncated {
            section: "lead",
            have: len,
            needed: LEAD_LEN,
        });
    }
    let [_, _, _, _, major, .., high, low] = *lead
        .first_chunk::<80>()
        .ok_or(Error::NotAPackage("short lead"))?;
    if !LEAD_MAJOR.contains(&major) {
        return Err(Error::Malformed {
            section: "lead",
            what: "package of an unknown version",
        });
    }
    if u16::from_be_bytes([high, low]) != SIGNATURE_TYPE_HEADER {
        return Err(Error::Malformed {
            section: "lead",
            what: "signature of an unknown type",
        });
    }
    Ok(())
}

/// Leave to hold large headers: one package at a time has it, so that many of them do not add up.
static LARGE: Mutex<()> = Mutex::new(());

/// Reads the header at `at` and answers it with the offset of its end.
fn read_header(
    file: &File,
    large: &mut Option<MutexGuard<'static, ()>>,
    len: u64,
    at: u64,
    section: &'static str,
    limits: Limits,
    region_tag: u32,
) -> Result<(Header, u64), Error> {
    let within = |needed| {
        if needed > len {
            Err(Error::Truncated {
                section,
                have: len,
                needed,
            })
        } else {
            Ok(needed)
        }
    };
    within(at + INTRO_LEN as u64)?;
    let mut raw = [0; INTRO_LEN];
    file.read_exact_at(&mut raw, at).map_err(Error::Read)?;
    let intro = Intro::parse(section, raw, limits)?;
    let end = within(at + intro.len as u64)?;
    if intro.len > LARGE_HEADER && large.is_none() {
        *large = Some(LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    }
    let mut bytes = vec![0; intro.len];
    file.read_exact_at(&mut bytes, at).map_err(Error::Read)?;
    Ok((Header::parse(section, bytes, &intro, region_tag)?, end))
}
