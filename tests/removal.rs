//! Keys of projects whose directories are removed: `on_removed_project = "delete"`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{fs, path::PathBuf, process::Command, thread, time::Duration};

use common::{
    daemon::{Daemon, Mounted},
    out, quick_package, run,
};

const TOOLS: &str = "alice#tools@copr.example.org";
const OTHER: &str = "bob#other@copr.example.org";

/// A daemon that deletes the keys of projects that have been gone for `grace`; pull requests have directories of their own.
fn prepare(grace: &str) -> Daemon {
    let daemon = Daemon::prepare(&format!(
        "on_removed_project = \"delete\"\nremoval_grace = \"{grace}\""
    ));
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(
        &config.replace("{project}\"\nidentity", "{project}[:{variant}]\"\nidentity"),
    );
    daemon
}

fn start(grace: &str) -> Daemon {
    let mut daemon = prepare(grace);
    daemon.run();
    daemon
}

/// Has a package signed in a project's directory; answers the directory.
fn sign(daemon: &Daemon, project: &str) -> PathBuf {
    let directory = daemon.project(project);
    quick_package(&directory, "one", 2000, rpm::RpmFormat::V4);
    daemon.settle(&directory);
    directory
}

fn fingerprint(daemon: &Daemon, identity: &str) -> Option<String> {
    let path = format!("/v1/keys/{}", identity.replace('#', "%23"));
    match daemon.request("GET", &path, None) {
        (200, body) => {
            let key: serde_json::Value = serde_json::from_str(&body).unwrap();
            Some(key["fingerprint"].as_str().unwrap().to_owned())
        }
        (404, _) => None,
        other => panic!("{other:?}"),
    }
}

/// Longer than the short grace periods of these tests, with some looks of the daemon's in it.
fn let_grace_pass() {
    thread::sleep(Duration::from_secs(4));
}

#[test]
fn the_key_of_a_removed_project_is_deleted_after_the_grace_period_and_no_other() {
    let mut daemon = start("1s");
    let made = ["alice/tools", "bob/other", "carol/kept"].map(|project| sign(&daemon, project));
    let old = fingerprint(&daemon, TOOLS).unwrap();
    daemon.signdrop(["key", "generate", "dave#never-seen@copr.example.org"]);
    fs::remove_dir_all(&made[0]).unwrap();
    // With the directory above it.
    fs::remove_dir_all(made[1].parent().unwrap()).unwrap();
    daemon.until("both keys deleted", |daemon| {
        [TOOLS, OTHER]
            .iter()
            .all(|key| fingerprint(daemon, key).is_none())
    });
    let log = daemon.log();
    for wanted in [
        "a project's directory is gone",
        "deleting its key",
        "key deleted",
        "alice/tools",
    ] {
        assert!(log.contains(wanted), "{wanted}: {log}");
    }
    assert_eq!(daemon.status()["keys"], 2);
    // `create_keys` says what becomes of a package that arrives now: here it makes another key.
    sign(&daemon, "alice/tools");
    assert_ne!(fingerprint(&daemon, TOOLS).unwrap(), old);
    let_grace_pass();
    assert_eq!(daemon.status()["keys"], 3);
}

#[test]
fn a_project_that_comes_back_keeps_its_key_be_it_by_a_file_or_found_at_the_end() {
    let mut daemon = start("12s");
    let tools = sign(&daemon, "alice/tools");
    let other = sign(&daemon, "bob/other");
    let before = [TOOLS, OTHER].map(|key| fingerprint(&daemon, key).unwrap());
    for directory in [&tools, &other] {
        fs::remove_dir_all(directory).unwrap();
    }
    daemon.until("the removals noticed", |daemon| {
        daemon
            .log()
            .matches("a project's directory is gone")
            .count()
            == 2
    });
    sign(&daemon, "alice/tools");
    fs::create_dir(&other).unwrap();
    daemon.until("both noticed", |daemon| {
        daemon.log().matches("is there again").count() == 2
    });
    thread::sleep(Duration::from_secs(14));
    let after = [TOOLS, OTHER].map(|key| fingerprint(&daemon, key).unwrap());
    assert_eq!(after, before);
    // Once more: the second removal has a grace period of its own.
    fs::remove_dir_all(&tools).unwrap();
    daemon.until("the key deleted", |daemon| {
        fingerprint(daemon, TOOLS).is_none()
    });
    assert!(fingerprint(&daemon, OTHER).is_some());
}

#[test]
fn a_directory_that_a_project_still_has_keeps_its_key() {
    let mut daemon = start("1s");
    let tools = sign(&daemon, "alice/tools");
    let pull_request = sign(&daemon, "alice/tools:pr:1");
    fs::remove_dir_all(&tools).unwrap();
    daemon.until_logged("a project's directory is gone");
    let_grace_pass();
    assert!(fingerprint(&daemon, TOOLS).is_some());
    fs::remove_dir_all(&pull_request).unwrap();
    daemon.until("the key deleted", |daemon| {
        fingerprint(daemon, TOOLS).is_none()
    });
}

#[test]
fn a_directory_below_a_root_that_keeps_keys_keeps_the_key_too() {
    let daemon = prepare("1s");
    let kept = daemon.dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&format!(
        "{config}[[drop]]\nroot = \"{}\"\nproject = \"{{owner}}/{{project}}\"\nidentity = \"{{owner}}#{{project}}@copr.example.org\"\n",
        kept.display()
    ));
    let mut daemon = daemon;
    daemon.run();
    let tools = sign(&daemon, "alice/tools");
    let elsewhere = kept.join("alice/tools");
    fs::create_dir_all(&elsewhere).unwrap();
    quick_package(&elsewhere, "one", 2000, rpm::RpmFormat::V4);
    daemon.settle(&elsewhere);
    fs::remove_dir_all(&tools).unwrap();
    daemon.until_logged("a project's directory is gone");
    let_grace_pass();
    assert!(fingerprint(&daemon, TOOLS).is_some());
}

#[test]
fn what_is_removed_while_nobody_watches_is_noticed_and_a_restart_does_not_lengthen_the_grace() {
    let mut daemon = start("1h");
    let tools = sign(&daemon, "alice/tools");
    daemon.stop();
    fs::remove_dir_all(&tools).unwrap();
    daemon.run();
    daemon.until_logged("a project's directory is gone");
    daemon.stop();
    thread::sleep(Duration::from_secs(2));
    // Counted from before the restart, so that it is over already.
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&config.replace("\"1h\"", "\"2s\""));
    daemon.run();
    daemon.until("the key deleted", |daemon| {
        fingerprint(daemon, TOOLS).is_none()
    });
    assert_eq!(
        daemon
            .log()
            .matches("a project's directory is gone")
            .count(),
        1
    );
}

#[test]
fn a_disk_that_is_not_mounted_deletes_no_key() {
    let disk = Mounted::new("ext4", 64);
    let image = disk.path().with_file_name("image");
    let mut daemon = prepare("1s");
    let config = fs::read_to_string(daemon.config()).unwrap();
    let root = format!("root = \"{}\"", daemon.drop_dir().display());
    assert!(config.contains(&root), "{config}");
    daemon.write_config(&config.replace(&root, &format!("root = \"{}\"", disk.path().display())));
    daemon.run();
    let sign = |project: &str| {
        let directory = disk.path().join(project);
        fs::create_dir_all(&directory).unwrap();
        quick_package(&directory, "one", 2000, rpm::RpmFormat::V4);
        directory
    };
    let tools = sign("alice/tools");
    daemon.settle(&tools);
    let other = sign("bob/other");
    daemon.settle(&other);
    let before = fingerprint(&daemon, TOOLS);
    daemon.stop();
    out(&run(Command::new("umount").arg(disk.path())));
    daemon.run();
    // Even when builds go on arriving there.
    daemon.settle(&sign("carol/new"));
    let_grace_pass();
    assert_eq!(fingerprint(&daemon, TOOLS), before);
    assert_eq!(daemon.status()["keys"], 3);
    daemon.stop();
    out(&run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(&image)
        .arg(disk.path())));
    daemon.run();
    daemon.settle(&tools);
    let_grace_pass();
    assert_eq!(fingerprint(&daemon, TOOLS), before);
    fs::remove_dir_all(&tools).unwrap();
    daemon.until("the key deleted", |daemon| {
        fingerprint(daemon, TOOLS).is_none()
    });
    assert!(fingerprint(&daemon, OTHER).is_some());
}

#[test]
fn keys_are_kept_where_nothing_is_said() {
    let mut daemon = Daemon::start("removal_grace = \"1s\"");
    let tools = sign(&daemon, "alice/tools");
    fs::remove_dir_all(&tools).unwrap();
    let_grace_pass();
    assert!(fingerprint(&daemon, TOOLS).is_some());
    daemon.stop();
}
