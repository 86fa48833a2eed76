//! `signdrop key import`

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::Args;
use indicatif::ProgressBar;
use zeroize::Zeroizing;

use super::{
    Error, at,
    terminal::{clean, progress, say, shown},
};
use crate::{
    arrival::reason,
    identity::Identity,
    key::openpgp::transferable,
    keystore::{self, Creation, Keystore},
};

/// What is to be taken over.
#[derive(Debug, Args)]
pub(super) struct Wish {
    /// The home of GnuPG 2.x, which gpg reads; nothing in it is changed.
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

/// Keys that gpg exports in one call.
const BATCH: usize = 100;
/// Bytes that are made room for before gpg's answer is read, so that it is not moved in memory: a key with its certificate has some thousand.
const ROOM: usize = (BATCH * 16) << 10;

/// A secret key as gpg lists it.
struct Listed {
    fingerprint: String,
    /// The first of its user ids, as gpg lists them.
    user_id: String,
    /// The e-mails of all of them.
    emails: BTreeSet<Identity>,
    /// Why nobody would accept its signatures, if so.
    unfit: Option<&'static str>,
}

/// A key that is to be taken over.
struct Wanted {
    key: Listed,
    identity: Identity,
    phrase: Zeroizing<Vec<u8>>,
}

enum Outcome {
    Imported,
    Present,
    Skipped(String),
    Failed(String),
}

/// What is to be done with a key.
enum Plan {
    /// It is exported with this passphrase and kept under this name.
    Export(Identity, Zeroizing<Vec<u8>>),
    /// Nothing.
    Settled(Outcome),
}

/// What comes of the keys, counted and said.
struct Report {
    bar: ProgressBar,
    imported: usize,
    present: usize,
    skipped: usize,
    failed: usize,
}

impl Report {
    fn tell(&mut self, key: &Listed, outcome: Outcome) -> Result<(), Error> {
        let name = clean(key.user_id.as_str().into());
        let (count, line) = match outcome {
            Outcome::Imported => (&mut self.imported, "imported".to_owned()),
            Outcome::Present => (&mut self.present, "present".to_owned()),
            Outcome::Skipped(why) => (&mut self.skipped, format!("skipped: {why}")),
            Outcome::Failed(why) => (&mut self.failed, format!("failed: {why}")),
        };
        *count += 1;
        self.bar
            .suspend(|| say(&format!("{} {name}: {line}", key.fingerprint)))?;
        self.bar.inc(1);
        Ok(())
    }
}

pub(super) fn run(keystore: &Keystore, wish: &Wish) -> Result<(), Error> {
    if let Some(phrases) = &wish.phrases {
        // A directory that is not there would have every key skipped.
        fs::read_dir(phrases).map_err(at(phrases))?;
    }
    let home = Home::open(&wish.gnupg)?;
    let listed = home.list()?;
    let mut report = Report {
        bar: progress(listed.len() as u64, "importing"),
        imported: 0,
        present: 0,
        skipped: 0,
        failed: 0,
    };
    // What has the same passphrase is exported together.
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut planned = BTreeSet::new();
    let all = listed.len();
    for key in listed {
        match plan(keystore, wish, &key)? {
            Plan::Export(identity, _) if !planned.insert(identity.clone()) => report.tell(
                &key,
                Outcome::Skipped(format!("another key of the home is that of {identity}")),
            )?,
            Plan::Export(identity, phrase) => wanted.push(Wanted {
                key,
                identity,
                phrase,
            }),
            Plan::Settled(outcome) => report.tell(&key, outcome)?,
        }
    }
    wanted.sort_by(|one, other| one.phrase.cmp(&other.phrase));
    let same = wanted.chunk_by(|one, other| one.phrase == other.phrase);
    for keys in same.flat_map(|keys| keys.chunks(BATCH)) {
        let phrase: &[u8] = keys.first().map_or(&[], |wanted| &wanted.phrase);
        let fingerprints = keys.iter().map(|wanted| wanted.key.fingerprint.as_str());
        let mut found = transferable::read(&home.export(fingerprints, phrase)?, phrase);
        for Wanted { key, identity, .. } in keys {
            let outcome = match found.remove(&key.fingerprint) {
                None => Outcome::Failed("gpg does not export it; is the phrase right?".into()),
                Some(Err(error)) => Outcome::Failed(error.to_string()),
                Some(Ok(_)) if wish.dry_run => Outcome::Imported,
                Some(Ok((secret, certificate))) => {
                    match keystore.import(identity, secret, certificate)? {
                        Creation::New(_) => Outcome::Imported,
                        Creation::Existing(entry) => present(&entry.fingerprint, key),
                    }
                }
            };
            report.tell(key, outcome)?;
        }
    }
    report.bar.finish_and_clear();
    say(&format!(
        "{} {}, {} present, {} skipped, {} failed",
        report.imported,
        if wish.dry_run {
            "to import"
        } else {
            "imported"
        },
        report.present,
        report.skipped,
        report.failed,
    ))?;
    match report.failed {
        0 => Ok(()),
        failed => Err(Error::Some { failed, all }),
    }
}

/// By which name and with which passphrase a key is to be taken over, or why it is not.
fn plan(keystore: &Keystore, wish: &Wish, key: &Listed) -> Result<Plan, Error> {
    let skipped = |why: &str| Ok(Plan::Settled(Outcome::Skipped(why.to_owned())));
    if let Some(why) = key.unfit {
        return skipped(why);
    }
    let mut emails: Vec<(&Identity, Option<Zeroizing<Vec<u8>>>)> = Vec::new();
    for email in &key.emails {
        let phrase = match &wish.phrases {
            Some(phrases) => match phrase(&phrases.join(email.as_str())) {
                Ok(phrase) => phrase,
                Err(error) => return Ok(Plan::Settled(Outcome::Failed(reason(&error)))),
            },
            None => None,
        };
        emails.push((email, phrase));
    }
    // Which of several e-mails is a project's, its phrase file tells.
    if emails.len() > 1 {
        emails.retain(|(_, phrase)| phrase.is_some());
    }
    let (identity, phrase) = match emails.as_slice() {
        [(identity, phrase)] => ((*identity).clone(), phrase.clone()),
        _ if key.emails.is_empty() => return skipped("none of its user ids ends in an e-mail"),
        _ => {
            return skipped(
                "its user ids have several e-mails; that of which there is a phrase file is taken",
            );
        }
    };
    if wish.phrases.is_some() && phrase.is_none() && !wish.all {
        return skipped("no phrase file; --all takes it");
    }
    if let Some(entry) = keystore.find(&identity)? {
        return Ok(Plan::Settled(present(&entry.fingerprint, key)));
    }
    if keystore.was_deleted(&identity, &key.fingerprint)? {
        let formerly = keystore::Error::Formerly(key.fingerprint.clone());
        return skipped(&formerly.to_string());
    }
    Ok(Plan::Export(identity, phrase.unwrap_or_default()))
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
        Err(error) => Err(at(path)(error)),
    }
}

/// A GnuPG home as gpg sees it: a directory in memory with copies of the real one's keys, since gpg's agent writes keys anew as it likes.
/// The agent is its own.
struct Home(tempfile::TempDir);

impl Drop for Home {
    fn drop(&mut self) {
        // An agent that is not there, or does not end, forgets the keys after ten minutes.
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.0.path())
            .args(["--kill", "gpg-agent"])
            .status();
    }
}

impl Home {
    fn open(real: &Path) -> Result<Self, Error> {
        let real = real.canonicalize().map_err(at(real))?;
        let memory = Path::new("/dev/shm");
        let home = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(memory)
            .map_err(at(memory))?;
        let link = |name: &str| {
            let target = real.join(name);
            if !target.exists() {
                return Ok(false);
            }
            symlink(&target, home.path().join(name))
                .map(|()| true)
                .map_err(at(&target))
        };
        let public = [link("pubring.kbx")?, link("pubring.gpg")?];
        let keys = real.join("private-keys-v1.d");
        if !keys.is_dir() || public == [false, false] {
            return Err(Error::Failed(format!(
                "{} is no home of GnuPG 2: it has pubring.kbx or pubring.gpg, and private-keys-v1.d; `gpg --homedir HOME \
                 --list-secret-keys` makes these out of an older one",
                shown(&real)
            )));
        }
        let copies = home.path().join("private-keys-v1.d");
        fs::create_dir(&copies).map_err(at(&copies))?;
        for entry in fs::read_dir(&keys).map_err(at(&keys))? {
            let entry = entry.map_err(at(&keys))?;
            if entry.path().extension() == Some("key".as_ref()) {
                fs::copy(entry.path(), copies.join(entry.file_name()))
                    .map_err(at(&entry.path()))?;
            }
        }
        Ok(Self(home))
    }

    /// Every primary secret key, with what gpg says of it.
    fn list(&self) -> Result<Vec<Listed>, Error> {
        let (output, success) =
            self.gpg(["--with-colons", "--list-secret-keys"].into_iter(), b"", 0)?;
        if !success {
            return Err(Error::Failed("gpg cannot list the secret keys".into()));
        }
        let mut keys: Vec<Listed> = Vec::new();
        // Source: GnuPG's doc/DETAILS, "Format of the colon listings".
        for line in String::from_utf8_lossy(&output).lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let field = |place: usize| fields.get(place).copied().unwrap_or_default();
            match (field(0), keys.last_mut()) {
                ("sec", _) => keys.push(Listed {
                    fingerprint: String::new(),
                    user_id: String::new(),
                    emails: BTreeSet::new(),
                    unfit: match (field(1), field(3), field(11)) {
                        ("r", _, _) => Some("it is revoked"),
                        // RFC 9580, section 9.1.
                        (_, algorithm, _) if algorithm != "1" => Some("it is no RSA key"),
                        (_, _, uses) if !uses.contains('s') => {
                            Some("its primary key does not sign")
                        }
                        _ => None,
                    },
                }),
                ("fpr", Some(key)) if key.fingerprint.is_empty() => {
                    key.fingerprint = field(9).to_owned();
                }
                ("uid", Some(key)) if field(1) != "r" => {
                    let user_id = field(9).replace("\\x3a", ":");
                    let email = user_id
                        .rsplit_once('<')
                        .and_then(|(_, rest)| rest.strip_suffix('>'));
                    key.emails
                        .extend(email.and_then(|email| email.parse().ok()));
                    if key.user_id.is_empty() {
                        key.user_id = user_id;
                    }
                }
                _ => {}
            }
        }
        Ok(keys)
    }

    /// The secret keys that gpg exports with this passphrase; those that it does not are missing.
    fn export<'a>(
        &self,
        fingerprints: impl Iterator<Item = &'a str>,
        phrase: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let words = ["--export-secret-keys"].into_iter().chain(fingerprints);
        Ok(self.gpg(words, phrase, ROOM)?.0)
    }

    /// What gpg answers, and whether it was content; it reads the passphrase from its standard input.
    fn gpg<'a>(
        &self,
        words: impl Iterator<Item = &'a str>,
        phrase: &[u8],
        room: usize,
    ) -> Result<(Zeroizing<Vec<u8>>, bool), Error> {
        let failed = at(Path::new("gpg"));
        let mut child = Command::new("gpg")
            .arg("--homedir")
            .arg(self.0.path())
            .args(["--batch", "--no-tty", "--quiet", "--no-auto-check-trustdb"])
            .args(["--pinentry-mode", "loopback", "--passphrase-fd", "0"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(&failed)?;
        // A gpg that has ended already says why itself.
        let _closed = child.stdin.take().map(|mut input| {
            input
                .write_all(phrase)
                .and_then(|()| input.write_all(b"\n"))
        });
        let mut answer = Zeroizing::new(Vec::with_capacity(room));
        let read = match child.stdout.take() {
            Some(mut output) => output.read_to_end(&mut answer),
            None => Ok(0),
        };
        let status = child.wait().map_err(&failed)?;
        read.map_err(&failed)?;
        Ok((answer, status.success()))
    }
}
