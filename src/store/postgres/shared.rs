//! State and helpers that the files of the store share.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicI64},
    time::Duration,
};

use metrics::{Counter, Histogram};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::Type;

use super::{
    database::{Database, Param, Priority},
    row::get,
};
use crate::{
    clock::{Clock, SteadySpan, SteadyTime, Timestamp},
    ids::{AppName, DestinationName},
    store::{StoreError, hints::Hints, waiting::Waiting},
};

/// Number of attempts at a transaction that deadlocks or cannot be serialised.
pub(super) const TRIES: usize = 3;

/// State that callers and tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) clock: Clock,
    pub(super) lease: Duration,
    pub(super) hints: Hints,
    /// Other relays are notified when a delivery becomes due.
    pub(super) notifies: bool,
    /// Random number of this process, which tells the holders of the right to poll apart.
    pub(super) holder: i64,
    /// Apps for which this process asked for the right to poll.
    pub(super) polled: Mutex<Vec<AppName>>,
    /// Bytes that wait for the task that writes messages.
    pub(super) waiting: Waiting,
    /// Number of the last message that retention has looked at.
    pub(super) walked: AtomicI64,
    /// Readings of the database's clock, which decide whether retention may rely on it.
    pub(super) steady: Mutex<SteadyTime>,
    pub(super) commit_seconds: Histogram,
    pub(super) stale_leases: Counter,
}

impl Shared {
    /// Returns the time to pass to `relay.now_us`: `None` for the database's own clock, or the time
    /// of a clock that a test has set.
    pub(super) fn now(&self) -> Option<i64> {
        self.clock.set_by_hand().map(Timestamp::micros)
    }

    /// Reads the database's clock. Returns the times of day by which deliveries may expire.
    pub(super) async fn steady_time(&self) -> Result<SteadySpan, StoreError> {
        let now = self.now();
        let params: [Param<'_>; _] = [(&now, Type::INT8)];
        let rows =
            self.database.run(Priority::Background, "SELECT relay.now_us($1)", &params).await?;
        let shown = rows.first().ok_or(StoreError::Busy)?;
        let shown = Timestamp::from_micros(get(shown, 0)?);
        let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(steady.look(self.clock.moment(), shown))
    }

    /// Returns an upper limit for the time by which the ends of leases are judged, so that a jump
    /// of the database's clock does not end a lease that is held. New leases begin by the clock
    /// itself, since a relay that starts after the jump knows no other time.
    pub(super) fn lease_time(&self) -> i64 {
        let steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        steady.until(self.clock.moment()).map_or(i64::MAX, Timestamp::micros)
    }

    /// Returns the distance of a time from now, in microseconds. The database adds it to its own
    /// time, so a wrong clock of this machine does no harm.
    pub(super) fn distance(&self, at: Timestamp) -> i64 {
        at.micros().saturating_sub(self.clock.now().micros())
    }

    /// Returns the duration of a lease in microseconds.
    pub(super) fn lease_us(&self) -> i64 {
        i64::try_from(self.lease.as_micros()).unwrap_or(i64::MAX)
    }

    /// Wakes the workers of one destination, or of all, here and in every process that listens.
    pub(super) async fn wake_all(&self, destination: Option<&DestinationName>) {
        self.hints.wake(destination);
        if !self.notifies {
            return;
        }
        let name = destination.map_or("", DestinationName::as_str);
        let params: [Param<'_>; _] = [(&name, Type::TEXT)];
        let notified =
            self.database.run(Priority::Urgent, "SELECT pg_notify('relay_due', $1)", &params);
        if let Err(error) = notified.await {
            tracing::debug!(%error, "other relays are not notified; they look every second");
        }
    }

    /// Returns the number of a destination, which gets one if it is new.
    pub(super) async fn destination(&self, name: &DestinationName) -> Result<i32, StoreError> {
        let name = name.as_str();
        let find = "SELECT id FROM relay.destinations WHERE name = $1";
        let insert = "INSERT INTO relay.destinations (name) VALUES ($1) ON CONFLICT DO NOTHING";
        for sql in [find, insert, find] {
            let rows = self.database.run(Priority::Urgent, sql, &[(&name, Type::TEXT)]).await?;
            if let Some(row) = rows.first() {
                return get(row, 0);
            }
        }
        Err(StoreError::Busy)
    }
}

/// Number of items and bytes that a job writes.
#[derive(Clone, Copy)]
pub(super) struct Weight {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

/// Waits for a job, and returns it with the jobs that wait behind it, up to a limit. Returns `None`
/// when every sender is gone.
pub(super) async fn gather<J>(
    queue: &mut mpsc::Receiver<J>,
    limit: Weight,
    weight: impl Fn(&J) -> Weight,
) -> Option<Vec<J>> {
    let first = queue.recv().await?;
    let mut total = weight(&first);
    let mut jobs = vec![first];
    loop {
        // Tasks that are ready to run may be about to send a job, so they run first: half as many
        // commits carry the same load, and a single job does not wait.
        tokio::task::yield_now().await;
        let before = jobs.len();
        while total.items < limit.items && total.bytes < limit.bytes {
            let Ok(job) = queue.try_recv() else { break };
            let Weight { items, bytes } = weight(&job);
            total.items += items;
            total.bytes += bytes;
            jobs.push(job);
        }
        if jobs.len() == before {
            return Some(jobs);
        }
    }
}

/// Waits for the result of a job. The store is closed if the writer dropped the job.
pub(super) async fn reply_of<T>(
    reply: oneshot::Receiver<Result<T, StoreError>>,
) -> Result<T, StoreError> {
    reply.await.unwrap_or(Err(StoreError::Closed))
}

/// Returns a copy of the error of a transaction for one of its callers.
pub(super) fn copy(error: &Arc<StoreError>) -> StoreError {
    match error.as_ref() {
        StoreError::Busy => StoreError::Busy,
        StoreError::Full => StoreError::Full,
        StoreError::Gone(problem) => StoreError::Gone(Arc::clone(problem)),
        StoreError::Closed => StoreError::Closed,
        StoreError::Item(_) | StoreError::Engine(_) => {
            StoreError::Engine(Box::new(Arc::clone(error)))
        }
    }
}
