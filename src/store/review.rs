//! What is not an alert and somebody must look at: near misses, and bodies that could not be read.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{NewMessage, StoreError};
use crate::{
    clock::Timestamp,
    ids::{AlertId, AppName, MessageTs},
};

/// How long a near miss is kept.
pub const NEAR_MISS_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// The most near misses that are kept, the newest ones.
pub const NEAR_MISSES: u32 = 1_000;

/// A message that may hold incidents, as it is handed to the store.
#[derive(Clone, Debug)]
pub struct NewNearMiss {
    /// The message as it would be accepted.
    pub message: NewMessage,
    /// Why it is not an alert, as a word.
    pub reason: &'static str,
    /// Slack's id of the bot that posted it, or empty.
    pub bot_id: String,
    /// Slack's id of the bot's app, or empty.
    pub app_id: String,
}

/// A near miss as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The store's own number; later ones are larger.
    pub seq: i64,
    /// The id that its first alert would have.
    pub id: AlertId,
    /// Why it is not an alert, as a word.
    pub reason: String,
    /// When it was posted.
    pub posted_at: MessageTs,
    /// When it reached the relay.
    pub received_at: Timestamp,
    /// Slack's `event_id`, or empty.
    pub event_id: String,
    /// Slack's `team_id`, or empty.
    pub team: String,
    /// Slack's id of the bot that posted it, or empty.
    pub bot_id: String,
    /// Slack's id of the bot's app, or empty.
    pub app_id: String,
    /// The first words of what would be searched.
    pub summary: String,
    /// Whether an operator has adopted it as an alert.
    pub is_adopted: bool,
    /// Whether an operator has seen it, by a list or by adopting it.
    pub is_read: bool,
    /// The exact bytes of the inner event; empty in lists.
    pub raw: Bytes,
}

/// A body that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Its number.
    pub id: i64,
    /// The app that received it.
    pub app: AppName,
    /// When it reached the relay.
    pub received_at: Timestamp,
    /// Whether an operator has seen it in a list.
    pub is_read: bool,
    /// Its beginning.
    pub body: Bytes,
}

/// How much there is, and how much of it nobody has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Not seen by an operator.
    pub unread: u64,
    /// Kept.
    pub total: u64,
}

/// What there is to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToReview {
    /// The near misses.
    pub near_misses: Counted,
    /// The bodies that could not be read.
    pub quarantine: Counted,
    /// The near misses of each app that nobody has seen, where there are any.
    pub unread_of: Vec<(AppName, u64)>,
}

/// The part of a store that keeps what is not an alert until somebody has looked at it.
#[async_trait]
pub trait Review {
    /// Keeps a near miss, and drops the oldest beyond [`NEAR_MISSES`]. Returns false if its message
    /// is kept already. Durable when this returns.
    ///
    /// # Errors
    /// The engine failed; nothing was kept.
    async fn keep_near_miss(&self, near_miss: NewNearMiss) -> Result<bool, StoreError>;

    /// Returns the newest near misses before the number `before`, the newest first.
    ///
    /// # Errors
    /// The engine failed.
    async fn near_misses(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<NearMiss>, StoreError>;

    /// Returns the near miss of which an alert would have this id.
    ///
    /// # Errors
    /// The engine failed.
    async fn near_miss(&self, id: &AlertId) -> Result<Option<NearMiss>, StoreError>;

    /// Notes that a near miss was adopted.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn mark_adopted(&self, seq: i64) -> Result<(), StoreError>;

    /// Returns the newest bodies that could not be read, the newest first.
    ///
    /// # Errors
    /// The engine failed.
    async fn quarantined(&self, limit: u32) -> Result<Vec<Quarantined>, StoreError>;

    /// Notes that an operator has seen these near misses and bodies.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn mark_read(&self, near_misses: &[i64], quarantined: &[i64]) -> Result<(), StoreError>;

    /// Returns how much there is to look at.
    ///
    /// # Errors
    /// The engine failed.
    async fn to_review(&self) -> Result<ToReview, StoreError>;
}
