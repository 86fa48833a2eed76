//! The mount, against the directory below it.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use signdrop::{
    digest::Digest,
    key::{Algorithm, SecretKey},
};

use crate::{
    Table,
    common::{
        daemon::Mounted,
        mount::{IDENTITY, MountDaemon},
        packages_below, run,
    },
    median, packages, shown,
};

const ROUNDS: usize = 5;
const GIGABYTE: u64 = 1_000_000_000;
const BLOCK: usize = 1 << 20;
const RANDOM_READS: u64 = 200_000;
const SMALL_FILES: usize = 10_000;
const ENTRIES: usize = 100_000;

/// The same place, in the mount and below it.
struct Places {
    mount: PathBuf,
    below: PathBuf,
}

impl Places {
    fn new(mounted: &MountDaemon, name: &str) -> Self {
        let places = Self {
            mount: mounted.at.join(name),
            below: mounted.below.join(name),
        };
        fs::create_dir_all(&places.mount).unwrap();
        places
    }

    /// What something takes at each of the two, in turns, which are counted. The first round is not: it also finds out how
    /// much memory the machine has.
    fn each(&self, mut what: impl FnMut(&Path, usize) -> Duration) -> Pair {
        let (mut mount, mut below) = (vec![], vec![]);
        for round in 0..=ROUNDS {
            let times = (
                what(&self.below, 2 * round),
                what(&self.mount, 2 * round + 1),
            );
            if round > 0 {
                below.push(times.0);
                mount.push(times.1);
            }
        }
        Pair {
            mount: median(mount),
            below: median(below),
        }
    }
}

/// Medians.
struct Pair {
    mount: Duration,
    below: Duration,
}

impl Pair {
    fn row(&self, table: &mut Table, what: &str, limit: &str) {
        table.row(
            what,
            &shown(self.mount),
            &format!("the directory below: {}", shown(self.below)),
            &format!(
                "{:.2} × its speed",
                self.below.as_secs_f64() / self.mount.as_secs_f64()
            ),
            limit,
        );
    }
}

fn timed(what: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    what();
    begin.elapsed()
}

fn write_all(path: &Path, block: &[u8]) {
    let mut file = File::create(path).unwrap();
    let mut left = GIGABYTE as usize;
    while left > 0 {
        let part = left.min(block.len());
        file.write_all(&block[..part]).unwrap();
        left -= part;
    }
}

fn read_all(path: &Path, block: &mut [u8]) {
    let mut file = File::open(path).unwrap();
    let mut sum = 0;
    loop {
        match file.read(block).unwrap() {
            0 => break,
            read => sum += read as u64,
        }
    }
    assert_eq!(sum, GIGABYTE);
}

fn read_at_random(path: &Path) {
    let file = File::open(path).unwrap();
    let mut block = [0; 4096];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..RANDOM_READS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = state % (GIGABYTE / 4096) * 4096;
        file.read_exact_at(&mut block, at).unwrap();
    }
}

fn stat_all(dir: &Path, names: &[String]) -> Duration {
    timed(|| {
        for name in names {
            fs::symlink_metadata(dir.join(name)).unwrap();
        }
    })
}

fn list_all(dir: &Path) -> Duration {
    timed(|| {
        let entries = fs::read_dir(dir).unwrap();
        let found = entries.map(|entry| entry.unwrap().metadata().unwrap());
        assert_eq!(found.count(), ENTRIES);
    })
}

/// Has the kernel forget names and inodes, and keep what is in files.
fn forget() {
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

pub(super) fn mount(table: &mut Table) {
    let directory = tempfile::tempdir().unwrap();
    let options = "ignore = [\"**/ignored/**\"]";
    let mounted = MountDaemon::start_on(directory.path(), options);
    content(table, &mounted);
    drop(mounted);
    let mounted = MountDaemon::start_on(directory.path(), "");
    mounted.daemon.signdrop(["key", "generate", IDENTITY]);
    copies(table, &mounted);
    drop(mounted);
    // Where nobody else has removed files just now, after which ext4 is slow to make new ones for a while.
    let filesystem = Mounted::new("ext4", 8000);
    let mounted = MountDaemon::start_on(&filesystem.path().join("below"), "");
    names(table, &mounted);
}

fn content(table: &mut Table, mounted: &MountDaemon) {
    let mut block = vec![0; BLOCK];
    getrandom(&mut block);
    for (place, note) in [
        ("alice/tools", ""),
        ("alice/tools/ignored", " where `ignore` matches"),
    ] {
        let places = Places::new(mounted, place);
        let pair = places.each(|dir, _| {
            let path = dir.join("large");
            // A new file each time, and no earlier one on its way to the disk.
            let _ = fs::remove_file(&path);
            rustix::fs::sync();
            timed(|| write_all(&path, &block))
        });
        pair.row(
            table,
            &format!("mount: write 1 GB in blocks of 1 MiB{note}"),
            "copying; the kernel passes it",
        );
        rustix::fs::sync();
        let path = |dir: &Path| dir.join("large");
        let pair = places.each(|dir, _| timed(|| read_all(&path(dir), &mut block)));
        pair.row(
            table,
            &format!("mount: read 1 GB in blocks of 1 MiB{note}"),
            "copying",
        );
        let pair = places.each(|dir, _| timed(|| read_at_random(&path(dir))));
        pair.row(
            table,
            &format!("mount: {RANDOM_READS} reads of 4 KiB at random{note}"),
            "the system call",
        );
        fs::remove_file(path(&places.mount)).unwrap();
    }
}

/// Keeps idle processors from sleeping until it is dropped, as tuned's profile `latency-performance` does: on some virtual machines it is
/// waking one up that takes most of a request's time. Source: Linux Documentation/power/pm_qos_interface.rst.
fn keep_awake() -> File {
    let mut latency = File::create("/dev/cpu_dma_latency").unwrap();
    latency.write_all(&0_i32.to_ne_bytes()).unwrap();
    latency
}

fn names(table: &mut Table, mounted: &MountDaemon) {
    let many = Places::new(mounted, "alice/many");
    let names: Vec<String> = (0..ENTRIES)
        .map(|number| format!("name-{number}"))
        .collect();
    for name in &names {
        File::create(many.below.join(name)).unwrap();
    }
    rustix::fs::sync();
    for (place, note) in [
        ("alice/names", ""),
        ("alice/awake", ", processors kept awake"),
    ] {
        let _awake = (!note.is_empty()).then(keep_awake);
        create_all(table, &Places::new(mounted, place), note);
        let pair = many.each(|dir, _| {
            forget();
            stat_all(dir, &names)
        });
        pair.row(
            table,
            &format!("mount: stat of 100,000 names that the kernel has forgotten{note}"),
            "a request to the daemon for each",
        );
    }
    let pair = many.each(|dir, _| {
        forget();
        list_all(dir)
    });
    pair.row(
        table,
        "mount: the same, found by reading the directory",
        "a request to the daemon for many",
    );
    let pair = many.each(|dir, _| {
        stat_all(dir, &names);
        stat_all(dir, &names)
    });
    pair.row(
        table,
        "mount: stat of 100,000 names once more",
        "the kernel alone",
    );
}

fn create_all(table: &mut Table, places: &Places, note: &str) {
    let pair = places.each(|dir, turn| {
        let dir = dir.join(format!("turn-{turn}"));
        fs::create_dir(&dir).unwrap();
        rustix::fs::sync();
        timed(|| {
            for number in 0..SMALL_FILES {
                let path = dir.join(number.to_string());
                File::create(path).unwrap().write_all(&[b'x'; 100]).unwrap();
            }
        })
    });
    pair.row(
        table,
        &format!("mount: create 10,000 files of 100 bytes{note}"),
        "seven requests to the daemon for each, and a rename",
    );
}

fn copies(table: &mut Table, mounted: &MountDaemon) {
    let originals = tempfile::tempdir().unwrap();
    packages::make_many(originals.path());
    let paths = packages_below(originals.path());
    let places = Places::new(mounted, "alice/tools");
    let pair = places.each(|dir, turn| {
        let target = dir.join(format!("packages-{turn}"));
        fs::create_dir(&target).unwrap();
        rustix::fs::sync();
        timed(|| {
            let output = run(Command::new("cp").args(&paths).arg(&target));
            assert!(output.status.success(), "{output:?}");
        })
    });
    let last = packages_below(&places.mount.join(format!("packages-{}", 2 * ROUNDS + 1)));
    let rpmdb = crate::common::Rpmdb::new(&mounted.daemon.export(IDENTITY));
    assert_eq!(last.len(), paths.len());
    assert_eq!(rpmdb.not_signed(&last), [] as [&Path; 0]);
    let key = SecretKey::generate(Algorithm::Rsa2048).unwrap();
    let rsa = timed(|| {
        for number in 0..paths.len() {
            key.sign(Digest::Sha256, &[number as u8; 32]).unwrap();
        }
    });
    table.row(
        &format!(
            "mount: cp of {} packages, all signed when it ends",
            paths.len()
        ),
        &shown(pair.mount),
        &format!(
            "cp into the directory below, unsigned: {}; the RSA operations alone: {}",
            shown(pair.below),
            shown(rsa)
        ),
        &format!(
            "{:.2} × its time and the RSA operations",
            (pair.mount.saturating_sub(rsa)).as_secs_f64() / pair.below.as_secs_f64()
        ),
        "what a request costs, SHA-256 of the payloads and RSA, one after the other",
    );
}

fn getrandom(block: &mut [u8]) {
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(block)
        .unwrap();
}
