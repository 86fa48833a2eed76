//! What the watcher does when the kernel drops events, refuses watches, or takes the root away.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests rename what others would rename"
)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use common::{Log, Watched, is_found, ran_in_namespaces, run, unmount, write};
use signdrop_watcher::{Coverage, Error, Event, Watcher};

#[test]
fn after_lost_events_everything_is_looked_at_and_every_directory_watched() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    assert!(
        limit <= 1 << 20,
        "fs.inotify.max_queued_events is too high for this test"
    );

    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("renamed before/d")).unwrap();
    fs::create_dir_all(at("removed")).unwrap();
    let log = Arc::new(Log::default());
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (sink, held) = (Arc::clone(&log), Arc::clone(&gate));
    let watcher = Watcher::start(
        directory.path(),
        |_| false,
        move |event| {
            let is_stopper = matches!(&event, Event::Finished(path) if path == Path::new("stop"));
            sink.add(event);
            if is_stopper {
                let open = held.0.lock().unwrap();
                drop(held.1.wait_while(open, |open| !*open).unwrap());
            }
        },
    )
    .unwrap();
    log.wait_complete();
    write(&at("stop"));
    log.wait_finished("stop");
    log.clear();

    // Nobody takes events now, so the queue runs over. Equal events in a row are one, so two files take turns.
    for _ in 0..=limit / 2 {
        write(&at("fill 1"));
        write(&at("fill 2"));
    }
    write(&at("lost"));
    fs::create_dir_all(at("new/d")).unwrap();
    write(&at("new/d/lost"));
    fs::rename(at("renamed before"), at("renamed after")).unwrap();
    write(&at("renamed after/d/lost"));
    fs::remove_dir(at("removed")).unwrap();
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();

    log.wait("lost", |events| {
        let lost = events.iter().position(|event| matches!(event, Event::Lost));
        let after = lost.map_or(&[][..], |lost| &events[lost..]);
        let is_looked = |event: &Event| matches!(event, Event::Looked(Coverage::Complete));
        after.iter().any(is_looked)
            && ["lost", "new/d/lost", "renamed after/d/lost"]
                .iter()
                .all(|path| after.iter().any(|event| is_found(event, Path::new(path))))
    });
    log.clear();
    for path in ["new/d/later", "renamed after/d/later"] {
        write(&at(path));
        log.wait_finished(path);
    }
    assert!(!log.has_finished("renamed before/d/later"));
    drop(watcher);
}

#[test]
fn too_few_watches_are_reported_once_and_made_good_when_there_are_more() {
    const LIMIT: &str = "/proc/sys/user/max_inotify_watches";
    if ran_in_namespaces("too_few_watches_are_reported_once_and_made_good_when_there_are_more") {
        return;
    }
    fs::write(LIMIT, "10").unwrap();
    let directory = tempfile::tempdir().unwrap();
    for number in 0..20 {
        fs::create_dir(directory.path().join(format!("d{number}"))).unwrap();
        write(&directory.path().join(format!("d{number}/before")));
    }
    let watched = Watched::starting(directory, |_| false);
    let Coverage::Partial(shortfall) = watched.log.wait_looked() else {
        panic!("{:?}", watched.log.events());
    };
    assert_eq!((shortfall.unwatched, shortfall.unread), (11, 0));
    for number in 0..20 {
        watched.log.wait_found(format!("d{number}/before"));
    }

    // Nothing is lost meanwhile: everything is looked at again and again.
    watched.log.clear();
    for number in 0..20 {
        watched.write(format!("d{number}/meanwhile"));
    }
    for number in 0..20 {
        watched.log.wait_found(format!("d{number}/meanwhile"));
    }
    fs::create_dir(watched.path("new")).unwrap();
    watched.write("new/a");
    watched.log.wait_found("new/a");
    assert_eq!(watched.log.failures(), [""; 0]);

    fs::write(LIMIT, "1000").unwrap();
    watched.log.clear();
    watched.log.wait_complete();
    for number in 0..20 {
        watched.write(format!("d{number}/after"));
        watched.log.wait_finished(format!("d{number}/after"));
    }

    // A new shortage is news.
    watched.log.clear();
    fs::write(LIMIT, "10").unwrap();
    fs::create_dir(watched.path("one more")).unwrap();
    watched.log.wait("failure", |events| {
        events.iter().any(|event| matches!(event, Event::Failed(_)))
    });
    let failures = watched.log.failures();
    let now = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").unwrap();
    let [failure] = failures.as_slice() else {
        panic!("{failures:?}");
    };
    assert!(failure.contains("fs.inotify.max_user_watches"), "{failure}");
    assert!(failure.contains(now.trim()), "{failure}");
}

#[test]
fn too_few_instances_are_an_error_that_names_the_limit() {
    const LIMIT: &str = "/proc/sys/user/max_inotify_instances";
    if ran_in_namespaces("too_few_instances_are_an_error_that_names_the_limit") {
        return;
    }
    fs::write(LIMIT, "0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let error = Watcher::start(directory.path(), |_| false, |_| ()).unwrap_err();
    assert!(matches!(error, Error::TooFewInstances { .. }), "{error:?}");
    assert!(!error.may_pass());
    let now = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap();
    assert!(error.to_string().contains("fs.inotify.max_user_instances"));
    assert!(error.to_string().contains(now.trim()), "{error}");
}

#[test]
fn a_root_that_is_not_there_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let error = Watcher::start(&missing, |_| false, |_| ()).unwrap_err();
    assert!(matches!(error, Error::RootGone { .. }), "{error:?}");
    assert!(error.may_pass());
    assert!(error.to_string().contains("missing"));
}

fn wait_for_root_gone(watched: &Watched) {
    watched.log.wait("root gone", |events| {
        events
            .iter()
            .any(|event| matches!(event, Event::Failed(Error::RootGone { .. })))
    });
    watched.log.wait_gone("");
}

#[test]
fn a_root_that_was_deleted_is_watched_again_when_it_is_back() {
    let watched = Watched::empty();
    watched.write("a");
    fs::remove_dir_all(watched.root()).unwrap();
    wait_for_root_gone(&watched);
    assert_eq!(watched.log.failures().len(), 1);
    watched.log.clear();
    fs::create_dir(watched.root()).unwrap();
    watched.write("b");
    watched.log.wait_complete();
    watched.log.wait_reported("b");
    watched.write("c");
    watched.log.wait_finished("c");
    assert_eq!(watched.log.failures(), [""; 0]);
}

#[test]
fn a_root_that_was_deleted_and_made_again_at_once_is_watched() {
    let watched = Watched::empty();
    for _ in 0..20 {
        watched.log.clear();
        fs::remove_dir_all(watched.root()).unwrap();
        fs::create_dir(watched.root()).unwrap();
        fs::create_dir(watched.path("d")).unwrap();
        watched.write("d/a");
        wait_for_root_gone(&watched);
        watched.log.wait_complete();
        watched.log.wait_reported("d/a");
        watched.write("d/b");
        watched.log.wait_finished("d/b");
    }
}

#[test]
fn a_root_that_was_renamed_is_gone_until_its_name_is_back() {
    let watched = Watched::empty();
    let aside = watched.root().with_extension("aside");
    fs::rename(watched.root(), &aside).unwrap();
    wait_for_root_gone(&watched);
    watched.log.clear();
    write(&aside.join("a"));
    fs::rename(&aside, watched.root()).unwrap();
    watched.log.wait_complete();
    watched.log.wait_found("a");
}

#[test]
fn a_root_whose_parent_was_renamed_is_gone_until_its_name_is_back() {
    let parent = tempfile::tempdir().unwrap();
    let (one, other) = (parent.path().join("one"), parent.path().join("other"));
    fs::create_dir(&one).unwrap();
    let watched = Watched::over(tempfile::tempdir_in(&one).unwrap(), |_| false);
    fs::rename(&one, &other).unwrap();
    wait_for_root_gone(&watched);
    watched.log.clear();
    fs::rename(&other, &one).unwrap();
    watched.log.wait_complete();
    watched.write("a");
    watched.log.wait_finished("a");
}

#[test]
fn a_root_that_was_unmounted_is_gone_and_one_that_is_mounted_again_is_watched() {
    if ran_in_namespaces(
        "a_root_that_was_unmounted_is_gone_and_one_that_is_mounted_again_is_watched",
    ) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let mount = || {
        let (kind, none) = ("tmpfs".as_ref(), "none".as_ref());
        run("mount", &["-t".as_ref(), kind, none, path.as_os_str()]);
    };
    mount();
    let watched = Watched::over(directory, |_| false);
    fs::create_dir(watched.path("d")).unwrap();
    watched.write("d/a");
    watched.log.wait_reported("d/a");
    watched.watcher.look();
    watched.log.wait_complete();
    watched.log.clear();
    // Between looks the watcher keeps nothing open.
    unmount(&path);
    wait_for_root_gone(&watched);
    watched.log.wait_complete();
    watched.log.clear();
    mount();
    write(&path.join("b"));
    wait_for_root_gone(&watched);
    watched.log.wait_complete();
    watched.log.wait_found("b");
    write(&path.join("c"));
    watched.log.wait_finished("c");
    drop(watched.watcher);
    run("umount", &["-l".as_ref(), path.as_os_str()]);
}

#[test]
fn a_mount_below_the_root_is_entered_and_left() {
    if ran_in_namespaces("a_mount_below_the_root_is_entered_and_left") {
        return;
    }
    let watched = Watched::empty();
    fs::create_dir(watched.path("m")).unwrap();
    watched.write("m/a");
    watched.log.wait_reported("m/a");
    let path = watched.path("m");
    run(
        "mount",
        &["-t", "tmpfs", "none"]
            .map(AsRef::as_ref)
            .into_iter()
            .chain([path.as_os_str()])
            .collect::<Vec<_>>(),
    );
    watched.write("m/b");
    watched.log.clear();
    watched.watcher.look();
    watched.log.wait_complete();
    watched.log.wait_found("m/b");
    watched.write("m/c");
    watched.log.wait_finished("m/c");
    unmount(&path);
    watched.log.wait_gone("m");
    watched.log.wait_found("m/a");
    watched.log.clear();
    watched.write("m/d");
    watched.log.wait_finished("m/d");
}

#[test]
fn a_directory_that_cannot_be_watched_is_reported_once_and_the_rest_is_watched() {
    let directory = tempfile::tempdir().unwrap();
    common::deepen(directory.path());
    fs::create_dir(directory.path().join("z")).unwrap();
    let watched = Watched::starting(directory, |_| false);
    assert!(matches!(watched.log.wait_looked(), Coverage::Partial(_)));
    watched.write("z/a");
    watched.log.wait_finished("z/a");
    // Two more rounds say nothing more about it.
    for _ in 0..2 {
        watched.log.wait_looked();
        let looked = watched.log.events().len();
        watched.log.wait("another look", |events| {
            events[looked..]
                .iter()
                .any(|event| matches!(event, Event::Looked(_)))
        });
    }
    assert_eq!(
        watched.log.failures().len(),
        1,
        "{:?}",
        watched.log.failures()
    );
    watched.log.clear();
    let deepest = fs::read_dir(watched.root()).unwrap();
    for entry in deepest {
        let path = entry.unwrap().path();
        if path != watched.path("z") {
            fs::remove_dir_all(path).unwrap();
        }
    }
    watched.log.wait_complete();
}
