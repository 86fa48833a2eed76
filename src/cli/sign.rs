//! `signdrop sign` and `signdrop unsign`: files are changed here, with the caller's rights.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use serde_json::json;

use super::{
    Error, Keys, Print,
    artifacts::{Failure, Report, each, format_of},
    client::RemoteSigner,
    connect, keys, optional_config,
    terminal::shown,
};
use crate::{
    apply::{self, Apply, Flush},
    arrival::reason,
    config::{self, Config, Update},
    digest::Digest,
    edit::Edit,
    format::{Format, Sound, UnpackLimit},
    identity::Identity,
    keyring::Keyring,
    place::{Place, Stamp},
    record::Outcome,
    signer::DigestSigner,
};

pub(super) fn sign(
    keys: &Keys,
    user: Option<&Identity>,
    digest: Option<Digest>,
    limit: Option<UnpackLimit>,
    print: Print,
    paths: &[PathBuf],
) -> Result<(), Error> {
    let config = optional_config(&keys.config)?;
    if user.is_none() && config.is_none() {
        return Err(Error::Usage(format!(
            "whose key? Name it with -u EMAIL, or a configuration with -c FILE: there is none at {}",
            keys.config.display()
        )));
    }
    let apply = Apply::without_redo();
    let signers = Signers::open(keys)?;
    each(paths, "signing", print, |path| {
        let wanted = wanted(path, user, digest, limit, config.as_ref())?;
        let text = |error: &dyn std::error::Error| reason(error);
        let open = Opened::read(path, wanted.digest, wanted.limit)?;
        let report = signers.with(&wanted.identity, open.format, |signer| {
            let is_signed = open.sound.is_signed_by(signer);
            if is_signed.map_err(|error| text(&error))? {
                return Ok(report(path, Outcome::Unchanged, Some(&wanted.identity)));
            }
            let edit = open
                .sound
                .sign(signer, SystemTime::now())
                .map_err(|error| text(&error))?;
            open.apply(&apply, &edit)?;
            Ok(report(path, Outcome::Signed, Some(&wanted.identity)))
        })?;
        Ok(report)
    })
}

pub(super) fn unsign(limit: UnpackLimit, print: Print, paths: &[PathBuf]) -> Result<(), Error> {
    let apply = Apply::without_redo();
    each(paths, "unsigning", print, |path| {
        let open = Opened::read(path, Digest::default(), limit)?;
        match open.sound.unsign()? {
            Some(edit) => {
                open.apply(&apply, &edit)?;
                Ok(report(path, Outcome::Unsigned, None))
            }
            None => Ok(report(path, Outcome::Unchanged, None)),
        }
    })
}

fn report(path: &Path, outcome: Outcome, identity: Option<&Identity>) -> Report {
    Report {
        text: format!("{} {}", outcome.name(), shown(path)),
        json: json!({
            "path": path.to_string_lossy(),
            "outcome": outcome.name(),
            "identity": identity,
        }),
    }
}

/// A file that has been read and found sound.
pub(super) struct Opened {
    place: Place,
    stamp: Stamp,
    format: Format,
    sound: Sound,
}

impl Opened {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Failure`], which says why it cannot be signed or unsigned.
    pub(super) fn read(path: &Path, digest: Digest, limit: UnpackLimit) -> Result<Self, Failure> {
        let (place, file, stamp) = Self::regular(path)?;
        let format = format_of(path, &file)?;
        let sound = format.check(&file, digest, limit)?;
        Ok(Self {
            place,
            stamp,
            format,
            sound,
        })
    }

    /// Opens a regular file, to be edited by [`Apply`].
    ///
    /// # Errors
    /// A text that says why it cannot be.
    pub(super) fn regular(path: &Path) -> Result<(Place, File, Stamp), String> {
        let place = Place::of_path(path).map_err(|errno| errno.to_string())?;
        let file: File = place.open().map_err(|errno| match errno {
            rustix::io::Errno::LOOP => "it is a symbolic link, which is not followed".to_owned(),
            errno => errno.to_string(),
        })?;
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err("it is not a regular file".into());
        }
        let stamp = apply::stamp_of(&file).map_err(|error| reason(&error))?;
        Ok((place, file, stamp))
    }

    /// What kind of artifact it is.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// The artifact.
    pub(super) fn sound(&self) -> &Sound {
        &self.sound
    }

    /// Writes an edit of it.
    ///
    /// # Errors
    /// A text that says why it did not reach the disk.
    pub(super) fn apply(&self, apply: &Apply, edit: &Edit) -> Result<(), String> {
        apply
            .apply(&self.place, self.stamp, edit, Update::Replace, Flush::Now)
            .map(|_| ())
            .map_err(|error| reason(&error))
    }
}

struct Wanted {
    identity: Identity,
    digest: Digest,
    limit: UnpackLimit,
}

/// The key and digest for a file: what the caller says, else what the drop directory says that it lies in.
fn wanted(
    path: &Path,
    user: Option<&Identity>,
    digest: Option<Digest>,
    limit: Option<UnpackLimit>,
    config: Option<&Config>,
) -> Result<Wanted, String> {
    let absolute = std::path::absolute(path).map_err(|error| error.to_string())?;
    let drop = config.and_then(|config| {
        config.drops.iter().find_map(|drop| {
            let relative = absolute.strip_prefix(&drop.root).ok()?;
            Some((drop, relative.to_owned()))
        })
    });
    let identity = match (user, &drop) {
        (Some(user), _) => user.clone(),
        (None, Some((drop, relative))) => {
            drop.templates
                .project(relative)
                .map_err(|error| error.to_string())?
                .identity
        }
        (None, None) => {
            return Err("it is in no drop directory, so name its key with -u EMAIL".into());
        }
    };
    let limit = limit.or_else(|| drop.as_ref().map(|(drop, _)| drop.unpack_limit));
    let digest = digest
        .or_else(|| drop.map(|(drop, relative)| drop.digest(&relative)))
        .unwrap_or_default();
    Ok(Wanted {
        identity,
        digest,
        limit: limit.unwrap_or_default(),
    })
}

/// Who signs: the daemon, or the keys of a state directory.
enum Signers {
    /// What is public of the keys is asked for once.
    Daemon(
        Arc<super::Client>,
        Mutex<HashMap<Identity, Arc<RemoteSigner>>>,
    ),
    Store(Box<(Keyring, config::Keys)>),
}

impl Signers {
    fn open(keys: &Keys) -> Result<Self, Error> {
        Ok(match &keys.store {
            Some(_) => Self::Store(Box::new((
                Keyring::new(keys::open_keystore(keys)?),
                keys::config_keys(keys)?,
            ))),
            None => {
                let client = connect(&keys.api)?;
                // Nobody being there is no fault of a file's.
                client.find("/ping")?;
                Self::Daemon(Arc::new(client), Mutex::default())
            }
        })
    }

    /// Has `work` done with the identity's key for a format.
    fn with<T>(
        &self,
        identity: &Identity,
        format: Format,
        work: impl FnOnce(&dyn DigestSigner) -> Result<T, String>,
    ) -> Result<T, String> {
        match self {
            Self::Daemon(client, known) => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                let signer = match known.get(identity) {
                    Some(signer) => signer.clone(),
                    None => {
                        let signer = RemoteSigner::new(client, identity);
                        let signer = Arc::new(signer.map_err(|error| reason(&error))?);
                        known.insert(identity.clone(), signer.clone());
                        signer
                    }
                };
                drop(known);
                work(&*signer)
            }
            Self::Store(store) => {
                let (keyring, defaults) = &**store;
                let key = keyring
                    .open(identity)
                    .map_err(|error| reason(&error))?
                    .ok_or_else(|| format!("unknown key: {identity}"))?;
                if format == Format::Kmod {
                    keyring
                        .certificate(&key, || defaults.new_module_key())
                        .map_err(|error| reason(&error))?;
                }
                let in_use = keyring.begin(&key).map_err(|error| reason(&error))?;
                work(&in_use)
            }
        }
    }
}
