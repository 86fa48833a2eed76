//! A daemon with a mount that cannot outlast its test, nor hang it.

#[path = "../../fuse/tests/common/guard.rs"]
mod guard;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use self::guard::Guard;
use super::{Rpmdb, daemon::Daemon, out, run};

/// The project that the tests write into, and the name of its key.
pub const PROJECT: &str = "alice/tools";
pub const IDENTITY: &str = "alice#tools@copr.example.org";

/// After how many seconds a mount is cut off, so that whoever waits for it gets an error. No test comes near it.
const LIMIT: u32 = 500;

/// A daemon with a mount.
pub struct MountDaemon {
    pub daemon: Daemon,
    pub below: PathBuf,
    pub at: PathBuf,
    // Until the daemon is gone.
    _guard: Guard,
}

impl MountDaemon {
    /// Prepares a mount of a directory of the daemon's own; `options` are lines of its section. The daemon does not run yet.
    pub fn prepare(options: &str) -> Self {
        let daemon = Daemon::prepare("");
        let below = daemon.dir.path().join("below");
        Self::prepare_for(daemon, &below, options)
    }

    /// The same with another directory.
    pub fn prepare_on(below: &Path, options: &str) -> Self {
        Self::prepare_for(Daemon::prepare(""), below, options)
    }

    fn prepare_for(daemon: Daemon, below: &Path, options: &str) -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "there is no /dev/fuse: load the kernel's module fuse, or give the container the device"
        );
        let at = daemon.dir.path().join("at");
        for dir in [below, &at] {
            fs::create_dir_all(dir).unwrap();
        }
        let config = fs::read_to_string(daemon.config()).unwrap();
        daemon.write_config(&format!(
            r#"{config}
[[mount]]
root = "{}"
at = "{}"
project = "{{owner}}/{{project}}"
identity = "{{owner}}#{{project}}@copr.example.org"
{options}
"#,
            below.display(),
            at.display()
        ));
        let guard = Guard::with_limit(&at, LIMIT);
        Self {
            daemon,
            below: below.to_owned(),
            at,
            _guard: guard,
        }
    }

    /// A daemon that runs, with a mount of a directory of its own.
    pub fn start(options: &str) -> Self {
        let mut mounted = Self::prepare(options);
        mounted.daemon.run();
        mounted
    }

    /// A daemon that runs, with a mount of a directory.
    pub fn start_on(below: &Path, options: &str) -> Self {
        let mut mounted = Self::prepare_on(below, options);
        mounted.daemon.run();
        mounted
    }

    /// The project's directory in the mount, and rpm's keyring with its key.
    pub fn project(&self) -> (PathBuf, Rpmdb) {
        let path = self.at.join(PROJECT);
        fs::create_dir_all(&path).unwrap();
        out(&self.daemon.signdrop(["key", "generate", IDENTITY]));
        (path, Rpmdb::new(&self.daemon.export(IDENTITY)))
    }

    /// A directory beside the mount, made where it is missing.
    pub fn beside(&self, name: &str) -> PathBuf {
        let path = self.daemon.dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for MountDaemon {
    fn drop(&mut self) {
        // A daemon that was killed leaves a dead mount behind.
        self.daemon.kill();
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

/// A command that is killed when it takes longer than a minute, as is all that it started.
pub fn bounded(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "60", program]);
    command
}

/// Runs a command that has to succeed; answers what it printed.
pub fn succeeds(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
