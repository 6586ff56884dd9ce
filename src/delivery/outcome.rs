//! What follows from an attempt: for the delivery, and for the destination. Pure.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    delivery::{
        backoff::{self, spread},
        breaker::Fault,
    },
    destination::{Advice, DeliveryError, Receipt},
    logging::chain,
    store::{Attempt, Because, Next, Reference, Refusals},
};

/// Why a delivery was given up, as the metric's label.
pub const DEAD_REASONS: [&str; 2] = [REFUSED, TOO_OLD];

/// It was refused three times, while others were accepted.
pub const REFUSED: &str = "refused";

/// It was undelivered for longer than `max_age`.
pub const TOO_OLD: &str = "max_age";

/// What is known about a delivery when an attempt at it ends.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Attempts that failed before this one.
    pub attempts: u32,
    /// The refusals before this one.
    pub refusals: Refusals,
    /// From when its age is counted.
    pub pending_since: Timestamp,
    /// Its age at which it is given up.
    pub max_age: Duration,
    /// A fault now is not the destination's only one: it may be down.
    pub is_failing: bool,
    /// Now.
    pub now: Timestamp,
    /// Drawn from `0.0..1.0`.
    pub jitter: f64,
}

/// What an attempt says about the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works: it took the alert, or read it and refused it.
    Works,
    /// It is at fault.
    Fault(Fault),
    /// It is at fault, and asks to be left alone for that long.
    FaultFor(Duration),
}

/// Decides what is next. Neither a destination's fault nor its refusal kills an alert before its
/// time, unless there is evidence that the alert itself is at fault.
pub fn decide(result: &Result<Receipt, DeliveryError>, situation: &Situation) -> (Next, Verdict) {
    let error = match result {
        Ok(receipt) => return (Next::Delivered(reference(receipt)), Verdict::Works),
        Err(error) => error,
    };
    let scheduled = backoff::delay(situation.attempts.saturating_add(1), situation.jitter);
    match error.advice() {
        Advice::Retry | Advice::HoldDestination => {
            let fault = if error.is_network() { Fault::Network } else { Fault::Answered };
            // An alert that has failed often must not wait longer than a probe would, or nobody
            // finds out that the destination works again.
            let wait = if situation.is_failing {
                scheduled.min(spread(fault.longest_pause(), situation.jitter))
            } else {
                scheduled
            };
            (retry(situation, wait, Because::Fault), Verdict::Fault(fault))
        }
        Advice::RetryAfter(asked) => {
            let wait = asked.unwrap_or_else(|| scheduled.max(backoff::THROTTLED));
            let quiet = asked.unwrap_or(backoff::THROTTLED);
            (retry(situation, wait, Because::Asked), Verdict::FaultFor(quiet))
        }
        Advice::RetryAlert => (retry(situation, scheduled, Because::Fault), Verdict::Works),
        Advice::GiveUpOnEvidence if situation.refusals.are_proof_with_one_more() => {
            (Next::Dead { reason: REFUSED }, Verdict::Works)
        }
        Advice::GiveUpOnEvidence => (retry(situation, scheduled, Because::Refused), Verdict::Works),
    }
}

/// An attempt as it is stored and shown.
pub fn describe(
    result: &Result<Receipt, DeliveryError>,
    started_at: Timestamp,
    duration: Duration,
) -> Attempt {
    let (class, status, excerpt) = match result {
        Ok(receipt) => {
            let class = if receipt.duplicate { "duplicate" } else { "delivered" };
            (class, receipt.status, receipt.excerpt.clone())
        }
        Err(error) => match error.answer() {
            Some(answer) => (error.label(), Some(answer.status), answer.excerpt.clone()),
            None => (error.label(), None, chain(error)),
        },
    };
    Attempt { started_at, duration, class, status, excerpt }
}

/// The last attempt is at the age limit. What is older is given up by the worker, which looks twice
/// at the clock before it believes that.
fn retry(situation: &Situation, wait: Duration, because: Because) -> Next {
    let left = (situation.pending_since + situation.max_age).since(situation.now);
    Next::Retry { wait: if left.is_zero() { wait } else { wait.min(left) }, because }
}

fn reference(receipt: &Receipt) -> Reference {
    Reference { id: receipt.reference_id.clone(), url: receipt.reference_url.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Answer;

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    fn situation() -> Situation {
        Situation {
            attempts: 0,
            refusals: Refusals::default(),
            pending_since: NOW,
            max_age: Duration::from_secs(72 * 3600),
            is_failing: false,
            now: NOW,
            jitter: 0.5,
        }
    }

    fn refused() -> Result<Receipt, DeliveryError> {
        Err(DeliveryError::Refused { answer: None, reason: "too large".to_owned() })
    }

    fn waits(next: &Next) -> Option<(u64, Because)> {
        match next {
            Next::Retry { wait, because } => Some((wait.as_secs(), *because)),
            Next::Delivered(_) | Next::Dead { .. } => None,
        }
    }

    #[test]
    fn a_destination_fault_never_kills_an_alert_before_its_time() {
        let failed = Err(DeliveryError::Destination(Answer::default()));
        for attempts in [0, 2, 3, 1_000] {
            let (next, verdict) = decide(&failed, &Situation { attempts, ..situation() });
            assert!(waits(&next).is_some_and(|(_, because)| because == Because::Fault), "{next:?}");
            assert_eq!(verdict, Verdict::Fault(Fault::Answered));
        }
    }

    #[test]
    fn while_the_destination_fails_no_alert_waits_longer_than_a_probe_would() {
        let unreachable = Err(DeliveryError::Unreachable("no way".into()));
        let answered = Err(DeliveryError::TimedOut);
        for (failed, longest) in [(unreachable, 10), (answered, 30)] {
            let often = Situation { attempts: 20, ..situation() };
            let (next, _) = decide(&failed, &often);
            assert_eq!(waits(&next), Some((900, Because::Fault)), "others are taken");
            let (next, _) = decide(&failed, &Situation { is_failing: true, ..often });
            assert_eq!(waits(&next), Some((longest, Because::Fault)));
            let (next, _) = decide(&failed, &Situation { is_failing: true, ..situation() });
            assert_eq!(waits(&next), Some((1, Because::Fault)));
        }
    }

    #[test]
    fn wrong_credentials_keep_the_alert() {
        let (next, verdict) = decide(&Err(DeliveryError::Auth(Answer::default())), &situation());
        assert_eq!(waits(&next), Some((1, Because::Fault)));
        assert_eq!(verdict, Verdict::Fault(Fault::Answered));
    }

    #[test]
    fn a_refused_alert_dies_after_three_refusals_two_of_which_began_after_an_acceptance() {
        for (count, evidence, accepted, dies) in [
            (0, 0, false, false),
            (1, 0, true, false),
            (1, 1, true, false),
            (2, 0, false, false),
            (2, 0, true, false),
            (2, 1, false, false),
            (2, 1, true, true),
            (9, 0, true, false),
            (9, 1, true, true),
            (9, 9, true, true),
        ] {
            let refusals = Refusals { count, accepted, evidence };
            let (next, verdict) = decide(&refused(), &Situation { refusals, ..situation() });
            assert_eq!(matches!(next, Next::Dead { reason: REFUSED }), dies, "{refusals:?}");
            assert!(dies || waits(&next) == Some((1, Because::Refused)), "{refusals:?}");
            assert_eq!(verdict, Verdict::Works);
        }
    }

    #[test]
    fn a_throttled_alert_waits_as_long_as_asked_and_a_minute_if_not_told() {
        let throttled =
            |retry_after| Err(DeliveryError::Throttled { answer: Answer::default(), retry_after });
        let asked = Some(Duration::from_secs(7));
        let (next, verdict) = decide(&throttled(asked), &situation());
        assert_eq!(waits(&next), Some((7, Because::Asked)));
        assert_eq!(verdict, Verdict::FaultFor(Duration::from_secs(7)));
        let (next, _) = decide(&throttled(None), &situation());
        assert_eq!(waits(&next), Some((60, Because::Asked)));
    }

    #[test]
    fn the_last_attempt_is_at_the_age_limit_and_no_attempt_decides_that_it_has_passed() {
        let failed = Err(DeliveryError::TimedOut);
        let young = Situation { max_age: Duration::from_secs(20), attempts: 9, ..situation() };
        let (next, _) = decide(&failed, &young);
        assert_eq!(waits(&next), Some((20, Because::Fault)));
        let old = Situation { pending_since: NOW - Duration::from_secs(20), ..young };
        let (next, _) = decide(&failed, &old);
        assert_eq!(waits(&next), Some((900, Because::Fault)));
    }

    #[test]
    fn a_duplicate_counts_as_delivered() {
        let receipt =
            Receipt { duplicate: true, reference_id: "7".to_owned(), ..Receipt::default() };
        let (next, verdict) = decide(&Ok(receipt), &situation());
        assert!(matches!(next, Next::Delivered(reference) if reference.id == "7"));
        assert_eq!(verdict, Verdict::Works);
    }
}
