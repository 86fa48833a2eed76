//! A letter that is closed is sealed, and whoever looks for it sees it; until the disk has it, he waits.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files"
)]
mod common;

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, SystemTime},
};

use common::{
    Disk, Found, Mounted, close, create_seen, each_manner, errno, found, letter, names,
    read_letter, until,
};
use rustix::fs::{OFlags, XattrFlags};
use signdrop_fuse::{Errno, Progress};

/// How long somebody is watched who has to wait: long enough that he would have been answered.
const WATCHED: Duration = Duration::from_millis(100);

/// Letters last from here on when this disk says so.
fn slow_disk(mounted: &Mounted) -> Arc<Disk> {
    let disk = Arc::new(Disk::default());
    *mounted.hook.disk.lock().unwrap() = Some(disk.clone());
    disk
}

/// Writes a letter, and closes it.
fn put(path: &Path, text: &str) -> Result<(), Errno> {
    let mut file = File::create(path).unwrap();
    file.write_all(&letter(text.as_bytes())).unwrap();
    close(file)
}

fn says(path: &Path, text: &str) -> bool {
    let bytes = fs::read(path).unwrap();
    let says = read_letter(&bytes) == Found::Sealed && bytes.ends_with(text.as_bytes());
    if !says {
        println!("{path:?} says {}", String::from_utf8_lossy(&bytes));
    }
    says
}

/// What somebody does who knows that a letter was closed; answers whether he finds it as he may expect.
type Look = fn(&Path) -> io::Result<bool>;

const LOOKS: &[(&str, Look)] = &[
    ("looks it up", |path| Ok(fs::metadata(path)?.len() == 31)),
    ("reads it", |path| Ok(says(path, "new"))),
    ("lists the directory", |path| {
        Ok(names(path.parent().unwrap()).contains(&"letter".into()))
    }),
    ("makes the directory last", |path| {
        let directory = File::open(path.parent().unwrap())?;
        directory.sync_all().map(|()| true)
    }),
    ("changes its mode", |path| {
        fs::set_permissions(path, Permissions::from_mode(0o640))?;
        Ok(fs::metadata(path)?.permissions().mode() & 0o7777 == 0o640 && says(path, "new"))
    }),
    ("changes its time", |path| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        let times = fs::FileTimes::new().set_modified(time);
        File::open(path)?.set_times(times)?;
        Ok(fs::metadata(path)?.modified()? == time)
    }),
    ("sets an attribute", |path| {
        rustix::fs::setxattr(path, "user.look", b"here", XattrFlags::empty())?;
        let mut value = [0; 8];
        Ok(rustix::fs::getxattr(path, "user.look", &mut value)? == 4)
    }),
    ("makes it last", |path| {
        let file = File::open(path)?;
        file.sync_all().map(|()| true)
    }),
    ("renames it", |path| {
        let to = path.with_file_name("renamed");
        fs::rename(path, &to)?;
        Ok(says(&to, "new") && errno(fs::read(path)) == Errno::NOENT)
    }),
    ("renames its directory", |path| {
        let directory = path.parent().unwrap();
        let to = directory.with_file_name("moved");
        fs::rename(directory, &to)?;
        Ok(says(&to.join("letter"), "new"))
    }),
    ("removes it", |path| {
        fs::remove_file(path)?;
        Ok(names(path.parent().unwrap()).is_empty())
    }),
    ("links it", |path| {
        let to = path.with_file_name("linked");
        fs::hard_link(path, &to)?;
        Ok(says(&to, "new") && says(path, "new"))
    }),
    ("writes it once more", |path| {
        let closed = put(path, "newer and new");
        Ok(closed.is_ok() && says(path, "newer and new"))
    }),
    ("adds to it", |path| {
        let mut file = OpenOptions::new().append(true).open(path)?;
        file.write_all(b"!")?;
        // What was added makes it no letter.
        Ok(close(file).is_err() && says(path, "new"))
    }),
];

#[test]
fn who_looks_for_a_letter_that_was_closed_waits_until_the_disk_has_it() {
    each_manner(|mounted| {
        let disk = slow_disk(mounted);
        let elsewhere = mounted.at().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        for old in [None, Some("old")] {
            for (what, look) in LOOKS {
                let directory = mounted.at().join("directory");
                fs::create_dir(&directory).unwrap();
                let path = directory.join("letter");
                if let Some(text) = old {
                    put(&path, text).unwrap();
                    assert!(says(&path, text));
                }
                let gate = disk.gate.write().unwrap();
                assert_eq!(put(&path, "new"), Ok(()), "{what}");
                let held = mounted.mount().held_back();
                assert_eq!(held.len(), 1, "{what}");
                let progress = held[0].progress;
                assert!(
                    [Progress::Closing, Progress::Finishing].contains(&progress),
                    "{what}: {progress:?}"
                );
                thread::scope(|scope| {
                    let looks = scope.spawn(|| look(&path));
                    thread::sleep(WATCHED);
                    assert!(!looks.is_finished(), "who {what} has not waited");
                    // Nobody else has to, but who wants the directories that the kernel keeps for him.
                    fs::write(elsewhere.join("text"), "text").unwrap();
                    assert_eq!(names(&elsewhere), ["text"]);
                    drop(gate);
                    let found = looks.join().unwrap().unwrap();
                    assert!(found, "what who {what} finds, over {old:?}");
                });
                for name in ["directory", "moved"] {
                    let _ = fs::remove_dir_all(mounted.at().join(name));
                }
                assert!(mounted.mount().held_back().is_empty(), "{what}");
            }
        }
    });
}

#[test]
fn who_has_the_old_version_open_reads_it_all_the_time() {
    each_manner(|mounted| {
        let disk = slow_disk(mounted);
        let path = mounted.at().join("letter");
        put(&path, "old").unwrap();
        let mut reader = File::open(&path).unwrap();
        let gate = disk.gate.write().unwrap();
        put(&path, "new").unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(bytes.ends_with(b"old"));
        drop(gate);
        assert!(says(&path, "new"));
    });
}

#[test]
fn a_letter_that_the_disk_does_not_take_is_held_back() {
    each_manner(|mounted| {
        let disk = slow_disk(mounted);
        disk.fails.store(true, Ordering::SeqCst);
        let (path, at) = (mounted.at().join("letter"), mounted.at());
        assert_eq!(put(&path, "new"), Ok(()));
        assert_eq!(errno(fs::read(&path)), Errno::BUSY);
        assert_eq!(names(&at), [""; 0]);
        let held = mounted.mount().held_back();
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].progress, Progress::Refused);
        let retried = mounted.mount().retry(Path::new(""));
        assert_eq!(retried, [("letter".into(), Err(Errno::IO))]);
        disk.fails.store(false, Ordering::SeqCst);
        let retried = mounted.mount().retry(Path::new(""));
        assert_eq!(retried, [("letter".into(), Ok(()))]);
        assert!(says(&path, "new"));
    });
}

#[test]
fn the_close_of_a_writer_who_flushes_waits_for_the_disk_and_tells_its_errors() {
    each_manner(|mounted| {
        let disk = slow_disk(mounted);
        let path = mounted.at().join("letter");
        let by_fsync = || {
            let mut file = File::create(&path).unwrap();
            file.write_all(&letter(b"new")).unwrap();
            file.sync_data().unwrap();
            close(file)
        };
        let by_flag = || {
            let flags = OFlags::SYNC.bits().cast_signed();
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            let mut file = options.custom_flags(flags).open(&path).unwrap();
            file.write_all(&letter(b"new")).unwrap();
            close(file)
        };
        for flushing in [&by_fsync as &(dyn Fn() -> _ + Sync), &by_flag] {
            let gate = disk.gate.write().unwrap();
            thread::scope(|scope| {
                let closes = scope.spawn(flushing);
                thread::sleep(WATCHED);
                assert!(!closes.is_finished());
                drop(gate);
                assert_eq!(closes.join().unwrap(), Ok(()));
            });
            // Below, too, as soon as anybody looks.
            assert!(says(&path, "new"));
            assert_eq!(found(&mounted.below().join("letter")), Found::Sealed);
            disk.fails.store(true, Ordering::SeqCst);
            assert_eq!(flushing(), Err(Errno::IO));
            disk.fails.store(false, Ordering::SeqCst);
            assert!(says(&path, "new"));
            fs::remove_file(&path).unwrap();
        }
    });
}

#[test]
fn a_letter_that_cannot_get_its_name_is_held_back() {
    each_manner(|mounted| {
        let disk = slow_disk(mounted);
        let path = mounted.at().join("letter");
        let gate = disk.gate.write().unwrap();
        assert_eq!(put(&path, "new"), Ok(()));
        // Behind the mount's back.
        let below = mounted.below().join("letter");
        fs::create_dir(&below).unwrap();
        drop(gate);
        until("it is refused", || {
            let held = mounted.mount().held_back();
            held.len() == 1 && held[0].progress == Progress::Refused
        });
        fs::remove_dir(&below).unwrap();
        let retried = mounted.mount().retry(Path::new(""));
        assert_eq!(retried, [("letter".into(), Ok(()))]);
        assert!(says(&path, "new"));
    });
}

#[test]
fn a_version_that_the_disk_does_not_take_leaves_the_old_one_and_can_be_written_again() {
    each_manner(|mounted| {
        let disk = slow_disk(mounted);
        let path = mounted.at().join("letter");
        put(&path, "old").unwrap();
        // The disk has it.
        assert!(says(&path, "old"));
        for round in 0..50 {
            disk.fails.store(true, Ordering::SeqCst);
            assert_eq!(put(&path, "lost"), Ok(()));
            assert!(says(&path, if round == 0 { "old" } else { "new" }));
            disk.fails.store(false, Ordering::SeqCst);
            // At once, while what has failed is still being told.
            assert_eq!(put(&path, "new"), Ok(()));
            assert!(says(&path, "new"), "round {round}");
            assert_eq!(names(&mounted.at()), ["letter"]);
        }
        assert!(mounted.mount().held_back().is_empty());
    });
}

#[test]
fn who_opened_it_before_it_was_written_reads_it_when_the_disk_has_it() {
    each_manner(|mounted| {
        let disk = slow_disk(mounted);
        let path = mounted.at().join("letter");
        let mut writer = File::create(&path).unwrap();
        let mut reader = File::open(&path).unwrap();
        let gate = disk.gate.write().unwrap();
        writer.write_all(&letter(b"new")).unwrap();
        assert_eq!(close(writer), Ok(()));
        thread::scope(|scope| {
            let reads = scope.spawn(move || {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).map(|_| bytes)
            });
            thread::sleep(WATCHED);
            assert!(!reads.is_finished());
            drop(gate);
            match reads.join().unwrap() {
                Ok(bytes) => assert_eq!(read_letter(&bytes), Found::Sealed),
                // It is another inode.
                Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::STALE.raw_os_error())),
            }
        });
        assert!(says(&path, "new"));
    });
}

#[test]
fn a_page_that_is_read_while_a_letter_settles_keeps_nobody_waiting_for_good() {
    const MAPS: &str = "
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
print('open', flush=True)
sys.stdin.readline()
pages = mmap.mmap(file, 31, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
print(pages[:].hex())
";
    each_manner(|mounted| {
        let disk = slow_disk(mounted);
        let path = mounted.at().join("letter");
        let mut writer = create_seen(&path);
        let mut reader = Command::new("python3")
            .args(["-c", MAPS])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut says_open = [0; 5];
        let mut output = reader.stdout.take().unwrap();
        output.read_exact(&mut says_open).unwrap();
        let gate = disk.gate.write().unwrap();
        writer.write_all(&letter(b"new")).unwrap();
        assert_eq!(close(writer), Ok(()));
        reader.stdin.take().unwrap().write_all(b"\n").unwrap();
        thread::sleep(WATCHED);
        drop(gate);
        assert!(says(&path, "new"));
        until("the reader has ended", || {
            reader.try_wait().unwrap().is_some()
        });
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        let bytes = hex(text.trim());
        // Where another inode is the letter now, the page cannot be read.
        assert!(
            bytes.is_empty() || read_letter(&bytes) == Found::Sealed,
            "{text}"
        );
        assert!(mounted.mount().held_back().is_empty());
    });
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn when_the_disk_does_not_keep_up_the_writers_wait() {
    each_manner(|mounted| {
        const MANY: usize = 90;
        let disk = slow_disk(mounted);
        let gate = disk.gate.write().unwrap();
        let at = mounted.at();
        thread::scope(|scope| {
            let writes = scope.spawn(|| {
                for number in 0..MANY {
                    assert_eq!(put(&at.join(number.to_string()), "new"), Ok(()));
                }
            });
            until("many letters settle", || {
                mounted.mount().held_back().len() > 60
            });
            thread::sleep(WATCHED);
            assert!(!writes.is_finished());
            assert!(mounted.mount().held_back().len() < MANY);
            drop(gate);
            writes.join().unwrap();
        });
        assert_eq!(names(&at).len(), MANY);
        assert!((0..MANY).all(|number| says(&at.join(number.to_string()), "new")));
    });
}

#[test]
fn a_copy_of_the_descriptor_is_told_what_the_disk_said() {
    each_manner(|mounted| {
        let disk = slow_disk(mounted);
        disk.fails.store(true, Ordering::SeqCst);
        let path = mounted.at().join("letter");
        let mut file = create_seen(&path);
        let copy = file.try_clone().unwrap();
        file.write_all(&letter(b"new")).unwrap();
        assert_eq!(close(file), Ok(()));
        until("the disk has refused it", || {
            let held = mounted.mount().held_back();
            held.first()
                .is_some_and(|held| held.progress == Progress::Refused)
        });
        assert_eq!(close(copy), Err(Errno::IO));
    });
}

#[test]
fn what_settles_when_the_mount_stops_is_seen_below() {
    each_manner(|mounted| {
        let disk = slow_disk(mounted);
        let below = mounted.below().join("letter");
        let gate = disk.gate.write().unwrap();
        put(&mounted.at().join("letter"), "new").unwrap();
        assert!(!below.exists());
        thread::scope(|scope| {
            let stops = scope.spawn(|| mounted.stop(Duration::from_secs(10)));
            thread::sleep(WATCHED);
            assert!(!stops.is_finished());
            drop(gate);
            stops.join().unwrap();
        });
        assert!(says(&below, "new"));
    });
}

#[test]
fn many_who_write_and_look_at_once_find_what_they_closed() {
    each_manner(|mounted| {
        slow_disk(mounted);
        let at = mounted.at();
        thread::scope(|scope| {
            for writer in 0..6_u32 {
                let at = &at;
                scope.spawn(move || {
                    let name = format!("letter-{writer}");
                    let (path, to) = (at.join(&name), at.join(format!("other-{writer}")));
                    for round in 0..150_u32 {
                        let text = format!("round {round}");
                        put(&path, &text).unwrap();
                        match round % 5 {
                            0 => assert!(says(&path, &text), "{name} {text}"),
                            1 => assert!(names(at).contains(&name), "{name} {text}"),
                            2 => {
                                fs::rename(&path, &to).unwrap();
                                assert!(says(&to, &text), "{name} {text}");
                            }
                            3 => fs::remove_file(&path).unwrap(),
                            _ => {}
                        }
                    }
                    assert!(says(&path, "round 149"));
                });
            }
        });
        assert!(mounted.mount().held_back().is_empty());
    });
}
