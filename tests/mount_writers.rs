//! Writers that the mount has to bear as they are, on each filesystem that it is made for; rpm judges what they leave behind.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use common::{
    Rpmdb,
    daemon::Mounted,
    mount::{MountDaemon, bounded, succeeds},
    packages_below, quick_package, run,
};

/// What a writer gets: an unsigned package, and where it has to be in the end.
struct Task<'a> {
    package: &'a Path,
    bytes: &'a [u8],
    target: &'a Path,
    elsewhere: &'a Path,
}

type Writer = (&'static str, fn(&Task<'_>));

/// Each writes the package to the target, which does not exist, and succeeds.
const WRITERS: &[Writer] = &[
    ("cp with all attributes", |task| {
        succeeds(bounded("cp").arg("--preserve=all").args(task.names()));
    }),
    ("cp that looks for holes", |task| {
        succeeds(bounded("cp").arg("--sparse=always").args(task.names()));
    }),
    ("cp over a link's name", |task| {
        let link = task.target.with_extension("link");
        std::os::unix::fs::symlink(task.target, &link).unwrap();
        fs::write(task.target, "").unwrap();
        succeeds(bounded("cp").arg(task.package).arg(&link));
        fs::remove_file(&link).unwrap();
    }),
    ("install into directories that it makes", |task| {
        let deep = task.target.with_extension("d").join("deep/one.rpm");
        succeeds(bounded("install").arg("-D").arg(task.package).arg(&deep));
        succeeds(bounded("mv").arg(&deep).arg(task.target));
    }),
    ("mv of a directory across filesystems", |task| {
        let name = task.target.file_name().unwrap();
        let tree = task.elsewhere.join("tree");
        fs::create_dir(&tree).unwrap();
        fs::copy(task.package, tree.join(name)).unwrap();
        let parent = task.target.parent().unwrap();
        succeeds(bounded("mv").arg(&tree).arg(parent));
        succeeds(
            bounded("mv")
                .arg(parent.join("tree").join(name))
                .arg(task.target),
        );
        fs::remove_dir(parent.join("tree")).unwrap();
    }),
    ("tar that unpacks a compressed archive", |task| {
        let archive = task.elsewhere.join("archive.tar.gz");
        let (from, name) = (
            task.package.parent().unwrap(),
            task.package.file_name().unwrap(),
        );
        succeeds(
            bounded("tar")
                .arg("-C")
                .arg(from)
                .arg("-czf")
                .arg(&archive)
                .arg(name),
        );
        let unpacked = task.target.with_extension("d");
        fs::create_dir_all(&unpacked).unwrap();
        succeeds(
            bounded("tar")
                .arg("-C")
                .arg(&unpacked)
                .arg("-xpzf")
                .arg(&archive),
        );
        fs::rename(unpacked.join(name), task.target).unwrap();
    }),
    ("dd one byte at a time, for its first thousand", |task| {
        task.dd(&["bs=1", "count=1000"]);
        task.dd(&["bs=1000", "skip=1", "seek=1", "conv=notrunc"]);
    }),
    ("dd in blocks of 4,097 bytes", |task| task.dd(&["bs=4097"])),
    ("dd that appends", |task| {
        task.dd(&["bs=5003", "count=3"]);
        task.dd(&["bs=5003", "skip=3", "oflag=append", "conv=notrunc"]);
    }),
    ("dd that writes the first bytes last", |task| {
        task.dd(&["bs=4096", "skip=1", "seek=1"]);
        assert_eq!(
            fs::read(task.target).unwrap()[4096..],
            task.bytes[4096..],
            "zeros show nothing"
        );
        task.dd(&["bs=4096", "count=1", "conv=notrunc"]);
    }),
    ("dd past the page cache", |task| {
        task.dd(&["bs=4096", "oflag=sync", "conv=fsync"])
    }),
    ("a shell in two halves, by one descriptor", |task| {
        let script = "exec >\"$2\"; head -c 3000 \"$1\"; tail -c +3001 \"$1\"";
        task.any_of_the_closes("sh", &["-c", script, "sh"]);
    }),
    ("a shell in two halves, opened twice", |task| {
        // The first half is no package: its close says so, and the second makes one of it.
        let script = "head -c 3000 \"$1\" >\"$2\"; tail -c +3001 \"$1\" >>\"$2\"";
        task.any_of_the_closes("sh", &["-c", script, "sh"]);
    }),
    ("tee", |task| {
        succeeds(
            bounded("sh")
                .args(["-c", "cat \"$1\" | tee \"$2\" >/dev/null", "sh"])
                .args(task.names()),
        );
    }),
    ("Python's shutil", |task| {
        succeeds(
            bounded("python3")
                .args(["-c", "import shutil, sys; shutil.copy2(*sys.argv[1:])"])
                .args(task.names()),
        );
    }),
    (
        "Python that writes a temporary file and renames it",
        |task| {
            let script = "import os, sys, tempfile\n\
            with tempfile.NamedTemporaryFile(dir=os.path.dirname(sys.argv[2]), delete=False) as file:\n\
            \tfile.write(open(sys.argv[1], 'rb').read())\n\
            \tfile.flush()\n\
            \tos.fsync(file.fileno())\n\
            \tos.replace(file.name, sys.argv[2])\n";
            succeeds(bounded("python3").args(["-c", script]).args(task.names()));
        },
    ),
    ("rsync of a directory", |task| {
        let tree = task.elsewhere.join("synced");
        fs::create_dir(&tree).unwrap();
        fs::copy(task.package, tree.join(task.target.file_name().unwrap())).unwrap();
        let from = format!("{}/", tree.display());
        succeeds(
            bounded("rsync")
                .args(["-aHAX", &from])
                .arg(task.target.parent().unwrap()),
        );
    }),
    ("rsync --inplace after one that was interrupted", |task| {
        task.resumed("--inplace")
    }),
    ("rsync --append after one that was interrupted", |task| {
        task.resumed("--append")
    }),
    (
        "rsync --append-verify after one that was interrupted",
        |task| task.resumed("--append-verify"),
    ),
    ("rsync --partial after one that was interrupted", |task| {
        task.resumed("--partial")
    }),
];

impl Task<'_> {
    fn names(&self) -> [&Path; 2] {
        [self.package, self.target]
    }

    fn dd(&self, operands: &[&str]) {
        let mut dd = Command::new("timeout");
        dd.args(["-k", "5", "60", "dd", "status=none"])
            .args(operands);
        dd.arg(format!("if={}", self.package.display()));
        // A part is no package, and its close says so; what counts is the file in the end.
        run(dd.arg(format!("of={}", self.target.display())));
    }

    /// A program that need not succeed, since a close in between may have found a part.
    fn any_of_the_closes(&self, program: &str, words: &[&str]) {
        run(bounded(program).args(words).args(self.names()));
    }

    /// An rsync that is killed on its way, and one that goes on where it was.
    fn resumed(&self, how: &str) {
        let output = run(Command::new("timeout")
            .args([
                "-k",
                "5",
                "1",
                "rsync",
                "-t",
                "--partial",
                "--inplace",
                "--bwlimit=100",
            ])
            .args(self.names()));
        assert!(
            !output.status.success(),
            "it was not interrupted: {output:?}"
        );
        let part = fs::metadata(self.target).unwrap().len();
        assert!(part > 0 && part < self.bytes.len() as u64, "{part} bytes");
        assert!(fs::read(self.target).is_err(), "nobody reads a part");
        succeeds(bounded("rsync").args(["-t", how]).args(self.names()));
    }
}

/// Whether the package is signed, and all but its signature header as it was.
fn judge(what: &str, task: &Task<'_>, rpmdb: &Rpmdb) {
    assert!(
        rpmdb.is_signed(task.target),
        "{what}: {}",
        rpmdb.check(task.target).1
    );
    let (ours, theirs) = (fs::read(task.target).unwrap(), task.bytes);
    let ours = common::Sections::of(&ours);
    let theirs = common::Sections::of(theirs);
    assert!(
        ours.main == theirs.main && ours.payload == theirs.payload,
        "{what}: another package"
    );
}

fn each_writer_on(below: &Path) {
    let mounted = MountDaemon::start_on(below, "");
    let (project, rpmdb) = mounted.project();
    let package = quick_package(
        &mounted.beside("plain"),
        "tool",
        300_000,
        rpm::RpmFormat::V4,
    );
    let bytes = fs::read(&package).unwrap();
    for (number, (what, write)) in WRITERS.iter().enumerate() {
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
        let target = project.join(format!("{number}.rpm"));
        let task = Task {
            package: &package,
            bytes: &bytes,
            target: &target,
            elsewhere: elsewhere.path(),
        };
        write(&task);
        judge(what, &task, &rpmdb);
        let status = mounted.daemon.status();
        assert_eq!(status["mounts"][0]["held"], serde_json::json!([]), "{what}");
    }
    assert_eq!(packages_below(&project).len(), WRITERS.len());
    let output = run(bounded("find").arg(below).args(["-name", ".signdrop-*"]));
    assert_eq!(common::out(&output), "", "nothing is left beside the files");
}

#[test]
fn each_writer_leaves_one_signed_file_on_ext4() {
    let filesystem = Mounted::new("ext4", 200);
    each_writer_on(&filesystem.path().join("below"));
}

#[test]
fn each_writer_leaves_one_signed_file_on_xfs() {
    let filesystem = Mounted::new("xfs", 400);
    each_writer_on(&filesystem.path().join("below"));
}

#[test]
fn each_writer_leaves_one_signed_file_on_btrfs() {
    let filesystem = Mounted::new("btrfs", 400);
    each_writer_on(&filesystem.path().join("below"));
}

#[test]
fn each_writer_leaves_one_signed_file_on_tmpfs() {
    let filesystem = Mounted::new("tmpfs", 100);
    each_writer_on(&filesystem.path().join("below"));
}

/// git, with nothing of the machine's or the user's configuration.
fn git(home: &Path, words: &[&str]) -> String {
    let mut git = bounded("git");
    git.env("HOME", home)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .args([
            "-c",
            "user.name=Alice",
            "-c",
            "user.email=alice@example.org",
        ])
        .args([
            "-c",
            "init.defaultBranch=main",
            "-c",
            "protocol.file.allow=always",
        ]);
    succeeds(git.args(words))
}

#[test]
fn git_clones_into_the_mount_and_what_it_checks_out_is_signed() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = MountDaemon::start_on(directory.path(), "");
    let (project, rpmdb) = mounted.project();
    let (home, source) = (mounted.beside("home"), mounted.beside("source"));
    let package = quick_package(&source, "tool", 100_000, rpm::RpmFormat::V4);
    let name = package.file_name().unwrap().to_str().unwrap();
    for number in 0..300 {
        let sub = source.join(format!("d{}", number % 7));
        fs::create_dir_all(&sub).unwrap();
        fs::write(
            sub.join(format!("f{number}")),
            format!("text {number}\n").repeat(number),
        )
        .unwrap();
    }
    std::os::unix::fs::symlink("d1/f1", source.join("link")).unwrap();
    let (from, to) = (
        source.display().to_string(),
        project.join("clone").display().to_string(),
    );
    git(&home, &["-C", &from, "init", "-q"]);
    git(&home, &["-C", &from, "add", "."]);
    git(&home, &["-C", &from, "commit", "-q", "-m", "All of it"]);
    git(&home, &["clone", "-q", &format!("file://{from}"), &to]);
    git(&home, &["-C", &to, "fsck", "--strict", "--full"]);
    let clone = Path::new(&to);
    assert!(
        rpmdb.is_signed(&clone.join(name)),
        "{}",
        rpmdb.check(&clone.join(name)).1
    );
    let output = run(bounded("diff")
        .args(["-r", "--no-dereference", "-x", ".git", "-x", name])
        .args([&from, &to]));
    assert_eq!(common::out(&output), "");
    // It goes on living there: a commit, repacking, a branch back and forth.
    fs::write(clone.join("new"), "new\n").unwrap();
    git(&home, &["-C", &to, "add", "new"]);
    git(&home, &["-C", &to, "commit", "-q", "-m", "One more"]);
    git(&home, &["-C", &to, "gc", "-q", "--prune=now"]);
    git(&home, &["-C", &to, "checkout", "-q", "--force", "HEAD^"]);
    git(&home, &["-C", &to, "checkout", "-q", "--force", "main"]);
    git(&home, &["-C", &to, "fsck", "--strict", "--full"]);
    assert!(rpmdb.is_signed(&clone.join(name)));
}

#[test]
fn createrepo_meets_only_signed_packages_while_writers_write() {
    const WRITERS: usize = 8;
    const EACH: usize = 12;
    let directory = tempfile::tempdir().unwrap();
    let mounted = MountDaemon::start_on(directory.path(), "");
    let (project, rpmdb) = mounted.project();
    let plain = mounted.beside("plain");
    let packages: Vec<PathBuf> = (0..WRITERS * EACH)
        .map(|number| {
            quick_package(
                &plain,
                &format!("p{number}"),
                20_000 + 997 * number,
                rpm::RpmFormat::V4,
            )
        })
        .collect();
    // What a run of createrepo_c found: names with the SHA-256 of what it read.
    let mut found: Vec<HashMap<String, String>> = Vec::new();
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = packages
            .chunks(EACH)
            .enumerate()
            .map(|(number, own)| {
                let project = &project;
                scope.spawn(move || {
                    for package in own {
                        let program = ["cp", "rsync"][number % 2];
                        succeeds(bounded(program).arg(package).arg(project));
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut found = Vec::new();
            loop {
                let last = ends.load(Ordering::Relaxed);
                let metadata = tempfile::tempdir().unwrap();
                let output = run(bounded("createrepo_c")
                    .args(["-q", "--no-database", "--general-compress-type=gz", "-o"])
                    .arg(metadata.path())
                    .arg(&project));
                assert!(output.status.success(), "{output:?}");
                found.push(checksums(metadata.path()));
                if last {
                    return found;
                }
            }
        });
        let results: Vec<_> = writers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        ends.store(true, Ordering::Relaxed);
        found = reader.join().unwrap();
        assert!(results.iter().all(Result::is_ok), "a writer failed");
    });
    let written = packages_below(&project);
    assert_eq!(rpmdb.not_signed(&written), [] as [&Path; 0]);
    assert_eq!(written.len(), packages.len());
    let last = found.last().unwrap();
    assert_eq!(last.len(), packages.len(), "the last run finds all");
    for path in &written {
        let output = common::out(&run(Command::new("sha256sum").arg(path)));
        let name = path.file_name().unwrap().to_str().unwrap();
        // Each was written once: whoever read it before it was signed has another sum.
        for run in found.iter().filter_map(|run| run.get(name)) {
            assert_eq!(Some(run.as_str()), output.split(' ').next(), "{name}");
        }
    }
    assert!(
        found.len() > 1 && found[0].len() < packages.len(),
        "it ran while they wrote"
    );
}

/// Names and sums in a repository's metadata.
fn checksums(repository: &Path) -> HashMap<String, String> {
    let script = "import glob, gzip, sys, xml.etree.ElementTree as tree\n\
        spaces = '{http://linux.duke.edu/metadata/common}'\n\
        path, = glob.glob(sys.argv[1] + '/repodata/*primary.xml.gz')\n\
        for package in tree.parse(gzip.open(path)).getroot():\n\
        \tprint(package.find(spaces + 'location').get('href'), package.find(spaces + 'checksum').text)\n";
    let text = succeeds(bounded("python3").args(["-c", script]).arg(repository));
    let pair = |line: &str| {
        let (path, sum) = line.rsplit_once(' ').unwrap();
        let name = path.rsplit('/').next().unwrap();
        (name.to_owned(), sum.to_owned())
    };
    text.lines().map(pair).collect()
}

#[test]
fn inode_numbers_and_attributes_stay_with_a_file_that_is_signed() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = MountDaemon::start_on(directory.path(), "");
    let (project, rpmdb) = mounted.project();
    let package = quick_package(&mounted.beside("plain"), "tool", 50_000, rpm::RpmFormat::V4);
    let target = project.join("tool.rpm");
    succeeds(
        bounded("setfattr")
            .args(["-n", "user.note", "-v", "kept"])
            .arg(&package),
    );
    succeeds(bounded("setfacl").args(["-m", "u:4321:rw"]).arg(&package));
    succeeds(
        bounded("touch")
            .args(["-d", "2001-02-03 04:05:06.789 UTC"])
            .arg(&package),
    );
    succeeds(
        bounded("cp")
            .arg("--preserve=all")
            .arg(&package)
            .arg(&target),
    );
    assert!(rpmdb.is_signed(&target));
    let said = succeeds(
        bounded("getfacl")
            .args(["-p", "--omit-header"])
            .arg(&target),
    );
    assert!(said.contains("user:4321:rw-"), "{said}");
    let note = succeeds(
        bounded("getfattr")
            .args(["--only-values", "-n", "user.note"])
            .arg(&target),
    );
    assert_eq!(note, "kept");
    let (ours, theirs) = (
        fs::metadata(&target).unwrap(),
        fs::metadata(&package).unwrap(),
    );
    assert_ne!(
        ours.mtime(),
        theirs.mtime(),
        "createrepo_c would take the former's sum from its cache"
    );
    let number = ours.ino();
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    assert_eq!(fs::metadata(&target).unwrap().ino(), number);
}
