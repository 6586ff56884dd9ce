//! Reasons for which a request is not processed, and the answer to such a request.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{intake::fate::Fate, slack::signature::SignatureError};

/// Limit of a body, as in Slack's own Bolt for JavaScript (slackapi/bolt-js 5.1.0).
pub(super) const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Limit of the number of headers. Slack sends about a dozen.
pub(super) const MAX_HEADERS: usize = 64;

/// Reason for which a request is not processed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("more than {MAX_HEADERS} headers")]
    Headers,
    #[error("more than {MAX_BODY_BYTES} bytes of body")]
    TooLarge,
    #[error("the body was not complete in time")]
    Slow,
    #[error("the signature is not valid")]
    Signature(#[from] SignatureError),
    #[error("newer bodies needed the memory of this one")]
    Crowded,
}

impl Refusal {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Headers => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Signature(_) => StatusCode::UNAUTHORIZED,
            Self::Crowded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns how the request is counted.
    pub(super) const fn fate(&self) -> Fate {
        match self {
            Self::Headers | Self::TooLarge => Fate::TooLarge,
            Self::Slow => Fate::Slow,
            Self::Signature(SignatureError::Stale) => Fate::Stale,
            Self::Signature(SignatureError::Malformed | SignatureError::Wrong) => {
                Fate::BadSignature
            }
            Self::Crowded => Fate::Overload,
        }
    }
}

/// Answer to a request that is not processed: a status code, and nothing about the reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rejection {
    pub(super) status: StatusCode,
    /// `true` if the connection is closed because the rest of the body may never come.
    pub(super) closes_connection: bool,
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        if self.closes_connection {
            (self.status, [(header::CONNECTION, "close")]).into_response()
        } else {
            self.status.into_response()
        }
    }
}
