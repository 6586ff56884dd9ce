//! What every store promises, as tests that know no engine. A backend implements [`Bench`] and
//! calls [`contract_suite!`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Accepted, Action, AlertQuery, Attempt, CursorMove, Lease, NewAlert, NewMessage, Next, Outcome,
    Paused, Reference, Retention, Selection, Source, State, Store, StoreError,
};
use crate::{
    clock::{Clock, Timestamp},
    ids::{AlertId, AppName, ChannelId, DestinationName, MessageKey, MessageTs, TsKey},
    metrics::Metrics,
};

pub(super) const START: Timestamp = Timestamp::from_seconds(1_600_689_950);
pub(super) const LEASE: Duration = Duration::from_secs(90);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// A backend under test: it opens the same store again and again.
pub(super) trait Bench {
    /// An empty store's place.
    fn new() -> Self;
    /// Opens it. The one opened before is gone, whether it was closed or not.
    fn open(&self, clock: &Clock, metrics: &Metrics) -> Arc<dyn Store>;
}

/// One test's store, clock and numbers.
pub(super) struct Case<B> {
    bench: B,
    pub(super) clock: Clock,
    metrics: Metrics,
    store: Option<Arc<dyn Store>>,
}

impl<B: Bench> Case<B> {
    pub(super) fn new() -> Self {
        let (bench, clock, metrics) = (B::new(), Clock::manual(START), Metrics::new());
        let store = Some(bench.open(&clock, &metrics));
        Self { bench, clock, metrics, store }
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().expect("it is open")
    }

    /// As `kill -9` and a new start.
    fn crash(&mut self) {
        self.store = None;
        self.store = Some(self.bench.open(&self.clock, &self.metrics));
    }

    async fn accept(&self, message: NewMessage) -> Accepted {
        let results = self.store().accept(vec![message], None, None).await.expect("accepted");
        results.into_iter().next().expect("one result").expect("stored")
    }

    async fn lease(&self, destination: &str, n: usize) -> Vec<Lease> {
        self.store().lease_due(&name(destination), n).await.expect("leased")
    }

    async fn finish(&self, lease: Lease, next: Next) {
        self.store().record(lease, outcome(next)).await.expect("recorded");
    }

    async fn state(&self, n: u32) -> State {
        let view = self.store().alert(&id(n, 0)).await.expect("read").expect("known");
        view.deliveries.first().expect("one delivery").state
    }

    async fn act(&self, action: Action) -> u64 {
        self.store().act(Selection::default(), action).await.expect("done")
    }
}

pub(super) fn name(text: &str) -> DestinationName {
    DestinationName::new(text).expect("a name")
}

fn app() -> AppName {
    AppName::new("main").expect("a name")
}

fn key(n: u32) -> MessageKey {
    let ts = MessageTs::from_micros(1_600_000_000_000_000 + i64::from(n));
    MessageKey { app: app(), channel: ChannelId::new("C1"), ts: TsKey::Ts(ts) }
}

fn id(n: u32, ordinal: u32) -> AlertId {
    AlertId { message: key(n), ordinal }
}

fn alert(ordinal: u32, destinations: &[&str]) -> NewAlert {
    NewAlert {
        ordinal,
        attachment: ordinal,
        level: "high",
        search: format!("PII Sniffing cdn.example/{ordinal}.js"),
        destinations: destinations.iter().map(|text| name(text)).collect(),
    }
}

/// The `n`th message: one alert for destination `a`.
pub(super) fn message(n: u32) -> NewMessage {
    NewMessage {
        key: key(n),
        posted_at: MessageTs::from_micros(1_600_000_000_000_000 + i64::from(n)),
        source: Source::Push,
        event_id: format!("Ev{n}"),
        team: "T1".to_owned(),
        received_at: START,
        raw: Bytes::from(format!("{{\"n\":{n}}}")),
        is_edit: false,
        alerts: vec![alert(0, &["a"])],
    }
}

fn outcome(next: Next) -> Outcome {
    let attempt = Attempt {
        started_at: START,
        duration: SECOND,
        class: "delivered",
        status: Some(200),
        excerpt: "ok".to_owned(),
    };
    Outcome { attempt, next }
}

fn delivered() -> Next {
    Next::Delivered(Reference { id: "7".to_owned(), url: "https://soar/7".to_owned() })
}

const DEAD: Next = Next::Dead { reason: "alert_fault" };

const RETENTION: Retention = Retention {
    delivered: Duration::from_secs(30 * 86_400),
    dead: Duration::from_secs(90 * 86_400),
};

pub(super) async fn one_message_is_accepted_once_by_fifty_at_once<B: Bench>(case: Case<B>) {
    let store = case.store();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50 {
        let (store, mut message) = (Arc::clone(store), message(1));
        message.event_id = format!("Ev{n}");
        tasks.spawn(async move { store.accept(vec![message], None, None).await });
    }
    let mut new = 0;
    for result in tasks.join_all().await {
        match result.expect("accepted").pop().expect("one").expect("stored") {
            Accepted::New { alerts } => new += alerts,
            Accepted::Duplicate => {}
            Accepted::Revision => panic!("it is no edit"),
        }
    }
    assert_eq!(new, 1);
    assert_eq!(case.lease("a", 10).await.len(), 1);
}

pub(super) async fn each_routed_destination_gets_one_delivery<B: Bench>(case: Case<B>) {
    let mut both = message(1);
    both.alerts = vec![alert(0, &["a", "b"]), alert(1, &["b"])];
    assert_eq!(case.accept(both).await, Accepted::New { alerts: 2 });
    let (a, b) = (case.lease("a", 10).await, case.lease("b", 10).await);
    assert_eq!((a.len(), b.len()), (1, 2));
    let delivery = a.first().expect("one").delivery();
    assert_eq!(delivery.alert, id(1, 0));
    assert_eq!(&delivery.raw[..], b"{\"n\":1}");
    assert_eq!((delivery.attempts, delivery.event_id.as_str()), (0, "Ev1"));
    assert_eq!((delivery.received_at, delivery.pending_since), (START, START));
}

pub(super) async fn an_edit_brings_only_what_is_new_with_its_own_bytes<B: Bench>(case: Case<B>) {
    case.accept(message(1)).await;
    let mut edit = message(1);
    edit.is_edit = true;
    edit.raw = Bytes::from_static(b"edited");
    assert_eq!(case.accept(edit.clone()).await, Accepted::Revision);
    assert_eq!(case.accept(edit.clone()).await, Accepted::Duplicate, "it is kept already");
    edit.alerts.push(alert(1, &["a"]));
    assert_eq!(case.accept(edit).await, Accepted::New { alerts: 1 });
    let mut raws: Vec<_> =
        case.lease("a", 10).await.iter().map(|lease| lease.delivery().raw.clone()).collect();
    raws.sort();
    assert_eq!(raws, ["edited", "{\"n\":1}"].map(Bytes::from));
}

pub(super) async fn every_source_of_a_message_is_remembered<B: Bench>(case: Case<B>) {
    case.accept(message(1)).await;
    let mut again = message(1);
    again.source = Source::CatchUp;
    assert_eq!(case.accept(again).await, Accepted::Duplicate);
    let view = case.store().alert(&id(1, 0)).await.expect("read").expect("known");
    assert_eq!(view.source, Source::Push);
    assert_eq!(view.sources, [Source::Push, Source::CatchUp]);
}

pub(super) async fn an_unrouted_alert_is_kept<B: Bench>(case: Case<B>) {
    let mut unrouted = message(1);
    unrouted.alerts = vec![alert(0, &[])];
    assert_eq!(case.accept(unrouted).await, Accepted::New { alerts: 1 });
    let query = AlertQuery { unrouted: true, limit: 10, ..AlertQuery::default() };
    assert_eq!(case.store().alerts(query).await.expect("listed").len(), 1);
}

pub(super) async fn what_is_held_is_due_at_its_time<B: Bench>(case: Case<B>) {
    let until = START + SECOND * 30;
    let store = case.store();
    store.accept(vec![message(1)], Some(until), None).await.expect("accepted");
    assert_eq!(case.lease("a", 1).await.len(), 0);
    assert_eq!(store.next_due(&name("a")).await.expect("read"), Some(until));
    case.clock.advance(SECOND * 30);
    assert_eq!(case.lease("a", 1).await.len(), 1);
}

pub(super) async fn a_delivery_is_leased_to_one_worker_only<B: Bench>(case: Case<B>) {
    let batch = (0..100).map(message).collect();
    case.store().accept(batch, None, None).await.expect("accepted");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let store = Arc::clone(case.store());
        tasks.spawn(async move { store.lease_due(&name("a"), 10).await.expect("leased") });
    }
    let leases: Vec<Lease> = tasks.join_all().await.into_iter().flatten().collect();
    let mut ids: Vec<_> = leases.iter().map(|lease| lease.delivery().id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((leases.len(), ids.len()), (100, 100));
}

pub(super) async fn a_lease_that_passed_to_another_cannot_record<B: Bench>(case: Case<B>) {
    case.accept(message(1)).await;
    let stale = case.lease("a", 1).await.pop().expect("one");
    assert_eq!(case.lease("a", 1).await.len(), 0);
    case.clock.advance(LEASE + SECOND);
    let fresh = case.lease("a", 1).await.pop().expect("the lease has ended");
    case.finish(stale, delivered()).await;
    assert_eq!(case.state(1).await, State::Leased);
    assert!(case.metrics.render().contains("stale_leases_total 1\n"));
    case.finish(fresh, DEAD).await;
    assert_eq!(case.state(1).await, State::Dead);
}

pub(super) async fn outcomes_and_attempts_are_kept<B: Bench>(mut case: Case<B>) {
    case.accept(message(1)).await;
    let lease = case.lease("a", 1).await.pop().expect("one");
    let at = START + SECOND * 60;
    case.finish(lease, Next::Retry { at, alert_fault: true }).await;
    assert_eq!(case.lease("a", 1).await.len(), 0);
    case.crash();
    assert_eq!(case.store().next_due(&name("a")).await.expect("read"), Some(at));
    case.clock.advance(SECOND * 60);
    let lease = case.lease("a", 1).await.pop().expect("due");
    assert_eq!((lease.delivery().attempts, lease.delivery().alert_faults), (1, 1));
    case.finish(lease, delivered()).await;
    case.crash();
    let view = case.store().alert(&id(1, 0)).await.expect("read").expect("known");
    let delivery = view.deliveries.first().expect("one");
    assert_eq!((delivery.state, delivery.attempts), (State::Delivered, 2));
    assert_eq!(delivery.reference.id, "7");
    assert_eq!(delivery.log.len(), 2);
    assert_eq!(case.lease("a", 1).await.len(), 0);
}

pub(super) async fn a_crash_loses_nothing_and_frees_every_lease<B: Bench>(mut case: Case<B>) {
    for n in 0..20 {
        case.accept(message(n)).await;
    }
    let held = case.lease("a", 5).await;
    drop(held);
    case.crash();
    assert_eq!(case.lease("a", 100).await.len(), 20);
    assert_eq!(case.accept(message(3)).await, Accepted::Duplicate);
}

pub(super) async fn a_released_lease_is_due_as_before<B: Bench>(case: Case<B>) {
    case.accept(message(1)).await;
    let lease = case.lease("a", 1).await.pop().expect("one");
    case.store().release(lease).await;
    assert_eq!(case.lease("a", 1).await.pop().expect("one").delivery().attempts, 0);
}

pub(super) async fn an_operator_retries_and_cancels<B: Bench>(case: Case<B>) {
    for n in 0..3 {
        case.accept(message(n)).await;
    }
    let mut leases = case.lease("a", 3).await;
    let leased = leases.pop().expect("three");
    case.finish(leases.pop().expect("two"), DEAD).await;
    let at = START + DAY;
    case.finish(leases.pop().expect("one"), Next::Retry { at, alert_fault: false }).await;
    assert_eq!(case.act(Action::Retry).await, 2, "the dead one and the waiting one");
    assert_eq!(case.act(Action::Retry).await, 0, "both are due already");
    assert_eq!(case.act(Action::Cancel).await, 2, "the leased one is left alone");
    assert_eq!(case.lease("a", 3).await.len(), 0);
    case.finish(leased, delivered()).await;
    assert_eq!(case.act(Action::Cancel).await, 0, "a delivered one is left alone");
    case.clock.advance(DAY);
    assert_eq!(case.act(Action::Retry).await, 2, "cancelled ones can be retried");
    let lease = case.lease("a", 1).await.pop().expect("one");
    assert_eq!(lease.delivery().pending_since, START + DAY, "its age is counted anew");
}

pub(super) async fn two_people_retrying_at_once_change_it_once<B: Bench>(case: Case<B>) {
    case.accept(message(1)).await;
    case.finish(case.lease("a", 1).await.pop().expect("one"), DEAD).await;
    let (first, second) = tokio::join!(case.act(Action::Retry), case.act(Action::Retry));
    assert_eq!(first + second, 1);
}

pub(super) async fn what_grew_too_old_is_given_up_unless_leased_or_paused<B: Bench>(case: Case<B>) {
    for n in 0..3 {
        case.accept(message(n)).await;
    }
    let leased = case.lease("a", 1).await;
    case.clock.advance(SECOND * 60);
    let store = case.store();
    let too_old = store.expire(&name("a"), START - SECOND, "max_age").await;
    assert_eq!(too_old.expect("done"), 0);
    store.set_paused(&name("a"), Paused::Yes).await.expect("paused");
    assert_eq!(store.expire(&name("a"), START + SECOND, "max_age").await.expect("done"), 0);
    store.set_paused(&name("a"), Paused::No).await.expect("resumed");
    assert_eq!(store.expire(&name("a"), START + SECOND, "max_age").await.expect("done"), 2);
    drop(leased);
    let stats = store.stats().await.expect("read").destinations;
    assert_eq!(stats.first().map(|(_, stats)| (stats.dead, stats.leased)), Some((2, 1)));
}

pub(super) async fn a_pause_survives_a_crash_and_stops_the_age<B: Bench>(mut case: Case<B>) {
    case.accept(message(1)).await;
    case.store().set_paused(&name("a"), Paused::Yes).await.expect("paused");
    case.crash();
    assert_eq!(case.lease("a", 1).await.len(), 0);
    assert_eq!(case.store().next_due(&name("a")).await.expect("read"), None);
    case.clock.advance(DAY);
    case.store().set_paused(&name("a"), Paused::No).await.expect("resumed");
    let lease = case.lease("a", 1).await.pop().expect("it goes on");
    assert_eq!(lease.delivery().pending_since, START + DAY);
}

pub(super) async fn the_cursor_moves_with_its_page_and_never_back<B: Bench>(mut case: Case<B>) {
    let channel = ChannelId::new("C1");
    let to = |micros: i64, term| CursorMove {
        app: app(),
        channel: channel.clone(),
        to: MessageTs::from_micros(micros),
        term,
    };
    let store = Arc::clone(case.store());
    store.accept(vec![message(1)], None, Some(to(10, 2))).await.expect("accepted");
    store.accept(Vec::new(), None, Some(to(30, 2))).await.expect("an empty page moves it");
    store.accept(Vec::new(), None, Some(to(40, 1))).await.expect("an older term does not");
    store.accept(Vec::new(), None, Some(to(20, 2))).await.expect("nor does an older time");
    drop(store);
    case.crash();
    let cursor = case.store().cursor(&app(), &channel).await.expect("read");
    assert_eq!(cursor, Some(MessageTs::from_micros(30)));
}

pub(super) async fn retention_never_touches_what_is_undelivered<B: Bench>(case: Case<B>) {
    for n in 0..3 {
        case.accept(message(n)).await;
    }
    let mut leases = case.lease("a", 2).await;
    case.finish(leases.pop().expect("two"), DEAD).await;
    case.finish(leases.pop().expect("one"), delivered()).await;
    let store = case.store();
    case.clock.advance(DAY * 31);
    assert_eq!(store.prune(RETENTION).await.expect("pruned").messages, 1, "the delivered one");
    case.clock.advance(DAY * 60);
    assert_eq!(store.prune(RETENTION).await.expect("pruned").messages, 1, "the dead one");
    case.clock.advance(DAY * 365);
    store.prune(RETENTION).await.expect("pruned");
    let lease = case.lease("a", 10).await.pop().expect("the pending one is still there");
    assert!(!lease.delivery().raw.is_empty());
}

pub(super) async fn an_identity_outlives_its_message<B: Bench>(case: Case<B>) {
    case.accept(message(1)).await;
    case.finish(case.lease("a", 1).await.pop().expect("one"), delivered()).await;
    case.clock.advance(DAY * 31);
    assert_eq!(case.store().prune(RETENTION).await.expect("pruned").messages, 1);
    assert_eq!(case.accept(message(1)).await, Accepted::Duplicate);
    // The newest may stay, so that a store never gives a number twice.
    case.accept(message(2)).await;
    case.clock.advance(DAY * 400);
    assert_eq!(case.store().prune(RETENTION).await.expect("pruned").identities, 1);
    assert_eq!(case.accept(message(1)).await, Accepted::New { alerts: 1 });
}

pub(super) async fn poison_is_stored_or_refused_by_itself<B: Bench>(mut case: Case<B>) {
    let mut poison = message(1);
    poison.raw = Bytes::from_static(b"\x00\xff\xfe\\ud800");
    poison.event_id = "Ev\0".to_owned();
    poison.team = "\0".to_owned();
    poison.alerts =
        vec![NewAlert { search: format!("\0{}", "x".repeat(1_000_000)), ..alert(0, &["a"]) }];
    assert_eq!(case.accept(poison.clone()).await, Accepted::New { alerts: 1 });
    case.crash();
    let lease = case.lease("a", 1).await.pop().expect("one");
    assert_eq!(lease.delivery().raw, poison.raw, "the bytes are exact");
    assert_eq!(lease.delivery().event_id, "Ev\u{fffd}");
}

pub(super) async fn one_bad_item_never_blocks_its_neighbours<B: Bench>(case: Case<B>) {
    let mut batch: Vec<_> = (0..64).map(message).collect();
    let bad = batch.get_mut(31).expect("64 of them");
    bad.raw = Bytes::from(vec![b'x'; super::MESSAGE_MAX_BYTES + 1]);
    let mut twice = message(100);
    twice.alerts = vec![alert(0, &["a"]), alert(0, &["a"])];
    batch.push(twice);
    let results = case.store().accept(batch, None, None).await.expect("the batch is accepted");
    let refused: Vec<_> = (0..).zip(&results).filter(|(_, one)| one.is_err()).collect();
    let places: Vec<u32> = refused.iter().map(|(at, _)| *at).collect();
    assert_eq!(places, [31, 64]);
    assert!(refused.iter().all(|(_, one)| matches!(one, Err(StoreError::Item(_)))));
    assert_eq!(case.lease("a", 100).await.len(), 63);
}

pub(super) async fn alerts_are_listed_searched_and_paged<B: Bench>(case: Case<B>) {
    for n in 0..5 {
        let mut message = message(n);
        if let Some(alert) = message.alerts.first_mut().filter(|_| n == 3) {
            alert.level = "low";
            alert.search = "Vulnerable library".to_owned();
        }
        case.accept(message).await;
    }
    case.finish(case.lease("a", 1).await.pop().expect("one"), DEAD).await;
    let list = async |query: AlertQuery| -> Vec<String> {
        let found = case.store().alerts(query).await.expect("listed");
        found.iter().map(|view| view.id.to_string()).collect()
    };
    let all = AlertQuery { limit: 2, ..AlertQuery::default() };
    let first = case.store().alerts(all.clone()).await.expect("listed");
    assert_eq!(first.iter().map(|view| &view.id).collect::<Vec<_>>(), [&id(4, 0), &id(3, 0)]);
    let before = first.last().map(|view| view.seq);
    let second = list(AlertQuery { before, ..all.clone() }).await;
    assert_eq!(second, [id(2, 0), id(1, 0)].map(|id| id.to_string()));
    let ten = AlertQuery { limit: 10, ..AlertQuery::default() };
    let third = [id(3, 0).to_string()];
    assert_eq!(list(AlertQuery { level: Some("low".to_owned()), ..ten.clone() }).await, third);
    let text = Some("vulnerable LIB".to_owned());
    assert_eq!(list(AlertQuery { text, ..ten.clone() }).await, third);
    let state = Some(State::Dead);
    assert_eq!(list(AlertQuery { state, ..ten }).await, [id(0, 0).to_string()]);
}

pub(super) async fn a_new_alert_wakes_its_worker<B: Bench>(case: Case<B>) {
    let hint = case.store().due_hint(&name("a"));
    case.accept(message(1)).await;
    let woken = tokio::time::timeout(SECOND * 10, hint.notified()).await;
    assert!(woken.is_ok());
    assert_eq!(case.store().next_due(&name("b")).await.expect("read"), None);
}

pub(super) async fn a_probe_is_a_write_and_a_closed_store_says_so<B: Bench>(case: Case<B>) {
    case.store().probe().await.expect("a write");
    case.accept(message(1)).await;
    case.store().close().await;
    let refused = case.store().accept(vec![message(2)], None, None).await;
    assert!(matches!(refused, Err(StoreError::Closed)));
    assert!(matches!(case.store().probe().await, Err(StoreError::Closed)));
}

/// Instantiates every promise for a backend.
macro_rules! contract_suite {
    ($bench:ty: $($promise:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                crate::store::contract::$promise(crate::store::contract::Case::<$bench>::new())
                    .await;
            }
        )+
    };
    ($bench:ty) => {
        contract_suite! { $bench:
            one_message_is_accepted_once_by_fifty_at_once,
            each_routed_destination_gets_one_delivery,
            an_edit_brings_only_what_is_new_with_its_own_bytes,
            every_source_of_a_message_is_remembered,
            an_unrouted_alert_is_kept,
            what_is_held_is_due_at_its_time,
            a_delivery_is_leased_to_one_worker_only,
            a_lease_that_passed_to_another_cannot_record,
            outcomes_and_attempts_are_kept,
            a_crash_loses_nothing_and_frees_every_lease,
            a_released_lease_is_due_as_before,
            an_operator_retries_and_cancels,
            two_people_retrying_at_once_change_it_once,
            what_grew_too_old_is_given_up_unless_leased_or_paused,
            a_pause_survives_a_crash_and_stops_the_age,
            the_cursor_moves_with_its_page_and_never_back,
            retention_never_touches_what_is_undelivered,
            an_identity_outlives_its_message,
            poison_is_stored_or_refused_by_itself,
            one_bad_item_never_blocks_its_neighbours,
            alerts_are_listed_searched_and_paged,
            a_new_alert_wakes_its_worker,
            a_probe_is_a_write_and_a_closed_store_says_so,
        }
    };
}

pub(super) use contract_suite;
