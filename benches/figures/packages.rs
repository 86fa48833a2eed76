//! Packages through the daemon, against rpm's own tools and openssl.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
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
    common::{daemon::Daemon, packages_below, quick_package, run},
    median, peak_memory_kb, shown,
};

/// How many packages there are, and how many times each measurement is made.
const PACKAGES: usize = 400;
const ROUNDS: usize = 5;

/// Sizes with a log-normal distribution around a mean of 1 MB, the same in every run.
fn sizes() -> Vec<usize> {
    const SIGMA: f64 = 1.5;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let draws: Vec<f64> = (0..PACKAGES)
        .map(|_| {
            // Box and Muller's transform of two uniform numbers into a normal one.
            let (first, second) = (uniform().max(1e-12), uniform());
            let normal = (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos();
            (SIGMA * normal).exp()
        })
        .collect();
    let mean = draws.iter().sum::<f64>() / PACKAGES as f64;
    draws
        .into_iter()
        .map(|draw| (draw / mean * 1e6) as usize + 1000)
        .collect()
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in packages_below(from) {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    rustix::fs::sync();
}

/// A key for rpmsign, in a GnuPG home of its own.
fn gpg_home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let output = run(Command::new("gpg")
        .arg("--homedir")
        .arg(home.path())
        .args(["--batch", "--passphrase", "", "--quick-generate-key"])
        .args(["bench@example.org", "rsa2048", "sign", "never"]));
    assert!(output.status.success(), "{output:?}");
    home
}

fn rpmsign(home: &Path, what: &str, paths: &[PathBuf]) -> Duration {
    let begin = Instant::now();
    let output = run(Command::new("rpmsign")
        .env("GNUPGHOME", home)
        .args(["--define", "__gpg /usr/bin/gpg"])
        .args(["--define", "_gpg_name bench@example.org", what])
        .args(paths));
    assert!(output.status.success(), "{output:?}");
    begin.elapsed()
}

fn end_agent(home: &Path) {
    run(Command::new("gpgconf")
        .env("GNUPGHOME", home)
        .args(["--kill", "all"]));
}

/// Moves a directory of artifacts into the drop directory and waits until all are settled: from the first arrival to the last outcome.
pub(crate) fn drop_directory(daemon: &Daemon, from: &Path, name: &str) -> Duration {
    let target = daemon.project("alice/tools").join(name);
    let mut connection = Connection::open(daemon);
    let begin = Instant::now();
    fs::rename(from, &target).unwrap();
    connection.wait(&target);
    begin.elapsed()
}

/// The packages of this part, and of the mount's.
pub(super) fn make_many(dir: &Path) {
    for (number, size) in sizes().into_iter().enumerate() {
        let name = format!("package{number}");
        quick_package(dir, &name, size, rpm::RpmFormat::V4);
    }
}

pub(super) fn many(table: &mut Table) {
    let originals = tempfile::tempdir().unwrap();
    make_many(originals.path());
    let bytes: u64 = packages_below(originals.path())
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    let what = |action| {
        format!(
            "{action} {PACKAGES} packages, {} MB, RSA-2048",
            bytes / 1_000_000
        )
    };
    let signing = Daemon::start("");
    signing.signdrop(["key", "generate", "alice#tools@copr.example.org"]);
    let unsigning = Daemon::start("action = \"unsign\"");
    let home = gpg_home();
    let (mut sign, mut addsign, mut unsign, mut delsign) = (vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let copy = tempfile::tempdir_in(signing.dir.path()).unwrap();
        let packages = copy.path().join("packages");
        copy_all(originals.path(), &packages);
        sign.push(drop_directory(
            &signing,
            &packages,
            &format!("round-{round}"),
        ));

        copy_all(originals.path(), &packages);
        let paths = packages_below(&packages);
        addsign.push(rpmsign(home.path(), "--addsign", &paths));

        // What rpmsign has signed is unsigned by both, each its own copy.
        let ours = tempfile::tempdir_in(unsigning.dir.path()).unwrap();
        let signed = ours.path().join("packages");
        copy_all(&packages, &signed);
        unsign.push(drop_directory(
            &unsigning,
            &signed,
            &format!("round-{round}"),
        ));
        let begin = Instant::now();
        for path in &paths {
            rpmsign(home.path(), "--delsign", std::slice::from_ref(path));
        }
        delsign.push(begin.elapsed());
    }
    end_agent(home.path());
    let (sign, addsign) = (median(sign), median(addsign));
    table.row(
        &what("sign"),
        &shown(sign),
        &format!("`rpmsign --addsign` in one call: {}", shown(addsign)),
        &format!("{:.1} × faster", addsign.as_secs_f64() / sign.as_secs_f64()),
        "SHA-256 of the payloads and the RSA operation, on all processors",
    );
    let (unsign, delsign) = (median(unsign), median(delsign));
    table.row(
        &what("unsign"),
        &shown(unsign),
        &format!("`rpmsign --delsign`, one call each: {}", shown(delsign)),
        &format!(
            "{:.1} × faster",
            delsign.as_secs_f64() / unsign.as_secs_f64()
        ),
        "SHA-256 of the payloads",
    );
}

/// One package of 2 GB, which rpmbuild makes without compression.
fn large_package(dir: &Path) -> PathBuf {
    let spec = dir.join("large.spec");
    fs::File::create(&spec)
        .unwrap()
        .write_all(
            b"Name: large\nVersion: 1.0\nRelease: 1\nSummary: Large\nLicense: MIT\nBuildArch: noarch\n\
              %description\nLarge.\n%install\nmkdir -p %{buildroot}/opt\n\
              openssl rand 2000000000 > %{buildroot}/opt/large\n%files\n/opt/large\n",
        )
        .unwrap();
    let output = run(Command::new("rpmbuild")
        .args(["--quiet", "-bb", "--nodeps"])
        .args(["--define", "_binary_payload w.ufdio"])
        .args(["--define", "__os_install_post %{nil}"])
        .arg("--define")
        .arg(format!("_topdir {}", dir.join("rpmbuild").display()))
        .arg(&spec));
    assert!(output.status.success(), "{output:?}");
    fs::remove_dir_all(dir.join("rpmbuild/BUILD")).unwrap();
    packages_below(&dir.join("rpmbuild/RPMS")).remove(0)
}

pub(super) fn large(table: &mut Table) {
    let daemon = Daemon::start("");
    daemon.signdrop(["key", "generate", "alice#tools@copr.example.org"]);
    let dir = tempfile::tempdir_in(daemon.dir.path()).unwrap();
    let package = large_package(dir.path());
    let (mut sign, mut hash) = (vec![], vec![]);
    for round in 0..ROUNDS {
        let copies = dir.path().join(format!("copy-{round}"));
        fs::create_dir(&copies).unwrap();
        fs::copy(&package, copies.join("large.rpm")).unwrap();
        rustix::fs::sync();
        let begin = Instant::now();
        let output = run(Command::new("openssl")
            .args(["dgst", "-sha256"])
            .arg(copies.join("large.rpm")));
        assert!(output.status.success(), "{output:?}");
        hash.push(begin.elapsed());
        sign.push(drop_directory(&daemon, &copies, &format!("round-{round}")));
        fs::remove_dir_all(daemon.project("alice/tools").join(format!("round-{round}"))).unwrap();
    }
    let (sign, hash) = (median(sign), median(hash));
    table.row(
        "sign one package of 2 GB",
        &format!(
            "{}, {} MB of memory at the most",
            shown(sign),
            peak_memory_kb(daemon.pid()) / 1024
        ),
        &format!("`openssl dgst -sha256` of it: {}", shown(hash)),
        &format!("{:.2} × its time", sign.as_secs_f64() / hash.as_secs_f64()),
        "SHA-256 on one processor",
    );
}

/// One connection that stays open, so that a request costs what it costs a backend.
struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    fn open(daemon: &Daemon) -> Self {
        let stream = UnixStream::connect(daemon.dir.path().join("api.sock")).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    fn wait(&mut self, path: &Path) {
        let body = format!("{{\"paths\":[\"{}\"]}}", path.display());
        let request = format!(
            "POST /v1/wait HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.contains("\"state\":\"settled\"") && answer.contains("\"failed\":[]"),
            "{answer}"
        );
    }
}

/// The median and the 99th percentile of several times.
fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let at = |percent| shown(times[times.len() * percent / 100]);
    format!("median {}, p99 {}", at(50), at(99))
}

pub(super) fn latency(table: &mut Table) {
    const DROPS: usize = 300;
    let daemon = Daemon::start("");
    daemon.signdrop(["key", "generate", "alice#tools@copr.example.org"]);
    let project = daemon.project("alice/tools");
    daemon.settle(&project);
    let outside = tempfile::tempdir_in(daemon.dir.path()).unwrap();
    let mut connection = Connection::open(&daemon);
    let mut times = Vec::new();
    for number in 0..DROPS {
        let package = quick_package(
            outside.path(),
            &format!("package{number}"),
            100_000,
            rpm::RpmFormat::V4,
        );
        rustix::fs::sync();
        let target = project.join(package.file_name().unwrap());
        let begin = Instant::now();
        fs::rename(&package, &target).unwrap();
        connection.wait(&target);
        times.push(begin.elapsed());
    }
    table.row(
        "one package of 100 kB, idle daemon: from rename to the barrier's answer",
        &spread(&mut times),
        "",
        "",
        "the RSA operation, one flush of the store, one fdatasync",
    );
}

/// What a backend pays that calls obs-sign's command line once for each package.
pub(super) fn command(table: &mut Table) {
    const CALLS: usize = 300;
    let daemon = Daemon::start("");
    let email = "bench@example.org";
    daemon.signdrop(["key", "generate", email, "--algorithm", "rsa4096"]);
    let outside = tempfile::tempdir_in(daemon.dir.path()).unwrap();
    let sign = outside.path().join("sign");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_signdrop"), &sign).unwrap();
    let key = SecretKey::generate(Algorithm::Rsa4096).unwrap();
    let (mut calls, mut operations) = (vec![], vec![]);
    for number in 0..CALLS {
        let name = format!("package{number}");
        let package = quick_package(outside.path(), &name, 100_000, rpm::RpmFormat::V4);
        rustix::fs::sync();
        let begin = Instant::now();
        let output = run(Command::new(&sign)
            .env("SIGNDROP_API", daemon.api())
            .env("SIGN_CONF", "/nonexistent")
            .args(["-4", "-h", "sha256", "-u", email, "-r"])
            .arg(&package));
        calls.push(begin.elapsed());
        assert!(output.status.success(), "{output:?}");
        let begin = Instant::now();
        key.sign(Digest::Sha256, &[number as u8; 32]).unwrap();
        operations.push(begin.elapsed());
    }
    let (calls_spread, call, operation) = (spread(&mut calls), median(calls), median(operations));
    table.row(
        "`sign -4 -h sha256 -u EMAIL -r FILE` on one package of 100 kB, RSA-4096",
        &calls_spread,
        &format!("the RSA operation alone: {}", shown(operation)),
        &format!("{} more", shown(call - operation)),
        "starting the program, OpenSSL's set-up, two flushes",
    );
}
