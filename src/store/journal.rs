//! The journal of operators' actions: the role [`Journal`]. Unlike the log, the journal is stored
//! with the alerts and shared by all relays.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;

/// Time for which an entry is kept.
pub const JOURNAL_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// The largest number of entries that are kept.
pub const JOURNAL_ENTRIES: i64 = 10_000;

/// An operator's action that is about to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorAction {
    /// The operator: an address, and what else is known.
    pub who: String,
    /// The verb, such as `retry`.
    pub action: &'static str,
    /// The object, such as `destination soar`.
    pub selection: String,
}

impl OperatorAction {
    /// Returns the action by which the relay itself ends a pause.
    pub(super) fn end_of_pause(destination: &str) -> Self {
        Self {
            who: "the relay".to_owned(),
            action: "resume",
            selection: format!("destination {destination}, since its pause has ended"),
        }
    }
}

/// Entry to which the changes of one call are added.
#[derive(Clone, Debug)]
pub enum Deed {
    /// A new entry.
    New(OperatorAction),
    /// An existing entry of the same action.
    More(EntryId),
}

/// Number of an entry in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId(pub(in crate::store) i64);

/// An operator's action as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// Time at which the action began.
    pub at: Timestamp,
    /// The operator: an address, and what else is known.
    pub who: String,
    /// The verb, such as `retry`.
    pub action: String,
    /// The object, such as `destination soar`.
    pub selection: String,
    /// Number of things that the action changed.
    pub changed: u64,
}

/// The role that keeps operators' actions. [`Desk::act`](super::Desk::act),
/// [`Desk::route`](super::Desk::route) and the methods of [`Pauses`](super::Pauses) write their
/// entries themselves, in the same transaction as their changes.
#[async_trait]
pub trait Journal: fmt::Debug + Send + Sync {
    /// Adds an entry for an action outside the store.
    ///
    /// # Errors
    /// The engine failed; nothing was kept.
    async fn note(&self, deed: OperatorAction, changed: u64) -> Result<(), StoreError>;

    /// Returns the newest entries, newest first.
    ///
    /// # Errors
    /// The engine failed.
    async fn journal(&self, limit: usize) -> Result<Vec<JournalEntry>, StoreError>;
}
