//! The error that every method of a store returns.

use std::sync::Arc;

/// Reason why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The queue of the writer is full. The same call may succeed a moment later.
    #[error("too many writes are waiting in the store")]
    Busy,
    /// 95 % of `max_size` is in use, or the disk is full.
    #[error("the store is full: max_size is used up, or its disk has no space left")]
    Full,
    /// The open files were removed, replaced or moved away, so a restart would not find them.
    #[error("the store's files are gone: {0}")]
    Gone(Arc<str>),
    /// The store is closing or closed.
    #[error("the store is closed")]
    Closed,
    /// One item can never be stored. The other items of the batch are.
    #[error("the item cannot be stored")]
    Item(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database engine failed. The same call may succeed later.
    #[error("the store failed")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}
