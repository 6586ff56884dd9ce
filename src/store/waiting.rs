//! Bounds the memory of items that wait for the writer of a store. Both engines use it.
//!
//! While a disk or a server hangs, callers give up one after the other. Their items are then
//! dropped too, unless the writer has taken them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Number of waiting bytes from which another item is refused. An item may exceed the limit, so
/// that the largest one is not refused forever.
const LIMIT_BYTES: usize = 8 * 1024 * 1024;

/// Number of bytes that wait for one writer. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

/// The caller's handle of a waiting item. Dropping it drops the item, unless the writer has taken
/// it.
#[derive(Debug)]
pub(super) struct Queued<T> {
    item: Arc<Mutex<Option<T>>>,
    waiting: Waiting,
    bytes: usize,
}

/// The writer's handle of a waiting item.
#[derive(Debug)]
pub(super) struct Handed<T>(Arc<Mutex<Option<T>>>);

impl Waiting {
    /// Adds an item of that many bytes, or returns `None` if the limit is reached.
    pub(super) fn hold<T>(&self, item: T, bytes: usize) -> Option<Queued<T>> {
        if self.0.load(Ordering::Relaxed) >= LIMIT_BYTES {
            return None;
        }
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Some(Queued { item: Arc::new(Mutex::new(Some(item))), waiting: self.clone(), bytes })
    }
}

impl<T> Queued<T> {
    /// Returns the handle for the writer.
    pub(super) fn hand_over(&self) -> Handed<T> {
        Handed(Arc::clone(&self.item))
    }
}

impl<T> Drop for Queued<T> {
    fn drop(&mut self) {
        drop(take(&self.item));
        self.waiting.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl<T> Handed<T> {
    /// Takes the item, or returns `None` if the caller has given up.
    pub(super) fn take(&self) -> Option<T> {
        take(&self.0)
    }
}

fn take<T>(item: &Mutex<Option<T>>) -> Option<T> {
    item.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_whose_caller_gives_up_is_dropped_and_makes_room() {
        let waiting = Waiting::default();
        let full = waiting.hold("first", LIMIT_BYTES).unwrap();
        let handed = full.hand_over();
        assert!(waiting.hold("second", 1).is_none());
        drop(full);
        assert_eq!(handed.take(), None);
        assert!(waiting.hold("second", 1).is_some());
    }

    #[test]
    fn an_item_that_the_writer_has_taken_outlives_its_caller() {
        let waiting = Waiting::default();
        let held = waiting.hold("first", 5).unwrap();
        assert_eq!(held.hand_over().take(), Some("first"));
    }
}
