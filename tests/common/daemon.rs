//! A daemon that a test starts, and stops by its process id.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::run;

/// How long anything may take that has to happen; generous, since machines are slow at times, and no measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A port of the loopback address that nobody listens on.
pub fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

/// A directory with a configuration, a state directory and a drop directory, and the daemon that runs on them.
pub struct Daemon {
    pub dir: Arc<tempfile::TempDir>,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    program: PathBuf,
}

impl Daemon {
    /// Prepares everything; `drop_options` are lines of the drop directory's section. The daemon does not run yet.
    pub fn prepare(drop_options: &str) -> Self {
        Self::prepare_in(tempfile::tempdir().unwrap(), drop_options)
    }

    /// As [`Daemon::prepare`], in a directory that the test chose.
    pub fn prepare_in(dir: tempfile::TempDir, drop_options: &str) -> Self {
        let path = dir.path();
        let config = format!(
            r#"
state_dir = "{dir}/state"
[api]
listen = ["unix:{dir}/api.sock"]
[keys]
algorithm = "rsa2048"
master_key = "file:{dir}/master.key"
prepared = 0
[[drop]]
root = "{dir}/drop"
project = "{{owner}}/{{project}}"
identity = "{{owner}}#{{project}}@copr.example.org"
{drop_options}
"#,
            dir = path.display()
        );
        fs::create_dir(path.join("drop")).unwrap();
        let daemon = Self {
            dir: Arc::new(dir),
            child: None,
            log: Arc::default(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            program: env!("CARGO_BIN_EXE_signdrop").into(),
        };
        daemon.write_config(&config);
        let output = daemon.signdrop(["init", "-c", daemon.config().to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        daemon
    }

    /// Prepares everything and starts the daemon.
    pub fn start(drop_options: &str) -> Self {
        let mut daemon = Self::prepare(drop_options);
        daemon.run();
        daemon
    }

    /// The configuration's path.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("signdrop.toml")
    }

    pub fn write_config(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    /// The drop directory.
    pub fn drop_dir(&self) -> PathBuf {
        self.dir.path().join("drop")
    }

    /// A project's directory below the drop directory, made where it is missing.
    pub fn project(&self, project: &str) -> PathBuf {
        let path = self.drop_dir().join(project);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// The API's address.
    pub fn api(&self) -> String {
        format!("unix:{}", self.dir.path().join("api.sock").display())
    }

    /// Sets an environment variable of the next run.
    pub fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.into(), value.into()));
    }

    pub fn clear_environment(&mut self) {
        self.environment.clear();
    }

    /// Starts the next runs by a program that ends as the daemon itself, such as `setpriv`.
    pub fn wrap<const N: usize>(&mut self, wrapper: [&str; N]) {
        self.wrapper = wrapper.map(str::to_owned).to_vec();
    }

    /// Starts the next runs from a copy of the program.
    pub fn program(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    /// Starts the daemon and returns when it is ready.
    pub fn run(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts the daemon and does not wait.
    pub fn spawn(&mut self) {
        let wrapper = self.wrapper.iter().map(OsStr::new);
        let mut words = wrapper.chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .arg("serve")
            .arg("-c")
            .arg(self.config())
            .env("RUST_LOG", "info")
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = self.log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n') {
                let Ok(line) = line else { return };
                let mut log = log.lock().unwrap();
                log.push_str(&String::from_utf8_lossy(&line));
                log.push('\n');
            }
        });
        self.child = Some(child);
    }

    /// Waits until `readyz` says yes.
    pub fn wait_ready(&mut self) {
        let socket = self.dir.path().join("api.sock");
        self.until("ready", |_| {
            let output = run(Command::new("curl")
                .args(["-s", "-f", "--unix-socket"])
                .arg(&socket)
                .arg("http://d/readyz"));
            output.status.success()
        });
    }

    /// Waits for something that has to happen; fails if it does not, or if the daemon ends.
    pub fn until(&mut self, what: &str, mut happened: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !happened(self) {
            if let Some(status) = self.exited() {
                panic!("the daemon ended ({status}) before {what}:\n{}", self.log());
            }
            assert!(
                Instant::now() < deadline,
                "not {what} in time:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The status with which the daemon has ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .and_then(|child| child.try_wait().unwrap())
    }

    /// Waits until the daemon ends by itself.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exited() {
                self.child = None;
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the daemon does not end:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: &str) {
        let output = run(Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.pid().to_string()));
        assert!(output.status.success(), "{output:?}");
    }

    /// Ends the daemon as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let status = child.wait().unwrap();
            assert!(status.signal() == Some(9) || status.code().is_some());
        }
    }

    /// Ends the daemon as systemd does.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_exit()
    }

    /// What the daemon has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Runs a command of the program against this daemon.
    pub fn signdrop<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Output {
        run(Command::new(env!("CARGO_BIN_EXE_signdrop"))
            .env("SIGNDROP_API", self.api())
            .args(arguments))
    }

    /// Waits at the barrier; answers exit status and what was said on standard error.
    pub fn wait(&self, path: &Path) -> (i32, String) {
        let output = self.signdrop([
            OsStr::new("wait"),
            OsStr::new("--timeout"),
            OsStr::new("120"),
            path.as_os_str(),
        ]);
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// Waits at the barrier and fails if anything did.
    pub fn settle(&self, path: &Path) {
        let (status, said) = self.wait(path);
        assert_eq!(status, 0, "{said}\n{}", self.log());
    }

    /// A project's public key.
    pub fn export(&self, identity: &str) -> String {
        let output = self.signdrop(["key", "export", identity]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `signdrop status --json`.
    pub fn status(&self) -> serde_json::Value {
        let output = self.signdrop(["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// One request over the Unix socket: HTTP status and body.
    pub fn request(&self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        let mut command = Command::new("curl");
        command
            .args(["-s", "-X", method, "-w", "\n%{http_code}", "--unix-socket"])
            .arg(self.dir.path().join("api.sock"));
        if let Some(body) = body {
            command.args([
                "-H",
                "Content-Type: application/json",
                "--data-binary",
                body,
            ]);
        }
        let output = run(command.arg(format!("http://signdrop{path}")));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A filesystem of its own, mounted for as long as this lives.
pub struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    /// A filesystem of the given kind, in a file of `megabytes` that takes no more room than is used; tmpfs has no file.
    pub fn new(kind: &str, megabytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mount")).unwrap();
        let mounted = Self { dir };
        let mut mount = Command::new("mount");
        if kind == "tmpfs" {
            mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]);
        } else {
            let image = mounted.dir.path().join("image");
            let file = fs::File::create(&image).unwrap();
            file.set_len(megabytes << 20).unwrap();
            let output = run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image));
            assert!(output.status.success(), "{output:?}");
            mount.args(["-o", "loop", "-t", kind]).arg(&image);
        }
        let output = run(mount.arg(mounted.path()));
        assert!(output.status.success(), "mounting needs root: {output:?}");
        mounted
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What has been killed may still be on its way out.
        for _ in 0..50 {
            let output = run(Command::new("umount").arg(self.path()));
            if output.status.success() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        eprintln!("cannot unmount {}", self.path().display());
    }
}

impl Daemon {
    /// Waits until the daemon, which may have ended, has logged something.
    pub fn until_logged(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(
                Instant::now() < deadline,
                "{text:?} is not logged:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Daemon {
    /// As [`Daemon::wrap`], with as many words as the test puts together.
    pub fn wrap_in(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
    }
}
