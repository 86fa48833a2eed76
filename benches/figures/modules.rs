//! Kernel modules through the daemon, against the kernel's own sign-file and xz.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    Table,
    common::{
        TestKey,
        daemon::Daemon,
        modules::{SignFile, bare, modules_of},
        run,
    },
    median,
    packages::drop_directory,
    shown,
};
use signdrop::key::Algorithm;

const ROUNDS: usize = 5;
/// Of Debian's 6.12 kernel, every so many-th module is taken: packing all takes xz minutes.
const STEP: usize = 8;

pub(super) fn modules(table: &mut Table) {
    let daemon = daemon();
    let sign_file = SignFile::new(&TestKey::new(Algorithm::Rsa4096));

    let originals = tempfile::tempdir().unwrap();
    for (number, path) in modules_of("bookworm").iter().enumerate() {
        let module = fs::read(path).unwrap();
        fs::write(originals.path().join(format!("{number}.ko")), bare(&module)).unwrap();
    }
    let (ours, theirs) = rounds(&daemon, originals.path(), "plain", |copy| {
        in_a_shell(
            copy,
            "for module in *.ko; do $SIGN_FILE $module; done",
            &sign_file,
        )
    });
    table.row(
        &what(originals.path(), "modules of Debian's 6.1 cloud kernel"),
        &shown(ours),
        &format!("`sign-file` in a loop: {}", shown(theirs)),
        &faster(ours, theirs),
        "the RSA operation, on all processors",
    );

    let originals = tempfile::tempdir().unwrap();
    for (number, path) in modules_of("trixie").iter().step_by(STEP).enumerate() {
        fs::copy(path, originals.path().join(format!("{number}.ko.xz"))).unwrap();
    }
    // As many at once as there are processors, as the daemon does it.
    let script = "ls | xargs -P $(nproc) -n 1 sh -c 'xz -dc $0 > $0.ko && $SIGN_FILE $0.ko && \
                  xz -c --check=crc32 --lzma2=dict=1MiB $0.ko > $0 && rm $0.ko'";
    let (ours, theirs) = rounds(&daemon, originals.path(), "packed", |copy| {
        in_a_shell(copy, script, &sign_file)
    });
    table.row(
        &what(
            originals.path(),
            "modules of Debian's 6.12 cloud kernel, in xz",
        ),
        &shown(ours),
        &format!(
            "`xz -dc`, `sign-file`, `xz`, one for each processor: {}",
            shown(theirs)
        ),
        &faster(ours, theirs),
        "xz",
    );
}

/// A daemon whose project has both its keys.
fn daemon() -> Daemon {
    let daemon = Daemon::start("");
    for arguments in [["key", "generate"], ["key", "certificate"]] {
        let output = daemon.signdrop([&arguments[..], &["alice#tools@copr.example.org"]].concat());
        assert!(output.status.success(), "{output:?}");
    }
    daemon
}

/// The medians of the daemon's time and of another's, for the same modules.
fn rounds(
    daemon: &Daemon,
    originals: &Path,
    name: &str,
    other: impl Fn(&Path) -> Duration,
) -> (Duration, Duration) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let copy = tempfile::tempdir_in(daemon.dir.path()).unwrap();
        copy_all(originals, &copy.path().join("modules"));
        ours.push(drop_directory(
            daemon,
            &copy.path().join("modules"),
            &format!("{name}-{round}"),
        ));
        copy_all(originals, &copy.path().join("modules"));
        theirs.push(other(&copy.path().join("modules")));
    }
    (median(ours), median(theirs))
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    rustix::fs::sync();
}

fn in_a_shell(directory: &Path, script: &str, sign_file: &SignFile) -> Duration {
    let begin = Instant::now();
    let output = run(Command::new("sh")
        .args(["-e", "-c", script])
        .env("SIGN_FILE", sign_file.command("sha256"))
        .current_dir(directory));
    assert!(output.status.success(), "{output:?}");
    begin.elapsed()
}

fn what(originals: &Path, of: &str) -> String {
    let sizes: Vec<u64> = fs::read_dir(originals)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    format!(
        "sign {} {of}, {} MB, RSA-4096",
        sizes.len(),
        sizes.iter().sum::<u64>() / 1_000_000
    )
}

fn faster(ours: Duration, theirs: Duration) -> String {
    format!("{:.1} × faster", theirs.as_secs_f64() / ours.as_secs_f64())
}
