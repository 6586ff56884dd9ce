//! Refusals: what they prove, and when their count starts again.

use fastrand::Rng;

use super::*;

const REFUSED: Next = Next::Retry { wait: Duration::ZERO, because: Because::Refused };

/// Accepts another alert and delivers it.
async fn accept_another(w: &World, number: i64) {
    let mut message = w.message(number);
    message.alerts = vec![alert(0, &["soar"])];
    w.accept(message).await;
    let mut held = Vec::new();
    loop {
        let lease = w.lease_one().await;
        if lease.delivery().alert == w.id(number) {
            w.record(lease, Next::Delivered(Reference::default())).await;
            break;
        }
        held.push(lease);
    }
    for lease in held {
        w.store().release(lease).await;
    }
}

async fn refuse_once(w: &World) -> Refusals {
    let lease = w.lease_one().await;
    let before = lease.delivery().refusals;
    w.record(lease, REFUSED).await;
    before
}

pub(in crate::store) async fn what_refusals_prove_survives_a_crash(mut w: World) {
    w.accept(w.message(1)).await;
    assert_eq!(refuse_once(&w).await, Refusals::default());
    accept_another(&w, 2).await;
    w.crash_and_free();
    assert_eq!(refuse_once(&w).await, Refusals { count: 1, accepted: true, evidence: 0 });
    w.crash_and_free();
    let proof = w.lease_one().await.delivery().refusals;
    assert_eq!(proof, Refusals { count: 2, accepted: true, evidence: 1 });
    assert!(proof.are_proof_with_one_more());
}

pub(in crate::store) async fn an_acceptance_says_nothing_about_requests_that_began_before_it(
    w: World,
) {
    w.accept(w.message(1)).await;
    refuse_once(&w).await;
    refuse_once(&w).await;
    let began_before = w.lease_one().await;
    accept_another(&w, 2).await;
    assert!(!began_before.delivery().refusals.accepted);
    w.record(began_before, REFUSED).await;
    let after = w.lease_one().await.delivery().refusals;
    assert_eq!(after, Refusals { count: 3, accepted: true, evidence: 0 });
    assert!(!after.are_proof_with_one_more());
}

pub(in crate::store) async fn an_acceptance_from_before_the_first_refusal_proves_nothing(w: World) {
    w.accept(w.message(1)).await;
    let first = w.lease_one().await;
    accept_another(&w, 2).await;
    w.record(first, REFUSED).await;
    assert!(!w.lease_one().await.delivery().refusals.accepted);
}

pub(in crate::store) async fn an_acceptance_elsewhere_proves_nothing(w: World) {
    w.accept(w.message(1)).await;
    refuse_once(&w).await;
    w.accept(NewMessage { alerts: vec![alert(0, &["chat"])], ..w.message(2) }).await;
    let elsewhere = w.lease("chat", 1).await.remove(0);
    w.record(elsewhere, Next::Delivered(Reference::default())).await;
    assert!(!w.lease_one().await.delivery().refusals.accepted);
}

pub(in crate::store) async fn refusals_are_counted_anew_after_a_retry_and_under_other_settings(
    mut w: World,
) {
    let note = async |w: &World, mark| w.store().note_settings(&name("soar"), mark).await.unwrap();
    w.accept(w.message(1)).await;
    assert_eq!(note(&w, 7).await, 0, "there is nothing to count anew");
    let refused_and_late = Next::Retry { wait: HOUR, because: Because::Refused };
    for _ in 0..2 {
        refuse_once(&w).await;
        w.record(w.lease_one().await, refused_and_late.clone()).await;
        assert!(w.lease("soar", 1).await.is_empty());
        accept_another(&w, 2 + i64::from(w.view(1).await.deliveries[0].attempts)).await;
        assert_eq!(w.act(Selection::default(), Action::Retry).await, 1);
        let lease = w.lease_one().await;
        assert_eq!(lease.delivery().refusals, Refusals::default());
        w.record(lease, refused_and_late.clone()).await;
        assert_eq!(note(&w, 7).await, 0, "the settings are the same");
        w.crash_and_free();
        assert_eq!(note(&w, 7).await, 0, "they are kept");
        assert_eq!(note(&w, 8).await, 1);
        let lease = w.lease_one().await;
        assert_eq!(lease.delivery().refusals, Refusals::default(), "and it is due now");
        w.store().release(lease).await;
        assert_eq!(note(&w, 7).await, 0);
    }
}

/// Refuses the first alert until one more refusal would kill it, and leases it once more.
async fn lease_the_doomed(w: &World) -> Lease {
    refuse_once(w).await;
    accept_another(w, 2).await;
    refuse_once(w).await;
    let doomed = w.lease_one().await;
    assert!(doomed.delivery().refusals.are_proof_with_one_more());
    doomed
}

pub(in crate::store) async fn an_attempt_from_before_new_settings_neither_kills_nor_counts(
    mut w: World,
) {
    let note = async |w: &World, mark| w.store().note_settings(&name("soar"), mark).await.unwrap();
    note(&w, 7).await;
    w.accept(w.message(1)).await;
    let doomed = lease_the_doomed(&w).await;
    note(&w, 8).await;
    // The attempt was made under settings 7, and 8 are in use when it ends.
    w.record(doomed, Next::Dead { reason: "refused" }).await;
    assert_eq!(w.delivery(1).await.attempts, 3, "it was made");
    let late = w.lease_one().await;
    assert_eq!(late.delivery().refusals, Refusals::default(), "and it is due now");
    note(&w, 9).await;
    w.record(late, Next::Retry { wait: HOUR, because: Because::Refused }).await;
    w.crash();
    assert_eq!(refuse_once(&w).await, Refusals::default());
    let message = NewMessage { alerts: vec![alert(0, &["soar"])], ..w.message(3) };
    w.accept(message).await;
    let mut held = w.lease("soar", 2).await;
    let old = held.iter().position(|one| one.delivery().alert == w.id(3)).unwrap();
    let old = held.remove(old);
    w.record(held.remove(0), REFUSED).await;
    note(&w, 10).await;
    refuse_once(&w).await;
    // An acceptance under earlier settings proves nothing about the present ones.
    w.record(old, Next::Delivered(Reference::default())).await;
    let proof = w.lease_one().await.delivery().refusals;
    assert_eq!(
        proof,
        Refusals { count: 1, accepted: false, evidence: 0 },
        "it proves old settings"
    );
}

pub(in crate::store) async fn an_attempt_kills_under_the_settings_that_it_was_made_with(w: World) {
    w.store().note_settings(&name("soar"), 7).await.unwrap();
    w.accept(w.message(1)).await;
    let doomed = lease_the_doomed(&w).await;
    w.store().note_settings(&name("soar"), 7).await.unwrap();
    w.store().note_settings(&name("chat"), 8).await.unwrap();
    w.record(doomed, Next::Dead { reason: "refused" }).await;
    assert_eq!(w.delivery(1).await.state, State::Dead);
}

pub(in crate::store) async fn states_are_disjoint_and_listed(w: World) {
    w.accept_numbers(1..4).await;
    let leases = w.lease("soar", 3).await;
    let of = |number| leases.iter().position(|one| one.delivery().alert == w.id(number)).unwrap();
    let (refused, held) = (of(1), of(2));
    let mut leases: Vec<Option<Lease>> = leases.into_iter().map(Some).collect();
    let mut lease = leases[refused].take().unwrap();
    for _ in 1..REFUSALS {
        w.record(lease, REFUSED).await;
        assert_eq!(w.delivery(1).await.state, State::Pending);
        lease = w.lease_one().await;
    }
    w.record(lease, REFUSED).await;
    let _held = leases[held].take().unwrap();
    w.store().release(leases.into_iter().flatten().next().unwrap()).await;

    // From here on alert 1 is refused, 2 is leased and 3 is pending.
    let found = async |state, configured: Option<&[&str]>| {
        let configured = configured.map(|all| all.iter().map(|one| name(one)).collect());
        let query = AlertQuery { state: Some(state), configured, ..all(9) };
        let mut found: Vec<_> = w.list(query).await.into_iter().map(|one| one.id).collect();
        found.sort();
        found
    };
    let states = [State::Pending, State::Refused, State::Leased, State::Paused, State::Orphaned];
    let everywhere = async |configured: Option<&'static [&'static str]>| {
        let mut all = Vec::new();
        for state in states {
            all.push(found(state, configured).await);
        }
        all
    };
    let running = [vec![w.id(3)], vec![w.id(1)], vec![w.id(2)], vec![], vec![]];
    assert_eq!(everywhere(None).await, running);
    assert_eq!(everywhere(Some(&["soar"])).await, running);
    let orphaned = [vec![], vec![], vec![], vec![], vec![w.id(1), w.id(2), w.id(3)]];
    assert_eq!(everywhere(Some(&["chat"])).await, orphaned);
    let numbers = |stats: crate::store::Stats| {
        let (_, one) = &stats.destinations[0];
        (one.pending, one.refused, one.leased, one.pause.is_some())
    };
    assert_eq!(numbers(w.store().stats().await.unwrap()), (1, 1, 1, false));
    w.pause(Paused::Yes(Pause::default())).await;
    let paused = [vec![], vec![], vec![w.id(2)], vec![w.id(1), w.id(3)], vec![]];
    assert_eq!(everywhere(None).await, paused);
    assert_eq!(numbers(w.store().stats().await.unwrap()), (1, 1, 1, true));
    w.pause(Paused::No).await;
    let selection = Selection { state: Some(State::Refused), ..Selection::default() };
    assert_eq!(w.act(selection.clone(), Action::Retry).await, 1, "only the refused one");
    assert_eq!(w.act(selection, Action::Cancel).await, 0);
    assert_eq!(w.delivery(1).await.state, State::Pending);
}

/// Model of the rule about refusals, which decides from the whole history and keeps no counts.
#[derive(Default)]
struct Story {
    step: u64,
    /// Since the count began: when the refused request began, and when the refusal was recorded.
    refusals: std::collections::HashMap<AlertId, Vec<(u64, u64)>>,
    /// Which alert the destination accepted, and when.
    acceptances: Vec<(AlertId, u64)>,
}

impl Story {
    fn now(&mut self) -> u64 {
        self.step += 1;
        self.step
    }

    /// Returns `true` if a refusal of a request that began then makes the alert a dead letter.
    fn kills(&self, alert: &AlertId, began: u64) -> bool {
        let Some(before) = self.refusals.get(alert) else { return false };
        let Some((_, first)) = before.first() else { return false };
        let enough = before.len() + 1 >= 3;
        let proven = self.acceptances.iter().any(|(other, at)| {
            let after = before.iter().filter(|(began, _)| began > at).count();
            other != alert && at > first && after + usize::from(began > *at) >= 2
        });
        enough && proven
    }
}

/// Runs one random step on three alerts that may be refused and on others that are accepted.
async fn live(w: &mut World, rng: &mut Rng, story: &mut Story, held: &mut Vec<(Lease, u64)>) {
    match rng.u8(0..20) {
        0..7 => {
            let n = rng.usize(1..3);
            for lease in w.lease("soar", n).await {
                held.push((lease, story.now()));
            }
        }
        7..17 if !held.is_empty() => {
            let (lease, began) = held.swap_remove(rng.usize(0..held.len()));
            let alert = lease.delivery().alert.clone();
            let proven = lease.delivery().refusals.are_proof_with_one_more();
            let is_one_of_three = (1..4).any(|number| w.id(number) == alert);
            if is_one_of_three {
                assert_eq!(proven, story.kills(&alert, began), "{alert} after {}", story.step);
                let now = story.now();
                let count = story.refusals.entry(alert).or_default();
                count.push((began, now));
                if proven {
                    // The alert stays in the test, as after a retry by hand.
                    count.clear();
                    let id = lease.delivery().alert.clone();
                    w.record(lease, Next::Dead { reason: "refused" }).await;
                    let one = Selection { alert: Some(id), ..Selection::default() };
                    assert_eq!(w.act(one, Action::Retry).await, 1);
                } else {
                    w.record(lease, REFUSED).await;
                }
            } else {
                let now = story.now();
                story.acceptances.push((alert, now));
                w.record(lease, Next::Delivered(Reference::default())).await;
            }
        }
        17 => {
            let number = 10 + i64::try_from(story.now()).unwrap();
            w.accept(w.message(number)).await;
        }
        18 => {
            // What was in flight is attempted again.
            held.clear();
            w.crash_and_free();
        }
        _ if held.is_empty() => {
            let mark = u16::try_from(story.now()).unwrap();
            w.store().note_settings(&name("soar"), mark).await.unwrap();
            story.refusals.clear();
        }
        _ => {}
    }
}

pub(in crate::store) async fn refusals_kill_on_evidence_only_whatever_the_schedule(mut w: World) {
    w.accept_numbers(1..4).await;
    let mut rng = Rng::with_seed(7);
    let (mut story, mut held) = (Story::default(), Vec::new());
    let mut deaths = 0;
    for _ in 0..600 {
        let alive: usize = story.refusals.values().map(Vec::len).sum();
        live(&mut w, &mut rng, &mut story, &mut held).await;
        deaths += usize::from(story.refusals.values().map(Vec::len).sum::<usize>() + 1 < alive);
    }
    assert!(deaths > 3, "the schedule must contain deaths, and has {deaths}");
}
