//! Private keys that go to GnuPG and come back: `signdrop key export --secret`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::{
    Rpmdb,
    daemon::{Daemon, Mounted},
    gnupg::Home,
    out, quick_package, run,
};

const PHRASE: &str = "correct horse";

/// A stopped daemon with a key of each algorithm, and the keys' public halves.
fn store(algorithms: &[&str]) -> (Daemon, Vec<(String, String)>) {
    let mut daemon = Daemon::start("");
    let keys = algorithms
        .iter()
        .map(|algorithm| {
            let email = format!("alice#{algorithm}@copr.example.org");
            out(&daemon.signdrop([
                "key",
                "generate",
                &email,
                "--algorithm",
                algorithm,
                "--expires",
                "5y",
            ]));
            let public = daemon.export(&email);
            (email, public)
        })
        .collect();
    daemon.stop();
    fs::write(daemon.dir.path().join("phrase"), format!("{PHRASE}\n")).unwrap();
    (daemon, keys)
}

fn export(daemon: &Daemon, words: &[&str], output: &Path) -> Output {
    run(signdrop(daemon, &[&["export", "--secret"], words].concat())
        .arg("--passphrase-file")
        .arg(daemon.dir.path().join("phrase"))
        .arg("--output")
        .arg(output))
}

fn signdrop(daemon: &Daemon, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signdrop"));
    command
        .arg("key")
        .args(words)
        .arg("--store")
        .arg(daemon.dir.path().join("state"))
        .arg("-c")
        .arg(daemon.config());
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn gpg_signs_with_what_was_exported_and_only_with_the_passphrase() {
    let (daemon, keys) = store(&[
        "rsa2048", "rsa3072", "rsa4096", "ed25519", "nistp256", "nistp384",
    ]);
    let path = |name: &str| daemon.dir.path().join(name);
    let file = path("keys.asc");
    let output = export(&daemon, &["--all"], &file);
    assert!(out(&output).starts_with("6 private keys"), "{output:?}");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let home = Home::empty();
    out(&home.run(&["--import", text(&file)]));
    fs::write(path("text"), "some text\n").unwrap();
    for (email, public) in &keys {
        fs::write(path("public.asc"), public).unwrap();
        let dearmored = path("public.gpg");
        out(&home.run(&[
            "--output",
            text(&dearmored),
            "--dearmor",
            text(&path("public.asc")),
        ]));
        let sign = |phrase: &str| {
            home.run(&[
                "--passphrase",
                phrase,
                "--local-user",
                &format!("<{email}>"),
                "--digest-algo",
                "SHA512",
                "--output",
                text(&path("text.sig")),
                "--detach-sign",
                text(&path("text")),
            ])
        };
        // The agent tries a passphrase that it knows from another key as well.
        home.end_agent();
        assert!(!sign("wrong").status.success(), "{email}");
        out(&sign(PHRASE));
        out(&run(Command::new("gpgv").arg("--keyring").args([
            dearmored,
            path("text.sig"),
            path("text"),
        ])));
    }
}

#[test]
fn a_key_that_went_to_gpg_and_came_back_is_the_same() {
    let (daemon, keys) = store(&["rsa2048"]);
    let (email, public) = &keys[0];
    let file = daemon.dir.path().join("key.asc");
    out(&export(&daemon, &[email], &file));
    let home = Home::empty();
    out(&home.run(&["--import", text(&file)]));
    let phrases = home.path().join("phrases");
    fs::create_dir(&phrases).unwrap();
    fs::write(phrases.join(email), PHRASE).unwrap();
    let mut other = Daemon::prepare("");
    out(&run(signdrop(&other, &["import"])
        .arg("--gnupg")
        .arg(home.path())
        .arg("--phrases")
        .arg(&phrases)));
    other.run();
    assert_eq!(&other.export(email), public);
    // And it is not only the public half that is the same.
    let project = other.project("alice/rsa2048");
    let package = quick_package(&project, "one", 2000, rpm::RpmFormat::V4);
    other.settle(&project);
    let rpmdb = Rpmdb::new(public);
    assert!(rpmdb.is_signed(&package), "{}", rpmdb.check(&package).1);
}

#[test]
fn no_private_key_leaves_where_it_should_not() {
    let (mut daemon, keys) = store(&["ed25519"]);
    let email = keys[0].0.as_str();
    let file = daemon.dir.path().join("key.asc");
    let output = export(&daemon, &["nobody@example.org"], &file);
    assert!(said(&output).contains("unknown key"), "{output:?}");
    let phrase = daemon.dir.path().join("phrase");
    let empty = daemon.dir.path().join("empty");
    fs::write(&empty, "\n").unwrap();
    let missing: PathBuf = "/nonexistent/phrase".into();
    let (file_text, phrase_text, empty_text) = (text(&file), text(&phrase), text(&empty));
    for (words, wanted) in [
        (&[email, "--secret"][..], "--output"),
        (&[email, "--output", file_text], "--secret"),
        (&["--all", "--output", file_text], "--secret"),
        (
            &[email, "--all", "--secret", "--output", file_text],
            "--all",
        ),
        (&["--secret", "--output", file_text], "EMAIL"),
        (
            &[email, "--secret", "--output", file_text],
            "--passphrase-file",
        ),
        (
            &[
                email,
                "--secret",
                "--output",
                file_text,
                "--passphrase-file",
                empty_text,
            ],
            "without a passphrase",
        ),
        (
            &[
                email,
                "--secret",
                "--output",
                file_text,
                "--passphrase-file",
                text(&missing),
            ],
            "/nonexistent/phrase",
        ),
        (
            &[
                email,
                "--secret",
                "--output",
                "/nonexistent/key",
                "--passphrase-file",
                phrase_text,
            ],
            "/nonexistent/key",
        ),
    ] {
        let output = run(&mut signdrop(&daemon, &[&["export"], words].concat()));
        assert!(!output.status.success(), "{words:?}");
        assert!(said(&output).contains(wanted), "{words:?}: {output:?}");
        assert!(!file.exists(), "{words:?}");
    }
    // What is there is never written over, and what cannot be finished does not stay.
    fs::write(&file, "precious").unwrap();
    let output = export(&daemon, &[email], &file);
    assert!(said(&output).contains("exists"), "{output:?}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    fs::remove_file(&file).unwrap();
    let disk = Mounted::new("tmpfs", 1);
    fs::write(disk.path().join("filler"), vec![0; 2 << 20]).unwrap_err();
    let output = export(&daemon, &[email], &disk.path().join("key.asc"));
    assert!(said(&output).contains("No space left"), "{output:?}");
    assert!(!disk.path().join("key.asc").exists());
    // The daemon gives none to anybody, and keeps its store to itself.
    daemon.run();
    let output = daemon.signdrop([
        "key",
        "export",
        email,
        "--secret",
        "--output",
        file_text,
        "--passphrase-file",
        phrase_text,
    ]);
    assert!(said(&output).contains("--store"), "{output:?}");
    let output = export(&daemon, &[email], &file);
    assert!(said(&output).contains("in use"), "{output:?}");
    assert!(!file.exists());
}

fn said(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
