//! Compression of modules: gzip, xz and zstd, as distributions ship them and kernels unpack them.
//!
//! Source: RFC 1952; The .xz File Format 1.2; RFC 8878; Linux, kernel/module/decompress.c, scripts/Makefile.modinst.

use std::{
    env, fmt,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek as _, Write},
    num::NonZeroU32,
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use flate2::{Compression, GzBuilder, bufread::MultiGzDecoder};
use liblzma::{
    bufread::XzDecoder,
    stream::{CONCATENATED, Check, Filters, LzmaOptions, Stream},
    write::XzEncoder,
};
use serde::Deserialize;

use super::{CHUNK, Error, elf};

/// Bytes of memory that unpacking xz may take: enough for `xz -9`.
const XZ_MEMORY: u64 = 80 << 20;
/// Bytes of the dictionary with which xz data are written: the most that the kernel's own decompressor takes.
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

impl fmt::Display for UnpackLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

/// How a module is compressed, and what of the settings its data tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip {
        level: u32,
    },
    Xz,
    Zstd {
        checksum: Checksum,
        /// Bytes of the packed original.
        len: u64,
    },
}

/// Whether zstd data end in a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Present,
    Absent,
}

impl Packing {
    /// The compression that data have which begin with `start`, if any. Lengths are filled in by [`unpack`].
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
                len: 0,
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

/// A module without compression.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) content: File,
    /// Its length in bytes.
    pub(super) len: u64,
    /// How it was compressed, if it was.
    pub(super) packing: Option<Packing>,
}

/// Unpacks a file that is compressed; any other is answered as it is.
pub(super) fn unpack(file: &File, limit: UnpackLimit) -> Result<Unpacked, Error> {
    let len = file.metadata().map_err(Error::Read)?.len();
    let mut start = [0; 16];
    let have = len.min(start.len() as u64) as usize;
    let start = start.get_mut(..have).unwrap_or_default();
    file.read_exact_at(start, 0).map_err(Error::Read)?;
    let Some(mut packing) = Packing::of(start) else {
        let content = file.try_clone().map_err(Error::Read)?;
        return Ok(Unpacked {
            content,
            len,
            packing: None,
        });
    };
    if let Packing::Zstd { len: packed, .. } = &mut packing {
        *packed = len;
    }
    let broken = packing.broken();
    let packed = BufReader::with_capacity(CHUNK, super::Stretch::new(file, len));
    let mut unpacked: Box<dyn Read> = match packing {
        Packing::Gzip { .. } => Box::new(MultiGzDecoder::new(packed)),
        Packing::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED);
            let stream = stream.map_err(|error| broken(error.into()))?;
            Box::new(XzDecoder::new_stream(packed, stream))
        }
        Packing::Zstd { .. } => {
            let mut decoder = zstd::Decoder::with_buffer(packed).map_err(&broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(&broken)?;
            Box::new(decoder)
        }
    };
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
        if len == 0 && !bytes.starts_with(&elf::MAGIC) && read >= elf::MAGIC.len() {
            return Err(Error::NotAModule("it is no ELF file"));
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
        packing: Some(packing),
    })
}

/// Compresses `len` bytes of content into an unnamed file, in a way that the kernel's own decompressor takes.
pub(super) fn pack<R: Read>(
    packing: Packing,
    len: u64,
    content: impl Fn() -> R,
) -> Result<File, Error> {
    match packing {
        Packing::Gzip { level } => {
            let level = Compression::new(level);
            packed(
                content(),
                |file| Ok(GzBuilder::new().write(file, level)),
                |encoder| encoder.finish(),
            )
        }
        Packing::Xz => packed(content(), xz_encoder, |encoder| encoder.finish()),
        Packing::Zstd {
            checksum,
            len: original,
        } => {
            let at_level = |level| {
                packed(
                    content(),
                    |file| zstd_encoder(file, level, checksum, len),
                    |encoder| encoder.finish(),
                )
            };
            let (default, smallest) = ZSTD_LEVELS;
            let quick = at_level(default)?;
            // The data do not tell their level, but what comes out notably larger than it was had another. A signature is no more
            // than a kilobyte, and does not compress.
            let expected = original + original / 32 + 1024;
            if quick.metadata().map_err(Error::Spool)?.len() > expected {
                return at_level(smallest);
            }
            Ok(quick)
        }
    }
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
        let read = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::Read(error)),
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        encoder.write_all(bytes).map_err(Error::Spool)?;
    }
    let mut file = finish(encoder)
        .and_then(|writer| writer.into_inner().map_err(io::IntoInnerError::into_error))
        .map_err(Error::Spool)?;
    file.rewind().map_err(Error::Spool)?;
    Ok(file)
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
