//! What a walk visits.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;

use common::write;
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags};
use signdrop_watcher::{Entry, Error, Kind, walk};

fn entries(root: &Path, below: &str, skip: &dyn Fn(&Path) -> bool) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    let flow = walk(root, Path::new(below), skip, &mut |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    })?;
    assert_eq!(flow, ControlFlow::Continue(()));
    Ok(entries)
}

fn files(entries: &[Entry]) -> BTreeSet<&Path> {
    let files = entries.iter().filter_map(|entry| match entry {
        Entry::File { path, .. } => Some(path.as_path()),
        _ => None,
    });
    files.collect()
}

#[test]
fn every_regular_file_is_visited_once() {
    let root = tempfile::tempdir().unwrap();
    let mut wanted = BTreeSet::new();
    for directory in ["", "a", "a/b", "a/b/c", "d"] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
        for number in 0..1000 {
            let path = Path::new(directory).join(format!("f{number}"));
            write(&root.path().join(&path));
            wanted.insert(path);
        }
    }
    let entries = entries(root.path(), "", &|_| false).unwrap();
    assert_eq!(entries.len(), wanted.len());
    assert_eq!(
        files(&entries),
        wanted.iter().map(PathBuf::as_path).collect()
    );
}

#[test]
fn a_file_comes_with_what_the_kernel_says_about_it() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("a"));
    fs::hard_link(root.path().join("a"), root.path().join("b")).unwrap();
    let entries = entries(root.path(), "a", &|_| false).unwrap();
    let [Entry::File { path, stat }] = entries.as_slice() else {
        panic!("{entries:?}");
    };
    let wanted = root.path().join("a").metadata().unwrap();
    assert_eq!(path, Path::new("a"));
    assert_eq!((stat.device, stat.inode), (wanted.dev(), wanted.ino()));
    assert_eq!((stat.links, stat.length), (2, wanted.len()));
    assert_eq!(stat.modified, wanted.modified().unwrap());
}

#[test]
fn only_what_is_below_the_given_path_is_visited() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("a/b")).unwrap();
    for name in ["a/b/x", "a/y", "z"] {
        write(&root.path().join(name));
    }
    let entries = entries(root.path(), "a/b", &|_| false).unwrap();
    assert_eq!(files(&entries), BTreeSet::from([Path::new("a/b/x")]));
}

#[test]
fn what_is_skipped_is_neither_visited_nor_entered_nor_walked_from() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("a/repodata/b")).unwrap();
    for name in ["a/repodata/b/x", "a/repodata/x", "a/y"] {
        write(&root.path().join(name));
    }
    let skip = |path: &Path| path.ends_with("repodata");
    let all = entries(root.path(), "", &skip).unwrap();
    assert_eq!(files(&all), BTreeSet::from([Path::new("a/y")]));
    assert!(
        entries(root.path(), "a/repodata/b", &skip)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn what_is_no_regular_file_is_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, mode, 0).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    symlink("/", at("link")).unwrap();
    symlink("nowhere", at("broken")).unwrap();
    let mut kinds: Vec<_> = entries(root.path(), "", &|_| false)
        .unwrap()
        .into_iter()
        .map(|entry| match entry {
            Entry::Special { path, kind } => (path, kind),
            other => panic!("{other:?}"),
        })
        .collect();
    kinds.sort_by(|one, other| one.0.cmp(&other.0));
    let wanted = [
        (PathBuf::from("broken"), Kind::Symlink),
        (PathBuf::from("fifo"), Kind::Fifo),
        (PathBuf::from("link"), Kind::Symlink),
        (PathBuf::from("socket"), Kind::Socket),
    ];
    assert_eq!(kinds, wanted);
}

#[test]
fn paths_that_lead_out_of_the_root_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("d")).unwrap();
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("a")).unwrap();
    symlink(outside.path(), root.path().join("link")).unwrap();
    symlink("a", root.path().join("inner")).unwrap();
    write(&root.path().join("a/x"));
    for below in [
        "..", "a/../..", "a/..", "/", "/etc", "./..", "link/d", "inner/x",
    ] {
        let refused = entries(root.path(), below, &|_| false);
        assert!(
            matches!(refused, Err(Error::Outside { .. })),
            "{below}: {refused:?}"
        );
    }
    // A link at the end is no directory to walk.
    let link = entries(root.path(), "link", &|_| false).unwrap();
    assert!(matches!(
        link.as_slice(),
        [Entry::Special {
            kind: Kind::Symlink,
            ..
        }]
    ));
}

#[test]
fn what_is_not_there_is_not_found() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("a"));
    for below in ["b", "a/b"] {
        let missing = entries(root.path(), below, &|_| false);
        assert!(
            matches!(missing, Err(Error::NotFound { .. })),
            "{missing:?}"
        );
    }
    let gone = entries(&root.path().join("b"), "", &|_| false);
    assert!(matches!(gone, Err(Error::RootGone { .. })), "{gone:?}");
}

#[test]
fn the_root_itself_may_be_a_link() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("real")).unwrap();
    write(&root.path().join("real/a"));
    symlink("real", root.path().join("link")).unwrap();
    let entries = entries(&root.path().join("link"), "", &|_| false).unwrap();
    assert_eq!(files(&entries), BTreeSet::from([Path::new("a")]));
}

#[test]
fn a_visitor_can_end_the_walk() {
    let root = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        write(&root.path().join(name));
    }
    let mut visits = 0;
    let flow = walk(root.path(), Path::new(""), &|_| false, &mut |_| {
        visits += 1;
        ControlFlow::Break(())
    });
    assert!(flow.unwrap().is_break());
    assert_eq!(visits, 1);
}

#[test]
fn a_directory_that_cannot_be_read_does_not_end_the_walk() {
    let root = tempfile::tempdir().unwrap();
    common::deepen(root.path());
    write(&root.path().join("z"));
    let entries = entries(root.path(), "", &|_| false).unwrap();
    assert!(files(&entries).contains(Path::new("z")));
    assert!(
        entries
            .iter()
            .any(|entry| matches!(entry, Entry::Failed(Error::Unreadable { .. }))),
        "{entries:?}"
    );
}

#[test]
fn a_link_that_takes_a_directorys_place_during_the_walk_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("e")).unwrap();
    write(&outside.path().join("e/secret"));
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("real/e")).unwrap();
    symlink(outside.path(), root.path().join("link")).unwrap();
    let (real, link) = (root.path().join("real"), root.path().join("link"));
    let exchanging = thread::spawn(move || {
        for _ in 0..20_000 {
            rustix::fs::renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE).unwrap();
        }
    });
    while !exchanging.is_finished() {
        let entries = entries(root.path(), "", &|_| false).unwrap();
        assert!(files(&entries).is_empty(), "{entries:?}");
    }
    exchanging.join().unwrap();
}

#[test]
fn descriptors_are_closed() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("a/b/c")).unwrap();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let lowest = || {
        let file = rustix::fs::open("/", flags, Mode::empty()).unwrap();
        std::os::fd::AsRawFd::as_raw_fd(&file)
    };
    let before = lowest();
    for _ in 0..2000 {
        entries(root.path(), "", &|_| false).unwrap();
    }
    // Other tests of this program open a few at the same time.
    assert!(lowest() < before + 500);
}
