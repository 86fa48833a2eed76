//! What has to be known of a module's ELF structure: that it is a module's, and where it ends.
//!
//! Source: System V ABI, chapter 4, "Object Files"; Linux, kernel/module/main.c, elf_validity_check.

use std::{fs::File, os::unix::fs::FileExt as _};

use super::Error;

/// First four bytes of an ELF file.
pub(super) const MAGIC: [u8; 4] = *b"\x7fELF";
/// A relocatable file, which modules are.
const ET_REL: u16 = 1;
/// Kinds of section that have no bytes in the file.
const WITHOUT_BYTES: [u32; 2] = [SHT_NULL, SHT_NOBITS];
const SHT_NULL: u32 = 0;
const SHT_NOBITS: u32 = 8;
const SHT_STRTAB: u32 = 3;
/// The section in which a module says what it is.
const MODINFO: &[u8] = b".modinfo\0";
/// Bytes that the names of sections, or the module's information, may take: far more than they ever do.
const LARGEST_TEXT: u64 = 4 << 20;

/// A module's ELF structure.
#[derive(Debug)]
pub(super) struct Elf {
    /// Where the last of header, sections and section table ends, in bytes.
    pub(super) end: u64,
    /// The section `.modinfo`: entries `name=value`, each with a zero behind it.
    pub(super) information: Vec<u8>,
}

/// Reads the structure of a module in the first `len` bytes of a file. Memory grows with the number of sections.
pub(super) fn read(file: &File, len: u64) -> Result<Elf, Error> {
    let header = Header::read(file, len)?;
    let sections = header.sections(file, len)?;
    let mut end = header.table_end;
    for section in &sections {
        end = end.max(section.end_within(len)?);
    }
    let names = sections
        .get(usize::from(header.names))
        .filter(|section| section.kind == SHT_STRTAB)
        .ok_or(Error::Malformed("it has no names of sections"))?
        .text(file)?;
    let is_information = |section: &&Section| {
        let name = names.get(section.name as usize..);
        name.is_some_and(|name| name.starts_with(MODINFO))
    };
    let information = sections
        .iter()
        .find(is_information)
        .ok_or(Error::NotAModule("it has no section .modinfo"))?
        .text(file)?;
    Ok(Elf { end, information })
}

/// Refuses what begins as no ELF file does, as far as it goes.
pub(super) fn check_magic(start: &[u8]) -> Result<(), Error> {
    let compared = MAGIC.len().min(start.len());
    match start.get(..compared) {
        start if start == MAGIC.get(..compared) => Ok(()),
        Some([0, ..]) => Err(Error::Malformed(
            "it begins with zeros, as files do that a crash left",
        )),
        _ => Err(Error::NotAModule("it is no ELF file")),
    }
}

/// Where the numbers of a header or section are: ELF comes with addresses of 32 and 64 bits, and in both orders of bytes.
#[derive(Debug, Clone, Copy)]
struct Numbers<'a> {
    bytes: &'a [u8],
    class: Class,
    order: Order,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Bits32,
    Bits64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Numbers<'_> {
    fn array<const N: usize>(self, at: usize) -> [u8; N] {
        let found = self.bytes.get(at..).and_then(|bytes| bytes.first_chunk());
        let mut bytes: [u8; N] = found.copied().unwrap_or([0; N]);
        if self.order == Order::Big {
            bytes.reverse();
        }
        bytes
    }

    fn half(self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    fn word(self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    /// A number as wide as an address.
    fn wide(self, at: usize) -> u64 {
        match self.class {
            Class::Bits32 => self.word(at).into(),
            Class::Bits64 => u64::from_le_bytes(self.array(at)),
        }
    }
}

#[derive(Debug)]
struct Header {
    class: Class,
    order: Order,
    table_at: u64,
    table_end: u64,
    /// Which section holds the names of all.
    names: u16,
}

impl Header {
    fn read(file: &File, len: u64) -> Result<Self, Error> {
        let mut bytes = [0; 64];
        let have = len.min(bytes.len() as u64) as usize;
        let start = bytes.get_mut(..have).unwrap_or_default();
        file.read_exact_at(start, 0).map_err(Error::Read)?;
        check_magic(bytes.get(..have).unwrap_or_default())?;
        let [_, _, _, _, class, order, ..] = bytes;
        let (class, needed) = match class {
            1 => (Class::Bits32, 52),
            2 => (Class::Bits64, 64),
            _ if have < 5 => (Class::Bits64, 64),
            _ => return Err(Error::Malformed("its ELF class is unknown")),
        };
        if len < needed {
            return Err(Error::Truncated {
                section: "ELF header",
                have: len,
                needed,
            });
        }
        let order = match order {
            1 => Order::Little,
            2 => Order::Big,
            _ => return Err(Error::Malformed("its order of bytes is unknown")),
        };
        let numbers = Numbers {
            bytes: &bytes,
            class,
            order,
        };
        match numbers.half(16) {
            ET_REL => {}
            2 => return Err(Error::NotAModule("it is an executable")),
            3 => return Err(Error::NotAModule("it is a shared object or an executable")),
            _ => return Err(Error::NotAModule("it is no relocatable ELF file")),
        }
        let (table_at, entry_len, count, names) = match class {
            Class::Bits32 => (32, 46, 48, 50),
            Class::Bits64 => (40, 58, 60, 62),
        };
        let table_at = numbers.wide(table_at);
        if numbers.half(entry_len) != class.section_len() {
            return Err(Error::Malformed(
                "its sections are described in an unknown way",
            ));
        }
        let count = numbers.half(count);
        let table_end = u64::from(count) * u64::from(class.section_len());
        let table_end = table_at
            .checked_add(table_end)
            .filter(|_| table_at >= needed && count > 0)
            .ok_or(Error::Malformed("it has no sections"))?;
        Ok(Self {
            class,
            order,
            table_at,
            table_end,
            names: numbers.half(names),
        })
    }

    fn sections(&self, file: &File, len: u64) -> Result<Vec<Section>, Error> {
        if self.table_end > len {
            return Err(Error::Truncated {
                section: "section table",
                have: len,
                needed: self.table_end,
            });
        }
        let mut table = vec![0; (self.table_end - self.table_at) as usize];
        file.read_exact_at(&mut table, self.table_at)
            .map_err(Error::Read)?;
        let sections = table.chunks(self.class.section_len().into());
        Ok(sections
            .map(|bytes| {
                let numbers = Numbers {
                    bytes,
                    class: self.class,
                    order: self.order,
                };
                let (at, len) = match self.class {
                    Class::Bits32 => (16, 20),
                    Class::Bits64 => (24, 32),
                };
                Section {
                    name: numbers.word(0),
                    kind: numbers.word(4),
                    at: numbers.wide(at),
                    len: numbers.wide(len),
                }
            })
            .collect())
    }
}

impl Class {
    /// Bytes that describe a section.
    fn section_len(self) -> u16 {
        match self {
            Self::Bits32 => 40,
            Self::Bits64 => 64,
        }
    }
}

#[derive(Debug)]
struct Section {
    /// Where its name is among the names.
    name: u32,
    kind: u32,
    at: u64,
    len: u64,
}

impl Section {
    /// Where its bytes end in a file of `len` bytes; 0 where it has none.
    fn end_within(&self, len: u64) -> Result<u64, Error> {
        if WITHOUT_BYTES.contains(&self.kind) {
            return Ok(0);
        }
        let end = self
            .at
            .checked_add(self.len)
            .ok_or(Error::Malformed("a section has an impossible length"))?;
        if end > len {
            return Err(Error::Truncated {
                section: "sections",
                have: len,
                needed: end,
            });
        }
        Ok(end)
    }

    /// The bytes of a section that is known to lie within the file.
    fn text(&self, file: &File) -> Result<Vec<u8>, Error> {
        if WITHOUT_BYTES.contains(&self.kind) || self.len > LARGEST_TEXT {
            return Err(Error::Malformed(
                "a section of texts is too large, or empty",
            ));
        }
        let mut text = vec![0; self.len as usize];
        file.read_exact_at(&mut text, self.at)
            .map_err(Error::Read)?;
        Ok(text)
    }
}
