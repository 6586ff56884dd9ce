//! The extractor of a request body that Slack signed.

use std::sync::Arc;

use axum::{
    body::{Body, HttpBody},
    extract::{FromRef, FromRequest, Request},
    http::HeaderMap,
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::{
    endpoints::Endpoint,
    headers::{SignatureHeaders, TEST_MARK},
    ingress::{BODY_DEADLINE, Ingress},
    limits::Limits,
    refusal::{MAX_BODY_BYTES, MAX_HEADERS, Refusal, Rejection},
};
use crate::{
    clock::Timestamp,
    http_server::Peer,
    intake::trace::Arrival,
    slack::signature::{SignatureError, Signed, Verifier},
};

/// A request body that Slack signed, with what is needed of the request's head. Extraction is the
/// only way to get one, and verifies the signature over the raw body.
#[derive(Debug)]
pub(super) struct SignedBody {
    bytes: Bytes,
    signed: Signed,
    endpoint: Arc<Endpoint>,
    arrival: Arrival,
    is_test: bool,
}

impl<S> FromRequest<S> for SignedBody
where
    Arc<Ingress>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let ingress = Arc::<Ingress>::from_ref(state);
        let started = ingress.ground.clock.instant();
        let (head, mut body) = request.into_parts();
        let Some(endpoint) = ingress.endpoint(head.uri.path()) else {
            return Err(ingress.reject_unknown(&head));
        };
        let now = ingress.ground.clock.now();
        let received =
            receive(&head.headers, &mut body, &endpoint.verifier, now, &ingress.limits).await;
        let (bytes, signed) = match received {
            Ok(verified) => verified,
            Err(refusal) => return Err(ingress.reject(&refusal, &endpoint, body)),
        };
        // From here on the connection is not closed to make room for strangers.
        if let Some(peer) = head.extensions.get::<Peer>() {
            peer.mark_verified();
        }
        let arrival = Arrival::new(started, &head.headers);
        let is_test = head.headers.contains_key(&TEST_MARK);
        Ok(Self { bytes, signed, endpoint, arrival, is_test })
    }
}

impl SignedBody {
    /// Returns the exact bytes that were signed.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns a part of the body's text. Copies only if the text was repaired.
    pub(super) fn share(&self, part: &str) -> Bytes {
        if self.bytes.as_ptr_range().contains(&part.as_ptr()) {
            self.bytes.slice_ref(part.as_bytes())
        } else {
            Bytes::copy_from_slice(part.as_bytes())
        }
    }

    /// Returns the proof of which secret signed the body, and when.
    pub(super) const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// Returns the endpoint to which the request was posted.
    pub(super) const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Returns when and how the request arrived.
    pub(super) const fn arrival(&self) -> &Arrival {
        &self.arrival
    }

    /// Drops the body, and returns when and how the request arrived.
    pub(super) fn into_arrival(self) -> Arrival {
        self.arrival
    }

    /// Returns whether the request is an operator's test instead of a push.
    pub(super) const fn is_test(&self) -> bool {
        self.is_test
    }
}

/// Reads a body within its limits and verifies its signature.
async fn receive(
    headers: &HeaderMap,
    body: &mut Body,
    verifier: &Verifier,
    now: Timestamp,
    limits: &Limits,
) -> Result<(Bytes, Signed), Refusal> {
    if headers.len() > MAX_HEADERS {
        return Err(Refusal::Headers);
    }
    let signature_headers = SignatureHeaders::find(headers)?;
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_BODY_BYTES {
        return Err(Refusal::TooLarge);
    }
    // The headers are checked before anything is read or hashed.
    let claim = signature_headers.claim(now)?;
    let bytes = tokio::time::timeout(BODY_DEADLINE, read(body, limits))
        .await
        .map_err(|_elapsed| Refusal::Slow)??;
    let version = verifier.version();
    let signed = match verifier.verify(&claim, &bytes) {
        // The secret may have been rotated a moment ago, so its file is read again first.
        Err(SignatureError::Wrong) if verifier.read_again(version) => {
            verifier.verify(&claim, &bytes)
        }
        verified => verified,
    }?;
    Ok((bytes, signed))
}

/// Reads a body. Most arrive whole with their head; those are neither copied nor counted.
async fn read(body: &mut Body, limits: &Limits) -> Result<Bytes, Refusal> {
    let Some(first) = next_data(body).await? else {
        return Ok(Bytes::new());
    };
    if body.is_end_stream() {
        return if first.len() > MAX_BODY_BYTES { Err(Refusal::TooLarge) } else { Ok(first) };
    }
    // Copied because the data that hyper lends out keeps the whole of its read buffer in memory.
    let mut bytes = BytesMut::from(first.as_ref());
    drop(first);
    let mut reservation = limits.reserve(bytes.len());
    loop {
        let data = tokio::select! {
            biased;
            () = reservation.revoked() => return Err(Refusal::Crowded),
            data = next_data(body) => data?,
        };
        let Some(data) = data else {
            return Ok(bytes.freeze());
        };
        let length = bytes.len() + data.len();
        if length > MAX_BODY_BYTES {
            return Err(Refusal::TooLarge);
        }
        reservation.grow(length)?;
        bytes.extend_from_slice(&data);
    }
}

/// Returns the next data of a body, or `None` at its end.
async fn next_data(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_broken_off| Refusal::Slow)?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
