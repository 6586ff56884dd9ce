//! Promises about near misses and quarantined bodies.

use super::*;
use crate::store::{Counted, NEAR_MISS_KEPT, NEAR_MISSES, NearMiss, NewNearMiss};

fn near_miss(w: &World, number: i64) -> NewNearMiss {
    let (bot_id, app_id) = ("B\0".to_owned(), "A1".to_owned());
    NewNearMiss { message: w.message(number), reason: "reply", bot_id, app_id }
}

async fn listed(w: &World) -> Vec<NearMiss> {
    w.store().near_misses(None, 2_000).await.unwrap()
}

async fn unread(w: &World) -> [(u64, u64); 2] {
    let review = w.store().to_review().await.unwrap();
    [review.near_misses, review.quarantine].map(|Counted { unread, total }| (unread, total))
}

pub(in crate::store) async fn a_near_miss_is_kept_once_and_read_once(mut w: World) {
    for (number, is_new) in [(1, true), (2, true), (1, false)] {
        assert_eq!(w.store().keep_near_miss(near_miss(&w, number)).await.unwrap(), is_new);
    }
    w.crash();
    let all = listed(&w).await;
    let expected = NearMiss {
        seq: all[1].seq,
        id: w.id(1),
        reason: "reply".to_owned(),
        posted_at: w.message(1).posted_at,
        received_at: w.clock.now(),
        event_id: "Ev1".to_owned(),
        team: "T1".to_owned(),
        bot_id: "B\u{fffd}".to_owned(),
        app_id: "A1".to_owned(),
        summary: alert(0, &[]).search,
        is_adopted: false,
        is_read: false,
        raw: w.message(1).raw,
    };
    assert_eq!(w.store().near_miss(&w.id(1)).await.unwrap(), Some(expected.clone()));
    let expected = NearMiss { raw: Bytes::new(), ..expected };
    assert_eq!((all.len(), &all[1]), (2, &expected));
    assert_eq!(w.store().near_misses(Some(all[0].seq), 10).await.unwrap(), [expected]);
    assert_eq!(w.store().near_miss(&w.id(3)).await.unwrap(), None);
    assert_eq!(unread(&w).await, [(2, 2), (0, 0)]);
    assert_eq!(w.store().to_review().await.unwrap().unread_of, [(app(), 2)]);
    w.store().mark_read(&[all[0].seq], &[]).await.unwrap();
    assert_eq!(unread(&w).await, [(1, 2), (0, 0)]);
    w.store().mark_adopted(all[1].seq).await.unwrap();
    assert_eq!(unread(&w).await, [(0, 2), (0, 0)]);
    let adopted: Vec<_> = listed(&w).await.iter().map(|it| (it.is_adopted, it.is_read)).collect();
    assert_eq!(adopted, [(false, true), (true, true)]);
}

pub(in crate::store) async fn the_newest_thousand_near_misses_are_kept_for_ninety_days(w: World) {
    let kept = i64::from(NEAR_MISSES);
    for number in 0..kept + 2 {
        w.store().keep_near_miss(near_miss(&w, number)).await.unwrap();
    }
    let all = listed(&w).await;
    assert_eq!((all.len(), &all[0].id), (1_000, &w.id(kept + 1)));
    assert_eq!(all[999].id, w.id(2));
    w.clock.advance(NEAR_MISS_KEPT);
    w.store().prune(RETENTION).await.unwrap();
    assert_eq!(listed(&w).await.len(), 1_000);
    w.clock.advance(HOUR);
    w.store().prune(RETENTION).await.unwrap();
    w.store().prune(RETENTION).await.unwrap();
    assert_eq!(listed(&w).await, []);
}

pub(in crate::store) async fn an_unreadable_body_is_listed_and_read_once(w: World) {
    w.store().quarantine(&app(), b"first");
    w.store().quarantine(&app(), b"second");
    w.store().probe().await.unwrap();
    let bodies = w.store().quarantined(10).await.unwrap();
    let texts: Vec<_> = bodies.iter().map(|one| (&one.body[..], one.is_read)).collect();
    assert_eq!(texts, [(&b"second"[..], false), (&b"first"[..], false)]);
    assert_eq!((&bodies[0].app, bodies[0].received_at), (&app(), w.clock.now()));
    assert_eq!(unread(&w).await, [(0, 0), (2, 2)]);
    w.store().mark_read(&[], &[bodies[0].id]).await.unwrap();
    assert_eq!(unread(&w).await, [(0, 0), (1, 2)]);
    assert!(w.store().quarantined(1).await.unwrap()[0].is_read);
}
