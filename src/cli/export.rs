//! `signdrop key export --secret`

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use zeroize::Zeroizing;

use super::{
    Error, Keys,
    keys::{open_keystore, unknown},
    terminal::{progress, say, shown},
};
use crate::{
    identity::Identity,
    keystore::{KeyEntry, Keystore},
};

/// How many keys are read at a time.
const PAGE: usize = 1000;

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
    let failed = |source| Error::Io {
        path: output.to_owned(),
        source,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(output)
        .map_err(failed)?;
    let written = match single {
        Some(entry) => write(&keystore, &entry, &passphrase, &mut file).map(|()| 1),
        None => write_all(&keystore, &passphrase, &mut file),
    };
    match written.and_then(|count| file.sync_all().map(|()| count).map_err(failed)) {
        Ok(count) => say(&format!("{count} private keys in {}", shown(output))),
        Err(error) => {
            // Half a file is no way back.
            fs::remove_file(output).map_err(failed)?;
            Err(error)
        }
    }
}

fn write_all(keystore: &Keystore, passphrase: &str, file: &mut File) -> Result<u64, Error> {
    let bar = progress(keystore.count()?, "exporting");
    let (mut after, mut count) = (None::<Identity>, 0);
    loop {
        let page = keystore.list(after.as_ref().map(Identity::as_str), PAGE)?;
        let Some(last) = page.last() else {
            bar.finish_and_clear();
            return Ok(count);
        };
        after = Some(last.identity.clone());
        for entry in &page {
            write(keystore, entry, passphrase, file)?;
            count += 1;
            bar.inc(1);
        }
    }
}

fn write(
    keystore: &Keystore,
    entry: &KeyEntry,
    passphrase: &str,
    file: &mut File,
) -> Result<(), Error> {
    let secret = keystore.unlock(entry)?;
    let armour = entry.certificate()?.with_secret(&secret, passphrase)?;
    Ok(file.write_all(&armour)?)
}

fn passphrase(wish: &Wish) -> Result<Zeroizing<String>, Error> {
    let text = match &wish.passphrase_file {
        Some(path) => {
            let text = fs::read_to_string(path).map(Zeroizing::new);
            let text = text.map_err(|source| Error::Io {
                path: path.clone(),
                source,
            })?;
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
