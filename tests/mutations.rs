//! Ten thousand damaged packages: none makes the reader panic, and none that rpm finds damaged is signed.
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
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use common::{
    Numbers, Rpmdb, Sections, TestKey, asked, edited, legacy, quick_package, rpmbuild, run, values,
};
use signdrop::{
    digest::Digest,
    format::rpm::{Error, Package, Whole},
    key::Algorithm,
};

/// `SIGNDROP_MUTATIONS` and `SIGNDROP_SEED` ask for more of them and for others.
const MUTATIONS: usize = 10_000;
const SEED: usize = 0x5eed_0f51_6d0d_2026;

struct Original {
    name: &'static str,
    bytes: Vec<u8>,
    /// The bytes that are not payload and not filler: there damage matters most, and is rarest when it falls blindly.
    vital: Vec<usize>,
    /// Where the entries of both indexes begin.
    entries: Vec<usize>,
}

impl Original {
    fn new(name: &'static str, bytes: Vec<u8>) -> Self {
        let sections = Sections::of(&bytes);
        let main = (96 + sections.signature.len()).next_multiple_of(8);
        let filler = |value: &&common::Value| [999, 1008].contains(&value.tag);
        let filler = values(&sections.signature)
            .iter()
            .find(filler)
            .map_or(0, |value| value.bytes.len());
        // The filler comes last in the store, before the region's 16 bytes, in every package here.
        let filler_end = 96 + sections.signature.len() - 16;
        let vital = (0..main + sections.main.len())
            .filter(|at| !(filler_end - filler..filler_end).contains(at))
            .collect();
        let entries = |start: usize, header: &[u8]| {
            (0..=values(header).len()).map(move |place| start + 16 + 16 * place)
        };
        Self {
            name,
            vital,
            entries: entries(96, &sections.signature)
                .chain(entries(main, &sections.main))
                .collect(),
            bytes,
        }
    }

    fn mutated(&self, others: &[Self], numbers: &mut Numbers) -> Vec<u8> {
        const TAGS: [u32; 20] = [
            0, 61, 62, 63, 99, 100, 267, 268, 269, 270, 273, 274, 278, 279, 999, 1000, 1002, 1004,
            1005, 1008,
        ];
        const EXTREMES: [u32; 9] = [
            0,
            1,
            2,
            16,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_fff0,
            0xffff_ffff,
            0x0fff_ffff,
        ];
        let mut bytes = self.bytes.clone();
        for _ in 0..=numbers.below(2) {
            let len = bytes.len().max(1);
            let place = match numbers.below(5) {
                0 => numbers.below(len),
                _ => numbers.one_of(&self.vital) % len,
            };
            match numbers.below(16) {
                0..5 => flip(&mut bytes, place, 1 << numbers.below(8)),
                5..7 => flip(&mut bytes, place, 1 + numbers.below(255) as u8),
                7..11 => {
                    let at = numbers.one_of(&self.entries);
                    let (field, word) = match numbers.below(4) {
                        0 => (0, numbers.one_of(&TAGS)),
                        1 => (4, numbers.below(11) as u32),
                        2 => (8, numbers.below(9000) as u32),
                        _ => (12, numbers.below(40) as u32),
                    };
                    let extreme = numbers.below(4) == 0;
                    let word = if extreme {
                        numbers.one_of(&EXTREMES)
                    } else {
                        word
                    };
                    if let Some(there) = bytes.get_mut(at + field..at + field + 4) {
                        there.copy_from_slice(&word.to_be_bytes());
                    }
                }
                11 => bytes.truncate(place),
                12 => {
                    let inserted = (0..=numbers.below(32)).map(|_| numbers.below(256) as u8);
                    let inserted: Vec<u8> = inserted.collect();
                    bytes.splice(place.min(bytes.len())..place.min(bytes.len()), inserted);
                }
                13 => {
                    let end = (place + 1 + numbers.below(32)).min(bytes.len());
                    bytes.drain(place.min(end)..end);
                }
                14 => {
                    let len = (1 + numbers.below(64)).min(bytes.len());
                    let (a, b) = (place, numbers.one_of(&self.vital));
                    for (a, b) in (a..a + len).zip(b..b + len) {
                        if a.max(b) < bytes.len() {
                            bytes.swap(a, b);
                        }
                    }
                }
                _ => {
                    let other = &others[numbers.below(others.len())].bytes;
                    let at = numbers.below(other.len());
                    bytes.truncate(place);
                    bytes.extend_from_slice(&other[at..]);
                }
            }
        }
        bytes
    }
}

fn flip(bytes: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= bits;
    }
}

/// Several kinds, signed and not, so that splices mix them.
fn originals(key: &TestKey) -> Vec<Original> {
    let dir = tempfile::tempdir().unwrap();
    let read = |path: PathBuf| fs::read(path).unwrap();
    let v4 = read(rpmbuild(dir.path(), "real", 500));
    let quick_v4 = read(quick_package(dir.path(), "v4", 500, rpm::RpmFormat::V4));
    let v6 = read(quick_package(dir.path(), "v6", 500, rpm::RpmFormat::V6));
    let old = legacy(&v4);
    let signed = |package: &[u8]| sign(package, &whole(package).unwrap(), key);
    let (signed_v4, signed_v6, signed_old) = (signed(&v4), signed(&v6), signed(&old));
    vec![
        Original::new("v4 by rpmbuild", v4),
        Original::new("v4", quick_v4),
        Original::new("v6", v6),
        Original::new("legacy", old),
        Original::new("signed v4", signed_v4),
        Original::new("signed v6", signed_v6),
        Original::new("signed legacy", signed_old),
    ]
}

fn whole(package: &[u8]) -> Result<Whole, Error> {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(package, 0).unwrap();
    Package::read(&file)?.check(&file, Digest::Sha256)
}

fn sign(package: &[u8], whole: &Whole, key: &TestKey) -> Vec<u8> {
    edited(package, &whole.sign(key, SystemTime::now()).unwrap())
}

/// Main header and payload, which no accepted damage may have touched.
fn content(package: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let Sections { main, payload, .. } = Sections::of(package);
    (main, payload)
}

#[test]
fn no_mutation_panics_and_none_that_rpm_finds_damaged_is_signed() {
    let key = TestKey::new(Algorithm::Rsa2048);
    let rpmdb = Rpmdb::new(&key.certificate.to_armour().unwrap());
    let originals = originals(&key);
    let contents: Vec<_> = originals
        .iter()
        .map(|original| content(&original.bytes))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file: File = tempfile::tempfile().unwrap();
    let mutations = asked("SIGNDROP_MUTATIONS", MUTATIONS);
    let mut numbers = Numbers(asked("SIGNDROP_SEED", SEED) as u64);
    let (mut accepted_v4, mut accepted_v6, mut refused) = (Vec::new(), Vec::new(), 0);
    for number in 0..mutations {
        let original = &originals[number % originals.len()];
        let bytes = original.mutated(&originals, &mut numbers);
        let what = format!("mutation {number}, of {}", original.name);
        file.set_len(0).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let checked = catch_unwind(AssertUnwindSafe(|| {
            Package::read(&file)?.check(&file, Digest::Sha256)
        }));
        let whole = match checked {
            Ok(Ok(whole)) => whole,
            Ok(Err(error)) => {
                assert!(!error.may_pass(), "{what}: {error}");
                refused += 1;
                continue;
            }
            Err(_) => panic!("{what} panics"),
        };
        assert!(
            contents.contains(&content(&bytes)),
            "{what}: content of no original was accepted"
        );
        let path = dir.path().join(format!("{number}.rpm"));
        let signed = sign(&bytes, &whole, &key);
        assert!(
            contents.contains(&content(&signed)),
            "{what}: signing changed the content"
        );
        assert_eq!(
            signed[..96],
            bytes[..96],
            "{what}: signing changed the lead"
        );
        fs::write(&path, &signed).unwrap();
        if let Some(edit) = whole.unsign() {
            assert_eq!(content(&edited(&bytes, &edit)), content(&bytes), "{what}");
        }
        let accepted = if whole.package().version() == 6 {
            &mut accepted_v6
        } else {
            &mut accepted_v4
        };
        accepted.push(path);
    }
    println!(
        "{refused} refused, {} v4 and {} v6 accepted",
        accepted_v4.len(),
        accepted_v6.len()
    );
    assert!(refused > mutations / 4, "the mutations are too weak");
    assert!(accepted_v4.len() > 100 && accepted_v6.len() > 50);

    let mut wrong = Vec::new();
    for batch in accepted_v4.chunks(500) {
        for path in rpmdb.not_signed(batch) {
            let (_, said) = rpmdb.check(path);
            if !only_an_obsolete_md5_is_bad(&said) {
                wrong.push(said);
            }
        }
    }
    // rpm 4.18 reads the digests of v6 packages, not their signatures.
    for batch in accepted_v6.chunks(500) {
        let output = run(Command::new("rpmkeys").arg("--checksig").args(batch));
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        for path in batch {
            let wanted = format!("{}: digests OK", path.display());
            if !said.lines().any(|line| line.ends_with(&wanted)) {
                let said = rpmdb.check(path).1;
                if !only_sha3_covers_the_header(&said, path) {
                    wrong.push(said);
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} accepted, but:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The MD5 of header and payload is not computed where both have a better digest: it would take longer than all else together. rpm
/// before 6.0 does compute it, and so alone notices damage to the sixteen bytes of the MD5 itself.
fn only_an_obsolete_md5_is_bad(said: &str) -> bool {
    said.contains("Payload SHA256 digest: OK")
        && said.contains("Signature, key ID")
        && said
            .lines()
            .skip(1)
            .all(|line| line.contains(": OK") || line.contains("    MD5 digest: BAD"))
}

/// A v6 package whose header's SHA-256 is gone still has its SHA3-256, which rpm 4.18 does not know and rpm 6.0 is content with.
fn only_sha3_covers_the_header(said: &str, path: &Path) -> bool {
    let digests = rpm::Package::open(path).unwrap().check_digests().unwrap();
    said.contains("Header SHA256 digest: NOTFOUND")
        && said.contains("Payload SHA256 digest: OK")
        && digests.is_ok()
        && digests.header_sha3_256.is_verified()
}
