//! The mount answers as the directory below does.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unsafe_code,
    reason = "a test that panics fails; becoming another user takes raw calls"
)]
#[path = "../common/mod.rs"]
mod common;

mod cases;
mod random;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use common::{Mounted, script};

fn fresh(dir: &Path, name: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn system_calls_answer_as_on_the_directory_below() {
    let mounted = Mounted::new();
    assert!(cases::CASES.len() >= 300);
    let mut differing = Vec::new();
    fresh(&mounted.at(), "unwatched");
    fresh(&mounted.plain(), "unwatched");
    let cases = cases::CASES.iter().enumerate();
    // Where files may be held back, and where the kernel passes what it can.
    let cases = cases.flat_map(|case| [("", case), ("unwatched/", case)]);
    for (parent, (number, (name, script))) in cases {
        // What comes before the case in the tree is in neither trace.
        let directory = format!("{parent}case-{number}");
        let there = script::run(&fresh(&mounted.at(), &directory), script);
        let here = script::run(&fresh(&mounted.plain(), &directory), script);
        // And what is on the disk below is what the mount shows.
        let below = script::tree(&mounted.below().join(&directory));
        let shown: Vec<String> = there
            .iter()
            .rev()
            .take(below.len())
            .rev()
            .cloned()
            .collect();
        if there != here || below != shown {
            let lines = there
                .iter()
                .zip(&here)
                .filter(|(there, here)| there != here);
            let lines: Vec<String> = lines
                .map(|(there, here)| format!("  mount {there}\n  plain {here}"))
                .collect();
            differing.push(format!("{parent}: {name}\n{}", lines.join("\n")));
        }
    }
    assert!(
        differing.is_empty(),
        "{} of {} differ:\n{}",
        differing.len(),
        cases::CASES.len() * 2,
        differing.join("\n")
    );
}
