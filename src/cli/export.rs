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
    terminal::{clean, progress, say, shown},
};
use crate::{
    arrival::reason,
    identity::Identity,
    keystore::{self, KeyEntry, Keystore},
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
    let armour = |entry: &KeyEntry| -> Result<_, Error> {
        let secret = keystore.unlock(entry)?;
        Ok(entry.certificate()?.with_secret(&secret, &passphrase)?)
    };
    let (written, failed) = private_file::create(output, at(output), |file| match &single {
        Some(entry) => {
            file.write_all(&armour(entry)?).map_err(at(output))?;
            Ok::<_, Error>((1, 0))
        }
        None => write_all(&keystore, armour, |armour| {
            file.write_all(armour).map_err(at(output))
        }),
    })?;
    say(&format!("{written} private keys in {}", shown(output)))?;
    match failed {
        0 => Ok(()),
        failed => Err(Error::Some {
            failed,
            all: written + failed,
        }),
    }
}

/// Writes all keys that can be read and names the others. Answers how many were written, and how many not.
fn write_all<T>(
    keystore: &Keystore,
    armour: impl Fn(&KeyEntry) -> Result<T, Error>,
    mut write: impl FnMut(&T) -> Result<(), Error>,
) -> Result<(usize, usize), Error> {
    let bar = progress(keystore.count()?, "exporting");
    let (mut written, mut failed, mut is_broken) = (0, 0, false);
    for entry in keystore.entries(None) {
        let armoured = match entry {
            Ok(entry) => {
                armour(&entry).map_err(|error| format!("{}: {}", entry.identity, reason(&error)))
            }
            Err(error) => {
                is_broken = matches!(error, keystore::Error::Store(_));
                Err(reason(&error))
            }
        };
        match armoured {
            Ok(armour) => {
                write(&armour)?;
                written += 1;
            }
            Err(why) => {
                bar.suspend(|| eprintln!("signdrop: {}", clean(why.into())));
                failed += 1;
            }
        }
        bar.inc(1);
        if is_broken {
            // What comes behind it cannot be read either.
            let rest = usize::try_from(keystore.count()?).unwrap_or(usize::MAX);
            failed = failed.max(rest.saturating_sub(written));
            break;
        }
    }
    bar.finish_and_clear();
    Ok((written, failed))
}
