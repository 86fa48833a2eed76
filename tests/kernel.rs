//! Real kernels that enforce signatures load what the daemon has signed, and refuse all else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;
#[path = "kernel/machine.rs"]
mod machine;

use std::{fs, path::PathBuf, process::Command};

use common::{
    TestKey,
    daemon::Daemon,
    modules::{MARKER, SignFile, bare, signed_by_openssl, through},
    run,
};
use machine::{Machine, Refusal, Verdict};
use openssl::cms::CMSOptions;
use signdrop::{
    key::{Algorithm, x509::Certificate},
    keystore::{Keystore, MasterKey},
    store::Store,
};

const ALICE: &str = "alice#tools@copr.example.org";
const DIGESTS: [&str; 3] = ["sha256", "sha384", "sha512"];

/// A daemon whose projects have module keys of the algorithm, and whose directories name the digest.
fn daemon(algorithm: &str) -> Daemon {
    let rules = DIGESTS.map(|digest| {
        format!("[[drop.rule]]\nmatch = \"**/{digest}/**\"\ndigest = \"{digest}\"\n")
    });
    let mut daemon = Daemon::prepare(&rules.concat());
    let config = fs::read_to_string(daemon.config()).unwrap();
    let wanted = format!("[keys]\nmodule_algorithm = \"{algorithm}\"");
    daemon.write_config(&config.replace("[keys]", &wanted));
    daemon.run();
    daemon
}

/// A daemon whose projects sign modules with their OpenPGP keys.
fn of_openpgp() -> Daemon {
    let mut daemon = Daemon::prepare("");
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&config.replace("[keys]", "[keys]\ncertificate = \"openpgp\""));
    daemon.run();
    daemon
}

/// A certificate of Alice's OpenPGP key that is not the daemon's own. Stops the daemon, since its store is needed for it.
fn another_certificate(mut daemon: Daemon) -> Certificate {
    let own = certificate(&daemon, ALICE);
    daemon.stop();
    let state_dir = daemon.dir.path().join("state");
    let master = fs::read(daemon.dir.path().join("master.key")).unwrap();
    let store = Store::open(&state_dir.join("store")).unwrap();
    let keystore = Keystore::open(&store, &state_dir, MasterKey::parse(&master).unwrap()).unwrap();
    let entry = keystore.find(&ALICE.parse().unwrap()).unwrap().unwrap();
    let another = common::certificate(&keystore.unlock(&entry).unwrap());
    assert!(another.has_key_of(&own) && another.serial() != own.serial());
    another
}

fn certificate(daemon: &Daemon, identity: &str) -> Certificate {
    let output = daemon.signdrop(["key", "certificate", identity]);
    assert!(output.status.success(), "{output:?}");
    Certificate::from_pem(&output.stdout).unwrap()
}

/// Drops a module below a project of the daemon's and answers what became of it.
fn dropped(daemon: &Daemon, project: &str, name: &str, module: &[u8]) -> Vec<u8> {
    let path = daemon.project(project).join(name);
    fs::write(&path, module).unwrap();
    daemon.settle(&path);
    let after = fs::read(path).unwrap();
    assert!(after != module, "{project}/{name} is as it was");
    after
}

#[test]
fn linux_6_1_loads_what_is_signed_with_rsa_and_refuses_all_else() {
    tries("bookworm", |algorithm| {
        if algorithm.starts_with("rsa") {
            Verdict::Loaded
        } else {
            // Debian builds this kernel without ECDSA, so that it does not even take the certificate.
            Verdict::Refused(Refusal::KeyRejected)
        }
    });
}

#[test]
fn linux_6_12_loads_what_is_signed_with_rsa_or_ecdsa_and_refuses_all_else() {
    tries("trixie", |_| Verdict::Loaded);
}

#[test]
fn verify_says_of_odd_signatures_what_the_kernel_says() {
    let machine = Machine::new("trixie");
    let own = machine.own_module("dummy");
    let module = bare(&own);
    let (key, stranger) = (
        TestKey::new(Algorithm::Rsa2048),
        TestKey::new(Algorithm::Rsa2048),
    );
    let certificate = key.x509.as_ref().unwrap();
    let (sign_file, strangers) = (SignFile::new(&key), SignFile::new(&stranger));
    let signed = sign_file.sign(module, "sha256");
    let padded = |at_end: usize| {
        let mut bytes = signed.clone();
        let at = bytes.len() - at_end;
        bytes[at] = 1;
        bytes
    };
    let by_openssl = |options: CMSOptions| signed_by_openssl(module, &key, options);
    let odd = [
        ("sha512", sign_file.sign(module, "sha512")),
        (
            "by-key-identifier",
            sign_file.sign_by_key_identifier(module, "sha256"),
        ),
        ("with-certificate", by_openssl(CMSOptions::NOATTR)),
        ("with-attributes", by_openssl(CMSOptions::CMS_NOCERTS)),
        (
            "over-a-strangers",
            sign_file.sign(&strangers.sign(module, "sha256"), "sha256"),
        ),
        ("below-a-strangers", strangers.sign(&signed, "sha256")),
        ("padding-1", padded(MARKER.len() + 5)),
        ("padding-3", padded(MARKER.len() + 7)),
        ("algorithm", padded(MARKER.len() + 12)),
        ("garbage", [&signed[..], b"x"].concat()),
        ("signed", signed.clone()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes));
    let verdicts = machine.tries(&[certificate], &odd);
    let dir = tempfile::tempdir().unwrap();
    let ring = dir.path().join("certificate.der");
    fs::write(&ring, certificate.as_der()).unwrap();
    let mut loaded = 0;
    for (name, bytes) in &odd {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let output = run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
            .args(["verify", "--keyring"])
            .args([&ring, &path]));
        let is_loaded = verdicts[name] == Verdict::Loaded;
        assert_eq!(
            output.status.success(),
            is_loaded,
            "{name}: {:?}, {output:?}",
            verdicts[name]
        );
        loaded += usize::from(is_loaded);
    }
    assert_eq!(loaded, 5, "{verdicts:?}");
}

/// Has a kernel run the mount's own tests.
fn mounts(suite: &'static str) {
    let output = run(Command::new(env!("CARGO"))
        .args(["test", "--locked", "--package", "signdrop-fuse", "--tests"])
        .args(["--no-run", "--message-format", "json"]));
    assert!(output.status.success(), "{output:?}");
    let messages = String::from_utf8(output.stdout).unwrap();
    let mut programs: Vec<PathBuf> = messages
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|message| message["target"]["kind"][0] == "test")
        .filter_map(|message| Some(message["executable"].as_str()?.into()))
        .collect();
    let suites = fs::read_dir("fuse/tests").unwrap().count() - 1;
    assert_eq!(programs.len(), suites, "{programs:?}");
    // The machine has no Python.
    let skipped = "--skip random:: --skip a_page_that_is_read";
    let script: Vec<String> = programs
        .iter()
        .map(|program| format!("{} --test-threads 1 {skipped}", program.display()))
        .collect();
    let script = format!(
        "mkfs.ext4 -q -i 4096 /dev/vda\nmount -t ext4 /dev/vda /tmp\n{}\n",
        script.join("\n")
    );
    let helpers = "/bin/cat /bin/sleep /bin/mv /bin/mount /bin/umount /bin/grep /sbin/mkfs.ext4 /usr/bin/awk /usr/bin/unshare /usr/bin/setfacl /usr/bin/getfacl";
    programs.extend(helpers.split(' ').map(PathBuf::from));
    let said = Machine::new(suite).runs(&["fuse"], &programs, &script);
    assert_eq!(said.matches("test result: ok").count(), suites, "{said}");
}

#[test]
fn linux_6_1_without_passing_has_the_same_mount() {
    mounts("bookworm");
}

#[test]
fn linux_6_12_has_the_same_mount() {
    mounts("trixie");
}

fn tries(suite: &'static str, wanted: impl Fn(&str) -> Verdict) {
    let machine = Machine::new(suite);
    let own = machine.own_module("dummy");
    let module = bare(&own);
    let mut known = Vec::new();
    let mut modules: Vec<(String, Vec<u8>)> = Vec::new();
    let mut expected = Vec::new();
    let mut expect = |name: String, module: Vec<u8>, verdict: Verdict| {
        expected.push((name.clone(), verdict));
        modules.push((name, module));
    };
    let rejected = Verdict::Refused(Refusal::KeyRejected);

    for algorithm in ["rsa2048", "rsa3072", "rsa4096", "nistp256", "nistp384"] {
        let daemon = daemon(algorithm);
        for digest in DIGESTS {
            let project = format!("alice/tools/{digest}");
            let signed = dropped(&daemon, &project, "dummy.ko", module);
            expect(format!("{algorithm}-{digest}"), signed, wanted(algorithm));
        }
        // The foreign signature gives way to ours.
        let signed = dropped(&daemon, "alice/tools", "foreign.ko", &own);
        expect(format!("{algorithm}-foreign"), signed, wanted(algorithm));
        for (pack, unpack, end) in [
            (&["gzip", "-c"][..], &["gzip", "-dc"][..], "gz"),
            (&["xz", "-c"], &["xz", "-dc"], "xz"),
            (&["zstd", "-c"], &["zstd", "-dc"], "zst"),
        ] {
            let name = format!("dummy.ko.{end}");
            let signed = dropped(&daemon, "alice/tools", &name, &through(pack, module));
            let unpacked = through(unpack, &signed);
            expect(format!("{algorithm}-{end}"), unpacked, wanted(algorithm));
            // This kernel unpacks xz by itself.
            if (suite, end) == ("trixie", "xz") {
                expect(format!("{algorithm}.packed"), signed, wanted(algorithm));
            }
        }
        known.push(certificate(&daemon, ALICE));

        let signed = dropped(&daemon, "alice/tools", "more.ko", module);
        let stranger = dropped(&daemon, "bob/other", "dummy.ko", module);
        expect(format!("{algorithm}-stranger"), stranger, rejected);
        for (what, at) in [("content", 0x400), ("signature", module.len() + 200)] {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            let name = format!("{algorithm}-changed-{what}");
            // A byte of the signature may also break its structure.
            expect(name, changed, rejected);
        }
        expect(
            format!("{algorithm}-garbage"),
            [&signed, &b"\n"[..]].concat(),
            rejected,
        );
    }

    // An installation that comes from obs-sign: kernels know another certificate of the OpenPGP key than the daemon makes.
    let daemon = of_openpgp();
    let signed = dropped(&daemon, "alice/tools", "dummy.ko", module);
    expect("openpgp".into(), signed, Verdict::Loaded);
    known.push(another_certificate(daemon));

    let verdicts = machine.tries(&known.iter().collect::<Vec<_>>(), &modules);
    let wrong: Vec<_> = expected
        .iter()
        .filter(|(name, verdict)| verdicts[name] != *verdict)
        .map(|(name, verdict)| format!("{name}: {:?}, not {verdict:?}", verdicts[name]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
