//! Keyboxes: the file `pubring.kbx` of GnuPG 2.1 and later.
//!
//! Source: GnuPG, kbx/keybox-blob.c.

use std::io::{self, Read};

/// Bytes of one blob; GnuPG itself stops at 5 MiB.
const MAX_BLOB: usize = 16 << 20;
/// Length, type, version, flags: what each blob begins with.
const HEAD: usize = 8;

const HEADER: u8 = 1;
const OPENPGP: u8 = 2;
/// A header's flag: GnuPG keeps OpenPGP certificates here, and no more in `pubring.gpg`.
const HAS_OPENPGP: u8 = 2;
/// A blob's flag: it was looked up once and is no part of the keyring.
const EPHEMERAL: u8 = 2;

/// The OpenPGP certificates, one by one, as their packets' bytes; ends with the first error.
pub(super) struct Keybox<R> {
    reader: R,
    is_broken: bool,
}

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
            Some(blob) if is_header(&blob) => Ok(keybox),
            _ => Err(invalid("it does not begin as a keybox does")),
        }
    }

    fn certificate(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some(blob) = self.blob()? {
            let [.., kind, _, _, flags] = blob.first_chunk::<HEAD>().unwrap_or(&[0; HEAD]);
            if *kind != OPENPGP || flags & EPHEMERAL != 0 {
                continue;
            }
            let (offset, len) = (number(&blob, HEAD), number(&blob, HEAD + 4));
            let certificate = offset
                .zip(len)
                .and_then(|(offset, len)| blob.get(offset..offset.checked_add(len)?));
            let certificate = certificate.ok_or_else(|| invalid("a blob in it is damaged"))?;
            return Ok(Some(certificate.to_vec()));
        }
        Ok(None)
    }

    fn blob(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut blob = Vec::new();
        self.reader.by_ref().take(4).read_to_end(&mut blob)?;
        if blob.is_empty() {
            return Ok(None);
        }
        let len = number(&blob, 0).filter(|len| (HEAD..=MAX_BLOB).contains(len));
        let len = len.ok_or_else(|| invalid("a blob in it is damaged"))?;
        let rest = (len - blob.len()) as u64;
        self.reader.by_ref().take(rest).read_to_end(&mut blob)?;
        if blob.len() == len {
            Ok(Some(blob))
        } else {
            Err(invalid("it ends within a blob"))
        }
    }
}

impl<R: Read> Iterator for Keybox<R> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_broken {
            return None;
        }
        let next = self.certificate();
        // Where the next one begins is not known.
        self.is_broken = next.is_err();
        next.transpose()
    }
}

/// Whether GnuPG reads its OpenPGP certificates from this keybox, rather than from a `pubring.gpg` beside it.
pub(super) fn is_in_use(keybox: impl Read) -> bool {
    let mut head = [0; HEAD];
    let mut keybox = keybox;
    keybox
        .read_exact(&mut head)
        .is_ok_and(|()| matches!(head, [.., HEADER, _, _, flags] if flags & HAS_OPENPGP != 0))
}

fn is_header(blob: &[u8]) -> bool {
    blob.get(4) == Some(&HEADER)
        && blob
            .get(HEAD..)
            .is_some_and(|rest| rest.starts_with(b"KBXf"))
}

fn number(blob: &[u8], at: usize) -> Option<usize> {
    let bytes = blob.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*bytes)).ok()
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
