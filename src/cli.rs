//! The command line.

mod artifacts;
mod client;
mod export;
mod import;
mod init;
mod inspect;
mod keys;
mod obs_sign;
mod passphrase;
mod retry;
mod sign;
mod status;
mod terminal;
mod verify;
mod wait;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use client::{Address, Client};

use crate::{
    arrival::reason,
    config::{self, Config},
    daemon,
    digest::Digest,
    format::UnpackLimit,
    identity::Identity,
    keystore::{self, VaultError},
    master_key,
};

/// How a command ended, if not well. The number is the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// A file or a request failed; each has been named.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// The daemon cannot be reached.
    Unreachable = 3,
    /// The time was over.
    TimedOut = 4,
}

/// Why a command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Keystore(#[from] keystore::Error),
    /// A GnuPG home cannot be read.
    #[error(transparent)]
    Gnupg(#[from] crate::key::gnupg::Error),
    #[error(transparent)]
    MasterKey(#[from] master_key::Error),
    #[error(transparent)]
    OpenPgp(#[from] crate::key::openpgp::Error),
    #[error(transparent)]
    X509(#[from] crate::key::x509::Error),
    #[error("cannot access {}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    /// What failed has been named already.
    #[error("{failed} of {all} failed")]
    Some { failed: usize, all: usize },
    #[error("timed out: {settled} of {found} artifacts are settled")]
    TimedOut { settled: u64, found: u64 },
}

impl Error {
    fn status(&self) -> Status {
        match self {
            Self::Config(_) | Self::Usage(_) => Status::Usage,
            Self::Daemon(error) => match error {
                daemon::Error::Config(_)
                | daemon::Error::StateDir { .. }
                | daemon::Error::MasterKey(_)
                | daemon::Error::Mount(_)
                | daemon::Error::Http(_)
                | daemon::Error::Obs(_) => Status::Usage,
                daemon::Error::Keystore(error) => keystore_status(error),
                daemon::Error::Store(_)
                | daemon::Error::Apply(_)
                | daemon::Error::System { .. } => Status::Failed,
            },
            Self::MasterKey(_) => Status::Usage,
            Self::Keystore(error) => keystore_status(error),
            Self::Client(client::Error::Unreachable { .. }) => Status::Unreachable,
            Self::Client(client::Error::Refused(_) | client::Error::Address(_))
            | Self::OpenPgp(_)
            | Self::Gnupg(_)
            | Self::X509(_)
            | Self::Io { .. }
            | Self::Output(_)
            | Self::Failed(_)
            | Self::Some { .. } => Status::Failed,
            Self::TimedOut { .. } => Status::TimedOut,
        }
    }
}

/// An error that names its file.
fn at(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io {
        path: path.clone(),
        source,
    }
}

/// What is made of each path; the first that fails is named.
fn each_path(
    paths: &[PathBuf],
    make: impl Fn(&PathBuf) -> io::Result<PathBuf>,
) -> Result<Vec<PathBuf>, Error> {
    paths
        .iter()
        .map(|path| make(path).map_err(at(path)))
        .collect()
}

/// A master key that is not the store's is a mistake in the configuration.
fn keystore_status(error: &keystore::Error) -> Status {
    match error {
        keystore::Error::Vault(VaultError::WrongMasterKey | VaultError::NotAMasterKey) => {
            Status::Usage
        }
        keystore::Error::Vault(
            VaultError::Seal
            | VaultError::Sealed
            | VaultError::Slots { .. }
            | VaultError::SlotsShort { .. }
            | VaultError::Store(_),
        )
        | keystore::Error::Store(_)
        | keystore::Error::Key(_)
        | keystore::Error::OpenPgp(_)
        | keystore::Error::X509(_)
        | keystore::Error::NotForModules(_)
        | keystore::Error::Deleted
        | keystore::Error::Record(_)
        | keystore::Error::Formerly(_)
        | keystore::Error::Earlier(_)
        | keystore::Error::TooLate(_) => Status::Failed,
    }
}

/// Signs what is dropped: RPM packages and Linux kernel modules, each with its project's key.
///
/// `signdrop init` prepares a machine, `signdrop serve` is the daemon, all other commands talk to it or work on files.
///
/// Exit status: 0 all well, 1 a file or request failed, 2 usage or configuration, 3 the daemon cannot be reached, 4 time-out.
#[derive(Debug, Parser)]
#[command(name = "signdrop", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

/// Where the keys are: behind a daemon, or in a state directory that no daemon has open.
#[derive(Debug, Args)]
struct Keys {
    /// The daemon's address: unix:/PATH or tcp:ADDRESS:PORT.
    #[arg(long, value_name = "URL", env = "SIGNDROP_API", default_value = client::DEFAULT)]
    api: Address,
    /// Works without a daemon, whatever its address, on this state directory, which no daemon may have open.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// The configuration file, for the master key and the defaults of new keys, and for the project of a path.
    #[arg(short, long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

/// What reading compressed kernel modules may take.
#[derive(Debug, Args)]
struct Unpacking {
    /// How large a compressed kernel module may become, in MiB; 512 where nothing is said.
    #[arg(long, value_name = "MIB")]
    unpack_limit_mib: Option<UnpackLimit>,
}

impl Unpacking {
    fn limit(&self) -> UnpackLimit {
        self.unpack_limit_mib.unwrap_or_default()
    }
}

#[derive(Debug, Args)]
struct Api {
    /// The daemon's address: unix:/PATH or tcp:ADDRESS:PORT.
    #[arg(long, value_name = "URL", env = "SIGNDROP_API", default_value = client::DEFAULT)]
    api: Address,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes what is missing: a commented configuration, the state directory, the master key.
    Init(ConfigFile),
    /// Runs the daemon in the foreground until SIGTERM; SIGHUP reloads the configuration.
    Serve(ConfigFile),
    /// Validates the configuration and prints the drop directories as they are understood.
    Check(ConfigFile),
    /// Signs files, or directories with all below them.
    ///
    /// Files are changed by this program with the caller's rights; the daemon only signs their digests.
    Sign {
        #[command(flatten)]
        keys: Keys,
        /// The key; without it, the one of the drop directory's project that the file lies in.
        #[arg(short = 'u', long, value_name = "EMAIL")]
        user: Option<Identity>,
        /// The digest; without it, what the drop directory's rules say, else sha256.
        #[arg(long, value_enum)]
        digest: Option<Digest>,
        /// How large a compressed kernel module may become, in MiB; without it, what the drop directory says, else 512.
        #[arg(long, value_name = "MIB")]
        unpack_limit_mib: Option<UnpackLimit>,
        /// Prints one JSON object a line.
        #[arg(long)]
        json: bool,
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Removes all signatures from files, or directories with all below them.
    Unsign {
        #[command(flatten)]
        unpacking: Unpacking,
        /// Prints one JSON object a line.
        #[arg(long)]
        json: bool,
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Shows kind, digests and signatures of files, or directories with all below them.
    Inspect {
        #[command(flatten)]
        unpacking: Unpacking,
        /// Prints one JSON object a line.
        #[arg(long)]
        json: bool,
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Verifies that files are whole and signed by a key of a keyring; kernel modules as a kernel does.
    Verify {
        /// OpenPGP keys for packages, X.509 certificates for kernel modules: armoured, PEM or binary, one behind the other.
        #[arg(long, value_name = "FILE")]
        keyring: PathBuf,
        #[command(flatten)]
        unpacking: Unpacking,
        /// Prints one JSON object a line.
        #[arg(long)]
        json: bool,
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Waits until every artifact below the paths is settled; names each that failed.
    Wait {
        #[command(flatten)]
        api: Api,
        /// Gives up after this time, with exit status 4.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
        /// Prints one JSON object a line.
        #[arg(long)]
        json: bool,
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Shows what the daemon does, and what it could not do.
    Status {
        #[command(flatten)]
        api: Api,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Tries again what failed in a mount and is held back there: files, or directories with all below them.
    Retry {
        #[command(flatten)]
        api: Api,
        /// Prints one JSON object a line.
        #[arg(long)]
        json: bool,
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Makes, shows, exports and deletes keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Makes a key, unless there is one for that e-mail.
    Generate {
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        wish: keys::Wish,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Lists all keys.
    List {
        #[command(flatten)]
        keys: Keys,
        /// Prints one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Shows one key.
    Show {
        #[command(flatten)]
        keys: Keys,
        email: Identity,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Prints the public key, armoured, as `rpm --import` takes it; or writes private keys to a file, encrypted with a passphrase.
    ///
    /// The way back to GnuPG, while the daemon is stopped: `signdrop key export --secret --all --output keys.asc --store
    /// /var/lib/signdrop`, then `gpg --import keys.asc`. The keys that sign kernel modules are not written.
    Export {
        #[command(flatten)]
        keys: Keys,
        #[arg(required_unless_present = "all")]
        email: Option<Identity>,
        #[command(flatten)]
        secret: export::Wish,
    },
    /// Prints the certificate of a project's kernel modules, in PEM or DER; makes it where there is none.
    ///
    /// `mokutil --import` takes it in DER: `signdrop key certificate --der EMAIL > modules.der`.
    Certificate {
        #[command(flatten)]
        keys: Keys,
        email: Identity,
        /// Prints DER rather than PEM.
        #[arg(long)]
        der: bool,
    },
    /// Takes over the keys of a GnuPG home, or of a file of exported ones, with their user ids, times and self-signatures.
    ///
    /// What is there already is left as it is, so that an interrupted run is simply started again. It works on the store of a daemon that
    /// is stopped (--store), since a running one takes no private key from anybody.
    Import {
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        wish: import::Wish,
    },
    /// Gives a key a later end. Its earlier self-signatures stay, so that whatever it signed goes on being verified.
    Extend {
        #[command(flatten)]
        keys: Keys,
        email: Identity,
        /// How long it is valid from now on: never (it does not expire), or a time such as 5y or 180d.
        #[arg(long, value_name = "TIME")]
        expires: config::Validity,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Deletes a key for good: nobody can sign with it again, and nothing brings it back but a backup.
    Delete {
        #[command(flatten)]
        keys: Keys,
        email: Identity,
        /// Does not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the command that the arguments name, or obs-sign's client where the program was called by its name.
pub fn run() -> ExitCode {
    if obs_sign::is_called() {
        return obs_sign::run();
    }
    let arguments = Arguments::parse();
    match command(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has enough of it.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let text = reason(&error);
            match &error {
                // Several lines that show the place of the mistake.
                Error::Config(_) | Error::Daemon(_) => eprintln!("signdrop: {text}"),
                _ => eprintln!("signdrop: {}", terminal::clean(text.into())),
            }
            ExitCode::from(error.status() as u8)
        }
    }
}

fn command(command: Command) -> Result<(), Error> {
    match command {
        Command::Init(file) => init::init(&file.config),
        Command::Serve(file) => {
            terminal::log();
            Ok(daemon::serve(&file.config)?)
        }
        Command::Check(file) => init::check(&file.config),
        Command::Sign {
            keys,
            user,
            digest,
            unpack_limit_mib,
            json,
            paths,
        } => sign::sign(
            &keys,
            user.as_ref(),
            digest,
            unpack_limit_mib,
            json.into(),
            &paths,
        ),
        Command::Unsign {
            unpacking,
            json,
            paths,
        } => sign::unsign(unpacking.limit(), json.into(), &paths),
        Command::Inspect {
            unpacking,
            json,
            paths,
        } => inspect::inspect(unpacking.limit(), json.into(), &paths),
        Command::Verify {
            keyring,
            unpacking,
            json,
            paths,
        } => verify::verify(&keyring, unpacking.limit(), json.into(), &paths),
        Command::Wait {
            api,
            timeout,
            json,
            paths,
        } => wait::wait(&api.api, timeout, json.into(), &paths),
        Command::Status { api, json } => status::status(&api.api, json.into()),
        Command::Retry { api, json, paths } => retry::retry(&api.api, json.into(), &paths),
        Command::Key(command) => keys::run(command),
        Command::Completions { shell } => {
            // Into memory first: clap_complete panics where its output ends early.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "signdrop", &mut script);
            io::Write::write_all(&mut io::stdout(), &script)?;
            Ok(())
        }
    }
}

/// What commands print: text for people, or JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Print {
    Text,
    Json,
}

impl From<bool> for Print {
    fn from(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// The configuration, or nothing where the default file does not exist and nobody asked for it.
fn optional_config(path: &Path) -> Result<Option<Config>, Error> {
    if path == Path::new(config::DEFAULT_PATH) && !path.exists() {
        return Ok(None);
    }
    Ok(Some(Config::read(path)?))
}

fn connect(address: &Address) -> Result<Client, Error> {
    Ok(Client::new(address)?)
}
