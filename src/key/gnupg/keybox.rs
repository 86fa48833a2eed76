//! Keyboxes: the file `pubring.kbx` of GnuPG 2.1 and later.
//!
//! Source: GnuPG, kbx/keybox-blob.c.

use std::io::{self, Read};

/// Bytes of one blob; GnuPG itself stops at 5 MiB.
const MAX_BLOB: usize = 16 << 20;
/// Length, type, version, flags: what each blob begins with.
const HEAD: usize = 8;
/// Where the first key's fingerprint is: behind where the packets are, and how many keys there are.
const FINGERPRINT: usize = 20;

const HEADER: u8 = 1;
const OPENPGP: u8 = 2;
/// A header's flag: GnuPG keeps OpenPGP certificates here, and no more in `pubring.gpg`.
const HAS_OPENPGP: u8 = 2;
/// A blob's flag: it was looked up once and is no part of the keyring.
const EPHEMERAL: u8 = 2;

/// The blobs of OpenPGP certificates, one by one; ends with the first error.
pub(super) struct Keybox<R> {
    reader: R,
    is_broken: bool,
}

/// A blob, whose length alone has been checked.
pub(super) struct Blob(Vec<u8>);

impl<R: Read> Keybox<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// Those of reading, and `InvalidData` where this is no keybox.
    pub(super) fn new(reader: R) -> io::Result<Self> {
        let mut keybox = Self {
            reader,
            is_broken: false,
        };
        match keybox.blob()? {
            Some(blob) if blob.is_header() => Ok(keybox),
            _ => Err(invalid("it does not begin as a keybox does")),
        }
    }

    fn blob(&mut self) -> io::Result<Option<Blob>> {
        let mut blob = Blob(Vec::new());
        self.reader.by_ref().take(4).read_to_end(&mut blob.0)?;
        if blob.0.is_empty() {
            return Ok(None);
        }
        let len = blob.number(0).filter(|len| (HEAD..=MAX_BLOB).contains(len));
        let len = len.ok_or_else(|| invalid("a blob in it is damaged"))?;
        let rest = (len - blob.0.len()) as u64;
        self.reader.by_ref().take(rest).read_to_end(&mut blob.0)?;
        if blob.0.len() == len {
            Ok(Some(blob))
        } else {
            Err(invalid("it ends within a blob"))
        }
    }
}

impl<R: Read> Iterator for Keybox<R> {
    type Item = io::Result<Blob>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_broken {
            match self.blob() {
                Ok(Some(blob)) if blob.is_certificate() => return Some(Ok(blob)),
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => {
                    // Where the next one begins is not known.
                    self.is_broken = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl Blob {
    /// The packets, or nothing where the blob does not hold what it says.
    pub(super) fn certificate(&self) -> Option<&[u8]> {
        let (offset, len) = (self.number(HEAD)?, self.number(HEAD + 4)?);
        self.0.get(offset..offset.checked_add(len)?)
    }

    /// The primary key's fingerprint, as the blob has it for searches.
    pub(super) fn fingerprint(&self) -> String {
        let fingerprint = self.0.get(FINGERPRINT..FINGERPRINT + 20);
        hex::encode_upper(fingerprint.unwrap_or_default())
    }

    fn is_certificate(&self) -> bool {
        matches!(self.0.first_chunk::<HEAD>(), Some([.., OPENPGP, _, _, flags]) if flags & EPHEMERAL == 0)
    }

    fn is_header(&self) -> bool {
        self.0.get(4) == Some(&HEADER)
            && self
                .0
                .get(HEAD..)
                .is_some_and(|rest| rest.starts_with(b"KBXf"))
    }

    fn number(&self, at: usize) -> Option<usize> {
        let bytes = self.0.get(at..)?.first_chunk::<4>()?;
        usize::try_from(u32::from_be_bytes(*bytes)).ok()
    }
}

/// Whether GnuPG reads its OpenPGP certificates from this keybox, rather than from a `pubring.gpg` beside it.
pub(super) fn is_in_use(mut keybox: impl Read) -> bool {
    let mut head = [0; HEAD];
    keybox
        .read_exact(&mut head)
        .is_ok_and(|()| matches!(head, [.., HEADER, _, _, flags] if flags & HAS_OPENPGP != 0))
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
