//! A hook that fails at its n-th call, for each n of a writer's day.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files"
)]
mod common;

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::atomic::Ordering,
};

use common::{Found, Manner, Mounted, close, letter, names, read_letter};
use signdrop_fuse::Errno;

/// Writes a letter over whatever is there.
fn put(path: &Path, text: &[u8]) -> Result<(), Errno> {
    let mut file = File::create(path).unwrap();
    file.write_all(&letter(text)).unwrap();
    close(file)
}

type Step = (&'static str, fn(&Path) -> Result<(), Errno>);

/// Each calls the hook once, and goes on from wherever the former ones ended.
const STEPS: &[Step] = &[
    ("a new file", |at| put(&at.join("new"), b"first")),
    ("a file that is renamed when it is closed", |at| {
        let closed = put(&at.join(".tmp"), b"renamed");
        fs::rename(at.join(".tmp"), at.join("renamed")).unwrap();
        closed
    }),
    ("a file that is renamed while it is written", |at| {
        let mut file = File::create(at.join(".tmp")).unwrap();
        file.write_all(&letter(b"moving")).unwrap();
        fs::rename(at.join(".tmp"), at.join("moving")).unwrap();
        close(file)
    }),
    ("a new version", |at| put(&at.join("new"), b"second")),
    ("a new version, longer than the old one", |at| {
        put(&at.join("renamed"), &[b'x'; 10_000])
    }),
    ("a new version that takes the name of another", |at| {
        let closed = put(&at.join(".tmp"), b"third");
        fs::rename(at.join(".tmp"), at.join("new")).unwrap();
        closed
    }),
    ("a text that becomes a letter", |at| {
        let path = at.join("text");
        fs::write(&path, [0; 40]).unwrap();
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all(&letter(b"twelve bytes")).unwrap();
        close(file)
    }),
    ("one in a directory that is renamed", |at| {
        fs::create_dir(at.join("directory")).unwrap();
        let closed = put(&at.join("directory/inside"), b"inside");
        fs::rename(at.join("directory"), at.join("moved")).unwrap();
        closed
    }),
];

const TEXTS: &[(&str, &[u8])] = &[
    ("moved/inside", b"inside"),
    ("moving", b"moving"),
    ("new", b"third"),
    ("renamed", &[b'x'; 10_000]),
    ("text", b"twelve bytes"),
];

#[test]
fn whichever_call_of_the_hook_fails_its_writer_hears_of_it_and_a_retry_ends_as_if_none_had() {
    for manner in [Manner::InPlace, Manner::ByCopy] {
        for failing in 0..=STEPS.len() {
            let mounted = Mounted::new();
            *mounted.hook.manner.lock().unwrap() = manner;
            // Counted from one; with none, nothing fails.
            let wanted = failing as u32;
            mounted.hook.fail_at.store(wanted, Ordering::SeqCst);
            for (place, (what, step)) in STEPS.iter().enumerate() {
                let expected = match place + 1 == failing {
                    true => Err(Errno::NOSPC),
                    false => Ok(()),
                };
                let answered = step(&mounted.at());
                assert_eq!(
                    answered, expected,
                    "{what}; call {failing} fails, {manner:?}"
                );
                all_that_is_seen_is_sealed(&mounted.at(), what);
            }
            let context = format!("call {failing} fails, {manner:?}");
            for (path, result) in mounted.mount().retry(Path::new("")) {
                assert_eq!(result, Ok(()), "{}: {context}", path.display());
            }
            for (name, text) in TEXTS {
                let bytes = fs::read(mounted.at().join(name)).unwrap();
                assert_eq!(read_letter(&bytes), Found::Sealed, "{name}: {context}");
                assert!(bytes.ends_with(text), "{name}: {context}");
            }
            assert!(mounted.mount().held_back().is_empty(), "{context}");
            assert_eq!(
                names(&mounted.at()),
                ["moved", "moving", "new", "renamed", "text"]
            );
            for place in ["", "moved"] {
                let (seen, below) = (mounted.at().join(place), mounted.below().join(place));
                assert_eq!(names(&seen), names(&below), "{context}");
            }
        }
    }
}

fn all_that_is_seen_is_sealed(dir: &Path, when: &str) {
    for name in names(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            all_that_is_seen_is_sealed(&path, when);
        } else {
            let found = read_letter(&fs::read(&path).unwrap());
            assert_eq!(found, Found::Sealed, "{name} after {when}");
        }
    }
}
