//! Reading the master key from where the configuration says it is.

use std::{
    env,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    config::MasterKeySource,
    keystore::{MasterKey, VaultError},
    private_file,
};

/// Bytes of a master key's file that are read at the most; the key and its line's end are 45.
const MOST: u64 = 4096;

/// Why there is no master key. All stay until somebody does something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there.
    #[error("there is no master key at {}; `signdrop init` makes one, a backup brings back an old one", .0.display())]
    Missing(PathBuf),
    /// The file can be read by others.
    #[error("others may read the master key {}: its mode is {mode:04o}, and has to be 0600 or stricter", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file is somebody else's.
    #[error("the master key {} belongs to user {owner}, who can read and change it: `chown` it to root or to whom the daemon runs as", .path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The file cannot be read or written.
    #[error("cannot access the master key {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program was not started by systemd with credentials.
    #[error(
        "the credential {0} was not passed: $CREDENTIALS_DIRECTORY is not set; see LoadCredential= in systemd.exec(5)"
    )]
    NoCredentials(String),
    /// The content is not a master key.
    #[error("{}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: VaultError,
    },
}

/// Reads the master key. A file belongs to whom this program runs as, to root, or to whom `state_dir` belongs.
///
/// # Errors
/// [`Error`], which says what to do.
pub fn read(source: &MasterKeySource, state_dir: &Path) -> Result<MasterKey, Error> {
    let path = path(source)?;
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing(path.clone()),
        _ => Error::Io {
            path: path.clone(),
            source,
        },
    };
    let file = File::open(&path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    // systemd gives a credential its own directory, which nobody else may enter.
    if matches!(source, MasterKeySource::File(_)) {
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(Error::Exposed { path, mode });
        }
        let owner = metadata.uid();
        let is_ours = owner == 0
            || owner == rustix::process::geteuid().as_raw()
            || fs::metadata(state_dir).is_ok_and(|found| found.uid() == owner);
        if !is_ours {
            return Err(Error::Owner { path, owner });
        }
    }
    // With room for all, so that no copy stays behind where it has been.
    let mut text = Zeroizing::new(Vec::with_capacity(MOST as usize));
    file.take(MOST).read_to_end(&mut text).map_err(failed)?;
    MasterKey::parse(&text).map_err(|source| Error::Content { path, source })
}

/// Whether the master key is where the configuration says.
pub fn exists(source: &MasterKeySource) -> bool {
    path(source).is_ok_and(|path| path.exists())
}

fn path(source: &MasterKeySource) -> Result<PathBuf, Error> {
    match source {
        MasterKeySource::File(path) => Ok(path.clone()),
        MasterKeySource::Credential(name) => env::var_os("CREDENTIALS_DIRECTORY")
            .map(|directory| PathBuf::from(directory).join(name))
            .ok_or_else(|| Error::NoCredentials(name.clone())),
    }
}

/// Makes a new master key in a file that nobody may read but whom `state_dir` belongs to, which is whom the daemon runs as. An existing file
/// is never touched.
///
/// # Errors
/// [`Error::Io`] and [`Error::Content`].
pub fn create(path: &Path, state_dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let key = MasterKey::generate().map_err(|source| Error::Content {
        path: path.to_owned(),
        source,
    })?;
    let daemon = fs::metadata(state_dir).map_err(failed)?;
    private_file::create(path, failed, |file| {
        fchown(&*file, Some(daemon.uid()), Some(daemon.gid())).map_err(failed)?;
        writeln!(file, "{}", *key.to_base64()).map_err(failed)
    })
}
