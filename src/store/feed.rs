//! Numbered deliveries for destinations that are read: the role [`Feeds`].

use std::fmt;

use async_trait::async_trait;

use super::{Delivery, StoreError};
use crate::{
    clock::Timestamp,
    ids::{AlertId, DestinationName, MessageTs},
};

/// Size after which a page ends: the message that reaches it is the last one. Readers have little
/// time, and the relay should not hold much memory for them.
pub const FEED_PAGE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The largest number of deliveries in a page. A reader that was killed asks once more for the page
/// that it got last, so this much is kept behind its last number.
pub const FEED_PAGE_MAX_ITEMS: usize = 500;

/// Part of a feed.
#[derive(Clone, Debug)]
pub struct FeedPage {
    /// Deliveries with their numbers. Numbers grow, but are not consecutive.
    pub entries: Vec<(i64, Delivery)>,
    /// The largest number that can have been given so far. There is nothing after a larger number.
    pub end: i64,
}

/// A delivery that a reader has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Identity of the alert.
    pub alert: AlertId,
    /// Time at which the message reached the relay.
    pub received_at: Timestamp,
    /// Time of the post.
    pub posted_at: MessageTs,
}

/// The role that serves destinations that are read.
#[async_trait]
pub trait Feeds: fmt::Debug + Send + Sync {
    /// Returns the entries of the destination's feed after the number `after`, in order, at most
    /// `limit` and about [`FEED_PAGE_MAX_BYTES`]. Returns none while the destination is paused.
    ///
    /// Deliveries that are due and have no number get one first. A new number is larger than every
    /// earlier number and every earlier time, and is durable before a page shows it. A reader that
    /// goes on from its last number therefore misses nothing, however late a message is committed,
    /// and even if the store was restored from an older copy.
    ///
    /// # Errors
    /// The engine failed; the same call may be made again.
    async fn feed_page(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: usize,
    ) -> Result<FeedPage, StoreError>;

    /// Marks pending entries of the destination's feed up to and including a number as delivered.
    /// Returns a bounded number of them; call again until the result is empty.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn feed_taken(
        &self,
        destination: &DestinationName,
        up_to: i64,
    ) -> Result<Vec<Taken>, StoreError>;

    /// Turns the pending deliveries of these alerts to a destination into dead letters, except
    /// leased ones. Returns the alerts for which it did.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn give_up(
        &self,
        destination: &DestinationName,
        alerts: &[AlertId],
        reason: &'static str,
    ) -> Result<Vec<AlertId>, StoreError>;
}

/// Entries of a page that is filled row by row, up to its size.
#[derive(Debug, Default)]
pub(super) struct Entries {
    list: Vec<(i64, Delivery)>,
    bytes: usize,
}

impl Entries {
    /// Returns `true` while the page is below its size.
    pub(super) const fn has_room(&self) -> bool {
        self.bytes < FEED_PAGE_MAX_BYTES
    }

    pub(super) const fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn push(&mut self, number: i64, delivery: Delivery) {
        self.bytes = self.bytes.saturating_add(delivery.raw.len());
        self.list.push((number, delivery));
    }

    pub(super) fn page(self, end: i64) -> FeedPage {
        FeedPage { entries: self.list, end }
    }
}
