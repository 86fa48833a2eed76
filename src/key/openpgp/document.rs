//! Signatures over documents that are no artifacts: detached ones, and text with its signature below it.

use std::time::SystemTime;

use sequoia_openpgp::{
    armor::{Kind, Writer as ArmorWriter},
    types::SignatureType,
};

use super::{Error, Hasher, Verified, sign_as};
use crate::{digest::Digest, signer::DigestSigner};

/// What signed text begins with.
const BEGIN: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";

/// A signature packet in ASCII armour.
///
/// # Errors
/// [`Error::Signature`], which stays.
///
/// Source: RFC 9580, section 6.
pub fn armoured(signature: &Verified) -> Result<String, Error> {
    let armour = || -> std::io::Result<Vec<u8>> {
        let mut writer = ArmorWriter::new(Vec::new(), Kind::Signature)?;
        std::io::Write::write_all(&mut writer, signature.packet())?;
        writer.finalize()
    };
    let bytes = armour().map_err(|error| Error::Signature(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| Error::Signature(error.to_string()))
}

/// Whether text is signed already, in whatever way and by whomever.
pub fn is_clear_signed(text: &[u8]) -> bool {
    text.starts_with(BEGIN)
}

/// The text with its signature below it. White space at the ends of lines is not signed, and every line's end counts as the same.
///
/// # Errors
/// [`Error::Signer`] and [`Error::DoesNotVerify`] may pass; [`Error::Signature`] stays.
///
/// Source: RFC 9580, section 7.
pub fn clear_signed(
    signer: &dyn DigestSigner,
    text: &[u8],
    digest: Digest,
    created: SystemTime,
) -> Result<Vec<u8>, Error> {
    let digest = signer.public().digest(digest);
    let mut hasher = Hasher::new(digest);
    let mut document = BEGIN.to_vec();
    let name = digest.name().to_ascii_uppercase();
    document.extend_from_slice(format!("\nHash: {name}\n\n").as_bytes());
    // The last line's end belongs to what follows, not to the text.
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    for (place, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if place > 0 {
            hasher.update(b"\r\n");
        }
        let is_white = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
        let len = line.iter().rposition(|byte| !is_white(byte));
        hasher.update(line.get(..len.map_or(0, |at| at + 1)).unwrap_or_default());
        if line.starts_with(b"-") {
            document.extend_from_slice(b"- ");
        }
        document.extend_from_slice(line);
        document.push(b'\n');
    }
    let signature = sign_as(signer, SignatureType::Text, hasher, created)?;
    document.extend_from_slice(armoured(&signature)?.as_bytes());
    Ok(document)
}
