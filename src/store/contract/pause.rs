//! Pauses with an end and a reason.

use super::*;
use crate::{clock::STEADY_AFTER, store::PauseView};

fn until(length: Option<Duration>, reason: &str) -> Paused {
    Paused::Yes(Pause { length, reason: reason.to_owned() })
}

async fn shown(w: &World) -> Option<PauseView> {
    let stats = w.store().stats().await.unwrap().destinations;
    stats.into_iter().find(|(known, _)| *known == name("soar")).and_then(|(_, one)| one.pause)
}

async fn ended(w: &World) -> Vec<DestinationName> {
    w.store().end_pauses().await.unwrap()
}

/// Lets time pass until the store believes its clock.
async fn believe(w: &World) {
    for _ in 0..5 {
        assert_eq!(ended(w).await, []);
        w.clock.advance(STEADY_AFTER / 5);
    }
}

pub(in crate::store) async fn a_pause_ends_by_itself_also_after_a_crash(mut w: World) {
    w.accept(w.message(1)).await;
    let began = w.clock.now();
    w.pause(until(Some(HOUR), "the SOAR moves house")).await;
    let reason = "the SOAR moves house".to_owned();
    let view = PauseView { since: began, until: Some(began + HOUR), reason };
    assert_eq!(shown(&w).await, Some(view.clone()));
    w.crash();
    assert_eq!(shown(&w).await, Some(view));
    // After a start, a pause that began before ends only once the clock has been steady.
    believe(&w).await;
    let rest = HOUR.saturating_sub(w.clock.now().since(began));
    w.clock.advance(rest.saturating_sub(Duration::from_micros(1)));
    assert_eq!(ended(&w).await, []);
    assert!(w.lease("soar", 1).await.is_empty());
    let hint = w.store().due_hint(&name("soar"));
    w.clock.advance(Duration::from_micros(1));
    assert_eq!(ended(&w).await, [name("soar")]);
    hint.notified().await;
    assert_eq!(shown(&w).await, None);
    assert_eq!(ended(&w).await, []);
    let lease = w.lease_one().await;
    assert_eq!(lease.delivery().pending_since, began + HOUR, "a pause makes nothing older");
    w.store().release(lease).await;
    let entry = w.store().journal(1).await.unwrap().remove(0);
    let expected = ("the relay", "resume", "destination soar, since its pause has ended", 1);
    let found = (&*entry.who, &*entry.action, &*entry.selection, entry.changed);
    assert_eq!(found, expected);
}

pub(in crate::store) async fn a_pause_without_an_end_does_not_end_by_itself(w: World) {
    w.pause(until(None, "until somebody looks")).await;
    believe(&w).await;
    w.clock.advance(DAY * 400);
    believe(&w).await;
    let view = shown(&w).await.unwrap();
    assert_eq!((view.until, &*view.reason), (None, "until somebody looks"));
}

pub(in crate::store) async fn a_second_pause_replaces_end_and_reason(w: World) {
    let began = w.clock.now();
    w.pause(until(Some(HOUR), "one")).await;
    believe(&w).await;
    let now = w.clock.now();
    w.pause(until(Some(DAY), "two")).await;
    let view =
        |until, reason: &str| Some(PauseView { since: began, until, reason: reason.to_owned() });
    assert_eq!(shown(&w).await, view(Some(now + DAY), "two"));
    w.clock.advance(HOUR);
    assert_eq!(ended(&w).await, []);
    w.pause(until(None, "")).await;
    assert_eq!(shown(&w).await, view(None, ""));
    w.pause(Paused::No).await;
    assert_eq!(shown(&w).await, None);
    w.pause(until(None, "")).await;
    assert_eq!(shown(&w).await.unwrap().since, w.clock.now(), "nothing is left of the one before");
}

pub(in crate::store) async fn a_clock_that_is_wrong_for_a_while_ends_no_pause(w: World) {
    believe(&w).await;
    w.pause(until(Some(HOUR), "")).await;
    let began = w.clock.now();
    w.clock.jump(began + DAY);
    assert_eq!(ended(&w).await, []);
    w.clock.jump(began);
    believe(&w).await;
    assert!(shown(&w).await.is_some());
    // This time the clock stays where it was set, so it is believed after a while.
    w.clock.jump(began + DAY);
    believe(&w).await;
    assert_eq!(ended(&w).await, [name("soar")]);
}

pub(in crate::store) async fn a_pause_of_a_clock_that_was_ahead_is_no_longer_than_meant(w: World) {
    let right = w.clock.now();
    w.clock.jump(right + DAY * 1_000);
    w.pause(until(Some(HOUR), "")).await;
    w.clock.jump(right);
    believe(&w).await;
    w.clock.advance(HOUR);
    assert_eq!(ended(&w).await, [name("soar")]);
}

pub(in crate::store) async fn a_pause_that_ended_before_the_start_ends_once_time_is_believed(
    mut w: World,
) {
    w.pause(until(Some(HOUR), "")).await;
    w.clock.advance(DAY);
    w.crash();
    believe(&w).await;
    assert_eq!(ended(&w).await, [name("soar")]);
}

pub(in crate::store) async fn of_two_that_look_one_ends_a_pause(w: World) {
    believe(&w).await;
    w.pause(until(Some(HOUR), "")).await;
    w.clock.advance(HOUR);
    let (one, other) = tokio::join!(ended(&w), ended(&w));
    assert_eq!([one, other].concat(), [name("soar")]);
}
