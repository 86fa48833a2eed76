//! Kernel modules on their way through the daemon: dropped, signed, unsigned, refused; their keys and certificates.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use common::{
    Rpmdb,
    daemon::{Daemon, Mounted},
    files_below,
    modules::{MARKER, bare, is_signed, module_named, modules_of, small_module, split, through},
    quick_package, run,
};
use signdrop::{
    key::x509::Certificate,
    keystore::{Keystore, MasterKey},
    store::Store,
};

const ALICE: &str = "alice#tools@copr.example.org";
const ALICE_PATH: &str = "/v1/keys/alice%23tools%40copr.example.org";

/// A daemon with lines of its own in the configuration's section on keys.
fn with_keys(lines: &str, drop_options: &str) -> Daemon {
    let mut daemon = Daemon::prepare(drop_options);
    configure(&daemon, lines);
    daemon.run();
    daemon
}

fn configure(daemon: &Daemon, lines: &str) {
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&config.replace("[keys]", &format!("[keys]\n{lines}")));
}

/// Small module keys, for tests that are about something else.
fn fast(drop_options: &str) -> Daemon {
    with_keys("module_algorithm = \"nistp256\"", drop_options)
}

fn certificate(daemon: &Daemon, identity: &str) -> Certificate {
    let output = daemon.signdrop(["key", "certificate", "--der", identity]);
    assert!(output.status.success(), "{output:?}");
    Certificate::from_der(&output.stdout).unwrap()
}

/// What OpenSSL says of a certificate.
fn described(certificate: &Certificate, options: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("certificate.der");
    fs::write(&path, certificate.as_der()).unwrap();
    let output = run(Command::new("openssl")
        .args(["x509", "-inform", "DER", "-noout", "-nameopt", "RFC2253"])
        .args(options)
        .arg("-in")
        .arg(path));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn drop_module(daemon: &Daemon, path: &str, module: &[u8]) -> PathBuf {
    let path = daemon.drop_dir().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, module).unwrap();
    path
}

#[test]
fn a_module_and_a_package_of_one_project_are_signed_each_with_its_key() {
    let daemon = fast("");
    let module = drop_module(&daemon, "alice/tools/dummy.ko", &small_module());
    let project = daemon.project("alice/tools");
    let package = quick_package(&project, "p", 100, rpm::RpmFormat::V4);
    daemon.settle(&project);
    let certificate = certificate(&daemon, ALICE);
    assert!(is_signed(&fs::read(&module).unwrap(), &certificate));
    assert!(Rpmdb::new(&daemon.export(ALICE)).is_signed(&package));
    let output = daemon.signdrop(["key", "list", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text.lines().count(),
        1,
        "the module key is no key of its own: {text}"
    );
}

#[test]
fn all_modules_of_a_kernel_are_signed_with_one_certificate_however_they_come() {
    let daemon = fast("");
    let staging = daemon.dir.path().join("staging");
    fs::create_dir(&staging).unwrap();
    let (mut plain, mut packed) = (0, 0);
    for path in modules_of("bookworm").iter().step_by(10) {
        let bytes = fs::read(path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        fs::write(staging.join(name), bare(&bytes)).unwrap();
        plain += 1;
    }
    for path in modules_of("trixie").iter().step_by(60) {
        fs::copy(path, staging.join(path.file_name().unwrap())).unwrap();
        packed += 1;
    }
    let project = daemon.project("alice/tools");
    fs::rename(&staging, project.join("modules")).unwrap();
    daemon.settle(&project);
    let certificate = certificate(&daemon, ALICE);
    let mut signed = 0;
    for entry in fs::read_dir(project.join("modules")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let module = match path.extension().unwrap().to_str().unwrap() {
            "xz" => through(&["xz", "-dc"], &bytes),
            _ => bytes,
        };
        assert!(is_signed(&module, &certificate), "{}", path.display());
        assert!(split(split(&module).unwrap().0).is_none(), "one signature");
        signed += 1;
    }
    assert_eq!(signed, plain + packed);
}

#[test]
fn a_signed_module_is_left_alone_and_causes_no_work() {
    let daemon = fast("");
    let path = drop_module(&daemon, "alice/tools/dummy.ko", &small_module());
    let packed = through(&["xz", "-c"], &small_module());
    let packed = drop_module(&daemon, "alice/tools/dummy.ko.xz", &packed);
    daemon.settle(&daemon.drop_dir());
    for path in [path, packed] {
        let before = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap());
        // Opened for writing and closed, it arrives again.
        drop(fs::OpenOptions::new().append(true).open(&path).unwrap());
        let again = path.with_file_name(format!(
            "again-{}",
            path.file_name().unwrap().to_str().unwrap()
        ));
        fs::copy(&path, &again).unwrap();
        daemon.settle(&daemon.drop_dir());
        let after = fs::metadata(&path).unwrap();
        assert!(fs::read(&path).unwrap() == before.0);
        assert!(
            fs::read(&again).unwrap() == before.0,
            "the copy is unchanged too"
        );
        assert_eq!(after.ino(), before.1.ino());
        assert_eq!(after.modified().unwrap(), before.1.modified().unwrap());
    }
    let counts = &daemon.status()["drops"][0]["counts"];
    assert_eq!(
        (&counts["signed"], &counts["unchanged"]),
        (&2.into(), &2.into())
    );
}

#[test]
fn unsigning_gives_the_original_modules_back() {
    let daemon = Daemon::start("action = \"unsign\"");
    let path = modules_of("bookworm").swap_remove(3);
    let original = fs::read(path).unwrap();
    assert!(split(&original).is_some(), "Debian has signed it");
    let plain = drop_module(&daemon, "alice/tools/one.ko", &original);
    let packed = through(&["zstd", "-c"], &original);
    let packed = drop_module(&daemon, "alice/tools/one.ko.zst", &packed);
    let unsigned = drop_module(&daemon, "alice/tools/two.ko", bare(&original));
    daemon.settle(&daemon.drop_dir());
    assert!(fs::read(plain).unwrap() == bare(&original));
    assert!(through(&["zstd", "-dc"], &fs::read(packed).unwrap()) == bare(&original));
    assert!(fs::read(unsigned).unwrap() == bare(&original));
    let output = daemon.signdrop(["key", "list"]);
    assert!(output.stdout.is_empty(), "no key is needed for it");
}

#[test]
fn what_only_has_a_modules_name_is_ignored_and_what_is_broken_fails() {
    let daemon = fast("");
    let module = small_module();
    let translation = b"msgid \"\"\nmsgstr \"\"\n";
    let mut executable = module.clone();
    executable[16] = 2;
    let ignored = [
        ("kde.ko", translation.to_vec(), "it is no ELF file"),
        ("program.ko", executable, "it is an executable"),
        (
            "text.ko.xz",
            through(&["xz", "-c"], translation),
            "it is no ELF file",
        ),
    ];
    let broken = [
        (
            "half.ko",
            module[..9000].to_vec(),
            "truncated in the section table",
        ),
        ("empty.ko", Vec::new(), "truncated in the ELF header"),
        (
            "behind.ko",
            [&module, MARKER].concat(),
            "belong to no signature",
        ),
        (
            "half.ko.gz",
            through(&["gzip", "-c"], &module)[..2000].to_vec(),
            "cannot unpack the gzip file",
        ),
    ];
    for (name, bytes, _) in ignored.iter().chain(&broken) {
        drop_module(&daemon, &format!("alice/tools/{name}"), bytes);
    }
    // What it is counts, not what it is called.
    let misnamed = [
        ("gzip.ko.xz", "gzip"),
        ("xz.ko", "xz"),
        ("zstd.ko.gz", "zstd"),
    ]
    .map(|(name, packer)| {
        let packed = through(&[packer, "-c"], &module);
        (
            drop_module(&daemon, &format!("alice/tools/{name}"), &packed),
            packer,
        )
    });
    let (status, said) = daemon.wait(&daemon.drop_dir());
    assert_eq!(status, 1);
    for (name, bytes, wanted) in &broken {
        let path = daemon.drop_dir().join("alice/tools").join(name);
        assert!(fs::read(&path).unwrap() == *bytes, "{name} was changed");
        let line = said
            .lines()
            .find(|line| line.contains(&format!("{name}:")))
            .unwrap_or_else(|| panic!("{name}: {said}"));
        assert!(line.contains(wanted), "{line}");
    }
    for (name, bytes, wanted) in &ignored {
        let path = daemon.drop_dir().join("alice/tools").join(name);
        assert!(fs::read(&path).unwrap() == *bytes, "{name} was changed");
        assert!(!said.contains(name), "{said}");
        assert!(daemon.log().contains(wanted), "{}", daemon.log());
    }
    let certificate = certificate(&daemon, ALICE);
    for (path, packer) in misnamed {
        let unpacked = through(&[packer, "-dc"], &fs::read(path).unwrap());
        assert!(is_signed(&unpacked, &certificate), "{packer}");
    }
    let counts = &daemon.status()["drops"][0]["counts"];
    assert_eq!(counts["ignored"], ignored.len());
    assert_eq!(counts["failed"], broken.len());
}

#[test]
fn what_only_has_a_modules_name_is_ignored_where_nobody_has_made_a_key_either() {
    let daemon = fast("create_keys = false");
    let module = drop_module(&daemon, "alice/tools/dummy.ko", &small_module());
    drop_module(&daemon, "alice/tools/kde.ko", b"msgid");
    let (status, said) = daemon.wait(&daemon.drop_dir());
    assert_eq!(status, 1);
    assert!(said.contains("there is no key for alice#tools"), "{said}");
    assert!(!said.contains("kde.ko"), "{said}");
    assert!(fs::read(&module).unwrap() == small_module());
}

#[test]
fn the_limit_of_unpacking_is_the_configurations() {
    let daemon = fast("unpack_limit_mib = 1");
    let dir = tempfile::tempdir().unwrap();
    let large = padded(dir.path(), 2 << 20);
    let packed = through(&["xz", "-0c"], &fs::read(&large).unwrap());
    let path = drop_module(&daemon, "alice/tools/large.ko.xz", &packed);
    let (status, said) = daemon.wait(&path);
    assert_eq!(status, 1);
    assert!(
        said.contains("unpacked, it is larger than the 1 MiB that unpack_limit_mib allows"),
        "{said}"
    );
    assert!(fs::read(&path).unwrap() == packed);
}

/// A module with a section of `len` bytes more.
fn padded(dir: &Path, len: u64) -> PathBuf {
    let (module, padding) = (dir.join("large.ko"), dir.join("padding"));
    fs::write(&module, small_module()).unwrap();
    let file = fs::File::create(&padding).unwrap();
    file.set_len(len).unwrap();
    let output = run(Command::new("objcopy")
        .arg(format!("--add-section=.padding={}", padding.display()))
        .arg(&module));
    assert!(output.status.success(), "{output:?}");
    module
}

#[test]
fn memory_does_not_grow_with_a_module() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let daemon = fast("");
    let large = padded(dir.path(), 400 << 20);
    let packed = dir.path().join("large.ko.zst");
    let output = run(Command::new("zstd")
        .arg("-q1")
        .arg(&large)
        .arg("-o")
        .arg(&packed));
    assert!(output.status.success(), "{output:?}");
    let project = daemon.project("alice/tools");
    for path in [&large, &packed] {
        fs::copy(path, project.join(path.file_name().unwrap())).unwrap();
    }
    daemon.settle(&project);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let peak: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    assert!(peak < 64 << 10, "{peak} kB");
    let ring = dir.path().join("certificate.der");
    fs::write(&ring, certificate(&daemon, ALICE).as_der()).unwrap();
    let output = daemon.signdrop([
        "verify".as_ref(),
        "--keyring".as_ref(),
        ring.as_os_str(),
        project.as_os_str(),
    ]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_full_disk_leaves_a_module_as_it_was_and_it_is_signed_once_there_is_room() {
    let filesystem = Mounted::new("ext4", 16);
    let mut daemon = Daemon::prepare("");
    let (drop, root) = (daemon.drop_dir(), filesystem.path().join("drop"));
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&config.replace(drop.to_str().unwrap(), root.to_str().unwrap()));
    configure(&daemon, "module_algorithm = \"nistp256\"");
    // Its last block has no room for a signature.
    let mut module = small_module();
    let room = 4096 - module.len() % 4096;
    assert!(room > 600);
    let dir = tempfile::tempdir().unwrap();
    module = fs::read(padded(dir.path(), room as u64 - 300)).unwrap();
    let path = root.join("alice/tools/dummy.ko");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, &module).unwrap();
    let filler = filesystem.path().join("filler");
    let output = run(Command::new("dd")
        .args(["if=/dev/zero", "bs=4096", "status=none"])
        .arg(format!("of={}", filler.display())));
    assert!(!output.status.success(), "the disk is not full");
    daemon.run();
    let (status, said) = daemon.wait(&root);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(fs::read(&path).unwrap() == module, "half a signature stays");
    fs::remove_file(filler).unwrap();
    daemon.settle(&root);
    assert!(is_signed(
        &fs::read(&path).unwrap(),
        &certificate(&daemon, ALICE)
    ));
}

#[test]
fn a_certificate_is_as_the_kernels_template_makes_it() {
    let daemon = Daemon::start("");
    daemon.signdrop(["key", "generate", ALICE]);
    let certificate = certificate(&daemon, ALICE);
    let text = described(&certificate, &["-text", "-serial", "-subject", "-issuer"]);
    for wanted in [
        "Version: 3",
        "Public-Key: (4096 bit)",
        "Signature Algorithm: sha256WithRSAEncryption",
        "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
        "X509v3 Key Usage: \n                Digital Signature\n",
        "X509v3 Extended Key Usage: \n                Code Signing\n",
        "X509v3 Subject Key Identifier:",
        "X509v3 Authority Key Identifier:",
        "Not After : Dec 31 23:59:59 9999 GMT",
        "subject=CN=alice#tools@copr.example.org\n",
        "issuer=CN=alice#tools@copr.example.org\n",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let serial = certificate.serial();
    assert!(text.contains(&format!("serial={serial}\n")), "{text}");
    assert_eq!(serial.len(), 40, "twenty bytes");
    assert_eq!(
        text.matches("X509v3 ").count(),
        6,
        "five extensions below one heading: {text}"
    );
    // Its own key has signed it.
    let dir = tempfile::tempdir().unwrap();
    let pem = dir.path().join("certificate.pem");
    fs::write(&pem, certificate.to_pem().unwrap()).unwrap();
    let output = run(Command::new("openssl")
        .args(["verify", "-check_ss_sig", "-CAfile"])
        .args([&pem, &pem]));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_certificate_follows_the_configuration() {
    let daemon = with_keys(
        "module_algorithm = \"nistp384\"\ncertificate_subject = \"CN=modules of {identity},O=Example\"\ncertificate_expires = \"5y\"",
        "",
    );
    let name = "x".repeat(60);
    for identity in [
        ALICE,
        &format!("{name}1@example.org"),
        &format!("{name}2@example.org"),
    ] {
        daemon.signdrop(["key", "generate", identity]);
    }
    let text = described(&certificate(&daemon, ALICE), &["-text", "-subject"]);
    assert!(text.contains("NIST CURVE: P-384"), "{text}");
    assert!(
        text.contains("subject=CN=modules of alice#tools@copr.example.org,O=Example"),
        "{text}"
    );
    let years = text
        .lines()
        .find(|line| line.contains("Not After"))
        .unwrap();
    assert!(years.contains("203"), "{years}");
    let subjects: BTreeSet<_> = ["1", "2"]
        .map(|end| certificate(&daemon, &format!("{name}{end}@example.org")).subject())
        .into();
    assert_eq!(
        subjects.len(),
        2,
        "long names are cut to the same: {subjects:?}"
    );
    for subject in subjects {
        let name = subject
            .split(',')
            .next()
            .unwrap()
            .strip_prefix("CN=")
            .unwrap();
        assert_eq!(name.len(), 64, "{subject}");
    }
}

#[test]
fn a_certificate_may_be_of_the_openpgp_key() {
    let mut daemon = with_keys("certificate = \"openpgp\"", "");
    let path = drop_module(&daemon, "alice/tools/dummy.ko", &small_module());
    daemon.settle(&path);
    let before = certificate(&daemon, ALICE);
    assert!(is_signed(&fs::read(&path).unwrap(), &before));
    // The modulus of both, as two libraries see it.
    use sequoia_openpgp::{Cert, crypto::mpi::PublicKey, parse::Parse as _};
    let openpgp = Cert::from_bytes(daemon.export(ALICE).as_bytes()).unwrap();
    let PublicKey::RSA { n, .. } = openpgp.primary_key().key().mpis() else {
        panic!("no RSA key");
    };
    assert_eq!(
        described(&before, &["-modulus"]),
        format!("Modulus={}\n", hex::encode_upper(n.value()))
    );

    // Keys that no kernel takes fail, and say so; what was made stays, whatever the configuration says later.
    daemon.signdrop([
        "key",
        "generate",
        "--algorithm",
        "ed25519",
        "bob#tools@copr.example.org",
    ]);
    let refused = drop_module(&daemon, "bob/tools/dummy.ko", &small_module());
    let (status, said) = daemon.wait(&refused);
    assert_eq!(status, 1);
    assert!(
        said.contains("no kernel takes modules that are signed with ed25519"),
        "{said}"
    );
    assert!(fs::read(&refused).unwrap() == small_module());
    let (status, body) = daemon.request(
        "GET",
        "/v1/keys/bob%23tools%40copr.example.org/certificate.pem",
        None,
    );
    assert_eq!(status, 409, "{body}");
    daemon.stop();
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&config.replace("certificate = \"openpgp\"", ""));
    daemon.run();
    assert_eq!(certificate(&daemon, ALICE).as_der(), before.as_der());
    // With the configuration mended, what failed is signed.
    daemon.settle(&refused);
    let bob = certificate(&daemon, "bob#tools@copr.example.org");
    assert!(is_signed(&fs::read(&refused).unwrap(), &bob));
}

#[test]
fn keys_and_certificates_that_no_kernel_takes_are_refused_in_the_configuration() {
    for (lines, wanted) in [
        (
            "module_algorithm = \"ed25519\"",
            "no kernel takes modules that are signed with ed25519",
        ),
        ("module_algorithm = \"dsa\"", "module_algorithm"),
        ("certificate = \"gpg\"", "certificate"),
        (
            "certificate = \"openpgp\"\nalgorithm = \"ed25519\"",
            "needs RSA keys, and algorithm is ed25519",
        ),
        (
            "certificate_subject = \"CN=all\"",
            "it has to hold {identity} once",
        ),
        (
            "certificate_subject = \"{identity}\"",
            "it is not a distinguished name",
        ),
        ("certificate_expires = \"soon\"", "certificate_expires"),
    ] {
        let daemon = Daemon::prepare("");
        let config = fs::read_to_string(daemon.config()).unwrap();
        let config = match lines.contains("\nalgorithm") {
            true => config.replace("algorithm = \"rsa2048\"\n", ""),
            false => config,
        };
        daemon.write_config(&config);
        configure(&daemon, lines);
        let output =
            daemon.signdrop(["check".as_ref(), "-c".as_ref(), daemon.config().as_os_str()]);
        assert_eq!(output.status.code(), Some(2), "{lines}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(wanted), "{lines}: {said}");
    }
    let daemon = Daemon::prepare("");
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&(config + "unpack_limit_mib = 0\n"));
    let output = daemon.signdrop(["check".as_ref(), "-c".as_ref(), daemon.config().as_os_str()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_limit_that_is_raised_lets_what_failed_by_it_be_signed() {
    let daemon = fast("unpack_limit_mib = 1");
    let dir = tempfile::tempdir().unwrap();
    let large = fs::read(padded(dir.path(), 2 << 20)).unwrap();
    let path = drop_module(
        &daemon,
        "alice/tools/large.ko.xz",
        &through(&["xz", "-0c"], &large),
    );
    assert_eq!(daemon.wait(&path).0, 1);
    let config = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(&config.replace("unpack_limit_mib = 1", "unpack_limit_mib = 4"));
    daemon.signal("HUP");
    daemon.until_logged("reloaded");
    daemon.settle(&path);
    let unpacked = through(&["xz", "-dc"], &fs::read(&path).unwrap());
    assert!(is_signed(&unpacked, &certificate(&daemon, ALICE)));

    // The commands have the same limit unless they are told another.
    let verify = |arguments: &[&str]| {
        let ring = dir.path().join("certificate.pem");
        fs::write(&ring, certificate(&daemon, ALICE).to_pem().unwrap()).unwrap();
        let output = run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
            .arg("verify")
            .args(arguments)
            .arg("--keyring")
            .args([&ring, &path]));
        output.status.code().unwrap()
    };
    assert_eq!(verify(&["--unpack-limit-mib", "1"]), 1);
    assert_eq!(verify(&["--unpack-limit-mib", "4"]), 0);
    assert_eq!(verify(&[]), 0);
}

#[test]
fn commands_on_a_directory_ignore_what_only_has_a_modules_name() {
    let daemon = fast("");
    daemon.signdrop(["key", "generate", ALICE]);
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("dummy.ko", &small_module());
    write("kde.ko", b"msgid");
    write("text.ko.xz", &through(&["xz", "-c"], b"msgid"));
    let sign = |path: &Path| {
        let output = daemon.signdrop([
            "sign".as_ref(),
            "-u".as_ref(),
            ALICE.as_ref(),
            path.as_os_str(),
        ]);
        let text = String::from_utf8(output.stdout).unwrap();
        (
            output.status.code().unwrap(),
            text,
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (status, text, said) = sign(dir.path());
    assert_eq!(status, 0, "{said}");
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("ignored "))
            .count(),
        2,
        "{text}"
    );
    assert!(is_signed(
        &fs::read(dir.path().join("dummy.ko")).unwrap(),
        &certificate(&daemon, ALICE)
    ));
    // Who names one gets an error, and what a crash may have left is never passed over.
    let (status, _, said) = sign(&dir.path().join("kde.ko"));
    assert_eq!(status, 1);
    assert!(
        said.contains("not a kernel module: it is no ELF file"),
        "{said}"
    );
    write("zeros.ko", &[0; 5000]);
    let (status, _, said) = sign(dir.path());
    assert_eq!(status, 1);
    assert!(
        said.contains("zeros.ko: malformed module: it begins with zeros"),
        "{said}"
    );
}

#[test]
fn the_api_exports_one_certificate_in_both_forms_and_signs_for_it() {
    let daemon = fast("");
    let (status, _) = daemon.request("GET", &format!("{ALICE_PATH}/certificate.pem"), None);
    assert_eq!(status, 404, "a project that has no key has no certificate");
    daemon.signdrop(["key", "generate", ALICE]);
    let pems: BTreeSet<String> = thread::scope(|scope| {
        let asking: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let path = format!("{ALICE_PATH}/certificate.pem");
                    let (status, pem) = daemon.request("GET", &path, None);
                    assert_eq!(status, 200, "{pem}");
                    pem
                })
            })
            .collect();
        asking
            .into_iter()
            .map(|asked| asked.join().unwrap())
            .collect()
    });
    assert_eq!(pems.len(), 1, "sixteen at once get one certificate");
    assert_eq!(daemon.log().matches("certificate created").count(), 1);
    let sign = |digest: &str, len: usize| {
        let hash = "00".repeat(len);
        let body = format!("{{\"digest\":\"{digest}\",\"hash\":\"{hash}\",\"purpose\":\"cms\"}}");
        daemon
            .request("POST", &format!("{ALICE_PATH}/sign"), Some(&body))
            .0
    };
    assert_eq!((sign("sha256", 32), sign("sha1", 20)), (200, 400));
    let pem = pems.into_iter().next().unwrap();
    assert_eq!(
        Certificate::from_pem(pem.as_bytes()).unwrap().as_der(),
        certificate(&daemon, ALICE).as_der()
    );

    // The command signs a file anywhere with the daemon's key, and with the store's where no daemon runs.
    let dir = tempfile::tempdir().unwrap();
    for name in ["dummy.ko", "no-name-at-all"] {
        let path = dir.path().join(name);
        fs::write(&path, small_module()).unwrap();
        let output = daemon.signdrop([
            "sign".as_ref(),
            "-u".as_ref(),
            ALICE.as_ref(),
            path.as_os_str(),
        ]);
        assert!(output.status.success(), "{output:?}");
        assert!(is_signed(
            &fs::read(&path).unwrap(),
            &certificate(&daemon, ALICE)
        ));
    }
}

#[test]
fn a_store_without_a_daemon_signs_modules_and_exports_certificates() {
    let mut daemon = Daemon::prepare("");
    configure(&daemon, "module_algorithm = \"nistp256\"");
    let signdrop = |arguments: &[&str]| {
        let output = run(Command::new(env!("CARGO_BIN_EXE_signdrop")).args(arguments));
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let state = daemon.dir.path().join("state");
    let config = daemon.config();
    let (state, config) = (state.to_str().unwrap(), config.to_str().unwrap());
    let store = ["--store", state, "-c", config];
    signdrop(&[&["key", "generate", ALICE][..], &store].concat());
    let path = daemon.dir.path().join("dummy.ko");
    fs::write(&path, small_module()).unwrap();
    let path = path.to_str().unwrap();
    signdrop(&[&["sign", "-u", ALICE, path][..], &store].concat());
    let pem = signdrop(&[&["key", "certificate", ALICE][..], &store].concat());
    let before = Certificate::from_pem(&pem).unwrap();
    assert!(is_signed(&fs::read(path).unwrap(), &before));
    // The daemon that comes later has the same.
    daemon.run();
    assert_eq!(certificate(&daemon, ALICE).as_der(), before.as_der());
}

/// The secret numbers of a project's module key, as the library decrypts them.
fn module_secret(daemon: &Daemon) -> Vec<u8> {
    let state_dir = daemon.dir.path().join("state");
    let master = fs::read(daemon.dir.path().join("master.key")).unwrap();
    let store = Store::open(&state_dir.join("store")).unwrap();
    let keystore = Keystore::open(&store, &state_dir, MasterKey::parse(&master).unwrap()).unwrap();
    let entry = keystore.find(&ALICE.parse().unwrap()).unwrap().unwrap();
    let module = keystore.find_module_key(&entry).unwrap().unwrap();
    let secret = keystore
        .unlock_module_key(&entry, &module)
        .unwrap()
        .unwrap();
    let pkcs8 = secret.to_pkcs8().unwrap();
    let key = openssl::pkey::PKey::private_key_from_pkcs8(&pkcs8).unwrap();
    key.rsa().unwrap().p().unwrap().to_vec()
}

#[test]
fn a_module_key_is_encrypted_and_goes_with_the_project_s_key() {
    let mut daemon = Daemon::prepare("");
    daemon.environment("RUST_LOG", "trace");
    let config = fs::read_to_string(daemon.config()).unwrap();
    // One of the prepared keys becomes the module key.
    daemon.write_config(&config.replace(
        "prepared = 0",
        "prepared = 2\nmodule_algorithm = \"rsa2048\"",
    ));
    daemon.run();
    let path = drop_module(&daemon, "alice/tools/dummy.ko", &small_module());
    daemon.settle(&path);
    let first = certificate(&daemon, ALICE);
    daemon.stop();
    let secret = module_secret(&daemon);
    for part in [&secret[..16], &secret[secret.len() / 2..][..16]] {
        let log = daemon.log().into_bytes();
        let files = files_below(&daemon.dir.path().join("state"));
        let texts = files.iter().map(|path| fs::read(path).unwrap());
        for text in texts.chain([log]) {
            for form in [part.to_vec(), hex::encode(part).into_bytes()] {
                assert!(!text.windows(form.len()).any(|window| window == form));
            }
        }
    }

    // A copy of the database from before the deletion, with what is on the disk after it.
    let store = daemon.dir.path().join("state/store");
    let old = daemon.dir.path().join("old");
    let copy = |from: &Path, to: &Path| {
        let output = run(Command::new("cp").arg("-a").arg(from).arg(to));
        assert!(output.status.success(), "{output:?}");
    };
    copy(&store, &old);
    daemon.run();
    let output = daemon.signdrop(["key", "delete", "--yes", ALICE]);
    assert!(output.status.success(), "{output:?}");
    let (status, _) = daemon.request("GET", &format!("{ALICE_PATH}/certificate.der"), None);
    assert_eq!(status, 404);
    let sign = format!(
        "{{\"digest\":\"sha256\",\"hash\":\"{}\",\"purpose\":\"cms\"}}",
        "00".repeat(32)
    );
    let (status, _) = daemon.request("POST", &format!("{ALICE_PATH}/sign"), Some(&sign));
    assert_eq!(status, 404);
    daemon.stop();
    fs::remove_dir_all(&store).unwrap();
    copy(&old, &store);
    daemon.run();
    let (status, body) = daemon.request("GET", &format!("{ALICE_PATH}/certificate.der"), None);
    assert_eq!(status, 404, "an old database brings it back: {body}");

    // The next module of the project gets another key, and so another certificate.
    let path = drop_module(&daemon, "alice/tools/more.ko", &module_named("nls_utf8"));
    daemon.settle(&path);
    let second = certificate(&daemon, ALICE);
    assert!(!second.has_key_of(&first));
    assert!(is_signed(&fs::read(&path).unwrap(), &second));
}
