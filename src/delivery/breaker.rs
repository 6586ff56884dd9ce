//! When to leave a destination alone, and whose fault a row of refusals is. Pure.

use std::{collections::VecDeque, time::Duration};

use crate::{clock::Timestamp, ids::AlertId};

/// So many destination faults in a row open the breaker.
const FAULTS_TO_OPEN: u32 = 5;

/// The first time that a breaker stays open; each failed probe doubles it.
const FIRST_OPEN: Duration = Duration::from_secs(30);

/// The longest time between two probes.
const MAX_OPEN: Duration = Duration::from_secs(5 * 60);

/// Stops attempts at a destination that fails, and probes it from time to time. Open time costs the
/// alerts age, but no attempts.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    faults: u32,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Timestamp,
    period: Duration,
}

impl Breaker {
    /// How many more attempts may start now: all `free` ones while closed; one probe, if nothing
    /// is in flight, once the time is up; none before.
    pub fn capacity(&self, now: Timestamp, free: usize, in_flight: usize) -> usize {
        match self.open {
            None => free,
            Some(open) if open.is_over(now) && in_flight == 0 => free.min(1),
            Some(_) => 0,
        }
    }

    /// When a probe may start, if the breaker is open.
    pub fn probe_at(&self) -> Option<Timestamp> {
        self.open.map(|open| open.until)
    }

    /// Somebody knows that the destination is well again: a probe may start now.
    pub fn probe_now(&mut self, now: Timestamp) {
        if let Some(open) = &mut self.open {
            open.until = open.until.min(now);
        }
    }

    /// The destination works.
    pub fn success(&mut self) {
        *self = Self::default();
    }

    /// The destination is at fault. Faults of attempts that began before the breaker opened do not
    /// prolong it.
    pub fn fault(&mut self, now: Timestamp) {
        self.faults = self.faults.saturating_add(1);
        self.open = match self.open {
            None if self.faults < FAULTS_TO_OPEN => None,
            None => Some(Open { until: now + FIRST_OPEN, period: FIRST_OPEN }),
            Some(open) if !open.is_over(now) => Some(open),
            Some(open) => {
                let period = open.period.saturating_mul(2).min(MAX_OPEN);
                Some(Open { until: now + period, period })
            }
        };
    }
}

impl Open {
    /// If its end is far further away than it ever was, the clock has been set back. Not at the
    /// first microsecond: who asks may have looked at the clock before it was opened.
    fn is_over(self, now: Timestamp) -> bool {
        now >= self.until || self.until.since(now) > self.period * 2
    }
}

/// How many alerts are looked back on.
const RECENT: usize = 20;

/// The last distinct alerts of a destination, and whether each was refused through its own fault.
/// If most were, it is no alert's fault: the destination's schema or our preset is wrong.
#[derive(Clone, Debug, Default)]
pub struct RecentAlerts(VecDeque<(AlertId, bool)>);

impl RecentAlerts {
    /// Remembers an alert's newest result.
    pub fn note(&mut self, alert: &AlertId, refused: bool) {
        self.0.retain(|(known, _)| known != alert);
        self.0.push_back((alert.clone(), refused));
        if self.0.len() > RECENT {
            self.0.pop_front();
        }
    }

    /// Whether more than half of the last 20 distinct alerts were refused.
    pub fn mostly_refused(&self) -> bool {
        self.0.iter().filter(|(_, refused)| *refused).count() > RECENT / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_seconds(1_000);

    fn after(seconds: u64) -> Timestamp {
        START + Duration::from_secs(seconds)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAULTS_TO_OPEN {
            breaker.fault(START);
        }
        breaker
    }

    #[test]
    fn five_faults_in_a_row_open_it_and_a_success_between_does_not_count() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.fault(START);
        }
        breaker.success();
        for _ in 0..4 {
            breaker.fault(START);
        }
        assert_eq!(breaker.capacity(START, 4, 0), 4);
        breaker.fault(START);
        assert_eq!(breaker.capacity(START, 4, 0), 0);
        assert_eq!(breaker.probe_at(), Some(after(30)));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_it_open() {
        let breaker = opened();
        assert_eq!(breaker.capacity(START - Duration::from_secs(31), 4, 0), 1);
        assert_eq!(breaker.capacity(START - Duration::from_secs(30), 4, 0), 0);
        assert_eq!(breaker.capacity(START, 4, 0), 0);
    }

    #[test]
    fn one_probe_at_a_time() {
        let breaker = opened();
        assert_eq!(breaker.capacity(after(29), 4, 0), 0);
        assert_eq!(breaker.capacity(after(30), 4, 0), 1);
        assert_eq!(breaker.capacity(after(30), 4, 1), 0);
    }

    #[test]
    fn failed_probes_double_the_pause_up_to_five_minutes() {
        let mut breaker = opened();
        let mut pauses = Vec::new();
        let mut now = START;
        for _ in 0..6 {
            let until = breaker.probe_at().unwrap();
            pauses.push(until.since(now).as_secs());
            now = until;
            breaker.fault(now);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 300, 300]);
    }

    #[test]
    fn late_faults_of_attempts_from_before_do_not_prolong_it() {
        let mut breaker = opened();
        breaker.fault(after(10));
        assert_eq!(breaker.probe_at(), Some(after(30)));
    }

    #[test]
    fn a_success_closes_it_at_once() {
        let mut breaker = opened();
        breaker.success();
        assert_eq!(breaker.capacity(after(1), 4, 0), 4);
    }

    #[test]
    fn an_operator_need_not_wait_for_the_next_probe() {
        let mut breaker = opened();
        breaker.probe_now(after(1));
        assert_eq!(breaker.capacity(after(1), 4, 0), 1);
        breaker.fault(after(1));
        assert_eq!(breaker.probe_at(), Some(after(61)), "the pause doubles as for any probe");
    }

    #[test]
    fn eleven_of_twenty_refused_alerts_are_the_destinations_fault() {
        let id = |n: u32| format!("main:C1:{n}.0:0").parse::<AlertId>().unwrap();
        let mut recent = RecentAlerts::default();
        for n in 0..10 {
            recent.note(&id(n), true);
            recent.note(&id(n), true);
        }
        assert!(!recent.mostly_refused(), "the same alert again is not another alert");
        recent.note(&id(10), true);
        assert!(recent.mostly_refused());
        for n in 11..21 {
            recent.note(&id(n), false);
        }
        assert!(!recent.mostly_refused());
    }
}
