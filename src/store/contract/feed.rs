//! Promises to the readers of a destination.

use std::{collections::BTreeSet, sync::Arc};

use tokio::task::JoinSet;

use super::{DAY, HOUR, LEASE, RETENTION, World, alert, name};
use crate::{
    ids::AlertId,
    store::{
        Action, FEED_PAGE_MAX_BYTES, FeedPage, NewMessage, Next, Pause, Paused, Reference,
        Retention, Selection, State,
    },
};

impl World {
    async fn page(&self, after: i64, limit: usize) -> FeedPage {
        self.store().feed_page(&name("soar"), after, limit).await.unwrap()
    }

    /// The alerts of a page, and the number to go on from.
    async fn read(&self, after: i64, limit: usize) -> (Vec<AlertId>, i64) {
        let page = self.page(after, limit).await;
        let last = page.entries.last().map_or(after, |(number, _)| *number);
        let numbers: Vec<i64> = page.entries.iter().map(|(number, _)| *number).collect();
        assert!(numbers.is_sorted() && numbers.iter().all(|number| *number > after));
        (page.entries.into_iter().map(|(_, delivery)| delivery.alert).collect(), last)
    }

    /// Marks what is up to the number as delivered.
    async fn take(&self, up_to: i64) -> Vec<AlertId> {
        let taken = self.store().feed_taken(&name("soar"), up_to).await.unwrap();
        taken.into_iter().map(|one| one.alert).collect()
    }

    fn ids(&self, numbers: impl IntoIterator<Item = i64>) -> Vec<AlertId> {
        numbers.into_iter().map(|number| self.id(number)).collect()
    }

    async fn states(&self, numbers: std::ops::Range<i64>) -> Vec<State> {
        let mut states = Vec::new();
        for number in numbers {
            states.push(self.delivery(number).await.state);
        }
        states
    }
}

fn one(id: AlertId) -> Selection {
    Selection { alert: Some(id), ..Selection::default() }
}

pub(in crate::store) async fn a_feed_gives_alerts_in_order_behind_a_number(w: World) {
    assert_eq!(w.read(0, 10).await.0, [], "a destination that nothing was accepted for");
    w.accept_numbers(1..6).await;
    let (first, after) = w.read(0, 2).await;
    assert_eq!(first, w.ids(1..3));
    let (second, after) = w.read(after, 100).await;
    assert_eq!(second, w.ids(3..6));
    assert_eq!(w.read(after, 100).await, (vec![], after));
    w.accept_numbers(6..7).await;
    assert_eq!(w.read(after, 100).await.0, w.ids([6]));
    let page = w.page(0, 1).await;
    let delivery = &page.entries[0].1;
    assert_eq!(delivery.raw, w.message(1).raw);
    assert_eq!((delivery.event_id.as_str(), delivery.team.as_str()), ("Ev1", "T1"));
    assert!(page.entries[0].0 > w.clock.now().micros() - 10, "numbers are moments or later");
}

pub(in crate::store) async fn what_a_reader_has_passed_is_delivered_and_given_again_to_others(
    w: World,
) {
    w.accept_numbers(1..4).await;
    let numbers: Vec<i64> = w.page(0, 10).await.entries.iter().map(|(number, _)| *number).collect();
    assert_eq!(w.take(numbers[0] - 1).await, []);
    assert_eq!(w.states(1..4).await, [State::Pending; 3], "given is not taken");
    assert_eq!(w.take(numbers[1]).await, w.ids(1..3));
    assert_eq!(w.take(numbers[1]).await, [], "once");
    let states = [State::Delivered, State::Delivered, State::Pending];
    assert_eq!(w.states(1..4).await, states);
    let delivery = w.delivery(1).await;
    assert_eq!((delivery.finished_at, delivery.attempts), (Some(w.clock.now()), 0));
    assert_eq!(w.read(0, 10).await.0, w.ids(1..4), "another reader, or one that lost its place");
    assert_eq!(w.read(numbers[0], 1).await.0, w.ids([2]));
    let taken = w.store().feed_taken(&name("soar"), numbers[2]).await.unwrap();
    assert_eq!(taken[0].posted_at, w.message(3).posted_at);
    assert_eq!(taken[0].received_at, w.clock.now());
}

pub(in crate::store) async fn a_feed_survives_a_crash_and_its_numbers_only_grow(mut w: World) {
    w.accept_numbers(1..4).await;
    let (first, after) = w.read(0, 2).await;
    assert_eq!(first, w.ids(1..3));
    w.crash();
    assert_eq!(w.read(0, 2).await, (first, after), "the same numbers");
    assert_eq!(w.take(after).await, w.ids(1..3));
    w.crash();
    let (rest, last) = w.read(after, 10).await;
    assert_eq!(rest, w.ids([3]));
    w.take(last).await;
    // The number of a delivery that was removed is not given again, even at the same moment.
    w.store().prune(Retention { delivered: std::time::Duration::ZERO, ..RETENTION }).await.unwrap();
    w.accept_numbers(4..5).await;
    assert_eq!(w.read(last, 10).await.0, w.ids([4]));
}

pub(in crate::store) async fn two_readers_of_a_feed_get_every_alert_once_while_others_are_accepted(
    w: World,
) {
    const ALERTS: i64 = 120;
    let mut accepts = JoinSet::new();
    for number in 0..ALERTS {
        let (store, message) = (Arc::clone(w.store()), w.message(number));
        accepts.spawn(async move { store.accept(vec![message], None, None).await });
    }
    let mut readers = JoinSet::new();
    for limit in [1, 7] {
        let store = Arc::clone(w.store());
        readers.spawn(async move {
            let (mut got, mut after) = (Vec::new(), 0);
            while got.len() < usize::try_from(ALERTS).unwrap() {
                let page = store.feed_page(&name("soar"), after, limit).await.unwrap();
                for (number, delivery) in page.entries {
                    assert!(number > after);
                    after = number;
                    got.push(delivery.alert);
                }
                store.feed_taken(&name("soar"), after).await.unwrap();
                // Lets accepts come between two pages.
                tokio::task::yield_now().await;
            }
            got
        });
    }
    for accepted in accepts.join_all().await {
        accepted.unwrap().remove(0).unwrap();
    }
    let got = readers.join_all().await;
    assert_eq!(got[0], got[1], "one order for all");
    let all: BTreeSet<String> = got[0].iter().map(ToString::to_string).collect();
    assert_eq!(all.len(), usize::try_from(ALERTS).unwrap());
    assert!(w.lease("soar", 1).await.is_empty(), "everything is delivered");
}

pub(in crate::store) async fn a_number_that_was_never_given_marks_and_gives_nothing(w: World) {
    w.accept_numbers(1..3).await;
    let beyond = (w.clock.now() + HOUR).micros();
    let page = w.page(beyond, 10).await;
    assert!(page.entries.is_empty() && page.end < beyond, "{page:?}");
    let (got, last) = w.read(0, 10).await;
    assert_eq!(got, w.ids(1..3));
    assert!(last <= w.page(0, 10).await.end);
    // The reader has a number from a lost store. Every new delivery gets a larger one.
    let from_elsewhere = w.clock.now().micros() + 1;
    w.clock.advance(HOUR);
    w.accept_numbers(3..4).await;
    assert_eq!(w.read(from_elsewhere + 100, 10).await.0, w.ids([3]));
}

pub(in crate::store) async fn a_paused_feed_gives_nothing_and_takes_what_was_given(w: World) {
    w.accept_numbers(1..3).await;
    let (_, after) = w.read(0, 1).await;
    w.pause(Paused::Yes(Pause::default())).await;
    assert_eq!(w.read(0, 10).await.0, []);
    assert_eq!(w.take(after).await, w.ids([1]), "the reader has it all the same");
    w.pause(Paused::No).await;
    assert_eq!(w.read(after, 10).await.0, w.ids([2]));
}

pub(in crate::store) async fn what_is_held_or_leased_is_not_in_the_feed(w: World) {
    let until = w.clock.now() + HOUR;
    w.store().accept(vec![w.message(1)], Some(until), None).await.unwrap();
    w.accept_numbers(2..4).await;
    // The destination had a worker before it became a feed, and a lease is still held.
    let leased = w.lease_one().await;
    assert_eq!(leased.delivery().alert, w.id(2));
    let (got, after) = w.read(0, 10).await;
    assert_eq!(got, w.ids([3]));
    w.record(leased, Next::Delivered(Reference::default())).await;
    w.clock.advance(HOUR);
    assert_eq!(w.read(after, 10).await.0, w.ids([1]));
}

pub(in crate::store) async fn what_died_or_was_cancelled_is_not_in_the_feed_until_it_is_retried(
    w: World,
) {
    w.accept_numbers(1..4).await;
    let (_, after) = w.read(0, 10).await;
    assert_eq!(w.act(one(w.id(1)), Action::Cancel).await, 1);
    assert_eq!(w.read(0, 10).await.0, w.ids(2..4));
    w.clock.advance(DAY);
    let dead = w.store().expire(&name("soar"), HOUR, "max_age").await.unwrap();
    assert_eq!(dead.len(), 2);
    assert_eq!(w.read(0, 10).await.0, []);
    assert_eq!(w.take(after).await, [], "it was passed, and nobody says that it was taken");
    assert_eq!(w.act(one(w.id(1)), Action::Retry).await, 1);
    assert_eq!(w.act(one(w.id(2)), Action::Retry).await, 1);
    let (again, last) = w.read(after, 10).await;
    assert_eq!(again, w.ids(1..3), "behind everything, so that no reader has passed it");
    assert_eq!(w.take(last).await.len(), 2);
    let states = [State::Delivered, State::Delivered, State::Dead];
    assert_eq!(w.states(1..4).await, states);
}

pub(in crate::store) async fn retention_keeps_what_no_reader_has_passed(w: World) {
    w.accept_numbers(1..3).await;
    let numbers: Vec<i64> = w.page(0, 10).await.entries.iter().map(|(number, _)| *number).collect();
    w.take(numbers[0]).await;
    w.clock.advance(DAY * 300);
    assert_eq!(w.store().prune(RETENTION).await.unwrap().messages, 1);
    assert_eq!(w.read(0, 10).await.0, w.ids([2]));
}

pub(in crate::store) async fn a_page_of_a_feed_ends_at_its_size(w: World) {
    let large = vec![b'x'; FEED_PAGE_MAX_BYTES / 2 + 1];
    let batch = (1..6).map(|number| NewMessage { raw: large.clone().into(), ..w.message(number) });
    w.try_accept(batch.collect()).await;
    let (first, after) = w.read(0, 10).await;
    assert_eq!(first, w.ids(1..3));
    let (second, after) = w.read(after, 10).await;
    assert_eq!(second, w.ids(3..5));
    assert_eq!(w.read(after, 10).await.0, w.ids([5]));
}

pub(in crate::store) async fn alerts_are_given_up_for_one_destination(w: World) {
    let message = NewMessage { alerts: vec![alert(0, &["soar", "chat"])], ..w.message(1) };
    w.accept(message).await;
    w.accept_numbers(2..4).await;
    let leased = w.store().lease_due(&name("soar"), 3).await.unwrap().pop().unwrap();
    w.clock.advance(LEASE / 2);
    let held = leased.delivery().alert.clone();
    assert_eq!(held, w.id(3));
    let meant = [w.id(1), held, w.id(9)];
    let given_up = w.store().give_up(&name("nobody"), &meant, "refused").await.unwrap();
    assert_eq!(given_up, []);
    let held_one = [w.id(3)];
    let given_up = w.store().give_up(&name("soar"), &held_one, "refused").await.unwrap();
    assert_eq!(given_up, [], "somebody has leased it");
    w.clock.advance(LEASE / 2);
    let given_up = w.store().give_up(&name("soar"), &meant, "refused").await.unwrap();
    assert_eq!(given_up, w.ids([1, 3]));
    let deliveries = w.view(1).await.deliveries;
    let states: Vec<_> =
        deliveries.iter().map(|one| (one.state, one.dead_reason.as_str())).collect();
    assert_eq!(states, [(State::Pending, ""), (State::Dead, "refused")]);
    assert_eq!(w.read(0, 10).await.0, w.ids([2]));
}

pub(in crate::store) async fn a_feed_takes_more_than_one_piece(w: World) {
    w.accept_numbers(0..2500).await;
    let (mut after, mut got) = (0, 0);
    loop {
        let (page, last) = w.read(after, 400).await;
        if page.is_empty() {
            break;
        }
        (after, got) = (last, got + page.len());
    }
    assert_eq!(got, 2500);
    let mut pieces = Vec::new();
    loop {
        match w.take(after).await.len() {
            0 => break,
            some => pieces.push(some),
        }
    }
    assert_eq!(pieces, [1000, 1000, 500]);
}
