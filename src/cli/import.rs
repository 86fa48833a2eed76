//! `signdrop key import`

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use clap::{ArgGroup, Args};
use indicatif::ProgressBar;
use zeroize::Zeroizing;

use super::{
    Error, at,
    passphrase::{self, Ask, first_line},
    terminal::{clean, reading, say, shown},
};
use crate::{
    arrival::reason,
    identity::Identity,
    key::{
        SecretKey,
        gnupg::{self, PrivateKey},
        openpgp::{Certificate, transferable},
    },
    keystore::{self, Creation, Keystore},
    store,
};

/// Threads that take keys in. Many, since each waits for the disk, and those that wait together share one flush.
const THREADS: usize = 32;
/// Keys that a thread takes in before they are told of.
const AT_A_TIME: usize = 8;

/// What is to be taken over.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["gnupg", "file"]))]
pub(super) struct Wish {
    /// The home of GnuPG 2.1 or later; nothing in it is changed.
    #[arg(long, value_name = "HOME")]
    gnupg: Option<PathBuf>,
    /// A file of secret keys, as `signdrop key export --secret` and `gpg --export-secret-keys` write it.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A directory with a file for each key, named by its e-mail, whose first line is its passphrase.
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    phrases: Option<PathBuf>,
    /// A file whose first line is the passphrase of the keys in FILE; without it, the terminal is asked.
    #[arg(long, value_name = "FILE", conflicts_with = "gnupg")]
    passphrase_file: Option<PathBuf>,
    /// Takes over keys without a file in the directory of phrases, too.
    #[arg(long, conflicts_with = "file")]
    all: bool,
    /// Says what would be done, and does nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Wish {
    fn phrase_file(&self, email: &Identity) -> Option<PathBuf> {
        Some(self.phrases.as_ref()?.join(email.as_str()))
    }
}

enum Outcome {
    Imported,
    Present,
    Skipped(String),
    Failed(String),
}

/// The private half of what is to be taken over, perhaps protected.
enum Private {
    Agent(PrivateKey),
    /// In the certificate's own packets.
    Packet,
    /// On a smart card, or on another machine.
    Elsewhere,
}

/// A key that has been found, or why one that was cannot be read.
type Found = Result<(Certificate, Private), String>;

/// What comes of the keys, counted and said.
struct Report {
    bar: ProgressBar,
    imported: usize,
    present: usize,
    skipped: usize,
    failed: usize,
}

impl Report {
    fn new(bar: ProgressBar) -> Self {
        Self {
            bar,
            imported: 0,
            present: 0,
            skipped: 0,
            failed: 0,
        }
    }

    fn tell(&mut self, key: Option<&Certificate>, outcome: Outcome) -> Result<(), Error> {
        let (count, line) = match outcome {
            Outcome::Imported => (&mut self.imported, "imported".to_owned()),
            Outcome::Present => (&mut self.present, "present".to_owned()),
            Outcome::Skipped(why) => (&mut self.skipped, format!("skipped: {why}")),
            Outcome::Failed(why) => (&mut self.failed, format!("failed: {why}")),
        };
        *count += 1;
        let line = match key {
            Some(key) => {
                let name = clean(key.user_id().into()).into_owned();
                format!("{} {name}: {line}", key.public_key().fingerprint())
            }
            None => line,
        };
        self.bar.suspend(|| say(&line))
    }

    fn end(self, wish: &Wish) -> Result<(), Error> {
        self.bar.finish_and_clear();
        let all = self.imported + self.present + self.skipped + self.failed;
        if all == 0 {
            let source = wish.gnupg.as_deref().or(wish.file.as_deref());
            let source = shown(source.unwrap_or_else(|| Path::new("")));
            return Err(Error::Failed(format!("{source} holds no secret key")));
        }
        say(&format!(
            "{} {}, {} present, {} skipped, {} failed",
            self.imported,
            if wish.dry_run {
                "to import"
            } else {
                "imported"
            },
            self.present,
            self.skipped,
            self.failed,
        ))?;
        match self.failed {
            0 => Ok(()),
            failed => Err(Error::Some { failed, all }),
        }
    }
}

pub(super) fn run(keystore: &Keystore, wish: &Wish) -> Result<(), Error> {
    if let Some(phrases) = &wish.phrases {
        // A directory that is not there would have every key skipped.
        fs::read_dir(phrases).map_err(at(phrases))?;
    }
    let open = |path: &Path| {
        let file = File::open(path).map_err(at(path))?;
        let bar = reading(&file, "importing").map_err(at(path))?;
        Ok::<_, Error>((bar.wrap_read(file), bar))
    };
    match (&wish.gnupg, &wish.file) {
        (Some(home), _) => {
            let home = gnupg::Home::open(home)?;
            let (keyring, bar) = open(home.keyring())?;
            let found = home
                .certificates(keyring)?
                .filter_map(|certificate| find(&home, wish, certificate).transpose());
            let unreadable = home.unreadable().iter().map(|error| Err(reason(error)));
            take_over(keystore, wish, Report::new(bar), unreadable.chain(found))
        }
        (None, Some(path)) => {
            let (file, bar) = open(path)?;
            let found = transferable::certificates(BufReader::new(file))
                .map_err(|error| Error::Failed(format!("{}: {}", shown(path), reason(&error))))?;
            let found = found.map(|certificate| {
                let certificate = certificate.map_err(|error| reason(&error))?;
                let private = match certificate.has_secret() {
                    true => Private::Packet,
                    false => Private::Elsewhere,
                };
                Ok((certificate, private))
            });
            take_over(keystore, wish, Report::new(bar), found)
        }
        (None, None) => Err(Error::Usage(
            "--gnupg HOME or --file FILE is missing".into(),
        )),
    }
}

/// The private half of a certificate in a home's keyring, or nothing where it is somebody else's certificate.
fn find(
    home: &gnupg::Home,
    wish: &Wish,
    certificate: Result<Certificate, gnupg::Error>,
) -> Result<Option<(Certificate, Private)>, String> {
    let certificate = certificate.map_err(|error| reason(&error))?;
    let private = match home
        .private_key(&certificate)
        .map_err(|error| reason(&error))?
    {
        Some(private) if private.is_elsewhere() => Private::Elsewhere,
        Some(private) => Private::Agent(private),
        None if home.has_subkey_of(&certificate) => Private::Elsewhere,
        None => {
            let mut emails = certificate.identities().into_iter();
            return match emails
                .find(|email| wish.phrase_file(email).is_some_and(|file| file.exists()))
            {
                Some(email) => Err(format!(
                    "{} {email}: it has a phrase file, but no private key in the home",
                    certificate.public_key().fingerprint(),
                )),
                None => Ok(None),
            };
        }
    };
    Ok(Some((certificate, private)))
}

fn take_over(
    keystore: &Keystore,
    wish: &Wish,
    mut report: Report,
    mut found: impl Iterator<Item = Found>,
) -> Result<(), Error> {
    let mut planned = Planned::default();
    loop {
        let some: Vec<Found> = found.by_ref().take(THREADS * AT_A_TIME).collect();
        if some.is_empty() {
            return report.end(wish);
        }
        let mut wanted = Vec::new();
        for found in some {
            match plan(keystore, wish, &mut planned, &report.bar, found)? {
                Plan::Import(key) => wanted.push(key),
                Plan::Settled(key, outcome) => report.tell(key.as_ref(), outcome)?,
            }
        }
        let take_in = |key: &Wanted| key.take_in(keystore, wish.dry_run);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = wanted
                .chunks(AT_A_TIME)
                .map(|keys| scope.spawn(move || keys.iter().map(take_in).collect::<Vec<_>>()))
                .collect();
            let outcomes = threads.into_iter().map(|thread| thread.join());
            outcomes
                .flat_map(|keys| keys.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let mut stopped = None;
        for (key, outcome) in wanted.iter().zip(outcomes) {
            match outcome {
                Ok(outcome) => report.tell(Some(&key.certificate), outcome)?,
                // Told last: others of the batch are in the store.
                Err(error) => stopped = Some(error),
            }
        }
        if let Some(error) = stopped {
            return Err(error);
        }
    }
}

/// What has been settled on the way.
#[derive(Default)]
struct Planned {
    identities: BTreeSet<Identity>,
    /// Of the keys in a file.
    passphrase: Option<Zeroizing<String>>,
}

impl Planned {
    fn passphrase(&mut self, wish: &Wish, bar: &ProgressBar) -> Result<&[u8], Error> {
        let phrase = match &mut self.passphrase {
            Some(known) => known,
            unknown => {
                let ask = || passphrase::read(wish.passphrase_file.as_deref(), Ask::Once);
                unknown.insert(bar.suspend(ask)?)
            }
        };
        Ok(phrase.as_bytes())
    }
}

/// A key that is to be taken over.
struct Wanted {
    certificate: Certificate,
    private: Private,
    identity: Identity,
    phrase: Zeroizing<Vec<u8>>,
}

impl Wanted {
    fn take_in(&self, keystore: &Keystore, dry_run: bool) -> Result<Outcome, Error> {
        let secret = match self.unlock() {
            Ok(secret) => secret,
            Err(why) => return Ok(Outcome::Failed(why)),
        };
        if dry_run {
            return Ok(Outcome::Imported);
        }
        let public = self.certificate.clone().without_secret();
        match keystore.import(&self.identity, secret, public) {
            Ok(Creation::New(_)) => Ok(Outcome::Imported),
            Ok(Creation::Existing(entry)) => Ok(present(&entry.fingerprint, &self.certificate)),
            Err(error @ keystore::Error::Store(store::Error::TooLong { .. })) => {
                Ok(Outcome::Failed(reason(&error)))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn unlock(&self) -> Result<SecretKey, String> {
        match &self.private {
            Private::Agent(private) => private
                .unlock(&self.certificate, &self.phrase)
                .map_err(|error| reason(&error)),
            Private::Packet | Private::Elsewhere => self
                .certificate
                .secret_key(&self.phrase)
                .map_err(|error| reason(&error)),
        }
    }
}

/// What is to be done with a key.
enum Plan {
    Import(Wanted),
    /// Nothing; the certificate is there if it could be read.
    Settled(Option<Certificate>, Outcome),
}

/// By which name and with which passphrase a key is to be taken over, or why it is not.
fn plan(
    keystore: &Keystore,
    wish: &Wish,
    planned: &mut Planned,
    bar: &ProgressBar,
    found: Found,
) -> Result<Plan, Error> {
    let (certificate, private) = match found {
        Ok(found) => found,
        Err(why) => return Ok(Plan::Settled(None, Outcome::Failed(why))),
    };
    let (identity, phrase) =
        match name(keystore, wish, &planned.identities, &certificate, &private)? {
            Ok(named) => named,
            Err(outcome) => return Ok(Plan::Settled(Some(certificate), outcome)),
        };
    planned.identities.insert(identity.clone());
    let phrase = if certificate.is_protected() {
        Zeroizing::new(planned.passphrase(wish, bar)?.to_vec())
    } else {
        phrase
    };
    Ok(Plan::Import(Wanted {
        certificate,
        private,
        identity,
        phrase,
    }))
}

type Named = (Identity, Zeroizing<Vec<u8>>);

/// The identity and the passphrase of a key that is fit and new.
fn name(
    keystore: &Keystore,
    wish: &Wish,
    planned: &BTreeSet<Identity>,
    certificate: &Certificate,
    private: &Private,
) -> Result<Result<Named, Outcome>, Error> {
    let skipped = |why: &str| Ok(Err(Outcome::Skipped(why.to_owned())));
    if matches!(private, Private::Elsewhere) {
        return skipped("its secret half is not there");
    }
    if certificate.is_revoked() {
        return skipped("it is revoked");
    }
    if certificate.public_numbers().is_none() {
        return skipped(&format!(
            "it is a key of {}, and none of RSA with 2048, 3072 or 4096 bits, Ed25519, NIST P-256 or P-384",
            certificate.algorithm_name()
        ));
    }
    if !certificate.may_sign() {
        return skipped("its primary key does not sign");
    }
    let mut emails: Vec<(Identity, Option<Zeroizing<Vec<u8>>>)> = Vec::new();
    for email in certificate.identities() {
        let phrase = match wish.phrase_file(&email) {
            Some(file) => match phrase(&file) {
                Ok(phrase) => phrase,
                Err(error) => return Ok(Err(Outcome::Failed(reason(&error)))),
            },
            None => None,
        };
        emails.push((email, phrase));
    }
    if emails.is_empty() {
        return skipped("none of its user ids ends in an e-mail");
    }
    // Which of several e-mails is a project's, its phrase file tells.
    if emails.len() > 1 {
        emails.retain(|(_, phrase)| phrase.is_some());
    }
    let Ok([(identity, phrase)]) = <[_; 1]>::try_from(emails) else {
        return skipped(
            "its user ids have several e-mails; a phrase file (--phrases) tells which of them is taken",
        );
    };
    if wish.phrases.is_some() && phrase.is_none() && !wish.all {
        return skipped("no phrase file; --all takes it");
    }
    if planned.contains(&identity) {
        return skipped(&format!(
            "another key of those to import is that of {identity}"
        ));
    }
    if let Some(entry) = keystore.find(&identity)? {
        return Ok(Err(present(&entry.fingerprint, certificate)));
    }
    let public = certificate.public_key();
    let fingerprint = public.fingerprint().as_str();
    if keystore.was_deleted(&identity, fingerprint)? {
        let formerly = keystore::Error::Formerly(fingerprint.to_owned());
        return skipped(&formerly.to_string());
    }
    Ok(Ok((identity, phrase.unwrap_or_default())))
}

fn present(fingerprint: &str, certificate: &Certificate) -> Outcome {
    if fingerprint == certificate.public_key().fingerprint().as_str() {
        Outcome::Present
    } else {
        Outcome::Skipped(format!("its e-mail has the key {fingerprint} already"))
    }
}

/// The first line of a phrase file, or nothing where there is none.
fn phrase(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    match first_line(path) {
        Ok(line) => Ok(Some(line)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}
