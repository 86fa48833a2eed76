//! What people see: log, progress bars, lines that names cannot disturb.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tracing_subscriber::{EnvFilter, prelude::*};

use super::Error;

/// Logs to the journal where systemd has connected it, else to standard error; `RUST_LOG` chooses what.
pub(super) fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    match std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok()) {
        Some(journal) => registry.with(journal).init(),
        None => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(io::stderr)
                    .with_ansi(io::stderr().is_terminal()),
            )
            .init(),
    }
}

/// A bar on standard error, where that is a terminal; it appears only if the work takes a moment.
pub(super) fn progress(total: u64, doing: &'static str) -> ProgressBar {
    bar(
        Some(total),
        doing,
        "{msg} [{bar:40}] {human_pos}/{human_len} {per_sec}, {eta} left",
    )
}

/// A bar of the bytes that have been read of a file, which may be a pipe.
pub(super) fn reading(file: &File, doing: &'static str) -> io::Result<ProgressBar> {
    let metadata = file.metadata()?;
    let (total, template) = if metadata.is_file() {
        let template = "{msg} [{bar:40}] {bytes}/{total_bytes}, {eta} left";
        (Some(metadata.len()), template)
    } else {
        (None, "{msg} {spinner} {bytes}")
    };
    Ok(bar(total, doing, template))
}

fn bar(total: Option<u64>, doing: &'static str, template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let bar = total
        .map_or_else(ProgressBar::no_length, ProgressBar::new)
        .with_style(style)
        .with_message(doing);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A path without the control characters that could disturb a terminal.
pub(super) fn shown(path: &Path) -> Cow<'_, str> {
    clean(path.to_string_lossy())
}

/// Text without control characters.
pub(super) fn clean(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.escape_debug().to_string())
    } else {
        text
    }
}

/// Prints a line of text.
pub(super) fn say(text: &str) -> Result<(), Error> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints a line of JSON.
pub(super) fn say_json<T: Serialize>(value: &T) -> Result<(), Error> {
    let line = serde_json::to_string(value).map_err(io::Error::from)?;
    say(&line)
}

/// A time in Unix seconds as RFC 3339 has it, such as `2026-01-31T12:00:00Z`.
pub(super) fn date(seconds: u64) -> String {
    // A time that no calendar reaches is shown as its number.
    std::time::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .filter(|_| seconds < 253_402_300_800)
        .map_or_else(
            || seconds.to_string(),
            |time| humantime::format_rfc3339_seconds(time).to_string(),
        )
}
