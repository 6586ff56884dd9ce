//! How an attempt ended: a [`Receipt`] or a [`DeliveryError`].

use std::time::Duration;

/// The destination has the alert.
#[derive(Clone, Debug, Default)]
pub struct Receipt {
    /// Whether it had it already.
    pub duplicate: bool,
    /// The HTTP status, if the destination speaks HTTP.
    pub status: Option<u16>,
    /// The beginning of the answer. No secrets.
    pub excerpt: String,
    /// The created case's id, or empty.
    pub reference_id: String,
    /// A link to it, or empty.
    pub reference_url: String,
}

/// What an answer that is not a success contains.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The beginning of the body. No secrets.
    pub excerpt: String,
}

/// Why an attempt failed, by who is at fault.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The destination did not answer in time.
    #[error("no answer within the time limit")]
    TimedOut,
    /// There is no way to the destination: DNS, connection, TLS, proxy, refused address.
    #[error("the destination cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// 401 or 403: our credentials are wrong.
    #[error("the destination refused our credentials with status {}", _0.status)]
    Auth(Answer),
    /// 429, or an answer with a `Retry-After`.
    #[error("the destination asks for fewer requests, status {}", answer.status)]
    Throttled {
        /// The answer.
        answer: Answer,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The destination is at fault: any status that does not blame this alert.
    #[error("the destination did not take the alert: status {}", _0.status)]
    Destination(Answer),
    /// The destination works and has the alert for some recipients; others are to get it later.
    #[error("some recipients get the alert later: status {}", _0.status)]
    Partly(Answer),
    /// This alert was refused, or no request could be made of it. Only evidence makes that the
    /// alert's own fault: a wrong key or parameter is refused with the same answers.
    #[error("the alert was refused: {reason}")]
    Refused {
        /// The answer, if one was received.
        answer: Option<Answer>,
        /// What is wrong, in a few words.
        reason: String,
    },
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Keep the alert, try again by the schedule; it counts towards the breaker.
    Retry,
    /// Keep the alert, try again after that time (or the floor for throttling, if none is given).
    RetryAfter(Option<Duration>),
    /// Keep the alert; read the credentials again; it counts towards the breaker.
    HoldDestination,
    /// Keep the alert, try again by the schedule; the destination works.
    RetryAlert,
    /// Keep the alert and try again by the schedule, until there is evidence that the alert and not
    /// the destination's key, preset or parameters is at fault.
    GiveUpOnEvidence,
}

impl DeliveryError {
    /// What to do about it.
    pub const fn advice(&self) -> Advice {
        match self {
            Self::TimedOut | Self::Unreachable(_) | Self::Destination(_) => Advice::Retry,
            Self::Throttled { retry_after, .. } => Advice::RetryAfter(*retry_after),
            Self::Auth(_) => Advice::HoldDestination,
            Self::Partly(_) => Advice::RetryAlert,
            Self::Refused { .. } => Advice::GiveUpOnEvidence,
        }
    }

    /// The attempt's class, as a metric label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Unreachable(_) | Self::Destination(_) | Self::Partly(_) => "destination_fault",
            Self::Throttled { .. } => "throttled",
            Self::Auth(_) => "auth",
            Self::Refused { .. } => "refused",
        }
    }

    /// Whether the destination was not even reached.
    pub const fn is_network(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// The answer, if the destination gave one.
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
