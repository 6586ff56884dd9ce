//! Rate limit of one method. Pure.

use std::{collections::VecDeque, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);

/// A bucket with the calls of one minute. They may be taken all at once; each comes back a minute
/// after it was taken, so that no minute ever sees more of them. Times are those of
/// [`Clock::uptime`](crate::clock::Clock::uptime), which a correction of the time of day does not
/// move.
#[derive(Debug)]
pub(super) struct Throttle {
    allowance: usize,
    taken: VecDeque<Duration>,
    blocked_until: Duration,
}

impl Throttle {
    pub(super) fn new(allowance: usize) -> Self {
        Self { allowance, taken: VecDeque::new(), blocked_until: Duration::ZERO }
    }

    /// Takes a call. Returns the time of the next one if there is none.
    pub(super) fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.taken.retain(|at| *at + MINUTE > now);
        if self.blocked_until > now {
            return Err(self.blocked_until);
        }
        let over = (self.taken.len() + 1).saturating_sub(self.allowance);
        if let Some(at) = over.checked_sub(1).and_then(|last| self.taken.get(last)) {
            return Err(*at + MINUTE);
        }
        self.taken.push_back(now);
        Ok(())
    }

    /// Notes the end of the call taken at that time. Slack counted the call at some time in
    /// between, so it comes back a minute after its end.
    pub(super) fn end(&mut self, taken: Duration, now: Duration) {
        if let Some(at) = self.taken.iter().position(|at| *at == taken) {
            self.taken.remove(at);
            self.taken.push_back(now.max(taken));
        }
    }

    /// Refuses calls until that time, because Slack said so.
    pub(super) fn block(&mut self, until: Duration) {
        self.blocked_until = self.blocked_until.max(until);
    }

    pub(super) fn set_allowance(&mut self, allowance: usize) {
        self.allowance = allowance.max(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_burst_may_take_a_minutes_calls_and_then_waits_for_the_oldest() {
        let mut throttle = Throttle::new(3);
        for second in [100, 101, 102] {
            assert_eq!(throttle.take(at(second)), Ok(()));
        }
        assert_eq!(throttle.take(at(103)), Err(at(160)));
        assert_eq!(throttle.take(at(160)), Ok(()));
        assert_eq!(throttle.take(at(160)), Err(at(161)));
    }

    #[test]
    fn a_call_comes_back_a_minute_after_its_answer() {
        let mut throttle = Throttle::new(1);
        assert_eq!(throttle.take(at(100)), Ok(()));
        throttle.end(at(100), at(104));
        assert_eq!(throttle.take(at(160)), Err(at(164)));
    }

    #[test]
    fn slacks_word_counts_more_than_the_allowance() {
        let mut throttle = Throttle::new(3);
        throttle.block(at(130));
        throttle.block(at(120));
        assert_eq!(throttle.take(at(129)), Err(at(130)));
        assert_eq!(throttle.take(at(130)), Ok(()));
    }

    #[test]
    fn a_smaller_allowance_counts_what_was_taken_before() {
        let mut throttle = Throttle::new(50);
        for second in [100, 110] {
            assert_eq!(throttle.take(at(second)), Ok(()));
        }
        throttle.set_allowance(1);
        assert_eq!(throttle.take(at(120)), Err(at(170)));
        assert_eq!(throttle.take(at(170)), Ok(()));
        throttle.set_allowance(50);
        assert_eq!(throttle.take(at(170)), Ok(()));
    }

    proptest! {
        #[test]
        fn no_minute_sees_more_than_the_allowance(
            steps in prop::collection::vec(0_u64..40, 1..100), allowance in 1_usize..6,
        ) {
            let mut throttle = Throttle::new(allowance);
            let (mut now, mut made) = (1_000, Vec::new());
            for step in steps {
                now += step;
                match throttle.take(at(now)) {
                    Ok(()) => made.push(now),
                    Err(until) => prop_assert!(until > at(now) && until <= at(now + 60)),
                }
            }
            for last in &made {
                let minute = made.iter().filter(|one| **one <= *last && **one + 60 > *last);
                prop_assert!(minute.count() <= allowance);
            }
        }
    }
}
