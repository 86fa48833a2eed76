//! `signdrop key import`

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::Args;
use zeroize::Zeroizing;

use super::{
    Error,
    terminal::{clean, progress, say},
};
use crate::{
    identity::Identity,
    key::openpgp::transferable,
    keystore::{self, Creation, Keystore},
};

/// What is to be taken over.
#[derive(Debug, Args)]
pub(super) struct Wish {
    /// The home of GnuPG 2.x, which gpg reads.
    #[arg(long, value_name = "HOME")]
    gnupg: PathBuf,
    /// A directory with a file for each key, named by its e-mail, whose first line is its passphrase.
    #[arg(long, value_name = "DIR")]
    phrases: Option<PathBuf>,
    /// Takes over keys without a file in the directory of phrases, too.
    #[arg(long)]
    all: bool,
    /// Says what would be done, and does nothing.
    #[arg(long)]
    dry_run: bool,
}

/// A secret key as gpg lists it.
struct Listed {
    fingerprint: String,
    user_id: String,
}

enum Outcome {
    Imported,
    Present,
    Skipped(String),
    Failed(String),
}

pub(super) fn run(keystore: &Keystore, wish: &Wish) -> Result<(), Error> {
    let listed = list(&wish.gnupg)?;
    let bar = progress(listed.len() as u64, "importing");
    let [mut imported, mut present, mut skipped, mut failed] = [0_usize; 4];
    for key in &listed {
        let name = clean(key.user_id.as_str().into());
        let (count, line) = match import(keystore, wish, key)? {
            Outcome::Imported => (&mut imported, "imported".to_owned()),
            Outcome::Present => (&mut present, "present".to_owned()),
            Outcome::Skipped(why) => (&mut skipped, format!("skipped: {why}")),
            Outcome::Failed(why) => (&mut failed, format!("failed: {why}")),
        };
        *count += 1;
        bar.suspend(|| say(&format!("{} {name}: {line}", key.fingerprint)))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    say(&format!(
        "{imported} {}, {present} present, {skipped} skipped, {failed} failed",
        if wish.dry_run {
            "to import"
        } else {
            "imported"
        }
    ))?;
    match failed {
        0 => Ok(()),
        failed => Err(Error::Some {
            failed,
            all: listed.len(),
        }),
    }
}

fn import(keystore: &Keystore, wish: &Wish, key: &Listed) -> Result<Outcome, Error> {
    let email = key
        .user_id
        .rsplit_once('<')
        .and_then(|(_, rest)| rest.strip_suffix('>'));
    let Some(identity) = email.and_then(|email| email.parse::<Identity>().ok()) else {
        return Ok(Outcome::Skipped("its user id ends in no e-mail".into()));
    };
    let phrase = match &wish.phrases {
        Some(phrases) => phrase(&phrases.join(identity.as_str()))?,
        None => None,
    };
    if wish.phrases.is_some() && phrase.is_none() && !wish.all {
        return Ok(Outcome::Skipped("no phrase file; --all takes it".into()));
    }
    if let Some(entry) = keystore.find(&identity)? {
        return Ok(present(&entry.fingerprint, key));
    }
    let phrase = phrase.unwrap_or_default();
    let exported = gpg(
        &wish.gnupg,
        &["--export-secret-keys", &key.fingerprint],
        &phrase,
    );
    let exported = match exported {
        Ok(exported) if !exported.is_empty() => exported,
        // What is wrong with one key keeps nobody from the others.
        Ok(_) | Err(Error::Failed(_)) => {
            return Ok(Outcome::Failed(
                "gpg does not export it; is the phrase right?".into(),
            ));
        }
        Err(error) => return Err(error),
    };
    let (secret, certificate) = match transferable::read(&exported, &phrase) {
        Ok(read) => read,
        Err(error) => return Ok(Outcome::Failed(error.to_string())),
    };
    if certificate.public_key().fingerprint().as_str() != key.fingerprint {
        return Ok(Outcome::Failed("gpg exported another key".into()));
    }
    if wish.dry_run {
        return Ok(Outcome::Imported);
    }
    match keystore.import(&identity, secret, certificate) {
        Ok(Creation::New(_)) => Ok(Outcome::Imported),
        Ok(Creation::Existing(entry)) => Ok(present(&entry.fingerprint, key)),
        Err(error @ keystore::Error::Formerly(_)) => Ok(Outcome::Skipped(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

fn present(fingerprint: &str, key: &Listed) -> Outcome {
    if fingerprint == key.fingerprint {
        Outcome::Present
    } else {
        Outcome::Skipped(format!("its e-mail has the key {fingerprint} already"))
    }
}

/// The first line of a phrase file, or nothing where there is none.
fn phrase(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    match fs::read(path).map(Zeroizing::new) {
        Ok(bytes) => {
            let line = bytes.split(|byte| *byte == b'\n').next();
            Ok(Some(Zeroizing::new(line.unwrap_or_default().to_vec())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Every primary secret key, with its first user id.
fn list(home: &Path) -> Result<Vec<Listed>, Error> {
    let output = gpg(home, &["--with-colons", "--list-secret-keys"], b"")?;
    let mut keys: Vec<Listed> = Vec::new();
    let mut wants_fingerprint = false;
    for line in String::from_utf8_lossy(&output).lines() {
        let mut fields = line.split(':');
        let kind = fields.next();
        let text = fields.nth(8).unwrap_or_default();
        match (kind, keys.last_mut()) {
            (Some("sec"), _) => wants_fingerprint = true,
            (Some("fpr"), _) if wants_fingerprint => {
                wants_fingerprint = false;
                keys.push(Listed {
                    fingerprint: text.to_owned(),
                    user_id: String::new(),
                });
            }
            (Some("uid"), Some(key)) if key.user_id.is_empty() => {
                key.user_id = text.replace("\\x3a", ":");
            }
            _ => {}
        }
    }
    Ok(keys)
}

/// What gpg answers; it reads the passphrase from its standard input.
fn gpg(home: &Path, arguments: &[&str], phrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |source| Error::Io {
        path: "gpg".into(),
        source,
    };
    let mut child = Command::new("gpg")
        .arg("--homedir")
        .arg(home)
        .args([
            "--batch",
            "--no-tty",
            "--quiet",
            "--pinentry-mode",
            "loopback",
        ])
        .args(["--passphrase-fd", "0"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // A gpg that has ended already says why itself.
    let _closed = child.stdin.take().map(|mut input| {
        input
            .write_all(phrase)
            .and_then(|()| input.write_all(b"\n"))
    });
    let output = child.wait_with_output().map_err(failed)?;
    let answer = Zeroizing::new(output.stdout);
    if output.status.success() {
        Ok(answer)
    } else {
        Err(Error::Failed(format!("gpg failed on {}", home.display())))
    }
}
