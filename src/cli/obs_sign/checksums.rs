//! The list of checksums that `-S` writes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use openssl::hash::{Hasher, MessageDigest};

use super::each_chunk;
use crate::cli::terminal::shown;

/// Bytes of lead and of the signature header's start, which tells how long that is.
const START: usize = 96 + 16;

/// Appends a line about the package at `path`: MD5 of what lies before its main header, then MD5, SHA-1 and SHA-256 of all of it.
///
/// # Errors
/// A text that says what failed.
///
/// Source: sign(8) of obs-sign, `-S`, and what it writes.
pub(super) fn append(list: &Path, path: &Path) -> Result<(), String> {
    let line = line(path)?;
    let failed = |error: io::Error| format!("{}: {error}", shown(list));
    if list == Path::new("-") {
        return io::stdout().write_all(line.as_bytes()).map_err(failed);
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(list)
        // In one write, so that several calls at once do not mix their lines.
        .and_then(|mut list| list.write_all(line.as_bytes()))
        .map_err(failed)
}

fn line(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| error.to_string();
    let file = File::open(path).map_err(failed)?;
    let mut start = [0; START];
    file.read_exact_at(&mut start, 0).map_err(failed)?;
    let word = |at: usize| {
        let bytes = start.get(at..)?.first_chunk::<4>()?;
        Some(u64::from(u32::from_be_bytes(*bytes)))
    };
    // What has just been signed has a signature header whose lengths are within rpm's limits.
    let (entries, store) = (word(104).unwrap_or(0), word(108).unwrap_or(0));
    let main_at = (START as u64 + 16 * entries + store).next_multiple_of(8);

    let broken = |error: openssl::error::ErrorStack| error.to_string();
    let digest = |algorithm, len: u64| {
        let file = File::open(path).map_err(failed)?;
        let mut hasher = Hasher::new(algorithm).map_err(broken)?;
        each_chunk(&mut file.take(len), |chunk| {
            hasher.update(chunk).map_err(broken)
        })?;
        hasher.finish().map(hex::encode).map_err(broken)
    };
    Ok(format!(
        "{} md5:{} sha1:{} sha256:{}\n",
        digest(MessageDigest::md5(), main_at)?,
        digest(MessageDigest::md5(), u64::MAX)?,
        digest(MessageDigest::sha1(), u64::MAX)?,
        digest(MessageDigest::sha256(), u64::MAX)?,
    ))
}
