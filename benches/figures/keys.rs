//! The keystore with more and more keys in it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use signdrop::{
    daemon::open_store,
    key::{Algorithm, SecretKey, openpgp::Certificate},
    keyring::Keyring,
    keystore::{Keystore, MasterKey, NewKey},
};

use crate::{
    Table,
    common::{gnupg::Home, out, run},
    median, shown,
};

/// Set where the program has been started anew to measure one start.
const CHILD: &str = "SIGNDROP_BENCH_STORE";
const SAMPLES: usize = 200;

fn identity(number: usize) -> String {
    format!("owner{}#project{number}@copr.example.org", number % 1000)
}

fn new_key(identity: &str, algorithm: Algorithm) -> NewKey {
    NewKey {
        identity: identity.parse().unwrap(),
        name: "bench".into(),
        algorithm,
        expires: None,
    }
}

pub(super) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

pub(super) fn keys(table: &mut Table) {
    for count in [1_000, 20_000, 200_000] {
        let dir = tempfile::tempdir().unwrap();
        let key = MasterKey::generate().unwrap();
        let text = key.to_base64();
        fill(dir.path(), key, count);
        let (generate, prepared) = generate(dir.path(), &text);
        let mut starts = Vec::new();
        let mut last = String::new();
        for _ in 0..5 {
            let output = Command::new(std::env::current_exe().unwrap())
                .arg("keys")
                .env(CHILD, format!("{} {count}", dir.path().display()))
                .env("SIGNDROP_BENCH_MASTER", text.as_str())
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            last = String::from_utf8(output.stdout).unwrap();
            let micros = last.split_whitespace().next().unwrap().parse().unwrap();
            starts.push(Duration::from_micros(micros));
        }
        let mut words = last.split_whitespace().skip(1);
        let mut word = || words.next().unwrap().to_owned();
        let (find, unlock, memory) = (word(), word(), word());
        table.row(
            &format!("{count} keys in the store"),
            &format!(
                "start-up {}, look-up {find} µs, unlock {unlock} µs, resident {memory} MB",
                shown(median(starts))
            ),
            &format!(
                "generate RSA-4096: {} prepared, {} not",
                shown(prepared),
                shown(generate)
            ),
            "",
            "reading the store's log; memory is the cache, whose size is fixed",
        );
    }
}

/// Takes over what copr-keygen leaves: RSA keys without a passphrase.
pub(super) fn import(table: &mut Table) {
    const KEYS: usize = 1000;
    let home = Home::empty();
    let wishes: String = (0..KEYS)
        .map(|number| {
            let email = identity(number);
            format!(
                "%no-protection\nKey-Type: RSA\nKey-Length: 2048\nName-Real: bench\nName-Email: {email}\nExpire-Date: 5y\n%commit\n"
            )
        })
        .collect();
    let file = home.path().join("wishes");
    fs::write(&file, wishes).unwrap();
    println!("gpg makes {KEYS} keys");
    out(&home.run(&["--full-generate-key", file.to_str().unwrap()]));
    let mut times = Vec::new();
    for _ in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("master.key");
        fs::write(&key, MasterKey::generate().unwrap().to_base64().as_str()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let config = dir.path().join("signdrop.toml");
        let text = format!("[keys]\nmaster_key = \"file:{}\"\n", key.display());
        fs::write(&config, text).unwrap();
        let begin = Instant::now();
        let said = out(&run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
            .args(["key", "import", "--gnupg"])
            .arg(home.path())
            .arg("--store")
            .arg(dir.path())
            .arg("-c")
            .arg(config)));
        times.push(begin.elapsed());
        assert!(
            said.contains(&format!("{KEYS} imported, 0 present")),
            "{said}"
        );
    }
    table.row(
        &format!("`key import` of {KEYS} RSA-2048 keys from a GnuPG home"),
        &shown(median(times)),
        "",
        "",
        "checking each key; flushes, which 32 of them share",
    );
}

/// Fills a store with real records; all hold one RSA-2048 key, since finding primes 200,000 times takes half a day.
fn fill(dir: &std::path::Path, master: MasterKey, count: usize) {
    let keystore = Keystore::open(&open_store(dir).unwrap(), dir, master).unwrap();
    let secret = SecretKey::generate(Algorithm::Rsa2048).unwrap();
    let pkcs8 = secret.to_pkcs8().unwrap();
    let next = std::sync::atomic::AtomicUsize::new(0);
    // Many threads, so that they share flushes.
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let secret = SecretKey::from_pkcs8(Algorithm::Rsa2048, &pkcs8).unwrap();
                    let identity = identity(number).parse().unwrap();
                    let now = SystemTime::now();
                    let certificate =
                        Certificate::make(&secret, "bench", &identity, now, None).unwrap();
                    keystore.import(&identity, secret, certificate).unwrap();
                }
            });
        }
    });
}

/// How long making a key takes without and with a prepared one.
fn generate(dir: &std::path::Path, master: &str) -> (Duration, Duration) {
    let master = MasterKey::parse(master.as_bytes()).unwrap();
    let keystore = Keystore::open(&open_store(dir).unwrap(), dir, master).unwrap();
    let time = |name: String| {
        let begin = Instant::now();
        keystore
            .create(&new_key(&name, Algorithm::Rsa4096))
            .unwrap();
        begin.elapsed()
    };
    let without = (0..9)
        .map(|number| time(format!("new{number}@example.org")))
        .collect();
    while keystore.prepare(Algorithm::Rsa4096, 9).unwrap() {}
    let with = (0..9)
        .map(|number| time(format!("prepared{number}@example.org")))
        .collect();
    (median(without), median(with))
}

/// Prints microseconds of a start, microseconds of a look-up and of an unlocking, and megabytes that are resident.
pub(super) fn measure_start() {
    let child = std::env::var(CHILD).unwrap();
    let (dir, count) = child.split_once(' ').unwrap();
    let count: usize = count.parse().unwrap();
    let dir = std::path::Path::new(dir);
    let master = std::env::var("SIGNDROP_BENCH_MASTER").unwrap();
    let master = MasterKey::parse(master.as_bytes()).unwrap();
    let begin = Instant::now();
    let keystore = Keystore::open(&open_store(dir).unwrap(), dir, master).unwrap();
    assert!(
        keystore
            .find(&identity(0).parse().unwrap())
            .unwrap()
            .is_some()
    );
    let start = begin.elapsed();
    let keyring = Keyring::new(keystore);
    let sample = |index: usize| {
        identity(index.wrapping_mul(2_654_435_761) % count)
            .parse()
            .unwrap()
    };
    let (mut find, mut unlock) = (Vec::new(), Vec::new());
    for index in 0..SAMPLES {
        let identity = sample(index);
        let begin = Instant::now();
        assert!(keyring.keystore().find(&identity).unwrap().is_some());
        find.push(begin.elapsed());
        let begin = Instant::now();
        assert!(keyring.open(&identity).unwrap().is_some());
        unlock.push(begin.elapsed());
    }
    println!(
        "{} {} {} {}",
        start.as_micros(),
        median(find).as_micros(),
        median(unlock).as_micros(),
        crate::peak_memory_kb(std::process::id()) / 1024
    );
}
