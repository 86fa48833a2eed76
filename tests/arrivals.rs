//! However a package comes into a drop directory, it is signed: once, with its project's key, and not before its writer is done.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, SystemTime},
};

use common::{Rpmdb, daemon::Daemon, packages_below, quick_package, run};

const ALICE: &str = "alice#tools@copr.example.org";
const BOB: &str = "bob#tools@copr.example.org";

/// A running daemon that has keys for two projects, and rpm's keyrings with one of them each.
fn start(drop_options: &str) -> (Daemon, Rpmdb, Rpmdb) {
    let mut daemon = Daemon::prepare(drop_options);
    daemon.run();
    let [alice, bob] = [ALICE, BOB].map(|identity| with_key(&daemon, identity));
    (daemon, alice, bob)
}

fn with_key(daemon: &Daemon, identity: &str) -> Rpmdb {
    let output = daemon.signdrop(["key", "generate", identity]);
    assert!(output.status.success(), "{output:?}");
    Rpmdb::new(&daemon.export(identity))
}

/// An unsigned package outside of every drop directory, but on the same filesystem.
fn stock(daemon: &Daemon, name: &str) -> PathBuf {
    let dir = daemon.dir.path().join("stock");
    fs::create_dir_all(&dir).unwrap();
    quick_package(&dir, name, 2000, rpm::RpmFormat::V4)
}

/// Waits for a signature without asking for one: nothing but the daemon's own watch leads to it.
fn until_signed(daemon: &mut Daemon, rpmdb: &Rpmdb, path: &Path) {
    daemon.until(&format!("{} signed", path.display()), |_| {
        path.exists() && rpmdb.is_signed(path)
    });
}

fn counts(daemon: &Daemon) -> serde_json::Value {
    daemon.status()["drops"][0]["counts"].clone()
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[test]
fn a_file_arrives_when_it_is_closed_renamed_or_linked_into_place() {
    let (mut daemon, rpmdb, _) = start("");
    let project = daemon.project("alice/tools");
    let original = stock(&daemon, "one");
    let bytes = fs::read(&original).unwrap();

    let written = project.join("written.rpm");
    fs::write(&written, &bytes).unwrap();
    until_signed(&mut daemon, &rpmdb, &written);

    let hidden = project.join(".upload-1");
    fs::write(&hidden, &bytes).unwrap();
    let renamed = project.join("renamed.rpm");
    fs::rename(&hidden, &renamed).unwrap();
    until_signed(&mut daemon, &rpmdb, &renamed);

    let moved = project.join("moved.rpm");
    fs::rename(stock(&daemon, "two"), &moved).unwrap();
    until_signed(&mut daemon, &rpmdb, &moved);

    let linked = project.join("linked.rpm");
    fs::hard_link(&original, &linked).unwrap();
    until_signed(&mut daemon, &rpmdb, &linked);
    assert_eq!(fs::read(&original).unwrap(), bytes);

    let over = project.join("written.rpm");
    fs::rename(stock(&daemon, "three"), &over).unwrap();
    until_signed(&mut daemon, &rpmdb, &over);
    assert_eq!(counts(&daemon)["signed"], 5);
    assert_eq!(counts(&daemon)["failed"], 0);
}

#[test]
fn directories_that_come_with_their_files_are_not_too_quick_for_the_watch() {
    let (mut daemon, rpmdb, _) = start("");
    let original = stock(&daemon, "deep");
    let mut paths = Vec::new();
    for number in 0..40 {
        let deep = daemon
            .drop_dir()
            .join(format!("alice/tools/fedora-{number}/a/b/c/d"));
        fs::create_dir_all(&deep).unwrap();
        for (place, directory) in deep.ancestors().take(5).enumerate() {
            let path = directory.join(format!("{place}.rpm"));
            fs::copy(&original, &path).unwrap();
            paths.push(path);
        }
    }
    let outside = daemon.dir.path().join("tree");
    fs::create_dir_all(outside.join("x/y")).unwrap();
    for name in ["a.rpm", "x/b.rpm", "x/y/c.rpm"] {
        fs::copy(&original, outside.join(name)).unwrap();
        paths.push(daemon.drop_dir().join("alice/tools/tree").join(name));
    }
    fs::rename(&outside, daemon.drop_dir().join("alice/tools/tree")).unwrap();
    daemon.until("all signed", |daemon| counts(daemon)["signed"] == 203);
    for path in paths.iter().step_by(7) {
        assert!(rpmdb.is_signed(path), "{}", path.display());
    }
    let moved = daemon.drop_dir().join("alice/tools/tree/x/y/late.rpm");
    fs::copy(&original, &moved).unwrap();
    until_signed(&mut daemon, &rpmdb, &moved);
}

#[test]
fn a_project_that_is_renamed_gets_the_other_projects_signatures() {
    let (mut daemon, alice, bob) = start("");
    let project = daemon.project("alice/tools/build");
    let name = "one-1.0-1.noarch.rpm";
    quick_package(&project, "one", 100, rpm::RpmFormat::V4);
    until_signed(&mut daemon, &alice, &project.join(name));
    fs::create_dir(daemon.drop_dir().join("bob")).unwrap();
    fs::rename(
        daemon.drop_dir().join("alice/tools"),
        daemon.drop_dir().join("bob/tools"),
    )
    .unwrap();
    let path = daemon.drop_dir().join("bob/tools/build").join(name);
    until_signed(&mut daemon, &bob, &path);
    assert!(!alice.is_signed(&path));
    daemon.settle(&daemon.drop_dir());
    assert_eq!(counts(&daemon)["signed"], 2);
}

#[test]
fn what_arrives_while_the_daemon_is_down_is_signed_by_the_next_start() {
    let (mut daemon, rpmdb, _) = start("");
    let project = daemon.project("alice/tools");
    let before = quick_package(&project, "before", 100, rpm::RpmFormat::V4);
    until_signed(&mut daemon, &rpmdb, &before);
    let original = stock(&daemon, "down");
    assert!(daemon.stop().success());
    let meanwhile = project.join("meanwhile.rpm");
    fs::copy(&original, &meanwhile).unwrap();
    fs::copy(&original, &before).unwrap();
    daemon.run();
    until_signed(&mut daemon, &rpmdb, &meanwhile);
    until_signed(&mut daemon, &rpmdb, &before);
}

#[test]
fn events_that_the_kernel_drops_cost_no_package_its_signature() {
    let (mut daemon, rpmdb, _) = start("");
    let project = daemon.project("alice/tools");
    let original = stock(&daemon, "lost");
    // Once one is signed, the project's directory is watched.
    let first = quick_package(&project, "first", 100, rpm::RpmFormat::V4);
    until_signed(&mut daemon, &rpmdb, &first);
    daemon.signal("STOP");
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(limit < 1_000_000, "lower fs.inotify.max_queued_events");
    // Two files by turns, since the kernel merges an event with one that is just like it.
    // Twice as many as there is room for: some are read before the signal has stopped the reader.
    for _ in 0..limit {
        for name in ["a", "b"] {
            File::create(project.join(name)).unwrap();
        }
    }
    let mut paths = Vec::new();
    for number in 0..50 {
        let directory = project.join(format!("{}", number % 5));
        fs::create_dir_all(&directory).unwrap();
        paths.push(directory.join(format!("{number}.rpm")));
        fs::copy(&original, paths.last().unwrap()).unwrap();
    }
    daemon.signal("CONT");
    daemon.until("all signed", |daemon| counts(daemon)["signed"] == 51);
    assert!(
        daemon.log().contains("the kernel dropped events"),
        "{}",
        daemon.log()
    );
    for path in &paths {
        assert!(rpmdb.is_signed(path), "{}", path.display());
    }
    // The watch is as good as before.
    let late = project.join("3/late.rpm");
    fs::copy(&original, &late).unwrap();
    until_signed(&mut daemon, &rpmdb, &late);
}

#[test]
fn a_file_is_left_alone_until_its_writer_has_closed_it() {
    let (mut daemon, rpmdb, _) = start("");
    let project = daemon.project("alice/tools");
    let bytes = fs::read(stock(&daemon, "slow")).unwrap();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let path = project.join("slow.rpm");
    let mut writer = File::create(&path).unwrap();
    writer.write_all(first).unwrap();
    writer.sync_all().unwrap();
    let wait = |daemon: &Daemon| {
        let project = project.to_str().unwrap();
        let output = daemon.signdrop(["wait", "--timeout", "2", project]);
        (output.status.code(), output.stderr)
    };
    let (status, said) = wait(&daemon);
    assert_eq!(status, Some(4), "{}", String::from_utf8_lossy(&said));
    assert_eq!(fs::read(&path).unwrap(), first);
    daemon.until("seen being written", |daemon| {
        daemon.status()["drops"][0]["being_written"] == 1
    });
    // Even a package that is complete, as far as can be seen, is still its writer's.
    writer.write_all(second).unwrap();
    writer.sync_all().unwrap();
    let (status, said) = wait(&daemon);
    assert_eq!(status, Some(4), "{}", String::from_utf8_lossy(&said));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    drop(writer);
    daemon.settle(&project);
    assert!(rpmdb.is_signed(&path), "{}", daemon.log());
    let counts = counts(&daemon);
    assert_eq!(
        (&counts["signed"], &counts["failed"]),
        (&1.into(), &0.into())
    );
}

#[test]
fn a_truncated_package_is_refused_and_signed_once_it_is_complete() {
    let (mut daemon, rpmdb, _) = start("");
    let project = daemon.project("alice/tools");
    let bytes = fs::read(stock(&daemon, "cut")).unwrap();
    let (first, second) = bytes.split_at(bytes.len() - 700);
    let path = project.join("cut.rpm");
    fs::write(&path, first).unwrap();
    daemon.until("refused", |daemon| {
        daemon.status()["drops"][0]["failed"] == 1
    });
    let (status, said) = daemon.wait(&project);
    assert_eq!(status, 1);
    assert!(said.contains("truncated in the payload"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), first);
    let mut writer = File::options().append(true).open(&path).unwrap();
    writer.write_all(second).unwrap();
    drop(writer);
    until_signed(&mut daemon, &rpmdb, &path);
    daemon.settle(&project);
    assert_eq!(daemon.status()["drops"][0]["failed"], 0);
}

#[test]
fn a_signed_package_that_is_overwritten_is_signed_again() {
    for update in ["auto", "replace"] {
        let (mut daemon, rpmdb, _) = start(&format!("update = \"{update}\""));
        let project = daemon.project("alice/tools");
        let original = fs::read(stock(&daemon, "again")).unwrap();
        let path = project.join("again.rpm");
        for times in 1..=20 {
            fs::write(&path, &original).unwrap();
            daemon.until("signed", |daemon| counts(daemon)["signed"] == times);
            assert!(rpmdb.is_signed(&path), "{}", rpmdb.check(&path).1);
        }
    }
}

#[test]
fn the_daemons_own_writes_cause_no_work() {
    for update in ["auto", "replace"] {
        let (mut daemon, rpmdb, _) = start(&format!("update = \"{update}\""));
        let project = daemon.project("alice/tools");
        let paths: Vec<PathBuf> = ["a", "b", "c"]
            .map(|name| quick_package(&project, name, 100, rpm::RpmFormat::V4))
            .to_vec();
        daemon.settle(&project);
        let state = |path: &PathBuf| (fs::read(path).unwrap(), modified(path));
        let before: Vec<_> = paths.iter().map(state).collect();
        thread::sleep(Duration::from_secs(1));
        let expected = |signed: u64| {
            serde_json::json!({
                "signed": signed, "unsigned": 0, "unchanged": 0, "ignored": 0, "failed": 0
            })
        };
        assert_eq!(counts(&daemon), expected(3));
        assert!(daemon.stop().success());
        daemon.run();
        daemon.settle(&project);
        daemon.settle(&project);
        thread::sleep(Duration::from_millis(500));
        assert_eq!(counts(&daemon), expected(0));
        // What is dropped signed is found to be so, and left alone.
        let copy = project.join("copy.rpm");
        fs::copy(&paths[0], &copy).unwrap();
        let copied = state(&copy);
        daemon.until("unchanged", |daemon| counts(daemon)["unchanged"] == 1);
        assert_eq!(state(&copy), copied);
        assert_eq!(paths.iter().map(state).collect::<Vec<_>>(), before);
        assert!(rpmdb.is_signed(&copy));
    }
}

#[test]
fn a_project_with_many_packages_does_not_keep_another_waiting() {
    const MANY: usize = 2000;
    let (mut daemon, alice, bob) = start("");
    let original = stock(&daemon, "many");
    let outside = daemon.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for number in 0..MANY {
        fs::copy(&original, outside.join(format!("{number}.rpm"))).unwrap();
    }
    let small = daemon.project("bob/tools").join("small.rpm");
    let project = daemon.project("alice/tools");
    let settled = |daemon: &Daemon| {
        let log = daemon.log();
        log.lines()
            .filter(|line| line.contains("settled"))
            .map(|line| line.contains("small.rpm"))
            .collect::<Vec<bool>>()
    };
    fs::rename(&outside, project.join("many")).unwrap();
    daemon.until("at work", |daemon| !settled(daemon).is_empty());
    fs::rename(&original, &small).unwrap();
    daemon.until("all signed", |daemon| counts(daemon)["signed"] == MANY + 1);
    let place = settled(&daemon).iter().position(|is_small| *is_small);
    assert!(place.unwrap() < MANY / 2, "{place:?}");
    assert!(bob.is_signed(&small));
    assert!(alice.is_signed(&project.join("many/1999.rpm")));
}

#[test]
fn unsigning_gives_the_original_bytes_back() {
    let (mut signing, rpmdb, _) = start("");
    let project = signing.project("alice/tools");
    let mut originals = Vec::new();
    for (name, format) in [("four", rpm::RpmFormat::V4), ("six", rpm::RpmFormat::V6)] {
        let path = quick_package(&project, name, 2000, format);
        originals.push((path.clone(), fs::read(&path).unwrap()));
    }
    signing.settle(&project);
    assert!(rpmdb.is_signed(&originals[0].0));
    assert!(signing.stop().success());

    let unsigning = Daemon::start("action = \"unsign\"");
    let project = unsigning.project("alice/tools");
    for (path, original) in originals {
        let there = project.join(path.file_name().unwrap());
        assert_ne!(fs::read(&path).unwrap(), original);
        fs::copy(&path, &there).unwrap();
        unsigning.settle(&project);
        assert!(fs::read(&there).unwrap() == original, "{}", there.display());
    }
    assert_eq!(counts(&unsigning)["unsigned"], 2);
    assert_eq!(unsigning.status()["keys"], 0);
}

#[test]
fn what_is_ignored_is_neither_signed_nor_waited_for() {
    let (daemon, rpmdb, _) =
        start("ignore = [\"**/repodata/**\", \"**/*.src.rpm\", \"alice/tools/private\"]");
    let project = daemon.project("alice/tools");
    let original = stock(&daemon, "one");
    let bytes = fs::read(&original).unwrap();
    let ignored = [
        "repodata/one.rpm",
        "repodata/deep/one.rpm",
        "one.src.rpm",
        "private/one.rpm",
        "one.rpm.part",
        "one.RPM",
    ];
    for name in ignored {
        let path = project.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(&original, path).unwrap();
    }
    let signed = project.join("one.rpm");
    fs::copy(&original, &signed).unwrap();
    daemon.settle(&daemon.drop_dir());
    daemon.settle(&project.join("repodata"));
    assert!(rpmdb.is_signed(&signed));
    for name in ignored {
        assert!(fs::read(project.join(name)).unwrap() == bytes, "{name}");
    }
    assert_eq!(counts(&daemon)["signed"], 1);
}

#[test]
fn the_first_rule_that_matches_says_which_digest_is_signed() {
    let (daemon, rpmdb, _) = start(
        "digest = \"sha384\"\n[[drop.rule]]\nmatch = \"**/epel-4-*/**\"\ndigest = \"sha1\"\n\
         [[drop.rule]]\nmatch = \"alice/*/strong/**\"\ndigest = \"sha512\"\n\
         [[drop.rule]]\nmatch = \"**/*.src.rpm\"\ndigest = \"sha256\"",
    );
    let project = daemon.project("alice/tools");
    let original = stock(&daemon, "one");
    let cases = [
        ("one.rpm", "SHA384"),
        ("epel-4-x86_64/0001/one.rpm", "SHA1"),
        ("strong/one.rpm", "SHA512"),
        ("strong/one.src.rpm", "SHA512"),
        ("one.src.rpm", "SHA256"),
    ];
    for (name, _) in cases {
        let path = project.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(&original, path).unwrap();
    }
    daemon.settle(&project);
    for (name, digest) in cases {
        let path = project.join(name);
        let said = rpmdb.check(&path).1;
        assert!(
            said.contains(&format!("RSA/{digest} Signature, key ID")),
            "{name}: {said}"
        );
        assert!(rpmdb.is_signed(&path), "{name}: {said}");
    }
}

#[test]
fn a_package_whose_project_may_not_make_a_key_waits_for_somebody_to_make_it() {
    let mut daemon = Daemon::start("create_keys = false");
    let project = daemon.project("alice/tools");
    let path = quick_package(&project, "one", 100, rpm::RpmFormat::V4);
    let before = fs::read(&path).unwrap();
    let (status, said) = daemon.wait(&project);
    assert_eq!(status, 1);
    assert!(
        said.contains(ALICE) && said.contains("create_keys"),
        "{said}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    let rpmdb = with_key(&daemon, ALICE);
    until_signed(&mut daemon, &rpmdb, &path);
}

fn read_config(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.config()).unwrap()
}

#[test]
fn a_reload_adds_a_drop_directory_and_loses_no_arrival() {
    let (mut daemon, rpmdb, _) = start("");
    let project = daemon.project("alice/tools");
    let original = stock(&daemon, "one");
    let second = daemon.dir.path().join("second");
    fs::create_dir_all(second.join("alice/tools")).unwrap();
    fs::copy(&original, second.join("alice/tools/before.rpm")).unwrap();
    let config = read_config(&daemon);
    let (_, section) = config.split_once("[[drop]]").unwrap();
    let other = section.replace(
        daemon.drop_dir().to_str().unwrap(),
        second.to_str().unwrap(),
    );
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..300 {
                for root in [&project, &second.join("alice/tools")] {
                    fs::copy(&original, root.join(format!("{number}.rpm"))).unwrap();
                }
            }
        });
        let mut reloads = 0;
        while !writer.is_finished() || reloads < 4 {
            let with_second = format!("{config}\n[[drop]]{other}");
            daemon.write_config(if reloads % 2 == 0 {
                &with_second
            } else {
                &config
            });
            daemon.signal("HUP");
            reloads += 1;
            thread::sleep(Duration::from_millis(30));
        }
        daemon.write_config(&format!("{config}\n[[drop]]{other}"));
        daemon.signal("HUP");
    });
    daemon.until("two drop directories served", |daemon| {
        daemon.status()["drops"].as_array().unwrap().len() == 2
    });
    daemon.wait_ready();
    // Not the barrier, which would look itself.
    let mut paths = packages_below(&second);
    paths.extend(packages_below(&project));
    assert_eq!(paths.len(), 601);
    daemon.until("idle", |daemon| {
        let drops = daemon.status()["drops"].clone();
        drops
            .as_array()
            .unwrap()
            .iter()
            .all(|drop| drop["queue"] == 0)
            && paths.iter().step_by(50).all(|path| rpmdb.is_signed(path))
    });
    for path in &paths {
        assert!(rpmdb.is_signed(path), "{}", path.display());
    }
}

#[test]
fn a_broken_configuration_leaves_the_old_one_in_force() {
    let (mut daemon, rpmdb, _) = start("");
    let project = daemon.project("alice/tools");
    let config = read_config(&daemon);
    for broken in [
        config.replace("root = ", "rot = "),
        config.replace("rsa2048", "rsa2"),
        String::from("\u{0}"),
    ] {
        let said = daemon.log().len();
        daemon.write_config(&broken);
        daemon.signal("HUP");
        daemon.until("refused", |daemon| {
            daemon.log()[said..].contains("the configuration is not reloaded")
        });
    }
    fs::remove_file(daemon.config()).unwrap();
    daemon.signal("HUP");
    let path = quick_package(&project, "one", 100, rpm::RpmFormat::V4);
    until_signed(&mut daemon, &rpmdb, &path);
}

#[test]
fn a_reload_that_changes_the_action_unsigns_what_was_signed_and_signs_it_again() {
    let (mut daemon, rpmdb, _) = start("action = \"sign\"");
    let project = daemon.project("alice/tools");
    let path = quick_package(&project, "one", 100, rpm::RpmFormat::V4);
    let original = fs::read(&path).unwrap();
    until_signed(&mut daemon, &rpmdb, &path);
    let config = read_config(&daemon);
    daemon.write_config(&config.replace("action = \"sign\"", "action = \"unsign\""));
    daemon.signal("HUP");
    daemon.until("unsigned", |_| fs::read(&path).unwrap() == original);
    daemon.write_config(&config);
    daemon.signal("HUP");
    until_signed(&mut daemon, &rpmdb, &path);
}

#[test]
fn a_drop_directory_that_is_missing_at_the_start_is_served_once_it_is_there() {
    let mut daemon = Daemon::prepare("");
    let root = daemon.drop_dir();
    fs::remove_dir(&root).unwrap();
    daemon.spawn();
    daemon.until("said to be missing", |daemon| {
        daemon.dir.path().join("api.sock").exists() && {
            let (status, body) = daemon.request("GET", "/readyz", None);
            status == 503 && body.contains(root.to_str().unwrap())
        }
    });
    let rpmdb = with_key(&daemon, ALICE);
    let project = daemon.project("alice/tools");
    let path = quick_package(&project, "one", 100, rpm::RpmFormat::V4);
    until_signed(&mut daemon, &rpmdb, &path);
    daemon.wait_ready();
}

#[test]
fn a_drop_directory_that_is_removed_and_made_anew_is_served() {
    let (mut daemon, rpmdb, _) = start("");
    let project = daemon.project("alice/tools");
    let name = "one-1.0-1.noarch.rpm";
    quick_package(&project, "one", 100, rpm::RpmFormat::V4);
    until_signed(&mut daemon, &rpmdb, &project.join(name));
    fs::remove_dir_all(daemon.drop_dir()).unwrap();
    daemon.until("missed", |daemon| {
        daemon.request("GET", "/readyz", None).0 == 503
    });
    let project = daemon.project("alice/tools");
    let path = quick_package(&project, "one", 100, rpm::RpmFormat::V4);
    // The barrier does not wait for the watch to find out.
    daemon.settle(&project);
    assert!(rpmdb.is_signed(&path));
    assert_eq!(counts(&daemon)["signed"], 2);
    daemon.wait_ready();
    let late = quick_package(&project, "late", 100, rpm::RpmFormat::V4);
    until_signed(&mut daemon, &rpmdb, &late);
}

#[test]
fn a_daemon_that_is_told_to_stop_leaves_whole_packages_and_goes_on_with_the_next_start() {
    let (mut daemon, rpmdb, _) = start("");
    let original = stock(&daemon, "one");
    let outside = daemon.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for number in 0..200 {
        fs::copy(&original, outside.join(format!("{number}.rpm"))).unwrap();
    }
    let project = daemon.project("alice/tools").join("many");
    fs::rename(&outside, &project).unwrap();
    daemon.until("at work", |daemon| daemon.log().contains("settled"));
    let status = daemon.stop();
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    let paths = packages_below(&project);
    assert_eq!(paths.len(), 200);
    let unsigned = paths
        .iter()
        .filter(|path| {
            let (good, text) = rpmdb.check(path);
            assert!(good, "{text}");
            !text.contains("Signature")
        })
        .count();
    assert!(unsigned > 0, "it had finished before it was told to stop");
    daemon.run();
    daemon.until("all signed", |daemon| counts(daemon)["signed"] == unsigned);
    for path in paths {
        assert!(rpmdb.is_signed(&path), "{}", path.display());
    }
}

#[test]
fn too_few_inotify_watches_are_told_with_the_limit_to_raise() {
    let mut daemon = Daemon::prepare("");
    let project = daemon.project("alice/tools");
    for number in 0..20 {
        fs::create_dir(project.join(number.to_string())).unwrap();
    }
    let path = quick_package(&project.join("19"), "one", 100, rpm::RpmFormat::V4);
    // The limit of a user namespace concerns nobody outside.
    let available = run(Command::new("unshare").args(["--user", "--map-root-user", "true"]));
    assert!(
        available.status.success(),
        "user namespaces are off; `sysctl user.max_user_namespaces=1000` allows them"
    );
    daemon.wrap([
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        "echo 5 > /proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"",
    ]);
    daemon.spawn();
    daemon.until("said to be short of watches", |daemon| {
        daemon.dir.path().join("api.sock").exists() && {
            let (status, body) = daemon.request("GET", "/readyz", None);
            status == 503 && body.contains("fs.inotify.max_user_watches")
        }
    });
    assert!(daemon.log().contains("fs.inotify.max_user_watches"));
    assert_eq!(daemon.request("GET", "/livez", None).0, 200);
    let troubles = daemon.status()["troubles"].to_string();
    assert!(
        troubles.contains("fs.inotify.max_user_watches"),
        "{troubles}"
    );
    // What can be found by looking is signed all the same.
    daemon.settle(&daemon.drop_dir());
    assert!(Rpmdb::new(&daemon.export(ALICE)).is_signed(&path));
}

#[test]
fn a_daemon_that_runs_out_of_descriptors_says_so_and_signs_everything_later() {
    const PACKAGES: usize = 100;
    let mut daemon = Daemon::prepare("");
    let original = stock(&daemon, "one");
    // Enough to start, too few for all workers at once.
    daemon.wrap(["prlimit", "--nofile=34:1024"]);
    daemon.run();
    let rpmdb = with_key(&daemon, ALICE);
    let mut paths = Vec::new();
    for number in 0..PACKAGES {
        let directory = daemon.project(&format!("alice/tools/{number}"));
        paths.push(directory.join("one.rpm"));
        fs::copy(&original, paths.last().unwrap()).unwrap();
    }
    let (status, said) = daemon.wait(&daemon.drop_dir());
    let unsigned = paths.iter().filter(|path| !rpmdb.is_signed(path)).count();
    assert!(
        status != 0 || unsigned == 0,
        "{unsigned} are unsigned: {said}"
    );
    let pid = daemon.pid().to_string();
    let output = run(Command::new("prlimit").args(["--nofile=1024", "--pid", &pid]));
    assert!(output.status.success(), "{output:?}");
    daemon.settle(&daemon.drop_dir());
    for path in paths {
        assert!(rpmdb.is_signed(&path), "{}", path.display());
    }
}
