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

use common::{Numbers, Rpmdb, daemon::Daemon, gnupg, out, quick_package, run};
use rpm::RpmFormat;
use signdrop::key::gnupg as reader;

const PLAIN: &str = "alice#tools@copr.example.org";
const PROTECTED: &str = "bob#tools@copr.example.org";
const UNKNOWN: &str = "carol#tools@copr.example.org";
const PHRASE: &str = "correct horse";

/// A home of copr-keygen's kind, or an empty one.
struct Home(gnupg::Home);

impl Home {
    fn empty() -> Self {
        Self(gnupg::Home::empty())
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
        let output = self.0.run(words);
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    fn end_agent(&self) {
        self.0.end_agent();
    }

    /// The certificate as packets.
    fn certificate(&self, email: &str) -> Vec<u8> {
        self.gpg(&["--export", email])
    }

    fn fingerprint(&self, email: &str) -> String {
        let listed = String::from_utf8(self.gpg(&["--with-colons", "--list-keys", email])).unwrap();
        let line = listed
            .lines()
            .find(|line| line.starts_with("fpr:"))
            .unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// The file of the primary key's private half, and those of the subkeys'.
    fn private_files(&self, email: &str) -> Vec<PathBuf> {
        let words = ["--with-colons", "--with-keygrip", "--list-keys", email];
        let listed = String::from_utf8(self.gpg(&words)).unwrap();
        let grips = listed.lines().filter_map(|line| line.strip_prefix("grp:"));
        grips
            .map(|line| {
                let grip = line.trim_matches(':');
                self.path().join(format!("private-keys-v1.d/{grip}.key"))
            })
            .collect()
    }

    fn add_subkey(&self, email: &str) {
        let fingerprint = self.fingerprint(email);
        self.gpg(&[
            "--passphrase",
            "",
            "--quick-add-key",
            &fingerprint,
            "rsa2048",
            "encr",
            "1y",
        ]);
    }

    /// The certificate's packets as gpg shows them, and its bytes, both sorted.
    fn packets(&self, fingerprint: &str) -> (Vec<String>, Vec<u8>) {
        let mut bytes = self.certificate(fingerprint);
        let file = self.path().join("certificate");
        fs::write(&file, &bytes).unwrap();
        let text =
            String::from_utf8(self.gpg(&["--list-packets", file.to_str().unwrap()])).unwrap();
        let packets = text
            .split("# off=")
            .map(|packet| packet.split_once('\n').map_or("", |(_, rest)| rest));
        let mut packets: Vec<String> = packets.map(str::to_owned).collect();
        packets.sort();
        bytes.sort_unstable();
        (packets, bytes)
    }

    fn armour(&self, email: &str) -> String {
        String::from_utf8(self.gpg(&["--armor", "--export", email])).unwrap()
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

#[test]
fn every_algorithm_and_protection_of_gnupg_is_taken_over_without_gpg() {
    let home = Home::empty();
    fs::create_dir(home.phrases()).unwrap();
    let mut emails = Vec::new();
    // The agent's protections: none, OCB in lines of text, and what it wrote before GnuPG 2.3.
    for (kind, phrase, option) in [
        ("open", "", ""),
        ("ocb", PHRASE, "enable-extended-key-format"),
        ("cbc", PHRASE, "disable-extended-key-format"),
    ] {
        fs::write(home.path().join("gpg-agent.conf"), option).unwrap();
        home.end_agent();
        for algorithm in ["rsa2048", "rsa3072", "ed25519", "nistp256", "nistp384"] {
            let email = format!("{kind}#{algorithm}@copr.example.org");
            home.gpg(&[
                "--passphrase",
                phrase,
                "--quick-gen-key",
                &format!("{kind} <{email}>"),
                algorithm,
                "cert,sign",
                "5y",
            ]);
            fs::write(home.phrases().join(&email), format!("{phrase}\n")).unwrap();
            emails.push(email);
        }
    }
    home.end_agent();
    for mode in ["(private-key", "ocb-aes ", ":openpgp-s2k3-sha1-aes-cbc("] {
        let count = fs::read_dir(home.path().join("private-keys-v1.d"))
            .unwrap()
            .filter(|entry| has(&entry.as_ref().unwrap().path(), mode))
            .count();
        assert_eq!(count, 5, "{mode:?}");
    }
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let output = run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
        .env("PATH", "/nonexistent")
        .args(["key", "import", "--gnupg"])
        .arg(home.path())
        .arg("--phrases")
        .arg(home.phrases())
        .arg("--store")
        .arg(daemon.dir.path().join("state"))
        .arg("-c")
        .arg(daemon.config()));
    assert!(
        out(&output).contains("15 imported, 0 present, 0 skipped"),
        "{output:?}"
    );
    for email in &emails {
        let package = quick_package(
            daemon.dir.path(),
            &email.replace(['#', '@'], "-"),
            100,
            RpmFormat::V4,
        );
        out(&signdrop(&daemon, &["sign", "-u", email], &[&package]));
        let keyring = home.path().join("keyring.asc");
        fs::write(&keyring, home.armour(email)).unwrap();
        if email.contains("nistp") {
            // rpm knows no such keys.
            let mut verify = Command::new(env!("CARGO_BIN_EXE_signdrop"));
            out(&run(verify
                .arg("verify")
                .arg("--keyring")
                .args([&keyring, &package])));
        } else {
            assert!(
                Rpmdb::new(&home.armour(email)).is_signed(&package),
                "{email}"
            );
        }
    }
}

#[test]
fn a_file_of_exported_keys_is_taken_over() {
    let home = Home::new();
    home.gpg(&[
        "--passphrase",
        "",
        "--quick-gen-key",
        "Public only <public@example.org>",
        "rsa2048",
        "cert,sign",
        "5y",
    ]);
    let file = home.path().join("secret.asc");
    let exported = home.gpg(&[
        "--passphrase",
        PHRASE,
        "--armor",
        "--export-secret-keys",
        PLAIN,
        PROTECTED,
    ]);
    let public = home.gpg(&["--armor", "--export", "public@example.org"]);
    fs::write(&file, [exported, public].concat()).unwrap();
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let path = file.to_str().unwrap();
    let phrase = home.path().join("phrase");
    let import = |said: &str, more: &[&str]| {
        fs::write(&phrase, said).unwrap();
        let words = [
            "key",
            "import",
            "--file",
            path,
            "--passphrase-file",
            phrase.to_str().unwrap(),
        ];
        signdrop(&daemon, &[&words, more].concat(), &[])
    };
    let wrong = import("wrong\n", &[]);
    let said = String::from_utf8_lossy(&wrong.stdout);
    assert!(said.contains("the passphrase is not its own"), "{wrong:?}");
    assert!(
        said.contains("1 imported, 0 present, 1 skipped, 1 failed"),
        "{wrong:?}"
    );
    let dry = out(&import(&format!("{PHRASE}\n"), &["--dry-run"]));
    assert!(
        dry.contains("1 to import, 1 present, 1 skipped, 0 failed"),
        "{dry}"
    );
    let right = out(&import(&format!("{PHRASE}\n"), &[]));
    assert!(
        right.contains("1 imported, 1 present, 1 skipped, 0 failed"),
        "{right}"
    );
    assert!(right.contains("its secret half is not there"), "{right}");
    for email in [PLAIN, PROTECTED] {
        let package = quick_package(daemon.dir.path(), &email[..3], 100, RpmFormat::V4);
        out(&signdrop(&daemon, &["sign", "-u", email], &[&package]));
        assert!(
            Rpmdb::new(&home.armour(email)).is_signed(&package),
            "{email}"
        );
    }
    let text = home.path().join("phrases").join(PLAIN);
    for (file, wanted) in [
        ("/nonexistent", "/nonexistent"),
        (text.to_str().unwrap(), "phrases"),
    ] {
        let output = signdrop(&daemon, &["key", "import", "--file", file], &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(wanted),
            "{output:?}"
        );
    }
}

/// Whatever a home holds: the reader ends, does not panic, and gives a key only to the certificate that it belongs to.
#[test]
fn a_damaged_home_gives_no_key_to_anybody_else() {
    let home = Home::new();
    let file = |kind: &str| {
        let text = format!("-{kind}");
        fs::read_dir(home.path().join("private-keys-v1.d"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                let text = text.trim_start_matches('-');
                String::from_utf8_lossy(&fs::read(path).unwrap()).contains(text)
            })
            .unwrap()
    };
    let files = [
        home.path().join("pubring.kbx"),
        file("(private-key"),
        file("(protected-private-key"),
    ];
    let mut numbers = Numbers(0x5eed_0f51_6d0d_2026);
    let (mut read, mut refused) = (0, 0);
    for round in 0..300 {
        let path = &files[round % 3];
        let original = fs::read(path).unwrap();
        let mut damaged = original.clone();
        match numbers.below(4) {
            0 => damaged.truncate(numbers.below(original.len())),
            1 => {
                let at = numbers.below(original.len());
                damaged.insert(at, b'(');
            }
            _ => {
                let at = numbers.below(original.len());
                damaged[at] ^= 1 << numbers.below(8);
            }
        }
        fs::write(path, &damaged).unwrap();
        let Ok(found) = reader::Home::open(home.path()) else {
            continue;
        };
        let keyring = fs::File::open(found.keyring()).unwrap();
        for certificate in found.certificates(keyring).into_iter().flatten().take(100) {
            let Ok(certificate) = certificate else {
                refused += 1;
                continue;
            };
            let Ok(Some(private)) = found.private_key(&certificate) else {
                refused += 1;
                continue;
            };
            match private.unlock(&certificate, b"wrong") {
                Ok(secret) => {
                    read += 1;
                    let numbers = secret.public_numbers().unwrap();
                    assert_eq!(
                        format!("{numbers:?}"),
                        format!("{:?}", certificate.public_numbers().unwrap()),
                        "{round}"
                    );
                }
                Err(_) => refused += 1,
            }
        }
        fs::write(path, &original).unwrap();
    }
    assert!(read > 100 && refused > 100, "{read} {refused}");
}

/// Every file of a tree with its content and times, so that nothing of it can be changed unnoticed.
fn snapshot(directory: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(snapshot(&path));
        }
        let content = if metadata.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        found.push((path, content, metadata.modified().unwrap()));
    }
    found.sort();
    found
}

#[test]
fn the_home_is_not_changed_and_no_agent_is_started_in_it() {
    let home = Home::new();
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let before = snapshot(home.path());
    out(&import(&home, &daemon, &["--dry-run"]));
    out(&import(&home, &daemon, &["--all"]));
    assert!(snapshot(home.path()) == before);
}

#[test]
fn a_dry_run_says_what_a_run_does() {
    let home = Home::new();
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    fs::write(home.phrases().join(PROTECTED), "wrong\n").unwrap();
    home.generate("dave#tools@copr.example.org", "");
    home.generate("no e-mail at all", "");
    assert_eq!(import(&home, &daemon, &["--all"]).status.code(), Some(1));
    out(&signdrop(&daemon, &["key", "delete", "--yes", PLAIN], &[]));
    home.generate("erin#tools@copr.example.org", "");
    // Two keys of one e-mail: the first that gpg lists is taken.
    home.generate("frank#tools@copr.example.org", "");
    home.gpg(&[
        "--passphrase",
        "",
        "--quick-gen-key",
        "again <frank#tools@copr.example.org>",
        "rsa2048",
        "cert,sign",
        "5y",
    ]);
    home.gpg(&[
        "--passphrase",
        "",
        "--quick-gen-key",
        "other <other@example.org>",
        "dsa2048",
        "cert,sign",
        "5y",
    ]);
    fs::create_dir(home.phrases().join("erin#tools@copr.example.org")).unwrap();
    home.end_agent();
    let lines = |output: &Output| {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let mut lines: Vec<String> = text
            .replace("to import", "imported")
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    let dry = import(&home, &daemon, &["--all", "--dry-run"]);
    let wet = import(&home, &daemon, &["--all"]);
    assert_eq!(lines(&dry), lines(&wet));
    assert_eq!(dry.status.code(), wet.status.code());
    let said = String::from_utf8(wet.stdout).unwrap();
    assert!(
        said.contains("1 imported, 2 present, 4 skipped, 2 failed"),
        "{said}"
    );
}

#[test]
fn every_user_id_expiry_and_subkey_of_an_old_ring_stays_in_the_certificate() {
    let home = Home::empty();
    // GnuPG goes on with a ring of the old kind where there is one.
    fs::write(home.path().join("pubring.gpg"), "").unwrap();
    home.generate(PLAIN, "");
    home.gpg(&[
        "--passphrase",
        "",
        "--quick-add-uid",
        PLAIN,
        "Other <other@example.org>",
    ]);
    let fingerprint = home.fingerprint(PLAIN);
    home.add_subkey(PLAIN);
    home.end_agent();
    assert!(!home.path().join("pubring.kbx").exists());
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let ambiguous = signdrop(
        &daemon,
        &["key", "import", "--gnupg", home.path().to_str().unwrap()],
        &[],
    );
    assert!(out(&ambiguous).contains("several e-mails"), "{ambiguous:?}");
    fs::create_dir(home.phrases()).unwrap();
    fs::write(home.phrases().join(PLAIN), "1\n").unwrap();
    let output = import(&home, &daemon, &[]);
    assert!(out(&output).contains("1 imported"), "{output:?}");
    let email = PLAIN;
    let exported = daemon.dir.path().join("exported.asc");
    fs::write(
        &exported,
        out(&signdrop(&daemon, &["key", "export", email], &[])),
    )
    .unwrap();
    let user = Home::empty();
    user.gpg(&["--import", exported.to_str().unwrap()]);
    // The order of user ids is each program's own.
    assert_eq!(user.packets(&fingerprint), home.packets(&fingerprint));
}

#[test]
fn a_run_that_is_killed_goes_on_when_it_is_started_again() {
    let home = Home::empty();
    for number in 0..8 {
        home.generate(&format!("p{number}#tools@copr.example.org"), "");
    }
    home.end_agent();
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let path = home.path().to_str().unwrap();
    for milliseconds in [5, 20, 50, 100, 150, 200, 250, 300, 400] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_signdrop"))
            .args(["key", "import", "--gnupg", path, "--store"])
            .arg(daemon.dir.path().join("state"))
            .arg("-c")
            .arg(daemon.config())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        let _ = child.kill();
        child.wait().unwrap();
    }
    let report = out(&signdrop(&daemon, &["key", "import", "--gnupg", path], &[]));
    assert!(report.contains(" 0 skipped, 0 failed"), "{report}");
    assert_eq!(
        out(&signdrop(&daemon, &["key", "list"], &[]))
            .lines()
            .count(),
        8
    );
    for number in 0..8 {
        let email = format!("p{number}#tools@copr.example.org");
        let package = quick_package(daemon.dir.path(), &format!("p{number}"), 100, RpmFormat::V4);
        out(&signdrop(&daemon, &["sign", "-u", &email], &[&package]));
        assert!(
            Rpmdb::new(&home.armour(&email)).is_signed(&package),
            "{email}"
        );
    }
}

#[test]
fn a_key_that_is_revoked_or_signs_only_by_a_subkey_is_skipped() {
    let home = Home::empty();
    home.generate(PLAIN, "");
    let fingerprint = home.fingerprint(PLAIN);
    home.gpg(&[
        "--passphrase",
        "",
        "--quick-gen-key",
        "certifies <certifies@example.org>",
        "rsa2048",
        "cert",
        "5y",
    ]);
    let certifies = home.fingerprint("certifies@example.org");
    home.gpg(&[
        "--passphrase",
        "",
        "--quick-add-key",
        &certifies,
        "rsa2048",
        "sign",
        "1y",
    ]);
    // GnuPG lays a revocation beside each new key, made harmless by a colon.
    let revocation = home
        .path()
        .join(format!("openpgp-revocs.d/{fingerprint}.rev"));
    let text = fs::read_to_string(&revocation)
        .unwrap()
        .replace(":-----BEGIN", "-----BEGIN");
    fs::write(&revocation, text).unwrap();
    home.gpg(&["--import", revocation.to_str().unwrap()]);
    home.end_agent();
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let words = ["key", "import", "--gnupg", home.path().to_str().unwrap()];
    let report = out(&signdrop(&daemon, &words, &[]));
    for wanted in [
        "it is revoked",
        "its primary key does not sign",
        "0 imported, 0 present, 2 skipped",
    ] {
        assert!(report.contains(wanted), "{wanted}: {report}");
    }
}

#[test]
fn what_is_no_home_or_no_directory_of_phrases_is_said_and_takes_nothing_over() {
    let home = Home::new();
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let empty = tempfile::tempdir().unwrap();
    let broken = tempfile::tempdir().unwrap();
    fs::create_dir(broken.path().join("private-keys-v1.d")).unwrap();
    fs::write(broken.path().join("pubring.kbx"), [0xff; 1000]).unwrap();
    let secret_only = tempfile::tempdir().unwrap();
    fs::create_dir(secret_only.path().join("private-keys-v1.d")).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let good = path(home.path());
    for (gnupg, phrases, wanted) in [
        ("/nonexistent", None, "/nonexistent"),
        (path(empty.path()).as_str(), None, "no home of GnuPG 2.1"),
        (
            path(secret_only.path()).as_str(),
            None,
            "no home of GnuPG 2.1",
        ),
        (path(broken.path()).as_str(), None, "pubring.kbx"),
        (&good, Some("/nonexistent"), "/nonexistent"),
        (&good, Some("/etc/passwd"), "/etc/passwd"),
    ] {
        let mut words = vec!["key", "import", "--gnupg", gnupg];
        words.extend(phrases.iter().flat_map(|phrases| ["--phrases", phrases]));
        let output = signdrop(&daemon, &words, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(wanted),
            "{words:?}: {output:?}"
        );
    }
    assert_eq!(out(&signdrop(&daemon, &["key", "list"], &[])), "");
}

fn has(path: &Path, text: &str) -> bool {
    let file = fs::read(path).unwrap();
    // Lines that are broken within a word are joined.
    let file = String::from_utf8_lossy(&file).replace("\n ", "");
    file.contains(text)
}

#[test]
fn keys_that_gpg_has_imported_and_never_used_are_taken_over() {
    let origin = Home::empty();
    let home = Home::empty();
    fs::create_dir(home.phrases()).unwrap();
    let mut emails = Vec::new();
    for (kind, phrase) in [("bare", ""), ("protected", PHRASE)] {
        for algorithm in ["rsa2048", "ed25519", "nistp256"] {
            let email = format!("{kind}#{algorithm}@copr.example.org");
            let user_id = format!("{kind} <{email}>");
            origin.gpg(&[
                "--passphrase",
                phrase,
                "--quick-gen-key",
                &user_id,
                algorithm,
                "cert,sign",
                "5y",
            ]);
            fs::write(home.phrases().join(&email), format!("{phrase}\n")).unwrap();
            emails.push(email);
        }
    }
    let file = home.path().join("secret.gpg");
    let secret = origin.gpg(&["--passphrase", PHRASE, "--export-secret-keys"]);
    fs::write(&file, secret).unwrap();
    home.gpg(&["--import", file.to_str().unwrap()]);
    home.end_agent();
    for email in &emails {
        let file = &home.private_files(email)[0];
        assert!(has(file, "openpgp-native"), "{email}");
        assert_eq!(has(file, "(protection none)"), email.starts_with("bare"));
    }
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let report = out(&import(&home, &daemon, &[]));
    assert!(
        report.contains("6 imported, 0 present, 0 skipped, 0 failed"),
        "{report}"
    );
    for email in &emails {
        let name = email.replace(['#', '@'], "-");
        let package = quick_package(daemon.dir.path(), &name, 100, RpmFormat::V4);
        out(&signdrop(&daemon, &["sign", "-u", email], &[&package]));
        let keyring = home.path().join("keyring.asc");
        fs::write(&keyring, home.armour(email)).unwrap();
        let mut verify = Command::new(env!("CARGO_BIN_EXE_signdrop"));
        out(&run(verify
            .arg("verify")
            .arg("--keyring")
            .args([&keyring, &package])));
    }
}

/// A key that is lost on the way would be missed when the home is no more.
#[test]
fn no_damage_of_a_home_makes_a_key_vanish_from_the_report() {
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let home = Home::new();
    home.generate("dave#tools@copr.example.org", "");
    home.end_agent();
    let grip = |email: &str| home.private_files(email).swap_remove(0);
    let (cut, empty, gone, kept) = (
        grip(PLAIN),
        grip(PROTECTED),
        grip(UNKNOWN),
        grip("dave#tools@copr.example.org"),
    );
    let content = fs::read(&cut).unwrap();
    fs::write(&cut, &content[..content.len() / 2]).unwrap();
    fs::write(&empty, "").unwrap();
    fs::remove_file(&gone).unwrap();
    std::os::unix::fs::symlink("nowhere", &gone).unwrap();
    // What somebody has copied beside them is none of GnuPG's.
    fs::copy(&kept, kept.with_file_name("backup.key")).unwrap();
    fs::write(kept.with_file_name("old.key"), "").unwrap();
    let output = import(&home, &daemon, &["--all"]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for file in [&cut, &empty] {
        let wanted = format!("failed: {} holds no private key", file.display());
        assert!(report.contains(&wanted), "{wanted}: {report}");
    }
    let wanted = format!("failed: cannot read {}", gone.display());
    assert!(report.contains(&wanted), "{report}");
    for email in [PLAIN, PROTECTED] {
        let wanted = format!(
            "{} {email}: it has a phrase file, but no private key",
            home.fingerprint(email)
        );
        assert!(report.contains(&wanted), "{wanted}: {report}");
    }
    assert!(
        report.contains("1 imported, 0 present, 0 skipped, 5 failed"),
        "{report}"
    );

    let keybox = home.path().join("pubring.kbx");
    let mut content = fs::read(&keybox).unwrap();
    // Behind the header's blob of 32 bytes: where the packets of the first certificate are.
    content[32 + 8..32 + 12].fill(0xff);
    fs::write(&keybox, content).unwrap();
    fs::remove_dir_all(home.phrases()).unwrap();
    fs::create_dir(home.phrases()).unwrap();
    let output = import(&home, &daemon, &["--all"]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = "failed: cannot read certificate ";
    assert!(report.contains(wanted), "{report}");
    assert!(
        report.contains("0 imported, 1 present, 0 skipped, 4 failed"),
        "{report}"
    );
}

#[test]
fn a_key_whose_secret_half_is_elsewhere_is_skipped() {
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let home = Home::new();
    home.add_subkey(PLAIN);
    let subkeys = home.path().join("subkeys.gpg");
    let exported = home.gpg(&["--export-secret-subkeys", PLAIN]);
    fs::write(&subkeys, exported).unwrap();
    home.end_agent();
    fs::remove_dir_all(home.phrases()).unwrap();
    let import = |words: &[&str]| {
        let words = [&["key", "import"], words].concat();
        out(&signdrop(&daemon, &words, &[]))
    };
    // GnuPG writes a mark in place of the primary key.
    let report = import(&["--file", subkeys.to_str().unwrap()]);
    for wanted in [
        "skipped: its secret half is not there",
        "0 imported, 0 present, 1 skipped, 0 failed",
    ] {
        assert!(report.contains(wanted), "{wanted}: {report}");
    }
    fs::remove_file(&home.private_files(PLAIN)[0]).unwrap();
    // As an agent keeps a key that is on a card: the numbers are public.
    let file = &home.private_files(UNKNOWN)[0];
    let text = fs::read_to_string(file).unwrap().replace("\n ", "");
    let (_, numbers) = text.split_once("(private-key (rsa ").unwrap();
    let (numbers, _) = numbers.split_once("(d ").unwrap();
    fs::write(
        file,
        format!(
            "Key: (shadowed-private-key (rsa {numbers}\n (shadowed t1-v1 (#D27600# OPENPGP.1))))\n"
        ),
    )
    .unwrap();
    home.gpg(&["--list-secret-keys"]);
    let listed = String::from_utf8(home.gpg(&["--list-secret-keys"])).unwrap();
    assert!(
        listed.contains("sec#") && listed.contains("sec>"),
        "{listed}"
    );
    fs::remove_file(&home.private_files(PROTECTED)[0]).unwrap();
    home.end_agent();
    let report = import(&["--gnupg", home.path().to_str().unwrap()]);
    assert_eq!(report.matches("its secret half is not there").count(), 2);
    // What has nothing private at all is somebody else's.
    assert!(
        report.contains("0 imported, 0 present, 2 skipped, 0 failed"),
        "{report}"
    );
}

#[test]
fn the_keyring_that_gpg_uses_is_read() {
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let home = Home::new();
    let (keybox, old) = (
        home.path().join("pubring.kbx"),
        home.path().join("pubring.gpg"),
    );
    let import = || import(&home, &daemon, &["--dry-run", "--all"]);
    // Where a key of its trust database is missing, gpg fails in the end.
    let listed = || {
        let output = home.0.run(&["--with-colons", "--list-keys"]);
        String::from_utf8(output.stdout)
            .unwrap()
            .matches("pub:")
            .count()
    };
    let original = fs::read(&keybox).unwrap();

    // An ephemeral certificate is none of the keyring's.
    let mut content = original.clone();
    content[32 + 7] |= 2;
    fs::write(&keybox, &content).unwrap();
    assert!(out(&import()).contains("2 to import"));
    assert_eq!(listed(), 2);

    // Both are there: the keybox, if GnuPG has used it for OpenPGP.
    fs::write(&keybox, &original).unwrap();
    fs::write(&old, home.certificate(PLAIN)).unwrap();
    assert!(out(&import()).contains("3 to import"));
    assert_eq!(listed(), 3);
    content = original.clone();
    content[7] &= !2;
    fs::write(&keybox, &content).unwrap();
    assert!(out(&import()).contains("1 to import"));
    assert_eq!(listed(), 1);

    // A keybox that keyboxd has taken over is old.
    home.end_agent();
    fs::write(home.path().join("common.conf"), "# by hand\nuse-keyboxd\n").unwrap();
    let said = String::from_utf8_lossy(&import().stderr).into_owned();
    assert!(
        said.contains("keyboxd") && said.contains("--file"),
        "{said}"
    );
}

#[test]
fn a_file_may_be_a_pipe_and_must_hold_a_key() {
    let mut daemon = Daemon::start("");
    assert!(daemon.stop().success());
    let home = Home::new();
    let secret = home.path().join("secret.gpg");
    fs::write(
        &secret,
        home.gpg(&[
            "--passphrase",
            PHRASE,
            "--export-secret-keys",
            PLAIN,
            UNKNOWN,
        ]),
    )
    .unwrap();
    let piped = |file: &Path| {
        let mut cat = Command::new("cat")
            .arg(file)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let output = run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
            .args(["key", "import", "--file", "/dev/stdin", "--store"])
            .arg(daemon.dir.path().join("state"))
            .arg("-c")
            .arg(daemon.config())
            .stdin(cat.stdout.take().unwrap()));
        cat.wait().unwrap();
        output
    };
    assert!(out(&piped(&secret)).contains("2 imported"));
    fs::write(&secret, "").unwrap();
    let path = secret.to_str().unwrap();
    for output in [
        piped(&secret),
        signdrop(&daemon, &["key", "import", "--file", path], &[]),
    ] {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(said.contains("holds no secret key"), "{said}");
    }
}

#[test]
fn a_certificate_that_is_too_long_fails_its_own_key_and_no_other() {
    let home = Home::empty();
    fs::create_dir(home.phrases()).unwrap();
    let long = "long@example.org";
    for email in [long, PLAIN] {
        home.generate(email, "");
        fs::write(home.phrases().join(email), "\n").unwrap();
    }
    let fingerprint = home.fingerprint(long);
    let notation = format!("note@example.org={}", "a".repeat(8000));
    for number in 0..9 {
        let words = ["--passphrase", "", "--cert-notation", &notation];
        let name = format!("name {number}");
        let add = ["--quick-add-uid", &fingerprint, &name];
        home.gpg(&[&words[..], &add].concat());
    }
    home.end_agent();
    assert!(home.certificate(long).len() > 64 << 10);
    let daemon = Daemon::prepare("");
    let output = import(&home, &daemon, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = text.lines().find(|line| line.contains(&fingerprint));
    let failed = failed.unwrap_or_else(|| panic!("{text}"));
    assert!(failed.contains("failed: a record of "), "{failed}");
    assert!(
        text.contains("1 imported, 0 present, 0 skipped, 1 failed"),
        "{text}"
    );
}
