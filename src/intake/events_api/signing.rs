//! How requests to one app are signed: whether Slack's verify, and how many do not.
//!
//! Only a request whose two headers are well formed and recent may be one of Slack's with another
//! signing secret than ours. All others are strangers': counted, and a reason for nothing.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::clock::Timestamp;

/// Between two log lines about requests that do not verify. If one has verified since, there is
/// nothing to say: the secret is right, and whoever signs with another is a stranger.
const PAUSE: Duration = Duration::from_secs(60);

/// What an operator sees of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigningHealth {
    /// When a request last verified.
    pub verified_at: Option<Timestamp>,
    /// Well-formed, recent requests with a wrong signature since then, or since the start.
    pub rejected: u64,
    /// Requests without such headers, since the start.
    pub strangers: u64,
}

/// How requests to one app are signed.
#[derive(Debug)]
pub(super) struct Signing {
    /// In microseconds; the least possible value if no request has verified.
    verified_at: AtomicI64,
    rejected: AtomicU64,
    strangers: AtomicU64,
    /// When it was last said that requests do not verify.
    said_at: Mutex<Option<Duration>>,
}

impl Default for Signing {
    fn default() -> Self {
        Self {
            verified_at: AtomicI64::new(i64::MIN),
            rejected: AtomicU64::new(0),
            strangers: AtomicU64::new(0),
            said_at: Mutex::new(None),
        }
    }
}

impl Signing {
    /// Notes a request that verified. Returns how many did not since the one before, if it is worth
    /// a line: it is the first, or it has been said that none verifies.
    pub(super) fn verified(&self, now: Timestamp) -> Option<u64> {
        let before = self.verified_at.swap(now.micros(), Ordering::Relaxed);
        let is_first = before == i64::MIN;
        if !is_first && self.rejected.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let rejected = self.rejected.swap(0, Ordering::Relaxed);
        let mut said_at = self.said_at.lock().unwrap_or_else(PoisonError::into_inner);
        (said_at.take().is_some() || is_first).then_some(rejected)
    }

    /// Notes a request that may be Slack's and has a wrong signature. Returns how many there were
    /// since one verified, if it is time to say so. `uptime` is for the pauses between two lines.
    pub(super) fn rejected(&self, now: Timestamp, uptime: Duration) -> Option<u64> {
        let rejected = self.rejected.fetch_add(1, Ordering::Relaxed) + 1;
        let is_verified = self.health().verified_at.is_some_and(|at| now.since(at) < PAUSE);
        let mut said_at = self.said_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_said = said_at.is_some_and(|at| uptime.saturating_sub(at) < PAUSE);
        if is_verified || is_said {
            return None;
        }
        *said_at = Some(uptime);
        Some(rejected)
    }

    /// Notes a request that is not Slack's.
    pub(super) fn stranger(&self) {
        self.strangers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn health(&self) -> SigningHealth {
        let verified_at = self.verified_at.load(Ordering::Relaxed);
        SigningHealth {
            verified_at: (verified_at != i64::MIN).then(|| Timestamp::from_micros(verified_at)),
            rejected: self.rejected.load(Ordering::Relaxed),
            strangers: self.strangers.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> (Timestamp, Duration) {
        let since = u64::try_from(seconds).unwrap();
        (Timestamp::from_seconds(1_000 + seconds), Duration::from_secs(since))
    }

    #[test]
    fn rejects_are_said_once_a_minute_with_their_number_while_nothing_verifies() {
        let signing = Signing::default();
        let reject = |seconds| {
            let (now, uptime) = at(seconds);
            signing.rejected(now, uptime)
        };
        assert_eq!([0, 1, 59, 60, 61].map(reject), [Some(1), None, None, Some(4), None]);
        assert_eq!(signing.health(), SigningHealth { rejected: 5, ..SigningHealth::default() });
        assert_eq!(signing.verified(at(70).0), Some(5), "said once");
        assert_eq!(signing.verified(at(71).0), None);
        assert_eq!([72, 130].map(reject), [None, None], "it has verified a moment ago");
        assert_eq!(signing.verified(at(131).0), None, "nobody was told");
        assert_eq!(reject(200), Some(1));
        assert_eq!(signing.verified(at(201).0), Some(1));
        signing.stranger();
        let verified_at = Some(at(201).0);
        assert_eq!(signing.health(), SigningHealth { verified_at, rejected: 0, strangers: 1 });
    }
}
