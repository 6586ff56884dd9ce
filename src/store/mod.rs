//! The store keeps each alert from Slack's request until every destination has it.
//!
//! A store is the sum of the roles below. A caller takes the role it uses: `intake` takes
//! [`Inbox`] and [`History`], `delivery` takes [`Queue`] and [`Feeds`], `ops` takes [`Desk`]. The
//! roles name no engine; `contract` holds the promises that every engine is tested against.
//!
//! The store keeps the raw inner message. Incidents and alerts are derived from it again.

mod chain;
#[cfg(test)]
mod contract;
mod error;
mod feed;
mod hints;
mod history;
mod journal;
mod lease;
mod message;
mod pause;
mod poster;
pub mod postgres;
mod review;
mod search;
mod sql;
pub mod sqlite;
mod stored;
pub mod transfer;
mod upkeep;
mod view;
mod waiting;

use self::chain::former_ids;
pub use self::{
    chain::{CHAIN_MAX, joined, with_new_id},
    error::StoreError,
    feed::{FEED_PAGE_MAX_BYTES, FEED_PAGE_MAX_ITEMS, FeedPage, Feeds, Taken},
    history::{Beginning, CURSOR_AHEAD, CursorMove, History, LookAlike},
    journal::{
        Deed, EntryId, JOURNAL_ENTRIES, JOURNAL_KEPT, Journal, JournalEntry, OperatorAction,
    },
    lease::{
        Attempt, Because, Delivery, Hasten, Lease, Next, Outcome, Projection, Queue, REFUSALS,
        Recorded, Reference, Refusals, Unrecorded,
    },
    message::{Accepted, Inbox, MESSAGE_MAX_BYTES, NewAlert, NewMessage, Source},
    pause::{Pause, PauseView, Paused, Pauses},
    poster::{POSTER_KEPT, Poster, Posters},
    review::{
        Counted, NEAR_MISS_KEPT, NEAR_MISSES, NearMiss, NewNearMiss, Quarantined, Review, ToReview,
    },
    upkeep::{IDENTITY_KEPT, Pruned, Retention, Upkeep},
    view::{
        ATTEMPTS_KEPT, Action, AlertQuery, AlertView, AttemptView, CHANGES_NAMED, Changes,
        DeliveryView, Desk, DestinationStats, REVISIONS_KEPT, Revision, Routed, Selection, State,
        Stats,
    },
};

/// A whole store: all roles.
///
/// `Arc<dyn Store>` coerces to the role that a caller takes, such as `Arc<dyn Queue>`.
pub trait Store:
    Inbox + History + Queue + Feeds + Desk + Upkeep + Journal + Posters + Pauses + Review
{
}

impl<S> Store for S where
    S: Inbox + History + Queue + Feeds + Desk + Upkeep + Journal + Posters + Pauses + Review
{
}
