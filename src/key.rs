//! Private keys and the signatures that they make, whatever format those end up in.

pub mod gnupg;
pub mod openpgp;
pub mod x509;

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    digest as aws_digest,
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair},
};
use openssl::{
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcKey, EcPoint, PointConversionForm},
    ecdsa::EcdsaSig,
    md::Md,
    nid::Nid,
    pkey::{Id, PKey, Private},
    pkey_ctx::PkeyCtx,
    rsa::{Padding, Rsa},
    sign::Signer as OpensslSigner,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::digest::Digest;

/// Why a private key could not be made, read or used. The cause is never told: it could speak of secret bytes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No key could be generated. May pass.
    #[error("cannot generate a {0} key")]
    Generate(Algorithm),
    /// The stored bytes are not a private key of the algorithm. Stays.
    #[error("the stored bytes are not a private {0} key")]
    Unreadable(Algorithm),
    /// The signature could not be made. May pass.
    #[error("cannot sign with a {0} key")]
    Sign(Algorithm),
    /// A hash has the wrong length for its algorithm. Stays.
    #[error("a {digest} hash has {} bytes, not {found}", digest.len_bytes())]
    HashLength {
        /// The algorithm that was named.
        digest: Digest,
        /// The length of the hash in bytes.
        found: usize,
    },
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Generate(_) | Self::Sign(_) => true,
            Self::Unreadable(_) | Self::HashLength { .. } => false,
        }
    }
}

/// The algorithm and size of a private key.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    #[default]
    Rsa4096,
    /// Ed25519.
    Ed25519,
    /// ECDSA over NIST P-256.
    #[serde(rename = "nistp256")]
    #[value(name = "nistp256")]
    NistP256,
    /// ECDSA over NIST P-384.
    #[serde(rename = "nistp384")]
    #[value(name = "nistp384")]
    NistP384,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 6] = [
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::Ed25519,
        Self::NistP256,
        Self::NistP384,
    ];

    /// The name as configuration and API write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
            Self::Ed25519 => "ed25519",
            Self::NistP256 => "nistp256",
            Self::NistP384 => "nistp384",
        }
    }

    /// Whether generating takes long enough to be worth preparing.
    pub fn is_rsa(self) -> bool {
        match self {
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => true,
            Self::Ed25519 | Self::NistP256 | Self::NistP384 => false,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no algorithm's.
#[derive(Debug, thiserror::Error)]
#[error("unknown key algorithm; known are rsa2048, rsa3072, rsa4096, ed25519, nistp256, nistp384")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or(UnknownAlgorithm)
    }
}

/// The public half of a key, as the numbers that formats encode, big-endian.
#[derive(Debug, Clone)]
pub enum PublicNumbers {
    /// RSA.
    Rsa {
        /// Modulus.
        n: Vec<u8>,
        /// Public exponent.
        e: Vec<u8>,
    },
    /// The 32 bytes of an Ed25519 public key.
    Ed25519(Vec<u8>),
    /// An uncompressed point on P-256.
    NistP256(Vec<u8>),
    /// An uncompressed point on P-384.
    NistP384(Vec<u8>),
}

impl PublicNumbers {
    /// The algorithm, or nothing where RSA has a size that is not ours.
    pub(crate) fn algorithm(&self) -> Option<Algorithm> {
        Some(match self {
            Self::Rsa { n, e: _ } => match n.len() {
                256 => Algorithm::Rsa2048,
                384 => Algorithm::Rsa3072,
                512 => Algorithm::Rsa4096,
                _ => return None,
            },
            Self::Ed25519(_) => Algorithm::Ed25519,
            Self::NistP256(_) => Algorithm::NistP256,
            Self::NistP384(_) => Algorithm::NistP384,
        })
    }
}

/// The private half of a key, as the numbers that formats encode, big-endian and borrowed from memory that its owner clears.
pub(crate) enum SecretNumbers<'a> {
    /// RSA: the private exponent, the primes, and the inverse of `p` modulo `q`.
    Rsa {
        d: &'a [u8],
        p: &'a [u8],
        q: &'a [u8],
        u: &'a [u8],
    },
    /// Of an elliptic curve; Ed25519's is the 32 bytes that the scalar is made of.
    Scalar(&'a [u8]),
}

/// A signature as the numbers that formats encode, big-endian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RawSignature {
    /// RSA, PKCS#1 v1.5, as long as the modulus.
    Rsa(Vec<u8>),
    /// Ed25519: 32 bytes each.
    Ed25519 {
        /// First half.
        r: Vec<u8>,
        /// Second half.
        s: Vec<u8>,
    },
    /// ECDSA.
    Ecdsa {
        /// First number.
        r: Vec<u8>,
        /// Second number.
        s: Vec<u8>,
    },
}

/// A private key, ready to sign. Its memory is cleared when it is dropped.
///
/// RSA is aws-lc-rs's, several times faster than OpenSSL's; all else is OpenSSL's.
pub struct SecretKey {
    algorithm: Algorithm,
    kept: Kept,
}

enum Kept {
    Rsa(RsaKeyPair),
    Other(PKey<Private>),
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({}, …)", self.algorithm)
    }
}

impl SecretKey {
    /// Generates a key. RSA takes from a tenth of a second to a second.
    ///
    /// # Errors
    /// [`Error::Generate`], which may pass.
    pub fn generate(algorithm: Algorithm) -> Result<Self, Error> {
        let failed = |_| Error::Generate(algorithm);
        let rsa = |size| RsaKeyPair::generate(size).map(Kept::Rsa);
        let kept = match algorithm {
            Algorithm::Rsa2048 => rsa(KeySize::Rsa2048).map_err(|_| Error::Generate(algorithm))?,
            Algorithm::Rsa3072 => rsa(KeySize::Rsa3072).map_err(|_| Error::Generate(algorithm))?,
            Algorithm::Rsa4096 => rsa(KeySize::Rsa4096).map_err(|_| Error::Generate(algorithm))?,
            Algorithm::Ed25519 => Kept::Other(PKey::generate_ed25519().map_err(failed)?),
            Algorithm::NistP256 => Kept::Other(generate_ec(Nid::X9_62_PRIME256V1).map_err(failed)?),
            Algorithm::NistP384 => Kept::Other(generate_ec(Nid::SECP384R1).map_err(failed)?),
        };
        Ok(Self { algorithm, kept })
    }

    /// Reads an unencrypted PKCS#8 key (RFC 5958).
    ///
    /// # Errors
    /// [`Error::Unreadable`], which stays.
    pub fn from_pkcs8(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, Error> {
        let kept = if algorithm.is_rsa() {
            RsaKeyPair::from_pkcs8(pkcs8).ok().map(Kept::Rsa)
        } else {
            PKey::private_key_from_pkcs8(pkcs8).ok().map(Kept::Other)
        };
        let kept = kept.ok_or(Error::Unreadable(algorithm))?;
        Ok(Self { algorithm, kept })
    }

    /// Puts a key together from the numbers of an OpenPGP key.
    ///
    /// # Errors
    /// [`Error::Unreadable`], which stays, also where the two halves do not belong together.
    ///
    /// Source: RFC 9580, section 5.5.5.
    pub(crate) fn from_numbers(
        public: &PublicNumbers,
        secret: &SecretNumbers<'_>,
    ) -> Result<Self, Error> {
        let algorithm = public
            .algorithm()
            .ok_or(Error::Unreadable(Algorithm::Rsa4096))?;
        let key = match (public, secret) {
            (PublicNumbers::Rsa { n, e }, SecretNumbers::Rsa { d, p, q, u }) => {
                let pkcs8 =
                    rsa_pkcs8([n, e], [d, p, q, u]).map_err(|_| Error::Unreadable(algorithm))?;
                // Reading it compares the halves.
                return Self::from_pkcs8(algorithm, &pkcs8);
            }
            (PublicNumbers::Ed25519(point), SecretNumbers::Scalar(seed)) => ed25519(point, seed),
            (PublicNumbers::NistP256(point), SecretNumbers::Scalar(scalar)) => {
                nist(Nid::X9_62_PRIME256V1, point, scalar)
            }
            (PublicNumbers::NistP384(point), SecretNumbers::Scalar(scalar)) => {
                nist(Nid::SECP384R1, point, scalar)
            }
            (PublicNumbers::Rsa { .. }, SecretNumbers::Scalar(_))
            | (_, SecretNumbers::Rsa { .. }) => None,
        };
        key.map(|key| Self {
            algorithm,
            kept: Kept::Other(key),
        })
        .ok_or(Error::Unreadable(algorithm))
    }

    /// The key as unencrypted PKCS#8, in memory that is cleared.
    ///
    /// # Errors
    /// [`Error::Unreadable`] where the library cannot encode the key; stays.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let bytes = match &self.kept {
            Kept::Rsa(key) => AsDer::<Pkcs8V1Der<'_>>::as_der(key)
                .map(|der| der.as_ref().to_vec())
                .ok(),
            Kept::Other(key) => key.private_key_to_pkcs8().ok(),
        };
        bytes
            .map(Zeroizing::new)
            .ok_or(Error::Unreadable(self.algorithm))
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public half.
    ///
    /// # Errors
    /// [`Error::Unreadable`], which stays.
    pub fn public_numbers(&self) -> Result<PublicNumbers, Error> {
        self.openssl_key()
            .and_then(|key| public_numbers(&key, self.algorithm))
            .ok_or(Error::Unreadable(self.algorithm))
    }

    /// The public half as SubjectPublicKeyInfo in DER (RFC 5280, section 4.1.2.7).
    ///
    /// # Errors
    /// [`Error::Unreadable`], which stays.
    pub fn public_key_info(&self) -> Result<Vec<u8>, Error> {
        self.openssl_key()
            .and_then(|key| key.public_key_to_der().ok())
            .ok_or(Error::Unreadable(self.algorithm))
    }

    /// Signs a finished hash: RSA with PKCS#1 v1.5 and the digest's identifier, ECDSA directly, Ed25519 with the hash as the message.
    ///
    /// # Errors
    /// [`Error::HashLength`] stays, [`Error::Sign`] may pass.
    ///
    /// Source: RFC 9580, section 5.2.3 and 5.2.4; RFC 8017, section 8.2; RFC 8032.
    pub fn sign(&self, digest: Digest, hash: &[u8]) -> Result<RawSignature, Error> {
        if hash.len() != digest.len_bytes() {
            return Err(Error::HashLength {
                digest,
                found: hash.len(),
            });
        }
        let signature = match &self.kept {
            Kept::Rsa(key) => match rsa_encoding(digest) {
                Some((encoding, algorithm)) => sign_rsa(key, encoding, algorithm, hash),
                None => self
                    .openssl_key()
                    .and_then(|key| sign_rsa_sha1(&key, hash).ok()),
            },
            Kept::Other(key) if self.algorithm == Algorithm::Ed25519 => sign_ed25519(key, hash),
            Kept::Other(key) => sign_ecdsa(key, hash),
        };
        signature.ok_or(Error::Sign(self.algorithm))
    }

    fn openssl_key(&self) -> Option<PKey<Private>> {
        match &self.kept {
            Kept::Rsa(_) => PKey::private_key_from_pkcs8(&self.to_pkcs8().ok()?).ok(),
            Kept::Other(key) => Some(key.clone()),
        }
    }
}

fn rsa_pkcs8(
    [n, e]: [&[u8]; 2],
    [d, p, q, u]: [&[u8]; 4],
) -> Result<Zeroizing<Vec<u8>>, openssl::error::ErrorStack> {
    let d = BigNum::from_slice(d)?;
    let exponent = |prime: &[u8]| {
        let mut less = BigNum::from_slice(prime)?;
        less.sub_word(1)?;
        let mut rest = BigNum::new()?;
        let result = rest.nnmod(&d, &less, &mut *BigNumContext::new()?);
        less.clear();
        result.map(|()| rest)
    };
    // PKCS#1 has the inverse of its second prime, OpenPGP that of its first one: they change places.
    let (of_q, of_p) = (exponent(q)?, exponent(p)?);
    let key = Rsa::from_private_components(
        BigNum::from_slice(n)?,
        BigNum::from_slice(e)?,
        d,
        BigNum::from_slice(q)?,
        BigNum::from_slice(p)?,
        of_q,
        of_p,
        BigNum::from_slice(u)?,
    )?;
    PKey::from_rsa(key)?
        .private_key_to_pkcs8()
        .map(Zeroizing::new)
}

fn ed25519(point: &[u8], seed: &[u8]) -> Option<PKey<Private>> {
    // As a number, it has lost the zeros that it began with.
    let mut whole = Zeroizing::new([0; 32]);
    let start = whole.len().checked_sub(seed.len())?;
    whole.get_mut(start..)?.copy_from_slice(seed);
    let key = PKey::private_key_from_raw_bytes(&*whole, Id::ED25519).ok()?;
    (key.raw_public_key().ok()? == point).then_some(key)
}

fn nist(curve: Nid, point: &[u8], scalar: &[u8]) -> Option<PKey<Private>> {
    let build = || {
        let group = EcGroup::from_curve_name(curve)?;
        let point = EcPoint::from_bytes(&group, point, &mut *BigNumContext::new()?)?;
        let mut scalar = BigNum::from_slice(scalar)?;
        let key = EcKey::from_private_components(&group, &scalar, &point);
        scalar.clear();
        let key = key?;
        // Compares the halves.
        key.check_key()?;
        PKey::from_ec_key(key)
    };
    build().ok()
}

fn generate_ec(curve: Nid) -> Result<PKey<Private>, openssl::error::ErrorStack> {
    let group = EcGroup::from_curve_name(curve)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn public_numbers(key: &PKey<Private>, algorithm: Algorithm) -> Option<PublicNumbers> {
    let point = || {
        let ec = key.ec_key().ok()?;
        let mut context = BigNumContext::new().ok()?;
        ec.public_key()
            .to_bytes(ec.group(), PointConversionForm::UNCOMPRESSED, &mut context)
            .ok()
    };
    Some(match algorithm {
        Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
            let rsa = key.rsa().ok()?;
            PublicNumbers::Rsa {
                n: rsa.n().to_vec(),
                e: rsa.e().to_vec(),
            }
        }
        Algorithm::Ed25519 => PublicNumbers::Ed25519(key.raw_public_key().ok()?),
        Algorithm::NistP256 => PublicNumbers::NistP256(point()?),
        Algorithm::NistP384 => PublicNumbers::NistP384(point()?),
    })
}

/// aws-lc-rs's name for a digest in RSA signatures; it makes none with SHA-1.
fn rsa_encoding(
    digest: Digest,
) -> Option<(&'static dyn RsaEncoding, &'static aws_digest::Algorithm)> {
    match digest {
        Digest::Sha1 => None,
        Digest::Sha256 => Some((&RSA_PKCS1_SHA256, &aws_digest::SHA256)),
        Digest::Sha384 => Some((&RSA_PKCS1_SHA384, &aws_digest::SHA384)),
        Digest::Sha512 => Some((&RSA_PKCS1_SHA512, &aws_digest::SHA512)),
    }
}

fn sign_rsa(
    key: &RsaKeyPair,
    encoding: &'static dyn RsaEncoding,
    algorithm: &'static aws_digest::Algorithm,
    hash: &[u8],
) -> Option<RawSignature> {
    let hash = aws_digest::Digest::import_less_safe(hash, algorithm).ok()?;
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign_digest(encoding, &hash, &mut signature).ok()?;
    Some(RawSignature::Rsa(signature))
}

fn sign_rsa_sha1(
    key: &PKey<Private>,
    hash: &[u8],
) -> Result<RawSignature, openssl::error::ErrorStack> {
    let mut context = PkeyCtx::new(key)?;
    context.sign_init()?;
    context.set_rsa_padding(Padding::PKCS1)?;
    context.set_signature_md(Md::sha1())?;
    let mut signature = Vec::new();
    context.sign_to_vec(hash, &mut signature)?;
    Ok(RawSignature::Rsa(signature))
}

fn sign_ed25519(key: &PKey<Private>, hash: &[u8]) -> Option<RawSignature> {
    let signature = OpensslSigner::new_without_digest(key)
        .and_then(|mut signer| signer.sign_oneshot_to_vec(hash))
        .ok()?;
    let (r, s) = signature.split_at_checked(32)?;
    Some(RawSignature::Ed25519 {
        r: r.to_vec(),
        s: s.to_vec(),
    })
}

fn sign_ecdsa(key: &PKey<Private>, hash: &[u8]) -> Option<RawSignature> {
    let signature = EcdsaSig::sign(hash, &*key.ec_key().ok()?).ok()?;
    Some(RawSignature::Ecdsa {
        r: signature.r().to_vec(),
        s: signature.s().to_vec(),
    })
}

/// Bytes from the operating system's generator, by way of aws-lc-rs.
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    use aws_lc_rs::rand::SecureRandom as _;
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}
