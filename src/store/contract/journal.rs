//! What operators did is kept.

use super::*;
use crate::store::{JOURNAL_KEPT, JournalEntry, OperatorAction};

fn deed(action: &'static str) -> OperatorAction {
    OperatorAction {
        who: "127.0.0.1:5 (loopback)\0".to_owned(),
        action,
        selection: "all dead".to_owned(),
    }
}

async fn journal(w: &World) -> Vec<(String, u64)> {
    let entries = w.store().journal(10).await.unwrap();
    entries.into_iter().map(|entry| (entry.action, entry.changed)).collect()
}

fn entries<const N: usize>(expected: [(&str, u64); N]) -> Vec<(String, u64)> {
    expected.map(|(action, changed)| (action.to_owned(), changed)).to_vec()
}

pub(in crate::store) async fn an_operators_action_is_kept_with_what_it_changed(mut w: World) {
    assert_eq!(journal(&w).await, []);
    w.accept_numbers(0..2500).await;
    let act = async |w: &World, action, selection, deed| {
        w.store().act(selection, action, deed).await.unwrap()
    };
    let all = Selection::default();
    assert_eq!(act(&w, Action::Cancel, all.clone(), Some(deed("cancel"))).await, 2500);
    assert_eq!(act(&w, Action::Cancel, all.clone(), Some(deed("cancel"))).await, 0);
    assert_eq!(act(&w, Action::Retry, all, None).await, 2500);
    let nobody = Selection { alert: Some(w.id(9999)), ..Selection::default() };
    assert_eq!(act(&w, Action::Retry, nobody, Some(deed("retry"))).await, 0);
    let pause = Paused::Yes(Pause::default());
    for (paused, verb) in [(pause.clone(), "pause"), (pause, "pause"), (Paused::No, "resume")] {
        let deed = deed(verb);
        w.store().set_paused(&name("soar"), paused, Some(deed)).await.unwrap();
    }
    let noted_at = w.clock.now();
    w.store().note(deed("test"), 1).await.unwrap();
    w.crash();
    let expected = entries([
        ("test", 1),
        ("resume", 1),
        ("pause", 0),
        ("pause", 1),
        ("retry", 0),
        ("cancel", 0),
        ("cancel", 2500),
    ]);
    assert_eq!(journal(&w).await, expected);
    let newest = w.store().journal(1).await.unwrap();
    let entry = JournalEntry {
        at: noted_at,
        who: "127.0.0.1:5 (loopback)\u{fffd}".to_owned(),
        action: "test".to_owned(),
        selection: "all dead".to_owned(),
        changed: 1,
    };
    assert_eq!(newest, [entry]);
}

pub(in crate::store) async fn an_operators_action_is_forgotten_after_ninety_days(w: World) {
    w.store().note(deed("first"), 0).await.unwrap();
    w.clock.advance(JOURNAL_KEPT);
    w.store().note(deed("second"), 0).await.unwrap();
    w.store().prune(RETENTION).await.unwrap();
    assert_eq!(journal(&w).await, entries([("second", 0), ("first", 0)]));
    w.clock.advance(HOUR);
    w.store().prune(RETENTION).await.unwrap();
    assert_eq!(journal(&w).await, entries([("second", 0)]));
}
