//! The home of GnuPG 2.1 and later: certificates and private keys, read without gpg and its agent.

mod keybox;
mod private;
mod sexp;

use std::{
    collections::HashMap,
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
    /// A certificate cannot be understood.
    #[error("{} holds something that is no certificate", .path.display())]
    Certificate {
        /// The keyring.
        path: PathBuf,
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
        let (keybox, old) = (home.join("pubring.kbx"), home.join("pubring.gpg"));
        let has_old = exists(&old)?;
        let is_keybox = exists(&keybox)?
            && (!has_old || keybox::is_in_use(File::open(&keybox).map_err(failed(&keybox))?));
        if !is_keybox && !has_old {
            return Err(refused(if exists(&home.join("public-keys.d"))? {
                "its certificates are kept by keyboxd; `gpg --export-secret-keys` writes them to a file that --file takes"
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
        Ok(Self {
            keyring: if is_keybox { keybox } else { old },
            is_keybox,
            private: index(&private)?,
        })
    }

    /// How many private keys there are, those of subkeys and of no certificate included.
    pub fn len(&self) -> usize {
        self.private.len()
    }

    /// Whether there is no private key.
    pub fn is_empty(&self) -> bool {
        self.private.is_empty()
    }

    /// The certificates in the keyring's order. What cannot be read is an error in its place; the last one, where what follows it cannot be found.
    ///
    /// # Errors
    /// [`Error::Io`] where the keyring cannot be opened, or is none.
    pub fn certificates(
        &self,
    ) -> Result<Box<dyn Iterator<Item = Result<Certificate, Error>> + '_>, Error> {
        let file = File::open(&self.keyring).map_err(failed(&self.keyring))?;
        let file = BufReader::with_capacity(BUFFER, file);
        let unreadable = |source| Error::Certificate {
            path: self.keyring.clone(),
            source,
        };
        Ok(if self.is_keybox {
            let blobs = Keybox::new(file).map_err(failed(&self.keyring))?;
            Box::new(blobs.map(move |blob| {
                Certificate::parse(&blob.map_err(failed(&self.keyring))?).map_err(unreadable)
            }))
        } else {
            let certificates = openpgp::transferable::certificates(file).map_err(unreadable)?;
            Box::new(certificates.map(move |certificate| certificate.map_err(unreadable)))
        })
    }

    /// The private key that belongs to the certificate's primary key, or nothing where there is none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn private_key(&self, certificate: &Certificate) -> Result<Option<PrivateKey>, Error> {
        let path = certificate
            .distinct_number()
            .and_then(|number| self.private.get(&index_of(number)));
        match path {
            Some(path) => Ok(PrivateKey::parse(&read(path)?)),
            None => Ok(None),
        }
    }
}

/// The files of private keys by the public ones. GnuPG names them by a hash of its own, which is different for each algorithm.
fn index(directory: &Path) -> Result<HashMap<Index, PathBuf>, Error> {
    let mut private = HashMap::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        if path.extension().is_none_or(|extension| extension != "key") {
            continue;
        }
        let key = PrivateKey::parse(&read(&path)?);
        if let Some(number) = key.as_ref().and_then(PrivateKey::distinct_number) {
            private.insert(index_of(number), path);
        }
    }
    Ok(private)
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
