//! A GnuPG home of a test.

use std::{
    path::Path,
    process::{Command, Output},
};

use super::run;

/// A GnuPG home, whose agent ends with it.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn run(&self, words: &[&str]) -> Output {
        run(Command::new("gpg")
            .arg("--homedir")
            .arg(self.path())
            .args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback"])
            .args(words))
    }

    /// So that no passphrase is remembered.
    pub fn end_agent(&self) {
        run(Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.path())
            .args(["--kill", "gpg-agent"]));
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.end_agent();
    }
}
