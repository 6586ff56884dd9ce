//! Progress of the eviction of delivered messages (see `evict`), shared by all callers.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::Counter;

/// Time without a scan after a scan through all messages that found nothing, unless a delivery may
/// have ended meanwhile.
const REST: Duration = Duration::from_millis(500);

/// Progress of the scan for messages to evict.
#[derive(Debug)]
pub(super) struct Eviction {
    /// Held by the caller that evicts.
    pub(super) running: tokio::sync::Mutex<()>,
    /// Number of the last message that was scanned; 0 between scans.
    position: AtomicI64,
    /// Set if this scan has evicted a message.
    has_evicted: AtomicBool,
    rests_until: Mutex<Option<Instant>>,
    /// Set by a write that may have ended a delivery, until the next scan begins.
    may_find_more: AtomicBool,
    /// Set once the log says that messages are evicted.
    is_logged: AtomicBool,
    pruned_early: Counter,
}

impl Eviction {
    pub(super) fn new(pruned_early: Counter) -> Self {
        Self {
            running: tokio::sync::Mutex::default(),
            position: AtomicI64::new(0),
            has_evicted: AtomicBool::new(false),
            rests_until: Mutex::default(),
            may_find_more: AtomicBool::new(false),
            is_logged: AtomicBool::new(false),
            pruned_early,
        }
    }

    /// Notes that a delivery may have ended, which ends a rest.
    pub(super) fn wake(&self) {
        self.may_find_more.store(true, Ordering::Release);
    }

    /// Notes that space is no longer short, so that the next eviction is logged again.
    pub(super) fn note_enough_space(&self) {
        self.is_logged.store(false, Ordering::Release);
    }

    /// Returns the number of the message after which to scan on, or 0 to begin a scan.
    pub(super) fn next_position(&self) -> i64 {
        let position = self.position.load(Ordering::Acquire);
        // A scan that begins now sees every delivery that has ended so far.
        if position == 0 {
            self.may_find_more.store(false, Ordering::Release);
        }
        position
    }

    /// Returns `true` while another scan would find nothing.
    pub(super) fn rests(&self, now: Instant) -> bool {
        if self.may_find_more.load(Ordering::Acquire) {
            return false;
        }
        let until = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }

    /// Sets the last message that was scanned; `None` ends the scan.
    pub(super) fn advance(&self, last: Option<i64>, now: Instant) {
        self.position.store(last.unwrap_or(0), Ordering::Release);
        if last.is_none() && !self.has_evicted.swap(false, Ordering::AcqRel) {
            let mut until = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
            *until = Some(now + REST);
        }
    }

    /// Counts evicted messages, and logs the first ones of a shortage.
    pub(super) fn count(&self, evicted: u64) {
        if evicted == 0 {
            return;
        }
        self.has_evicted.store(true, Ordering::Release);
        self.pruned_early.increment(evicted);
        if !self.is_logged.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                "the store is short of space: the text of delivered alerts is removed before \
                 its retention ends, the oldest first (pruned_early_total counts it); raise \
                 max_size, free space on the disk, or shorten retention"
            );
        }
    }
}
