//! The proof that a package is what it claims to be.

use std::{fs::File, io, iter, os::unix::fs::FileExt};

use aws_lc_rs::digest;
use md5::{Digest as _, Md5};

use super::{Error, Package, header::Kind, sigtag, tag};
use crate::{digest::Digest, key::openpgp::Hasher};

/// Bytes read at a time: small enough for the processor's cache, large enough that system calls do not count.
const CHUNK: usize = 64 << 10;

/// A package whose digests have all been found to match its content.
///
/// Only [`Package::check`] makes one, and only one of these can be signed or unsigned.
#[derive(Debug)]
pub struct Whole {
    pub(super) package: Package,
    /// Over main header and payload, where a signature of both is held or needed; one for each digest that the key, which is
    /// not known yet, may ask for.
    pub(super) header_and_payload: Vec<(Digest, Hasher)>,
    pub(super) digest: Digest,
}

impl Package {
    /// Checks every digest that the package carries: the header's SHA-1, SHA-256 and SHA3-256, the payload's SHA-256, SHA-512
    /// and SHA3-256, the size, and the MD5 of header and payload where header or payload has no better digest.
    ///
    /// Reads the payload once, as a stream. `digest` is what a signature is going to use, unless it is too weak for the key.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Malformed`], [`Error::NoDigest`] and [`Error::UnknownDigest`] stay; [`Error::Read`] may pass.
    ///
    /// Source: rpm manual, package formats v4 and v6, "digests".
    pub fn check(self, file: &File, digest: Digest) -> Result<Whole, Error> {
        self.check_size()?;
        self.check_md5_kind()?;
        let header_digests = self.check_header()?;
        let wants_md5 = header_digests == 0 || !self.has_payload_digest();
        let wants_hasher = !self.has_payload_digest()
            || self.signature.entry(sigtag::PGP).is_some()
            || self.signature.entry(sigtag::GPG).is_some();

        let mut payload = self.payload_digests()?;
        let mut md5 = if wants_md5 {
            Some(self.signature.bin(sigtag::MD5).ok_or(Error::NoDigest)?).map(|_| Md5::new())
        } else {
            None
        };
        let stronger = [Digest::Sha256, Digest::Sha384]
            .into_iter()
            .filter(|other| other.len_bytes() > digest.len_bytes());
        let mut hashers: Vec<_> = iter::once(digest)
            .chain(stronger)
            .filter(|_| wants_hasher)
            .map(|digest| (digest, Hasher::new(digest)))
            .collect();
        if let Some(md5) = &mut md5 {
            md5.update(self.main.bytes());
        }
        for (_, hasher) in &mut hashers {
            hasher.update(self.main.bytes());
        }
        self.read_payload(file, |chunk| {
            for expected in &mut payload {
                expected.context.update(chunk);
            }
            if let Some(md5) = &mut md5 {
                md5.update(chunk);
            }
            for (_, hasher) in &mut hashers {
                hasher.update(chunk);
            }
        })?;

        for expected in payload {
            expected.matches()?;
        }
        if let Some(md5) = md5
            && self.signature.bin(sigtag::MD5) != Some(md5.finalize().as_slice())
        {
            return Err(Error::Corrupt("MD5 of header and payload"));
        }
        Ok(Whole {
            package: self,
            header_and_payload: hashers,
            digest,
        })
    }

    fn check_size(&self) -> Result<(), Error> {
        let stated = self
            .signature
            .int64(sigtag::LONGSIZE)
            .or_else(|| self.signature.int32(sigtag::SIZE).map(u64::from));
        let needed = match stated {
            Some(size) => self.main_at.saturating_add(size),
            None => self.payload_at(),
        };
        if self.len < needed {
            return Err(Error::Truncated {
                section: "payload",
                have: self.len,
                needed,
            });
        }
        if stated.is_some() && self.len != needed {
            return Err(Error::Corrupt("size of header and payload"));
        }
        Ok(())
    }

    /// Refuses an MD5 that cannot be one even where none is computed, as rpm does.
    fn check_md5_kind(&self) -> Result<(), Error> {
        match self.signature.entry(sigtag::MD5) {
            Some(entry) if entry.kind != Kind::Bin || entry.count != 16 => Err(Error::Malformed {
                section: "signature header",
                what: "MD5 of a wrong kind",
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks the digests of the main header and answers how many there are.
    fn check_header(&self) -> Result<usize, Error> {
        let known: [(u32, &'static digest::Algorithm, &'static str); 3] = [
            (
                sigtag::SHA1HEADER,
                &digest::SHA1_FOR_LEGACY_USE_ONLY,
                "header's SHA-1",
            ),
            (sigtag::SHA256HEADER, &digest::SHA256, "header's SHA-256"),
            (
                sigtag::SHA3_256HEADER,
                &digest::SHA3_256,
                "header's SHA3-256",
            ),
        ];
        let mut checked = 0;
        for (tag, algorithm, name) in known {
            let Some(entry) = self.signature.entry(tag) else {
                continue;
            };
            if entry.kind != Kind::String {
                return Err(Error::Malformed {
                    section: "signature header",
                    what: "digest of a wrong kind",
                });
            }
            let found = digest::digest(algorithm, self.main.bytes());
            if !is_hex_of(self.signature.string(tag), found.as_ref()) {
                return Err(Error::Corrupt(name));
            }
            checked += 1;
        }
        Ok(checked)
    }

    fn payload_digests(&self) -> Result<Vec<Expected<'_>>, Error> {
        // The number is a hash algorithm of OpenPGP (RFC 9580, section 9.5).
        let first = match self.main.int32(tag::PAYLOADSHA256ALGO).unwrap_or(8) {
            8 => &digest::SHA256,
            9 => &digest::SHA384,
            10 => &digest::SHA512,
            other => return Err(Error::UnknownDigest(other)),
        };
        let known: [(u32, &'static digest::Algorithm, &'static str); 3] = [
            (tag::PAYLOADSHA256, first, "payload digest"),
            (tag::PAYLOADSHA512, &digest::SHA512, "payload's SHA-512"),
            (
                tag::PAYLOADSHA3_256,
                &digest::SHA3_256,
                "payload's SHA3-256",
            ),
        ];
        let mut expected = Vec::new();
        for (tag, algorithm, name) in known {
            let Some(entry) = self.main.entry(tag) else {
                continue;
            };
            if !matches!(entry.kind, Kind::String | Kind::StringArray) || entry.count != 1 {
                return Err(Error::Malformed {
                    section: "main header",
                    what: "payload digest of a wrong kind",
                });
            }
            expected.push(Expected {
                context: digest::Context::new(algorithm),
                hex: self.main.string(tag),
                name,
            });
        }
        Ok(expected)
    }

    fn read_payload(&self, file: &File, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut at = self.payload_at();
        let mut buffer = vec![0; CHUNK.min((self.len - at) as usize)];
        while at < self.len {
            let want = buffer.len().min((self.len - at) as usize);
            let chunk = buffer.get_mut(..want).unwrap_or_default();
            let read = match file.read_at(chunk, at) {
                Ok(0) => {
                    return Err(Error::Truncated {
                        section: "payload",
                        have: at,
                        needed: self.len,
                    });
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Read(error)),
            };
            each(chunk.get(..read).unwrap_or_default());
            at += read as u64;
        }
        Ok(())
    }
}

/// A digest that the payload has to have.
struct Expected<'a> {
    context: digest::Context,
    hex: Option<&'a [u8]>,
    name: &'static str,
}

impl Expected<'_> {
    fn matches(self) -> Result<(), Error> {
        if is_hex_of(self.hex, self.context.finish().as_ref()) {
            Ok(())
        } else {
            Err(Error::Corrupt(self.name))
        }
    }
}

fn is_hex_of(text: Option<&[u8]>, bytes: &[u8]) -> bool {
    text.is_some_and(|text| text.eq_ignore_ascii_case(hex::encode(bytes).as_bytes()))
}
