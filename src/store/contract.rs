//! The promises of every store, one function each. The functions name no engine: a [`Backend`]
//! opens the store, and `contract!` makes a test of each promise.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    clock::{Clock, Timestamp},
    ids::{AlertId, AppName, ChannelId, DestinationName, MessageKey, MessageTs, TsKey},
    store::{
        ATTEMPTS_KEPT, Accepted, Action, AlertQuery, AlertView, Attempt, Because, Beginning,
        CursorMove, DeliveryView, Hasten, IDENTITY_KEPT, Lease, MESSAGE_MAX_BYTES, NewAlert,
        NewMessage, Next, Outcome, Pause, Paused, Projection, Pruned, REFUSALS, REVISIONS_KEPT,
        Reference, Refusals, Retention, Selection, Source, State, Store, StoreError,
    },
};

mod chains;
mod evidence;
mod feed;
mod journal;
mod pause;
mod posters;
mod review;
mod waits;
pub(super) use self::{
    chains::*, evidence::*, feed::*, journal::*, pause::*, posters::*, review::*, waits::*,
};

/// Duration of the leases of a store under test.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// Largest size of a store under test.
pub(super) const MAX_SIZE: u64 = 64 * 1024 * 1024;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const RETENTION: Retention =
    Retention { delivered: Duration::from_secs(7 * 24 * 3600), dead: DAY.saturating_mul(30) };

/// A place for a store of one engine.
pub(super) trait Backend: Send + Sync {
    /// Opens or creates the store. Leases last [`LEASE`]; the size is limited to `max_size` bytes.
    fn open(&self, clock: &Clock, max_size: u64) -> Arc<dyn Store>;

    /// Returns the size that a store with this `max_size` reaches.
    fn limit(&self, max_size: u64) -> u64 {
        max_size
    }

    /// Returns `true` if leases end by time only, since they may belong to another process.
    fn leases_outlive_a_crash(&self) -> bool {
        false
    }

    /// Returns the number of outcomes that were ignored because another worker held the lease.
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

    /// Drops the store like [`World::crash`], and waits until no earlier lease is held.
    fn crash_and_free(&mut self) {
        self.crash();
        if self.backend.leases_outlive_a_crash() {
            self.clock.advance(LEASE);
        }
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
            edited_ts: String::new(),
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
        let outcome =
            Outcome { attempt: attempt(self.clock.now(), "fine"), next, projection: None };
        self.store().record(lease, outcome).await.unwrap();
    }

    async fn deliver_all(&self) {
        loop {
            let leases = self.lease("soar", 1000).await;
            if leases.is_empty() {
                return;
            }
            for lease in leases {
                self.record(lease, Next::Delivered(Reference::default())).await;
            }
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
        self.store().act(selection, action, None).await.unwrap().changed
    }

    async fn pause(&self, paused: Paused) {
        self.store().set_paused(&name("soar"), paused, None).await.unwrap();
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
        problems: Vec::new(),
        search: format!("PII Harvesting checkout.js number {ordinal}"),
        destinations: destinations.iter().map(|text| name(text)).collect(),
    }
}

pub(super) fn attempt(started_at: Timestamp, excerpt: &str) -> Attempt {
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
    // Only for an engine that limits the size of its store.
    (limited $backend:expr) => {
        crate::store::contract::contract! { $backend =>
            a_store_full_of_what_is_undelivered_refuses_alerts_and_records_outcomes,
        }
    };
    ($backend:expr) => {
        crate::store::contract::contract! { $backend =>
            fifty_identical_accepts_at_once_are_one_alert,
            one_message_under_eleven_event_ids_is_one_alert,
            a_message_without_a_timestamp_is_known_by_its_digest,
            two_destinations_get_a_delivery_each,
            sources_are_merged,
            an_edit_with_a_new_incident_brings_only_that_one,
            an_edit_with_nothing_new_is_a_revision_and_is_not_sent,
            an_edit_that_comes_twice_in_different_words_is_one_revision,
            only_the_newest_revisions_are_kept,
            an_unrouted_alert_is_kept,
            what_refusals_prove_survives_a_crash,
            an_acceptance_says_nothing_about_requests_that_began_before_it,
            an_acceptance_from_before_the_first_refusal_proves_nothing,
            an_acceptance_elsewhere_proves_nothing,
            refusals_are_counted_anew_after_a_retry_and_under_other_settings,
            an_attempt_from_before_new_settings_neither_kills_nor_counts,
            an_attempt_kills_under_the_settings_that_it_was_made_with,
            states_are_disjoint_and_listed,
            refusals_kill_on_evidence_only_whatever_the_schedule,
            the_oldest_alert_is_leased_due_or_not,
            a_held_alert_is_not_leased_as_the_oldest,
            a_recovery_ends_the_waits_for_the_destination_and_no_others,
            a_wait_that_began_while_the_clock_was_ahead_ends_when_it_is_set_back,
            a_new_alert_of_a_clock_that_was_ahead_is_not_held_back,
            a_wrong_clock_kills_nothing_until_it_has_lasted,
            what_came_since_the_start_grows_old_without_a_second_look,
            a_pause_makes_nothing_older_when_the_clock_is_set_back,
            a_jump_of_the_clock_costs_a_wait_at_most_itself,
            a_clock_that_jumps_ahead_ends_no_lease,
            a_retry_counts_the_age_of_what_waits_anew,
            an_identity_is_known_and_neither_listed_nor_delivered,
            held_deliveries_wait,
            workers_never_share_a_delivery,
            the_oldest_due_is_leased_first,
            a_released_lease_is_due_as_before,
            an_expired_lease_passes_to_another_and_its_outcome_is_ignored,
            a_late_outcome_counts_while_nobody_else_has_the_lease,
            a_late_outcome_of_an_ended_delivery_is_ignored,
            outcomes_are_kept,
            what_an_attempt_derives_anew_is_listed_and_found,
            only_the_newest_attempts_are_kept,
            a_retry_revives_what_ended_and_leaves_leases_alone,
            a_retry_makes_what_waits_due_now,
            two_retries_at_once_change_each_delivery_once,
            an_action_covers_more_than_one_piece,
            a_cancel_ends_what_waits_and_what_is_dead,
            an_action_is_limited_to_its_selection,
            an_operators_action_is_kept_with_what_it_changed,
            an_operators_action_is_forgotten_after_ninety_days,
            the_bots_that_posted_incidents_are_remembered_and_counted,
            a_bot_that_has_long_posted_nothing_is_forgotten,
            what_is_routed_is_kept_with_one_entry,
            what_an_action_changed_is_named,
            a_near_miss_is_kept_once_and_read_once,
            the_newest_thousand_near_misses_are_kept_for_ninety_days,
            an_unreadable_body_is_listed_and_read_once,
            what_is_too_old_is_given_up,
            a_pause_survives_and_stops_the_age,
            a_pause_ends_by_itself_also_after_a_crash,
            a_pause_without_an_end_does_not_end_by_itself,
            a_second_pause_replaces_end_and_reason,
            a_clock_that_is_wrong_for_a_while_ends_no_pause,
            a_pause_of_a_clock_that_was_ahead_is_no_longer_than_meant,
            a_pause_that_ended_before_the_start_ends_once_time_is_believed,
            of_two_that_look_one_ends_a_pause,
            a_crash_keeps_what_was_acknowledged_and_frees_leases,
            the_cursor_moves_with_its_page,
            a_message_is_known_under_any_id_of_its_channel,
            a_batch_brings_a_message_under_two_ids_once,
            a_push_under_another_id_is_not_missed,
            an_accept_beside_a_change_of_the_id_makes_no_second_alert,
            whatever_ids_a_channel_gets_each_message_is_one_alert,
            a_chain_of_ids_has_an_end,
            a_message_that_is_known_elsewhere_is_found_by_its_timestamp,
            an_alert_that_nothing_was_routed_to_is_routed_once,
            an_alert_whose_message_is_gone_is_not_routed,
            the_cursor_never_goes_back,
            an_older_term_does_not_move_the_cursor,
            a_cursor_is_not_moved_into_the_future,
            a_cursor_is_put_back_and_what_was_seen_stays,
            a_cursor_does_not_move_over_what_was_not_read,
            a_new_id_is_read_on_from_where_the_older_ones_were,
            the_first_beginning_of_a_channel_stays_and_a_sure_one_wins,
            a_channels_id_is_kept_for_its_app,
            what_only_catch_up_brought_is_given_once,
            what_a_push_brought_too_was_not_missed,
            what_was_missed_is_given_for_its_app_and_by_its_age,
            retention_never_touches_what_is_undelivered,
            retention_counts_from_the_end,
            a_clock_that_is_wrong_for_a_minute_removes_nothing,
            an_identity_outlives_its_message,
            text_that_databases_stumble_over_is_stored,
            one_bad_item_does_not_stop_its_neighbours,
            an_item_that_cannot_be_stored_leaves_nothing,
            pages_follow_each_other,
            alerts_are_found_by_state_level_and_text,
            the_next_due_is_known,
            a_hint_wakes_who_waits,
            the_numbers_add_up,
            a_probe_writes,
            a_close_finishes_what_was_accepted,
            a_closed_store_says_so,
            a_feed_gives_alerts_in_order_behind_a_number,
            what_a_reader_has_passed_is_delivered_and_given_again_to_others,
            a_feed_survives_a_crash_and_its_numbers_only_grow,
            two_readers_of_a_feed_get_every_alert_once_while_others_are_accepted,
            a_number_that_was_never_given_marks_and_gives_nothing,
            a_paused_feed_gives_nothing_and_takes_what_was_given,
            what_is_held_or_leased_is_not_in_the_feed,
            what_died_or_was_cancelled_is_not_in_the_feed_until_it_is_retried,
            retention_keeps_what_no_reader_has_passed,
            a_page_of_a_feed_ends_at_its_size,
            alerts_are_given_up_for_one_destination,
            a_feed_takes_more_than_one_piece,
        }
    };
    ($backend:expr => $($promise:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let world = crate::store::contract::World::new($backend);
                crate::store::contract::$promise(world).await;
            }
        )+
    };
}
pub(super) use contract;

// Accepting messages

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
        assert_eq!((delivery.attempts, delivery.refusals), (0, Refusals::default()));
        assert_eq!((delivery.event_id.as_str(), delivery.team.as_str()), ("Ev1", "T1"));
        assert_eq!((delivery.posted_at, delivery.source), (message.posted_at, Source::Push));
        assert_eq!(delivery.received_at, w.clock.now());
        assert_eq!(delivery.pending_since, w.clock.now());
        assert_eq!(leases[0].expires_at(), w.clock.moment() + LEASE);
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

pub(super) async fn an_edit_that_comes_twice_in_different_words_is_one_revision(w: World) {
    w.accept(w.message(1)).await;
    let edit = |raw: &str, edited_ts: &str| NewMessage {
        raw: raw.to_owned().into(),
        is_edit: true,
        edited_ts: edited_ts.to_owned(),
        ..w.message(1)
    };
    assert_eq!(w.accept(edit("pushed", "5.0")).await, Accepted::Revision);
    assert_eq!(w.accept(edit("read in history", "5.0")).await, Accepted::Duplicate);
    assert_eq!(w.accept(edit("edited once more", "6.0")).await, Accepted::Revision);
    assert_eq!(w.accept(edit("of no known time", "")).await, Accepted::Revision);
    assert_eq!(w.accept(edit("nor this", "")).await, Accepted::Revision);
    assert_eq!(w.view(1).await.revisions.len(), 4);
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

pub(super) async fn an_identity_is_known_and_neither_listed_nor_delivered(w: World) {
    let whole = |number| NewMessage {
        alerts: vec![alert(0, &["soar"]), alert(1, &["soar"])],
        source: Source::Backfill,
        ..w.message(number)
    };
    w.accept(w.message(3)).await;
    let before = w.store().stats().await.unwrap();
    assert_eq!(w.accept(whole(1).into_identity()).await, Accepted::New { alerts: 2 });
    assert_eq!(w.accept(whole(1).into_identity()).await, Accepted::Duplicate);
    // The first alert of this message is known, so only the second one is new.
    assert_eq!(w.accept(whole(3).into_identity()).await, Accepted::New { alerts: 1 });
    for source in [Source::Push, Source::CatchUp, Source::Backfill] {
        assert_eq!(w.accept(NewMessage { source, ..whole(1) }).await, Accepted::Duplicate);
    }
    let edit = NewMessage { is_edit: true, edited_ts: "7.0".to_owned(), ..whole(1) };
    assert_eq!(w.accept(edit).await, Accepted::Duplicate);
    let listed =
        |listed: Vec<AlertView>| -> Vec<AlertId> { listed.into_iter().map(|one| one.id).collect() };
    assert_eq!(listed(w.list(all(10)).await), [w.id(3)]);
    assert_eq!(listed(w.list(AlertQuery { unrouted: true, ..all(10) }).await), []);
    let text = AlertQuery { text: Some(w.id(1).to_string()), ..all(10) };
    assert_eq!(listed(w.list(text).await), []);
    let view = w.view(1).await;
    assert!(view.raw.is_none() && view.deliveries.is_empty());
    let after = w.store().stats().await.unwrap();
    assert_eq!(format!("{:?}", after.destinations), format!("{:?}", before.destinations));
    assert_eq!(w.lease("soar", 10).await.len(), 1);
    assert_eq!(
        w.act(Selection { alert: Some(w.id(1)), ..Selection::default() }, Action::Retry).await,
        0
    );
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
    w.clock.advance(LEASE.saturating_sub(Duration::from_micros(1)));
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
    w.record(lease, Next::Retry { wait: at.since(w.clock.now()), because: Because::Fault }).await;
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
    w.record(second, Next::Retry { wait: at.since(w.clock.now()), because: Because::Refused })
        .await;
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
    assert_eq!((lease.delivery().attempts, lease.delivery().refusals.count), (1, 1));
    // A fault of the destination is not a refusal of the alert.
    w.record(lease, Next::Retry { wait: at.since(w.clock.now()), because: Because::Fault }).await;
    let lease = w.lease_one().await;
    assert_eq!((lease.delivery().attempts, lease.delivery().refusals.count), (2, 1));
}

pub(super) async fn what_an_attempt_derives_anew_is_listed_and_found(w: World) {
    w.accept_numbers(1..3).await;
    let lease = w.lease_one().await;
    let alert = lease.delivery().alert.clone();
    let before = w.store().alert(&alert).await.unwrap().unwrap();
    let stored = &lease.delivery().projection;
    assert_eq!((&stored.level, &stored.search), (&before.level, &before.search));
    let projection = Projection { level: "low".to_owned(), search: "anew\0".to_owned() };
    let next = Next::Delivered(Reference::default());
    let attempt = attempt(w.clock.now(), "fine");
    let outcome = Outcome { attempt, next, projection: Some(projection) };
    w.store().record(lease, outcome).await.unwrap();
    // NUL is stored as U+FFFD, and a search ignores case.
    for query in [
        AlertQuery { level: Some("low".to_owned()), ..all(9) },
        AlertQuery { text: Some("Anew\u{fffd}".to_owned()), ..all(9) },
    ] {
        let listed = w.list(query).await;
        assert!(listed.len() == 1 && listed[0].id == alert, "{listed:?}");
    }
}

pub(super) async fn only_the_newest_attempts_are_kept(w: World) {
    w.accept(w.message(1)).await;
    for number in 0..ATTEMPTS_KEPT + 2 {
        let lease = w.lease_one().await;
        let attempt = attempt(w.clock.now(), &format!("attempt {number}"));
        let next = Next::Retry { wait: Duration::ZERO, because: Because::Fault };
        w.store().record(lease, Outcome { attempt, next, projection: None }).await.unwrap();
    }
    let delivery = w.delivery(1).await;
    assert_eq!(delivery.attempts, ATTEMPTS_KEPT + 2);
    let kept: Vec<String> = delivery.log.into_iter().map(|one| one.excerpt).collect();
    let expected: Vec<String> =
        (2..ATTEMPTS_KEPT + 2).map(|number| format!("attempt {number}")).collect();
    assert_eq!(kept, expected);
}

// Operating

pub(super) async fn a_retry_revives_what_ended_and_leaves_leases_alone(w: World) {
    w.accept_numbers(1..5).await;
    let mut leases = w.lease("soar", 3).await.into_iter();
    let at = w.clock.now();
    let first = leases.next().unwrap();
    w.record(first, Next::Retry { wait: at.since(w.clock.now()), because: Because::Refused }).await;
    let first = w.lease("soar", 2).await.remove(0);
    let first = if first.delivery().alert == w.id(1) { first } else { w.lease_one().await };
    w.record(first, Next::Dead { reason: "rejected" }).await;
    w.record(leases.next().unwrap(), Next::Delivered(Reference::default())).await;
    let held = leases.next().unwrap();
    w.clock.advance(Duration::from_secs(10));

    assert_eq!(w.act(Selection::default(), Action::Retry).await, 1);
    let revived = w.delivery(1).await;
    assert_eq!((revived.state, revived.attempts), (State::Pending, 2), "attempts are kept");
    assert_eq!(revived.due_at, Some(w.clock.now()));
    assert_eq!((revived.finished_at, revived.dead_reason.as_str()), (None, ""));
    assert_eq!(revived.log.len(), 2);
    assert_eq!(w.delivery(2).await.state, State::Delivered);
    assert_eq!(w.delivery(3).await.state, State::Leased);
    let lease = w.lease_one().await;
    let delivery = lease.delivery();
    assert_eq!((&delivery.alert, delivery.refusals.count), (&w.id(1), 0), "faults count anew");
    assert_eq!(delivery.pending_since, w.clock.now(), "its age counts anew");
    w.record(held, Next::Delivered(Reference::default())).await;
    assert_eq!(w.delivery(3).await.state, State::Delivered);
}

pub(super) async fn a_retry_makes_what_waits_due_now(w: World) {
    w.accept(w.message(1)).await;
    let at = w.clock.now() + DAY;
    w.record(
        w.lease_one().await,
        Next::Retry { wait: at.since(w.clock.now()), because: Because::Fault },
    )
    .await;
    assert!(w.lease("soar", 1).await.is_empty());
    assert_eq!(w.act(Selection::default(), Action::Retry).await, 1);
    assert_eq!(w.act(Selection::default(), Action::Retry).await, 0, "it is due already");
    assert_eq!(w.lease_one().await.delivery().attempts, 1);
}

async fn kill_all(w: &World) {
    for lease in w.lease("soar", 10_000).await {
        w.record(lease, Next::Dead { reason: "rejected" }).await;
    }
}

pub(super) async fn two_retries_at_once_change_each_delivery_once(w: World) {
    w.accept_numbers(0..20).await;
    kill_all(&w).await;
    let mut retries = JoinSet::new();
    for _ in 0..2 {
        let store = Arc::clone(w.store());
        retries.spawn(async move { store.act(Selection::default(), Action::Retry, None).await });
    }
    let changed: u64 = retries.join_all().await.into_iter().map(|one| one.unwrap().changed).sum();
    assert_eq!(changed, 20);
    assert_eq!(w.lease("soar", 100).await.len(), 20);
}

pub(super) async fn an_action_covers_more_than_one_piece(w: World) {
    w.accept_numbers(0..2500).await;
    assert_eq!(w.act(Selection::default(), Action::Cancel).await, 2500);
    assert_eq!(w.act(Selection::default(), Action::Retry).await, 2500);
    w.clock.advance(HOUR);
    let mut expired = BTreeSet::new();
    loop {
        let piece = w.store().expire(&name("soar"), Duration::ZERO, "too_old").await.unwrap();
        if piece.is_empty() {
            break;
        }
        expired.extend(piece.iter().map(ToString::to_string));
    }
    assert_eq!(expired.len(), 2500);
}

pub(super) async fn a_cancel_ends_what_waits_and_what_is_dead(w: World) {
    w.accept_numbers(1..5).await;
    let mut leases = w.lease("soar", 3).await.into_iter();
    w.record(leases.next().unwrap(), Next::Dead { reason: "rejected" }).await;
    w.record(leases.next().unwrap(), Next::Delivered(Reference::default())).await;
    let held = leases.next().unwrap();
    assert_eq!(w.act(Selection::default(), Action::Cancel).await, 2);
    assert_eq!(w.act(Selection::default(), Action::Cancel).await, 0);
    let mut states = Vec::new();
    for number in 1..5 {
        states.push(w.delivery(number).await.state);
    }
    let expected = [State::Cancelled, State::Delivered, State::Leased, State::Cancelled];
    assert_eq!(states, expected);
    assert_eq!(w.delivery(4).await.finished_at, Some(w.clock.now()));
    w.store().release(held).await;
    assert_eq!(w.act(Selection::default(), Action::Retry).await, 2, "cancelled ones come back");
}

pub(super) async fn an_action_is_limited_to_its_selection(w: World) {
    let both = vec![alert(0, &["soar", "chat"])];
    for number in 1..3 {
        w.accept(NewMessage { alerts: both.clone(), ..w.message(number) }).await;
    }
    let one =
        Selection { alert: Some(w.id(1)), destination: Some(name("chat")), ..Selection::default() };
    assert_eq!(w.act(one, Action::Cancel).await, 1);
    let dead = Selection { state: Some(State::Dead), ..Selection::default() };
    assert_eq!(w.act(dead.clone(), Action::Cancel).await, 0);
    assert_eq!(w.act(dead, Action::Retry).await, 0);
    let leased = Selection { state: Some(State::Leased), ..Selection::default() };
    assert_eq!(w.act(leased, Action::Cancel).await, 0);
    let unknown = Selection { alert: Some(w.id(9)), ..Selection::default() };
    assert_eq!(w.act(unknown, Action::Cancel).await, 0);
    let elsewhere = Selection { destination: Some(name("nowhere")), ..Selection::default() };
    assert_eq!(w.act(elsewhere, Action::Cancel).await, 0);
    let alert = Selection { alert: Some(w.id(1)), ..Selection::default() };
    assert_eq!(w.act(alert, Action::Cancel).await, 1, "its other delivery");
    let destination = Selection { destination: Some(name("soar")), ..Selection::default() };
    assert_eq!(w.act(destination, Action::Cancel).await, 1, "the other alert");
    let states: Vec<State> = w.view(2).await.deliveries.iter().map(|one| one.state).collect();
    assert_eq!(states, [State::Pending, State::Cancelled]);
}

pub(super) async fn what_is_too_old_is_given_up(w: World) {
    w.accept_numbers(1..3).await;
    let held = w.lease_one().await;
    let born = w.clock.now();
    w.clock.advance(HOUR);
    w.store().release(held).await;
    let held = w.lease_one().await;
    w.accept(w.message(3)).await;
    let expire = async |before| {
        w.store().expire(&name("soar"), w.clock.now().since(before), "too_old").await.unwrap()
    };
    assert_eq!(expire(born).await, [], "not from before that time");
    // Which of the two alerts was leased again is not promised.
    let given_up = if held.delivery().alert == w.id(1) { 2 } else { 1 };
    let expired = expire(born + Duration::from_micros(1)).await;
    assert_eq!(expired, [w.id(given_up)], "not the leased one");
    let delivery = w.delivery(given_up).await;
    assert_eq!((delivery.state, delivery.dead_reason.as_str()), (State::Dead, "too_old"));
    assert_eq!(w.delivery(3).await.state, State::Pending);
    w.record(held, Next::Delivered(Reference::default())).await;
    let selection = Selection { state: Some(State::Dead), ..Selection::default() };
    assert_eq!(w.act(selection, Action::Retry).await, 1);
    assert_eq!(expire(born + HOUR).await, [], "a retry starts its age anew");
}

pub(super) async fn a_pause_survives_and_stops_the_age(mut w: World) {
    w.accept(w.message(1)).await;
    let born = w.clock.now();
    w.clock.advance(HOUR);
    w.pause(Paused::Yes(Pause::default())).await;
    assert!(w.lease("soar", 1).await.is_empty());
    assert_eq!(w.next_due().await, None);
    w.clock.advance(DAY);
    w.accept(w.message(2)).await;
    w.pause(Paused::Yes(Pause::default())).await;
    w.crash();
    assert!(w.lease("soar", 1).await.is_empty());
    let stats = w.store().stats().await.unwrap();
    assert!(stats.destinations[0].1.pause.is_some());
    let now = w.clock.now();
    assert_eq!(
        w.store().expire(&name("soar"), w.clock.now().since(now), "too_old").await.unwrap(),
        []
    );

    w.clock.advance(DAY);
    w.pause(Paused::No).await;
    w.pause(Paused::No).await;
    let resumed = w.clock.now();
    w.clock.advance(HOUR);
    let leases = w.lease("soar", 2).await;
    assert_eq!(leases.len(), 2);
    for lease in leases {
        let is_first = lease.delivery().alert == w.id(1);
        let expected = if is_first { born + DAY * 2 } else { resumed };
        assert_eq!(lease.delivery().pending_since, expected);
        w.store().release(lease).await;
    }
    let expired = w
        .store()
        .expire(&name("soar"), w.clock.now().since(born + DAY * 2), "too_old")
        .await
        .unwrap();
    assert_eq!(expired, [], "the paused days do not count");
    let before = born + DAY * 2 + Duration::from_micros(1);
    assert_eq!(
        w.store().expire(&name("soar"), w.clock.now().since(before), "too_old").await.unwrap(),
        [w.id(1)]
    );
}

pub(super) async fn a_crash_keeps_what_was_acknowledged_and_frees_leases(mut w: World) {
    w.accept_numbers(0..100).await;
    let lease = w.lease("soar", 1).await.remove(0);
    w.record(lease, Next::Delivered(Reference::default())).await;
    let held = w.lease("soar", 30).await;
    assert_eq!(held.len(), 30);
    w.crash_and_free();
    assert_eq!(w.list(all(1000)).await.len(), 100);
    assert_eq!(w.lease("soar", 1000).await.len(), 99);
    assert_eq!(w.accept(w.message(5)).await, Accepted::Duplicate);
    w.record(held.into_iter().next().unwrap(), Next::Dead { reason: "rejected" }).await;
    assert_eq!(w.backend.stale_leases(), 1, "a lease does not survive a crash");
    assert_eq!(w.accept(w.message(100)).await, Accepted::New { alerts: 1 });
}

// Catching up

fn cursor_to(second: i64, term: u64) -> CursorMove {
    let to = MessageTs::from_micros(second * 1_000_000);
    CursorMove {
        app: app(),
        channel: channel(),
        to,
        seen: None,
        from: MessageTs::from_micros(0),
        term,
    }
}

async fn move_cursor(w: &World, batch: Vec<NewMessage>, cursor: CursorMove) {
    w.store().accept(batch, None, Some(cursor)).await.unwrap();
}

async fn cursor(w: &World) -> Option<i64> {
    let cursor = w.store().cursor(&app(), &channel()).await.unwrap();
    cursor.map(|ts| ts.micros() / 1_000_000)
}

pub(super) async fn the_cursor_moves_with_its_page(mut w: World) {
    assert_eq!(cursor(&w).await, None);
    move_cursor(&w, vec![w.message(1)], cursor_to(10, 1)).await;
    assert_eq!(cursor(&w).await, Some(10));
    move_cursor(&w, Vec::new(), cursor_to(20, 1)).await;
    assert_eq!(cursor(&w).await, Some(20), "an empty page moves it too");
    let unusable = NewMessage { alerts: Vec::new(), ..w.message(2) };
    move_cursor(&w, vec![unusable], cursor_to(30, 1)).await;
    w.crash();
    assert_eq!(cursor(&w).await, Some(30), "an item's fault does not hold it");
    let other = w.store().cursor(&app(), &ChannelId::new("C2")).await.unwrap();
    assert_eq!(other, None);
}

pub(super) async fn the_cursor_never_goes_back(w: World) {
    move_cursor(&w, Vec::new(), cursor_to(20, 1)).await;
    move_cursor(&w, vec![w.message(1)], cursor_to(10, 1)).await;
    assert_eq!(cursor(&w).await, Some(20));
    move_cursor(&w, Vec::new(), cursor_to(10, 2)).await;
    assert_eq!(cursor(&w).await, Some(20), "not in a newer term either");
}

pub(super) async fn an_older_term_does_not_move_the_cursor(w: World) {
    let term = w.store().poller_term(&app()).await.unwrap().unwrap();
    move_cursor(&w, Vec::new(), cursor_to(10, term + 1)).await;
    move_cursor(&w, vec![w.message(1)], cursor_to(20, term)).await;
    assert_eq!(cursor(&w).await, Some(10));
    assert_eq!(w.view(1).await.id, w.id(1), "its messages are stored all the same");
}

pub(super) async fn a_cursor_is_not_moved_into_the_future(w: World) {
    let now = w.clock.now().seconds();
    move_cursor(&w, Vec::new(), cursor_to(now - 30, 1)).await;
    for ahead in [301, 3600, 10 * 24 * 3600] {
        move_cursor(&w, vec![w.message(1)], cursor_to(now + ahead, 1)).await;
        assert_eq!(cursor(&w).await, Some(now - 30), "{ahead} s");
    }
    assert_eq!(w.view(1).await.id, w.id(1), "its messages are stored all the same");
    move_cursor(&w, Vec::new(), cursor_to(now + 299, 1)).await;
    assert_eq!(cursor(&w).await, Some(now + 299), "clocks differ a little");
}

pub(super) async fn a_cursor_is_put_back_and_what_was_seen_stays(w: World) {
    let seen = async || {
        let seen = w.store().newest_seen(&app(), &channel()).await.unwrap();
        seen.map(|ts| ts.micros() / 1_000_000)
    };
    let saw = |to, second: i64, term| CursorMove {
        seen: Some(MessageTs::from_micros(second * 1_000_000)),
        ..cursor_to(to, term)
    };
    assert_eq!(seen().await, None);
    move_cursor(&w, Vec::new(), cursor_to(20, 1)).await;
    assert_eq!(seen().await, None);
    move_cursor(&w, Vec::new(), saw(30, 25, 1)).await;
    // A later page may hold older messages; the newest one that was seen stays.
    move_cursor(&w, Vec::new(), saw(40, 22, 1)).await;
    move_cursor(&w, Vec::new(), cursor_to(50, 1)).await;
    assert_eq!((cursor(&w).await, seen().await), (Some(50), Some(25)));
    w.store().put_cursor_back(&cursor_to(25, 1)).await.unwrap();
    assert_eq!((cursor(&w).await, seen().await), (Some(25), Some(25)));
    w.store().put_cursor_back(&cursor_to(45, 1)).await.unwrap();
    assert_eq!(cursor(&w).await, Some(25), "it is never put forward");
    move_cursor(&w, Vec::new(), cursor_to(60, 2)).await;
    w.store().put_cursor_back(&cursor_to(25, 1)).await.unwrap();
    assert_eq!(cursor(&w).await, Some(60), "an older term has no say");
}

pub(super) async fn a_cursor_does_not_move_over_what_was_not_read(w: World) {
    let read = |from: i64, to| CursorMove {
        from: MessageTs::from_micros(from * 1_000_000),
        ..cursor_to(to, 1)
    };
    move_cursor(&w, Vec::new(), read(10, 20)).await;
    move_cursor(&w, Vec::new(), read(20, 30)).await;
    assert_eq!(cursor(&w).await, Some(30));
    move_cursor(&w, Vec::new(), read(31, 40)).await;
    assert_eq!(cursor(&w).await, Some(30));
    w.store().put_cursor_back(&cursor_to(15, 1)).await.unwrap();
    move_cursor(&w, Vec::new(), read(25, 40)).await;
    assert_eq!(cursor(&w).await, Some(15), "a window that was begun before it was put back");
    move_cursor(&w, Vec::new(), read(5, 40)).await;
    assert_eq!(cursor(&w).await, Some(40));
}

pub(super) async fn a_new_id_is_read_on_from_where_the_older_ones_were(w: World) {
    let (store, app) = (w.store(), app());
    let ids = ["G1", "C1", "C2", "C3", "C4"].map(ChannelId::new);
    let [first, second, third, unread, other] = &ids;
    let at = async |id: &ChannelId| {
        let cursor = store.cursor(&app, id).await.unwrap();
        cursor.map(|ts| ts.micros() / 1_000_000)
    };
    for (id, to) in [(first, 10), (second, 20), (third, 90), (other, 5)] {
        let cursor = CursorMove { channel: id.clone(), ..cursor_to(to, 1) };
        move_cursor(&w, Vec::new(), cursor).await;
    }
    store.replace_channel_id(&app, first, second).await.unwrap();
    assert_eq!((at(first).await, at(second).await), (Some(10), Some(10)));
    let read = CursorMove { channel: second.clone(), ..cursor_to(50, 1) };
    move_cursor(&w, Vec::new(), read).await;
    store.replace_channel_id(&app, first, second).await.unwrap();
    assert_eq!(at(second).await, Some(50), "they were one channel's before");
    store.replace_channel_id(&app, second, third).await.unwrap();
    assert_eq!(at(third).await, Some(50), "the furthest of the older ones");
    store.replace_channel_id(&app, third, unread).await.unwrap();
    assert_eq!(at(unread).await, None);
    store.replace_channel_id(&app, unread, other).await.unwrap();
    assert_eq!(at(other).await, Some(5), "a cursor is never put forward");
    let read = store.read_channels(&app).await.unwrap();
    assert_eq!(read, [second, third, first, other].map(Clone::clone));
}

pub(super) async fn the_first_beginning_of_a_channel_stays_and_a_sure_one_wins(mut w: World) {
    let begin = |second, is_sure| Beginning { at: Timestamp::from_seconds(second), is_sure };
    let kept = async |w: &World, app: &AppName| {
        let mut kept = w.store().beginnings(app).await.unwrap();
        kept.sort_by(|(one, _), (other, _)| one.cmp(other));
        kept
    };
    for (written, beginning) in [
        ("C1", begin(10, false)),
        ("C1", begin(5, false)),
        ("cd_alerts", begin(30, true)),
        ("cd_alerts", begin(20, true)),
        ("cd_alerts", begin(20, false)),
    ] {
        w.store().set_beginning(&app(), written, beginning).await.unwrap();
    }
    let name = "cd_alerts".to_owned();
    let expected = [("C1".to_owned(), begin(10, false)), (name.clone(), begin(30, true))];
    assert_eq!(kept(&w, &app()).await, expected);
    w.store().set_beginning(&app(), "C1", begin(40, true)).await.unwrap();
    w.crash();
    let expected = [("C1".to_owned(), begin(40, true)), (name, begin(30, true))];
    assert_eq!(kept(&w, &app()).await, expected);
    assert_eq!(kept(&w, &AppName::new("other").unwrap()).await, []);
}

pub(super) async fn a_channels_id_is_kept_for_its_app(mut w: World) {
    let ids = async |w: &World| w.store().channel_ids(&app()).await.unwrap();
    assert_eq!(ids(&w).await, []);
    for (written, id) in [("cd_alerts", "C1"), ("C9", "C2"), ("cd_alerts", "C3")] {
        w.store().set_channel_id(&app(), written, &ChannelId::new(id)).await.unwrap();
    }
    w.crash();
    let expected = [("C9", "C2"), ("cd_alerts", "C3")];
    let expected = expected.map(|(written, id)| (written.to_owned(), ChannelId::new(id)));
    assert_eq!(ids(&w).await, expected);
    let other = AppName::new("other").unwrap();
    assert_eq!(w.store().channel_ids(&other).await.unwrap(), []);
}

/// Takes the unpushed messages before the given number, and returns their numbers.
async fn unpushed(w: &World, before: i64) -> Vec<i64> {
    let before = MessageTs::from_micros((1_600_000_000 + before) * 1_000_000);
    let taken = w.store().take_unpushed(&app(), before).await.unwrap();
    let number = |(channel, ts): (ChannelId, MessageTs)| {
        assert_eq!(channel, self::channel());
        ts.micros() / 1_000_000 - 1_600_000_000
    };
    taken.into_iter().map(number).collect()
}

pub(super) async fn what_only_catch_up_brought_is_given_once(mut w: World) {
    for number in [2, 1] {
        let found = NewMessage { source: Source::CatchUp, ..w.message(number) };
        w.accept(found.clone()).await;
        assert_eq!(w.accept(found).await, Accepted::Duplicate, "read again in the overlap");
    }
    w.crash();
    assert_eq!(unpushed(&w, 10).await, [1, 2], "the oldest first");
    assert_eq!(unpushed(&w, 10).await, [0_i64; 0]);
    let again = NewMessage { source: Source::CatchUp, ..w.message(1) };
    w.accept(again).await;
    let backfilled = NewMessage { source: Source::Backfill, ..w.message(3) };
    w.accept(backfilled).await;
    assert_eq!(unpushed(&w, 10).await, [0_i64; 0], "neither what was given nor a backfill");
    w.accept(NewMessage { source: Source::CatchUp, ..w.message(3) }).await;
    assert_eq!(unpushed(&w, 10).await, [3], "catch-up found it, and no push came");
}

pub(super) async fn what_a_push_brought_too_was_not_missed(w: World) {
    w.accept(w.message(1)).await;
    w.accept(NewMessage { source: Source::CatchUp, ..w.message(1) }).await;
    w.accept(NewMessage { source: Source::CatchUp, ..w.message(2) }).await;
    w.accept(w.message(2)).await;
    assert_eq!(unpushed(&w, 10).await, [0_i64; 0]);
}

pub(super) async fn what_was_missed_is_given_for_its_app_and_by_its_age(w: World) {
    let other = AppName::new("other").unwrap();
    let elsewhere = w.message(1);
    let key = MessageKey { app: other.clone(), ..elsewhere.key.clone() };
    w.accept(NewMessage { source: Source::CatchUp, key, ..elsewhere }).await;
    for number in [4, 5] {
        w.accept(NewMessage { source: Source::CatchUp, ..w.message(number) }).await;
    }
    assert_eq!(unpushed(&w, 5).await, [4], "posted before, not at, that time");
    let later = MessageTs::from_micros(i64::MAX);
    let theirs = w.store().take_unpushed(&other, later).await.unwrap();
    assert_eq!(theirs.len(), 1);
    assert_eq!(unpushed(&w, 10).await, [5]);
}

// Keeping and forgetting

pub(super) async fn retention_never_touches_what_is_undelivered(w: World) {
    let both = NewMessage { alerts: vec![alert(0, &["soar", "chat"])], ..w.message(1) };
    w.accept(both).await;
    w.deliver_all().await;
    w.accept(w.message(2)).await;
    w.record(w.lease_one().await, Next::Retry { wait: Duration::ZERO, because: Because::Fault })
        .await;
    w.clock.advance(IDENTITY_KEPT * 2);
    let held = w.lease_one().await;
    assert_eq!(w.store().prune(RETENTION).await.unwrap().messages, 0);
    assert_eq!(held.delivery().alert, w.id(2));
    assert_eq!(w.view(2).await.raw.unwrap(), w.message(2).raw);
    assert_eq!(w.lease("chat", 1).await[0].delivery().raw, w.message(1).raw);
}

pub(super) async fn retention_counts_from_the_end(w: World) {
    w.accept_numbers(1..4).await;
    w.accept(NewMessage { alerts: vec![alert(0, &[])], ..w.message(4) }).await;
    // The messages are older than the retention before their deliveries end.
    w.clock.advance(DAY * 10);
    let mut leases = w.lease("soar", 3).await.into_iter();
    w.record(leases.next().unwrap(), Next::Delivered(Reference::default())).await;
    w.record(leases.next().unwrap(), Next::Dead { reason: "rejected" }).await;
    w.store().release(leases.next().unwrap()).await;
    assert_eq!(
        w.act(Selection { alert: Some(w.id(3)), ..Selection::default() }, Action::Cancel).await,
        1
    );
    assert_eq!(w.store().prune(RETENTION).await.unwrap().messages, 1, "the unrouted one");
    assert_eq!(w.list(all(10)).await.len(), 3);
    w.clock.advance(RETENTION.delivered);
    assert_eq!(w.store().prune(RETENTION).await.unwrap().messages, 2, "not the dead one");
    assert_eq!(w.delivery(2).await.state, State::Dead);
    w.clock.advance(RETENTION.dead);
    assert_eq!(w.store().prune(RETENTION).await.unwrap().messages, 1);
    assert!(w.list(all(10)).await.is_empty());
}

pub(super) async fn a_clock_that_is_wrong_for_a_minute_removes_nothing(mut w: World) {
    let minute = Duration::from_secs(60);
    w.accept_numbers(1..3).await;
    w.deliver_all().await;
    w.accept(w.message(3)).await;
    w.clock.advance(RETENTION.delivered * 2);
    w.crash();
    // The first look after the start has no earlier look to agree with.
    let right = w.clock.now();
    w.clock.jump(right + DAY * 500);
    assert_eq!(w.store().prune(RETENTION).await.unwrap(), Pruned::default());
    w.clock.jump(right);
    for passed in 0..10 {
        w.clock.advance(minute);
        let wrong = passed == 6;
        if wrong {
            w.clock.jump(w.clock.now() + DAY * 500);
        }
        let pruned = w.store().prune(RETENTION).await.unwrap();
        assert_eq!(pruned.identities, 0, "nothing is so old");
        assert_eq!(pruned.messages, if passed == 4 { 2 } else { 0 }, "after minute {passed}");
        if wrong {
            w.clock.jump(w.clock.now() - DAY * 500);
        }
    }
    assert_eq!(w.accept(w.message(1)).await, Accepted::Duplicate);
    assert_eq!(w.view(3).await.raw.unwrap(), w.message(3).raw);
    // A clock that stays where it was set is believed.
    w.clock.jump(w.clock.now() + DAY * 500);
    for _ in 0..7 {
        w.clock.advance(minute);
        w.store().prune(RETENTION).await.unwrap();
    }
    assert!(w.store().alert(&w.id(1)).await.unwrap().is_none(), "400 days have passed");
    assert_eq!(w.view(3).await.raw.unwrap(), w.message(3).raw, "it is not delivered");
}

pub(super) async fn an_identity_outlives_its_message(mut w: World) {
    w.accept_numbers(1..4).await;
    let edit = NewMessage { raw: "edited".into(), is_edit: true, ..w.message(1) };
    w.accept(edit.clone()).await;
    w.deliver_all().await;
    w.clock.advance(RETENTION.delivered * 2);
    let pruned = w.store().prune(RETENTION).await.unwrap();
    assert_eq!((pruned.messages, pruned.identities), (3, 0));
    w.crash();
    assert_eq!(w.accept(w.message(1)).await, Accepted::Duplicate);
    assert_eq!(w.accept(edit).await, Accepted::Duplicate);
    let view = w.view(1).await;
    assert_eq!((view.raw, view.revisions.len(), view.deliveries.len()), (None, 0, 0));
    assert!(w.list(all(10)).await.is_empty(), "emptied ones are not listed");
    assert!(w.lease("soar", 10).await.is_empty());

    // A message that is not delivered stays, however old it becomes.
    w.accept(w.message(4)).await;
    w.clock.advance(IDENTITY_KEPT);
    assert_eq!(w.store().prune(RETENTION).await.unwrap().identities, 3);
    assert_eq!(w.store().alert(&w.id(1)).await.unwrap().map(|view| view.seq), None);
    assert_eq!(w.view(4).await.deliveries.len(), 1);
}

pub(super) async fn a_store_full_of_what_is_undelivered_refuses_alerts_and_records_outcomes(
    mut w: World,
) {
    w.reopen_with(8 * 1024 * 1024);
    let mut number = 0;
    let refused = loop {
        let message = NewMessage { raw: vec![b'x'; 200_000].into(), ..w.message(number) };
        match w.store().accept(vec![message], None, None).await {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 1000, "it never becomes full");
    };
    assert!(matches!(refused, StoreError::Full), "{refused:?}");
    assert!(matches!(w.store().probe().await, Err(StoreError::Full)));
    assert!(w.store().stats().await.unwrap().free_bytes < 8 * 1024 * 1024 / 20);
    let again = || w.store().accept(vec![w.message(5000)], None, None);
    assert!(matches!(again().await, Err(StoreError::Full)), "nothing is delivered");
    w.deliver_all().await;
    assert_eq!(w.delivery(number - 1).await.state, State::Delivered);
    again().await.unwrap().remove(0).unwrap();
    assert_eq!(w.view(0).await.raw, None, "the oldest made room");
    assert_eq!(w.accept(w.message(0)).await, Accepted::Duplicate, "and is still known");
    w.store().probe().await.unwrap();
}

// Poison

pub(super) async fn text_that_databases_stumble_over_is_stored(mut w: World) {
    let mut nul = w.message(1);
    nul.alerts[0].search = "before\0after".to_owned();
    nul.event_id = "Ev\0".to_owned();
    nul.raw = Bytes::from_static(b"a\0b");
    nul.key.channel = ChannelId::new("C\0");
    let mut surrogate = w.message(2);
    // JSON can express a lone surrogate, which UTF-8 cannot.
    surrogate.raw = Bytes::from_static(br#"{"text":"\ud800"}"#);
    surrogate.alerts[0].search = "\u{FFFD}\u{10FFFF}'\"; DROP TABLE alerts; --".to_owned();
    let mut not_utf8 = w.message(3);
    not_utf8.raw = Bytes::from_static(b"\xff\xfe\xed\xa0\x80");
    let mut large = w.message(4);
    large.alerts[0].search = "\u{e9}".repeat(512 * 1024);
    let empty = NewMessage { raw: Bytes::new(), ..w.message(5) };
    let messages = [nul, surrogate, not_utf8, large, empty];
    for result in w.try_accept(messages.to_vec()).await {
        assert_eq!(result.unwrap(), Accepted::New { alerts: 1 });
    }
    w.crash();
    for (message, lease) in messages.iter().zip(w.lease("soar", 10).await) {
        assert_eq!(lease.delivery().raw, message.raw);
        let attempt =
            Attempt { excerpt: "\0\u{FFFD}".repeat(100_000), ..attempt(w.clock.now(), "") };
        let reference = Reference { id: "\0".to_owned(), url: "\0".to_owned() };
        let next = Next::Delivered(reference);
        w.store().record(lease, Outcome { attempt, next, projection: None }).await.unwrap();
    }
    let listed = w.list(all(10)).await;
    assert_eq!(listed.len(), 5);
    assert_eq!(listed[1].search, messages[3].alerts[0].search);
    assert!(listed[4].search.starts_with("before"));
    let id = AlertId { message: messages[0].key.clone(), ordinal: 0 };
    let view = w.store().alert(&id).await.unwrap().unwrap();
    assert_eq!(view.deliveries[0].log.len(), 1);
    assert_eq!(w.accept(messages[0].clone()).await, Accepted::Duplicate);
}

pub(super) async fn one_bad_item_does_not_stop_its_neighbours(w: World) {
    let too_large = Bytes::from(vec![b'x'; MESSAGE_MAX_BYTES + 1]);
    let mut batch: Vec<NewMessage> = (0..64).map(|number| w.message(number)).collect();
    batch[17].raw = too_large;
    let results = w.try_accept(batch).await;
    assert_eq!(results.len(), 64);
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(accepted) => {
                assert_ne!(index, 17);
                assert_eq!(accepted, Accepted::New { alerts: 1 });
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Item(_)), "{error:?}");
                assert_eq!(index, 17);
            }
        }
    }
    assert_eq!(w.list(all(100)).await.len(), 63);
    assert_eq!(w.lease("soar", 100).await.len(), 63);
    assert_eq!(w.accept(w.message(17)).await, Accepted::New { alerts: 1 }, "nothing is left of it");
}

pub(super) async fn an_item_that_cannot_be_stored_leaves_nothing(w: World) {
    let too_large = Bytes::from(vec![b'x'; MESSAGE_MAX_BYTES + 1]);
    let no_alert = NewMessage { alerts: Vec::new(), ..w.message(1) };
    let twice =
        NewMessage { alerts: vec![alert(0, &["soar"]), alert(0, &["chat"])], ..w.message(2) };
    // Channel and destination are new too, so they are rolled back with the message. The next
    // message needs both again.
    let new_places = NewMessage {
        raw: too_large.clone(),
        key: MessageKey { channel: ChannelId::new("C2"), ..w.message(3).key },
        alerts: vec![alert(0, &["unheard-of"])],
        ..w.message(3)
    };
    let same_places = NewMessage { raw: "fine".into(), ..new_places.clone() };
    let edit = NewMessage { raw: too_large, is_edit: true, ..w.message(4) };
    let batch = vec![no_alert, twice, new_places, same_places, w.message(4), edit];
    let fine: Vec<bool> = w.try_accept(batch).await.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [false, false, false, true, true, false]);
    assert_eq!(w.list(all(100)).await.len(), 2);
    assert_eq!(w.lease("unheard-of", 10).await.len(), 1);
    assert_eq!(w.lease("soar", 10).await.len(), 1);
    assert!(w.view(4).await.revisions.is_empty());
    let whole = NewMessage { raw: vec![b'x'; MESSAGE_MAX_BYTES].into(), ..w.message(5) };
    assert_eq!(w.accept(whole).await, Accepted::New { alerts: 1 }, "up to the limit all is well");
}

// Looking

fn numbers(alerts: &[AlertView]) -> Vec<i64> {
    alerts.iter().map(|one| one.posted_at.micros() / 1_000_000 - 1_600_000_000).collect()
}

pub(super) async fn pages_follow_each_other(w: World) {
    w.accept_numbers(0..10).await;
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = w.list(AlertQuery { before, ..all(4) }).await;
        w.accept(w.message(100 + i64::try_from(seen.len()).unwrap())).await;
        let Some(last) = page.last() else { break };
        before = Some(last.seq);
        seen.extend(numbers(&page));
    }
    assert_eq!(seen, (0..10).rev().collect::<Vec<_>>(), "newest first, new ones do not disturb");
    assert!(w.list(all(0)).await.is_empty());
    let page = w.list(AlertQuery { state: Some(State::Pending), before, ..all(4) }).await;
    assert!(page.is_empty());
}

pub(super) async fn alerts_are_found_by_state_level_and_text(w: World) {
    w.accept_numbers(1..6).await;
    let mut other = w.message(6);
    other.alerts = vec![NewAlert {
        level: "low",
        search: "\u{c4}nderung an Checkout.JS 100%_".to_owned(),
        ..alert(0, &["soar", "chat"])
    }];
    w.accept(other).await;
    w.accept(NewMessage { alerts: vec![alert(0, &[])], ..w.message(7) }).await;
    let mut leases = w.lease("soar", 3).await.into_iter();
    w.record(leases.next().unwrap(), Next::Delivered(Reference::default())).await;
    w.record(leases.next().unwrap(), Next::Dead { reason: "rejected" }).await;
    let cancelled = Selection { alert: Some(w.id(4)), ..Selection::default() };
    assert_eq!(w.act(cancelled, Action::Cancel).await, 1);

    let by_state =
        async |state| numbers(&w.list(AlertQuery { state: Some(state), ..all(9) }).await);
    assert_eq!(by_state(State::Delivered).await, [1]);
    assert_eq!(by_state(State::Dead).await, [2]);
    assert_eq!(by_state(State::Leased).await, [3]);
    assert_eq!(by_state(State::Cancelled).await, [4]);
    assert_eq!(by_state(State::Pending).await, [6, 5], "each alert once");
    let unrouted = AlertQuery { unrouted: true, ..all(9) };
    assert_eq!(numbers(&w.list(unrouted.clone()).await), [7]);
    let both = AlertQuery { state: Some(State::Pending), ..unrouted };
    assert!(w.list(both).await.is_empty());
    let low = AlertQuery { level: Some("low".to_owned()), ..all(9) };
    assert_eq!(numbers(&w.list(low).await), [6]);
    let by_text = async |text: &str| {
        numbers(&w.list(AlertQuery { text: Some(text.to_owned()), ..all(9) }).await)
    };
    assert_eq!(by_text("\u{e4}NDERUNG").await, [6], "whatever the case");
    assert_eq!(by_text("checkout.js").await.len(), 7);
    assert_eq!(by_text("100%_").await, [6], "no character is special");
    assert_eq!(by_text(&w.id(3).to_string()).await, [3]);
    assert_eq!(by_text("c0123456789:1600000003").await, [3]);
    assert!(by_text("nowhere").await.is_empty());
    let page = w.list(AlertQuery { before: Some(w.view(6).await.seq), ..all(2) }).await;
    assert_eq!(numbers(&page), [5, 4]);
    assert!(page[0].raw.is_none());
    assert_eq!(page[0].deliveries[0].state, State::Pending);
}

pub(super) async fn the_next_due_is_known(w: World) {
    assert_eq!(w.next_due().await, None);
    let start = w.clock.now();
    w.accept(w.message(1)).await;
    w.store().accept(vec![w.message(2)], Some(start + HOUR), None).await.unwrap();
    assert_eq!(w.next_due().await, Some(start));
    let lease = w.lease_one().await;
    assert_eq!(w.next_due().await, Some(start + HOUR), "a leased one does not count");
    w.clock.advance(HOUR);
    let others = w.lease("soar", 10).await;
    assert_eq!(others.len(), 2, "the first lease has ended");
    assert_eq!(w.next_due().await, Some(start + HOUR + LEASE), "when the first lease ends");
    w.record(lease, Next::Delivered(Reference::default())).await;
    for lease in others {
        w.record(lease, Next::Delivered(Reference::default())).await;
    }
    assert_eq!(w.next_due().await, None);
    assert_eq!(w.store().next_due(&name("nowhere")).await.unwrap(), None);
}

pub(super) async fn a_hint_wakes_who_waits(w: World) {
    let hint = w.store().due_hint(&name("soar"));
    w.accept(w.message(1)).await;
    hint.notified().await;
    w.store().release(w.lease_one().await).await;
    hint.notified().await;
    w.record(w.lease_one().await, Next::Dead { reason: "rejected" }).await;
    w.act(Selection::default(), Action::Retry).await;
    hint.notified().await;
    w.pause(Paused::Yes(Pause::default())).await;
    w.pause(Paused::No).await;
    hint.notified().await;
    // So far each hint came before the waiter; now the waiter may come first.
    let waiting = {
        let hint = Arc::clone(&hint);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { hint.notified().await });
        tasks
    };
    w.accept(w.message(2)).await;
    waiting.join_all().await;
}

pub(super) async fn the_numbers_add_up(w: World) {
    let empty = w.store().stats().await.unwrap();
    assert!(empty.destinations.is_empty());
    assert!(empty.used_bytes > 0);
    assert_eq!(empty.used_bytes + empty.free_bytes, w.backend.limit(MAX_SIZE));
    let born = w.clock.now();
    w.accept_numbers(1..5).await;
    w.clock.advance(Duration::from_secs(5));
    w.accept(w.message(5)).await;
    let mut leases = w.lease("soar", 2).await.into_iter();
    w.record(leases.next().unwrap(), Next::Dead { reason: "rejected" }).await;
    w.store().set_paused(&name("chat"), Paused::Yes(Pause::default()), None).await.unwrap();
    let stats = w.store().stats().await.unwrap().destinations;
    let names: Vec<&str> = stats.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["chat", "soar"]);
    assert!(stats[0].1.pause.is_some());
    let soar = &stats[1].1;
    assert_eq!((soar.pending, soar.leased, soar.dead, &soar.pause), (3, 1, 1, &None));
    assert_eq!(soar.oldest_pending, Some(born));
}

pub(super) async fn a_probe_writes(w: World) {
    w.store().probe().await.unwrap();
    w.store().probe().await.unwrap();
    w.store().quarantine(&app(), b"not JSON");
    w.store().probe().await.unwrap();
}

pub(super) async fn a_close_finishes_what_was_accepted(mut w: World) {
    let mut accepts = JoinSet::new();
    for number in 0..200 {
        let (store, message) = (Arc::clone(w.store()), w.message(number));
        accepts.spawn(async move { (number, store.accept(vec![message], None, None).await) });
        // The store is closed while accepts are on their way.
        if number == 100 {
            let store = Arc::clone(w.store());
            accepts.spawn(async move {
                store.close().await;
                (-1, Err(StoreError::Closed))
            });
        }
    }
    let mut acknowledged = BTreeSet::new();
    for (number, result) in accepts.join_all().await {
        match result {
            Ok(_) => assert!(acknowledged.insert(number)),
            Err(error) => assert!(matches!(error, StoreError::Closed), "{error:?}"),
        }
    }
    w.crash();
    // Nothing that was acknowledged is lost, and nothing that was refused is stored.
    let kept: BTreeSet<i64> = numbers(&w.list(all(1000)).await).into_iter().collect();
    assert_eq!(kept, acknowledged);
}

pub(super) async fn a_closed_store_says_so(mut w: World) {
    w.accept_numbers(1..3).await;
    let lease = w.lease_one().await;
    w.store().close().await;
    w.store().close().await;
    let closed = w.store().accept(vec![w.message(3)], None, None).await;
    assert!(matches!(closed, Err(StoreError::Closed)));
    assert!(matches!(w.store().lease_due(&name("soar"), 1).await, Err(StoreError::Closed)));
    assert!(matches!(w.store().stats().await, Err(StoreError::Closed)));
    assert!(matches!(w.store().probe().await, Err(StoreError::Closed)));
    let outcome = Outcome {
        attempt: attempt(w.clock.now(), ""),
        next: Next::Dead { reason: "rejected" },
        projection: None,
    };
    let unrecorded = w.store().record(lease, outcome).await.unwrap_err();
    assert!(matches!(unrecorded.source, StoreError::Closed));
    assert_eq!(unrecorded.lease.delivery().alert, w.id(1), "the lease comes back");
    w.store().quarantine(&app(), b"dropped");
    w.store().release(unrecorded.lease).await;
    w.crash_and_free();
    assert_eq!(w.lease("soar", 10).await.len(), 2);
}
