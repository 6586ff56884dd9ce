//! Handing work to the writer's thread, and waiting for the answer.

use std::sync::{MutexGuard, PoisonError};

use super::{
    SqliteStore,
    db::Db,
    purpose::Purpose,
    threads::Queues,
    writer::{self, Job, Mode, Write, answer},
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
}
