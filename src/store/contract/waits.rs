//! Waits: what ends them early, and clocks that are set wrong meanwhile.

use fastrand::Rng;

use super::*;
use crate::clock::STEADY_AFTER;

const MINUTE: Duration = Duration::from_secs(60);

fn wait(wait: Duration, because: Because) -> Next {
    Next::Retry { wait, because }
}

async fn hasten(w: &World, whom: Hasten) -> u64 {
    w.store().hasten(&name("soar"), whom).await.unwrap()
}

pub(in crate::store) async fn the_oldest_alert_is_leased_due_or_not(w: World) {
    let oldest = async || {
        let lease = w.store().lease_oldest(&name("soar")).await.unwrap();
        lease.map(|lease| (lease.delivery().alert.clone(), lease))
    };
    assert!(oldest().await.is_none());
    w.accept_numbers(1..5).await;
    let mut leases = w.lease("soar", 4).await;
    for (number, because) in [(1, Because::Refused), (2, Because::Asked), (3, Because::Fault)] {
        let at = leases.iter().position(|one| one.delivery().alert == w.id(number)).unwrap();
        w.record(leases.swap_remove(at), wait(HOUR, because)).await;
    }
    w.store().release(leases.remove(0)).await;
    let (found, held) = oldest().await.unwrap();
    assert_eq!(found, w.id(3), "the others wait for something else");
    let (found, next) = oldest().await.unwrap();
    assert_eq!(found, w.id(4), "the oldest is leased");
    w.store().release(held).await;
    w.store().release(next).await;
    w.pause(Paused::Yes(Pause::default())).await;
    assert!(oldest().await.is_none());
    w.pause(Paused::No).await;
    w.clock.advance(HOUR);
    assert_eq!(oldest().await.unwrap().0, w.id(1), "all are due");
}

pub(in crate::store) async fn a_held_alert_is_not_leased_as_the_oldest(w: World) {
    let until = w.clock.now() + MINUTE / 4;
    w.store().accept(vec![w.message(1)], Some(until), None).await.unwrap();
    assert!(w.store().lease_oldest(&name("soar")).await.unwrap().is_none());
    assert_eq!(hasten(&w, Hasten::Recovered).await, 0);
    assert_eq!(hasten(&w, Hasten::Misdated).await, 0);
}

pub(in crate::store) async fn a_recovery_ends_the_waits_for_the_destination_and_no_others(
    w: World,
) {
    w.accept_numbers(1..5).await;
    let because = [Because::Fault, Because::Asked, Because::Refused, Because::Fault];
    let mut waiting = Vec::new();
    for (lease, because) in w.lease("soar", 4).await.into_iter().zip(because) {
        if because == Because::Fault {
            waiting.push(lease.delivery().alert.clone());
        }
        w.record(lease, wait(HOUR, because)).await;
    }
    assert_eq!(hasten(&w, Hasten::Recovered).await, 2);
    assert_eq!(hasten(&w, Hasten::Recovered).await, 0);
    let mut due: Vec<_> =
        w.lease("soar", 9).await.iter().map(|one| one.delivery().alert.clone()).collect();
    due.sort();
    waiting.sort();
    assert_eq!(due, waiting);
}

pub(in crate::store) async fn a_wait_that_began_while_the_clock_was_ahead_ends_when_it_is_set_back(
    mut w: World,
) {
    w.accept(w.message(1)).await;
    let right = w.clock.now();
    w.clock.jump(right + 40 * MINUTE);
    w.record(w.lease_one().await, wait(MINUTE, Because::Fault)).await;
    w.clock.jump(right);
    assert!(w.lease("soar", 1).await.is_empty());
    w.crash_and_free();
    assert_eq!(hasten(&w, Hasten::Misdated).await, 1);
    assert_eq!(w.lease_one().await.delivery().attempts, 1);
}

pub(in crate::store) async fn a_new_alert_of_a_clock_that_was_ahead_is_not_held_back(w: World) {
    let right = w.clock.now();
    w.clock.jump(right + HOUR);
    w.accept(w.message(1)).await;
    w.clock.jump(right);
    assert_eq!(hasten(&w, Hasten::Misdated).await, 1);
    w.lease_one().await;
}

pub(in crate::store) async fn a_wrong_clock_kills_nothing_until_it_has_lasted(mut w: World) {
    let expire =
        async |w: &World| w.store().expire(&name("soar"), DAY * 3, "max_age").await.unwrap().len();
    w.accept(w.message(1)).await;
    assert_eq!(expire(&w).await, 0);
    let right = w.clock.now();
    w.clock.jump(right + DAY * 4);
    for _ in 0..6 {
        assert_eq!(expire(&w).await, 0, "four days ahead");
        w.clock.advance(Duration::from_secs(10));
    }
    w.crash();
    assert_eq!(expire(&w).await, 0, "nor at once after a restart");
    w.clock.advance(MINUTE);
    assert_eq!(expire(&w).await, 0);
    w.clock.jump(right + MINUTE * 2);
    assert_eq!(expire(&w).await, 0);
    w.clock.advance(DAY * 3);
    assert_eq!(expire(&w).await, 1, "three days have passed");
}

pub(in crate::store) async fn what_came_since_the_start_grows_old_without_a_second_look(w: World) {
    w.accept(w.message(1)).await;
    w.clock.advance(Duration::from_secs(3));
    let expire = async || w.store().expire(&name("soar"), Duration::from_secs(2), "max_age").await;
    assert_eq!(expire().await.unwrap(), [w.id(1)]);
}

pub(in crate::store) async fn a_pause_makes_nothing_older_when_the_clock_is_set_back(w: World) {
    w.accept(w.message(1)).await;
    let right = w.clock.now();
    w.clock.jump(right + DAY);
    w.pause(Paused::Yes(Pause::default())).await;
    w.clock.jump(right);
    w.pause(Paused::No).await;
    assert_eq!(w.lease_one().await.delivery().pending_since, right);
}

/// Random waits under a clock that is set forward and back; wrong ones are ended every 10 seconds.
pub(in crate::store) async fn a_jump_of_the_clock_costs_a_wait_at_most_itself(w: World) {
    let look = Duration::from_secs(10);
    let mut rng = Rng::with_seed(11);
    w.accept(w.message(1)).await;
    for round in 0..60 {
        let lease = loop {
            w.clock.advance(look);
            hasten(&w, Hasten::Misdated).await;
            if let Some(lease) = w.lease("soar", 1).await.pop() {
                break lease;
            }
        };
        let length = MINUTE * rng.u32(1..16);
        w.record(lease, wait(length, Because::Fault)).await;
        let began = w.clock.moment();
        let jump_at = began + MINUTE * rng.u32(0..16);
        let offset = MINUTE * rng.u32(0..20_000);
        let mut jumped = false;
        loop {
            w.clock.advance(look);
            if !jumped && w.clock.moment() >= jump_at {
                jumped = true;
                let now = w.clock.now();
                w.clock.jump(if rng.bool() { now + offset } else { now - offset });
            }
            hasten(&w, Hasten::Misdated).await;
            let waited = w.clock.moment().since(began);
            if let Some(lease) = w.lease("soar", 1).await.pop() {
                assert!(jumped || waited >= length, "round {round}: too early, {waited:?}");
                w.store().release(lease).await;
                break;
            }
            // If the clock is set back by no more than the time already waited, nothing shows that,
            // and the delivery waits for that time once more.
            assert!(waited <= length * 2 + look, "round {round}: {waited:?} of {length:?}");
        }
    }
}

pub(in crate::store) async fn a_clock_that_jumps_ahead_ends_no_lease(w: World) {
    let look = Duration::from_secs(10);
    w.accept(w.message(1)).await;
    let lease = w.lease_one().await;
    w.clock.jump(w.clock.now() + HOUR);
    let took_up = async || {
        hasten(&w, Hasten::Misdated).await;
        assert!(w.store().expire(&name("soar"), DAY * 3, "max_age").await.unwrap().is_empty());
        w.lease("soar", 1).await.pop()
    };
    for _ in 0..5 {
        assert!(took_up().await.is_none(), "its holder is at work");
        assert!(w.store().lease_oldest(&name("soar")).await.unwrap().is_none());
        assert_eq!(w.delivery(1).await.state, State::Leased);
        assert_eq!(w.act(Selection::default(), Action::Cancel).await, 0);
        let soar = w.store().stats().await.unwrap().destinations.remove(0).1;
        assert_eq!((soar.leased, soar.pending), (1, 0));
        w.clock.advance(look);
    }
    drop(lease);
    w.clock.advance(LEASE);
    took_up().await.expect("the lease has ended by the time that has passed");
    // The lease that was just taken began while the clock was ahead; its holder is gone as well.
    let began = w.clock.moment();
    let ended = loop {
        w.clock.advance(look);
        if took_up().await.is_some() {
            break w.clock.moment().since(began);
        }
        assert!(w.clock.moment().since(began) < HOUR, "nobody gets it");
    };
    assert!(ended >= LEASE && ended <= LEASE + STEADY_AFTER, "{ended:?}");
    w.clock.jump(w.clock.now() - HOUR);
    hasten(&w, Hasten::Misdated).await;
    w.clock.advance(LEASE);
    took_up().await.expect("a clock that is set back prolongs no lease twice");
}

pub(in crate::store) async fn a_retry_counts_the_age_of_what_waits_anew(w: World) {
    let retry = async || w.act(Selection::default(), Action::Retry).await;
    let expire = async || w.store().expire(&name("soar"), DAY * 3, "max_age").await.unwrap().len();
    w.accept_numbers(0..2500).await;
    assert_eq!(retry().await, 0, "they are as new as a retry would make them");
    w.clock.advance(DAY * 2);
    assert_eq!(expire().await, 0);
    assert_eq!(retry().await, 2500);
    let lease = w.lease_one().await;
    assert_eq!(lease.delivery().pending_since, w.clock.now());
    w.store().release(lease).await;
    w.clock.advance(DAY * 2);
    assert_eq!(expire().await, 0, "four days old, and two since the retry");
    w.pause(Paused::Yes(Pause::default())).await;
    w.clock.advance(DAY);
    assert_eq!(retry().await, 2500);
    w.clock.advance(DAY);
    w.pause(Paused::No).await;
    assert_eq!(w.lease_one().await.delivery().pending_since, w.clock.now(), "a pause stops it");
    w.clock.advance(DAY * 3 + Duration::from_secs(1));
    assert!(expire().await > 0);
}
