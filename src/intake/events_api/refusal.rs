//! Why a request is turned away, and how.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Response, StatusCode,
    body::{Body, Incoming},
    header::{self, HeaderValue},
};

use super::{
    Inner,
    answer::status,
    body::{BODY_DEADLINE, MAX_BODY_BYTES, MAX_HEADERS},
    endpoints::{Door, Endpoint},
};
use crate::{intake::fate::Fate, slack::signature::SignatureError};

/// So much of a refused body is read on, and thrown away.
const DISCARDED_BYTES: usize = 8 * 1024 * 1024;

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
    #[error("newer bodies needed the room of this one")]
    Crowded,
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
            Self::Crowded | Self::Overload => StatusCode::SERVICE_UNAVAILABLE,
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
            Self::Crowded | Self::Overload => Fate::Overload,
        }
    }
}

impl Inner {
    /// Notes a request that does not verify, and says so if it may be Slack's and none does.
    fn note_unsigned(&self, refusal: &Refusal, door: &Door) {
        let Refusal::Signature(error) = refusal else {
            return;
        };
        let clock = &self.ground.clock;
        for (app, signing) in door.signing() {
            if *error != SignatureError::Wrong {
                signing.stranger();
                continue;
            }
            if let Some(times) = signing.rejected(clock.now(), clock.uptime()) {
                tracing::warn!(
                    %app,
                    path = door.path(),
                    times,
                    "{times} requests were signed with another secret than `signing_secret` of app \
                     {app}, and none with that: events are refused with 401. Compare it with the \
                     app's settings at Slack: Basic Information, App Credentials, Signing Secret"
                );
            }
        }
    }

    /// Notes that a request to the app verified, and says so if that is news.
    pub(super) fn note_signed(&self, endpoint: &Endpoint) {
        if let Some(before) = endpoint.signing.verified(self.ground.clock.now()) {
            let app = &endpoint.app;
            tracing::info!(
                %app,
                before,
                "requests to app {app} are signed with its secret ({before} before were not)"
            );
        }
    }

    /// Answers a request that may be anybody's.
    pub(super) fn turn_away(
        &self,
        refusal: &Refusal,
        door: &Door,
        body: Incoming,
    ) -> Response<Full<Bytes>> {
        let is_crowded = matches!(refusal, Refusal::Crowded);
        if is_crowded && self.said_crowded.is_due(self.ground.clock.instant()) {
            tracing::warn!(
                path = door.path(),
                "requests whose bodies arrive slowly fill the room for them: the oldest are cut \
                 off (said once a minute)"
            );
        }
        door.count_refused(refusal.fate());
        self.note_unsigned(refusal, door);
        let mut response = refuse(refusal, door);
        if !body.is_end_stream() {
            if matches!(refusal, Refusal::Crowded | Refusal::Slow) {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            self.ground.shutdown.spawn(discard(body));
        }
        response
    }
}

pub(super) fn refuse(refusal: &Refusal, door: &Door) -> Response<Full<Bytes>> {
    // Strangers can cause this at will, so it must not fill the log.
    tracing::debug!(path = door.path(), %refusal, "a request was refused");
    status(refusal.status())
}

/// Reads on for a moment what nobody wants. Most clients send to the end before they look for an
/// answer, and would find the connection reset instead of it.
async fn discard(mut body: Incoming) {
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
