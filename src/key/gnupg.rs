//! The home of GnuPG 2.1 and later: certificates and private keys, read without gpg and its agent.

mod keybox;
mod private;
mod sexp;

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufReader, Read as _},
    path::{Path, PathBuf},
};

use keybox::Keybox;
pub use private::{PrivateKey, Refused};
use zeroize::Zeroizing;

use super::openpgp::{self, Certificate};

/// Bytes of a private key's file; those of the largest keys that GnuPG makes have less than 20 KiB.
const MAX_PRIVATE: u64 = 1 << 20;
/// Bytes that are read of a keyring at a time.
const BUFFER: usize = 1 << 20;

/// What is said of a home without a keyring that could be read.
const KEYBOXD: &str = "its certificates are kept by keyboxd; `gpg --export-secret-keys` writes them to a file that --file takes";

/// Why a home could not be read. All stay until somebody does something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such directory, or it is something else.
    #[error("{} is no home of GnuPG 2.1 or later: {why}", .home.display())]
    NotAHome {
        /// What was named.
        home: PathBuf,
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of private keys holds none.
    #[error("{} holds no private key: it is empty, cut off or damaged", .path.display())]
    NotAPrivateKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be understood.
    #[error("cannot read {certificate} in {}", .path.display())]
    Certificate {
        /// The keyring.
        path: PathBuf,
        /// Which it is, as far as that is known.
        certificate: String,
        /// Why.
        source: openpgp::Error,
    },
}

/// A home. Nothing in it is ever written.
#[derive(Debug)]
pub struct Home {
    keyring: PathBuf,
    is_keybox: bool,
    private: HashMap<Index, PathBuf>,
    unreadable: Vec<Error>,
}

/// What tells public keys apart: the SHA-256 of a number that no two of them share.
type Index = [u8; 32];

impl Home {
    /// Finds the keyring that GnuPG would use, and every private key's file.
    ///
    /// # Errors
    /// [`Error`], which says what to do.
    pub fn open(home: &Path) -> Result<Self, Error> {
        let refused = |why| Error::NotAHome {
            home: home.to_owned(),
            why,
        };
        fs::read_dir(home).map_err(failed(home))?;
        if uses_keyboxd(&home.join("common.conf"))? {
            return Err(refused(KEYBOXD));
        }
        let (keybox, old) = (home.join("pubring.kbx"), home.join("pubring.gpg"));
        let has_old = exists(&old)?;
        let is_keybox = exists(&keybox)?
            && (!has_old || keybox::is_in_use(File::open(&keybox).map_err(failed(&keybox))?));
        if !is_keybox && !has_old {
            return Err(refused(if exists(&home.join("public-keys.d"))? {
                KEYBOXD
            } else {
                "it has neither pubring.kbx nor pubring.gpg"
            }));
        }
        let private = home.join("private-keys-v1.d");
        if !exists(&private)? {
            return Err(refused(
                "it has no private-keys-v1.d; `gpg --homedir HOME --list-secret-keys` makes it out of an older home",
            ));
        }
        let mut home = Self {
            keyring: if is_keybox { keybox } else { old },
            is_keybox,
            private: HashMap::new(),
            unreadable: Vec::new(),
        };
        home.find_private(&private)?;
        Ok(home)
    }

    /// The file of the certificates.
    pub fn keyring(&self) -> &Path {
        &self.keyring
    }

    /// Why files of private keys cannot be read, whosever these are.
    pub fn unreadable(&self) -> &[Error] {
        &self.unreadable
    }

    /// Finds the files of private keys by the public ones. GnuPG names them by a hash of its own, which is different for each
    /// algorithm.
    fn find_private(&mut self, directory: &Path) -> Result<(), Error> {
        for entry in fs::read_dir(directory).map_err(failed(directory))? {
            let path = entry.map_err(failed(directory))?.path();
            if !is_private_key(&path) {
                continue;
            }
            match private_key(&path) {
                // GnuPG has keys of more algorithms than are known here.
                Ok(key) => key.distinct_number().map(index_of).map_or((), |index| {
                    self.private.insert(index, path);
                }),
                Err(error) => self.unreadable.push(error),
            }
        }
        Ok(())
    }

    /// The certificates of the keyring, which `reader` reads, in its order. What cannot be read is an error in its place; the last
    /// one, where what follows it cannot be found.
    ///
    /// # Errors
    /// [`Error::Io`] where the keyring is none.
    pub fn certificates<'a>(
        &'a self,
        reader: impl io::Read + Send + Sync + 'a,
    ) -> Result<Box<dyn Iterator<Item = Result<Certificate, Error>> + 'a>, Error> {
        let reader = BufReader::with_capacity(BUFFER, reader);
        let unreadable = |certificate: String, source| Error::Certificate {
            path: self.keyring.clone(),
            certificate,
            source,
        };
        Ok(if self.is_keybox {
            let blobs = Keybox::new(reader).map_err(failed(&self.keyring))?;
            Box::new(blobs.map(move |blob| {
                let blob = blob.map_err(failed(&self.keyring))?;
                Certificate::parse(blob.certificate().unwrap_or_default()).map_err(|error| {
                    unreadable(format!("certificate {}", blob.fingerprint()), error)
                })
            }))
        } else {
            let unreadable = move |error| unreadable("a certificate".to_owned(), error);
            let certificates = openpgp::transferable::certificates(reader).map_err(unreadable)?;
            Box::new(certificates.map(move |certificate| certificate.map_err(unreadable)))
        })
    }

    /// The private key that belongs to the certificate's primary key, or nothing where there is none.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::NotAPrivateKey`].
    pub fn private_key(&self, certificate: &Certificate) -> Result<Option<PrivateKey>, Error> {
        let primary = certificate.distinct_numbers().next().flatten();
        self.file_of(primary).map(private_key).transpose()
    }

    /// Whether the private key of one of the certificate's subkeys is here.
    pub fn has_subkey_of(&self, certificate: &Certificate) -> bool {
        let mut subkeys = certificate.distinct_numbers().skip(1);
        subkeys.any(|number| self.file_of(number).is_some())
    }

    fn file_of(&self, number: Option<&[u8]>) -> Option<&Path> {
        self.private.get(&index_of(number?)).map(PathBuf::as_path)
    }
}

/// Whether a home's options have keyboxd keep its certificates, wherever they were before.
///
/// Source: gpg(1), `--use-keyboxd`.
fn uses_keyboxd(options: &Path) -> Result<bool, Error> {
    match fs::read_to_string(options) {
        Ok(text) => Ok(text.lines().any(|line| line.trim() == "use-keyboxd")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(options)(error)),
    }
}

/// Whether GnuPG takes a file of that name for a private key's: `.key` behind the 40 digits of a hash.
fn is_private_key(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    let digits = name.and_then(|name| name.strip_suffix(".key"));
    digits.is_some_and(|digits| {
        digits.len() == 40 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

fn private_key(path: &Path) -> Result<PrivateKey, Error> {
    PrivateKey::parse(&read(path)?).ok_or_else(|| Error::NotAPrivateKey {
        path: path.to_owned(),
    })
}

/// What is looked up for a number. OpenPGP's mark of a point without coordinates, which not every file has, is no part of it.
fn index_of(number: &[u8]) -> Index {
    openssl::sha::sha256(match number {
        [0x40, point @ ..] if point.len() == 32 => point,
        number => number,
    })
}

/// The content of a file, in memory that is cleared; nothing where it is too long for a key, or no regular file.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let metadata = fs::metadata(path).map_err(failed(path))?;
    if !metadata.is_file() || metadata.len() > MAX_PRIVATE {
        return Ok(Zeroizing::default());
    }
    let file = File::open(path).map_err(failed(path))?;
    // Room for all of it at once: what a vector grows out of is not cleared.
    let len = metadata.len();
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or_default()));
    file.take(len)
        .read_to_end(&mut content)
        .map_err(failed(path))?;
    Ok(content)
}

fn exists(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io {
        path: path.clone(),
        source,
    }
}
