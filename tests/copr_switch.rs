//! The switch of a COPR installation to signdrop and back: every command of examples/copr/README.md, as written, in a throw-away copy of
//! this machine.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
use std::{fs, path::Path, process::Command};

/// The commands of a section: its lines that are indented as code.
fn commands(section: &str, indent: &str) -> String {
    section
        .lines()
        .filter_map(|line| line.strip_prefix(indent))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Writes the page's steps to files named `1` to `5` and `back5` to `back2`.
fn write_steps(page: &str, to: &Path) {
    let (forth, back) = page.split_once("\n## Back again\n").unwrap();
    for step in 1..=5 {
        let (_, section) = forth.split_once(&format!("\n## {step}. ")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        fs::write(to.join(step.to_string()), commands(section, "    ")).unwrap();
        if step > 1 {
            let (_, section) = back.split_once(&format!("\n{step}. ")).unwrap();
            let next = format!("\n{}. ", step - 1);
            let section = section.split(&next).next().unwrap();
            fs::write(to.join(format!("back{step}")), commands(section, "       ")).unwrap();
        }
    }
}

#[test]
fn an_operator_who_follows_the_page_switches_copr_over_step_by_step_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let (root, steps) = (dir.path().join("root"), dir.path().join("steps"));
    for made in [&root, &steps] {
        fs::create_dir(made).unwrap();
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(repository.join("examples/copr/README.md")).unwrap();
    write_steps(&page, &steps);
    // The namespaces end with the first process in them, and with it all that it has started and mounted.
    let output = Command::new("timeout")
        .args(["--kill-after=10", "300", "unshare"])
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--net",
            "--ipc",
            "--uts",
        ])
        .arg(repository.join("tests/copr_switch/switch.sh"))
        .args([&root, &steps])
        .arg(env!("CARGO_BIN_EXE_signdrop"))
        .arg(repository)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("== all well"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
