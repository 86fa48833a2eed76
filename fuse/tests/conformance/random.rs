//! Random system calls, the same on the mount and on a plain directory. What differs is shrunk to the calls that make it.

use std::{fs, path::Path};

use crate::common::{Mounted, script};

/// Calls in one script, and scripts of each of the four that run at once: 100,000 calls.
const CALLS: usize = 250;
const SCRIPTS: u64 = 100;

struct Dice(u64);

impl Dice {
    /// Source: Marsaglia, Xorshift RNGs, 2003.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn of<'a>(&mut self, these: &[&'a str]) -> &'a str {
        these[self.roll(these.len() as u64) as usize]
    }
}

fn call(dice: &mut Dice) -> String {
    const NAMES: [&str; 10] = ["a", "b", "c", "d", "d/a", "d/b", "e", "e/a", "e/d", "e/d/a"];
    let (name, other) = (dice.of(&NAMES), dice.of(&NAMES));
    let file = dice.roll(5) + 1;
    let at = dice.roll(20_000);
    match dice.roll(40) {
        0..=5 => {
            let how = dice.of(&[
                "r",
                "w|creat",
                "rw|creat",
                "rw|creat|excl",
                "rw|trunc",
                "w|append|creat",
                "rw|creat|trunc",
            ]);
            format!(
                "open {file} {name} {how} {}",
                dice.of(&["644", "600", "666"])
            )
        }
        6 => format!("close {file}"),
        7..=10 => format!(
            "pwrite {file} {at} {}*{}",
            dice.of(&["x", "ab", "LTT", "7"]),
            dice.roll(9000) + 1
        ),
        11 => format!(
            "write {file} {}*{}",
            dice.of(&["w", "yz"]),
            dice.roll(5000) + 1
        ),
        12..=14 => format!("pread {file} {at} {}", dice.roll(9000)),
        15 => format!("read {file} {}", dice.roll(9000)),
        16 => format!("ftruncate {file} {at}"),
        17 => format!("truncate {name} {at}"),
        18 => format!(
            "fallocate {file} {} {at} {}",
            dice.of(&["plain", "keep", "punch", "zero"]),
            dice.roll(9000) + 1
        ),
        19 => format!(
            "copy {file} {} {} {at} {}",
            dice.roll(9000),
            dice.roll(5) + 1,
            dice.roll(9000)
        ),
        20 => format!(
            "seek {file} {} {}",
            dice.roll(9000),
            dice.of(&["set", "data", "hole", "end", "cur"])
        ),
        21 | 22 => format!("mkdir {name} 755"),
        23 => format!("rmdir {name}"),
        24 | 25 => format!("unlink {name}"),
        26 | 27 => format!("rename {name} {other}"),
        28 => format!(
            "rename {name} {other} {}",
            dice.of(&["noreplace", "exchange"])
        ),
        29 => format!("link {name} {other}"),
        30 => format!("symlink {} {name}", dice.of(&["a", "d/a", "nowhere"])),
        31 => format!("chmod {name} {}", dice.of(&["644", "600", "755", "4755"])),
        32 => format!("utimens {name} {at}.5 {at}.7"),
        33 => format!(
            "setx {name} user.{} x*{}",
            dice.of(&["p", "q"]),
            dice.roll(90) + 1
        ),
        34 => format!("listx {name}"),
        35 => format!("stat {name}"),
        36 => format!("fstat {file}"),
        37 => format!("ls {}", dice.of(&[".", "d", "e", "e/d"])),
        38 => format!("dup {file} {}", dice.roll(5) + 1),
        _ => format!("fsync {file}"),
    }
}

fn differs(mounted: &Mounted, name: &str, calls: &[String]) -> Option<String> {
    let script = calls.join(";");
    let run = |dir: &Path| {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap();
        let told = script::run(&path, &script);
        fs::remove_dir_all(&path).unwrap();
        told
    };
    let (there, here) = (run(&mounted.at()), run(&mounted.plain()));
    let mut lines = there
        .iter()
        .zip(&here)
        .filter(|(there, here)| there != here);
    lines
        .next()
        .map(|(there, here)| format!("mount {there}\nplain {here}"))
        .or_else(|| (there.len() != here.len()).then(|| "the trees differ".to_owned()))
}

/// The fewest calls that still differ, as far as leaving some out shows.
fn shrink(mounted: &Mounted, name: &str, mut calls: Vec<String>) -> Vec<String> {
    let mut piece = calls.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < calls.len() {
            let mut fewer = calls.clone();
            fewer.drain(at..(at + piece).min(calls.len()));
            if differs(mounted, name, &fewer).is_some() {
                calls = fewer;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    calls
}

#[test]
fn random_calls_answer_as_on_a_plain_directory() {
    let mounted = Mounted::new();
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let mounted = &mounted;
            scope.spawn(move || {
                for number in 0..SCRIPTS {
                    let seed = (worker * SCRIPTS + number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let mut dice = Dice(seed | 1);
                    let calls: Vec<String> = (0..CALLS).map(|_| call(&mut dice)).collect();
                    let name = format!("worker-{worker}");
                    if differs(mounted, &name, &calls).is_some() {
                        let few = shrink(mounted, &name, calls);
                        let what = differs(mounted, &name, &few);
                        panic!(
                            "seed {seed}: {}\n{}",
                            few.join("; "),
                            what.unwrap_or_default()
                        );
                    }
                }
            });
        }
    });
}
