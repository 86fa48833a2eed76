//! Whether somebody has a file open for writing.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests, but not what they share"
)]

mod common;

use std::fs::File;

use signdrop_watcher::{Writers, writers};
use tempfile::{NamedTempFile, TempPath};

/// A file that is open for reading only.
fn file() -> (TempPath, File) {
    let path = NamedTempFile::new().unwrap().into_temp_path();
    common::write(&path);
    let reader = File::open(&path).unwrap();
    (path, reader)
}

#[test]
fn a_file_that_nobody_has_open_has_no_writers() {
    let (_path, reader) = file();
    assert_eq!(writers(&reader), Writers::None);
    assert_eq!(writers(&reader), Writers::None);
}

#[test]
fn readers_are_no_writers() {
    let (path, reader) = file();
    let _other = File::open(&path).unwrap();
    assert_eq!(writers(&reader), Writers::None);
}

#[test]
fn a_file_that_is_open_for_writing_has_writers_until_it_is_closed() {
    let (path, reader) = file();
    let writer = File::options().append(true).open(&path).unwrap();
    assert_eq!(writers(&reader), Writers::Some);
    drop(writer);
    assert_eq!(writers(&reader), Writers::None);
}

#[test]
fn asking_gives_the_lease_back() {
    let (path, reader) = file();
    for _ in 0..100 {
        assert_eq!(writers(&reader), Writers::None);
        // Would wait for /proc/sys/fs/lease-break-time seconds.
        drop(File::options().append(true).open(&path).unwrap());
    }
}

#[test]
fn nothing_is_known_of_what_is_no_regular_file() {
    assert_eq!(writers(&File::open("/dev/null").unwrap()), Writers::Unknown);
    assert_eq!(writers(&File::open("/").unwrap()), Writers::Unknown);
}
