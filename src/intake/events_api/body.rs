//! The body of a request that Slack signed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    StatusCode,
    body::{Body, Incoming},
    header::{HeaderMap, HeaderName},
};

use super::limits::Limits;
use crate::{
    clock::Timestamp,
    intake::fate::Fate,
    slack::signature::{Claim, SignatureError, Signed, Verifier},
};

/// Slack's own Bolt for JavaScript takes this much (slackapi/bolt-js 5.1.0).
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// A body that is not here by then eats the 3 s that Slack gives us.
const BODY_DEADLINE: Duration = Duration::from_secs(2);

/// Slack's events have a few KiB. Whoever sends more takes one of few places for it.
const LARGE_BODY_BYTES: usize = 64 * 1024;

/// So much of a refused body is read on, and thrown away.
const DISCARDED_BYTES: usize = 16 * 1024 * 1024;

/// Slack sends about a dozen.
const MAX_HEADERS: usize = 64;

const SIGNATURE: HeaderName = HeaderName::from_static("x-slack-signature");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-slack-request-timestamp");

/// A request body that Slack signed. The only way to get one is to verify a request.
#[derive(Debug)]
pub struct SignedBody {
    bytes: Bytes,
    signed: Signed,
}

/// Why a request is not answered with 200.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("more than {MAX_HEADERS} headers")]
    Headers,
    #[error("more than {MAX_BODY_BYTES} bytes of body")]
    TooLarge,
    #[error("the body was not complete in time")]
    Slow,
    #[error("the signature does not hold")]
    Signature(#[source] SignatureError),
    #[error("too many requests at once")]
    Overload,
}

impl Refusal {
    /// The answer: a number, and nothing about why.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Headers => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Signature(_) => StatusCode::UNAUTHORIZED,
            Self::Overload => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn fate(&self) -> Fate {
        match self {
            Self::Headers | Self::TooLarge => Fate::TooLarge,
            Self::Slow => Fate::Slow,
            Self::Signature(SignatureError::Stale) => Fate::Stale,
            Self::Signature(SignatureError::Malformed | SignatureError::Wrong) => {
                Fate::BadSignature
            }
            Self::Overload => Fate::Overload,
        }
    }
}

impl SignedBody {
    /// Reads the body within its limits, and verifies it.
    pub(super) async fn receive(
        headers: &HeaderMap,
        body: &mut Incoming,
        verifier: &Verifier,
        now: Timestamp,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        if headers.len() > MAX_HEADERS {
            return Err(Refusal::Headers);
        }
        let malformed = Refusal::Signature(SignatureError::Malformed);
        let (Some(timestamp), Some(signature)) =
            (single(headers, &TIMESTAMP), single(headers, &SIGNATURE))
        else {
            return Err(malformed);
        };
        let bytes = tokio::time::timeout(BODY_DEADLINE, read(body, limits))
            .await
            .map_err(|_elapsed| Refusal::Slow)??;
        // Before anything is hashed.
        let claim = Claim::read(now, timestamp, signature).map_err(Refusal::Signature)?;
        let version = verifier.version();
        let signed = match verifier.verify(&claim, &bytes) {
            // The secret may have been rotated a moment ago: look before we say no.
            Err(SignatureError::Wrong) if verifier.read_again(version) => {
                verifier.verify(&claim, &bytes)
            }
            verified => verified,
        }
        .map_err(Refusal::Signature)?;
        Ok(Self { bytes, signed })
    }

    /// The exact bytes that were signed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A part of its text, without a copy unless the text was repaired.
    pub(super) fn share(&self, part: &str) -> Bytes {
        if self.bytes.as_ptr_range().contains(&part.as_ptr()) {
            self.bytes.slice_ref(part.as_bytes())
        } else {
            Bytes::copy_from_slice(part.as_bytes())
        }
    }

    /// When Slack signed it.
    pub fn sent_at(&self) -> Timestamp {
        self.signed.sent_at
    }

    /// Proof of whose secret it was signed with.
    pub(super) fn signed(&self) -> &Signed {
        &self.signed
    }
}

/// A doubled header is nobody's honest request.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first.as_bytes())
}

/// Reads on for a moment what nobody wants. Most clients send to the end before they look for an
/// answer, and would find the connection reset instead of it.
pub(super) async fn discard(mut body: Incoming) {
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await
            && bytes <= DISCARDED_BYTES
        {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Whoever has sent more, or is slower, is no client of ours.
    drop(tokio::time::timeout(BODY_DEADLINE, rest).await);
}

/// Most bodies come whole with their head: those are not copied.
async fn read(body: &mut Incoming, limits: &Limits) -> Result<Bytes, Refusal> {
    let announced = body.size_hint().lower();
    if usize::try_from(announced).is_ok_and(|bytes| bytes > MAX_BODY_BYTES) {
        return Err(Refusal::TooLarge);
    }
    let is_large = usize::try_from(announced).is_ok_and(|bytes| bytes > LARGE_BODY_BYTES);
    let mut taken = if is_large { Some(limits.large_body()?) } else { None };
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_broken_off| Refusal::Slow)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
        let length = first.len().max(rest.len());
        if length > MAX_BODY_BYTES {
            return Err(Refusal::TooLarge);
        }
        if length > LARGE_BODY_BYTES && taken.is_none() {
            taken = Some(limits.large_body()?);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}
