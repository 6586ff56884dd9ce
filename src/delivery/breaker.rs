//! Circuit breaker of a destination: stops attempts while the destination fails, and probes it.
//! Pure.

use std::time::Duration;

use crate::{clock::Moment, delivery::backoff::spread};

/// Number of destination faults in a row that opens the breaker.
const FAULTS_TO_OPEN: u32 = 5;

/// Pauses before the probes, in seconds; the last one is repeated. A probe of a destination that
/// cannot be reached costs that destination nothing; one that answers gets longer pauses.
const NETWORK_SECONDS: [u64; 4] = [1, 2, 5, 10];
const ANSWERED_SECONDS: [u64; 3] = [5, 10, 30];

/// Shortest pause between the end of a probe and the next one. All other pauses count from the
/// start of the probe, since a probe that ran into its time limit was a pause by itself.
const SHORTEST: Duration = Duration::from_secs(1);

/// While the destination answers probes with faults, one of this many probes does not use the
/// oldest alert, which may be the cause of the faults.
const ANOTHER_EVERY: usize = 4;

/// Kind of a destination fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The destination cannot be reached.
    Network,
    /// The destination answers with a fault, or takes a request and does not answer in time.
    Answered,
}

impl Fault {
    fn pause(self, failed: usize) -> Duration {
        let pauses: &[u64] = match self {
            Self::Network => &NETWORK_SECONDS,
            Self::Answered => &ANSWERED_SECONDS,
        };
        let last = pauses.last();
        pauses.get(failed).or(last).map_or(SHORTEST, |seconds| Duration::from_secs(*seconds))
    }

    /// Returns the longest pause between two probes, before it is spread.
    pub fn longest_pause(self) -> Duration {
        self.pause(usize::MAX)
    }
}

/// Stops attempts at a destination that fails, and lets probes through. While the breaker is open,
/// alerts grow older but use up no attempts.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    faults: u32,
    has_worked: bool,
    open: Option<OpenState>,
}

#[derive(Clone, Copy, Debug)]
struct OpenState {
    since: Moment,
    until: Moment,
    /// Number of failed probes.
    failed: usize,
    fault: Fault,
}

/// Choice of the alert for a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The oldest alert, whether it is due or not.
    Oldest,
    /// The alert that has been due for longest, which in most cases was not tried before.
    Due,
}

impl Breaker {
    /// Returns the number of attempts that may start now: all `free` ones while the breaker is
    /// closed; one probe after the pause if nothing is in flight; none during the pause.
    pub fn capacity(&self, now: Moment, free: usize, in_flight: usize) -> usize {
        match self.open {
            None => free,
            Some(open) if now >= open.until && in_flight == 0 => free.min(1),
            Some(_) => 0,
        }
    }

    /// Returns when a probe may start, if the breaker is open.
    pub fn probe_at(&self) -> Option<Moment> {
        self.open.map(|open| open.until)
    }

    /// Returns since when the breaker is open, if it is.
    pub fn open_since(&self) -> Option<Moment> {
        self.open.map(|open| open.since)
    }

    /// Returns the choice of the alert for the next probe, if the breaker is open.
    pub fn probe(&self) -> Option<Probe> {
        self.open.map(|open| match open.fault {
            Fault::Answered if open.failed % ANOTHER_EVERY == ANOTHER_EVERY - 1 => Probe::Due,
            Fault::Answered | Fault::Network => Probe::Oldest,
        })
    }

    /// Returns whether a fault now would not be the first: the attempt before failed too, or none
    /// has succeeded yet.
    pub fn is_failing(&self) -> bool {
        self.faults > 0 || !self.has_worked
    }

    /// Allows a probe now, because an operator knows that the destination works again.
    pub fn probe_now(&mut self, now: Moment) {
        if let Some(open) = &mut self.open {
            open.until = open.until.min(now);
        }
    }

    /// Records that the destination works. Returns for how long the breaker was open, if it was.
    pub fn success(&mut self, now: Moment) -> Option<Duration> {
        let open = self.open.take();
        *self = Self { faults: 0, has_worked: true, open: None };
        open.map(|open| now.since(open.since))
    }

    /// Records a destination fault of an attempt that began at `began` and ends now. `jitter` is
    /// drawn from `0.0..1.0`. Returns whether the breaker opens.
    pub fn fault(&mut self, fault: Fault, began: Moment, now: Moment, jitter: f64) -> bool {
        self.faults = self.faults.saturating_add(1);
        let (since, failed) = match self.open {
            None if self.faults < FAULTS_TO_OPEN => return false,
            // An attempt from before the breaker opened does not prolong the pause.
            Some(open) if began < open.since => return false,
            None => (now, 0),
            Some(open) => (open.since, open.failed.saturating_add(1)),
        };
        let until =
            (began + spread(fault.pause(failed), jitter)).max(now + spread(SHORTEST, jitter));
        let opens = self.open.is_none();
        self.open = Some(OpenState { since, until, failed, fault });
        opens
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_start(Duration::from_secs(seconds))
    }

    const MIDDLE: f64 = 0.5;

    fn opened(fault: Fault) -> Breaker {
        let mut breaker = Breaker::default();
        for number in 1..=FAULTS_TO_OPEN {
            assert_eq!(breaker.fault(fault, at(0), at(0), MIDDLE), number == FAULTS_TO_OPEN);
        }
        breaker
    }

    #[test]
    fn five_faults_in_a_row_open_it_and_a_success_between_does_not_count() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.fault(Fault::Answered, at(0), at(0), MIDDLE);
        }
        assert_eq!(breaker.success(at(0)), None);
        for _ in 0..4 {
            breaker.fault(Fault::Answered, at(0), at(0), MIDDLE);
        }
        assert_eq!(breaker.capacity(at(0), 4, 0), 4);
        assert!(breaker.fault(Fault::Answered, at(0), at(0), MIDDLE));
        assert_eq!(breaker.capacity(at(0), 4, 0), 0);
        assert_eq!(breaker.probe_at(), Some(at(5)));
    }

    #[test]
    fn one_probe_at_a_time() {
        let breaker = opened(Fault::Network);
        assert_eq!(breaker.capacity(at(0), 4, 0), 0);
        assert_eq!(breaker.capacity(at(1), 4, 0), 1);
        assert_eq!(breaker.capacity(at(1), 4, 1), 0);
    }

    fn pauses(fault: Fault) -> Vec<u64> {
        let mut breaker = opened(fault);
        let mut now = at(0);
        (0..7)
            .map(|_| {
                let until = breaker.probe_at().unwrap();
                let pause = until.since(now).as_secs();
                now = until;
                breaker.fault(fault, now, now, MIDDLE);
                pause
            })
            .collect()
    }

    #[test]
    fn the_probes_come_at_the_documented_times() {
        assert_eq!(pauses(Fault::Network), [1, 2, 5, 10, 10, 10, 10]);
        assert_eq!(pauses(Fault::Answered), [5, 10, 30, 30, 30, 30, 30]);
    }

    #[test]
    fn the_kind_of_the_last_fault_decides_the_length_of_the_pause() {
        let mut breaker = opened(Fault::Answered);
        breaker.fault(Fault::Answered, at(5), at(5), MIDDLE);
        breaker.fault(Fault::Network, at(15), at(15), MIDDLE);
        assert_eq!(breaker.probe_at(), Some(at(20)));
        breaker.fault(Fault::Answered, at(20), at(20), MIDDLE);
        assert_eq!(breaker.probe_at(), Some(at(50)));
    }

    #[test]
    fn a_probe_that_waited_for_its_time_limit_was_a_pause_by_itself() {
        let mut breaker = opened(Fault::Answered);
        for _ in 0..3 {
            breaker.fault(Fault::Answered, at(100), at(115), MIDDLE);
        }
        assert_eq!(breaker.probe_at(), Some(at(130)));
        breaker.fault(Fault::Answered, at(200), at(290), MIDDLE);
        assert_eq!(breaker.probe_at(), Some(at(291)));
    }

    #[test]
    fn late_faults_of_attempts_from_before_do_not_prolong_it() {
        let mut breaker = Breaker::default();
        for _ in 0..FAULTS_TO_OPEN {
            breaker.fault(Fault::Network, at(9), at(10), MIDDLE);
        }
        breaker.fault(Fault::Answered, at(9), at(24), MIDDLE);
        assert_eq!(breaker.probe_at(), Some(at(11)));
    }

    #[test]
    fn a_success_closes_it_at_once_and_tells_how_long_it_was_open() {
        let mut breaker = opened(Fault::Network);
        assert_eq!(breaker.success(at(60)), Some(Duration::from_secs(60)));
        assert_eq!(breaker.capacity(at(60), 4, 0), 4);
        assert!(!breaker.is_failing());
    }

    #[test]
    fn an_operator_need_not_wait_for_the_next_probe() {
        let mut breaker = opened(Fault::Answered);
        breaker.probe_now(at(1));
        assert_eq!(breaker.capacity(at(1), 4, 0), 1);
        breaker.fault(Fault::Answered, at(1), at(1), MIDDLE);
        assert_eq!(breaker.probe_at(), Some(at(11)), "the pauses go on as after any probe");
    }

    #[test]
    fn an_alert_that_the_destination_cannot_bear_does_not_make_every_probe_fail() {
        let mut breaker = opened(Fault::Answered);
        let mut probes = Vec::new();
        for _ in 0..8 {
            probes.push(breaker.probe() == Some(Probe::Due));
            breaker.fault(Fault::Answered, at(100), at(100), MIDDLE);
        }
        assert_eq!(probes, [false, false, false, true, false, false, false, true]);
        breaker.fault(Fault::Network, at(100), at(100), MIDDLE);
        assert_eq!(breaker.probe(), Some(Probe::Oldest));
    }

    proptest! {
        #[test]
        fn there_are_at_most_ten_probes_a_minute_and_the_next_is_never_far(
            steps in proptest::collection::vec((any::<bool>(), 0..5_000_u64, 0.0..1.0_f64), 1..80)
        ) {
            let mut breaker = opened(Fault::Network);
            let mut starts: Vec<Moment> = Vec::new();
            for (is_network, took_ms, jitter) in steps {
                let fault = if is_network { Fault::Network } else { Fault::Answered };
                let began = breaker.probe_at().unwrap();
                let ended = began + Duration::from_millis(took_ms);
                starts.push(began);
                breaker.fault(fault, began, ended, jitter);
                let limit = if is_network { 12 } else { 36 };
                prop_assert!(breaker.probe_at().unwrap() <= began + Duration::from_secs(limit));
            }
            for window in starts.windows(11) {
                prop_assert!(window[10].since(window[0]) > Duration::from_secs(60));
            }
        }
    }
}
