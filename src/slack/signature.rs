//! Verification that a request comes from Slack: HMAC-SHA256 over `v0:timestamp:body`, in raw
//! bytes.
//!
//! `intake` calls [`Verifier::verify`] before anything else looks at the body. The computed
//! signature never leaves this file: anyone who sees it could sign that body.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{clock::Timestamp, secret::Secret};

/// Greatest distance between a request's timestamp and our clock, in seconds, in both directions
/// (docs.slack.dev/authentication/verifying-requests-from-slack).
pub const WINDOW_SECONDS: u64 = 300;

/// Reason for which a request is not authentic. The sender is told none of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A header does not have the documented form.
    #[error("the signature headers are malformed")]
    Malformed,
    /// None of the secrets makes this signature of this body.
    #[error("the signature is wrong")]
    Wrong,
    /// The timestamp is too old or too new: a replay, a stranger, or a clock that is off. The
    /// signature was not checked.
    #[error("the request's timestamp is more than 300 s away from our clock")]
    Stale,
}

/// Signature headers of a request, well formed and recent. The signature is not verified yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'h> {
    timestamp: &'h [u8],
    digest: [u8; 32],
    sent_at: Timestamp,
}

impl<'h> Claim<'h> {
    /// Parses the headers `X-Slack-Request-Timestamp` and `X-Slack-Signature`. The body is not
    /// needed for this, so a request that fails here costs no hash.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`] or [`SignatureError::Stale`].
    pub fn read(
        now: Timestamp,
        timestamp: &'h [u8],
        signature: &[u8],
    ) -> Result<Self, SignatureError> {
        let sent_at = seconds(timestamp).ok_or(SignatureError::Malformed)?;
        let digest = digest(signature).ok_or(SignatureError::Malformed)?;
        if now.seconds().abs_diff(sent_at) > WINDOW_SECONDS {
            return Err(SignatureError::Stale);
        }
        Ok(Self { timestamp, digest, sent_at: Timestamp::from_seconds(sent_at) })
    }
}

/// Proof that a request is authentic and recent.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    /// Time at which Slack signed the request, by Slack's clock.
    pub sent_at: Timestamp,
    secret: Secret,
    /// Value of `secret` when the signature was made.
    value: Arc<String>,
}

impl Signed {
    /// Returns whether the signature was made with this secret or with another of the same value.
    pub fn is_by(&self, secret: &Secret) -> bool {
        // The file may have been replaced a moment ago, and the secret have another value by now.
        self.secret == *secret || *self.value == *secret.reveal()
    }

    /// Returns whether this secret is rotated together with the one that made the signature, and
    /// one of the two has not changed yet.
    pub fn is_rotated_with(&self, secret: &Secret) -> bool {
        self.secret.goes_with(secret)
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("secret", &self.secret).finish_non_exhaustive()
    }
}

/// Verifies signatures with the secrets of one app, or of several.
pub struct Verifier {
    keys: Vec<Key>,
}

struct Key {
    secret: Secret,
    prepared: ArcSwap<Prepared>,
}

/// HMAC key schedule, set up once for each version of the secret.
struct Prepared {
    version: u64,
    value: Arc<String>,
    mac: Hmac<Sha256>,
}

impl Verifier {
    /// Creates a verifier that accepts a signature made with any of the secrets.
    pub fn new(secrets: Vec<Secret>) -> Self {
        let keys = secrets.into_iter().map(|secret| {
            let prepared = ArcSwap::from_pointee(Prepared::of(&secret));
            Key { secret, prepared }
        });
        Self { keys: keys.collect() }
    }

    /// Reads the secret files that have changed since they were read last. Returns whether there is
    /// a secret that [`Verifier::verify`] did not know when `version` was taken.
    pub fn read_again(&self, version: u64) -> bool {
        for key in &self.keys {
            // An unreadable file is reported by the task that reads it every few seconds.
            drop(key.secret.refresh_if_touched());
        }
        self.version() != version
    }

    /// Returns a number that grows each time a secret changes.
    pub fn version(&self) -> u64 {
        self.keys.iter().map(|key| key.secret.version()).sum()
    }

    /// Verifies a claim against the body, in constant time. Hashes the body at most once for each
    /// distinct secret.
    ///
    /// # Errors
    /// [`SignatureError::Wrong`], which carries nothing of the request or the signature.
    pub fn verify(&self, claim: &Claim<'_>, body: &[u8]) -> Result<Signed, SignatureError> {
        let mut tried: Vec<Arc<Prepared>> = Vec::new();
        for key in &self.keys {
            let prepared = key.prepared();
            if tried.iter().any(|earlier| earlier.value == prepared.value) {
                continue;
            }
            if prepared.made(claim, body) {
                return Ok(Signed {
                    sent_at: claim.sent_at,
                    secret: key.secret.clone(),
                    value: Arc::clone(&prepared.value),
                });
            }
            tried.push(prepared);
        }
        Err(SignatureError::Wrong)
    }
}

/// Returns the value of `X-Slack-Signature` for a body, as Slack makes it, to try the relay out.
pub fn sign(secret: &Secret, sent_at: Timestamp, body: &[u8]) -> String {
    let mut mac = Prepared::of(secret).mac;
    mac.update(format!("v0:{}:", sent_at.seconds()).as_bytes());
    mac.update(body);
    format!("v0={}", hex::encode(mac.finalize().into_bytes()))
}

impl Key {
    /// Returns the key schedule for the secret's present value.
    fn prepared(&self) -> Arc<Prepared> {
        let prepared = self.prepared.load_full();
        if prepared.version == self.secret.version() {
            return prepared;
        }
        let prepared = Arc::new(Prepared::of(&self.secret));
        self.prepared.store(Arc::clone(&prepared));
        prepared
    }
}

impl Prepared {
    /// Sets the key schedule up. The version is read before the value: if the value changes in
    /// between, the next call finds another version and sets up again.
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    fn of(secret: &Secret) -> Self {
        let (version, value) = (secret.version(), secret.reveal());
        let mac = Hmac::new_from_slice(value.as_bytes()).expect("any key length");
        Self { version, value, mac }
    }

    fn made(&self, claim: &Claim<'_>, body: &[u8]) -> bool {
        let mut mac = self.mac.clone();
        mac.update(b"v0:");
        mac.update(claim.timestamp);
        mac.update(b":");
        mac.update(body);
        mac.verify_slice(&claim.digest).is_ok()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.secret)).finish()
    }
}

/// Parses whole seconds: digits only, at most 18 of them, so that they fit.
fn seconds(header: &[u8]) -> Option<i64> {
    if header.is_empty() || header.len() > 18 {
        return None;
    }
    header.iter().try_fold(0_i64, |seconds, byte| {
        byte.is_ascii_digit().then(|| seconds * 10 + i64::from(byte - b'0'))
    })
}

/// Parses `v0=` and 64 lower-case hexadecimal digits.
fn digest(header: &[u8]) -> Option<[u8; 32]> {
    let digits = header.strip_prefix(b"v0=")?;
    // Slack writes lower case, and `hex` reads both.
    if digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut digest = [0; 32];
    hex::decode_to_slice(digits, &mut digest).ok()?;
    Some(digest)
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "hexadecimal digits are one byte each")]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::secret::Form;

    const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
    const SENT: i64 = 1_700_000_000;

    fn verifier(secrets: &[&str]) -> Verifier {
        Verifier::new(secrets.iter().map(|value| Secret::fixed("TEST", value).unwrap()).collect())
    }

    fn sign(secret: &str, timestamp: &str, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("v0:{timestamp}:").as_bytes());
        mac.update(body);
        format!("v0={}", hex::encode(mac.finalize().into_bytes()))
    }

    fn verify(
        verifier: &Verifier,
        now: Timestamp,
        (timestamp, signature): (&[u8], &[u8]),
        body: &[u8],
    ) -> Result<Signed, SignatureError> {
        verifier.verify(&Claim::read(now, timestamp, signature)?, body)
    }

    fn check(now: i64, timestamp: &str, signature: &str) -> Result<Timestamp, SignatureError> {
        let headers = (timestamp.as_bytes(), signature.as_bytes());
        let now = Timestamp::from_seconds(now);
        verify(&verifier(&[SECRET]), now, headers, b"{}").map(|signed| signed.sent_at)
    }

    /// Example of docs.slack.dev/authentication/verifying-requests-from-slack
    #[test]
    fn the_published_example_is_accepted() {
        let body = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow\
            &channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner\
            &command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands\
            %2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
            &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let signature = b"v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
        let verifier = verifier(&["8f742231b10e8888abcd99yyyzzz85a5"]);
        let now = Timestamp::from_seconds(1_531_420_618);
        let signed = verify(&verifier, now, (b"1531420618", signature), body);
        assert_eq!(signed.unwrap().sent_at.seconds(), 1_531_420_618);
    }

    /// Made with another implementation: Python's `hmac`.
    #[test]
    fn signatures_of_an_independent_implementation_are_accepted() {
        let challenge = "{\"token\":\"t\",\"challenge\":\
            \"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P\",\
            \"type\":\"url_verification\"}";
        let no_utf8 = b"{\"type\":\"event_callback\",\"text\":\"caf\xe9\"}\xff";
        for (body, signature) in [
            (
                challenge.as_bytes(),
                "v0=54d735802adb032b002d56710813a8b5048593db596568fdce7e1a0cfe890d9a",
            ),
            (b"", "v0=2360faa57782c36f3d02cceb1b090e2e56ba3f1e0114b8ae6cc4f4ff1026f78e"),
            (no_utf8, "v0=8d99ff02cc59ac0c6d08bc47112d69eef5a6dad63d03d68d888d7295bec6436d"),
        ] {
            let now = Timestamp::from_seconds(SENT);
            let headers: (&[u8], _) = (b"1700000000", signature.as_bytes());
            let result = verify(&verifier(&[SECRET]), now, headers, body);
            assert!(result.is_ok(), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn three_hundred_seconds_are_accepted_and_one_more_is_stale_both_ways() {
        let timestamp = SENT.to_string();
        let signature = sign(SECRET, &timestamp, b"{}");
        for (now, ok) in [(-301, false), (-300, true), (0, true), (300, true), (301, false)] {
            let expected =
                if ok { Ok(Timestamp::from_seconds(SENT)) } else { Err(SignatureError::Stale) };
            assert_eq!(check(SENT + now, &timestamp, &signature), expected, "{now}");
        }
    }

    #[test]
    fn a_request_outside_of_the_window_is_stale_whoever_signed_it() {
        let forged = |timestamp| sign("another secret", timestamp, b"{}");
        let now = SENT.to_string();
        assert_eq!(check(SENT, &now, &forged(&now)), Err(SignatureError::Wrong));
        assert_eq!(check(SENT, "1", &forged("1")), Err(SignatureError::Stale));
        let far = "999999999999999999";
        assert_eq!(check(SENT, far, &sign(SECRET, far, b"{}")), Err(SignatureError::Stale));
        assert_eq!(check(i64::MIN, far, &sign(SECRET, far, b"{}")), Err(SignatureError::Stale));
    }

    #[test]
    fn malformed_headers_are_refused() {
        let good = sign(SECRET, "1700000000", b"{}");
        for timestamp in [
            "",
            "abc",
            "1700000000.0",
            "+1700000000",
            "-5",
            " 1700000000",
            "1e9",
            "1234567890123456789",
            "१",
        ] {
            assert_eq!(
                check(SENT, timestamp, &good),
                Err(SignatureError::Malformed),
                "{timestamp}"
            );
        }
        let digits = good.trim_start_matches("v0=");
        for signature in [
            String::new(),
            "v0=".to_owned(),
            digits.to_owned(),
            format!("v1={digits}"),
            format!("V0={digits}"),
            format!("v0={}", digits.to_uppercase()),
            format!("v0={digits}0"),
            format!("v0={digits}00"),
            format!("v0={}", &digits[1..]),
            format!("v0={}", &digits[2..]),
            format!(" v0={digits}"),
            format!("v0={}é", &digits[2..]),
        ] {
            let result = check(SENT, "1700000000", &signature);
            assert_eq!(result, Err(SignatureError::Malformed), "{signature}");
        }
    }

    #[test]
    fn both_secrets_verify_while_one_is_rotated_out() {
        let now = Timestamp::from_seconds(SENT);
        for secret in ["new", "old", "other"] {
            let signature = sign(secret, "1700000000", b"{}");
            let headers: (&[u8], _) = (b"1700000000", signature.as_bytes());
            let result = verify(&verifier(&["new", "old"]), now, headers, b"{}");
            assert_eq!(result.is_ok(), secret != "other", "{secret}");
        }
        let signature = sign("", "1700000000", b"");
        let nobody = verify(&verifier(&[]), now, (b"1700000000", signature.as_bytes()), b"");
        assert_eq!(nobody, Err(SignatureError::Wrong));
    }

    #[test]
    fn a_secret_file_that_changed_is_used_from_the_next_request_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "old").unwrap();
        let secret = Secret::file(&path, Form::Word).unwrap();
        let verifier = Verifier::new(vec![secret.clone()]);
        let accepts = |value| {
            let signature = sign(value, "1700000000", b"{}");
            let now = Timestamp::from_seconds(SENT);
            verify(&verifier, now, (b"1700000000", signature.as_bytes()), b"{}").is_ok()
        };
        assert!(accepts("old") && !accepts("new"));
        fs::write(&path, "new").unwrap();
        assert!(secret.refresh().unwrap());
        assert!(accepts("new") && !accepts("old"));
    }

    #[test]
    fn a_signature_names_every_secret_of_its_value() {
        let secret = |name, value| Secret::fixed(name, value).unwrap();
        let (a, b, c) = (secret("A", "one"), secret("B", "two"), secret("C", "two"));
        let verifier = Verifier::new(vec![a.clone(), b.clone(), c.clone()]);
        let signature = sign("two", "1700000000", b"{}");
        let now = Timestamp::from_seconds(SENT);
        let headers: (&[u8], _) = (b"1700000000", signature.as_bytes());
        let signed = verify(&verifier, now, headers, b"{}").unwrap();
        assert_eq!([a, b, c].map(|secret| signed.is_by(&secret)), [false, true, true]);
    }

    #[test]
    fn neither_error_nor_debug_shows_a_signature_or_a_secret() {
        let computed = sign(SECRET, "1700000000", b"{}").replace("v0=", "");
        let wrong = check(SENT, "1700000000", &format!("v0={}", "0".repeat(64))).unwrap_err();
        for shown in [format!("{wrong} {wrong:?}"), format!("{:?}", verifier(&[SECRET]))] {
            assert!(!shown.contains(&computed) && !shown.contains(SECRET), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn what_we_sign_is_accepted(
            secret in ".{1,200}", body: Vec<u8>, sent in 0_i64..4_000_000_000
        ) {
            let timestamp = sent.to_string();
            let signature = sign(&secret, &timestamp, &body);
            let now = Timestamp::from_seconds(sent);
            let headers = (timestamp.as_bytes(), signature.as_bytes());
            prop_assert!(verify(&verifier(&[&secret]), now, headers, &body).is_ok());
        }

        #[test]
        fn one_flipped_bit_anywhere_is_refused(
            body in prop::collection::vec(any::<u8>(), 1..200),
            part in 0..3, at: prop::sample::Index, bit in 0..8
        ) {
            let (mut timestamp, mut body) = (b"1700000000".to_vec(), body);
            let mut signature = sign(SECRET, "1700000000", &body).into_bytes();
            let flipped = match part { 0 => &mut timestamp, 1 => &mut signature, _ => &mut body };
            let at = at.index(flipped.len());
            flipped[at] ^= 1_u8 << bit;
            let now = Timestamp::from_seconds(SENT);
            let result = verify(&verifier(&[SECRET]), now, (&timestamp, &signature), &body);
            prop_assert!(result.is_err());
        }

        #[test]
        fn no_header_makes_it_panic(timestamp: Vec<u8>, signature: Vec<u8>, now: i64) {
            let now = Timestamp::from_micros(now);
            prop_assert!(
                verify(&verifier(&[SECRET]), now, (&timestamp, &signature), b"").is_err()
            );
        }
    }
}
