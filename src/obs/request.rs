//! What obs-sign's clients ask for, as bytes.
//!
//! A connection carries one request. It begins with two numbers of 16 bits, big-endian, of which the second tells the two forms
//! apart: the older has a user and an argument, the newer a list of arguments.
//!
//! Source: signd(8) and sign(8) of obs-sign, and what its clients send.

use crate::{
    digest::Digest,
    key::Algorithm,
    keystore::{EntrustedKey, NotEntrusted},
};

/// Bytes that a request begins with.
pub const HEAD_LEN: usize = 4;
/// Digests that one request may hold at the most, so that the answer's lengths fit into 16 bits with any key.
const MOST_DIGESTS: usize = 64;

/// Why a request is refused. Stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Lengths that do not fit the bytes.
    #[error("malformed request")]
    Malformed,
    /// Bytes that are not UTF-8, or control characters.
    #[error("illegal characters in an argument")]
    Characters,
    /// A user that could be mistaken for a path.
    #[error("illegal user")]
    User,
    /// A command that is not known.
    #[error("unknown command: {0}")]
    Command(String),
    /// More or fewer arguments than the command has.
    #[error("wrong number of arguments for {0}")]
    Arguments(&'static str),
    /// A kind of key that is not known.
    #[error(
        "unknown key type: {0}; known are rsa@2048 rsa@3072 rsa@4096 ed25519 nistp256 nistp384"
    )]
    KeyType(String),
    /// Something that is no number of days.
    #[error("bad expiry: {0} is no number of days; 0 is never")]
    Expiry(String),
    /// A private key that this daemon has not made.
    #[error("bad private key: {0}")]
    PrivateKey(#[from] NotEntrusted),
    /// A digest algorithm that is not known.
    #[error("unknown hash algorithm: {0}")]
    Hash(String),
    /// A digest that is not hexadecimal, or of the wrong length.
    #[error("bad digest: {digest} has {} hexadecimal digits, then @ and 10 more", 2 * digest.len_bytes())]
    Digest {
        /// The algorithm that was named.
        digest: Digest,
    },
}

/// How the answer's values are to be laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One value, as it is.
    Old,
    /// A number of values, with their lengths in front.
    New,
}

/// A request that has been understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The form of the request, and so of the answer.
    pub form: Form,
    /// What is asked for.
    pub command: Command,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Whether anybody is there.
    Ping,
    /// A user's public key.
    PublicKey {
        /// Whose.
        user: String,
    },
    /// Signatures over finished hashes.
    Sign {
        /// Whose.
        user: String,
        /// What made the hashes.
        digest: Digest,
        /// The hashes, one signature for each.
        hashes: Vec<Hash>,
        /// The private key that the client lends; the user's own where there is none.
        key: Option<Box<EntrustedKey>>,
    },
    /// A new key, which the client keeps.
    MakeKey {
        /// Who may use it.
        user: String,
        /// Algorithm and size.
        algorithm: Algorithm,
        /// For how many days it is valid; 0 is for ever.
        days: u64,
        /// The name in its user id.
        name: String,
        /// The e-mail in its user id.
        email: String,
    },
}

/// A finished hash, into which the client has hashed the signature's trailer already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash {
    /// The hash.
    pub hash: Vec<u8>,
    /// The signature's class (RFC 9580, section 5.2.1).
    pub class: u8,
    /// The signature's time, in Unix seconds.
    pub created: u32,
}

impl Hash {
    /// Whether this is no hash, but the question which algorithm the key has and which fingerprint.
    pub fn is_probe(&self) -> bool {
        self.hash.iter().all(|byte| *byte == 4)
    }
}

/// How many bytes follow the first four.
pub fn body_len(head: [u8; HEAD_LEN]) -> usize {
    let [a, b] = numbers(head);
    a + b
}

fn numbers([a, b, c, d]: [u8; HEAD_LEN]) -> [usize; 2] {
    [[a, b], [c, d]].map(|bytes| u16::from_be_bytes(bytes).into())
}

impl Request {
    /// Understands a request: its first four bytes, and the [`body_len`] that follow.
    ///
    /// # Errors
    /// [`Error`], which stays.
    pub fn parse(head: [u8; HEAD_LEN], body: &[u8]) -> Result<Self, Error> {
        let [a, b] = numbers(head);
        if body.len() != a + b {
            return Err(Error::Malformed);
        }
        let (form, command) = match (a, b) {
            (0, 0) => (Form::Old, Command::Ping),
            (_, 0) => (Form::New, new_form(body)?),
            _ => {
                let (user, argument) = body.split_at_checked(a).ok_or(Error::Malformed)?;
                (Form::Old, old_form(text(user)?, text(argument)?)?)
            }
        };
        Ok(Self { form, command })
    }
}

fn old_form(user: &str, argument: &str) -> Result<Command, Error> {
    let user = checked_user(user)?;
    let (digest, argument) = with_digest(argument)?;
    if argument == "PUBKEY" {
        return Ok(Command::PublicKey { user });
    }
    Ok(Command::Sign {
        user,
        digest,
        hashes: vec![hash(digest, argument)?],
        key: None,
    })
}

fn new_form(body: &[u8]) -> Result<Command, Error> {
    let arguments = arguments(body)?;
    let arguments: Vec<&str> = arguments.into_iter().map(text).collect::<Result<_, _>>()?;
    let Some((command, rest)) = arguments.split_first() else {
        return Err(Error::Malformed);
    };
    match (*command, rest) {
        ("ping", _) => Ok(Command::Ping),
        ("pubkey", [user]) => {
            let (_, user) = with_digest(user)?;
            let user = checked_user(user)?;
            Ok(Command::PublicKey { user })
        }
        ("pubkey", _) => Err(Error::Arguments("pubkey")),
        ("sign", [user, hashes @ ..]) if is_number(hashes) => sign(user, None, hashes),
        ("sign", _) => Err(Error::Arguments("sign")),
        ("privsign", [user, key, hashes @ ..]) if is_number(hashes) => {
            sign(user, Some(key.parse()?), hashes)
        }
        ("privsign", _) => Err(Error::Arguments("privsign")),
        ("keygen", [user, kind, days, name, email]) => {
            let (_, user) = with_digest(user)?;
            Ok(Command::MakeKey {
                user: checked_user(user)?,
                algorithm: key_type(kind)?,
                days: days
                    .parse()
                    .map_err(|_| Error::Expiry((*days).to_owned()))?,
                name: (*name).to_owned(),
                email: (*email).to_owned(),
            })
        }
        ("keygen", _) => Err(Error::Arguments("keygen")),
        (command, _) => Err(Error::Command(command.to_owned())),
    }
}

fn is_number(hashes: &[&str]) -> bool {
    (1..=MOST_DIGESTS).contains(&hashes.len())
}

fn sign(user: &str, key: Option<EntrustedKey>, hashes: &[&str]) -> Result<Command, Error> {
    let (digest, user) = with_digest(user)?;
    Ok(Command::Sign {
        user: checked_user(user)?,
        digest,
        hashes: hashes
            .iter()
            .map(|text| hash(digest, text))
            .collect::<Result<_, _>>()?,
        key: key.map(Box::new),
    })
}

/// The algorithm that a client names, an RSA key's size behind an `@`.
///
/// # Errors
/// [`Error::KeyType`], which stays.
pub fn key_type(text: &str) -> Result<Algorithm, Error> {
    let is_known = |algorithm: &Algorithm| match text.split_once('@') {
        Some(("rsa", size)) => algorithm.name().strip_prefix("rsa") == Some(size),
        Some(_) => false,
        None => !algorithm.is_rsa() && algorithm.name() == text,
    };
    Algorithm::ALL
        .into_iter()
        .find(is_known)
        .ok_or_else(|| Error::KeyType(text.to_owned()))
}

/// The arguments of the newer form: their number, their lengths, and they themselves, which have to fill the body.
fn arguments(body: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let (count, rest) = body.split_first_chunk::<2>().ok_or(Error::Malformed)?;
    let count = usize::from(u16::from_be_bytes(*count));
    let (lengths, mut rest) = rest.split_at_checked(2 * count).ok_or(Error::Malformed)?;
    let mut arguments = Vec::new();
    for length in lengths.as_chunks::<2>().0 {
        let length = u16::from_be_bytes(*length).into();
        let (argument, behind) = rest.split_at_checked(length).ok_or(Error::Malformed)?;
        arguments.push(argument);
        rest = behind;
    }
    if rest.is_empty() {
        Ok(arguments)
    } else {
        Err(Error::Malformed)
    }
}

fn text(bytes: &[u8]) -> Result<&str, Error> {
    str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains(char::is_control))
        .ok_or(Error::Characters)
}

fn checked_user(user: &str) -> Result<String, Error> {
    if user.is_empty() || user.starts_with('.') || user.contains('/') {
        return Err(Error::User);
    }
    Ok(user.to_owned())
}

/// Takes the name of a digest off the front, in capitals and with a colon behind it. Without one, it is SHA-1.
fn with_digest(text: &str) -> Result<(Digest, &str), Error> {
    let is_name = |name: &str| {
        let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
        !name.is_empty() && name.chars().all(allowed)
    };
    let Some((name, rest)) = text.split_once(':').filter(|(name, _)| is_name(name)) else {
        return Ok((Digest::Sha1, text));
    };
    let digest = match name {
        "SHA1" => Digest::Sha1,
        "SHA256" => Digest::Sha256,
        "SHA384" => Digest::Sha384,
        "SHA512" => Digest::Sha512,
        _ => return Err(Error::Hash(name.to_owned())),
    };
    Ok((digest, rest))
}

fn hash(digest: Digest, argument: &str) -> Result<Hash, Error> {
    let parse = || {
        let (hash, trailer) = argument.split_once('@')?;
        let hash = hex::decode(hash).ok()?;
        let trailer = hex::decode(trailer).ok()?;
        let (class, created) = trailer.split_first()?;
        let created = u32::from_be_bytes(created.try_into().ok()?);
        (hash.len() == digest.len_bytes()).then_some(Hash {
            hash,
            class: *class,
            created,
        })
    };
    parse().ok_or(Error::Digest { digest })
}
