//! What is appended to a module: signatures, each with a description and a marker behind it.
//!
//! Source: Linux, include/linux/module_signature.h, scripts/sign-file.c.

use std::{fs::File, os::unix::fs::FileExt as _};

use super::{Error, Held};
use crate::key::x509::cms::{Signature, Verified};

/// The last bytes of a signed module.
const MARKER: [u8; 28] = *b"~Module signature appended~\n";
/// Bytes that describe a signature.
const DESCRIPTION_LEN: usize = 12;
/// Bytes of description and marker.
const TRAILER_LEN: usize = DESCRIPTION_LEN + MARKER.len();
/// The description's statement that the signature is a CMS structure, formerly PKCS#7.
const ID_PKCS7: u8 = 2;
/// The same for the form that kernels before 4.3 read: the signer's name, its key's identifier, and the signature itself.
const ID_X509: u8 = 1;
/// Bytes of a signature at the most; with certificates in it, it has a few kilobytes.
const LARGEST: u64 = 256 << 10;
/// How many signatures may be stacked.
const MOST: usize = 16;

/// Reads the signatures between the end of the module and the end of a file of `len` bytes. They have to fill it to the byte.
pub(super) fn read(file: &File, module_end: u64, len: u64) -> Result<Vec<Held>, Error> {
    let mut held = Vec::new();
    let mut end = len;
    while end > module_end {
        if held.len() == MOST {
            return Err(Error::Signature("too many are stacked"));
        }
        let one = read_last(file, module_end, end)?;
        end = one.at;
        held.push(one);
    }
    held.reverse();
    Ok(held)
}

/// The signature that ends at `end`.
fn read_last(file: &File, module_end: u64, end: u64) -> Result<Held, Error> {
    let rest = end - module_end;
    let mut trailer = [0; TRAILER_LEN];
    if rest < trailer.len() as u64 {
        return Err(Error::Garbage(rest));
    }
    let trailer_at = end - trailer.len() as u64;
    file.read_exact_at(&mut trailer, trailer_at)
        .map_err(Error::Read)?;
    let (description, marker) = trailer.split_at(DESCRIPTION_LEN);
    if marker != MARKER {
        return Err(Error::Garbage(rest));
    }
    let description: [u8; DESCRIPTION_LEN] = description
        .try_into()
        .map_err(|_| Error::Signature("it is not described"))?;
    let [
        algorithm,
        hash,
        kind,
        signer_len,
        key_len,
        pad @ ..,
        a,
        b,
        c,
        d,
    ] = description;
    let names_len = u64::from(signer_len) + u64::from(key_len);
    let signature_len = u64::from(u32::from_be_bytes([a, b, c, d]));
    let is_known = match kind {
        // Kernels refuse it where anything else is set.
        ID_PKCS7 => names_len == 0 && (algorithm, hash, pad) == (0, 0, [0; 3]),
        ID_X509 => names_len > 0,
        _ => false,
    };
    if !is_known || signature_len == 0 {
        return Err(Error::Signature("its description is of an unknown kind"));
    }
    let len = names_len + signature_len;
    if len > LARGEST || len > trailer_at - module_end {
        return Err(Error::Signature("it states a length that it does not have"));
    }
    let at = trailer_at - len;
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, at).map_err(Error::Read)?;
    if kind == ID_PKCS7 && der_len(&bytes) != Some(bytes.len()) {
        return Err(Error::Signature("it is not one whole CMS structure"));
    }
    Ok(Held {
        at,
        signature: Signature::parse(&bytes),
    })
}

/// The length that a DER sequence states, with its own header (X.690, section 8.1.3).
fn der_len(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        [0x30, short @ 0..=0x7f, ..] => Some(2 + usize::from(short)),
        [0x30, 0x81, one, ..] => Some(3 + usize::from(one)),
        [0x30, 0x82, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([high, low]))),
        [0x30, 0x83, a, b, c, ..] => Some(5 + u32::from_be_bytes([0, a, b, c]) as usize),
        _ => None,
    }
}

/// What has to be appended to a module for a signature.
pub(super) fn write(signature: &Verified) -> Vec<u8> {
    let cms = signature.as_der();
    let mut bytes = cms.to_vec();
    bytes.extend([0, 0, ID_PKCS7, 0, 0, 0, 0, 0]);
    bytes.extend((cms.len() as u32).to_be_bytes());
    bytes.extend(MARKER);
    bytes
}
