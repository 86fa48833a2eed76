//! `signdrop inspect`: what a file holds, believed or not.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    Error, Print,
    artifacts::{Report, each},
    terminal::{clean, date, shown},
};
use crate::{
    arrival::reason,
    format::rpm::{Covers, Held, Package},
};

pub(super) fn inspect(print: Print, paths: &[PathBuf]) -> Result<(), Error> {
    each(paths, "inspecting", print, |path| {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let package = Package::read(&file).map_err(|error| reason(&error))?;
        Ok(report(path, &package))
    })
}

fn report(path: &Path, package: &Package) -> Report {
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
