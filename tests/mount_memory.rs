//! How much a mount remembers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that panics fails, and writes its own files; clippy.toml exempts test functions only, not what they call"
)]
mod common;

use std::{
    fs::{self, File},
    thread,
    time::{Duration, Instant},
};

use common::{
    asked,
    daemon::{Mounted, PATIENCE},
    mount::MountDaemon,
};

/// How many kB of memory a process has resident.
fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

/// `SIGNDROP_LOOK_UPS` sets how many names are looked up, at least 20,000.
#[test]
fn memory_does_not_grow_with_the_number_of_files_that_were_looked_up_once() {
    const EACH: usize = 10_000;
    let directories = asked("SIGNDROP_LOOK_UPS", 1_000_000) / EACH;
    let filesystem = Mounted::new("tmpfs", 4000);
    let below = filesystem.path().join("below");
    for number in 0..directories {
        let dir = below.join(format!("alice/tools/d{number}"));
        fs::create_dir_all(&dir).unwrap();
        for name in 0..EACH {
            File::create(dir.join(name.to_string())).unwrap();
        }
    }
    let mounted = MountDaemon::start_on(&below, "");
    let pid = mounted.daemon.pid();
    let at_start = resident_kb(pid);
    let mut half = 0;
    let mut last = 0;
    for number in 0..directories {
        let dir = mounted.at.join(format!("alice/tools/d{number}"));
        for name in 0..EACH {
            let metadata = fs::symlink_metadata(dir.join(name.to_string())).unwrap();
            assert!(metadata.is_file());
        }
        let known = resident_kb(pid);
        // The kernel forgets, and tells the daemon so.
        let deadline = Instant::now() + PATIENCE;
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        let mut before = known;
        loop {
            thread::sleep(Duration::from_millis(50));
            last = resident_kb(pid);
            if last == before || Instant::now() > deadline {
                break;
            }
            before = last;
        }
        // By then each of the daemon's threads has what it needs.
        if number + 1 == directories / 2 {
            half = last;
        }
    }
    eprintln!(
        "{} names: {at_start} kB resident at the start, {half} kB after half of them, {last} kB after the last",
        directories * EACH
    );
    // An inode takes some hundred bytes, so that it would be tens of megabytes if they were kept.
    assert!(last < half + 4096, "{half} kB, then {last} kB");
}
