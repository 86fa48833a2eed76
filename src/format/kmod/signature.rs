//! Reading, replacing and removing the signatures of a module.

use std::io::Read as _;

use super::{Error, Module, Stretch, Whole, packing, trailer};
use crate::{
    digest::Digest,
    edit::Edit,
    key::x509::{
        Certificate,
        cms::{self, Flaw, Signature},
    },
    signer::DigestSigner,
};

/// A signature that a module holds.
#[derive(Debug)]
pub struct Held {
    /// Where it begins in the unpacked module; it covers everything before.
    pub(super) at: u64,
    /// The signature, or nothing where its bytes are not a CMS signature of one signer.
    pub signature: Option<Signature>,
}

impl Module {
    /// Whether a signature that the module holds is that of `certificate`'s key over everything before it.
    ///
    /// # Errors
    /// [`Error::Read`], which may pass.
    pub fn verify(
        &self,
        held: &Held,
        certificate: &Certificate,
    ) -> Result<Result<(), Flaw>, Error> {
        let Some(signature) = &held.signature else {
            return Ok(Err(Flaw::Structure("it cannot be read")));
        };
        let Some(digest) = signature.digest() else {
            return Ok(Err(Flaw::OtherDigest));
        };
        let hash = self.hash(digest, held.at)?;
        Ok(signature.verify(certificate, digest, &hash))
    }
}

impl Whole {
    /// Makes `signer`'s signature the module's only one.
    ///
    /// A module that is not compressed gets it appended; one that is compressed is compressed anew. The signature has been verified
    /// before it is part of the edit.
    ///
    /// # Errors
    /// [`Error::X509`], [`Error::Spool`] and [`Error::Read`], which may pass.
    ///
    /// Source: Linux, scripts/sign-file.c.
    pub fn sign(&self, signer: &dyn DigestSigner) -> Result<Edit, Error> {
        let signature = cms::sign(signer, self.digest, &self.hash)?;
        self.with_end(trailer::write(&signature))
    }

    /// Removes every signature, or answers nothing where there is none.
    ///
    /// # Errors
    /// [`Error::Spool`] and [`Error::Read`], which may pass.
    pub fn unsign(&self) -> Result<Option<Edit>, Error> {
        if self.module.held.is_empty() {
            return Ok(None);
        }
        self.with_end(Vec::new()).map(Some)
    }

    /// Whether the module holds one signature, by `certificate`'s key, with the wanted digest, and valid.
    pub fn is_signed_by(&self, certificate: &Certificate) -> bool {
        let [held] = self.module.held.as_slice() else {
            return false;
        };
        held.signature
            .as_ref()
            .is_some_and(|signature| signature.is_as_signed(certificate, self.digest, &self.hash))
    }

    /// The digest that a signature is made with.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The edit that has `end` follow the module, and nothing else.
    fn with_end(&self, end: Vec<u8>) -> Result<Edit, Error> {
        let module = &self.module;
        let Some(packed) = &module.packed else {
            return Ok(Edit::replace(module.end, module.len - module.end, end));
        };
        let content = || Stretch::new(&module.content, module.end).chain(end.as_slice());
        packing::pack(packed, module.end + end.len() as u64, content).map(Edit::Rewrite)
    }
}
