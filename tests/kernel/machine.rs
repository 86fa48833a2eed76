//! A machine that boots a real kernel, and tries modules or runs programs: QEMU without KVM, UEFI firmware whose `db` holds
//! certificates, an initial filesystem whose first program does that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use signdrop::key::x509::Certificate;

use crate::common::{
    modules::{bare, kernels, modules_of, through},
    run,
};

/// How long a kernel may take until its first program speaks, and that to try modules; together it takes some ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a script may take; the mount's tests take seven minutes.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(1800);
/// QEMU 7.2 without KVM corrupts a 6.12 guest's flags now and then, so that it stops booting; the next boot does not.
const TRIES: usize = 4;

/// What a kernel said to a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Loaded,
    Refused(Refusal),
}

/// Why a module was not loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// EKEYREJECTED: no signature, one of an unknown key, or one that does not verify.
    KeyRejected,
    /// EBADMSG: the signature's structure.
    BadMessage,
    /// ENOPKG: an algorithm that the kernel does not have.
    NoPackage,
    Other(i32),
}

impl Verdict {
    fn of(errno: i32) -> Self {
        match errno {
            0 => Self::Loaded,
            129 => Self::Refused(Refusal::KeyRejected),
            74 => Self::Refused(Refusal::BadMessage),
            65 => Self::Refused(Refusal::NoPackage),
            other => Self::Refused(Refusal::Other(other)),
        }
    }
}

/// A kernel of Debian's that enforces signatures.
pub struct Machine {
    suite: &'static str,
    image: PathBuf,
}

impl Machine {
    pub fn new(suite: &'static str) -> Self {
        let images = fs::read_dir(kernels().join(suite).join("boot")).unwrap();
        let image = images
            .map(|entry| entry.unwrap().path())
            .find(|path| path.to_string_lossy().contains("/vmlinuz-"))
            .expect("a kernel's image");
        Self { suite, image }
    }

    /// One of the kernel's own modules, as the kernel's makers signed it.
    pub fn own_module(&self, name: &str) -> Vec<u8> {
        let (plain, packed) = (format!("{name}.ko"), format!("{name}.ko.xz"));
        let path = modules_of(self.suite)
            .into_iter()
            .find(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                name == plain || name == packed
            })
            .unwrap_or_else(|| panic!("{} has no module {name}", self.suite));
        let bytes = fs::read(&path).unwrap();
        match path.extension().unwrap().to_str().unwrap() {
            "xz" => through(&["xz", "-dc"], &bytes),
            _ => bytes,
        }
    }

    /// Boots the kernel, which knows the certificates, and has it try the modules.
    pub fn tries(
        &self,
        certificates: &[&Certificate],
        modules: &[(String, Vec<u8>)],
    ) -> BTreeMap<String, Verdict> {
        let own = self.own_module("dummy");
        let mut all = modules.to_vec();
        all.push(("control-signed".into(), own.clone()));
        all.push(("control-unsigned".into(), bare(&own).to_vec()));
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Archive::with_init(dir.path());
        if self.suite == "bookworm" {
            // This kernel has SHA-384 and SHA-512 only so.
            self.add_own(&mut archive, &["sha512_generic"]);
        }
        for (name, bytes) in &all {
            archive.add(&format!("modules/{name}"), 0o100_644, bytes);
        }
        fs::write(dir.path().join("initrd"), archive.finish()).unwrap();
        let said = self.says(dir.path(), certificates, PATIENCE);
        assert!(said.contains("enforced Y"), "{said}");
        let verdicts: BTreeMap<_, _> = said
            .lines()
            .filter_map(|line| line.trim_end().rsplit_once(' '))
            .filter_map(|(name, errno)| Some((name.to_owned(), Verdict::of(errno.parse().ok()?))))
            .collect();
        assert_eq!(verdicts.len(), all.len(), "{said}");
        assert_eq!(verdicts["control-signed"], Verdict::Loaded, "{said}");
        assert_eq!(
            verdicts["control-unsigned"],
            Verdict::Refused(Refusal::KeyRejected),
            "{said}"
        );
        verdicts
    }

    /// Boots the kernel and has its shell run a script with programs of this machine, which are where they are here, and an
    /// empty disk. Answers what it wrote, if it ended well.
    pub fn runs(&self, modules: &[&str], programs: &[PathBuf], script: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Archive::with_init(dir.path());
        self.add_own(&mut archive, &["virtio_pci", "virtio_blk"]);
        self.add_own(&mut archive, modules);
        let shell = PathBuf::from("/bin/sh");
        let mut libraries = BTreeSet::new();
        for program in programs.iter().chain([&shell]) {
            libraries.extend(libraries_of(program));
            let stripped = dir.path().join("stripped");
            let output = run(Command::new("strip").arg("-o").args([&stripped, program]));
            assert!(output.status.success(), "{output:?}");
            archive.add_with_parents(program, &fs::read(&stripped).unwrap());
        }
        for library in libraries {
            archive.add_with_parents(&library, &fs::read(&library).unwrap());
        }
        archive.add("script", 0o100_644, script.as_bytes());
        fs::write(dir.path().join("initrd"), archive.finish()).unwrap();
        let disk = fs::File::create(dir.path().join("disk")).unwrap();
        disk.set_len(1 << 30).unwrap();
        let said = self.says(dir.path(), &[], SCRIPT_PATIENCE);
        assert!(said.lines().any(|line| line == "ran 0"), "{said}");
        said
    }

    /// What the first program says until it ends.
    fn says(&self, dir: &Path, certificates: &[&Certificate], patience: Duration) -> String {
        (0..TRIES)
            .find_map(|_| self.boot(dir, certificates, patience))
            .unwrap_or_else(|| {
                let [console, said] =
                    ["console", "said"].map(|name| fs::read_to_string(dir.join(name)));
                panic!(
                    "the kernel never finished:\n{}\n{}",
                    console.unwrap_or_default(),
                    said.unwrap_or_default()
                )
            })
    }

    /// The same, or nothing where it does not get there.
    fn boot(
        &self,
        dir: &Path,
        certificates: &[&Certificate],
        patience: Duration,
    ) -> Option<String> {
        let (variables, said) = (dir.join("variables"), dir.join("said"));
        fs::write(&variables, variable_store(certificates)).unwrap();
        fs::write(&said, "").unwrap();
        let firmware = "/usr/share/OVMF/OVMF_CODE_4M.fd";
        let mut command = Command::new("qemu-system-x86_64");
        let disk = dir.join("disk");
        if disk.exists() {
            let disk = format!("if=virtio,format=raw,file={}", disk.display());
            command.args(["-drive", &disk]);
        }
        let machine = command
            .args(["-accel", "tcg", "-machine", "q35", "-cpu", "Nehalem-v1"])
            .args(["-m", "768", "-smp", "1", "-nic", "none", "-nodefaults"])
            .args(["-no-user-config", "-display", "none", "-monitor", "none"])
            .args(["-no-reboot", "-serial"])
            .arg(format!("file:{}", dir.join("console").display()))
            .arg("-serial")
            .arg(format!("file:{}", said.display()))
            .arg("-drive")
            .arg(format!(
                "if=pflash,format=raw,unit=0,readonly=on,file={firmware}"
            ))
            .arg("-drive")
            .arg(format!(
                "if=pflash,format=raw,unit=1,file={}",
                variables.display()
            ))
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(dir.join("initrd"))
            .args([
                "-append",
                "console=ttyS0 loglevel=5 panic=-1 module.sig_enforce=1",
            ])
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run qemu: {error}; `make kernel` installs it"));
        let said = said_in_time(machine, &said, patience);
        said.lines()
            .any(|line| line.trim_end() == "end")
            .then_some(said)
    }

    fn has_built_in(&self, name: &str) -> bool {
        let built_in = modules_of(self.suite)
            .into_iter()
            .find_map(|path| {
                Some(
                    path.ancestors()
                        .find(|path| path.ends_with("kernel"))?
                        .with_file_name("modules.builtin"),
                )
            })
            .map(|path| fs::read_to_string(path).unwrap())
            .unwrap();
        built_in
            .lines()
            .any(|path| path.ends_with(&format!("/{name}.ko")))
    }

    /// Has the kernel load some of its own modules, and before each what it depends on.
    fn add_own(&self, archive: &mut Archive, names: &[&str]) {
        for name in names {
            if self.has_built_in(name) {
                continue;
            }
            let module = self.own_module(name);
            let file = tempfile::Builder::new().suffix(".ko").tempfile().unwrap();
            fs::write(file.path(), &module).unwrap();
            let output = run(Command::new("modinfo")
                .args(["-F", "depends"])
                .arg(file.path()));
            assert!(output.status.success(), "{output:?}");
            let depends = String::from_utf8(output.stdout).unwrap();
            let depends: Vec<&str> = depends
                .trim_end()
                .split(',')
                .filter(|name| !name.is_empty())
                .collect();
            self.add_own(archive, &depends);
            // Loaded in this order; once more does no harm.
            let path = format!("before/{:03}-{name}", archive.files);
            archive.add(&path, 0o100_644, &module);
        }
    }
}

/// The libraries that a program is loaded with, and what loads them.
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let output = run(Command::new("ldd").arg(program));
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.split_whitespace();
    words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// What a machine's first program has said when the machine is off. One that does not boot in time is turned off.
fn said_in_time(mut machine: Child, said: &Path, patience: Duration) -> String {
    let started = Instant::now();
    loop {
        let is_off = machine.try_wait().unwrap().is_some();
        // The last character may be there in part.
        let said = String::from_utf8_lossy(&fs::read(said).unwrap()).into_owned();
        let is_late = started.elapsed()
            > if said.contains("enforced") {
                patience
            } else {
                PATIENCE
            };
        if is_off {
            return said;
        }
        if is_late {
            machine.kill().unwrap();
            machine.wait().unwrap();
            assert!(!said.contains("enforced"), "it has not ended:\n{said}");
            return said;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// An initial filesystem in the format "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    files: u32,
    directories: BTreeSet<PathBuf>,
}

impl Archive {
    /// One with the first program in it, which is built in `dir`.
    fn with_init(dir: &Path) -> Self {
        let program = dir.join("init");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel/init.c");
        let output = run(Command::new("gcc")
            .args(["-static", "-Os", "-s", "-Wall", "-Werror", "-o"])
            .arg(&program)
            .arg(source));
        assert!(output.status.success(), "{output:?}");
        let mut archive = Self::default();
        for name in ["proc", "sys", "dev", "tmp", "modules", "before"] {
            archive.add(name, 0o040_755, &[]);
        }
        archive.add("init", 0o100_755, &fs::read(program).unwrap());
        archive
    }

    /// A program or a library, where it is on this machine.
    fn add_with_parents(&mut self, path: &Path, content: &[u8]) {
        let path = path.strip_prefix("/").unwrap();
        let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
        parents.reverse();
        for parent in &parents[1..] {
            if self.directories.insert(parent.to_path_buf()) {
                self.add(parent.to_str().unwrap(), 0o040_755, &[]);
            }
        }
        self.add(path.to_str().unwrap(), 0o100_755, content);
    }

    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.files += 1;
        let (len, name_len) = (content.len() as u32, name.len() as u32 + 1);
        let fields = [self.files, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

/// The firmware's variables, with the certificates in `db`, out of which the kernel takes them into its keyring `.platform`.
///
/// Source: UEFI 2.10, sections 8.2 and 32.4.1; EDK II, MdeModulePkg/Include/Guid/VariableFormat.h.
fn variable_store(certificates: &[&Certificate]) -> Vec<u8> {
    const STORE_HEADER: usize = 28;
    const VARIABLE_HEADER: usize = 60;
    let mut flash = fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd")
        .unwrap_or_else(|error| panic!("no firmware: {error}; `make kernel` installs it"));
    assert_eq!(flash[0x28..0x2c], *b"_FVH");
    let store = usize::from(u16::from_le_bytes(flash[0x30..0x32].try_into().unwrap()));
    assert_eq!(
        flash[store..store + 16],
        guid("aaf32c78-947b-439a-a180-2e144ec37792"),
        "authenticated variables"
    );
    let mut at = store + STORE_HEADER;
    let word = |flash: &[u8], at: usize| {
        u32::from_le_bytes(flash[at..at + 4].try_into().unwrap()) as usize
    };
    while flash[at..at + 2] == [0xaa, 0x55] {
        let len = VARIABLE_HEADER + word(&flash, at + 36) + word(&flash, at + 40);
        at = (at + len).next_multiple_of(4);
    }

    let mut lists = Vec::new();
    for certificate in certificates {
        let der = certificate.as_der();
        let signature_len = 16 + der.len() as u32;
        lists.extend(guid("a5c059a1-94e4-4aa7-87b5-ab155c2bf072"));
        for number in [28 + signature_len, 0, signature_len] {
            lists.extend(number.to_le_bytes());
        }
        lists.extend([0x11; 16]);
        lists.extend(der);
    }
    let name: Vec<u8> = "db\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut variable = vec![0xaa, 0x55, 0x3f, 0];
    // Kept, for the firmware and for the kernel, changed with a signature only.
    variable.extend(0x27_u32.to_le_bytes());
    variable.extend([0; 28]);
    variable.extend((name.len() as u32).to_le_bytes());
    variable.extend((lists.len() as u32).to_le_bytes());
    variable.extend(guid("d719b2cb-3d3a-4596-a3bc-dad00e67656f"));
    variable.extend(name);
    variable.extend(lists);
    let room = &mut flash[at..at + variable.len()];
    assert!(room.iter().all(|byte| *byte == 0xff), "the store is full");
    room.copy_from_slice(&variable);
    flash
}

/// A GUID as UEFI stores it: its first three parts in the other order of bytes.
fn guid(text: &str) -> [u8; 16] {
    let bytes = hex::decode(text.replace('-', "")).unwrap();
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    order.map(|at: usize| bytes[at])
}
