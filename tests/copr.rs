//! COPR's results tree as a drop directory: `examples/copr/signdrop.toml` on a tree with every special case that COPR has.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use common::{Rpmdb, daemon::Daemon, packages_below, quick_package, run};

const TOOLS: &str = "alice#tools@copr.example.org";

/// A daemon with the example's configuration, but for the places that a test has to have for itself, and fast keys.
fn prepare() -> Daemon {
    let daemon = Daemon::prepare("");
    let dir = daemon.dir.path().display().to_string();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/copr/signdrop.toml");
    let mut config = fs::read_to_string(example).unwrap();
    for (theirs, ours) in [
        ("/var/lib/signdrop", format!("{dir}/state")),
        ("unix:/run/signdrop", format!("unix:{dir}")),
        (", \"tcp:127.0.0.1:8180\"", String::new()),
        ("/etc/signdrop", dir.clone()),
        ("/var/lib/copr/public_html/results", format!("{dir}/drop")),
        ("rsa4096", "rsa2048".into()),
    ] {
        assert!(config.contains(theirs), "the example lost {theirs}");
        config = config.replace(theirs, &ours);
    }
    daemon.write_config(&config);
    daemon
}

fn start() -> Daemon {
    let mut daemon = prepare();
    daemon.run();
    daemon
}

/// An unsigned package outside of the tree, but on the same filesystem.
fn stock(daemon: &Daemon, name: &str) -> PathBuf {
    let dir = daemon.dir.path().join("stock");
    fs::create_dir_all(&dir).unwrap();
    quick_package(&dir, name, 2000, rpm::RpmFormat::V4)
}

/// Copies the package to a path below the results tree.
fn put(daemon: &Daemon, package: &Path, path: &str) -> PathBuf {
    let path = daemon.drop_dir().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(package, &path).unwrap();
    path
}

fn rpmdb(daemon: &Daemon, identity: &str) -> Rpmdb {
    Rpmdb::new(&daemon.export(identity))
}

fn key_count(daemon: &Daemon) -> u64 {
    daemon.status()["keys"].as_u64().unwrap()
}

#[test]
fn check_says_what_the_example_means() {
    let daemon = prepare();
    let output = daemon.signdrop(["check", "-c", daemon.config().to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    for wanted in [
        "{owner}/{project}[:{variant}]",
        "{owner}#{project}@copr.example.org",
        "pubkey.gpg",
    ] {
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn each_place_of_the_tree_is_signed_with_its_projects_key_or_left_alone() {
    let daemon = start();
    let package = stock(&daemon, "one");
    let original = fs::read(&package).unwrap();
    let signed = [
        ("alice/tools/fedora-43-x86_64/01-one", TOOLS),
        ("alice/tools/rhel+epel-8-x86_64/01-one", TOOLS),
        ("alice/tools/opensuse-leap-15.6-x86_64/01-one", TOOLS),
        ("alice/tools:pr:10/fedora-43-x86_64/02-one", TOOLS),
        ("alice/tools:custom:next/fedora-43-x86_64/02-one", TOOLS),
        (
            "@group/tools/epel-9-aarch64/03-one",
            "@group#tools@copr.example.org",
        ),
        (
            "@group/tools:pr:1/epel-9-aarch64/03-one",
            "@group#tools@copr.example.org",
        ),
        // Projects that are called as what is ignored further down.
        (
            "alice/devel/fedora-43-x86_64/04-one",
            "alice#devel@copr.example.org",
        ),
        (
            "modules/repodata/fedora-43-x86_64/05-one",
            "modules#repodata@copr.example.org",
        ),
        (
            "alice/my-tools.2_x/fedora-43-x86_64/06-one",
            "alice#my-tools.2_x@copr.example.org",
        ),
    ]
    .map(|(build, identity)| {
        (
            put(&daemon, &package, &format!("{build}/one.rpm")),
            identity,
        )
    });
    let ignored = [
        "alice/tools/srpm-builds/01/one.src.rpm",
        "alice/tools/modules/x/y/one.rpm",
        "alice/tools/repodata/one.rpm",
        "alice/tools/fedora-43-x86_64/repodata/one.rpm",
        "alice/tools/fedora-43-x86_64/devel/repodata/one.rpm",
        "alice/tools/fedora-43-x86_64/01-one/prev_build_backup/one.rpm",
        "alice/tools/fedora-43-x86_64/01-one/.one.rpm.Ab3dEf",
    ]
    .map(|path| put(&daemon, &package, path));

    daemon.settle(&daemon.drop_dir());
    for (path, identity) in &signed {
        let rpmdb = rpmdb(&daemon, identity);
        assert!(rpmdb.is_signed(path), "{}", rpmdb.check(path).1);
    }
    for path in &ignored {
        assert_eq!(fs::read(path).unwrap(), original, "{}", path.display());
    }
    assert_eq!(key_count(&daemon), 5);
}

#[test]
fn the_digest_follows_the_chroot() {
    let daemon = start();
    let package = stock(&daemon, "one");
    let cases = [
        ("epel-4-x86_64", "SHA1"),
        ("rhel-4-i386", "SHA1"),
        ("epel-5-x86_64", "SHA256"),
        ("epel-40-x86_64", "SHA256"),
        ("rhel+epel-8-x86_64", "SHA256"),
        ("epel-10-x86_64", "SHA256"),
        ("fedora-9-i386", "SHA1"),
        ("fedora-19-x86_64", "SHA1"),
        ("fedora-26-x86_64", "SHA1"),
        ("fedora-27-x86_64", "SHA256"),
        ("fedora-30-x86_64", "SHA256"),
        ("fedora-43-x86_64", "SHA256"),
        ("fedora-126-x86_64", "SHA256"),
        ("fedora-rawhide-x86_64", "SHA256"),
        ("centos-stream-10-x86_64", "SHA256"),
        ("opensuse-leap-15.6-x86_64", "SHA256"),
    ]
    .map(|(chroot, digest)| {
        let path = format!("alice/tools:pr:1/{chroot}/01-one/one.rpm");
        (put(&daemon, &package, &path), digest)
    });
    daemon.settle(&daemon.drop_dir());
    let rpmdb = rpmdb(&daemon, TOOLS);
    for (path, digest) in cases {
        let said = rpmdb.check(&path).1;
        let wanted = format!("RSA/{digest} Signature, key ID");
        assert!(said.contains(&wanted), "{}: {said}", path.display());
    }
}

#[test]
fn a_hundred_builds_that_arrive_at_once_make_one_key_and_are_all_signed() {
    let daemon = start();
    let package = stock(&daemon, "one");
    let results = daemon.dir.path().join("results");
    fs::create_dir(&results).unwrap();
    for build in 0..100 {
        let build = results.join(format!("fedora-43-x86_64/{build:08}-one"));
        fs::create_dir_all(&build).unwrap();
        fs::copy(&package, build.join("one.rpm")).unwrap();
    }
    fs::create_dir(daemon.drop_dir().join("bob")).unwrap();
    fs::rename(&results, daemon.drop_dir().join("bob/new")).unwrap();
    daemon.settle(&daemon.drop_dir());
    assert_eq!(key_count(&daemon), 1);
    let packages = packages_below(&daemon.drop_dir());
    assert_eq!(packages.len(), 100);
    let rpmdb = rpmdb(&daemon, "bob#new@copr.example.org");
    assert_eq!(rpmdb.not_signed(&packages), [] as [&Path; 0]);
}

#[test]
fn hard_links_in_two_chroots_and_two_projects_each_get_their_own_signature() {
    let mut daemon = prepare();
    let package = stock(&daemon, "one");
    let first = put(
        &daemon,
        &package,
        "alice/tools/fedora-43-x86_64/01-one/one.rpm",
    );
    let links = [
        ("alice/tools/fedora-26-x86_64/01-one/one.rpm", TOOLS),
        (
            "bob/fork/fedora-43-x86_64/01-one/one.rpm",
            "bob#fork@copr.example.org",
        ),
    ]
    .map(|(path, identity)| {
        let path = daemon.drop_dir().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::hard_link(&first, &path).unwrap();
        (path, identity)
    });
    daemon.run();
    daemon.settle(&daemon.drop_dir());
    for (path, identity) in [(first, TOOLS)].iter().chain(&links) {
        let rpmdb = rpmdb(&daemon, identity);
        assert!(rpmdb.is_signed(path), "{}", rpmdb.check(path).1);
    }
}

#[test]
fn an_rsync_retry_that_puts_the_unsigned_package_over_the_signed_one_is_signed_again() {
    let mut daemon = start();
    let package = stock(&daemon, "one");
    let build = daemon.project("alice/tools/fedora-43-x86_64/01-one");
    let path = build.join("one-1.0-1.noarch.rpm");
    for _ in 0..3 {
        let output = run(Command::new("rsync")
            .args(["-a", "--ignore-times"])
            .arg(&package)
            .arg(&build));
        assert!(output.status.success(), "{output:?}");
        // The backend is told by nobody; nor is the daemon asked.
        daemon.until("signed", |daemon| {
            let exported = daemon.signdrop(["key", "export", TOOLS]);
            exported.status.success()
                && Rpmdb::new(&String::from_utf8(exported.stdout).unwrap()).is_signed(&path)
        });
    }
    daemon.settle(&build);
    assert_eq!(daemon.status()["drops"][0]["failed"], 0);
    assert_eq!(packages_below(&build), [path]);
}

#[test]
fn a_fork_is_signed_with_the_forks_own_key() {
    let daemon = start();
    let chroot = "fedora-43-x86_64";
    for number in 0..10 {
        let package = stock(&daemon, &format!("p{number}"));
        put(
            &daemon,
            &package,
            &format!("alice/tools/{chroot}/{number:08}-p/p{number}.rpm"),
        );
    }
    daemon.settle(&daemon.drop_dir());
    fs::create_dir(daemon.drop_dir().join("bob")).unwrap();
    // What is copied comes after what the daemon has published for the fork already, and overwrites it.
    let output = run(Command::new("rsync")
        .arg("-a")
        .arg(format!(
            "{}/",
            daemon.drop_dir().join("alice/tools").display()
        ))
        .arg(daemon.drop_dir().join("bob/fork")));
    assert!(output.status.success(), "{output:?}");
    daemon.settle(&daemon.drop_dir());

    for (project, identity) in [
        ("alice/tools", TOOLS),
        ("bob/fork", "bob#fork@copr.example.org"),
    ] {
        let rpmdb = rpmdb(&daemon, identity);
        let project = daemon.drop_dir().join(project);
        let packages = packages_below(&project);
        assert_eq!(packages.len(), 10);
        assert_eq!(rpmdb.not_signed(&packages), [] as [&Path; 0]);
        // The copied pubkey.gpg was that of the project that was forked.
        assert_eq!(
            fs::read_to_string(project.join("pubkey.gpg")).unwrap(),
            daemon.export(identity)
        );
    }
}

#[test]
fn a_wait_puts_the_public_key_right_that_somebody_has_copied_over_or_prolonged() {
    let daemon = start();
    let package = stock(&daemon, "one");
    put(
        &daemon,
        &package,
        "alice/tools/fedora-43-x86_64/01-one/one.rpm",
    );
    daemon.settle(&daemon.drop_dir());
    let published = daemon.drop_dir().join("alice/tools/pubkey.gpg");
    fs::write(&published, "another project's").unwrap();
    daemon.settle(&daemon.drop_dir().join("alice/tools/fedora-43-x86_64"));
    assert_eq!(
        fs::read_to_string(&published).unwrap(),
        daemon.export(TOOLS)
    );
    let counts = daemon.status()["drops"][0]["counts"].clone();
    assert_eq!(counts["signed"], 1, "nothing was worked on: {counts}");
}

#[test]
fn the_public_key_lies_in_every_directory_of_the_project_and_is_written_only_when_it_differs() {
    let daemon = start();
    let package = stock(&daemon, "one");
    let directories = ["alice/tools", "alice/tools:pr:7"].map(|directory| {
        put(
            &daemon,
            &package,
            &format!("{directory}/fedora-43-x86_64/01-one/one.rpm"),
        );
        daemon.drop_dir().join(directory)
    });
    // COPR's tree belongs to the user copr, and its web server is another one.
    chown(&directories[0], Some(4321), Some(4322)).unwrap();
    daemon.settle(&daemon.drop_dir());
    let armour = daemon.export(TOOLS);
    let files = directories.each_ref().map(|path| path.join("pubkey.gpg"));
    for file in &files {
        assert_eq!(fs::read_to_string(file).unwrap(), armour);
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644);
    }
    let owned = fs::metadata(&files[0]).unwrap();
    assert_eq!((owned.uid(), owned.gid()), (4321, 4322));

    // Another package of the project does not touch it.
    let stamp = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
    };
    let before = stamp(&files[0]);
    let build = "alice/tools/fedora-43-x86_64/02-two";
    put(&daemon, &stock(&daemon, "two"), &format!("{build}/two.rpm"));
    daemon.settle(&daemon.drop_dir());
    assert_eq!(stamp(&files[0]), before);

    // Whatever stands there instead is replaced with the next package; what a link leads to stays as it is.
    let elsewhere = daemon.dir.path().join("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    let wrongs: [&dyn Fn(&Path); 5] = [
        &|file| fs::write(file, "").unwrap(),
        &|file| fs::write(file, armour.clone() + "x").unwrap(),
        &|file| fs::write(file, vec![b'x'; 1 << 20]).unwrap(),
        &|file| symlink(&elsewhere, file).unwrap(),
        &|file| {
            let output = run(Command::new("mkfifo").arg(file));
            assert!(output.status.success(), "{output:?}");
        },
    ];
    for (number, wrong) in wrongs.iter().enumerate() {
        fs::remove_file(&files[0]).unwrap();
        wrong(&files[0]);
        let build = format!("alice/tools/fedora-43-x86_64/03-{number}/three.rpm");
        put(&daemon, &package, &build);
        daemon.settle(&daemon.drop_dir());
        let found = fs::symlink_metadata(&files[0]).unwrap();
        assert!(found.is_file(), "{number}");
        assert_eq!(fs::read_to_string(&files[0]).unwrap(), armour, "{number}");
    }
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "precious");
    let names: Vec<_> = fs::read_dir(&directories[0])
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_package_whose_public_key_cannot_be_written_fails_and_is_settled_once_it_can() {
    let mut daemon = start();
    let package = stock(&daemon, "one");
    let in_the_way = daemon.drop_dir().join("alice/tools/pubkey.gpg");
    fs::create_dir_all(&in_the_way).unwrap();
    let path = put(
        &daemon,
        &package,
        "alice/tools/fedora-43-x86_64/01-one/one.rpm",
    );
    let (status, said) = daemon.wait(&daemon.drop_dir());
    assert_eq!(status, 1);
    assert!(said.contains("public key"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), fs::read(&package).unwrap());

    fs::remove_dir(&in_the_way).unwrap();
    daemon.until("published", |_| in_the_way.is_file());
    daemon.settle(&daemon.drop_dir());
    assert!(rpmdb(&daemon, TOOLS).is_signed(&path));
}
