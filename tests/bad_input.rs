//! What is wrong gets an outcome that says why, stays as it is, and keeps nothing else from being signed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, chown, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use common::{
    Rpmdb,
    daemon::{Daemon, Mounted},
    quick_package, rpmbuild, run,
};

const IDENTITY: &str = "alice#tools@copr.example.org";

/// Where the sections of a package begin.
struct Sections {
    signature: usize,
    main: usize,
    payload: usize,
}

impl Sections {
    fn of(package: &[u8]) -> Self {
        let number =
            |at: usize| u32::from_be_bytes(package[at..at + 4].try_into().unwrap()) as usize;
        let end = |at: usize| at + 16 + 16 * number(at + 8) + number(at + 12);
        let signature = 96;
        let main = end(signature).next_multiple_of(8);
        Self {
            signature,
            main,
            payload: end(main),
        }
    }
}

type Damage = fn(&mut Vec<u8>, &Sections);

fn write_u32(package: &mut [u8], at: usize, value: u32) {
    package[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// What is done to a good package, and what the reason has to say.
const DAMAGES: &[(&str, &str, Damage)] = &[
    ("empty", "the file is empty", |p, _| p.clear()),
    ("one-byte", "not an RPM package", |p, _| p.truncate(1)),
    ("half-a-lead", "truncated in the lead", |p, _| {
        p.truncate(50)
    }),
    ("lead-only", "truncated in the signature header", |p, _| {
        p.truncate(96)
    }),
    (
        "cut-in-signature-introduction",
        "truncated in the signature header",
        |p, s| p.truncate(s.signature + 15),
    ),
    (
        "cut-in-signature-index",
        "truncated in the signature header",
        |p, s| p.truncate(s.signature + 40),
    ),
    (
        "cut-in-signature-store",
        "truncated in the signature header",
        |p, s| p.truncate(s.main - 9),
    ),
    (
        "cut-behind-signature",
        "truncated in the main header",
        |p, s| p.truncate(s.main),
    ),
    (
        "cut-in-main-introduction",
        "truncated in the main header",
        |p, s| p.truncate(s.main + 15),
    ),
    (
        "cut-in-main-index",
        "truncated in the main header",
        |p, s| p.truncate(s.main + 40),
    ),
    (
        "cut-in-main-store",
        "truncated in the main header",
        |p, s| p.truncate(s.payload - 1),
    ),
    ("no-payload", "truncated in the payload", |p, s| {
        p.truncate(s.payload)
    }),
    ("cut-in-payload", "truncated in the payload", |p, s| {
        p.truncate(s.payload + 100)
    }),
    ("last-byte-missing", "truncated in the payload", |p, _| {
        p.pop();
    }),
    ("byte-too-many", "size of header and payload", |p, _| {
        p.push(0)
    }),
    (
        "two-packages-in-one",
        "size of header and payload",
        |p, _| p.extend_from_within(..),
    ),
    ("text", "not an RPM package: wrong magic", |p, _| {
        *p = b"<html>404 Not Found</html>\n".to_vec()
    }),
    (
        "an-executable",
        "not an RPM package: wrong magic",
        |p, _| p[..4].copy_from_slice(b"\x7fELF"),
    ),
    ("zeros", "not an RPM package: wrong magic", |p, _| p.fill(0)),
    (
        "package-behind-a-space",
        "not an RPM package: wrong magic",
        |p, _| p.insert(0, b' '),
    ),
    (
        "lead-of-another-signature-type",
        "malformed lead",
        |p, _| p[79] = 1,
    ),
    (
        "signature-magic",
        "malformed signature header: wrong magic",
        |p, s| p[s.signature] ^= 1,
    ),
    (
        "main-magic",
        "malformed main header: wrong magic",
        |p, s| p[s.main] ^= 1,
    ),
    (
        "no-signature-entries",
        "malformed signature header: number of index entries",
        |p, s| write_u32(p, s.signature + 8, 0),
    ),
    (
        "too-many-signature-entries",
        "malformed signature header: number of index entries",
        |p, s| write_u32(p, s.signature + 8, 33),
    ),
    (
        "four-billion-signature-entries",
        "malformed signature header: number of index entries",
        |p, s| write_u32(p, s.signature + 8, u32::MAX),
    ),
    (
        "signature-entries-that-overflow",
        "malformed signature header: number of index entries",
        |p, s| write_u32(p, s.signature + 8, 0x1000_0001),
    ),
    (
        "no-signature-store",
        "malformed signature header: length of the store",
        |p, s| write_u32(p, s.signature + 12, 0),
    ),
    (
        "signature-store-of-four-gigabytes",
        "malformed signature header: length of the store",
        |p, s| write_u32(p, s.signature + 12, u32::MAX),
    ),
    (
        "signature-store-of-sixty-megabytes",
        "truncated in the signature header",
        |p, s| write_u32(p, s.signature + 12, 60 << 20),
    ),
    ("one-signature-entry-fewer", "malformed", |p, s| {
        let count = p[s.signature + 11];
        p[s.signature + 11] = count - 1;
    }),
    ("one-signature-entry-more", "malformed", |p, s| {
        p[s.signature + 11] += 1
    }),
    ("signature-store-too-short", "malformed", |p, s| {
        let len = u32::from_be_bytes(p[s.signature + 12..s.signature + 16].try_into().unwrap());
        write_u32(p, s.signature + 12, len - 8);
    }),
    (
        "no-main-entries",
        "malformed main header: number of index entries",
        |p, s| write_u32(p, s.main + 8, 0),
    ),
    (
        "four-billion-main-entries",
        "malformed main header: number of index entries",
        |p, s| write_u32(p, s.main + 8, u32::MAX),
    ),
    (
        "main-store-of-four-gigabytes",
        "malformed main header: length of the store",
        |p, s| write_u32(p, s.main + 12, u32::MAX),
    ),
    (
        "main-store-of-two-hundred-megabytes",
        "truncated in the main header",
        |p, s| write_u32(p, s.main + 12, 200 << 20),
    ),
    ("one-main-entry-more", "malformed main header", |p, s| {
        p[s.main + 11] += 1
    }),
    ("main-store-too-short", "malformed main header", |p, s| {
        let len = u32::from_be_bytes(p[s.main + 12..s.main + 16].try_into().unwrap());
        write_u32(p, s.main + 12, len - 4);
    }),
    ("value-far-outside", "malformed signature header", |p, s| {
        write_u32(p, s.signature + 16 + 16 + 8, u32::MAX)
    }),
    (
        "value-before-the-store",
        "malformed signature header",
        |p, s| write_u32(p, s.signature + 16 + 16 + 8, 0x8000_0000),
    ),
    (
        "value-of-four-gigabytes",
        "malformed signature header",
        |p, s| write_u32(p, s.signature + 16 + 16 + 12, u32::MAX),
    ),
    (
        "value-of-an-unknown-kind",
        "malformed signature header: value of an unknown kind",
        |p, s| write_u32(p, s.signature + 16 + 16 + 4, 77),
    ),
    ("main-value-far-outside", "malformed main header", |p, s| {
        write_u32(p, s.main + 16 + 16 + 8, u32::MAX)
    }),
    (
        "main-value-of-four-gigabytes",
        "malformed main header",
        |p, s| write_u32(p, s.main + 16 + 16 + 12, u32::MAX),
    ),
    (
        "no-region",
        "malformed signature header: no region",
        |p, s| write_u32(p, s.signature + 16, 1000),
    ),
    ("main-header-changed", "corrupt: the header's", |p, s| {
        // A letter of the summary, which no structure depends on.
        let text = b"A package for tests";
        let at = p
            .windows(text.len())
            .position(|found| found == text)
            .unwrap();
        assert!(at > s.main && at < s.payload);
        p[at] = b'B';
    }),
    (
        "first-byte-of-the-payload-changed",
        "corrupt: the payload",
        |p, s| p[s.payload] ^= 1,
    ),
    (
        "last-byte-of-the-payload-changed",
        "corrupt: the payload",
        |p, _| {
            let last = p.last_mut().unwrap();
            *last ^= 0x80;
        },
    ),
];

/// Content and modification time.
fn state(path: &Path) -> (Vec<u8>, SystemTime) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    (fs::read(path).unwrap(), modified)
}

/// What the barrier said of one file.
fn reason(said: &str, path: &Path) -> String {
    let begin = format!("signdrop: {}: ", path.display());
    said.lines()
        .find_map(|line| line.strip_prefix(&begin))
        .unwrap_or_else(|| panic!("nothing about {}:\n{said}", path.display()))
        .to_owned()
}

/// Fails if the daemon does not sign what is dropped now.
fn assert_still_serves(daemon: &Daemon) {
    let project = daemon.project("alice/tools/afterwards");
    let path = quick_package(&project, "good", 100, rpm::RpmFormat::V4);
    daemon.settle(&project);
    assert_signed(daemon, &path);
}

fn assert_signed(daemon: &Daemon, path: &Path) {
    let rpmdb = Rpmdb::new(&daemon.export(IDENTITY));
    assert!(
        rpmdb.is_signed(path),
        "{}\n{}",
        rpmdb.check(path).1,
        daemon.log()
    );
}

/// Moves the drop directory to `root`.
fn drop_at(daemon: &Daemon, root: &Path) {
    let config = fs::read_to_string(daemon.config()).unwrap();
    let (old, new) = (daemon.drop_dir(), root);
    daemon.write_config(&config.replace(
        &format!("root = \"{}\"", old.display()),
        &format!("root = \"{}\"", new.display()),
    ));
}

#[test]
fn a_damaged_package_is_refused_with_the_reason_and_stays_as_it_is() {
    for update in ["auto", "replace"] {
        let daemon = Daemon::start(&format!("update = \"{update}\""));
        let project = daemon.project("alice/tools");
        let stock = tempfile::tempdir().unwrap();
        let rpmdb = Rpmdb::new(&{
            assert_still_serves(&daemon);
            daemon.export(IDENTITY)
        });
        let mut expected = Vec::new();
        for good in [
            rpmbuild(stock.path(), "real", 3000),
            quick_package(stock.path(), "four", 3000, rpm::RpmFormat::V4),
            quick_package(stock.path(), "six", 3000, rpm::RpmFormat::V6),
        ] {
            let package = fs::read(&good).unwrap();
            let sections = Sections::of(&package);
            let kind = good.file_stem().unwrap().to_string_lossy();
            for (name, wanted, damage) in DAMAGES {
                // A v6 package does not say its size.
                let is_about_size = wanted.contains("the payload") || wanted.contains("size of");
                let wanted = if kind.starts_with("six") && is_about_size {
                    "corrupt: the payload"
                } else {
                    *wanted
                };
                let mut damaged = package.clone();
                damage(&mut damaged, &sections);
                let path = project.join(format!("{name}-{kind}.rpm"));
                fs::write(&path, &damaged).unwrap();
                expected.push((path.clone(), wanted, state(&path)));
            }
        }
        let (status, said) = daemon.wait(&daemon.drop_dir());
        assert_eq!(status, 1, "{said}");
        let mut wrong = String::new();
        for (path, wanted, before) in expected {
            let reason = reason(&said, &path);
            if !reason.contains(wanted) {
                wrong += &format!("{}: {reason}, not: {wanted}\n", path.display());
            }
            assert_eq!(state(&path), before, "{}", path.display());
            assert!(!rpmdb.is_signed(&path), "{}", path.display());
        }
        assert!(wrong.is_empty(), "{wrong}");
        assert_still_serves(&daemon);
    }
}

#[test]
fn what_is_no_regular_file_is_never_followed_nor_changed() {
    let outside = tempfile::tempdir().unwrap();
    let target = quick_package(outside.path(), "outside", 100, rpm::RpmFormat::V4);
    let elsewhere = outside.path().join("tree/tools");
    fs::create_dir_all(&elsewhere).unwrap();
    let behind_link = quick_package(&elsewhere, "behind", 100, rpm::RpmFormat::V4);
    let untouched = [target.clone(), behind_link].map(|path| {
        let before = state(&path);
        (path, before)
    });

    let daemon = Daemon::start("");
    let project = daemon.project("alice/tools");
    fs::create_dir(project.join("directory.rpm")).unwrap();
    let in_directory = quick_package(
        &project.join("directory.rpm"),
        "in",
        100,
        rpm::RpmFormat::V4,
    );
    let output = run(Command::new("mkfifo").arg(project.join("fifo.rpm")));
    assert!(output.status.success(), "{output:?}");
    let inside = quick_package(&project, "inside", 100, rpm::RpmFormat::V4);
    symlink(&inside, project.join("to-inside.rpm")).unwrap();
    symlink(&target, project.join("to-outside.rpm")).unwrap();
    symlink("nowhere", project.join("to-nowhere.rpm")).unwrap();
    symlink(&elsewhere, project.join("linked")).unwrap();
    symlink(outside.path().join("tree"), daemon.drop_dir().join("bob")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(project.join("socket.rpm")).unwrap();

    daemon.settle(&daemon.drop_dir());
    assert_signed(&daemon, &inside);
    assert_signed(&daemon, &in_directory);
    for (path, before) in untouched {
        assert_eq!(state(&path), before, "{}", path.display());
    }
    let counts = &daemon.status()["drops"][0]["counts"];
    assert_eq!(counts["ignored"], 5, "{counts}");
    assert_eq!(counts["signed"], 2, "{counts}");
    let log = daemon.log();
    for (name, why) in [
        ("fifo.rpm", "not a regular file"),
        ("socket.rpm", "not a regular file"),
        ("to-inside.rpm", "symbolic link"),
        ("to-outside.rpm", "symbolic link"),
        ("to-nowhere.rpm", "symbolic link"),
    ] {
        let told = log
            .lines()
            .any(|line| line.contains(name) && line.contains("ignored") && line.contains(why));
        assert!(told, "{name}\n{log}");
    }
    // Of what is behind a link the barrier says nothing rather than that it is settled.
    for linked in ["bob", "bob/tools", "alice/tools/linked"] {
        let (status, said) = daemon.wait(&daemon.drop_dir().join(linked));
        assert_eq!(status, 1, "{linked}: {said}");
    }
    assert_still_serves(&daemon);
}

/// A daemon of another user, who owns what the daemon needs.
fn unprivileged(drop_options: &str) -> (Daemon, PathBuf) {
    const NOBODY: u32 = 65534;
    let mut daemon = Daemon::prepare(drop_options);
    daemon.wrap([
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ]);
    let project = daemon.project("alice/tools");
    let dir = daemon.dir.path();
    let own = |path: &Path| chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    for path in [
        "",
        "state",
        "master.key",
        "drop",
        "drop/alice",
        "drop/alice/tools",
    ] {
        own(&dir.join(path));
    }
    // The program may lie where only root looks.
    let program = dir.join("signdrop");
    fs::copy(env!("CARGO_BIN_EXE_signdrop"), &program).unwrap();
    own(&program);
    daemon.program(&program);
    daemon.run();
    (daemon, project)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_unreadable_file_fails_and_is_signed_once_it_can_be_read() {
    let (daemon, project) = unprivileged("");
    let stock = tempfile::tempdir().unwrap();
    let package = quick_package(stock.path(), "secret", 100, rpm::RpmFormat::V4);
    set_mode(&package, 0o000);
    let path = project.join("secret.rpm");
    let before = fs::read(&package).unwrap();
    // With the mode it has, so that there is no moment at which it could be read.
    let output = run(Command::new("cp").arg("-p").arg(&package).arg(&path));
    assert!(output.status.success(), "{output:?}");
    let (status, said) = daemon.wait(&daemon.drop_dir());
    assert_eq!(status, 1, "{said}");
    assert!(reason(&said, &path).contains("Permission denied"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), before);

    chown(&path, Some(65534), Some(65534)).unwrap();
    set_mode(&path, 0o644);
    let mut daemon = daemon;
    daemon.until("signed", |daemon| {
        daemon.status()["drops"][0]["counts"]["signed"] == 1
    });
    assert_signed(&daemon, &path);
}

#[test]
fn a_package_in_a_read_only_directory_fails_and_is_signed_once_it_can_be_replaced() {
    let (mut daemon, project) = unprivileged("update = \"replace\"");
    let stock = tempfile::tempdir().unwrap();
    let package = quick_package(stock.path(), "fixed", 100, rpm::RpmFormat::V4);
    let path = project.join("fixed.rpm");
    set_mode(&project, 0o555);
    fs::copy(&package, &path).unwrap();
    let before = state(&path);
    let (status, said) = daemon.wait(&daemon.drop_dir());
    assert_eq!(status, 1, "{said}");
    assert!(
        reason(&said, &path).contains("cannot create a copy beside the file: Permission denied"),
        "{said}"
    );
    assert_eq!(state(&path), before);

    set_mode(&project, 0o755);
    chown(&path, Some(65534), Some(65534)).unwrap();
    daemon.until("signed", |daemon| {
        daemon.status()["drops"][0]["counts"]["signed"] == 1
    });
    assert_signed(&daemon, &path);
}

#[test]
fn an_immutable_file_fails_and_is_signed_once_it_may_be_written() {
    for update in ["auto", "replace"] {
        let filesystem = Mounted::new("ext4", 32);
        let mut daemon = Daemon::prepare(&format!("update = \"{update}\""));
        drop_at(&daemon, &filesystem.path());
        let project = filesystem.path().join("alice/tools");
        fs::create_dir_all(&project).unwrap();
        let path = quick_package(&project, "fixed", 100, rpm::RpmFormat::V4);
        let chattr = |flag| {
            let output = run(Command::new("chattr").arg(flag).arg(&path));
            assert!(output.status.success(), "{output:?}");
        };
        chattr("+i");
        let before = state(&path);
        daemon.run();
        let (status, said) = daemon.wait(&project);
        assert_eq!(status, 1, "{said}");
        assert!(
            reason(&said, &path).contains("Operation not permitted"),
            "{said}"
        );
        assert_eq!(state(&path), before);
        assert_eq!(fs::read_dir(&project).unwrap().count(), 1);
        chattr("-i");
        daemon.until("signed", |daemon| {
            daemon.status()["drops"][0]["counts"]["signed"] == 1
        });
        assert_signed(&daemon, &path);
    }
}

#[test]
fn a_package_on_a_read_only_filesystem_fails_and_is_signed_once_it_can_be_written() {
    let filesystem = Mounted::new("ext4", 32);
    let mut daemon = Daemon::prepare("");
    drop_at(&daemon, &filesystem.path());
    let project = filesystem.path().join("alice/tools");
    fs::create_dir_all(&project).unwrap();
    let path = quick_package(&project, "fixed", 100, rpm::RpmFormat::V4);
    let remount = |how: &str| {
        let output = run(Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(filesystem.path()));
        assert!(output.status.success(), "{output:?}");
    };
    remount("ro");
    let before = state(&path);
    daemon.run();
    let (status, said) = daemon.wait(&project);
    assert_eq!(status, 1, "{said}");
    assert!(
        reason(&said, &path).contains("Read-only file system"),
        "{said}"
    );
    assert_eq!(state(&path), before);
    remount("rw");
    daemon.until("signed", |daemon| {
        daemon.status()["drops"][0]["counts"]["signed"] == 1
    });
    assert_signed(&daemon, &path);
    assert!(daemon.stop().success());
}

#[test]
fn a_full_disk_fails_a_package_until_there_is_room_again() {
    let filesystem = Mounted::new("tmpfs", 1);
    let mut daemon = Daemon::prepare("update = \"replace\"");
    drop_at(&daemon, &filesystem.path());
    let project = filesystem.path().join("alice/tools");
    fs::create_dir_all(&project).unwrap();
    let path = quick_package(&project, "large", 300_000, rpm::RpmFormat::V4);
    let ballast = filesystem.path().join("ballast");
    let _ = fs::write(&ballast, vec![1; 1 << 20]);
    let before = state(&path);
    daemon.run();
    let (status, said) = daemon.wait(&project);
    assert_eq!(status, 1, "{said}");
    assert!(
        reason(&said, &path).contains("No space left on device"),
        "{said}"
    );
    assert_eq!(state(&path), before);
    assert_eq!(fs::read_dir(&project).unwrap().count(), 1);
    let failure = &daemon.status()["drops"][0]["failures"][0];
    assert_eq!(failure["retry"], true, "{failure}");

    fs::remove_file(ballast).unwrap();
    daemon.until("signed", |daemon| {
        daemon.status()["drops"][0]["counts"]["signed"] == 1
    });
    assert_signed(&daemon, &path);
    assert_eq!(fs::read_dir(&project).unwrap().count(), 1);
    assert!(daemon.stop().success());
}

#[test]
fn any_name_of_a_file_will_do_but_not_of_a_project() {
    let daemon = Daemon::start("");
    let stock = tempfile::tempdir().unwrap();
    let good = quick_package(stock.path(), "good", 100, rpm::RpmFormat::V4);
    let project = daemon.project("alice/tools");
    let names: [&[u8]; 12] = [
        b"new\nline.rpm",
        b"per%cent%00%2F.rpm",
        b"hash#.rpm",
        b" spaces at both ends .rpm",
        b"quotes\"'`.rpm",
        b"back\\slash.rpm",
        b"$(reboot);&|*?[x]{y}.rpm",
        b"escape\x1b[31m.rpm",
        b"non\xff\xfeutf8.rpm",
        b"-rf.rpm",
        b".hidden.rpm",
        "\u{202e}\u{fc}n\u{ef}c\u{f6}de.rpm".as_bytes(),
    ];
    let mut signed = Vec::new();
    for name in names {
        let path = project.join(OsStr::from_bytes(name));
        fs::copy(&good, &path).unwrap();
        signed.push(path);
    }
    let mut longest = "x".repeat(251);
    longest.push_str(".rpm");
    signed.push(project.join(longest));
    fs::copy(&good, signed.last().unwrap()).unwrap();
    // Directories below the project may be called anything, too.
    let odd: PathBuf = project.join(OsStr::from_bytes(b"od\xffd\ndir%#"));
    fs::create_dir(&odd).unwrap();
    signed.push(odd.join("good.rpm"));
    fs::copy(&good, signed.last().unwrap()).unwrap();
    daemon.settle(&daemon.drop_dir());
    // The judge reads its arguments as patterns, so it gets a copy under a plain name.
    let plain = stock.path().join("plain.rpm");
    for path in signed {
        fs::copy(&path, &plain).unwrap();
        assert_signed(&daemon, &plain);
    }

    let projects: [&[u8]; 8] = [
        b"to\nols",
        b"to%ols",
        b"to#ols",
        b"to ols",
        b"to\"ols",
        b"to\xffols",
        b"to@ols",
        b"t\xc3\xb6ols",
    ];
    let mut refused = Vec::new();
    for name in projects {
        let directory = daemon
            .drop_dir()
            .join("alice")
            .join(OsStr::from_bytes(name));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("good.rpm");
        fs::copy(&good, &path).unwrap();
        refused.push((path.clone(), "cannot name a project", state(&path)));
    }
    for short in ["short.rpm", "alice/short.rpm"] {
        let path = daemon.drop_dir().join(short);
        fs::copy(&good, &path).unwrap();
        refused.push((path.clone(), "{owner}/{project}", state(&path)));
    }
    let (status, said) = daemon.wait(&daemon.drop_dir());
    assert_eq!(status, 1, "{said}");
    let failed = said.lines().filter(|line| line.contains(".rpm: ")).count();
    assert_eq!(failed, refused.len(), "{said}");
    for (path, wanted, before) in refused {
        assert_eq!(state(&path), before, "{}", path.display());
        let name = path.strip_prefix(daemon.drop_dir()).unwrap();
        let Some(name) = name.to_str().filter(|name| !name.contains('\n')) else {
            continue;
        };
        let told = said
            .lines()
            .any(|line| line.contains(&format!("{name}: ")) && line.contains(wanted));
        assert!(told, "{name}: {said}");
    }
    // No name has forged a line of what is said.
    assert!(!said.lines().any(|line| line.starts_with("ols")), "{said}");
    assert!(
        !daemon
            .log()
            .lines()
            .any(|line| line.starts_with("line.rpm") || line.starts_with("ols"))
    );
    assert!(!daemon.log().contains('\x1b'), "{}", daemon.log());
    assert_still_serves(&daemon);
}

#[test]
fn fifty_thousand_junk_files_hide_no_package_and_cost_little_memory() {
    const JUNK: usize = 50_000;
    let mut daemon = Daemon::start("");
    let project = daemon.project("alice/tools");
    for number in 0..JUNK {
        fs::write(project.join(format!("{number}.rpm")), b"junk").unwrap();
        if number == JUNK / 2 {
            quick_package(&project, "among", 100, rpm::RpmFormat::V4);
        }
    }
    let (status, said) = daemon.wait(&daemon.drop_dir());
    assert_eq!(status, 1, "{}", daemon.exited().is_none());
    assert_eq!(
        said.lines()
            .filter(|line| line.contains("wrong magic"))
            .count(),
        JUNK
    );
    assert_signed(&daemon, &project.join("among-1.0-1.noarch.rpm"));
    let status = daemon.status();
    assert_eq!(status["drops"][0]["failed"], JUNK);
    assert_eq!(status["drops"][0]["queue"], 0);
    let process = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let peak: u64 = process
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .map(|kilobytes| kilobytes.parse().unwrap())
        .unwrap();
    assert!(peak < 200 << 10, "{peak} kB");
    assert_still_serves(&daemon);
}

#[test]
fn a_malformed_configuration_is_refused_with_its_line_and_key() {
    let drop = |lines: &str| {
        format!(
            "state_dir = \"/var/lib/signdrop\"\n\n[[drop]]\nroot = \"/srv/drop\"\nproject = \"{{owner}}/{{project}}\"\n\
             identity = \"{{owner}}#{{project}}@copr.example.org\"\n{lines}"
        )
    };
    let replaced = |key: &str, line: &str| {
        drop("")
            .lines()
            .map(|old| if old.starts_with(key) { line } else { old })
            .collect::<Vec<_>>()
            .join("\n")
    };
    let mut wrong = String::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("signdrop.toml");
    // What makes no sense only together with the rest is told with the line where the drop directory begins.
    for (text, wanted) in [
        ("state_dir = ".to_owned(), &["line 1"][..]),
        ("state_dir = 7".to_owned(), &["line 1", "state_dir"]),
        (
            "\nstate_dir = \"var\"".to_owned(),
            &["state_dir", "not absolute"],
        ),
        (
            "\n\nstatedir = \"/var\"".to_owned(),
            &["line 3", "statedir"],
        ),
        ("workers = 0".to_owned(), &["line 1", "workers"]),
        ("workers = -1".to_owned(), &["line 1", "workers"]),
        (
            "[api]\nlisten = \"tcp:127.0.0.1:1\"".to_owned(),
            &["line 2", "listen"],
        ),
        (
            "[api]\nlisten = [\"tcp:0.0.0.0:8180\"]".to_owned(),
            &["line 2", "listen", "loopback"],
        ),
        (
            "[api]\nlisten = [\"unix:api.sock\"]".to_owned(),
            &["line 2", "listen", "absolute"],
        ),
        (
            "[api]\nlisten = [\"127.0.0.1:80\"]".to_owned(),
            &["line 2", "listen", "tcp:"],
        ),
        (
            "[api]\nlisten = []\nport = 80".to_owned(),
            &["line 3", "port"],
        ),
        (
            "[api]\nsigners = [\"nobody-of-this-name\"]".to_owned(),
            &["line 2", "signers", "nobody-of-this-name"],
        ),
        (
            "[api]\nsigners = [-1]".to_owned(),
            &["line 2", "signers", "name or a number"],
        ),
        (
            "[api]\nsigners = \"root\"".to_owned(),
            &["line 2", "signers"],
        ),
        ("[obs]".to_owned(), &["line 1", "listen"]),
        (
            "[obs]\nlisten = \"127.0.0.1:5167\"".to_owned(),
            &["line 2", "listen", "tcp:"],
        ),
        (
            "[obs]\nlisten = \"unix:/run/obs\"".to_owned(),
            &["line 2", "listen", "tcp:"],
        ),
        (
            "[obs]\nlisten = \"tcp:127.0.0.1:5167\"\nallow = [\"10.0.0.0/33\"]".to_owned(),
            &["line 3", "allow", "10.0.0.0/33"],
        ),
        (
            "[obs]\nlisten = \"tcp:127.0.0.1:5167\"\nallow = [\"builder\"]".to_owned(),
            &["line 3", "allow", "builder"],
        ),
        (
            "[obs]\nlisten = \"tcp:127.0.0.1:5167\"\nports = \"all\"".to_owned(),
            &["line 3", "ports", "reserved"],
        ),
        (
            "[obs]\nlisten = \"tcp:127.0.0.1:5167\"\nport = 1".to_owned(),
            &["line 3", "port"],
        ),
        (
            "[keys]\nalgorithm = \"rsa1024\"".to_owned(),
            &["line 2", "algorithm", "rsa1024"],
        ),
        (
            "[keys]\nexpires = \"tomorrow\"".to_owned(),
            &["line 2", "expires", "tomorrow"],
        ),
        ("[keys]\nexpires = 5".to_owned(), &["line 2", "expires"]),
        (
            "[keys]\nmaster_key = \"/etc/key\"".to_owned(),
            &["line 2", "master_key", "file:"],
        ),
        (
            "[keys]\nmaster_key = \"credential:../x\"".to_owned(),
            &["line 2", "master_key"],
        ),
        ("[keys]\nprepared = -1".to_owned(), &["line 2", "prepared"]),
        ("[keys]\npool = 1".to_owned(), &["line 2", "pool"]),
        (
            "[[drops]]\nroot = \"/srv\"".to_owned(),
            &["line 1", "drops"],
        ),
        (
            "[[drop]]\nproject = \"{a}\"\nidentity = \"{a}@b\"".to_owned(),
            &["line 1", "root"],
        ),
        (
            "[[drop]]\nroot = \"/srv\"\nidentity = \"{a}@b\"".to_owned(),
            &["line 1", "project"],
        ),
        (
            "[[drop]]\nroot = \"/srv\"\nproject = \"{a}\"".to_owned(),
            &["line 1", "identity"],
        ),
        (
            replaced("root", "root = \"srv/drop\""),
            &["line 3", "root", "not absolute"],
        ),
        (replaced("root", "root = [\"/srv\"]"), &["line 4", "root"]),
        (replaced("root", "root = \"/srv/drop"), &["line 4"]),
        (
            replaced("project", "project = \"{owner\""),
            &["line 5", "project", "variable"],
        ),
        (
            replaced("project", "project = \"{owner}/{owner}\""),
            &["line 5", "project", "twice"],
        ),
        (
            replaced("project", "project = \"\""),
            &["line 5", "project", "empty"],
        ),
        (
            replaced("identity", "identity = \"{nobody}@b\""),
            &["line 3", "identity", "{nobody}"],
        ),
        (
            replaced("identity", "identity = \"{owner}{project}@b\""),
            &["line 3", "identity", "{owner}"],
        ),
        (drop("action = \"verify\""), &["line 7", "action", "verify"]),
        (drop("formats = []"), &["line 3", "formats", "empty"]),
        (drop("formats = [\"deb\"]"), &["line 7", "formats", "deb"]),
        (drop("digest = \"md5\""), &["line 7", "digest", "md5"]),
        (drop("digest = \"sha1\""), &["line 3", "digest", "sha1"]),
        (drop("ignore = \"*.tmp\""), &["line 7", "ignore"]),
        (drop("ignore = [\"[\"]"), &["line 7", "ignore", "["]),
        (drop("create_keys = \"no\""), &["line 7", "create_keys"]),
        (drop("public_key = true"), &["line 7", "public_key"]),
        (drop("public_key = \"\""), &["line 3", "public_key"]),
        (drop("public_key = \"..\""), &["line 3", "public_key"]),
        (drop("public_key = \"../key\""), &["line 3", "public_key"]),
        (drop("public_key = \"/key\""), &["line 3", "public_key"]),
        (drop("public_key = \"key/\""), &["line 3", "public_key"]),
        (drop("public_key = \".key\""), &["line 3", "public_key"]),
        (drop("public_key = \"key.rpm\""), &["line 3", "public_key"]),
        (drop("public_key = \"a\\nb\""), &["line 3", "public_key"]),
        (
            drop("on_removed_project = \"erase\""),
            &["line 7", "on_removed_project", "erase"],
        ),
        (
            drop("on_removed_project = \"delete\"\nremoval_grace = \"soon\""),
            &["line 8", "removal_grace"],
        ),
        (drop("removal_grace = 7"), &["line 7", "removal_grace"]),
        (
            drop("at = \"/srv/at\"\non_removed_project = \"delete\"")
                .replace("[[drop]]", "[[mount]]"),
            &["line 3", "on_removed_project", "[[drop]]"],
        ),
        (
            replaced("project", "project = \"{owner}/{project}[-{variant}]\""),
            &["line 5", "project", "square brackets"],
        ),
        (
            replaced("identity", "identity = \"{variant}@b\""),
            &["line 3", "variant"],
        ),
        (drop("update = \"quick\""), &["line 7", "update", "quick"]),
        (drop("unknown = 1"), &["line 7", "unknown"]),
        (
            drop("[[drop.rule]]\nmatch = \"[\"\ndigest = \"sha1\""),
            &["line 8", "match", "["],
        ),
        (drop("[[drop.rule]]\nmatch = \"a\""), &["line 7", "digest"]),
        (
            drop("[[drop.rule]]\ndigest = \"sha1\""),
            &["line 7", "match"],
        ),
        (
            drop("[[drop.rule]]\nmatch = \"a\"\ndigest = \"md5\""),
            &["line 9", "digest", "md5"],
        ),
        (
            replaced("root", "root = \"/var/lib/signdrop/drop\""),
            &["state_dir", "/var/lib/signdrop/drop"],
        ),
        (
            drop("\n[[drop]]\nroot = \"/srv/drop/below\"\nproject = \"a\"\nidentity = \"a@b\""),
            &["/srv/drop/below", "/srv/drop"],
        ),
        ("\u{feff}\u{0}".to_owned(), &["line 1"]),
    ] {
        fs::write(&file, &text).unwrap();
        let output = run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
            .args(["check", "-c"])
            .arg(&file));
        let said = String::from_utf8_lossy(&output.stderr);
        let names_all = wanted.iter().all(|word| said.contains(word))
            && said.contains(&*file.to_string_lossy());
        if output.status.code() != Some(2) || !names_all {
            wrong += &format!(
                "{text}\n--- {:?}, wanted {wanted:?}:\n{said}\n======\n",
                output.status.code()
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
