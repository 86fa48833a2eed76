//! What goes wrong below a mount or beside it: full disks, keys that are gone, a store that fails, writers behind its back.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::{fs::FileExt as _, process::ExitStatusExt as _},
    path::Path,
    process::{Command, Stdio},
};

use common::{
    daemon::Mounted,
    mount::{IDENTITY, MountDaemon, PROJECT, bounded, succeeds},
    names, quick_package, run,
};

/// Runs a writer that has to hear of a full disk.
fn has_no_room(command: &mut Command) {
    let output = run(command.env("LC_ALL", "C"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{command:?}: {output:?}");
    assert!(
        said.contains("No space left on device"),
        "{command:?}: {output:?}"
    );
}

/// Takes all the room that is left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 4096] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn a_disk_that_gets_full_in_the_middle_of_a_write_is_told_to_the_writer_and_nobody_sees_a_part() {
    for kind in ["ext4", "tmpfs"] {
        let filesystem = Mounted::new(kind, 24);
        let mounted = MountDaemon::start_on(&filesystem.path().join("below"), "");
        let (project, rpmdb) = mounted.project();
        let plain = mounted.beside("plain");
        let small = quick_package(&plain, "small", 50_000, rpm::RpmFormat::V4);
        let large = quick_package(&plain, "large", 6_000_000, rpm::RpmFormat::V4);
        let old = project.join("old.rpm");
        succeeds(bounded("cp").arg(&small).arg(&old));
        let before = fs::read(&old).unwrap();
        // Room for a part of the large one.
        let (room, filler) = (
            filesystem.path().join("room"),
            filesystem.path().join("filler"),
        );
        fs::write(&room, vec![1; 3_000_000]).unwrap();
        fill(&filler);
        fs::remove_file(&room).unwrap();
        let new = project.join("new.rpm");
        has_no_room(bounded("cp").arg(&large).arg(&new));
        assert_eq!(names(&project), ["old.rpm"], "{kind}");
        assert!(File::open(&new).is_err(), "{kind}: a part can be read");
        assert!(rpmdb.is_signed(&old), "{kind}");
        fs::remove_file(&new).unwrap();
        // A new version of what is there: the old one stays.
        has_no_room(bounded("cp").arg(&large).arg(&old));
        assert_eq!(names(&project), ["old.rpm"], "{kind}");
        assert!(
            fs::read(&old).unwrap() == before,
            "{kind}: the old one is gone"
        );
        has_no_room(
            bounded("rsync")
                .arg("--inplace")
                .arg(&large)
                .arg(project.join("part.rpm")),
        );
        let sees_a_part = || {
            names(&project).iter().any(|name| {
                let path = project.join(name);
                // As in the directory below: what nobody could write a byte to is empty.
                name == "part.rpm" && fs::metadata(path).unwrap().len() > 0
            })
        };
        assert!(!sees_a_part(), "{kind}");
        let names = |_: &Path| {
            let mut names = names(&project);
            names.retain(|name| name != "part.rpm");
            names
        };
        // Not even room for the first bytes.
        fs::remove_file(&old).unwrap();
        fs::remove_file(&filler).unwrap();
        succeeds(bounded("cp").arg(&small).arg(&old));
        let before = fs::read(&old).unwrap();
        fill(&filler);
        has_no_room(bounded("cp").arg(&large).arg(&old));
        assert_eq!(names(&project), ["old.rpm"], "{kind}");
        assert!(
            fs::read(&old).unwrap() == before,
            "{kind}: the old one is gone"
        );
        let status = mounted.daemon.status();
        let held = status["mounts"][0]["held"].as_array().unwrap();
        let old_one =
            |file: &&serde_json::Value| file["path"].as_str().unwrap().ends_with("old.rpm");
        let reason = held.iter().find(old_one).map(|file| &file["reason"]);
        assert!(
            reason.is_some_and(|reason| reason.as_str().unwrap().starts_with("not whole")),
            "{held:?}"
        );
        // It goes on where it was.
        fs::remove_file(&filler).unwrap();
        for (words, target) in [
            (&["--inplace"][..], "part.rpm"),
            (&[], "old.rpm"),
            (&[], "new.rpm"),
        ] {
            let target = project.join(target);
            succeeds(
                bounded("rsync")
                    .arg("-t")
                    .args(words)
                    .arg(&large)
                    .arg(&target),
            );
            assert!(
                rpmdb.is_signed(&target),
                "{kind}: {}",
                rpmdb.check(&target).1
            );
            fs::remove_file(&target).unwrap();
        }
        succeeds(bounded("cp").arg(&small).arg(&old));
        assert_eq!(names(&project), ["old.rpm"], "{kind}");
        assert_eq!(names(&mounted.below.join(PROJECT)), ["old.rpm"], "{kind}");
    }
}

#[test]
fn a_disk_without_room_for_the_signature_is_told_by_close_and_a_retry_signs() {
    let filesystem = Mounted::new("ext4", 24);
    // Signed by a copy, which needs as much room again.
    let options = "update = \"replace\"";
    let mounted = MountDaemon::start_on(&filesystem.path().join("below"), options);
    let (project, rpmdb) = mounted.project();
    let large = quick_package(
        &mounted.beside("plain"),
        "large",
        4_000_000,
        rpm::RpmFormat::V4,
    );
    let (room, filler) = (
        filesystem.path().join("room"),
        filesystem.path().join("filler"),
    );
    fs::write(&room, vec![1; 5_000_000]).unwrap();
    fill(&filler);
    fs::remove_file(&room).unwrap();
    let path = project.join("large.rpm");
    has_no_room(bounded("cp").arg(&large).arg(&path));
    assert_eq!(names(&project), [] as [&str; 0]);
    assert_eq!(
        fs::metadata(&path).unwrap().len(),
        fs::metadata(&large).unwrap().len()
    );
    let status = mounted.daemon.status();
    let held = &status["mounts"][0]["held"][0];
    assert_eq!(held["progress"], "failed", "{status}");
    assert!(
        held["reason"].as_str().unwrap().contains("No space left"),
        "{status}"
    );
    let output = mounted
        .daemon
        .signdrop(["retry", project.to_str().unwrap()]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "there is no room yet: {output:?}"
    );
    fs::remove_file(&filler).unwrap();
    let output = mounted
        .daemon
        .signdrop(["retry", project.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    assert!(rpmdb.is_signed(&path), "{}", rpmdb.check(&path).1);
    assert_eq!(names(&project), ["large.rpm"]);
    assert_eq!(names(&mounted.below.join(PROJECT)), ["large.rpm"]);
}

#[test]
fn a_key_that_is_deleted_keeps_new_packages_back_and_leaves_the_signed_ones() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = MountDaemon::start_on(directory.path(), "create_keys = false");
    let (project, rpmdb) = mounted.project();
    let plain = mounted.beside("plain");
    let package = quick_package(&plain, "tool", 20_000, rpm::RpmFormat::V4);
    let (old, new) = (project.join("old.rpm"), project.join("new.rpm"));
    succeeds(bounded("cp").arg(&package).arg(&old));
    common::out(
        &mounted
            .daemon
            .signdrop(["key", "delete", "--yes", IDENTITY]),
    );
    for target in [&old, &new] {
        let output = run(bounded("cp").arg(&package).arg(target));
        assert!(!output.status.success(), "{output:?}");
    }
    // Its own version is still there, and signed by the key of its time.
    assert!(rpmdb.is_signed(&old), "{}", rpmdb.check(&old).1);
    assert_eq!(names(&project), ["old.rpm"]);
    // A file of a place without a project, and one whose project is no name.
    for place in ["short.rpm", "alice/to ols/tool.rpm"] {
        let path = mounted.at.join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let output = run(bounded("cp").arg(&package).arg(&path));
        assert!(!output.status.success(), "{place}: {output:?}");
        assert!(File::open(&path).is_err(), "{place}");
    }
    let held = mounted.daemon.status()["mounts"][0]["held"].clone();
    assert_eq!(held.as_array().unwrap().len(), 4, "{held}");
    common::out(&mounted.daemon.signdrop(["key", "generate", IDENTITY]));
    common::out(
        &mounted
            .daemon
            .signdrop(["retry", project.to_str().unwrap()]),
    );
    let rpmdb = common::Rpmdb::new(&mounted.daemon.export(IDENTITY));
    for path in [&old, &new] {
        assert!(rpmdb.is_signed(path), "{}", rpmdb.check(path).1);
    }
    // What no retry can help is removed.
    for place in ["short.rpm", "alice/to ols/tool.rpm"] {
        fs::remove_file(mounted.at.join(place)).unwrap();
    }
    let status = mounted.daemon.status();
    assert_eq!(status["mounts"][0]["held"], serde_json::json!([]));
}

#[test]
fn a_store_without_room_loses_no_package_and_the_next_start_signs() {
    let filesystem = Mounted::new("tmpfs", 16);
    let directory = tempfile::tempdir().unwrap();
    let mut mounted = MountDaemon::prepare_on(directory.path(), "");
    // The state directory moves to a filesystem of its own.
    let state = mounted.daemon.dir.path().join("state");
    succeeds(bounded("cp").arg("-a").arg(&state).arg(filesystem.path()));
    fs::remove_dir_all(&state).unwrap();
    std::os::unix::fs::symlink(filesystem.path().join("state"), &state).unwrap();
    let config = fs::read_to_string(mounted.daemon.config()).unwrap();
    let moved = filesystem.path().join("state");
    mounted
        .daemon
        .write_config(&config.replace(state.to_str().unwrap(), moved.to_str().unwrap()));
    mounted.daemon.run();
    let (project, rpmdb) = mounted.project();
    let package = quick_package(&mounted.beside("plain"), "tool", 20_000, rpm::RpmFormat::V4);
    succeeds(bounded("cp").arg(&package).arg(project.join("0.rpm")));
    let filler = filesystem.path().join("filler");
    fill(&filler);
    // The store keeps some room of its own; in the end there is none.
    let mut written = 1;
    while mounted.daemon.exited().is_none() && written < 2000 {
        let output = run(bounded("cp")
            .arg(&package)
            .arg(project.join(format!("{written}.rpm"))));
        if !output.status.success() {
            break;
        }
        written += 1;
    }
    assert!(written < 2000, "the store has never failed");
    assert_eq!(
        mounted.daemon.wait_exit().code(),
        Some(1),
        "{}",
        mounted.daemon.log()
    );
    // All that close called signed is, with nobody there; what was not seen yet when the store failed is held back.
    let mut held = 0;
    for number in 0..written {
        let name = format!("{number}.rpm");
        let mut path = mounted.below.join(PROJECT).join(&name);
        if !path.exists() {
            path.set_file_name(format!(".signdrop-held-{name}~"));
            held += 1;
        }
        assert!(rpmdb.is_signed(&path), "{number}: {}", rpmdb.check(&path).1);
    }
    assert!(held < written, "none was seen");
    fs::remove_file(&filler).unwrap();
    mounted.daemon.run();
    for number in 0..written {
        let path = project.join(format!("{number}.rpm"));
        mounted.daemon.until("seen", |_| File::open(&path).is_ok());
        assert!(rpmdb.is_signed(&path), "{number}: {}", rpmdb.check(&path).1);
    }
    // The one that failed may have been cut off before its first byte; its writer knows, and comes again.
    let last = project.join(format!("{written}.rpm"));
    succeeds(bounded("cp").arg(&package).arg(&last));
    assert!(rpmdb.is_signed(&last), "{}", rpmdb.check(&last).1);
    let found = names(&project);
    assert_eq!(found.len(), written + 1);
}

#[test]
fn a_package_whose_close_was_answered_is_seen_after_a_crash_in_any_moment() {
    for step in ["finished", "flush"] {
        let mut mounted = MountDaemon::start("");
        let (project, rpmdb) = mounted.project();
        let package = quick_package(&mounted.beside("plain"), "tool", 20_000, rpm::RpmFormat::V4);
        // The daemon may die before it can answer.
        let is_answered = (0..20).any(|round| {
            assert!(mounted.daemon.stop().success());
            mounted
                .daemon
                .environment("SIGNDROP_DIE_AT", &format!("{step}:1"));
            mounted.daemon.run();
            let path = project.join(format!("{round}.rpm"));
            let is_answered = run(bounded("cp").arg(&package).arg(&path)).status.success();
            assert_eq!(mounted.daemon.wait_exit().signal(), Some(9), "{step}");
            mounted.daemon.clear_environment();
            mounted.daemon.run();
            if is_answered {
                mounted.daemon.until("seen", |_| File::open(&path).is_ok());
                assert!(rpmdb.is_signed(&path), "{step}: {}", rpmdb.check(&path).1);
            }
            is_answered
        });
        assert!(is_answered, "{step}: no close was answered");
    }
}

#[test]
fn a_write_behind_the_mounts_back_is_signed_where_the_directory_is_a_drop_directory_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut mounted = MountDaemon::prepare_on(&directory.path().join("below"), "");
    let config = fs::read_to_string(mounted.daemon.config()).unwrap();
    let dropped = mounted.daemon.drop_dir();
    let both = config.replace(dropped.to_str().unwrap(), mounted.below.to_str().unwrap());
    // With other fields it is refused, and explained.
    let other = both.replacen("[[drop]]\n", "[[drop]]\naction = \"unsign\"\n", 1);
    mounted.daemon.write_config(&other);
    let config = mounted.daemon.config();
    let check = |daemon: &common::daemon::Daemon| {
        daemon.signdrop(["check", "-c", config.to_str().unwrap()])
    };
    let output = check(&mounted.daemon);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(said.contains("behind the mount's back"), "{said}");
    mounted.daemon.write_config(&both);
    let output = check(&mounted.daemon);
    assert!(output.status.success(), "{output:?}");
    mounted.daemon.run();
    let (project, rpmdb) = mounted.project();
    let plain = mounted.beside("plain");
    let package = quick_package(&plain, "tool", 20_000, rpm::RpmFormat::V4);
    let behind = mounted.below.join(PROJECT);
    succeeds(bounded("cp").arg(&package).arg(behind.join("behind.rpm")));
    succeeds(bounded("cp").arg(&package).arg(project.join("through.rpm")));
    mounted.daemon.settle(&mounted.below);
    for name in ["behind.rpm", "through.rpm"] {
        let path = project.join(name);
        assert!(rpmdb.is_signed(&path), "{name}: {}", rpmdb.check(&path).1);
    }
    assert_eq!(names(&project), names(&behind));
    // What is held back below is the mount's, not the watcher's, which leaves it alone.
    let bytes = fs::read(&package).unwrap();
    let (first, rest) = bytes.split_at(15_000);
    let part = File::create(project.join("part.rpm")).unwrap();
    part.write_all_at(first, 0).unwrap();
    mounted.daemon.settle(&mounted.below);
    let held = behind.join(".signdrop-held-part.rpm~");
    assert!(fs::read(&held).unwrap() == first, "somebody has changed it");
    part.write_all_at(rest, first.len() as u64).unwrap();
    drop(part);
    assert!(rpmdb.is_signed(&project.join("part.rpm")));
}

/// A process that writes and does not close before it is told; it starts no other, whose start would close its copies.
struct Writer(std::process::Child);

impl Writer {
    /// Writes the package to `whole`, and what is no package over the start of `version`.
    fn start(package: &Path, whole: &Path, version: &Path) -> Self {
        let script = "import sys\n\
            whole, version = open(sys.argv[2], 'wb', 0), open(sys.argv[3], 'r+b', 0)\n\
            whole.write(open(sys.argv[1], 'rb').read())\n\
            version.write(bytes.fromhex('edabeedb') + b'x' * 996)\n\
            print('written', flush=True)\n\
            sys.stdin.read()\n\
            for end in whole.close, lambda: version.write(b'late'):\n\
            \ttry:\n\
            \t\tend()\n\
            \t\tprint('nobody said no')\n\
            \texcept OSError:\n\
            \t\tprint('cut off')\n";
        let mut child = bounded("python3")
            .args(["-c", script])
            .args([package, whole, version])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = [0; 8];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        assert_eq!(&line, b"written\n");
        Self(child)
    }

    /// What it said when it went on.
    fn goes_on(self) -> String {
        let output = self.0.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn a_daemon_that_is_stopped_with_files_open_ends_and_the_next_one_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut mounted = MountDaemon::start_on(directory.path(), "");
    let (project, rpmdb) = mounted.project();
    let package = quick_package(&mounted.beside("plain"), "tool", 20_000, rpm::RpmFormat::V4);
    let signed = project.join("signed.rpm");
    succeeds(bounded("cp").arg(&package).arg(&signed));
    let content = fs::read(&signed).unwrap();
    // A reader, a whole package whose writer has not closed it, a new version of the signed one, a file without a name, and
    // somebody whose working directory it is.
    let reader = File::open(&signed).unwrap();
    let nameless = File::create(project.join("nameless")).unwrap();
    fs::remove_file(project.join("nameless")).unwrap();
    let mut inside = Command::new("sleep")
        .arg("120")
        .current_dir(&project)
        .spawn()
        .unwrap();
    let writer = Writer::start(&package, &project.join("whole.rpm"), &signed);
    assert_eq!(names(&project), ["signed.rpm"]);
    assert!(mounted.daemon.stop().success(), "{}", mounted.daemon.log());
    inside.kill().unwrap();
    inside.wait().unwrap();
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !list.contains(mounted.at.to_str().unwrap()),
        "it is still mounted"
    );
    assert!(rpmdb.is_signed(&mounted.below.join(PROJECT).join("signed.rpm")));
    // What is open is cut off, and gives an error, at its close at the latest; it does not hang.
    assert!(
        nameless
            .write_at(b"late", 0)
            .and(nameless.sync_all())
            .is_err()
    );
    assert_eq!(writer.goes_on(), "cut off\ncut off\n");
    drop((reader, nameless));
    mounted.daemon.run();
    // What was whole is signed by the next start, without its writer.
    mounted.daemon.until("signed", |_| {
        names(&project).contains(&"whole.rpm".to_owned())
    });
    assert!(rpmdb.is_signed(&project.join("whole.rpm")));
    assert!(
        fs::read(&signed).unwrap() == content,
        "the signed one was changed"
    );
    assert_eq!(names(&project), ["signed.rpm", "whole.rpm"]);
}

#[test]
fn what_somebody_goes_on_writing_after_a_crash_is_not_signed_before_he_ends() {
    let mut mounted = MountDaemon::start("");
    let (project, rpmdb) = mounted.project();
    let package = quick_package(&mounted.beside("plain"), "tool", 20_000, rpm::RpmFormat::V4);
    let bytes = fs::read(&package).unwrap();
    let path = project.join("whole.rpm");
    let writer = File::create(&path).unwrap();
    writer.write_all_at(&bytes, 0).unwrap();
    mounted.daemon.kill();
    // Where the kernel passes it.
    let goes_on = writer.write_all_at(&bytes[..100], 0).is_ok();
    mounted.daemon.run();
    let held = |status: &serde_json::Value| status["mounts"][0]["held"].as_array().unwrap().clone();
    if goes_on {
        mounted.daemon.until("refused", |daemon| {
            let held = held(&daemon.status());
            held.iter().any(|file| file["progress"] == "failed")
        });
        let below = mounted
            .below
            .join(PROJECT)
            .join(".signdrop-held-whole.rpm~");
        assert!(fs::read(&below).unwrap() == bytes, "it was signed");
        let reason = held(&mounted.daemon.status())[0]["reason"].clone();
        assert!(
            reason.as_str().unwrap().contains("goes on writing"),
            "{reason}"
        );
        assert!(File::open(&path).is_err());
        drop(writer);
        let retried = mounted
            .daemon
            .signdrop(["retry", project.to_str().unwrap()]);
        assert!(retried.status.success(), "{retried:?}");
    }
    mounted
        .daemon
        .until("signed", |_| File::open(&path).is_ok());
    assert!(rpmdb.is_signed(&path), "{}", rpmdb.check(&path).1);
}
