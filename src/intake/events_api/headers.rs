//! Headers that mark a request as Slack's, or as a test.

use axum::http::{HeaderMap, HeaderName};

use crate::{
    clock::Timestamp,
    slack::signature::{Claim, SignatureError},
};

/// Header of a signed request that an operator's test makes. Such a request does not count as a
/// push.
pub const TEST_MARK: HeaderName = HeaderName::from_static("x-slack-soar-relay-test");

const SIGNATURE: HeaderName = HeaderName::from_static("x-slack-signature");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-slack-request-timestamp");

/// Signature headers of a request, each of them present once. Neither has been checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignatureHeaders<'h> {
    timestamp: &'h [u8],
    signature: &'h [u8],
}

impl<'h> SignatureHeaders<'h> {
    /// Returns the signature headers, or an error if one is missing or doubled.
    pub(super) fn find(headers: &'h HeaderMap) -> Result<Self, SignatureError> {
        let timestamp = single(headers, &TIMESTAMP).ok_or(SignatureError::Malformed)?;
        let signature = single(headers, &SIGNATURE).ok_or(SignatureError::Malformed)?;
        Ok(Self { timestamp, signature })
    }

    /// Parses the headers and checks that the timestamp is recent.
    pub(super) fn claim(self, now: Timestamp) -> Result<Claim<'h>, SignatureError> {
        Claim::read(now, self.timestamp, self.signature)
    }
}

/// Returns the value of a header that is present once. An honest sender does not double one.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first.as_bytes())
}
