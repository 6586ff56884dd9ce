//! What every store promises, one function a promise. It knows no engine: a backend says how it is
//! opened, and `contract!` makes a test of each promise.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    clock::{Clock, Timestamp},
    ids::{AlertId, AppName, ChannelId, DestinationName, MessageKey, MessageTs, TsKey},
    store::{
        ATTEMPTS_KEPT, Accepted, Action, AlertQuery, AlertView, Attempt, CursorMove, DeliveryView,
        IDENTITY_KEPT, Lease, MESSAGE_MAX_BYTES, NewAlert, NewMessage, Next, Outcome, Paused,
        REVISIONS_KEPT, Reference, Retention, Selection, Source, State, Store, StoreError,
    },
};

/// How long the leases of a store under test last.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// How large a store under test may become.
pub(super) const MAX_SIZE: u64 = 64 * 1024 * 1024;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const RETENTION: Retention =
    Retention { delivered: Duration::from_secs(7 * 24 * 3600), dead: DAY.saturating_mul(30) };

/// One place for a store of an engine.
pub(super) trait Backend: Send + Sync {
    /// Opens the store that is there, or a new one: leases last [`LEASE`], and it may become
    /// `max_size` bytes large.
    fn open(&self, clock: &Clock, max_size: u64) -> Arc<dyn Store>;

    /// How many outcomes were ignored since their leases had passed to others.
    fn stale_leases(&self) -> u64;
}

/// A store under test, with its clock.
pub(super) struct World {
    backend: Box<dyn Backend>,
    clock: Clock,
    store: Option<Arc<dyn Store>>,
}

impl World {
    pub(super) fn new(backend: impl Backend + 'static) -> Self {
        let clock = Clock::manual(Timestamp::from_seconds(1_700_000_000));
        let store = Some(backend.open(&clock, MAX_SIZE));
        Self { backend: Box::new(backend), clock, store }
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    /// Drops the store without closing it, and opens it again.
    fn crash(&mut self) {
        self.reopen_with(MAX_SIZE);
    }

    fn reopen_with(&mut self, max_size: u64) {
        let store = self.store.take().unwrap();
        assert_eq!(Arc::strong_count(&store), 1, "somebody still uses the store");
        drop(store);
        self.store = Some(self.backend.open(&self.clock, max_size));
    }

    /// A message of that number with one alert for `soar`.
    fn message(&self, number: i64) -> NewMessage {
        let ts = MessageTs::from_micros((1_600_000_000 + number) * 1_000_000);
        NewMessage {
            key: MessageKey { app: app(), channel: channel(), ts: TsKey::Ts(ts) },
            posted_at: ts,
            source: Source::Push,
            event_id: format!("Ev{number}"),
            team: "T1".to_owned(),
            received_at: self.clock.now(),
            raw: format!("{{\"number\":{number}}}").into(),
            is_edit: false,
            alerts: vec![alert(0, &["soar"])],
        }
    }

    async fn try_accept(&self, batch: Vec<NewMessage>) -> Vec<Result<Accepted, StoreError>> {
        self.store().accept(batch, None, None).await.unwrap()
    }

    async fn accept(&self, message: NewMessage) -> Accepted {
        self.try_accept(vec![message]).await.remove(0).unwrap()
    }

    async fn accept_numbers(&self, numbers: std::ops::Range<i64>) {
        let batch = numbers.map(|number| self.message(number)).collect();
        for result in self.try_accept(batch).await {
            assert_eq!(result.unwrap(), Accepted::New { alerts: 1 });
        }
    }

    async fn lease(&self, destination: &str, n: usize) -> Vec<Lease> {
        self.store().lease_due(&name(destination), n).await.unwrap()
    }

    async fn lease_one(&self) -> Lease {
        let mut leases = self.lease("soar", 1).await;
        assert_eq!(leases.len(), 1, "one delivery is due");
        leases.remove(0)
    }

    async fn record(&self, lease: Lease, next: Next) {
        let outcome = Outcome { attempt: attempt(self.clock.now(), "fine"), next };
        self.store().record(lease, outcome).await.unwrap();
    }

    async fn deliver_all(&self) {
        for lease in self.lease("soar", 1000).await {
            self.record(lease, Next::Delivered(Reference::default())).await;
        }
    }

    async fn view(&self, number: i64) -> AlertView {
        self.store().alert(&self.id(number)).await.unwrap().unwrap()
    }

    async fn delivery(&self, number: i64) -> DeliveryView {
        self.view(number).await.deliveries.remove(0)
    }

    fn id(&self, number: i64) -> AlertId {
        AlertId { message: self.message(number).key, ordinal: 0 }
    }

    async fn act(&self, selection: Selection, action: Action) -> u64 {
        self.store().act(selection, action).await.unwrap()
    }

    async fn pause(&self, paused: Paused) {
        self.store().set_paused(&name("soar"), paused).await.unwrap();
    }

    async fn list(&self, query: AlertQuery) -> Vec<AlertView> {
        self.store().alerts(query).await.unwrap()
    }

    async fn next_due(&self) -> Option<Timestamp> {
        self.store().next_due(&name("soar")).await.unwrap()
    }
}

fn app() -> AppName {
    AppName::new("main").unwrap()
}

fn channel() -> ChannelId {
    ChannelId::new("C0123456789")
}

fn name(text: &str) -> DestinationName {
    DestinationName::new(text).unwrap()
}

fn alert(ordinal: u32, destinations: &[&str]) -> NewAlert {
    NewAlert {
        ordinal,
        attachment: ordinal,
        level: "high",
        search: format!("PII Harvesting checkout.js number {ordinal}"),
        destinations: destinations.iter().map(|text| name(text)).collect(),
    }
}

fn attempt(started_at: Timestamp, excerpt: &str) -> Attempt {
    Attempt {
        started_at,
        duration: Duration::from_millis(250),
        class: "unavailable",
        status: Some(503),
        excerpt: excerpt.to_owned(),
    }
}

fn all(limit: u32) -> AlertQuery {
    AlertQuery { limit, ..AlertQuery::default() }
}

/// Makes a test of every promise.
macro_rules! contract {
    ($backend:expr) => {
        crate::store::contract::contract! { $backend =>
            fifty_identical_accepts_at_once_are_one_alert,
            one_message_under_eleven_event_ids_is_one_alert,
            a_message_without_a_timestamp_is_known_by_its_digest,
            two_destinations_get_a_delivery_each,
            sources_are_merged,
            an_edit_with_a_new_incident_brings_only_that_one,
            an_edit_with_nothing_new_is_a_revision_and_is_not_sent,
            only_the_newest_revisions_are_kept,
            an_unrouted_alert_is_kept,
            held_deliveries_wait,
            workers_never_share_a_delivery,
            the_oldest_due_is_leased_first,
            a_released_lease_is_due_as_before,
            an_expired_lease_passes_to_another_and_its_outcome_is_ignored,
            a_late_outcome_counts_while_nobody_else_has_the_lease,
            a_late_outcome_of_an_ended_delivery_is_ignored,
            outcomes_are_kept,
            only_the_newest_attempts_are_kept,
        }
    };
    ($backend:expr => $($promise:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                crate::store::contract::$promise(crate::store::contract::World::new($backend)).await;
            }
        )+
    };
}
pub(super) use contract;

// Taking messages in

pub(super) async fn fifty_identical_accepts_at_once_are_one_alert(w: World) {
    let mut accepts = JoinSet::new();
    for _ in 0..50 {
        let (store, message) = (Arc::clone(w.store()), w.message(1));
        accepts.spawn(async move { store.accept(vec![message], None, None).await });
    }
    let results: Vec<Accepted> = accepts
        .join_all()
        .await
        .into_iter()
        .map(|result| result.unwrap().remove(0).unwrap())
        .collect();
    let new = results.iter().filter(|one| **one == Accepted::New { alerts: 1 }).count();
    let known = results.iter().filter(|one| **one == Accepted::Duplicate).count();
    assert_eq!((new, known), (1, 49));
    assert_eq!(w.list(all(10)).await.len(), 1);
    assert_eq!(w.lease("soar", 10).await.len(), 1);
}

pub(super) async fn one_message_under_eleven_event_ids_is_one_alert(w: World) {
    let batch: Vec<NewMessage> = (0..11)
        .map(|number| NewMessage { event_id: format!("EvX{number}"), ..w.message(1) })
        .collect();
    let results = w.try_accept(batch).await;
    assert_eq!(results.len(), 11);
    for (index, result) in results.into_iter().enumerate() {
        let expected = if index == 0 { Accepted::New { alerts: 1 } } else { Accepted::Duplicate };
        assert_eq!(result.unwrap(), expected);
    }
    let view = w.view(1).await;
    assert_eq!(view.event_id, "EvX0");
    assert_eq!(view.deliveries.len(), 1);
    assert_eq!(w.lease("soar", 20).await.len(), 1);
}

pub(super) async fn a_message_without_a_timestamp_is_known_by_its_digest(w: World) {
    let mut message = w.message(1);
    message.key.ts = TsKey::Digest([0, 255, 1, 2, 3, 4, 5, 6]);
    assert_eq!(w.accept(message.clone()).await, Accepted::New { alerts: 1 });
    assert_eq!(w.accept(message.clone()).await, Accepted::Duplicate);
    let id = AlertId { message: message.key, ordinal: 0 };
    assert_eq!(w.store().alert(&id).await.unwrap().unwrap().id, id);
    assert_eq!(w.lease_one().await.delivery().alert, id);
}

pub(super) async fn two_destinations_get_a_delivery_each(w: World) {
    let message = NewMessage { alerts: vec![alert(0, &["soar", "chat"])], ..w.message(1) };
    w.accept(message.clone()).await;
    let view = w.view(1).await;
    let names: Vec<&str> = view.deliveries.iter().map(|one| one.destination.as_str()).collect();
    assert_eq!(names, ["chat", "soar"]);
    for destination in ["soar", "chat"] {
        let leases = w.lease(destination, 10).await;
        assert_eq!(leases.len(), 1);
        let delivery = leases[0].delivery();
        assert_eq!(delivery.destination, name(destination));
        assert_eq!(delivery.alert, w.id(1));
        assert_eq!(delivery.raw, message.raw);
        assert_eq!((delivery.attempts, delivery.alert_faults), (0, 0));
        assert_eq!((delivery.event_id.as_str(), delivery.team.as_str()), ("Ev1", "T1"));
        assert_eq!((delivery.posted_at, delivery.source), (message.posted_at, Source::Push));
        assert_eq!(delivery.received_at, w.clock.now());
        assert_eq!(delivery.pending_since, w.clock.now());
        assert_eq!(leases[0].expires_at(), w.clock.now() + LEASE);
    }
}

pub(super) async fn sources_are_merged(w: World) {
    w.accept(NewMessage { source: Source::CatchUp, ..w.message(1) }).await;
    let pushed = NewMessage { source: Source::Push, ..w.message(1) };
    assert_eq!(w.accept(pushed).await, Accepted::Duplicate);
    let view = w.view(1).await;
    assert_eq!(view.source, Source::CatchUp, "who brought it first");
    assert_eq!(view.sources, [Source::Push, Source::CatchUp]);
}

pub(super) async fn an_edit_with_a_new_incident_brings_only_that_one(w: World) {
    w.accept(w.message(1)).await;
    w.deliver_all().await;
    let edit = NewMessage {
        raw: "edited".into(),
        is_edit: true,
        alerts: vec![alert(0, &["soar"]), alert(1, &["soar"])],
        ..w.message(1)
    };
    assert_eq!(w.accept(edit.clone()).await, Accepted::New { alerts: 1 });
    let first = w.view(1).await;
    assert_eq!(first.raw.unwrap(), w.message(1).raw, "the first keeps its own text");
    let lease = w.lease_one().await;
    assert_eq!(lease.delivery().alert, AlertId { ordinal: 1, ..w.id(1) });
    assert_eq!(lease.delivery().raw, edit.raw);
    assert_eq!(lease.delivery().attachment, 1);
    assert_eq!(w.accept(edit).await, Accepted::Duplicate, "its text is kept already");
    assert!(w.view(1).await.revisions.is_empty());
    assert!(w.lease("soar", 10).await.is_empty());
}

pub(super) async fn an_edit_with_nothing_new_is_a_revision_and_is_not_sent(w: World) {
    w.accept(w.message(1)).await;
    w.deliver_all().await;
    w.clock.advance(HOUR);
    let edit = NewMessage { raw: "edited".into(), is_edit: true, ..w.message(1) };
    assert_eq!(w.accept(edit.clone()).await, Accepted::Revision);
    assert_eq!(w.accept(edit.clone()).await, Accepted::Duplicate);
    let unedited = NewMessage { is_edit: true, ..w.message(1) };
    assert_eq!(w.accept(unedited).await, Accepted::Duplicate);
    let view = w.view(1).await;
    assert_eq!(view.raw.unwrap(), w.message(1).raw);
    assert_eq!(view.revisions.len(), 1);
    assert_eq!(view.revisions[0].raw, edit.raw);
    assert_eq!(view.revisions[0].received_at, w.clock.now());
    assert!(w.lease("soar", 10).await.is_empty());
}

pub(super) async fn only_the_newest_revisions_are_kept(w: World) {
    w.accept(w.message(1)).await;
    for number in 0..=REVISIONS_KEPT {
        let raw = format!("version {number}").into();
        w.accept(NewMessage { raw, is_edit: true, ..w.message(1) }).await;
    }
    let kept: Vec<Bytes> = w.view(1).await.revisions.into_iter().map(|one| one.raw).collect();
    let expected: Vec<Bytes> =
        (1..=REVISIONS_KEPT).map(|number| format!("version {number}").into()).collect();
    assert_eq!(kept, expected);
}

pub(super) async fn an_unrouted_alert_is_kept(w: World) {
    w.accept(w.message(1)).await;
    let message = NewMessage { alerts: vec![alert(0, &[])], ..w.message(2) };
    assert_eq!(w.accept(message.clone()).await, Accepted::New { alerts: 1 });
    let view = w.view(2).await;
    assert!(view.deliveries.is_empty());
    assert_eq!(view.raw.unwrap(), message.raw);
    let unrouted = w.list(AlertQuery { unrouted: true, ..all(10) }).await;
    assert_eq!(unrouted.iter().map(|one| one.id.clone()).collect::<Vec<_>>(), [w.id(2)]);
}

pub(super) async fn held_deliveries_wait(w: World) {
    let until = w.clock.now() + HOUR;
    w.store().accept(vec![w.message(1)], Some(until), None).await.unwrap();
    assert!(w.lease("soar", 10).await.is_empty());
    assert_eq!(w.next_due().await, Some(until));
    w.clock.advance(HOUR);
    assert_eq!(w.lease("soar", 10).await.len(), 1);
}

// Delivering

pub(super) async fn workers_never_share_a_delivery(w: World) {
    w.accept_numbers(0..60).await;
    let mut workers = JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(w.store());
        workers.spawn(async move {
            let mut ids = Vec::new();
            loop {
                let leases = store.lease_due(&name("soar"), 3).await.unwrap();
                if leases.is_empty() {
                    return ids;
                }
                ids.extend(leases.iter().map(|lease| lease.delivery().id));
            }
        });
    }
    let ids: Vec<i64> = workers.join_all().await.into_iter().flatten().collect();
    let different: BTreeSet<i64> = ids.iter().copied().collect();
    assert_eq!((ids.len(), different.len()), (60, 60));
}

pub(super) async fn the_oldest_due_is_leased_first(w: World) {
    let later = w.clock.now() + HOUR;
    w.store().accept(vec![w.message(1)], Some(later), None).await.unwrap();
    w.accept(w.message(2)).await;
    w.clock.advance(Duration::from_secs(1));
    w.accept(w.message(3)).await;
    w.clock.advance(HOUR);
    let order: Vec<AlertId> =
        w.lease("soar", 10).await.iter().map(|lease| lease.delivery().alert.clone()).collect();
    assert_eq!(order, [w.id(2), w.id(3), w.id(1)]);
}

pub(super) async fn a_released_lease_is_due_as_before(w: World) {
    w.accept(w.message(1)).await;
    let lease = w.lease_one().await;
    assert_eq!(w.delivery(1).await.state, State::Leased);
    w.store().release(lease).await;
    assert_eq!(w.delivery(1).await.state, State::Pending);
    let again = w.lease_one().await;
    assert_eq!(again.delivery().attempts, 0);
}

pub(super) async fn an_expired_lease_passes_to_another_and_its_outcome_is_ignored(w: World) {
    w.accept(w.message(1)).await;
    let slow = w.lease_one().await;
    w.clock.advance(LEASE - Duration::from_micros(1));
    assert!(w.lease("soar", 1).await.is_empty(), "a lease holds until its end");
    w.clock.advance(Duration::from_micros(1));
    let quick = w.lease_one().await;
    assert_eq!(w.backend.stale_leases(), 0);
    w.record(slow, Next::Dead { reason: "rejected" }).await;
    assert_eq!(w.backend.stale_leases(), 1);
    assert_eq!(w.delivery(1).await.state, State::Leased, "the other worker still has it");
    w.record(quick, Next::Delivered(Reference::default())).await;
    let delivery = w.delivery(1).await;
    assert_eq!((delivery.state, delivery.attempts), (State::Delivered, 1));
    assert_eq!(w.backend.stale_leases(), 1);
}

pub(super) async fn a_late_outcome_counts_while_nobody_else_has_the_lease(w: World) {
    w.accept(w.message(1)).await;
    let lease = w.lease_one().await;
    w.clock.advance(LEASE * 2);
    w.record(lease, Next::Delivered(Reference::default())).await;
    assert_eq!(w.delivery(1).await.state, State::Delivered);
    assert_eq!(w.backend.stale_leases(), 0);
}

pub(super) async fn a_late_outcome_of_an_ended_delivery_is_ignored(w: World) {
    w.accept(w.message(1)).await;
    let lease = w.lease_one().await;
    w.clock.advance(LEASE * 2);
    assert_eq!(w.act(Selection::default(), Action::Cancel).await, 1);
    let at = w.clock.now();
    w.record(lease, Next::Retry { at, alert_fault: false }).await;
    let delivery = w.delivery(1).await;
    assert_eq!((delivery.state, delivery.attempts), (State::Cancelled, 0));
    assert_eq!(w.backend.stale_leases(), 1);
}

pub(super) async fn outcomes_are_kept(mut w: World) {
    w.accept_numbers(1..4).await;
    let mut leases = w.lease("soar", 3).await.into_iter();
    let (first, second, third) =
        (leases.next().unwrap(), leases.next().unwrap(), leases.next().unwrap());
    let reference =
        Reference { id: "42".to_owned(), url: "https://soar.example/cases/42".to_owned() };
    w.record(first, Next::Delivered(reference.clone())).await;
    let at = w.clock.now() + HOUR;
    w.record(second, Next::Retry { at, alert_fault: true }).await;
    w.record(third, Next::Dead { reason: "rejected" }).await;
    w.crash();

    let delivered = w.delivery(1).await;
    assert_eq!((delivered.state, delivered.attempts), (State::Delivered, 1));
    assert_eq!(delivered.finished_at, Some(w.clock.now()));
    assert_eq!(delivered.reference, reference);
    let retried = w.delivery(2).await;
    assert_eq!((retried.state, retried.attempts), (State::Pending, 1));
    assert_eq!((retried.due_at, retried.finished_at), (Some(at), None));
    let dead = w.delivery(3).await;
    assert_eq!((dead.state, dead.dead_reason.as_str()), (State::Dead, "rejected"));
    assert_eq!(dead.finished_at, Some(w.clock.now()));
    assert_eq!(dead.log.len(), 1);
    let kept = &dead.log[0];
    assert_eq!((kept.started_at, kept.duration), (w.clock.now(), Duration::from_millis(250)));
    assert_eq!((kept.class.as_str(), kept.status), ("unavailable", Some(503)));
    assert_eq!(kept.excerpt, "fine");

    assert!(w.lease("soar", 10).await.is_empty());
    w.clock.advance(HOUR);
    let lease = w.lease_one().await;
    assert_eq!(lease.delivery().alert, w.id(2));
    assert_eq!((lease.delivery().attempts, lease.delivery().alert_faults), (1, 1));
    w.record(lease, Next::Retry { at, alert_fault: false }).await;
    let lease = w.lease_one().await;
    assert_eq!((lease.delivery().attempts, lease.delivery().alert_faults), (2, 1));
}

pub(super) async fn only_the_newest_attempts_are_kept(w: World) {
    w.accept(w.message(1)).await;
    for number in 0..ATTEMPTS_KEPT + 2 {
        let lease = w.lease_one().await;
        let attempt = attempt(w.clock.now(), &format!("attempt {number}"));
        let next = Next::Retry { at: w.clock.now(), alert_fault: false };
        w.store().record(lease, Outcome { attempt, next }).await.unwrap();
    }
    let delivery = w.delivery(1).await;
    assert_eq!(delivery.attempts, ATTEMPTS_KEPT + 2);
    let kept: Vec<String> = delivery.log.into_iter().map(|one| one.excerpt).collect();
    let expected: Vec<String> =
        (2..ATTEMPTS_KEPT + 2).map(|number| format!("attempt {number}")).collect();
    assert_eq!(kept, expected);
}
