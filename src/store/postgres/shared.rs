//! What the store's callers and tasks have in common.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicI64},
    time::Duration,
};

use metrics::{Counter, Histogram};
use tokio::sync::mpsc;
use tokio_postgres::types::Type;

use super::{
    door::{Door, Haste, Param},
    row::get,
};
use crate::{
    clock::{Clock, SteadySpan, SteadyTime, Timestamp},
    ids::{AppName, DestinationName},
    store::{StoreError, hints::Hints, waiting::Waiting},
};

/// How often a transaction that others stood in the way of is tried.
pub(super) const TRIES: usize = 3;

/// What callers and tasks have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) door: Door,
    pub(super) clock: Clock,
    pub(super) lease: Duration,
    pub(super) hints: Hints,
    /// Whether others are told when something becomes due.
    pub(super) notifies: bool,
    /// This process, among all that share the database.
    pub(super) holder: i64,
    /// The apps for which this process was asked to poll.
    pub(super) polled: Mutex<Vec<AppName>>,
    /// What waits for the writer of the messages.
    pub(super) waiting: Waiting,
    /// The message up to which retention has walked.
    pub(super) walked: AtomicI64,
    /// The database's time of day, as far as retention may believe it.
    pub(super) steady: Mutex<SteadyTime>,
    pub(super) commit_seconds: Histogram,
    pub(super) stale_leases: Counter,
}

impl Shared {
    /// The time for a statement: `None`, for the database's own clock, unless it is set by hand.
    pub(super) fn now(&self) -> Option<i64> {
        self.clock.set_by_hand().map(Timestamp::micros)
    }

    /// Looks at the database's clock, and returns which times of day may age anything.
    pub(super) async fn steady_time(&self) -> Result<SteadySpan, StoreError> {
        let now = self.now();
        let params: [Param<'_>; _] = [(&now, Type::INT8)];
        let rows = self.door.run(Haste::Patient, "SELECT relay.now_us($1)", &params).await?;
        let shown = rows.first().ok_or(StoreError::Busy)?;
        let shown = Timestamp::from_micros(get(shown, 0)?);
        let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(steady.look(self.clock.moment(), shown))
    }

    /// Returns the latest time at which leases are judged: the database's clock counts up to there,
    /// so one that jumps ahead ends no lease that is still held. A lease begins by the clock
    /// itself, since a relay that starts after the jump believes nothing else.
    pub(super) fn lease_time(&self) -> i64 {
        let steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        steady.until(self.clock.moment()).map_or(i64::MAX, Timestamp::micros)
    }

    /// How far away a moment is. The database adds it to its own time, so that a clock that goes
    /// wrong here does not matter.
    pub(super) fn distance(&self, at: Timestamp) -> i64 {
        at.micros().saturating_sub(self.clock.now().micros())
    }

    /// The lease's length in microseconds.
    pub(super) fn lease_us(&self) -> i64 {
        i64::try_from(self.lease.as_micros()).unwrap_or(i64::MAX)
    }

    /// Wakes who waits for that destination, or for any, in every process that listens.
    pub(super) async fn wake_all(&self, destination: Option<&DestinationName>) {
        self.hints.wake(destination);
        if !self.notifies {
            return;
        }
        let name = destination.map_or("", DestinationName::as_str);
        let params: [Param<'_>; _] = [(&name, Type::TEXT)];
        let told = self.door.run(Haste::Hot, "SELECT pg_notify('relay_due', $1)", &params);
        if let Err(error) = told.await {
            tracing::debug!(%error, "other relays are not told; they look by themselves");
        }
    }

    /// The destination's number; it gets one if it has none.
    pub(super) async fn destination(&self, name: &DestinationName) -> Result<i32, StoreError> {
        let name = name.as_str();
        let find = "SELECT id FROM relay.destinations WHERE name = $1";
        let insert = "INSERT INTO relay.destinations (name) VALUES ($1) ON CONFLICT DO NOTHING";
        for sql in [find, insert, find] {
            let rows = self.door.run(Haste::Hot, sql, &[(&name, Type::TEXT)]).await?;
            if let Some(row) = rows.first() {
                return get(row, 0);
            }
        }
        Err(StoreError::Busy)
    }
}

/// Waits for a job and takes what waits behind it, up to a number and a size. `None` when every
/// sender is gone.
///
/// What is about to be put in the queue is taken too: everything else that can run does so first,
/// for as long as that brings more. Half as many commits carry the same load; a lone job waits for
/// nobody.
pub(super) async fn gather<J>(
    queue: &mut mpsc::Receiver<J>,
    limit: (usize, usize),
    weight: impl Fn(&J) -> (usize, usize),
) -> Option<Vec<J>> {
    let first = queue.recv().await?;
    let (mut number, mut bytes) = weight(&first);
    let mut jobs = vec![first];
    loop {
        tokio::task::yield_now().await;
        let before = jobs.len();
        while number < limit.0 && bytes < limit.1 {
            let Ok(job) = queue.try_recv() else { break };
            let (more, larger) = weight(&job);
            (number, bytes) = (number + more, bytes + larger);
            jobs.push(job);
        }
        if jobs.len() == before {
            return Some(jobs);
        }
    }
}

/// The same error, for each of those that waited for one transaction.
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
