//! `signdrop retry`: tries again what a mount holds back.

use std::path::{Path, PathBuf};

use super::{
    Error, Print,
    client::Address,
    connect, each_path,
    terminal::{clean, say, say_json},
};
use crate::{daemon::Retried, http::RetryRequest};

pub(super) fn retry(api: &Address, print: Print, paths: &[PathBuf]) -> Result<(), Error> {
    let absolute = each_path(paths, |path| std::path::absolute(path))?;
    if let Some(path) = absolute.iter().find(|path| path.to_str().is_none()) {
        return Err(Error::Usage(format!(
            "{} is not UTF-8, which the API cannot carry; name the directory above",
            path.display()
        )));
    }
    let request = RetryRequest { paths: absolute };
    let all: Vec<Retried> = connect(api)?.post("/v1/retry", &request)?;
    let is_tried = |path: &&PathBuf| {
        all.iter()
            .any(|retried| Path::new(&retried.path).starts_with(path))
    };
    let untried: Vec<&PathBuf> = request
        .paths
        .iter()
        .filter(|path| !is_tried(path))
        .collect();
    for path in &untried {
        let path = clean(path.to_string_lossy());
        eprintln!(
            "signdrop: {path}: nothing that failed is there; `signdrop status` lists what has"
        );
    }
    let mut failed = 0;
    for retried in &all {
        if !retried.reason.is_empty() {
            failed += 1;
            let (path, reason) = (&retried.path, &retried.reason);
            let (path, reason) = (clean(path.as_str().into()), clean(reason.as_str().into()));
            eprintln!("signdrop: {path}: {reason}");
        }
        if print == Print::Json {
            say_json(retried)?;
        }
    }
    if failed > 0 {
        return Err(Error::Some {
            failed,
            all: all.len(),
        });
    }
    if !untried.is_empty() {
        return Err(Error::Failed(format!(
            "{} of {} paths hold nothing to try again",
            untried.len(),
            request.paths.len()
        )));
    }
    if print == Print::Text {
        say(&format!("{} are seen now", all.len()))?;
    }
    Ok(())
}
