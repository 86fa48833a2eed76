//! Reading, replacing and removing the OpenPGP signatures of a package.

use std::{borrow::Cow, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    Error, LEAD_LEN, Package, Whole,
    header::{self, Kind, NewEntry},
    sigtag,
};
use crate::{
    digest::Digest,
    edit::Edit,
    key::openpgp::{self, Hasher, Signature, Verified},
    signer::DigestSigner,
};

/// Every tag whose value is an OpenPGP signature.
const SIGNATURE_TAGS: [u32; 5] = [
    sigtag::DSAHEADER,
    sigtag::RSAHEADER,
    sigtag::OPENPGP,
    sigtag::PGP,
    sigtag::GPG,
];

/// What a signature in the signature header covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covers {
    /// The main header, and through its payload digest the payload.
    Header,
    /// Main header and payload, as packages without payload digest need it.
    HeaderAndPayload,
}

/// A signature that a package holds.
#[derive(Debug)]
pub struct Held {
    /// What it covers.
    pub covers: Covers,
    /// The signature, or nothing where its bytes are not an OpenPGP signature.
    pub signature: Option<Signature>,
}

impl Package {
    /// The signatures that the signature header holds, valid or not.
    pub fn held(&self) -> Vec<Held> {
        let mut held = Vec::new();
        for (tag, covers) in [
            (sigtag::RSAHEADER, Covers::Header),
            (sigtag::DSAHEADER, Covers::Header),
            (sigtag::PGP, Covers::HeaderAndPayload),
            (sigtag::GPG, Covers::HeaderAndPayload),
        ] {
            if let Some(entry) = self.signature.entry(tag) {
                held.push(Held {
                    covers,
                    signature: Signature::parse(self.signature.value(entry)),
                });
            }
        }
        for base64 in self.signature.strings(sigtag::OPENPGP) {
            let packet = STANDARD.decode(base64).ok();
            held.push(Held {
                covers: Covers::Header,
                signature: packet.and_then(|packet| Signature::parse(&packet)),
            });
        }
        held
    }

    /// The header, ready to be hashed for a signature with `digest`.
    pub fn header_hasher(&self, digest: Digest) -> Hasher {
        let mut hasher = Hasher::new(digest);
        hasher.update(self.main.bytes());
        hasher
    }

    /// The edit that leaves `new` as the only signatures; every other tag and every byte behind the signature header stays.
    ///
    /// The filler gives or takes the room, so that nothing behind the signature header moves. Without filler, or where it is
    /// too small, the signature header's length changes.
    fn replace_signatures(&self, new: Vec<NewEntry<'_>>) -> Edit {
        let mut layout = Layout {
            covered: 0,
            entries: Vec::new(),
        };
        for (place, entry) in self.signature.entries().iter().enumerate() {
            if SIGNATURE_TAGS.contains(&entry.tag) {
                continue;
            }
            layout.covered += usize::from(place < self.signature.covered());
            layout.entries.push(NewEntry {
                tag: entry.tag,
                kind: entry.kind,
                count: entry.count,
                value: Cow::Borrowed(self.signature.value(entry)),
            });
        }
        for entry in new {
            layout.insert(entry);
        }
        let mut bytes = layout
            .with_length(self.signature.bytes().len())
            .unwrap_or_else(|| layout.write());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        Edit::replace(LEAD_LEN, self.main_at - LEAD_LEN, bytes)
    }
}

/// What a signature header is going to hold.
struct Layout<'a> {
    /// How many of the entries the region covers; the others stay behind it.
    covered: usize,
    entries: Vec<NewEntry<'a>>,
}

impl<'a> Layout<'a> {
    /// Puts an entry where the order of tags wants it, within the region.
    fn insert(&mut self, entry: NewEntry<'a>) {
        let at = self
            .entries
            .iter()
            .take(self.covered)
            .position(|present| present.tag > entry.tag)
            .unwrap_or(self.covered);
        self.entries.insert(at, entry);
        self.covered += 1;
    }

    fn write(&self) -> Vec<u8> {
        header::write(sigtag::REGION, &self.entries, self.covered)
    }

    /// The header with exactly `len` bytes, by giving the filler the length that is left, or nothing where that cannot be.
    fn with_length(&self, len: usize) -> Option<Vec<u8>> {
        let filler = self.entries.iter().position(|entry| {
            matches!(entry.tag, sigtag::RESERVED | sigtag::RESERVEDSPACE) && entry.kind == Kind::Bin
        })?;
        let others = self.write().len() - self.entries.get(filler)?.value.len();
        // A value has at least one byte, so a filler that would be empty is one that does not fit.
        let room = len.checked_sub(others).filter(|room| *room > 0)?;
        let mut entries = self.entries.clone();
        let entry = entries.get_mut(filler)?;
        entry.count = room as u32;
        entry.value = Cow::Owned(vec![0; room]);
        let bytes = header::write(sigtag::REGION, &entries, self.covered);
        // Values behind the filler may have come to lie at another alignment; no rpm writes such a layout.
        (bytes.len() == len).then_some(bytes)
    }
}

impl Whole {
    /// Makes `signer`'s signature the package's only one.
    ///
    /// A v4 package gets its signature under the tag that rpm reads for the key's algorithm, a v6 package under OPENPGP. Where the
    /// main header has no payload digest, a second signature covers header and payload, since nothing else does. A digest that
    /// is too weak for the key gives way to [`openpgp::PublicKey::digest`].
    /// `created` is the signatures' time, to the second. Every signature has been verified before it is part of the edit.
    ///
    /// # Errors
    /// [`Error::OpenPgp`], which may pass; [`Error::NoDigest`] for a key that wants a digest over the payload which is none of
    /// ours.
    ///
    /// Source: rpm manual, package formats v4 and v6, "signature header".
    pub fn sign(&self, signer: &dyn DigestSigner, created: SystemTime) -> Result<Edit, Error> {
        let key = signer.public();
        let package = &self.package;
        let digest = key.digest(self.digest);
        let over_header = openpgp::sign(signer, package.header_hasher(digest), created)?;
        let mut new = Vec::new();
        if package.version() >= 6 {
            new.push(openpgp_entry(&over_header));
        } else {
            let tag = if key.is_rsa() {
                sigtag::RSAHEADER
            } else {
                sigtag::DSAHEADER
            };
            new.push(packet_entry(tag, over_header));
        }
        if !package.has_payload_digest() {
            let hasher = self.both_hasher(digest).ok_or(Error::NoDigest)?;
            let over_both = openpgp::sign(signer, hasher.clone(), created)?;
            let tag = if key.is_rsa() {
                sigtag::PGP
            } else {
                sigtag::GPG
            };
            new.push(packet_entry(tag, over_both));
        }
        Ok(package.replace_signatures(new))
    }

    /// Removes every OpenPGP signature and gives the room back to the filler, or answers nothing where there is none.
    ///
    /// Digests, IMA and fs-verity signatures stay.
    pub fn unsign(&self) -> Option<Edit> {
        let signed = SIGNATURE_TAGS
            .iter()
            .any(|tag| self.package.signature.entry(*tag).is_some());
        signed.then(|| self.package.replace_signatures(Vec::new()))
    }

    /// Whether each signature that the package holds is `key`'s, valid, with the wanted digest, and none is missing.
    pub fn is_signed_by(&self, key: &openpgp::PublicKey) -> bool {
        let held = self.package.held();
        let covers = |what| held.iter().any(|held| held.covers == what);
        covers(Covers::Header)
            && (self.package.has_payload_digest() || covers(Covers::HeaderAndPayload))
            && held.iter().all(|held| self.is_valid(held, key))
    }

    /// Whether a signature that the package holds is `key`'s, made with the digest that [`Whole::sign`] would use, and valid.
    pub fn is_valid(&self, held: &Held, key: &openpgp::PublicKey) -> bool {
        let digest = key.digest(self.digest);
        let hasher = match held.covers {
            Covers::Header => Some(self.package.header_hasher(digest)),
            Covers::HeaderAndPayload => self.both_hasher(digest).cloned(),
        };
        match (&held.signature, hasher) {
            (Some(signature), Some(hasher)) => {
                signature.digest() == Some(digest) && signature.verify(key, hasher).is_ok()
            }
            _ => false,
        }
    }

    /// The hash over header and payload, where the package holds or needs a signature of both.
    fn both_hasher(&self, digest: Digest) -> Option<&Hasher> {
        let mut hashers = self.header_and_payload.iter();
        hashers
            .find(|(of, _)| *of == digest)
            .map(|(_, hasher)| hasher)
    }

    /// The package.
    pub fn package(&self) -> &Package {
        &self.package
    }
}

fn packet_entry(tag: u32, signature: Verified) -> NewEntry<'static> {
    let packet = signature.into_packet();
    NewEntry {
        tag,
        kind: Kind::Bin,
        count: packet.len() as u32,
        value: Cow::Owned(packet),
    }
}

fn openpgp_entry(signature: &Verified) -> NewEntry<'static> {
    let mut text = STANDARD.encode(signature.packet()).into_bytes();
    text.push(0);
    NewEntry {
        tag: sigtag::OPENPGP,
        kind: Kind::StringArray,
        count: 1,
        value: Cow::Owned(text),
    }
}
