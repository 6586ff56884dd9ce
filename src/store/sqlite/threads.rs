//! The store's three threads, and what they have in common with its callers.

use std::{
    collections::HashMap,
    fs::File,
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
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    leases::Leases,
    reader::{self, Read},
    size::Size,
    writer::{self, Job, Writer},
};
use crate::{
    clock::Clock,
    ids::DestinationName,
    store::{NewMessage, waiting::Waiting},
};

/// What callers and threads have in common.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) lease: Duration,
    pub(super) leases: Leases,
    pub(super) hints: Mutex<HashMap<DestinationName, Arc<Notify>>>,
    pub(super) size: Size,
    pub(super) waiting: Waiting,
    /// The message up to which retention has walked.
    pub(super) walked: AtomicI64,
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
    pub(super) fn hint(&self, destination: &DestinationName) -> Arc<Notify> {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hints.entry(destination.clone()).or_default())
    }

    /// The hints of all destinations of a batch.
    pub(super) fn hints_of(&self, batch: &[NewMessage]) -> Vec<Arc<Notify>> {
        let mut hints: Vec<Arc<Notify>> = Vec::new();
        let alerts = batch.iter().flat_map(|message| &message.alerts);
        for destination in alerts.flat_map(|alert| &alert.destinations) {
            let hint = self.hint(destination);
            if !hints.iter().any(|known| Arc::ptr_eq(known, &hint)) {
                hints.push(hint);
            }
        }
        hints
    }

    /// Wakes who waits for that destination, or for any.
    pub(super) fn wake(&self, destination: Option<&DestinationName>) {
        if let Some(destination) = destination {
            return self.hint(destination).notify_one();
        }
        let hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        hints.values().for_each(|hint| hint.notify_one());
    }
}

/// Starts the three threads. The writer's ends last, and takes connections and lock with it.
pub(super) fn start(
    writer: Writer,
    readers: [Connection; 2],
    lock: File,
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
        drop(lock);
        shared.ended.cancel();
    })?;
    Ok((Queues { write, lease, view }, write_thread))
}

/// Closes the last connection; after [`Store::close`] the log is emptied first.
fn end(shared: &Shared, connection: Connection) {
    let tidy = || {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_busy| Ok(()))
    };
    let tidied = if shared.is_closing.load(Ordering::Acquire) { tidy() } else { Ok(()) };
    let closed = connection.close().map_err(|(_connection, error)| error);
    if let Err(error) = tidied.and(closed) {
        tracing::warn!(%error, "the store was not closed tidily; the next start does the rest");
    }
}
