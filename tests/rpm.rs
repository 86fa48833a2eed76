//! Signing and unsigning packages that rpmbuild and the `rpm` crate make, and refusing what is not a sound package.
//!
//! rpmkeys judges v4 packages. What rpm 4.18 cannot read, signatures in v6 packages, is taken out of the file by the `rpm` crate
//! and judged by gpgv and sq. So are ECDSA signatures: rpm 4.18 without sequoia, as Debian 12 has it, knows neither such keys
//! nor such signatures, and can only say that all else is in order.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs,
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::SystemTime,
};

use common::{
    Rpmdb, Sections, TestKey, Value, edited, header, keeps_length, legacy, packages_below,
    quick_package, run, values,
};
use openssl::hash::{MessageDigest, hash};
use signdrop::{
    digest::Digest,
    edit::Edit,
    format::rpm::{Error, Package, Whole},
    key::Algorithm,
};

static KEYS: LazyLock<Vec<TestKey>> =
    LazyLock::new(|| Algorithm::ALL.map(TestKey::new).into_iter().collect());

fn key(algorithm: Algorithm) -> &'static TestKey {
    let mut keys = KEYS.iter();
    keys.find(|key| key.secret.algorithm() == algorithm)
        .unwrap()
}

/// A package as it left its builder, never signed.
struct Built {
    what: &'static str,
    bytes: Vec<u8>,
}

impl Built {
    fn is_v6(&self) -> bool {
        self.what.starts_with("v6")
    }
}

/// v4 and v6, binary and source, all with filler.
static PACKAGES: LazyLock<Vec<Built>> = LazyLock::new(|| {
    let (v4, v4_source) = rpmbuilt(&[]);
    let v6 = v6_binary();
    let v6_source = to_v6_source(&v6);
    [
        ("v4 binary", v4),
        ("v4 source", v4_source),
        ("v6 binary", v6),
        ("v6 source", v6_source),
    ]
    .map(|(what, bytes)| Built { what, bytes })
    .into_iter()
    .collect()
});

fn v4() -> &'static [u8] {
    &PACKAGES[0].bytes
}

fn v6() -> &'static [u8] {
    &PACKAGES[2].bytes
}

/// A binary and a source package by rpmbuild.
fn rpmbuilt(options: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let top = tempfile::tempdir().unwrap();
    let spec = top.path().join("package.spec");
    fs::write(
        &spec,
        "Name: built\nVersion: 1.0\nRelease: 1\nSummary: A package for tests\nLicense: MIT\nBuildArch: noarch\n\
         %description\nA package for tests.\n%install\nmkdir -p %{buildroot}/opt\n\
         head -c 3000 /dev/urandom > %{buildroot}/opt/built\n%files\n/opt/built\n",
    )
    .unwrap();
    let output = run(Command::new("rpmbuild")
        .args(["--quiet", "-ba", "--nodeps"])
        .args(options)
        .arg("--define")
        .arg(format!("_topdir {}", top.path().display()))
        .arg(&spec));
    assert!(output.status.success(), "{output:?}");
    let built = |below| fs::read(packages_below(&top.path().join(below)).remove(0)).unwrap();
    (built("RPMS"), built("SRPMS"))
}

fn v6_binary() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = quick_package(dir.path(), "quick", 3000, rpm::RpmFormat::V6);
    fs::read(path).unwrap()
}

/// The `rpm` crate builds no source packages: one is a package that names no source package but is one itself.
fn to_v6_source(binary: &[u8]) -> Vec<u8> {
    with_main(binary, |main| {
        main.retain(|value| value.tag != 1044);
        let at = main.iter().position(|value| value.tag > 1106).unwrap();
        main.insert(at, Value::new(1106, 4, 1, 1_u32.to_be_bytes()));
    })
}

/// The package with another main header, whose digests are right.
fn with_main(package: &[u8], change: impl FnOnce(&mut Vec<Value>)) -> Vec<u8> {
    let mut sections = Sections::of(package);
    let mut main = values(&sections.main);
    change(&mut main);
    sections.main = header(63, &main);
    let both = [&sections.main[..], &sections.payload].concat();
    with_signature_header(&sections.join(), |signature| {
        for value in signature {
            let digest = |kind| hex::encode(hash(kind, &sections.main).unwrap()) + "\0";
            value.bytes = match value.tag {
                269 => digest(MessageDigest::sha1()).into(),
                273 => digest(MessageDigest::sha256()).into(),
                279 => digest(MessageDigest::sha3_256()).into(),
                1000 => (both.len() as u32).to_be_bytes().into(),
                1004 => hash(MessageDigest::md5(), &both).unwrap().to_vec(),
                _ => continue,
            };
        }
    })
}

/// The package with another signature header.
fn with_signature_header(package: &[u8], change: impl FnOnce(&mut Vec<Value>)) -> Vec<u8> {
    let mut sections = Sections::of(package);
    let mut signature = values(&sections.signature);
    change(&mut signature);
    sections.signature = header(62, &signature);
    sections.join()
}

fn without_filler(package: &[u8]) -> Vec<u8> {
    with_signature_header(package, |signature| {
        signature.retain(|value| value.tag != 999 && value.tag != 1008);
    })
}

fn check(bytes: &[u8], digest: Digest) -> Result<Whole, Error> {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    check_file(&file, digest)
}

fn check_file(file: &File, digest: Digest) -> Result<Whole, Error> {
    Package::read(file)?.check(file, digest)
}

fn sign(package: &[u8], key: &TestKey, digest: Digest) -> (Vec<u8>, Edit) {
    let whole = check(package, digest).unwrap();
    let edit = whole.sign(key, SystemTime::now()).unwrap();
    (edited(package, &edit), edit)
}

fn unsign(package: &[u8]) -> Option<(Vec<u8>, Edit)> {
    let edit = check(package, Digest::Sha256).unwrap().unsign()?;
    Some((edited(package, &edit), edit))
}

fn signature_tags(package: &[u8]) -> Vec<u32> {
    let signature = values(&Sections::of(package).signature);
    let tags = signature.into_iter().map(|value| value.tag);
    tags.filter(|tag| [267, 268, 278, 1002, 1005].contains(tag))
        .collect()
}

fn signature_value(package: &[u8], tag: u32) -> Vec<u8> {
    let signature = values(&Sections::of(package).signature);
    let mut found = signature.into_iter().filter(|value| value.tag == tag);
    found.next().unwrap().bytes
}

/// Everything but the signature header.
fn rest(package: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let Sections {
        lead,
        main,
        payload,
        ..
    } = Sections::of(package);
    (lead, main, payload)
}

fn is_ecdsa(key: &TestKey) -> bool {
    let algorithm = key.secret.algorithm();
    matches!(algorithm, Algorithm::NistP256 | Algorithm::NistP384)
}

/// The programs that judge the signatures of one key.
struct Judge<'a> {
    key: &'a TestKey,
    /// Nothing for ECDSA.
    rpmdb: Option<Rpmdb>,
    dir: tempfile::TempDir,
}

impl<'a> Judge<'a> {
    fn new(key: &'a TestKey) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let armour = key.certificate.to_armour().unwrap();
        fs::write(dir.path().join("key.asc"), &armour).unwrap();
        let packets = key.certificate.to_bytes().unwrap();
        fs::write(dir.path().join("key.pgp"), packets).unwrap();
        Self {
            key,
            rpmdb: (!is_ecdsa(key)).then(|| Rpmdb::new(&armour)),
            dir,
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn rpmkeys(&self, package: &[u8]) -> (bool, String) {
        let path = self.write("package.rpm", package);
        match &self.rpmdb {
            Some(rpmdb) => rpmdb.check(&path),
            None => {
                let output = run(Command::new("rpmkeys")
                    .env("LC_ALL", "C")
                    .arg("--dbpath")
                    .arg(self.dir.path().join("no-keys"))
                    .args(["--checksig", "-v"])
                    .arg(&path));
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                (output.status.success(), said)
            }
        }
    }

    /// gpgv, and sq where its policy allows the digest, on a detached signature.
    fn verify(&self, digest: Digest, content: &[u8], signature: &[u8]) {
        let content = self.write("content", content);
        let signature = self.write("content.sig", signature);
        let output = run(Command::new("gpgv")
            .arg("--keyring")
            .arg(self.dir.path().join("key.pgp"))
            .args(["--status-fd", "1"])
            .args([&signature, &content]));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // The fields of VALIDSIG (GnuPG, doc/DETAILS): fingerprint, dates, version, reserved, key algorithm, digest, class.
        let number = match digest {
            Digest::Sha1 => "2",
            Digest::Sha256 => "8",
            Digest::Sha384 => "9",
            Digest::Sha512 => "10",
        };
        let valid = said.lines().find(|line| line.contains("VALIDSIG"));
        let valid = valid.unwrap_or_else(|| panic!("{digest}: {output:?}"));
        let fields: Vec<&str> = valid.split(' ').collect();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(fields[2], self.key.public.fingerprint().as_str());
        assert_eq!(fields[6], "4", "not a version 4 signature: {valid}");
        assert_eq!(fields[9], number, "another digest: {valid}");
        assert_eq!(fields[10], "00", "not a binary signature: {valid}");
        if digest != Digest::Sha1 {
            let output = run(Command::new("sq")
                .args(["verify", "--signer-cert"])
                .arg(self.dir.path().join("key.asc"))
                .arg("--detached")
                .args([&signature, &content]));
            assert!(output.status.success(), "{output:?}");
        }
    }

    /// That the package has the key's signature of the header, where rpm reads it, and no other.
    ///
    /// A key of 384 bits signs with no shorter digest: gpgv refuses it, as RFC 9580 (section 5.2.3) demands.
    fn assert_signed(&self, package: &[u8], wanted: Digest) {
        let algorithm = self.key.secret.algorithm();
        let digest = match (algorithm, wanted) {
            (Algorithm::NistP384, Digest::Sha1 | Digest::Sha256) => Digest::Sha384,
            (Algorithm::NistP256 | Algorithm::Ed25519, Digest::Sha1) => Digest::Sha256,
            _ => wanted,
        };
        let parsed = rpm::Package::parse(&mut &package[..]).unwrap();
        let v6 = parsed.metadata.header.entry_is_present(5114_u32);
        let tag = match (v6, algorithm.is_rsa()) {
            (true, _) => 278,
            (false, true) => 268,
            (false, false) => 267,
        };
        let legacy = !parsed.metadata.header.entry_is_present(5092_u32);
        let both_tag = if algorithm.is_rsa() { 1002 } else { 1005 };
        let tags = if legacy {
            vec![tag, both_tag]
        } else {
            vec![tag]
        };
        assert_eq!(signature_tags(package), tags);

        let offsets = parsed.metadata.get_package_segment_offsets();
        let main = &package[offsets.header as usize..offsets.payload as usize];
        let signatures = parsed.raw_signatures().unwrap();
        assert_eq!(signatures.len(), 1);
        self.verify(digest, main, &signatures[0]);
        parsed.verify_digests().unwrap();
        if legacy {
            let both = &package[offsets.header as usize..];
            self.verify(digest, both, &signature_value(package, both_tag));
        }

        let (good, said) = self.rpmkeys(package);
        if v6 {
            assert!(good && !said.contains("ignature"), "{said}");
        } else if is_ecdsa(self.key) {
            let mut lines = said.lines().skip(1);
            let unknown = |line: &str| {
                line.contains("DSA signature: BAD (package tag") || line.contains(": OK")
            };
            assert!(said.contains("digest: OK") && lines.all(unknown), "{said}");
        } else {
            assert!(good, "{said}");
            let name = if algorithm.is_rsa() { "RSA" } else { "EdDSA" };
            let id = &self.key.public.fingerprint().as_str().to_lowercase()[32..];
            let hash = digest.name().to_uppercase();
            let line = format!("V4 {name}/{hash} Signature, key ID {id}: OK");
            assert!(said.contains(&format!("    Header {line}")), "{said}");
            assert_eq!(said.contains(&format!("\n    {line}")), legacy, "{said}");
        }
    }

    fn assert_unsigned(&self, package: &[u8]) {
        let (good, said) = self.rpmkeys(package);
        assert!(good && !said.contains("Signature"), "{said}");
        let output = run(Command::new("rpm")
            .env("LC_ALL", "C")
            .args(["-qp", "--qf"])
            .arg("%{RSAHEADER:pgpsig} %{DSAHEADER:pgpsig} %{SIGPGP:pgpsig} %{SIGGPG:pgpsig}")
            .arg(self.write("package.rpm", package)));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, "(none) (none) (none) (none)");
        let parsed = rpm::Package::parse(&mut &package[..]).unwrap();
        assert!(parsed.raw_signatures().unwrap().is_empty());
        parsed.verify_digests().unwrap();
    }
}

#[test]
fn every_key_signs_every_package_in_place_and_unsigning_gives_back_the_very_bytes() {
    for key in KEYS.iter() {
        let judge = Judge::new(key);
        for package in PACKAGES.iter() {
            judge.assert_unsigned(&package.bytes);
            for digest in [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512] {
                let (signed, edit) = sign(&package.bytes, key, digest);
                assert!(keeps_length(&edit), "{}", package.what);
                assert_eq!(signed.len(), package.bytes.len());
                assert_eq!(rest(&signed), rest(&package.bytes));
                assert_eq!(package.is_v6(), signature_tags(&signed) == [278]);
                judge.assert_signed(&signed, digest);
                let whole = check(&signed, digest).unwrap();
                assert!(whole.is_signed_by(&key.public), "{} {digest}", package.what);
                let (unsigned, edit) = unsign(&signed).unwrap();
                assert!(keeps_length(&edit));
                assert!(unsigned == package.bytes, "{} {digest}", package.what);
            }
        }
    }
}

#[test]
fn an_unsigned_package_has_nothing_to_unsign() {
    for package in PACKAGES.iter() {
        assert!(unsign(&package.bytes).is_none(), "{}", package.what);
    }
}

#[test]
fn a_package_without_filler_grows_and_unsigning_gives_back_the_very_bytes() {
    for algorithm in [Algorithm::Rsa3072, Algorithm::NistP384] {
        let judge = Judge::new(key(algorithm));
        for package in PACKAGES.iter() {
            let bare = without_filler(&package.bytes);
            judge.assert_unsigned(&bare);
            let (signed, edit) = sign(&bare, judge.key, Digest::Sha512);
            assert!(!keeps_length(&edit));
            assert_eq!(rest(&signed), rest(&bare));
            judge.assert_signed(&signed, Digest::Sha512);
            assert!(unsign(&signed).unwrap().0 == bare, "{}", package.what);
        }
    }
}

#[test]
fn a_filler_too_small_for_the_signature_makes_the_package_grow() {
    let (binary, source) = rpmbuilt(&["--define", "__gpg_reserved_space 0"]);
    let judge = Judge::new(key(Algorithm::Rsa2048));
    for package in [binary, source] {
        assert!(signature_value(&package, 1008).len() < 100);
        let (signed, edit) = sign(&package, judge.key, Digest::Sha256);
        assert!(!keeps_length(&edit));
        assert_eq!(rest(&signed), rest(&package));
        judge.assert_signed(&signed, Digest::Sha256);
        let (unsigned, edit) = unsign(&signed).unwrap();
        assert!(keeps_length(&edit), "the filler takes the room");
        judge.assert_unsigned(&unsigned);
        assert_eq!(rest(&unsigned), rest(&package));
    }
}

#[test]
fn a_filler_of_any_size_about_the_signatures_length_gives_a_sound_package() {
    let judge = Judge::new(key(Algorithm::Ed25519));
    let dir = tempfile::tempdir().unwrap();
    let (mut in_place, mut grown, mut paths) = (0, 0, Vec::new());
    for (what, package, filler) in [("v4", v4(), 1008), ("v6", v6(), 999)] {
        let room = signature_value(package, filler).len();
        let (signed, _) = sign(package, judge.key, Digest::Sha256);
        let needed = room - signature_value(&signed, filler).len();
        for room in needed - 12..needed + 12 {
            let tight = with_signature_header(package, |signature| {
                for value in signature.iter_mut().filter(|value| value.tag == filler) {
                    value.count = room as u32;
                    value.bytes = vec![0; room];
                }
            });
            let (signed, edit) = sign(&tight, judge.key, Digest::Sha256);
            assert_eq!(rest(&signed), rest(&tight));
            let (unsigned, _) = unsign(&signed).unwrap();
            if keeps_length(&edit) {
                in_place += 1;
                assert!(unsigned == tight, "{what} with {room} bytes of filler");
            } else {
                grown += 1;
            }
            let parsed = rpm::Package::parse(&mut &signed[..]).unwrap();
            assert_eq!(parsed.raw_signatures().unwrap().len(), 1);
            if filler == 1008 {
                let path = dir.path().join(format!("{room}.rpm"));
                fs::write(&path, &signed).unwrap();
                paths.push(path);
            }
        }
    }
    assert!(in_place > 10 && grown > 10, "{in_place} {grown}");
    let rpmdb = judge.rpmdb.unwrap();
    assert_eq!(rpmdb.not_signed(&paths), <[&Path; 0]>::default());
}

#[test]
fn a_signature_counts_only_with_the_right_key_and_digest() {
    let ours = key(Algorithm::Rsa2048);
    let other = TestKey::new(Algorithm::Rsa2048);
    for package in PACKAGES.iter() {
        assert!(
            !check(&package.bytes, Digest::Sha256)
                .unwrap()
                .is_signed_by(&ours.public)
        );
        let (signed, _) = sign(&package.bytes, ours, Digest::Sha256);
        let is_signed = |bytes: &[u8], digest, key: &TestKey| {
            check(bytes, digest).unwrap().is_signed_by(&key.public)
        };
        assert!(is_signed(&signed, Digest::Sha256, ours));
        assert!(!is_signed(&signed, Digest::Sha512, ours));
        assert!(!is_signed(&signed, Digest::Sha256, &other));

        // The signature of another header, and one with a flipped bit.
        let changed = with_main(&package.bytes, |main| {
            for value in main.iter_mut().filter(|value| value.tag == 1001) {
                value.bytes = b"2.0\0".to_vec();
            }
        });
        let transplanted = with_signature_header(&changed, |signature| {
            let held = values(&Sections::of(&signed).signature);
            signature.splice(0..0, held.into_iter().filter(|value| value.tag < 269));
        });
        assert!(!is_signed(&transplanted, Digest::Sha256, ours));
        if !package.is_v6() {
            let flipped = with_signature_header(&signed, |signature| {
                let at = signature[0].bytes.len() - 9;
                signature[0].bytes[at] ^= 4;
            });
            assert!(!is_signed(&flipped, Digest::Sha256, ours));
        }
    }
}

#[test]
fn another_keys_signature_is_replaced_whatever_its_algorithm() {
    for package in PACKAGES.iter() {
        let mut bytes = package.bytes.clone();
        for key in KEYS.iter() {
            let (signed, edit) = sign(&bytes, key, Digest::Sha256);
            assert!(keeps_length(&edit));
            Judge::new(key).assert_signed(&signed, Digest::Sha256);
            bytes = signed;
        }
        assert!(unsign(&bytes).unwrap().0 == package.bytes);
    }
}

/// A gpg home whose agent ends with it.
struct Gpg {
    home: tempfile::TempDir,
}

impl Gpg {
    fn new() -> Self {
        let gpg = Self {
            home: tempfile::tempdir().unwrap(),
        };
        let output = run(gpg.command("gpg").args([
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--quick-gen-key",
            "Mallory <mallory@example.org>",
            "rsa3072",
            "sign",
            "never",
        ]));
        assert!(output.status.success(), "{output:?}");
        gpg
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("GNUPGHOME", self.home.path());
        command
    }

    /// The package as rpmsign signs it.
    fn rpmsign(&self, package: &[u8], options: &[&str]) -> Vec<u8> {
        let path = self.home.path().join("package.rpm");
        fs::write(&path, package).unwrap();
        let output = run(self
            .command("rpmsign")
            .arg("--addsign")
            .args(options)
            .args(["--define", "__gpg /usr/bin/gpg"])
            .args(["--define", "_gpg_name mallory@example.org"])
            .arg("--define")
            .arg(format!("_gpg_path {}", self.home.path().display()))
            .arg(&path));
        assert!(output.status.success(), "{output:?}");
        let signed = fs::read(path).unwrap();
        assert!(!signature_tags(&signed).is_empty());
        signed
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = self.command("gpgconf").args(["--kill", "all"]).status();
    }
}

#[test]
fn what_rpmsign_signed_is_replaced_or_removed_without_a_trace() {
    let gpg = Gpg::new();
    let judge = Judge::new(key(Algorithm::Rsa4096));
    let foreign = Judge::new(key(Algorithm::Ed25519));
    for package in PACKAGES.iter().filter(|package| !package.is_v6()) {
        for (options, tags) in [(&[][..], &[268][..]), (&["--rpmv3"], &[268, 1002])] {
            let theirs = gpg.rpmsign(&package.bytes, options);
            assert_eq!(signature_tags(&theirs), tags);
            for judge in [&judge, &foreign] {
                let whole = check(&theirs, Digest::Sha512).unwrap();
                assert!(!whole.is_signed_by(&judge.key.public));
                let (ours, edit) = sign(&theirs, judge.key, Digest::Sha512);
                assert!(keeps_length(&edit));
                judge.assert_signed(&ours, Digest::Sha512);
            }
            let (unsigned, edit) = unsign(&theirs).unwrap();
            assert!(keeps_length(&edit));
            judge.assert_unsigned(&unsigned);
            assert!(
                unsigned == package.bytes,
                "{} {options:?}: rpmsign's signature left something",
                package.what
            );
        }
    }
}

#[test]
fn rpmsign_takes_our_signature_for_one_of_its_own_kind() {
    let gpg = Gpg::new();
    let judge = Judge::new(key(Algorithm::Rsa2048));
    let (ours, _) = sign(v4(), judge.key, Digest::Sha256);
    let theirs = gpg.rpmsign(&ours, &[]);
    assert_eq!(signature_tags(&theirs), [268]);
    assert_ne!(signature_value(&theirs, 268), signature_value(&ours, 268));
    assert!(unsign(&theirs).unwrap().0 == v4());
}

#[test]
fn a_package_without_payload_digest_gets_a_signature_of_header_and_payload_too() {
    for key in KEYS.iter() {
        let judge = Judge::new(key);
        for package in PACKAGES.iter().filter(|package| !package.is_v6()) {
            let old = legacy(&package.bytes);
            judge.assert_unsigned(&old);
            for digest in [Digest::Sha256, Digest::Sha512] {
                let (signed, edit) = sign(&old, key, digest);
                assert!(!keeps_length(&edit));
                assert_eq!(rest(&signed), rest(&old));
                judge.assert_signed(&signed, digest);
                assert!(
                    check(&signed, digest)
                        .unwrap()
                        .is_signed_by(&judge.key.public)
                );
                assert!(unsign(&signed).unwrap().0 == old);

                // One of the two is not enough.
                for missing in signature_tags(&signed) {
                    let half = with_signature_header(&signed, |signature| {
                        signature.retain(|value| value.tag != missing);
                    });
                    assert!(!check(&half, digest).unwrap().is_signed_by(&key.public));
                }
            }
        }
    }
}

#[test]
fn file_signatures_and_unknown_tags_stay_where_they_are() {
    let judge = Judge::new(key(Algorithm::Rsa2048));
    let kept = [
        Value::new(274, 8, 2, "0302\0\0"),
        Value::new(275, 4, 1, 7_u32.to_be_bytes()),
        Value::new(276, 8, 1, "abcd\0"),
        Value::new(277, 4, 1, 1_u32.to_be_bytes()),
    ];
    for package in PACKAGES.iter() {
        let with = with_signature_header(&package.bytes, |signature| {
            let after = |value: &Value| value.tag > 277;
            let at = signature.iter().position(after).unwrap();
            signature.splice(at..at, kept.clone());
        });
        let found = |package: &[u8]| {
            let mut found = values(&Sections::of(package).signature);
            found.retain(|value| (274..278).contains(&value.tag));
            found
        };
        let (signed, edit) = sign(&with, judge.key, Digest::Sha256);
        assert!(keeps_length(&edit));
        assert_eq!(found(&signed), kept);
        judge.assert_signed(&signed, Digest::Sha256);
        assert!(unsign(&signed).unwrap().0 == with);
    }
}

/// A file that has to be refused, and a part of the reason.
struct Bad {
    what: String,
    bytes: Vec<u8>,
    reason: &'static str,
}

fn bad(what: impl Into<String>, bytes: Vec<u8>, reason: &'static str) -> Bad {
    Bad {
        what: what.into(),
        bytes,
        reason,
    }
}

fn assert_refused(cases: Vec<Bad>) {
    assert!(!cases.is_empty());
    let file = tempfile::tempfile().unwrap();
    for Bad {
        what,
        bytes,
        reason,
    } in cases
    {
        file.write_all_at(&bytes, 0).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        match check_file(&file, Digest::Sha256) {
            Ok(_) => panic!("{what}: accepted"),
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains(reason), "{what}: {said}, not {reason}");
                assert!(!error.may_pass(), "{what}: {said}");
            }
        }
    }
}

fn with_byte_flipped(package: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = package.to_vec();
    bytes[at] ^= 1;
    bytes
}

fn with_word(package: &[u8], at: usize, word: u32) -> Vec<u8> {
    let mut bytes = package.to_vec();
    bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
    bytes
}

/// Where a package's sections and their parts begin.
struct Places {
    /// Of the headers: start, number of entries, start of the store, end.
    headers: [(&'static str, usize, usize, usize, usize); 2],
    payload: usize,
}

impl Places {
    fn of(package: &[u8]) -> Self {
        let sections = Sections::of(package);
        let at = |start, section, header: &[u8]| {
            let entries = values(header).len() + 1;
            (
                section,
                start,
                entries,
                start + 16 + 16 * entries,
                start + header.len(),
            )
        };
        let main = (96 + sections.signature.len()).next_multiple_of(8);
        Self {
            headers: [
                at(96, "signature header", &sections.signature),
                at(main, "main header", &sections.main),
            ],
            payload: main + sections.main.len(),
        }
    }
}

#[test]
fn what_does_not_begin_as_a_package_is_refused() {
    let lead = &v4()[..96];
    let lead_with = |at: usize, byte| {
        let mut bytes = v4().to_vec();
        bytes[at] = byte;
        bytes
    };
    assert_refused(vec![
        bad("empty", vec![], "the file is empty"),
        bad("one byte", vec![0xed], "not an RPM package: wrong magic"),
        bad("zeros", vec![0; 10_000], "not an RPM package"),
        bad("a text", b"#!/bin/sh\necho hello\n".to_vec(), "not an RPM"),
        bad(
            "the magic alone",
            lead[..4].to_vec(),
            "truncated in the lead",
        ),
        bad(
            "lead only",
            lead.to_vec(),
            "truncated in the signature header",
        ),
        bad(
            "lead and zeros",
            [lead, &[0; 9_000]].concat(),
            "signature header: wrong magic",
        ),
        bad(
            "lead and ones",
            [lead, &[0xff; 9_000]].concat(),
            "signature header: wrong magic",
        ),
        bad("wrong magic", lead_with(0, 0xee), "not an RPM package"),
        bad(
            "a delta package",
            [b"drpm", &v4()[4..]].concat(),
            "not an RPM package",
        ),
        bad("format version 2", lead_with(4, 2), "malformed lead"),
        bad("format version 5", lead_with(4, 5), "malformed lead"),
        bad("signature of type 0", lead_with(79, 0), "malformed lead"),
        bad("signature of type 1", lead_with(79, 1), "malformed lead"),
        bad(
            "signature of type 256 + 5",
            lead_with(78, 1),
            "malformed lead",
        ),
        bad(
            "two leads",
            [lead, v4()].concat(),
            "signature header: wrong magic",
        ),
        bad(
            "no signature header",
            [lead, &Sections::of(v4()).main].concat(),
            "signature header",
        ),
    ]);
}

#[test]
fn a_package_cut_short_anywhere_is_refused_and_the_section_named() {
    let old = legacy(v4());
    let (signed, _) = sign(v4(), key(Algorithm::Rsa2048), Digest::Sha256);
    for (what, package) in [
        ("v4", v4()),
        ("v6", v6()),
        ("legacy", &old),
        ("signed", &signed),
    ] {
        let [(.., signature_end), (.., main_end)] = Places::of(package).headers;
        let cases = (0..package.len()).map(|len| {
            let reason = match len {
                0..4 => "not an RPM package",
                4..96 => "truncated in the lead",
                _ if len < signature_end => "truncated in the signature header",
                _ if len < main_end => "truncated in the main header",
                // Nothing in a v6 package states the payload's length, only its digest.
                _ if what == "v6" => "the payload digest does not match",
                _ => "truncated in the payload",
            };
            bad(
                format!("{what} cut at {len}"),
                package[..len].to_vec(),
                reason,
            )
        });
        assert_refused(cases.collect());
    }
}

#[test]
fn anything_behind_the_payload_is_refused() {
    let old = legacy(v4());
    let mut cases = Vec::new();
    for (package, reason) in [
        (v4(), "the size of header and payload"),
        (v6(), "the payload digest"),
        (&old[..], "the size of header and payload"),
    ] {
        for tail in [&[0][..], &[0; 8], b"\n", package] {
            cases.push(bad("a tail", [package, tail].concat(), reason));
        }
    }
    assert_refused(cases);
}

#[test]
fn header_sizes_that_lie_are_refused() {
    let mut cases = Vec::new();
    for package in [v4(), v6()] {
        for (section, at, entries, _, end) in Places::of(package).headers {
            let store = (end - at) as u32 - 16 - 16 * entries as u32;
            let (most_entries, most_store) = if section == "main header" {
                (0xffff, 256 << 20)
            } else {
                (32, 64 << 20)
            };
            let mut case = |field: &str, offset, number, reason| {
                let bytes = with_word(package, at + offset, number);
                cases.push(bad(format!("{section}: {field} {number}"), bytes, reason));
            };
            for number in [
                0,
                most_entries + 1,
                0x0fff_ffff,
                0x7fff_ffff,
                0x8000_0000,
                u32::MAX,
            ] {
                case(
                    "entries",
                    8,
                    number,
                    "number of index entries out of bounds",
                );
            }
            for number in [
                0,
                most_store + 1,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_fff0,
                u32::MAX,
            ] {
                case("store", 12, number, "length of the store out of bounds");
            }
            case(
                "entries",
                8,
                most_entries,
                if section == "main header" {
                    "truncated in the main header"
                } else {
                    "malformed signature header"
                },
            );
            case("store", 12, most_store, "truncated in the");
            for number in [1, entries as u32 - 1, entries as u32 + 1] {
                case("entries", 8, number, "malformed");
            }
            for number in [1, 15, 16, store - 1, store - 16] {
                case("store", 12, number, "malformed");
            }
            for byte in [0, 1, 2, 3, 4, 7] {
                let bytes = with_byte_flipped(package, at + byte);
                cases.push(bad(
                    format!("{section}: magic {byte}"),
                    bytes,
                    "wrong magic",
                ));
            }
        }
    }
    assert_refused(cases);
}

#[test]
fn four_gigabytes_that_a_header_claims_are_never_allocated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("liar.rpm");
    for (section, at, ..) in Places::of(v4()).headers {
        for (entries, store) in [
            (1, u32::MAX),
            (u32::MAX, 1),
            (u32::MAX, u32::MAX),
            (7, 3 << 30),
        ] {
            let bytes = with_word(&with_word(v4(), at + 8, entries), at + 12, store);
            fs::write(&path, bytes).unwrap();
            // The file is as long as the header claims to be, so its length alone gives the lie no away.
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(80 << 30)
                .unwrap();
            let output = run(Command::new("prlimit")
                .arg(format!("--as={}", 512 << 20))
                .args([env!("CARGO_BIN_EXE_signdrop"), "inspect"])
                .arg(&path));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("malformed {section}")), "{said}");
            assert!(said.contains("out of bounds"), "{said}");
        }
    }
}

#[test]
fn an_index_that_lies_is_refused() {
    let mut cases = Vec::new();
    for package in [v4(), v6()] {
        for (section, at, entries, store_at, end) in Places::of(package).headers {
            let store = (end - store_at) as u32;
            let field = |place: usize, number: usize| at + 16 + 16 * place + 4 * number;
            let word = |at: usize| u32::from_be_bytes(package[at..at + 4].try_into().unwrap());
            let mut case = |what: &str, at, number, reason| {
                let bytes = with_word(package, at, number);
                cases.push(bad(format!("{section}: {what} {number:#x}"), bytes, reason));
            };
            for place in 1..entries {
                for kind in [0, 10, 11, 0xff, 0x8000_0000, u32::MAX] {
                    case("kind", field(place, 1), kind, "value of an unknown kind");
                }
                for offset in [store, store + 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
                    case("offset", field(place, 2), offset, "value outside the store");
                }
                for count in [0, u32::MAX] {
                    case(
                        "count",
                        field(place, 3),
                        count,
                        "value longer than the store",
                    );
                }
                case(
                    "count",
                    field(place, 3),
                    0x7fff_ffff,
                    "value longer than the store",
                );
                // Below 100 lie the regions and what rpm keeps to itself.
                for tag in [0, 1, 63, 99, u32::MAX] {
                    case("tag", field(place, 0), tag, "malformed");
                }
            }
            for place in 2..entries {
                let before = word(field(place - 1, 0));
                case("tag twice", field(place, 0), before, "a tag occurs twice");
                let before = word(field(place - 1, 2));
                case("overlap", field(place, 2), before, "values overlap");
            }
            for (number, value, reason) in [
                (0, 61, "no region"),
                (
                    0,
                    if section == "main header" { 62 } else { 63 },
                    "no region",
                ),
                (0, 1000, "no region"),
                (1, 2, "region of a wrong kind"),
                (1, 1, "region of a wrong kind"),
                (2, 0, "region without its trailer"),
                (2, store - 15, "value longer than the store"),
                (2, store - 17, "region without its trailer"),
                (2, u32::MAX - 15, "value outside the store"),
                (3, 0, "value longer than the store"),
                (3, 15, "region of a wrong kind"),
                (3, u32::MAX, "value longer than the store"),
            ] {
                case("region", field(0, number), value, reason);
            }
            // The trailer is the last 16 bytes of these stores.
            for (number, value) in [
                (0, 61),
                (1, 6),
                (2, 0),
                (2, 16),
                (2, 0x8000_0000),
                (2, (entries as u32 * 16 + 16).wrapping_neg()),
                (3, 15),
                (3, 17),
            ] {
                let at = end - 16 + 4 * number;
                case("trailer", at, value, "region without its trailer");
            }
        }
    }
    assert_refused(cases);
}

#[test]
fn values_that_a_region_does_not_cover_are_refused_in_the_main_header() {
    let mut sections = Sections::of(v4());
    // One entry more, whose value lies behind the region.
    let (_, _, entries, _, _) = Places::of(v4()).headers[1];
    let store_at = 16 + 16 * entries;
    let store = sections.main.len() - store_at;
    let outside = [1_000_000, 6, store as u32, 1]
        .map(u32::to_be_bytes)
        .concat();
    sections.main.splice(store_at..store_at, outside);
    sections.main.extend(b"more\0");
    sections.main[8..12].copy_from_slice(&(entries as u32 + 1).to_be_bytes());
    sections.main[12..16].copy_from_slice(&(store as u32 + 5).to_be_bytes());
    assert_refused(vec![bad(
        "an entry behind the region",
        sections.join(),
        "main header: region does not cover everything",
    )]);
}

#[test]
fn a_string_without_an_end_is_refused() {
    let words = |words: [u32; 4]| words.map(u32::to_be_bytes).concat();
    let mut cases = Vec::new();
    for kind in [6, 8, 9] {
        let mut sections = Sections::of(v4());
        sections.signature = [
            words([0x8ead_e801, 0, 2, 20]),
            words([62, 7, 0, 16]),
            words([273, kind, 16, 1]),
            words([62, 7, 16_u32.wrapping_neg(), 16]),
            b"abcd".to_vec(),
        ]
        .concat();
        cases.push(bad(
            "a string without an end",
            sections.join(),
            "signature header: value longer than the store",
        ));
    }
    for (kind, bytes) in [(6, &b"abcd"[..]), (8, b"ab\0cd")] {
        let unended = with_signature_header(v4(), |signature| {
            signature.retain(|value| value.tag == 269);
            signature[0] = Value::new(269, kind, 1 + u32::from(kind == 8), bytes);
        });
        cases.push(bad(
            "it runs into the region's trailer",
            unended,
            "malformed signature header",
        ));
    }
    assert_refused(cases);
}

#[test]
fn every_digest_that_does_not_match_is_found() {
    let old = legacy(v4());
    let flip_last = |package: &[u8]| with_byte_flipped(package, package.len() - 1);
    let flip_first = |package: &[u8]| with_byte_flipped(package, Places::of(package).payload);
    let with_signature_value = |package: &[u8], tag, change: fn(&mut Value)| {
        with_signature_header(package, |signature| {
            let mut values = signature.iter_mut();
            change(values.find(|value| value.tag == tag).unwrap());
        })
    };
    let flip_digit = |value: &mut Value| value.bytes[7] ^= 1;
    let cut_off = |value: &mut Value| value.bytes = b"\0".to_vec();
    let in_main = |package: &[u8], tag, change: fn(&mut Value)| {
        with_main(package, |main| {
            change(main.iter_mut().find(|value| value.tag == tag).unwrap());
        })
    };
    let mut cases = vec![
        bad(
            "v4 payload's last",
            flip_last(v4()),
            "the payload digest does not match",
        ),
        bad(
            "v4 payload's first",
            flip_first(v4()),
            "the payload digest does not match",
        ),
        bad(
            "v6 payload's last",
            flip_last(v6()),
            "the payload digest does not match",
        ),
        bad(
            "v6 payload's first",
            flip_first(v6()),
            "the payload digest does not match",
        ),
        bad(
            "legacy payload's last",
            flip_last(&old),
            "the MD5 of header and payload",
        ),
        bad(
            "legacy payload's first",
            flip_first(&old),
            "the MD5 of header and payload",
        ),
        bad(
            "size + 1",
            with_signature_value(v4(), 1000, |value| value.bytes[3] ^= 128),
            "payload",
        ),
        bad(
            "legacy MD5",
            with_signature_value(&old, 1004, flip_digit),
            "the MD5",
        ),
        bad(
            "legacy MD5 of another kind",
            with_signature_value(&old, 1004, |value| value.kind = 1),
            "malformed signature header: MD5 of a wrong kind",
        ),
        bad(
            "legacy without MD5",
            with_signature_header(&old, |signature| {
                signature.retain(|value| value.tag != 1004)
            }),
            "no digest of its payload",
        ),
        bad(
            "no header digest, and MD5 wrong",
            with_signature_header(v4(), |signature| {
                signature.retain(|value| value.tag != 269 && value.tag != 273);
                let mut values = signature.iter_mut();
                flip_digit(values.find(|value| value.tag == 1004).unwrap());
            }),
            "the MD5 of header and payload",
        ),
        bad(
            "v6 without header digest",
            with_signature_header(v6(), |signature| {
                signature.retain(|value| value.tag != 273 && value.tag != 279);
            }),
            "no digest",
        ),
        bad(
            "payload digest by MD5",
            in_main(v4(), 5093, |value| value.bytes = 1_u32.to_be_bytes().into()),
            "payload digest of the unknown kind 1",
        ),
        bad(
            "payload digest by SHA-512, that is SHA-256",
            in_main(v4(), 5093, |value| {
                value.bytes = 10_u32.to_be_bytes().into()
            }),
            "the payload digest does not match",
        ),
        bad(
            "v6 SHA-512",
            in_main(v6(), 5121, flip_digit),
            "the payload's SHA-512",
        ),
        bad(
            "v6 SHA3-256",
            in_main(v6(), 5123, flip_digit),
            "the payload's SHA3-256",
        ),
        bad(
            "v4 SHA-256",
            in_main(v4(), 5092, flip_digit),
            "the payload digest",
        ),
        bad(
            "v4 empty SHA-256",
            in_main(v4(), 5092, cut_off),
            "the payload digest",
        ),
    ];
    for (package, tag, reason) in [
        (v4(), 269, "the header's SHA-1"),
        (v4(), 273, "the header's SHA-256"),
        (v6(), 273, "the header's SHA-256"),
        (v6(), 279, "the header's SHA3-256"),
        (&old, 269, "the header's SHA-1"),
    ] {
        for change in [flip_digit as fn(&mut Value), cut_off] {
            cases.push(bad(
                format!("digest {tag}"),
                with_signature_value(package, tag, change),
                reason,
            ));
        }
    }
    for package in [v4(), v6(), &old] {
        let (_, _, _, store_at, end) = Places::of(package).headers[1];
        // Letters of the first value, which no rule of the format speaks of.
        for at in [store_at, store_at + 2, store_at + 8]
            .into_iter()
            .filter(|at| *at < end)
        {
            cases.push(bad(
                "main header",
                with_byte_flipped(package, at),
                "the header's SHA",
            ));
        }
    }
    assert_refused(cases);
}
