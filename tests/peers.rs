//! The programs that stand before and behind the daemon in a build service: rsync brings packages, createrepo_c lists them.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "what fails here fails the test"
)]
mod common;

use std::{fs, path::Path, process::Command};

use common::{Rpmdb, daemon::Daemon, rpmbuild, run};

fn rsync(from: &Path, to: &Path) {
    let output = run(Command::new("rsync")
        .arg("-a")
        .arg(format!("{}/", from.display()))
        .arg(to));
    assert!(output.status.success(), "{output:?}");
}

/// Lists the repository, reusing what createrepo_c knows of files whose name, size and time have not changed.
fn createrepo(dir: &Path) -> String {
    let output = run(Command::new("createrepo_c")
        .args(["--quiet", "--update", "--general-compress-type=gz"])
        .arg("--no-database")
        .arg(dir));
    assert!(output.status.success(), "{output:?}");
    let primary = fs::read_dir(dir.join("repodata"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with("primary.xml.gz"))
        .unwrap();
    let output = run(Command::new("zcat").arg(primary));
    String::from_utf8(output.stdout).unwrap()
}

fn sha256(path: &Path) -> String {
    let output = run(Command::new("sha256sum").arg(path));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

#[test]
fn packages_that_rsync_brings_are_listed_as_they_are_signed_and_a_retry_is_signed_again() {
    let daemon = Daemon::start("ignore = [\"**/repodata/**\"]");
    let source = tempfile::tempdir().unwrap();
    for name in ["one", "two", "three"] {
        rpmbuild(source.path(), name, 10_000);
    }
    let build = daemon.project("alice/tools").join("fedora-43-x86_64");

    // The second time, rsync puts the unsigned packages over the signed ones.
    for _ in 0..2 {
        rsync(source.path(), &build);
        daemon.settle(&build);
        let rpmdb = Rpmdb::new(&daemon.export("alice#tools@copr.example.org"));
        let listed = createrepo(&build);
        for name in ["one", "two", "three"] {
            let package = build.join(format!("{name}-1.0-1.noarch.rpm"));
            assert!(rpmdb.is_signed(&package), "{}", rpmdb.check(&package).1);
            assert!(
                listed.contains(&sha256(&package)),
                "createrepo_c lists another {name}"
            );
        }
        assert_eq!(common::packages_below(&build).len(), 3);
        // Two signatures of one second are one file to createrepo_c's cache; no backend retries that fast.
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
    assert_eq!(daemon.status()["drops"][0]["failed"], 0);
}
