//! Answer to a backfill.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The answer of `POST /api/v1/backfill`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
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
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Unread {
    /// The app.
    pub app: String,
    /// The channel; empty if the app's channels could not be listed.
    pub channel: String,
    /// Why.
    pub problem: String,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { app, channel, problem } = self;
        match channel.as_str() {
            "" => write!(f, "app {app}: {problem}"),
            channel => write!(f, "channel {channel} of app {app}: {problem}"),
        }
    }
}
