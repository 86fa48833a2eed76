//! When a file counts as finished.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests rename what others would rename"
)]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use common::{Log, Watched, write};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use signdrop_watcher::{Event, Watcher};

#[test]
fn a_file_is_finished_when_its_writer_closes_it() {
    let watched = Watched::empty();
    let mut file = watched.begin("a");
    watched.fence();
    assert!(!watched.log.has_finished("a"));
    file.write_all(b"more").unwrap();
    file.sync_all().unwrap();
    watched.fence();
    assert!(!watched.log.has_finished("a"));
    drop(file);
    watched.log.wait_finished("a");
}

#[test]
fn a_file_is_finished_again_when_it_was_written_again() {
    let watched = Watched::empty();
    watched.write("a");
    watched.fence();
    watched.log.clear();
    drop(
        File::options()
            .append(true)
            .open(watched.path("a"))
            .unwrap(),
    );
    watched.log.wait_finished("a");
}

#[test]
fn reading_a_file_is_no_event() {
    let watched = Watched::empty();
    watched.write("a");
    watched.fence();
    watched.log.clear();
    fs::read(watched.path("a")).unwrap();
    watched.fence();
    let events = watched.log.events();
    assert!(
        events
            .iter()
            .all(|event| !common::is_finished(event, Path::new("a")))
    );
}

#[test]
fn a_file_is_finished_when_it_is_renamed_within_the_tree() {
    let watched = Watched::empty();
    watched.write(".a.tmp");
    watched.log.wait_finished(".a.tmp");
    fs::rename(watched.path(".a.tmp"), watched.path("a")).unwrap();
    watched.log.wait_finished("a");
    watched.log.wait_gone(".a.tmp");
}

#[test]
fn a_file_is_finished_when_it_is_renamed_into_the_tree() {
    let watched = Watched::empty();
    let outside = tempfile::tempdir().unwrap();
    write(&outside.path().join("a"));
    fs::rename(outside.path().join("a"), watched.path("a")).unwrap();
    watched.log.wait_finished("a");
}

#[test]
fn a_file_that_is_renamed_out_of_the_tree_is_gone() {
    let watched = Watched::empty();
    let outside = tempfile::tempdir().unwrap();
    watched.write("a");
    fs::rename(watched.path("a"), outside.path().join("a")).unwrap();
    watched.log.wait_gone("a");
}

#[test]
fn both_of_two_exchanged_files_are_finished_in_the_end() {
    let watched = Watched::empty();
    watched.write("a");
    watched.write("b");
    watched.fence();
    watched.log.clear();
    let (a, b) = (watched.path("a"), watched.path("b"));
    rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
    watched.fence();
    let events = watched.log.events();
    for name in ["a", "b"] {
        let last = events.iter().rev().find(|event| match event {
            Event::Finished(path) | Event::Gone(path) => path == Path::new(name),
            _ => false,
        });
        assert!(
            matches!(last, Some(Event::Finished(_))),
            "{name}: {events:?}"
        );
    }
}

#[test]
fn a_hard_link_is_finished_when_it_is_made() {
    let watched = Watched::empty();
    let outside = tempfile::tempdir().unwrap();
    write(&outside.path().join("a"));
    fs::hard_link(outside.path().join("a"), watched.path("a")).unwrap();
    watched.log.wait_finished("a");
}

#[test]
fn a_hard_link_is_finished_although_its_first_name_is_gone_at_once() {
    let watched = Watched::empty();
    let outside = tempfile::tempdir().unwrap();
    for number in 0..100 {
        let name = format!("a{number}");
        write(&outside.path().join("a"));
        fs::hard_link(outside.path().join("a"), watched.path(&name)).unwrap();
        fs::remove_file(outside.path().join("a")).unwrap();
        watched.log.wait_finished(&name);
    }
}

#[test]
fn a_nameless_file_is_finished_when_it_is_linked() {
    let watched = Watched::empty();
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::TMPFILE | OFlags::WRONLY;
    let mut file: File = rustix::fs::open(watched.root(), flags, mode)
        .unwrap()
        .into();
    file.write_all(b"content").unwrap();
    // The writer closes before it links, by way of a descriptor for reading only.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let reader = File::open(path).unwrap();
    drop(file);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    rustix::fs::linkat(CWD, path, CWD, watched.path("a"), AtFlags::SYMLINK_FOLLOW).unwrap();
    watched.log.wait_finished("a");
}

#[test]
fn a_nameless_file_that_is_linked_while_open_is_finished_when_it_is_closed() {
    let watched = Watched::empty();
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::TMPFILE | OFlags::WRONLY;
    let mut file: File = rustix::fs::open(watched.root(), flags, mode)
        .unwrap()
        .into();
    file.write_all(b"content").unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    rustix::fs::linkat(CWD, path, CWD, watched.path("a"), AtFlags::SYMLINK_FOLLOW).unwrap();
    watched.fence();
    assert!(!watched.log.has_finished("a"));
    drop(file);
    watched.log.wait_finished("a");
}

#[test]
fn creating_a_file_many_times_never_says_that_it_is_finished_while_it_is_open() {
    let watched = Watched::empty();
    for number in 0..500 {
        let name = format!("a{number}");
        let file = watched.begin(&name);
        watched.fence();
        assert!(!watched.log.has_finished(&name), "{name}");
        drop(file);
        watched.log.wait_finished(&name);
        watched.log.clear();
    }
}

#[test]
fn names_are_bytes() {
    let watched = Watched::empty();
    let names: [&[u8]; 6] = [
        b"new\nline",
        b"\xff\xfe",
        b" ",
        b"\x1b[31m",
        b"-rf",
        b"caf\xc3\xa9",
    ];
    for name in names {
        let directory = Path::new(OsStr::from_bytes(name));
        fs::create_dir(watched.path(directory)).unwrap();
        watched.write(directory.join(OsStr::from_bytes(name)));
        watched
            .log
            .wait_reported(directory.join(OsStr::from_bytes(name)));
        watched.write(directory.join("later"));
        watched.log.wait_finished(directory.join("later"));
    }
}

#[test]
fn what_is_no_regular_file_is_not_found() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, mode, 0).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("link")).unwrap();
    write(&at("file"));
    let watched = Watched::starting(directory, |_| false);
    watched.log.wait_looked();
    rustix::fs::mknodat(CWD, watched.path("later"), FileType::Fifo, mode, 0).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", watched.path("later link")).unwrap();
    watched.fence();
    let events = watched.log.events();
    let found: Vec<_> = events
        .iter()
        .filter(|event| match event {
            Event::Found(_) => true,
            Event::Finished(path) => !path.to_string_lossy().starts_with("fence"),
            _ => false,
        })
        .collect();
    assert!(
        matches!(found.as_slice(), [Event::Found(path)] if path == Path::new("file")),
        "{found:?}"
    );
}

#[test]
fn nothing_is_told_of_what_is_to_be_skipped() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("repodata")).unwrap();
    write(&directory.path().join("repodata/before"));
    let watched = Watched::starting(directory, |path| path.ends_with("repodata"));
    watched.write("repodata/later");
    fs::create_dir(watched.path("d")).unwrap();
    fs::create_dir(watched.path("d/repodata")).unwrap();
    watched.write("d/repodata/later");
    watched.write("d/a");
    watched.log.wait_reported("d/a");
    watched.log.clear();
    watched.watcher.look();
    watched.log.wait_looked();
    fs::remove_dir_all(watched.path("d/repodata")).unwrap();
    watched.fence();
    let events = watched.log.events();
    assert!(events.iter().all(|event| match event {
        Event::Finished(path) | Event::Found(path) | Event::Gone(path) =>
            !path.to_string_lossy().contains("repodata"),
        _ => true,
    }));
}

#[test]
fn a_sink_that_takes_its_time_with_what_was_found_delays_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..10 {
        write(&directory.path().join(format!("a{number}")));
    }
    let log = Arc::new(Log::default());
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (sink, held) = (Arc::clone(&log), Arc::clone(&gate));
    let watcher = Watcher::start(
        directory.path(),
        |_| false,
        move |event| {
            let is_found = matches!(event, Event::Found(_));
            sink.add(event);
            if is_found {
                let open = held.0.lock().unwrap();
                drop(held.1.wait_while(open, |open| !*open).unwrap());
            }
        },
    )
    .unwrap();
    log.wait("found", |events| {
        events.iter().any(|event| matches!(event, Event::Found(_)))
    });
    fs::create_dir_all(directory.path().join("d/e")).unwrap();
    // The directory's watch is not waited for: only once it stands is a close an event.
    let mut number = 0;
    while !log
        .events()
        .iter()
        .any(|event| matches!(event, Event::Finished(path) if path.starts_with("d/e")))
    {
        number += 1;
        assert!(number < 100_000, "the new directory is never watched");
        write(&directory.path().join(format!("d/e/b{number}")));
    }
    write(&directory.path().join("c"));
    log.wait_finished("c");
    fs::remove_file(directory.path().join("c")).unwrap();
    log.wait_gone("c");
    assert_eq!(
        log.events()
            .iter()
            .filter(|event| matches!(event, Event::Found(_)))
            .count(),
        1
    );
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    log.wait_complete();
    log.wait_reported("d/e/b1");
    drop(watcher);
}

#[test]
fn a_watcher_that_was_dropped_tells_nothing() {
    let watched = Watched::empty();
    let dropped = Arc::new(AtomicBool::new(false));
    let (watcher, directory) = (watched.watcher, watched.directory);
    drop(watcher);
    dropped.store(true, Ordering::Release);
    watched.log.clear();
    write(&directory.path().join("a"));
    // Another watcher of the same tree gets the event, and would get it later.
    let other = Watched::over(directory, |_| false);
    other.write("b");
    other.log.wait_finished("b");
    assert!(watched.log.events().is_empty());
}
