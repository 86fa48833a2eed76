//! `signdrop verify`: whether files are whole and signed by a known key.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    Error, Print,
    artifacts::{Report, each, read},
    terminal::shown,
};
use crate::{
    arrival::reason,
    digest::Digest,
    format::rpm::{self, Held, Package},
    key::openpgp::{self, PublicKey},
};

pub(super) fn verify(keyring: &Path, print: Print, paths: &[PathBuf]) -> Result<(), Error> {
    let keys = openpgp::keyring(&read(keyring)?)?;
    if keys.is_empty() {
        return Err(Error::Usage(format!(
            "{} holds no public key",
            keyring.display()
        )));
    }
    each(paths, "verifying", print, |path| {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let signers = signers(&file, &keys)?;
        let names: Vec<&str> = signers
            .iter()
            .map(|key| key.fingerprint().as_str())
            .collect();
        Ok(Report {
            text: format!("{}: signed by {}", shown(path), names.join(", ")),
            json: json!({ "path": path.to_string_lossy(), "keys": names }),
        })
    })
}

/// The keys that signed the file: each signature has to be one of theirs, and valid, and the file whole.
fn signers<'a>(file: &File, keys: &'a [PublicKey]) -> Result<Vec<&'a PublicKey>, String> {
    let checked = |digest| -> Result<_, rpm::Error> { Package::read(file)?.check(file, digest) };
    let text = |error: rpm::Error| reason(&error);
    let held = Package::read(file).map_err(text)?.held();
    if held.is_empty() {
        checked(Digest::default()).map_err(text)?;
        return Err("it is not signed".into());
    }
    let mut signers: Vec<&PublicKey> = Vec::new();
    for held in &held {
        let key = issuer(held, keys)?;
        let signature = held.signature.as_ref();
        let digest = signature
            .and_then(openpgp::Signature::digest)
            .ok_or("a signature uses a digest that is not known here")?;
        if !checked(digest).map_err(text)?.is_valid(held, key) {
            return Err(format!(
                "the signature of {} is not valid",
                key.fingerprint()
            ));
        }
        if !signers
            .iter()
            .any(|known| known.fingerprint() == key.fingerprint())
        {
            signers.push(key);
        }
    }
    Ok(signers)
}

fn issuer<'a>(held: &Held, keys: &'a [PublicKey]) -> Result<&'a PublicKey, String> {
    let signature = held
        .signature
        .as_ref()
        .ok_or("a signature cannot be read")?;
    keys.iter().find(|key| signature.is_by(key)).ok_or_else(|| {
        let issuer = signature
            .issuer()
            .unwrap_or_else(|| "an unnamed key".into());
        format!("it is signed by {issuer}, which is not in the keyring")
    })
}
