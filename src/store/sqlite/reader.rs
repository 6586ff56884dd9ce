//! A reader: a thread with a connection of its own. There are two, so that a search through a
//! million alerts never delays a delivery.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, SyncSender, TrySendError},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{engine, panicked};
use crate::store::StoreError;

/// How many reads may wait for one reader.
pub(super) const QUEUE: usize = 1024;

/// Something to be read.
pub(super) type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Reads until every sender is gone.
pub(super) fn run(connection: &Connection, queue: &Receiver<Read>) {
    while let Ok(read) = queue.recv() {
        read(connection);
    }
}

/// Puts a read in a reader's queue and waits for what it finds. All of it is of one moment: that
/// of its first look into the file.
pub(super) async fn read<T: Send + 'static>(
    queue: Option<SyncSender<Read>>,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    let read: Read = Box::new(move |connection| {
        // Whoever no longer waits does not want to know.
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
