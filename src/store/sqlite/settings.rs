//! Settings of a store in SQLite.

use std::{path::PathBuf, time::Duration};

/// Where the store is, and its limits.
#[derive(Clone, Debug)]
pub struct SqliteSettings {
    /// The file. SQLite keeps others beside it, and the relay a `.lock`.
    pub path: PathBuf,
    /// How large it may become, write-ahead log included.
    pub max_size_bytes: u64,
    /// How long a lease lasts.
    pub lease: Duration,
}
