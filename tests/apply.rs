//! An edit reaches the disk whole or not at all, and everything else that belongs to the file stays.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use common::{daemon::Mounted, run};
use signdrop::{
    apply::{Apply, Error, Flush, redo::Redo},
    config::Update,
    edit::Edit,
    place::{Place, Stamp},
};
use signdrop_watcher::{Writers, writers};

const OLD: &[u8] = b"lead unsigned payload and what follows it";
const NEW: &[u8] = b"lead +signed+ payload and what follows it";

/// The edit that makes [`NEW`] of [`OLD`].
fn edit() -> Edit {
    Edit::replace(5, 8, b"+signed+".to_vec())
}

/// A way of updating, on a filesystem where it is taken.
struct Way {
    name: &'static str,
    filesystem: Mounted,
    update: Update,
    flush: Flush,
    apply: Apply,
    _state: tempfile::TempDir,
}

impl Way {
    fn all() -> [Self; 6] {
        [
            ("in place", "ext4", 64, Update::Auto, Flush::Now),
            (
                "in place, to be flushed",
                "ext4",
                64,
                Update::Auto,
                Flush::Later,
            ),
            ("by a copy", "ext4", 64, Update::Replace, Flush::Now),
            (
                "by a clone on XFS, to be flushed",
                "xfs",
                320,
                Update::Auto,
                Flush::Later,
            ),
            ("by a clone on XFS", "xfs", 320, Update::Auto, Flush::Now),
            (
                "by a clone on btrfs",
                "btrfs",
                256,
                Update::Auto,
                Flush::Now,
            ),
        ]
        .map(|(name, kind, megabytes, update, flush)| {
            let state = tempfile::tempdir().unwrap();
            Self {
                name,
                filesystem: Mounted::new(kind, megabytes),
                update,
                flush,
                apply: Apply::new(Redo::open(state.path()).unwrap()),
                _state: state,
            }
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        let path = self.filesystem.path().join(name);
        fs::write(&path, OLD).unwrap();
        path
    }

    fn apply(&self, path: &Path, edit: &Edit) -> Result<Stamp, Error> {
        // A program that another thread starts has what this one was writing open until it runs.
        for _ in 0..500 {
            if writers(&fs::File::open(path).unwrap()) != Writers::Some {
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let (place, stamp) = look(path);
        self.apply
            .apply(&place, stamp, edit, self.update, self.flush)
    }
}

fn look(path: &Path) -> (Place, Stamp) {
    let place = Place::of_path(path).unwrap();
    let stamp = Stamp::of(&place.stat().unwrap());
    (place, stamp)
}

/// Names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lost+found")
        .collect();
    names.sort();
    names
}

fn said(program: &str, arguments: &[&str], path: &Path) -> String {
    let output = run(Command::new(program).args(arguments).arg(path));
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Owner, mode, ACL and extended attributes, as other programs see them.
fn belongings(path: &Path) -> String {
    said("stat", &["-c", "%u %g %a"], path)
        + &said("getfacl", &["--numeric", "--absolute-names"], path)
        + &said(
            "getfattr",
            &["--absolute-names", "-d", "-m", "-", "-e", "hex"],
            path,
        )
}

#[test]
fn owner_mode_acl_and_attributes_survive() {
    for way in Way::all() {
        let directory = way.filesystem.path();
        let plain = way.file("plain");
        let full = way.file("full");
        chown(&full, Some(1234), Some(5678)).unwrap();
        fs::set_permissions(&full, fs::Permissions::from_mode(0o641)).unwrap();
        said("setfacl", &["-m", "u:4321:rwx,g:8765:r"], &full);
        for (name, value) in [
            ("user.origin", "0x0001ff00"),
            ("user.empty", "0x"),
            ("trusted.mark", "0x6d61726b"),
            ("security.mark", "0x6d61726b"),
            // The kernel takes this one from a file that is written to.
            (
                "security.capability",
                "0x0100000200040000000000000000000000000000",
            ),
        ] {
            said("setfattr", &["-n", name, "-v", value], &full);
        }
        // What is made in the directory from now on gets an ACL that these files do not have.
        said("setfacl", &["-d", "-m", "u:1111:rwx"], &directory);
        let inherited = way.file("inherited");
        let set_id = way.file("set-id");
        fs::set_permissions(&set_id, fs::Permissions::from_mode(0o6755)).unwrap();
        for path in [plain, full, inherited, set_id] {
            let before = belongings(&path);
            way.apply(&path, &edit()).unwrap();
            assert_eq!(fs::read(&path).unwrap(), NEW, "{}", way.name);
            assert_eq!(belongings(&path), before, "{}", way.name);
        }
        assert_eq!(names(&directory), ["full", "inherited", "plain", "set-id"]);
    }
}

#[test]
fn a_file_is_written_in_place_or_replaced_as_was_asked() {
    for way in Way::all() {
        let path = way.file("file");
        let before = fs::metadata(&path).unwrap().ino();
        let stamp = way.apply(&path, &edit()).unwrap();
        let is_same_inode = fs::metadata(&path).unwrap().ino() == before;
        assert_eq!(
            is_same_inode,
            way.name.starts_with("in place"),
            "{}",
            way.name
        );
        assert_eq!(stamp, look(&path).1, "{}", way.name);
    }
}

#[test]
fn a_hard_link_elsewhere_keeps_the_old_content() {
    for way in Way::all() {
        let path = way.file("file");
        let link = way.filesystem.path().join("link");
        fs::hard_link(&path, &link).unwrap();
        way.apply(&path, &edit()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), NEW, "{}", way.name);
        assert_eq!(fs::read(&link).unwrap(), OLD, "{}", way.name);
        assert_eq!(fs::metadata(&link).unwrap().nlink(), 1, "{}", way.name);
    }
}

#[test]
fn the_modification_time_moves_to_another_second() {
    for way in Way::all() {
        let path = way.file("file");
        let hour = Duration::from_secs(3600);
        for before in [
            SystemTime::now(),
            SystemTime::now() - hour,
            SystemTime::now() + hour,
        ] {
            fs::File::open(&path).unwrap().set_modified(before).unwrap();
            let before = fs::metadata(&path).unwrap().mtime();
            way.apply(&path, &edit()).unwrap();
            let after = fs::metadata(&path).unwrap().mtime();
            assert_ne!(after, before, "{}", way.name);
        }
    }
}

#[test]
fn an_edit_that_changes_the_length_keeps_every_other_byte() {
    for way in Way::all() {
        let path = way.filesystem.path().join("large");
        let old: Vec<u8> = (0..5_000_000_u32)
            .map(|n| (n.wrapping_mul(n) >> 7) as u8)
            .collect();
        for (at, old_len, new) in [
            (100_u64, 8_u64, vec![1; 300]),
            (4096, 4096, Vec::new()),
            (0, 0, vec![2; 10_000]),
            (4_999_999, 1, vec![3; 2]),
            (5_000_000, 0, vec![4; 1]),
        ] {
            fs::write(&path, &old).unwrap();
            way.apply(&path, &Edit::replace(at, old_len, new.clone()))
                .unwrap();
            let mut wanted = old.clone();
            wanted.splice(at as usize..(at + old_len) as usize, new);
            assert!(fs::read(&path).unwrap() == wanted, "{} at {at}", way.name);
        }
        assert_eq!(names(&way.filesystem.path()), ["large"]);
    }
}

#[test]
fn ends_and_rewrites_keep_what_belongs_to_the_file() {
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n >> 5) as u8).collect();
    let rewritten = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Edit::Rewrite(file)
    };
    let len = OLD.len() as u64;
    let edits = [
        (
            "appended",
            Edit::replace(len, 0, b"signature".to_vec()),
            [OLD, b"signature"].concat(),
        ),
        (
            "longer",
            Edit::replace(len - 2, 2, b"signature".to_vec()),
            [&OLD[..OLD.len() - 2], b"signature"].concat(),
        ),
        (
            "shorter",
            Edit::replace(len - 9, 9, b"end".to_vec()),
            [&OLD[..OLD.len() - 9], b"end"].concat(),
        ),
        (
            "cut",
            Edit::replace(len - 9, 9, Vec::new()),
            OLD[..OLD.len() - 9].to_vec(),
        ),
        ("rewritten", rewritten(&content), content.clone()),
        ("emptied", rewritten(b""), Vec::new()),
    ];
    for way in Way::all() {
        for (what, edit, wanted) in &edits {
            let path = way.file("file");
            let elsewhere = way.filesystem.path().join("elsewhere");
            for linked in [false, true] {
                fs::write(&path, OLD).unwrap();
                if linked {
                    fs::hard_link(&path, &elsewhere).unwrap();
                }
                for (program, arguments) in [
                    ("chown", &["12345:54321"][..]),
                    ("chmod", &["640"]),
                    ("setfacl", &["-m", "u:4242:r"]),
                    ("setfattr", &["-n", "user.origin", "-v", "build 7"]),
                ] {
                    let output = run(Command::new(program).args(arguments).arg(&path));
                    assert!(output.status.success(), "{output:?}");
                }
                way.apply(&path, edit).unwrap();
                assert!(fs::read(&path).unwrap() == *wanted, "{} {what}", way.name);
                let now = fs::metadata(&path).unwrap();
                assert_eq!(
                    (now.uid(), now.gid()),
                    (12345, 54321),
                    "{} {what}",
                    way.name
                );
                let told = |program: &str, arguments: &[&str]| {
                    let output = run(Command::new(program).args(arguments).arg(&path));
                    String::from_utf8(output.stdout).unwrap()
                };
                let acl = told("getfacl", &["-pn"]);
                assert!(acl.contains("user:4242:r--"), "{} {what}: {acl}", way.name);
                let attributes = told("getfattr", &["-d", "--absolute-names"]);
                assert!(attributes.contains("build 7"), "{} {what}", way.name);
                if linked {
                    assert_eq!(fs::read(&elsewhere).unwrap(), OLD, "{} {what}", way.name);
                    fs::remove_file(&elsewhere).unwrap();
                }
                fs::remove_file(&path).unwrap();
            }
            assert_eq!(names(&way.filesystem.path()), [""; 0]);
        }
    }
}

#[test]
fn an_edit_that_does_not_fit_is_refused() {
    for way in Way::all() {
        let path = way.file("file");
        let edit = Edit::replace(OLD.len() as u64 - 1, 2, vec![0; 2]);
        assert!(matches!(way.apply(&path, &edit), Err(Error::DoesNotFit)));
        assert_eq!(fs::read(&path).unwrap(), OLD);
    }
}

#[test]
fn a_file_that_has_changed_since_it_was_read_stays_as_it_is() {
    const NEWER: &[u8] = b"some newer file of exactly the same sizeX";
    assert_eq!(NEWER.len(), OLD.len());
    type Change = fn(&Path, &Path);
    let changes: [(&str, Change); 4] = [
        ("replaced", |newer, path| fs::rename(newer, path).unwrap()),
        ("overwritten", |newer, path| {
            fs::copy(newer, path).unwrap();
        }),
        ("replaced by a link", |newer, path| {
            fs::remove_file(path).unwrap();
            fs::hard_link(newer, path).unwrap();
        }),
        ("truncated and filled", |newer, path| {
            fs::write(path, b"").unwrap();
            fs::copy(newer, path).unwrap();
        }),
    ];
    for way in Way::all() {
        for (name, change) in changes {
            let path = way.file("file");
            let newer = way.file("newer");
            fs::write(&newer, NEWER).unwrap();
            let (place, stamp) = look(&path);
            change(&newer, &path);
            let result = way
                .apply
                .apply(&place, stamp, &edit(), way.update, way.flush);
            assert!(
                matches!(result, Err(Error::Changed)),
                "{} {name}: {result:?}",
                way.name
            );
            assert_eq!(fs::read(&path).unwrap(), NEWER, "{} {name}", way.name);
            let _ = fs::remove_file(newer);
            assert_eq!(
                names(&way.filesystem.path()),
                ["file"],
                "{} {name}",
                way.name
            );
        }
        let path = way.file("file");
        let (place, stamp) = look(&path);
        fs::remove_file(&path).unwrap();
        assert!(
            way.apply
                .apply(&place, stamp, &edit(), way.update, way.flush)
                .is_err()
        );
        assert_eq!(names(&way.filesystem.path()), [""; 0], "{}", way.name);
    }
}

#[test]
fn a_newer_file_that_takes_the_name_at_the_last_moment_is_never_lost() {
    const VERSIONS: usize = 3000;
    for way in Way::all() {
        let path = way.file("file");
        let version = |number: usize| format!("lead unsigned version {number:08}").into_bytes();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=VERSIONS {
                    let upload = way.filesystem.path().join("upload");
                    fs::write(&upload, version(number)).unwrap();
                    fs::rename(&upload, &path).unwrap();
                }
                is_over.store(true, Ordering::SeqCst);
            });
            while !is_over.load(Ordering::SeqCst) {
                // Most tries come too late, which is what they are for.
                let _ = way.apply(&path, &edit());
            }
        });
        let found = fs::read(&path).unwrap();
        let wanted = version(VERSIONS);
        assert_eq!(found.len(), wanted.len(), "{}", way.name);
        assert_eq!(
            String::from_utf8_lossy(&found[13..]),
            String::from_utf8_lossy(&wanted[13..]),
            "{}",
            way.name
        );
        assert_eq!(names(&way.filesystem.path()), ["file"], "{}", way.name);
    }
}

#[test]
fn a_full_disk_leaves_the_original_and_no_copy() {
    let filesystem = Mounted::new("tmpfs", 1);
    let path = filesystem.path().join("file");
    let content: Vec<u8> = OLD.iter().copied().cycle().take(600_000).collect();
    fs::write(&path, &content).unwrap();
    let apply = Apply::without_redo();
    let (place, stamp) = look(&path);
    let error = apply
        .apply(&place, stamp, &edit(), Update::Replace, Flush::Now)
        .unwrap_err();
    let Error::Io { source, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert!(error.may_pass());
    assert!(fs::read(&path).unwrap() == content);
    assert_eq!(names(&filesystem.path()), ["file"]);
    assert_eq!(look(&path).1, stamp);
}

#[test]
fn a_file_that_somebody_has_open_for_writing_stays_theirs() {
    for way in Way::all() {
        let path = way.file("open");
        let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let result = way.apply(&path, &edit());
        assert!(
            matches!(result, Err(Error::Changed)),
            "{}: {result:?}",
            way.name
        );
        assert_eq!(fs::read(&path).unwrap(), OLD, "{}", way.name);
        // What they go on to write is in the file of that name.
        writer.write_all(b"theirs").unwrap();
        drop(writer);
        assert!(
            fs::read(&path).unwrap().starts_with(b"theirs"),
            "{}",
            way.name
        );
        assert_eq!(names(&way.filesystem.path()), ["open"], "{}", way.name);
    }
}
