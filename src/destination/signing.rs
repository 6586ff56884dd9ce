//! Signs a request as Standard Webhooks describes, so that the receiver can prove who sent it.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The header with the message's id: our idempotency key.
pub(super) const ID_HEADER: &str = "webhook-id";
/// The header with the time of signing, in seconds.
pub(super) const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The header with the signature.
pub(super) const SIGNATURE_HEADER: &str = "webhook-signature";

/// `whsec_` stands before a secret in base64; any other text is itself the key.
const PREFIX: &str = "whsec_";

/// A secret of the `whsec_` form whose rest is not base64, or is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signing secret starts with whsec_, but what follows is not base64")]
pub(super) struct NotBase64;

/// The key, set up once.
pub(super) struct Signer(Hmac<Sha256>);

impl Signer {
    pub(super) fn new(secret: &str) -> Result<Self, NotBase64> {
        let key = match secret.strip_prefix(PREFIX) {
            Some(encoded) => BASE64_STANDARD.decode(encoded).unwrap_or_default(),
            None => secret.as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err(NotBase64);
        }
        let keyed = Hmac::new_from_slice(&key).map_err(|_no_length_is_wrong| NotBase64)?;
        Ok(Self(keyed))
    }

    /// `v1,` and the base64 of the HMAC over `id.timestamp.body`.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
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
    fn a_secret_without_the_prefix_is_the_key_itself() {
        let plain = Signer::new("secret-of-the-relay").unwrap();
        let encoded = Signer::new("whsec_c2VjcmV0LW9mLXRoZS1yZWxheQ==").unwrap();
        assert_eq!(plain.sign("a", 1, b"b"), encoded.sign("a", 1, b"b"));
    }

    #[test]
    fn a_secret_that_only_looks_encoded_is_refused() {
        for secret in ["whsec_", "whsec_not base64!", "whsec_abc"] {
            assert!(Signer::new(secret).is_err(), "{secret}");
        }
    }
}
