//! What is sealed stays as it is, whatever becomes of what was to take its place.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unsafe_code,
    reason = "a test that panics fails, and writes its own files"
)]
mod common;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::{
        fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
        process::ExitStatusExt as _,
    },
    path::Path,
    process::Command,
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use common::{
    Found, Mounted, close, create_seen, each_manner, errno, found, letter, names, nul_letter,
    read_letter, until,
};
use rustix::fs::{Mode, OFlags};
use signdrop_fuse::{Errno, Progress};

/// A sealed letter, and its bytes.
fn sealed(path: &Path) -> Vec<u8> {
    fs::write(path, letter(b"dear reader")).unwrap();
    let bytes = fs::read(path).unwrap();
    assert_eq!(read_letter(&bytes), Found::Sealed);
    bytes
}

fn for_writing() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
}

#[test]
fn a_version_without_first_bytes_takes_no_letters_place() {
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        let before = sealed(&path);
        let refused = || {
            assert_eq!(fs::read(&path).unwrap(), before);
            let held = mounted.mount().held_back();
            assert_eq!(held.len(), 1, "{held:?}");
            assert_eq!(held[0].progress, Progress::Refused);
        };
        assert_eq!(close(File::create(&path).unwrap()), Err(Errno::IO));
        refused();
        // A writer that is killed before its first write, and one that begins behind the first bytes.
        let script = format!("exec 3> {}; kill -9 $$", path.display());
        let status = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert_eq!(status.signal(), Some(9));
        refused();
        let writer = for_writing().truncate(true).open(&path).unwrap();
        writer.write_all_at(b"the end first", 4096).unwrap();
        assert_eq!(close(writer), Err(Errno::IO));
        refused();
        // The next one who writes it whole is not kept from that.
        fs::write(&path, letter(b"the new one")).unwrap();
        assert!(fs::read(&path).unwrap().ends_with(b"the new one"));
        assert_eq!(found(&path), Found::Sealed);
        assert!(mounted.mount().held_back().is_empty());
        // What is no letter and has first bytes is meant.
        fs::write(&path, "text").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text");
    });
}

#[test]
fn a_first_write_and_a_rename_at_once_end_in_the_letter_that_was_written() {
    each_manner(|mounted| {
        let (temporary, path) = (mounted.at().join(".temporary"), mounted.at().join("letter"));
        for round in 0..300_u32 {
            let text = letter(format!("round {round}").as_bytes());
            let mut writer = File::create(&temporary).unwrap();
            thread::scope(|scope| {
                let renamed = scope.spawn(|| fs::rename(&temporary, &path));
                writer.write_all(&text).unwrap();
                renamed.join().unwrap().unwrap();
            });
            assert_eq!(close(writer), Ok(()), "round {round}");
            let bytes = fs::read(&path).unwrap();
            assert_eq!(read_letter(&bytes), Found::Sealed, "round {round}");
            assert!(bytes.ends_with(&text[28..]), "round {round} is lost");
            assert_eq!(names(&mounted.below()), ["letter"], "round {round}");
        }
    });
}

#[test]
fn a_letter_is_not_changed_through_another_name_by_which_it_would_be_none() {
    each_manner(|mounted| {
        let (path, second) = (mounted.at().join("letter"), mounted.at().join("draft"));
        let before = sealed(&path);
        fs::hard_link(&path, &second).unwrap();
        for truncates in [false, true] {
            // Nothing is known of the file any more.
            mounted.stop(Duration::from_secs(10));
            mounted.start();
            let writer = for_writing().truncate(truncates).open(&second).unwrap();
            writer.write_all_at(&[7; 100], 0).unwrap();
            assert_eq!(fs::read(&path).unwrap(), before);
            close(writer).unwrap();
            assert_eq!(fs::read(&path).unwrap(), before);
            assert!(fs::read(&second).unwrap().starts_with(&[7; 100]));
            fs::remove_file(&second).unwrap();
            fs::hard_link(&path, &second).unwrap();
        }
        mounted.stop(Duration::from_secs(10));
        mounted.start();
        assert_eq!(errno(truncate(&second, 3)), Errno::BUSY);
        assert_eq!(fs::read(&path).unwrap(), before);
    });
}

fn truncate(path: &Path, len: i64) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the path is a C string that lives through the call.
    match unsafe { libc::truncate(path.as_ptr(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[test]
fn what_becomes_a_letter_by_growing_is_held_back() {
    let mounted = Mounted::new();
    let path = mounted.at().join("grown");
    let whole = nul_letter(&[9; 100]);
    // Its first bytes end in one that is zero: growing writes it.
    for grow in [
        (|file: &File| file.set_len(100)) as fn(&File) -> io::Result<()>,
        |file| {
            Ok(rustix::fs::fallocate(
                file,
                rustix::fs::FallocateFlags::empty(),
                0,
                100,
            )?)
        },
    ] {
        let writer = File::create(&path).unwrap();
        writer.write_all_at(&whole[..3], 0).unwrap();
        assert_eq!(names(&mounted.at()), ["grown"]);
        grow(&writer).unwrap();
        assert_eq!(names(&mounted.at()), Vec::<String>::new());
        assert_eq!(errno(fs::read(&path)), Errno::BUSY);
        writer.write_all_at(&whole, 0).unwrap();
        close(writer).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        fs::remove_file(&path).unwrap();
    }
    fs::write(&path, &whole[..3]).unwrap();
    assert_eq!(errno(truncate(&path, 100)), Errno::BUSY);
    assert_eq!(fs::read(&path).unwrap(), &whole[..3]);
}

#[test]
fn a_directory_keeps_what_waits_to_be_sealed() {
    each_manner(|mounted| {
        let dir = mounted.at().join("directory");
        fs::create_dir(&dir).unwrap();
        mounted.stop(Duration::from_secs(10));
        for number in 0..40 {
            let held = format!("directory/.signdrop-held-{number}~");
            fs::write(mounted.below().join(held), letter(b"closed")).unwrap();
        }
        *mounted.hook.delay.lock().unwrap() = Duration::from_millis(100);
        mounted.start();
        assert_eq!(errno(fs::remove_dir(&dir)), Errno::NOTEMPTY);
        until("sealed", || mounted.mount().held_back().is_empty());
        assert_eq!(names(&dir).len(), 40);
    });
}

#[test]
fn many_may_open_one_letter_for_writing_at_once() {
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        fs::write(&path, letter(&vec![b'x'; 8 << 20])).unwrap();
        let before = fs::read(&path).unwrap();
        thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| for_writing().open(&path)))
                .collect();
            let writers = writers.into_iter().map(|writer| writer.join().unwrap());
            let writers: Vec<File> = writers.collect::<io::Result<_>>().unwrap();
            let mut bytes = vec![0; before.len()];
            for writer in &writers {
                writer.read_exact_at(&mut bytes, 0).unwrap();
                assert_eq!(bytes, before, "it begins with the old content");
            }
            assert_eq!(mounted.mount().held_back().len(), 1, "one version");
        });
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(names(&mounted.below()), ["letter"]);
    });
}

#[test]
fn a_descriptor_that_writes_on_is_not_led_to_another_letter() {
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        let writer = create_seen(&path);
        writer.write_all_at(&letter(b"first"), 0).unwrap();
        close(writer.try_clone().unwrap()).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        fs::write(mounted.at().join("other-letter"), letter(b"other")).unwrap();
        fs::rename(mounted.at().join("other-letter"), &path).unwrap();
        let before = fs::read(&path).unwrap();
        assert_eq!(errno(writer.write_at(b"LTTR", 0)), Errno::STALE);
        close(writer).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
        assert!(mounted.mount().held_back().is_empty());
    });
}

#[test]
fn what_is_renamed_last_has_the_name() {
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        let temporary = mounted.at().join(".temporary");
        for _ in 0..10 {
            fs::write(&temporary, letter(b"renamed")).unwrap();
            *mounted.hook.delay.lock().unwrap() = Duration::from_millis(100);
            let uploaded = thread::scope(|scope| {
                let upload = scope.spawn(|| fs::write(&path, letter(b"uploaded")));
                until("with the hook", || {
                    let held = mounted.mount().held_back();
                    held.iter().any(|held| {
                        held.path == Path::new("letter") && held.progress == Progress::Finishing
                    })
                });
                fs::rename(&temporary, &path).unwrap();
                upload.join().unwrap()
            });
            uploaded.unwrap();
            *mounted.hook.delay.lock().unwrap() = Duration::ZERO;
            assert_eq!(found(&path), Found::Sealed);
            assert!(fs::read(&path).unwrap().ends_with(b"renamed"));
            assert!(mounted.mount().held_back().is_empty());
        }
    });
}

#[test]
fn what_was_held_back_and_removed_behind_the_mounts_back_can_be_made_anew() {
    let mounted = Mounted::new();
    let path = mounted.at().join("letter");
    let mut writer = File::create(&path).unwrap();
    writer.write_all(b"LTTR but torn").unwrap();
    assert_eq!(close(writer), Err(Errno::IO));
    fs::remove_file(mounted.below().join(".signdrop-held-letter~")).unwrap();
    // As long as its writer's end is on its way to the mount, it is there.
    let removed = fs::remove_file(&path);
    assert!(removed.is_ok() || errno(removed) == Errno::NOENT);
    sealed(&path);
}

#[test]
fn a_file_is_not_judged_by_a_name_that_it_has_lost() {
    each_manner(|mounted| {
        let (draft, path) = (mounted.at().join("draft"), mounted.at().join("letter"));
        for by_descriptor in [false, true] {
            let mut writer = create_seen(&draft);
            fs::hard_link(&draft, &path).unwrap();
            if by_descriptor {
                fs::remove_file(&draft).unwrap();
                assert_eq!(
                    errno(writer.write_all(&letter(b"by descriptor"))),
                    Errno::STALE
                );
                assert_eq!(fs::read(&path).unwrap(), b"");
            } else {
                close(writer).unwrap();
                fs::remove_file(&draft).unwrap();
                fs::write(&path, letter(b"by name")).unwrap();
                assert_eq!(found(&path), Found::Sealed);
            }
            fs::remove_file(&path).unwrap();
        }
    });
}

#[test]
fn a_descriptor_whose_file_has_no_name_any_more_throws_nobodys_letter_away() {
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        let mut first = File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut second = File::create(&path).unwrap();
        second.write_all(&letter(b"second")).unwrap();
        first.write_all(&letter(b"first")).unwrap();
        close(second).unwrap();
        close(first).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        assert!(fs::read(&path).unwrap().ends_with(b"second"));
    });
}

#[test]
fn names_that_are_removed_keep_no_descriptor_open() {
    let mounted = Mounted::new();
    let open = || {
        let below = mounted.below();
        let all = fs::read_dir("/proc/self/fd").unwrap();
        all.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .filter(|target| target.starts_with(&below))
            .count()
    };
    let before = open();
    for number in 0..100 {
        let path = mounted.at().join(format!("{number}"));
        let link = mounted.at().join(format!("link-{number}"));
        fs::write(&path, "text").unwrap();
        fs::hard_link(&path, &link).unwrap();
        fs::remove_file(&link).unwrap();
    }
    until("released", || open() < before + 10);
}

#[test]
fn what_is_held_back_is_known_when_the_kernel_has_forgotten_where_it_is() {
    let mounted = Mounted::new();
    let directory = mounted.at().join("a/b/c");
    fs::create_dir_all(&directory).unwrap();
    mounted.hook.fail_at.store(1, Ordering::SeqCst);
    let writer = fs::write(directory.join("letter"), letter(b"refused"));
    // It does not tell of a close that failed.
    writer.unwrap();
    until("refused", || {
        let held = mounted.mount().held_back();
        held.iter().any(|held| held.progress == Progress::Refused)
    });
    until("forgotten", || {
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        // The root, the directory, the file.
        mounted.mount().inodes() <= 3
    });
    let held = mounted.mount().held_back();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].path, Path::new("a/b/c/letter"));
    let retried = mounted.mount().retry(Path::new("a/b"));
    assert_eq!(retried, [("a/b/c/letter".into(), Ok(()))]);
    assert_eq!(found(&directory.join("letter")), Found::Sealed);
}

#[test]
fn every_close_of_a_copy_tells_of_the_refusal() {
    each_manner(|mounted| {
        mounted.hook.fail_at.store(1, Ordering::SeqCst);
        let mut writer = File::create(mounted.at().join("letter")).unwrap();
        writer.write_all(&letter(b"refused")).unwrap();
        let copy = writer.try_clone().unwrap();
        assert_eq!(close(copy), Err(Errno::NOSPC));
        assert_eq!(close(writer), Err(Errno::NOSPC));
    });
}

#[test]
fn a_new_version_has_the_rights_of_the_old_one() {
    // Where it is sealed by a copy, the rights are the hook's affair.
    let mounted = Mounted::new();
    let path = mounted.at().join("letter");
    sealed(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    // Source: Linux include/uapi/linux/posix_acl_xattr.h: version 2; tag, permissions and number of each.
    let entries = [
        (0x01, 7, u32::MAX),
        (0x02, 7, 1000),
        (0x04, 0, u32::MAX),
        (0x10, 7, u32::MAX),
        (0x20, 5, u32::MAX),
    ];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(u16::to_le_bytes(tag));
        acl.extend(u16::to_le_bytes(permissions));
        acl.extend(u32::to_le_bytes(id));
    }
    let flags = rustix::fs::XattrFlags::empty();
    let name = "system.posix_acl_default";
    rustix::fs::setxattr(mounted.below(), name, &acl, flags).unwrap();
    fs::write(&path, letter(b"new")).unwrap();
    assert_eq!(found(&path), Found::Sealed);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o664
    );
    let access = rustix::fs::getxattr(&path, "system.posix_acl_access", &mut [0_u8; 100]);
    assert_eq!(access, Err(Errno::NODATA));
}

#[test]
fn nobody_who_waits_for_a_letter_keeps_it_from_being_shown() {
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        fs::write(&path, vec![b'x'; 8 << 20]).unwrap();
        let reader = File::open(&path).unwrap();
        *mounted.hook.delay.lock().unwrap() = Duration::from_secs(2);
        let text = letter(&[7; 4 << 20]);
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all_at(&text, 0).unwrap();
                writer.set_len(text.len() as u64).unwrap();
                close(writer).unwrap();
            });
            thread::sleep(Duration::from_millis(700));
            // As many as there are threads that answer.
            for _ in 0..8 {
                scope.spawn(|| drop(for_writing().open(&path)));
            }
            thread::sleep(Duration::from_millis(300));
            // That it ends is what counts.
            let _ = reader.read_at(&mut [0; 4096], 6 << 20);
        });
        assert_eq!(found(&path), Found::Sealed);
    });
}

#[test]
fn what_is_half_old_and_half_new_is_not_sealed_by_the_next_start() {
    const HALF: &str = "trusted.signdrop.half";
    let mut mounted = Mounted::new();
    let (path, text) = (mounted.at().join("letter"), letter(b"dear reader"));
    let before = sealed(&path);
    let held = mounted.below().join(".signdrop-held-letter~");
    let marked = |path: &Path| rustix::fs::getxattr(path, HALF, &mut [0_u8; 0]);
    let writer = for_writing().open(&path).unwrap();
    writer.write_all_at(&text, 0).unwrap();
    assert_eq!(marked(&held), Ok(0));
    close(writer).unwrap();
    assert_eq!(
        marked(&mounted.below().join("letter")),
        Err(Errno::NODATA),
        "what is closed is meant"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    mounted.stop(Duration::from_secs(10));
    // As a kill leaves it: whole by its own account, and not closed.
    fs::write(&held, letter(b"half of each")).unwrap();
    rustix::fs::setxattr(&held, HALF, b"", rustix::fs::XattrFlags::empty()).unwrap();
    mounted.start();
    let refused = |mounted: &Mounted| {
        assert_eq!(fs::read(&path).unwrap(), before);
        let held = mounted.mount().held_back();
        assert_eq!(held.len(), 1, "{held:?}");
        assert_eq!(held[0].progress, Progress::Refused);
    };
    refused(&mounted);
    mounted.mount().retry(Path::new(""));
    refused(&mounted);
    fs::write(&path, letter(b"written anew")).unwrap();
    assert!(fs::read(&path).unwrap().ends_with(b"written anew"));
    assert_eq!(found(&path), Found::Sealed);
}

#[test]
fn those_who_wait_for_the_hook_keep_nobody_else_waiting() {
    // More than there are threads that answer.
    const OPENERS: usize = 12;
    let waiting = || {
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let names = threads
            .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).ok());
        names.filter(|name| name.trim() == "waiter").count()
    };
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        fs::create_dir(mounted.at().join("elsewhere")).unwrap();
        let writer = for_writing().create(true).open(&path).unwrap();
        writer.write_all_at(&letter(b"dear reader"), 0).unwrap();
        let copy = writer.try_clone().unwrap();
        thread::scope(|scope| {
            let gate = mounted.hook.gate.write().unwrap();
            scope.spawn(|| close(writer));
            until("with the hook", || {
                let held = mounted.mount().held_back();
                held.iter().any(|held| held.progress == Progress::Finishing)
            });
            for _ in 0..OPENERS {
                scope.spawn(|| drop(for_writing().open(&path)));
            }
            scope.spawn(|| drop(fs::rename(&path, mounted.at().join("renamed"))));
            scope.spawn(|| drop(copy.write_at(b"P.S.", 100)));
            // Of the rename and the write, the kernel sends the second when it has the first one's answer.
            // Others of other tests may wait as well.
            until("waiting", || waiting() > OPENERS);
            let (tell, told) = std::sync::mpsc::channel();
            // The kernel lets nobody make a name in the directory in which it waits for a rename.
            let text = mounted.at().join("elsewhere/text");
            scope.spawn(move || tell.send(fs::write(text, "text")));
            let written = told.recv_timeout(Duration::from_secs(30));
            drop(gate);
            assert!(matches!(written, Ok(Ok(()))), "{written:?}");
        });
    });
}

#[test]
fn a_directory_that_comes_to_be_watched_brings_no_writer_along() {
    let mounted = Mounted::new();
    let (unwatched, watched) = (mounted.at().join("unwatched"), mounted.at().join("index"));
    fs::create_dir(&unwatched).unwrap();
    for number in 0..1000 {
        fs::write(mounted.below().join(format!("unwatched/{number}")), "text").unwrap();
    }
    let mut renamed = 0;
    for round in 0..60 {
        fs::write(unwatched.join("letter"), "").unwrap();
        let directory = rustix::fs::open(&unwatched, OFlags::PATH, Mode::empty()).unwrap();
        let writer = thread::scope(|scope| {
            let opened = scope.spawn(|| {
                thread::sleep(Duration::from_micros(300 * round));
                rustix::fs::openat(&directory, "letter", OFlags::RDWR, Mode::empty()).unwrap()
            });
            let result = fs::rename(&unwatched, &watched);
            assert!(result.is_ok() || errno(result) == Errno::XDEV);
            File::from(opened.join().unwrap())
        });
        writer.write_all_at(&letter(b"dear reader"), 0).unwrap();
        close(writer).unwrap();
        if watched.exists() {
            assert_eq!(
                found(&watched.join("letter")),
                Found::Sealed,
                "round {round}"
            );
            fs::remove_file(watched.join("letter")).unwrap();
            fs::rename(&watched, &unwatched).unwrap();
            renamed += 1;
        }
    }
    assert!(renamed > 0);
}

#[test]
fn opening_for_reading_may_empty_a_file() {
    let mounted = Mounted::new();
    let emptied = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::TRUNC;
        rustix::fs::open(path, flags, Mode::empty()).map(|_| fs::read(path).unwrap())
    };
    fs::create_dir(mounted.at().join("unwatched")).unwrap();
    for name in ["text", "unwatched/letter"] {
        fs::write(mounted.at().join(name), letter(b"text").split_off(4)).unwrap();
        assert_eq!(emptied(&mounted.at().join(name)), Ok(Vec::new()), "{name}");
    }
    let path = mounted.at().join("letter");
    let before = sealed(&path);
    assert_eq!(
        emptied(&path),
        Err(Errno::BUSY),
        "what is sealed does not change"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn what_is_not_watched_is_not_judged_whatever_names_it_has() {
    let mounted = Mounted::new();
    let directory = mounted.at().join("unwatched");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("letter"), letter(b"open")).unwrap();
    fs::hard_link(directory.join("letter"), directory.join("other")).unwrap();
    let writer = for_writing().open(directory.join("letter")).unwrap();
    rustix::fs::fallocate(&writer, rustix::fs::FallocateFlags::ZERO_RANGE, 0, 100).unwrap();
    close(writer).unwrap();
    assert_eq!(fs::read(directory.join("other")).unwrap(), [0; 100]);
}

#[test]
fn a_version_that_a_descriptor_was_led_on_to_is_not_thrown_away() {
    let mounted = Mounted::new();
    let path = mounted.at().join("letter");
    let writer = create_seen(&path);
    writer.write_all_at(&letter(b"first"), 0).unwrap();
    close(writer.try_clone().unwrap()).unwrap();
    assert_eq!(found(&path), Found::Sealed);
    writer.write_all_at(&letter(b"later"), 0).unwrap();
    // Longer than a version is kept that nobody came to open.
    thread::sleep(Duration::from_secs(11));
    let other = for_writing().open(&path).unwrap();
    writer.write_all_at(&letter(b"final"), 0).unwrap();
    close(writer).unwrap();
    close(other).unwrap();
    assert_eq!(found(&path), Found::Sealed);
    assert!(fs::read(&path).unwrap().ends_with(b"final"));
    assert!(mounted.mount().held_back().is_empty());
}

#[test]
fn a_close_waits_for_the_hook_that_another_close_has_called() {
    for (fails, wanted) in [(0, Ok(())), (1, Err(Errno::NOSPC))] {
        each_manner(|mounted| {
            mounted.hook.fail_at.store(fails, Ordering::SeqCst);
            let mut writer = File::create(mounted.at().join("letter")).unwrap();
            writer.write_all(&letter(b"shared")).unwrap();
            let copy = writer.try_clone().unwrap();
            let gate = mounted.hook.gate.write().unwrap();
            thread::scope(|scope| {
                let first = scope.spawn(|| close(copy));
                until("with the hook", || {
                    let held = mounted.mount().held_back();
                    held.iter().any(|held| held.progress == Progress::Finishing)
                });
                let second = scope.spawn(|| close(writer));
                thread::sleep(Duration::from_millis(200));
                assert!(!second.is_finished(), "it did not wait");
                drop(gate);
                assert_eq!(first.join().unwrap(), wanted);
                assert_eq!(second.join().unwrap(), wanted);
            });
            until("settled", || {
                mounted.mount().held_back().len() == usize::from(wanted.is_err())
            });
        });
    }
}

#[test]
fn what_a_descriptor_is_led_on_to_loses_set_id_bits_by_whatever_changes_it() {
    /// What a thread does as somebody who may not keep the bits.
    fn as_somebody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: of this thread alone.
                unsafe { libc::setfsuid(1000) };
                work()
            });
            thread.join().unwrap()
        })
    }
    each_manner(|mounted| {
        for change in ["copy", "allocate", "write"] {
            let (path, source) = (mounted.at().join(change), mounted.at().join("source"));
            fs::write(&source, vec![7; 8192]).unwrap();
            let source = File::open(&source).unwrap();
            let writer = for_writing().create(true).open(&path).unwrap();
            writer.write_all_at(&letter(&[1; 8192]), 0).unwrap();
            close(writer.try_clone().unwrap()).unwrap();
            assert_eq!(found(&path), Found::Sealed);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
            as_somebody(|| match change {
                "copy" => {
                    let (mut from, mut to) = (0, 4096);
                    let places = (Some(&mut from), Some(&mut to));
                    rustix::fs::copy_file_range(&source, places.0, &writer, places.1, 4096)
                        .unwrap();
                }
                "allocate" => {
                    let mode = rustix::fs::FallocateFlags::empty();
                    rustix::fs::fallocate(&writer, mode, 0, 16384).unwrap();
                }
                _ => writer.write_all_at(b"x", 5000).unwrap(),
            });
            writer.write_all_at(&letter(&[2; 8192]), 0).unwrap();
            writer.set_len(letter(&[2; 8192]).len() as u64).unwrap();
            close(writer).unwrap();
            assert_eq!(found(&path), Found::Sealed, "{change}");
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o6000, 0, "{change}: {mode:o}");
        }
    });
}

#[test]
fn what_has_another_name_below_is_thrown_away_whole() {
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        mounted.hook.fail_at.store(1, Ordering::SeqCst);
        let mut writer = File::create(&path).unwrap();
        writer.write_all(&letter(b"refused")).unwrap();
        assert_eq!(close(writer), Err(Errno::NOSPC));
        let held = mounted.below().join(".signdrop-held-letter~");
        fs::hard_link(&held, mounted.below().join("linked")).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(mounted.mount().held_back().is_empty());
        sealed(&path);
        fs::remove_file(&path).unwrap();
    });
}

#[test]
fn what_the_hook_has_changed_before_it_failed_can_be_tried_again_written_and_removed() {
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        let refuse = || {
            mounted.hook.fails_late.store(true, Ordering::SeqCst);
            let mut writer = create_seen(&path);
            writer.write_all(&letter(b"refused")).unwrap();
            let copy = writer.try_clone().unwrap();
            assert_eq!(close(copy), Err(Errno::NOSPC));
            assert_eq!(close(writer), Err(Errno::NOSPC));
            let held = mounted.mount().held_back();
            assert_eq!(held.len(), 1, "{held:?}");
            assert_eq!(held[0].progress, Progress::Refused);
            assert!(names(&mounted.at()).is_empty());
        };
        refuse();
        let tried = mounted.mount().retry(Path::new(""));
        assert_eq!(tried.len(), 1, "{tried:?}");
        assert_eq!(tried[0].1, Ok(()));
        assert_eq!(found(&path), Found::Sealed);
        fs::remove_file(&path).unwrap();
        refuse();
        fs::write(&path, letter(b"once more")).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        assert!(fs::read(&path).unwrap().ends_with(b"once more"));
        fs::remove_file(&path).unwrap();
        refuse();
        fs::remove_file(&path).unwrap();
        assert!(mounted.mount().held_back().is_empty());
        assert_eq!(names(&mounted.below()), Vec::<String>::new());

        // By a descriptor that was open all the time, also where it was tried again meanwhile.
        for is_retried in [false, true] {
            mounted.hook.fails_late.store(true, Ordering::SeqCst);
            let writer = create_seen(&path);
            writer.write_all_at(&letter(b"refused"), 0).unwrap();
            assert_eq!(close(writer.try_clone().unwrap()), Err(Errno::NOSPC));
            if is_retried {
                assert_eq!(mounted.mount().retry(Path::new(""))[0].1, Ok(()));
                assert_eq!(close(writer.try_clone().unwrap()), Ok(()));
            }
            writer.write_all_at(&letter(b"written"), 0).unwrap();
            assert_eq!(close(writer), Ok(()));
            assert_eq!(found(&path), Found::Sealed);
            assert!(fs::read(&path).unwrap().ends_with(b"written"));
            fs::remove_file(&path).unwrap();
        }

        // A rename that fails late leaves both names as they were.
        let draft = mounted.at().join("draft");
        fs::write(&draft, letter(b"renamed")).unwrap();
        mounted.hook.fails_late.store(true, Ordering::SeqCst);
        assert_eq!(errno(fs::rename(&draft, &path)), Errno::NOSPC);
        assert_eq!(names(&mounted.at()), ["draft"]);
        until("found by its old name", || {
            fs::metadata(&draft).is_ok_and(|found| found.nlink() == 1)
        });
        assert!(fs::read(&draft).unwrap().ends_with(b"renamed"));
        assert!(mounted.mount().held_back().is_empty());
        fs::rename(&draft, &path).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        assert_eq!(names(&mounted.below()), ["letter"]);
    });
}

#[test]
fn those_who_close_copies_of_one_letter_keep_no_other_from_being_sealed() {
    let mounted = Mounted::new();
    let mut writer = File::create(mounted.at().join("letter")).unwrap();
    writer.write_all(&letter(b"shared")).unwrap();
    // More than there are threads to finish letters.
    let copies: Vec<File> = (0..40).map(|_| writer.try_clone().unwrap()).collect();
    let other = mounted.at().join("other");
    *mounted.hook.delay.lock().unwrap() = Duration::from_secs(5);
    thread::scope(|scope| {
        let first = scope.spawn(|| close(writer));
        until("with the hook", || {
            mounted.hook.calls.load(Ordering::SeqCst) == 1
        });
        *mounted.hook.delay.lock().unwrap() = Duration::ZERO;
        let closed: Vec<_> = copies
            .into_iter()
            .map(|copy| scope.spawn(|| close(copy)))
            .collect();
        thread::sleep(Duration::from_millis(300));
        let mut file = File::create(&other).unwrap();
        file.write_all(&letter(b"other")).unwrap();
        close(file).unwrap();
        assert_eq!(found(&other), Found::Sealed);
        let held = mounted.mount().held_back();
        assert_eq!(held.len(), 1, "it waited for the first one");
        assert_eq!(held[0].progress, Progress::Finishing);
        for close in closed.into_iter().chain([first]) {
            close.join().unwrap().unwrap();
        }
    });
}
