//! COPR's backend: its calls in their order, once through `sign` and once through the barrier, up to a `dnf install` that checks signatures.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::{
    Rpmdb,
    daemon::{Daemon, free_port},
    dnf::{createrepo, dnf_install},
    packages_below, rpmbuild, run,
};

const TOOLS: &str = "alice#tools@copr.example.org";
const FORK: &str = "bob#fork@copr.example.org";
const CHROOT: &str = "fedora-43-x86_64";

/// A daemon that serves COPR's results tree, and unsigned packages of a build.
struct Copr {
    daemon: Daemon,
    built: PathBuf,
}

impl Copr {
    fn start() -> Self {
        let daemon = Daemon::start("public_key = \"pubkey.gpg\"\nignore = [\"**/repodata/**\"]");
        let built = daemon.dir.path().join("built");
        fs::create_dir(&built).unwrap();
        for name in ["one", "two"] {
            rpmbuild(&built, name, 1000);
        }
        Self { daemon, built }
    }

    /// Brings the build's packages as rsync does.
    fn download(&self, to: &Path) {
        fs::create_dir_all(to).unwrap();
        let output = run(Command::new("rsync")
            .arg("-a")
            .arg(format!("{}/", self.built.display()))
            .arg(to));
        assert!(output.status.success(), "{output:?}");
    }

    /// The program under obs-sign's name.
    fn sign<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Output {
        let sign = self.daemon.dir.path().join("sign");
        if !sign.exists() {
            symlink(env!("CARGO_BIN_EXE_signdrop"), &sign).unwrap();
        }
        run(Command::new(sign)
            .env("SIGNDROP_API", self.daemon.api())
            .env("SIGN_CONF", "/nonexistent")
            .args(words))
    }

    /// Runs lines of Python with the backend's module, as `backend`, and a log.
    fn python(&self, lines: &str) -> Output {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/copr");
        let script = format!(
            "import logging, types\n\
             import signdrop_sign as backend\n\
             log = logging.getLogger()\n\
             opts = types.SimpleNamespace(sign_domain='example.org', do_sign=True)\n\
             {lines}\n"
        );
        run(Command::new("python3")
            .args(["-B", "-c", &script])
            .env("PYTHONPATH", module)
            .env("SIGNDROP_API", self.daemon.api())
            .env("SIGNDROP", env!("CARGO_BIN_EXE_signdrop")))
    }

    fn rpmdb(&self, identity: &str) -> Rpmdb {
        Rpmdb::new(&self.daemon.export(identity))
    }

    fn assert_signed(&self, directory: &Path, identity: &str) {
        let packages = packages_below(directory);
        assert_eq!(packages.len(), 2);
        assert_eq!(self.rpmdb(identity).not_signed(&packages), [] as [&Path; 0]);
    }
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The build sequence and that of a fork, with one program for public keys and one for signatures, whatever they are.
fn build_and_fork(
    copr: &Copr,
    public: impl Fn(&str) -> Output,
    sign: impl Fn(&str, &Path) -> Output,
) {
    // Not below the drop directory: nobody but `sign` signs here.
    let repository = copr.daemon.dir.path().join("results");
    let build = repository.join("00000001-one");
    copr.download(&build);

    let output = public(TOOLS);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown key:"));
    // As the backend sends it: a form.
    let output = run(Command::new("curl")
        .args(["-s", "-w", "%{http_code}", "--unix-socket"])
        .arg(copr.daemon.dir.path().join("api.sock"))
        .args(["--data-urlencode", "name_real=alice_tools"])
        .args(["--data-urlencode", &format!("name_email={TOOLS}")])
        .arg("http://signdrop/gen_key"));
    assert!(done(&output).ends_with("201"), "{output:?}");

    createrepo(&repository);
    let key = repository.join("pubkey.gpg");
    fs::write(&key, done(&public(TOOLS))).unwrap();
    let output = dnf_install(&repository, &key);
    assert!(
        !output.status.success(),
        "unsigned, and installed: {output:?}"
    );

    for package in packages_below(&build) {
        done(&sign(TOOLS, &package));
    }
    copr.assert_signed(&build, TOOLS);
    createrepo(&repository);
    done(&dnf_install(&repository, &key));

    // A fork: another key, a copy, every signature dropped, every package signed.
    let fork = copr.daemon.dir.path().join("fork");
    done(&copr.daemon.signdrop(["key", "generate", FORK]));
    done(&run(Command::new("cp")
        .arg("-a")
        .arg(&repository)
        .arg(&fork)));
    for package in packages_below(&fork) {
        done(&run(Command::new("rpmsign").arg("--delsign").arg(&package)));
        done(&sign(FORK, &package));
    }
    copr.assert_signed(&fork.join("00000001-one"), FORK);
    createrepo(&fork);
    let output = dnf_install(&fork, &key);
    assert!(
        !output.status.success(),
        "believed another project's key: {output:?}"
    );
    fs::write(fork.join("pubkey.gpg"), done(&public(FORK))).unwrap();
    done(&dnf_install(&fork, &fork.join("pubkey.gpg")));
}

#[test]
fn the_build_sequence_through_sign_ends_in_a_repository_that_dnf_installs_from() {
    let copr = Copr::start();
    build_and_fork(
        &copr,
        |user| copr.sign(["-u", user, "-p"]),
        |user, package| {
            let words = ["-4", "-h", "sha256", "-u", user, "-r"].map(OsStr::new);
            copr.sign(words.into_iter().chain([package.as_os_str()]))
        },
    );
}

#[test]
fn the_build_sequence_through_obs_signs_protocol_ends_in_a_repository_that_dnf_installs_from() {
    let mut copr = Copr::start();
    copr.daemon.stop();
    let port = free_port();
    let config = fs::read_to_string(copr.daemon.config()).unwrap();
    let obs = format!("[obs]\nlisten = \"tcp:127.0.0.1:{port}\"\nports = \"any\"\n[keys]");
    copr.daemon.write_config(&config.replace("[keys]", &obs));
    copr.daemon.run();
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/copr_backend/obs_client.py");
    let client = client.to_str().unwrap();
    build_and_fork(
        &copr,
        |user| run(Command::new("python3").args([client, &port.to_string(), user, "pubkey"])),
        |user, package| {
            // The header is rpm's own work; the client takes gpg's place.
            let command = format!(
                "/usr/bin/python3 python3 {client} {port} {user} sign /dev/stdin %{{__signature_filename}}"
            );
            run(Command::new("rpmsign")
                .args(["--define", &format!("_gpg_name {user}")])
                .args(["--define", &format!("__gpg_sign_cmd {command}")])
                .arg("--addsign")
                .arg(package))
        },
    );
}

#[test]
fn the_build_sequence_through_the_barrier_ends_in_a_repository_that_dnf_installs_from() {
    let copr = Copr::start();
    let project = copr.daemon.project("alice/tools");
    let repository = project.join(CHROOT);
    let build = repository.join("00000001-one");
    copr.download(&build);
    let sign = |user: &str, project: &str, build: &Path| {
        format!(
            "backend.sign_rpms_in_dir('{user}', '{project}', '{}', '{CHROOT}', opts, log)",
            build.display()
        )
    };
    done(&copr.python(&sign("alice", "tools", &build)));
    copr.assert_signed(&build, TOOLS);
    createrepo(&repository);
    done(&dnf_install(&repository, &project.join("pubkey.gpg")));

    // A fork, of which every package is signed anew as it arrives.
    let fork = copr.daemon.project("bob").join("fork");
    done(&run(Command::new("rsync")
        .arg("-a")
        .arg(format!("{}/", project.display()))
        .arg(&fork)));
    let forked = fork.join(CHROOT).join("00000001-one");
    done(&copr.python(&sign("bob", "fork", &forked).replace("sign_rpms", "resign_rpms")));
    copr.assert_signed(&forked, FORK);
    createrepo(&fork.join(CHROOT));
    done(&dnf_install(&fork.join(CHROOT), &fork.join("pubkey.gpg")));
}

#[test]
fn the_backends_functions_do_what_they_say_outside_of_the_tree_too() {
    let copr = Copr::start();
    let elsewhere = copr.daemon.dir.path().join("copr-fork-1");
    copr.download(&elsewhere);
    let original: Vec<_> = packages_below(&elsewhere)
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    let call = |function: &str, chroot: &str| {
        done(&copr.python(&format!(
            "backend.{function}('bob', 'fork', '{}', '{chroot}', opts, log)",
            elsewhere.display()
        )));
    };
    call("sign_rpms_in_dir", CHROOT);
    copr.assert_signed(&elsewhere, FORK);
    call("resign_rpms_in_dir", "epel-4-x86_64");
    let package = packages_below(&elsewhere).remove(0);
    let said = copr.rpmdb(FORK).check(&package).1;
    assert!(said.contains("RSA/SHA1 Signature, key ID"), "{said}");
    done(&copr.python(&format!(
        "backend.unsign_rpms_in_dir('{}', opts, log)",
        elsewhere.display()
    )));
    let unsigned: Vec<_> = packages_below(&elsewhere)
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    assert_eq!(unsigned, original);

    let outfile = copr.daemon.dir.path().join("pubkey.gpg");
    let said = done(&copr.python(&format!(
        "for _ in range(2): backend.create_user_keys('@g', 'new', opts)\n\
         print(backend.get_pubkey('@g', 'new', log, 'example.org', '{}'), end='')",
        outfile.display()
    )));
    assert_eq!(said, copr.daemon.export("@g#new@copr.example.org"));
    assert_eq!(fs::read_to_string(outfile).unwrap(), said);
    for (chroot, digest) in [
        ("fedora-26-x86_64", "sha1"),
        ("fedora-27-x86_64", "sha256"),
        ("fedora-rawhide-x86_64", "sha256"),
        ("epel-4-x86_64", "sha1"),
        ("epel-10-x86_64", "sha256"),
        ("centos-stream-9-x86_64", "sha256"),
        ("rhel+epel-8-x86_64", "sha256"),
        ("opensuse-leap-15.6-x86_64", "sha256"),
    ] {
        let said = done(&copr.python(&format!("print(backend._digest('{chroot}'))")));
        assert_eq!(said.trim(), digest, "{chroot}");
    }
}

#[test]
fn what_the_backend_cannot_have_is_raised_as_its_own_errors() {
    let copr = Copr::start();
    let build = copr.daemon.project("alice/tools").join("00000001-one");
    copr.download(&build);
    fs::write(build.join("broken.rpm"), "no package").unwrap();
    let build = build.display().to_string();
    let elsewhere = copr.daemon.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("broken.rpm"), "no package").unwrap();
    let elsewhere = elsewhere.display().to_string();
    let unreachable = "backend.API = 'unix:/nonexistent'; ";
    for (call, error, named) in [
        (
            format!("backend.sign_rpms_in_dir('alice', 'tools', '{build}', '{CHROOT}', opts, log)"),
            "CoprSignError",
            "broken.rpm",
        ),
        (
            format!(
                "backend.sign_rpms_in_dir('alice', 'tools', '{elsewhere}', '{CHROOT}', opts, log)"
            ),
            "CoprSignError",
            "broken.rpm",
        ),
        (
            format!("backend.unsign_rpms_in_dir('{elsewhere}', opts, log)"),
            "CoprSignError",
            "broken.rpm",
        ),
        (
            "backend.get_pubkey('no', 'body', log, 'example.org')".into(),
            "CoprSignNoKeyError",
            "unknown key: no#body@copr.example.org",
        ),
        (
            "backend.create_user_keys('../a', 'b', opts)".into(),
            "CoprKeygenRequestError",
            "../a#b@copr.example.org",
        ),
        (
            format!("{unreachable}backend.create_user_keys('a', 'b', opts)"),
            "CoprKeygenRequestError",
            "/nonexistent",
        ),
        (
            format!("{unreachable}backend.get_pubkey('a', 'b', log, 'example.org')"),
            "CoprSignError",
            "/nonexistent",
        ),
        (
            format!(
                "{unreachable}backend.sign_rpms_in_dir('a', 'b', '{build}', '{CHROOT}', opts, log)"
            ),
            "CoprSignError",
            "/nonexistent",
        ),
    ] {
        let output = copr.python(&call);
        assert!(!output.status.success(), "{call}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = said.trim_end().lines().last().unwrap_or_default();
        assert!(last.contains(error), "{call}: {said}");
        assert!(last.contains(named), "{call}: {said}");
    }
    // The others of the directory are signed all the same.
    let packages: Vec<PathBuf> = packages_below(Path::new(&build))
        .into_iter()
        .filter(|path| !path.ends_with("broken.rpm"))
        .collect();
    assert_eq!(copr.rpmdb(TOOLS).not_signed(&packages), [] as [&Path; 0]);
}
