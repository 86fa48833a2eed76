//! Certificates whose validity is prolonged: by more self-signatures, the old ones stay.

use std::time::{Duration, SystemTime};

use sequoia_openpgp::{
    Packet,
    packet::{prelude::SignatureBuilder, signature::subpacket::SubpacketTag},
    types::SignatureType,
};

use super::{Adapter, Certificate, Error, SignHash, from_sequoia, with_lifetime};
use crate::digest::Digest;

impl Certificate {
    /// The certificate with one more self-signature by `sign` for each user id, as the newest before but for its time and the key's lifetime,
    /// which counts from the key's making and ends never where nothing is said.
    ///
    /// `now` is cut to the second. It has to be later than the newest self-signature, or which of the two counts is anybody's guess.
    ///
    /// # Errors
    /// [`Error::Signer`] and [`Error::DoesNotVerify`] may pass, [`Error::Certificate`] stays.
    ///
    /// Source: RFC 9580, sections 5.2.3.13 and 5.2.3.36.
    pub fn extended(
        &self,
        sign: &SignHash<'_>,
        now: SystemTime,
        lifetime: Option<Duration>,
    ) -> Result<Self, Error> {
        let public = self.public_key();
        let digest = public.digest(Digest::Sha256);
        let key = self.cert.primary_key().key();
        let mut adapter = Adapter {
            public: public.key,
            sign,
        };
        let mut packets = Vec::<Packet>::new();
        for user_id in self.cert.userids() {
            let newest = user_id
                .self_signatures()
                .filter(|signature| signature.typ() != SignatureType::CertificationRevocation)
                .max_by_key(|signature| signature.signature_creation_time());
            let Some(newest) = newest else {
                continue;
            };
            let binding = SignatureBuilder::from(newest.clone())
                .set_hash_algo(digest.openpgp())
                .set_signature_creation_time(now)
                .and_then(|builder| {
                    builder.modify_hashed_area(|mut area| {
                        area.remove_all(SubpacketTag::KeyExpirationTime);
                        Ok(area)
                    })
                })
                .and_then(|builder| with_lifetime(builder, lifetime))
                .and_then(|builder| {
                    builder.sign_userid_binding(&mut adapter, key, user_id.userid())
                })
                .map_err(from_sequoia)?;
            binding
                .verify_userid_binding(key, key, user_id.userid())
                .map_err(|error| Error::DoesNotVerify(error.to_string()))?;
            packets.push(binding.into());
        }
        if packets.is_empty() {
            return Err(Error::Certificate("no user id has a self-signature".into()));
        }
        let broken = |error: sequoia_openpgp::anyhow::Error| Error::Certificate(error.to_string());
        let (cert, _) = self.cert.clone().insert_packets(packets).map_err(broken)?;
        Ok(Self { cert })
    }

    /// When the newest self-signature was made.
    pub fn newest_self_signature(&self) -> Option<SystemTime> {
        self.cert
            .userids()
            .flat_map(|user_id| user_id.self_signatures())
            .filter_map(|signature| signature.signature_creation_time())
            .max()
    }
}
