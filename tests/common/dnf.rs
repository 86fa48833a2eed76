//! dnf and its repositories.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use super::{mount::bounded, run};

/// Makes a repository's metadata.
pub fn createrepo(repository: &Path) {
    let output = run(Command::new("createrepo_c")
        .args(["--quiet", "--no-database", "--general-compress-type=gz"])
        .arg(repository));
    assert!(output.status.success(), "{output:?}");
}

/// As [`dnf_install_from`], from a directory.
pub fn dnf_install(repository: &Path, key: &Path) -> Output {
    dnf_install_from(&format!("file://{}", repository.display()), key)
}

/// Installs the package `one` from the repository, which is the only one, into a system of its own, and believes that key only.
pub fn dnf_install_from(address: &str, key: &Path) -> Output {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let path = root.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path.display().to_string()
    };
    let (config, repos) = (root.path().join("dnf.conf"), path("repos"));
    fs::write(&config, "[main]\n").unwrap();
    fs::write(
        Path::new(&repos).join("copr.repo"),
        format!(
            "[copr]\nname=copr\nbaseurl={address}\ngpgcheck=1\nrepo_gpgcheck=0\ngpgkey=file://{}\nenabled=1\n",
            key.display()
        ),
    )
    .unwrap();
    let output = run(bounded("dnf")
        .args(["-y", "--releasever=43", "--forcearch=x86_64", "--config"])
        .arg(&config)
        .arg(format!("--installroot={}", path("root")))
        .arg(format!("--setopt=reposdir={repos}"))
        .arg(format!("--setopt=cachedir={}", path("cache")))
        .arg(format!("--setopt=logdir={}", path("log")))
        .arg(format!("--setopt=persistdir={}", path("state")))
        .arg("--setopt=pluginpath=/nonexistent")
        .args(["install", "one"])
        .env("LC_ALL", "C")
        .env("HOME", root.path()));
    if output.status.success() {
        assert!(root.path().join("root/opt/one").is_file(), "{output:?}");
    }
    output
}
