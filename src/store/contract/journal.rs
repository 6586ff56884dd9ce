//! Promises about the journal of operators' actions.

use super::*;
use crate::store::{CHANGES_NAMED, Deed, JOURNAL_KEPT, JournalEntry, OperatorAction};

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
    // More alerts than one transaction changes, so the entry adds up several counts.
    w.accept_numbers(0..2500).await;
    let act = async |w: &World, action, selection, deed| {
        w.store().act(selection, action, deed).await.unwrap().changed
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

pub(in crate::store) async fn what_is_routed_is_kept_with_one_entry(mut w: World) {
    for number in 1..4 {
        w.accept(NewMessage { alerts: vec![alert(0, &[])], ..w.message(number) }).await;
    }
    let route = async |w: &World, number, to: &[&str], deed| {
        let names: Vec<DestinationName> = to.iter().map(|one| name(one)).collect();
        w.store().route(&w.id(number), &names, Some(deed)).await.unwrap()
    };
    let first = route(&w, 1, &["soar", "chat"], Deed::New(deed("retry"))).await;
    assert_eq!(first.made, 2);
    let entry = first.entry.unwrap();
    w.crash();
    // An operator may route several alerts at once, which then share an entry.
    let second = route(&w, 2, &["soar"], Deed::More(entry)).await;
    assert_eq!((second.made, second.entry), (1, Some(entry)));
    assert_eq!(journal(&w).await, entries([("retry", 3)]));
    for nothing in [1, 9999] {
        assert_eq!(route(&w, nothing, &["soar"], Deed::More(entry)).await.made, 0);
        assert_eq!(route(&w, nothing, &["soar"], Deed::New(deed("again"))).await.made, 0);
    }
    w.store().route(&w.id(3), &[name("soar")], None).await.unwrap();
    assert_eq!(journal(&w).await, entries([("again", 0), ("again", 0), ("retry", 3)]));
}

pub(in crate::store) async fn what_an_action_changed_is_named(w: World) {
    w.accept_numbers(0..2500).await;
    let act = async |alert, action| {
        let selection = Selection { alert, ..Selection::default() };
        w.store().act(selection, action, None).await.unwrap()
    };
    let one = (w.id(7), name("soar"));
    let changes = act(Some(w.id(7)), Action::Cancel).await;
    assert_eq!((changes.changed, changes.named), (1, vec![one.clone()]));
    let changes = act(Some(w.id(7)), Action::Cancel).await;
    assert_eq!((changes.changed, changes.named), (0, vec![]));
    let changes = act(None, Action::Cancel).await;
    assert_eq!((changes.changed, changes.named.len()), (2499, CHANGES_NAMED));
    assert!(!changes.named.contains(&one));
    let distinct: BTreeSet<_> = changes.named.iter().map(|(id, _)| id).collect();
    assert_eq!(distinct.len(), CHANGES_NAMED);
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
