//! The present time by two clocks, either of which may be wrong. Pure.
//!
//! There are three witnesses: our own time of day, Slack's `Date`, and the time believed before
//! plus the time that has passed since. A time is believed if two of them agree. A `Date` that
//! stands alone is believed once it has been steady for some minutes: clocks of our own that nobody
//! sets are common, and a server of Slack's that is always wrong is not.

use std::time::Duration;

use crate::clock::Timestamp;

/// Distance up to which two clocks agree. Far below the 300 s at which every push is refused.
pub(super) const TOLERANCE: Duration = Duration::from_secs(60);

/// Time for which an unconfirmed `Date` must be steady before it is believed.
const STEADY: Duration = Duration::from_secs(300);

/// A time of day at a value of [`Clock::uptime`](crate::clock::Clock::uptime), from which it goes
/// on without a leap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    time: Timestamp,
    uptime: Duration,
}

impl Mark {
    fn at(self, uptime: Duration) -> Timestamp {
        self.time + uptime.saturating_sub(self.uptime)
    }
}

/// Present time, as the witnesses give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Earliest time given. A cursor is never later than this.
    pub earliest: Timestamp,
    /// Latest time given. Reading further than there are messages does no harm.
    pub latest: Timestamp,
    /// Time that is believed; `None` while the witnesses contradict each other.
    pub believed: Option<Timestamp>,
    /// Our clock minus Slack's in seconds, by Slack's newest answer; `None` before the first one.
    pub skew_seconds: Option<i64>,
}

/// Times that the witnesses have given so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    /// Newest `Date` of Slack's.
    date: Option<Mark>,
    believed: Option<Mark>,
    /// First of a row of answers that agree with each other and with no other clock.
    alone: Option<Mark>,
}

impl Clocks {
    /// Notes the `Date` of an answer; `own` is our time of day.
    pub fn note(&mut self, date: Timestamp, own: Timestamp, uptime: Duration) {
        let mark = Mark { time: date, uptime };
        self.date = Some(mark);
        let agrees = |other: Timestamp| apart(date, other) <= TOLERANCE;
        if agrees(own) || self.believed.is_some_and(|believed| agrees(believed.at(uptime))) {
            (self.believed, self.alone) = (Some(mark), None);
            return;
        }
        match self.alone {
            Some(first) if agrees(first.at(uptime)) => {
                if uptime.saturating_sub(first.uptime) >= STEADY {
                    (self.believed, self.alone) = (Some(mark), None);
                }
            }
            Some(_) | None => self.alone = Some(mark),
        }
    }

    /// Returns Slack's time, by its newest answer.
    pub fn slack(&self, uptime: Duration) -> Option<Timestamp> {
        self.date.map(|date| date.at(uptime))
    }

    /// Returns the present time; `own` is our time of day.
    pub fn now(&self, own: Timestamp, uptime: Duration) -> Moment {
        let slack = self.slack(uptime);
        let believed = self.believed.map(|believed| believed.at(uptime));
        let all = || [Some(own), slack, believed].into_iter().flatten();
        Moment {
            earliest: all().min().unwrap_or(own),
            latest: all().max().unwrap_or(own),
            // Until Slack has answered there is no other clock to compare with.
            believed: believed.or(if slack.is_none() { Some(own) } else { None }),
            skew_seconds: slack.map(|slack| own.seconds() - slack.seconds()),
        }
    }
}

/// Returns the distance of two times.
fn apart(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}

impl Moment {
    /// Returns whether our clock and Slack's are so far apart that a person should look.
    pub fn is_contradictory(&self) -> bool {
        let tolerance = i64::try_from(TOLERANCE.as_secs()).unwrap_or(i64::MAX);
        self.skew_seconds.is_some_and(|skew| skew.abs() >= tolerance)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3600;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_000_000 + seconds)
    }

    fn up(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn after(notes: &[(i64, i64, u64)]) -> Clocks {
        let mut times = Clocks::default();
        for (date, own, uptime) in notes {
            times.note(at(*date), at(*own), up(*uptime));
        }
        times
    }

    #[test]
    fn without_an_answer_our_own_clock_is_all_there_is() {
        let now = Clocks::default().now(at(7), up(7));
        let expected = (at(7), at(7), Some(at(7)), None);
        assert_eq!((now.earliest, now.latest, now.believed, now.skew_seconds), expected);
    }

    #[test]
    fn a_date_that_stands_alone_is_not_believed_and_nothing_later_than_the_others_is_kept() {
        let times = after(&[(0, 0, 0), (10 + 10 * 24 * HOUR, 10, 10), (20 + HOUR, 20, 20)]);
        let now = times.now(at(25), up(25));
        assert_eq!((now.earliest, now.believed), (at(25), Some(at(25))));
        assert_eq!(now.latest, at(25 + HOUR));
        assert!(now.is_contradictory());
    }

    #[test]
    fn our_own_clock_that_leaps_is_outvoted() {
        let times = after(&[(0, 0, 0)]);
        for leap in [24 * HOUR, -24 * HOUR] {
            let now = times.now(at(10 + leap), up(10));
            assert_eq!(now.believed, Some(at(10)));
            assert!(now.earliest <= at(10) && now.latest >= at(10));
        }
    }

    #[test]
    fn at_the_start_two_clocks_far_apart_are_in_doubt_until_one_gives_way_or_slacks_holds() {
        let doubt = after(&[(0, 24 * HOUR, 0)]);
        assert_eq!(doubt.now(at(24 * HOUR), up(0)).believed, None);
        let mended = after(&[(0, 24 * HOUR, 0), (4, 4, 4)]);
        assert_eq!(mended.now(at(5), up(5)).believed, Some(at(5)));
        let steady = after(&[(0, 600, 0), (100, 700, 100), (300, 900, 300)]);
        assert_eq!(steady.now(at(901), up(301)).believed, Some(at(301)));
    }

    #[test]
    fn after_the_machine_slept_both_clocks_outvote_the_time_that_passed() {
        let mut times = after(&[(0, 0, 0)]);
        assert_eq!(times.now(at(HOUR), up(1)).latest, at(HOUR), "it is read up to now at once");
        times.note(at(HOUR), at(HOUR), up(2));
        assert_eq!(times.now(at(HOUR), up(2)).believed, Some(at(HOUR)));
    }

    proptest! {
        #[test]
        fn while_one_clock_is_right_nothing_kept_is_late_and_nothing_is_left_unread(
            faults in prop::collection::vec((any::<bool>(), -900_000_i64..900_000), 1..60),
        ) {
            let mut times = Clocks::default();
            for (n, (is_slacks, error)) in faults.into_iter().enumerate() {
                let true_seconds = i64::try_from(n).unwrap() * 60;
                let uptime = up(u64::try_from(n).unwrap() * 60);
                let (date, own) = if is_slacks { (error, 0) } else { (0, error) };
                times.note(at(true_seconds + date), at(true_seconds + own), uptime);
                let now = times.now(at(true_seconds + own), uptime);
                prop_assert!(now.earliest <= at(true_seconds));
                prop_assert!(now.latest >= at(true_seconds));
            }
        }
    }
}
