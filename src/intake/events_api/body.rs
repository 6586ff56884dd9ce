//! The body of a request that Slack signed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Incoming},
    header::{HeaderMap, HeaderName},
};

use super::{limits::Limits, refusal::Refusal};
use crate::{
    clock::Timestamp,
    slack::signature::{Claim, SignatureError, Signed, Verifier},
};

/// Slack's own Bolt for JavaScript takes this much (slackapi/bolt-js 5.1.0).
pub(super) const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// A body that is not here by then eats the 3 s that Slack gives us.
pub(super) const BODY_DEADLINE: Duration = Duration::from_secs(2);

/// Slack sends about a dozen.
pub(super) const MAX_HEADERS: usize = 64;

const SIGNATURE: HeaderName = HeaderName::from_static("x-slack-signature");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-slack-request-timestamp");

/// A request body that Slack signed. The only way to get one is to verify a request.
#[derive(Debug)]
pub struct SignedBody {
    bytes: Bytes,
    signed: Signed,
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
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > MAX_BODY_BYTES {
            return Err(Refusal::TooLarge);
        }
        // Before anything is read or hashed.
        let claim = Claim::read(now, timestamp, signature).map_err(Refusal::Signature)?;
        let bytes = tokio::time::timeout(BODY_DEADLINE, read(body, limits))
            .await
            .map_err(|_elapsed| Refusal::Slow)??;
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

/// Returns whether the headers are as those of a request that Slack has just signed.
pub(super) fn may_be_slacks(headers: &HeaderMap, now: Timestamp) -> bool {
    let (Some(timestamp), Some(signature)) =
        (single(headers, &TIMESTAMP), single(headers, &SIGNATURE))
    else {
        return false;
    };
    Claim::read(now, timestamp, signature).is_ok()
}

/// A doubled header is nobody's honest request.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first.as_bytes())
}

/// Reads a body. Most come whole with their head: those are neither copied nor counted.
async fn read(body: &mut Incoming, limits: &Limits) -> Result<Bytes, Refusal> {
    let Some(first) = next(body).await? else {
        return Ok(Bytes::new());
    };
    if body.is_end_stream() {
        return if first.len() > MAX_BODY_BYTES { Err(Refusal::TooLarge) } else { Ok(first) };
    }
    // A copy: what hyper lends out keeps the whole of its read buffer in memory.
    let mut bytes = BytesMut::from(first.as_ref());
    drop(first);
    let mut held = limits.hold(bytes.len());
    loop {
        let data = tokio::select! {
            biased;
            () = held.cut() => return Err(Refusal::Crowded),
            data = next(body) => data?,
        };
        let Some(data) = data else {
            return Ok(bytes.freeze());
        };
        let length = bytes.len() + data.len();
        if length > MAX_BODY_BYTES {
            return Err(Refusal::TooLarge);
        }
        held.grow(length)?;
        bytes.extend_from_slice(&data);
    }
}

/// The next data of a body; `None` at its end.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_broken_off| Refusal::Slow)?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
