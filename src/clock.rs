//! Time, jitter and random tokens: the only source of time and chance in the program.
//!
//! Code that waits or looks at a clock takes a [`Clock`]; tests pass one that they move by hand.
//! Nothing else may call `SystemTime::now`, `Instant::now` or a `sleep`.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt,
    ops::{Add, Sub},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::sync::Notify;

/// A time of day: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

impl Timestamp {
    /// Returns the time that many microseconds after the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the time that many whole seconds after the epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Returns microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Returns whole milliseconds since the epoch, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Returns whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Returns seconds since the epoch, for a metric.
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a metric is a float")]
    pub fn seconds_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Returns the time since `earlier`, or zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Formats a duration in its largest unit: `42s`, `7m`, `3h`, `12d`.
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(slack_soar_relay::clock::rough(Duration::from_secs(7_260)), "2h");
/// ```
pub fn rough(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
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

/// Serializes the form that is displayed.
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

/// A point on the monotonic clock: the time since the process began. Waits are measured with it, so
/// that a correction of the time of day neither prolongs nor shortens them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// Returns the moment at which that much time has passed.
    pub const fn from_start(passed: Duration) -> Self {
        Self(passed)
    }

    /// Returns the time since `earlier`, or zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Time for which a time of day must keep step with the monotonic clock before anything that cannot
/// be undone depends on it.
pub const STEADY_AFTER: Duration = Duration::from_secs(5 * 60);

/// Distance below which looks count as one.
const LOOK_APART: Duration = Duration::from_secs(10);

/// Tells from repeated looks how far a time of day may be believed.
///
/// A clock that is set wrong for a minute must not age anything by days. Of all the looks in the
/// last [`STEADY_AFTER`] each says what time it would be now, had the clock kept step since then;
/// the earliest of these is believed. A step forward counts only once it has lasted that long, and
/// a step back counts at once: nothing is ever taken to be older than two looks agree that it is.
///
/// ```
/// use std::time::Duration;
/// use slack_soar_relay::clock::{Moment, STEADY_AFTER, SteadyTime, Timestamp};
/// let mut steady = SteadyTime::default();
/// let (start, hour) = (Timestamp::from_seconds(1_000_000), Duration::from_secs(3600));
/// steady.look(Moment::default(), start);
/// let minute = Duration::from_secs(60);
/// let wrong = start + minute + hour;
/// assert_eq!(steady.look(Moment::from_start(minute), wrong).until, start + minute);
/// let lasting = wrong + STEADY_AFTER;
/// assert_eq!(steady.look(Moment::from_start(minute + STEADY_AFTER), lasting).until, lasting);
/// ```
#[derive(Clone, Debug, Default)]
pub struct SteadyTime {
    began: Option<Moment>,
    /// Looks of the last [`STEADY_AFTER`] and the one before them, oldest first. Each holds the
    /// time of day at which the process would have begun by that look, in microseconds.
    looks: VecDeque<(Moment, i64)>,
}

/// The range of times of day that may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteadySpan {
    /// Time before which nothing may be called old yet; `None` once the looks cover
    /// [`STEADY_AFTER`].
    pub from: Option<Timestamp>,
    /// Time of day, as far as it is believed.
    pub until: Timestamp,
}

impl SteadyTime {
    /// Looks at a clock that shows `wall` at the moment `now`. Returns the range that may be
    /// believed.
    pub fn look(&mut self, now: Moment, wall: Timestamp) -> SteadySpan {
        let passed = |moment: Moment| i64::try_from(moment.0.as_micros()).unwrap_or(i64::MAX);
        let began = *self.began.get_or_insert(now);
        let start = wall.0.saturating_sub(passed(now));
        match self.looks.back_mut() {
            // The lowest of the looks that count as one.
            Some((at, lowest)) if now.since(*at) < LOOK_APART => *lowest = start.min(*lowest),
            Some(_) | None => self.looks.push_back((now, start)),
        }
        // The newest look that is old enough stays: it is the first of the two that must agree.
        while self.looks.get(1).is_some_and(|(at, _)| now.since(*at) >= STEADY_AFTER) {
            self.looks.pop_front();
        }
        let lowest = self.looks.iter().map(|(_, start)| *start).min().unwrap_or(start);
        let at = |moment| Timestamp(lowest.saturating_add(passed(moment)));
        let is_steady = now.since(began) >= STEADY_AFTER;
        SteadySpan { from: (!is_steady).then(|| at(began)), until: at(now) }
    }

    /// Returns the time of day at `now`, as far as the looks so far let it be believed, or `None`
    /// before the first look. A step back since the last look is not known yet.
    pub fn until(&self, now: Moment) -> Option<Timestamp> {
        let passed = i64::try_from(now.0.as_micros()).unwrap_or(i64::MAX);
        let lowest = self.looks.iter().map(|(_, start)| *start).min()?;
        Some(Timestamp(lowest.saturating_add(passed)))
    }
}

/// Source of time, waits and chance. Cheap to clone.
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
    /// Microseconds by which the clock was advanced.
    passed: AtomicU64,
    moved: Notify,
}

/// Time at which the process first looked at a clock.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock {
    /// Returns the machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Returns a clock that stands still until [`Clock::advance`], with a jitter of 0.5 each time.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Manual {
            now: AtomicI64::new(start.micros()),
            passed: AtomicU64::new(0),
            moved: Notify::new(),
        })))
    }

    /// Lets time pass on a manual clock and wakes every wait that is over. Does nothing on the
    /// machine's clock.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
            manual.passed.fetch_add(micros, Ordering::SeqCst);
            let moved = self.now() + by;
            manual.now.store(moved.micros(), Ordering::SeqCst);
            manual.moved.notify_waiters();
        }
    }

    /// Sets a manual clock to another time of day without letting time pass, as a correction of the
    /// machine's clock does. Does nothing on the machine's clock.
    pub fn jump(&self, to: Timestamp) {
        if let Source::Manual(manual) = &self.0 {
            manual.now.store(to.micros(), Ordering::SeqCst);
        }
    }

    /// Returns the time of day.
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

    /// Returns the time that was set by hand, or `None` on the machine's clock. A store that shares
    /// its data with other machines uses its engine's clock, unless time is set by hand.
    pub fn set_by_hand(&self) -> Option<Timestamp> {
        matches!(self.0, Source::Manual(_)).then(|| self.now())
    }

    /// Returns an instant to measure from, unmoved by a correction of the time of day.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Returns the current moment, unmoved by a correction of the time of day.
    pub fn moment(&self) -> Moment {
        match &self.0 {
            Source::System => Moment(self.instant().saturating_duration_since(*START)),
            Source::Manual(manual) => {
                Moment(Duration::from_micros(manual.passed.load(Ordering::SeqCst)))
            }
        }
    }

    /// Returns the time that has passed, as [`Clock::moment`] counts.
    pub fn uptime(&self) -> Duration {
        self.moment().since(Moment::default())
    }

    /// Waits for as long as the time of day `at` is away. A correction meanwhile changes nothing.
    pub async fn sleep_until(&self, at: Timestamp) {
        self.sleep(at.since(self.now())).await;
    }

    /// Waits for that long.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_to(self.moment() + duration).await;
    }

    /// Waits until that moment.
    #[expect(clippy::disallowed_methods, reason = "the one idle wait")]
    pub async fn sleep_to(&self, end: Moment) {
        match &self.0 {
            Source::System => tokio::time::sleep(end.since(self.moment())).await,
            Source::Manual(manual) => loop {
                let moved = manual.moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                if self.moment() >= end {
                    return;
                }
                moved.await;
            },
        }
    }

    /// Returns a number from `0.0` up to, not including, `1.0`, to spread retries.
    pub fn jitter(&self) -> f64 {
        match &self.0 {
            Source::System => fastrand::f64(),
            Source::Manual(_) => 0.5,
        }
    }

    /// Returns a random number that no two leases share. Not for secrets.
    pub fn token(&self) -> u64 {
        fastrand::u64(1..)
    }
}

/// A limit for work that is done at most once in a while, such as logging what strangers can cause.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    /// Returns a limit that is due at once, and then again after each `pause`.
    pub const fn every(every: Duration) -> Self {
        Self { every, last: Mutex::new(None) }
    }

    /// Returns `true` if the work is due now; the caller then does it.
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

    #[tokio::test]
    async fn a_jump_of_the_time_of_day_neither_prolongs_nor_shortens_a_wait() {
        let clock = Clock::manual(Timestamp::from_seconds(1_000_000));
        let minute = Duration::from_secs(60);
        let sleeper = clock.sleep_until(clock.now() + minute);
        tokio::pin!(sleeper);
        assert!(is_pending(sleeper.as_mut()).await);
        clock.jump(clock.now() + 100 * minute);
        clock.advance(minute / 2);
        assert!(is_pending(sleeper.as_mut()).await, "a jump is not time");
        clock.jump(Timestamp::from_seconds(0));
        clock.advance(minute / 2);
        sleeper.await;
    }

    async fn is_pending(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        tokio::select! {
            biased;
            () = future => false,
            () = std::future::ready(()) => true,
        }
    }

    /// Returns a clock that is off by `seconds` from a moment on.
    type Schedule = Vec<(u64, i64)>;

    fn walk(schedule: &Schedule) -> Vec<(Moment, Timestamp, SteadySpan)> {
        let mut steady = SteadyTime::default();
        let (mut passed, mut spans) = (0, Vec::new());
        for (wait, off) in schedule {
            passed += wait;
            let now = Moment(Duration::from_secs(passed));
            let wall =
                Timestamp::from_seconds(1_000_000_000 + i64::try_from(passed).unwrap() + off);
            spans.push((now, wall, steady.look(now, wall)));
        }
        spans
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_called_older_than_two_looks_minutes_apart_agree_that_it_is(
            schedule in proptest::collection::vec((1..400_u64, -1_000_000..1_000_000_i64), 1..40)
        ) {
            let looks = walk(&schedule);
            for (last, (now, wall, span)) in looks.iter().enumerate() {
                proptest::prop_assert!(span.until <= *wall, "a step back counts at once");
                for (at, shown, _) in &looks[..last] {
                    let kept_step = *shown + now.since(*at);
                    proptest::prop_assert!(
                        now.since(*at) > STEADY_AFTER || span.until <= kept_step,
                        "a step forward counts only once it has lasted"
                    );
                }
                let covered = now.since(looks[0].0) >= STEADY_AFTER;
                proptest::prop_assert_eq!(span.from.is_none(), covered);
            }
        }

        #[test]
        fn a_clock_that_keeps_step_is_believed_to_the_microsecond(
            waits in proptest::collection::vec(1..400_u64, 1..40), off in -1_000_000..1_000_000_i64
        ) {
            let looks = walk(&waits.into_iter().map(|wait| (wait, off)).collect());
            for (now, wall, span) in &looks {
                proptest::prop_assert_eq!(span.until, *wall);
                let (began, first, _) = looks[0];
                let expected = (now.since(began) < STEADY_AFTER).then_some(first);
                proptest::prop_assert_eq!(span.from, expected);
            }
        }
    }

    #[test]
    fn four_days_ahead_for_a_minute_age_nothing_and_many_looks_cost_little() {
        let mut steady = SteadyTime::default();
        let start = Timestamp::from_seconds(1_000_000_000);
        let days = Duration::from_secs(4 * 86_400);
        for passed in (0..3_600).map(Duration::from_secs) {
            let wrong = passed.as_secs() / 60 == 20;
            let wall = start + passed + if wrong { days } else { Duration::ZERO };
            assert_eq!(steady.look(Moment(passed), wall).until, start + passed);
            assert!(steady.looks.len() <= 32, "{}", steady.looks.len());
        }
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

    #[test]
    fn ages_are_short() {
        let age = |seconds| rough(Duration::from_secs(seconds));
        assert_eq!([age(0), age(59), age(60)], ["0s", "59s", "1m"]);
        assert_eq!([age(7_200), age(172_800)], ["2h", "2d"]);
    }
}
