//! Handing work to the writer's thread, and waiting for the answer.

use std::sync::{
    Arc, MutexGuard, PoisonError,
    mpsc::{SyncSender, TrySendError},
};

use rusqlite::Connection;

use super::{
    SqliteStore,
    db::Db,
    job::{Job, Mode, Purpose, Write, answer},
    reader::read,
    shared::Shared,
    threads::Queues,
};
use crate::store::StoreError;

impl SqliteStore {
    pub(super) fn queues(&self) -> MutexGuard<'_, Option<Queues>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn submit(&self, job: impl Job + 'static) {
        submit(self.queues().as_ref().map(|queues| &queues.write), Box::new(job));
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db<'_>, Mode) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_for(Purpose::Action, work).await
    }

    pub(super) async fn write_for<T: Send + 'static>(
        &self,
        purpose: Purpose,
        work: impl FnMut(&mut Db<'_>, Mode) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, reply) = Write::new(work, |_durable| ());
        self.submit(job.with(purpose));
        answer(reply).await
    }

    /// Ends deliveries, or leads them to their readers, while no lease is granted.
    pub(super) async fn write_stopping_leases<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db<'_>, Mode) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, reply) = Write::new(work, |_durable| ());
        self.submit(job.stopping_leases().with(Purpose::Finish));
        answer(reply).await
    }

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

/// Puts a job in the queue, or tells it why not.
fn submit(queue: Option<&SyncSender<Box<dyn Job>>>, job: Box<dyn Job>) {
    let Some(queue) = queue else {
        return job.done(Err(StoreError::Closed));
    };
    match queue.try_send(job) {
        Ok(()) => {}
        Err(TrySendError::Full(job)) => job.done(Err(StoreError::Busy)),
        Err(TrySendError::Disconnected(job)) => job.done(Err(StoreError::Closed)),
    }
}
