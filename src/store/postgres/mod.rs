//! The store in PostgreSQL: for several relays that share one database.
//!
//! Two tasks write what Slack and the destinations wait for (`accept`, `deliver`), each whatever
//! waits in one transaction; all else is short transactions on a pool. It holds no transaction
//! while anything else is at work, and nothing in memory that another process would have to know.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicI64},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
};

pub(in crate::store) use self::import::Import;
use self::{
    accept::{Batch, Results},
    connect::Connector,
    door::Door,
    shared::Shared,
};
pub use self::{connect::Url, open::OpenError, settings::Settings};
use crate::{
    clock::{Clock, Timestamp},
    ids::{AlertId, AppName, ChannelId, DestinationName, MessageTs},
    metrics::{Metric, Metrics},
    store::{
        Action, AlertQuery, AlertView, Beginning, Changes, CursorMove, Deed, FeedPage, Hasten,
        Lease, LookAlike, NewMessage, OperatorAction, Outcome, Pruned, Recorded, Retention, Routed,
        Selection, Stats, Store, StoreError, Taken, Unrecorded, stored::quarantined,
        waiting::Waiting,
    },
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
            hints: Mutex::default(),
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

#[async_trait]
impl Store for PostgresStore {
    async fn accept(
        &self,
        batch: Vec<NewMessage>,
        hold_until: Option<Timestamp>,
        cursor: Option<CursorMove>,
    ) -> Result<Results, StoreError> {
        let hold = hold_until.map_or(0, |until| self.shared.distance(until));
        let batch = Batch { messages: batch, hold, cursor };
        let weight = batch.weight();
        let held = self.shared.waiting.hold(batch, weight.1).ok_or(StoreError::Busy)?;
        let (reply, answered) = oneshot::channel();
        self.submit(accept::Job::Accept { batch: held.hand_over(), weight, reply })?;
        answer(answered).await
    }

    fn quarantine(&self, app: &AppName, body: &[u8]) {
        let (app, body) = (app.clone(), quarantined(body).to_vec());
        let held = self.shared.waiting.hold((), body.len()).ok_or(StoreError::Busy);
        let sent =
            held.and_then(|held| self.submit(accept::Job::Quarantine { app, body, _queued: held }));
        if let Err(error) = sent {
            tracing::debug!(%error, "an unreadable body is not kept");
        }
    }

    async fn lease_due(
        &self,
        destination: &DestinationName,
        n: usize,
    ) -> Result<Vec<Lease>, StoreError> {
        deliver::lease_due(&self.shared, destination, n).await
    }

    async fn lease_oldest(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Lease>, StoreError> {
        deliver::lease_oldest(&self.shared, destination).await
    }

    async fn record(&self, lease: Lease, outcome: Outcome) -> Result<Recorded, Unrecorded> {
        let (job, answered) = record::Job::new(&lease, outcome.clone());
        let queues = self.queues().clone().ok_or(StoreError::Closed);
        let recorded = match queues.and_then(|queues| send(&queues.record, job)) {
            Ok(()) => answer(answered).await,
            Err(error) => Err(error),
        };
        match recorded {
            Ok(Recorded::Kept) => {}
            Ok(Recorded::Anew) => self.shared.wake_all(Some(&lease.delivery().destination)).await,
            Ok(Recorded::Stale) => self.shared.stale_leases.increment(1),
            Err(source) => return Err(Unrecorded { lease, outcome, source }),
        }
        // Errors have gone back to the caller.
        Ok(recorded.unwrap_or(Recorded::Stale))
    }

    async fn release(&self, lease: Lease) {
        deliver::release(&self.shared, &lease).await;
    }

    async fn expire(
        &self,
        destination: &DestinationName,
        max_age: Duration,
        reason: &'static str,
    ) -> Result<Vec<AlertId>, StoreError> {
        operate::expire(&self.shared, destination, max_age, reason).await
    }

    async fn hasten(&self, destination: &DestinationName, whom: Hasten) -> Result<u64, StoreError> {
        hasten::hasten(&self.shared, destination, whom).await
    }

    async fn note_settings(
        &self,
        destination: &DestinationName,
        mark: u16,
    ) -> Result<u64, StoreError> {
        hasten::note_settings(&self.shared, destination, mark).await
    }

    async fn feed_page(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: usize,
    ) -> Result<FeedPage, StoreError> {
        feed::page(&self.shared, destination, after, limit).await
    }

    async fn feed_taken(
        &self,
        destination: &DestinationName,
        up_to: i64,
    ) -> Result<Vec<Taken>, StoreError> {
        feed::taken(&self.shared, destination, up_to).await
    }

    async fn give_up(
        &self,
        destination: &DestinationName,
        alerts: &[AlertId],
        reason: &'static str,
    ) -> Result<Vec<AlertId>, StoreError> {
        feed::give_up(&self.shared, destination, alerts, reason).await
    }

    async fn next_due(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Timestamp>, StoreError> {
        deliver::next_due(&self.shared, destination).await
    }

    fn due_hint(&self, destination: &DestinationName) -> Arc<Notify> {
        self.shared.hint(destination)
    }

    async fn act(
        &self,
        selection: Selection,
        action: Action,
        deed: Option<OperatorAction>,
    ) -> Result<Changes, StoreError> {
        operate::act(self, &selection, action, deed).await
    }

    async fn route(
        &self,
        alert: &AlertId,
        destinations: &[DestinationName],
        deed: Option<Deed>,
    ) -> Result<Routed, StoreError> {
        operate::route(&self.shared, alert, destinations, deed.as_ref()).await
    }

    async fn alert(&self, id: &AlertId) -> Result<Option<AlertView>, StoreError> {
        view::alert(&self.shared, id).await
    }

    async fn alerts(&self, query: AlertQuery) -> Result<Vec<AlertView>, StoreError> {
        view::alerts(&self.shared, &query).await
    }

    async fn cursor(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError> {
        catch_up::cursor(&self.shared, app, channel).await
    }

    async fn channel_ids(&self, app: &AppName) -> Result<Vec<(String, ChannelId)>, StoreError> {
        catch_up::channel_ids(&self.shared, app).await
    }

    async fn newest_seen(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError> {
        catch_up::newest_seen(&self.shared, app, channel).await
    }

    async fn read_channels(&self, app: &AppName) -> Result<Vec<ChannelId>, StoreError> {
        catch_up::read_channels(&self.shared, app).await
    }

    async fn beginnings(&self, app: &AppName) -> Result<Vec<(String, Beginning)>, StoreError> {
        catch_up::beginnings(&self.shared, app).await
    }

    async fn set_beginning(
        &self,
        app: &AppName,
        written: &str,
        beginning: Beginning,
    ) -> Result<(), StoreError> {
        catch_up::set_beginning(&self.shared, app, written, beginning).await
    }

    async fn put_cursor_back(&self, cursor: &CursorMove) -> Result<(), StoreError> {
        catch_up::put_cursor_back(&self.shared, cursor).await
    }

    async fn set_channel_id(
        &self,
        app: &AppName,
        written: &str,
        id: &ChannelId,
    ) -> Result<(), StoreError> {
        catch_up::set_channel_id(&self.shared, app, written, id).await
    }

    async fn chains(&self, app: &AppName) -> Result<Vec<Vec<ChannelId>>, StoreError> {
        catch_up::chains(&self.shared, app).await
    }

    async fn replace_channel_id(
        &self,
        app: &AppName,
        old: &ChannelId,
        new: &ChannelId,
    ) -> Result<(), StoreError> {
        catch_up::replace_channel_id(&self.shared, app, old, new).await
    }

    async fn look_alikes(
        &self,
        app: &AppName,
        own: &[ChannelId],
        timestamps: &[MessageTs],
    ) -> Result<Vec<LookAlike>, StoreError> {
        catch_up::look_alikes(&self.shared, app, own, timestamps).await
    }

    async fn take_unpushed(
        &self,
        app: &AppName,
        posted_before: MessageTs,
    ) -> Result<Vec<(ChannelId, MessageTs)>, StoreError> {
        catch_up::take_unpushed(&self.shared, app, posted_before).await
    }

    /// Held until another process takes it over, which it may 10 s after this one went silent.
    async fn poller_term(&self, app: &AppName) -> Result<Option<u64>, StoreError> {
        poller::term(&self.shared, app).await
    }

    async fn stop_polling(&self, app: &AppName) -> Result<bool, StoreError> {
        poller::give_up(&self.shared, Some(app)).await.map(|()| true)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        view::stats(&self.shared).await
    }

    async fn prune(&self, retention: Retention) -> Result<Pruned, StoreError> {
        retain::prune(&self.shared, retention).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let (reply, answered) = oneshot::channel();
        self.submit(accept::Job::Probe(reply))?;
        answer(answered).await
    }

    /// Another process polls at once; leases that were not given back end by themselves.
    async fn close(&self) {
        self.queues().take();
        let mut writers = self.writers.lock().await;
        while writers.join_next().await.is_some() {}
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        if let Err(error) = poller::give_up(&self.shared, None).await {
            tracing::debug!(%error, "the right to poll is not given up; it ends by itself");
        }
        self.shared.door.close();
    }
}
