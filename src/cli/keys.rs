//! `signdrop key …`

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Args;

use super::{
    Client, Error, KeyCommand, Keys, Print, connect, export, optional_config,
    terminal::{date, say, say_json},
};
use crate::{
    config::{self, Config, Validity},
    daemon,
    http::{KeyInfo, KeyRequest},
    identity::Identity,
    key::{Algorithm, x509::Certificate},
    keyring::Keyring,
    keystore::Keystore,
    master_key,
};

/// What a new key is to be.
#[derive(Debug, Args)]
pub(super) struct Wish {
    /// The e-mail that names the key.
    email: Identity,
    /// The name in the user id, `NAME <EMAIL>`; the part of the e-mail before its last @ where nothing is said.
    #[arg(long)]
    name: Option<String>,
    /// The algorithm; the configuration's where nothing is said.
    #[arg(long, value_enum)]
    algorithm: Option<Algorithm>,
    /// How long it is valid: never, or a time such as 5y or 180d; the configuration's where nothing is said.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
}

impl From<Wish> for KeyRequest {
    fn from(wish: Wish) -> Self {
        Self {
            identity: wish.email,
            name: wish.name,
            algorithm: wish.algorithm,
            expires: wish.expires,
        }
    }
}

/// Opens the keys of `--store`.
///
/// # Errors
/// Those of configuration, master key and store.
pub(super) fn open_keystore(keys: &Keys) -> Result<Keystore, Error> {
    let state_dir = keys
        .store
        .as_deref()
        .ok_or_else(|| Error::Usage(
                "--store DIR is missing: this works on the store of a daemon that is stopped, such as /var/lib/signdrop".into(),
            ))?;
    daemon::forbid_core_dumps()?;
    let defaults = config_keys(keys)?;
    let master = master_key::read(&defaults.master_key, state_dir)?;
    let store = daemon::open_store(state_dir)?;
    Ok(Keystore::open(&store, state_dir, master)?)
}

/// What the configuration says of new keys.
pub(super) fn config_keys(keys: &Keys) -> Result<config::Keys, Error> {
    Ok(optional_config(&keys.config)?
        .map(|config: Config| config.keys)
        .unwrap_or_default())
}

/// Where the keys are.
enum Source {
    Daemon(Client),
    Store(Box<(Keyring, config::Keys)>),
}

impl Source {
    fn open(keys: &Keys) -> Result<Self, Error> {
        Ok(match &keys.store {
            Some(_) => {
                let keyring = Keyring::new(open_keystore(keys)?);
                Self::Store(Box::new((keyring, config_keys(keys)?)))
            }
            None => Self::Daemon(connect(&keys.api)?),
        })
    }

    fn generate(&self, request: KeyRequest) -> Result<KeyInfo, Error> {
        match self {
            Self::Daemon(client) => Ok(client.generate(&request)?),
            Self::Store(store) => {
                let (keyring, defaults) = &**store;
                let new = request.into_new_key(defaults).map_err(Error::Usage)?;
                Ok(KeyInfo::of(&keyring.create(&new)?.into_entry())?)
            }
        }
    }

    fn list(&self, print: Print) -> Result<(), Error> {
        let mut after: Option<String> = None;
        loop {
            let (keys, next) = match self {
                Self::Daemon(client) => {
                    let page = client.list(after.as_deref())?;
                    (page.keys, page.next)
                }
                Self::Store(store) => {
                    let entries = store.0.keystore().list(after.as_deref(), 1000)?;
                    let keys = entries
                        .iter()
                        .map(KeyInfo::of)
                        .collect::<Result<Vec<_>, _>>()?;
                    let next = keys.last().map(|key| key.identity.to_string());
                    (keys, next)
                }
            };
            for key in &keys {
                match print {
                    Print::Text => say(&format!(
                        "{} {:8} {}  {}",
                        key.fingerprint,
                        key.algorithm,
                        date(key.created),
                        key.identity
                    ))?,
                    Print::Json => say_json(key)?,
                }
            }
            if next.is_none() {
                return Ok(());
            }
            after = next;
        }
    }

    fn show(&self, identity: &Identity) -> Result<KeyInfo, Error> {
        match self {
            Self::Daemon(client) => Ok(client.show(identity)?),
            Self::Store(store) => {
                let entry = store.0.keystore().find(identity)?;
                Ok(KeyInfo::of(&entry.ok_or_else(|| unknown(identity))?)?)
            }
        }
    }

    fn export(&self, identity: &Identity) -> Result<String, Error> {
        match self {
            Self::Daemon(client) => Ok(client.export(identity)?),
            Self::Store(store) => {
                let entry = store.0.keystore().find(identity)?;
                let entry = entry.ok_or_else(|| unknown(identity))?;
                Ok(entry.certificate()?.to_armour()?)
            }
        }
    }

    fn certificate(&self, identity: &Identity) -> Result<Certificate, Error> {
        match self {
            Self::Daemon(client) => client.certificate(identity),
            Self::Store(store) => {
                let (keyring, defaults) = &**store;
                let key = keyring.open(identity)?.ok_or_else(|| unknown(identity))?;
                let certificate = keyring.certificate(&key, || defaults.new_module_key())?;
                Ok(certificate.clone())
            }
        }
    }

    fn extend(&self, identity: &Identity, validity: Validity) -> Result<KeyInfo, Error> {
        match self {
            Self::Daemon(client) => Ok(client.extend(identity, validity)?),
            Self::Store(store) => {
                let entry = store.0.extend(identity, validity)?;
                Ok(KeyInfo::of(&entry.ok_or_else(|| unknown(identity))?)?)
            }
        }
    }

    fn delete(&self, identity: &Identity) -> Result<KeyInfo, Error> {
        match self {
            Self::Daemon(client) => Ok(client.delete(identity)?),
            Self::Store(store) => {
                let entry = store.0.delete(identity)?;
                Ok(KeyInfo::of(&entry.ok_or_else(|| unknown(identity))?)?)
            }
        }
    }
}

pub(super) fn unknown(identity: &Identity) -> Error {
    Error::Failed(format!("unknown key: {identity}"))
}

pub(super) fn run(command: KeyCommand) -> Result<(), Error> {
    match command {
        KeyCommand::Generate { keys, wish, json } => {
            show(&Source::open(&keys)?.generate(wish.into())?, json.into())
        }
        KeyCommand::List { keys, json } => Source::open(&keys)?.list(json.into()),
        KeyCommand::Show { keys, email, json } => {
            show(&Source::open(&keys)?.show(&email)?, json.into())
        }
        KeyCommand::Export {
            keys,
            email,
            secret,
        } => match (&secret.output, email) {
            (Some(output), email) => export::run(&keys, email.as_ref(), &secret, output),
            (None, Some(email)) => {
                let armour = Source::open(&keys)?.export(&email)?;
                write!(io::stdout().lock(), "{armour}")?;
                Ok(())
            }
            (None, None) => Err(Error::Usage("whose key?".into())),
        },
        KeyCommand::Certificate { keys, email, der } => {
            let certificate = Source::open(&keys)?.certificate(&email)?;
            let mut output = io::stdout().lock();
            if der {
                output.write_all(certificate.as_der())?;
            } else {
                write!(output, "{}", certificate.to_pem()?)?;
            }
            output.flush()?;
            Ok(())
        }
        KeyCommand::Import { keys, wish } => super::import::run(&open_keystore(&keys)?, &wish),
        KeyCommand::Extend {
            keys,
            email,
            expires,
            json,
        } => show(&Source::open(&keys)?.extend(&email, expires)?, json.into()),
        KeyCommand::Delete { keys, email, yes } => {
            let source = Source::open(&keys)?;
            if !yes && !confirmed(&source.show(&email)?)? {
                return Err(Error::Failed("nothing was deleted".into()));
            }
            let deleted = source.delete(&email)?;
            say(&format!(
                "deleted {} {}",
                deleted.fingerprint, deleted.identity
            ))
        }
    }
}

fn show(key: &KeyInfo, print: Print) -> Result<(), Error> {
    match print {
        Print::Json => say_json(key),
        Print::Text => say(&format!(
            "identity     {}\nuser id      {}\nalgorithm    {}\nfingerprint  {}\ncreated      {}\nexpires      {}",
            key.identity,
            key.user_id,
            key.algorithm,
            key.fingerprint,
            date(key.created),
            key.expires.map_or_else(|| "never".into(), date),
        )),
    }
}

fn confirmed(key: &KeyInfo) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(
            "deleting a key cannot be undone: confirm with --yes".into(),
        ));
    }
    eprint!(
        "Delete the key {} of {} for good? Type its e-mail: ",
        key.fingerprint, key.identity
    );
    io::stderr().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end() == key.identity.as_str())
}
