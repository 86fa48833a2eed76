//! The header structure of an RPM package: an index of tags over a store of values.
//!
//! Source: rpm manual, package format v4, "header structure".

use std::ops::{Range, RangeInclusive};

use super::Error;

/// Bytes of the introduction: magic, reserved, number of entries, length of the store.
pub(super) const INTRO_LEN: usize = 16;
/// Bytes of one index entry.
const ENTRY_LEN: usize = 16;
/// First eight bytes of every header.
const MAGIC: [u8; 8] = [0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0];

/// The tags that rpm reads: it keeps those below to itself, regions among them, and takes a tag for a signed number.
const TAGS: RangeInclusive<u32> = 100..=i32::MAX as u32;

/// What a header may measure at the most, as rpm itself bounds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    entries: u32,
    store: u32,
}

impl Limits {
    /// rpm's bounds for a signature header.
    pub(super) const SIGNATURE: Self = Self {
        entries: 32,
        store: 64 << 20,
    };
    /// rpm's bounds for the main header.
    pub(super) const MAIN: Self = Self {
        entries: 0xffff,
        store: 256 << 20,
    };
}

/// How a value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Eight-bit characters.
    Char = 1,
    /// Eight-bit numbers.
    Int8 = 2,
    /// Big-endian 16-bit numbers.
    Int16 = 3,
    /// Big-endian 32-bit numbers.
    Int32 = 4,
    /// Big-endian 64-bit numbers.
    Int64 = 5,
    /// One string that ends with a zero byte.
    String = 6,
    /// Bytes.
    Bin = 7,
    /// Strings, each ending with a zero byte.
    StringArray = 8,
    /// Strings in several languages.
    I18nString = 9,
}

impl Kind {
    fn parse(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Char,
            2 => Self::Int8,
            3 => Self::Int16,
            4 => Self::Int32,
            5 => Self::Int64,
            6 => Self::String,
            7 => Self::Bin,
            8 => Self::StringArray,
            9 => Self::I18nString,
            _ => return None,
        })
    }

    /// A value of this kind starts at a multiple of this many bytes.
    pub(super) fn alignment(self) -> usize {
        match self {
            Self::Int16 => 2,
            Self::Int32 => 4,
            Self::Int64 => 8,
            Self::Char
            | Self::Int8
            | Self::String
            | Self::Bin
            | Self::StringArray
            | Self::I18nString => 1,
        }
    }
}

/// One tag and where its value lies.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) tag: u32,
    pub(super) kind: Kind,
    pub(super) count: u32,
    /// Within the header's bytes, introduction included.
    value: Range<usize>,
}

/// A header as it stands in a file, with its index understood.
#[derive(Debug)]
pub(super) struct Header {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// How many of the entries, the region's own included, the region covers.
    covered: usize,
}

/// The introduction of a header, understood.
pub(super) struct Intro {
    entries: u32,
    /// The whole header's length in bytes, introduction included, padding excluded.
    pub(super) len: usize,
}

impl Intro {
    /// # Errors
    /// [`Error::Malformed`] where the magic is wrong or a bound is broken.
    pub(super) fn parse(
        section: &'static str,
        bytes: [u8; INTRO_LEN],
        limits: Limits,
    ) -> Result<Self, Error> {
        let malformed = |what| Error::Malformed { section, what };
        let (magic, rest) = bytes.split_at(8);
        if magic != MAGIC {
            return Err(malformed("wrong magic"));
        }
        let entries = be_u32(rest, 0).ok_or(malformed("short introduction"))?;
        let store = be_u32(rest, 4).ok_or(malformed("short introduction"))?;
        if entries == 0 || entries > limits.entries {
            return Err(malformed("number of index entries out of bounds"));
        }
        if store == 0 || store > limits.store {
            return Err(malformed("length of the store out of bounds"));
        }
        // Both are bounded above, so the sum is below 2^32.
        let len = INTRO_LEN + entries as usize * ENTRY_LEN + store as usize;
        Ok(Self { entries, len })
    }
}

impl Header {
    /// Understands a header of exactly the length that its introduction states.
    ///
    /// The first entry has to be the region `region_tag`. Entries behind those that it covers are kept where they are.
    ///
    /// # Errors
    /// [`Error::Malformed`] where an entry points outside the store or not at its alignment, is of an unknown kind, or has a tag that is
    /// out of bounds or there twice.
    pub(super) fn parse(
        section: &'static str,
        bytes: Vec<u8>,
        intro: &Intro,
        region_tag: u32,
    ) -> Result<Self, Error> {
        let malformed = |what| Error::Malformed { section, what };
        let store_at = INTRO_LEN + intro.entries as usize * ENTRY_LEN;
        let index = bytes
            .get(INTRO_LEN..store_at)
            .ok_or(malformed("index is cut short"))?;
        let mut entries: Vec<Entry> = Vec::with_capacity(intro.entries as usize);
        let mut end = store_at;
        for raw in index.chunks_exact(ENTRY_LEN) {
            let field = |at| be_u32(raw, at).ok_or(malformed("index is cut short"));
            let (tag, kind, offset, count) = (field(0)?, field(4)?, field(8)?, field(12)?);
            let kind = Kind::parse(kind).ok_or(malformed("value of an unknown kind"))?;
            let start = store_at
                .checked_add(offset as usize)
                .filter(|start| *start < bytes.len())
                .ok_or(malformed("value outside the store"))?;
            let is_region = entries.is_empty();
            if !is_region && !TAGS.contains(&tag) {
                return Err(malformed("tag out of bounds"));
            }
            // rpm wants values in the order of the index too. It also bounds the work here: each byte is looked at once.
            if !is_region && start < end {
                return Err(malformed("values overlap"));
            }
            if !(start - store_at).is_multiple_of(kind.alignment()) {
                return Err(malformed("value not aligned"));
            }
            let rest = bytes
                .get(start..)
                .ok_or(malformed("value outside the store"))?;
            let len =
                value_len(kind, count, rest).ok_or(malformed("value longer than the store"))?;
            if !is_region {
                end = start + len;
            }
            entries.push(Entry {
                tag,
                kind,
                count,
                value: start..start + len,
            });
        }
        let mut header = Self {
            bytes,
            entries,
            covered: 0,
        };
        header.covered = header
            .region(region_tag)
            .map_err(|what| Error::Malformed { section, what })?;
        header.check_unique(section)?;
        Ok(header)
    }

    /// Checks the region and answers how many entries it covers.
    fn region(&self, region_tag: u32) -> Result<usize, &'static str> {
        let region = self
            .entries
            .first()
            .filter(|entry| entry.tag == region_tag)
            .ok_or("no region")?;
        if region.kind != Kind::Bin || region.count as usize != ENTRY_LEN {
            return Err("region of a wrong kind");
        }
        let trailer = self.value(region);
        let covered = (1..=self.entries.len())
            .find(|count| trailer == region_trailer(region_tag, *count as u32))
            .ok_or("region without its trailer")?;
        let (inside, outside) = self
            .entries
            .split_at_checked(covered)
            .ok_or("region without its trailer")?;
        let inside = inside.iter().skip(1);
        if inside
            .clone()
            .any(|entry| entry.value.end > region.value.start)
            || outside
                .iter()
                .any(|entry| entry.value.start < region.value.end)
        {
            return Err("region and store do not agree");
        }
        Ok(covered)
    }

    /// Refuses a header that has anything outside its region: digests and signatures would not cover it.
    pub(super) fn require_full_region(&self, section: &'static str) -> Result<(), Error> {
        let full = self.covered == self.entries.len()
            && self
                .entries
                .first()
                .is_some_and(|region| region.value.end == self.bytes.len());
        full.then_some(()).ok_or(Error::Malformed {
            section,
            what: "region does not cover everything",
        })
    }

    fn check_unique(&self, section: &'static str) -> Result<(), Error> {
        let mut tags: Vec<u32> = self.entries.iter().map(|entry| entry.tag).collect();
        tags.sort_unstable();
        if tags.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(Error::Malformed {
                section,
                what: "a tag occurs twice",
            });
        }
        Ok(())
    }

    /// The header as it stands in the file, padding excluded: what header digests and signatures cover.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many of [`Header::entries`] the region covers.
    pub(super) fn covered(&self) -> usize {
        self.covered.saturating_sub(1)
    }

    /// Every entry but the region, in the order of the index.
    pub(super) fn entries(&self) -> &[Entry] {
        self.entries.get(1..).unwrap_or_default()
    }

    /// The entry of a tag.
    pub(super) fn entry(&self, tag: u32) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.tag == tag)
    }

    /// The bytes of an entry's value.
    pub(super) fn value(&self, entry: &Entry) -> &[u8] {
        self.bytes.get(entry.value.clone()).unwrap_or_default()
    }

    /// A binary value.
    pub(super) fn bin(&self, tag: u32) -> Option<&[u8]> {
        self.entry(tag)
            .filter(|entry| entry.kind == Kind::Bin)
            .map(|entry| self.value(entry))
    }

    /// The strings of a tag; of an internationalised one, the first is the untranslated text.
    pub(super) fn strings(&self, tag: u32) -> impl Iterator<Item = &[u8]> {
        let value = self
            .entry(tag)
            .filter(|entry| {
                matches!(
                    entry.kind,
                    Kind::String | Kind::StringArray | Kind::I18nString
                )
            })
            .map(|entry| self.value(entry))
            .map(|value| value.strip_suffix(&[0]).unwrap_or(value));
        value
            .into_iter()
            .flat_map(|value| value.split(|byte| *byte == 0))
    }

    /// The first string of a tag.
    pub(super) fn string(&self, tag: u32) -> Option<&[u8]> {
        self.strings(tag).next()
    }

    /// The first 32-bit number of a tag.
    pub(super) fn int32(&self, tag: u32) -> Option<u32> {
        self.entry(tag)
            .filter(|entry| entry.kind == Kind::Int32)
            .and_then(|entry| be_u32(self.value(entry), 0))
    }

    /// The first 64-bit number of a tag.
    pub(super) fn int64(&self, tag: u32) -> Option<u64> {
        let entry = self.entry(tag).filter(|entry| entry.kind == Kind::Int64)?;
        let value = self.value(entry).first_chunk()?;
        Some(u64::from_be_bytes(*value))
    }
}

/// One value of a header that is to be written.
#[derive(Debug, Clone)]
pub(super) struct NewEntry<'a> {
    pub(super) tag: u32,
    pub(super) kind: Kind,
    pub(super) count: u32,
    pub(super) value: std::borrow::Cow<'a, [u8]>,
}

/// Writes a header: a region over the first `covered` entries, each value at its natural alignment and in the entries' order.
pub(super) fn write(region_tag: u32, entries: &[NewEntry<'_>], covered: usize) -> Vec<u8> {
    let mut index = Vec::with_capacity(entries.len() * ENTRY_LEN);
    let mut store = Vec::new();
    let mut region_offset = 0;
    let mut end_region = |store: &mut Vec<u8>| {
        region_offset = store.len() as u32;
        store.extend_from_slice(&region_trailer(region_tag, covered as u32 + 1));
    };
    for (place, entry) in entries.iter().enumerate() {
        if place == covered {
            end_region(&mut store);
        }
        store.resize(store.len().next_multiple_of(entry.kind.alignment()), 0);
        push_entry(
            &mut index,
            entry.tag,
            entry.kind,
            store.len() as u32,
            entry.count,
        );
        store.extend_from_slice(&entry.value);
    }
    if covered >= entries.len() {
        end_region(&mut store);
    }

    let mut bytes = Vec::with_capacity(INTRO_LEN + ENTRY_LEN + index.len() + store.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(entries.len() as u32 + 1).to_be_bytes());
    bytes.extend_from_slice(&(store.len() as u32).to_be_bytes());
    push_entry(
        &mut bytes,
        region_tag,
        Kind::Bin,
        region_offset,
        ENTRY_LEN as u32,
    );
    bytes.extend_from_slice(&index);
    bytes.extend_from_slice(&store);
    bytes
}

fn push_entry(index: &mut Vec<u8>, tag: u32, kind: Kind, offset: u32, count: u32) {
    for field in [tag, kind as u32, offset, count] {
        index.extend_from_slice(&field.to_be_bytes());
    }
}

/// The 16 bytes at the end of a region: they look like an index entry whose offset is minus the length of the index.
fn region_trailer(tag: u32, count: u32) -> [u8; ENTRY_LEN] {
    let back = (count * ENTRY_LEN as u32).wrapping_neg();
    let mut trailer = [0; ENTRY_LEN];
    for (field, number) in
        trailer
            .chunks_exact_mut(4)
            .zip([tag, Kind::Bin as u32, back, ENTRY_LEN as u32])
    {
        field.copy_from_slice(&number.to_be_bytes());
    }
    trailer
}

/// The length of a value that starts `rest`, or nothing where it does not end within it.
fn value_len(kind: Kind, count: u32, rest: &[u8]) -> Option<usize> {
    let count = count as usize;
    let size = match kind {
        Kind::Char | Kind::Int8 | Kind::Bin => 1,
        Kind::Int16 => 2,
        Kind::Int32 => 4,
        Kind::Int64 => 8,
        Kind::String if count != 1 => return None,
        Kind::String | Kind::StringArray | Kind::I18nString => {
            return strings_len(count, rest);
        }
    };
    count
        .checked_mul(size)
        .filter(|len| count > 0 && *len <= rest.len())
}

fn strings_len(count: usize, rest: &[u8]) -> Option<usize> {
    let mut ends = rest
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == 0)
        .map(|(at, _)| at + 1);
    ends.nth(count.checked_sub(1)?)
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let raw = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*raw))
}
