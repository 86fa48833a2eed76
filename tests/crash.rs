//! Kills the daemon at each named step of signing and at any moment, and shows that no artifact is lost, torn or left unsigned.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use common::{
    Rpmdb,
    daemon::{Daemon, Mounted},
    modules::{bare, is_signed, modules_of, through},
    packages_below, quick_package, rpmbuild, run,
};
use signdrop::key::x509::Certificate;

/// How many artifacts each round drops.
const ARTIFACTS: u64 = 12;

const IDENTITY: &str = "alice#tools@copr.example.org";

#[test]
fn no_crash_harms_packages_that_are_written_in_place() {
    let filesystem = Mounted::new("ext4", 128);
    let mut drill = Drill::new(&filesystem, "auto");
    for step in ["sign", "redo", "torn", "write", "sync", "end"] {
        drill.at_step(step, [1, 2, 3, 5, 6, 8, 10, 11, 12]);
    }
    drill.at_random(60);
    drill.conclude(54 + 60);
}

#[test]
fn no_crash_harms_packages_that_are_replaced() {
    let filesystem = Mounted::new("ext4", 128);
    let mut drill = Drill::new(&filesystem, "replace");
    for step in ["sign", "create", "fill", "exchange"] {
        drill.at_step(step, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }
    drill.at_random(52);
    drill.conclude(48 + 52);
}

#[test]
fn no_crash_harms_packages_that_are_cloned_on_xfs() {
    survives_with_clones(&Mounted::new("xfs", 320));
}

#[test]
fn no_crash_harms_packages_that_are_cloned_on_btrfs() {
    survives_with_clones(&Mounted::new("btrfs", 256));
}

#[test]
fn no_crash_harms_modules_that_are_appended_to() {
    let filesystem = Mounted::new("ext4", 128);
    let mut drill = Drill::with(&filesystem, "auto", Stock::modules(&filesystem, "none"));
    for step in ["sign", "redo", "torn", "write", "sync", "end"] {
        drill.at_step(step, [1, 2, 3, 5, 8, 12]);
    }
    drill.at_random(64);
    drill.conclude(36 + 64);
}

#[test]
fn no_crash_harms_modules_whose_longer_signature_is_replaced() {
    let filesystem = Mounted::new("ext4", 128);
    let mut drill = Drill::with(&filesystem, "auto", Stock::modules(&filesystem, "foreign"));
    // Debian's signature has more bytes than one of ours, so that the file's end is cut off.
    for step in ["redo", "torn", "write", "cut", "sync"] {
        drill.at_step(step, [1, 3, 6, 12]);
    }
    drill.at_random(20);
    drill.conclude(20 + 20);
}

#[test]
fn no_crash_harms_compressed_modules_that_are_rewritten() {
    let filesystem = Mounted::new("ext4", 128);
    let mut drill = Drill::with(
        &filesystem,
        "auto",
        Stock::modules(&filesystem, "compressed"),
    );
    for step in ["sign", "create", "fill", "exchange"] {
        drill.at_step(step, [1, 2, 3, 5, 8, 12]);
    }
    drill.at_random(76);
    drill.conclude(24 + 76);
}

#[test]
fn a_torn_package_is_healed_under_whatever_name_it_has_and_a_newer_one_is_not() {
    let filesystem = Mounted::new("ext4", 128);
    let mut drill = Drill::new(&filesystem, "auto");
    for (round, is_replaced) in [("moved", false), ("replaced", true)] {
        let packages = drill.drop_packages(round, Dropped::BeforeTheStart);
        let original = fs::read(&packages[0]).unwrap();
        for path in &packages[1..] {
            fs::remove_file(path).unwrap();
        }
        drill.daemon.environment("SIGNDROP_DIE_AT", "torn:1");
        drill.daemon.spawn();
        assert_eq!(drill.daemon.wait_exit().signal(), Some(9));
        let torn = fs::read(&packages[0]).unwrap();
        assert!(torn != original && torn.len() == original.len());
        assert!(
            !drill.judge.rpmdb().check(&packages[0]).0,
            "it was not torn"
        );
        assert_eq!(drill.redo_records(), 1);
        let path = packages[0].with_file_name("package.rpm");
        fs::rename(&packages[0], &path).unwrap();
        if is_replaced {
            // The same inode, with other content.
            fs::copy(
                drill.stock.dir.path().join("package1-1.0-1.noarch.rpm"),
                &path,
            )
            .unwrap();
        }
        drill.recover(round, &[path]);
    }
}

#[test]
fn a_torn_package_that_cannot_be_healed_yet_is_healed_later() {
    let filesystem = Mounted::new("ext4", 128);
    let mut drill = Drill::new(&filesystem, "auto");
    let packages = drill.drop_packages("fixed", Dropped::BeforeTheStart);
    drill.daemon.environment("SIGNDROP_DIE_AT", "torn:1");
    drill.daemon.spawn();
    assert_eq!(drill.daemon.wait_exit().signal(), Some(9));
    drill.daemon.clear_environment();
    let torn = packages
        .iter()
        .find(|path| !drill.judge.rpmdb().check(path).0)
        .expect("none was torn");
    let chattr = |flag| {
        let output = run(Command::new("chattr").arg(flag).arg(torn));
        assert!(output.status.success(), "{output:?}");
    };
    chattr("+i");
    drill.daemon.run();
    let (status, said) = drill.daemon.wait(&drill.daemon.drop_dir());
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("Operation not permitted"), "{said}");
    // Long enough for whatever the daemon tidies once everything has been looked at.
    thread::sleep(Duration::from_secs(3));
    chattr("-i");
    assert!(drill.daemon.stop().success());
    drill.recover("fixed", &packages);
}

#[test]
fn a_crash_while_a_crash_is_recovered_from_harms_nothing_either() {
    let filesystem = Mounted::new("ext4", 128);
    let mut drill = Drill::new(&filesystem, "auto");
    for step in ["torn", "write", "exchange"] {
        let packages = drill.drop_packages(step, Dropped::BeforeTheStart);
        // A second name has the first package replaced, so that every step is reached.
        let second_name = drill.daemon.dir.path().join(step);
        fs::hard_link(&packages[0], second_name).unwrap();
        drill
            .daemon
            .environment("SIGNDROP_DIE_AT", &format!("{step}:1"));
        drill.daemon.spawn();
        assert_eq!(drill.daemon.wait_exit().signal(), Some(9));
        drill.daemon.clear_environment();
        for _ in 0..8 {
            drill.daemon.spawn();
            thread::sleep(Duration::from_micros(drill.next(100_000)));
            drill.daemon.kill();
        }
        drill.recover(step, &packages);
    }
}

fn survives_with_clones(filesystem: &Mounted) {
    let mut drill = Drill::new(filesystem, "auto");
    // These steps are reached for each package only where clones take the packages' places.
    for step in ["create", "fill", "exchange"] {
        drill.at_step(step, [1, 5, 12]);
    }
    drill.at_random(6);
    drill.conclude(9 + 6);
}

/// A daemon that is killed again and again, and unsigned artifacts for it.
struct Drill {
    daemon: Daemon,
    stock: Stock,
    judge: Judge,
    random: u64,
    kills: u64,
}

/// Unsigned artifacts, to be copied in each round.
struct Stock {
    dir: tempfile::TempDir,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Packages,
    Modules,
}

/// Who tells whether an artifact is whole and signed.
enum Judge {
    Packages(Rpmdb),
    Modules(Box<Certificate>),
}

impl Stock {
    fn packages(filesystem: &Mounted) -> Self {
        let dir = tempfile::tempdir_in(filesystem.path()).unwrap();
        for number in 0..ARTIFACTS {
            let name = format!("package{number}");
            if number < 3 {
                rpmbuild(dir.path(), &name, 1000 << (number * 5));
            } else {
                let size = (number as usize) * 20_000;
                quick_package(dir.path(), &name, size, rpm::RpmFormat::V4);
            }
        }
        let kind = Kind::Packages;
        Self { dir, kind }
    }

    /// Modules of Debian's kernel: unsigned, with its `foreign` signature, or unsigned and `compressed`.
    fn modules(filesystem: &Mounted, state: &str) -> Self {
        let dir = tempfile::tempdir_in(filesystem.path()).unwrap();
        let all = modules_of("bookworm");
        let step = all.len() / ARTIFACTS as usize;
        for (number, path) in all
            .iter()
            .step_by(step)
            .take(ARTIFACTS as usize)
            .enumerate()
        {
            let signed = fs::read(path).unwrap();
            let (end, bytes) = match (state, number % 3) {
                ("none", _) => ("ko", bare(&signed).to_vec()),
                ("foreign", _) => ("ko", signed),
                ("compressed", 0) => ("ko.gz", through(&["gzip", "-c"], bare(&signed))),
                ("compressed", 1) => ("ko.xz", through(&["xz", "-0c"], bare(&signed))),
                ("compressed", _) => ("ko.zst", through(&["zstd", "-c"], bare(&signed))),
                other => panic!("{other:?}"),
            };
            fs::write(dir.path().join(format!("module{number:02}.{end}")), bytes).unwrap();
        }
        let kind = Kind::Modules;
        Self { dir, kind }
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.kind.below(self.dir.path())
    }
}

impl Kind {
    /// Every artifact below a directory, sorted.
    fn below(self, directory: &Path) -> Vec<PathBuf> {
        match self {
            Self::Packages => packages_below(directory),
            Self::Modules => {
                let mut found: Vec<_> = fs::read_dir(directory)
                    .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
                    .unwrap_or_default();
                found.retain(|path| path.to_string_lossy().contains(".ko"));
                found.sort();
                found
            }
        }
    }
}

impl Judge {
    fn rpmdb(&self) -> &Rpmdb {
        match self {
            Self::Packages(rpmdb) => rpmdb,
            Self::Modules(_) => panic!("it judges modules"),
        }
    }

    fn is_signed(&self, path: &Path) -> bool {
        match self {
            Self::Packages(rpmdb) => rpmdb.is_signed(path),
            Self::Modules(certificate) => {
                let bytes = fs::read(path).unwrap();
                let module = match path.extension().unwrap().to_str().unwrap() {
                    "gz" => through(&["gzip", "-dc"], &bytes),
                    "xz" => through(&["xz", "-dc"], &bytes),
                    "zst" => through(&["zstd", "-dc"], &bytes),
                    _ => bytes,
                };
                is_signed(&module, certificate)
            }
        }
    }
}

/// Where the packages come from in a round.
#[derive(Debug, Clone, Copy)]
enum Dropped {
    BeforeTheStart,
    Copied,
    Renamed,
}

impl Drill {
    fn new(filesystem: &Mounted, update: &str) -> Self {
        Self::with(filesystem, update, Stock::packages(filesystem))
    }

    fn with(filesystem: &Mounted, update: &str, stock: Stock) -> Self {
        let dir = tempfile::tempdir_in(filesystem.path()).unwrap();
        let mut daemon = Daemon::prepare_in(dir, &format!("update = \"{update}\""));
        let config = fs::read_to_string(daemon.config()).unwrap();
        daemon.write_config(&config.replace("[keys]", "[keys]\nmodule_algorithm = \"nistp256\""));
        daemon.run();
        let output = daemon.signdrop(["key", "generate", IDENTITY]);
        assert!(output.status.success(), "{output:?}");
        let judge = match stock.kind {
            Kind::Packages => Judge::Packages(Rpmdb::new(&daemon.export(IDENTITY))),
            Kind::Modules => {
                let output = daemon.signdrop(["key", "certificate", IDENTITY]);
                Judge::Modules(Box::new(Certificate::from_pem(&output.stdout).unwrap()))
            }
        };
        let project = daemon.project("alice/tools");
        // Nothing that the rounds find signed was so before.
        for path in stock.paths() {
            assert!(!judge.is_signed(&path), "{}", path.display());
        }
        assert!(stock.kind.below(&project).is_empty());
        assert!(daemon.stop().success());
        Self {
            daemon,
            stock,
            judge,
            random: 0x5eed_0fd1_ce5e_ed5e,
            kills: 0,
        }
    }

    /// Has the daemon die each time that it does `step` for the n-th time.
    fn at_step<const N: usize>(&mut self, step: &str, counts: [u64; N]) {
        for count in counts {
            let round = format!("{step}-{count}");
            self.daemon
                .environment("SIGNDROP_DIE_AT", &format!("{step}:{count}"));
            let dropped = self.any_way();
            let packages = self.drop_and_start(&round, dropped);
            let status = self.daemon.wait_exit();
            assert_eq!(status.signal(), Some(9), "{round}\n{}", self.daemon.log());
            self.recover(&round, &packages);
        }
    }

    /// Kills the daemon at moments that a fixed seed gives.
    fn at_random(&mut self, rounds: u64) {
        for number in 0..rounds {
            let round = format!("random-{number}");
            let dropped = self.any_way();
            let packages = self.drop_and_start(&round, dropped);
            // A start takes some tens of milliseconds, a package one or two.
            let longest = match dropped {
                Dropped::BeforeTheStart => 120_000,
                Dropped::Copied | Dropped::Renamed => 15_000,
            };
            thread::sleep(Duration::from_micros(self.next(longest)));
            self.daemon.kill();
            self.recover(&round, &packages);
        }
    }

    /// Drops packages before or after the daemon's start, as `dropped` wants it.
    fn drop_and_start(&mut self, round: &str, dropped: Dropped) -> Vec<PathBuf> {
        match dropped {
            Dropped::BeforeTheStart => {
                let packages = self.drop_packages(round, dropped);
                self.daemon.spawn();
                packages
            }
            Dropped::Copied | Dropped::Renamed => {
                self.daemon.run();
                self.drop_packages(round, dropped)
            }
        }
    }

    fn drop_packages(&self, round: &str, dropped: Dropped) -> Vec<PathBuf> {
        let directory = self.daemon.project("alice/tools").join(round);
        let outside = tempfile::tempdir_in(self.daemon.dir.path()).unwrap();
        let first = match dropped {
            Dropped::BeforeTheStart | Dropped::Copied => {
                fs::create_dir(&directory).unwrap();
                directory.as_path()
            }
            Dropped::Renamed => outside.path(),
        };
        let mut packages = Vec::new();
        for path in self.stock.paths() {
            let name = path.file_name().unwrap();
            fs::copy(&path, first.join(name)).unwrap();
            packages.push(directory.join(name));
        }
        if let Dropped::Renamed = dropped {
            fs::rename(outside.path(), &directory).unwrap();
            fs::create_dir(outside.path()).unwrap();
        }
        packages
    }

    /// Starts the daemon once more and looks at everything that it has been given.
    fn recover(&mut self, round: &str, packages: &[PathBuf]) {
        self.kills += 1;
        self.daemon.clear_environment();
        self.daemon.run();
        self.daemon.settle(&self.daemon.drop_dir());
        let directory = self.daemon.drop_dir().join("alice/tools").join(round);
        assert_eq!(self.stock.kind.below(&directory), packages, "{round}");
        for path in packages {
            assert!(
                self.judge.is_signed(path),
                "{round}: {}\n{}",
                path.display(),
                self.daemon.log()
            );
        }
        assert!(self.daemon.stop().success(), "{}", self.daemon.log());
        let left = left_behind(&self.daemon.drop_dir(), packages);
        assert_eq!(left, [""; 0], "{round}");
        assert_eq!(self.redo_records(), 0, "{round}");
        fs::remove_dir_all(directory).unwrap();
    }

    /// How many records the redo log holds: slots that begin with a length.
    fn redo_records(&self) -> usize {
        const SLOT: usize = 3 * (64 << 10);
        let log = fs::read(self.daemon.dir.path().join("state/redo")).unwrap();
        let begins = |slot: &&[u8]| slot.iter().take(8).any(|byte| *byte != 0);
        log.chunks(SLOT).filter(begins).count()
    }

    fn conclude(self, kills: u64) {
        assert_eq!(self.kills, kills);
    }

    fn any_way(&mut self) -> Dropped {
        match self.next(3) {
            0 => Dropped::BeforeTheStart,
            1 => Dropped::Copied,
            _ => Dropped::Renamed,
        }
    }

    /// A number below `bound` (xorshift).
    fn next(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }
}

/// Names of files that are neither artifacts nor directories.
fn left_behind(directory: &Path, artifacts: &[PathBuf]) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        if path.is_dir() {
            names.extend(left_behind(&path, artifacts));
        } else if !artifacts.contains(&path) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names
}
