//! Packages that others made, from rpm 4.4 to 6.0: each is signed and unsigned as its format wants it, or refused for a reason.
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
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use common::{
    Rpmdb, Sections, TestKey, Value, corpus, edited, keeps_length, packages_below, run, values,
};
use signdrop::{
    digest::Digest,
    format::rpm::{Error, Package, Whole},
    key::Algorithm,
};

/// The packages that are not sound, and a part of the reason.
const REFUSED: [(&str, &str); 1] = [(
    "hello-2.0-1.x86_64-corrupted.rpm",
    "the payload digest does not match",
)];

/// The packages by rpm before 4.14, with no payload digest.
const LEGACY: [&str; 4] = [
    "foo-1.0-1.src.rpm",
    "hello-1.0-1.i386.rpm",
    "hello-1.0-1.ppc64.rpm",
    "obsolete-foo-1.0-1.noarch.rpm",
];

/// The packages that are signed already, and the tags of their signatures.
const SIGNED: [(&str, &[u32]); 16] = [
    ("rpm-basic-with-ecdsa-2.3.4-5.el9.noarch.rpm", &[267]),
    (
        "v4/signed/rpm-basic-with-ed25519-2.3.4-5.el9.noarch.rpm",
        &[267],
    ),
    ("rpm-basic-with-ima-2.3.4-5.el9.noarch.rpm", &[267, 278]),
    ("rpm-basic-with-rsa4096-2.3.4-5.el9.noarch.rpm", &[268]),
    (
        "rpm-basic-multiple-signatures-2.3.4-5.el9.noarch.rpm",
        &[278],
    ),
    (
        "v6/signed/rpm-basic-with-ed25519-2.3.4-5.el9.noarch.rpm",
        &[278],
    ),
    (
        "rpm-basic-with-mldsa65-ed25519-2.3.4-5.el9.noarch.rpm",
        &[278],
    ),
    ("rpm-basic-with-rsa4k-2.3.4-5.el9.noarch.rpm", &[278]),
    ("hello-2.0-1.x86_64-badima.rpm", &[268]),
    ("hello-2.0-1.x86_64-signed-mldsa87.rpm", &[268, 278, 1002]),
    ("hello-2.0-1.x86_64-signed-with-new-subkey.rpm", &[267]),
    ("hello-2.0-1.x86_64-signed-with-subkey.rpm", &[268]),
    ("hello-2.0-1.x86_64-signed.rpm", &[268, 1002]),
    ("hello-2.0-1.x86_64-v3-signed.rpm", &[268, 1002]),
    ("hlinktest-1.0-1.noarch-v3sig.rpm", &[268, 1002]),
    ("mwe-rpm-lua-problem-1.0.0-1.noarch.rpm", &[267]),
];

/// The packages with IMA signatures (tags 274 and 275), sound or not: they are nobody's but the file system's to judge.
const IMA: [&str; 3] = [
    "hello-2.0-1.x86_64-badima.rpm",
    "imatest-1.0-1.fc34.noarch.rpm",
    "rpm-basic-with-ima-2.3.4-5.el9.noarch.rpm",
];

/// All packages, fewer of which would mean that the corpus is not what it was.
fn packages() -> Vec<PathBuf> {
    let packages = packages_below(&corpus());
    assert!(packages.len() >= 48, "only {} packages", packages.len());
    for name in names() {
        let found = packages.iter().filter(|path| is(path, name)).count();
        assert_eq!(found, 1, "{name}");
    }
    packages
}

fn names() -> impl Iterator<Item = &'static str> {
    let refused = REFUSED.iter().map(|(name, _)| *name);
    let signed = SIGNED.iter().map(|(name, _)| *name);
    refused.chain(signed).chain(LEGACY).chain(IMA)
}

fn is(path: &Path, name: &str) -> bool {
    path.ends_with(name)
}

fn is_legacy(path: &Path) -> bool {
    LEGACY.iter().any(|name| is(path, name))
}

fn whole(path: &Path) -> Result<Whole, Error> {
    let file = File::open(path).unwrap();
    Package::read(&file)?.check(&file, Digest::Sha256)
}

fn is_signature(tag: u32) -> bool {
    [267, 268, 278, 1002, 1005].contains(&tag)
}

fn signature_tags(package: &[u8]) -> Vec<u32> {
    let signature = values(&Sections::of(package).signature);
    let tags = signature.iter().map(|value| value.tag);
    tags.filter(|tag| is_signature(*tag)).collect()
}

/// What has to stay as it is in the signature header: all but OpenPGP signatures and filler.
fn others(package: &[u8]) -> Vec<Value> {
    let mut signature = values(&Sections::of(package).signature);
    signature.retain(|value| !is_signature(value.tag) && value.tag != 999 && value.tag != 1008);
    signature
}

fn assert_same_but_for_signatures(path: &Path, a: &[u8], b: &[u8]) {
    let rest = |package: &[u8]| {
        let Sections {
            lead,
            main,
            payload,
            ..
        } = Sections::of(package);
        (lead, main, payload)
    };
    assert!(rest(a) == rest(b), "{}: content", path.display());
    assert_eq!(others(a), others(b), "{}", path.display());
}

/// What rpmkeys says of the digests alone.
fn digests(said: &str) -> Vec<String> {
    let lines = said.lines().filter(|line| line.contains("digest: "));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// The signature of the header in a v6 package, by the `rpm` crate, as gpgv finds it; rpm 4.18 does not look for it.
fn assert_gpgv_verifies(dir: &Path, package: &[u8], key: &TestKey) {
    let parsed = rpm::PackageMetadata::parse(&mut &package[..]).unwrap();
    let offsets = parsed.get_package_segment_offsets();
    let signatures = parsed.raw_signatures().unwrap();
    assert_eq!(signatures.len(), 1);
    let [keyring, signature, content] = [
        ("key.pgp", &key.certificate.to_bytes().unwrap()[..]),
        ("header.sig", &signatures[0]),
        (
            "header",
            &package[offsets.header as usize..offsets.payload as usize],
        ),
    ]
    .map(|(name, bytes)| {
        fs::write(dir.join(name), bytes).unwrap();
        dir.join(name)
    });
    let output = run(Command::new("gpgv")
        .arg("--keyring")
        .args([keyring, signature, content]));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_package_is_refused_exactly_where_rpm_finds_a_digest_that_does_not_match() {
    let rpmdb = Rpmdb::new(
        &TestKey::new(Algorithm::Ed25519)
            .certificate
            .to_armour()
            .unwrap(),
    );
    for path in packages() {
        let (_, said) = rpmdb.check(&path);
        let digests = digests(&said);
        assert!(!digests.is_empty(), "{said}");
        let sound = digests.iter().all(|line| line.ends_with(": OK"));
        let expected = REFUSED.iter().find(|(name, _)| is(&path, name));
        match (whole(&path), expected) {
            (Ok(_), None) => assert!(sound, "{said}"),
            (Err(error), Some((_, reason))) => {
                assert!(error.to_string().contains(reason), "{error}");
                assert!(!sound, "{said}");
            }
            (found, _) => panic!("{}: {found:?}\n{said}", path.display()),
        }
    }
}

#[test]
fn every_sound_package_is_signed_as_rpm_wants_it_and_unsigning_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("package.rpm");
    for algorithm in [Algorithm::Rsa2048, Algorithm::Rsa4096, Algorithm::Ed25519] {
        let key = TestKey::new(algorithm);
        let rpmdb = Rpmdb::new(&key.certificate.to_armour().unwrap());
        for path in packages() {
            let Ok(whole) = whole(&path) else { continue };
            let name = path.display();
            let original = fs::read(&path).unwrap();
            let was_signed = SIGNED.iter().find(|(name, _)| is(&path, name));
            let tags = was_signed.map_or(&[][..], |(_, tags)| *tags);
            assert_eq!(signature_tags(&original), tags, "{name}");
            assert!(!whole.is_signed_by(&key.public), "{name}");

            let edit = whole.sign(&key, SystemTime::now()).unwrap();
            let signed = edited(&original, &edit);
            assert_same_but_for_signatures(&path, &original, &signed);
            let filler = values(&Sections::of(&original).signature)
                .into_iter()
                .find(|value| value.tag == 999 || value.tag == 1008);
            if filler.is_some() {
                assert!(keeps_length(&edit), "{name}");
                assert_eq!(signed.len(), original.len());
            }
            fs::write(&file, &signed).unwrap();
            let (good, said) = rpmdb.check(&file);
            assert!(good, "{name}: {said}");
            let both = is_legacy(&path);
            let tags: &[u32] = match (whole.package().version(), algorithm.is_rsa(), both) {
                (6, _, false) => &[278],
                (4, true, false) => &[268],
                (4, false, false) => &[267],
                (4, true, true) => &[268, 1002],
                (4, false, true) => &[267, 1005],
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(signature_tags(&signed), tags, "{name}");
            if whole.package().version() == 6 {
                assert_gpgv_verifies(dir.path(), &signed, &key);
            } else {
                assert!(rpmdb.is_signed(&file), "{name}: {said}");
                assert!(said.contains("    Header V4 "), "{said}");
                assert_eq!(said.contains("    V4 "), both, "{said}");
            }

            let whole = self::whole(&file).unwrap();
            assert!(whole.is_signed_by(&key.public), "{name}");
            let unsigned = edited(&signed, &whole.unsign().unwrap());
            assert_same_but_for_signatures(&path, &original, &unsigned);
            fs::write(&file, &unsigned).unwrap();
            let (good, said) = rpmdb.check(&file);
            assert!(good && !said.contains("Signature"), "{name}: {said}");
            if was_signed.is_none() {
                assert!(unsigned == original, "{name}: unsigning left something");
            }
        }
    }
}

#[test]
fn unsigning_what_others_signed_leaves_a_sound_package() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("package.rpm");
    let rpmdb = Rpmdb::new(
        &TestKey::new(Algorithm::Ed25519)
            .certificate
            .to_armour()
            .unwrap(),
    );
    for path in packages() {
        let Ok(whole) = whole(&path) else { continue };
        let original = fs::read(&path).unwrap();
        match whole.unsign() {
            None => assert_eq!(signature_tags(&original), [0; 0]),
            Some(edit) => {
                assert!(SIGNED.iter().any(|(name, _)| is(&path, name)));
                let unsigned = edited(&original, &edit);
                assert_same_but_for_signatures(&path, &original, &unsigned);
                fs::write(&file, &unsigned).unwrap();
                let (good, said) = rpmdb.check(&file);
                assert!(good && !said.contains("Signature"), "{said}");
                assert!(self::whole(&file).unwrap().unsign().is_none());
            }
        }
    }
}

#[test]
fn the_packages_with_ima_signatures_are_in_the_corpus() {
    for path in packages() {
        let kept = others(&fs::read(&path).unwrap());
        let ima = kept.iter().filter(|value| [274, 275].contains(&value.tag));
        let expected = IMA.iter().any(|name| is(&path, name));
        assert_eq!(ima.count() == 2, expected, "{}", path.display());
    }
}
