//! Signs a request as Standard Webhooks describes, so that the receiver can prove who sent it.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Prefix of a secret in base64.
const PREFIX: &str = "whsec_";

/// A secret of the `whsec_` form whose rest is not base64, or is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signing secret starts with whsec_, but what follows is not base64")]
pub(in crate::destination) struct NotBase64;

/// Key of the HMAC, set up once.
pub(in crate::destination) struct Signer(Hmac<Sha256>);

/// Returns the alert's id as a `webhook-id`: the same for every attempt, and without the full stop
/// that separates the parts of the signed text. An id does not contain underscores otherwise.
pub(in crate::destination) fn message_id(id: &str) -> String {
    id.replace('.', "_")
}

impl Signer {
    /// Sets up the key. The official libraries decode every secret as base64, with or without
    /// `whsec_`, so a secret that can be decoded is decoded; any other is the key itself.
    pub(in crate::destination) fn new(secret: &str) -> Result<Self, NotBase64> {
        let encoded = secret.strip_prefix(PREFIX);
        let key = match (encoded, BASE64_STANDARD.decode(encoded.unwrap_or(secret))) {
            (_, Ok(key)) => key,
            (Some(_), Err(_)) => Vec::new(),
            (None, Err(_)) => secret.as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err(NotBase64);
        }
        let keyed = Hmac::new_from_slice(&key).map_err(|_no_length_is_wrong| NotBase64)?;
        Ok(Self(keyed))
    }

    /// Returns `v1,` and the base64 of the HMAC over `id.timestamp.body`.
    pub(in crate::destination) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // From `printf '%s' "$id.$time.$body" | openssl dgst -sha256 -mac HMAC -macopt key:...`.
    #[test]
    fn a_signature_equals_the_one_that_openssl_computes() {
        let signer = Signer::new("whsec_c2VjcmV0LW9mLXRoZS1yZWxheQ==").unwrap();
        let signature = signer.sign("main:C1:1600689944.000500:0", 1_600_689_950, b"{\"a\": 1}");
        assert_eq!(signature, "v1,qLr+J57iECb4hpg2RlGUVt06fE4FBRRFevhwqD4gD6c=");
    }

    #[test]
    fn a_secret_is_base64_with_and_without_the_prefix_and_else_the_key_itself() {
        let sign = |secret| Signer::new(secret).unwrap().sign("a", 1, b"b");
        let encoded = sign("whsec_c2VjcmV0LW9mLXRoZS1yZWxheQ==");
        assert_eq!(sign("c2VjcmV0LW9mLXRoZS1yZWxheQ=="), encoded);
        assert_eq!(sign("secret-of-the-relay"), encoded);
    }

    #[test]
    fn a_message_id_has_no_full_stop_and_tells_alerts_apart() {
        let id = message_id("main:C0123456789:1600689944.000500:0");
        assert_eq!(id, "main:C0123456789:1600689944_000500:0");
        assert_ne!(id, message_id("main:C0123456789:1600689944.000500:1"));
    }

    #[test]
    fn a_secret_that_only_looks_encoded_is_refused() {
        for secret in ["whsec_", "whsec_not base64!", "whsec_abc"] {
            assert!(Signer::new(secret).is_err(), "{secret}");
        }
    }
}
