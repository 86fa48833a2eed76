//! How this kernel lets content be read.

use std::fs;

/// What the kernel allows: Linux 6.9 and later pass reads. Source: proc(5), `/proc/sys/kernel/osrelease`.
pub(crate) fn of_this_kernel() -> &'static str {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut number = || numbers.next().unwrap().parse::<u32>().unwrap();
    match (number(), number()) >= (6, 9) {
        true => "passed",
        false => "asked",
    }
}
