//! `signdrop key export --secret`

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    Error, Keys, at,
    keys::{open_keystore, unknown},
    passphrase::{self, Ask},
    terminal::{progress, say, shown},
};
use crate::{
    identity::Identity,
    keystore::{KeyEntry, Keystore},
    private_file,
};

/// Which private keys are to be written, and where.
#[derive(Debug, Args)]
pub(super) struct Wish {
    /// Writes private keys instead, with --store.
    #[arg(long, requires = "output")]
    secret: bool,
    /// Writes those of all keys.
    #[arg(long, requires = "secret", conflicts_with = "email")]
    all: bool,
    /// The file to write, which must not be there yet; it gets the mode 0600.
    #[arg(long, value_name = "FILE", requires = "secret")]
    pub(super) output: Option<PathBuf>,
    /// A file whose first line is the passphrase; without it, the terminal is asked.
    #[arg(long, value_name = "FILE", requires = "secret")]
    passphrase_file: Option<PathBuf>,
}

pub(super) fn run(
    keys: &Keys,
    email: Option<&Identity>,
    wish: &Wish,
    output: &Path,
) -> Result<(), Error> {
    if keys.store.is_none() {
        return Err(Error::Usage(
            "--secret needs --store: a running daemon gives no private key to anybody; stop it first"
                .into(),
        ));
    }
    let keystore = open_keystore(keys)?;
    let single = match email {
        Some(email) => Some(keystore.find(email)?.ok_or_else(|| unknown(email))?),
        None => None,
    };
    let passphrase = passphrase::read(wish.passphrase_file.as_deref(), Ask::Twice)?;
    let count = private_file::create(output, at(output), |file| {
        let mut write = |entry: &KeyEntry| {
            let secret = keystore.unlock(entry)?;
            let armour = entry.certificate()?.with_secret(&secret, &passphrase)?;
            file.write_all(&armour).map_err(at(output))
        };
        match &single {
            Some(entry) => write(entry).map(|()| 1),
            None => write_all(&keystore, write),
        }
    })?;
    say(&format!("{count} private keys in {}", shown(output)))
}

fn write_all(
    keystore: &Keystore,
    mut write: impl FnMut(&KeyEntry) -> Result<(), Error>,
) -> Result<u64, Error> {
    let bar = progress(keystore.count()?, "exporting");
    for entry in keystore.entries(None) {
        write(&entry?)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(bar.position())
}
