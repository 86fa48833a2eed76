//! That no file is lost, whatever becomes of the directories.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests rename what others would rename"
)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{Watched, is_finished, is_found, write};
use rustix::fs::{CWD, RenameFlags};
use signdrop_watcher::Event;

#[test]
fn files_that_were_there_before_the_watcher_are_found() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("d/e")).unwrap();
    write(&directory.path().join("a"));
    write(&directory.path().join("d/e/b"));
    let watched = Watched::starting(directory, |_| false);
    watched.log.wait_found("a");
    watched.log.wait_found("d/e/b");
    watched.log.wait_complete();
    watched.write("d/e/b");
    watched.log.wait_finished("d/e/b");
}

#[test]
fn a_file_in_a_directory_that_was_just_made_is_reported() {
    let watched = Watched::empty();
    for number in 0..200 {
        let directory = format!("d{number}/e/f/g");
        fs::create_dir_all(watched.path(&directory)).unwrap();
        watched.write(format!("{directory}/a"));
    }
    for number in 0..200 {
        watched.log.wait_reported(format!("d{number}/e/f/g/a"));
    }
}

#[test]
fn a_directory_that_is_renamed_into_the_tree_is_looked_at_and_watched() {
    let watched = Watched::empty();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(outside.path().join("d/e")).unwrap();
    write(&outside.path().join("d/e/a"));
    fs::rename(outside.path().join("d"), watched.path("d")).unwrap();
    watched.log.wait_found("d/e/a");
    watched.write("d/e/b");
    watched.log.wait_reported("d/e/b");
    watched.fence();
    watched.log.clear();
    watched.write("d/e/c");
    watched.log.wait_finished("d/e/c");
}

#[test]
fn a_directory_that_is_renamed_within_the_tree_reports_under_its_new_name_only() {
    let watched = Watched::empty();
    fs::create_dir_all(watched.path("old/d")).unwrap();
    watched.write("old/d/a");
    watched.log.wait_reported("old/d/a");
    watched.log.clear();
    fs::rename(watched.path("old"), watched.path("new")).unwrap();
    watched.log.wait_gone("old");
    watched.log.wait_found("new/d/a");
    watched.log.clear();
    watched.write("new/d/b");
    watched.log.wait_finished("new/d/b");
    fs::create_dir(watched.path("new/e")).unwrap();
    watched.write("new/e/c");
    watched.log.wait_reported("new/e/c");
    watched.fence();
    let events = watched.log.events();
    assert!(
        !events.iter().any(|event| match event {
            Event::Finished(path) | Event::Found(path) | Event::Gone(path) =>
                path.starts_with("old"),
            _ => false,
        }),
        "{events:?}"
    );
}

#[test]
fn a_close_is_never_taken_for_one_of_another_file_under_the_old_name_of_its_directory() {
    let watched = Watched::empty();
    for number in 0..300 {
        let (old, new) = (format!("old{number}"), format!("new{number}"));
        fs::create_dir_all(watched.path(&old).join("d")).unwrap();
        let moved = watched.begin(format!("{old}/d/a"));
        if number % 2 == 0 {
            // The directory is watched by then, or is being looked at.
            watched.write(format!("{old}/d/b"));
            watched.log.wait_reported(format!("{old}/d/b"));
        }
        watched.log.clear();
        fs::rename(watched.path(&old), watched.path(&new)).unwrap();
        fs::create_dir_all(watched.path(&old).join("d")).unwrap();
        let open = watched.begin(format!("{old}/d/a"));
        drop(moved);
        watched.log.wait_reported(format!("{new}/d/a"));
        watched.fence();
        assert!(!watched.log.has_finished(format!("{old}/d/a")));
        watched.log.clear();
        drop(open);
        watched.log.wait_reported(format!("{old}/d/a"));
    }
}

#[test]
fn exchanged_directories_report_under_their_new_names() {
    let watched = Watched::empty();
    for name in ["a", "b"] {
        fs::create_dir_all(watched.path(name).join("d")).unwrap();
        watched.write(format!("{name}/d/in {name}"));
        watched.log.wait_reported(format!("{name}/d/in {name}"));
    }
    for _ in 0..50 {
        for (in_a, in_b) in [("in b", "in a"), ("in a", "in b")] {
            watched.fence();
            watched.log.clear();
            let (a, b) = (watched.path("a"), watched.path("b"));
            rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
            watched.log.wait_found(Path::new("a/d").join(in_a));
            watched.log.wait_found(Path::new("b/d").join(in_b));
            watched.fence();
            watched.log.clear();
            watched.write("a/d/new");
            watched.write("b/d/new");
            watched.log.wait_reported("a/d/new");
            watched.log.wait_reported("b/d/new");
        }
    }
}

#[test]
fn a_directory_that_replaces_an_empty_one_is_taken_up() {
    let watched = Watched::empty();
    for number in 0..100 {
        fs::create_dir_all(watched.path("from")).unwrap();
        fs::create_dir_all(watched.path("to")).unwrap();
        // Open, so that the kernel tells the end of the replaced directory late.
        let replaced = File::open(watched.path("to")).unwrap();
        watched.write("from/a");
        watched.log.wait_reported("from/a");
        watched.log.clear();
        fs::rename(watched.path("from"), watched.path("to")).unwrap();
        watched.log.wait_found("to/a");
        watched.write(format!("to/b{number}"));
        watched.log.wait_reported(format!("to/b{number}"));
        drop(replaced);
        watched.fence();
        watched.write(format!("to/c{number}"));
        watched.log.wait_reported(format!("to/c{number}"));
        fs::remove_dir_all(watched.path("to")).unwrap();
        watched.log.wait_gone("to");
    }
}

#[test]
fn a_directory_that_is_removed_and_made_again_in_rapid_succession_is_watched() {
    let watched = Watched::empty();
    for number in 0..300 {
        fs::create_dir_all(watched.path("d/e")).unwrap();
        watched.write(format!("d/e/a{number}"));
        fs::remove_dir_all(watched.path("d")).unwrap();
    }
    fs::create_dir_all(watched.path("d/e")).unwrap();
    watched.write("d/e/last");
    watched.log.wait_reported("d/e/last");
    // The rest of the removals has come when a fence has, and the last event about the file is not that it is gone.
    watched.fence();
    watched.write("d/e/later");
    watched.log.wait_reported("d/e/later");
    watched.log.clear();
    watched.write("d/e/latest");
    watched.log.wait_reported("d/e/latest");
}

#[test]
fn a_removed_directory_is_gone_with_all_below_it() {
    let watched = Watched::empty();
    fs::create_dir_all(watched.path("d/e")).unwrap();
    watched.write("d/e/a");
    watched.log.wait_reported("d/e/a");
    fs::remove_dir_all(watched.path("d")).unwrap();
    watched.log.wait_gone("d");
}

#[test]
fn symbolic_links_to_directories_are_not_entered() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("d")).unwrap();
    write(&outside.path().join("d/secret"));
    let directory = tempfile::tempdir().unwrap();
    symlink(outside.path(), directory.path().join("before")).unwrap();
    symlink(".", directory.path().join("loop")).unwrap();
    let watched = Watched::starting(directory, |_| false);
    watched.log.wait_complete();
    symlink(outside.path(), watched.path("after")).unwrap();
    // A link takes the place of a directory that is watched.
    fs::create_dir(watched.path("d")).unwrap();
    watched.write("d/a");
    watched.log.wait_reported("d/a");
    fs::remove_dir_all(watched.path("d")).unwrap();
    symlink(outside.path().join("d"), watched.path("d")).unwrap();
    write(&outside.path().join("d/secret"));
    watched.watcher.look();
    watched.fence();
    watched.log.clear();
    watched.watcher.look();
    watched.log.wait_complete();
    let events = watched.log.events();
    assert!(
        !events.iter().any(|event| match event {
            Event::Finished(path) | Event::Found(path) => path.ends_with("secret"),
            _ => false,
        }),
        "{events:?}"
    );
}

#[test]
fn a_link_that_keeps_taking_a_directorys_place_leads_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("e")).unwrap();
    write(&outside.path().join("e/secret"));
    let watched = Watched::empty();
    fs::create_dir_all(watched.path("real/e")).unwrap();
    symlink(outside.path(), watched.path("link")).unwrap();
    let (real, link) = (watched.path("real"), watched.path("link"));
    for _ in 0..2000 {
        rustix::fs::renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE).unwrap();
    }
    watched.write("real/e/a");
    watched.log.wait_reported("real/e/a");
    watched.log.clear();
    watched.watcher.look();
    watched.log.wait_complete();
    assert!(
        !watched
            .log
            .events()
            .iter()
            .any(|event| is_found(event, Path::new("link/e/secret")))
    );
}

#[test]
fn a_look_that_was_asked_for_finds_every_file_once_more() {
    let watched = Watched::empty();
    fs::create_dir(watched.path("d")).unwrap();
    for name in ["a", "d/b"] {
        watched.write(name);
        watched.log.wait_reported(name);
    }
    watched.fence();
    for _ in 0..3 {
        watched.log.clear();
        watched.watcher.look();
        watched.log.wait_complete();
        let events = watched.log.events();
        for name in ["a", "d/b"] {
            assert!(events.iter().any(|event| is_found(event, Path::new(name))));
        }
    }
}

#[test]
fn a_writer_in_a_directory_that_is_renamed_is_heard_when_it_closes() {
    let watched = Watched::empty();
    fs::create_dir(watched.path("old")).unwrap();
    let mut file = watched.begin("old/a");
    fs::rename(watched.path("old"), watched.path("new")).unwrap();
    watched.log.wait_found("new/a");
    watched.log.clear();
    file.write_all(b"more").unwrap();
    drop(file);
    watched.log.wait_finished("new/a");
    let events = watched.log.events();
    assert!(
        !events
            .iter()
            .any(|event| is_finished(event, Path::new("old/a")))
    );
}
