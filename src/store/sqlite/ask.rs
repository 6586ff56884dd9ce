//! Handing work to the writer's thread and to the readers', and waiting for the answer.

use std::sync::{Arc, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::{
    SqliteStore,
    db::Db,
    reader,
    threads::{Queues, Shared},
    writer::{self, Job, Mode, Write},
};
use crate::store::StoreError;

impl SqliteStore {
    pub(super) fn queues(&self) -> MutexGuard<'_, Option<Queues>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn submit(&self, job: impl Job + 'static) {
        writer::submit(self.queues().as_ref().map(|queues| &queues.write), Box::new(job));
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db<'_>, Mode) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, reply) = Write::new(work, |_durable| ());
        self.submit(job);
        answer(reply).await
    }

    /// As [`SqliteStore::write`], while no lease is granted.
    pub(super) async fn write_stopping_leases<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db<'_>, Mode) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, reply) = Write::new(work, |_durable| ());
        self.submit(job.stopping_leases());
        answer(reply).await
    }

    pub(super) async fn lease_reader<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let queue = self.queues().as_ref().map(|queues| queues.lease.clone());
        let shared = Arc::clone(&self.shared);
        reader::read(queue, move |connection| work(&shared, connection)).await
    }

    pub(super) async fn view_reader<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let queue = self.queues().as_ref().map(|queues| queues.view.clone());
        let shared = Arc::clone(&self.shared);
        reader::read(queue, move |connection| work(&shared, connection)).await
    }
}

/// Waits for what the writer answers.
pub(super) async fn answer<T>(reply: writer::Reply<T>) -> Result<T, StoreError> {
    reply.await.unwrap_or(Err(StoreError::Closed))
}
