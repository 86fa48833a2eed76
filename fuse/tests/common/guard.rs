//! A bound in time for everything that a test does with a mount.
//!
//! Whoever waits for an answer from a mount can be freed by nobody but the connection's end: a signal does not do it, and a
//! test's own process, whose threads wait, may not even end. So a process of its own looks after each mount point, and aborts
//! the connection when time is up or the test's process is gone.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a test may use a mount, in seconds; generous, since machines are slow at times, and no measure of speed.
const LIMIT: u32 = 900;

/// Finds the connection of what is mounted at `$1` now, as long as process `$2` lives and for `$3` seconds at the most; then
/// aborts it, and unmounts. Sources: proc(5), `/proc/pid/mountinfo`; Linux Documentation/filesystems/fuse.rst, "Control filesystem".
const SCRIPT: &str = r#"
connection() { awk -v at="$1" '$5 == at { split($3, device, ":"); print device[2] }' /proc/self/mountinfo; }
lives() { [ -d "/proc/$1" ] && ! grep -q '^State:[[:space:]]*[ZX]' "/proc/$1/status" 2>/dev/null; }
passed=0
while [ "$passed" -lt "$3" ] && lives "$2"; do sleep 1; passed=$((passed + 1)); done
for number in $(connection "$1"); do
    # In a mount namespace of its own, so that nothing is left mounted.
    unshare -m sh -c '
        [ -e "/sys/fs/fuse/connections/$1" ] || mount -t fusectl none /sys/fs/fuse/connections
        echo 1 > "/sys/fs/fuse/connections/$1/abort"
    ' sh "$number"
    umount -l "$1"
done
"#;

/// Looks after one mount point until it is dropped.
#[derive(Debug)]
pub(crate) struct Guard(Child);

impl Guard {
    /// Looks after a mount point, which need not be mounted yet.
    pub(crate) fn new(at: &Path) -> Self {
        Self::with_limit(at, LIMIT)
    }

    /// The same with another limit, in seconds.
    pub(crate) fn with_limit(at: &Path, limit: u32) -> Self {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(at.canonicalize().unwrap())
            .arg(std::process::id().to_string())
            .arg(limit.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Ended with what it has started.
            .process_group(0)
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}
