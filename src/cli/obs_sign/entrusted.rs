//! Keys that the caller keeps, and what is done with a key instead of a file.

use std::{io::Write as _, path::Path};

use super::{Call, Failure, print, shown};
use crate::{
    arrival::reason,
    config::Validity,
    http::{EntrustedKeyRequest, KeyRequest},
    key::openpgp::Certificate,
    keystore::{EntrustedKey, later_than, unix_seconds},
    obs::request::key_type,
    private_file,
    signer::{DigestSigner as _, Purpose},
};

impl Call {
    /// The key of `-P`.
    pub(super) fn entrusted(&self) -> Result<Option<EntrustedKey>, Failure> {
        let Some(path) = &self.arguments.private_key else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(|error| named(path, error))?;
        let key = text.parse().map_err(|error| named(path, error))?;
        Ok(Some(key))
    }

    pub(super) fn make_key(&self) -> Result<(), Failure> {
        let usage = || "-g wants TYPE DAYS NAME EMAIL behind it".to_owned();
        let words: Option<Vec<&str>> = self
            .arguments
            .files
            .iter()
            .map(|word| word.to_str())
            .collect();
        let words = words.ok_or_else(usage)?;
        let &[kind, days, name, email] = words.as_slice() else {
            return Err(usage().into());
        };
        let path = self.arguments.private_key.as_ref().ok_or(
            "-g wants -P FILE: the private key is written there, for the daemon does not keep it"
                .to_owned(),
        )?;
        let request = EntrustedKeyRequest {
            user: self.identity()?,
            key: KeyRequest {
                identity: email
                    .parse()
                    .map_err(|error| format!("bad e-mail {email:?}: {error}"))?,
                name: Some(name.to_owned()),
                algorithm: Some(key_type(kind).map_err(|error| error.to_string())?),
                expires: Some(days_from_now(days)?.to_string()),
            },
        };
        let made = self.client.make_entrusted(&request);
        let made = made.map_err(|error| self.refused(&error))?;
        let failed = |error| named(path, error);
        private_file::create(path, failed, |file| {
            writeln!(file, "{}", made.private_key).map_err(failed)
        })?;
        print(made.public_key.as_bytes())
    }

    pub(super) fn extend(&self) -> Result<(), Failure> {
        let [days, path] = self.arguments.files.as_slice() else {
            return Err("-x wants DAYS and the file of a public key behind it"
                .to_owned()
                .into());
        };
        let validity = days_from_now(&days.to_string_lossy())?;
        let certificate = self.certificate_of(path)?;
        let Some(_) = &self.arguments.private_key else {
            // The daemon's own copy gets the new end too.
            let extended = self.client.extend(&self.identity()?, validity);
            extended.map_err(|error| self.refused(&error))?;
            let armour = self.client.export(&self.identity()?);
            return print(armour.map_err(|error| self.refused(&error))?.as_bytes());
        };
        let signer = self.signer()?;
        let now = later_than(certificate.newest_self_signature());
        let created = unix_seconds(certificate.public_key().created());
        let lifetime = validity
            .since(created, unix_seconds(now))
            .ok_or_else(|| format!("{}: OpenPGP cannot say so late an end", shown(path)))?;
        let sign = |digest, hash: &[u8]| signer.sign(Purpose::OpenPgp, digest, hash);
        let extended = certificate.extended(&sign, now, lifetime);
        print(armour(&extended.map_err(|error| reason(&error))?)?.as_bytes())
    }

    pub(super) fn certificate(&self) -> Result<(), Failure> {
        let [path] = self.arguments.files.as_slice() else {
            return Err("-C wants the file of a public key behind it"
                .to_owned()
                .into());
        };
        if self.arguments.private_key.is_some() {
            return Err(
                "kernel modules are signed with keys that the daemon keeps: leave -P out"
                    .to_owned()
                    .into(),
            );
        }
        self.certificate_of(path)?;
        let certificate = self.client.certificate(&self.identity()?);
        let pem = certificate.map_err(|error| self.refused(&error))?.to_pem();
        print(pem.map_err(|error| reason(&error))?.as_bytes())
    }

    /// The certificate in a file, which has to be of the key that is named.
    fn certificate_of(&self, path: &Path) -> Result<Certificate, Failure> {
        let text = std::fs::read(path).map_err(|error| named(path, error))?;
        let certificate = Certificate::parse(&text).map_err(|error| named(path, error))?;
        if certificate.public_key().fingerprint() != self.signer()?.public().fingerprint() {
            return Err(format!("{}: this is another key's", shown(path)).into());
        }
        Ok(certificate)
    }
}

pub(super) fn armour(certificate: &Certificate) -> Result<String, Failure> {
    Ok(certificate.to_armour().map_err(|error| reason(&error))?)
}

fn days_from_now(text: &str) -> Result<Validity, String> {
    let days = text
        .parse()
        .map_err(|_| format!("{text:?} is no number of days; 0 is for ever"))?;
    Validity::days(days)
}

fn named(path: &Path, error: impl std::error::Error + 'static) -> String {
    format!("{}: {}", shown(path), reason(&error))
}
