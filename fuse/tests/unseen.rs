//! New files whose writes the kernel passes to the file below, so that the mount does not see them. Where it does not pass them, the same
//! holds but for what each test says.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unsafe_code,
    reason = "what fails here fails the test"
)]

mod common;

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use common::{
    Found, Manner, Mounted, close, each_manner, errno, found, letter, names, read_letter, until,
};
use signdrop_fuse::{Errno, Progress, Reading};

fn passes(mounted: &Mounted) -> bool {
    mounted.mount().reading() == Reading::Passed
}

/// A new file with a letter in it, of whose descriptor a copy has been closed.
fn closed_once(path: &Path) -> File {
    let file = File::create(path).unwrap();
    file.write_all_at(&letter(b"once"), 0).unwrap();
    close(file.try_clone().unwrap()).unwrap();
    file
}

/// By the place where writes arrive: what is passed needs no request.
#[test]
fn what_is_written_to_a_new_file_is_passed_where_the_kernel_can() {
    let mounted = Mounted::new();
    let path = mounted.at().join("text");
    let file = File::create(&path).unwrap();
    file.write_all_at(b"text", 0).unwrap();
    // Nobody has looked for it.
    let below = names(&mounted.below());
    let wanted = match passes(&mounted) {
        true => ".signdrop-held-text~",
        false => "text",
    };
    assert_eq!(below, [wanted]);
    assert_eq!(names(&mounted.at()), ["text"]);
    assert_eq!(names(&mounted.below()), ["text"]);
    assert!(mounted.mount().held_back().is_empty());
    assert_eq!(fs::read(&path).unwrap(), b"text");
    close(file).unwrap();
    let other = mounted.at().join("other");
    fs::write(&other, b"text").unwrap();
    // Nobody has to look.
    until("named", || names(&mounted.below()) == ["other", "text"]);
    assert_eq!(mounted.hook.calls.load(Ordering::SeqCst), 0);
}

#[test]
fn a_letter_is_shown_when_the_last_copy_of_its_descriptor_is_closed() {
    let mounted = Mounted::new();
    let path = mounted.at().join("letter");
    let file = closed_once(&path);
    if passes(&mounted) {
        // Somebody may write to it still.
        assert_eq!(names(&mounted.at()), [""; 0]);
        assert_eq!(errno(fs::read(&path)), Errno::BUSY);
        let held = mounted.mount().held_back();
        assert_eq!(held[0].progress, Progress::Closing);
        // It has been sealed all the same.
        let held = mounted.below().join(".signdrop-held-letter~");
        assert_eq!(found(&held), Found::Sealed);
        close(file.try_clone().unwrap()).unwrap();
        assert_eq!(mounted.hook.calls.load(Ordering::SeqCst), 1);
    }
    close(file).unwrap();
    assert_eq!(found(&path), Found::Sealed);
    assert_eq!(mounted.hook.calls.load(Ordering::SeqCst), 1);
    assert!(mounted.mount().held_back().is_empty());
}

#[test]
fn what_is_written_after_a_copy_was_closed_is_sealed_anew() {
    let mounted = Mounted::new();
    let path = mounted.at().join("letter");
    for by_rename in [false, true] {
        let file = closed_once(&path);
        if by_rename && passes(&mounted) {
            fs::rename(&path, mounted.at().join("renamed")).unwrap();
            fs::rename(mounted.at().join("renamed"), &path).unwrap();
        }
        file.write_all_at(&letter(b"again"), 0).unwrap();
        file.set_len(letter(b"again").len() as u64).unwrap();
        close(file).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        assert!(fs::read(&path).unwrap().ends_with(b"again"));
        // What is no whole letter any more is told, and held back.
        let file = closed_once(&mounted.at().join("torn"));
        file.write_all_at(b"more", 40).unwrap();
        assert_eq!(close(file), Err(Errno::IO));
        let held = mounted.mount().held_back();
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].progress, Progress::Refused);
        fs::remove_file(mounted.at().join("torn")).unwrap_or_else(|error| {
            // The version of before, where it was seen.
            assert!(!passes(&mounted), "{error}");
        });
        let _ = fs::remove_file(mounted.at().join("torn"));
        fs::remove_file(&path).unwrap();
        assert_eq!(names(&mounted.below()), [""; 0]);
    }
}

#[test]
fn what_was_refused_can_be_mended_by_the_same_descriptor() {
    let mounted = Mounted::new();
    let path = mounted.at().join("letter");
    let whole = letter(b"in two parts");
    let mut file = File::create(&path).unwrap();
    file.write_all(&whole[..30]).unwrap();
    for _ in 0..2 {
        assert_eq!(close(file.try_clone().unwrap()), Err(Errno::IO));
    }
    // Once for each content.
    assert_eq!(mounted.hook.calls.load(Ordering::SeqCst), 1);
    file.write_all(&whole[30..]).unwrap();
    close(file).unwrap();
    assert_eq!(found(&path), Found::Sealed);
}

#[test]
fn who_shares_a_replaced_letter_is_told_that_it_is_another_file() {
    let mounted = Mounted::new();
    *mounted.hook.manner.lock().unwrap() = Manner::ByCopy;
    let path = mounted.at().join("letter");
    let file = closed_once(&path);
    assert_eq!(found(&path), Found::Sealed);
    file.write_all_at(&letter(b"more"), 0).unwrap();
    if passes(&mounted) {
        assert_eq!(close(file), Err(Errno::STALE));
        assert!(fs::read(&path).unwrap().ends_with(b"once"));
    } else {
        close(file).unwrap();
        assert!(fs::read(&path).unwrap().ends_with(b"more"));
    }
    assert_eq!(found(&path), Found::Sealed);
    assert!(mounted.mount().held_back().is_empty());
}

#[test]
fn a_text_that_becomes_a_letter_is_hidden_as_soon_as_anybody_looks() {
    each_manner(|mounted| {
        let path = mounted.at().join("file");
        let mut file = File::create(&path).unwrap();
        let mut early = File::open(&path).unwrap();
        file.write_all(b"text").unwrap();
        assert_eq!(names(&mounted.at()), ["file"]);
        let mut text = String::new();
        early.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        // Another who writes to it, and one who adds to it.
        let second = OpenOptions::new().write(true).open(&path).unwrap();
        let mut third = OpenOptions::new().append(true).open(&path).unwrap();
        let whole = letter(b"which was a text");
        second.write_all_at(&whole[..30], 0).unwrap();
        third.write_all(&whole[30..]).unwrap();
        early.rewind().unwrap();
        assert_eq!(errno(early.read_to_string(&mut text)), Errno::BUSY);
        assert_eq!(names(&mounted.at()), [""; 0]);
        assert_eq!(names(&mounted.below()), [".signdrop-held-file~"]);
        assert_eq!(errno(File::open(&path)), Errno::BUSY);
        assert_eq!(fs::metadata(&path).unwrap().len(), whole.len() as u64);
        close(file).unwrap();
        close(third).unwrap();
        assert_eq!(mounted.hook.calls.load(Ordering::SeqCst), 0);
        close(second).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        let mut bytes = Vec::new();
        match early.read_to_end(&mut bytes) {
            Ok(_) => assert_eq!(read_letter(&bytes), Found::Sealed),
            // It is another inode.
            Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::STALE.raw_os_error())),
        }
        // And a letter that becomes a text.
        let path = mounted.at().join("was-a-letter");
        let file = File::create(&path).unwrap();
        file.write_all_at(&whole, 0).unwrap();
        assert_eq!(names(&mounted.at()), ["file"]);
        file.write_all_at(b"text", 0).unwrap();
        if !passes(mounted) {
            close(file.try_clone().unwrap()).unwrap();
        }
        assert_eq!(names(&mounted.at()), ["file", "was-a-letter"]);
        close(file).unwrap();
        assert_eq!(mounted.mount().held_back(), []);
    });
}

#[test]
fn nobody_reads_what_is_expected_before_its_first_bytes() {
    let mounted = Mounted::new();
    let directory = mounted.at().join("expected");
    fs::create_dir(&directory).unwrap();
    let path = directory.join("file");
    let mut file = File::create(&path).unwrap();
    let opened = File::open(&path);
    match passes(&mounted) {
        true => assert_eq!(errno(opened), Errno::BUSY),
        false => drop(opened.unwrap()),
    }
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    // A shell closes a copy before it writes anything.
    close(file.try_clone().unwrap()).unwrap();
    let listed: &[&str] = if passes(&mounted) { &[] } else { &["file"] };
    assert_eq!(names(&directory), listed);
    // Nor what may still become anything.
    file.write_all(b"t").unwrap();
    assert_eq!(names(&directory), listed);
    file.write_all(&[b'e'; 99]).unwrap();
    assert_eq!(names(&directory), ["file"]);
    assert_eq!(fs::read(&path).unwrap().len(), 100);
    close(file).unwrap();
    // Who looks after the close finds it.
    for round in 0..50 {
        let path = directory.join(format!("empty-{round}"));
        drop(File::create(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"");
        fs::remove_file(&path).unwrap();
        drop(File::create(&path).unwrap());
        fs::remove_dir_all(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
    }
}

#[test]
fn what_cannot_be_held_back_loses_its_first_bytes() {
    let mounted = Mounted::new();
    let (path, linked) = (mounted.at().join("file"), mounted.at().join("linked"));
    let file = File::create(&path).unwrap();
    fs::hard_link(&path, &linked).unwrap();
    let written = file.write_all_at(&letter(b"by two names"), 0);
    if !passes(&mounted) {
        assert_eq!(errno(written), Errno::BUSY);
        return;
    }
    written.unwrap();
    // Whoever looks first is told, and nobody reads it, as if the write had failed.
    assert_eq!(errno(File::open(&path)), Errno::BUSY);
    for _ in 0..2 {
        assert_eq!(close(file.try_clone().unwrap()), Err(Errno::BUSY));
    }
    assert_eq!(close(file), Err(Errno::BUSY));
    for name in [&path, &linked] {
        let bytes = fs::read(name).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "{bytes:?}");
    }
    // By a name that is too long to be held back, and with nobody who looks.
    let long = mounted.at().join("n".repeat(250));
    let file = File::create(path.with_file_name("draft")).unwrap();
    file.write_all_at(&letter(b"a"), 0).unwrap();
    fs::rename(path.with_file_name("draft"), &long).unwrap_err();
    file.write_all_at(b"text", 0).unwrap();
    fs::rename(path.with_file_name("draft"), &long).unwrap();
    file.write_all_at(&letter(b"a"), 0).unwrap();
    assert_eq!(close(file), Err(Errno::NAMETOOLONG));
    assert!(!fs::read(&long).unwrap().starts_with(b"L"));
    assert_eq!(mounted.hook.calls.load(Ordering::SeqCst), 0);
    assert_eq!(mounted.mount().held_back(), []);
}

#[test]
fn what_is_renamed_while_it_is_written_is_judged_by_its_new_name() {
    each_manner(|mounted| {
        let (draft, path) = (mounted.at().join("draft"), mounted.at().join("letter"));
        fs::write(&path, letter(b"old")).unwrap();
        let file = File::create(&draft).unwrap();
        file.write_all_at(&letter(b"new"), 0).unwrap();
        assert_eq!(found(&draft), Found::Open);
        fs::rename(&draft, &path).unwrap();
        // It takes the other's place when it is sealed.
        assert!(fs::read(&path).unwrap().ends_with(b"old"));
        assert_eq!(errno(fs::metadata(&draft)), Errno::NOENT);
        close(file).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        assert!(fs::read(&path).unwrap().ends_with(b"new"));
        // What nobody holds back takes it at once.
        let file = File::create(&draft).unwrap();
        file.write_all_at(b"text", 0).unwrap();
        fs::rename(&draft, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text");
        file.write_all_at(b" and more", 4).unwrap();
        close(file).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text and more");
        // Names that are too long to be held back are as on the directory below.
        let long = mounted.at().join("n".repeat(250));
        fs::write(&long, b"text").unwrap();
        assert_eq!(fs::read(&long).unwrap(), b"text");
        assert_eq!(mounted.mount().held_back(), []);
    });
}

#[test]
fn what_is_removed_while_it_is_written_is_gone() {
    let mounted = Mounted::new();
    for content in [letter(b"letter"), b"text".to_vec()] {
        let path = mounted.at().join("file");
        let file = File::create(&path).unwrap();
        file.write_all_at(&content, 0).unwrap();
        fs::remove_file(&path).unwrap();
        file.write_all_at(&content, 100).unwrap();
        let _ = close(file);
        assert_eq!(names(&mounted.at()), [""; 0]);
        assert_eq!(names(&mounted.below()), [""; 0]);
    }
}

#[test]
fn a_mount_that_ends_names_what_nobody_holds_back() {
    let mut mounted = Mounted::new();
    let at = mounted.at();
    let text = File::create(at.join("text")).unwrap();
    text.write_all_at(&[b't'; 100], 0).unwrap();
    let half = File::create(at.join("half")).unwrap();
    half.write_all_at(&letter(b"in two halves")[..30], 0)
        .unwrap();
    let whole = File::create(at.join("whole")).unwrap();
    whole.write_all_at(&letter(b"whole"), 0).unwrap();
    let empty = File::create(at.join("empty")).unwrap();
    let passes = passes(&mounted);
    mounted.stop(Duration::from_millis(100));
    let held = [".signdrop-held-half~", ".signdrop-held-whole~"];
    let other = if passes {
        [".signdrop-held-empty~", "text"]
    } else {
        ["empty", "text"]
    };
    let mut wanted: Vec<&str> = held.into_iter().chain(other).collect();
    wanted.sort_unstable();
    assert_eq!(names(&mounted.below()), wanted);
    // As where the daemon has ended: their writers go on with what is below.
    mounted.start();
    until("sealed", || names(&at).contains(&"whole".to_owned()));
    assert_eq!(found(&at.join("whole")), Found::Sealed);
    assert_eq!(fs::read(at.join("text")).unwrap(), [b't'; 100]);
    until("half is refused", || {
        let mut held = mounted.mount().held_back().into_iter();
        held.all(|held| held.progress == Progress::Refused)
    });
    let refused = mounted.mount().held_back();
    let mut refused: Vec<&Path> = refused.iter().map(|held| held.path.as_path()).collect();
    refused.sort_unstable();
    let wanted: &[&str] = if passes {
        &["empty", "half"]
    } else {
        &["half"]
    };
    assert_eq!(refused, wanted.iter().map(Path::new).collect::<Vec<_>>());
    drop((text, half, whole, empty));
}

#[test]
fn what_was_closed_before_the_mount_ends_is_named() {
    let mut mounted = Mounted::new();
    for round in 0..20 {
        let name = format!("letter-{round}");
        let file = File::create(mounted.at().join(&name)).unwrap();
        file.write_all_at(&letter(b"closed"), 0).unwrap();
        close(file).unwrap();
        // The kernel may not come to tell of the release.
        mounted.stop(Duration::from_secs(10));
        assert_eq!(found(&mounted.below().join(&name)), Found::Sealed);
        mounted.start();
    }
}

#[test]
fn a_log_that_grows_is_read_right_in_every_way() {
    let mounted = Mounted::new();
    let path = mounted.at().join("log");
    let mut log = File::create(&path).unwrap();
    let early = File::open(&path).unwrap();
    let (mut wanted, mut sent) = (Vec::new(), 0);
    let mut reader = None;
    for round in 0..20_u8 {
        log.write_all(&[b'a' + round; 100]).unwrap();
        wanted.extend([b'a' + round; 100]);
        // Once it has begun, as a web server does.
        let reader = reader.get_or_insert_with(|| File::open(&path).unwrap());
        let (sink, mut got) = (tempfile::tempfile().unwrap(), vec![0; 100]);
        rustix::fs::sendfile(&sink, &reader, Some(&mut sent), 4096).unwrap();
        assert_eq!(sent, wanted.len() as u64);
        sink.read_exact_at(&mut got, 0).unwrap();
        assert_eq!(got, [b'a' + round; 100]);
        assert_eq!(fs::read(&path).unwrap(), wanted);
        let mut got = vec![0; wanted.len()];
        early.read_exact_at(&mut got, 0).unwrap();
        assert_eq!(got, wanted);
        // Through the cache, which does not see what was written, nothing is better than what it has kept.
        let mut from = 0;
        let through = rustix::fs::sendfile(&sink, &early, Some(&mut from), 4096);
        match passes(&mounted) {
            true => assert_eq!(through, Err(Errno::BUSY)),
            false => assert_eq!(through, Ok(wanted.len())),
        }
    }
    close(log).unwrap();
    // Who adds to it later, while it is still read.
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(b"end").unwrap();
    wanted.extend(b"end");
    let mut got = vec![0; wanted.len()];
    early.read_exact_at(&mut got, 0).unwrap();
    assert_eq!(got, wanted);
    reader.unwrap().read_exact_at(&mut got, 0).unwrap();
    assert_eq!(got, wanted);
}

#[test]
fn what_is_written_while_the_hook_works_counts() {
    for fails in [0, 1] {
        let mounted = Mounted::new();
        let path = mounted.at().join("letter");
        let file = File::create(&path).unwrap();
        file.write_all_at(&letter(b"once"), 0).unwrap();
        mounted.hook.fail_at.store(fails, Ordering::SeqCst);
        if passes(&mounted) {
            let gate = mounted.hook.gate.write().unwrap();
            thread::scope(|scope| {
                let copy = file.try_clone().unwrap();
                let closes = scope.spawn(|| close(copy));
                until("with the hook", || {
                    let held = mounted.mount().held_back();
                    held.first()
                        .is_some_and(|held| held.progress == Progress::Finishing)
                });
                // As long as before: it is told by its time.
                file.write_all_at(&letter(b"more"), 0).unwrap();
                file.set_len(letter(b"more").len() as u64).unwrap();
                drop(gate);
                let wanted = if fails > 0 { Err(Errno::NOSPC) } else { Ok(()) };
                assert_eq!(closes.join().unwrap(), wanted);
            });
        }
        file.write_all_at(&letter(b"last"), 0).unwrap();
        mounted.hook.fail_at.store(0, Ordering::SeqCst);
        close(file).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        assert!(fs::read(&path).unwrap().ends_with(b"last"));
    }
}

#[test]
fn as_much_written_at_once_after_a_close_is_noticed() {
    let mounted = Mounted::new();
    let path = mounted.at().join("letter");
    for _ in 0..50 {
        let file = closed_once(&path);
        file.write_all_at(&letter(b"more"), 0).unwrap();
        close(file).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        assert!(fs::read(&path).unwrap().ends_with(b"more"));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn who_opened_it_when_nothing_told_what_it_is_does_not_read_an_open_letter() {
    let mounted = Mounted::new();
    let whole = letter(b"in small pieces, since nothing tells of it before its first bytes");
    for begun in [0, 2, 4] {
        let path = mounted.at().join(format!("letter-{begun}"));
        let file = File::create(&path).unwrap();
        file.write_all_at(&whole[..begun], 0).unwrap();
        let reader = File::open(&path);
        file.write_all_at(&whole, 0).unwrap();
        match reader {
            Ok(mut reader) => {
                assert!(begun < 4);
                let mut bytes = Vec::new();
                assert_eq!(errno(reader.read_to_end(&mut bytes)), Errno::BUSY);
                close(file).unwrap();
                reader.read_to_end(&mut bytes).unwrap();
                assert_eq!(read_letter(&bytes), Found::Sealed);
            }
            error => {
                assert_eq!(errno(error), Errno::BUSY);
                close(file).unwrap();
            }
        }
        assert_eq!(found(&path), Found::Sealed);
    }
}
