//! The store in one SQLite file: for one relay on one machine, without a server beside it.
//!
//! One thread writes (`writer`), two read (`reader`); the rest says what they write and read.
//! `cli` opens it. It never holds a transaction while anything else than SQLite is at work.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{runtime::Handle, sync::Notify};

use self::{
    accept::{Batch, Results},
    db::{Db, Memory},
    open::Opened,
    purpose::Purpose,
    threads::{Queues, Shared, start},
    writer::{Mode, Write, Writer, answer},
};
use crate::{
    clock::{Clock, Timestamp},
    ids::{AlertId, AppName, ChannelId, DestinationName, MessageTs},
    metrics::Metrics,
    store::{
        Action, AlertQuery, AlertView, Beginning, Changes, CursorMove, Deed, FeedPage, Hasten,
        Lease, LookAlike, NewMessage, OperatorAction, Outcome, Pruned, Recorded, Retention, Routed,
        Selection, Stats, Store, StoreError, Taken, Unrecorded, stored::quarantined,
    },
};

mod accept;
mod ask;
mod backup;
mod catch_up;
pub mod checkup;
mod db;
mod deliver;
mod disk;
mod export;
mod feed;
mod files;
mod hasten;
mod journal;
mod leases;
mod list;
mod open;
mod operate;
mod pause;
mod poster;
mod purpose;
mod reader;
mod relieve;
mod retain;
mod review;
mod size;
#[cfg(test)]
mod tests;
mod threads;
mod view;
mod writer;

pub use self::{
    backup::{BackupError, Copied, backup, backup_to},
    export::Export,
    open::OpenError,
};

/// Where the store is, and its limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file. SQLite keeps others beside it, and the relay a `.lock`.
    pub path: PathBuf,
    /// How large it may become, write-ahead log included.
    pub max_size_bytes: u64,
    /// How long a lease lasts.
    pub lease: Duration,
}

/// A store in a SQLite file, open. Dropped without [`Store::close`] it leaves the file as a crash
/// would: nothing that was acknowledged is lost.
pub struct SqliteStore {
    shared: Arc<Shared>,
    queues: Mutex<Option<Queues>>,
    writer: Option<JoinHandle<()>>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SqliteStore")
    }
}

impl SqliteStore {
    /// Opens the store, or creates it where there is no file.
    ///
    /// # Errors
    /// [`OpenError`]: what is wrong with the file or its place, and what to do about it.
    pub fn open(settings: &Settings, clock: Clock, metrics: &Metrics) -> Result<Self, OpenError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Failed {
            path: settings.path.clone(),
            source,
        };
        let Opened { writer: connection, readers, files, locks } =
            open::open(&settings.path, settings.max_size_bytes)?;
        let memory = Memory::new(&connection).map_err(|error| failed(error.into()))?;
        let shared = Arc::new(Shared::new(settings, files, clock, metrics));
        // The first of the two looks at the clock that must agree before anything grows old.
        shared.steady_time();
        shared.size.keep_up(&connection, shared.clock.instant());
        let runtime = Handle::try_current().ok();
        let writer = Writer { connection, memory, shared: Arc::clone(&shared), runtime };
        let (queues, writer) =
            start(writer, readers, locks).map_err(|error| failed(error.into()))?;
        Ok(Self { shared, queues: Mutex::new(Some(queues)), writer: Some(writer) })
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.queues().take();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn accept(
        &self,
        batch: Vec<NewMessage>,
        hold_until: Option<Timestamp>,
        cursor: Option<CursorMove>,
    ) -> Result<Results, StoreError> {
        accept::accept(self, Batch { messages: batch, hold_until, cursor }).await
    }

    fn quarantine(&self, app: &AppName, body: &[u8]) {
        let (app, body) = (app.clone(), quarantined(body).to_vec());
        let bytes = body.len();
        let Some(held) = self.shared.waiting.hold((), bytes) else {
            return tracing::debug!("an unreadable body is not kept: too much is waiting");
        };
        let work = move |db: &mut Db<'_>, _: Mode| {
            let _until_written = &held;
            accept::quarantine(db, &app, &body)
        };
        let (job, _reply) = Write::new(work, |_durable| ());
        self.submit(job.of_bytes(bytes).with(Purpose::Intake));
    }

    async fn lease_due(
        &self,
        destination: &DestinationName,
        n: usize,
    ) -> Result<Vec<Lease>, StoreError> {
        let destination = destination.clone();
        self.lease_reader(move |shared, db| deliver::lease_due(shared, db, &destination, n)).await
    }

    async fn lease_oldest(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Lease>, StoreError> {
        let destination = destination.clone();
        self.lease_reader(move |shared, db| deliver::lease_oldest(shared, db, &destination)).await
    }

    async fn record(&self, lease: Lease, outcome: Outcome) -> Result<Recorded, Unrecorded> {
        deliver::record(self, lease, outcome).await
    }

    async fn release(&self, lease: Lease) {
        if self.shared.leases.end(lease.delivery().id, lease.token()) {
            self.shared.wake(Some(&lease.delivery().destination));
        }
    }

    async fn next_due(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Timestamp>, StoreError> {
        let destination = destination.clone();
        self.lease_reader(move |shared, db| deliver::next_due(shared, db, &destination)).await
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

    async fn expire(
        &self,
        destination: &DestinationName,
        max_age: Duration,
        reason: &'static str,
    ) -> Result<Vec<AlertId>, StoreError> {
        operate::expire(self, destination, max_age, reason).await
    }

    async fn hasten(&self, destination: &DestinationName, whom: Hasten) -> Result<u64, StoreError> {
        hasten::hasten(self, destination, whom).await
    }

    async fn note_settings(
        &self,
        destination: &DestinationName,
        mark: u16,
    ) -> Result<u64, StoreError> {
        hasten::note_settings(self, destination, mark).await
    }

    async fn feed_page(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: usize,
    ) -> Result<FeedPage, StoreError> {
        feed::page(self, destination, after, limit).await
    }

    async fn feed_taken(
        &self,
        destination: &DestinationName,
        up_to: i64,
    ) -> Result<Vec<Taken>, StoreError> {
        feed::taken(self, destination, up_to).await
    }

    async fn give_up(
        &self,
        destination: &DestinationName,
        alerts: &[AlertId],
        reason: &'static str,
    ) -> Result<Vec<AlertId>, StoreError> {
        feed::give_up(self, destination, alerts, reason).await
    }

    async fn route(
        &self,
        alert: &AlertId,
        destinations: &[DestinationName],
        deed: Option<Deed>,
    ) -> Result<Routed, StoreError> {
        operate::route(self, alert, destinations, deed).await
    }

    async fn alert(&self, id: &AlertId) -> Result<Option<AlertView>, StoreError> {
        let id = id.clone();
        self.view_reader(move |shared, db| view::alert(shared, db, &id)).await
    }

    async fn alerts(&self, query: AlertQuery) -> Result<Vec<AlertView>, StoreError> {
        self.view_reader(move |shared, db| list::alerts(shared, db, &query)).await
    }

    async fn cursor(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError> {
        let (app, channel) = (app.clone(), channel.clone());
        self.view_reader(move |_shared, db| view::cursor(db, &app, &channel)).await
    }

    async fn channel_ids(&self, app: &AppName) -> Result<Vec<(String, ChannelId)>, StoreError> {
        let app = app.clone();
        self.view_reader(move |_shared, db| catch_up::channel_ids(db, &app)).await
    }

    async fn newest_seen(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError> {
        let (app, channel) = (app.clone(), channel.clone());
        self.view_reader(move |_shared, db| catch_up::newest_seen(db, &app, &channel)).await
    }

    async fn read_channels(&self, app: &AppName) -> Result<Vec<ChannelId>, StoreError> {
        let app = app.clone();
        self.view_reader(move |_shared, db| catch_up::read_channels(db, &app)).await
    }

    async fn beginnings(&self, app: &AppName) -> Result<Vec<(String, Beginning)>, StoreError> {
        let app = app.clone();
        self.view_reader(move |_shared, db| catch_up::beginnings(db, &app)).await
    }

    async fn set_beginning(
        &self,
        app: &AppName,
        written: &str,
        beginning: Beginning,
    ) -> Result<(), StoreError> {
        let (app, written) = (app.clone(), written.to_owned());
        self.write(move |db, _mode| catch_up::set_beginning(db, &app, &written, beginning)).await
    }

    async fn put_cursor_back(&self, cursor: &CursorMove) -> Result<(), StoreError> {
        let cursor = cursor.clone();
        self.write(move |db, _mode| catch_up::put_cursor_back(db, &cursor)).await
    }

    async fn set_channel_id(
        &self,
        app: &AppName,
        written: &str,
        id: &ChannelId,
    ) -> Result<(), StoreError> {
        let (app, written, id) = (app.clone(), written.to_owned(), id.clone());
        self.write(move |db, _mode| catch_up::set_channel_id(db, &app, &written, &id)).await
    }

    async fn chains(&self, app: &AppName) -> Result<Vec<Vec<ChannelId>>, StoreError> {
        let app = app.clone();
        self.view_reader(move |_shared, db| catch_up::chains(db, &app)).await
    }

    async fn replace_channel_id(
        &self,
        app: &AppName,
        old: &ChannelId,
        new: &ChannelId,
    ) -> Result<(), StoreError> {
        let (app, old, new) = (app.clone(), old.clone(), new.clone());
        self.write(move |db, _mode| catch_up::replace_channel_id(db, &app, &old, &new)).await
    }

    async fn look_alikes(
        &self,
        app: &AppName,
        own: &[ChannelId],
        timestamps: &[MessageTs],
    ) -> Result<Vec<LookAlike>, StoreError> {
        let (app, own, timestamps) = (app.clone(), own.to_vec(), timestamps.to_vec());
        self.view_reader(move |_shared, db| catch_up::look_alikes(db, &app, &own, &timestamps))
            .await
    }

    async fn take_unpushed(
        &self,
        app: &AppName,
        posted_before: MessageTs,
    ) -> Result<Vec<(ChannelId, MessageTs)>, StoreError> {
        let app = app.clone();
        self.write(move |db, _mode| catch_up::take_unpushed(db, &app, posted_before)).await
    }

    /// Always the same: nobody else can have this store open.
    async fn poller_term(&self, _app: &AppName) -> Result<Option<u64>, StoreError> {
        Ok(Some(1))
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.view_reader(view::stats).await
    }

    async fn prune(&self, retention: Retention) -> Result<Pruned, StoreError> {
        retain::prune(self, retention).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        relieve::make_room(self).await?;
        self.write_for(Purpose::Intake, |db, _mode| db.probe()).await?;
        if self.shared.size.is_full() { Err(StoreError::Full) } else { Ok(()) }
    }

    async fn close(&self) {
        self.shared.is_closing.store(true, Ordering::Release);
        self.queues().take();
        self.shared.ended.cancelled().await;
    }
}
