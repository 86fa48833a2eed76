//! Private keys as gpg-agent keeps them, one in each file of `private-keys-v1.d`.
//!
//! Source: GnuPG, agent/keyformat.txt.

use std::borrow::Cow;

use clap::ValueEnum as _;
use openssl::{
    sha::Sha1,
    symm::{Cipher, Crypter, Mode, decrypt_aead},
};
use sequoia_openpgp::types::SymmetricAlgorithm;
use zeroize::{Zeroize as _, Zeroizing};

use super::sexp::Sexp;
use crate::{
    digest::Digest,
    key::{
        PublicNumbers, SecretKey, SecretNumbers,
        openpgp::{Certificate, transferable::Protected},
    },
};

/// Why a private key could not be taken. All stay until somebody does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Only the right passphrase decrypts it.
    #[error("the passphrase is not its own")]
    Phrase,
    /// An encryption that is not known here.
    #[error(
        "it is protected in an unknown way; `gpg --export-secret-keys` writes it to a file that --file takes"
    )]
    Protection,
    /// The numbers are not a private key, or another one's.
    #[error("its private key is damaged, or not its own")]
    Damaged,
}

const AES_KEY_LEN: usize = 16;
const TAG_LEN: usize = 16;

/// The content of a file: a key that may be protected with a passphrase.
pub struct PrivateKey {
    key: Sexp,
}

impl PrivateKey {
    /// Reads a file, or nothing where it does not hold a private key.
    pub(super) fn parse(file: &[u8]) -> Option<Self> {
        let text = if file.starts_with(b"(") {
            Cow::Borrowed(file)
        } else {
            Cow::Owned(extended(file)?)
        };
        // What the lines were joined to is as secret as they are.
        let key = match text {
            Cow::Borrowed(text) => Sexp::parse(text),
            Cow::Owned(text) => Sexp::parse(&Zeroizing::new(text)),
        };
        let key = Self { key: key? };
        let kinds = [
            "private-key",
            "protected-private-key",
            "shadowed-private-key",
        ];
        kinds.iter().any(|kind| key.is(kind)).then_some(key)
    }

    /// Whether this says only that the key is on a smart card.
    pub fn is_elsewhere(&self) -> bool {
        self.is("shadowed-private-key")
    }

    fn is(&self, kind: &str) -> bool {
        self.key.is_list(kind)
    }

    /// The list of the key's numbers, which its algorithm names.
    fn numbers(&self) -> Option<&Sexp> {
        self.key.children()?.get(1)
    }

    /// The number that tells the public key from all others: the modulus of RSA, `y` of DSA and Elgamal, the point on a curve.
    pub(super) fn distinct_number(&self) -> Option<&[u8]> {
        let numbers = self.numbers()?;
        ["n", "y", "q"]
            .iter()
            .find_map(|name| numbers.value(name))
            .map(number)
    }

    /// The key that belongs to `certificate`'s primary key, decrypted with `phrase` where it is protected.
    ///
    /// # Errors
    /// [`Refused`], which stays.
    pub fn unlock(&self, certificate: &Certificate, phrase: &[u8]) -> Result<SecretKey, Refused> {
        let public = &certificate.public_numbers().ok_or(Refused::Damaged)?;
        let numbers = self.numbers().ok_or(Refused::Damaged)?;
        if self.is("private-key") {
            return secret(public, |name| numbers.value(name)).ok_or(Refused::Damaged);
        }
        let (mode, parameters, ciphertext) = match numbers.find("protected") {
            Some([mode, parameters, ciphertext]) => (mode, parameters, ciphertext),
            Some([mode, key]) if mode.is("openpgp-native") => {
                if let Some([kind]) = key.find("protection")
                    && kind.is("none")
                {
                    return openpgp_unprotected(public, key).ok_or(Refused::Damaged);
                }
                let protected = openpgp_protected(key).ok_or(Refused::Protection)?;
                let certificate = certificate
                    .with_protected_secret(protected)
                    .map_err(|_| Refused::Damaged)?;
                return certificate.secret_key(phrase).map_err(|_| Refused::Phrase);
            }
            _ => return Err(Refused::Protection),
        };
        let (Some([s2k, nonce]), Some(ciphertext)) = (parameters.children(), ciphertext.atom())
        else {
            return Err(Refused::Damaged);
        };
        let (Some([hash, salt, count]), Some(nonce)) = (s2k.children(), nonce.atom()) else {
            return Err(Refused::Damaged);
        };
        let count = count.atom().and_then(count_of);
        let (Some(salt), Some(count), true) = (salt.atom(), count, hash.is("sha1")) else {
            return Err(Refused::Protection);
        };
        let mut key = Zeroizing::new([0; AES_KEY_LEN]);
        derive(phrase, salt, count, &mut key);
        let plain = match mode.atom() {
            Some(b"openpgp-s2k3-sha1-aes-cbc") => cbc(&*key, nonce, ciphertext),
            Some(b"openpgp-s2k3-ocb-aes") => ocb(&*key, nonce, ciphertext, numbers),
            _ => return Err(Refused::Protection),
        };
        // Under CBC the numbers are not checked by their hash: that they are the public key's own says more.
        plain
            .and_then(|plain| {
                let list = Sexp::parse(&plain)?;
                let numbers = list.children()?.first()?;
                secret(public, |name| numbers.value(name))
            })
            .ok_or(Refused::Phrase)
    }
}

/// The numbers of an imported key that had no protection, in OpenPGP's order, each behind a `_`.
fn openpgp_unprotected(public: &PublicNumbers, key: &Sexp) -> Option<SecretKey> {
    let names: &[&str] = match public {
        PublicNumbers::Rsa { .. } => &["n", "e", "d", "p", "q", "u"],
        PublicNumbers::Ed25519(_) | PublicNumbers::NistP256(_) | PublicNumbers::NistP384(_) => {
            &["q", "d"]
        }
    };
    let numbers = key.find("skey")?;
    secret(public, |name| {
        let at = names.iter().position(|known| *known == name)?;
        match numbers.chunks(2).nth(at)? {
            [mark, number] if mark.is("_") => number.atom(),
            _ => None,
        }
    })
}

/// OpenPGP's own protection, which an imported key keeps until gpg uses it.
fn openpgp_protected(key: &Sexp) -> Option<Protected> {
    let [kind, cipher, iv, _mode, hash, salt, count] = key.find("protection")? else {
        return None;
    };
    // The public numbers are in front, each behind a `_`; behind the `e` is all that is encrypted.
    let [.., mark, ciphertext] = key.find("skey")? else {
        return None;
    };
    (mark.is("e") && kind.is("sha1")).then_some(())?;
    Some(Protected {
        cipher: match cipher.text()? {
            "AES" => SymmetricAlgorithm::AES128,
            "AES192" => SymmetricAlgorithm::AES192,
            "AES256" => SymmetricAlgorithm::AES256,
            _ => return None,
        },
        digest: Digest::from_str(hash.text()?, true).ok()?,
        salt: salt.atom()?.try_into().ok()?,
        hash_bytes: count_of(count.atom()?)?,
        ciphertext: [iv.atom()?, ciphertext.atom()?].concat(),
    })
}

fn secret<'a>(
    public: &PublicNumbers,
    value: impl Fn(&str) -> Option<&'a [u8]>,
) -> Option<SecretKey> {
    let value = |name| value(name).map(number);
    let numbers = match public {
        PublicNumbers::Rsa { .. } => SecretNumbers::Rsa {
            d: value("d")?,
            p: value("p")?,
            q: value("q")?,
            u: value("u")?,
        },
        PublicNumbers::Ed25519(_) | PublicNumbers::NistP256(_) | PublicNumbers::NistP384(_) => {
            SecretNumbers::Scalar(value("d")?)
        }
    };
    SecretKey::from_numbers(public, &numbers).ok()
}

/// A number without the zeros that libgcrypt writes before one whose first bit is set.
fn number(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// Hashes salt and passphrase over and over, `count` bytes of it, into an AES key. The agent has a tenth of a second's work counted out;
/// sequoia's SHA-1 looks for attacks on it meanwhile, and takes several times as long.
///
/// Source: RFC 9580, section 3.7.1.3.
fn derive(phrase: &[u8], salt: &[u8], count: u32, key: &mut [u8; AES_KEY_LEN]) {
    let turn = salt.len() + phrase.len();
    // Several turns at a time, since hashing a few bytes at a time is slow.
    let turns = 4096_usize.div_ceil(turn.max(1));
    let mut text = Zeroizing::new(Vec::with_capacity(turns * turn));
    for _ in 0..turns {
        text.extend_from_slice(salt);
        text.extend_from_slice(phrase);
    }
    let mut hash = Sha1::new();
    let mut left = turn.max(count as usize);
    while left > 0 && !text.is_empty() {
        let part = text.get(..left).unwrap_or(&text);
        hash.update(part);
        left -= part.len();
    }
    let mut digest = hash.finish();
    key.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    digest.zeroize();
}

/// How many bytes are hashed. Old agents wrote OpenPGP's one byte for it.
///
/// Source: RFC 9580, section 3.7.1.3.
fn count_of(text: &[u8]) -> Option<u32> {
    let count: u32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(if count < 256 {
        (16 + (count & 15)) << ((count >> 4) + 6)
    } else {
        count
    })
}

fn cbc(key: &[u8], iv: &[u8], ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let cipher = Cipher::aes_128_cbc();
    if Some(iv.len()) != cipher.iv_len() {
        return None;
    }
    let mut crypter = Crypter::new(cipher, Mode::Decrypt, key, Some(iv)).ok()?;
    crypter.pad(false);
    let mut plain = Zeroizing::new(vec![0; ciphertext.len() + cipher.block_size()]);
    let len = crypter.update(ciphertext, &mut plain).ok()?;
    crypter.finalize(plain.get_mut(len..)?).ok()?;
    plain.truncate(len);
    Some(plain)
}

/// What is authenticated besides is the list of the public numbers.
fn ocb(key: &[u8], nonce: &[u8], ciphertext: &[u8], numbers: &Sexp) -> Option<Zeroizing<Vec<u8>>> {
    let children = numbers.children()?.iter();
    let mut public = Vec::new();
    Sexp::encode_list(
        children.filter(|child| !child.is_list("protected")),
        &mut public,
    );
    let (ciphertext, tag) = ciphertext.split_at_checked(ciphertext.len().checked_sub(TAG_LEN)?)?;
    // OpenSSL takes nonces of other lengths to be a mistake of the program.
    if nonce.len() != 12 {
        return None;
    }
    decrypt_aead(
        Cipher::aes_128_ocb(),
        key,
        Some(nonce),
        &public,
        ciphertext,
        tag,
    )
    .ok()
    .map(Zeroizing::new)
}

/// The S-expression behind `Key:` in a file of names and values; lines that begin with a space go on with the one before.
fn extended(file: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(file.len());
    let mut inside = false;
    for line in file.split(|byte| *byte == b'\n') {
        match line.split_first() {
            Some((b' ' | b'\t', rest)) if inside => key.extend_from_slice(rest),
            Some((b' ' | b'\t' | b'#', _)) | None => {}
            Some(_) => match line.split_at_checked(4) {
                Some((name, value)) if !inside && name.eq_ignore_ascii_case(b"key:") => {
                    key.extend_from_slice(value.trim_ascii_start());
                    inside = true;
                }
                _ if inside => break,
                _ => {}
            },
        }
    }
    inside.then_some(key)
}
