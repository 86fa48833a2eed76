//! Signature packets over hashes that somebody else has finished, as obs-sign's clients want them.

use std::time::{SystemTime, UNIX_EPOCH};

use sequoia_openpgp::{crypto::mpi, types::SignatureType};

use super::{Error, Hasher, PublicKey, from_sequoia, mpis};
use crate::{
    digest::Digest,
    signer::{DigestSigner, Purpose},
};

/// The packet's tag with room for a length of 16 bits (RFC 9580, section 4.2.2).
const SIGNATURE_PACKET: u8 = 0x89;

/// Which packet is put around a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packet {
    /// Version 3 (RFC 4880, section 5.2.2): class and time stand in it as they were hashed.
    V3,
    /// Version 4 (RFC 9580, section 5.2.3).
    #[default]
    V4,
}

/// Signs a finished hash as it stands, verifies that, and answers a packet of the older format.
///
/// `class` and `created`, in Unix seconds, are what the hash's trailer says.
///
/// # Errors
/// [`Error::Signer`] and [`Error::DoesNotVerify`] may pass; [`Error::Signature`] stays, for a digest that is too weak for the key.
///
/// Source: RFC 4880, section 5.2.2; RFC 9580, section 5.2.3.
pub fn sign_finished(
    signer: &dyn DigestSigner,
    packet: Packet,
    digest: Digest,
    hash: &[u8],
    class: u8,
    created: u32,
) -> Result<Vec<u8>, Error> {
    let public = signer.public();
    if public.digest(digest) != digest {
        return Err(Error::Signature(format!(
            "{digest} is too weak for this key"
        )));
    }
    let signature = mpis(signer.sign(Purpose::OpenPgp, digest, hash)?);
    public
        .key
        .verify(&signature, digest.openpgp(), hash)
        .map_err(|error| Error::DoesNotVerify(error.to_string()))?;
    let body = match packet {
        Packet::V3 => v3_head(public, digest, class, created),
        Packet::V4 => v4_head(public, digest, class, created),
    };
    let left = hash.get(..2).unwrap_or_default();
    let body = [&body[..], left, &numbers(&signature)?].concat();
    let length = u16::try_from(body.len())
        .map_err(|_| Error::Signature("it is too long for its packet".into()))?;
    Ok([&[SIGNATURE_PACKET][..], &length.to_be_bytes(), &body].concat())
}

/// Signs what `hasher` was fed with a packet of version 3, whose trailer is class and time alone.
///
/// # Errors
/// Those of [`sign_finished`].
///
/// Source: RFC 4880, section 5.2.2.
pub(super) fn sign_v3(
    signer: &dyn DigestSigner,
    kind: SignatureType,
    mut hasher: Hasher,
    created: SystemTime,
) -> Result<Vec<u8>, Error> {
    let broken = |why: &str| Error::Signature(why.into());
    let seconds = created.duration_since(UNIX_EPOCH).ok();
    let created = seconds
        .and_then(|since| u32::try_from(since.as_secs()).ok())
        .ok_or_else(|| broken("its time does not fit into 32 bits"))?;
    let class = u8::from(kind);
    hasher.update(&[class]);
    hasher.update(&created.to_be_bytes());
    let digest = Digest::from_openpgp(hasher.context.algo())
        .ok_or_else(|| broken("its digest is none of ours"))?;
    let hash = hasher.context.into_digest().map_err(from_sequoia)?;
    sign_finished(signer, Packet::V3, digest, &hash, class, created)
}

fn v3_head(public: &PublicKey, digest: Digest, class: u8, created: u32) -> Vec<u8> {
    let mut head = vec![3, 5, class];
    head.extend(created.to_be_bytes());
    head.extend(public.key.keyid().as_bytes());
    head.extend(algorithms(public, digest));
    head
}

fn v4_head(public: &PublicKey, digest: Digest, class: u8, created: u32) -> Vec<u8> {
    const CREATED: u8 = 2;
    const ISSUER: u8 = 16;
    const ISSUER_FINGERPRINT: u8 = 33;
    let fingerprint = public.key.fingerprint();
    let fingerprint = [&[4][..], fingerprint.as_bytes()].concat();
    let hashed = [
        subpacket(ISSUER_FINGERPRINT, &fingerprint),
        subpacket(CREATED, &created.to_be_bytes()),
    ]
    .concat();
    let unhashed = subpacket(ISSUER, public.key.keyid().as_bytes());
    let mut head = vec![4, class];
    head.extend(algorithms(public, digest));
    for area in [hashed, unhashed] {
        // Each has a few dozen bytes.
        head.extend((area.len() as u16).to_be_bytes());
        head.extend(area);
    }
    head
}

/// A subpacket of less than 192 bytes (RFC 9580, section 5.2.3.7).
fn subpacket(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[value.len() as u8 + 1, kind][..], value].concat()
}

fn algorithms(public: &PublicKey, digest: Digest) -> [u8; 2] {
    [public.key.pk_algo().into(), digest.openpgp().into()]
}

/// The signature's numbers, each with its length in bits (RFC 9580, section 3.2).
fn numbers(signature: &mpi::Signature) -> Result<Vec<u8>, Error> {
    use sequoia_openpgp::serialize::MarshalInto as _;
    signature
        .to_vec()
        .map_err(|error| Error::Signature(error.to_string()))
}
