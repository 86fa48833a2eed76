//! `signdrop inspect`: what a file holds, believed or not.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    Error, Print,
    artifacts::{Report, each, format_of},
    terminal::{clean, date, shown},
};
use crate::{
    format::{
        self, Format, UnpackLimit,
        kmod::{self, Module},
        rpm::{Covers, Held, Package},
    },
    key::x509::cms,
};

pub(super) fn inspect(limit: UnpackLimit, print: Print, paths: &[PathBuf]) -> Result<(), Error> {
    each(paths, "inspecting", print, |path| {
        let file = File::open(path).map_err(|error| error.to_string())?;
        Ok(match format_of(path, &file)? {
            Format::Rpm => {
                package_report(path, &Package::read(&file).map_err(format::Error::from)?)
            }
            Format::Kmod => {
                let module = Module::read(&file, limit).map_err(format::Error::from)?;
                module_report(path, &module)
            }
        })
    })
}

fn package_report(path: &Path, package: &Package) -> Report {
    let held = package.held();
    let digests = package.digests();
    let mut lines = vec![format!(
        "{}\n  rpm v{} {}",
        shown(path),
        package.version(),
        clean(package.nevra().into())
    )];
    for (name, value) in &digests {
        lines.push(format!("  {name} {}", clean(value.into())));
    }
    for held in &held {
        lines.push(format!("  {}", line(held)));
    }
    if held.is_empty() {
        lines.push("  not signed".into());
    }
    let digests: serde_json::Map<String, Value> = digests
        .into_iter()
        .map(|(name, value)| (name.replace([' ', '-'], "_").to_lowercase(), value.into()))
        .collect();
    Report {
        text: lines.join("\n"),
        json: json!({
            "path": path.to_string_lossy(),
            "format": "rpm",
            "version": package.version(),
            "nevra": package.nevra(),
            "digests": digests,
            "signatures": held.iter().map(object).collect::<Vec<_>>(),
        }),
    }
}

fn covers(held: &Held) -> &'static str {
    match held.covers {
        Covers::Header => "header",
        Covers::HeaderAndPayload => "header and payload",
    }
}

fn line(held: &Held) -> String {
    let Some(signature) = &held.signature else {
        return format!("signature of the {} that cannot be read", covers(held));
    };
    format!(
        "signature of the {} by {}, {} with {}, {}",
        covers(held),
        signature
            .issuer()
            .unwrap_or_else(|| "an unnamed key".into()),
        signature.algorithm_name(),
        signature.digest_name(),
        signature
            .created()
            .map_or_else(|| "without a time".into(), date),
    )
}

fn object(held: &Held) -> Value {
    let signature = held.signature.as_ref();
    json!({
        "covers": covers(held),
        "key": signature.and_then(|signature| signature.issuer()),
        "algorithm": signature.map(|signature| signature.algorithm_name()),
        "digest": signature.map(|signature| signature.digest_name()),
        "created": signature.and_then(|signature| signature.created()),
    })
}

fn module_report(path: &Path, module: &Module) -> Report {
    let name = module.information("name");
    let vermagic = module.information("vermagic");
    let packing = module.packing_name();
    let mut lines = vec![format!(
        "{}\n  kmod {} for {}{}",
        shown(path),
        clean(name.as_deref().unwrap_or("without a name").into()),
        clean(vermagic.as_deref().unwrap_or("any kernel").trim().into()),
        packing.map_or(String::new(), |packing| format!(", in {packing}")),
    )];
    for held in module.held() {
        lines.push(format!("  {}", clean(module_line(held).into())));
    }
    if module.held().is_empty() {
        lines.push("  not signed".into());
    }
    Report {
        text: lines.join("\n"),
        json: json!({
            "path": path.to_string_lossy(),
            "format": "kmod",
            "name": name,
            "vermagic": vermagic,
            "packing": packing,
            "signatures": module.held().iter().map(module_object).collect::<Vec<_>>(),
        }),
    }
}

fn module_line(held: &kmod::Held) -> String {
    let Some(signature) = &held.signature else {
        return "signature that cannot be read".into();
    };
    format!(
        "signature by {}, {} with {}",
        signer(signature),
        signature.algorithm_name(),
        signature.digest_name(),
    )
}

fn module_object(held: &kmod::Held) -> Value {
    let signature = held.signature.as_ref();
    json!({
        "signer": signature.and_then(cms::Signature::issuer),
        "key": signature.map(cms::Signature::key_identifier),
        "algorithm": signature.map(cms::Signature::algorithm_name),
        "digest": signature.map(cms::Signature::digest_name),
    })
}

/// Whose signature a module holds, as far as it says.
pub(super) fn signer(signature: &cms::Signature) -> String {
    let key = signature.key_identifier();
    match signature.issuer() {
        Some(issuer) => format!("{issuer} ({key})"),
        None => key,
    }
}
