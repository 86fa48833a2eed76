//! Compression of modules: gzip, xz and zstd, as distributions ship them and kernels unpack them.
//!
//! Source: RFC 1952; The .xz File Format 1.2; RFC 8878; Linux, kernel/module/decompress.c, scripts/Makefile.modinst.

use std::{
    env, fmt,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    num::{NonZeroU32, ParseIntError},
    path::PathBuf,
    str::FromStr,
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use flate2::{Compression, GzBuilder, bufread::MultiGzDecoder};
use liblzma::{
    bufread::XzDecoder,
    stream::{CONCATENATED, Check, Filters, LzmaOptions, Stream},
    write::XzEncoder,
};
use serde::Deserialize;

use super::{CHUNK, Error, elf};
use crate::format::start_of;

/// Bytes of memory that unpacking xz may take: enough for `xz -9`.
const XZ_MEMORY: u64 = 80 << 20;
/// Bytes of the dictionary with which xz is written: the most that the kernel's own decompressor takes.
const XZ_DICTIONARY: u32 = 1 << 20;
/// xz's own default.
const XZ_PRESET: u32 = 6;
/// The logarithm of the most memory that unpacking zstd may take: enough for `zstd --ultra -22`.
const ZSTD_WINDOW_LOG: u32 = 27;
/// The levels that modules are packed with in practice: zstd's own default, and the one for the smallest files.
const ZSTD_LEVELS: (i32, i32) = (3, 19);

/// How large a module may become when it is unpacked, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct UnpackLimit(NonZeroU32);

impl Default for UnpackLimit {
    fn default() -> Self {
        const DEFAULT: NonZeroU32 = NonZeroU32::new(512).unwrap();
        Self(DEFAULT)
    }
}

impl UnpackLimit {
    fn bytes(self) -> u64 {
        u64::from(self.0.get()) << 20
    }
}

impl FromStr for UnpackLimit {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for UnpackLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

/// How a module is compressed, and what of the settings can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip { level: u32 },
    Xz,
    Zstd { checksum: Checksum },
}

/// Whether what zstd writes ends in a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Present,
    Absent,
}

impl Packing {
    /// The compression of a file that begins with `start`, if it has any.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        match *start {
            [0x1f, 0x8b, 8, _, _, _, _, _, extra, ..] => Some(Self::Gzip {
                // RFC 1952, section 2.3.1, XFL: `gzip -9` says so.
                level: if extra == 2 { 9 } else { 6 },
            }),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, descriptor, ..] => Some(Self::Zstd {
                // RFC 8878, section 3.1.1.1.1.
                checksum: if descriptor & 4 == 0 {
                    Checksum::Absent
                } else {
                    Checksum::Present
                },
            }),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip { .. } => "gzip",
            Self::Xz => "xz",
            Self::Zstd { .. } => "zstd",
        }
    }

    /// What the first `len` bytes of a file unpack to.
    fn reader(self, file: &File, len: u64) -> io::Result<Box<dyn Read + '_>> {
        let packed = BufReader::with_capacity(CHUNK, super::Stretch::new(file, len));
        Ok(match self {
            Self::Gzip { .. } => Box::new(MultiGzDecoder::new(packed)),
            Self::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
                Box::new(XzDecoder::new_stream(packed, stream))
            }
            Self::Zstd { .. } => {
                let mut decoder = zstd::Decoder::with_buffer(packed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }

    fn broken(self) -> impl Fn(io::Error) -> Error {
        // What the operating system says concerns the file, what a decompressor says its content.
        move |source| match source.raw_os_error() {
            Some(_) => Error::Read(source),
            None => Error::Unpack {
                packing: self.name(),
                source,
            },
        }
    }
}

/// Leave to unpack and pack: as many modules at once as there are processors, since that is what the work needs, and so that memory and
/// disk do not add up with the number of those that wait.
static TURNS: LazyLock<Vec<Mutex<()>>> = LazyLock::new(|| {
    let count = thread::available_parallelism().map_or(1, usize::from);
    (0..count).map(|_| Mutex::new(())).collect()
});

/// Waits for a turn.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    if let Some(free) = TURNS.iter().find_map(|turn| turn.try_lock().ok()) {
        return Some(free);
    }
    let next = NEXT.fetch_add(1, Ordering::Relaxed) % TURNS.len();
    let turn = TURNS.get(next)?;
    Some(turn.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What is kept of a compressed module.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) packing: Packing,
    /// Its length in bytes.
    len: u64,
    /// Held until the module is done with.
    _turn: Option<MutexGuard<'static, ()>>,
}

/// A module without compression.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) content: File,
    /// Its length in bytes.
    pub(super) len: u64,
    /// How it was compressed, if it was.
    pub(super) packed: Option<Packed>,
}

/// Unpacks a file that is compressed; any other is answered as it is.
pub(super) fn unpack(file: &File, limit: UnpackLimit) -> Result<Unpacked, Error> {
    let packed_len = file.metadata().map_err(Error::Read)?.len();
    let start = start_of(file).map_err(Error::Read)?;
    let Some(packing) = Packing::of(&start) else {
        let content = file.try_clone().map_err(Error::Read)?;
        return Ok(Unpacked {
            content,
            len: packed_len,
            packed: None,
        });
    };
    let turn = turn();
    let broken = packing.broken();
    let mut unpacked = packing.reader(file, packed_len).map_err(&broken)?;
    let mut content = spool()?;
    let mut buffer = vec![0; CHUNK];
    let mut len = 0;
    loop {
        let read = match unpacked.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(error)),
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        // Whatever is no module is found out before it takes room.
        if len == 0 && read >= elf::MAGIC.len() {
            elf::check_magic(bytes)?;
        }
        len += read as u64;
        if len > limit.bytes() {
            return Err(Error::TooLarge(limit));
        }
        content.write_all(bytes).map_err(Error::Spool)?;
    }
    Ok(Unpacked {
        content,
        len,
        packed: Some(Packed {
            packing,
            len: packed_len,
            _turn: turn,
        }),
    })
}

/// Compresses `len` bytes of content as a module was compressed before, in a way that the kernel's own decompressor takes, into an unnamed
/// file, which has been found to unpack to the same.
pub(super) fn pack<R: Read>(
    before: &Packed,
    len: u64,
    content: impl Fn() -> R,
) -> Result<File, Error> {
    let file = match before.packing {
        Packing::Gzip { level } => {
            let level = Compression::new(level);
            let encoder = |file| Ok(GzBuilder::new().write(file, level));
            packed(content(), encoder, |encoder| encoder.finish())?
        }
        Packing::Xz => packed(content(), xz_encoder, |encoder| encoder.finish())?,
        Packing::Zstd { checksum } => {
            let at_level = |level| {
                let encoder = |file| zstd_encoder(file, level, checksum, len);
                packed(content(), encoder, |encoder| encoder.finish())
            };
            let (default, smallest) = ZSTD_LEVELS;
            let quick = at_level(default)?;
            // The level is written nowhere, but what comes out notably larger than it was had another. A signature has no more than a
            // kilobyte, and does not compress.
            let expected = before.len + before.len / 32 + 1024;
            if file_len(&quick)? > expected {
                at_level(smallest)?
            } else {
                quick
            }
        }
    };
    let unpacked = before.packing.reader(&file, file_len(&file)?);
    let unpacked = unpacked.map_err(|_| Error::Repacked)?;
    if !is_same(unpacked, content()).map_err(|_| Error::Repacked)? {
        return Err(Error::Repacked);
    }
    Ok(file)
}

fn file_len(file: &File) -> Result<u64, Error> {
    Ok(file.metadata().map_err(Error::Spool)?.len())
}

/// Whether two readers answer the same bytes.
fn is_same(mut one: impl Read, mut other: impl Read) -> io::Result<bool> {
    let (mut from_one, mut from_other) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let read = read_full(&mut one, &mut from_one)?;
        if read != read_full(&mut other, &mut from_other)?
            || from_one.get(..read) != from_other.get(..read)
        {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or nothing is left.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Runs `content` through an encoder into an unnamed file.
fn packed<E: Write>(
    mut content: impl Read,
    encoder: impl FnOnce(BufWriter<File>) -> io::Result<E>,
    finish: impl FnOnce(E) -> io::Result<BufWriter<File>>,
) -> Result<File, Error> {
    let mut encoder = encoder(BufWriter::with_capacity(CHUNK, spool()?)).map_err(Error::Spool)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = read_full(&mut content, &mut buffer).map_err(Error::Read)?;
        if read == 0 {
            break;
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        encoder.write_all(bytes).map_err(Error::Spool)?;
    }
    finish(encoder)
        .and_then(|writer| writer.into_inner().map_err(io::IntoInnerError::into_error))
        .map_err(Error::Spool)
}

fn xz_encoder(file: BufWriter<File>) -> io::Result<XzEncoder<BufWriter<File>>> {
    let mut options = LzmaOptions::new_preset(XZ_PRESET)?;
    options.dict_size(XZ_DICTIONARY);
    let mut filters = Filters::new();
    filters.lzma2(&options);
    // The kernel knows no other checksum.
    let stream = Stream::new_stream_encoder(&filters, Check::Crc32)?;
    Ok(XzEncoder::new_stream(file, stream))
}

fn zstd_encoder(
    file: BufWriter<File>,
    level: i32,
    checksum: Checksum,
    len: u64,
) -> io::Result<zstd::Encoder<'static, BufWriter<File>>> {
    let mut encoder = zstd::Encoder::new(file, level)?;
    encoder.include_checksum(checksum == Checksum::Present)?;
    encoder.set_pledged_src_size(Some(len))?;
    Ok(encoder)
}

/// Where unnamed files are: on a disk, where `/tmp` is often memory (file-hierarchy(7)).
pub(super) fn spool_dir() -> PathBuf {
    env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// A file without a name, which goes when it is closed, whatever happens.
fn spool() -> Result<File, Error> {
    tempfile::tempfile_in(spool_dir()).map_err(Error::Spool)
}
