//! State of the app's token. Pure; moments are those of
//! [`Clock::uptime`](crate::clock::Clock::uptime).

use std::time::Duration;

use crate::slack::web_api::Identity;

/// Knowledge about the app's token.
#[derive(Debug)]
pub(super) enum Access {
    /// Slack has not been asked yet, or there is a reason to ask again. History is read meanwhile.
    Unknown,
    /// Slack accepts the token.
    Good(Identity),
    /// Slack does not accept the token. No call is made until the token changes, or until a time at
    /// which Slack is asked again.
    Lost {
        /// End of the pause.
        until: Duration,
        /// Version of the token that was rejected.
        token: Option<u64>,
    },
}

impl Access {
    pub(super) const fn is_good(&self) -> bool {
        matches!(self, Self::Good(_))
    }

    pub(super) const fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Returns the time until which no call is made with the `current` token; `None` if the token
    /// is not rejected.
    pub(super) fn lost_until(&self, current: Option<u64>) -> Option<Duration> {
        match self {
            Self::Lost { until, token } => {
                Some(if *token == current { *until } else { Duration::ZERO })
            }
            Self::Good(_) | Self::Unknown => None,
        }
    }
}
