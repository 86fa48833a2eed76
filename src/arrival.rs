//! The one way through: what is done with a file, from wherever word of it came.

use std::{
    error::Error as StdError,
    ffi::OsStr,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustix::{
    fs::{FileType, Stat},
    io::Errno,
};

use crate::{
    apply::{self, Apply, Flush, redo::Left},
    config::{Action, Drop, Keys},
    format::{self, Format},
    keyring::{Keyring, ProjectKey},
    keystore::{self, KeyEntry, NewKey},
    place::{Place, Stamp},
    project::{self, Project},
    queue::Why,
    record::{Lasting, Outcome, Policy, Record, Records},
    signer, store,
};

/// Why an artifact failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its path names no project. Stays.
    #[error(transparent)]
    Project(#[from] project::Error),
    /// It cannot be opened. May pass.
    #[error("cannot open")]
    Open(#[source] io::Error),
    /// It is not sound, or could not be signed.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// The drop directory does not make keys, and there is none. May pass: somebody makes it.
    #[error(
        "there is no key for {0}, and create_keys is off here; `signdrop key generate` makes one"
    )]
    NoKey(crate::identity::Identity),
    /// The key has expired, so that nobody would accept its signature. May pass: somebody prolongs it.
    #[error("the key of {0} has expired; `signdrop key extend` prolongs it")]
    Expired(crate::identity::Identity),
    /// The key could not be made or read.
    #[error(transparent)]
    Keystore(#[from] keystore::Error),
    /// The key could not be used.
    #[error(transparent)]
    Signer(#[from] signer::Error),
    /// The edit did not reach the disk.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The project's public key cannot be put beside what it signs. May pass.
    #[error("cannot write the project's public key")]
    PublicKey(#[source] apply::Error),
    /// It is finished and cannot get its name in a mount. May pass.
    #[error("cannot give the file its name")]
    Show(#[source] io::Error),
    /// The record of an earlier outcome cannot be read or written. May pass.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The program is at fault. Stays.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

impl Error {
    /// Whether the same file may succeed later without having changed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Project(_) | Self::Internal(_) => false,
            Self::Open(_) | Self::Show(_) | Self::NoKey(_) | Self::Expired(_) => true,
            Self::Format(error) => error.may_pass(),
            Self::Keystore(error) => error.may_pass(),
            Self::Signer(error) => error.may_pass(),
            Self::Apply(error) | Self::PublicKey(error) => error.may_pass(),
            Self::Store(error) => error.may_pass(),
        }
    }

    /// The failure, to be kept.
    fn record(&self, stamp: Stamp, policy: Policy) -> Record {
        let mut record = Record::new(stamp, policy, Outcome::Failed, reason(self));
        if self.may_pass() {
            record.lasting = Lasting::MayPass;
        }
        record
    }

    /// Whether somebody else changed the file or its key meanwhile, so that it has to be read anew.
    fn is_race(&self) -> bool {
        match self {
            Self::Apply(apply::Error::Changed)
            | Self::Signer(signer::Error::Deleted)
            | Self::Keystore(keystore::Error::Deleted) => true,
            Self::Format(error) => error.is_deleted_key(),
            Self::Open(error) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// An error with all its causes, none of them twice.
pub fn reason(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What came of working on a path.
#[derive(Debug)]
pub enum Settlement {
    /// The artifact has an outcome; `Fresh` where it is new, so that it is told only once.
    Settled(Record, Freshness),
    /// Somebody has the file open for writing.
    BeingWritten,
    /// The file changed while it was worked on: it has to be read again.
    Again,
    /// There is no artifact of that name: it is gone, or of another name or place than artifacts have.
    Nothing,
}

/// Whether an outcome was known before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It was kept from before.
    Known,
    /// It is new.
    Fresh,
}

/// What came of a file that a mount holds back.
#[derive(Debug)]
pub struct Finished {
    /// Its outcome.
    pub settlement: Settlement,
    /// Why it failed.
    pub error: Option<Error>,
    /// The file, where it is not on the disk yet.
    pub unflushed: Option<File>,
    /// Whether it may be flushed after its writer has been answered.
    pub flush: Flush,
}

impl Finished {
    fn failed(settlement: Settlement, error: Error) -> Self {
        Self {
            settlement,
            error: Some(error),
            unflushed: None,
            flush: Flush::Now,
        }
    }
}

/// Everything that an arrival needs on its way.
#[derive(Debug)]
pub struct Way {
    /// The keys.
    pub keyring: Arc<Keyring>,
    /// Writes edits.
    pub apply: Apply,
    /// Keeps outcomes.
    pub records: Records,
}

/// A path that may be an artifact's, with all that the configuration says of it.
struct Candidate<'a> {
    drop: &'a Drop,
    relative: &'a Path,
    path: PathBuf,
    format: Format,
}

impl Way {
    /// Works on the file at `relative` below `drop`'s root until it has an outcome, which is kept.
    pub fn settle(&self, drop: &Drop, relative: &Path, why: Why, keys: &Keys) -> Settlement {
        let Some(candidate) = Candidate::new(drop, relative) else {
            return Settlement::Nothing;
        };
        let place = match Place::beneath(&drop.root, relative) {
            Ok(place) => place,
            // A directory on the way is gone, or has become something else: no file of the tree has this name.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {
                return self.forget(&candidate);
            }
            // There may be a file, so that it must not count as gone.
            Err(errno) => {
                let error = Error::Open(errno.into());
                return self.keep_failure(&candidate, Stamp::default(), &error);
            }
        };
        let stat = match place.stat() {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return self.forget(&candidate),
            Err(errno) => {
                let error = Error::Open(errno.into());
                return self.keep_failure(&candidate, Stamp::default(), &error);
            }
        };
        let settled = self
            .settle_at(&candidate, &place, &stat, why, keys, Flush::Now)
            .and_then(|settlement| {
                if let Settlement::Settled(record, Freshness::Fresh) = &settlement {
                    self.records.put(&candidate.path, record)?;
                }
                Ok(settlement)
            });
        match settled {
            Ok(Settlement::Nothing) => self.forget(&candidate),
            Ok(settlement) => settlement,
            Err(error) => {
                let stamp = match &error {
                    Error::Apply(apply::Error::GivenUp { stamp, .. }) => *stamp,
                    _ => Stamp::of(&stat),
                };
                self.failed(&candidate, &place, stamp, &error)
            }
        }
    }

    /// Works on a file that a mount holds back: it is at `place` now, and is going to be seen at `relative`.
    ///
    /// The format is what the content begins as, whatever the name. `is_flushed` says that its writer relies on its being on the
    /// disk. An outcome is not kept yet, but for failures: see [`Self::make_last`].
    pub fn finish(
        &self,
        drop: &Drop,
        relative: &Path,
        place: &Place,
        keys: &Keys,
        is_flushed: bool,
    ) -> Finished {
        let open = || place.open().map_err(|errno| Error::Open(errno.into()));
        let read = || {
            let stat = place.stat().map_err(|errno| Error::Open(errno.into()))?;
            Ok((stat, Format::of_content(&open()?)?))
        };
        let (stat, format) = match read() {
            Ok(read) => read,
            Err(error) => return Finished::failed(Settlement::Nothing, error),
        };
        let flush = match format {
            Format::Rpm if !is_flushed => Flush::Later,
            // What a power cut took of a module, nothing in it tells: it would be signed as it is then.
            Format::Rpm | Format::Kmod => Flush::Now,
        };
        let candidate = Candidate {
            drop,
            relative,
            path: drop.root.join(relative),
            format,
        };
        // Somebody waits for it, so that it is tried again whatever came of it before.
        let settle = || {
            let settlement = self.settle_at(&candidate, place, &stat, Why::Due, keys, flush)?;
            let unflushed = match &settlement {
                // What was written by nobody but its writer is not on the disk yet, either.
                Settlement::Settled(record, _) if flush == Flush::Later || !record.is_written() => {
                    Some(open()?)
                }
                _ => None,
            };
            Ok((settlement, unflushed))
        };
        match settle() {
            Ok((settlement, unflushed)) => Finished {
                settlement,
                error: None,
                unflushed,
                flush,
            },
            Err(error) => {
                let settlement = self.failed(&candidate, place, Stamp::of(&stat), &error);
                Finished::failed(settlement, error)
            }
        }
    }

    /// Makes a file last that has been finished, shows it then, and keeps its outcome. Where it does not last, or cannot be shown, it
    /// has failed.
    pub fn make_last(
        &self,
        artifact: &Path,
        unflushed: Option<&File>,
        record: Record,
        show: &mut dyn FnMut() -> Result<(), Errno>,
    ) -> (Record, Option<Error>) {
        crate::step::reached("finished");
        let shown = unflushed
            .map_or(Ok(()), apply::flush)
            .map_err(Error::from)
            .and_then(|()| show().map_err(|errno| Error::Show(errno.into())));
        let (record, error) = match shown {
            Ok(()) => (record, None),
            Err(error) => {
                let failure = error.record(record.stamp, record.policy);
                (failure, Some(error))
            }
        };
        self.put_or_say(artifact, &record);
        (record, error)
    }

    /// A file that has been finished is seen now: its new name has changed its stamp, and nothing else.
    pub fn seen(&self, drop: &Drop, relative: &Path) {
        let path = drop.root.join(relative);
        let renewed = || {
            let mut record = self.records.find(&path).ok()??;
            let stat = Place::beneath(&drop.root, relative).ok()?.stat().ok()?;
            if record.stamp.has_content_of(&Stamp::of(&stat)) {
                record.stamp = Stamp::of(&stat);
                self.records.put(&path, &record).ok()?;
            }
            Some(())
        };
        // What is not kept is found anew by looking.
        let _ = renewed();
    }

    /// A file that was held back has another path, or is gone.
    pub fn moved(&self, drop: &Drop, from: &Path, to: Option<&Path>) {
        let (was, is) = (drop.root.join(from), to.map(|to| drop.root.join(to)));
        let follow = || {
            if let Some(is) = is
                && let Some(record) = self.records.find(&was)?
            {
                self.records.put(&is, &record)?;
            }
            self.records.remove(&was)
        };
        if let Err(error) = follow() {
            tracing::error!(artifact = %from.display(), error = reason(&error), "cannot take the record of a file to where that is now");
        }
    }

    fn settle_at(
        &self,
        candidate: &Candidate<'_>,
        place: &Place,
        stat: &Stat,
        why: Why,
        keys: &Keys,
        flush: Flush,
    ) -> Result<Settlement, Error> {
        let stamp = Stamp::of(stat);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let not_regular = match kind {
            FileType::RegularFile => None,
            FileType::Directory => return Ok(Settlement::Nothing),
            FileType::Symlink => Some("it is a symbolic link, which is never followed"),
            _ => Some("it is not a regular file"),
        };
        let project = candidate.drop.templates.project(candidate.relative);
        let policy = candidate.policy(project.as_ref().ok());
        // What a crash has torn may have kept its old times, and with them an old record.
        let may_be_torn = self.apply.has_left(stamp.inode());
        if let Some(record) = self.records.find(&candidate.path)?
            && !may_be_torn
            && (record.settles(stamp, policy) || why == Why::Told && record.is_of(stamp, policy))
        {
            return Ok(Settlement::Settled(record, Freshness::Known));
        }
        if let Some(reason) = not_regular {
            let record = Record::new(stamp, policy, Outcome::Ignored, reason.into());
            return Ok(Settlement::Settled(record, Freshness::Fresh));
        }
        let file = place.open().map_err(|errno| Error::Open(errno.into()))?;
        if apply::stamp_of(&file)? != stamp {
            return Ok(Settlement::Again);
        }
        if place.is_written(&file) {
            return Ok(Settlement::BeingWritten);
        }
        if may_be_torn && self.apply.heal(place, stamp.inode())? == Left::Healed {
            return Ok(Settlement::Again);
        }
        let project = project?;
        let (outcome, stamp, reason) =
            match self.work(candidate, &project, (place, &file, stamp), keys, flush) {
                Ok((outcome, stamp)) => (outcome, stamp, String::new()),
                Err(Error::Format(error)) if error.is_no_artifact() => {
                    (Outcome::Ignored, stamp, reason(&error))
                }
                Err(error) => return Err(error),
            };
        let record = Record::new(stamp, policy, outcome, reason);
        Ok(Settlement::Settled(record, Freshness::Fresh))
    }

    fn work(
        &self,
        candidate: &Candidate<'_>,
        project: &Project,
        (place, file, stamp): (&Place, &File, Stamp),
        keys: &Keys,
        flush: Flush,
    ) -> Result<(Outcome, Stamp), Error> {
        let drop = candidate.drop;
        let needs_key = drop.action == Action::Sign && !drop.create_keys;
        if needs_key && Format::of_content(file).is_ok() {
            // Reading all of an artifact is for nothing without a key.
            self.key(drop, project, keys)?;
        }
        let digest = drop.digest(candidate.relative);
        let sound = candidate.format.check(file, digest, drop.unpack_limit)?;
        let apply = |edit| self.apply.apply(place, stamp, &edit, drop.update, flush);
        match drop.action {
            Action::Unsign => match sound.unsign()? {
                Some(edit) => Ok((Outcome::Unsigned, apply(edit)?)),
                None => Ok((Outcome::Unchanged, stamp)),
            },
            Action::Sign => {
                let key = self.key(drop, project, keys)?;
                if candidate.format == Format::Kmod {
                    self.keyring.certificate(&key, || keys.new_module_key())?;
                }
                let in_use = self.keyring.begin(&key)?;
                publish(drop, candidate.relative, key.entry())?;
                if sound.is_signed_by(&in_use)? {
                    return Ok((Outcome::Unchanged, stamp));
                }
                let edit = sound.sign(&in_use, SystemTime::now())?;
                crate::step::reached("sign");
                Ok((Outcome::Signed, apply(edit)?))
            }
        }
    }

    /// The project's key, made now where the drop directory allows it.
    fn key(&self, drop: &Drop, project: &Project, keys: &Keys) -> Result<Arc<ProjectKey>, Error> {
        if self.keyring.open(&project.identity)?.is_none() {
            self.create_key(drop, project, keys)?;
        }
        let key = self
            .keyring
            .open(&project.identity)?
            .ok_or(Error::Signer(signer::Error::Deleted))?;
        if key.entry().has_expired() {
            return Err(Error::Expired(project.identity.clone()));
        }
        Ok(key)
    }

    fn create_key(&self, drop: &Drop, project: &Project, keys: &Keys) -> Result<(), Error> {
        if !drop.create_keys {
            return Err(Error::NoKey(project.identity.clone()));
        }
        let created = self.keyring.create(&NewKey {
            identity: project.identity.clone(),
            name: project.name.clone(),
            algorithm: keys.algorithm,
            expires: keys.lifetime(),
        })?;
        if let keystore::Creation::New(entry) = created {
            tracing::info!(project = %project.id, key = entry.fingerprint, identity = %entry.identity, "key created");
        }
        Ok(())
    }

    /// Keeps a failure of the content that `stamp` was taken of; another content is worked on anew.
    fn failed(
        &self,
        candidate: &Candidate<'_>,
        place: &Place,
        stamp: Stamp,
        error: &Error,
    ) -> Settlement {
        if error.is_race() {
            return Settlement::Again;
        }
        match place.stat() {
            Ok(stat) if Stamp::of(&stat) != stamp => Settlement::Again,
            Err(Errno::NOENT) => self.forget(candidate),
            Ok(_) | Err(_) => self.keep_failure(candidate, stamp, error),
        }
    }

    fn keep_failure(&self, candidate: &Candidate<'_>, stamp: Stamp, error: &Error) -> Settlement {
        let project = candidate.drop.templates.project(candidate.relative).ok();
        let record = error.record(stamp, candidate.policy(project.as_ref()));
        let before = self.records.find(&candidate.path).ok().flatten();
        let freshness = match before {
            Some(before) if before.says_the_same(&record) => Freshness::Known,
            Some(_) | None => Freshness::Fresh,
        };
        self.put_or_say(&candidate.path, &record);
        Settlement::Settled(record, freshness)
    }

    fn put_or_say(&self, artifact: &Path, record: &Record) {
        if let Err(error) = self.records.put(artifact, record) {
            tracing::error!(artifact = %artifact.display(), error = reason(&error), "cannot keep the outcome");
        }
    }

    /// Drops what is known of a path that is no artifact's any more.
    fn forget(&self, candidate: &Candidate<'_>) -> Settlement {
        if let Err(error) = self.records.remove(&candidate.path) {
            tracing::error!(artifact = %candidate.path.display(), error = reason(&error), "cannot forget a file that is gone");
        }
        Settlement::Nothing
    }

    /// Puts a project's public key where the drop directory wants it, if there is a key: whoever copied a tree over it, or had the key
    /// prolonged, finds it right after a wait. `relative` is a path of the project's.
    ///
    /// # Errors
    /// Those of the keystore and [`Error::PublicKey`], which may pass.
    pub fn publish(&self, drop: &Drop, relative: &Path) -> Result<(), Error> {
        if drop.public_key.is_none() || drop.action != Action::Sign {
            return Ok(());
        }
        let project = drop.templates.project(relative)?;
        match self.keyring.keystore().find(&project.identity)? {
            Some(entry) => publish(drop, relative, &entry),
            None => Ok(()),
        }
    }

    /// The outcome that a path has already for its present content, found without reading the file.
    ///
    /// `None` where there is work to do, or might be.
    pub fn known(&self, drop: &Drop, relative: &Path) -> Option<Record> {
        let candidate = Candidate::new(drop, relative)?;
        let record = self.records.find(&candidate.path).ok()??;
        let stat = Place::beneath(&drop.root, relative).ok()?.stat().ok()?;
        if self.apply.has_left(stat.st_ino) {
            return None;
        }
        let project = drop.templates.project(relative).ok();
        record
            .settles(Stamp::of(&stat), candidate.policy(project.as_ref()))
            .then_some(record)
    }

    /// An outcome for a path whose work ended by a fault of the program.
    pub fn internal_error(&self, drop: &Drop, relative: &Path, message: String) -> Settlement {
        match (
            Candidate::new(drop, relative),
            Place::beneath(&drop.root, relative),
        ) {
            (Some(candidate), Ok(place)) => {
                let stamp = place
                    .stat()
                    .map(|stat| Stamp::of(&stat))
                    .unwrap_or_default();
                self.keep_failure(&candidate, stamp, &Error::Internal(message))
            }
            _ => Settlement::Nothing,
        }
    }
}

/// Puts the public key into the project's directory, where the drop directory asks for it: before what it signs, so that nobody
/// finds a signed artifact without it.
fn publish(drop: &Drop, relative: &Path, entry: &KeyEntry) -> Result<(), Error> {
    let Some(name) = &drop.public_key else {
        return Ok(());
    };
    let armour = entry
        .certificate()
        .and_then(|certificate| certificate.to_armour())
        .map_err(keystore::Error::from)?;
    let directories = relative.iter().take(drop.templates.depth());
    let path = directories.collect::<PathBuf>().join(name);
    let place = Place::beneath(&drop.root, &path).map_err(|errno| Error::Open(errno.into()))?;
    apply::publish(&place, armour.as_bytes()).map_err(Error::PublicKey)
}

/// Whether a path below a drop directory is one that artifacts have.
pub fn is_candidate(drop: &Drop, relative: &Path) -> bool {
    Candidate::new(drop, relative).is_some()
}

impl<'a> Candidate<'a> {
    fn new(drop: &'a Drop, relative: &'a Path) -> Option<Self> {
        let name: &OsStr = relative.file_name()?;
        let format = Format::of_name(name).filter(|format| drop.formats.contains(format))?;
        (!drop.ignores(relative)).then(|| Self {
            drop,
            relative,
            path: drop.root.join(relative),
            format,
        })
    }

    /// What is wanted of the artifact, so that a change of it makes the file arrive again.
    fn policy(&self, project: Option<&Project>) -> Policy {
        let identity = project.map_or("", |project| project.identity.as_str());
        let (format, digest) = (self.format.name(), self.drop.digest(self.relative));
        let limit = match self.format {
            Format::Rpm => String::new(),
            Format::Kmod => format!(" within {}", self.drop.unpack_limit),
        };
        Policy::of(&match self.drop.action {
            Action::Sign => format!("{format} sign {digest} {identity}{limit}"),
            Action::Unsign => format!("{format} unsign{limit}"),
        })
    }
}
