//! `signdrop verify`: whether files are whole and signed by a known key.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    Error, Print,
    artifacts::{Report, each, format_of, read},
    inspect::signer,
    terminal::{clean, shown},
};
use crate::{
    arrival::reason,
    digest::Digest,
    format::{
        self, Format, UnpackLimit,
        kmod::Module,
        rpm::{self, Held, Package},
    },
    key::{
        openpgp::{self, PublicKey},
        x509::Certificate,
    },
};

pub(super) fn verify(
    keyring: &Path,
    limit: UnpackLimit,
    print: Print,
    paths: &[PathBuf],
) -> Result<(), Error> {
    let keys = Keyring::parse(&read(keyring)?)?;
    if keys.openpgp.is_empty() && keys.certificates.is_empty() {
        return Err(Error::Usage(format!(
            "{} holds neither a public key nor a certificate",
            keyring.display()
        )));
    }
    each(paths, "verifying", print, |path| {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let names = match format_of(path, &file)? {
            Format::Rpm => package_signers(&file, &keys.openpgp)?,
            Format::Kmod => {
                let module = Module::read(&file, limit).map_err(format::Error::from)?;
                vec![module_signer(&module, &keys.certificates)?]
            }
        };
        Ok(Report {
            text: format!(
                "{}: signed by {}",
                shown(path),
                clean(names.join(", ").into())
            ),
            json: json!({ "path": path.to_string_lossy(), "keys": names }),
        })
    })
}

/// The keys whose signatures are believed.
struct Keyring {
    openpgp: Vec<PublicKey>,
    certificates: Vec<Certificate>,
}

impl Keyring {
    /// Understands OpenPGP keys, armoured or binary, and X.509 certificates in PEM, one behind the other; or one certificate in DER.
    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
        const END: &str = "-----END CERTIFICATE-----";
        let mut certificates = Vec::new();
        // A DER sequence; no OpenPGP packet begins so (RFC 9580, section 4.2).
        if bytes.first() == Some(&0x30) {
            certificates.push(Certificate::from_der(bytes)?);
            return Ok(Self {
                openpgp: Vec::new(),
                certificates,
            });
        }
        let mut openpgp = bytes.to_vec();
        if let Ok(text) = std::str::from_utf8(bytes) {
            let mut rest = String::new();
            let mut parts = text.split(BEGIN);
            rest.extend(parts.next());
            for part in parts {
                let (body, behind) = part.split_once(END).unwrap_or((part, ""));
                let pem = format!("{BEGIN}{body}{END}\n");
                certificates.push(Certificate::from_pem(pem.as_bytes())?);
                rest.push_str(behind);
            }
            openpgp = rest.into_bytes();
        }
        // What else stands around certificates explains them (RFC 7468, section 2).
        let is_text =
            std::str::from_utf8(&openpgp).is_ok_and(|text| !text.contains("-----BEGIN PGP"));
        let has_keys = certificates.is_empty() || !is_text;
        Ok(Self {
            openpgp: if has_keys {
                openpgp::keyring(&openpgp)?
            } else {
                Vec::new()
            },
            certificates,
        })
    }
}

/// The keys that signed a package: each signature has to be one of theirs, and valid, and the package whole.
fn package_signers(file: &File, keys: &[PublicKey]) -> Result<Vec<String>, String> {
    let checked = |digest| -> Result<_, rpm::Error> { Package::read(file)?.check(file, digest) };
    let text = |error: rpm::Error| reason(&error);
    let held = Package::read(file).map_err(text)?.held();
    if held.is_empty() {
        checked(Digest::default()).map_err(text)?;
        return Err("it is not signed".into());
    }
    let mut signers: Vec<String> = Vec::new();
    for held in &held {
        let key = issuer(held, keys)?;
        let fingerprint = key.fingerprint().to_string();
        let signature = held.signature.as_ref();
        let digest = signature
            .and_then(openpgp::Signature::digest)
            .ok_or("a signature uses a digest that is not known here")?;
        if !checked(digest).map_err(text)?.is_valid(held, key) {
            return Err(format!("the signature of {fingerprint} is not valid"));
        }
        if !signers.contains(&fingerprint) {
            signers.push(fingerprint);
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

/// Whose certificate a kernel would find a module's last signature, the only one that it looks at, to be valid for.
fn module_signer(module: &Module, certificates: &[Certificate]) -> Result<String, String> {
    let held = module.held().last().ok_or("it is not signed")?;
    let signature = held
        .signature
        .as_ref()
        .ok_or("its signature cannot be read")?;
    let certificate = certificates
        .iter()
        .find(|certificate| signature.is_by(certificate))
        .ok_or_else(|| {
            format!(
                "it is signed by {}, which is not in the keyring",
                signer(signature)
            )
        })?;
    let name = format!("{} ({})", certificate.subject(), certificate.serial());
    match module.verify(held, certificate) {
        Ok(Ok(())) => Ok(name),
        Ok(Err(flaw)) => Err(format!("the signature of {name} is not valid: {flaw}")),
        Err(error) => Err(reason(&error)),
    }
}
