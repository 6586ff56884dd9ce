//! Pauses of a poller. Pure.

use std::time::Duration;

/// Shortest time between two extra readings or two questions about one thing, however many events
/// ask for them.
pub(super) const EXTRA_GAP: Duration = Duration::from_secs(10);

/// Pause after a failure that only a person can mend, such as a missing scope.
pub(super) const SLOW_RETRY: Duration = Duration::from_secs(600);

/// Attempts at one request before the window is given up.
pub(super) const TRIES: u32 = 8;

const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Returns the pause after a number of failures in a row: 1, 2, 4 .. 60 s.
pub(super) fn backoff(failed: u32) -> Duration {
    BACKOFF.saturating_mul(1 << failed.saturating_sub(1).min(6)).min(BACKOFF_MAX)
}
