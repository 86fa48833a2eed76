//! The mount, with the daemon behind it: real packages, real writers, and rpm as the judge.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    Rpmdb,
    daemon::{Daemon, PATIENCE},
    modules::{bare, is_signed, small_module, through},
    mount::{IDENTITY, MountDaemon},
    names, out, quick_package,
};
use signdrop::key::x509::Certificate;

/// A project's directory in the mount.
fn project_in(mounted: &MountDaemon, project: &str) -> PathBuf {
    let path = mounted.at.join(project);
    fs::create_dir_all(&path).unwrap();
    path
}

/// rpm's keyring with a project's key.
fn rpmdb(mounted: &MountDaemon, identity: &str) -> Rpmdb {
    Rpmdb::new(&mounted.daemon.export(identity))
}

/// What `signdrop status` prints.
fn status(mounted: &MountDaemon) -> String {
    out(&mounted.daemon.signdrop(["status"]))
}

/// Runs a program, which is ended where it takes too long.
fn run(command: &mut Command) -> Output {
    let mut limited = Command::new("timeout");
    limited
        .args(["--kill-after=5", &PATIENCE.as_secs().to_string()])
        .arg(command.get_program())
        .args(command.get_args());
    common::run(&mut limited)
}

fn succeeds(command: &mut Command) {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
}

#[test]
fn every_writer_leaves_a_signed_package_behind() {
    let mounted = MountDaemon::start("");
    let project = project_in(&mounted, "alice/tools");
    let plain = mounted.beside("plain");
    let package = quick_package(&plain, "tool", 300_000, rpm::RpmFormat::V4);
    let second = quick_package(&plain, "other", 100_000, rpm::RpmFormat::V4);
    let bytes = fs::read(&package).unwrap();
    // The first one makes the key.
    fs::copy(&package, project.join("first.rpm")).unwrap();
    let rpmdb = rpmdb(&mounted, IDENTITY);
    let signed = |what: &str, name: &str| {
        let path = project.join(name);
        assert!(rpmdb.is_signed(&path), "{what}: {}", rpmdb.check(&path).1);
        // And the payload is the one that was written.
        let tail = bytes.len() - 200_000;
        assert_eq!(fs::read(&path).unwrap()[tail..], bytes[tail..], "{what}");
    };
    signed("copy", "first.rpm");
    let to = |name: &str| project.join(name);
    succeeds(Command::new("cp").arg("-p").arg(&package).arg(to("cp.rpm")));
    signed("cp", "cp.rpm");
    succeeds(Command::new("cp").arg(&package).arg(to("cp.rpm")));
    signed("cp over a signed one", "cp.rpm");
    succeeds(
        Command::new("install")
            .args(["-m", "640"])
            .arg(&package)
            .arg(to("install.rpm")),
    );
    signed("install", "install.rpm");
    let moved = plain.join("moved.rpm");
    fs::copy(&package, &moved).unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    succeeds(
        Command::new("cp")
            .arg(&package)
            .arg(elsewhere.path().join("mv.rpm")),
    );
    succeeds(
        Command::new("mv")
            .arg(elsewhere.path().join("mv.rpm"))
            .arg(&project),
    );
    signed("mv across filesystems", "mv.rpm");
    for options in [
        &["-t"][..],
        &["--inplace", "-t"],
        &["--append", "-t"],
        &["--whole-file", "--delay-updates"],
    ] {
        succeeds(
            Command::new("rsync")
                .args(options)
                .arg(&package)
                .arg(to("rsync.rpm")),
        );
        signed(&format!("rsync {options:?}"), "rsync.rpm");
    }
    succeeds(
        Command::new("rsync")
            .args(["--inplace", "--ignore-times"])
            .arg(&package)
            .arg(to("rsync.rpm")),
    );
    signed("rsync --inplace over a signed one", "rsync.rpm");
    for size in ["13", "7777", "1M"] {
        succeeds(
            Command::new("dd")
                .args(["status=none", &format!("bs={size}")])
                .arg(format!("if={}", package.display()))
                .arg(format!("of={}", to("dd.rpm").display())),
        );
        signed(&format!("dd bs={size}"), "dd.rpm");
    }
    let name = package.file_name().unwrap().to_str().unwrap();
    succeeds(
        Command::new("tar")
            .arg("-C")
            .arg(&plain)
            .arg("-cf")
            .arg(plain.join("all.tar"))
            .arg(name)
            .arg(second.file_name().unwrap()),
    );
    for _ in 0..2 {
        succeeds(
            Command::new("tar")
                .arg("-C")
                .arg(&project)
                .arg("-xf")
                .arg(plain.join("all.tar")),
        );
        signed("tar", name);
        assert!(rpmdb.is_signed(&project.join(second.file_name().unwrap())));
    }
    // An upload that breaks off, and is resumed.
    fs::write(to("part.rpm"), &bytes[..150_000]).unwrap();
    assert!(
        !names(&project).contains(&"part.rpm".to_owned()),
        "nobody sees a part"
    );
    let listed = status(&mounted);
    assert!(listed.contains("part.rpm: failed: "), "{listed}");
    succeeds(
        Command::new("rsync")
            .args(["--append", "-t"])
            .arg(&package)
            .arg(to("part.rpm")),
    );
    signed("rsync --append after a part", "part.rpm");
    // Nothing is left below, and what is below is what is seen.
    assert_eq!(names(&project), names(&mounted.below.join("alice/tools")));
    succeeds(Command::new("createrepo_c").arg("-q").arg(&project));
    assert!(project.join("repodata/repomd.xml").exists());
}

/// Certificate of a project's module key.
fn certificate(mounted: &MountDaemon) -> Certificate {
    let output = mounted.daemon.signdrop([
        "key",
        "certificate",
        "--der",
        "--api",
        &mounted.daemon.api(),
        IDENTITY,
    ]);
    assert!(output.status.success(), "{output:?}");
    Certificate::from_der(&output.stdout).unwrap()
}

#[test]
fn every_writer_leaves_a_signed_module_behind_whatever_it_was_called_first() {
    let mounted = MountDaemon::start("");
    let project = project_in(&mounted, "alice/tools");
    let plain = mounted.beside("plain");
    let (module, packed) = (plain.join("dummy.ko"), plain.join("dummy.ko.xz"));
    fs::write(&module, small_module()).unwrap();
    fs::write(
        &packed,
        through(&["xz", "-c", "--check=crc32"], &small_module()),
    )
    .unwrap();
    fs::copy(&module, project.join("first.ko")).unwrap();
    let certificate = certificate(&mounted);
    let signed = |what: &str, name: &str| {
        let bytes = fs::read(project.join(name)).unwrap();
        let bytes = match name.ends_with(".xz") {
            true => through(&["xz", "-dc"], &bytes),
            false => bytes,
        };
        assert!(is_signed(&bytes, &certificate), "{what}");
        assert_eq!(bare(&bytes), small_module(), "{what}");
    };
    signed("copy", "first.ko");
    for options in [
        &["-t"][..],
        &["-t"],
        &["--inplace", "-t"],
        &["--inplace", "--ignore-times"],
        &["--ignore-times", "--whole-file", "--delay-updates"],
        &["--ignore-times", "--temp-dir=."],
    ] {
        for (from, to) in [(&module, "rsync.ko"), (&packed, "rsync.ko.xz")] {
            succeeds(
                Command::new("rsync")
                    .args(options)
                    .arg(from)
                    .arg(project.join(to)),
            );
            signed(&format!("rsync {options:?} {to}"), to);
        }
    }
    // Written by a name that tells nothing, and renamed; over nothing, and over a signed one.
    for _ in 0..2 {
        for (from, to) in [(&module, "renamed.ko"), (&packed, "renamed.ko.xz")] {
            fs::copy(from, project.join("build-output")).unwrap();
            fs::rename(project.join("build-output"), project.join(to)).unwrap();
            signed(&format!("rename {to}"), to);
        }
    }
    // What cannot be signed is told to whoever renames it, and is whole.
    let before = fs::read(project.join("renamed.ko")).unwrap();
    let torn = &small_module()[..3000];
    fs::write(project.join("build-output"), torn).unwrap();
    let error = fs::rename(project.join("build-output"), project.join("renamed.ko")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "EIO: {error}");
    assert_eq!(fs::read(project.join("build-output")).unwrap(), torn);
    assert_eq!(fs::read(project.join("renamed.ko")).unwrap(), before);
    fs::copy(&module, project.join("build-output")).unwrap();
    for linked in ["linked.ko", "dummy.ko"] {
        let error = fs::hard_link(project.join("build-output"), project.join(linked)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::CrossesDevices);
    }
    fs::remove_file(project.join("build-output")).unwrap();
    assert_eq!(names(&project), names(&mounted.below.join("alice/tools")));
    assert!(
        !status(&mounted).contains(": failed: "),
        "{}",
        status(&mounted)
    );
}

#[test]
fn createrepo_c_replaces_an_index_that_is_ignored() {
    let mounted = MountDaemon::start("ignore = [\"**/repodata/**\"]");
    let project = project_in(&mounted, "alice/tools");
    let plain = mounted.beside("plain");
    for name in ["one", "two"] {
        let package = quick_package(&plain, name, 1000, rpm::RpmFormat::V4);
        fs::copy(&package, project.join(format!("{name}.rpm"))).unwrap();
        succeeds(Command::new("createrepo_c").arg("-q").arg(&project));
        assert!(project.join("repodata/repomd.xml").exists());
    }
    let mut found = names(&project);
    found.retain(|name| !name.ends_with(".rpm"));
    assert_eq!(found, ["repodata"]);
}

#[test]
fn what_is_a_module_by_its_name_alone_keeps_its_bytes_under_others() {
    let mounted = MountDaemon::start("");
    let project = project_in(&mounted, "alice/tools");
    let text = b"what begins like a compressed module, and is none".repeat(10);
    let beginnings: [&[u8]; 4] = [
        b"\x1f\x8b\x08\0",
        b"\x7fELF\x02\x01\x01\0",
        b"\x28\xb5\x2f\xfd",
        b"\xfd7zXZ\0",
    ];
    for (number, beginning) in beginnings.into_iter().enumerate() {
        let content = [beginning, &text].concat();
        let [path, second] =
            ["first", "second"].map(|name| project.join(format!("{name}-{number}")));
        let mut file = File::create(&path).unwrap();
        file.write_all(&content[..100]).unwrap();
        fs::hard_link(&path, &second).unwrap();
        file.write_all(&content[100..]).unwrap();
        assert_eq!(fs::read_dir(&project).unwrap().count(), 2);
        assert_eq!(fs::read(&second).unwrap(), content);
        fs::remove_file(&path).unwrap();
        assert_eq!(fs::read_dir(&project).unwrap().count(), 1);
        file.sync_all().unwrap();
        drop(file);
        assert_eq!(fs::read(&second).unwrap(), content);
        fs::remove_file(&second).unwrap();
    }
}

#[test]
fn no_name_shows_a_module_that_another_name_hid() {
    let mounted = MountDaemon::start("");
    let project = project_in(&mounted, "alice/tools");
    let [path, second, module] = ["x", "y", "y.ko"].map(|name| project.join(name));
    let by_rename = || {
        fs::hard_link(&path, &second).unwrap();
        fs::rename(&second, &module).unwrap();
    };
    let by_link = || fs::hard_link(&path, &module).unwrap();
    let by_exchange = || {
        fs::hard_link(&path, &second).unwrap();
        fs::write(&module, "text").unwrap();
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let cwd = rustix::fs::CWD;
        rustix::fs::renameat_with(cwd, &second, cwd, &module, flags).unwrap();
        fs::remove_file(&second).unwrap();
    };
    let by_older_name = || {
        fs::rename(&path, &module).unwrap();
        fs::hard_link(&module, &path).unwrap();
    };
    let ways: [&dyn Fn(); 4] = [&by_rename, &by_link, &by_exchange, &by_older_name];
    for (number, name_it) in ways.into_iter().enumerate() {
        let file = File::create(&path).unwrap();
        let _reader = File::open(&path).unwrap();
        name_it();
        let written = file.write_all_at(b"\x7fELF\x02\x01\x01\0 an unsigned module", 0);
        let synced = file.sync_all();
        drop(file);
        for name in [&path, &module] {
            let shows = fs::read(name).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
            assert!(!shows, "{number}: {written:?} {synced:?}");
            fs::remove_file(name).unwrap();
        }
    }
}

#[test]
fn a_package_that_cannot_be_signed_is_told_to_its_writer_and_is_tried_again() {
    let mounted = MountDaemon::start("create_keys = false");
    let project = project_in(&mounted, "alice/tools");
    let plain = mounted.beside("plain");
    let package = quick_package(&plain, "tool", 10_000, rpm::RpmFormat::V4);
    let path = project.join("tool.rpm");
    let output = run(Command::new("cp").arg(&package).arg(&path));
    assert!(!output.status.success(), "cp hears of it");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("Input/output error"),
        "{output:?}"
    );
    assert_eq!(names(&project), Vec::<String>::new());
    let error = File::open(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    let status = status(&mounted);
    assert!(
        status.contains("there is no key for alice#tools"),
        "{status}"
    );
    let api = mounted.daemon.api();
    let retry = |path: &Path| {
        mounted
            .daemon
            .signdrop(["retry", "--api", &api, path.to_str().unwrap()])
    };
    let output = retry(&project);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("there is no key"),
        "{output:?}"
    );
    assert!(
        mounted
            .daemon
            .signdrop(["key", "generate", "--api", &api, IDENTITY])
            .status
            .success()
    );
    let output = retry(&project);
    assert!(output.status.success(), "{output:?}");
    assert!(rpmdb(&mounted, IDENTITY).is_signed(&path));
    assert_eq!(names(&project), ["tool.rpm"]);
    assert_eq!(retry(Path::new("/elsewhere")).status.code(), Some(1));
    for nothing in ["typo.rpm", "tool.rpm"] {
        let output = retry(&project.join(nothing));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("nothing that failed is there"), "{text}");
    }
    // Another project's signature is another one: it is copied, and signed anew.
    assert!(
        mounted
            .daemon
            .signdrop([
                "key",
                "generate",
                "--api",
                &api,
                "bob#tools@copr.example.org"
            ])
            .status
            .success()
    );
    let other = project_in(&mounted, "bob/tools");
    succeeds(Command::new("mv").arg(&path).arg(&other));
    assert!(rpmdb(&mounted, "bob#tools@copr.example.org").is_signed(&other.join("tool.rpm")));
}

#[test]
fn a_mount_that_unsigns_leaves_no_signature() {
    let mounted = MountDaemon::start("action = \"unsign\"");
    let project = project_in(&mounted, "alice/tools");
    let plain = mounted.beside("plain");
    let package = quick_package(&plain, "tool", 10_000, rpm::RpmFormat::V4);
    let original = fs::read(&package).unwrap();
    let key = common::TestKey::new(signdrop::key::Algorithm::Rsa2048);
    let file = File::open(&package).unwrap();
    let format = signdrop::format::Format::Rpm;
    let sound = format
        .check(&file, signdrop::digest::Digest::Sha256, Default::default())
        .unwrap();
    let signed = common::edited(
        &original,
        &sound.sign(&key, std::time::SystemTime::now()).unwrap(),
    );
    fs::write(&package, &signed).unwrap();
    fs::copy(&package, project.join("tool.rpm")).unwrap();
    let (good, text) =
        Rpmdb::new(&key.certificate.to_armour().unwrap()).check(&project.join("tool.rpm"));
    assert!(good && !text.contains("Signature"), "{text}");
    fs::write(project.join("text.rpm"), "no package").unwrap();
    assert_eq!(
        fs::read(project.join("text.rpm")).unwrap(),
        b"no package",
        "it passes untouched"
    );
}

#[test]
fn readers_never_find_an_unsigned_or_torn_package() {
    let mounted = MountDaemon::start("");
    let project = project_in(&mounted, "alice/tools");
    let plain = mounted.beside("plain");
    let packages: Vec<PathBuf> = (0..16)
        .map(|number| {
            quick_package(
                &plain,
                &format!("p{number}"),
                20_000 + 3_000 * number,
                rpm::RpmFormat::V4,
            )
        })
        .collect();
    fs::copy(&packages[0], project.join("p.rpm")).unwrap();
    let rpmdb = rpmdb(&mounted, IDENTITY);
    let ends = AtomicBool::new(false);
    let read = AtomicUsize::new(0);
    let deadline = Instant::now() + PATIENCE;
    thread::scope(|scope| {
        for reader in 0..16 {
            let (project, plain, rpmdb, ends, read) = (&project, &plain, &rpmdb, &ends, &read);
            scope.spawn(move || {
                let copy = plain.join(format!("read-{reader}.rpm"));
                while !ends.load(Ordering::Relaxed) && Instant::now() < deadline {
                    for name in names(project) {
                        // What is read is judged, not what lies there when the judge comes.
                        let Ok(bytes) = fs::read(project.join(&name)) else {
                            continue;
                        };
                        if bytes.is_empty() {
                            continue;
                        }
                        fs::write(&copy, bytes).unwrap();
                        assert!(rpmdb.is_signed(&copy), "{name}: {}", rpmdb.check(&copy).1);
                        read.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let writers: Vec<_> = packages
            .iter()
            .enumerate()
            .map(|(number, package)| {
                let project = &project;
                scope.spawn(move || {
                    while Instant::now() < deadline {
                        let (own, shared) = (
                            project.join(format!("own-{number}.rpm")),
                            project.join(format!("p-{}.rpm", number % 4)),
                        );
                        fs::copy(package, &own).unwrap();
                        fs::rename(&own, &shared).unwrap();
                        succeeds(
                            Command::new("rsync")
                                .args(["--ignore-times", "--inplace"])
                                .arg(package)
                                .arg(&own),
                        );
                        fs::remove_file(&own).unwrap();
                    }
                })
            })
            .collect();
        let results: Vec<_> = writers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        ends.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok), "a writer failed");
    });
    assert!(read.load(Ordering::Relaxed) > 100);
}

#[test]
fn after_kills_at_random_moments_everything_closed_is_signed_and_nothing_is_torn() {
    let mut mounted = MountDaemon::start("");
    let plain = mounted.beside("plain");
    let package = quick_package(&plain, "tool", 200_000, rpm::RpmFormat::V4);
    fs::copy(
        &package,
        project_in(&mounted, "alice/tools").join("first.rpm"),
    )
    .unwrap();
    let rpmdb = rpmdb(&mounted, IDENTITY);
    let project = mounted.at.join("alice/tools");
    let mut ever_signed = std::collections::BTreeSet::from(["first.rpm".to_owned()]);
    for round in 0..100_u64 {
        let name = format!("r{}.rpm", round % 7);
        let target = project.join(&name);
        let closed = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                run(Command::new("cp").arg(&package).arg(&target))
                    .status
                    .success()
            });
            // From before the first byte to after the close.
            thread::sleep(Duration::from_micros(round * 7919 % 12_000));
            mounted.daemon.kill();
            writer.join().unwrap()
        });
        mounted.daemon.run();
        if closed {
            assert!(
                rpmdb.is_signed(&target),
                "round {round}: {}",
                rpmdb.check(&target).1
            );
            ever_signed.insert(name);
        }
        // Only what never was a package may be an empty file: one that was made, and killed before its first byte.
        let seen: Vec<PathBuf> = names(&project)
            .into_iter()
            .filter(|name| {
                ever_signed.contains(name) || fs::metadata(project.join(name)).unwrap().len() > 0
            })
            .map(|name| project.join(name))
            .collect();
        assert!(seen.len() >= ever_signed.len(), "round {round}: {seen:?}");
        assert_eq!(
            rpmdb.not_signed(&seen),
            Vec::<&Path>::new(),
            "round {round}"
        );
    }
}

#[test]
fn a_start_that_cannot_mount_says_why() {
    let mounted = MountDaemon::start("");
    // A second daemon on the same mount point.
    let mut second = MountDaemon::prepare("");
    let config = fs::read_to_string(second.daemon.config()).unwrap();
    let (at, own) = (mounted.at.clone(), second.at.clone());
    second
        .daemon
        .write_config(&config.replace(own.to_str().unwrap(), at.to_str().unwrap()));
    second.daemon.spawn();
    assert_eq!(second.daemon.wait_exit().code(), Some(2));
    assert!(
        second.daemon.log().contains("is a mount point already"),
        "{}",
        second.daemon.log()
    );
    // What lies in one another is refused.
    for (from, to) in [
        ("/at\"", "/below/at\""),
        ("/below\"", "/drop\"\naction = \"unsign\""),
        ("/at\"", "/state/at\""),
        ("/below\"", "/state\""),
    ] {
        second.daemon.write_config(&config.replace(from, to));
        let output =
            second
                .daemon
                .signdrop(["check", "-c", second.daemon.config().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{from} {to}: {output:?}");
    }
}

#[test]
fn stopping_unmounts_and_what_is_open_loses_nothing() {
    let mut mounted = MountDaemon::start("");
    let project = project_in(&mounted, "alice/tools");
    let text = File::create(project.join("text")).unwrap();
    text.write_all_at(&[b'k'; 100], 0).unwrap();
    let mut part = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(project.join("part.rpm"))
        .unwrap();
    part.write_all(&[0xed, 0xab, 0xee, 0xdb, 3, 0]).unwrap();
    mounted.daemon.stop();
    let list = fs::read_to_string("/proc/mounts").unwrap();
    assert!(
        !list.contains(mounted.at.clone().to_str().unwrap()),
        "unmounted"
    );
    assert_eq!(
        fs::read(mounted.below.join("alice/tools/text")).unwrap(),
        [b'k'; 100]
    );
    drop((text, part));
    // What an earlier run left, in a directory that is no drop directory.
    let left = mounted
        .below
        .join("alice/tools/.signdrop-0123456789abcdef.tmp");
    fs::write(&left, "cut off").unwrap();
    mounted.daemon.run();
    assert!(!left.exists());
    assert_eq!(names(&project), ["text"]);
    mounted
        .daemon
        .until("refused", |_| mounted_refuses(&project));
}

fn mounted_refuses(project: &Path) -> bool {
    File::open(project.join("part.rpm"))
        .is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
}

#[test]
fn a_directory_that_is_renamed_shows_nothing_that_was_ignored() {
    let mounted = MountDaemon::start(r#"ignore = ["**/results/logs/**", "**/trash/**"]"#);
    let project = project_in(&mounted, "alice/tools");
    let package = quick_package(
        mounted.daemon.dir.path(),
        "tool",
        10_000,
        rpm::RpmFormat::V4,
    );
    fs::create_dir_all(project.join("results/logs")).unwrap();
    fs::copy(&package, project.join("results/logs/tool.rpm")).unwrap();
    fs::copy(&package, project.join("results/tool.rpm")).unwrap();
    let rename = |from: &str, to: &str| {
        let renamed = fs::rename(project.join(from), project.join(to));
        renamed.map_err(|error| error.kind())
    };
    let refused = Err(std::io::ErrorKind::CrossesDevices);
    assert_eq!(rename("results", "other"), refused);
    assert_eq!(rename("results", "results-2"), refused);
    // What stays what it is may be renamed, also where it lies deep, and to another depth.
    fs::remove_file(project.join("results/logs/tool.rpm")).unwrap();
    assert_eq!(rename("results", "other"), Ok(()));
    fs::create_dir(project.join("deeper")).unwrap();
    assert_eq!(rename("other", "deeper/other"), Ok(()));
    assert_eq!(rename("deeper", "trash"), refused);
    let path = project.join("deeper/other/tool.rpm");
    assert!(rpmdb(&mounted, IDENTITY).is_signed(&path));
}

#[test]
fn readyz_and_the_log_tell_of_a_mount_that_is_gone_or_that_nobody_else_sees() {
    let mut mounted = MountDaemon::start("");
    let ready = |daemon: &Daemon| daemon.request("GET", "/readyz", None);
    assert_eq!(ready(&mounted.daemon).0, 200);
    assert!(
        run(Command::new("umount").arg("-l").arg(&mounted.at))
            .status
            .success()
    );
    let (status, text) = ready(&mounted.daemon);
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("at: is not mounted any more"), "{text}");
    mounted.daemon.stop();
    let warning = "nobody outside of this service may see";
    assert!(!mounted.daemon.log().contains(warning));
    // As systemd does it where a drop-in names paths.
    let space = |propagation| ["unshare", "--mount", "--propagation", propagation];
    // The outer namespace lasts as long as somebody is in it.
    let script = r#"setpriv --pdeathsig KILL sleep 600 & exec "$@""#;
    let outer = [&space("shared")[..], &["sh", "-c", script, "sh"]].concat();
    mounted
        .daemon
        .wrap_in(&[&outer[..], &space("slave")].concat());
    mounted.daemon.spawn();
    mounted.daemon.until_logged(warning);
    mounted.daemon.wait_ready();
}
