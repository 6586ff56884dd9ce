//! Time, jitter and random tokens: the only door through which the program meets chance.
//!
//! Everything that waits or looks at a clock is handed a [`Clock`]; tests hand in one that they
//! move by hand. Nothing else may call `SystemTime::now`, `Instant::now` or a `sleep`.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::sync::Notify;

/// A moment: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment that many microseconds after the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// The moment that many whole seconds after the epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since the epoch, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Seconds since the epoch, for a metric.
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a metric is a float")]
    pub fn seconds_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// RFC 3339 in UTC, to the millisecond: `2020-09-21T12:05:44.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(moment) => write!(f, "{moment:.3}"),
            Err(_beyond_year_9999) => write!(f, "{} s after 1970", self.seconds()),
        }
    }
}

/// As it is displayed.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let moment: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        Ok(Self(moment.as_microsecond()))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

/// The time of day, waiting, and chance. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    now: AtomicI64,
    moved: Notify,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`]. Its jitter is always 0.5.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Manual {
            now: AtomicI64::new(start.micros()),
            moved: Notify::new(),
        })))
    }

    /// Moves a manual clock forward and wakes whoever waits for a moment that is now past.
    /// The machine's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            let moved = self.now() + by;
            manual.now.store(moved.micros(), Ordering::SeqCst);
            manual.moved.notify_waiters();
        }
    }

    /// The time of day.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
            }
            Source::Manual(manual) => Timestamp(manual.now.load(Ordering::SeqCst)),
        }
    }

    /// The time that was set by hand, or `None` if this is the machine's clock. A store that shares
    /// its data with other machines uses its engine's clock, unless time is set by hand.
    pub fn set_by_hand(&self) -> Option<Timestamp> {
        matches!(self.0, Source::Manual(_)).then(|| self.now())
    }

    /// A moment to measure from, unmoved by a correction of the time of day.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Waits until the time of day is `at` or later.
    #[expect(clippy::disallowed_methods, reason = "the one idle wait")]
    pub async fn sleep_until(&self, at: Timestamp) {
        match &self.0 {
            Source::System => tokio::time::sleep(at.since(self.now())).await,
            Source::Manual(manual) => loop {
                let moved = manual.moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                if self.now() >= at {
                    return;
                }
                moved.await;
            },
        }
    }

    /// Waits that long.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }

    /// A number from `0.0` up to, not including, `1.0`, to spread retries.
    pub fn jitter(&self) -> f64 {
        match &self.0 {
            Source::System => fastrand::f64(),
            Source::Manual(_) => 0.5,
        }
    }

    /// A random number that two leases do not share. Not for secrets.
    pub fn token(&self) -> u64 {
        fastrand::u64(1..)
    }
}

/// Lets something be done at most once in a while, such as logging what strangers can cause.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    /// Returns one that is due at once, and then not before that much time has passed.
    pub const fn every(every: Duration) -> Self {
        Self { every, last: Mutex::new(None) }
    }

    /// Returns whether it is due at this moment; if so, the caller does it now.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= self.every);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_seldom_is_due_at_once_and_then_after_a_while() {
        let start = Clock::system().instant();
        let seldom = Seldom::every(Duration::from_secs(60));
        let after = |seconds| seldom.is_due(start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 59, 60, 61].map(after), [true, false, false, true, false]);
    }

    #[tokio::test]
    async fn a_manual_clock_wakes_the_sleeper_when_it_passes_the_moment() {
        let clock = Clock::manual(Timestamp::from_seconds(1_000));
        let waiting = clock.clone();
        let at = clock.now() + Duration::from_secs(60);
        let sleeper = async move { waiting.sleep_until(at).await };
        let mover = async {
            clock.advance(Duration::from_secs(59));
            tokio::task::yield_now().await;
            clock.advance(Duration::from_secs(1));
        };
        tokio::join!(sleeper, mover);
        assert_eq!(clock.now(), Timestamp::from_seconds(1_060));
    }

    #[test]
    fn a_moment_reads_as_rfc_3339() {
        let moment = Timestamp::from_micros(1_600_689_944_000_500);
        assert_eq!(moment.to_string(), "2020-09-21T12:05:44.000Z");
        let json = serde_json::to_string(&Timestamp::from_seconds(1_600_689_944)).unwrap();
        assert_eq!(json, "\"2020-09-21T12:05:44.000Z\"");
        let back: Timestamp = serde_json::from_str(&json).unwrap();
        assert_eq!(back, Timestamp::from_seconds(1_600_689_944));
    }

    #[test]
    fn since_never_goes_below_zero() {
        let (early, late) = (Timestamp::from_seconds(1), Timestamp::from_seconds(3));
        assert_eq!(late.since(early), Duration::from_secs(2));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
