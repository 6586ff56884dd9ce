//! State that the threads of a store share with its callers.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64},
    },
    time::Duration,
};

use metrics::{Counter, Histogram};
use tokio_util::sync::CancellationToken;

use super::{
    disk::Disk, eviction::Eviction, files::Files, leases::Leases, settings::SqliteSettings,
    size::Size,
};
use crate::{
    clock::{Clock, SteadySpan, SteadyTime, Timestamp},
    metrics::{Metric, Metrics},
    store::{hints::Hints, waiting::Waiting},
};

/// State that threads and callers share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) lease: Duration,
    pub(super) leases: Leases,
    pub(super) hints: Hints,
    pub(super) size: Size,
    pub(super) files: Files,
    pub(super) waiting: Waiting,
    /// Number of the last message that retention has scanned.
    pub(super) walked: AtomicI64,
    /// Time of day that is steady enough to age anything.
    pub(super) steady: Mutex<SteadyTime>,
    /// Progress of the eviction of delivered messages.
    pub(super) eviction: Eviction,
    /// Set if the log is to be emptied after the next commit, to return space to the disk.
    pub(super) gives_back: AtomicBool,
    pub(super) is_closing: AtomicBool,
    pub(super) ended: CancellationToken,
    pub(super) commit_seconds: Histogram,
    pub(super) stale_leases: Counter,
}

impl Shared {
    pub(super) fn new(
        settings: &SqliteSettings,
        files: Files,
        clock: Clock,
        metrics: &Metrics,
    ) -> Self {
        let disk = Disk::new(&settings.path, clock.instant());
        Self {
            lease: settings.lease,
            leases: Leases::default(),
            hints: Hints::default(),
            size: Size::new(settings.max_size_bytes, files.wal().to_owned(), disk),
            files,
            waiting: Waiting::default(),
            walked: AtomicI64::new(0),
            steady: Mutex::default(),
            eviction: Eviction::new(metrics.counter(Metric::PrunedEarly, &[])),
            gives_back: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            ended: CancellationToken::new(),
            commit_seconds: metrics.histogram(Metric::Commit, &[]),
            stale_leases: metrics.counter(Metric::StaleLeases, &[]),
            clock,
        }
    }

    /// Returns the reason why messages are refused, or an empty text.
    pub(super) fn problem(&self) -> String {
        let gone = self.files.check().err().map(|gone| gone.to_string());
        gone.or_else(|| self.size.problem()).unwrap_or_default()
    }

    /// Reads the clock, and returns the times of day that may age anything.
    pub(super) fn steady_time(&self) -> SteadySpan {
        let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        steady.look(self.clock.moment(), self.clock.now())
    }

    /// Returns the time of day if it has been steady for some minutes.
    pub(super) fn believed_now(&self) -> Option<Timestamp> {
        let span = self.steady_time();
        span.from.is_none().then_some(span.until)
    }
}
