//! Messages that wait for a store's writer: not more than so many bytes, and none that nobody waits
//! for any more. Both stores use it.
//!
//! While a disk or a server hangs, callers give up one after the other; what they handed in leaves
//! memory with them, unless the writer has begun with it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// How many bytes may wait. One item more may begin to wait, so the largest is not refused for
/// ever.
const LIMIT_BYTES: usize = 8 * 1024 * 1024;

/// The bytes that wait for one writer. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

/// A caller's end of what waits. Dropped, it takes the item back from a writer that has not begun
/// with it.
#[derive(Debug)]
pub(super) struct Queued<T> {
    item: Arc<Mutex<Option<T>>>,
    waiting: Waiting,
    bytes: usize,
}

/// The writer's end of it.
#[derive(Debug)]
pub(super) struct Handed<T>(Arc<Mutex<Option<T>>>);

impl Waiting {
    /// Lets an item of that many bytes wait, or returns `None` if enough is waiting.
    pub(super) fn hold<T>(&self, item: T, bytes: usize) -> Option<Queued<T>> {
        if self.0.load(Ordering::Relaxed) >= LIMIT_BYTES {
            return None;
        }
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Some(Queued { item: Arc::new(Mutex::new(Some(item))), waiting: self.clone(), bytes })
    }
}

impl<T> Queued<T> {
    /// Returns the end that goes to the writer.
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
    /// Takes the item, to write it; `None` if its caller has given up.
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
    fn what_its_caller_gives_up_is_gone_and_makes_room() {
        let waiting = Waiting::default();
        let full = waiting.hold("first", LIMIT_BYTES).unwrap();
        let handed = full.hand_over();
        assert!(waiting.hold("second", 1).is_none());
        drop(full);
        assert_eq!(handed.take(), None);
        assert!(waiting.hold("second", 1).is_some());
    }

    #[test]
    fn what_the_writer_has_begun_with_stays_its_own() {
        let waiting = Waiting::default();
        let held = waiting.hold("first", 5).unwrap();
        assert_eq!(held.hand_over().take(), Some("first"));
    }
}
