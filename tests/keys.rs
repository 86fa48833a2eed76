//! Projects' keys: made once, readable by every tool, gone when they are deleted, and secret throughout.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use common::{Rpmdb, daemon::Daemon, files_below, quick_package, run};
use serde_json::{Value, json};
use signdrop::{
    digest::Digest,
    identity::Identity,
    key::Algorithm,
    keyring::Keyring,
    keystore::{Creation, Keystore, MasterKey, NewKey},
    signer::{DigestSigner as _, Purpose},
    store::Store,
};

/// A state directory with its master key, opened and closed as a test likes.
struct State {
    dir: tempfile::TempDir,
    master: String,
}

impl State {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            master: MasterKey::generate().unwrap().to_base64().to_string(),
        }
    }

    fn open(&self) -> Keyring {
        let store = Store::open(&self.dir.path().join("store")).unwrap();
        let master = MasterKey::parse(self.master.as_bytes()).unwrap();
        Keyring::new(Keystore::open(&store, self.dir.path(), master).unwrap())
    }
}

fn wish(identity: &str, algorithm: Algorithm) -> NewKey {
    NewKey {
        identity: identity.parse().unwrap(),
        name: "alice_tools".into(),
        algorithm,
        expires: None,
    }
}

fn fast(identity: &str) -> NewKey {
    wish(identity, Algorithm::Ed25519)
}

/// A daemon whose keys are made in no time.
fn daemon() -> Daemon {
    let daemon = Daemon::prepare("");
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&config.replace("rsa2048", "ed25519"));
    daemon
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn copy_directory(from: &Path, to: &Path) {
    let output = run(Command::new("cp").arg("-a").arg(from).arg(to));
    assert!(output.status.success(), "{output:?}");
}

const ALICE: &str = "alice#tools@copr.example.org";
const ALICE_PATH: &str = "/v1/keys/alice%23tools%40copr.example.org";

#[test]
fn a_thousand_simultaneous_wishes_for_one_identity_make_one_key() {
    let state = State::new();
    let keyring = state.open();
    let start = Barrier::new(1000);
    let new = AtomicUsize::new(0);
    let mut fingerprints = HashSet::new();
    thread::scope(|scope| {
        let asking: Vec<_> = (0..1000)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let creation = keyring.create(&fast(ALICE)).unwrap();
                    if matches!(creation, Creation::New(_)) {
                        new.fetch_add(1, Ordering::Relaxed);
                    }
                    creation.into_entry().fingerprint
                })
            })
            .collect();
        fingerprints.extend(asking.into_iter().map(|asked| asked.join().unwrap()));
    });
    assert_eq!((fingerprints.len(), new.into_inner()), (1, 1));
    assert_eq!(keyring.keystore().count().unwrap(), 1);
}

/// Posts to `/gen_key` for each e-mail, all at once, and answers how often each status came.
fn gen_key_at_once(daemon: &Daemon, emails: impl Iterator<Item = String>) -> (usize, usize, usize) {
    let list = daemon.dir.path().join("requests");
    let socket = daemon.dir.path().join("api.sock").display().to_string();
    let mut text = String::new();
    for email in emails {
        let body = json!({"name_real": "a", "name_email": email}).to_string();
        text += &format!(
            "unix-socket = \"{socket}\"\nurl = \"http://d/gen_key\"\nheader = \"Content-Type: application/json\"\ndata = {}\nwrite-out = \"%{{http_code}}\\n\"\nnext\n",
            Value::String(body)
        );
    }
    fs::write(&list, text.trim_end_matches("next\n")).unwrap();
    let output = run(Command::new("curl")
        .args([
            "-s",
            "--parallel",
            "--parallel-immediate",
            "--parallel-max",
            "300",
        ])
        .arg("-K")
        .arg(&list));
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let count = |status: &str| text.lines().filter(|line| *line == status).count();
    (count("201"), count("200"), text.lines().count())
}

#[test]
fn a_thousand_requests_for_one_identity_get_one_201() {
    let mut daemon = daemon();
    daemon.run();
    let emails = std::iter::repeat_n(ALICE.to_owned(), 1000);
    assert_eq!(gen_key_at_once(&daemon, emails), (1, 999, 1000));
    assert_eq!(daemon.status()["keys"], 1);
}

#[test]
fn a_thousand_identities_get_a_thousand_keys_listed_in_pages() {
    let mut daemon = daemon();
    daemon.run();
    let emails: Vec<String> = (0..1000)
        .map(|number| format!("owner#p{number:04}@copr.example.org"))
        .collect();
    assert_eq!(
        gen_key_at_once(&daemon, emails.iter().cloned()),
        (1000, 0, 1000)
    );
    let (mut found, mut fingerprints, mut pages) = (Vec::new(), HashSet::new(), 0);
    let mut query = "limit=300".to_owned();
    loop {
        let (status, text) = daemon.request("GET", &format!("/v1/keys?{query}"), None);
        assert_eq!(status, 200);
        let page: Value = serde_json::from_str(&text).unwrap();
        pages += 1;
        for key in page["keys"].as_array().unwrap() {
            found.push(key["identity"].as_str().unwrap().to_owned());
            fingerprints.insert(key["fingerprint"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else {
            break;
        };
        query = format!(
            "limit=300&after={}",
            next.replace('#', "%23").replace('@', "%40")
        );
    }
    assert_eq!(found, emails, "in their order, each once");
    assert_eq!((fingerprints.len(), pages), (1000, 4));
    for query in ["limit=0", "limit=1001", "limit=x", "limit=-1", "page=2"] {
        assert_eq!(
            daemon.request("GET", &format!("/v1/keys?{query}"), None).0,
            400
        );
    }
    let listed = daemon.signdrop(["key", "list"]);
    assert_eq!(listed.stdout.split(|byte| *byte == b'\n').count(), 1001);
}

#[test]
fn identities_are_compared_byte_for_byte() {
    let keyring = State::new();
    let keyring = keyring.open();
    let identities = [
        "alice#tools@copr.example.org",
        "Alice#tools@copr.example.org",
        "alice#tools@COPR.example.org",
        "alice#tool@copr.example.org",
        "alice#tools.@copr.example.org",
        "@alice#tools@copr.example.org",
        "alice@copr.example.org",
        // The same letter, composed in two ways.
        "caf\u{e9}#tools@copr.example.org",
        "cafe\u{301}#tools@copr.example.org",
    ];
    let fingerprints: HashSet<String> = identities
        .iter()
        .map(|identity| match keyring.create(&fast(identity)).unwrap() {
            Creation::New(entry) => entry.fingerprint,
            Creation::Existing(_) => panic!("{identity} is another's"),
        })
        .collect();
    assert_eq!(fingerprints.len(), identities.len());
    for identity in [
        "ALICE#TOOLS@COPR.EXAMPLE.ORG",
        "lice#tools@copr.example.org",
    ] {
        assert!(
            keyring
                .keystore()
                .find(&identity.parse().unwrap())
                .unwrap()
                .is_none()
        );
    }
}

/// The fields of `gpg --with-colons` that begin with a word.
fn colons<'a>(text: &'a str, record: &str) -> Vec<&'a str> {
    text.lines()
        .find(|line| line.split(':').next() == Some(record))
        .unwrap_or_else(|| panic!("no {record} in {text}"))
        .split(':')
        .collect()
}

#[test]
fn other_programs_read_every_exported_key() {
    let state = State::new();
    let keyring = state.open();
    let lifetime = Duration::from_secs(180 * 86400);
    for (algorithm, number, bits, sq_name) in [
        (Algorithm::Rsa2048, "1", "2048", "RSA"),
        (Algorithm::Rsa3072, "1", "3072", "RSA"),
        (Algorithm::Rsa4096, "1", "4096", "RSA"),
        (Algorithm::Ed25519, "22", "255", "EdDSA"),
        (Algorithm::NistP256, "19", "256", "ECDSA"),
        (Algorithm::NistP384, "19", "384", "ECDSA"),
    ] {
        for expires in [None, Some(lifetime)] {
            let identity = format!(
                "{algorithm}#{}@copr.example.org",
                if expires.is_some() {
                    "expires"
                } else {
                    "lasts"
                }
            );
            let mut wish = wish(&identity, algorithm);
            wish.expires = expires;
            let entry = keyring.create(&wish).unwrap().into_entry();
            let armour = entry.certificate().unwrap().to_armour().unwrap();
            let home = tempfile::tempdir().unwrap();
            fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
            let file = home.path().join("key.asc");
            fs::write(&file, &armour).unwrap();
            let expiry = entry
                .expires
                .map_or(String::new(), |expires| expires.to_string());
            assert_eq!(
                entry.expires,
                expires.map(|time| entry.created + time.as_secs())
            );

            let gpg = |arguments: &[&str]| {
                let output = run(Command::new("gpg")
                    .arg("--homedir")
                    .arg(home.path())
                    .args(["--batch", "--no-autostart", "--with-colons"])
                    .args(arguments));
                assert!(output.status.success(), "{algorithm}: {output:?}");
                String::from_utf8(output.stdout).unwrap()
            };
            let path = file.to_str().unwrap();
            gpg(&["--import", path]);
            for text in [gpg(&["--show-keys", path]), gpg(&["--list-keys"])] {
                let key = colons(&text, "pub");
                assert_eq!((key[2], key[3], key[6]), (bits, number, &*expiry), "{text}");
                assert_eq!(key[5], entry.created.to_string());
                assert_eq!(colons(&text, "fpr")[9], entry.fingerprint);
                assert_eq!(colons(&text, "uid")[9], format!("alice_tools <{identity}>"));
                assert!(key[11].contains('S') && key[11].contains('C'), "{text}");
                assert!(!text.lines().any(|line| line.starts_with("sub:")));
            }

            let output = run(Command::new("sq").arg("inspect").arg(&file));
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            for wanted in [
                entry.fingerprint.as_str(),
                &identity,
                sq_name,
                "certification, signing",
            ] {
                assert!(text.contains(wanted), "{wanted:?} in {text}");
            }
            assert_eq!(
                text.contains("Expiration time"),
                expires.is_some(),
                "{text}"
            );

            // rpm 4.18 knows no ECDSA; sq and gpg have judged those keys. One that expires has a test of its own.
            if number != "19" && expires.is_none() {
                drop(Rpmdb::new(&armour));
            }
        }
    }
}

#[test]
fn rpm_imports_a_key_that_expires() {
    let state = State::new();
    let keyring = state.open();
    for algorithm in [Algorithm::Rsa2048, Algorithm::Ed25519] {
        let mut wish = wish(&format!("{algorithm}@example.org"), algorithm);
        wish.expires = Some(Duration::from_secs(365 * 86400));
        let entry = keyring.create(&wish).unwrap().into_entry();
        // Fails where rpm does not take it.
        drop(Rpmdb::new(
            &entry.certificate().unwrap().to_armour().unwrap(),
        ));
    }
}

#[test]
fn rpm_imports_the_key_under_its_own_id() {
    let mut daemon = daemon();
    daemon.run();
    let project = daemon.project("alice/tools");
    let path = quick_package(&project, "a", 100, rpm::RpmFormat::V4);
    daemon.settle(&project);
    let shown: Value = serde_json::from_str(&daemon.request("GET", ALICE_PATH, None).1).unwrap();
    let fingerprint = shown["fingerprint"].as_str().unwrap().to_lowercase();
    let (good, said) = Rpmdb::new(&daemon.export(ALICE)).check(&path);
    assert!(good && said.contains(&fingerprint[32..]), "{said}");
}

#[test]
fn a_deleted_key_is_gone_and_its_email_gets_another_one() {
    let mut daemon = daemon();
    daemon.run();
    let wish = json!({ "identity": ALICE }).to_string();
    let fingerprint = |text: &str| {
        let key: Value = serde_json::from_str(text).unwrap();
        key["fingerprint"].as_str().unwrap().to_owned()
    };
    let mut known = HashSet::new();
    for round in 0..3 {
        let (status, text) = daemon.request("POST", "/v1/keys", Some(&wish));
        assert_eq!(status, 201, "round {round}");
        assert!(known.insert(fingerprint(&text)), "a deleted key came back");
        let (status, deleted) = daemon.request("DELETE", ALICE_PATH, None);
        assert_eq!((status, fingerprint(&deleted)), (200, fingerprint(&text)));
        if round == 1 {
            daemon.stop();
            daemon.run();
        } else {
            daemon.kill();
            daemon.run();
        }
        for (method, path) in [
            ("GET", ALICE_PATH.to_owned()),
            ("DELETE", ALICE_PATH.to_owned()),
            ("GET", format!("{ALICE_PATH}/public.asc")),
        ] {
            assert_eq!(
                daemon.request(method, &path, None).0,
                404,
                "{method} {path}"
            );
        }
        let sign = json!({"digest": "sha256", "hash": "00".repeat(32), "purpose": "openpgp"});
        let path = format!("{ALICE_PATH}/sign");
        assert_eq!(
            daemon.request("POST", &path, Some(&sign.to_string())).0,
            404
        );
        assert_eq!(
            daemon.request("GET", "/v1/keys", None).1.trim(),
            r#"{"keys":[],"next":null}"#
        );
        assert_eq!(daemon.status()["keys"], 0);
    }
    let (_, text) = daemon.request("POST", "/v1/keys", Some(&wish));
    assert!(known.insert(fingerprint(&text)));
    assert_eq!(daemon.status()["keys"], 1);
}

#[test]
fn no_signature_is_made_after_a_deletion_was_answered() {
    let state = State::new();
    let keyring = state.open();
    let identity: Identity = ALICE.parse().unwrap();
    let mut signatures = 0;
    for _ in 0..40 {
        keyring.create(&fast(ALICE)).unwrap();
        let key = keyring.open(&identity).unwrap().unwrap();
        let (deleted, started) = (AtomicBool::new(false), Barrier::new(5));
        thread::scope(|scope| {
            let signing: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        started.wait();
                        let mut made = 0;
                        loop {
                            let was_deleted = deleted.load(Ordering::SeqCst);
                            let Ok(in_use) = keyring.begin(&key) else {
                                return made;
                            };
                            assert!(!was_deleted, "leave to sign after the deletion");
                            in_use
                                .sign(Purpose::OpenPgp, Digest::Sha256, &[0; 32])
                                .unwrap();
                            // The use lasts beyond the signature, until what was signed is written.
                            assert!(!deleted.load(Ordering::SeqCst), "the deletion did not wait");
                            drop(in_use);
                            made += 1;
                        }
                    })
                })
                .collect();
            started.wait();
            thread::sleep(Duration::from_millis(2));
            assert!(keyring.delete(&identity).unwrap().is_some());
            deleted.store(true, Ordering::SeqCst);
            signatures += signing
                .into_iter()
                .map(|made| made.join().unwrap())
                .sum::<u32>();
        });
        assert!(keyring.open(&identity).unwrap().is_none());
    }
    assert!(signatures > 0, "nothing was signed at the same time");
}

#[test]
fn packages_that_are_dropped_during_a_deletion_never_get_the_deleted_key_afterwards() {
    let mut daemon = daemon();
    daemon.run();
    let project = daemon.project("alice/tools");
    quick_package(&project, "first", 100, rpm::RpmFormat::V4);
    daemon.settle(&project);
    let old = Rpmdb::new(&daemon.export(ALICE));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let stage = tempfile::tempdir_in(daemon.dir.path()).unwrap();
            for number in 0.. {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let path =
                    quick_package(stage.path(), &format!("p{number}"), 100, rpm::RpmFormat::V4);
                fs::rename(&path, project.join(path.file_name().unwrap())).unwrap();
            }
        });
        thread::sleep(Duration::from_millis(200));
        assert_eq!(daemon.request("DELETE", ALICE_PATH, None).0, 200);
        // Whatever is dropped from here on comes after the answer.
        let late = daemon.project("alice/tools/late");
        let path = quick_package(&late, "late", 100, rpm::RpmFormat::V4);
        daemon.settle(&late);
        stop.store(true, Ordering::SeqCst);
        assert!(!old.is_signed(&path), "{}", old.check(&path).1);
        assert!(Rpmdb::new(&daemon.export(ALICE)).is_signed(&path));
    });
}

#[test]
fn old_database_files_do_not_bring_a_deleted_key_back() {
    let state = State::new();
    let identity: Identity = ALICE.parse().unwrap();
    let keyring = state.open();
    let slots = state.dir.path().join("slots");
    let fingerprint = keyring
        .create(&fast(ALICE))
        .unwrap()
        .into_entry()
        .fingerprint;
    let kept: Identity = "kept@example.org".parse().unwrap();
    keyring.create(&fast(kept.as_str())).unwrap();
    drop(keyring);
    let (store, backup) = (state.dir.path().join("store"), state.dir.path().join("old"));
    copy_directory(&store, &backup);
    let before = fs::read(&slots).unwrap();

    let keyring = state.open();
    let entry = keyring.keystore().find(&identity).unwrap().unwrap();
    keyring.delete(&identity).unwrap().unwrap();
    assert!(
        keyring.keystore().unlock(&entry).is_err(),
        "unlocked from memory"
    );
    drop(keyring);
    let after = fs::read(&slots).unwrap();
    assert_eq!(before.len(), after.len());
    let zeroed = |bytes: &[u8]| bytes.chunks(32).filter(|slot| *slot == [0; 32]).count();
    assert_eq!((zeroed(&before), zeroed(&after)), (0, 1));

    fs::remove_dir_all(&store).unwrap();
    copy_directory(&backup, &store);
    let keyring = state.open();
    assert!(keyring.keystore().find(&identity).unwrap().is_none());
    assert!(keyring.open(&identity).unwrap().is_none());
    let listed = keyring.keystore().list(None, 10).unwrap();
    assert_eq!(listed.len(), 1, "only the other key");
    assert!(keyring.open(&kept).unwrap().is_some());
    let new = keyring.create(&fast(ALICE)).unwrap();
    assert!(matches!(&new, Creation::New(_)));
    assert_ne!(new.into_entry().fingerprint, fingerprint);
}

#[test]
fn keys_that_were_answered_survive_a_kill_at_any_moment() {
    let mut daemon = daemon();
    daemon.run();
    let mut answered: Vec<(String, String)> = Vec::new();
    let mut state: u64 = 0x5eed;
    for round in 0..15 {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let pause = Duration::from_micros(2000 + (state >> 33) % 60_000);
        let stop = AtomicBool::new(false);
        let socket = daemon.dir.path().join("api.sock");
        let made: Vec<(String, String)> = thread::scope(|scope| {
            let askers: Vec<_> = (0..4)
                .map(|asker| {
                    let (stop, socket) = (&stop, &socket);
                    scope.spawn(move || {
                        let mut made = Vec::new();
                        for number in 0.. {
                            if stop.load(Ordering::SeqCst) {
                                break;
                            }
                            let identity = format!("r{round}a{asker}n{number}@example.org");
                            let Some(key) = created(socket, &identity) else {
                                break;
                            };
                            made.push((identity, key));
                        }
                        made
                    })
                })
                .collect();
            thread::sleep(pause);
            daemon.kill();
            stop.store(true, Ordering::SeqCst);
            askers
                .into_iter()
                .flat_map(|asker| asker.join().unwrap())
                .collect()
        });
        answered.extend(made);
        daemon.run();
        for (identity, fingerprint) in &answered {
            let (status, text) = daemon.request("GET", &format!("/v1/keys/{identity}"), None);
            assert_eq!(status, 200, "{identity} is lost");
            let key: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                key["fingerprint"], **fingerprint,
                "{identity} has another key"
            );
        }
        // Only the last round's can be new; what was there is not looked at again in full.
        if answered.len() > 60 {
            answered.drain(..answered.len() - 60);
        }
    }
    assert!(!answered.is_empty());
    let listed = daemon.signdrop(["key", "list", "--json"]);
    let count = listed.stdout.split(|byte| *byte == b'\n').count() - 1;
    assert_eq!(
        daemon.status()["keys"],
        count,
        "the count is right after all this"
    );
}

/// Asks for a key on a connection of its own; answers the fingerprint if 201 came.
fn created(socket: &Path, identity: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    let body = json!({ "identity": identity }).to_string();
    write!(
        stream,
        "POST /v1/keys HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let key: Value = serde_json::from_str(body).ok()?;
    assert!(head.starts_with("HTTP/1.1 201"), "{text}");
    Some(key["fingerprint"].as_str()?.to_owned())
}

#[test]
fn a_file_of_slots_that_is_older_than_the_store_takes_no_other_key_with_it() {
    let mut daemon = daemon();
    daemon.run();
    let make = |daemon: &Daemon, email: &str| {
        let body = json!({ "identity": email }).to_string();
        daemon.request("POST", "/v1/keys", Some(&body))
    };
    let [first, second, third] = ["first@e.org", "second@e.org", "third@e.org"];
    let slots = daemon.dir.path().join("state/slots");
    assert_eq!(make(&daemon, first).0, 201);
    let older = fs::read(&slots).unwrap();
    assert_eq!(make(&daemon, second).0, 201);
    daemon.stop();
    let right = fs::read(&slots).unwrap();
    assert!(right.len() > older.len());

    fs::write(&slots, &older).unwrap();
    daemon.run();
    let count = |daemon: &Daemon| {
        let (status, body) = daemon.request("GET", "/v1/keys", None);
        assert_eq!(status, 200, "{body}");
        let page: Value = serde_json::from_str(&body).unwrap();
        page["keys"].as_array().unwrap().len()
    };
    assert_eq!(count(&daemon), 2, "none is taken for deleted");
    assert_eq!(daemon.request("GET", "/metrics", None).0, 200);
    let sign = |daemon: &Daemon, email: &str| {
        let path = format!("/v1/keys/{email}/sign");
        let body = json!({"digest": "sha256", "hash": "00".repeat(32), "purpose": "openpgp"});
        daemon.request("POST", &path, Some(&body.to_string()))
    };
    assert_eq!(sign(&daemon, first).0, 200);
    let whole = format!("has {} bytes of {}", older.len(), right.len());
    for (status, body) in [sign(&daemon, second), make(&daemon, third)] {
        assert_eq!(status, 503, "{body}");
        assert!(body.contains(&whole), "{body}");
    }
    daemon.stop();
    let store = daemon.dir.path().join("state");
    let export = |output: &str| {
        let (output, phrase) = (
            daemon.dir.path().join(output),
            daemon.dir.path().join("phrase"),
        );
        fs::write(&phrase, "a passphrase\n").unwrap();
        daemon.signdrop([
            "key".as_ref(),
            "export".as_ref(),
            "--secret".as_ref(),
            "--all".as_ref(),
            "--store".as_ref(),
            store.as_os_str(),
            "-c".as_ref(),
            daemon.config().as_os_str(),
            "--passphrase-file".as_ref(),
            phrase.as_os_str(),
            "--output".as_ref(),
            output.as_os_str(),
        ])
    };
    let output = export("some");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(second) && text.contains(&whole), "{text}");
    assert!(!text.contains(first), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("1 private keys"));

    // The right one brings all back.
    fs::write(&slots, &right).unwrap();
    let output = export("all");
    assert!(output.status.success(), "{output:?}");

    // Where it is lost, to delete the key that needs it harms no other, and the advice lets new keys be made.
    fs::write(&slots, &older).unwrap();
    daemon.run();
    assert_eq!(
        daemon.request("DELETE", "/v1/keys/second@e.org", None).0,
        200
    );
    daemon.stop();
    let file = fs::OpenOptions::new().write(true).open(&slots).unwrap();
    file.set_len(right.len() as u64).unwrap();
    daemon.run();
    assert_eq!(make(&daemon, third).0, 201);
    assert_eq!(make(&daemon, second).0, 201);
    assert_eq!(
        daemon.request("DELETE", "/v1/keys/second@e.org", None).0,
        200
    );
    assert_eq!(count(&daemon), 2);
    for email in [first, third] {
        assert_eq!(sign(&daemon, email).0, 200, "{email}");
    }
}

#[test]
fn a_start_without_the_right_master_key_is_refused_and_says_why() {
    let mut daemon = daemon();
    daemon.run();
    daemon.request(
        "POST",
        "/v1/keys",
        Some(&json!({"identity": ALICE}).to_string()),
    );
    daemon.stop();
    let path = daemon.dir.path().join("master.key");
    let right = fs::read(&path).unwrap();
    let other = MasterKey::generate().unwrap().to_base64().to_string();
    let refuse = |daemon: &mut Daemon, why: &str| {
        daemon.spawn();
        assert_eq!(
            daemon.wait_exit().code(),
            Some(2),
            "{why}\n{}",
            daemon.log()
        );
        daemon.until_logged(why);
        // Each command on the store refuses it as well.
        let output = daemon.signdrop([
            "key",
            "show",
            "--store",
            daemon.dir.path().join("state").to_str().unwrap(),
            "-c",
            daemon.config().to_str().unwrap(),
            ALICE,
        ]);
        assert_eq!(output.status.code(), Some(2), "{why}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(why), "{text}");
        assert!(!daemon.log().contains(other.trim()));
    };
    fs::write(&path, &other).unwrap();
    refuse(&mut daemon, "is not the one that this store was made with");
    for wrong in [&right[..right.len() / 2], b"", b"nonsense", &[0; 32]] {
        fs::write(&path, wrong).unwrap();
        refuse(&mut daemon, "a master key is 32 random bytes in base64");
    }
    fs::write(&path, &right).unwrap();
    for mode in [0o644, 0o640, 0o604, 0o660, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        refuse(&mut daemon, &format!("its mode is {mode:04o}"));
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&path, Some(4321), None).unwrap();
    refuse(&mut daemon, "belongs to user 4321");
    fs::remove_file(&path).unwrap();
    refuse(&mut daemon, "there is no master key at");
    // Nor is a new one made in the place of the one that is missing.
    let output = daemon.signdrop(["init", "-c", daemon.config().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!path.exists());
    fs::write(&path, &right).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    daemon.run();
    assert_eq!(
        daemon.request("GET", ALICE_PATH, None).0,
        200,
        "all is well again"
    );
}

#[test]
fn no_secret_byte_is_in_any_file_log_or_answer() {
    let mut daemon = Daemon::prepare("");
    daemon.environment("RUST_LOG", "trace");
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&config.replace("prepared = 0", "prepared = 2"));
    daemon.run();
    let mut answers = String::new();
    for (name, algorithm) in [
        ("a", "rsa2048"),
        ("b", "ed25519"),
        ("c", "nistp384"),
        ("d", "rsa2048"),
    ] {
        let wish = json!({"identity": format!("{name}@example.org"), "algorithm": algorithm});
        answers += &daemon
            .request("POST", "/v1/keys", Some(&wish.to_string()))
            .1;
        answers += &daemon
            .request("GET", &format!("/v1/keys/{name}@example.org"), None)
            .1;
        answers += &daemon
            .request(
                "GET",
                &format!("/v1/keys/{name}@example.org/public.asc"),
                None,
            )
            .1;
        let sign = json!({"digest": "sha256", "hash": "00".repeat(32), "purpose": "openpgp"});
        let path = format!("/v1/keys/{name}@example.org/sign");
        answers += &daemon.request("POST", &path, Some(&sign.to_string())).1;
    }
    let project = daemon.project("alice/tools");
    quick_package(&project, "p", 100, rpm::RpmFormat::V4);
    daemon.settle(&project);
    for path in ["/v1/keys", "/v1/status", "/metrics", "/readyz"] {
        answers += &daemon.request("GET", path, None).1;
    }
    daemon.stop();
    let log = daemon.log();
    assert!(log.contains("TRACE"), "trace is not on");

    // The secrets, as the library decrypts them.
    let state_dir = daemon.dir.path().join("state");
    let master_text = fs::read_to_string(daemon.dir.path().join("master.key")).unwrap();
    let keystore = {
        let store = Store::open(&state_dir.join("store")).unwrap();
        let master = MasterKey::parse(master_text.as_bytes()).unwrap();
        Keystore::open(&store, &state_dir, master).unwrap()
    };
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    for entry in keystore.list(None, 100).unwrap() {
        let pkcs8 = keystore.unlock(&entry).unwrap().to_pkcs8().unwrap();
        let key = openssl::pkey::PKey::private_key_from_pkcs8(&pkcs8).unwrap();
        if let Ok(rsa) = key.rsa() {
            secrets.extend(
                [rsa.d(), rsa.p().unwrap(), rsa.q().unwrap()].map(|number| number.to_vec()),
            );
        } else if let Ok(ec) = key.ec_key() {
            secrets.push(ec.private_key().to_vec());
        } else {
            secrets.push(key.raw_private_key().unwrap());
        }
    }
    assert_eq!(secrets.len(), 3 * 3 + 2, "three RSA keys and two others");
    drop(keystore);
    secrets.push(openssl::base64::decode_block(master_text.trim()).unwrap());
    let mut texts = vec![log.into_bytes(), answers.into_bytes()];
    texts.extend(
        files_below(&state_dir)
            .iter()
            .map(|path| fs::read(path).unwrap()),
    );
    assert!(texts.len() >= 4);
    for secret in &secrets {
        // Sixteen bytes of it, from the start and from the middle, in each way in which they could be written.
        for part in [&secret[..16], &secret[secret.len() / 2..][..16]] {
            let debug = format!("{part:?}");
            for form in [
                part.to_vec(),
                hex::encode(part).into_bytes(),
                hex::encode_upper(part).into_bytes(),
                openssl::base64::encode_block(&part[..15]).into_bytes(),
                debug.trim_matches(['[', ']']).as_bytes().to_vec(),
            ] {
                assert!(texts.iter().all(|text| !contains(text, &form)));
            }
        }
    }
    assert!(
        texts
            .iter()
            .all(|text| !contains(text, master_text.trim().as_bytes()))
    );
}

#[test]
fn nobody_else_reads_the_daemons_memory_nor_gets_a_core_dump() {
    let mut daemon = daemon();
    // As a user of its own, who owns everything that the daemon needs.
    for path in [daemon.dir.path().to_owned(), daemon.config()] {
        assert!(
            run(Command::new("chown").arg("-R").arg("65534:65534").arg(path))
                .status
                .success()
        );
    }
    daemon.wrap([
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
    ]);
    daemon.run();
    let proc = PathBuf::from(format!("/proc/{}", daemon.pid()));
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let words: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
    // The kernel gives the files of a process that must not be dumped to root.
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(fs::metadata(proc.join("mem")).unwrap().uid(), 0);
    let status = fs::read_to_string(proc.join("status")).unwrap();
    assert!(status.contains("Uid:\t65534\t65534"), "{status}");
    for file in ["mem", "environ", "maps"] {
        let output = run(Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--bounding-set=-all",
            ])
            .args(["dd", "status=none", "count=1", "of=/dev/null"])
            .arg(format!("if={}", proc.join(file).display())));
        assert!(
            !output.status.success(),
            "{file} can be read by the same user"
        );
    }
}

#[test]
fn a_record_under_another_identity_does_not_unlock() {
    let state = State::new();
    let keyring = state.open();
    let keystore = keyring.keystore();
    let mut moved = keyring.create(&fast(ALICE)).unwrap().into_entry();
    let other = keyring
        .create(&fast("mallory@example.org"))
        .unwrap()
        .into_entry();
    assert!(keystore.unlock(&moved).is_ok());
    moved.identity = other.identity.clone();
    assert!(keystore.unlock(&moved).is_err(), "bound to the identity");
    moved.identity = ALICE.parse().unwrap();
    moved.fingerprint = other.fingerprint;
    assert!(keystore.unlock(&moved).is_err(), "bound to the fingerprint");
}

#[test]
fn a_prepared_key_is_used_once_and_another_takes_its_place() {
    let state = State::new();
    let keyring = state.open();
    let keystore = keyring.keystore();
    let rsa = Algorithm::Rsa2048;
    assert!(keystore.prepare(rsa, 2).unwrap());
    assert!(keystore.prepare(rsa, 2).unwrap());
    assert!(!keystore.prepare(rsa, 2).unwrap(), "two are there");
    assert!(
        !keystore.prepare(Algorithm::Ed25519, 2).unwrap(),
        "not worth it"
    );
    let mut numbers = HashSet::new();
    for number in 0..3 {
        let entry = keyring
            .create(&wish(&format!("p{number}@example.org"), rsa))
            .unwrap()
            .into_entry();
        let secret = keystore.unlock(&entry).unwrap().to_pkcs8().unwrap();
        assert!(
            numbers.insert(secret.to_vec()),
            "a prepared key was used twice"
        );
    }
    assert!(keystore.prepare(rsa, 1).unwrap(), "all were used");
    // At the same time as well.
    assert!(keystore.prepare(rsa, 2).unwrap());
    let keyring = Arc::new(keyring);
    let made: Vec<_> = (0..4)
        .map(|number| {
            let keyring = keyring.clone();
            thread::spawn(move || {
                let wish = wish(&format!("q{number}@example.org"), rsa);
                let entry = keyring.create(&wish).unwrap().into_entry();
                keyring
                    .keystore()
                    .unlock(&entry)
                    .unwrap()
                    .to_pkcs8()
                    .unwrap()
                    .to_vec()
            })
        })
        .collect();
    for made in made {
        assert!(numbers.insert(made.join().unwrap()));
    }
}
