//! Kernel modules, and the programs that judge them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use openssl::{
    cms::{CMSOptions, CmsContentInfo},
    pkey::PKey,
    stack::Stack,
    x509::X509,
};
use signdrop::key::x509::Certificate;

use super::{TestKey, run};

/// The last bytes of a signed module.
pub const MARKER: &[u8] = b"~Module signature appended~\n";
/// Bytes of description and marker.
pub const TRAILER: usize = 12 + MARKER.len();

/// What `tests/kernel/fetch.sh` has fetched.
pub fn kernels() -> PathBuf {
    let root = std::env::var_os("SIGNDROP_KERNELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kernels"),
        PathBuf::from,
    );
    assert!(
        root.join("bookworm").is_dir() && root.join("trixie").is_dir(),
        "no kernels at {}; `make kernels` fetches them",
        root.display()
    );
    root
}

/// All modules of a kernel, sorted: `bookworm` has them as they are, `trixie` in xz.
pub fn modules_of(suite: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![kernels().join(suite)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            } else if name.ends_with(".ko") || name.ends_with(".ko.xz") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 500, "only {} modules of {suite}", found.len());
    found.sort();
    found
}

/// A small module of Debian's 6.1 kernel, without signature.
pub fn small_module() -> Vec<u8> {
    module_named("dummy")
}

/// A module of Debian's 6.1 kernel, without signature.
pub fn module_named(name: &str) -> Vec<u8> {
    let name = format!("{name}.ko");
    let path = modules_of("bookworm")
        .into_iter()
        .find(|path| path.file_name().unwrap() == name.as_str())
        .unwrap();
    bare(&fs::read(path).unwrap()).to_vec()
}

/// A signed module's last signature, and what it covers.
pub fn split(module: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = module.strip_suffix(MARKER)?;
    let (rest, description) = rest.split_at(rest.len() - 12);
    assert_eq!(description[..8], [0, 0, 2, 0, 0, 0, 0, 0]);
    let len = u32::from_be_bytes(description[8..].try_into().unwrap()) as usize;
    Some(rest.split_at(rest.len() - len))
}

/// A module without any of its signatures.
pub fn bare(module: &[u8]) -> &[u8] {
    match split(module) {
        Some((covered, _)) => bare(covered),
        None => module,
    }
}

/// Whether OpenSSL finds a module's last signature to be one of the certificate's key.
pub fn is_signed(module: &[u8], certificate: &Certificate) -> bool {
    let Some((covered, signature)) = split(module) else {
        return false;
    };
    let mut known = Stack::new().unwrap();
    known
        .push(X509::from_der(certificate.as_der()).unwrap())
        .unwrap();
    let flags = CMSOptions::BINARY
        | CMSOptions::DETACHED
        | CMSOptions::NOINTERN
        | CMSOptions::NO_SIGNER_CERT_VERIFY;
    CmsContentInfo::from_der(signature).is_ok_and(|mut cms| {
        cms.verify(Some(&known), None, Some(covered), None, flags)
            .is_ok()
    })
}

/// What `modinfo` says of a field such as `signer`, `sig_key` or `sig_hashalgo`, for each of the modules.
pub fn modinfo(field: &str, paths: &[PathBuf]) -> Vec<String> {
    let output = run(Command::new("/sbin/modinfo")
        .args(["-F", field])
        .args(paths));
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The kernel's own program, with a key and a certificate for it.
pub struct SignFile {
    program: PathBuf,
    dir: tempfile::TempDir,
}

impl SignFile {
    pub fn new(key: &TestKey) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secret =
            PKey::private_key_from_pkcs8(&key.module_secret().to_pkcs8().unwrap()).unwrap();
        fs::write(
            dir.path().join("key.pem"),
            secret.private_key_to_pem_pkcs8().unwrap(),
        )
        .unwrap();
        let certificate = key.x509.as_ref().unwrap().to_pem().unwrap();
        fs::write(dir.path().join("certificate.pem"), certificate).unwrap();
        Self {
            program: kernels().join("bookworm/usr/lib/linux-kbuild-6.1/scripts/sign-file"),
            dir,
        }
    }

    /// The program with its arguments but the module, for a shell.
    pub fn command(&self, digest: &str) -> String {
        let dir = self.dir.path().display();
        format!(
            "{} {digest} {dir}/key.pem {dir}/certificate.pem",
            self.program.display()
        )
    }

    /// Appends a signature to the module.
    pub fn sign(&self, module: &[u8], digest: &str) -> Vec<u8> {
        self.sign_with(&[], module, digest)
    }

    /// Appends a signature that names the key and not the certificate.
    pub fn sign_by_key_identifier(&self, module: &[u8], digest: &str) -> Vec<u8> {
        self.sign_with(&["-k"], module, digest)
    }

    fn sign_with(&self, options: &[&str], module: &[u8], digest: &str) -> Vec<u8> {
        let path = self.dir.path().join("module.ko");
        fs::write(&path, module).unwrap();
        let output = run(Command::new(&self.program)
            .args(options)
            .arg(digest)
            .arg(self.dir.path().join("key.pem"))
            .arg(self.dir.path().join("certificate.pem"))
            .arg(&path));
        assert!(output.status.success(), "{output:?}");
        fs::read(path).unwrap()
    }
}

/// A module with a signature that OpenSSL makes, more or less as kernels want it.
pub fn signed_by_openssl(module: &[u8], key: &TestKey, options: CMSOptions) -> Vec<u8> {
    let secret = key.module_secret().to_pkcs8().unwrap();
    let secret = PKey::private_key_from_pkcs8(&secret).unwrap();
    let certificate = X509::from_der(key.x509.as_ref().unwrap().as_der()).unwrap();
    let options = options | CMSOptions::BINARY | CMSOptions::DETACHED;
    let cms = CmsContentInfo::sign(
        Some(&certificate),
        Some(&secret),
        None,
        Some(module),
        options,
    )
    .unwrap()
    .to_der()
    .unwrap();
    let len = (cms.len() as u32).to_be_bytes();
    [module, &cms, &[0, 0, 2, 0, 0, 0, 0, 0], &len, MARKER].concat()
}

/// What a program makes of its standard input, such as `xz -dc`.
pub fn through(command: &[&str], input: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input");
    fs::write(&path, input).unwrap();
    let output = run(Command::new(command[0])
        .args(&command[1..])
        .stdin(fs::File::open(path).unwrap()));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output.stdout
}
