//! The configuration: what an operator writes, understood and checked as a whole.

mod obs;
mod users;
mod validity;

use std::{
    fs, io,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};
pub use obs::{Network, Obs, Ports};
use serde::{Deserialize, Deserializer, de::Error as _};
pub use users::UserId;
pub use validity::Validity;

use crate::{
    digest::Digest,
    format::{Format, UnpackLimit},
    key::{
        Algorithm,
        x509::{ModuleAlgorithm, SubjectTemplate},
    },
    keystore::{ModuleKeySource, NewModuleKey},
    project::{PathTemplate, Templates, TextTemplate},
};

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/signdrop/signdrop.toml";

/// Why a configuration is refused. All stay until the file is changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not understood; the message names line and key.
    #[error("{}: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        message: String,
    },
    /// The parts do not go together.
    #[error("{}: {message}", .path.display())]
    Meaning {
        /// The file.
        path: PathBuf,
        /// What does not go together.
        message: String,
    },
}

/// A configuration that has been checked as a whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where keys, records and the redo log are kept. Default `/var/lib/signdrop`.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// How many artifacts are worked on at once. Default: eight for each processor, since most of the time goes by waiting for disks.
    pub workers: Option<NonZeroUsize>,
    /// The doors of the HTTP API.
    #[serde(default)]
    pub api: Api,
    /// The listener for obs-sign's clients. Default: none.
    pub obs: Option<Obs>,
    /// What new keys are like.
    #[serde(default)]
    pub keys: Keys,
    /// The drop directories.
    #[serde(default, rename = "drop")]
    pub drops: Vec<Drop>,
    /// The mounts.
    #[serde(default, rename = "mount")]
    pub mounts: Vec<Mount>,
}

/// The doors of the HTTP API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// The addresses that are listened on. Default `unix:/run/signdrop/api.sock` alone.
    pub listen: Vec<Listen>,
    /// The users who may have digests signed over a Unix socket. Default: whoever may open the socket.
    pub signers: Option<Vec<UserId>>,
}

impl Api {
    /// Whether the user may have digests signed; `None` is one whom the kernel did not name.
    pub fn may_sign(&self, user: Option<u32>) -> bool {
        self.signers
            .as_ref()
            .is_none_or(|signers| signers.iter().any(|signer| Some(signer.as_raw()) == user))
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: vec![Listen::Unix(PathBuf::from("/run/signdrop/api.sock"))],
            signers: None,
        }
    }
}

/// One address of the API.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A Unix socket, which offers everything.
    Unix(PathBuf),
    /// A loopback address, which offers what needs no authentication.
    Tcp(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(format!("\"{text}\": the socket's path has to be absolute"))
            };
        }
        let address = text
            .strip_prefix("tcp:")
            .and_then(|address| address.parse::<SocketAddr>().ok())
            .ok_or_else(|| {
                format!("\"{text}\" is neither \"unix:/PATH\" nor \"tcp:ADDRESS:PORT\"")
            })?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "\"{text}\" is not a loopback address: without authentication the API is for this machine alone; \
                 use tcp:127.0.0.1:PORT or tcp:[::1]:PORT"
            ));
        }
        Ok(Self::Tcp(address))
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

/// What new keys are like.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Algorithm and size. Default `rsa4096`.
    pub algorithm: Algorithm,
    /// How long new keys are valid: `never` (they do not expire), or a number of years, weeks or days such as `5y`.
    pub expires: Validity,
    /// Where the key comes from under which all others are encrypted. Default `file:/etc/signdrop/master.key`.
    pub master_key: MasterKeySource,
    /// How many RSA keys are generated ahead, so that a new project need not wait. Default 16; 0 turns it off.
    pub prepared: usize,
    /// Algorithm and size of the keys that sign kernel modules. Default `rsa4096`.
    pub module_algorithm: ModuleAlgorithm,
    /// Which private key a project's certificate for kernel modules is of. Default `own`.
    pub certificate: CertificateOf,
    /// The subject of new certificates, a distinguished name with a place for the identity. Default `CN={identity}`.
    pub certificate_subject: SubjectTemplate,
    /// How long new certificates are valid, as `expires`. Default `never`; kernels do not look at it.
    pub certificate_expires: Validity,
}

/// Which private key a project's certificate for kernel modules is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateOf {
    /// A key of its own, so that neither purpose endangers the other.
    #[default]
    Own,
    /// The project's OpenPGP key, which has to be RSA: for installations whose kernels know these keys already.
    OpenPgp,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            expires: Validity::default(),
            master_key: MasterKeySource::File(PathBuf::from("/etc/signdrop/master.key")),
            prepared: 16,
            module_algorithm: ModuleAlgorithm::default(),
            certificate: CertificateOf::default(),
            certificate_subject: SubjectTemplate::default(),
            certificate_expires: Validity::default(),
        }
    }
}

/// Where the master key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterKeySource {
    /// A file that only its owner may read.
    File(PathBuf),
    /// A systemd credential (`LoadCredential=` or `LoadCredentialEncrypted=`).
    Credential(String),
}

impl FromStr for MasterKeySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file:")
            && Path::new(path).is_absolute()
        {
            return Ok(Self::File(PathBuf::from(path)));
        }
        match text.strip_prefix("credential:") {
            Some(name) if !name.is_empty() && !name.contains('/') && !name.starts_with('.') => {
                Ok(Self::Credential(name.to_owned()))
            }
            _ => Err(format!(
                "\"{text}\" is neither \"file:/PATH\" nor \"credential:NAME\""
            )),
        }
    }
}

impl<'de> Deserialize<'de> for MasterKeySource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

/// What is done with the artifacts of a drop directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// They get their project's signature.
    #[default]
    Sign,
    /// They lose all signatures.
    Unsign,
}

/// How changed bytes reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// By a cloned copy where the filesystem clones, else in place, else by a copy.
    #[default]
    Auto,
    /// Always by a copy that takes the file's place.
    Replace,
}

/// What becomes of a project's key when its directory is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnRemovedProject {
    /// It stays.
    #[default]
    Keep,
    /// It is deleted after the grace period.
    Delete,
}

/// How long a project's directory has to be gone before its key is deleted, where nothing is said.
const REMOVAL_GRACE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A tree that is watched.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "RawDrop")]
pub struct Drop {
    /// The directory.
    pub root: PathBuf,
    /// How projects and identities are found.
    pub templates: Templates,
    /// What is done with artifacts.
    pub action: Action,
    /// The formats that are taken for artifacts.
    pub formats: Vec<Format>,
    /// Whether a project's first artifact makes its key.
    pub create_keys: bool,
    /// The name of a file in each project's directory that holds its public key, if there is to be one.
    pub public_key: Option<String>,
    /// How long a project's directory has to be gone before its key is deleted; for ever where nothing is said.
    pub removal_grace: Option<Duration>,
    /// How changed bytes reach the disk.
    pub update: Update,
    /// How large a compressed kernel module may become when it is unpacked.
    pub unpack_limit: UnpackLimit,
    digest: Digest,
    rules: Vec<Rule>,
    /// The patterns as they are written.
    pub ignore_patterns: Vec<String>,
    ignore: GlobSet,
    /// Matches directories below which everything is ignored.
    ignore_below: GlobSet,
}

/// A directory that is mounted elsewhere, where files are seen only when they are settled.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "RawDrop")]
pub struct Mount {
    /// The directory below, and what is done with the artifacts in it.
    pub drop: Drop,
    /// The mount point.
    pub at: PathBuf,
}

/// A drop directory or a mount as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDrop {
    root: PathBuf,
    at: Option<PathBuf>,
    project: PathTemplate,
    identity: TextTemplate,
    name: Option<TextTemplate>,
    #[serde(default)]
    action: Action,
    #[serde(default = "Format::all")]
    formats: Vec<Format>,
    #[serde(default)]
    digest: Digest,
    #[serde(default)]
    ignore: Vec<Pattern>,
    #[serde(default = "yes")]
    create_keys: bool,
    public_key: Option<String>,
    #[serde(default)]
    on_removed_project: OnRemovedProject,
    #[serde(default, deserialize_with = "time")]
    removal_grace: Option<Duration>,
    #[serde(default)]
    update: Update,
    #[serde(default)]
    unpack_limit_mib: UnpackLimit,
    #[serde(default, rename = "rule")]
    rules: Vec<Rule>,
}

/// An exception for the paths that match.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(rename = "match", deserialize_with = "glob")]
    matches: GlobMatcher,
    digest: Digest,
}

/// A glob pattern that has been understood, so that a mistake in it names its line.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(String);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_glob(&text)?;
        Ok(Self(text))
    }
}

impl TryFrom<RawDrop> for Mount {
    type Error = String;

    fn try_from(mut raw: RawDrop) -> Result<Self, String> {
        let at = raw
            .at
            .take()
            .ok_or("a [[mount]] needs `at`, where it is mounted")?;
        if !at.is_absolute() {
            return Err(format!("at \"{}\" is not absolute", at.display()));
        }
        if raw.on_removed_project == OnRemovedProject::Delete {
            return Err(
                "on_removed_project = \"delete\" is for a [[drop]]: nobody watches for directories that leave a mount"
                    .into(),
            );
        }
        Ok(Self {
            drop: raw.try_into()?,
            at: at.components().collect(),
        })
    }
}

impl TryFrom<RawDrop> for Drop {
    type Error = String;

    fn try_from(raw: RawDrop) -> Result<Self, String> {
        if raw.at.is_some() {
            return Err("`at` is for a [[mount]]: a [[drop]] is watched where it is".into());
        }
        if !raw.root.is_absolute() {
            return Err(format!("root \"{}\" is not absolute", raw.root.display()));
        }
        if raw.digest == Digest::Sha1 {
            return Err(
                "digest = \"sha1\" is for old chroots only: put it into a [[drop.rule]]".into(),
            );
        }
        if raw.formats.is_empty() {
            return Err("formats is empty, so nothing would ever be signed".into());
        }
        if let Some(name) = &raw.public_key
            && (Path::new(name).file_name() != Some(name.as_ref())
                || name.starts_with('.')
                || name.contains(char::is_control)
                || Format::of_name(name.as_ref()).is_some())
        {
            return Err(format!(
                "public_key = {name:?} has to be a file's name, such as \"pubkey.gpg\", and none that artifacts have"
            ));
        }
        let removal_grace = match raw.on_removed_project {
            OnRemovedProject::Delete => Some(raw.removal_grace.unwrap_or(REMOVAL_GRACE)),
            OnRemovedProject::Keep => None,
        };
        let mut ignore = GlobSetBuilder::new();
        let mut ignore_below = GlobSetBuilder::new();
        for Pattern(pattern) in &raw.ignore {
            ignore.add(parse_glob(pattern)?);
            if let Some(directory) = pattern.strip_suffix("/**") {
                ignore_below.add(parse_glob(directory)?);
            }
        }
        let built = |set: GlobSetBuilder| set.build().map_err(|error| error.to_string());
        Ok(Self {
            root: raw.root.components().collect(),
            templates: Templates::parse(raw.project, raw.identity, raw.name)
                .map_err(|error| format!("identity or name: {error}"))?,
            action: raw.action,
            formats: raw.formats,
            create_keys: raw.create_keys,
            public_key: raw.public_key,
            removal_grace,
            update: raw.update,
            unpack_limit: raw.unpack_limit_mib,
            digest: raw.digest,
            rules: raw.rules,
            ignore_patterns: raw.ignore.into_iter().map(|pattern| pattern.0).collect(),
            ignore: built(ignore)?,
            ignore_below: built(ignore_below)?,
        })
    }
}

impl Drop {
    /// Whether the same is done with the artifacts of another.
    fn is_like(&self, other: &Self) -> bool {
        let rules = |drop: &Self| -> Vec<(String, Digest)> {
            let all = drop.rules.iter();
            all.map(|rule| (rule.matches.glob().glob().to_owned(), rule.digest))
                .collect()
        };
        self.templates == other.templates
            && (self.action, &self.formats, self.create_keys)
                == (other.action, &other.formats, other.create_keys)
            && (self.update, self.unpack_limit, self.digest)
                == (other.update, other.unpack_limit, other.digest)
            && self.ignore_patterns == other.ignore_patterns
            && rules(self) == rules(other)
    }

    /// The digest for the file at `path`, relative to the root: the first rule that matches says.
    pub fn digest(&self, path: &Path) -> Digest {
        self.rules
            .iter()
            .find(|rule| rule.matches.is_match(path))
            .map_or(self.digest, |rule| rule.digest)
    }

    /// Whether all that lies below two directories is ignored alike and has the same digests. Where it cannot be told, no: each pattern has to
    /// treat both alike, and what lies right in them, and must not look at several names together, nor count those above.
    pub fn is_alike_below(&self, from: &Path, to: &Path) -> bool {
        let is_as_deep = from.components().count() == to.components().count();
        let rules = self.rules.iter().map(|rule| rule.matches.glob().glob());
        let mut patterns = self.ignore_patterns.iter().map(String::as_str).chain(rules);
        // Which patterns match, and not whether any does.
        let is_alike = |from: &Path, to: &Path| {
            let sets = [&self.ignore, &self.ignore_below];
            let mut rules = self.rules.iter().map(|rule| &rule.matches);
            sets.iter().all(|set| set.matches(from) == set.matches(to))
                && rules.all(|rule| rule.is_match(from) == rule.is_match(to))
        };
        patterns.all(|pattern| is_shallow(pattern) && (is_as_deep || counts_nothing(pattern)))
            && is_alike(from, to)
            && is_alike(&from.join("-"), &to.join("-"))
    }

    /// Whether a file or directory at `path`, relative to the root, is left alone with all below it.
    pub fn ignores(&self, path: &Path) -> bool {
        self.ignore.is_match(path)
            || path
                .ancestors()
                .any(|ancestor| self.ignore_below.is_match(ancestor))
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Error`], which names the file and, for a mistake in it, line and key.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let config: Self = toml::from_str(&text).map_err(|error| Error::Syntax {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        config.check().map_err(|message| Error::Meaning {
            path: path.to_owned(),
            message,
        })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if !self.state_dir.is_absolute() {
            return Err("state_dir is not absolute".into());
        }
        if self.keys.certificate == CertificateOf::OpenPgp && !self.keys.algorithm.is_rsa() {
            return Err(format!(
                "[keys] certificate = \"openpgp\" needs RSA keys, and algorithm is {}",
                self.keys.algorithm
            ));
        }
        // A link may hide that two directories are one.
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let overlap = |one: &Path, other: &Path| {
            let (one, other) = (real(one), real(other));
            one.starts_with(&other) || other.starts_with(&one)
        };
        for (place, drop) in self.drops.iter().enumerate() {
            if overlap(&self.state_dir, &drop.root) {
                return Err(format!(
                    "state_dir and the drop directory {} lie in one another",
                    drop.root.display()
                ));
            }
            for other in self.drops.iter().skip(place + 1) {
                if overlap(&drop.root, &other.root) {
                    return Err(format!(
                        "the drop directories {} and {} lie in one another: a file has to belong to one",
                        drop.root.display(),
                        other.root.display()
                    ));
                }
            }
        }
        for (place, mount) in self.mounts.iter().enumerate() {
            let (root, at) = (mount.drop.root.as_path(), mount.at.as_path());
            let others = self.mounts.iter().skip(place + 1);
            let mut taken = vec![("state_dir", self.state_dir.as_path())];
            taken.extend(
                self.drops
                    .iter()
                    .map(|drop| ("the drop directory", drop.root.as_path())),
            );
            taken.extend(
                others
                    .clone()
                    .map(|other| ("the mount's directory", other.drop.root.as_path())),
            );
            taken.extend(others.map(|other| ("the mount", other.at.as_path())));
            for (what, path) in taken {
                // The watcher then finds what is written behind the mount's back, and does the same with it.
                let is_both = self
                    .drops
                    .iter()
                    .any(|drop| drop.root == root && drop.root == path);
                let is_alike = self
                    .drops
                    .iter()
                    .any(|drop| drop.root == path && drop.is_like(&mount.drop));
                if overlap(root, path) && !(is_both && is_alike) {
                    return Err(if is_both {
                        format!(
                            "{} is a drop directory and below a mount: that finds what is written behind the mount's back, but \
                             all other fields have to be the same in both",
                            root.display()
                        )
                    } else {
                        format!(
                            "the mount's directory {} and {what} {} lie in one another",
                            root.display(),
                            path.display()
                        )
                    });
                }
                if overlap(at, path) {
                    return Err(format!(
                        "the mount {} and {what} {} lie in one another",
                        at.display(),
                        path.display()
                    ));
                }
            }
            if overlap(at, root) {
                return Err(format!(
                    "the mount {} and its directory {} lie in one another: writers use the one, nobody the other",
                    at.display(),
                    root.display()
                ));
            }
        }
        Ok(())
    }
}

impl Keys {
    /// How long a key that is made now is valid.
    pub fn lifetime(&self) -> Option<Duration> {
        self.expires.lifetime()
    }

    /// What a certificate for kernel modules is to be that is made now.
    pub fn new_module_key(&self) -> NewModuleKey {
        NewModuleKey {
            source: match self.certificate {
                CertificateOf::Own => ModuleKeySource::Own(self.module_algorithm),
                CertificateOf::OpenPgp => ModuleKeySource::OpenPgp,
            },
            subject: self.certificate_subject.clone(),
            expires: self.certificate_expires.lifetime(),
        }
    }
}

fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/signdrop")
}

fn yes() -> bool {
    true
}

/// Whether a pattern looks at no more than one name in a path, and that name's place from the top.
fn is_shallow(pattern: &str) -> bool {
    let names: Vec<&str> = pattern.split('/').collect();
    let count = |name: &str, wanted: char| name.chars().filter(|c| *c == wanted).count();
    // Braces may have a slash in them, and brackets match one if they are of what is not, or of a range around it.
    let is_cut = |name: &&str| {
        count(name, '{') != count(name, '}') || name.split('[').skip(1).any(may_match_slash)
    };
    let told = names.iter().position(|name| !matches!(*name, "*" | "**"));
    let rest = told.and_then(|told| names.get(told + 1..));
    !names.iter().any(is_cut) && matches!(rest, None | Some([] | ["*"] | ["**"]))
}

/// Whether it is all the same to a pattern how many names are above the one that it looks at.
fn counts_nothing(pattern: &str) -> bool {
    let told = pattern.split('/').find(|name| *name != "**");
    pattern.starts_with("**/") && told.is_some_and(|told| told != "*")
}

/// What comes behind the bracket that opens a class of characters.
fn may_match_slash(class: &str) -> bool {
    let Some((class, _)) = class.split_once(']') else {
        return true;
    };
    let characters: Vec<char> = class.chars().collect();
    let is_around =
        |range: &[char]| matches!(range, [first, '-', last] if (*first..=*last).contains(&'/'));
    class.is_empty() || class.starts_with(['!', '^']) || characters.windows(3).any(is_around)
}

fn parse_glob(pattern: &str) -> Result<globset::Glob, String> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|error| error.to_string())
}

fn glob<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GlobMatcher, D::Error> {
    let pattern = String::deserialize(deserializer)?;
    parse_glob(&pattern)
        .map(|glob| glob.compile_matcher())
        .map_err(D::Error::custom)
}

/// A time such as `7days` or `12h`.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    humantime::parse_duration(&String::deserialize(deserializer)?)
        .map(Some)
        .map_err(D::Error::custom)
}

fn from_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: std::fmt::Display,
{
    String::deserialize(deserializer)?
        .parse()
        .map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_look_at_several_names_are_told_from_others() {
        for shallow in [
            "**/repodata/**",
            "*/*/*/repodata/**",
            "*/*/{epel,rhel}-[0-4]-*/**",
            "**/*.log",
            "logs/*",
            "*/*",
        ] {
            assert!(is_shallow(shallow), "{shallow}");
        }
        for deep in [
            "**/results/logs/**",
            "*/*/results/*.rpm",
            "**/{a/b,c}/**",
            "**/x[!0-9]y/**",
            "**/x[+-9]y/**",
            "**/x[/]/**",
            "**/results/**/*.rpm",
            "logs/*/*",
        ] {
            assert!(!is_shallow(deep), "{deep}");
        }
    }

    #[test]
    fn directories_are_alike_below_only_where_each_pattern_treats_them_alike() {
        let alike = |options: &str, from: &str, to: &str| {
            let head = "root = \"/srv\"\nproject = \"{owner}/{project}\"\nidentity = \"{owner}#{project}@e.org\"";
            let drop: Drop = toml::from_str(&format!("{head}\n{options}")).unwrap();
            drop.is_alike_below(Path::new(from), Path::new(to))
        };
        let rules = "[[rule]]\nmatch = \"*/*/el4/*\"\ndigest = \"sha512\"\n[[rule]]\nmatch = \"*/*/el3/**\"\ndigest = \"sha512\"";
        assert!(!alike(rules, "a/b/el4", "a/b/el3"));
        assert!(alike(rules, "a/b/x", "a/b/y"));
        let ignore = |patterns: &str| format!("ignore = [{patterns}]");
        let one = ignore(r#""**/logs", "**/logs/*", "*/*/res/**""#);
        assert!(!alike(&one, "a/b/logs", "a/b/res"));
        assert!(!alike(
            &ignore(r#""**/?", "**/logs/**""#),
            "a/b/logs",
            "a/b/other"
        ));
        assert!(alike(&ignore(r#""**/logs/**""#), "a/b/x", "a/b/x/y"));
        assert!(!alike(&ignore(r#""*/*/*/logs/**""#), "a/b/x", "a/b/x/y"));
        assert!(alike(&ignore(""), "a/b/x", "a/b/x/y"));
        for counting in [
            r#""**/*/*/logs/**""#,
            r#""**/*/*/*/*""#,
            r#""**/*/*/*.log""#,
        ] {
            assert!(!alike(&ignore(counting), "a/b/x", "a/b/x/y"), "{counting}");
            assert!(alike(&ignore(counting), "a/b/x", "a/b/y"), "{counting}");
        }
    }
}
