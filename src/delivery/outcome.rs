//! Consequences of an attempt for the delivery and for the destination. Pure.

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

/// Class of an attempt, as in metrics and in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptClass {
    /// The destination took the alert.
    Delivered,
    /// The destination had the alert already.
    Duplicate,
    /// The destination is at fault.
    DestinationFault,
    /// The destination rejected the credentials.
    Auth,
    /// The destination asked for fewer requests.
    Throttled,
    /// The destination refused the alert, or no request could be made of it.
    Refused,
    /// The destination did not answer in time.
    Timeout,
}

impl AttemptClass {
    /// Every class, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Delivered,
        Self::Duplicate,
        Self::DestinationFault,
        Self::Auth,
        Self::Throttled,
        Self::Refused,
        Self::Timeout,
    ];

    /// Returns the class of an attempt's result.
    pub const fn of(result: &Result<Receipt, DeliveryError>) -> Self {
        match result {
            Ok(receipt) if receipt.duplicate => Self::Duplicate,
            Ok(_) => Self::Delivered,
            Err(
                DeliveryError::Unreachable(_)
                | DeliveryError::Destination(_)
                | DeliveryError::Partly(_),
            ) => Self::DestinationFault,
            Err(DeliveryError::Auth(_)) => Self::Auth,
            Err(DeliveryError::Throttled { .. }) => Self::Throttled,
            Err(DeliveryError::Refused { .. }) => Self::Refused,
            Err(DeliveryError::TimedOut) => Self::Timeout,
        }
    }

    /// Returns the word that stands for the class in metrics, in the store and in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Duplicate => "duplicate",
            Self::DestinationFault => "destination_fault",
            Self::Auth => "auth",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
        }
    }
}

/// Reason why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// The alert was refused three times, while others were accepted.
    Refused,
    /// The alert was undelivered for longer than `max_age`.
    TooOld,
}

impl DeadReason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 2] = [Self::Refused, Self::TooOld];

    /// Returns the word that stands for the reason in metrics, in the store and in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TooOld => "max_age",
        }
    }
}

/// Facts about a delivery at the end of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Failed attempts before this one.
    pub attempts: u32,
    /// Refusals before this one.
    pub refusals: Refusals,
    /// Start of the delivery's age.
    pub pending_since: Timestamp,
    /// Age at which the delivery is given up.
    pub max_age: Duration,
    /// The destination has failed before: it may be down.
    pub is_failing: bool,
    /// Time at the end of the attempt.
    pub now: Timestamp,
    /// Random number from `0.0..1.0`.
    pub jitter: f64,
}

/// Conclusion of an attempt about the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationVerdict {
    /// The destination works: it took the alert, or read the alert and refused it.
    Works,
    /// The destination is at fault.
    Fault(Fault),
    /// The destination is at fault, and asks for a pause of this length.
    FaultFor(Duration),
}

/// Decides the next state of the delivery. Neither a destination fault nor a refusal gives an alert
/// up before `max_age`, unless there is evidence that the alert itself is at fault.
pub fn decide(
    result: &Result<Receipt, DeliveryError>,
    situation: &Situation,
) -> (Next, DestinationVerdict) {
    let error = match result {
        Ok(receipt) => return (Next::Delivered(reference(receipt)), DestinationVerdict::Works),
        Err(error) => error,
    };
    let scheduled = backoff::delay(situation.attempts.saturating_add(1), situation.jitter);
    match error.advice() {
        Advice::Retry | Advice::HoldDestination => {
            let fault = if error.is_network() { Fault::Network } else { Fault::Answered };
            // An alert that has failed often must not wait longer than a probe would: its attempt
            // may be the one that finds the destination working again.
            let wait = if situation.is_failing {
                scheduled.min(spread(fault.longest_pause(), situation.jitter))
            } else {
                scheduled
            };
            (retry(situation, wait, Because::Fault), DestinationVerdict::Fault(fault))
        }
        Advice::RetryAfter(asked) => {
            let wait = asked.unwrap_or_else(|| scheduled.max(backoff::THROTTLED));
            let quiet = asked.unwrap_or(backoff::THROTTLED);
            (retry(situation, wait, Because::Asked), DestinationVerdict::FaultFor(quiet))
        }
        Advice::RetryAlert => {
            (retry(situation, scheduled, Because::Fault), DestinationVerdict::Works)
        }
        Advice::GiveUpOnEvidence if situation.refusals.are_proof_with_one_more() => {
            (Next::Dead { reason: DeadReason::Refused.label() }, DestinationVerdict::Works)
        }
        Advice::GiveUpOnEvidence => {
            (retry(situation, scheduled, Because::Refused), DestinationVerdict::Works)
        }
    }
}

/// Returns an attempt as it is stored and shown.
pub fn describe(
    result: &Result<Receipt, DeliveryError>,
    started_at: Timestamp,
    duration: Duration,
) -> Attempt {
    let (status, excerpt) = match result {
        Ok(receipt) => (receipt.status, receipt.excerpt.clone()),
        Err(error) => match error.answer() {
            Some(answer) => (Some(answer.status), answer.excerpt.clone()),
            None => (None, chain(error)),
        },
    };
    let class = AttemptClass::of(result).label();
    Attempt { started_at, duration, class, status, excerpt }
}

/// Returns a retry after a wait, shortened so that the last attempt comes at the age limit. Older
/// deliveries are given up by the worker, which does not trust a clock that was just set.
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
            assert_eq!(verdict, DestinationVerdict::Fault(Fault::Answered));
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
        assert_eq!(verdict, DestinationVerdict::Fault(Fault::Answered));
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
            assert_eq!(matches!(next, Next::Dead { reason: "refused" }), dies, "{refusals:?}");
            assert!(dies || waits(&next) == Some((1, Because::Refused)), "{refusals:?}");
            assert_eq!(verdict, DestinationVerdict::Works);
        }
    }

    #[test]
    fn a_throttled_alert_waits_as_long_as_asked_and_a_minute_if_not_told() {
        let throttled =
            |retry_after| Err(DeliveryError::Throttled { answer: Answer::default(), retry_after });
        let asked = Some(Duration::from_secs(7));
        let (next, verdict) = decide(&throttled(asked), &situation());
        assert_eq!(waits(&next), Some((7, Because::Asked)));
        assert_eq!(verdict, DestinationVerdict::FaultFor(Duration::from_secs(7)));
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
        assert_eq!(verdict, DestinationVerdict::Works);
    }
}
