//! `signdrop status`

use std::time::Duration;

use super::{
    Error, Print,
    client::Address,
    connect,
    terminal::{clean, date, say, say_json},
};
use crate::daemon::{DropStatus, MountStatus, Status};

pub(super) fn status(api: &Address, print: Print) -> Result<(), Error> {
    let status: Status = connect(api)?.find_json("/v1/status")?;
    match print {
        Print::Json => say_json(&status),
        Print::Text => say(&text(&status)),
    }
}

fn text(status: &Status) -> String {
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    let mut lines = vec![format!(
        "signdrop {}, up {uptime}, {} keys, {}",
        status.version,
        status.keys,
        if status.ready { "ready" } else { "NOT READY" }
    )];
    lines.extend(
        status
            .troubles
            .iter()
            .map(|trouble| format!("  ! {}", clean(trouble.into()))),
    );
    if status.keys_expiring > 0 {
        lines.push(format!(
            "  {} keys have expired or expire within 90 days; `signdrop key extend` prolongs them",
            status.keys_expiring
        ));
    }
    lines.extend(
        status
            .expiring
            .iter()
            .map(|key| format!("  {} {}", date(key.expires), key.identity)),
    );
    for drop in &status.drops {
        lines.extend(drop_lines(drop));
    }
    for mount in &status.mounts {
        lines.extend(mount_lines(mount));
    }
    lines.join("\n")
}

fn mount_lines(mount: &MountStatus) -> Vec<String> {
    let shown = |path: &std::path::Path| clean(path.to_string_lossy()).into_owned();
    let mut lines = vec![
        format!(
            "\n{} (mount of {}; reads are {})",
            shown(&mount.at),
            shown(&mount.root),
            clean(mount.reading.as_str().into())
        ),
        format!("  now: {} held back", mount.held.len()),
    ];
    lines.extend(mount.held.iter().map(|held| {
        let [path, progress, reason] =
            [&held.path, &held.progress, &held.reason].map(|text| clean(text.as_str().into()));
        match reason.is_empty() {
            true => format!("  {path}: {progress}"),
            false => format!("  {path}: {progress}: {reason}"),
        }
    }));
    lines
}

fn drop_lines(drop: &DropStatus) -> Vec<String> {
    let counts: Vec<String> = drop
        .counts
        .iter()
        .map(|(outcome, count)| format!("{count} {outcome}"))
        .collect();
    let mut lines = vec![
        format!(
            "\n{} ({:?})",
            clean(drop.root.to_string_lossy()),
            drop.action
        ),
        format!("  since the start: {}", counts.join(", ")),
        format!(
            "  now: {} queued, {} being written, {} failed{}",
            drop.queue,
            drop.being_written,
            drop.failed,
            drop.oldest_waiting_seconds
                .map_or(String::new(), |age| format!(", oldest waiting {age:.1} s"))
        ),
    ];
    for failure in &drop.failures {
        lines.push(format!(
            "  {} {}: {}{}",
            date(failure.at),
            clean(failure.path.as_str().into()),
            clean(failure.reason.as_str().into()),
            if failure.retry {
                " (is tried again)"
            } else {
                ""
            }
        ));
    }
    lines
}
