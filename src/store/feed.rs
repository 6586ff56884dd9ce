//! What a destination that is read takes from the store: pages of numbered deliveries.

use super::Delivery;
use crate::{
    clock::Timestamp,
    ids::{AlertId, MessageTs},
};

/// A page ends with the delivery whose message takes it past this: a reader's time is short, and
/// its memory is not ours.
pub const FEED_PAGE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The most deliveries that a reader can ask for at once. A reader that was killed asks again for
/// the page that it was given last.
pub const FEED_PAGE_MAX_ITEMS: usize = 500;

/// A piece of a feed.
#[derive(Clone, Debug)]
pub struct FeedPage {
    /// Deliveries with their numbers, which grow but do not follow one another.
    pub entries: Vec<(i64, Delivery)>,
    /// No number beyond this can have been given. Nothing is behind a number beyond it.
    pub end: i64,
}

/// A delivery that a reader has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The alert.
    pub alert: AlertId,
    /// When the message reached the relay.
    pub received_at: Timestamp,
    /// When the message was posted.
    pub posted_at: MessageTs,
}

/// The deliveries of a page that is read row by row, up to its size.
#[derive(Debug, Default)]
pub(super) struct Entries {
    list: Vec<(i64, Delivery)>,
    bytes: usize,
}

impl Entries {
    /// Whether the page has room.
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
