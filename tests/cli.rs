//! The command line: what it prints, what it refuses, and with which exit status it ends.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::Write as _,
    os::unix::{
        ffi::OsStringExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use common::{Rpmdb, daemon::Daemon, quick_package, run};
use serde_json::Value;

const ALICE: &str = "alice#tools@copr.example.org";

/// The program without a daemon in its environment.
fn signdrop<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
        .env_remove("SIGNDROP_API")
        .stdin(Stdio::null())
        .args(arguments))
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The objects that `--json` prints, one a line.
fn objects(output: &Output) -> Vec<Value> {
    let text = out(output);
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

fn paths(words: &[&str], files: &[&Path]) -> Vec<OsString> {
    let words = words.iter().map(OsString::from);
    words
        .chain(files.iter().map(|file| file.as_os_str().to_owned()))
        .collect()
}

/// `--store DIR -c FILE` of a daemon that does not run.
fn store(daemon: &Daemon) -> [String; 4] {
    [
        "--store".into(),
        daemon.dir.path().join("state").display().to_string(),
        "-c".into(),
        daemon.config().display().to_string(),
    ]
}

fn tamper(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn each_exit_status_has_its_situation() {
    let daemon = Daemon::start("");
    let dir = daemon.dir.path().to_owned();
    let package = quick_package(&dir, "p", 100, rpm::RpmFormat::V4);
    let config = daemon.config();
    let config = config.to_str().unwrap();

    // 0: all is well.
    for words in [
        &["check", "-c", config][..],
        &["status"],
        &["key", "generate", ALICE],
        &["key", "generate", ALICE],
        &["key", "list"],
    ] {
        let output = daemon.signdrop(words);
        assert_eq!(status(&output), 0, "{words:?}: {output:?}");
        assert_eq!(err(&output), "", "{words:?}");
    }
    // 1: a file or a request failed, and is named.
    for (words, file) in [
        (&["inspect"][..], dir.join("missing.rpm")),
        (&["inspect"], config.into()),
        (&["unsign"], config.into()),
        (&["sign", "-u", ALICE], dir.join("missing.rpm")),
        (&["sign", "-u", "nobody@example.org"], package.clone()),
        (&["wait"], dir.join("missing")),
    ] {
        let output = daemon.signdrop(paths(words, &[&file]));
        assert_eq!(status(&output), 1, "{words:?}: {output:?}");
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(err(&output).contains(name), "{words:?}: {output:?}");
    }
    for words in [
        ["key", "show", "nobody@example.org"],
        ["key", "export", "nobody@example.org"],
    ] {
        let output = daemon.signdrop(words);
        assert_eq!(status(&output), 1, "{words:?}: {output:?}");
        assert!(err(&output).contains("nobody@example.org"));
    }
    // 2: usage or configuration.
    let broken = dir.join("broken.toml");
    fs::write(&broken, "state_dir = \"/x\"\nlisten = 1\n").unwrap();
    let broken = broken.to_str().unwrap();
    for words in [
        &[][..],
        &["nonsense"],
        &["sign"],
        &["sign", "--digest", "md5", "x.rpm"],
        &["sign", "-u", "nobody", "x.rpm"],
        &["wait", "--timeout", "soon", "/"],
        &["key", "generate", "a b@example.org"],
        &["key", "generate", ALICE, "--algorithm", "dsa"],
        &["verify", "x.rpm"],
        &["status", "--api", "nonsense"],
        &["status", "extra"],
        &["check", "-c", broken],
        &["serve", "-c", broken],
        &["check", "-c", "/nonexistent/signdrop.toml"],
        &["sign", "x.rpm"],
    ] {
        let output = signdrop(words);
        assert_eq!(status(&output), 2, "{words:?}: {output:?}");
        assert!(!err(&output).is_empty());
    }
    let said = err(&signdrop(["check", "-c", broken]));
    assert!(said.contains("line 2") && said.contains("listen"), "{said}");
    // 3: nobody is there.
    for api in ["unix:/nonexistent/api.sock", "tcp:127.0.0.1:1"] {
        for words in [
            &["status"][..],
            &["key", "list"],
            &["wait", "/"],
            &["sign", "-u", "a@example.org", "x.rpm"],
        ] {
            let output = signdrop(words.iter().chain(&["--api", api]));
            assert_eq!(status(&output), 3, "{words:?} {api}: {output:?}");
            assert!(err(&output).contains(api), "{output:?}");
        }
    }
    // 4: the time is over.
    let project = daemon.project("alice/tools");
    let mut held = fs::File::create(project.join("held.rpm")).unwrap();
    held.write_all(b"half").unwrap();
    let output = daemon.signdrop(paths(&["wait", "--timeout", "1"], &[&project]));
    assert_eq!(status(&output), 4, "{output:?}");
    assert!(err(&output).contains("timed out"), "{output:?}");
    drop(held);
}

#[test]
fn files_anywhere_are_signed_and_unsigned_by_path_and_key() {
    let daemon = Daemon::start("");
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("tmp/copr-fork-1");
    fs::create_dir_all(&deep).unwrap();
    let files: Vec<PathBuf> = (0..5)
        .map(|number| quick_package(&deep, &format!("p{number}"), 100, rpm::RpmFormat::V4))
        .collect();
    fs::write(deep.join("notes.txt"), "not an artifact").unwrap();
    let originals: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    daemon.signdrop(["key", "generate", ALICE]);
    let rpmdb = Rpmdb::new(&daemon.export(ALICE));

    let sign = |words: &[&str], files: &[&Path]| {
        let output = daemon.signdrop(paths(words, files));
        assert_eq!(status(&output), 0, "{output:?}");
        objects(&output)
    };
    let signed = sign(&["sign", "--json", "-u", ALICE], &[&deep]);
    assert_eq!(signed.len(), 5);
    assert!(
        signed
            .iter()
            .all(|line| line["outcome"] == "signed" && line["identity"] == ALICE)
    );
    assert!(files.iter().all(|path| rpmdb.is_signed(path)));
    let again = sign(&["sign", "--json", "-u", ALICE], &[&deep]);
    assert!(again.iter().all(|line| line["outcome"] == "unchanged"));
    let other = sign(
        &["sign", "--json", "-u", ALICE, "--digest", "sha512"],
        &[&files[0]],
    );
    assert_eq!(other[0]["outcome"], "signed");
    let (good, said) = rpmdb.check(&files[0]);
    assert!(good && said.contains("SHA512 Signature"), "{said}");

    let unsigned = sign(&["unsign", "--json"], &[&deep]);
    assert!(unsigned.iter().all(|line| line["outcome"] == "unsigned"));
    for (path, original) in files.iter().zip(&originals) {
        assert_eq!(&fs::read(path).unwrap(), original, "the very bytes");
        assert!(!rpmdb.is_signed(path));
    }
    let unsigned = sign(&["unsign", "--json"], &[&deep]);
    assert!(unsigned.iter().all(|line| line["outcome"] == "unchanged"));

    // Without -u, the drop directory says whose key it is.
    let inside = quick_package(
        &daemon.project("alice/tools"),
        "in",
        100,
        rpm::RpmFormat::V4,
    );
    daemon.settle(&inside);
    daemon.signdrop(paths(&["unsign"], &[&inside]));
    let config = daemon.config();
    let config = config.to_str().unwrap();
    daemon.settle(&inside);
    let found = sign(&["sign", "--json", "-c", config], &[&inside]);
    assert_eq!(found[0]["identity"], ALICE);
    let outside = daemon.signdrop(paths(&["sign", "-c", config], &[&files[0]]));
    assert_eq!(status(&outside), 1);
    assert!(err(&outside).contains("-u EMAIL"), "{outside:?}");

    // A bad file does not keep the good ones from being signed, and stays as it is.
    let bad = deep.join("bad.rpm");
    fs::write(&bad, "not a package").unwrap();
    let link = deep.join("link.rpm");
    std::os::unix::fs::symlink(&files[1], &link).unwrap();
    let output = daemon.signdrop(paths(&["sign", "-u", ALICE], &[&files[0], &bad, &link]));
    assert_eq!(status(&output), 1);
    let said = err(&output);
    assert!(
        said.contains("bad.rpm: ") && said.contains("link.rpm: ") && said.contains("2 of 3"),
        "{said}"
    );
    assert_eq!(fs::read(&bad).unwrap(), b"not a package");
    assert!(rpmdb.is_signed(&files[0]) && !rpmdb.is_signed(&files[1]));
}

#[test]
fn all_commands_work_on_a_store_without_a_daemon() {
    let mut daemon = Daemon::prepare("");
    let store = store(&daemon);
    let command = |words: &[&str], files: &[&Path]| {
        let words: Vec<&str> = words
            .iter()
            .copied()
            .chain(store.iter().map(String::as_str))
            .collect();
        signdrop(paths(&words, files))
    };
    let made = command(
        &[
            "key",
            "generate",
            ALICE,
            "--algorithm",
            "ed25519",
            "--name",
            "alice",
            "--expires",
            "1y",
            "--json",
        ],
        &[],
    );
    let made = &objects(&made)[0];
    assert_eq!(made["user_id"], format!("alice <{ALICE}>"));
    let lifetime = made["expires"].as_u64().unwrap() - made["created"].as_u64().unwrap();
    assert_eq!(lifetime, 365 * 86400);
    command(
        &[
            "key",
            "generate",
            "bob@example.org",
            "--algorithm",
            "ed25519",
        ],
        &[],
    );
    let shown = command(&["key", "show", "--json", ALICE], &[]);
    assert_eq!(&objects(&shown)[0], made);
    let listed = objects(&command(&["key", "list", "--json"], &[]));
    assert_eq!(listed.len(), 2);
    let dir = tempfile::tempdir().unwrap();
    let package = quick_package(dir.path(), "p", 100, rpm::RpmFormat::V4);
    let signed = command(&["sign", "-u", "bob@example.org"], &[&package]);
    assert_eq!(status(&signed), 0, "{signed:?}");
    let bob = out(&command(&["key", "export", "bob@example.org"], &[]));
    assert!(Rpmdb::new(&bob).is_signed(&package));
    let bad = command(
        &["key", "generate", "c@example.org", "--expires", "soon"],
        &[],
    );
    assert_eq!(status(&bad), 2);

    // The same through a daemon, and not beside it.
    daemon.run();
    assert_eq!(objects(&daemon.signdrop(["key", "list", "--json"])), listed);
    let beside = command(&["key", "list"], &[]);
    assert_eq!(status(&beside), 1);
    assert!(
        err(&beside).contains("in use by another signdrop"),
        "{beside:?}"
    );
    assert!(daemon.stop().success());

    let deleted = command(&["key", "delete", "--yes", ALICE], &[]);
    assert!(out(&deleted).contains(made["fingerprint"].as_str().unwrap()));
    assert_eq!(status(&command(&["key", "show", ALICE], &[])), 1);
    assert_eq!(status(&command(&["sign", "-u", ALICE], &[&package])), 1);
    let both = signdrop(["key", "list", "--api", "unix:/x", "--store", "/x"]);
    assert_eq!(status(&both), 2, "one or the other");
}

#[test]
fn a_key_is_deleted_only_when_somebody_has_said_so() {
    let daemon = Daemon::start("");
    daemon.signdrop(["key", "generate", ALICE]);
    let delete = |input: Stdio| {
        run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
            .env("SIGNDROP_API", daemon.api())
            .args(["key", "delete", ALICE])
            .stdin(input))
    };
    let yes = daemon.dir.path().join("answer");
    fs::write(&yes, format!("{ALICE}\n")).unwrap();
    for input in [Stdio::null(), fs::File::open(&yes).unwrap().into()] {
        let output = delete(input);
        assert_eq!(status(&output), 2, "{output:?}");
        assert!(err(&output).contains("--yes"));
    }
    // On a terminal, the e-mail has to be typed.
    let on_terminal = |typed: &str| {
        let typed_file = daemon.dir.path().join("typed");
        fs::write(&typed_file, typed).unwrap();
        let command = format!("{} key delete '{ALICE}'", env!("CARGO_BIN_EXE_signdrop"));
        run(Command::new("script")
            .args(["-q", "-e", "-E", "never", "-c", &command, "/dev/null"])
            .env("SIGNDROP_API", daemon.api())
            .stdin(fs::File::open(&typed_file).unwrap()))
    };
    assert_eq!(status(&on_terminal("yes\n")), 1);
    assert_eq!(
        status(&daemon.signdrop(["key", "show", ALICE])),
        0,
        "still there"
    );
    let output = on_terminal(&format!("{ALICE}\n"));
    assert_eq!(status(&output), 0, "{output:?}");
    assert_eq!(status(&daemon.signdrop(["key", "show", ALICE])), 1);
    assert_eq!(
        status(&daemon.signdrop(["key", "delete", "--yes", ALICE])),
        1,
        "nothing left"
    );
}

#[test]
fn verify_believes_only_whole_files_signed_by_a_known_key() {
    let daemon = Daemon::start("");
    let dir = tempfile::tempdir().unwrap();
    for identity in [ALICE, "mallory@example.org"] {
        daemon.signdrop(["key", "generate", identity]);
    }
    let ring = dir.path().join("alice.asc");
    fs::write(&ring, daemon.export(ALICE)).unwrap();
    let package = |name: &str| quick_package(dir.path(), name, 5000, rpm::RpmFormat::V4);
    let signed_by = |name: &str, identity: &str| {
        let path = package(name);
        let output = daemon.signdrop(paths(&["sign", "-u", identity], &[&path]));
        assert_eq!(status(&output), 0, "{output:?}");
        path
    };
    let verify = |keyring: &Path, files: &[&Path]| {
        let mut words = paths(&["verify", "--json", "--keyring"], &[keyring]);
        words.extend(paths(&[], files));
        signdrop(words)
    };
    let good = signed_by("good", ALICE);
    let foreign = signed_by("foreign", "mallory@example.org");
    let tampered = signed_by("tampered", ALICE);
    tamper(&tampered);
    let truncated = signed_by("truncated", ALICE);
    let length = fs::metadata(&truncated).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(&truncated)
        .unwrap()
        .set_len(length - 100)
        .unwrap();
    let header = signed_by("header", ALICE);
    let mut bytes = fs::read(&header).unwrap();
    let name = b"A package for tests";
    let at = bytes
        .windows(name.len())
        .position(|window| window == name)
        .unwrap();
    bytes[at] = b'B';
    fs::write(&header, bytes).unwrap();
    let unsigned = package("unsigned");

    let output = verify(&ring, &[&good]);
    assert_eq!(status(&output), 0, "{output:?}");
    let shown: Value =
        serde_json::from_slice(&daemon.signdrop(["key", "show", "--json", ALICE]).stdout).unwrap();
    assert_eq!(objects(&output)[0]["keys"][0], shown["fingerprint"]);
    let rpmdb = Rpmdb::new(&daemon.export(ALICE));
    for (path, why) in [
        (&foreign, "not in the keyring"),
        (&tampered, ""),
        (&truncated, ""),
        (&header, ""),
        (&unsigned, "not signed"),
    ] {
        assert!(!rpmdb.is_signed(path), "rpm says otherwise of {path:?}");
        let output = verify(&ring, &[path]);
        assert_eq!(status(&output), 1, "{path:?}: {output:?}");
        assert!(
            err(&output).contains(why) && out(&output).is_empty(),
            "{output:?}"
        );
    }
    let all = verify(&ring, &[&good, &foreign, &unsigned]);
    assert_eq!((status(&all), objects(&all).len()), (1, 1));
    assert!(err(&all).contains("2 of 3"), "{all:?}");
    // Both keys in one ring.
    let both = dir.path().join("both.asc");
    fs::write(
        &both,
        daemon.export(ALICE) + &daemon.export("mallory@example.org"),
    )
    .unwrap();
    assert_eq!(status(&verify(&both, &[&good, &foreign])), 0);
    let empty = dir.path().join("empty.asc");
    fs::write(&empty, "").unwrap();
    assert_ne!(status(&verify(&empty, &[&good])), 0);
    assert_ne!(
        status(&verify(&dir.path().join("missing.asc"), &[&good])),
        0
    );
}

#[test]
fn json_is_one_object_a_line_everywhere() {
    let daemon = Daemon::start("");
    let project = daemon.project("alice/tools");
    quick_package(&project, "v4", 100, rpm::RpmFormat::V4);
    quick_package(&project, "v6", 100, rpm::RpmFormat::V6);
    fs::write(project.join("bad.rpm"), "not a package").unwrap();
    daemon.wait(&project);
    for (words, lines, ends) in [
        (&["status", "--json"][..], 1, 0),
        (&["key", "list", "--json"], 1, 0),
        (&["key", "show", "--json", ALICE], 1, 0),
        (&["key", "generate", "--json", ALICE], 1, 0),
    ] {
        let output = daemon.signdrop(words);
        assert_eq!(
            (objects(&output).len(), status(&output)),
            (lines, ends),
            "{words:?}"
        );
    }
    for words in [
        &["inspect", "--json"][..],
        &["sign", "--json", "-u", ALICE],
        &["unsign", "--json"],
    ] {
        let output = daemon.signdrop(paths(words, &[&project]));
        assert_eq!(
            (objects(&output).len(), status(&output)),
            (2, 1),
            "{words:?}: {output:?}"
        );
        assert!(err(&output).contains("bad.rpm"));
    }
    let output = daemon.signdrop(paths(&["wait", "--json"], &[&project]));
    let end = &objects(&output)[0];
    assert_eq!(
        (status(&output), &end["state"]),
        (1, &"settled".into()),
        "{output:?}"
    );
    assert_eq!(
        end["failed"][0]["path"],
        project.join("bad.rpm").to_str().unwrap()
    );
}

#[test]
fn inspect_shows_what_rpm_shows() {
    let daemon = Daemon::start("");
    let project = daemon.project("alice/tools");
    let path = quick_package(&project, "p", 100, rpm::RpmFormat::V4);
    daemon.settle(&project);
    let found = &objects(&daemon.signdrop(paths(&["inspect", "--json"], &[&path])))[0];
    let query = |format: &str| {
        out(&run(Command::new("rpm")
            .args(["-qp", "--nosignature", "--qf", format])
            .arg(&path)))
    };
    assert_eq!(found["nevra"], query("%{NEVRA}"));
    let said = query("%{RSAHEADER:pgpsig}");
    let signature = &found["signatures"][0];
    let key = signature["key"].as_str().unwrap().to_lowercase();
    let id = said.rsplit(' ').next().unwrap();
    assert!(key.ends_with(id) || id.ends_with(&key), "{said}: {found}");
    assert!(said.contains("SHA256"), "{said}");
    assert_eq!(
        signature["digest"]
            .as_str()
            .unwrap()
            .to_lowercase()
            .replace('-', ""),
        "sha256"
    );
    let digests: Vec<String> = found["digests"]
        .as_object()
        .unwrap()
        .values()
        .map(Value::to_string)
        .collect();
    assert!(
        digests
            .iter()
            .any(|value| value.contains(&query("%{SHA256HEADER}"))),
        "{found}"
    );
}

#[test]
fn hostile_names_reach_the_terminal_without_control_characters() {
    let daemon = Daemon::start("");
    let project = daemon.project("alice/tools");
    let names: Vec<OsString> = [
        &b"a\x1b[31mred.rpm"[..],
        b"new\nline.rpm",
        b"back\x08space\r.rpm",
        b"bell\x07\x7f.rpm",
        b"not-utf8\xff\xfe.rpm",
        b"c1-\xc2\x9b31m.rpm",
        b"percent%s%n.rpm",
    ]
    .map(|name| OsString::from_vec(name.to_vec()))
    .to_vec();
    for name in &names {
        let made = quick_package(daemon.dir.path(), "stage", 100, rpm::RpmFormat::V4);
        fs::rename(&made, project.join(name)).unwrap();
        fs::write(
            project.join(OsString::from_iter([OsStr::new("bad-"), name])),
            "bad",
        )
        .unwrap();
    }
    daemon.wait(&project);
    let ring = daemon.dir.path().join("ring.asc");
    fs::write(&ring, daemon.export(ALICE)).unwrap();
    let mut outputs = vec![daemon.signdrop(["status"])];
    let hostile = project.join(&names[0]).join("missing");
    for (words, end) in [
        (paths(&["inspect"], &[&project]), 1),
        (paths(&["unsign"], &[&project]), 1),
        (paths(&["sign", "-u", ALICE], &[&project]), 1),
        (paths(&["verify", "--keyring"], &[&ring, &project]), 1),
        (paths(&["wait", "--timeout", "60"], &[&project]), 1),
        (paths(&["wait"], &[&hostile]), 1),
        (paths(&["wait"], &[&project.join(&names[4])]), 2),
        (paths(&["verify", "--keyring"], &[&hostile, &project]), 1),
        (paths(&["inspect"], &[&hostile]), 1),
        (paths(&["key", "list", "--store"], &[&hostile]), 2),
    ] {
        let output = daemon.signdrop(&words);
        assert_eq!(status(&output), end, "{words:?}: {output:?}");
        outputs.push(output);
    }
    for output in outputs {
        for bytes in [&output.stdout, &output.stderr] {
            let text = String::from_utf8(bytes.clone()).expect("UTF-8");
            let bad = text.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(bad, None, "{text:?}");
            assert!(
                !text.lines().any(|line| line.starts_with("line.rpm")),
                "a name has made a line of its own: {text}"
            );
        }
    }
    // Nor does the log of the daemon take them.
    let log = daemon.log();
    assert!(
        !log.contains('\x1b') && !log.lines().any(|line| line.starts_with("line.rpm")),
        "{log}"
    );
}

#[test]
fn init_makes_what_is_missing_and_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("etc/signdrop.toml");
    // The template's paths are the system's; the test's own configuration leads elsewhere.
    let text = format!(
        "state_dir = \"{0}/state\"\n[keys]\nmaster_key = \"file:{0}/etc/master.key\"\n",
        dir.path().display()
    );
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(&config, &text).unwrap();
    let init = || signdrop(paths(&["init", "-c"], &[&config]));
    let first = init();
    assert_eq!(status(&first), 0, "{first:?}");
    let key = dir.path().join("etc/master.key");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode(&key), mode(&dir.path().join("state"))),
        (0o600, 0o700)
    );
    let made = fs::read(&key).unwrap();
    for _ in 0..2 {
        let again = init();
        assert_eq!(status(&again), 0, "{again:?}");
        assert!(!out(&again).contains("made  "), "{again:?}");
        assert_eq!(fs::read(&key).unwrap(), made);
        assert_eq!(fs::read_to_string(&config).unwrap(), text);
    }
    assert!(
        !out(&first).contains(String::from_utf8(made).unwrap().trim()),
        "the key is printed"
    );
    // root makes it for whom the daemon runs as.
    fs::remove_file(&key).unwrap();
    chown(dir.path().join("state"), Some(1234), Some(1235)).unwrap();
    assert_eq!(status(&init()), 0);
    let owner = fs::metadata(&key).unwrap();
    assert_eq!((owner.uid(), owner.gid(), mode(&key)), (1234, 1235, 0o600));
    // What it finds wrong it says, and leaves.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(status(&init()), 2);
    assert_eq!(mode(&key), 0o644);
    fs::write(&config, "nonsense").unwrap();
    assert_eq!(status(&init()), 2);
    assert_eq!(fs::read_to_string(&config).unwrap(), "nonsense");
}

#[test]
fn the_configuration_that_init_writes_is_understood() {
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/signdrop.toml");
    let output = signdrop(["check", "-c", template]);
    assert_eq!(status(&output), 0, "{output:?}");
    // The same with everything that is commented out in force: the defaults are the defaults.
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(template).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .map(|line| {
            let setting = line.strip_prefix('#').filter(|rest| {
                rest.trim_start().starts_with('[')
                    || (!rest.starts_with(' ') && rest.contains(" = "))
                    || rest.starts_with("  ")
            });
            setting.unwrap_or(line)
        })
        .collect();
    // Of two values for one key, the second is the one that is not the default.
    let key = |line: &str| line.split_once('=').map(|(key, _)| key.trim().to_owned());
    let all: String = lines
        .iter()
        .zip(lines.iter().skip(1).chain(&[""]))
        .filter(|(line, next)| key(line).is_none() || key(line) != key(next))
        .map(|(line, _)| format!("{line}\n"))
        .collect();
    let mut all = all;
    for name in ["drop", "packages", "mount"] {
        let there = dir.path().join(name);
        fs::create_dir(&there).unwrap();
        all = all.replace(&format!("/srv/{name}"), there.to_str().unwrap());
    }
    let path = dir.path().join("all.toml");
    fs::write(&path, &all).unwrap();
    let output = signdrop(paths(&["check", "-c"], &[&path]));
    assert_eq!(status(&output), 0, "{output:?}\n{all}");
    let text = out(&output);
    for wanted in ["rsa4096", "never", "{owner}#{project}@copr.example.org"] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
}

#[test]
fn each_shell_reads_its_completions() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, check) in [
        ("bash", &["bash", "-n"][..]),
        ("zsh", &["zsh", "-n"]),
        ("fish", &["fish", "--no-execute"]),
    ] {
        let script = out(&signdrop(["completions", shell]));
        assert!(
            script.contains("generate") && script.contains("keyring"),
            "{shell}"
        );
        let file = dir.path().join(shell);
        fs::write(&file, script).unwrap();
        let output = run(Command::new(check[0]).args(&check[1..]).arg(&file));
        assert!(output.status.success(), "{shell}: {output:?}");
    }
    // And bash completes with them.
    let script = format!(
        "source {}; COMP_WORDS=(signdrop sta); COMP_CWORD=1; _signdrop signdrop sta signdrop; echo \"${{COMPREPLY[@]}}\"",
        dir.path().join("bash").display()
    );
    assert_eq!(
        out(&run(Command::new("bash").args(["-c", &script]))).trim(),
        "status"
    );
}

#[test]
fn the_help_of_each_command_names_its_options() {
    for (words, options) in [
        (
            &[][..],
            &[
                "init",
                "serve",
                "check",
                "sign",
                "unsign",
                "inspect",
                "verify",
                "wait",
                "status",
                "key",
                "Exit status",
                "--version",
            ][..],
        ),
        (&["init"], &["--config"]),
        (&["serve"], &["--config"]),
        (&["check"], &["--config"]),
        (
            &["sign"],
            &[
                "--user",
                "--digest",
                "--json",
                "--api",
                "--store",
                "--config",
                "SIGNDROP_API",
                "sha384",
            ],
        ),
        (&["unsign"], &["--json"]),
        (&["inspect"], &["--json"]),
        (&["verify"], &["--keyring", "--json"]),
        (&["wait"], &["--timeout", "--json", "--api"]),
        (&["status"], &["--json", "--api"]),
        (
            &["key"],
            &["generate", "list", "show", "export", "extend", "delete"],
        ),
        (
            &["key", "generate"],
            &[
                "--name",
                "--algorithm",
                "--expires",
                "--json",
                "--store",
                "nistp384",
            ],
        ),
        (&["key", "list"], &["--json", "--api", "--store"]),
        (&["key", "show"], &["--json", "<EMAIL>"]),
        (
            &["key", "export"],
            &[
                "--store",
                "[EMAIL]",
                "--secret",
                "--output",
                "--passphrase-file",
            ],
        ),
        (&["key", "extend"], &["--expires", "--json", "<EMAIL>"]),
        (&["key", "delete"], &["--yes", "<EMAIL>"]),
        (&["completions"], &["bash", "zsh", "fish"]),
    ] {
        let output = signdrop(words.iter().chain(&["--help"]));
        assert_eq!(status(&output), 0, "{words:?}");
        let text = out(&output);
        for option in options {
            assert!(text.contains(option), "{words:?}: no {option} in {text}");
        }
    }
    let version = out(&signdrop(["--version"]));
    assert_eq!(
        version.trim(),
        format!("signdrop {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn whoever_has_read_enough_ends_the_output_quietly() {
    let command = format!(
        "{} completions bash | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_signdrop")
    );
    let output = run(Command::new("bash").args(["-c", &command]));
    assert_eq!((status(&output), err(&output).as_str()), (0, ""));
}
