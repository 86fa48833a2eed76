//! OpenPGP: certificates for projects, signatures over packages. The only place that knows sequoia.
//!
//! Source: RFC 9580; version 4 keys and, but where somebody insists on version 3, signatures, which every rpm reads.

pub mod document;
mod export;
mod extension;
pub mod finished;
pub mod transferable;

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sequoia_openpgp::{
    self as sequoia, Cert, Packet,
    armor::{Kind, Writer as ArmorWriter},
    cert::CertParser,
    crypto::{Signer as SequoiaSigner, hash::Context, mpi},
    packet::{
        Signature as SequoiaSignature, UserID,
        key::{Key4, PrimaryRole, PublicParts, UnspecifiedRole},
        prelude::SignatureBuilder,
        signature::subpacket::{Subpacket, SubpacketValue},
    },
    parse::Parse as _,
    serialize::{MarshalInto as _, Serialize as _},
    types::{Curve, HashAlgorithm, KeyFlags, PublicKeyAlgorithm, SignatureType},
};

use crate::{
    digest::Digest,
    identity::Identity,
    key::{self, PublicNumbers, RawSignature, SecretKey},
    signer::{self, DigestSigner, Purpose},
};

/// Why a certificate or signature could not be made, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The private key failed.
    #[error(transparent)]
    Signer(#[from] signer::Error),
    /// A certificate could not be put together. Stays.
    #[error("cannot make a certificate: {0}")]
    Certificate(String),
    /// Bytes are not an OpenPGP certificate. Stays.
    #[error("not an OpenPGP certificate: {0}")]
    NotACertificate(String),
    /// A signature could not be put together. Stays.
    #[error("cannot make a signature: {0}")]
    Signature(String),
    /// A signature that was just made does not verify against the public key: the memory or the key is at fault. May pass.
    #[error("the new signature does not verify: {0}")]
    DoesNotVerify(String),
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Signer(error) => error.may_pass(),
            Self::DoesNotVerify(_) => true,
            Self::Certificate(_) | Self::NotACertificate(_) | Self::Signature(_) => false,
        }
    }
}

impl Digest {
    fn openpgp(self) -> HashAlgorithm {
        match self {
            Self::Sha1 => HashAlgorithm::SHA1,
            Self::Sha256 => HashAlgorithm::SHA256,
            Self::Sha384 => HashAlgorithm::SHA384,
            Self::Sha512 => HashAlgorithm::SHA512,
        }
    }

    fn from_openpgp(algorithm: HashAlgorithm) -> Option<Self> {
        Some(match algorithm {
            HashAlgorithm::SHA1 => Self::Sha1,
            HashAlgorithm::SHA256 => Self::Sha256,
            HashAlgorithm::SHA384 => Self::Sha384,
            HashAlgorithm::SHA512 => Self::Sha512,
            _ => return None,
        })
    }
}

/// A fingerprint in upper-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hash that is being fed, to be signed or verified.
#[derive(Clone)]
pub struct Hasher {
    context: Context,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.context.algo())
    }
}

impl Hasher {
    /// A hash over nothing yet.
    pub fn new(digest: Digest) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "sequoia's OpenSSL back end has all four algorithms, and the tests use each"
        )]
        let context = digest
            .openpgp()
            .context()
            .expect("SHA-1 and SHA-2 are built in")
            .for_signature(4);
        Self { context }
    }

    /// Hashes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }
}

/// A project's public key, or any other that signatures are verified against.
#[derive(Debug, Clone)]
pub struct PublicKey {
    key: sequoia::packet::Key<PublicParts, UnspecifiedRole>,
    fingerprint: Fingerprint,
}

impl PublicKey {
    fn new(key: sequoia::packet::Key<PublicParts, UnspecifiedRole>) -> Self {
        let fingerprint = Fingerprint(key.fingerprint().to_hex());
        Self { key, fingerprint }
    }

    /// The fingerprint.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Whether the key is an RSA key, which rpm keeps under tags of its own.
    pub fn is_rsa(&self) -> bool {
        self.key.pk_algo() == PublicKeyAlgorithm::RSAEncryptSign
    }

    /// The modulus of an RSA key, big-endian.
    pub fn rsa_modulus(&self) -> Option<&[u8]> {
        match self.key.mpis() {
            mpi::PublicKey::RSA { n, .. } => Some(n.value()),
            _ => None,
        }
    }

    /// The digest that this key signs with where `wanted` is wished for: a stronger one where that is too weak for the key, since
    /// verifiers refuse such signatures.
    pub fn digest(&self, wanted: Digest) -> Digest {
        let least = least_digest(self.key.mpis());
        if wanted.len_bytes() < least.len_bytes() {
            least
        } else {
            wanted
        }
    }

    /// When the key was made.
    pub fn created(&self) -> SystemTime {
        self.key.creation_time()
    }
}

/// The shortest digest that signatures of a key may be made over.
///
/// Source: RFC 9580, section 5.2.3, for each algorithm.
fn least_digest(key: &mpi::PublicKey) -> Digest {
    match key {
        mpi::PublicKey::RSA { .. } => Digest::Sha1,
        mpi::PublicKey::ECDSA { curve, .. } => match curve {
            Curve::NistP384 => Digest::Sha384,
            Curve::NistP521 => Digest::Sha512,
            _ => Digest::Sha256,
        },
        _ => Digest::Sha256,
    }
}

/// A project's certificate: primary key, user id, self-signature.
#[derive(Debug, Clone)]
pub struct Certificate {
    cert: Cert,
}

impl Certificate {
    /// Makes a certificate for a new key: one primary key that certifies and signs, as all rpm versions can use it, and the user
    /// id `name <identity>`, which must be valid UTF-8 without control characters.
    ///
    /// `created` is cut to the second; `expires` counts from it.
    ///
    /// # Errors
    /// [`Error::Signer`] may pass, [`Error::Certificate`] stays.
    pub fn make(
        secret: &SecretKey,
        name: &str,
        identity: &Identity,
        created: SystemTime,
        expires: Option<Duration>,
    ) -> Result<Self, Error> {
        let broken = |error: sequoia::anyhow::Error| Error::Certificate(error.to_string());
        let (algorithm, mpis) =
            openpgp_public(&secret.public_numbers().map_err(signer::Error::from)?);
        let key: sequoia::packet::Key<PublicParts, PrimaryRole> =
            Key4::new(created, algorithm, mpis).map_err(broken)?.into();
        let public = PublicKey::new(key.clone().role_into_unspecified());
        let digest = public.digest(Digest::Sha256);
        let user_id = UserID::from(format!("{name} <{identity}>"));
        let mut adapter = Adapter {
            public: public.key,
            sign: &|digest, hash| secret.sign(digest, hash).map_err(signer::Error::from),
        };
        // No "primary user id" and no critical expiry, as sequoia would write them: rpm 4.18 refuses both.
        let binding = SignatureBuilder::new(SignatureType::PositiveCertification)
            .set_hash_algo(digest.openpgp())
            .set_signature_creation_time(created)
            .and_then(|builder| {
                builder.set_key_flags(KeyFlags::empty().set_certification().set_signing())
            })
            .and_then(|builder| with_lifetime(builder, expires))
            .and_then(|builder| builder.sign_userid_binding(&mut adapter, &key, &user_id))
            .map_err(from_sequoia)?;
        let packets: [Packet; 3] = [key.into(), user_id.into(), binding.into()];
        let cert = Cert::from_packets(packets.into_iter()).map_err(broken)?;
        Ok(Self { cert })
    }

    /// Reads the packets of one certificate.
    ///
    /// # Errors
    /// [`Error::NotACertificate`], which stays.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Cert::from_bytes(bytes)
            .map(|cert| Self { cert })
            .map_err(|error| Error::NotACertificate(error.to_string()))
    }

    /// The public packets.
    ///
    /// # Errors
    /// [`Error::Certificate`], which stays.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.cert
            .export_to_vec()
            .map_err(|error| Error::Certificate(error.to_string()))
    }

    /// The certificate in ASCII armour (RFC 9580, section 6), as `rpm --import` takes it.
    ///
    /// # Errors
    /// [`Error::Certificate`], which stays.
    pub fn to_armour(&self) -> Result<String, Error> {
        let broken = |error: String| Error::Certificate(error);
        let mut writer = ArmorWriter::new(Vec::new(), Kind::PublicKey)
            .map_err(|error| broken(error.to_string()))?;
        self.cert
            .export(&mut writer)
            .map_err(|error| broken(error.to_string()))?;
        let bytes = writer
            .finalize()
            .map_err(|error| broken(error.to_string()))?;
        String::from_utf8(bytes).map_err(|error| broken(error.to_string()))
    }

    /// The primary key.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::new(
            self.cert
                .primary_key()
                .key()
                .clone()
                .role_into_unspecified(),
        )
    }

    /// The first user id, as text.
    pub fn user_id(&self) -> String {
        self.cert
            .userids()
            .next()
            .map(|user_id| String::from_utf8_lossy(user_id.userid().value()).into_owned())
            .unwrap_or_default()
    }
}

/// Every key that may have made a signature, out of armoured or binary certificates, one behind the other.
///
/// # Errors
/// [`Error::NotACertificate`], which stays.
pub fn keyring(bytes: &[u8]) -> Result<Vec<PublicKey>, Error> {
    let unreadable = |error: sequoia::anyhow::Error| Error::NotACertificate(error.to_string());
    let mut keys = Vec::new();
    // A keyring is often several armoured blocks, of which the parser reads the first only.
    for block in blocks(bytes) {
        for cert in CertParser::from_bytes(block).map_err(unreadable)? {
            let cert = cert.map_err(unreadable)?;
            keys.extend(
                cert.keys()
                    .map(|key| PublicKey::new(key.key().clone().role_into_unspecified())),
            );
        }
    }
    Ok(keys)
}

fn blocks(bytes: &[u8]) -> Vec<&[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN PGP";
    let mut starts: Vec<usize> = bytes
        .windows(BEGIN.len())
        .enumerate()
        .filter(|(_, window)| *window == BEGIN)
        .map(|(at, _)| at)
        .collect();
    if starts.is_empty() {
        return vec![bytes];
    }
    starts.push(bytes.len());
    starts
        .windows(2)
        .filter_map(|pair| bytes.get(*pair.first()?..*pair.last()?))
        .collect()
}

/// An OpenPGP signature that was found somewhere; nothing is known of its validity.
#[derive(Debug, Clone)]
pub struct Signature {
    packet: SequoiaSignature,
}

impl Signature {
    /// Reads a binary signature packet, or nothing where the bytes are not exactly one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let pile = sequoia::PacketPile::from_bytes(bytes).ok()?;
        let mut packets = pile.into_children();
        match (packets.next()?, packets.next()) {
            (Packet::Signature(packet), None) => Some(Self { packet }),
            _ => None,
        }
    }

    /// The digest algorithm, where it is one of ours.
    pub fn digest(&self) -> Option<Digest> {
        Digest::from_openpgp(self.packet.hash_algo())
    }

    /// The digest algorithm's name.
    pub fn digest_name(&self) -> String {
        self.packet.hash_algo().to_string()
    }

    /// The public-key algorithm's name.
    pub fn algorithm_name(&self) -> String {
        self.packet.pk_algo().to_string()
    }

    /// The issuer's fingerprint or, where only that is stated, key id.
    pub fn issuer(&self) -> Option<String> {
        let fingerprint = self.packet.issuer_fingerprints().next().map(|f| f.to_hex());
        fingerprint.or_else(|| self.packet.issuers().next().map(|id| id.to_hex()))
    }

    /// When the signature says it was made, in Unix seconds.
    pub fn created(&self) -> Option<u64> {
        let created = self.packet.signature_creation_time()?;
        Some(created.duration_since(UNIX_EPOCH).ok()?.as_secs())
    }

    /// Whether the signature names `key` as its issuer.
    pub fn is_by(&self, key: &PublicKey) -> bool {
        let handle = key.key.key_handle();
        self.packet
            .get_issuers()
            .iter()
            .any(|issuer| issuer.aliases(&handle))
    }

    /// Verifies the signature over what `hasher` was fed.
    ///
    /// # Errors
    /// [`Error::DoesNotVerify`], here a property of the signature that stays.
    pub fn verify(&self, key: &PublicKey, hasher: Hasher) -> Result<(), Error> {
        self.verify_as(SignatureType::Binary, key, hasher)
    }

    fn verify_as(&self, kind: SignatureType, key: &PublicKey, hasher: Hasher) -> Result<(), Error> {
        if self.packet.typ() != kind || !self.is_by(key) {
            return Err(Error::DoesNotVerify("it is not this key's".into()));
        }
        self.packet
            .verify_hash(&key.key, hasher.context)
            .map_err(|error| Error::DoesNotVerify(error.to_string()))
    }
}

/// A signature that has been verified against the public key; only [`sign`] makes one.
#[derive(Debug)]
pub struct Verified {
    packet: Vec<u8>,
}

impl Verified {
    /// The signature packet.
    pub fn packet(&self) -> &[u8] {
        &self.packet
    }

    /// The signature packet.
    pub fn into_packet(self) -> Vec<u8> {
        self.packet
    }
}

/// Signs what `hasher` was fed, as a binary document, and verifies the signature.
///
/// `created` is cut to the second, and no earlier than the key, which a verifier would refuse.
///
/// # Errors
/// [`Error::Signer`] and [`Error::DoesNotVerify`] may pass; [`Error::Signature`] stays.
///
/// Source: RFC 9580, section 5.2.
pub fn sign(
    signer: &dyn DigestSigner,
    hasher: Hasher,
    created: SystemTime,
) -> Result<Verified, Error> {
    sign_as(signer, SignatureType::Binary, hasher, created)
}

fn sign_as(
    signer: &dyn DigestSigner,
    kind: SignatureType,
    hasher: Hasher,
    created: SystemTime,
) -> Result<Verified, Error> {
    let public = signer.public();
    let created = created.max(public.created());
    let packet = match signer.packet() {
        finished::Packet::V3 => finished::sign_v3(signer, kind, hasher.clone(), created)?,
        finished::Packet::V4 => {
            let mut adapter = Adapter {
                public: public.key.clone(),
                sign: &|digest, hash| signer.sign(Purpose::OpenPgp, digest, hash),
            };
            let signature = SignatureBuilder::new(kind)
                .set_signature_creation_time(created)
                .and_then(|builder| builder.sign_hash(&mut adapter, hasher.context.clone()))
                .map_err(from_sequoia)?;
            Packet::from(signature)
                .to_vec()
                .map_err(|error| Error::Signature(error.to_string()))?
        }
    };
    // Parsed anew, so that the bytes which are going to be written are what was verified.
    Signature::parse(&packet)
        .ok_or_else(|| Error::Signature("it cannot be read back".into()))?
        .verify_as(kind, public, hasher)?;
    Ok(Verified { packet })
}

/// Lets sequoia sign with a key that it does not hold.
struct Adapter<'a> {
    public: sequoia::packet::Key<PublicParts, UnspecifiedRole>,
    sign: &'a SignHash<'a>,
}

/// Signs a finished hash with a key that it does not show.
pub type SignHash<'a> = dyn Fn(Digest, &[u8]) -> Result<RawSignature, signer::Error> + 'a;

impl SequoiaSigner for Adapter<'_> {
    fn public(&self) -> &sequoia::packet::Key<PublicParts, UnspecifiedRole> {
        &self.public
    }

    fn sign(&mut self, algorithm: HashAlgorithm, hash: &[u8]) -> sequoia::Result<mpi::Signature> {
        let digest = Digest::from_openpgp(algorithm)
            .ok_or_else(|| sequoia::Error::UnsupportedHashAlgorithm(algorithm))?;
        Ok(mpis((self.sign)(digest, hash)?))
    }
}

fn mpis(signature: RawSignature) -> mpi::Signature {
    match signature {
        RawSignature::Rsa(s) => mpi::Signature::RSA { s: s.into() },
        RawSignature::Ed25519 { r, s } => mpi::Signature::EdDSA {
            r: r.into(),
            s: s.into(),
        },
        RawSignature::Ecdsa { r, s } => mpi::Signature::ECDSA {
            r: r.into(),
            s: s.into(),
        },
    }
}

/// Adds how long a key is valid, as a subpacket that is not critical: rpm 4.18 refuses a certificate where it is.
fn with_lifetime(
    builder: SignatureBuilder,
    lifetime: Option<Duration>,
) -> sequoia::Result<SignatureBuilder> {
    let Some(lifetime) = lifetime else {
        return Ok(builder);
    };
    builder.modify_hashed_area(|mut area| {
        let seconds = SubpacketValue::KeyExpirationTime(lifetime.try_into()?);
        area.replace(Subpacket::new(seconds, false)?)?;
        Ok(area)
    })
}

/// Finds our own error again in what sequoia passed through.
fn from_sequoia(error: sequoia::anyhow::Error) -> Error {
    match error.downcast::<signer::Error>() {
        Ok(error) => Error::Signer(error),
        Err(error) => Error::Signature(error.to_string()),
    }
}

fn openpgp_public(numbers: &PublicNumbers) -> (PublicKeyAlgorithm, mpi::PublicKey) {
    let ecdsa = |curve, point: &[u8]| {
        (
            PublicKeyAlgorithm::ECDSA,
            mpi::PublicKey::ECDSA {
                curve,
                q: mpi::MPI::new(point),
            },
        )
    };
    match numbers {
        PublicNumbers::Rsa { n, e } => (
            PublicKeyAlgorithm::RSAEncryptSign,
            mpi::PublicKey::RSA {
                e: mpi::MPI::new(e),
                n: mpi::MPI::new(n),
            },
        ),
        PublicNumbers::Ed25519(point) => (
            PublicKeyAlgorithm::EdDSA,
            mpi::PublicKey::EdDSA {
                curve: Curve::Ed25519,
                q: mpi::MPI::new_compressed_point(point),
            },
        ),
        PublicNumbers::NistP256(point) => ecdsa(Curve::NistP256, point),
        PublicNumbers::NistP384(point) => ecdsa(Curve::NistP384, point),
    }
}

impl From<key::Error> for Error {
    fn from(error: key::Error) -> Self {
        Self::Signer(error.into())
    }
}
