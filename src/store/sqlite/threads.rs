//! The store's three threads, and what they have in common with its callers.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use metrics::{Counter, Histogram};
use rusqlite::{Connection, config::DbConfig};
use tokio_util::sync::CancellationToken;

use super::{
    Settings,
    disk::Disk,
    files::{Files, Locks},
    leases::Leases,
    reader::{self, Read},
    relieve::Relief,
    size::Size,
    writer::{self, Job, Writer},
};
use crate::{
    clock::{Clock, SteadySpan, SteadyTime, Timestamp},
    metrics::{Metric, Metrics},
    store::{hints::Hints, waiting::Waiting},
};

/// What callers and threads have in common.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) lease: Duration,
    pub(super) leases: Leases,
    pub(super) hints: Hints,
    pub(super) size: Size,
    pub(super) files: Files,
    pub(super) waiting: Waiting,
    /// The message up to which retention has walked.
    pub(super) walked: AtomicI64,
    /// The time of day, as far as retention may believe it.
    pub(super) steady: Mutex<SteadyTime>,
    /// What makes room before its time.
    pub(super) relief: Relief,
    /// Whether the space that was freed in the file goes back to the disk after the next commit.
    pub(super) gives_back: AtomicBool,
    pub(super) is_closing: AtomicBool,
    pub(super) ended: CancellationToken,
    pub(super) commit_seconds: Histogram,
    pub(super) stale_leases: Counter,
}

pub(super) struct Queues {
    pub(super) write: SyncSender<Box<dyn Job>>,
    /// What deliveries wait for.
    pub(super) lease: SyncSender<Read>,
    /// What people and metrics wait for.
    pub(super) view: SyncSender<Read>,
}

impl Shared {
    pub(super) fn new(settings: &Settings, files: Files, clock: Clock, metrics: &Metrics) -> Self {
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
            relief: Relief::new(metrics.counter(Metric::PrunedEarly, &[])),
            gives_back: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            ended: CancellationToken::new(),
            commit_seconds: metrics.histogram(Metric::Commit, &[]),
            stale_leases: metrics.counter(Metric::StaleLeases, &[]),
            clock,
        }
    }

    /// Why no alert is taken, or empty.
    pub(super) fn problem(&self) -> String {
        let gone = self.files.check().err().map(|gone| gone.to_string());
        gone.or_else(|| self.size.problem()).unwrap_or_default()
    }

    /// Looks at the clock, and returns which times of day may age anything.
    pub(super) fn steady_time(&self) -> SteadySpan {
        let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        steady.look(self.clock.moment(), self.clock.now())
    }

    /// The time of day if it has kept step for some minutes, or nothing.
    pub(super) fn believed_now(&self) -> Option<Timestamp> {
        let span = self.steady_time();
        span.from.is_none().then_some(span.until)
    }
}

/// Starts the three threads. The writer's ends last, and takes connections and locks with it.
pub(super) fn start(
    writer: Writer,
    readers: [Connection; 2],
    locks: Locks,
) -> std::io::Result<(Queues, JoinHandle<()>)> {
    let reader = |name: &str, connection: Connection| {
        let (sender, queue) = sync_channel::<Read>(reader::QUEUE);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || reader::run(&connection, &queue))?;
        std::io::Result::Ok((sender, thread))
    };
    let [for_leases, for_views] = readers;
    let (lease, lease_thread) = reader("store-lease", for_leases)?;
    let (view, view_thread) = reader("store-view", for_views)?;
    let (write, queue) = sync_channel::<Box<dyn Job>>(writer::QUEUE);
    let write_thread = thread::Builder::new().name("store-write".to_owned()).spawn(move || {
        let shared = Arc::clone(&writer.shared);
        let connection = writer.run(&queue);
        for reader in [lease_thread, view_thread] {
            if reader.join().is_err() {
                tracing::error!("a reader of the store panicked");
            }
        }
        end(&shared, connection);
        drop(locks);
        shared.ended.cancel();
    })?;
    Ok((Queues { write, lease, view }, write_thread))
}

/// Closes the last connection; after [`Store::close`] the log is emptied first. If other files have
/// come in the place of those that are open, SQLite must not remove their log.
fn end(shared: &Shared, connection: Connection) {
    let is_tidy = shared.is_closing.load(Ordering::Acquire) && shared.files.check().is_ok();
    let tidy = || {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_busy| Ok(()))
    };
    let tidied = if is_tidy { tidy() } else { Ok(()) };
    let closed = connection.close().map_err(|(_connection, error)| error);
    if let Err(error) = tidied.and(closed) {
        tracing::warn!(%error, "the store was not closed tidily; the next start does the rest");
    }
}
