//! Keys that are prolonged: whatever was signed before and after is verified with the certificate as it is exported then.
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
    process::Command,
    time::Duration,
};

use common::{Rpmdb, daemon::Daemon, out, run};
use signdrop::{
    config::{MasterKeySource, Validity},
    key::Algorithm,
    keystore::{self, Keystore, NewKey},
};

const ALICE: &str = "alice#tools@copr.example.org";

/// What gpg shows of the certificate that is exported now: when the key expires, and how many self-signatures it has.
fn shown(daemon: &Daemon) -> (String, usize) {
    let file = daemon.dir.path().join("key.asc");
    fs::write(&file, daemon.export(ALICE)).unwrap();
    let output = run(Command::new("gpg")
        .args(["--batch", "--with-colons", "--homedir"])
        .arg(daemon.dir.path())
        .arg("--show-keys")
        .arg(&file));
    let text = out(&output);
    let key = text.lines().find(|line| line.starts_with("pub:")).unwrap();
    let output = run(Command::new("gpg")
        .args(["--batch", "--list-packets"])
        .arg(&file));
    let signatures = out(&output).matches(":signature packet:").count();
    (key.split(':').nth(6).unwrap().to_owned(), signatures)
}

/// The keys of a daemon that does not run.
fn keystore(daemon: &Daemon) -> Keystore {
    let state = daemon.dir.path().join("state");
    let source = MasterKeySource::File(daemon.dir.path().join("master.key"));
    let store = signdrop::daemon::open_store(&state).unwrap();
    let master = signdrop::master_key::read(&source, &state).unwrap();
    Keystore::open(&store, &state, master).unwrap()
}

/// Signs a file with gpgv's kind of signature, and answers it.
fn signature(daemon: &Daemon, name: &str) -> PathBuf {
    let sign = daemon.dir.path().join("sign");
    if !sign.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_signdrop"), &sign).unwrap();
    }
    let file = daemon.dir.path().join(name);
    fs::write(&file, "content").unwrap();
    out(&run(Command::new(sign)
        .env("SIGNDROP_API", daemon.api())
        .env("SIGN_CONF", "/nonexistent")
        .args(["-u", ALICE, "-D"])
        .arg(&file)));
    file
}

fn assert_verifies(daemon: &Daemon, file: &Path) {
    let path = |name: &str| daemon.dir.path().join(name);
    fs::write(path("key.asc"), daemon.export(ALICE)).unwrap();
    out(&run(Command::new("gpg")
        .args(["--batch", "--yes", "--dearmor", "-o"])
        .arg(path("key.gpg"))
        .arg(path("key.asc"))));
    let mut sig = file.as_os_str().to_owned();
    sig.push(".sig");
    out(&run(Command::new("gpgv")
        .arg("--keyring")
        .arg(path("key.gpg"))
        .arg(&sig)
        .arg(file)));
    out(&run(Command::new("sq")
        .arg("verify")
        .arg("--signer-cert")
        .arg(path("key.asc"))
        .arg("--detached")
        .arg(&sig)
        .arg(file)));
}

#[test]
fn packages_and_files_from_before_and_after_are_verified_with_the_prolonged_certificate() {
    for algorithm in ["rsa2048", "ed25519", "nistp256"] {
        let daemon = Daemon::start("public_key = \"pubkey.gpg\"");
        let words = [
            "key",
            "generate",
            ALICE,
            "--expires",
            "30d",
            "--algorithm",
            algorithm,
        ];
        out(&daemon.signdrop(words));
        let project = daemon.project("alice/tools");
        let package = |name| common::quick_package(&project, name, 1000, rpm::RpmFormat::V4);
        let (first, first_file) = (package("one"), signature(&daemon, "one"));
        daemon.settle(&project);
        let (before, count) = shown(&daemon);
        assert_eq!(count, 1);

        let text = out(&daemon.signdrop(["key", "extend", ALICE, "--expires", "5y", "--json"]));
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        let (after, count) = shown(&daemon);
        assert_eq!(count, 2, "{algorithm}");
        assert_eq!(after, told["expires"].to_string(), "{algorithm}");
        let gained = after.parse::<u64>().unwrap() - before.parse::<u64>().unwrap();
        assert!(gained.abs_diff((5 * 365 - 30) * 86400) < 100, "{gained}");

        let (second, second_file) = (package("two"), signature(&daemon, "two"));
        daemon.settle(&project);
        for file in [&first_file, &second_file] {
            assert_verifies(&daemon, file);
        }
        let exported = daemon.export(ALICE);
        assert_eq!(
            fs::read_to_string(project.join("pubkey.gpg")).unwrap(),
            exported
        );
        // rpm 4.18 knows no ECDSA.
        if algorithm != "nistp256" {
            let rpmdb = Rpmdb::new(&exported);
            for package in [&first, &second] {
                assert!(rpmdb.is_signed(package), "{}", rpmdb.check(package).1);
            }
        }

        // Once more, and then for ever.
        out(&daemon.signdrop(["key", "extend", ALICE, "--expires", "6y"]));
        let text = out(&daemon.signdrop(["key", "extend", ALICE, "--expires", "never"]));
        assert!(text.contains("never"), "{text}");
        assert_eq!(shown(&daemon), (String::new(), 4), "{algorithm}");
        assert_verifies(&daemon, &first_file);
    }
}

#[test]
fn a_prolonged_key_is_the_same_after_a_restart_and_without_a_daemon() {
    let mut daemon = Daemon::start("");
    out(&daemon.signdrop(["key", "generate", ALICE, "--expires", "30d"]));
    out(&daemon.signdrop(["key", "extend", ALICE, "--expires", "1y"]));
    let exported = daemon.export(ALICE);
    daemon.kill();
    daemon.run();
    assert_eq!(daemon.export(ALICE), exported);
    assert_eq!(daemon.status()["keys"], 1);
    daemon.stop();
    let output = run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
        .args(["key", "extend", ALICE, "--expires", "2y", "--store"])
        .arg(daemon.dir.path().join("state"))
        .arg("-c")
        .arg(daemon.config()));
    out(&output);
    daemon.run();
    assert_eq!(shown(&daemon).1, 3);
    let file = signature(&daemon, "one");
    assert_verifies(&daemon, &file);
}

#[test]
fn an_expired_key_signs_nothing_and_once_it_is_prolonged_its_project_is_signed() {
    let mut daemon = Daemon::prepare("");
    {
        let keystore = keystore(&daemon);
        let new = NewKey {
            identity: ALICE.parse().unwrap(),
            name: "alice_tools".into(),
            algorithm: Algorithm::Rsa2048,
            expires: Some(Duration::from_secs(1)),
        };
        keystore.create(&new).unwrap();
    }
    std::thread::sleep(Duration::from_secs(2));
    daemon.run();
    let project = daemon.project("alice/tools");
    let package = common::quick_package(&project, "one", 1000, rpm::RpmFormat::V4);
    let before = fs::read(&package).unwrap();
    let (status, said) = daemon.wait(&project);
    assert_eq!(status, 1);
    assert!(
        said.contains("expired") && said.contains("key extend"),
        "{said}"
    );
    assert_eq!(fs::read(&package).unwrap(), before);
    let hash = "00".repeat(32);
    let wish = format!("{{\"digest\":\"sha256\",\"hash\":\"{hash}\",\"purpose\":\"openpgp\"}}");
    let path = "/v1/keys/alice%23tools%40copr.example.org/sign";
    let (status, answer) = daemon.request("POST", path, Some(&wish));
    assert_eq!(status, 409, "{answer}");
    assert!(answer.contains("key extend"), "{answer}");

    out(&daemon.signdrop(["key", "extend", ALICE, "--expires", "1y"]));
    let rpmdb = Rpmdb::new(&daemon.export(ALICE));
    // It is tried again by itself.
    daemon.until("signed", |_| rpmdb.is_signed(&package));
}

#[test]
fn status_and_metrics_tell_of_the_keys_that_expire_within_90_days() {
    let daemon = Daemon::start("");
    for (name, expires) in [("a", "89d"), ("b", "30d"), ("c", "91d"), ("d", "never")] {
        let email = format!("{name}#tools@copr.example.org");
        let words = [
            "key",
            "generate",
            &email,
            "--expires",
            expires,
            "--algorithm",
            "ed25519",
        ];
        out(&daemon.signdrop(words));
    }
    let soon = || {
        let status = daemon.status();
        let keys = status["expiring"].as_array().unwrap();
        let names = keys
            .iter()
            .map(|key| key["identity"].as_str().unwrap()[..1].to_owned());
        let names: String = names.collect();
        let (_, metrics) = daemon.request("GET", "/metrics", None);
        let line = format!("signdrop_keys_expiring {}\n", names.len());
        assert!(metrics.contains(&line), "{metrics}");
        assert_eq!(status["keys_expiring"], names.len());
        names
    };
    assert_eq!(soon(), "ba");
    let said = out(&daemon.signdrop(["status"]));
    assert!(
        said.contains("2 keys") && said.contains(" b#tools@copr.example.org"),
        "{said}"
    );
    out(&daemon.signdrop([
        "key",
        "extend",
        "b#tools@copr.example.org",
        "--expires",
        "1y",
    ]));
    assert_eq!(soon(), "a");
    out(&daemon.signdrop(["key", "delete", "--yes", "a#tools@copr.example.org"]));
    assert_eq!(soon(), "");
    assert!(!out(&daemon.signdrop(["status"])).contains("90 days"));
}

#[test]
fn an_end_that_openpgp_cannot_express_is_refused_and_changes_nothing() {
    let mut daemon = Daemon::start("");
    out(&daemon.signdrop(["key", "generate", ALICE, "--expires", "1y"]));
    let before = daemon.export(ALICE);
    daemon.stop();
    {
        let keystore = keystore(&daemon);
        let identity = ALICE.parse().unwrap();
        let _lock = keystore.lock(&identity);
        // It counts from now, at least one second after the key was made.
        let longest = Validity::For(Duration::from_secs(u32::MAX.into()));
        let error = keystore.extend(&identity, longest).unwrap_err();
        assert!(matches!(error, keystore::Error::TooLate(_)), "{error:?}");
        assert!(!error.may_pass());
        assert!(error.to_string().contains(ALICE), "{error}");
    }
    daemon.run();
    assert_eq!(daemon.export(ALICE), before);
}

#[test]
fn an_earlier_end_an_unknown_key_and_nonsense_are_refused_and_change_nothing() {
    let daemon = Daemon::start("");
    out(&daemon.signdrop(["key", "generate", ALICE, "--expires", "1y"]));
    let before = daemon.export(ALICE);
    let path = "/v1/keys/alice%23tools%40copr.example.org/extend";
    for (path, body, wanted) in [
        (path, r#"{"expires":"30d"}"#, 409),
        (path, r#"{"expires":"364d"}"#, 409),
        (path, r#"{"expires":"0d"}"#, 400),
        (path, r#"{"expires":"137y"}"#, 400),
        (path, r#"{"expires":""}"#, 400),
        (path, r#"{"expires":5}"#, 400),
        (path, r#"{"expires":"5y","identity":"x"}"#, 400),
        (path, "{}", 400),
        (path, "", 400),
        (
            "/v1/keys/nobody%40example.org/extend",
            r#"{"expires":"5y"}"#,
            404,
        ),
        ("/v1/keys/nobody/extend", r#"{"expires":"5y"}"#, 400),
    ] {
        let (status, answer) = daemon.request("POST", path, Some(body));
        assert_eq!(status, wanted, "{body}: {answer}");
    }
    for (words, status) in [
        (&["key", "extend", ALICE, "--expires", "30d"][..], 1),
        (
            &["key", "extend", "nobody@example.org", "--expires", "5y"],
            1,
        ),
        (&["key", "extend", ALICE], 2),
        (&["key", "extend", ALICE, "--expires", "soon"], 2),
    ] {
        let output = daemon.signdrop(words);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
    }
    assert_eq!(daemon.export(ALICE), before);

    out(&daemon.signdrop(["key", "extend", ALICE, "--expires", "never"]));
    let (status, answer) = daemon.request("POST", path, Some(r#"{"expires":"5y"}"#));
    assert_eq!(status, 409, "{answer}");
}
