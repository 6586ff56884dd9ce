//! Counts of valid and invalid signatures of requests to one app.
//!
//! Only a request whose two headers are well formed and recent may be one of Slack's, made with
//! another signing secret than ours. All others are strangers': counted, and never warned about.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::clock::Timestamp;

/// Pause between two warnings about invalid signatures. If a valid one has come in the meantime,
/// there is nothing to warn about: the secret is right, and other signers are strangers.
const PAUSE: Duration = Duration::from_secs(60);

/// Health of an app's request signatures, as an operator sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigningHealth {
    /// Time of the last request with a valid signature.
    pub verified_at: Option<Timestamp>,
    /// Number of well-formed, recent requests with a wrong signature since then, or since the
    /// start.
    pub rejected: u64,
    /// Number of requests without well-formed, recent headers since the start.
    pub strangers: u64,
}

/// Counts of valid and invalid signatures of requests to one app.
#[derive(Debug)]
pub(super) struct SigningStats {
    /// Time of the last valid signature in microseconds; `i64::MIN` if there was none.
    verified_at: AtomicI64,
    rejected: AtomicU64,
    strangers: AtomicU64,
    /// Uptime at the last warning.
    warned_at: Mutex<Option<Duration>>,
}

impl Default for SigningStats {
    fn default() -> Self {
        Self {
            verified_at: AtomicI64::new(i64::MIN),
            rejected: AtomicU64::new(0),
            strangers: AtomicU64::new(0),
            warned_at: Mutex::new(None),
        }
    }
}

impl SigningStats {
    /// Notes a valid signature. Returns the number of wrong ones since the last valid one if that
    /// is worth a log line: this is the first valid one, or there was a warning.
    pub(super) fn note_verified(&self, now: Timestamp) -> Option<u64> {
        let before = self.verified_at.swap(now.micros(), Ordering::Relaxed);
        let is_first = before == i64::MIN;
        if !is_first && self.rejected.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let rejected = self.rejected.swap(0, Ordering::Relaxed);
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        (warned_at.take().is_some() || is_first).then_some(rejected)
    }

    /// Notes a wrong signature on a request that may be Slack's. Returns the number of them since
    /// the last valid one if a warning is due. Pauses between warnings are measured by `uptime`.
    pub(super) fn note_rejected(&self, now: Timestamp, uptime: Duration) -> Option<u64> {
        let rejected = self.rejected.fetch_add(1, Ordering::Relaxed) + 1;
        let is_verified = self.health().verified_at.is_some_and(|at| now.since(at) < PAUSE);
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_warned = warned_at.is_some_and(|at| uptime.saturating_sub(at) < PAUSE);
        if is_verified || is_warned {
            return None;
        }
        *warned_at = Some(uptime);
        Some(rejected)
    }

    /// Notes a request that cannot be Slack's.
    pub(super) fn note_stranger(&self) {
        self.strangers.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the present counts.
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
    fn wrong_signatures_are_warned_about_once_a_minute_while_none_is_valid() {
        let signing = SigningStats::default();
        let reject = |seconds| {
            let (now, uptime) = at(seconds);
            signing.note_rejected(now, uptime)
        };
        assert_eq!([0, 1, 59, 60, 61].map(reject), [Some(1), None, None, Some(4), None]);
        assert_eq!(signing.health(), SigningHealth { rejected: 5, ..SigningHealth::default() });
        assert_eq!(signing.note_verified(at(70).0), Some(5), "there was a warning");
        assert_eq!(signing.note_verified(at(71).0), None);
        assert_eq!([72, 130].map(reject), [None, None], "one was valid a moment ago");
        assert_eq!(signing.note_verified(at(131).0), None, "there was no warning");
        assert_eq!(reject(200), Some(1));
        assert_eq!(signing.note_verified(at(201).0), Some(1));
        signing.note_stranger();
        let verified_at = Some(at(201).0);
        assert_eq!(signing.health(), SigningHealth { verified_at, rejected: 0, strangers: 1 });
    }
}
