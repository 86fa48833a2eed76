//! The program called as `sign`: obs-sign's command line, judged by rpm, gpgv, openssl and coreutils.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use common::{
    Rpmdb, Sections,
    daemon::Daemon,
    legacy,
    modules::{is_signed, small_module},
    quick_package, rpmbuild, run,
};
use signdrop::key::x509::Certificate;

const TOOLS: &str = "@group#tools@copr.example.org";

/// A daemon with one key, and the program under its other name.
struct Installation {
    daemon: Daemon,
    sign: PathBuf,
}

impl Installation {
    fn new() -> Self {
        let daemon = Daemon::start("");
        let sign = daemon.dir.path().join("sign");
        symlink(env!("CARGO_BIN_EXE_signdrop"), &sign).unwrap();
        let output = daemon.signdrop(["key", "generate", TOOLS]);
        assert!(output.status.success(), "{output:?}");
        Self { daemon, sign }
    }

    fn dir(&self) -> &Path {
        self.daemon.dir.path()
    }

    fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.sign);
        command
            .env("SIGNDROP_API", self.daemon.api())
            .env("SIGN_CONF", self.dir().join("sign.conf"))
            .args(words);
        command
    }

    fn sign<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Output {
        run(&mut self.command(words))
    }

    /// Signs a file and fails if that fails.
    fn sign_file(&self, options: &[&str], file: &Path) -> Output {
        let words = ["-u", TOOLS].iter().chain(options).map(OsStr::new);
        let output = self.sign(words.chain([file.as_os_str()]));
        assert!(output.status.success(), "{options:?}: {output:?}");
        output
    }

    fn filter(&self, options: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(["-u", TOOLS].iter().chain(options))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // One that refuses its arguments reads nothing.
        let _ = stdin.write_all(input);
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    fn rpmdb(&self) -> Rpmdb {
        Rpmdb::new(&self.daemon.export(TOOLS))
    }

    /// What gpgv says of a signature: one over `file`, or one that stands in its own file.
    fn gpgv(&self, signature: &Path, file: Option<&Path>) -> (bool, String) {
        let (armour, binary) = (self.dir().join("key.asc"), self.dir().join("key.gpg"));
        fs::write(&armour, self.daemon.export(TOOLS)).unwrap();
        let output = run(Command::new("gpg")
            .args(["--batch", "--yes", "--dearmor", "-o"])
            .arg(&binary)
            .arg(&armour));
        assert!(output.status.success(), "{output:?}");
        let output = run(Command::new("gpgv")
            .arg("--keyring")
            .arg(&binary)
            .arg(signature)
            .args(file));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn coprs_calls_are_answered_as_signd_answers_them() {
    let installation = Installation::new();
    let nobody = "bob#new@copr.example.org";
    let output = installation.sign(["-u", nobody, "-p"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(err(&output), format!("unknown key: {nobody}\n"));
    assert_eq!(out(&output), "");

    let (status, _) = installation.daemon.request(
        "POST",
        "/gen_key",
        Some(r#"{"name_real":"bob_new","name_email":"bob#new@copr.example.org"}"#),
    );
    assert_eq!(status, 201);
    let output = installation.sign(["-u", nobody, "-p"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(out(&output), installation.daemon.export(nobody));

    let package = rpmbuild(installation.dir(), "one", 1000);
    let words = ["-4", "-h", "sha256", "-u", nobody, "-r"].map(OsStr::new);
    let call = || installation.sign(words.into_iter().chain([package.as_os_str()]));
    let output = call();
    assert!(output.status.success(), "{output:?}");
    assert_eq!((out(&output), err(&output)), Default::default());
    let rpmdb = Rpmdb::new(&installation.daemon.export(nobody));
    let (good, said) = rpmdb.check(&package);
    assert!(good && said.contains("V4 RSA/SHA256 Signature"), "{said}");

    // Signed already: said, well, and not a byte changed.
    let before = (fs::read(&package).unwrap(), fs::metadata(&package).unwrap());
    let output = call();
    assert!(output.status.success(), "{output:?}");
    assert!(out(&output).ends_with("already signed\n"), "{output:?}");
    assert_eq!(fs::read(&package).unwrap(), before.0);
    assert_eq!(
        fs::metadata(&package).unwrap().modified().unwrap(),
        before.1.modified().unwrap()
    );

    // Another project's signature is none: it is replaced.
    installation.sign_file(&["-4", "-h", "sha256", "-r"], &package);
    assert!(installation.rpmdb().is_signed(&package));
    assert!(!rpmdb.is_signed(&package));
    assert!(installation.sign(["-t"]).status.success());
}

#[test]
fn every_kind_of_package_is_signed_with_every_hash_and_unsigned_again() {
    let installation = Installation::new();
    let rpmdb = installation.rpmdb();
    let plain = rpmbuild(installation.dir(), "one", 1000);
    let original = fs::read(&plain).unwrap();
    let old = installation.write("old.rpm", &legacy(&original));
    for (hash, name) in [
        ("sha1", "SHA1"),
        ("SHA256", "SHA256"),
        ("sha384", "SHA384"),
        ("Sha512", "SHA512"),
    ] {
        for package in [&plain, &old] {
            installation.sign_file(&["-h", hash, "-r"], package);
            let (good, said) = rpmdb.check(package);
            let wanted = format!("V4 RSA/{name} Signature, key ID");
            assert!(good && said.contains(&wanted), "{hash}: {said}");
        }
    }
    let output = installation.sign([OsStr::new("--delsign"), plain.as_os_str()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(&plain).unwrap(), original);
}

#[test]
fn files_and_texts_are_signed_as_gpgv_verifies_them() {
    let installation = Installation::new();
    let texts: [&[u8]; 8] = [
        b"",
        b"\n",
        b"one line",
        b"one line\n",
        b"-dash\n- dash\n-----BEGIN PGP SIGNATURE-----\nFrom here\n",
        b"white \t \nspace\t\r\n\n\nand empty lines \n\n",
        b"\xff\x00 bytes \x80\n",
        "grüße\n".as_bytes(),
    ];
    for (number, text) in texts.iter().enumerate() {
        let file = installation.write(&format!("file{number}"), text);
        for (option, end) in [("-d", "asc"), ("-D", "sig")] {
            installation.sign_file(&[option], &file);
            let signature = installation.dir().join(format!("file{number}.{end}"));
            let (good, said) = installation.gpgv(&signature, Some(&file));
            assert!(good, "{option} {number}: {said}");
            let is_armour = fs::read(&signature)
                .unwrap()
                .starts_with(b"-----BEGIN PGP SIGNATURE-----\n");
            assert_eq!(is_armour, option == "-d");
            // The signature is of this text, and no other.
            let other = installation.write("other", &[text, &b"x"[..]].concat());
            assert!(!installation.gpgv(&signature, Some(&other)).0);
        }
        installation.sign_file(&["-c", "-h", "sha512"].map(|word| word), &file);
        let (good, said) = installation.gpgv(&file, None);
        assert!(good, "{number}: {said}");
        let signed = fs::read(&file).unwrap();
        assert!(signed.starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n"));
        // What is signed stays as it is.
        let output = installation.sign_file(&["-c"], &file);
        assert!(out(&output).ends_with("already signed\n"), "{output:?}");
        assert_eq!(fs::read(&file).unwrap(), signed);
    }
    // A letter that is changed is found out.
    let file = installation.dir().join("file2");
    let text = fs::read_to_string(&file).unwrap().replace("one", "two");
    fs::write(&file, text).unwrap();
    assert!(!installation.gpgv(&file, None).0);
}

#[test]
fn a_raw_signature_is_verified_by_openssl() {
    let installation = Installation::new();
    let file = installation.write("file", b"content");
    let key = installation.write("key.asc", installation.daemon.export(TOOLS).as_bytes());
    // The modulus, as another program reads it.
    let output = run(Command::new("sq")
        .args(["packet", "dump", "--mpis"])
        .arg(&key));
    let dump = out(&output);
    // Two dumps of bytes behind "Public Key:", of the exponent and of the modulus.
    let mut numbers = Vec::<String>::new();
    for line in dump.lines().skip_while(|line| line.trim() != "Public Key:") {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("00000000") if numbers.len() == 2 => break,
            Some("00000000") => numbers.push(String::new()),
            Some(offset) if offset.len() == 8 => {}
            _ => continue,
        }
        let is_byte = |word: &&str| word.len() == 2 && word.chars().all(|c| c.is_ascii_hexdigit());
        if let Some(number) = numbers.last_mut() {
            number.extend(words.take_while(is_byte));
        }
    }
    let number = |place: usize| openssl::bn::BigNum::from_hex_str(&numbers[place]).unwrap();
    let rsa = openssl::rsa::Rsa::from_public_components(number(1), number(0));
    let pem = rsa
        .unwrap_or_else(|error| panic!("{error}: {dump}"))
        .public_key_to_pem()
        .unwrap();
    let pem = installation.write("key.pem", &pem);
    for hash in ["sha1", "sha256", "sha384", "sha512"] {
        installation.sign_file(&["-O", "-h", hash], &file);
        let verify = |file: &Path| {
            run(Command::new("openssl")
                .args(["dgst", &format!("-{hash}"), "-verify"])
                .arg(&pem)
                .arg("-signature")
                .arg(installation.dir().join("file.sig"))
                .arg(file))
        };
        let output = verify(&file);
        assert!(output.status.success(), "{hash}: {output:?}");
        assert!(!verify(&pem).status.success());
    }
}

#[test]
fn a_kernel_module_is_signed_for_the_certificate_that_is_named_or_not_at_all() {
    let installation = Installation::new();
    let module = installation.write("module.ko", &small_module());
    let output = installation.daemon.signdrop(["key", "certificate", TOOLS]);
    assert!(output.status.success(), "{output:?}");
    let own = installation.write("own.pem", &output.stdout);
    let certificate = Certificate::from_pem(&output.stdout).unwrap();
    let other = "bob#new@copr.example.org";
    let output = installation.daemon.signdrop(["key", "generate", other]);
    assert!(output.status.success(), "{output:?}");
    let output = installation.daemon.signdrop(["key", "certificate", other]);
    let foreign = installation.write("foreign.pem", &output.stdout);

    for wrong in [&foreign, &module, &installation.dir().join("missing")] {
        let words = ["-u", TOOLS, "--kosign", "--cert"].map(OsStr::new);
        let output = installation.sign(
            words
                .into_iter()
                .chain([wrong.as_os_str(), module.as_os_str()]),
        );
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(fs::read(&module).unwrap(), small_module());
    }
    installation.sign_file(&["--kosign", "--cert", own.to_str().unwrap()], &module);
    assert!(is_signed(&fs::read(&module).unwrap(), &certificate));
    let output = installation.sign_file(&[], &module);
    assert!(out(&output).ends_with("already signed\n"), "{output:?}");
    let output = installation.sign([OsStr::new("--delsign"), module.as_os_str()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(&module).unwrap(), small_module());
}

#[test]
fn without_files_the_standard_input_is_signed_to_the_standard_output() {
    let installation = Installation::new();
    let text = b"some text\n";
    let file = installation.write("file", text);
    for (option, detached) in [("-d", true), ("-D", true), ("-c", false)] {
        let output = installation.filter(&[option], text);
        assert!(output.status.success(), "{option}: {output:?}");
        let signature = installation.write("signature", &output.stdout);
        let (good, said) = installation.gpgv(&signature, detached.then_some(&*file));
        assert!(good, "{option}: {said}");
    }
    let package = rpmbuild(installation.dir(), "one", 1000);
    let original = fs::read(&package).unwrap();
    let output = installation.filter(&["-r", "-v"], &original);
    assert!(output.status.success(), "{output:?}");
    let signed = installation.write("signed.rpm", &output.stdout);
    assert!(installation.rpmdb().is_signed(&signed));
    let output = installation.filter(&["--delsign"], &output.stdout);
    assert_eq!(output.stdout, original);

    for (options, input) in [
        (&[][..], &text[..]),
        (&["-r"], text),
        (&["-r"], &original[..original.len() - 1]),
        (&["--kosign"], &original),
        (
            &["-c"],
            &fs::read(installation.dir().join("signature")).unwrap(),
        ),
    ] {
        let output = installation.filter(options, input);
        assert_eq!(output.status.code(), Some(1), "{options:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

#[test]
fn the_mode_follows_the_names_and_each_file_that_fails_is_named() {
    let installation = Installation::new();
    let package = rpmbuild(installation.dir(), "one", 1000);
    let source = installation.write("one.spm", &fs::read(&package).unwrap());
    let text = installation.write("text", b"text\n");
    let broken = installation.write("broken.rpm", b"no package");
    let missing = installation.dir().join("missing.rpm");
    let files = [&broken, &package, &missing, &source, &text];
    let words = ["-v", "-u", TOOLS].map(OsStr::new);
    let output = installation.sign(words.into_iter().chain(files.map(|file| file.as_os_str())));
    assert_eq!(output.status.code(), Some(1));
    let said = err(&output);
    assert_eq!(said.lines().count(), 2, "{said}");
    for file in [&broken, &missing] {
        assert!(said.contains(&format!("{}: ", file.display())), "{said}");
    }
    assert!(
        out(&output).contains(&format!(
            "signing the package {} for {TOOLS}\n",
            package.display()
        )),
        "{output:?}"
    );
    assert_eq!(fs::read(&broken).unwrap(), b"no package");
    let rpmdb = installation.rpmdb();
    assert!(rpmdb.is_signed(&package) && rpmdb.is_signed(&source));
    assert!(installation.gpgv(&text, None).0);
}

#[test]
fn key_id_and_fingerprint_are_those_that_gpg_shows() {
    let installation = Installation::new();
    let key = installation.write("key.asc", installation.daemon.export(TOOLS).as_bytes());
    let output = run(Command::new("gpg")
        .args(["--batch", "--with-colons", "--show-keys", "--homedir"])
        .arg(installation.dir())
        .arg(&key));
    let shown = out(&output);
    let fingerprint = shown
        .lines()
        .find_map(|line| line.strip_prefix("fpr:"))
        .unwrap()
        .trim_matches(':');
    assert_eq!(fingerprint.len(), 40);
    for (option, wanted) in [("--fingerprint", fingerprint), ("-k", &fingerprint[32..])] {
        let output = installation.sign(["-u", TOOLS, option]);
        assert_eq!(out(&output), format!("{wanted}\n"), "{output:?}");
    }
}

#[test]
fn the_time_is_the_one_that_is_asked_for_but_no_earlier_than_the_key() {
    let installation = Installation::new();
    let file = installation.write("file", b"text");
    let created = |signature: &Path| {
        let output = run(Command::new("gpg")
            .args(["--batch", "--list-packets", "--homedir"])
            .arg(installation.dir())
            .arg(signature));
        let said = out(&output);
        let (_, rest) = said.split_once(" created ").unwrap();
        rest.split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap()
            .parse::<i64>()
            .unwrap()
    };
    let signature = installation.dir().join("file.sig");
    installation.sign_file(&["-D", "-T", "4000000000"], &file);
    assert_eq!(created(&signature), 4_000_000_000);
    let touched = run(Command::new("touch").args(["-d", "@3000000000"]).arg(&file));
    assert!(touched.status.success());
    for time in ["mtime", "buildtime"] {
        installation.sign_file(&["-D", "-T", time], &file);
        assert_eq!(created(&signature), 3_000_000_000, "{time}");
    }
    installation.sign_file(&["-D", "-T", "1"], &file);
    let (_, listed) =
        installation
            .daemon
            .request("GET", "/v1/keys/%40group%23tools%40copr.example.org", None);
    let key: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(created(&signature), key["created"].as_i64().unwrap());

    let package = rpmbuild(installation.dir(), "one", 100);
    let output = run(Command::new("rpm")
        .args(["-qp", "--nosignature", "--qf", "%{BUILDTIME}"])
        .arg(&package));
    let built: i64 = out(&output).parse().unwrap();
    installation.sign_file(&["-r", "-T", "buildtime"], &package);
    let output = run(Command::new("rpm")
        .args(["-qp", "--nosignature", "--qf", "%{RSAHEADER:pgpsig}"])
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .arg(&package));
    let stated = out(&output);
    let date = run(Command::new("date")
        .args(["-u", "+%a %b %e %H:%M:%S %Y", "-d"])
        .arg(format!("@{}", built.max(key["created"].as_i64().unwrap())))
        .env("LC_ALL", "C"));
    assert!(stated.contains(out(&date).trim()), "{stated}");
}

#[test]
fn the_list_of_checksums_is_what_coreutils_compute() {
    let installation = Installation::new();
    let list = installation.dir().join("checksums");
    let mut wanted = String::new();
    for name in ["one", "two"] {
        let package = rpmbuild(installation.dir(), name, 1000);
        installation.sign_file(&["-S", list.to_str().unwrap(), "-r"], &package);
        let sections = Sections::of(&fs::read(&package).unwrap());
        let mut start = [sections.lead, sections.signature].concat();
        start.resize(start.len().next_multiple_of(8), 0);
        let start = installation.write("start", &start);
        let sum = |program: &str, file: &Path| {
            let output = run(Command::new(program).arg(file));
            out(&output).split(' ').next().unwrap().to_owned()
        };
        wanted += &format!(
            "{} md5:{} sha1:{} sha256:{}\n",
            sum("md5sum", &start),
            sum("md5sum", &package),
            sum("sha1sum", &package),
            sum("sha256sum", &package)
        );
    }
    assert_eq!(fs::read_to_string(list).unwrap(), wanted);
}

/// The version of a binary signature packet in the older format with a length of 16 bits, or in the newer one.
fn packet_version(packet: &[u8]) -> u8 {
    match packet[0] {
        0x89 => packet[3],
        0xc2 if packet[1] < 192 => packet[2],
        0xc2 => packet[3],
        other => panic!("{other:#x} begins no signature packet"),
    }
}

#[test]
fn version_3_is_made_where_sign_conf_allows_it_and_the_last_version_counts() {
    let installation = Installation::new();
    let file = installation.write("file", b"for what is old\n");
    let signature = installation.dir().join("file.sig");
    let output = installation.sign(["-u", TOOLS, "-3", "-D", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("allow-v3: yes"), "{output:?}");
    assert!(!signature.exists());
    installation.write("sign.conf", b"allow-v3: yes\n");
    for (options, version) in [
        (&["-3"][..], 3),
        (&["-4", "-3", "-h", "sha512"], 3),
        (&["-3", "-4"], 4),
        (&[], 4),
    ] {
        installation.sign_file(&[options, &["-D"]].concat(), &file);
        let packet = fs::read(&signature).unwrap();
        assert_eq!(packet_version(&packet), version, "{options:?}");
        let (good, said) = installation.gpgv(&signature, Some(&file));
        assert!(good, "{options:?}: {said}");
    }
    installation.sign_file(&["-3", "-c"], &file);
    let (good, said) = installation.gpgv(&file, None);
    assert!(good, "{said}");
    // The header's signature in a package, as rpm reads it.
    let package = quick_package(installation.dir(), "one", 100, rpm::RpmFormat::V4);
    installation.sign_file(&["-3", "-r"], &package);
    let (good, said) = installation.rpmdb().check(&package);
    assert!(
        good && said.contains("Header V3 RSA/SHA256 Signature"),
        "{said}"
    );
    let output = installation.sign_file(&["-3", "-r"], &package);
    assert!(out(&output).ends_with("already signed\n"), "{output:?}");
}

#[test]
fn user_and_hash_come_from_sign_conf_where_the_command_line_says_nothing() {
    let installation = Installation::new();
    let package = quick_package(installation.dir(), "one", 100, rpm::RpmFormat::V4);
    let call = |words: &[&str]| {
        installation.sign(words.iter().map(OsStr::new).chain([package.as_os_str()]))
    };
    let output = call(&["-r"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("-u EMAIL"), "{output:?}");

    let conf = format!("server: 127.0.0.1\nallow: 127.0.0.1\nuser: {TOOLS}\nhash: sha512\n");
    installation.write("sign.conf", conf.as_bytes());
    let said = |words: &[&str]| {
        let output = call(words);
        assert!(output.status.success(), "{output:?}");
        installation.rpmdb().check(&package).1
    };
    assert!(said(&["-r"]).contains("RSA/SHA512 Signature, key ID"));
    assert!(said(&["-h", "sha256", "-r"]).contains("RSA/SHA256 Signature, key ID"));

    installation.write("sign.conf", b"hash: md5\n");
    let output = call(&["-u", TOOLS, "-r"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("sign.conf"), "{output:?}");
}

#[test]
fn whatever_cannot_be_done_is_said_with_status_1_and_changes_nothing() {
    let installation = Installation::new();
    let package = quick_package(installation.dir(), "one", 100, rpm::RpmFormat::V4);
    let before = fs::read(&package).unwrap();
    let long = format!("{}@example.org", "a".repeat(64 << 10));
    for user in [
        "",
        ".x",
        "../x",
        "../x@example.org",
        "a/b@example.org",
        "a\nb@example.org",
        "a\u{1b}[31m@example.org",
        "a b@example.org",
        "nobody",
        "nobody@example.org",
        long.as_str(),
    ] {
        for mode in [&["-p"][..], &["-k"], &["-r", package.to_str().unwrap()]] {
            let output = installation.sign(["-u", user].iter().chain(mode));
            assert_eq!(
                output.status.code(),
                Some(1),
                "{user:?} {mode:?}: {output:?}"
            );
            let said = err(&output);
            assert!(
                said.ends_with('\n') && said.lines().count() == 1,
                "{said:?}"
            );
            assert!(!said.trim_end().contains(char::is_control), "{said:?}");
        }
    }
    for words in [
        &["-3", "-r"][..],
        &["-h", "md5", "-r"],
        &["-T", "soon", "-r"],
        &["-g", "rsa@2048", "365", "name"],
        &["-x", "365"],
        &["-P", "key", "-r"],
        &["-C"],
        &["-p"],
        &["-t"],
        &["--appx"],
        &["--kosign"],
        &["-r", "-S", "/nonexistent/list"],
    ] {
        let words = ["-u", TOOLS].iter().chain(words).map(OsStr::new);
        let output = installation.sign(words.chain([package.as_os_str()]));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!err(&output).is_empty());
    }
    let output = installation.sign(["--delsign", package.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(&package).unwrap(), before);

    let output = run(installation
        .command(["-u", TOOLS, "-p"])
        .env("SIGNDROP_API", "unix:/nonexistent/api.sock"));
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("is it running?"), "{output:?}");
    let output = run(installation
        .command(["-t"])
        .env("SIGNDROP_API", "unix:/nonexistent/api.sock"));
    assert_eq!(output.status.code(), Some(1));
    let output = installation.sign(["--help"]);
    assert!(output.status.success() && out(&output).contains("-r [FILE…]"));
}

#[test]
fn files_are_changed_with_the_callers_rights_and_stay_whose_they_are() {
    let installation = Installation::new();
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(installation.dir(), 0o755);
    set_mode(&installation.dir().join("api.sock"), 0o666);
    let (theirs, ours) = (
        installation.dir().join("theirs"),
        installation.dir().join("ours"),
    );
    for dir in [&theirs, &ours] {
        fs::create_dir(dir).unwrap();
    }
    std::os::unix::fs::chown(&theirs, Some(4321), Some(4321)).unwrap();
    let packages = [&theirs, &ours].map(|dir| {
        let package = quick_package(dir, "one", 100, rpm::RpmFormat::V4);
        set_mode(&package, 0o644);
        package
    });
    std::os::unix::fs::chown(&packages[0], Some(4321), Some(4321)).unwrap();
    let before = fs::read(&packages[1]).unwrap();
    // A copy of the program that the user may run, wherever the build directory lies.
    let program = installation.dir().join("bin");
    fs::create_dir(&program).unwrap();
    let program = program.join("sign");
    fs::copy(env!("CARGO_BIN_EXE_signdrop"), &program).unwrap();
    let call = |package: &Path| {
        run(Command::new("setpriv")
            .args(["--reuid", "4321", "--regid", "4321", "--clear-groups"])
            .arg(&program)
            .args(["-u", TOOLS, "-r"])
            .arg(package)
            .env("SIGNDROP_API", installation.daemon.api())
            .env("SIGN_CONF", "/nonexistent"))
    };
    let output = call(&packages[0]);
    assert!(output.status.success(), "{output:?}");
    assert!(installation.rpmdb().is_signed(&packages[0]));
    let metadata = fs::metadata(&packages[0]).unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777),
        (4321, 4321, 0o644)
    );

    let output = call(&packages[1]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fs::read(&packages[1]).unwrap(), before);
    drop(File::open(&packages[1]).unwrap());
}

/// A key that its owner keeps: the file, and the public key.
fn made(installation: &Installation, kind: &str) -> (PathBuf, String) {
    let private = installation.dir().join(format!("{kind}.private"));
    let output = installation.sign([
        "-u",
        TOOLS,
        "-P",
        private.to_str().unwrap(),
        "-g",
        kind,
        "30",
        "Mine",
        "mine@example.org",
    ]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        private.metadata().unwrap().permissions().mode() & 0o7777,
        0o600
    );
    (private, out(&output))
}

#[test]
fn a_key_that_its_owner_keeps_signs_packages_and_files_and_can_be_prolonged() {
    let installation = Installation::new();
    for kind in ["rsa@2048", "nistp384"] {
        let (private, public) = made(&installation, kind);
        let private = private.to_str().unwrap();
        let output = installation.sign(["-u", TOOLS, "-P", private, "-p"]);
        assert_eq!(out(&output), public);
        let output = installation.sign(["-u", TOOLS, "-P", private, "--fingerprint"]);
        let fingerprint = out(&output).trim().to_owned();
        assert_eq!(fingerprint.len(), 40, "{output:?}");

        let text = installation.write("text", b"some text\n");
        let output = installation.sign(["-u", TOOLS, "-P", private, "-D", text.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        let file = installation.write("public.asc", public.as_bytes());
        let gpgv = |key: &Path| {
            let binary = installation.dir().join("public.gpg");
            let output = run(Command::new("gpg")
                .args(["--batch", "--yes", "--dearmor", "-o"])
                .args([&binary, key]));
            assert!(output.status.success(), "{output:?}");
            run(Command::new("gpgv").arg("--keyring").args([
                &binary,
                &text.with_extension("sig"),
                &text,
            ]))
        };
        assert!(gpgv(&file).status.success(), "{:?}", gpgv(&file));

        if kind == "rsa@2048" {
            let package = quick_package(installation.dir(), "mine", 2000, rpm::RpmFormat::V4);
            let output =
                installation.sign(["-u", TOOLS, "-P", private, "-r", package.to_str().unwrap()]);
            assert!(output.status.success(), "{output:?}");
            let rpmdb = Rpmdb::new(&public);
            assert!(rpmdb.is_signed(&package), "{}", rpmdb.check(&package).1);
            assert!(!installation.rpmdb().is_signed(&package));
        }

        let output = installation.sign([
            "-u",
            TOOLS,
            "-P",
            private,
            "-x",
            "400",
            file.to_str().unwrap(),
        ]);
        assert!(output.status.success(), "{output:?}");
        let prolonged = installation.write("prolonged.asc", &output.stdout);
        assert!(gpgv(&prolonged).status.success(), "{:?}", gpgv(&prolonged));
        let shown = run(Command::new("gpg")
            .args(["--batch", "--show-keys", "--with-colons", "--homedir"])
            .args([installation.dir(), &prolonged]));
        let shown = out(&shown);
        let fields: Vec<&str> = shown.lines().next().unwrap().split(':').collect();
        let days = (fields[6].parse::<u64>().unwrap() - fields[5].parse::<u64>().unwrap()) / 86400;
        assert_eq!((days, shown.contains(&fingerprint)), (400, true), "{shown}");
    }
}

#[test]
fn the_daemons_own_keys_are_prolonged_and_their_certificates_shown() {
    let installation = Installation::new();
    let file = installation.write("key.asc", installation.daemon.export(TOOLS).as_bytes());
    let file = file.to_str().unwrap();
    let output = installation.sign(["-u", TOOLS, "-C", file]);
    assert!(output.status.success(), "{output:?}");
    let certificate = Certificate::from_pem(&output.stdout).unwrap();
    let other = installation.daemon.signdrop(["key", "certificate", TOOLS]);
    assert_eq!(
        certificate.as_der(),
        Certificate::from_pem(&other.stdout).unwrap().as_der()
    );
    // The key that never ends cannot be given an end.
    let output = installation.sign(["-u", TOOLS, "-x", "10", file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("only a later end"), "{output:?}");
    let ending = "bob#ending@copr.example.org";
    let output = installation
        .daemon
        .signdrop(["key", "generate", ending, "--expires", "5d"]);
    assert!(output.status.success(), "{output:?}");
    let file = installation.write("ending.asc", installation.daemon.export(ending).as_bytes());
    let output = installation.sign(["-u", ending, "-x", "10", file.to_str().unwrap()]);
    assert_eq!(
        out(&output),
        installation.daemon.export(ending),
        "{output:?}"
    );
}

#[test]
fn keys_that_their_owners_keep_are_refused_where_they_do_not_fit() {
    let installation = Installation::new();
    let (private, public) = made(&installation, "ed25519");
    let private = private.to_str().unwrap();
    let before = fs::read(private).unwrap();
    let text = installation.write("text", b"text");
    let text = text.to_str().unwrap();
    let broken = installation.write("broken", b"0123");
    let broken = broken.to_str().unwrap();
    let mine = installation.write("mine.asc", public.as_bytes());
    let mine = mine.to_str().unwrap();
    let module = installation.write("module.ko", &small_module());
    let module = module.to_str().unwrap();
    let new = installation.dir().join("new");
    let new = new.to_str().unwrap();
    let missing = "/nonexistent/key";
    for (words, wanted) in [
        // There already: a private key is never written over.
        (
            &["-P", private, "-g", "ed25519", "0", "a", "b@c"][..],
            "exists",
        ),
        (&["-g", "ed25519", "0", "a", "b@c"], "-P FILE"),
        (&["-P", missing, "-g", "ed25519", "0", "a", "b@c"], missing),
        (
            &["-P", new, "-g", "ed25519", "0", "a"],
            "TYPE DAYS NAME EMAIL",
        ),
        (&["-P", new, "-g", "rsa@1024", "0", "a", "b@c"], "rsa@1024"),
        (&["-P", new, "-g", "ed25519", "soon", "a", "b@c"], "soon"),
        (&["-P", new, "-g", "ed25519", "0", "<", "b@c"], "name"),
        (&["-P", new, "-g", "ed25519", "0", "a", "b"], "e-mail"),
        (&["-P", missing, "-d", text], missing),
        (&["-P", broken, "-d", text], "private key"),
        (
            &["-u", "else@example.org", "-P", private, "-d", text],
            "not made for",
        ),
        (&["-P", private, "--kosign", module], "certificate"),
        (&["-P", private, "-C", mine], "leave -P out"),
        (&["-C"], "public key"),
        (&["-C", mine], "another key"),
        (&["-x", "10", mine], "another key"),
        (&["-P", private, "-x", "soon", mine], "soon"),
        (&["-P", private, "-x", "10"], "DAYS"),
        (&["-P", private, "-x", "10", text], "text"),
        (&["-P", private, "-x", "60000", mine], "136 years"),
    ] {
        let user = if words.contains(&"-u") {
            &[][..]
        } else {
            &["-u", TOOLS]
        };
        let output = installation.sign(user.iter().chain(words));
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        assert!(err(&output).contains(wanted), "{words:?}: {output:?}");
        assert_eq!(out(&output), "", "{words:?}");
    }
    assert_eq!(fs::read(private).unwrap(), before);
    assert!(!Path::new(new).exists());
}
