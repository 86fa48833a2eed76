//! Which files a command is about, and working on many of them.

use std::{
    fs::File,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::json;
use signdrop_watcher::{Entry, walk};

use super::{
    Error, Print, at,
    terminal::{clean, progress, say, say_json, shown},
};
use crate::{
    arrival::reason,
    format::{self, Format},
    record::Outcome,
};

/// A file that a command is to work on, or why it cannot be found out.
type Found = Result<(PathBuf, Origin), (PathBuf, String)>;

/// How a command came to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Somebody named it.
    Named,
    /// It lies in a directory that somebody named.
    Below,
}

/// Why a command could not work on a file.
pub(super) enum Failure {
    /// It is no artifact, whatever its name is.
    NoArtifact(String),
    /// Anything else.
    Other(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Self {
        Self::Other(reason.to_owned())
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoArtifact(reason) | Failure::Other(reason) => reason,
        }
    }
}

impl From<format::Error> for Failure {
    fn from(error: format::Error) -> Self {
        let text = reason(&error);
        if error.is_no_artifact() {
            Self::NoArtifact(text)
        } else {
            Self::Other(text)
        }
    }
}

/// The files that are named, whatever they are called, and the artifacts below the directories that are named.
pub(super) fn below(paths: &[PathBuf]) -> Vec<Found> {
    let mut found = Vec::new();
    for path in paths {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => below_directory(path, &mut found),
            Ok(_) => found.push(Ok((path.clone(), Origin::Named))),
            Err(error) => found.push(Err((path.clone(), error.to_string()))),
        }
    }
    found
}

fn below_directory(directory: &Path, found: &mut Vec<Found>) {
    let mut visit = |entry| {
        match entry {
            Entry::File { path, .. } => {
                if path.file_name().and_then(Format::of_name).is_some() {
                    found.push(Ok((directory.join(path), Origin::Below)));
                }
            }
            Entry::Special { .. } => {}
            Entry::Failed(error) => found.push(Err((directory.to_owned(), reason(&error)))),
        }
        ControlFlow::Continue(())
    };
    if let Err(error) = walk(directory, Path::new(""), &|_| false, &mut visit) {
        found.push(Err((directory.to_owned(), reason(&error))));
    }
}

/// The format that a file has to have by its name or, where that tells nothing, begins as.
///
/// # Errors
/// Those of [`Format::of_content`].
pub(super) fn format_of(path: &Path, file: &File) -> Result<Format, format::Error> {
    match path.file_name().and_then(Format::of_name) {
        Some(format) => Ok(format),
        None => Format::of_content(file),
    }
}

/// What a command found out of one file: a line for people, an object for programs.
pub(super) struct Report {
    pub(super) text: String,
    pub(super) json: serde_json::Value,
}

fn ignored(path: &Path, reason: &str) -> Report {
    let outcome = Outcome::Ignored.name();
    Report {
        text: format!("{outcome} {}: {}", shown(path), clean(reason.into())),
        json: json!({ "path": path.to_string_lossy(), "outcome": outcome, "reason": reason }),
    }
}

/// Works on each file, several at once, and prints what came of it in the order in which the files end.
///
/// # Errors
/// [`Error::Some`] where a file failed; each has been named on standard error.
pub(super) fn each(
    paths: &[PathBuf],
    doing: &'static str,
    print: Print,
    work: impl Fn(&Path) -> Result<Report, Failure> + Sync,
) -> Result<(), Error> {
    let found = below(paths);
    let bar = progress(found.len() as u64, doing);
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let output: Mutex<Result<(), Error>> = Mutex::new(Ok(()));
    let one = |found: &Found| {
        let result = match found {
            Ok((path, origin)) => match (work(path), origin) {
                (Ok(report), _) => Ok(report),
                // As the daemon does it with what only has an artifact's name.
                (Err(Failure::NoArtifact(reason)), Origin::Below) => Ok(ignored(path, &reason)),
                (Err(Failure::NoArtifact(reason) | Failure::Other(reason)), _) => {
                    Err((path, reason))
                }
            },
            Err((path, reason)) => Err((path, reason.clone())),
        };
        let printed = bar.suspend(|| match result {
            Ok(report) => match print {
                Print::Text => say(&report.text),
                Print::Json => say_json(&report.json),
            },
            Err((path, reason)) => {
                failed.fetch_add(1, Ordering::Relaxed);
                eprintln!(
                    "signdrop: {}: {}",
                    shown(path),
                    clean(reason.as_str().into())
                );
                Ok(())
            }
        });
        bar.inc(1);
        if printed.is_err() {
            *output.lock().unwrap_or_else(PoisonError::into_inner) = printed;
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads.min(found.len()) {
            scope.spawn(|| {
                while let Some(found) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
                    one(found);
                }
            });
        }
    });
    bar.finish_and_clear();
    output
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)?;
    match failed.into_inner() {
        0 => Ok(()),
        failed => Err(Error::Some {
            failed,
            all: found.len(),
        }),
    }
}

/// Reads a whole file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(at(path))
}
