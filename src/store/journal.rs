//! What operators did, beside the log: a log may be lost, and belongs to the machine that wrote it.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;

/// How long an entry is kept.
pub const JOURNAL_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// The most entries that are kept.
pub const JOURNAL_ENTRIES: i64 = 10_000;

/// An operator's action that is about to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorAction {
    /// Who does it: an address, and what else is known of them.
    pub who: String,
    /// The verb, such as `retry`.
    pub action: &'static str,
    /// The object, such as `destination soar`.
    pub selection: String,
}

impl OperatorAction {
    /// Returns the action with which the relay itself ends a pause.
    pub(super) fn end_of_pause(destination: &str) -> Self {
        Self {
            who: "the relay".to_owned(),
            action: "resume",
            selection: format!("destination {destination}, since its pause has ended"),
        }
    }
}

/// How what one call does comes into the journal.
#[derive(Clone, Debug)]
pub enum Deed {
    /// As an entry of its own.
    New(OperatorAction),
    /// Added to the entry of the same action.
    More(EntryId),
}

/// The journal's own number of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId(pub(in crate::store) i64);

/// An operator's action as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// When it began.
    pub at: Timestamp,
    /// Who did it.
    pub who: String,
    /// The verb.
    pub action: String,
    /// The object.
    pub selection: String,
    /// How many things it changed.
    pub changed: u64,
}

/// The part of a store that keeps what operators did. The changes of [`super::Store::act`],
/// [`super::Store::route`] and the methods of [`super::Pauses`] are kept in the same transaction.
#[async_trait]
pub trait Journal {
    /// Keeps an action in which the store had no part.
    ///
    /// # Errors
    /// The engine failed; nothing was kept.
    async fn note(&self, deed: OperatorAction, changed: u64) -> Result<(), StoreError>;

    /// Returns the newest entries, the newest first.
    ///
    /// # Errors
    /// The engine failed.
    async fn journal(&self, limit: usize) -> Result<Vec<JournalEntry>, StoreError>;
}
