//! What the integration tests share: packages, keys, and the programs that judge.
#![allow(dead_code, reason = "each test target uses a part")]
#![allow(unreachable_pub, reason = "a module of several test targets")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::SystemTime,
};

use signdrop::{
    digest::Digest,
    edit::Edit,
    key::{
        Algorithm, RawSignature, SecretKey,
        openpgp::{Certificate, PublicKey},
    },
    signer::{self, DigestSigner},
};

/// A key of one test, not of any store.
pub struct TestKey {
    pub secret: SecretKey,
    pub certificate: Certificate,
    pub public: PublicKey,
}

impl TestKey {
    pub fn new(algorithm: Algorithm) -> Self {
        let secret = SecretKey::generate(algorithm).unwrap();
        let identity = "alice#tools@copr.example.org".parse().unwrap();
        let certificate =
            Certificate::make(&secret, "alice_tools", &identity, SystemTime::now(), None).unwrap();
        let public = certificate.public_key();
        Self {
            secret,
            certificate,
            public,
        }
    }
}

impl DigestSigner for TestKey {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, digest: Digest, hash: &[u8]) -> Result<RawSignature, signer::Error> {
        Ok(self.secret.sign(digest, hash)?)
    }
}

/// The file's bytes after the edit.
pub fn edited(original: &[u8], edit: &Edit) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    for splice in edit.splices() {
        bytes.extend_from_slice(&original[at..splice.at as usize]);
        bytes.extend_from_slice(&splice.new);
        at = (splice.at + splice.old_len) as usize;
    }
    bytes.extend_from_slice(&original[at..]);
    bytes
}

/// Runs a program and answers what it printed; a program that is missing fails the test.
pub fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {name}: {error}; `make test` installs it"))
}

/// rpm's own keyring with one certificate in it.
pub struct Rpmdb {
    dir: tempfile::TempDir,
}

impl Rpmdb {
    pub fn new(armour: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key.asc");
        fs::write(&key, armour).unwrap();
        let db = Self { dir };
        let output = run(db.command().arg("--import").arg(&key));
        assert!(output.status.success(), "rpmkeys --import: {output:?}");
        db
    }

    fn command(&self) -> Command {
        let mut command = Command::new("rpmkeys");
        command
            .env("LC_ALL", "C")
            .arg("--dbpath")
            .arg(self.dir.path());
        command
    }

    /// What `rpmkeys --checksig -v` says of a file, and whether it is content.
    pub fn check(&self, path: &Path) -> (bool, String) {
        let output = run(self.command().args(["--checksig", "-v"]).arg(path));
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    /// Whether rpm finds the file whole and signed by the certificate.
    pub fn is_signed(&self, path: &Path) -> bool {
        let (good, text) = self.check(path);
        good && text.contains("Signature, key ID")
            && !text.contains("NOKEY")
            && !text.contains("BAD")
    }
}

/// The real packages that the corpus target uses.
pub fn corpus() -> PathBuf {
    let root = std::env::var_os("SIGNDROP_CORPUS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"),
        PathBuf::from,
    );
    assert!(root.is_dir(), "no corpus at {}", root.display());
    root
}

/// Every `.rpm` below a directory, sorted.
pub fn packages_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(packages_below(&path));
        } else if path.extension().is_some_and(|end| end == "rpm") {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub mod daemon;

/// A v4 package that rpmbuild made, with a payload of about `size` random bytes.
pub fn rpmbuild(dir: &Path, name: &str, size: usize) -> PathBuf {
    let top = tempfile::tempdir().unwrap();
    let spec = top.path().join("package.spec");
    fs::write(
        &spec,
        format!(
            "Name: {name}\nVersion: 1.0\nRelease: 1\nSummary: A package for tests\nLicense: MIT\nBuildArch: noarch\n\
             %description\nA package for tests.\n%install\nmkdir -p %{{buildroot}}/opt\n\
             head -c {size} /dev/urandom > %{{buildroot}}/opt/{name}\n%files\n/opt/{name}\n"
        ),
    )
    .unwrap();
    let output = run(Command::new("rpmbuild")
        .args(["--quiet", "-bb", "--nodeps"])
        .arg("--define")
        .arg(format!("_topdir {}", top.path().display()))
        .arg(&spec));
    assert!(output.status.success(), "{output:?}");
    let built = packages_below(&top.path().join("RPMS")).remove(0);
    let path = dir.join(format!("{name}-1.0-1.noarch.rpm"));
    fs::copy(built, &path).unwrap();
    path
}

/// A package of the given format that is made in no time, with `size` bytes that do not compress.
pub fn quick_package(dir: &Path, name: &str, size: usize, format: rpm::RpmFormat) -> PathBuf {
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        state.rotate_left(9) ^ u64::from(byte)
    }) | 1;
    let content: Vec<u8> = (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    let config = match format {
        rpm::RpmFormat::V4 => rpm::BuildConfig::v4(),
        rpm::RpmFormat::V6 => rpm::BuildConfig::v6(),
    }
    .compression(rpm::CompressionType::None);
    let mut builder = rpm::PackageBuilder::new(name, "1.0", "MIT", "noarch", "A package for tests");
    builder.using_config(config);
    builder
        .with_file_contents(content, rpm::FileOptions::new(format!("/opt/{name}")))
        .unwrap();
    let path = dir.join(format!("{name}-1.0-1.noarch.rpm"));
    builder.build().unwrap().write_file(&path).unwrap();
    path
}
