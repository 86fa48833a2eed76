//! A repository that is kept in a mount, and what dnf makes of it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
};

use common::{
    dnf::{createrepo, dnf_install_from},
    mount::{IDENTITY, MountDaemon, bounded, succeeds},
    packages_below, rpmbuild,
};

/// Python's web server on a loopback port that the kernel chose. Ended when dropped, or after five minutes.
struct Web {
    child: Child,
    address: String,
}

impl Web {
    fn serve(directory: &Path) -> Self {
        let mut child = std::process::Command::new("timeout")
            .args(["-k", "5", "300", "python3", "-u", "-m", "http.server"])
            .args(["0", "--bind", "127.0.0.1", "--directory"])
            .arg(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // "Serving HTTP on 127.0.0.1 port 40017 (http://127.0.0.1:40017/) ..."
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let address = line.split(['(', ')']).nth(1).unwrap();
        let address = address.trim_end_matches('/').to_owned();
        Self { child, address }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // timeout(1) passes it on to the server.
        let pid = self.child.id().to_string();
        let _ = common::run(std::process::Command::new("kill").arg(pid));
        let _ = self.child.wait();
    }
}

#[test]
fn dnf_installs_from_a_repository_that_writers_made_in_the_mount() {
    let directory = tempfile::tempdir().unwrap();
    let options = "ignore = [\"**/unsigned/**\"]";
    let mounted = MountDaemon::start_on(directory.path(), options);
    let (project, _) = mounted.project();
    let built = mounted.beside("built");
    for name in ["one", "two"] {
        rpmbuild(&built, name, 1000);
    }
    let key = mounted.beside("keys").join("tools.asc");
    fs::write(&key, mounted.daemon.export(IDENTITY)).unwrap();
    let from = format!("{}/", built.display());
    for place in ["repository", "unsigned"] {
        let repository = project.join(place);
        fs::create_dir(&repository).unwrap();
        succeeds(bounded("rsync").args(["-a", &from]).arg(&repository));
        assert_eq!(packages_below(&repository).len(), 2);
        createrepo(&repository);
    }
    let web = Web::serve(&mounted.at);
    for base in [
        format!("file://{}", mounted.at.display()),
        web.address.clone(),
    ] {
        let address = |place| format!("{base}/alice/tools/{place}");
        let output = dnf_install_from(&address("repository"), &key);
        assert!(output.status.success(), "{base}: {output:?}");
        // dnf does look: what the mount did not sign, it does not install.
        let output = dnf_install_from(&address("unsigned"), &key);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{base}: {output:?}");
        assert!(said.contains("is not signed"), "{base}: {output:?}");
    }
    // The next build of a package takes the place of the former, and the metadata follow.
    let repository = project.join("repository");
    let again = mounted.beside("again");
    let package = rpmbuild(&again, "one", 2000);
    succeeds(bounded("cp").arg(&package).arg(&repository));
    createrepo(&repository);
    let output = dnf_install_from(&format!("{}/alice/tools/repository", web.address), &key);
    assert!(output.status.success(), "{output:?}");
}
