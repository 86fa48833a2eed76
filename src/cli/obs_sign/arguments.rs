//! obs-sign's command line, which is older than today's conventions: no two options in one word, and the last mode counts.

use std::{ffi::OsString, path::PathBuf};

use crate::{digest::Digest, key::openpgp::finished::Packet};

/// What is printed for `--help`.
pub(super) const USAGE: &str = "\
Signs files with the keys of a signdrop daemon, with the command line of obs-sign.

  sign [-v] [-u USER] [-h HASH] -r [FILE…]      signs packages in place
  sign [-v] [-u USER] [-h HASH] -d [FILE…]      writes detached signatures, FILE.asc
  sign [-v] [-u USER] [-h HASH] -D [FILE…]      the same, binary, FILE.sig
  sign [-v] [-u USER] [-h HASH] -c [FILE…]      puts text and its signature into the file
  sign [-v] [-u USER] [-h HASH] -O [FILE…]      writes raw RSA signatures as openssl verifies them, FILE.sig
  sign [-v] [-u USER] [-h HASH] --kosign [--cert CERTIFICATE] [FILE…]
                                                signs kernel modules in place
  sign [-v] --delsign FILE…                     removes all signatures from packages and kernel modules
  sign [-u USER] -p                             prints the public key
  sign [-u USER] -k                             prints the end of the key's id
  sign [-u USER] --fingerprint                  prints the key's fingerprint
  sign [-u USER] -P KEYFILE -g TYPE DAYS NAME EMAIL
                                                makes a key that you keep, in KEYFILE, and prints the public key
  sign [-u USER] [-P KEYFILE] -x DAYS PUBKEY    prolongs a key from now on, and prints its new public key
  sign [-u USER] -C PUBKEY                      prints the certificate for the key's kernel modules
  sign -t                                       tells by its exit status whether the daemon answers

  -u USER   the e-mail that names the key, or the line \"user: USER\" of /etc/sign.conf
  -h HASH   sha1 sha256 sha384 sha512, or the line \"hash: HASH\" of /etc/sign.conf; sha256 where nothing is said
  -P FILE   signs with the private key in FILE, which -g has made for the same USER; the daemon alone can decrypt it
  -4        version 4 signatures, as where nothing is said
  -3        version 3 signatures, for programs that read no others; refused but where /etc/sign.conf has the line \"allow-v3: yes\"
  -T TIME   the signatures' time: seconds since 1970, mtime, or with -r buildtime; no earlier than the key
  -S FILE   with -r: appends the packages' checksums to FILE, - for the output
  -v        says what is done

TYPE is rsa@2048, rsa@3072, rsa@4096, ed25519, nistp256 or nistp384; 0 DAYS are for ever.
Without a mode, files that end in .rpm or .spm are packages, those that end in .ko, .ko.gz, .ko.xz or .ko.zst kernel modules, all others text.
Without a file, the standard input is signed to the standard output.
The daemon is found at $SIGNDROP_API or unix:/run/signdrop/api.sock. Exit status: 0 all well, 1 something failed.
";

/// What is to be done with files, or with the standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileMode {
    Package,
    Module,
    Detached,
    RawDetached,
    Clear,
    Openssl,
    Unsign,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    File(FileMode),
    PublicKey,
    KeyId,
    Fingerprint,
    MakeKey,
    Extend,
    Certificate,
    Ping,
    Help,
}

/// Which time a signature states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Time {
    #[default]
    Now,
    /// In Unix seconds.
    At(u64),
    /// When the file was last changed.
    Modified,
    /// When the package was built; of what is no package, as [`Time::Modified`].
    Built,
}

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Verbosity {
    #[default]
    Quiet,
    Verbose,
}

/// A command line that has been understood.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// To be found from each file's name where nothing is said.
    pub(super) mode: Option<Mode>,
    pub(super) user: Option<String>,
    pub(super) digest: Option<Digest>,
    pub(super) packet: Packet,
    pub(super) time: Time,
    pub(super) checksums: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    /// Where the private key is that the caller keeps.
    pub(super) private_key: Option<PathBuf>,
    pub(super) verbosity: Verbosity,
    /// The standard input where there is none.
    pub(super) files: Vec<PathBuf>,
}

impl Arguments {
    /// Understands the words behind the program's name.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = Self::default();
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next_if(|word| word.as_encoded_bytes().starts_with(b"-")) {
            let option = word.to_str().unwrap_or("-");
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| format!("{option} wants a value behind it"))
            };
            let text = |value: OsString| {
                value
                    .into_string()
                    .map_err(|_| format!("the value of {option} is not UTF-8"))
            };
            match option {
                "--" => break,
                "-u" => arguments.user = Some(text(value()?)?),
                "-h" => arguments.digest = Some(digest(&text(value()?)?)?),
                "-T" => arguments.time = time(&text(value()?)?)?,
                "-S" => arguments.checksums = Some(value()?.into()),
                "--cert" => arguments.certificate = Some(value()?.into()),
                "-P" => arguments.private_key = Some(value()?.into()),
                "-v" => arguments.verbosity = Verbosity::Verbose,
                "-3" => arguments.packet = Packet::V3,
                "-4" => arguments.packet = Packet::V4,
                _ => arguments.mode = Some(mode(option)?),
            }
        }
        arguments.files = words.map(PathBuf::from).collect();
        Ok(arguments)
    }
}

fn mode(option: &str) -> Result<Mode, String> {
    Ok(match option {
        "-r" => Mode::File(FileMode::Package),
        "--kosign" => Mode::File(FileMode::Module),
        "-d" => Mode::File(FileMode::Detached),
        "-D" => Mode::File(FileMode::RawDetached),
        "-c" => Mode::File(FileMode::Clear),
        "-O" => Mode::File(FileMode::Openssl),
        "--delsign" => Mode::File(FileMode::Unsign),
        "-p" => Mode::PublicKey,
        "-k" => Mode::KeyId,
        "--fingerprint" => Mode::Fingerprint,
        "-g" => Mode::MakeKey,
        "-x" => Mode::Extend,
        "-C" => Mode::Certificate,
        "-t" => Mode::Ping,
        "--help" => Mode::Help,
        _ => return Err(format!("unknown option {option}; `sign --help` lists them")),
    })
}

/// A digest's name, in capitals or not.
///
/// # Errors
/// A text that says which there are.
pub(super) fn digest(name: &str) -> Result<Digest, String> {
    [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512]
        .into_iter()
        .find(|digest| digest.name().eq_ignore_ascii_case(name))
        .ok_or_else(|| {
            format!("unknown hash algorithm '{name}'; known are sha1, sha256, sha384, sha512")
        })
}

fn time(text: &str) -> Result<Time, String> {
    match text {
        "mtime" => Ok(Time::Modified),
        "buildtime" => Ok(Time::Built),
        // OpenPGP has 32 bits for it (RFC 9580, section 3.5).
        _ => match text.parse::<u32>() {
            Ok(seconds) => Ok(Time::At(seconds.into())),
            Err(_) => Err(format!(
                "{text:?} is no time: it is seconds since 1970, mtime or buildtime"
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, String> {
        Arguments::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn coprs_calls_are_understood() {
        let user = Some("@group#tools@copr.example.org".to_owned());
        let email = "@group#tools@copr.example.org";
        assert_eq!(
            parse(&["-u", email, "-p"]),
            Ok(Arguments {
                mode: Some(Mode::PublicKey),
                user: user.clone(),
                ..Arguments::default()
            })
        );
        assert_eq!(
            parse(&["-4", "-h", "sha256", "-u", email, "-r", "/a b.rpm"]),
            Ok(Arguments {
                mode: Some(Mode::File(FileMode::Package)),
                user,
                digest: Some(Digest::Sha256),
                files: vec!["/a b.rpm".into()],
                ..Arguments::default()
            })
        );
    }

    #[test]
    fn options_end_with_the_first_word_that_is_none() {
        let files = |words: &[&str]| parse(words).unwrap().files;
        assert_eq!(files(&["-d", "a", "-v"]), ["a", "-v"].map(PathBuf::from));
        assert_eq!(files(&["-d", "--", "-v"]), ["-v"].map(PathBuf::from));
        assert_eq!(
            parse(&["-d", "-c"]).unwrap().mode,
            Some(Mode::File(FileMode::Clear))
        );
        assert_eq!(parse(&["-T", "1"]).unwrap().time, Time::At(1));
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for words in [
            &["-u"][..],
            &["-h"],
            &["-h", "md5"],
            &["-h", ""],
            &["-T", ""],
            &["-T", "-1"],
            &["-T", "0x10"],
            &["-T", "99999999999"],
            &["-T", "yesterday"],
            &["-S"],
            &["--cert"],
            &["-P"],
            &["-a", "a"],
            &["-rv"],
            &["-"],
            &["--appx"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
