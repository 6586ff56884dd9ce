//! Starts and ends the three threads of a store.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, config::DbConfig};

use super::{
    files::Locks,
    job::Job,
    reader::{self, Read},
    shared::Shared,
    writer::{self, Writer},
};

pub(super) struct Queues {
    pub(super) write: SyncSender<Box<dyn Job>>,
    /// Reads that deliveries wait for.
    pub(super) lease: SyncSender<Read>,
    /// Reads that people and metrics wait for.
    pub(super) view: SyncSender<Read>,
}

/// Starts the three threads. The thread of the writer ends last.
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
        // The readers end first, so that the connection of the writer is the last and can empty the
        // log. The locks go last: no other process opens the store before that.
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

/// Closes the last connection. After [`Upkeep::close`](crate::store::Upkeep::close) the log is
/// emptied first, except if other files have replaced the open ones, whose log must stay.
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
