//! Schedule of attempts: the wait before the next one. Pure.

use std::time::Duration;

/// First waits in seconds, short because most failures are short. After the last, each wait
/// doubles.
const FIRST_SECONDS: [u64; 6] = [1, 2, 5, 10, 30, 60];

/// Longest wait: a destination that recovers gets its alerts within a quarter of an hour.
pub const MAX: Duration = Duration::from_secs(15 * 60);

/// Shortest wait after a 429 without `Retry-After`.
pub const THROTTLED: Duration = Duration::from_secs(60);

/// Part of a wait that is random, so that retries do not come in waves.
const SPREAD: f64 = 0.2;

/// Returns the wait after `failed` failures in a row (1 after the first), spread by `jitter`, which
/// is drawn from `0.0..1.0`.
///
/// ```
/// use std::time::Duration;
/// use slack_soar_relay::delivery::backoff::delay;
/// assert_eq!(delay(1, 0.5), Duration::from_secs(1));
/// assert_eq!(delay(7, 0.5), Duration::from_secs(120));
/// assert_eq!(delay(1, 0.0), Duration::from_millis(800));
/// ```
pub fn delay(failed: u32, jitter: f64) -> Duration {
    let step = usize::try_from(failed.saturating_sub(1)).unwrap_or(usize::MAX);
    let base = FIRST_SECONDS.get(step).map_or_else(
        || {
            let doublings = u32::try_from(step - FIRST_SECONDS.len() + 1).unwrap_or(u32::MAX);
            Duration::from_secs(60).saturating_mul(2_u32.saturating_pow(doublings)).min(MAX)
        },
        |seconds| Duration::from_secs(*seconds),
    );
    spread(base, jitter)
}

/// Makes a wait up to 20 % shorter or longer by `jitter`, which is drawn from `0.0..1.0`.
pub fn spread(wait: Duration, jitter: f64) -> Duration {
    wait.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_schedule_is_the_documented_one() {
        let seconds: Vec<u64> = (1..=12).map(|failed| delay(failed, 0.5).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 5, 10, 30, 60, 120, 240, 480, 900, 900, 900]);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_zero_and_never_beyond_its_spread(
            failed in any::<u32>(), jitter in 0.0..1.0_f64
        ) {
            let wait = delay(failed, jitter);
            prop_assert!(wait >= Duration::from_millis(800));
            prop_assert!(wait <= MAX.mul_f64(1.0 + SPREAD));
        }
    }
}
