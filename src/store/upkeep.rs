//! Retention, readiness and shutdown of a store: the role [`Upkeep`].

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::StoreError;

/// Times for which finished alerts are kept. Undelivered alerts are never removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Time after all deliveries of an alert were delivered or cancelled, or after an unrouted
    /// alert was received.
    pub delivered: Duration,
    /// Time after the last delivery of an alert became a dead letter.
    pub dead: Duration,
}

/// Time for which an identity is kept, so that an old message is still known when it is found
/// again.
pub const IDENTITY_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

/// Counts of one round of pruning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Messages whose text was removed. Their identities stay.
    pub messages: u64,
    /// Identities that were removed.
    pub identities: u64,
}

/// The role that keeps the store in order.
#[async_trait]
pub trait Upkeep: fmt::Debug + Send + Sync {
    /// Removes everything that is older than its retention, in transactions of bounded size.
    ///
    /// # Errors
    /// The engine failed.
    async fn prune(&self, retention: Retention) -> Result<Pruned, StoreError>;

    /// Makes a small write and returns once it is durable.
    ///
    /// # Errors
    /// The write failed. [`StoreError::Full`] is also returned while messages would be refused for
    /// lack of space.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Finishes queued writes and closes the store. Later calls return [`StoreError::Closed`].
    async fn close(&self);
}
