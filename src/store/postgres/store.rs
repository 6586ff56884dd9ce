//! An open store: the pools, the tasks that write, and the tasks that watch.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicI64},
};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    accept, connect::Connector, database::Database, error::OpenError, import::Import, layout, open,
    poller, record, settings::Settings, shared::Shared, watch,
};
use crate::{
    clock::Clock,
    metrics::{Metric, Metrics},
    store::{StoreError, hints::Hints, transfer::error::TransferError, waiting::Waiting},
};

/// The most jobs that wait for a writer. Beyond that callers get [`StoreError::Busy`].
const QUEUE: usize = 4096;

/// An open store in PostgreSQL. Dropping it without [`Upkeep::close`](crate::store::Upkeep::close)
/// is like a crash.
pub struct PostgresStore {
    pub(super) shared: Arc<Shared>,
    /// `None` once the store is closing.
    queues: Mutex<Option<Queues>>,
    writers: tokio::sync::Mutex<JoinSet<()>>,
    /// Tasks that are aborted when the store closes.
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
    /// Connects, and migrates the tables. Waits up to 30 s for a server that is not up yet.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub async fn open(
        settings: Settings,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Self, OpenError> {
        let database = Database::new(&settings, clock.clone())?;
        open::wait_for(&database).await?;
        open::check_encoding(&database).await?;
        layout::migrate(&database).await?;
        let shared = Arc::new(Shared {
            database,
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
        // There is no size limit here, so nothing is pruned early; the metric exists at 0.
        metrics.counter(Metric::PrunedEarly, &[]).increment(0);
        // The first reading of the clock. Alerts from here on can expire; retention begins once a
        // later reading agrees with this one.
        shared.steady_time().await?;
        let (accept, accepted) = mpsc::channel(QUEUE);
        let (record, recorded) = mpsc::channel(QUEUE);
        let mut writers = JoinSet::new();
        let mut watchers = JoinSet::new();
        writers.spawn(accept::run(Arc::clone(&shared), accepted));
        writers.spawn(record::run(Arc::clone(&shared), recorded));
        watchers.spawn(watch::wake_regularly(Arc::clone(&shared)));
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

    /// Queues a job for the task that writes messages.
    pub(super) fn submit(&self, job: accept::Job) -> Result<(), StoreError> {
        let queues = self.queues().clone().ok_or(StoreError::Closed)?;
        send(&queues.accept, job)
    }

    /// Queues an outcome for the task that writes outcomes.
    pub(super) fn submit_outcome(&self, job: record::Job) -> Result<(), StoreError> {
        let queues = self.queues().clone().ok_or(StoreError::Closed)?;
        send(&queues.record, job)
    }

    /// Begins the import of another store.
    pub(in crate::store) async fn begin_import(&self) -> Result<Import<'_>, TransferError> {
        Import::begin(&self.shared.database).await
    }

    /// Writes what is queued, gives up the right to poll, and closes the connections.
    pub(super) async fn shut_down(&self) {
        self.queues().take();
        let mut writers = self.writers.lock().await;
        while writers.join_next().await.is_some() {}
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        if let Err(error) = poller::give_up(&self.shared, None).await {
            tracing::debug!(%error, "could not give up the right to poll; it ends by itself");
        }
        self.shared.database.close();
    }
}

fn send<T>(queue: &mpsc::Sender<T>, job: T) -> Result<(), StoreError> {
    queue.try_send(job).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => StoreError::Busy,
        mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
    })
}
