//! The contract on SQLite, and what only SQLite promises.

use std::{path::PathBuf, sync::Arc};

use tempfile::TempDir;

use crate::{
    clock::Clock,
    metrics::{Metric, Metrics},
    store::{
        Store,
        contract::{Backend, LEASE, contract},
        sqlite::{Settings, SqliteStore},
    },
};

/// A directory of its own, gone with the test.
struct Place {
    directory: TempDir,
    metrics: Metrics,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), metrics: Metrics::new() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }
}

impl Backend for Place {
    fn open(&self, clock: &Clock, max_size: u64) -> Arc<dyn Store> {
        let settings = Settings { path: self.path(), max_size_bytes: max_size, lease: LEASE };
        Arc::new(SqliteStore::open(&settings, clock.clone(), &self.metrics).unwrap())
    }

    fn stale_leases(&self) -> u64 {
        let page = self.metrics.render();
        let name = Metric::StaleLeases.name();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or(0)
    }
}

contract!(Place::new());
