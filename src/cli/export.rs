//! `signdrop key export --secret`

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;
use zeroize::Zeroizing;

use super::{
    Error, Keys, at,
    keys::{open_keystore, unknown},
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
    let passphrase = passphrase(wish)?;
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

fn passphrase(wish: &Wish) -> Result<Zeroizing<String>, Error> {
    let text = match &wish.passphrase_file {
        Some(path) => {
            let text = fs::read_to_string(path).map(Zeroizing::new);
            let text = text.map_err(at(path))?;
            Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
        }
        None if !io::stdin().is_terminal() => {
            return Err(Error::Usage(
                "there is no terminal to ask for a passphrase: use --passphrase-file".into(),
            ));
        }
        None => {
            let ask = |prompt| rpassword::prompt_password(prompt).map(Zeroizing::new);
            let (first, again) = (ask("Passphrase: ")?, ask("Once more: ")?);
            if first != again {
                return Err(Error::Failed("the two passphrases differ".into()));
            }
            first
        }
    };
    if text.is_empty() {
        return Err(Error::Usage(
            "private keys are not written without a passphrase".into(),
        ));
    }
    Ok(text)
}
