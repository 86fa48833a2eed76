//! What is held back, and when it is seen.
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
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    Found, Manner, Mounted, close, create_seen, each_manner, errno, found, letter, names,
    read_letter, until,
};
use rustix::fs::{Mode, OFlags};
use signdrop_fuse::{Errno, Progress};

#[test]
fn a_letter_is_sealed_when_close_returns() {
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        let mut file = File::create(&path).unwrap();
        file.write_all(&letter(b"dear reader")).unwrap();
        assert_eq!(close(file), Ok(()));
        assert_eq!(found(&path), Found::Sealed);
        assert_eq!(found(&mounted.below().join("letter")), Found::Sealed);
        assert_eq!(names(&mounted.at()), ["letter"]);
        assert_eq!(
            names(&mounted.below()),
            ["letter"],
            "nothing is left beside it"
        );
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            letter(b"dear reader").len() as u64
        );
        assert_eq!(*mounted.hook.seen.lock().unwrap(), [Path::new("letter")]);
        assert!(mounted.mount().held_back().is_empty());
    });
}

#[test]
fn nobody_but_its_writer_reads_a_letter_that_is_being_written() {
    each_manner(|mounted| nobody_but_its_writer_reads(mounted));
}

fn nobody_but_its_writer_reads(mounted: &Mounted) {
    let path = mounted.at().join("letter");
    let early = File::create(&path).unwrap();
    assert_eq!(names(&mounted.at()), ["letter"], "an empty file is none");
    // Opened while it was empty: its reads are asked for, too.
    let reader = File::open(&path).unwrap();
    let by_path: File = rustix::fs::open(&path, OFlags::PATH, Mode::empty())
        .unwrap()
        .into();
    let whole = letter(b"secret until sealed");
    early.write_all_at(&whole[..3], 0).unwrap();
    assert_eq!(
        fs::read(&path).unwrap(),
        b"LTT",
        "three bytes show nothing yet"
    );
    early.write_all_at(&whole[3..10], 3).unwrap();
    assert_eq!(
        names(&mounted.at()),
        Vec::<String>::new(),
        "directories do not list it"
    );
    assert_eq!(errno(File::open(&path)), Errno::BUSY);
    assert_eq!(errno(fs::read(&path)), Errno::BUSY);
    assert_eq!(errno(reader.read_at(&mut [0; 4], 0)), Errno::BUSY);
    assert_eq!(
        errno(fs::hard_link(&path, mounted.at().join("other-name"))),
        Errno::BUSY
    );
    // One that is open for writing reads what it has written.
    let writer = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let mut bytes = [0; 10];
    writer.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, whole[..10]);
    // Its name works.
    assert_eq!(fs::metadata(&path).unwrap().len(), 10);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    assert_eq!(
        errno(OpenOptions::new().write(true).create_new(true).open(&path)),
        Errno::EXIST
    );
    let progress = mounted.mount().held_back();
    assert_eq!(progress[0].path, Path::new("letter"));
    assert_eq!(progress[0].progress, Progress::Written);
    // What is below is under another name: whoever looks there finds no letter of that name.
    assert_eq!(names(&mounted.below()), [".signdrop-held-letter~"]);
    writer.write_all_at(&whole[10..], 10).unwrap();
    close(early).unwrap();
    assert_eq!(errno(File::open(&path)), Errno::BUSY, "one writer is left");
    close(writer).unwrap();
    assert_eq!(found(&path), Found::Sealed);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    // What was opened before it was a letter shows the sealed one, or nothing at all.
    let again = format!("/proc/self/fd/{}", by_path.as_raw_fd());
    match *mounted.hook.manner.lock().unwrap() {
        Manner::InPlace => {
            let mut text = Vec::new();
            (&reader).read_to_end(&mut text).unwrap();
            assert_eq!(read_letter(&text), Found::Sealed);
            assert_eq!(found(Path::new(&again)), Found::Sealed);
        }
        Manner::ByCopy => {
            assert_eq!(errno(reader.read_at(&mut [0; 4], 0)), Errno::STALE);
            assert_eq!(errno(File::open(&again)), Errno::STALE);
            let writer = OpenOptions::new().write(true).open(&again);
            assert_eq!(errno(writer), Errno::STALE);
            // The name leads to what took its place, for writing too.
            let writer = OpenOptions::new().write(true).open(&path).unwrap();
            close(writer).unwrap();
            assert_eq!(found(&path), Found::Sealed);
        }
    }
}

#[test]
fn the_mounts_own_names_are_nobody_elses() {
    let mounted = Mounted::new();
    let own = mounted.at().join(".signdrop-held-x~");
    fs::write(mounted.below().join(".signdrop-held-x~"), "text").unwrap();
    assert_eq!(errno(fs::read(&own)), Errno::NOENT);
    assert_eq!(errno(File::create(&own)), Errno::PERM);
    assert_eq!(errno(fs::create_dir(&own)), Errno::PERM);
    assert_eq!(errno(fs::remove_file(&own)), Errno::NOENT);
    fs::write(mounted.at().join("file"), "text").unwrap();
    assert_eq!(
        errno(fs::rename(mounted.at().join("file"), &own)),
        Errno::PERM
    );
    assert_eq!(
        errno(fs::rename(&own, mounted.at().join("file"))),
        Errno::NOENT
    );
    assert_eq!(
        errno(fs::hard_link(mounted.at().join("file"), &own)),
        Errno::PERM
    );
    assert_eq!(names(&mounted.at()), ["file"]);
}

#[test]
fn the_old_letter_is_read_until_the_new_one_is_sealed() {
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        fs::write(&path, letter(b"old")).unwrap();
        let before = fs::read(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        let reader = File::open(&path).unwrap();
        // Copied over it, as cp does.
        let mut writer = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        let new = letter(b"the new one, which is longer");
        writer.write_all(&new[..20]).unwrap();
        assert_eq!(
            writer.metadata().unwrap().len(),
            20,
            "the writer sees its own"
        );
        assert_eq!(
            fs::read(&path).unwrap(),
            before,
            "everybody else the old one"
        );
        assert_eq!(names(&mounted.at()), ["letter"]);
        assert_eq!(fs::metadata(&path).unwrap().len(), before.len() as u64);
        writer.write_all(&new[20..]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
        close(writer).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        assert_eq!(fs::read(&path).unwrap().len(), new.len());
        assert_eq!(
            fs::metadata(&path).unwrap().mode() & 0o777,
            0o664,
            "the mode stays"
        );
        let mut bytes = Vec::new();
        (&reader).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, before, "who has the old one open goes on with it");
        assert_eq!(names(&mounted.below()), ["letter"]);
    });
}

#[test]
fn a_letter_that_is_changed_in_place_is_sealed_anew() {
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        fs::write(&path, letter(b"aaaa")).unwrap();
        let before = fs::read(&path).unwrap();
        let new = letter(b"bbbb");
        // As rsync --inplace and dd conv=notrunc do.
        let writer = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mut bytes = vec![0; before.len()];
        writer.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, before, "it begins with the old content");
        writer.write_all_at(&new[12..], 12).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
        close(writer).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        assert!(fs::read(&path).unwrap().ends_with(b"bbbb"));
        // Overwritten by what is no letter: that is seen, too.
        fs::write(&path, "text").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text");
        assert_eq!(names(&mounted.below()), ["letter"]);
    });
}

#[test]
fn renaming_a_temporary_name_onto_the_final_one_ends_in_one_sealed_letter() {
    each_manner(|mounted| {
        let (temporary, path) = (
            mounted.at().join(".letter.XyZ123"),
            mounted.at().join("letter"),
        );
        for text in [&b"first"[..], b"second"] {
            fs::write(&temporary, letter(text)).unwrap();
            assert_eq!(
                found(&temporary),
                Found::Sealed,
                "by content and not by name"
            );
            fs::rename(&temporary, &path).unwrap();
            assert_eq!(found(&path), Found::Sealed);
            assert!(fs::read(&path).unwrap().ends_with(text));
            assert_eq!(names(&mounted.at()), ["letter"]);
        }
        // Renamed while it is still being written: the old one stays until then.
        let mut writer = File::create(&temporary).unwrap();
        writer.write_all(&letter(b"third")).unwrap();
        fs::rename(&temporary, &path).unwrap();
        assert!(fs::read(&path).unwrap().ends_with(b"second"));
        assert_eq!(names(&mounted.at()), ["letter"]);
        close(writer).unwrap();
        assert!(fs::read(&path).unwrap().ends_with(b"third"));
        assert_eq!(found(&path), Found::Sealed);
        assert_eq!(names(&mounted.below()), ["letter"]);
    });
}

#[test]
fn what_becomes_a_letter_by_its_new_name_is_sealed_before_it_has_that() {
    each_manner(|mounted| {
        let at = |name: &str| mounted.at().join(name);
        let write = |name: &str, text: &[u8]| fs::write(at(name), letter(text)).unwrap();
        let reader_of = |name: &str| File::open(at(name)).unwrap();
        write("draft", b"first");
        assert_eq!(found(&at("draft")), Found::Open, "by its name it is none");
        let early = reader_of("draft");
        fs::rename(at("draft"), at("letter")).unwrap();
        assert_eq!(found(&at("letter")), Found::Sealed);
        assert_eq!(names(&mounted.at()), ["letter"]);
        assert_eq!(names(&mounted.below()), ["letter"]);
        assert!(mounted.mount().held_back().is_empty());
        drop(early);
        // Over a sealed one: that is read until the hook has done its work.
        write("draft", b"second");
        *mounted.hook.delay.lock().unwrap() = Duration::from_millis(200);
        let ends = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    match fs::read(at("letter")) {
                        Ok(bytes) => assert_eq!(read_letter(&bytes), Found::Sealed),
                        Err(error) => {
                            assert_eq!(Errno::from_io_error(&error), Some(Errno::STALE));
                        }
                    }
                }
            });
            let renamed = fs::rename(at("draft"), at("letter"));
            ends.store(true, Ordering::Relaxed);
            renamed.unwrap();
        });
        *mounted.hook.delay.lock().unwrap() = Duration::ZERO;
        assert!(fs::read(at("letter")).unwrap().ends_with(b"second"));
        assert_eq!(found(&at("letter")), Found::Sealed);
        // A refusal reaches the renamer, and both files are what they were.
        let mut torn = letter(b"torn");
        torn.pop();
        fs::write(at("draft"), &torn).unwrap();
        assert_eq!(
            errno(fs::rename(at("draft"), at("letter"))),
            Errno::IO,
            "it cannot be sealed"
        );
        assert_eq!(fs::read(at("draft")).unwrap(), torn);
        assert!(fs::read(at("letter")).unwrap().ends_with(b"second"));
        assert_eq!(errno(fs::rename(at("draft"), at("new"))), Errno::IO);
        assert_eq!(names(&mounted.at()), ["draft", "letter"]);
        assert!(mounted.mount().held_back().is_empty());
        // By two names it would be seen unsealed.
        write("draft", b"third");
        assert_eq!(errno(fs::hard_link(at("draft"), at("linked"))), Errno::XDEV);
        let exchanged = |one: &str, other: &str| {
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                at(one),
                rustix::fs::CWD,
                at(other),
                rustix::fs::RenameFlags::EXCHANGE,
            )
        };
        assert_eq!(exchanged("draft", "letter"), Err(Errno::XDEV));
        assert_eq!(exchanged("letter", "draft"), Err(Errno::XDEV));
        fs::hard_link(at("draft"), at("draft-too")).unwrap();
        assert_eq!(errno(fs::rename(at("draft-too"), at("new"))), Errno::XDEV);
        fs::remove_file(at("draft-too")).unwrap();
        assert_eq!(
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                at("draft"),
                rustix::fs::CWD,
                at("letter"),
                rustix::fs::RenameFlags::NOREPLACE,
            ),
            Err(Errno::EXIST)
        );
        // Nor does one become a letter through a name by which it is none.
        File::create(at("draft-two")).unwrap();
        fs::hard_link(at("draft-two"), at("two")).unwrap();
        let mut writer = OpenOptions::new()
            .write(true)
            .open(at("draft-two"))
            .unwrap();
        assert_eq!(errno(writer.write_all(&letter(b"hidden"))), Errno::BUSY);
        drop(writer);
        fs::remove_file(at("two")).unwrap();
        fs::remove_file(at("draft-two")).unwrap();
        // Renamed while it is still being written: the close seals it.
        let mut writer = File::create(at("draft")).unwrap();
        let bytes = letter(b"still being written");
        writer.write_all(&bytes[..30]).unwrap();
        fs::rename(at("draft"), at("letter")).unwrap();
        assert!(fs::read(at("letter")).unwrap().ends_with(b"second"));
        writer.write_all(&bytes[30..]).unwrap();
        assert_eq!(close(writer), Ok(()));
        assert_eq!(found(&at("letter")), Found::Sealed);
        assert!(fs::read(at("letter")).unwrap().ends_with(b"written"));
        // The next write of one that was empty when it was renamed is judged by the new name.
        let mut writer = File::create(at("draft")).unwrap();
        fs::rename(at("draft"), at("new")).unwrap();
        writer.write_all(&bytes[..30]).unwrap();
        assert_eq!(names(&mounted.at()), ["letter"]);
        writer.write_all(&bytes[30..]).unwrap();
        close(writer).unwrap();
        assert_eq!(found(&at("new")), Found::Sealed);
        assert_eq!(names(&mounted.below()), ["letter", "new"]);
    });
}

#[test]
fn a_second_name_never_shows_what_comes_to_be_held_back() {
    each_manner(|mounted| {
        for round in 0..200 {
            let (path, second) = (mounted.at().join("letter"), mounted.at().join("second"));
            let mut writer = File::create(&path).unwrap();
            thread::scope(|scope| {
                let linker = scope.spawn(|| fs::hard_link(&path, &second));
                let written = writer.write_all(&letter(b"raced for"));
                let linked = linker.join().unwrap();
                // A write that is passed is told of at the close.
                let flushed = match (&written, &linked) {
                    (Ok(()), Ok(())) => {
                        let copy = writer.try_clone().unwrap();
                        close(copy).map_err(io::Error::from)
                    }
                    _ => Ok(()),
                };
                assert!(
                    written.is_err() || linked.is_err() || flushed.is_err(),
                    "round {round}: {linked:?}"
                );
                for errno in [written, linked, flushed]
                    .into_iter()
                    .filter(Result::is_err)
                    .map(errno)
                {
                    assert_eq!(errno, Errno::BUSY, "round {round}");
                }
            });
            drop(writer);
            for name in names(&mounted.at()) {
                let bytes = fs::read(mounted.at().join(&name)).unwrap();
                assert!(
                    bytes.iter().all(|byte| *byte == 0) || read_letter(&bytes) == Found::Sealed,
                    "round {round}: {name}"
                );
                fs::remove_file(mounted.at().join(name)).unwrap();
            }
        }
    });
}

#[test]
fn a_directory_without_letters_may_come_to_be_unwatched_and_back() {
    let mounted = Mounted::new();
    let (watched, unwatched) = (mounted.at().join("index"), mounted.at().join("unwatched"));
    fs::create_dir_all(watched.join("deeper")).unwrap();
    fs::write(watched.join("deeper/text"), "text").unwrap();
    fs::rename(&watched, &unwatched).unwrap();
    fs::rename(&unwatched, &watched).unwrap();
    // Whoever writes would go on unseen, or be seen to for nothing.
    let writer = File::create(watched.join("deeper/open")).unwrap();
    assert_eq!(errno(fs::rename(&watched, &unwatched)), Errno::XDEV);
    drop(writer);
    until("released", || fs::rename(&watched, &unwatched).is_ok());
    fs::write(unwatched.join("deeper/letter"), letter(b"open")).unwrap();
    assert_eq!(errno(fs::rename(&unwatched, &watched)), Errno::XDEV);
    fs::remove_file(unwatched.join("deeper/letter")).unwrap();
    fs::rename(&unwatched, &watched).unwrap();
    fs::write(watched.join("deeper/letter"), letter(b"sealed")).unwrap();
    assert_eq!(errno(fs::rename(&watched, &unwatched)), Errno::XDEV);
    let mut held = File::create(watched.join("deeper/letter")).unwrap();
    held.write_all(&letter(b"new")[..20]).unwrap();
    assert_eq!(errno(fs::rename(&watched, &unwatched)), Errno::XDEV);
}

#[test]
fn a_refusal_reaches_the_writer_and_can_be_tried_again_or_removed() {
    each_manner(|mounted| refusal_reaches_the_writer(mounted));
}

fn refusal_reaches_the_writer(mounted: &Mounted) {
    let path = mounted.at().join("letter");
    let write = |path: &Path, bytes: &[u8]| {
        let mut file = File::create(path).unwrap();
        file.write_all(bytes).unwrap();
        close(file)
    };
    let mut torn = letter(b"torn");
    torn.pop();
    assert_eq!(write(&path, &torn), Err(Errno::IO));
    assert_eq!(names(&mounted.at()), Vec::<String>::new());
    assert_eq!(errno(fs::read(&path)), Errno::BUSY);
    assert_eq!(mounted.mount().held_back()[0].progress, Progress::Refused);
    // Retrying it is as vain, going on with it is not.
    let told = mounted.mount().retry(Path::new(""));
    assert_eq!(told, [("letter".into(), Err(Errno::IO))]);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"n").unwrap();
    assert_eq!(close(file), Ok(()));
    assert_eq!(found(&path), Found::Sealed);
    // An error of the disk is answered as it is, and passes.
    mounted.hook.fail_at.store(1, Ordering::SeqCst);
    let second = mounted.at().join("second");
    assert_eq!(write(&second, &letter(b"second")), Err(Errno::NOSPC));
    assert_eq!(mounted.mount().retry(Path::new("elsewhere")), []);
    assert_eq!(
        mounted.mount().retry(Path::new("second")),
        [("second".into(), Ok(()))]
    );
    assert_eq!(found(&second), Found::Sealed);
    // It can be removed by its name, and a directory with nothing else in it as well.
    assert_eq!(write(&mounted.at().join("third"), &torn), Err(Errno::IO));
    fs::remove_file(mounted.at().join("third")).unwrap();
    fs::create_dir(mounted.at().join("dir")).unwrap();
    assert_eq!(
        write(&mounted.at().join("dir/fourth"), &torn),
        Err(Errno::IO)
    );
    // What somebody left below is not nothing.
    let strange = mounted.below().join("dir/.signdrop-copy.tmp");
    fs::write(&strange, "").unwrap();
    let directory = mounted.at().join("dir");
    assert_eq!(errno(fs::remove_dir(&directory)), Errno::NOTEMPTY);
    fs::remove_file(&strange).unwrap();
    assert_eq!(mounted.mount().held_back().len(), 1);
    // The reason goes where the file goes.
    fs::rename(directory.join("fourth"), directory.join("fifth")).unwrap();
    fs::remove_dir(&directory).unwrap();
    assert!(mounted.mount().held_back().is_empty());
    assert_eq!(
        *mounted.hook.moved.lock().unwrap(),
        [
            ("third".into(), None),
            ("dir/fourth".into(), Some("dir/fifth".into())),
            ("dir/fifth".into(), None),
        ]
    );
    // A new version that is refused leaves the old one.
    let before = fs::read(&path).unwrap();
    assert_eq!(write(&path, &torn), Err(Errno::IO));
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::remove_file(&path).unwrap();
    assert_eq!(
        names(&mounted.below()),
        ["second"],
        "the refused version goes with the name"
    );
}

#[test]
fn descriptors_that_are_shared_end_in_one_sealed_letter() {
    each_manner(|mounted| {
        let path = mounted.at().join("letter");
        // A copy is closed before anything is written, as shells do.
        let file = create_seen(&path);
        let copy = file.try_clone().unwrap();
        close(copy).unwrap();
        let whole = letter(b"once");
        file.write_all_at(&whole, 0).unwrap();
        let copy = file.try_clone().unwrap();
        close(copy).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        // The other copy goes on: what is seen stays as it is until that is closed.
        let before = fs::read(&path).unwrap();
        let again = letter(b"and again, longer than before");
        file.write_all_at(&again, 0).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
        close(file).unwrap();
        assert_eq!(found(&path), Found::Sealed);
        assert!(fs::read(&path).unwrap().ends_with(b"longer than before"));
        assert_eq!(names(&mounted.below()), ["letter"]);
        // A shell with several programs behind one redirection.
        let halves = mounted.dir.path();
        fs::write(halves.join("one"), &whole[..15]).unwrap();
        fs::write(halves.join("two"), &whole[15..]).unwrap();
        let script = format!(
            "cd {} && {{ cat one; cat two; }} > at/shell && (cat one; sleep 0; cat two) > at/subshell",
            halves.display()
        );
        assert!(
            Command::new("sh")
                .args(["-c", &script])
                .status()
                .unwrap()
                .success()
        );
        for name in ["shell", "subshell"] {
            assert_eq!(found(&mounted.at().join(name)), Found::Sealed);
        }
    });
}

#[test]
fn what_is_no_letter_passes_at_once() {
    let mounted = Mounted::new();
    let path = mounted.at().join("log");
    let mut file = File::create(&path).unwrap();
    let mut reader = File::open(&path).unwrap();
    for line in 0..10 {
        writeln!(file, "line {line}").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("line {line}\n"));
        assert_eq!(names(&mounted.at()), ["log"]);
    }
    assert_eq!(
        *mounted.hook.seen.lock().unwrap(),
        Vec::<std::path::PathBuf>::new()
    );
    // A file with two names cannot become a letter: it would be seen under the other one.
    let two = mounted.at().join("two");
    let file = create_seen(&two);
    file.write_all_at(b"text", 0).unwrap();
    fs::hard_link(&two, mounted.at().join("second")).unwrap();
    assert_eq!(errno(file.write_all_at(&letter(b"x"), 0)), Errno::BUSY);
    assert_eq!(fs::read(&two).unwrap(), b"text");
    // Where nothing is watched, nothing is held back.
    fs::create_dir(mounted.at().join("unwatched")).unwrap();
    fs::write(mounted.at().join("unwatched/letter"), letter(b"x")).unwrap();
    assert_eq!(found(&mounted.at().join("unwatched/letter")), Found::Open);
    // And what comes from there, or has to be finished otherwise, is not renamed but copied.
    let (from, to) = (
        mounted.at().join("unwatched/letter"),
        mounted.at().join("letter"),
    );
    assert_eq!(errno(fs::rename(&from, &to)), Errno::XDEV);
    assert!(
        Command::new("mv")
            .args([&from, &to])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(found(&to), Found::Sealed);
    fs::create_dir(mounted.at().join("other")).unwrap();
    assert_eq!(
        errno(fs::rename(&to, mounted.at().join("other/letter"))),
        Errno::XDEV
    );
    fs::rename(&path, mounted.at().join("other/log")).unwrap();
}

#[test]
fn a_restart_finishes_what_was_closed_and_not_sealed() {
    each_manner(restart_finishes);
}

fn restart_finishes(mounted: &mut Mounted) {
    fs::create_dir_all(mounted.at().join("a/b")).unwrap();
    fs::write(mounted.at().join("a/b/old"), letter(b"old")).unwrap();
    mounted.stop(Duration::from_secs(10));
    assert_eq!(
        names(&mounted.at()),
        Vec::<String>::new(),
        "nothing is mounted"
    );
    // As a crash leaves it.
    let below = mounted.below();
    let held = |name: &str| below.join("a/b").join(format!(".signdrop-held-{name}~"));
    fs::write(held("whole"), letter(b"whole")).unwrap();
    let mut torn = letter(b"torn");
    torn.pop();
    fs::write(held("torn"), &torn).unwrap();
    fs::write(held("old"), letter(b"new")).unwrap();
    fs::create_dir(held("directory")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", held("link")).unwrap();
    // Cut off between the first step of a replacement and its first bytes, and before a first version had any.
    let sealed = fs::read(below.join("a/b/old")).unwrap();
    for name in ["emptied", "begun"] {
        fs::write(below.join("a/b").join(name), &sealed).unwrap();
    }
    fs::write(held("emptied"), "").unwrap();
    fs::write(held("begun"), "LTT").unwrap();
    fs::write(held("text"), "text").unwrap();
    // As a power cut leaves what was never flushed.
    fs::write(held("lost"), [0; 100]).unwrap();
    fs::write(below.join("a/b/.signdrop-copy.tmp"), "cut off").unwrap();
    mounted.start();
    let dir = mounted.at().join("a/b");
    assert!(mounted.mount().unreadable().is_empty());
    until("finished", || {
        let held = mounted.mount().held_back();
        let refused = |held: &signdrop_fuse::HeldBack| held.progress == Progress::Refused;
        held.len() == 3 && held.iter().all(refused)
    });
    assert_eq!(names(&dir), ["begun", "emptied", "old", "text", "whole"]);
    for name in ["emptied", "begun"] {
        assert_eq!(fs::read(dir.join(name)).unwrap(), sealed, "{name}");
    }
    assert!(!held("emptied").exists());
    assert_eq!(fs::read(held("begun")).unwrap(), b"LTT");
    assert_eq!(fs::read(dir.join("text")).unwrap(), b"text");
    assert!(!below.join("a/b/.signdrop-copy.tmp").exists());
    assert_eq!(found(&dir.join("whole")), Found::Sealed);
    assert!(fs::read(dir.join("old")).unwrap().ends_with(b"new"));
    for name in ["torn", "lost"] {
        assert_eq!(errno(fs::read(dir.join(name))), Errno::BUSY, "{name}");
    }
    assert!(
        fs::symlink_metadata(held("link")).is_ok(),
        "what is no file is left alone"
    );
    let shown = names(&dir);
    assert_eq!(mounted.mount().retry(Path::new("")).len(), 3);
    assert_eq!(
        names(&dir),
        shown,
        "what nobody has written since is not meant"
    );
    assert_eq!(fs::read(dir.join("begun")).unwrap(), sealed);
}

#[test]
fn a_tree_that_is_deeper_than_a_path_is_long_keeps_nobody_from_starting() {
    let mut mounted = Mounted::new();
    mounted.stop(Duration::from_secs(10));
    let name = "d".repeat(250);
    let mut directory = rustix::fs::open(
        mounted.below(),
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    )
    .unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(&directory, &name, Mode::RWXU).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        directory = rustix::fs::openat(&directory, &name, flags, Mode::empty()).unwrap();
    }
    let held = rustix::fs::openat(
        &directory,
        ".signdrop-held-deep~",
        OFlags::RDWR | OFlags::CREATE,
        Mode::RUSR | Mode::WUSR,
    )
    .unwrap();
    File::from(held).write_all(&letter(b"deep")).unwrap();
    mounted.start();
    let finished = || {
        let file = rustix::fs::openat(&directory, "deep", OFlags::RDONLY, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes).unwrap();
        Some(read_letter(&bytes))
    };
    until("finished", || finished() == Some(Found::Sealed));
}

#[test]
fn a_mount_that_hangs_is_cut_off_by_its_guard() {
    let mounted = Mounted::new();
    let guard = common::guard::Guard::with_limit(&mounted.at(), 2);
    *mounted.hook.delay.lock().unwrap() = Duration::from_secs(20);
    let mut file = File::create(mounted.at().join("letter")).unwrap();
    file.write_all(&letter(b"slow")).unwrap();
    assert_eq!(close(file), Err(Errno::CONNABORTED));
    *mounted.hook.delay.lock().unwrap() = Duration::ZERO;
    drop(guard);
}

#[test]
fn a_mount_point_may_be_a_link_and_is_unmounted_and_mounted_again() {
    let mut mounted = Mounted::new();
    mounted.stop(Duration::from_secs(10));
    fs::rename(mounted.at(), mounted.dir.path().join("real")).unwrap();
    fs::create_dir(mounted.dir.path().join("links")).unwrap();
    std::os::unix::fs::symlink("links/second", mounted.at()).unwrap();
    std::os::unix::fs::symlink("../real", mounted.dir.path().join("links/second")).unwrap();
    for round in 0..2 {
        mounted.start();
        fs::write(mounted.at().join("letter"), letter(b"through a link")).unwrap();
        assert_eq!(
            found(&mounted.dir.path().join("real/letter")),
            Found::Sealed
        );
        mounted.stop(Duration::from_secs(10));
        assert_eq!(
            names(&mounted.at()),
            Vec::<String>::new(),
            "round {round}: unmounted"
        );
    }
}

#[test]
fn a_stop_with_files_open_ends_in_time_and_loses_nothing() {
    let mut mounted = Mounted::new();
    let path = mounted.at().join("letter");
    let mut writer = File::create(&path).unwrap();
    writer.write_all(&letter(b"open")[..20]).unwrap();
    let mut reader = File::open(mounted.at().join("text"))
        .or_else(|_| {
            fs::write(mounted.at().join("text"), "text")?;
            File::open(mounted.at().join("text"))
        })
        .unwrap();
    let begun = Instant::now();
    mounted.stop(Duration::from_millis(200));
    assert!(begun.elapsed() < common::PATIENCE);
    // Whatever is still answered is answered: nothing hangs.
    let _ = reader
        .seek(io::SeekFrom::Start(0))
        .and_then(|_| reader.read(&mut [0; 4]));
    drop(writer);
    assert_eq!(names(&mounted.below()), [".signdrop-held-letter~", "text"]);
    mounted.start();
    until("refused", || {
        mounted
            .mount()
            .held_back()
            .first()
            .is_some_and(|held| held.progress == Progress::Refused)
    });
    assert_eq!(fs::read(mounted.at().join("text")).unwrap(), b"text");
}

#[test]
fn readers_never_find_an_open_or_torn_letter() {
    each_manner(|mounted| readers_find_sealed_letters_only(mounted));
}

fn readers_find_sealed_letters_only(mounted: &Mounted) {
    let ends = AtomicBool::new(false);
    let reads = std::sync::atomic::AtomicU64::new(0);
    thread::scope(|scope| {
        for reader in 0..8 {
            let (ends, reads) = (&ends, &reads);
            scope.spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    for name in names(&mounted.at()) {
                        let path = mounted.at().join(&name);
                        match fs::read(&path) {
                            Ok(bytes) if bytes.is_empty() => {}
                            Ok(bytes) => {
                                assert_eq!(
                                    read_letter(&bytes),
                                    Found::Sealed,
                                    "{name} by reader {reader}"
                                );
                                reads.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => {
                                let errno = Errno::from_io_error(&error).unwrap();
                                assert!(
                                    [Errno::NOENT, Errno::BUSY, Errno::STALE].contains(&errno),
                                    "{name}: {error}"
                                );
                            }
                        }
                    }
                }
            });
        }
        let writers: Vec<_> = (0..8)
            .map(|writer: u32| {
                scope.spawn(move || {
                    for round in 0..150_u32 {
                        let bytes = letter(&vec![round as u8; 5000 + 977 * writer as usize]);
                        let path = mounted
                            .at()
                            .join(format!("letter-{}", (writer + round) % 5));
                        let temporary = mounted.at().join(format!(".temporary-{writer}"));
                        match round % 3 {
                            // Two writers of one name may spoil each other's: then close says so.
                            0 => drop(
                                File::create(&path).and_then(|mut file| file.write_all(&bytes)),
                            ),
                            1 => {
                                fs::write(&temporary, &bytes).unwrap();
                                fs::rename(&temporary, &path).unwrap();
                            }
                            _ => {
                                let _ = fs::remove_file(&path);
                                if let Ok(mut file) = File::create_new(&path) {
                                    let _ = file.write_all(&bytes);
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = writers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        // Before anything fails, so that the readers end.
        ends.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok), "a writer failed");
    });
    assert!(reads.load(Ordering::Relaxed) > 0);
}

#[test]
fn what_was_looked_up_once_is_forgotten() {
    let mounted = Mounted::new();
    let before = mounted.mount().inodes();
    for number in 0..2000 {
        fs::write(mounted.below().join(format!("file-{number}")), "x").unwrap();
    }
    for number in 0..2000 {
        fs::metadata(mounted.at().join(format!("file-{number}"))).unwrap();
    }
    assert!(mounted.mount().inodes() >= before + 2000);
    // Names that are gone are nothing that the kernel keeps.
    for number in 0..2000 {
        fs::remove_file(mounted.at().join(format!("file-{number}"))).unwrap();
    }
    until("forgotten", || mounted.mount().inodes() <= before + 1);
}

#[test]
fn large_directories_are_listed_whole() {
    let mounted = Mounted::new();
    fs::create_dir(mounted.below().join("dir")).unwrap();
    for number in 0..100_000 {
        File::create(mounted.below().join(format!("dir/file-{number}"))).unwrap();
    }
    let listed = names(&mounted.at().join("dir"));
    assert_eq!(listed.len(), 100_000);
    assert_eq!(listed, names(&mounted.below().join("dir")));
    // Offsets stay while names come and go: what was there all the time is listed exactly once.
    let mut seen = std::collections::BTreeSet::new();
    for (number, entry) in fs::read_dir(mounted.at().join("dir")).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(seen.insert(name), "twice");
        if number % 1000 == 0 {
            fs::remove_file(
                mounted
                    .at()
                    .join(format!("dir/file-{}", 99_999 - number / 1000)),
            )
            .unwrap();
        }
    }
    assert!(seen.len() >= 99_900);
}

#[test]
fn what_is_seen_can_be_mapped_and_is_passed_by_the_kernel_where_it_can() {
    let mounted = Mounted::new();
    let path = mounted.at().join("letter");
    fs::write(&path, letter(&[b'x'; 100_000])).unwrap();
    let file = File::open(&path).unwrap();
    let second = File::open(&path).unwrap();
    let len = file.metadata().unwrap().len() as usize;
    // SAFETY: the mapping is read within its length, and not used afterwards.
    let mapped = unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_fd().as_raw_fd(),
            0,
        );
        assert_ne!(at, libc::MAP_FAILED);
        let bytes = std::slice::from_raw_parts(at.cast::<u8>(), len).to_vec();
        libc::munmap(at, len);
        bytes
    };
    assert_eq!(read_letter(&mapped), Found::Sealed);
    assert_eq!(
        mounted.mount().reading(),
        match common::reading::of_this_kernel() {
            "passed" => signdrop_fuse::Reading::Passed,
            _ => signdrop_fuse::Reading::Asked,
        }
    );
    drop((file, second));
}
