//! The store: where an alert is kept from Slack's request until every destination has it.
//!
//! `intake` calls [`Store::accept`], `delivery` leases and records, `ops` looks and acts. The trait
//! knows no engine; `contract` holds the promises that every backend is tested against.
//! What is stored is the raw inner message; incidents and alerts are derived from it again.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::{
    clock::Timestamp,
    ids::{AlertId, AppName, ChannelId, DestinationName, MessageTs},
};

mod chain;
#[cfg(test)]
mod contract;
mod feed;
mod journal;
mod lease;
mod message;
mod pause;
mod poster;
pub mod postgres;
mod review;
mod search;
pub mod sqlite;
mod stored;
pub mod transfer;
mod view;
mod waiting;

use self::chain::former_ids;
pub use self::{
    chain::{CHAIN_MAX, LookAlike, joined, with_new_id},
    feed::{FEED_PAGE_MAX_BYTES, FEED_PAGE_MAX_ITEMS, FeedPage, Taken},
    journal::{
        Deed, EntryId, JOURNAL_ENTRIES, JOURNAL_KEPT, Journal, JournalEntry, OperatorAction,
    },
    lease::{
        Attempt, Because, Delivery, Hasten, Lease, Next, Outcome, Projection, REFUSALS, Recorded,
        Reference, Refusals, Unrecorded,
    },
    message::{Accepted, Beginning, CursorMove, NewAlert, NewMessage, Source},
    pause::{Pause, PauseView, Paused, Pauses},
    poster::{POSTER_KEPT, Poster, Posters},
    review::{
        Counted, NEAR_MISS_KEPT, NEAR_MISSES, NearMiss, NewNearMiss, Quarantined, Review, ToReview,
    },
    view::{
        ATTEMPTS_KEPT, Action, AlertQuery, AlertView, AttemptView, CHANGES_NAMED, Changes,
        DeliveryView, DestinationStats, IDENTITY_KEPT, Pruned, REVISIONS_KEPT, Retention, Revision,
        Routed, Selection, State, Stats,
    },
};

/// The largest raw message that is stored. Slack's requests are limited to a quarter of it.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// A cursor is never moved further than this beyond the store's own time. Clocks differ a little.
pub const CURSOR_AHEAD: Duration = Duration::from_secs(300);

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The writer's queue is full; the same call may succeed a moment later.
    #[error("the store has too much waiting to be written")]
    Busy,
    /// 95 % of `max_size` is in use, or the disk is full.
    #[error("the store is full: max_size is used up, or there is no space on its disk")]
    Full,
    /// The files that are open are no longer where a start would look for them: they were removed,
    /// replaced or moved away.
    #[error("the store's files are gone: {0}")]
    Gone(Arc<str>),
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
    /// One item cannot be stored, whatever is tried; its neighbours are.
    #[error("the item cannot be stored")]
    Item(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The engine failed; the same call may succeed later.
    #[error("the store failed")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where alerts are kept. Every promise is a function of the contract suite.
#[async_trait]
pub trait Store: Journal + Posters + Pauses + Review + Send + Sync + fmt::Debug {
    /// Stores messages, their alerts and one pending delivery for each routed destination, due at
    /// `hold_until` (now, if none), in one transaction, with the cursor if one is given. When this
    /// returns, everything is durable.
    ///
    /// Results are in the order of the batch. An item that cannot be stored is [`StoreError::Item`]
    /// in its own place (larger than [`MESSAGE_MAX_BYTES`], no alert, an ordinal used twice); its
    /// neighbours are stored, and the cursor moves. The cursor never goes back, and a move of an
    /// older term, or to more than [`CURSOR_AHEAD`] after the store's own time, is left undone.
    ///
    /// A message is known if it is known under any id of its channel ([`Store::chains`]); a new one
    /// is stored under the first of these ids. Both are decided in the same transaction.
    ///
    /// # Errors
    /// Nothing was stored, or it is not known whether it was: the sender tries again.
    async fn accept(
        &self,
        batch: Vec<NewMessage>,
        hold_until: Option<Timestamp>,
        cursor: Option<CursorMove>,
    ) -> Result<Vec<Result<Accepted, StoreError>>, StoreError>;

    /// Keeps the newest bodies that could not be read, at most 100 of 64 KiB; never waits.
    fn quarantine(&self, app: &AppName, body: &[u8]);

    /// Takes up to `n` deliveries of a destination that are due, oldest due first. None while it is
    /// paused. Nobody else gets them until they are recorded, released or expired.
    ///
    /// # Errors
    /// The engine failed; nothing is leased.
    async fn lease_due(
        &self,
        destination: &DestinationName,
        n: usize,
    ) -> Result<Vec<Lease>, StoreError>;

    /// Takes the delivery of the destination's oldest alert, due or not, to find out whether the
    /// destination works again. One that waits for something else than a destination at fault is
    /// passed over until it is due. None while the destination is paused.
    ///
    /// # Errors
    /// The engine failed; nothing is leased.
    async fn lease_oldest(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Lease>, StoreError>;

    /// Stores the outcome of an attempt; durable when this returns. A lease that has passed to
    /// another worker is counted and ignored.
    ///
    /// A delivered alert is evidence against those of the destination that were refused before:
    /// whoever leases one of them later is told by [`Refusals::accepted`]. Under settings that were
    /// replaced since the lease was given, neither an acceptance nor a refusal is evidence, and no
    /// refusal ends a delivery: the same transaction looks at both.
    ///
    /// # Errors
    /// Lease and outcome come back, to be recorded later.
    async fn record(&self, lease: Lease, outcome: Outcome) -> Result<Recorded, Unrecorded>;

    /// Gives a lease back unused: due as before, no attempt counted.
    async fn release(&self, lease: Lease);

    /// What the destination's feed has behind the number `after`, in order, at most `limit` and
    /// about [`FEED_PAGE_MAX_BYTES`]. What is due and has no number gets one first: it is larger
    /// than every number and every time before it, and durable before anybody sees it. So whoever
    /// has read up to a number misses nothing, however late a message commits, and even if the
    /// store is an older copy by now. Nothing while the destination is paused.
    ///
    /// # Errors
    /// The engine failed; the same call may be made again.
    async fn feed_page(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: usize,
    ) -> Result<FeedPage, StoreError>;

    /// Marks as delivered what is pending in the destination's feed up to a number, that one
    /// included: a bounded piece; ask again until there is none.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn feed_taken(
        &self,
        destination: &DestinationName,
        up_to: i64,
    ) -> Result<Vec<Taken>, StoreError>;

    /// Gives up these alerts for a destination, as far as they are pending and not leased. Returns
    /// those that it gave up.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn give_up(
        &self,
        destination: &DestinationName,
        alerts: &[AlertId],
        reason: &'static str,
    ) -> Result<Vec<AlertId>, StoreError>;

    /// Gives up what is pending for a destination, not leased, and older than `max_age`: a bounded
    /// piece; ask again until there is none. Returns whose deliveries these were. A paused
    /// destination's age stands still.
    ///
    /// The age is counted by a time of day that has kept step for some minutes
    /// ([`SteadyTime`](crate::clock::SteadyTime)), so a clock that is wrong for a while ages
    /// nothing, and an alert from before the store was opened is not given up at once.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn expire(
        &self,
        destination: &DestinationName,
        max_age: Duration,
        reason: &'static str,
    ) -> Result<Vec<AlertId>, StoreError>;

    /// Makes some of the destination's deliveries due now; returns how many.
    ///
    /// # Errors
    /// The engine failed; the pieces before are done, and the same call does the rest.
    async fn hasten(&self, destination: &DestinationName, whom: Hasten) -> Result<u64, StoreError>;

    /// Notes under which settings the destination is attempted from now on. If they are others than
    /// before, its refusals are counted anew, and what was refused is due now. Returns how many
    /// deliveries that are.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn note_settings(
        &self,
        destination: &DestinationName,
        mark: u16,
    ) -> Result<u64, StoreError>;

    /// When the destination's next delivery is due; `None` if none is waiting, or it is paused.
    /// Leased ones do not count, unless there are no others: then it is when the first lease ends.
    ///
    /// # Errors
    /// The engine failed.
    async fn next_due(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// A hint that something of this destination may have become due: after an accept, a retry by
    /// hand, a resume or a release. It wakes one waiter, and is kept while nobody waits. A hint may
    /// be missing on a store shared by several processes.
    fn due_hint(&self, destination: &DestinationName) -> Arc<Notify>;

    /// Applies an operator's action, a bounded piece at a time; returns what it changed. The deed,
    /// if one is given, is kept with the first piece, whatever that changes.
    ///
    /// # Errors
    /// The engine failed; the pieces before are done, and the same call does the rest.
    async fn act(
        &self,
        selection: Selection,
        action: Action,
        deed: Option<OperatorAction>,
    ) -> Result<Changes, StoreError>;

    /// Gives an alert without any delivery one for each of these destinations, due now. Leaves an
    /// alert alone that has a delivery, or whose message retention has removed. The deed, if one is
    /// given, is kept with it, whatever that changes.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn route(
        &self,
        alert: &AlertId,
        destinations: &[DestinationName],
        deed: Option<Deed>,
    ) -> Result<Routed, StoreError>;

    /// One alert with everything that is known of it. Its id may name any id of its channel.
    ///
    /// # Errors
    /// The engine failed.
    async fn alert(&self, id: &AlertId) -> Result<Option<AlertView>, StoreError>;

    /// A page of alerts, newest first, without raw messages and attempts.
    ///
    /// # Errors
    /// The engine failed.
    async fn alerts(&self, query: AlertQuery) -> Result<Vec<AlertView>, StoreError>;

    /// Up to where a channel's history was read.
    ///
    /// # Errors
    /// The engine failed.
    async fn cursor(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError>;

    /// The newest message that moves of the channel's cursor have seen, if they said so.
    ///
    /// # Errors
    /// The engine failed.
    async fn newest_seen(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError>;

    /// Returns the channels that have a cursor, the one that was read furthest first.
    ///
    /// # Errors
    /// The engine failed.
    async fn read_channels(&self, app: &AppName) -> Result<Vec<ChannelId>, StoreError>;

    /// Returns when the history of each channel was first to be read, by the channel's id or by a
    /// configured name, as far as [`Store::set_beginning`] kept it.
    ///
    /// # Errors
    /// The engine failed.
    async fn beginnings(&self, app: &AppName) -> Result<Vec<(String, Beginning)>, StoreError>;

    /// Keeps when the history of a channel was first to be read. The first time stays, but that one
    /// which is sure replaces one that is not.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn set_beginning(
        &self,
        app: &AppName,
        written: &str,
        beginning: Beginning,
    ) -> Result<(), StoreError>;

    /// Puts a cursor back that lies after `cursor.to`, unless a newer term has moved it.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn put_cursor_back(&self, cursor: &CursorMove) -> Result<(), StoreError>;

    /// The ids behind what the configuration writes of the app's channels, as far as they were
    /// kept with [`Store::set_channel_id`].
    ///
    /// # Errors
    /// The engine failed.
    async fn channel_ids(&self, app: &AppName) -> Result<Vec<(String, ChannelId)>, StoreError>;

    /// Keeps the id behind a channel's name, or behind an id that Slack has replaced, in place of
    /// any before it.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn set_channel_id(
        &self,
        app: &AppName,
        written: &str,
        id: &ChannelId,
    ) -> Result<(), StoreError>;

    /// Returns the ids that channels of the app have had, as far as Slack changed them: a list for
    /// each such channel, oldest first, at most [`CHAIN_MAX`] long.
    ///
    /// # Errors
    /// The engine failed.
    async fn chains(&self, app: &AppName) -> Result<Vec<Vec<ChannelId>>, StoreError>;

    /// Keeps that Slack replaced the id `old` with `new`, as [`with_new_id`] says, in one
    /// transaction with [`Store::channel_ids`]: what was behind `old`, and `old` itself, is then
    /// behind `new`. A cursor of `new` is put back to where the channel was read under its older
    /// ids, if that is before. No accept, in whichever process, runs beside it.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn replace_channel_id(
        &self,
        app: &AppName,
        old: &ChannelId,
        new: &ChannelId,
    ) -> Result<(), StoreError>;

    /// Finds messages with these timestamps that are known under none of the ids `own`, and under
    /// another id of the app's.
    ///
    /// # Errors
    /// The engine failed.
    async fn look_alikes(
        &self,
        app: &AppName,
        own: &[ChannelId],
        timestamps: &[MessageTs],
    ) -> Result<Vec<LookAlike>, StoreError>;

    /// The app's messages posted before that time which catch-up has brought and no push: each is
    /// given once, whoever asks. A bounded piece, the oldest first; ask again until there is none.
    ///
    /// # Errors
    /// The engine failed.
    async fn take_unpushed(
        &self,
        app: &AppName,
        posted_before: MessageTs,
    ) -> Result<Vec<(ChannelId, MessageTs)>, StoreError>;

    /// The term under which this process may poll for the app; `None` if another process does.
    ///
    /// # Errors
    /// The engine failed.
    async fn poller_term(&self, app: &AppName) -> Result<Option<u64>, StoreError>;

    /// Lets another process poll for the app at once, until this one asks for a term again. Returns
    /// false if nobody else could: nobody does, unless processes share the store.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn stop_polling(&self, _app: &AppName) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// The numbers for metrics and status.
    ///
    /// # Errors
    /// The engine failed.
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// Removes all that retention allows, a bounded piece at a time.
    ///
    /// # Errors
    /// The engine failed.
    async fn prune(&self, retention: Retention) -> Result<Pruned, StoreError>;

    /// Proves that a write becomes durable now.
    ///
    /// # Errors
    /// It does not; [`StoreError::Full`] also when accepts would be refused for lack of space.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Finishes what is queued and closes; later calls answer [`StoreError::Closed`].
    async fn close(&self);
}
