//! X.509: the certificates by which a kernel knows the keys that sign its modules.
//!
//! Source: RFC 5280; the extensions are those of the kernel's own template, certs/default_x509.genkey.

pub mod cms;
mod subject;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use openssl::{
    md::{Md, MdRef},
    pkey::{PKey, Public},
    pkey_ctx::PkeyCtx,
    rsa::Padding,
    sha::{sha1, sha256},
    x509::X509,
};
use serde::Deserialize;
pub use subject::{Subject, SubjectError, SubjectTemplate};
use x509_cert::{
    TbsCertificate, Version,
    der::{
        Any, Decode as _, DecodePem as _, Encode as _, EncodePem as _,
        asn1::{BitString, GeneralizedTime, Null, ObjectIdentifier, OctetString, UtcTime},
        oid::{AssociatedOid, db::rfc5912},
        pem::LineEnding,
    },
    ext::{
        Extension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
            SubjectKeyIdentifier,
        },
    },
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::{Time, Validity},
};

use crate::{
    digest::Digest,
    key::{self, Algorithm, RawSignature, SecretKey, openpgp::PublicKey},
    signer,
};

/// Bytes of a serial number, the most that RFC 5280 allows.
const SERIAL_LEN: usize = 20;
/// The digest of every certificate's own signature. Old kernels have no other until a module of theirs is loaded.
const OWN_DIGEST: Digest = Digest::Sha256;

/// Why a certificate or a CMS signature could not be made, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The private key failed, or there is none for this purpose; its source says whether it may pass.
    #[error(transparent)]
    Signer(#[from] signer::Error),
    /// A certificate could not be put together. Stays.
    #[error("cannot make a certificate: {0}")]
    Certificate(String),
    /// Bytes are not an X.509 certificate, or one of a key that no kernel takes. Stays.
    #[error("not an X.509 certificate for kernel modules: {0}")]
    NotACertificate(String),
    /// A signature could not be put together. Stays.
    #[error("cannot make a signature: {0}")]
    Signature(String),
    /// A signature that was just made does not verify against the certificate: the memory or the key is at fault. May pass.
    #[error("the new signature does not verify against the certificate")]
    DoesNotVerify,
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Signer(error) => error.may_pass(),
            Self::DoesNotVerify => true,
            Self::Certificate(_) | Self::NotACertificate(_) | Self::Signature(_) => false,
        }
    }
}

impl From<key::Error> for Error {
    fn from(error: key::Error) -> Self {
        Self::Signer(error.into())
    }
}

/// An algorithm whose signatures kernels take: RSA everywhere, ECDSA from 6.12 on in Debian. Never Ed25519.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Algorithm")]
pub struct ModuleAlgorithm(Algorithm);

/// A key algorithm whose signatures no kernel takes. Stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no kernel takes modules that are signed with {0}: choose rsa2048, rsa3072, rsa4096, nistp256 or nistp384"
)]
pub struct NotForModules(pub Algorithm);

impl fmt::Display for ModuleAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<Algorithm> for ModuleAlgorithm {
    type Error = NotForModules;

    fn try_from(algorithm: Algorithm) -> Result<Self, NotForModules> {
        match algorithm {
            Algorithm::Rsa2048
            | Algorithm::Rsa3072
            | Algorithm::Rsa4096
            | Algorithm::NistP256
            | Algorithm::NistP384 => Ok(Self(algorithm)),
            Algorithm::Ed25519 => Err(NotForModules(algorithm)),
        }
    }
}

impl From<ModuleAlgorithm> for Algorithm {
    fn from(algorithm: ModuleAlgorithm) -> Self {
        algorithm.0
    }
}

impl Default for ModuleAlgorithm {
    fn default() -> Self {
        Self(Algorithm::Rsa4096)
    }
}

/// A certificate of a key that kernels take.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
    public: PKey<Public>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, {})", self.subject(), self.serial())
    }
}

impl Certificate {
    /// Makes a certificate that its own key signs.
    ///
    /// `created` is cut to the second; without `expires`, which counts from it, the certificate does not expire (RFC 5280, section
    /// 4.1.2.5). Kernels look at neither.
    ///
    /// # Errors
    /// [`Error::Signer`] and [`Error::DoesNotVerify`] may pass, [`Error::Certificate`] stays.
    pub fn make(
        secret: &SecretKey,
        subject: &Subject,
        created: SystemTime,
        expires: Option<Duration>,
    ) -> Result<Self, Error> {
        let broken = |error: x509_cert::der::Error| Error::Certificate(error.to_string());
        let spki = secret.public_key_info()?;
        let spki = SubjectPublicKeyInfoOwned::from_der(&spki).map_err(broken)?;
        let signature_algorithm = own_signature_algorithm(&spki).map_err(broken)?;
        let tbs = TbsCertificate {
            version: Version::V3,
            serial_number: serial()?,
            signature: signature_algorithm.clone(),
            issuer: subject.name().clone(),
            validity: validity(created, expires).map_err(broken)?,
            subject: subject.name().clone(),
            extensions: Some(extensions(&spki).map_err(broken)?),
            subject_public_key_info: spki,
            issuer_unique_id: None,
            subject_unique_id: None,
        };
        let hash = sha256(&tbs.to_der().map_err(broken)?);
        let signature = encoded(secret.sign(OWN_DIGEST, &hash)?)?;
        let der = x509_cert::Certificate {
            tbs_certificate: tbs,
            signature_algorithm,
            signature: BitString::from_bytes(&signature).map_err(broken)?,
        }
        .to_der()
        .map_err(broken)?;
        let certificate = Self::from_der(&der)?;
        if !certificate.is_self_signed() {
            return Err(Error::DoesNotVerify);
        }
        Ok(certificate)
    }

    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`Error::NotACertificate`], which stays.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let unreadable = |error: x509_cert::der::Error| Error::NotACertificate(error.to_string());
        let parsed = x509_cert::Certificate::from_der(der).map_err(unreadable)?;
        let spki = &parsed.tbs_certificate.subject_public_key_info;
        if ![rfc5912::RSA_ENCRYPTION, rfc5912::ID_EC_PUBLIC_KEY].contains(&spki.algorithm.oid) {
            return Err(Error::NotACertificate(format!(
                "the key's algorithm {} is neither RSA nor ECDSA",
                spki.algorithm.oid
            )));
        }
        let public = PKey::public_key_from_der(&spki.to_der().map_err(unreadable)?)
            .map_err(|error| Error::NotACertificate(error.to_string()))?;
        Ok(Self {
            der: der.to_vec(),
            parsed,
            public,
        })
    }

    /// Reads one certificate in PEM (RFC 7468).
    ///
    /// # Errors
    /// [`Error::NotACertificate`], which stays.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let unreadable = |error: x509_cert::der::Error| Error::NotACertificate(error.to_string());
        let parsed = x509_cert::Certificate::from_pem(pem).map_err(unreadable)?;
        Self::from_der(&parsed.to_der().map_err(unreadable)?)
    }

    /// The certificate in DER, as `mokutil --import` takes it.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate in PEM (RFC 7468).
    ///
    /// # Errors
    /// [`Error::Certificate`], which stays.
    pub fn to_pem(&self) -> Result<String, Error> {
        self.parsed
            .to_pem(LineEnding::LF)
            .map_err(|error| Error::Certificate(error.to_string()))
    }

    /// The subject as text (RFC 4514).
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate.subject.to_string()
    }

    /// The serial number in upper-case hexadecimal.
    pub fn serial(&self) -> String {
        hex::encode_upper(self.parsed.tbs_certificate.serial_number.as_bytes())
    }

    /// Whether two certificates are of the same key.
    pub fn has_key_of(&self, other: &Self) -> bool {
        self.public.public_eq(&other.public)
    }

    /// Whether the certificate is of an OpenPGP key that is RSA.
    pub fn is_of(&self, openpgp: &PublicKey) -> bool {
        let own = self.public.rsa().map(|rsa| rsa.n().to_vec());
        own.is_ok_and(|own| openpgp.rsa_modulus() == Some(&own))
    }

    /// Whether `signature`, as formats encode it, is the key's over `hash`, which `digest` produced.
    pub fn verifies(&self, digest: Digest, hash: &[u8], signature: &[u8]) -> bool {
        let verify = || -> Result<bool, openssl::error::ErrorStack> {
            let mut context = PkeyCtx::new(&self.public)?;
            context.verify_init()?;
            if self.is_rsa() {
                context.set_rsa_padding(Padding::PKCS1)?;
            }
            context.set_signature_md(message_digest(digest))?;
            context.verify(hash, signature)
        };
        verify().unwrap_or(false)
    }

    fn is_rsa(&self) -> bool {
        let spki = &self.parsed.tbs_certificate.subject_public_key_info;
        spki.algorithm.oid == rfc5912::RSA_ENCRYPTION
    }

    fn is_self_signed(&self) -> bool {
        X509::from_der(&self.der)
            .and_then(|certificate| certificate.verify(&self.public))
            .unwrap_or(false)
    }

    fn subject_key_identifier(&self) -> Option<&[u8]> {
        let extensions = self.parsed.tbs_certificate.extensions.as_ref()?;
        let extension = extensions
            .iter()
            .find(|extension| extension.extn_id == SubjectKeyIdentifier::OID)?;
        // An OCTET STRING of at most 127 bytes, within the extension's own.
        match extension.extn_value.as_bytes() {
            [4, len, identifier @ ..] if identifier.len() == usize::from(*len) => Some(identifier),
            _ => None,
        }
    }
}

fn message_digest(digest: Digest) -> &'static MdRef {
    match digest {
        Digest::Sha1 => Md::sha1(),
        Digest::Sha256 => Md::sha256(),
        Digest::Sha384 => Md::sha384(),
        Digest::Sha512 => Md::sha512(),
    }
}

/// 20 random bytes that are a positive number of exactly that length.
fn serial() -> Result<SerialNumber, Error> {
    let mut bytes: [u8; SERIAL_LEN] = key::random()
        .ok_or_else(|| Error::Certificate("the operating system gives no random bytes".into()))?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    SerialNumber::new(&bytes).map_err(|error| Error::Certificate(error.to_string()))
}

fn validity(
    created: SystemTime,
    expires: Option<Duration>,
) -> Result<Validity, x509_cert::der::Error> {
    Ok(Validity {
        not_before: time(created)?,
        not_after: match expires {
            Some(expires) => time(created + expires)?,
            None => Time::INFINITY,
        },
    })
}

/// A time as RFC 5280, section 4.1.2.5, wants it: with two digits of the year until 2049, with four from then on.
fn time(time: SystemTime) -> Result<Time, x509_cert::der::Error> {
    UtcTime::from_system_time(time)
        .map(Time::from)
        .or_else(|_| GeneralizedTime::from_system_time(time).map(Time::from))
}

fn extensions(spki: &SubjectPublicKeyInfoOwned) -> Result<Vec<Extension>, x509_cert::der::Error> {
    let identifier = key_identifier(spki)?;
    Ok(vec![
        extension(
            &BasicConstraints {
                ca: false,
                path_len_constraint: None,
            },
            Criticality::Critical,
        )?,
        extension(
            &KeyUsage(KeyUsages::DigitalSignature.into()),
            Criticality::Uncritical,
        )?,
        // Not in the kernel's template: tools of Secure Boot look for it.
        extension(
            &ExtendedKeyUsage(vec![rfc5912::ID_KP_CODE_SIGNING]),
            Criticality::Uncritical,
        )?,
        extension(
            &SubjectKeyIdentifier(identifier.clone()),
            Criticality::Uncritical,
        )?,
        extension(
            &AuthorityKeyIdentifier {
                key_identifier: Some(identifier),
                ..Default::default()
            },
            Criticality::Uncritical,
        )?,
    ])
}

/// RFC 5280, section 4.2.1.2, method 1.
fn key_identifier(spki: &SubjectPublicKeyInfoOwned) -> Result<OctetString, x509_cert::der::Error> {
    OctetString::new(sha1(spki.subject_public_key.raw_bytes()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Criticality {
    Critical,
    Uncritical,
}

fn extension<T: AssociatedOid + x509_cert::der::Encode>(
    content: &T,
    criticality: Criticality,
) -> Result<Extension, x509_cert::der::Error> {
    Ok(Extension {
        extn_id: T::OID,
        critical: criticality == Criticality::Critical,
        extn_value: OctetString::new(content.to_der()?)?,
    })
}

fn own_signature_algorithm(
    spki: &SubjectPublicKeyInfoOwned,
) -> Result<AlgorithmIdentifierOwned, x509_cert::der::Error> {
    Ok(if spki.algorithm.oid == rfc5912::RSA_ENCRYPTION {
        with_null(rfc5912::SHA_256_WITH_RSA_ENCRYPTION)
    } else {
        without_parameters(rfc5912::ECDSA_WITH_SHA_256)
    })
}

fn with_null(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned {
        oid,
        parameters: Some(Any::from(Null)),
    }
}

fn without_parameters(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned {
        oid,
        parameters: None,
    }
}

/// A signature as X.509 and CMS encode it: RSA as it is, ECDSA as Ecdsa-Sig-Value (RFC 3279, section 2.2.3).
fn encoded(signature: RawSignature) -> Result<Vec<u8>, Error> {
    use openssl::{bn::BigNum, ecdsa::EcdsaSig};
    match signature {
        RawSignature::Rsa(signature) => Ok(signature),
        RawSignature::Ecdsa { r, s } => BigNum::from_slice(&r)
            .and_then(|r| EcdsaSig::from_private_components(r, BigNum::from_slice(&s)?))
            .and_then(|signature| signature.to_der())
            .map_err(|error| Error::Signature(error.to_string())),
        RawSignature::Ed25519 { .. } => Err(Error::Signature(
            NotForModules(Algorithm::Ed25519).to_string(),
        )),
    }
}
