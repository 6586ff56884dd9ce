//! The store in PostgreSQL: for several relays that share one database.
//!
//! Two tasks write what Slack and the destinations wait for (`accept`, `deliver`), each whatever
//! waits in one transaction; all else is short transactions on a pool. It holds no transaction
//! while anything else is at work, and nothing in memory that another process would have to know.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicI64},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

pub(in crate::store) use self::import::Import;
use self::{connect::Connector, door::Door, shared::Shared};
pub use self::{connect::Url, open::OpenError, settings::Settings};
use crate::{
    clock::Clock,
    metrics::{Metric, Metrics},
    store::{StoreError, hints::Hints, waiting::Waiting},
};

mod accept;
mod batch;
mod catch_up;
pub mod checkup;
mod connect;
mod deliver;
mod door;
mod feed;
mod hasten;
mod import;
mod inbox;
mod journal;
mod layout;
mod open;
mod operate;
mod pause;
mod poller;
mod poster;
mod record;
mod retain;
mod review;
mod row;
mod settings;
mod shared;
#[cfg(test)]
#[cfg(feature = "postgres-tests")]
mod tests;
mod view;
mod watch;

/// How many jobs may wait for a writer. The sender is told to come back rather than to wait longer.
const QUEUE: usize = 4096;

/// A store in PostgreSQL, open. Dropped without [`Store::close`] it ends as a crash would.
pub struct PostgresStore {
    shared: Arc<Shared>,
    queues: Mutex<Option<Queues>>,
    writers: tokio::sync::Mutex<JoinSet<()>>,
    /// Ended with the store.
    watchers: Mutex<JoinSet<()>>,
}

#[derive(Clone)]
struct Queues {
    accept: mpsc::Sender<accept::Job>,
    record: mpsc::Sender<record::Job>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresStore")
    }
}

impl PostgresStore {
    /// Connects, and brings the tables up to date. Waits up to 30 s for a server that is not there
    /// yet.
    ///
    /// # Errors
    /// [`OpenError`]: what is wrong, and what to do about it.
    pub async fn open(
        settings: Settings,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Self, OpenError> {
        let door = Door::new(&settings, clock.clone())?;
        open::wait_for(&door).await?;
        open::check_encoding(&door).await?;
        layout::prepare(&door).await?;
        let shared = Arc::new(Shared {
            door,
            lease: settings.lease,
            hints: Hints::default(),
            notifies: settings.listen_url.is_some(),
            holder: clock.token().cast_signed(),
            polled: Mutex::default(),
            waiting: Waiting::default(),
            walked: AtomicI64::new(0),
            commit_seconds: metrics.histogram(Metric::Commit, &[]),
            stale_leases: metrics.counter(Metric::StaleLeases, &[]),
            steady: Mutex::default(),
            clock,
        });
        // There is no size to keep within, so nothing goes before its time.
        metrics.counter(Metric::PrunedEarly, &[]).increment(0);
        // The first look: what comes from here on can grow old at once, and the next one that
        // agrees with it lets retention begin.
        shared.steady_time().await?;
        let (accept, accepted) = mpsc::channel(QUEUE);
        let (record, recorded) = mpsc::channel(QUEUE);
        let (mut writers, mut watchers) = (JoinSet::new(), JoinSet::new());
        writers.spawn(accept::run(Arc::clone(&shared), accepted));
        writers.spawn(record::run(Arc::clone(&shared), recorded));
        watchers.spawn(watch::look(Arc::clone(&shared)));
        if let Some(url) = settings.listen_url.clone() {
            let connector = Connector { url, ..settings.connector() };
            watchers.spawn(watch::listen(Arc::clone(&shared), connector));
        }
        Ok(Self {
            shared,
            queues: Mutex::new(Some(Queues { accept, record })),
            writers: tokio::sync::Mutex::new(writers),
            watchers: Mutex::new(watchers),
        })
    }

    fn queues(&self) -> MutexGuard<'_, Option<Queues>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job in the queue of the messages.
    fn submit(&self, job: accept::Job) -> Result<(), StoreError> {
        let queues = self.queues().clone().ok_or(StoreError::Closed)?;
        send(&queues.accept, job)
    }
}

/// Puts a job in a queue, or says why not.
fn send<T>(queue: &mpsc::Sender<T>, job: T) -> Result<(), StoreError> {
    queue.try_send(job).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => StoreError::Busy,
        mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
    })
}

async fn answer<T>(reply: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    reply.await.unwrap_or(Err(StoreError::Closed))
}
