//! Keys of a GnuPG home that are taken over: what users have goes on being right, before and after.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::{Rpmdb, daemon::Daemon, out, quick_package, run};
use rpm::RpmFormat;

const PLAIN: &str = "alice#tools@copr.example.org";
const PROTECTED: &str = "bob#tools@copr.example.org";
const UNKNOWN: &str = "carol#tools@copr.example.org";
const PHRASE: &str = "correct horse";

/// A GnuPG home, whose agent ends with it.
struct Home(tempfile::TempDir);

impl Home {
    fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn new() -> Self {
        let home = Self::empty();
        fs::create_dir(home.phrases()).unwrap();
        for (email, phrase) in [(PLAIN, ""), (PROTECTED, PHRASE), (UNKNOWN, "")] {
            home.generate(email, phrase);
        }
        fs::write(home.phrases().join(PLAIN), "1\n").unwrap();
        fs::write(home.phrases().join(PROTECTED), format!("{PHRASE}\n")).unwrap();
        fs::write(home.phrases().join(format!("{UNKNOWN}.lock")), "").unwrap();
        home.end_agent();
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn phrases(&self) -> PathBuf {
        self.path().join("phrases")
    }

    /// Makes a key as copr-keygen's are named.
    fn generate(&self, email: &str, phrase: &str) {
        let user_id = format!("{} (None) <{email}>", email.split('#').next().unwrap());
        self.gpg(&[
            "--passphrase",
            phrase,
            "--quick-gen-key",
            &user_id,
            "rsa2048",
            "cert,sign",
            "5y",
        ]);
    }

    fn gpg(&self, words: &[&str]) -> Vec<u8> {
        let output = run(Command::new("gpg")
            .arg("--homedir")
            .arg(self.path())
            .args(["--batch", "--quiet", "--pinentry-mode", "loopback"])
            .args(words));
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    /// So that no phrase is remembered.
    fn end_agent(&self) {
        run(Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.path())
            .args(["--kill", "gpg-agent"]));
    }

    /// The certificate as packets.
    fn certificate(&self, email: &str) -> Vec<u8> {
        self.gpg(&["--export", email])
    }

    fn armour(&self, email: &str) -> String {
        String::from_utf8(self.gpg(&["--armor", "--export", email])).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.end_agent();
    }
}

fn signdrop(daemon: &Daemon, words: &[&str], more: &[&Path]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
        .args(words)
        .arg("--store")
        .arg(daemon.dir.path().join("state"))
        .arg("-c")
        .arg(daemon.config())
        .args(more))
}

fn import(home: &Home, daemon: &Daemon, more: &[&str]) -> Output {
    let phrases = home.phrases();
    let (home, phrases) = (home.path().to_str().unwrap(), phrases.to_str().unwrap());
    let words = ["key", "import", "--gnupg", home, "--phrases", phrases];
    signdrop(daemon, &[&words, more].concat(), &[])
}

#[test]
fn what_was_signed_before_and_after_the_import_verifies_with_both_public_keys() {
    let home = Home::new();
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let dir = tempfile::tempdir().unwrap();
    let before = quick_package(dir.path(), "before", 1000, RpmFormat::V4);
    let signed = run(Command::new("rpmsign")
        .arg("--define")
        .arg(format!("_gpg_path {}", home.path().display()))
        .arg("--define")
        .arg(format!("_gpg_name {PLAIN}"))
        .arg("--define")
        .arg("__gpg /usr/bin/gpg")
        .arg("--addsign")
        .arg(&before));
    assert!(signed.status.success(), "{signed:?}");
    home.end_agent();

    let import = |more: &str| {
        let more: &[&str] = if more.is_empty() { &[] } else { &[more] };
        out(&import(&home, &daemon, more))
    };
    assert!(import("--dry-run").contains("2 to import, 0 present, 1 skipped, 0 failed"));
    assert_eq!(out(&signdrop(&daemon, &["key", "list"], &[])), "");
    let report = import("");
    assert!(
        report.contains("2 imported, 0 present, 1 skipped, 0 failed"),
        "{report}"
    );
    assert!(report.contains("no phrase file"), "{report}");
    let listed = out(&signdrop(&daemon, &["key", "list"], &[]));
    assert!(import("").contains("0 imported, 2 present, 1 skipped, 0 failed"));
    assert_eq!(out(&signdrop(&daemon, &["key", "list"], &[])), listed);
    assert!(import("--all").contains("1 imported, 2 present, 0 skipped, 0 failed"));
    let deleted = "dave#tools@copr.example.org";
    home.generate(deleted, "");
    assert!(import("--all").contains("1 imported, 3 present, 0 skipped"));
    out(&signdrop(
        &daemon,
        &["key", "delete", "--yes", deleted],
        &[],
    ));
    assert!(import("--all").contains("0 imported, 3 present, 1 skipped, 0 failed"));

    for email in [PLAIN, PROTECTED, UNKNOWN] {
        let exported = out(&signdrop(&daemon, &["key", "export", email], &[]));
        let file = dir.path().join("exported.asc");
        fs::write(&file, &exported).unwrap();
        // Through gpg, since the same packets may have headers of the old or the new format.
        let user = Home::empty();
        user.gpg(&["--import", file.to_str().unwrap()]);
        assert!(
            user.certificate(email) == home.certificate(email),
            "{email}: {exported}"
        );
        if email == PLAIN {
            assert!(Rpmdb::new(&exported).is_signed(&before));
        }
        let name = format!("after-{}", &email[..3]);
        let after = quick_package(dir.path(), &name, 1000, RpmFormat::V4);
        out(&signdrop(&daemon, &["sign", "-u", email], &[&after]));
        assert!(Rpmdb::new(&home.armour(email)).is_signed(&after), "{email}");
        let shown = out(&signdrop(&daemon, &["key", "show", email], &[]));
        assert!(!shown.contains("never"), "{shown}");
    }
}

#[test]
fn a_wrong_phrase_fails_its_own_key_and_no_other() {
    let home = Home::new();
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    fs::write(home.phrases().join(PROTECTED), "wrong\n").unwrap();
    let output = import(&home, &daemon, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(
        report.contains("1 imported, 0 present, 1 skipped, 1 failed"),
        "{report}"
    );
}
