//! What follows from an attempt: for the delivery, and for the destination. Pure.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    delivery::backoff,
    destination::{Advice, DeliveryError, Receipt},
    logging::chain,
    store::{Attempt, Next, Reference},
};

/// An alert that is refused through its own fault so often is dead.
const ALERT_FAULTS: u32 = 3;

/// Why a delivery was given up, as the metric's label.
pub const DEAD_REASONS: [&str; 2] = [REFUSED, TOO_OLD];

/// It was refused three times, each time through its own fault.
pub const REFUSED: &str = "alert_fault";

/// It was undelivered for longer than `max_age`.
pub const TOO_OLD: &str = "max_age";

/// What is known about a delivery when an attempt at it ends.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Attempts that failed before this one.
    pub attempts: u32,
    /// Attempts before this one that failed through the alert's own fault.
    pub alert_faults: u32,
    /// From when its age is counted.
    pub pending_since: Timestamp,
    /// Its age at which it is given up.
    pub max_age: Duration,
    /// Most recent alerts were refused: it is not this one's fault.
    pub mostly_refused: bool,
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
    Fault,
    /// It is at fault, and asks to be left alone until then.
    FaultUntil(Timestamp),
}

/// Decides what is next. A destination's fault never kills an alert before its time.
pub fn decide(result: &Result<Receipt, DeliveryError>, situation: &Situation) -> (Next, Verdict) {
    let error = match result {
        Ok(receipt) => return (Next::Delivered(reference(receipt)), Verdict::Works),
        Err(error) => error,
    };
    let scheduled = backoff::delay(situation.attempts.saturating_add(1), situation.jitter);
    match error.advice() {
        Advice::Retry | Advice::HoldDestination => {
            (retry(situation, scheduled, false), Verdict::Fault)
        }
        Advice::RetryAfter(asked) => {
            let wait = asked.unwrap_or_else(|| scheduled.max(backoff::THROTTLED));
            let verdict = Verdict::FaultUntil(situation.now + wait);
            (retry(situation, wait, false), verdict)
        }
        Advice::RetryAlert => (retry(situation, scheduled, false), Verdict::Works),
        Advice::GiveUp if situation.mostly_refused => {
            (retry(situation, scheduled, false), Verdict::Fault)
        }
        Advice::GiveUp if situation.alert_faults + 1 >= ALERT_FAULTS => {
            (Next::Dead { reason: REFUSED }, Verdict::Works)
        }
        Advice::GiveUp => (retry(situation, scheduled, true), Verdict::Works),
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

fn retry(situation: &Situation, wait: Duration, alert_fault: bool) -> Next {
    let deadline = situation.pending_since + situation.max_age;
    if situation.now >= deadline {
        return Next::Dead { reason: TOO_OLD };
    }
    Next::Retry { at: (situation.now + wait).min(deadline), alert_fault }
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
            alert_faults: 0,
            pending_since: NOW,
            max_age: Duration::from_secs(72 * 3600),
            mostly_refused: false,
            now: NOW,
            jitter: 0.5,
        }
    }

    fn refused() -> Result<Receipt, DeliveryError> {
        Err(DeliveryError::Alert { answer: None, reason: "too large".to_owned() })
    }

    fn waits(next: &Next) -> Option<(u64, bool)> {
        match next {
            Next::Retry { at, alert_fault } => Some((at.since(NOW).as_secs(), *alert_fault)),
            Next::Delivered(_) | Next::Dead { .. } => None,
        }
    }

    #[test]
    fn a_destination_fault_never_kills_an_alert_before_its_time() {
        let failed = Err(DeliveryError::Destination(Answer::default()));
        for attempts in [0, 2, 3, 1_000] {
            let (next, verdict) = decide(&failed, &Situation { attempts, ..situation() });
            assert!(waits(&next).is_some_and(|(_, alert_fault)| !alert_fault), "{next:?}");
            assert_eq!(verdict, Verdict::Fault);
        }
    }

    #[test]
    fn wrong_credentials_keep_the_alert() {
        let (next, verdict) = decide(&Err(DeliveryError::Auth(Answer::default())), &situation());
        assert_eq!((waits(&next), verdict), (Some((1, false)), Verdict::Fault));
    }

    #[test]
    fn a_refused_alert_gets_three_tries() {
        let (next, verdict) = decide(&refused(), &Situation { alert_faults: 1, ..situation() });
        assert_eq!((waits(&next), verdict), (Some((1, true)), Verdict::Works));
        let (next, _) = decide(&refused(), &Situation { alert_faults: 2, ..situation() });
        assert!(matches!(next, Next::Dead { reason: REFUSED }));
    }

    #[test]
    fn when_most_alerts_are_refused_none_of_them_dies() {
        let case = Situation { alert_faults: 2, mostly_refused: true, ..situation() };
        let (next, verdict) = decide(&refused(), &case);
        assert_eq!((waits(&next), verdict), (Some((1, false)), Verdict::Fault));
    }

    #[test]
    fn a_throttled_alert_waits_as_long_as_asked_and_a_minute_if_not_told() {
        let throttled =
            |retry_after| Err(DeliveryError::Throttled { answer: Answer::default(), retry_after });
        let asked = Some(Duration::from_secs(7));
        let (next, verdict) = decide(&throttled(asked), &situation());
        assert_eq!(waits(&next), Some((7, false)));
        assert_eq!(verdict, Verdict::FaultUntil(NOW + Duration::from_secs(7)));
        let (next, _) = decide(&throttled(None), &situation());
        assert_eq!(waits(&next), Some((60, false)));
    }

    #[test]
    fn an_alert_that_is_too_old_dies_and_the_last_attempt_is_at_its_age_limit() {
        let failed = Err(DeliveryError::TimedOut);
        let young = Situation { max_age: Duration::from_secs(20), attempts: 9, ..situation() };
        let (next, _) = decide(&failed, &young);
        assert_eq!(waits(&next), Some((20, false)));
        let old = Situation { pending_since: NOW - Duration::from_secs(20), ..young };
        let (next, _) = decide(&failed, &old);
        assert!(matches!(next, Next::Dead { reason: TOO_OLD }));
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
