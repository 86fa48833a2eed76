//! Kernel modules: signed as the kernel's own sign-file signs them, unsigned to the byte, and never when they are not sound.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::Command,
};

use common::{
    Numbers, TestKey, asked, certificate, edited,
    modules::{
        MARKER, SignFile, TRAILER, bare, is_signed, modinfo, modules_of, signed_by_openssl,
        small_module, split, through,
    },
    run, splices,
};
use signdrop::{
    digest::Digest,
    edit::Edit,
    format::{
        UnpackLimit,
        kmod::{Error, Module, Whole},
    },
    key::Algorithm,
};

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn read(bytes: &[u8]) -> Result<Module, Error> {
    Module::read(&file(bytes), UnpackLimit::default())
}

fn check(bytes: &[u8], digest: Digest) -> Result<Whole, Error> {
    read(bytes)?.check(digest)
}

fn sign(bytes: &[u8], key: &TestKey, digest: Digest) -> Vec<u8> {
    let edit = check(bytes, digest).unwrap().sign(key).unwrap();
    edited(bytes, &edit)
}

fn unsign(bytes: &[u8]) -> Option<Vec<u8>> {
    let edit = check(bytes, Digest::Sha256).unwrap().unsign().unwrap()?;
    Some(edited(bytes, &edit))
}

/// Sixty modules of Debian's 6.1 kernel of all sizes, unsigned.
fn real_modules() -> Vec<Vec<u8>> {
    let all = modules_of("bookworm");
    let step = all.len() / 60;
    all.iter()
        .step_by(step)
        .map(|path| bare(&fs::read(path).unwrap()).to_vec())
        .collect()
}

#[test]
fn rsa_signatures_are_those_of_sign_file_to_the_byte() {
    let modules = real_modules();
    assert!(modules.len() >= 50);
    for algorithm in [Algorithm::Rsa2048, Algorithm::Rsa3072, Algorithm::Rsa4096] {
        let key = TestKey::new(algorithm);
        let sign_file = SignFile::new(&key);
        for digest in [Digest::Sha256, Digest::Sha384, Digest::Sha512] {
            for module in &modules {
                let signed = sign(module, &key, digest);
                assert!(signed == sign_file.sign(module, digest.name()));
            }
        }
    }
}

#[test]
fn a_signature_of_the_openpgp_key_names_the_key_and_fits_each_of_its_certificates() {
    let key = TestKey::of_both(Algorithm::Rsa2048);
    let module = small_module();
    let signed = sign(&module, &key, Digest::Sha256);
    assert!(signed == SignFile::new(&key).sign_by_key_identifier(&module, "sha256"));
    let whole = check(&signed, Digest::Sha256).unwrap();
    let (one, other) = (key.x509.as_ref().unwrap(), certificate(&key.secret));
    assert_ne!(one.serial(), other.serial());
    for certificate in [one, &other] {
        assert!(is_signed(&signed, certificate));
        assert!(whole.is_signed_by(certificate));
    }
    let stranger = TestKey::new(Algorithm::Rsa2048);
    assert!(!whole.is_signed_by(stranger.x509.as_ref().unwrap()));
}

#[test]
fn openssl_and_modinfo_agree_on_every_algorithm_and_digest() {
    let modules = real_modules();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for algorithm in [
        Algorithm::Rsa2048,
        Algorithm::Rsa3072,
        Algorithm::Rsa4096,
        Algorithm::NistP256,
        Algorithm::NistP384,
    ] {
        let key = TestKey::new(algorithm);
        let certificate = key.x509.as_ref().unwrap();
        fs::write(path("certificate.pem"), certificate.to_pem().unwrap()).unwrap();
        let serial = certificate.serial();
        let serial: Vec<_> = serial.as_bytes().chunks(2).collect();
        let serial = String::from_utf8(serial.join(&b':')).unwrap();
        for digest in [Digest::Sha256, Digest::Sha384, Digest::Sha512] {
            let mut paths = Vec::new();
            for (number, module) in modules.iter().enumerate() {
                let signed = sign(module, &key, digest);
                paths.push(path(&format!("{number}.ko")));
                fs::write(&paths[number], &signed).unwrap();
                let (covered, signature) = split(&signed).unwrap();
                assert!(covered == module);
                fs::write(path("covered"), covered).unwrap();
                fs::write(path("signature"), signature).unwrap();
                let output = run(Command::new("openssl")
                    .args(["cms", "-verify", "-binary", "-inform", "DER", "-nointern"])
                    .args(["-noverify", "-out", "/dev/null", "-in"])
                    .arg(path("signature"))
                    .arg("-content")
                    .arg(path("covered"))
                    .arg("-certfile")
                    .arg(path("certificate.pem")));
                assert!(output.status.success(), "{algorithm} {digest}: {output:?}");
            }
            for (field, wanted) in [
                ("signer", "alice#tools@copr.example.org"),
                ("sig_key", serial.as_str()),
                ("sig_hashalgo", digest.name()),
            ] {
                assert_eq!(modinfo(field, &paths), vec![wanted; paths.len()]);
            }
        }
    }
}

#[test]
fn sha1_gives_way_to_a_digest_that_kernels_take() {
    let key = TestKey::new(Algorithm::Rsa2048);
    let module = small_module();
    let signed = sign(&module, &key, Digest::Sha1);
    assert!(signed == sign(&module, &key, Digest::Sha256));
}

#[test]
fn signing_appends_and_touches_nothing_else() {
    let key = TestKey::new(Algorithm::Rsa2048);
    let module = small_module();
    let edit = check(&module, Digest::Sha256).unwrap().sign(&key).unwrap();
    let [splice] = splices(&edit) else {
        panic!("{edit:?}")
    };
    assert_eq!((splice.at, splice.old_len), (module.len() as u64, 0));
    assert!(is_signed(
        &edited(&module, &edit),
        key.x509.as_ref().unwrap()
    ));
}

#[test]
fn unsigning_gives_back_the_very_bytes_of_real_modules() {
    let key = TestKey::new(Algorithm::Rsa2048);
    for module in real_modules() {
        assert!(unsign(&module).is_none());
        let signed = sign(&module, &key, Digest::Sha512);
        assert!(unsign(&signed).unwrap() == module);
    }
}

#[test]
fn a_module_has_one_signature_however_often_it_is_signed_and_by_whom() {
    let (key, other) = (
        TestKey::new(Algorithm::Rsa2048),
        TestKey::new(Algorithm::NistP256),
    );
    let (certificate, foreign) = (key.x509.as_ref().unwrap(), other.x509.as_ref().unwrap());
    let module = small_module();
    let signed = sign(&module, &key, Digest::Sha256);
    let stacked = SignFile::new(&other).sign(
        &SignFile::new(&key).sign(&SignFile::new(&other).sign(&module, "sha512"), "sha256"),
        "sha256",
    );
    assert_eq!(read(&stacked).unwrap().held().len(), 3);
    assert!(is_signed(&stacked, foreign));
    for before in [
        &module,
        &signed,
        &stacked,
        &sign(&module, &other, Digest::Sha256),
    ] {
        assert!(sign(before, &key, Digest::Sha256) == signed);
    }
    assert!(unsign(&stacked).unwrap() == module);

    let whole = check(&signed, Digest::Sha256).unwrap();
    assert!(whole.is_signed_by(certificate));
    assert!(!whole.is_signed_by(foreign));
    let otherwise = check(&signed, Digest::Sha512).unwrap();
    assert!(
        !otherwise.is_signed_by(certificate),
        "another digest is wanted"
    );
    let covered = SignFile::new(&key).sign(&sign(&module, &other, Digest::Sha256), "sha256");
    let whole = check(&covered, Digest::Sha256).unwrap();
    assert!(
        !whole.is_signed_by(certificate),
        "a second signature is below"
    );
    let mut damaged = signed.clone();
    damaged[100] ^= 1;
    assert!(!check(&damaged, Digest::Sha256).is_ok_and(|whole| whole.is_signed_by(certificate)));
}

#[test]
fn a_module_with_a_signature_of_old_kernels_is_signed_anew() {
    let key = TestKey::new(Algorithm::Rsa2048);
    let module = small_module();
    // Signer's name, key identifier, signature (Linux 3.7 to 4.2, scripts/sign-file).
    let mut old = module.clone();
    old.extend(b"Magrathea: Glacier signing key");
    old.extend([7; 20]);
    old.extend([9; 258]);
    old.extend([1, 4, 1, 30, 20, 0, 0, 0, 0, 0, 1, 2]);
    old.extend(MARKER);
    assert!(unsign(&old).unwrap() == module);
    assert!(sign(&old, &key, Digest::Sha256) == sign(&module, &key, Digest::Sha256));
}

#[test]
fn compressed_modules_stay_compressed_in_a_way_that_kernels_take() {
    let key = TestKey::new(Algorithm::Rsa4096);
    let module = small_module();
    let signed = sign(&module, &key, Digest::Sha256);
    let dir = tempfile::tempdir().unwrap();
    for (pack, end) in [
        (&["gzip", "-1nc"][..], "gz"),
        (&["gzip", "-c"], "gz"),
        (&["gzip", "-9nc"], "gz"),
        (&["xz", "-0c"], "xz"),
        (&["xz", "-9ec"], "xz"),
        (&["xz", "-c", "--check=none"], "xz"),
        (
            &["xz", "-c", "--check=sha256", "--x86", "--lzma2=dict=8MiB"],
            "xz",
        ),
        (&["xz", "-c", "--check=crc32", "--lzma2=dict=1MiB"], "xz"),
        (&["xz", "-c", "--block-size=4096"], "xz"),
        (&["zstd", "-qc", "-1"], "zst"),
        (&["zstd", "-qc"], "zst"),
        (&["zstd", "-qc", "-19", "--no-check"], "zst"),
        (&["zstd", "-qc", "--ultra", "-22", "--long=27"], "zst"),
    ] {
        let name = format!("module.ko.{end}");
        let packed = through(pack, &module);
        assert!(unsign(&packed).is_none(), "{pack:?}");
        let packed_signed = sign(&packed, &key, Digest::Sha256);
        // The program itself unpacks it, and so does modinfo; Debian's knows no gzip.
        let unpack = [pack[0], "-dc"];
        assert!(through(&unpack, &packed_signed) == signed, "{pack:?}");
        let path = dir.path().join(&name);
        fs::write(&path, &packed_signed).unwrap();
        if end != "gz" {
            assert_eq!(modinfo("sig_hashalgo", &[path]), ["sha256"], "{pack:?}");
        }
        let whole = check(&packed_signed, Digest::Sha256).unwrap();
        assert!(whole.is_signed_by(key.x509.as_ref().unwrap()), "{pack:?}");
        drop(whole);
        let unsigned = unsign(&packed_signed).unwrap();
        assert!(through(&unpack, &unsigned) == module, "{pack:?}");
        match end {
            "xz" => {
                let output = run(Command::new("xz")
                    .args(["--robot", "-lvv"])
                    .arg(dir.path().join(&name)));
                let text = String::from_utf8(output.stdout).unwrap();
                assert!(text.contains("\tCRC32\t"), "{text}");
                assert!(text.contains("--lzma2=dict=1MiB"), "{text}");
                assert!(!text.contains("--x86"), "{text}");
            }
            "gz" => {
                assert_eq!(packed_signed[3..8], [0; 5], "no name and no time");
                let is_smallest = |packed: &[u8]| packed[8] == 2;
                assert_eq!(
                    is_smallest(&packed_signed),
                    is_smallest(&packed),
                    "{pack:?}"
                );
            }
            _ => assert_eq!(packed_signed[4] & 4, packed[4] & 4, "{pack:?}: checksum"),
        }
        // As small as before, but for the signature.
        let added = packed_signed.len() as i64 - packed.len() as i64;
        assert!(added < 1024 + packed.len() as i64 / 10, "{pack:?}: {added}");
    }
}

#[test]
fn several_compressed_parts_one_behind_the_other_are_one_module() {
    let key = TestKey::new(Algorithm::Rsa2048);
    let module = small_module();
    let (one, other) = module.split_at(module.len() / 2);
    for command in [&["gzip", "-c"][..], &["xz", "-c"], &["zstd", "-qc"]] {
        let packed = [through(command, one), through(command, other)].concat();
        let signed = sign(&packed, &key, Digest::Sha256);
        let unpacked = through(&[command[0], "-dc"], &signed);
        assert!(
            unpacked == sign(&module, &key, Digest::Sha256),
            "{command:?}"
        );
    }
}

#[test]
fn modules_of_other_processors_are_signed_too() {
    let key = TestKey::new(Algorithm::Rsa2048);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("module.s");
    fs::write(
        &source,
        ".section .modinfo,\"a\"\n.asciz \"name=far\"\n.asciz \"license=GPL\"\n.text\n.long 1\n",
    )
    .unwrap();
    for (assembler, options, kind) in [
        ("as", &["--32"][..], "32-bit LSB relocatable"),
        ("s390x-linux-gnu-as", &[], "64-bit MSB relocatable"),
        ("mips-linux-gnu-as", &[], "32-bit MSB relocatable"),
    ] {
        let object = dir.path().join("module.ko");
        let output = run(Command::new(assembler)
            .args(options)
            .arg("-o")
            .arg(&object)
            .arg(&source));
        assert!(output.status.success(), "{output:?}");
        let described = run(Command::new("file").arg("-b").arg(&object));
        let described = String::from_utf8(described.stdout).unwrap();
        assert!(described.contains(kind), "{described}");
        let module = fs::read(&object).unwrap();
        assert_eq!(
            read(&module).unwrap().information("name").as_deref(),
            Some("far")
        );
        let signed = sign(&module, &key, Digest::Sha256);
        assert!(
            signed == SignFile::new(&key).sign(&module, "sha256"),
            "{kind}"
        );
        // Cut short anywhere, it is no module any more.
        for len in 0..module.len() {
            assert!(
                check(&module[..len], Digest::Sha256).is_err(),
                "{kind} {len}"
            );
        }
    }
}

/// What is wrong with a file, and a part of what is said of it.
fn damaged() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let key = TestKey::new(Algorithm::Rsa2048);
    let module = small_module();
    let signed = sign(&module, &key, Digest::Sha256);
    let section_table = u64::from_le_bytes(module[40..48].try_into().unwrap()) as usize;
    let changed = |from: &[u8], at: usize, new: &[u8]| {
        let mut bytes = from.to_vec();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    let joined = |parts: &[&[u8]]| parts.concat();
    let described_at = signed.len() - TRAILER;
    let (_, cms) = split(&signed).unwrap();
    let trailer = |len: u32| [&[0, 0, 2, 0, 0, 0, 0, 0][..], &len.to_be_bytes(), MARKER].concat();
    let len = |len: u32| len.to_be_bytes();
    let cms_len = cms.len() as u32;
    let xz = through(&["xz", "-c"], &module);
    let gzip = through(&["gzip", "-c"], &module);
    let zstd = through(&["zstd", "-qc"], &module);
    let signature_behind = joined(&[&xz, cms, &trailer(cms_len)]);
    let shared_object = fs::read("/lib/x86_64-linux-gnu/libc.so.6").unwrap();
    let mut flipped_xz = xz.clone();
    let middle = xz.len() / 2;
    flipped_xz[middle] ^= 0xff;
    vec![
        (
            "empty",
            vec![],
            "truncated in the ELF header: 0 bytes, 64 needed",
        ),
        (
            "a translation file of KDE",
            b"msgid \"\"\nmsgstr \"\"\n".to_vec(),
            "not a kernel module: it is no ELF file",
        ),
        (
            "a magic alone",
            b"\x7fELF".to_vec(),
            "truncated in the ELF header",
        ),
        (
            "half a magic",
            b"\x7fE".to_vec(),
            "truncated in the ELF header",
        ),
        (
            "half a header",
            module[..40].to_vec(),
            "truncated in the ELF header",
        ),
        (
            "half a module",
            module[..module.len() / 2].to_vec(),
            "truncated in the section table",
        ),
        (
            "one byte too few",
            module[..module.len() - 1].to_vec(),
            "truncated in the section table",
        ),
        (
            "one byte too many",
            joined(&[&module, b"\0"]),
            "1 bytes behind the module's end belong to no signature",
        ),
        (
            "a kilobyte of zeros behind",
            joined(&[&module, &[0; 1024]]),
            "1024 bytes behind the module's end belong to no signature",
        ),
        (
            "an executable",
            changed(&module, 16, &[2, 0]),
            "it is an executable",
        ),
        (
            "a shared object",
            shared_object,
            "it is a shared object or an executable",
        ),
        (
            "a core dump",
            changed(&module, 16, &[4, 0]),
            "it is no relocatable ELF file",
        ),
        (
            "an object without .modinfo",
            object_without_modinfo(),
            "it has no section .modinfo",
        ),
        (
            "an unknown class",
            changed(&module, 4, &[3]),
            "its ELF class is unknown",
        ),
        (
            "an unknown order of bytes",
            changed(&module, 5, &[3]),
            "its order of bytes is unknown",
        ),
        (
            "the other order of bytes",
            changed(&module, 5, &[2]),
            "it is no relocatable ELF file",
        ),
        (
            "sections of another size",
            changed(&module, 58, &[40, 0]),
            "its sections are described in an unknown way",
        ),
        (
            "no sections",
            changed(&module, 60, &[0, 0]),
            "it has no sections",
        ),
        (
            "too many sections",
            changed(&module, 60, &[0xff, 0xff]),
            "truncated in the section table",
        ),
        (
            "a section table at the end of the world",
            changed(&module, 40, &[0xff; 8]),
            "it has no sections",
        ),
        (
            "a section table in the header",
            changed(&module, 40, &[8, 0, 0, 0, 0, 0, 0, 0]),
            "it has no sections",
        ),
        (
            "names in no section",
            changed(&module, 62, &[0xff, 0]),
            "it has no names of sections",
        ),
        (
            "names in the null section",
            changed(&module, 62, &[0, 0]),
            "it has no names of sections",
        ),
        (
            "a section that is too long",
            changed(&module, section_table + 64 + 32, &[0xff, 0xff, 0xff]),
            "truncated in the sections",
        ),
        (
            "a section of an impossible length",
            changed(&module, section_table + 64 + 32, &[0xff; 8]),
            "a section has an impossible length",
        ),
        (
            "half a CMS",
            joined(&[&module, &cms[..cms.len() / 2], &trailer(cms_len / 2)]),
            "it is not one whole CMS structure",
        ),
        (
            "half a CMS with the whole one's length",
            joined(&[&module, &cms[..cms.len() / 2], &trailer(cms_len)]),
            "it states a length that it does not have",
        ),
        (
            "half a signature",
            signed[..module.len() + 100].to_vec(),
            "100 bytes behind the module's end belong to no signature",
        ),
        (
            "a signature without the marker's end",
            signed[..signed.len() - 1].to_vec(),
            "belong to no signature",
        ),
        (
            "a length that is too short",
            changed(&signed, described_at + 8, &len(cms_len - 1)),
            "it is not one whole CMS structure",
        ),
        (
            "a length that is too long",
            changed(&signed, described_at + 8, &len(cms_len + 1)),
            "it states a length that it does not have",
        ),
        (
            "a length of nothing",
            changed(&signed, described_at + 8, &len(0)),
            "its description is of an unknown kind",
        ),
        (
            "a length beyond all",
            changed(&signed, described_at + 8, &[0xff; 4]),
            "it states a length that it does not have",
        ),
        (
            "an unknown kind",
            changed(&signed, described_at + 2, &[3]),
            "its description is of an unknown kind",
        ),
        (
            "padding that is not zero",
            changed(&signed, described_at + 7, &[1]),
            "its description is of an unknown kind",
        ),
        (
            "zeros, as a crash leaves them",
            vec![0; 20_000],
            "it begins with zeros",
        ),
        (
            "an xz of zeros",
            through(&["xz", "-c"], &[0; 20_000]),
            "it begins with zeros",
        ),
        (
            "names where none are",
            changed(&signed, described_at + 3, &[1]),
            "its description is of an unknown kind",
        ),
        (
            "no CMS",
            changed(&signed, module.len(), &[0x31]),
            "it is not one whole CMS structure",
        ),
        (
            "garbage behind the marker",
            joined(&[&signed, b"\n"]),
            "belong to no signature",
        ),
        (
            "a module behind a signed one",
            joined(&[&signed, &module]),
            "belong to no signature",
        ),
        (
            "a marker in the middle",
            joined(&[&module, MARKER, &module[..4000]]),
            "belong to no signature",
        ),
        (
            "a marker alone",
            joined(&[&module, MARKER]),
            "belong to no signature",
        ),
        (
            "seventeen signatures",
            joined(&[&module, &signed[module.len()..].repeat(17)]),
            "too many are stacked",
        ),
        (
            "a signature behind xz",
            signature_behind,
            "cannot unpack the xz file",
        ),
        (
            "half an xz",
            xz[..xz.len() / 2].to_vec(),
            "cannot unpack the xz file",
        ),
        ("a damaged xz", flipped_xz, "cannot unpack the xz file"),
        (
            "garbage behind an xz",
            joined(&[&xz, b"12345678"]),
            "cannot unpack the xz file",
        ),
        (
            "half a gzip",
            gzip[..gzip.len() / 2].to_vec(),
            "cannot unpack the gzip file",
        ),
        (
            "a damaged gzip",
            changed(&gzip, gzip.len() - 8, &[0; 4]),
            "cannot unpack the gzip file",
        ),
        (
            "garbage behind a gzip",
            joined(&[&gzip, b"12345678"]),
            "cannot unpack the gzip file",
        ),
        (
            "half a zstd",
            zstd[..zstd.len() / 2].to_vec(),
            "cannot unpack the zstd file",
        ),
        (
            "a damaged zstd",
            changed(&zstd, zstd.len() - 4, &[0; 4]),
            "cannot unpack the zstd file",
        ),
        (
            "garbage behind a zstd",
            joined(&[&zstd, b"12345678"]),
            "cannot unpack the zstd file",
        ),
        (
            "an xz of nothing",
            through(&["xz", "-c"], b""),
            "truncated in the ELF header",
        ),
        (
            "an xz of text",
            through(&["xz", "-c"], b"msgid"),
            "it is no ELF file",
        ),
        (
            "an xz of an xz",
            through(&["xz", "-c"], &xz),
            "it is no ELF file",
        ),
        (
            "an xz of half a module",
            through(&["xz", "-c"], &module[..5000]),
            "truncated in the section table",
        ),
    ]
}

fn object_without_modinfo() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (source, object) = (dir.path().join("a.s"), dir.path().join("a.o"));
    fs::write(&source, ".text\nnop\n").unwrap();
    let output = run(Command::new("as").arg("-o").arg(&object).arg(&source));
    assert!(output.status.success(), "{output:?}");
    fs::read(object).unwrap()
}

#[test]
fn what_is_damaged_is_refused_with_the_reason() {
    for (what, bytes, said) in damaged() {
        let error = match check(&bytes, Digest::Sha256) {
            Ok(_) => panic!("{what}: accepted"),
            Err(error) => error,
        };
        assert!(!error.may_pass(), "{what}");
        assert!(error.to_string().contains(said), "{what}: {error}");
    }
}

#[test]
fn the_command_refuses_what_is_damaged_and_leaves_it_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for (number, (what, bytes, said)) in damaged().into_iter().enumerate() {
        let path = dir.path().join(format!("{number}.ko"));
        fs::write(&path, &bytes).unwrap();
        names.push((what, path, bytes, said));
    }
    let output = run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
        .arg("unsign")
        .args(names.iter().map(|(_, path, _, _)| path)));
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    for (what, path, bytes, said) in names {
        let line = told
            .lines()
            .find(|line| line.contains(&format!("{}: ", path.display())))
            .unwrap_or_else(|| panic!("{what}: nothing is said"));
        assert!(line.contains(said), "{what}: {line}");
        assert!(fs::read(&path).unwrap() == bytes, "{what}: changed");
    }
}

#[test]
fn a_decompression_bomb_ends_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let bomb = dir.path().join("bomb");
    // A module's start, and two gigabytes of zeros.
    let file = File::create(&bomb).unwrap();
    (&file).write_all(&small_module()).unwrap();
    file.set_len(2 << 30).unwrap();
    let limit: UnpackLimit = serde_json::from_str("16").unwrap();
    for command in [&["gzip", "-1c"][..], &["xz", "-0c"], &["zstd", "-qc"]] {
        let packed = dir.path().join("packed");
        let output = Command::new(command[0])
            .args(&command[1..])
            .stdin(File::open(&bomb).unwrap())
            .stdout(File::create(&packed).unwrap())
            .status()
            .unwrap();
        assert!(output.success());
        let error = Module::read(&File::open(&packed).unwrap(), limit).unwrap_err();
        assert!(matches!(error, Error::TooLarge(_)), "{error}");
        assert!(error.to_string().contains("16 MiB"), "{error}");
        fs::remove_file(&packed).unwrap();
    }
}

/// Where damage matters most: the ELF header, the section table, and what is appended.
fn vital(module: &[u8]) -> Vec<usize> {
    if !module.starts_with(b"\x7fELF") {
        return (0..module.len()).collect();
    }
    let table = u64::from_le_bytes(module[40..48].try_into().unwrap()) as usize;
    (0..64).chain(table..module.len()).collect()
}

fn mutated(original: &[u8], vital: &[usize], numbers: &mut Numbers) -> Vec<u8> {
    const EXTREMES: [u32; 6] = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 64];
    let mut bytes = original.to_vec();
    for _ in 0..=numbers.below(2) {
        let len = bytes.len().max(1);
        let at = match numbers.below(4) {
            0 => numbers.below(len),
            _ => numbers.one_of(vital) % len,
        };
        match numbers.below(10) {
            0..4 => bytes
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= 1 << numbers.below(8)),
            4 => {
                let word = numbers.one_of(&EXTREMES).to_le_bytes();
                bytes
                    .iter_mut()
                    .skip(at)
                    .zip(word)
                    .for_each(|(byte, new)| *byte = new);
            }
            5 => {
                let word = numbers.one_of(&EXTREMES).to_be_bytes();
                bytes
                    .iter_mut()
                    .skip(at)
                    .zip(word)
                    .for_each(|(byte, new)| *byte = new);
            }
            6 => bytes.truncate(at),
            7 => {
                let end = (at + numbers.below(200)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            8 => {
                let piece: Vec<u8> = bytes
                    .iter()
                    .skip(at)
                    .take(numbers.below(700))
                    .copied()
                    .collect();
                let to = numbers.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            _ => bytes.extend(vec![numbers.below(256) as u8; numbers.below(100)]),
        }
    }
    bytes
}

/// `SIGNDROP_MUTATIONS` and `SIGNDROP_SEED` ask for more of them and for others.
#[test]
fn ten_thousand_damaged_modules_never_panic_and_are_refused_or_signed_validly() {
    let key = TestKey::new(Algorithm::Rsa2048);
    let certificate = key.x509.as_ref().unwrap();
    let module = small_module();
    let signed = sign(&module, &key, Digest::Sha256);
    let stacked = SignFile::new(&TestKey::new(Algorithm::NistP256)).sign(&signed, "sha512");
    let originals = [
        (None, module.clone()),
        (None, signed.clone()),
        (None, stacked),
        (Some("gzip"), through(&["gzip", "-c"], &module)),
        (Some("xz"), through(&["xz", "-c", "--check=none"], &signed)),
        // With its checksum: what is damaged without one, two versions of zstd may unpack differently.
        (Some("zstd"), through(&["zstd", "-c"], &module)),
    ]
    .map(|(packer, bytes): (Option<&str>, Vec<u8>)| {
        let vital = vital(&bytes);
        (packer, bytes, vital)
    });
    let mut numbers = Numbers(asked("SIGNDROP_SEED", 0x6b6d_6f64_2026) as u64);
    let (mut refused, mut accepted, mut repacked, mut already) = (0, 0, 0, 0);
    for number in 0..asked("SIGNDROP_MUTATIONS", 10_000) {
        let (packer, original, vital) = &originals[number % originals.len()];
        let bytes = match packer {
            // Damage to compressed data is nearly always noticed, so that some is done before.
            Some(packer) if numbers.below(10) == 0 => {
                let (_, unpacked, vital) = &originals[numbers.below(3)];
                through(&[packer, "-c"], &mutated(unpacked, vital, &mut numbers))
            }
            Some(_) | None => mutated(original, vital, &mut numbers),
        };
        let whole = match check(&bytes, Digest::Sha256) {
            Ok(whole) => whole,
            Err(error) => {
                assert!(!error.may_pass(), "{number}: {error}");
                refused += 1;
                continue;
            }
        };
        let edit = whole.sign(&key).unwrap();
        let unsigned = whole.unsign().unwrap();
        if whole.is_signed_by(certificate) {
            already += 1;
            let unpacked = packer.map_or(bytes.clone(), |packer| through(&[packer, "-dc"], &bytes));
            assert!(
                is_signed(&unpacked, certificate),
                "{number}: believed, and wrong"
            );
        }
        let Some(packer) = packer else {
            accepted += 1;
            let after = edited(&bytes, &edit);
            assert!(is_signed(&after, certificate), "{number}");
            assert!(
                bytes.starts_with(bare(&after)),
                "{number}: the module changed"
            );
            let stripped = unsigned.map_or(bytes.clone(), |edit| edited(&bytes, &edit));
            assert!(stripped == bare(&after), "{number}");
            continue;
        };
        repacked += 1;
        assert!(matches!(edit, Edit::Rewrite(_)));
        let after = through(&[packer, "-dc"], &edited(&bytes, &edit));
        assert!(is_signed(&after, certificate), "{number}");
        let before = through(&[packer, "-dc"], &bytes);
        assert!(
            before.starts_with(bare(&after)),
            "{number}: the module changed"
        );
    }
    println!(
        "{refused} refused, {accepted} signed, {repacked} compressed ones signed, {already} before"
    );
    assert!(
        refused > 2000,
        "the mutations are too weak: {refused} refused"
    );
    assert!(accepted > 500 && repacked > 20, "{accepted} and {repacked}");
}

#[test]
fn inspect_and_verify_tell_what_a_kernel_would() {
    let (key, other) = (
        TestKey::new(Algorithm::Rsa2048),
        TestKey::new(Algorithm::NistP256),
    );
    let certificate = key.x509.as_ref().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let module = small_module();
    let signed = sign(&module, &key, Digest::Sha384);
    fs::write(path("module.ko.xz"), through(&["xz", "-c"], &signed)).unwrap();
    fs::write(path("certificate.pem"), certificate.to_pem().unwrap()).unwrap();
    fs::write(path("certificate.der"), certificate.as_der()).unwrap();
    let ring = [
        key.certificate.to_armour().unwrap(),
        other.x509.as_ref().unwrap().to_pem().unwrap(),
        certificate.to_pem().unwrap(),
    ];
    fs::write(path("ring"), ring.concat()).unwrap();
    fs::write(path("other.pem"), &ring[1]).unwrap();

    let signdrop = |arguments: &[&str], paths: &[&Path]| {
        let output = run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
            .args(arguments)
            .args(paths));
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (status, text, _) = signdrop(&["inspect", "--json"], &[&path("module.ko.xz")]);
    assert_eq!(status, 0);
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["format"], "kmod");
    assert_eq!(told["name"], "dummy");
    assert_eq!(told["packing"], "xz");
    assert!(told["vermagic"].as_str().unwrap().starts_with("6.1."));
    assert_eq!(
        told["signatures"][0]["signer"],
        "alice#tools@copr.example.org"
    );
    assert_eq!(told["signatures"][0]["key"], certificate.serial());
    assert_eq!(told["signatures"][0]["algorithm"], "rsa");
    assert_eq!(told["signatures"][0]["digest"], "sha384");
    let (_, text, _) = signdrop(&["inspect"], &[&path("module.ko.xz")]);
    assert!(text.contains(&certificate.serial()), "{text}");

    for ring in ["certificate.pem", "certificate.der", "ring"] {
        let ring = path(ring);
        let verify = ["verify", "--keyring", ring.to_str().unwrap()];
        let (status, text, said) = signdrop(&verify, &[&path("module.ko.xz")]);
        assert_eq!(status, 0, "{said}");
        assert!(text.contains(&certificate.serial()), "{text}");
    }
    let verify = |ring: &str, bytes: &[u8]| {
        fs::write(path("module.ko"), bytes).unwrap();
        let ring = path(ring);
        let verify = ["verify", "--keyring", ring.to_str().unwrap()];
        let (status, _, said) = signdrop(&verify, &[&path("module.ko")]);
        assert_eq!(status, 1, "{said}");
        said
    };
    let mut changed = signed.clone();
    changed[0x1000] ^= 1;
    for (ring, bytes, wanted) in [
        ("certificate.pem", module.clone(), "it is not signed"),
        ("other.pem", signed.clone(), "which is not in the keyring"),
        (
            "certificate.pem",
            changed,
            "it does not fit the module's content",
        ),
        (
            "certificate.pem",
            signed_by_openssl(&module, &key, openssl::cms::CMSOptions::CMS_NOCERTS),
            "it has signed attributes, which kernels refuse",
        ),
    ] {
        let said = verify(ring, &bytes);
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    // The last signature counts, as for a kernel.
    let covered = SignFile::new(&other).sign(&signed, "sha256");
    assert!(verify("certificate.pem", &covered).contains("which is not in the keyring"));
}
