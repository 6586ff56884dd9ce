//! A reader: a thread with a connection of its own. There are two readers, so that a search through
//! a million alerts never delays a delivery.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, SyncSender, TrySendError},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{engine, panicked};
use crate::store::StoreError;

/// Number of reads that may wait for one reader.
pub(super) const QUEUE: usize = 1024;

/// A read to run on the reader's connection.
pub(super) type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Runs reads until every sender is gone.
pub(super) fn run(connection: &Connection, queue: &Receiver<Read>) {
    while let Ok(read) = queue.recv() {
        read(connection);
    }
}

/// Queues a read and returns its result. All statements of a read see the same snapshot, taken at
/// the first one.
pub(super) async fn read<T: Send + 'static>(
    queue: Option<SyncSender<Read>>,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    let read: Read = Box::new(move |connection| {
        // The caller may have given up.
        drop(reply.send(snapshot(connection, work)));
    });
    match queue.ok_or(StoreError::Closed)?.try_send(read) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => return Err(StoreError::Busy),
        Err(TrySendError::Disconnected(_)) => return Err(StoreError::Closed),
    }
    answer.await.map_err(|_gone| StoreError::Closed)?.map_err(engine)
}

fn snapshot<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.prepare_cached("BEGIN")?.execute(())?;
    let result = catch_unwind(AssertUnwindSafe(|| work(connection)))
        .unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
    if !connection.is_autocommit() {
        connection.prepare_cached("COMMIT")?.execute(())?;
    }
    result
}
