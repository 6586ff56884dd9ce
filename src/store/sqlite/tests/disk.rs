//! Space that is short: which messages are evicted, and which never are.

use super::*;
use crate::store::FEED_PAGE_MAX_ITEMS;

const MIB: u64 = 1024 * 1024;

fn soar() -> DestinationName {
    DestinationName::new("soar").unwrap()
}

fn large(number: i64, destinations: &[&str]) -> NewMessage {
    let mut message = NewMessage { raw: vec![b'x'; 100_000].into(), ..message(number) };
    for alert in &mut message.alerts {
        alert.destinations =
            destinations.iter().map(|name| DestinationName::new(name).unwrap()).collect();
    }
    message
}

async fn end(store: &SqliteStore, destination: &str, next: &Next) {
    let name = DestinationName::new(destination).unwrap();
    // One call gives out 4 MiB.
    loop {
        let leases = store.lease_due(&name, 1000).await.unwrap();
        if leases.is_empty() {
            return;
        }
        for lease in leases {
            let attempt = attempt(Timestamp::from_seconds(1_700_000_000), "fine");
            let outcome = Outcome { attempt, next: next.clone(), projection: None };
            store.record(lease, outcome).await.unwrap();
        }
    }
}

async fn has_text(store: &SqliteStore, number: i64) -> bool {
    let id = AlertId { message: message(number).key, ordinal: 0 };
    store.alert(&id).await.unwrap().expect("its identity stays").raw.is_some()
}

fn pruned_early(place: &Place) -> u64 {
    let page = place.metrics.render();
    let name = Metric::PrunedEarly.name();
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
}

#[tokio::test]
async fn delivered_history_makes_room_for_ever() {
    let place = Place::new();
    let store = place.open_at(&noon(), 2 * MIB);
    for number in 0..200 {
        let accepted = store.accept(vec![large(number, &["soar"])], None, None).await;
        accepted.unwrap_or_else(|error| panic!("alert {number}: {error}")).remove(0).unwrap();
        end(&store, "soar", &Next::Delivered(Reference::default())).await;
    }
    assert!(pruned_early(&place) > 150, "{}", pruned_early(&place));
    assert!(has_text(&store, 199).await);
    let mut kept = Vec::new();
    for number in 0..200 {
        kept.push(has_text(&store, number).await);
    }
    assert!(kept.is_sorted(), "the oldest go first");
    let again = store.accept(vec![large(0, &["soar"])], None, None).await.unwrap().remove(0);
    assert_eq!(again.unwrap(), Accepted::Duplicate, "it is still known");
}

#[tokio::test]
async fn what_is_not_delivered_never_goes_before_its_time() {
    let place = Place::new();
    let store = place.open_at(&noon(), 2 * MIB);
    // By number: delivered, dead, delivered to one of two, without a destination, and dead for one
    // of two.
    let kinds: [&[&str]; 5] = [&["soar"], &["dead"], &["soar", "waits"], &[], &["soar", "dead"]];
    for (number, destinations) in (0..).zip(kinds) {
        store.accept(vec![large(number, destinations)], None, None).await.unwrap();
    }
    end(&store, "soar", &Next::Delivered(Reference::default())).await;
    end(&store, "dead", &Next::Dead { reason: "rejected" }).await;
    let mut number = 100;
    while store.accept(vec![large(number, &["waits"])], None, None).await.is_ok() {
        number += 1;
        assert!(number < 200, "it never becomes full");
    }
    let mut kept = Vec::new();
    for number in 0..5 {
        kept.push(has_text(&store, number).await);
    }
    assert_eq!(kept, [false, true, true, true, true]);
    assert_eq!(pruned_early(&place), 1);
    for number in 100..number {
        assert!(has_text(&store, number).await, "{number}");
    }
    assert!(matches!(store.probe().await, Err(StoreError::Full)));
    assert!(store.stats().await.unwrap().problem.contains("max_size"));
}

#[tokio::test]
async fn a_walk_that_found_nothing_is_not_begun_again_for_what_ends_no_delivery() {
    let place = Place::new();
    let store = place.open_at(&noon(), 2 * MIB);
    let rests = || store.shared.eviction.rests(store.shared.clock.instant());
    let mut number = 0;
    while store.accept(vec![large(number, &["soar"])], None, None).await.is_ok() {
        number += 1;
        assert!(number < 200, "it never becomes full");
    }
    store.accept(vec![large(number, &["soar"])], None, None).await.unwrap_err();
    assert!(rests());
    let delivered = std::time::Duration::from_secs(3600);
    store.prune(Retention { delivered, dead: delivered }).await.unwrap();
    assert!(rests(), "retention ends no delivery");
    end(&store, "soar", &Next::Delivered(Reference::default())).await;
    assert!(!rests());
    store.accept(vec![large(number, &["soar"])], None, None).await.unwrap().remove(0).unwrap();
}

#[tokio::test]
async fn what_a_reader_may_ask_for_again_stays_until_it_is_a_page_behind() {
    let place = Place::new();
    let store = place.open_at(&noon(), 8 * MIB);
    let page = i64::try_from(FEED_PAGE_MAX_ITEMS).unwrap();
    let small = |number| NewMessage { raw: vec![b'x'; 3_000].into(), ..message(number) };
    store.accept((0..page + 50).map(small).collect(), None, None).await.unwrap();
    let found = store.feed_page(&soar(), 0, 10_000).await.unwrap();
    assert_eq!(found.entries.len(), FEED_PAGE_MAX_ITEMS + 50);
    while !store.feed_taken(&soar(), found.end).await.unwrap().is_empty() {}
    let mut number = 10_000;
    while store.accept(vec![large(number, &["waits"])], None, None).await.is_ok() {
        number += 1;
        assert!(number < 10_200, "it never becomes full");
    }
    assert_eq!(pruned_early(&place), 50);
    assert!(!has_text(&store, 49).await);
    assert!(has_text(&store, 50).await);
    let last = store.feed_page(&soar(), found.entries[49].0, 10_000).await.unwrap();
    assert_eq!(last.entries.len(), FEED_PAGE_MAX_ITEMS, "the last page is given once more");
}

#[tokio::test]
async fn many_accepts_at_once_make_room_together() {
    let place = Place::new();
    let store = Arc::new(place.open_at(&noon(), 4 * MIB));
    for round in 0..20 {
        let mut all = tokio::task::JoinSet::new();
        for number in round * 10..round * 10 + 10 {
            let store = Arc::clone(&store);
            all.spawn(async move {
                store.accept(vec![large(number, &["soar"])], None, None).await.map(drop)
            });
        }
        for accepted in all.join_all().await {
            accepted.unwrap();
        }
        end(&store, "soar", &Next::Delivered(Reference::default())).await;
    }
}

#[test]
fn the_ballast_is_real_and_outside_of_the_allowance() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    let store = open(&place.path(), &place.metrics, 2 * MIB, Clock::system()).unwrap();
    let ballast = fs::metadata(beside(&place.path(), ".ballast")).unwrap();
    assert_eq!((ballast.len(), ballast.blocks() * 512), (2 * MIB, 2 * MIB));
    assert!(store.shared.size.used_and_free().0 < MIB);
}
