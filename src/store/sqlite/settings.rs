//! Settings of a store in SQLite.

use std::{path::PathBuf, time::Duration};

/// Path and limits of a store.
#[derive(Clone, Debug)]
pub struct SqliteSettings {
    /// Path of the database. SQLite and the relay keep other files beside it.
    pub path: PathBuf,
    /// Largest size of the store, write-ahead log included.
    pub max_size_bytes: u64,
    /// Duration of a lease.
    pub lease: Duration,
}
