//! Near misses and quarantined bodies, which an operator should review: the role [`Review`].

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::{NewMessage, StoreError};
use crate::{
    clock::Timestamp,
    ids::{AlertId, AppName, MessageTs},
};

/// Time for which a near miss is kept.
pub const NEAR_MISS_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// The largest number of near misses that are kept; the newest ones stay.
pub const NEAR_MISSES: u32 = 1_000;

/// A near miss to be stored.
#[derive(Clone, Debug)]
pub struct NewNearMiss {
    /// The message in the form in which it would be accepted.
    pub message: NewMessage,
    /// Reason why the message is not an alert, as one word.
    pub reason: &'static str,
    /// Slack's id of the bot that posted the message, or empty.
    pub bot_id: String,
    /// Slack's id of the bot's app, or empty.
    pub app_id: String,
}

/// A near miss as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// Number of the near miss in the store. Later ones have larger numbers.
    pub seq: i64,
    /// Id that the first alert of the message would have.
    pub id: AlertId,
    /// Reason why the message is not an alert, as one word.
    pub reason: String,
    /// Time of the post.
    pub posted_at: MessageTs,
    /// Time at which the message reached the relay.
    pub received_at: Timestamp,
    /// Slack's `event_id`, or empty.
    pub event_id: String,
    /// Slack's `team_id`, or empty.
    pub team: String,
    /// Slack's id of the bot that posted the message, or empty.
    pub bot_id: String,
    /// Slack's id of the bot's app, or empty.
    pub app_id: String,
    /// Search text of the first alert that the message would have.
    pub summary: String,
    /// `true` once an operator has adopted the message as an alert.
    pub is_adopted: bool,
    /// `true` once an operator has seen the near miss in a list, or has adopted it.
    pub is_read: bool,
    /// Exact bytes of the inner event; empty in lists.
    pub raw: Bytes,
}

/// A body that could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Number of the body in the store.
    pub id: i64,
    /// App that received the body.
    pub app: AppName,
    /// Time at which the body reached the relay.
    pub received_at: Timestamp,
    /// `true` once an operator has seen the body in a list.
    pub is_read: bool,
    /// Start of the body.
    pub body: Bytes,
}

/// Number of kept items, and of those among them that no operator has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Items that no operator has seen.
    pub unread: u64,
    /// All items kept.
    pub total: u64,
}

/// Numbers of the items that are kept for review.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToReview {
    /// Near misses of all apps.
    pub near_misses: Counted,
    /// Bodies that could not be parsed.
    pub quarantine: Counted,
    /// Unread near misses of each app that has any.
    pub unread_of: Vec<(AppName, u64)>,
}

/// The role that keeps near misses and quarantined bodies for review by an operator.
#[async_trait]
pub trait Review: fmt::Debug + Send + Sync {
    /// Stores a near miss, and removes the oldest ones beyond [`NEAR_MISSES`]. Returns `false` if
    /// the message is stored already. The near miss is durable when this returns.
    ///
    /// # Errors
    /// The engine failed; nothing was kept.
    async fn keep_near_miss(&self, near_miss: NewNearMiss) -> Result<bool, StoreError>;

    /// Returns the newest near misses before the number `before`, newest first.
    ///
    /// # Errors
    /// The engine failed.
    async fn near_misses(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<NearMiss>, StoreError>;

    /// Returns the near miss of the message that this alert id names.
    ///
    /// # Errors
    /// The engine failed.
    async fn near_miss(&self, id: &AlertId) -> Result<Option<NearMiss>, StoreError>;

    /// Marks a near miss as adopted and read.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn mark_adopted(&self, seq: i64) -> Result<(), StoreError>;

    /// Returns the newest quarantined bodies, newest first.
    ///
    /// # Errors
    /// The engine failed.
    async fn quarantined(&self, limit: u32) -> Result<Vec<Quarantined>, StoreError>;

    /// Marks near misses and quarantined bodies as read.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn mark_read(&self, near_misses: &[i64], quarantined: &[i64]) -> Result<(), StoreError>;

    /// Returns how many items are kept and unread.
    ///
    /// # Errors
    /// The engine failed.
    async fn to_review(&self) -> Result<ToReview, StoreError>;
}
