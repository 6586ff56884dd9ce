//! The store in one SQLite file, for one relay on one machine without a database server.
//!
//! One thread writes (`writer`), two read (`reader`); the other files implement the roles of a
//! store by jobs for these threads. `cli` opens the store. No transaction is open while anything
//! else than SQLite is at work.

use std::{
    fmt,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use tokio::runtime::Handle;

use self::{
    db::Memory,
    open::Opened,
    shared::Shared,
    threads::{Queues, start},
    writer::Writer,
};
use crate::{clock::Clock, metrics::Metrics};

mod accept;
mod ask;
mod backup;
mod catch_up;
pub mod checkup;
mod connect;
mod db;
mod deliver;
mod desk;
mod disk;
mod error;
mod evict;
mod eviction;
mod export;
mod feed;
mod files;
mod hasten;
mod job;
mod journal;
mod leases;
mod list;
mod open;
mod operate;
mod paths;
mod pause;
mod poster;
mod queue;
mod reader;
mod restriction;
mod retain;
mod review;
mod row;
mod settings;
mod shared;
mod size;
#[cfg(test)]
mod tests;
mod threads;
mod upkeep;
mod view;
mod writer;

pub use self::{
    backup::{BackupError, Copied, backup, backup_to},
    error::OpenError,
    export::Export,
    settings::SqliteSettings,
};

/// An open store in a SQLite file. Dropped without
/// [`Upkeep::close`](crate::store::Upkeep::close) it leaves the file as a crash would: nothing that
/// was acknowledged is lost.
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
    /// Opens the store, or creates one if there is no file.
    ///
    /// # Errors
    /// [`OpenError`]: the problem with the file or its directory, and what to do about it.
    pub fn open(
        settings: &SqliteSettings,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Self, OpenError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Failed {
            path: settings.path.clone(),
            source,
        };
        let Opened { writer: connection, readers, files, locks } =
            open::open(&settings.path, settings.max_size_bytes)?;
        let memory = Memory::new(&connection).map_err(|error| failed(error.into()))?;
        let shared = Arc::new(Shared::new(settings, files, clock, metrics));
        // The time of day counts as steady after two looks; this is the first one.
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
