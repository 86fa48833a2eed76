//! Everything at once: what was reported in the end is what is there.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests, but not what they share"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the tests rename what others would rename"
)]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use signdrop_watcher::{Coverage, Entry, Event, Watcher, walk};

/// What a daemon would know: the files that were reported and are not gone since.
#[derive(Default)]
struct Known {
    files: BTreeSet<PathBuf>,
    looks: usize,
}

/// A generator of numbers that are the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn directory(&mut self, root: &Path) -> PathBuf {
        let mut path = root.to_owned();
        for _ in 0..=self.roll(3) {
            path.push(format!("d{}", self.roll(4)));
        }
        path
    }
}

/// Does things to the tree, most of which fail because another thread was there before.
fn rage(root: &Path, seed: u64, until: Instant) {
    let mut dice = Dice(seed);
    let mut number = 0;
    while Instant::now() < until {
        let (one, other) = (dice.directory(root), dice.directory(root));
        number += 1;
        let file = one.join(format!("f{seed}-{number}"));
        let _ = match dice.roll(12) {
            0..=2 => fs::create_dir_all(&one),
            3 => fs::rename(&one, &other),
            4 if dice.roll(4) == 0 => fs::remove_dir_all(&one),
            5 => fs::create_dir_all(&one).and_then(|()| fs::write(&file, "x")),
            6 => fs::write(&file, "x").and_then(|()| fs::rename(&file, other.join("renamed"))),
            7 => fs::write(&file, "x")
                .and_then(|()| fs::hard_link(&file, other.join(format!("l{seed}-{number}")))),
            8 => fs::remove_file(other.join("renamed")),
            9 => File::create(&file).and_then(|mut open| {
                fs::rename(&one, &other)?;
                open.write_all(b"x")
            }),
            _ => fs::write(&file, "x"),
        };
    }
}

fn on_disk(root: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let walked = walk(root, Path::new(""), &|_| false, &mut |entry| {
        if let Entry::File { path, .. } = entry {
            files.insert(path);
        }
        ControlFlow::Continue(())
    });
    assert!(walked.is_ok(), "{walked:?}");
    files
}

fn weather_a_storm(seed: u64, lasting: Duration) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_owned();
    let known = Arc::new((Mutex::new(Known::default()), Condvar::new()));
    let (told, base) = (Arc::clone(&known), root.clone());
    let watcher = Watcher::start(
        &root,
        |_| false,
        move |event| {
            let mut known = told.0.lock().unwrap();
            match event {
                Event::Finished(path) | Event::Found(path) => {
                    if base
                        .join(&path)
                        .symlink_metadata()
                        .is_ok_and(|stat| stat.is_file())
                    {
                        known.files.insert(path);
                    }
                }
                Event::Gone(path) => known.files.retain(|file| !file.starts_with(&path)),
                Event::Lost => known.files.clear(),
                Event::Watched(_) => {}
                Event::Looked(coverage) => {
                    assert_eq!(coverage, Coverage::Complete);
                    known.looks += 1;
                }
                Event::Failed(error) => panic!("{error}"),
            }
            told.1.notify_all();
        },
    )
    .unwrap();

    let until = Instant::now() + lasting;
    let threads: Vec<_> = (1..=4)
        .map(|thread| {
            let root = root.clone();
            thread::spawn(move || rage(&root, seed * 1000 + thread, until))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }

    let there = on_disk(&root);
    assert!(!there.is_empty());
    let deadline = Instant::now() + common::PATIENCE;
    let mut known_now = known.0.lock().unwrap();
    while known_now.files != there || known_now.looks == 0 {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(
            !left.is_zero(),
            "seed {seed}: missing {:?}, too many {:?}",
            there.difference(&known_now.files).collect::<Vec<_>>(),
            known_now.files.difference(&there).collect::<Vec<_>>()
        );
        known_now = known.1.wait_timeout(known_now, left).unwrap().0;
    }
    drop(known_now);
    drop(watcher);
}

#[test]
fn after_a_storm_what_was_reported_is_what_is_there() {
    for seed in 1..=6 {
        weather_a_storm(seed, Duration::from_millis(500));
    }
}
