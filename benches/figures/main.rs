//! The figures of the README. Ratios are within one run, times are medians.
//!
//! `make bench` runs all of it; `cargo bench --bench figures -- packages large latency command modules keys import mount` runs the parts that are named.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measurement that fails says so by ending"
)]

#[path = "../../tests/common/mod.rs"]
mod common;

mod keys;
mod modules;
mod mount;
mod packages;

use std::time::Duration;

fn main() {
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    if keys::is_child() {
        return keys::measure_start();
    }
    let mut table = Table::default();
    if wanted("packages") {
        packages::many(&mut table);
    }
    if wanted("large") {
        packages::large(&mut table);
    }
    if wanted("latency") {
        packages::latency(&mut table);
    }
    if wanted("command") {
        packages::command(&mut table);
    }
    if wanted("modules") {
        modules::modules(&mut table);
    }
    if wanted("keys") {
        keys::keys(&mut table);
    }
    if wanted("import") {
        keys::import(&mut table);
    }
    if wanted("mount") {
        mount::mount(&mut table);
    }
    println!("\n| what | measured | against | ratio | what limits it |");
    println!("|---|---|---|---|---|");
    for row in table.rows {
        println!("{row}");
    }
}

/// The rows that are printed at the end.
#[derive(Default)]
struct Table {
    rows: Vec<String>,
}

impl Table {
    fn row(&mut self, what: &str, measured: &str, against: &str, ratio: &str, limit: &str) {
        let row = format!("| {what} | {measured} | {against} | {ratio} | {limit} |");
        println!("{row}");
        self.rows.push(row);
    }
}

/// The middle of several times.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// A time with three significant digits.
fn shown(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.0995 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

/// How many kB of memory a process has had resident at the most.
fn peak_memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
