//! Whether another program has a file open for writing.
//!
//! Apart from the other tests, because a program that is being started has, for an instant, all files of its parent open.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests, but not what they share"
)]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use signdrop_watcher::{Writers, writers};
use tempfile::{NamedTempFile, TempPath};

/// One test at a time starts programs.
static TURN: Mutex<()> = Mutex::new(());

/// A file that is open for reading only, and the turn to start programs.
fn file() -> (TempPath, File, MutexGuard<'static, ()>) {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let path = NamedTempFile::new().unwrap().into_temp_path();
    common::write(&path);
    let reader = File::open(&path).unwrap();
    (path, reader, turn)
}

#[test]
fn a_writer_in_another_program_is_seen() {
    let (path, reader, _turn) = file();
    let mut child = Command::new("sh")
        .args(["-c", "exec >>\"$1\" && echo ready >&2 && read -r _", "sh"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 5];
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    assert_eq!(writers(&reader), Writers::Some);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child.wait().unwrap();
    assert_eq!(writers(&reader), Writers::None);
}

/// A program that opens a file for writing again and again, until it or this program ends.
struct Hammer(Child);

impl Hammer {
    fn on(path: &Path) -> Self {
        let child = Command::new("sh")
            .args(["-c", "while kill -0 \"$2\"; do : >>\"$1\"; done", "sh"])
            .arg(path)
            .arg(std::process::id().to_string())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Hammer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn no_signal_ends_the_program_that_asks_while_others_open_the_file() {
    let (path, reader, _turn) = file();
    let _hammer = Hammer::on(&path);
    let mut none = 0_u32;
    let mut some = 0_u32;
    // Both answers show that the two have met.
    while none < 10_000 || some < 10 {
        match writers(&reader) {
            Writers::None => none += 1,
            Writers::Some => some += 1,
            Writers::Unknown => panic!("the file system of {} knows no leases", path.display()),
        }
    }
}
