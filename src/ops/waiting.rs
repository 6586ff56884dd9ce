//! Decides which reason makes an unfinished delivery wait. Pure.

use std::time::Duration;

use super::{
    DestinationHealth,
    concerns::pause_end,
    view::{Pause, WaitKind as Kind, Waiting},
};
use crate::{
    clock::{Timestamp, rough},
    store::{DeliveryView, PauseView, REFUSALS, State},
};

/// Time within which a delivery counts as due now, since workers look about once a second.
const NOW: Duration = Duration::from_secs(1);

/// Returns the reason for which the delivery waits, or `None` if it is delivered or cancelled.
/// `health` is `None` if its destination is no longer configured.
pub(super) fn waiting(
    delivery: &DeliveryView,
    health: Option<&DestinationHealth>,
    pause: Option<&PauseView>,
    now: Timestamp,
) -> Option<Waiting> {
    let is_open = match delivery.state {
        State::Delivered | State::Cancelled => return None,
        State::Dead => false,
        State::Pending | State::Refused | State::Paused | State::Leased | State::Orphaned => true,
    };
    let (kind, next_try_at, reason) = match (health, pause) {
        (None, _) => {
            (Kind::Orphaned, None, "its destination is not configured any more".to_owned())
        }
        _ if !is_open => {
            (Kind::Dead, None, "it was given up: `alerts retry` tries it again".into())
        }
        // A pause does not end an attempt under way, so the attempt comes first.
        _ if delivery.state == State::Leased => {
            (Kind::Attempt, None, "an attempt is under way".to_owned())
        }
        (Some(_), Some(pause)) => {
            let until = pause.until;
            (Kind::Pause, until, paused(&pause.clone().into(), now))
        }
        (Some(health), None) => held(delivery, health, now),
    };
    Some(Waiting { kind: kind.as_str().to_owned(), next_try_at, reason })
}

/// Returns the reason for a destination that is configured and not paused.
fn held(
    delivery: &DeliveryView,
    health: &DestinationHealth,
    now: Timestamp,
) -> (Kind, Option<Timestamp>, String) {
    if health.is_read {
        let read = health.last_read.map_or("nobody has read it since the start".into(), |at| {
            format!("it was last read {} ago", rough(now.since(at)))
        });
        return (Kind::Reader, None, format!("it is in a feed: {read}"));
    }
    // An open breaker, and a time for which the destination asked to be left alone, hold back every
    // delivery, also one that is due.
    if let Some(breaker) = health.breaker {
        let since = rough(now.since(breaker.since));
        let reason = format!(
            "the breaker has been open for {since}: one alert at a time is tried, this one not \
             before that succeeds or it is the oldest"
        );
        return (Kind::Breaker, Some(breaker.next_try_at), reason);
    }
    let due_at = delivery.due_at;
    if let Some(until) = health.quiet_until {
        let reason = "the destination asked to be left alone".to_owned();
        return (Kind::Asked, Some(due_at.map_or(until, |due| due.max(until))), reason);
    }
    let is_due = due_at.is_none_or(|at| at.since(now) < NOW);
    if delivery.state == State::Refused {
        let reason = format!(
            "it was refused {REFUSALS} times or more, and the destination has accepted no other \
             alert since: its key, params or preset may be wrong"
        );
        return (Kind::Refused, due_at, reason);
    }
    if is_due {
        return (Kind::Turn, due_at, "it is due, and waits for its turn".to_owned());
    }
    let reason = match delivery.attempts {
        0 => "it is held back for a moment".to_owned(),
        attempts => format!("attempt {attempts} failed"),
    };
    (Kind::Retry, due_at, reason)
}

fn paused(pause: &Pause, now: Timestamp) -> String {
    let reason =
        if pause.reason.is_empty() { String::new() } else { format!(" ({})", pause.reason) };
    format!("an operator has paused its destination{reason}, {}", pause_end(pause, now))
}
