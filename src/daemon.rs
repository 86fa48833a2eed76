//! The daemon: the only place where the parts are put together.

mod expiring;
mod health;
mod mounts;
mod removals;
mod status;
mod watches;
mod workers;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use expiring::Expiring;
pub use expiring::ExpiringKey;
pub use health::Health;
use mounts::Mounts;
pub(crate) use mounts::not_mounted;
pub use mounts::{HeldFile, MountStatus, Retried};
use removals::Removals;
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};
pub use status::{DropStatus, Failure, Status};
use tokio::signal::unix::{SignalKind, signal};
use watches::Watches;
use workers::Workers;

use crate::{
    apply::{self, Apply, redo::Redo},
    arrival::{Way, reason},
    config::{self, Config},
    http,
    identity::Identity,
    keyring::Keyring,
    keystore::{self, KeyEntry, Keystore, NewKey},
    master_key,
    metrics::Metrics,
    obs,
    queue::Queue,
    record::Records,
    store::{self, Store},
};

/// How long requests that are under way may take when the daemon stops.
const DRAIN: Duration = Duration::from_secs(20);

/// Why the daemon could not start. Nothing has been changed then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is at fault.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The state directory cannot be used.
    #[error("cannot use the state directory {}; `signdrop init` makes it", .path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is no usable master key.
    #[error(transparent)]
    MasterKey(#[from] master_key::Error),
    /// The keys cannot be used.
    #[error(transparent)]
    Keystore(#[from] keystore::Error),
    /// The redo log cannot be read.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// A directory cannot be mounted.
    #[error(transparent)]
    Mount(#[from] signdrop_fuse::Error),
    /// A door of the API cannot be opened.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The listener for obs-sign's clients cannot be opened.
    #[error(transparent)]
    Obs(#[from] obs::Error),
    /// The operating system refuses something every program needs.
    #[error("cannot {what}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Opens the store of a state directory.
///
/// # Errors
/// [`Error::StateDir`] and [`Error::Store`].
pub fn open_store(state_dir: &Path) -> Result<Store, Error> {
    let metadata = std::fs::metadata(state_dir).and_then(|metadata| {
        if metadata.is_dir() {
            Ok(())
        } else {
            Err(std::io::ErrorKind::NotADirectory.into())
        }
    });
    metadata.map_err(|source| Error::StateDir {
        path: state_dir.to_owned(),
        source,
    })?;
    Ok(Store::open(&state_dir.join("store"))?)
}

/// Keeps key material out of core dumps and out of reach of debuggers.
///
/// # Errors
/// [`Error::System`].
pub fn forbid_core_dumps() -> Result<(), Error> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let failed = |errno: rustix::io::Errno| Error::System {
        what: "turn core dumps off",
        source: errno.into(),
    };
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(failed)
}

/// A new key that its client keeps.
#[derive(Debug, Serialize, Deserialize)]
pub struct EntrustedKeyPair {
    /// The fingerprint in upper-case hexadecimal.
    pub fingerprint: String,
    /// The certificate, ASCII-armoured.
    pub public_key: String,
    /// What the client keeps: encrypted under the master key, in hexadecimal.
    pub private_key: String,
}

/// What every part of the running daemon shares.
#[derive(Debug)]
pub struct Daemon {
    config: RwLock<Arc<Config>>,
    /// The keys.
    pub keyring: Arc<Keyring>,
    /// The one way through.
    pub way: Arc<Way>,
    /// What waits.
    pub queue: Arc<Queue>,
    /// What has been counted.
    pub metrics: Metrics,
    watches: Watches,
    expiring: Expiring,
    removals: Removals,
    mounts: Mounts,
    /// Directories that have gone, and whose files are to be forgotten.
    gone: Mutex<BTreeSet<PathBuf>>,
    /// What the last question to the store has answered, and when.
    probed: Mutex<Option<(Instant, Option<String>)>>,
    started: Instant,
    /// The same since 1970: seconds, and nanoseconds beyond them.
    started_at: (i64, u32),
}

impl Daemon {
    /// Opens everything that the configuration names; nothing runs yet.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(config: Config) -> Result<Arc<Self>, Error> {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let store = open_store(&config.state_dir)?;
        let master = master_key::read(&config.keys.master_key, &config.state_dir)?;
        let keystore = Keystore::open(&store, &config.state_dir, master)?;
        let keyring = Arc::new(Keyring::new(keystore));
        let way = Arc::new(Way {
            keyring: keyring.clone(),
            apply: Apply::new(Redo::open(&config.state_dir)?),
            records: Records::open(&store)?,
        });
        Ok(Arc::new(Self {
            config: RwLock::new(Arc::new(config)),
            keyring,
            way,
            queue: Arc::default(),
            metrics: Metrics::default(),
            watches: Watches::default(),
            expiring: Expiring::default(),
            removals: Removals::open(&store)?,
            mounts: Mounts::default(),
            gone: Mutex::default(),
            probed: Mutex::default(),
            started: Instant::now(),
            started_at: (
                since_1970.as_secs().cast_signed(),
                since_1970.subsec_nanos(),
            ),
        }))
    }

    /// The configuration of now.
    pub fn config(&self) -> Arc<Config> {
        self.config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Deletes the identity's key for good and answers it, or nothing where there is none.
    ///
    /// # Errors
    /// Those of the keystore.
    pub fn delete_key(&self, identity: &Identity) -> Result<Option<KeyEntry>, keystore::Error> {
        let deleted = self.keyring.delete(identity)?;
        if let Some(entry) = &deleted {
            self.forget_expiring_keys();
            tracing::info!(%identity, key = entry.fingerprint, "key deleted");
        }
        Ok(deleted)
    }

    /// Makes a key that a client keeps, and that signs for `user` alone.
    ///
    /// # Errors
    /// Those of the keystore.
    pub fn make_entrusted_key(
        &self,
        user: &Identity,
        new: &NewKey,
    ) -> Result<EntrustedKeyPair, keystore::Error> {
        let key = self.keyring.keystore().make_entrusted(user, new)?;
        let certificate = key.certificate()?;
        let fingerprint = certificate.public_key().fingerprint().to_string();
        tracing::info!(%user, key = fingerprint, "key made for a client to keep");
        Ok(EntrustedKeyPair {
            fingerprint,
            public_key: certificate.to_armour()?,
            private_key: key.to_hex()?,
        })
    }

    fn gone(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_config(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// Takes over another configuration. What only a start can change stays, and is said.
    fn reload(self: &Arc<Self>, path: &Path) -> Result<(), Error> {
        let mut new = Config::read(path)?;
        let old = self.config();
        let mounted = |config: &Config| -> Vec<(PathBuf, PathBuf)> {
            let all = config.mounts.iter();
            all.map(|mount| (mount.drop.root.clone(), mount.at.clone()))
                .collect()
        };
        let is_moved = mounted(&old) != mounted(&new);
        let needs_restart = [
            ("mount", is_moved),
            ("state_dir", old.state_dir != new.state_dir),
            ("workers", old.workers != new.workers),
            ("api.listen", old.api.listen != new.api.listen),
            (
                "obs.listen",
                old.obs.as_ref().map(|obs| obs.listen) != new.obs.as_ref().map(|obs| obs.listen),
            ),
            (
                "keys.master_key",
                old.keys.master_key != new.keys.master_key,
            ),
        ];
        for (key, changed) in needs_restart {
            if changed {
                tracing::warn!(key, "a changed value takes effect with the next start only");
            }
        }
        new.state_dir.clone_from(&old.state_dir);
        if is_moved {
            new.mounts.clone_from(&old.mounts);
        }
        self.set_config(new);
        Watches::follow(self);
        Ok(())
    }
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// [`Error`], where it could not start.
pub fn serve(config_path: &Path) -> Result<(), Error> {
    forbid_core_dumps()?;
    let config = Config::read(config_path)?;
    let daemon = Daemon::open(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .enable_all()
        .build()
        .map_err(|source| Error::System {
            what: "start the runtime",
            source,
        })?;
    let result = runtime.block_on(run(&daemon, config_path));
    // Waits that were cut off leave walks behind on blocking threads; they end with the process.
    runtime.shutdown_background();
    result
}

async fn run(daemon: &Arc<Daemon>, config_path: &Path) -> Result<(), Error> {
    let failed = |source| Error::System {
        what: "handle signals",
        source,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;

    let config = daemon.config();
    let server = http::Server::bind(&config.api.listen)?;
    let obs = config.obs.as_ref().map(obs::Server::bind).transpose()?;
    let (stop, stopped) = tokio::sync::watch::channel(());
    let obs = obs.map(|obs| tokio::spawn(obs.run(daemon.clone(), stopped.clone())));
    let server = tokio::spawn(server.run(daemon.clone(), stopped));
    let workers = Workers::start(daemon);
    let mounting = daemon.clone();
    let mounted = tokio::task::spawn_blocking(move || Mounts::start(&mounting)).await;
    let mounted = mounted
        .map_err(|error| failed(std::io::Error::other(error)))
        .and_then(|mounted| Ok(mounted?));
    if mounted.is_err() {
        stop_mounts(daemon).await;
        return mounted;
    }
    Watches::follow(daemon);
    tracing::info!(
        drops = config.drops.len(),
        listen = ?config.api.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "started"
    );

    tokio::spawn(feed_watchdog(daemon.clone()));
    let mut ready = tokio::time::interval(Duration::from_millis(50));
    let mut told_ready = false;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(daemon, config_path),
            _ = ready.tick(), if !told_ready => {
                if daemon.watches.stand() {
                    told_ready = true;
                    notify(&[NotifyState::Ready]);
                    tracing::info!("ready: every drop directory is watched");
                }
            }
            _ = second.tick() => {
                if store::has_failed() {
                    tracing::error!("the store has failed, which only a new start mends: ending");
                    break;
                }
            }
        }
    }
    tracing::info!("stopping");
    notify(&[NotifyState::Stopping]);
    daemon.watches.end();
    // Writers are answered before the store is closed.
    stop_mounts(daemon).await;
    daemon.queue.close();
    // The receivers are gone only where the server has ended already.
    let _ = stop.send(());
    let drained = async {
        // What went wrong in one of them has been told.
        let _ = server.await;
        if let Some(obs) = obs {
            let _ = obs.await;
        }
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("requests that were under way have been cut off");
    }
    // Workers may wait for the store for ever; what they were at is found again by the next start.
    store::check()?;
    workers.join();
    Ok(daemon.keyring.keystore().flush()?)
}

async fn stop_mounts(daemon: &Arc<Daemon>) {
    let daemon = daemon.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || daemon.mounts.stop()).await {
        tracing::error!(%error, "cannot unmount");
    }
}

fn reload(daemon: &Arc<Daemon>, config_path: &Path) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot tell systemd of the reload"),
    }
    match daemon.reload(config_path) {
        Ok(()) => tracing::info!("configuration reloaded"),
        Err(error) => tracing::error!(
            error = reason(&error),
            "the configuration is not reloaded; the old one stays in force"
        ),
    }
    notify(&[NotifyState::Ready]);
}

/// Tells systemd that the daemon is alive, twice as often as it wants to hear, as long as the queue can be asked.
async fn feed_watchdog(daemon: Arc<Daemon>) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        tokio::time::sleep(limit / 2).await;
        if !daemon.queue.is_closed() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
