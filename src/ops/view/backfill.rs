//! Answer to a backfill.

use serde::{Deserialize, Serialize};

/// The answer of `POST /api/v1/backfill`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackfillReport {
    /// Messages with incidents.
    pub found: u64,
    /// Those that were not known.
    pub new: u64,
    /// Those that were.
    pub known: u64,
    /// Those that were not and are now, without being delivered to anybody.
    #[serde(default)]
    pub marked: u64,
    /// What could not be read to its end; left out if all was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Unread>,
}

/// History that could not be read to its end. What was read of it is counted and stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unread {
    /// The app.
    pub app: String,
    /// The channel; empty if the app's channels could not be listed.
    pub channel: String,
    /// Why.
    pub problem: String,
}
