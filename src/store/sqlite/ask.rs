//! Sends work to the store's threads and waits for the results.

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

    /// Runs a job that ends deliveries or numbers them. No lease is granted meanwhile.
    pub(super) async fn write_stopping_leases<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db<'_>, Mode) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, reply) = Write::new(work, |_durable| ());
        self.submit(job.stopping_leases().with(Purpose::Finish));
        answer(reply).await
    }

    /// Runs a read on the thread for deliveries.
    pub(super) async fn lease_reader<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let queue = self.queues().as_ref().map(|queues| queues.lease.clone());
        let shared = Arc::clone(&self.shared);
        read(queue, move |connection| work(&shared, connection)).await
    }

    /// Runs a read on the thread for people and metrics.
    pub(super) async fn view_reader<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let queue = self.queues().as_ref().map(|queues| queues.view.clone());
        let shared = Arc::clone(&self.shared);
        read(queue, move |connection| work(&shared, connection)).await
    }
}

/// Queues a job, or tells its caller why not.
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
