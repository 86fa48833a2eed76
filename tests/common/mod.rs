//! What the integration tests share: packages, keys, and the programs that judge.
#![allow(dead_code, reason = "each test target uses a part")]
#![allow(unreachable_pub, reason = "a module of several test targets")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "what fails here fails the test"
)]

use std::{
    fs,
    io::{Read as _, Seek as _},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::SystemTime,
};

use signdrop::{
    digest::Digest,
    edit::{Edit, Splice},
    key::{
        Algorithm, RawSignature, SecretKey,
        openpgp::{Certificate, PublicKey},
        x509,
    },
    signer::{self, DigestSigner, Purpose},
};

/// A key of one test, not of any store.
pub struct TestKey {
    pub secret: SecretKey,
    pub certificate: Certificate,
    pub public: PublicKey,
    /// For kernel modules; the same private key where they have none of their own.
    pub module: Option<SecretKey>,
    pub x509: Option<x509::Certificate>,
}

impl TestKey {
    /// A key for packages; for modules another of the same algorithm, where kernels take it.
    pub fn new(algorithm: Algorithm) -> Self {
        let mut key = Self::of_both(algorithm);
        if key.x509.is_some() {
            let secret = SecretKey::generate(algorithm).unwrap();
            key.x509 = Some(certificate(&secret));
            key.module = Some(secret);
        }
        key
    }

    /// One key for packages and modules.
    pub fn of_both(algorithm: Algorithm) -> Self {
        let secret = SecretKey::generate(algorithm).unwrap();
        let identity = "alice#tools@copr.example.org".parse().unwrap();
        let certificate =
            Certificate::make(&secret, "alice_tools", &identity, SystemTime::now(), None).unwrap();
        let public = certificate.public_key();
        let kernels_take_it = x509::ModuleAlgorithm::try_from(algorithm).is_ok();
        let x509 = kernels_take_it.then(|| self::certificate(&secret));
        Self {
            secret,
            certificate,
            public,
            module: None,
            x509,
        }
    }

    /// The private key that signs modules.
    pub fn module_secret(&self) -> &SecretKey {
        self.module.as_ref().unwrap_or(&self.secret)
    }
}

/// A certificate for kernel modules.
pub fn certificate(secret: &SecretKey) -> x509::Certificate {
    let identity = "alice#tools@copr.example.org".parse().unwrap();
    let subject = x509::SubjectTemplate::default().subject(&identity).unwrap();
    x509::Certificate::make(secret, &subject, SystemTime::now(), None).unwrap()
}

impl DigestSigner for TestKey {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn certificate(&self) -> Result<&x509::Certificate, signer::Error> {
        self.x509.as_ref().ok_or(signer::Error::NoCertificate)
    }

    fn sign(
        &self,
        purpose: Purpose,
        digest: Digest,
        hash: &[u8],
    ) -> Result<RawSignature, signer::Error> {
        let secret = match purpose {
            Purpose::OpenPgp => &self.secret,
            Purpose::Cms => self.module_secret(),
        };
        Ok(secret.sign(digest, hash)?)
    }
}

/// The stretches that an edit replaces.
pub fn splices(edit: &Edit) -> &[Splice] {
    match edit {
        Edit::Splices(splices) => splices.as_slice(),
        Edit::Rewrite(_) => panic!("it rewrites the file"),
    }
}

/// Whether an edit leaves every byte that it does not replace in its place.
pub fn keeps_length(edit: &Edit) -> bool {
    let keeps = |splice: &Splice| splice.old_len == splice.new.len() as u64;
    splices(edit).iter().all(keeps)
}

/// The file's bytes after the edit.
pub fn edited(original: &[u8], edit: &Edit) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Edit::Rewrite(content) = edit {
        let mut content = content.try_clone().unwrap();
        content.rewind().unwrap();
        content.read_to_end(&mut bytes).unwrap();
        return bytes;
    }
    let mut at = 0;
    for splice in splices(edit) {
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

/// What a program that had to succeed said on its standard output.
pub fn out(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
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

/// Every file below a directory.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.is_file() {
            files.push(path);
        }
    }
    files
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub mod daemon;
pub mod dnf;
pub mod gnupg;
pub mod modules;
pub mod mount;

/// A number that the environment may give, for longer runs of a test.
pub fn asked(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |number| number.parse().unwrap())
}

/// Numbers that are not random in the least (xorshift64*).
pub struct Numbers(pub u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }

    pub fn one_of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }
}

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

impl Rpmdb {
    /// Those of the files that `rpmkeys --checksig` does not find whole and signed by the certificate.
    pub fn not_signed<'a>(&self, paths: &'a [PathBuf]) -> Vec<&'a Path> {
        let output = run(self.command().arg("--checksig").args(paths));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let content = |path: &Path| {
            let wanted = format!("{}: digests signatures OK", path.display());
            text.lines().any(|line| line.ends_with(&wanted))
        };
        let found = paths.iter().map(PathBuf::as_path);
        found.filter(|path| !content(path)).collect()
    }
}

/// A value of a header, read and written independently of the project's own reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub tag: u32,
    pub kind: u32,
    pub count: u32,
    pub bytes: Vec<u8>,
}

impl Value {
    pub fn new(tag: u32, kind: u32, count: u32, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self {
            tag,
            kind,
            count,
            bytes,
        }
    }
}

/// The four sections of a package, padding left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sections {
    pub lead: Vec<u8>,
    pub signature: Vec<u8>,
    pub main: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Sections {
    pub fn of(package: &[u8]) -> Self {
        let (lead, rest) = package.split_at(96);
        let (signature, _) = rest.split_at(header_len(rest));
        let rest = &rest[signature.len().next_multiple_of(8)..];
        let (main, payload) = rest.split_at(header_len(rest));
        Self {
            lead: lead.to_vec(),
            signature: signature.to_vec(),
            main: main.to_vec(),
            payload: payload.to_vec(),
        }
    }

    pub fn join(&self) -> Vec<u8> {
        let mut package = [&self.lead[..], &self.signature].concat();
        package.resize(package.len().next_multiple_of(8), 0);
        [&package[..], &self.main, &self.payload].concat()
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn header_len(bytes: &[u8]) -> usize {
    16 + 16 * word(bytes, 8) as usize + word(bytes, 12) as usize
}

/// The values of a header but its region, in the order of the index.
pub fn values(header: &[u8]) -> Vec<Value> {
    let count = word(header, 8) as usize;
    let store = &header[16 + 16 * count..];
    let value = |place| {
        let at = 16 + 16 * place;
        let (kind, count) = (word(header, at + 4), word(header, at + 12));
        let rest = &store[word(header, at + 8) as usize..];
        let len = match kind {
            1 | 2 | 7 => count as usize,
            3 => 2 * count as usize,
            4 => 4 * count as usize,
            5 => 8 * count as usize,
            _ => {
                let ends = rest.iter().enumerate().filter(|(_, byte)| **byte == 0);
                ends.map(|(at, _)| at + 1).nth(count as usize - 1).unwrap()
            }
        };
        Value::new(word(header, at), kind, count, &rest[..len])
    };
    (1..count).map(value).collect()
}

/// A header of the values, all within the region.
pub fn header(region: u32, values: &[Value]) -> Vec<u8> {
    let words = |words: [u32; 4]| words.map(u32::to_be_bytes).concat();
    let (mut index, mut store) = (Vec::new(), Vec::new());
    for value in values {
        let alignment = [1, 1, 1, 2, 4, 8, 1, 1, 1, 1][value.kind as usize];
        store.resize(store.len().next_multiple_of(alignment), 0_u8);
        index.extend(words([
            value.tag,
            value.kind,
            store.len() as u32,
            value.count,
        ]));
        store.extend_from_slice(&value.bytes);
    }
    let entries = values.len() as u32 + 1;
    let first = words([region, 7, store.len() as u32, 16]);
    store.extend(words([region, 7, (entries * 16).wrapping_neg(), 16]));
    let start = words([0x8ead_e801, 0, entries, store.len() as u32]);
    [start, first, index, store].concat()
}

/// The package as rpm before 4.14 built it: no payload digest, no header SHA-256, no filler.
pub fn legacy(package: &[u8]) -> Vec<u8> {
    use openssl::hash::{MessageDigest, hash};
    let mut sections = Sections::of(package);
    let mut main = values(&sections.main);
    main.retain(|value| ![5092, 5093, 5097].contains(&value.tag));
    sections.main = header(63, &main);
    let both = [&sections.main[..], &sections.payload].concat();
    let sha1 = hash(MessageDigest::sha1(), &sections.main).unwrap();
    let md5 = hash(MessageDigest::md5(), &both).unwrap();
    sections.signature = header(
        62,
        &[
            Value::new(269, 6, 1, hex::encode(sha1) + "\0"),
            Value::new(1000, 4, 1, (both.len() as u32).to_be_bytes()),
            Value::new(1004, 7, 16, &md5[..]),
        ],
    );
    sections.join()
}
