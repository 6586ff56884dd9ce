//! Result of an attempt: a [`Receipt`] or a [`DeliveryError`].

use std::time::Duration;

/// Proof that the destination has the alert.
#[derive(Clone, Debug, Default)]
pub struct Receipt {
    /// `true` if the destination had the alert before this attempt.
    pub duplicate: bool,
    /// HTTP status, if the destination speaks HTTP.
    pub status: Option<u16>,
    /// Beginning of the answer, without secrets.
    pub excerpt: String,
    /// Id of the created case, or empty.
    pub reference_id: String,
    /// Link to the case, or empty.
    pub reference_url: String,
}

/// The parts of an answer that is not a success.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// HTTP status of the answer.
    pub status: u16,
    /// Beginning of the body, without secrets.
    pub excerpt: String,
}

/// Reason why an attempt failed, classed by who is at fault.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The destination did not answer in time.
    #[error("no answer within the time limit")]
    TimedOut,
    /// The destination could not be reached: DNS, connection, TLS, proxy, or a refused address.
    #[error("the destination cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The credentials were refused: 401 or 403.
    #[error("the destination refused our credentials with status {}", _0.status)]
    Auth(Answer),
    /// The destination limits the rate: 429, or an answer with a `Retry-After`.
    #[error("the destination asks for fewer requests, status {}", answer.status)]
    Throttled {
        /// Answer of the destination.
        answer: Answer,
        /// Time that the destination asks to wait.
        retry_after: Option<Duration>,
    },
    /// The destination is at fault: any status that does not blame this alert.
    #[error("the destination did not take the alert: status {}", _0.status)]
    Destination(Answer),
    /// The destination works and has the alert for some recipients; others get it later.
    #[error("some recipients get the alert later: status {}", _0.status)]
    Partly(Answer),
    /// The alert was refused, or could not be rendered as a request. Only evidence makes that the
    /// alert's own fault: a wrong key or parameter is refused with the same answers.
    #[error("the alert was refused: {reason}")]
    Refused {
        /// Answer of the destination, if one was received.
        answer: Option<Answer>,
        /// Description in a few words.
        reason: String,
    },
}

/// Advice for the time after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Keep the alert and retry by the schedule; the failure counts towards the breaker.
    Retry,
    /// Keep the alert and retry after that time (or the floor for throttling, if `None`).
    RetryAfter(Option<Duration>),
    /// Keep the alert and read the credentials again; the failure counts towards the breaker.
    HoldDestination,
    /// Keep the alert and retry by the schedule; the destination works.
    RetryAlert,
    /// Keep the alert and retry by the schedule, until there is evidence that the alert and not the
    /// destination's key, preset or parameters is at fault.
    GiveUpOnEvidence,
}

impl DeliveryError {
    /// Returns the advice for this error.
    pub const fn advice(&self) -> Advice {
        match self {
            Self::TimedOut | Self::Unreachable(_) | Self::Destination(_) => Advice::Retry,
            Self::Throttled { retry_after, .. } => Advice::RetryAfter(*retry_after),
            Self::Auth(_) => Advice::HoldDestination,
            Self::Partly(_) => Advice::RetryAlert,
            Self::Refused { .. } => Advice::GiveUpOnEvidence,
        }
    }

    /// Returns the attempt's class, a metric label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Unreachable(_) | Self::Destination(_) | Self::Partly(_) => "destination_fault",
            Self::Throttled { .. } => "throttled",
            Self::Auth(_) => "auth",
            Self::Refused { .. } => "refused",
        }
    }

    /// Returns whether the destination was not even reached.
    pub const fn is_network(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// Returns the destination's answer, if there was one.
    pub const fn answer(&self) -> Option<&Answer> {
        match self {
            Self::TimedOut | Self::Unreachable(_) => None,
            Self::Auth(answer)
            | Self::Destination(answer)
            | Self::Partly(answer)
            | Self::Throttled { answer, .. } => Some(answer),
            Self::Refused { answer, .. } => answer.as_ref(),
        }
    }
}
