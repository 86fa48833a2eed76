//! What systemd reads and hears: the unit, users and directories, notifications, credentials, and the unit's rights.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;
#[path = "../fuse/tests/common/reading.rs"]
mod reading;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use common::{
    Rpmdb,
    daemon::{Daemon, PATIENCE},
    modules::{is_signed, small_module, through},
    mount::MountDaemon,
    quick_package, run,
};
use signdrop::key::x509::Certificate;

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn unit_text() -> String {
    fs::read_to_string(units().join("signdrop.service")).unwrap()
}

/// The values of a setting, in their order.
fn settings(unit: &str, name: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(found, _)| *found == name)
        .map(|(_, value)| value.to_owned())
        .collect()
}

/// The unit with drop-ins appended, as systemd reads them.
fn text_with(drop_ins: &[&str]) -> String {
    let mut text = unit_text();
    for drop_in in drop_ins {
        text += &fs::read_to_string(units().join("signdrop.service.d").join(drop_in)).unwrap();
    }
    text
}

/// A directory with the unit in it, whose program is the one that was built.
fn unit_with(drop_ins: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let text = text_with(drop_ins).replace("/usr/bin/signdrop", env!("CARGO_BIN_EXE_signdrop"));
    let path = dir.path().join("signdrop.service");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn verify(unit: &Path) -> Output {
    run(Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(unit))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    for drop_ins in [
        &[][..],
        &["drop-directories.conf.example"],
        &["drop-directories.conf.example", "tcp.conf.example"],
        &["mount.conf.example"],
    ] {
        let (_dir, unit) = unit_with(drop_ins);
        let output = verify(&unit);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(said(&output), "", "{drop_ins:?}");
    }
    // It would say so: the judge is awake.
    let (_dir, unit) = unit_with(&[]);
    let text = fs::read_to_string(&unit).unwrap();
    fs::write(&unit, text.replace("PrivateTmp=yes", "PrivateTpm=yes")).unwrap();
    assert!(said(&verify(&unit)).contains("PrivateTpm"));
}

#[test]
fn systemd_gives_the_unit_an_exposure_of_at_most_one_and_a_half() {
    let exposure = |unit: &Path, threshold: &str| {
        let output = run(Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager"])
            .arg(format!("--threshold={threshold}"))
            .arg(unit));
        let text = said(&output);
        let line = text
            .lines()
            .find(|line| line.contains("Overall exposure level"))
            .unwrap_or_else(|| panic!("{text}"));
        let words = line.split_once(": ").unwrap().1;
        let number: f64 = words.split(' ').next().unwrap().parse().unwrap();
        (output.status.success(), number)
    };
    let (_dir, unit) = unit_with(&["drop-directories.conf.example"]);
    let (good, number) = exposure(&unit, "16");
    assert!(good && number <= 1.5, "{number}");
    assert!(!exposure(&unit, "1").0, "the threshold counts");
    // TCP needs the host's network.
    let (_dir, unit) = unit_with(&["drop-directories.conf.example", "tcp.conf.example"]);
    let (good, number) = exposure(&unit, "17");
    assert!(good && number <= 1.7, "{number}");
}

#[test]
fn the_unit_starts_a_command_that_the_program_has() {
    let unit = unit_text();
    let start = settings(&unit, "ExecStart");
    let [start] = start.as_slice() else {
        panic!("{start:?}")
    };
    let (program, arguments) = start.split_once(' ').unwrap();
    assert_eq!(program, "/usr/bin/signdrop");
    let mut command = Command::new(env!("CARGO_BIN_EXE_signdrop"));
    let output = run(command.args(arguments.split(' ')).arg("--help"));
    assert!(output.status.success(), "{output:?}");
    // A stop may take as long as the daemon lets requests end, and more.
    assert_eq!(settings(&unit, "TimeoutStopSec"), ["90s"]);
    // `notify-reload`, where systemd knows it, and the same by hand where not.
    assert_eq!(settings(&unit, "Type"), ["notify"]);
    assert_eq!(settings(&unit, "ExecReload"), ["/bin/kill -HUP $MAINPID"]);
    let newer = fs::read_to_string(units().join("signdrop.service.d/notify-reload.conf")).unwrap();
    assert_eq!(settings(&newer, "Type"), ["notify-reload"]);
    assert_eq!(settings(&newer, "ExecReload"), [""]);
}

#[test]
fn users_and_directories_are_made() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    for file in ["passwd", "group"] {
        fs::copy(
            Path::new("/etc").join(file),
            root.path().join("etc").join(file),
        )
        .unwrap();
    }
    let option = format!("--root={}", root.path().display());
    let output = run(Command::new("systemd-sysusers")
        .arg(&option)
        .arg(units().join("signdrop.sysusers")));
    assert!(output.status.success(), "{output:?}");
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    let user: Vec<&str> = users
        .lines()
        .find(|line| line.starts_with("signdrop:"))
        .unwrap()
        .split(':')
        .collect();
    assert_eq!(user[5..], ["/var/lib/signdrop", "/usr/sbin/nologin"]);
    for _ in 0..2 {
        let output = run(Command::new("systemd-tmpfiles")
            .args(["--create", &option])
            .arg(units().join("signdrop.tmpfiles")));
        assert!(output.status.success(), "{output:?}");
        assert_eq!(said(&output), "");
    }
    let state = fs::metadata(root.path().join("var/lib/signdrop")).unwrap();
    assert_eq!(state.permissions().mode() & 0o7777, 0o700);
    assert_eq!(state.uid().to_string(), user[2]);
    let config = fs::metadata(root.path().join("etc/signdrop")).unwrap();
    assert_eq!(
        (config.permissions().mode() & 0o7777, config.uid()),
        (0o755, 0)
    );
}

/// The socket on which systemd listens.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Systemd {
    fn new(daemon: &Daemon) -> Self {
        let path = daemon.dir.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    fn hear(&self) -> String {
        let mut buffer = [0; 4096];
        let len = loop {
            match self.socket.recv(&mut buffer) {
                Ok(len) => break len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("the daemon says nothing: {error}"),
            }
        };
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    /// Hears until something is said that is not the watchdog's.
    fn hear_state(&self) -> String {
        loop {
            let said = self.hear();
            if said.trim() != "WATCHDOG=1" {
                return said;
            }
        }
    }
}

#[test]
fn ready_is_said_when_everything_has_been_looked_at_and_a_reload_and_a_stop_are_told() {
    let mut daemon = Daemon::prepare("");
    let project = daemon.project("alice/tools");
    // A tree that takes a moment to look at.
    for number in 0..2000 {
        fs::create_dir(project.join(format!("d{number}"))).unwrap();
    }
    let systemd = Systemd::new(&daemon);
    daemon.environment("NOTIFY_SOCKET", systemd.path.to_str().unwrap());
    daemon.spawn();
    let ready = systemd.hear_state();
    assert!(ready.lines().any(|line| line == "READY=1"), "{ready:?}");
    // From this moment on, an arrival is noticed by itself, in the deepest directory too.
    let path = quick_package(&project.join("d1999"), "p", 100, rpm::RpmFormat::V4);
    daemon.until("signed", |daemon| {
        daemon.status()["drops"][0]["counts"]["signed"] == 1
    });
    assert!(Rpmdb::new(&daemon.export("alice#tools@copr.example.org")).is_signed(&path));

    for config in [None, Some("nonsense")] {
        if let Some(config) = config {
            daemon.write_config(config);
        }
        let before = monotonic_usec();
        daemon.signal("HUP");
        let reloading = systemd.hear_state();
        assert!(
            reloading.lines().any(|line| line == "RELOADING=1"),
            "{reloading:?}"
        );
        let told = reloading
            .lines()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
            .expect("systemd tells by it which reload this is");
        let told: u128 = told.parse().unwrap();
        // The uptime is cut to the hundredth.
        let after = monotonic_usec() + 10_000;
        assert!((before..=after).contains(&told), "{told}");
        let ready = systemd.hear_state();
        assert!(ready.lines().any(|line| line == "READY=1"), "{ready:?}");
    }
    daemon.until_logged("the old one stays in force");

    daemon.signal("TERM");
    let stopping = systemd.hear_state();
    assert!(
        stopping.lines().any(|line| line == "STOPPING=1"),
        "{stopping:?}"
    );
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

/// The clock that systemd compares with: what the kernel calls its uptime, in hundredths of a second.
fn monotonic_usec() -> u128 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
    Duration::from_secs_f64(seconds).as_micros()
}

#[test]
fn the_watchdog_is_fed_again_and_again() {
    let mut daemon = Daemon::prepare("");
    let systemd = Systemd::new(&daemon);
    daemon.environment("NOTIFY_SOCKET", systemd.path.to_str().unwrap());
    let limit = Duration::from_secs(1);
    daemon.environment("WATCHDOG_USEC", &limit.as_micros().to_string());
    daemon.spawn();
    while systemd.hear() != "READY=1\n" {}
    for _ in 0..5 {
        assert_eq!(systemd.hear().trim(), "WATCHDOG=1");
    }
    daemon.signal("TERM");
    assert_eq!(systemd.hear_state().trim(), "STOPPING=1");
    assert!(daemon.wait_exit().success());
}

#[test]
fn the_master_key_comes_as_a_credential() {
    let mut daemon = Daemon::prepare("");
    let dir = daemon.dir.path().to_owned();
    let credentials = dir.join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::rename(dir.join("master.key"), credentials.join("master.key")).unwrap();
    // As systemd leaves it: readable by a group of nobody, in a directory of the service's own.
    let path = credentials.join("master.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
    let config = fs::read_to_string(daemon.config()).unwrap();
    let file = format!("file:{}/master.key", dir.display());
    daemon.write_config(&config.replace(&file, "credential:master.key"));

    daemon.spawn();
    assert_eq!(daemon.wait_exit().code(), Some(2));
    daemon.until_logged("the credential master.key was not passed");
    daemon.environment("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap());
    daemon.run();
    let project = daemon.project("alice/tools");
    let package = quick_package(&project, "p", 100, rpm::RpmFormat::V4);
    daemon.settle(&project);
    assert!(Rpmdb::new(&daemon.export("alice#tools@copr.example.org")).is_signed(&package));
}

/// The user that the daemon runs as, and the one to whom the packages belong; neither needs a name.
const DAEMON: u32 = 64_001;
const BUILDER: u32 = 64_002;

/// Gives the daemon what the unit gives it, with what stands in front of it on the command line.
fn as_in_the_unit(daemon: &mut Daemon, unit: &str, before: &[&str]) {
    let list = |name: &str| {
        let found = settings(unit, name);
        let names = found.iter().flat_map(|line| line.split(' ')).map(|name| {
            let name = name.strip_prefix("CAP_").expect(name);
            format!("+{}", name.to_lowercase())
        });
        let names: Vec<_> = names.collect();
        assert!(!names.is_empty(), "{name}");
        format!("-all,{}", names.join(","))
    };
    let (bounding, ambient) = (list("CapabilityBoundingSet"), list("AmbientCapabilities"));
    let dir = daemon.dir.path().to_owned();
    for path in ["", "state", "signdrop.toml", "master.key"] {
        let output = run(Command::new("chown")
            .args(["-R", &format!("{DAEMON}:{DAEMON}")])
            .arg(dir.join(path)));
        assert!(output.status.success(), "{output:?}");
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let mut words: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
    words.extend([
        "setpriv".into(),
        format!("--reuid={DAEMON}"),
        format!("--regid={DAEMON}"),
        "--clear-groups".into(),
        "--no-new-privs".into(),
        format!("--bounding-set={bounding}"),
        format!("--inh-caps={ambient}"),
        format!("--ambient-caps={ambient}"),
    ]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    daemon.wrap_in(&words);
}

/// Gives a tree to the builder, as a build service leaves it.
fn give_to_builder(tree: &Path) {
    let owner = format!("{BUILDER}:{BUILDER}");
    for (program, arguments) in [("chown", ["-R", &owner]), ("chmod", ["-R", "u=rwX,go=rX"])] {
        let output = run(Command::new(program).args(arguments).arg(tree));
        assert!(output.status.success(), "{output:?}");
    }
}

/// Drops packages and modules that are the builder's, and has them signed in place, at their end and as copies.
fn work_on_the_builders_files(daemon: &mut Daemon) {
    let project = daemon.project("alice/tools");
    let stage = tempfile::tempdir_in(daemon.dir.path()).unwrap();
    let in_place = quick_package(stage.path(), "in-place", 10_000, rpm::RpmFormat::V4);
    let linked = quick_package(stage.path(), "linked", 10_000, rpm::RpmFormat::V4);
    let module = stage.path().join("module.ko");
    fs::write(&module, small_module()).unwrap();
    let packed = stage.path().join("module.ko.xz");
    fs::write(&packed, through(&["xz", "-c"], &small_module())).unwrap();
    let elsewhere = stage.path().join("elsewhere");
    fs::hard_link(&linked, &elsewhere).unwrap();
    let acl = run(Command::new("setfacl")
        .args(["-m", "u:12345:r"])
        .arg(&linked));
    assert!(acl.status.success(), "{acl:?}");
    let attribute = run(Command::new("setfattr")
        .args(["-n", "user.origin", "-v", "build 7"])
        .arg(&linked));
    assert!(attribute.status.success(), "{attribute:?}");
    give_to_builder(stage.path());
    give_to_builder(&daemon.drop_dir());
    let original = fs::read(&elsewhere).unwrap();
    let mut dropped = Vec::new();
    for path in [in_place, linked, module, packed] {
        let to = project.join(path.file_name().unwrap());
        fs::rename(&path, &to).unwrap();
        dropped.push(to);
    }
    // One that was there already, in a directory with the sticky bit.
    let sticky = daemon.project("alice/tools/sticky");
    fs::set_permissions(&sticky, fs::Permissions::from_mode(0o1777)).unwrap();
    let path = quick_package(&sticky, "sticky", 10_000, rpm::RpmFormat::V4);
    chown(&path, Some(BUILDER), Some(BUILDER)).unwrap();
    fs::hard_link(&path, stage.path().join("sticky")).unwrap();
    dropped.push(path);
    daemon.settle(&daemon.drop_dir());

    let rpmdb = Rpmdb::new(&daemon.export("alice#tools@copr.example.org"));
    let output = daemon.signdrop(["key", "certificate", "alice#tools@copr.example.org"]);
    let certificate = Certificate::from_pem(&output.stdout).unwrap();
    for path in &dropped {
        match path.extension().unwrap().to_str().unwrap() {
            "ko" => assert!(is_signed(&fs::read(path).unwrap(), &certificate)),
            "xz" => {
                let unpacked = through(&["xz", "-dc"], &fs::read(path).unwrap());
                assert!(is_signed(&unpacked, &certificate));
            }
            _ => assert!(rpmdb.is_signed(path), "{}", rpmdb.check(path).1),
        }
        let now = fs::metadata(path).unwrap();
        assert_eq!((now.uid(), now.gid()), (BUILDER, BUILDER), "{path:?}");
        assert_eq!(
            now.permissions().mode() & 0o7777 & !0o020,
            0o644,
            "{path:?}"
        );
    }
    assert_eq!(fs::read(&elsewhere).unwrap(), original, "the other name");
    let linked = &dropped[1];
    let acl = said(&run(Command::new("getfacl").arg("-pn").arg(linked)));
    assert!(acl.contains("user:12345:r--"), "{acl}");
    let attributes = said(&run(Command::new("getfattr")
        .args(["-d", "--absolute-names"])
        .arg(linked)));
    assert!(
        attributes.contains("user.origin=\"build 7\""),
        "{attributes}"
    );
}

#[test]
fn the_units_rights_are_enough_for_another_users_files() {
    for update in ["auto", "replace"] {
        let mut daemon = Daemon::prepare(&format!("update = \"{update}\""));
        as_in_the_unit(&mut daemon, &unit_text(), &[]);
        give_to_builder(&daemon.drop_dir());
        daemon.run();
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:\t"))
            .unwrap();
        let bits = u64::from_str_radix(effective, 16).unwrap();
        // CAP_CHOWN 0, CAP_DAC_OVERRIDE 1, CAP_FOWNER 3, CAP_LEASE 28 (linux/capability.h).
        assert_eq!(bits, 1 | 1 << 1 | 1 << 3 | 1 << 28, "{status}");
        work_on_the_builders_files(&mut daemon);
    }
}

/// The system calls that a unit's filter lets pass, as this machine's systemd understands its groups.
fn allowed_calls(unit: &str) -> BTreeSet<String> {
    fn expand(word: &str, into: &mut BTreeSet<String>) {
        if !word.starts_with('@') {
            into.insert(word.to_owned());
            return;
        }
        let output =
            run(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", word]));
        assert!(output.status.success(), "{word}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().skip(1).map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            expand(line, into);
        }
    }
    let mut allowed = BTreeSet::new();
    for line in settings(unit, "SystemCallFilter") {
        let mut calls = BTreeSet::new();
        let words = line.trim_start_matches('~');
        words.split(' ').for_each(|word| expand(word, &mut calls));
        if line.starts_with('~') {
            allowed.retain(|call| !calls.contains(call));
        } else {
            allowed.extend(calls);
        }
    }
    // systemd adds what every program needs to start.
    expand("@default", &mut allowed);
    allowed
}

/// The daemon's system calls while it runs as in a unit, on files that are the builder's, and does a work.
fn calls_of(daemon: &mut Daemon, unit: &str, work: impl FnOnce(&mut Daemon)) -> BTreeSet<String> {
    let trace = daemon.dir.path().join("trace");
    let before = [
        "strace",
        // The daemon stays the test's child, and strace is its grandchild.
        "-D",
        "-f",
        "-q",
        "--signal=none",
        "-o",
        trace.to_str().unwrap(),
    ];
    let systemd = Systemd::new(daemon);
    as_in_the_unit(daemon, unit, &before);
    give_to_builder(&daemon.drop_dir());
    daemon.environment("NOTIFY_SOCKET", systemd.path.to_str().unwrap());
    daemon.run();
    work(daemon);
    let pid = daemon.pid();
    assert!(daemon.stop().success(), "{}", daemon.log());
    let ended = |text: &str| {
        text.lines().any(|line| {
            line.split_whitespace().next() == Some(&*pid.to_string())
                && line.ends_with("+++ exited with 0 +++")
        })
    };
    let deadline = Instant::now() + PATIENCE;
    while !ended(&fs::read_to_string(&trace).unwrap()) {
        assert!(Instant::now() < deadline, "strace has not ended");
        std::thread::sleep(Duration::from_millis(20));
    }

    let text = fs::read_to_string(&trace).unwrap();
    // What comes before the daemon's own program is setpriv's.
    let start = text.rfind("execve(").expect("the daemon's start");
    let mut made = BTreeSet::new();
    for line in text[start..].lines() {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let Some((name, _)) = call.split_once('(') else {
            continue;
        };
        if !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            made.insert(name.to_owned());
        }
        // MemoryDenyWriteExecute.
        assert!(!line.contains("PROT_WRITE|PROT_EXEC"), "{line}");
        // RestrictAddressFamilies, without TCP.
        if name == "socket" {
            assert!(call.starts_with("socket(AF_UNIX"), "{line}");
        }
    }
    made
}

/// Checks calls against a unit's filter; those of `tried` have to be among them.
fn check_calls(made: &BTreeSet<String>, unit: &str, tried: &[&str]) {
    for used in tried {
        assert!(made.contains(*used), "{used} was not even tried: {made:?}");
    }
    let allowed = allowed_calls(unit);
    let forbidden: Vec<&String> = made.difference(&allowed).collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
}

#[test]
fn the_daemon_makes_no_system_call_that_the_unit_forbids() {
    let unit = unit_text();
    let made = calls_of(&mut Daemon::prepare(""), &unit, |daemon| {
        work_on_the_builders_files(daemon);
        for (method, path, body) in [
            (
                "POST",
                "/v1/keys",
                Some(r#"{"identity": "a@example.org", "algorithm": "rsa2048"}"#),
            ),
            (
                "POST",
                "/v1/keys",
                Some(r#"{"identity": "b@example.org", "algorithm": "ed25519"}"#),
            ),
            ("DELETE", "/v1/keys/a@example.org", None),
            ("GET", "/v1/status", None),
            ("GET", "/metrics", None),
        ] {
            assert!(daemon.request(method, path, body).0 < 300, "{path}");
        }
        daemon.signal("HUP");
        daemon.until_logged("configuration reloaded");
    });
    let tried = [
        "openat2",
        "fchown",
        "fsetxattr",
        "inotify_add_watch",
        "fdatasync",
    ];
    check_calls(&made, &unit, &tried);
}

/// What writers and readers do in a mount, each once and as the builder; `$1` is an unsigned package.
const WRITERS: &str = r#"
cp "$1" tool.rpm
cp "$1" part && mv part other.rpm
cp "$1" tool.rpm
mkdir dir
echo text > dir/text
echo more >> dir/text
chmod 600 dir/text
touch -d 2001-02-03 dir/text
truncate -s 1M dir/text
fallocate -l 2M dir/room
fallocate -p -o 4096 -l 4096 dir/room
cp --sparse=always dir/room dir/sparse
cp --reflink=auto dir/room dir/copy
ln dir/text dir/linked
ln -s text dir/symbolic
readlink dir/symbolic
mkfifo dir/fifo
setfattr -n user.origin -v 'build 7' dir/text
getfattr -d dir/text
setfattr -x user.origin dir/text
setfacl -m u:12345:r dir/text
getfacl dir/text
flock dir/text true
sync dir/text
stat -f .
find . -ls
rm -r dir
rm other.rpm
"#;

#[test]
fn a_mount_needs_no_right_and_no_system_call_but_its_drop_ins() {
    let unit = text_with(&["mount.conf.example"]);
    let mut mounted = MountDaemon::prepare("");
    let (at, below) = (mounted.at.clone(), mounted.below.clone());
    let project = at.join("alice/tools");
    fs::create_dir_all(below.join("alice/tools")).unwrap();
    let made = calls_of(&mut mounted.daemon, &unit, |daemon| {
        for above in [&at, &at.join("alice")] {
            chown(above, Some(0), Some(0)).unwrap();
        }
        chown(&project, Some(BUILDER), Some(BUILDER)).unwrap();
        let stage = tempfile::tempdir_in(daemon.dir.path()).unwrap();
        let package = quick_package(stage.path(), "tool", 10_000, rpm::RpmFormat::V4);
        give_to_builder(stage.path());
        let id = BUILDER.to_string();
        let output = run(Command::new("setpriv")
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .args(["sh", "-e", "-c", WRITERS, "sh"])
            .arg(&package)
            .current_dir(&project));
        assert!(output.status.success(), "{output:?}");
        let path = project.join("tool.rpm");
        let metadata = fs::metadata(&path).unwrap();
        let owner = (metadata.uid(), metadata.gid());
        assert_eq!(owner, (BUILDER, BUILDER), "what a writer makes is its own");
        let rpmdb = Rpmdb::new(&daemon.export("alice#tools@copr.example.org"));
        assert!(rpmdb.is_signed(&path), "{}", rpmdb.check(&path).1);
        let status = daemon.signdrop(["status"]);
        let reads = format!("reads are {}", reading::of_this_kernel());
        assert!(said(&status).contains(&reads), "{status:?}");
    });
    let tried = [
        "mount",
        "umount2",
        "open_by_handle_at",
        "name_to_handle_at",
        "fallocate",
        "linkat",
        "symlinkat",
        "fsync",
    ];
    check_calls(&made, &unit, &tried);
}
