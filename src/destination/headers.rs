//! Headers of a request, by name, and the names that only the relay sets.

use reqwest::header::{HeaderName, HeaderValue};

use super::error::SetupError;

/// Header with the alert's id, which is the same for every attempt.
pub(super) const IDEMPOTENCY: &str = "idempotency-key";
/// Header with the id of a message signed as Standard Webhooks.
pub(super) const WEBHOOK_ID: &str = "webhook-id";
/// Header with the time of signing, in seconds.
pub(super) const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
/// Header with the signature.
pub(super) const WEBHOOK_SIGNATURE: &str = "webhook-signature";

/// Names that only the relay or HTTP itself sets.
pub(super) const RESERVED: [&str; 9] = [
    IDEMPOTENCY,
    WEBHOOK_ID,
    WEBHOOK_TIMESTAMP,
    WEBHOOK_SIGNATURE,
    "connection",
    "content-length",
    "host",
    "transfer-encoding",
    "user-agent",
];

/// Parses a header that a configuration or a preset adds.
///
/// # Errors
/// Returns [`SetupError::Header`] if HTTP forbids the name or the value, or the relay sets the
/// header.
pub(super) fn parse(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), SetupError> {
    let wrong = |reason| SetupError::Header { name: name.to_owned(), reason };
    let header = HeaderName::try_from(name).map_err(|_wrong| wrong("has a name HTTP forbids"))?;
    if RESERVED.contains(&header.as_str()) {
        return Err(wrong("is set by the relay itself: remove it"));
    }
    let value = HeaderValue::from_str(value)
        .map_err(|_wrong| wrong("has a value HTTP forbids, such as a line break"))?;
    Ok((header, value))
}
