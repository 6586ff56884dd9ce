//! Answer to a backfill.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answer of `POST /api/v1/backfill`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct BackfillReport {
    /// Messages with incidents.
    pub found: u64,
    /// Messages that were not known before.
    pub new: u64,
    /// Messages that were known before.
    pub known: u64,
    /// Messages that were not known and are known now, without a delivery.
    #[serde(default)]
    pub marked: u64,
    /// History that could not be read to its end; absent if all of it was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Unread>,
}

/// History that could not be read to its end. The messages that were read are counted and stored.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Unread {
    /// Name of the app.
    pub app: String,
    /// Id of the channel; empty if the app's channels could not be listed.
    pub channel: String,
    /// Reason of the failure.
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
