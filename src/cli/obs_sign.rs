//! The command line of obs-sign, for whoever calls the program under the name `sign`.
//!
//! Source: sign(8) and sign.conf(5) of obs-sign.

mod arguments;
mod checksums;
mod conf;
mod entrusted;

use std::{
    ffi::OsStr,
    fs::{File, Permissions},
    io::{self, Read, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arguments::{Arguments, FileMode, Mode, Time, USAGE, Verbosity};
use conf::{Conf, Version3};
use entrusted::armour;
use openssl::hash::{Hasher as RawHasher, MessageDigest};

use super::{
    Client,
    client::{Address, DEFAULT, RemoteSigner},
    sign::Opened,
    terminal::{clean, shown},
};
use crate::{
    apply::Apply,
    arrival::reason,
    digest::Digest,
    edit::Edit,
    format::{Format, Sound, UnpackLimit},
    identity::Identity,
    key::{
        RawSignature,
        openpgp::{self, Hasher, document, finished::Packet},
        x509::Certificate,
    },
    signer::{DigestSigner as _, Purpose},
};

/// Where the defaults of the command line are; `$SIGN_CONF` names another file.
const CONF: &str = "/etc/sign.conf";
/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;
/// Bytes that a text may have which gets its signature below it: it is held in memory.
const MOST_TEXT: u64 = 64 << 20;

/// Whether the program was called by the name of obs-sign's client.
pub(super) fn is_called() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new("sign")))
}

/// Why the status is 1.
enum Failure {
    /// Each file has been named with its reason.
    Named,
    /// There is no such key. Callers look for this message, which is signd's, at the start of a line.
    UnknownKey(String),
    Because(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Because(reason)
    }
}

/// Does what the command line says. The status is 0 or 1, as obs-sign's.
pub(super) fn run() -> ExitCode {
    let done = Arguments::parse(std::env::args_os().skip(1))
        .map_err(Failure::from)
        .and_then(|arguments| Call::prepare(arguments)?.run());
    match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Named) => {}
        Err(Failure::UnknownKey(user)) => eprintln!("unknown key: {}", clean(user.into())),
        Err(Failure::Because(reason)) => eprintln!("sign: {}", clean(reason.into())),
    }
    ExitCode::FAILURE
}

/// A command line with what it stands for.
struct Call {
    arguments: Arguments,
    digest: Digest,
    /// As the command line or the configuration names it.
    user: Option<String>,
    client: Arc<Client>,
    apply: Apply,
}

impl Call {
    fn prepare(arguments: Arguments) -> Result<Self, Failure> {
        let path = std::env::var_os("SIGN_CONF").map_or_else(|| CONF.into(), PathBuf::from);
        let conf = Conf::read(&path)?;
        if arguments.packet == Packet::V3 && conf.version_3 == Version3::Refused {
            return Err(format!(
                "version 3 signatures are refused: leave -3 out, every rpm reads version 4; or write a line \"allow-v3: yes\" into {}",
                path.display()
            )
            .into());
        }
        // OpenSSL takes a millisecond to begin, in which the daemon can be asked already. Without a thread it begins later.
        let _ = thread::Builder::new().spawn(|| Hasher::new(Digest::Sha256));
        let address = std::env::var("SIGNDROP_API").unwrap_or_else(|_| DEFAULT.into());
        let address: Address = address.parse().map_err(|error| reason(&error))?;
        let client = Client::new(&address).map_err(|error| reason(&error))?;
        Ok(Self {
            digest: arguments.digest.or(conf.digest).unwrap_or_default(),
            user: arguments.user.clone().or(conf.user),
            arguments,
            client: Arc::new(client),
            apply: Apply::without_redo(),
        })
    }

    fn run(&self) -> Result<(), Failure> {
        let mode = self.arguments.mode;
        let alone = matches!(
            mode,
            Some(Mode::PublicKey | Mode::KeyId | Mode::Fingerprint | Mode::Ping | Mode::Help)
        );
        if let (true, Some(file)) = (alone, self.arguments.files.first()) {
            return Err(format!("this mode takes no file, such as {}", shown(file)).into());
        }
        match mode {
            Some(Mode::Help) => print(USAGE.as_bytes()),
            Some(Mode::Ping) => {
                self.client.find("/ping").map_err(|error| reason(&error))?;
                Ok(())
            }
            Some(Mode::PublicKey) => {
                let armour = match self.entrusted()? {
                    Some(key) => armour(&key.certificate().map_err(|error| reason(&error))?)?,
                    None => self
                        .client
                        .export(&self.identity()?)
                        .map_err(|error| self.refused(&error))?,
                };
                print(armour.as_bytes())
            }
            Some(Mode::MakeKey) => self.make_key(),
            Some(Mode::Extend) => self.extend(),
            Some(Mode::Certificate) => self.certificate(),
            Some(Mode::KeyId) => {
                let fingerprint = self.signer()?.public().fingerprint().to_string();
                let end = fingerprint.len().saturating_sub(8);
                print(format!("{}\n", fingerprint.get(end..).unwrap_or_default()).as_bytes())
            }
            Some(Mode::Fingerprint) => {
                let signer = self.signer()?;
                print(format!("{}\n", signer.public().fingerprint()).as_bytes())
            }
            Some(Mode::File(mode)) => self.files(Some(mode)),
            None => self.files(None),
        }
    }

    fn files(&self, mode: Option<FileMode>) -> Result<(), Failure> {
        let signer = match mode {
            Some(FileMode::Unsign) => None,
            Some(_) | None => Some(self.signer()?),
        };
        let work = Work {
            call: self,
            signer: signer.as_ref(),
        };
        if self.arguments.files.is_empty() {
            let mode = mode.ok_or_else(|| {
                "say what is to be done with the standard input, see `sign --help`".to_owned()
            })?;
            return Ok(work.filter(mode)?);
        }
        let mut failed = Ok(());
        for path in &self.arguments.files {
            let mode = mode.unwrap_or_else(|| mode_of_name(path));
            if let Err(reason) = work.file(mode, path) {
                eprintln!("{}: {}", shown(path), clean(reason.into()));
                failed = Err(Failure::Named);
            }
        }
        failed
    }

    fn signer(&self) -> Result<RemoteSigner, Failure> {
        let identity = self.identity()?;
        let signer = match self.entrusted()? {
            Some(key) => RemoteSigner::entrusted(&self.client, &identity, &key),
            None => RemoteSigner::new(&self.client, &identity),
        };
        signer
            .map(|signer| signer.with_packet(self.arguments.packet))
            .map_err(|error| self.refused(&error))
    }

    /// The user as the name of a key. What cannot name one is told from what only does not.
    fn identity(&self) -> Result<Identity, Failure> {
        let user = self.user.as_deref().ok_or_else(|| {
            format!("whose key? Say -u EMAIL, or write a line \"user: EMAIL\" into {CONF}")
        })?;
        user.parse().map_err(|error| {
            let is_hostile = user.is_empty()
                || user.starts_with('.')
                || user.contains(|c: char| c == '/' || c.is_control());
            if is_hostile {
                Failure::Because(format!("bad user: {error}"))
            } else {
                Failure::UnknownKey(user.to_owned())
            }
        })
    }

    fn refused(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        let reason = reason(error);
        match reason.strip_prefix("unknown key: ") {
            Some(user) => Failure::UnknownKey(user.to_owned()),
            None => Failure::Because(reason),
        }
    }
}

/// What obs-sign does with a file where nobody says it.
fn mode_of_name(path: &Path) -> FileMode {
    let name = path.file_name().unwrap_or_default();
    match Format::of_name(name) {
        Some(Format::Rpm) => FileMode::Package,
        Some(Format::Kmod) => FileMode::Module,
        None if name.as_encoded_bytes().ends_with(b".spm") => FileMode::Package,
        None => FileMode::Clear,
    }
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| Failure::Because(format!("cannot write the answer: {error}")))
}

/// Files, and a key for those that are to be signed.
struct Work<'a> {
    call: &'a Call,
    /// Nothing where signatures are only removed.
    signer: Option<&'a RemoteSigner>,
}

impl Work<'_> {
    fn file(&self, mode: FileMode, path: &Path) -> Result<(), String> {
        self.tell(mode, &shown(path));
        match mode {
            FileMode::Package => self.artifact(Format::Rpm, path),
            FileMode::Module => self.artifact(Format::Kmod, path),
            FileMode::Unsign => self.unsign(path),
            FileMode::Clear => self.clear(path),
            FileMode::Detached | FileMode::RawDetached | FileMode::Openssl => {
                let mut file = File::open(path).map_err(|error| error.to_string())?;
                let modified = modified(&file);
                let signature = self.detached(mode, &mut file, modified)?;
                let end = if mode == FileMode::Detached {
                    ".asc"
                } else {
                    ".sig"
                };
                let mut name = path.as_os_str().to_owned();
                name.push(end);
                write_beside(path, Path::new(&name), &signature)
            }
        }
    }

    /// From the standard input to the standard output.
    fn filter(&self, mode: FileMode) -> Result<(), String> {
        let mut input = io::stdin().lock();
        let failed = |error: io::Error| error.to_string();
        let signed = match mode {
            FileMode::Detached | FileMode::RawDetached | FileMode::Openssl => {
                self.detached(mode, &mut input, None)?
            }
            FileMode::Clear => {
                let text = read_text(&mut input)?;
                self.clear_signed(&text, None)?.ok_or("already signed")?
            }
            FileMode::Package | FileMode::Module | FileMode::Unsign => {
                // An artifact has to be read twice.
                let mut copy = tempfile::NamedTempFile::new().map_err(failed)?;
                io::copy(&mut input, &mut copy).map_err(failed)?;
                copy.flush().map_err(failed)?;
                // Closed, since a file that somebody still writes to is left alone.
                let copy = copy.into_temp_path();
                match mode {
                    FileMode::Unsign => self.unsign(&copy)?,
                    FileMode::Module => self.artifact(Format::Kmod, &copy)?,
                    _ => self.artifact(Format::Rpm, &copy)?,
                }
                let mut signed = File::open(&copy).map_err(failed)?;
                io::copy(&mut signed, &mut io::stdout().lock()).map_err(failed)?;
                return Ok(());
            }
        };
        let mut out = io::stdout().lock();
        out.write_all(&signed)
            .and_then(|()| out.flush())
            .map_err(failed)
    }

    fn signer(&self) -> Result<&RemoteSigner, String> {
        self.signer.ok_or_else(|| "there is no key".into())
    }

    fn artifact(&self, format: Format, path: &Path) -> Result<(), String> {
        let signer = self.signer()?;
        let open = Opened::read(path, self.call.digest, UnpackLimit::default())?;
        if open.format() != format {
            let wanted = match format {
                Format::Rpm => "an RPM package",
                Format::Kmod => "a kernel module",
            };
            return Err(format!("it is not {wanted}"));
        }
        if let (Format::Kmod, Some(named)) = (format, &self.call.arguments.certificate) {
            let pem = std::fs::read(named).map_err(|error| format!("{}: {error}", shown(named)))?;
            let named = Certificate::from_pem(&pem).map_err(|error| reason(&error))?;
            let own = signer.certificate().map_err(|error| reason(&error))?;
            if named.as_der() != own.as_der() {
                return Err("the certificate of --cert is not that of the user's key".into());
            }
        }
        let is_signed = open.sound().is_signed_by(signer);
        if is_signed.map_err(|error| reason(&error))? {
            self.say(&format!("{}: already signed", shown(path)));
        } else {
            let built = match (self.call.arguments.time, open.sound()) {
                (Time::Built, Sound::Rpm(whole)) => whole.package().build_time(),
                _ => None,
            };
            let file = File::open(path).map_err(|error| error.to_string())?;
            let created = self.created(built.or(modified(&file)));
            let edit = open.sound().sign(signer, created);
            open.apply(&self.call.apply, &edit.map_err(|error| reason(&error))?)?;
        }
        match &self.call.arguments.checksums {
            Some(list) if format == Format::Rpm => checksums::append(list, path),
            Some(_) | None => Ok(()),
        }
    }

    fn unsign(&self, path: &Path) -> Result<(), String> {
        let open = Opened::read(path, Digest::default(), UnpackLimit::default())?;
        match open.sound().unsign().map_err(|error| reason(&error))? {
            Some(edit) => open.apply(&self.call.apply, &edit),
            None => Ok(()),
        }
    }

    /// Puts text and signature into the file, which keeps owner, mode and attributes.
    fn clear(&self, path: &Path) -> Result<(), String> {
        let failed = |error: io::Error| error.to_string();
        let (place, mut file, stamp) = Opened::regular(path)?;
        let text = read_text(&mut file)?;
        let Some(signed) = self.clear_signed(&text, modified(&file))? else {
            self.say(&format!("{}: already signed", shown(path)));
            return Ok(());
        };
        let mut new = tempfile::tempfile().map_err(failed)?;
        new.write_all(&signed).map_err(failed)?;
        self.call
            .apply
            .apply(
                &place,
                stamp,
                &Edit::Rewrite(new),
                crate::config::Update::Replace,
                crate::apply::Flush::Now,
            )
            .map(|_| ())
            .map_err(|error| reason(&error))
    }

    fn clear_signed(
        &self,
        text: &[u8],
        modified: Option<SystemTime>,
    ) -> Result<Option<Vec<u8>>, String> {
        if document::is_clear_signed(text) {
            return Ok(None);
        }
        let created = self.created(modified);
        document::clear_signed(self.signer()?, text, self.call.digest, created)
            .map(Some)
            .map_err(|error| reason(&error))
    }

    fn detached(
        &self,
        mode: FileMode,
        input: &mut dyn Read,
        modified: Option<SystemTime>,
    ) -> Result<Vec<u8>, String> {
        let signer = self.signer()?;
        let digest = signer.public().digest(self.call.digest);
        if mode == FileMode::Openssl {
            return raw(signer, digest, input);
        }
        let mut hasher = Hasher::new(digest);
        each_chunk(input, |chunk| {
            hasher.update(chunk);
            Ok(())
        })?;
        let signature = openpgp::sign(signer, hasher, self.created(modified));
        let signature = signature.map_err(|error| reason(&error))?;
        if mode == FileMode::RawDetached {
            return Ok(signature.into_packet());
        }
        document::armoured(&signature)
            .map(String::into_bytes)
            .map_err(|error| reason(&error))
    }

    /// The time that a signature is to state; `file_time` is the file's, where it has one.
    fn created(&self, file_time: Option<SystemTime>) -> SystemTime {
        let now = SystemTime::now();
        match self.call.arguments.time {
            Time::Now => now,
            Time::At(seconds) => UNIX_EPOCH + Duration::from_secs(seconds),
            Time::Modified | Time::Built => file_time.unwrap_or(now),
        }
    }

    fn tell(&self, mode: FileMode, name: &str) {
        let what = match mode {
            FileMode::Package => "signing the package",
            FileMode::Module => "signing the kernel module",
            FileMode::Detached => "signing, apart from it,",
            FileMode::RawDetached => "signing, in a binary file apart from it,",
            FileMode::Clear => "signing the text",
            FileMode::Openssl => "signing as openssl does",
            FileMode::Unsign => "removing the signatures of",
        };
        if self.call.arguments.verbosity == Verbosity::Verbose {
            let user = self.call.user.as_deref().unwrap_or_default();
            self.say(&format!("{what} {name} for {}", clean(user.into())));
        }
    }

    /// On standard output, or standard error where the former gets what was signed.
    fn say(&self, line: &str) {
        // Whoever reads the output may have enough of it.
        let _ = if self.call.arguments.files.is_empty() {
            writeln!(io::stderr(), "{line}")
        } else {
            writeln!(io::stdout(), "{line}")
        };
    }
}

/// A signature as openssl makes it: RSA, PKCS#1 v1.5, over the input alone.
fn raw(signer: &RemoteSigner, digest: Digest, input: &mut dyn Read) -> Result<Vec<u8>, String> {
    if !signer.public().is_rsa() {
        return Err("raw signatures are made with RSA keys only".into());
    }
    let algorithm = match digest {
        Digest::Sha1 => MessageDigest::sha1(),
        Digest::Sha256 => MessageDigest::sha256(),
        Digest::Sha384 => MessageDigest::sha384(),
        Digest::Sha512 => MessageDigest::sha512(),
    };
    let failed = |error: openssl::error::ErrorStack| error.to_string();
    let mut hasher = RawHasher::new(algorithm).map_err(failed)?;
    each_chunk(input, |chunk| hasher.update(chunk).map_err(failed))?;
    let hash = hasher.finish().map_err(failed)?;
    match signer.sign(Purpose::OpenPgp, digest, &hash) {
        Ok(RawSignature::Rsa(signature)) => Ok(signature),
        Ok(RawSignature::Ed25519 { .. } | RawSignature::Ecdsa { .. }) => {
            Err("the daemon's answer is no RSA signature".into())
        }
        Err(error) => Err(reason(&error)),
    }
}

fn modified(file: &File) -> Option<SystemTime> {
    file.metadata()
        .and_then(|metadata| metadata.modified())
        .ok()
}

fn read_text(input: &mut dyn Read) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = input.take(MOST_TEXT + 1).read_to_end(&mut text);
    match read {
        Ok(len) if len as u64 <= MOST_TEXT => Ok(text),
        Ok(_) => Err(format!(
            "a text that gets its signature below it has at most {} MiB; -d makes a detached one",
            MOST_TEXT >> 20
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn each_chunk(
    input: &mut dyn Read,
    mut each: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => each(buffer.get(..len).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Writes a file beside `path`: a reader finds the one that was there before, or all of the new one.
fn write_beside(path: &Path, name: &Path, content: &[u8]) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", shown(name));
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    let mut new = tempfile::Builder::new()
        .prefix(".sign-")
        // Less what the caller's umask takes, as for any new file.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(failed)?;
    new.write_all(content).map_err(failed)?;
    new.as_file().sync_all().map_err(failed)?;
    new.persist(name).map_err(|error| failed(error.error))?;
    Ok(())
}
