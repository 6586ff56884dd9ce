//! A reader: a thread with a connection of its own. There are two, so that a search through a
//! million alerts never delays a delivery.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError},
    },
};

use rusqlite::{Connection, Row, types::Type};
use tokio::sync::oneshot;

use super::{
    Shared, SqliteStore,
    db::StoredTs,
    writer::{engine, panicked},
};
use crate::{
    ids::{AlertId, AppName, ChannelId, DestinationName, IdError, MessageKey},
    store::StoreError,
};

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

impl SqliteStore {
    /// Reads for whoever leases.
    pub(super) async fn lease_reader<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let queue = self.queues().as_ref().map(|queues| queues.lease.clone());
        let shared = Arc::clone(&self.shared);
        read(queue, move |connection| work(&shared, connection)).await
    }

    /// Reads for whoever looks.
    pub(super) async fn view_reader<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let queue = self.queues().as_ref().map(|queues| queues.view.clone());
        let shared = Arc::clone(&self.shared);
        read(queue, move |connection| work(&shared, connection)).await
    }
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

/// The alert's identity, from the columns `app`, `channel`, `ts` and `ordinal` at the row's start.
pub(super) fn alert_id(row: &Row<'_>) -> rusqlite::Result<AlertId> {
    let message = MessageKey {
        app: AppName::new(row.get_ref(0)?.as_str()?).map_err(not_a_name)?,
        channel: ChannelId::new(row.get_ref(1)?.as_str()?),
        ts: row.get::<_, StoredTs>(2)?.0,
    };
    Ok(AlertId { message, ordinal: row.get(3)? })
}

/// A stored destination's name.
pub(super) fn destination_name(row: &Row<'_>, column: usize) -> rusqlite::Result<DestinationName> {
    DestinationName::new(row.get_ref(column)?.as_str()?).map_err(not_a_name)
}

fn not_a_name(error: IdError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, error.into())
}
