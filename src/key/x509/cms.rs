//! Detached CMS signatures as the kernel takes them behind a module.
//!
//! Source: RFC 5652; what the kernel makes of it: crypto/asymmetric_keys/pkcs7_parser.c and pkcs7_verify.c.

use cms::{
    cert::IssuerAndSerialNumber,
    content_info::{CmsVersion, ContentInfo},
    signed_data::{EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos},
};
use x509_cert::{
    der::{
        Any, Decode as _, Encode as _,
        asn1::{ObjectIdentifier, OctetString, SetOfVec},
        oid::db::{rfc4519, rfc5911, rfc5912},
    },
    ext::pkix::SubjectKeyIdentifier,
    spki::AlgorithmIdentifierOwned,
};

use super::{Certificate, Error, encoded, key_identifier, with_null, without_parameters};
use crate::{
    digest::Digest,
    signer::{DigestSigner, Purpose},
};

/// RFC 3279, section 2.2.3.
const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

/// A signature that has been verified against the certificate; only [`sign`] makes one.
#[derive(Debug)]
pub struct Verified {
    der: Vec<u8>,
}

impl Verified {
    /// The CMS structure, in DER.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }
}

/// The digest that module signatures use where `wanted` is wished for: not all kernels take SHA-1.
pub fn digest(wanted: Digest) -> Digest {
    match wanted {
        Digest::Sha1 => Digest::Sha256,
        Digest::Sha256 | Digest::Sha384 | Digest::Sha512 => wanted,
    }
}

/// Signs a module's `hash`, which `digest` produced, and verifies the signature.
///
/// The structure is the one that the kernel's scripts/sign-file writes: no signed attributes, which kernels refuse; no certificate; the
/// signer named by issuer and serial number. With RSA it is the same to the byte. Where the certificate is of the project's OpenPGP key, the
/// signer is named by the key's identifier, as `sign-file -k` does it: kernels then take any certificate of that key, such as one that
/// obs-sign made and somebody enrolled.
///
/// # Errors
/// [`Error::Signer`] and [`Error::DoesNotVerify`] may pass; [`Error::Signature`] stays.
pub fn sign(signer: &dyn DigestSigner, digest: Digest, hash: &[u8]) -> Result<Verified, Error> {
    let broken = |error: x509_cert::der::Error| Error::Signature(error.to_string());
    let certificate = signer.certificate()?;
    let signature = encoded(signer.sign(Purpose::Cms, digest, hash)?)?;
    let name = if certificate.is_of(signer.public()) {
        SignerName::KeyIdentifier
    } else {
        SignerName::IssuerAndSerial
    };
    let der = structure(certificate, name, digest, &signature).map_err(broken)?;
    // Parsed anew, so that the bytes which are going to be written are what was verified.
    let parsed = Signature::parse(&der).ok_or(Error::DoesNotVerify)?;
    match parsed.verify(certificate, digest, hash) {
        Ok(()) => Ok(Verified { der }),
        Err(_) => Err(Error::DoesNotVerify),
    }
}

/// How a signature names its signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignerName {
    /// By its certificate.
    IssuerAndSerial,
    /// By its key.
    KeyIdentifier,
}

fn structure(
    certificate: &Certificate,
    name: SignerName,
    digest: Digest,
    signature: &[u8],
) -> Result<Vec<u8>, x509_cert::der::Error> {
    let tbs = &certificate.parsed.tbs_certificate;
    let digest_algorithm = without_parameters(digest_oid(digest));
    let sid = match name {
        SignerName::IssuerAndSerial => {
            SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer: tbs.issuer.clone(),
                serial_number: tbs.serial_number.clone(),
            })
        }
        SignerName::KeyIdentifier => SignerIdentifier::SubjectKeyIdentifier(SubjectKeyIdentifier(
            key_identifier(&tbs.subject_public_key_info)?,
        )),
    };
    let signer = SignerInfo {
        version: version(&sid),
        sid,
        digest_alg: digest_algorithm.clone(),
        signed_attrs: None,
        signature_algorithm: signature_algorithm(certificate, digest),
        signature: OctetString::new(signature)?,
        unsigned_attrs: None,
    };
    let signed = SignedData {
        version: signer.version,
        digest_algorithms: SetOfVec::try_from(vec![digest_algorithm])?,
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: rfc5911::ID_DATA,
            econtent: None,
        },
        certificates: None,
        crls: None,
        signer_infos: SignerInfos::try_from(vec![signer])?,
    };
    ContentInfo {
        content_type: rfc5911::ID_SIGNED_DATA,
        content: Any::encode_from(&signed)?,
    }
    .to_der()
}

/// The version of both the structure and its signer (RFC 5652, sections 5.1 and 5.3).
fn version(signer: &SignerIdentifier) -> CmsVersion {
    match signer {
        SignerIdentifier::IssuerAndSerialNumber(_) => CmsVersion::V1,
        SignerIdentifier::SubjectKeyIdentifier(_) => CmsVersion::V3,
    }
}

fn signature_algorithm(certificate: &Certificate, digest: Digest) -> AlgorithmIdentifierOwned {
    if certificate.is_rsa() {
        with_null(rfc5912::RSA_ENCRYPTION)
    } else {
        without_parameters(ecdsa_oid(digest))
    }
}

fn digest_oid(digest: Digest) -> ObjectIdentifier {
    match digest {
        Digest::Sha1 => rfc5912::ID_SHA_1,
        Digest::Sha256 => rfc5912::ID_SHA_256,
        Digest::Sha384 => rfc5912::ID_SHA_384,
        Digest::Sha512 => rfc5912::ID_SHA_512,
    }
}

fn ecdsa_oid(digest: Digest) -> ObjectIdentifier {
    match digest {
        Digest::Sha1 => ECDSA_WITH_SHA_1,
        Digest::Sha256 => rfc5912::ECDSA_WITH_SHA_256,
        Digest::Sha384 => rfc5912::ECDSA_WITH_SHA_384,
        Digest::Sha512 => rfc5912::ECDSA_WITH_SHA_512,
    }
}

/// Why a kernel would not take a signature. All are properties of the signature, and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It has another signer.
    #[error("it is not this key's")]
    OtherSigner,
    /// Its structure is one that kernels refuse.
    #[error("{0}, which kernels refuse")]
    Structure(&'static str),
    /// Its digest is not the one that was asked for.
    #[error("it uses another digest")]
    OtherDigest,
    /// The numbers do not fit the content.
    #[error("it does not fit the module's content")]
    DoesNotVerify,
}

/// A CMS signature that was found somewhere; nothing is known of its validity.
#[derive(Debug, Clone)]
pub struct Signature {
    der: Vec<u8>,
    version: CmsVersion,
    signer: SignerInfo,
    /// How it breaks a rule of the kernel's, if it does.
    flaw: Option<&'static str>,
}

impl Signature {
    /// Reads a structure with one signer in DER, or nothing where the bytes are not exactly one.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let info = ContentInfo::from_der(der).ok()?;
        if info.content_type != rfc5911::ID_SIGNED_DATA {
            return None;
        }
        let signed: SignedData = info.content.decode_as().ok()?;
        let [signer] = signed.signer_infos.0.as_slice() else {
            return None;
        };
        let content = &signed.encap_content_info;
        let flaw = if content.econtent_type != rfc5911::ID_DATA || content.econtent.is_some() {
            Some("it has content of its own")
        } else if signer.signed_attrs.is_some() {
            Some("it has signed attributes")
        } else {
            None
        };
        Some(Self {
            der: der.to_vec(),
            version: signed.version,
            signer: signer.clone(),
            flaw,
        })
    }

    /// The digest algorithm, where it is one of ours.
    pub fn digest(&self) -> Option<Digest> {
        [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512]
            .into_iter()
            .find(|digest| digest_oid(*digest) == self.signer.digest_alg.oid)
    }

    /// The digest algorithm's name, or its number where it is none of ours.
    pub fn digest_name(&self) -> String {
        self.digest().map_or_else(
            || self.signer.digest_alg.oid.to_string(),
            |digest| digest.name().to_owned(),
        )
    }

    /// The public-key algorithm's name, or its number where it is none of ours.
    pub fn algorithm_name(&self) -> String {
        match self.signer.signature_algorithm.oid {
            rfc5912::RSA_ENCRYPTION => "rsa".into(),
            ECDSA_WITH_SHA_1
            | rfc5912::ECDSA_WITH_SHA_256
            | rfc5912::ECDSA_WITH_SHA_384
            | rfc5912::ECDSA_WITH_SHA_512 => "ecdsa".into(),
            other => other.to_string(),
        }
    }

    /// The common name of the signer's issuer, where the signature names one.
    pub fn issuer(&self) -> Option<String> {
        let SignerIdentifier::IssuerAndSerialNumber(issuer) = &self.signer.sid else {
            return None;
        };
        let attributes = issuer.issuer.0.iter().flat_map(|part| part.0.iter());
        let name = attributes
            .filter(|attribute| attribute.oid == rfc4519::CN)
            .map(|attribute| String::from_utf8_lossy(attribute.value.value()).into_owned())
            .next();
        name.or_else(|| Some(issuer.issuer.to_string()))
    }

    /// What names the signer's key, in upper-case hexadecimal: its certificate's serial number, or its subject key identifier.
    pub fn key_identifier(&self) -> String {
        hex::encode_upper(match &self.signer.sid {
            SignerIdentifier::IssuerAndSerialNumber(issuer) => issuer.serial_number.as_bytes(),
            SignerIdentifier::SubjectKeyIdentifier(identifier) => identifier.0.as_bytes(),
        })
    }

    /// Whether the signature names `certificate` as its signer's.
    pub fn is_by(&self, certificate: &Certificate) -> bool {
        let tbs = &certificate.parsed.tbs_certificate;
        match &self.signer.sid {
            SignerIdentifier::IssuerAndSerialNumber(name) => {
                name.issuer == tbs.issuer && name.serial_number == tbs.serial_number
            }
            SignerIdentifier::SubjectKeyIdentifier(identifier) => {
                certificate.subject_key_identifier() == Some(identifier.0.as_bytes())
            }
        }
    }

    /// Whether the signature is valid and, to the byte, one that [`sign`] makes, so that it can stay.
    pub fn is_as_signed(&self, certificate: &Certificate, digest: Digest, hash: &[u8]) -> bool {
        let signature = self.signer.signature.as_bytes();
        let is_this =
            |name| structure(certificate, name, digest, signature).is_ok_and(|der| der == self.der);
        (is_this(SignerName::IssuerAndSerial) || is_this(SignerName::KeyIdentifier))
            && self.verify(certificate, digest, hash).is_ok()
    }

    /// Verifies the signature as a kernel does that knows `certificate`, over a content whose `hash` `digest` produced.
    ///
    /// # Errors
    /// [`Flaw`], which stays.
    pub fn verify(
        &self,
        certificate: &Certificate,
        digest: Digest,
        hash: &[u8],
    ) -> Result<(), Flaw> {
        if let Some(flaw) = self.flaw {
            return Err(Flaw::Structure(flaw));
        }
        let version = version(&self.signer.sid);
        if (self.version, self.signer.version) != (version, version) {
            return Err(Flaw::Structure(
                "its version does not fit the way that it names its signer",
            ));
        }
        if !self.is_by(certificate) {
            return Err(Flaw::OtherSigner);
        }
        if self.digest() != Some(digest) {
            return Err(Flaw::OtherDigest);
        }
        let algorithm = signature_algorithm(certificate, digest).oid;
        if digest == Digest::Sha1 || self.signer.signature_algorithm.oid != algorithm {
            return Err(Flaw::Structure("its algorithm is none of the kernel's"));
        }
        if certificate.verifies(digest, hash, self.signer.signature.as_bytes()) {
            Ok(())
        } else {
            Err(Flaw::DoesNotVerify)
        }
    }
}
