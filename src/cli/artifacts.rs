//! Which files a command is about, and working on many of them.

use std::{
    fs::File,
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use signdrop_watcher::{Entry, walk};

use super::{
    Error, Print,
    terminal::{clean, progress, say, say_json, shown},
};
use crate::{
    arrival::reason,
    format::{self, Format},
};

/// A file that a command is to work on, or why it cannot be found out.
type Found = Result<PathBuf, (PathBuf, String)>;

/// The files that are named, whatever they are called, and the artifacts below the directories that are named.
pub(super) fn below(paths: &[PathBuf]) -> Vec<Found> {
    let mut found = Vec::new();
    for path in paths {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => below_directory(path, &mut found),
            Ok(_) => found.push(Ok(path.clone())),
            Err(error) => found.push(Err((path.clone(), error.to_string()))),
        }
    }
    found
}

fn below_directory(directory: &Path, found: &mut Vec<Found>) {
    let mut visit = |entry| {
        match entry {
            Entry::File { path, .. } => {
                let format = path.file_name().and_then(Format::of_name);
                let path = directory.join(path);
                if format.is_some() && !is_something_else(&path) {
                    found.push(Ok(path));
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

/// Whether a file that nobody named has an artifact's name only, as translation files of KDE have that of modules. One that is empty
/// may be an artifact that has been lost.
fn is_something_else(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    let is_kmod = path.file_name().and_then(Format::of_name) == Some(Format::Kmod);
    let has_content = file.metadata().is_ok_and(|metadata| metadata.len() > 0);
    is_kmod && has_content && matches!(Format::of_content(&file), Err(format::Error::Unknown))
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

/// Works on each file, several at once, and prints what came of it in the order in which the files end.
///
/// # Errors
/// [`Error::Some`] where a file failed; each has been named on standard error.
pub(super) fn each(
    paths: &[PathBuf],
    doing: &'static str,
    print: Print,
    work: impl Fn(&Path) -> Result<Report, String> + Sync,
) -> Result<(), Error> {
    let found = below(paths);
    let bar = progress(found.len() as u64, doing);
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let output: Mutex<Result<(), Error>> = Mutex::new(Ok(()));
    let one = |found: &Found| {
        let result = match found {
            Ok(path) => work(path).map_err(|reason| (path, reason)),
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
    std::fs::read(path).map_err(|source: io::Error| Error::Io {
        path: path.to_owned(),
        source,
    })
}
