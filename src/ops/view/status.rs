//! What the API answers of the relay as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    alert::Attempt,
    concern::Concern,
    review::{Counted, Ignored, Refused},
};
use crate::{clock::Timestamp, ops, store};

/// The answer of `GET /api/v1/status`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Status {
    /// The relay's version.
    pub version: String,
    /// The relay's time of day, for ages.
    #[serde(default)]
    pub now: Option<Timestamp>,
    /// When it was started.
    pub started_at: Timestamp,
    /// How long it has been running.
    pub uptime_seconds: u64,
    /// Nothing needs a person: no concern says so.
    #[serde(default)]
    pub healthy: bool,
    /// What a person should know, the most urgent first.
    #[serde(default)]
    pub concerns: Vec<Concern>,
    /// As `/readyz` says.
    pub ready: bool,
    /// Why it is not ready, or empty.
    pub not_ready_reason: String,
    /// Which configuration is in use.
    pub configuration: Configuration,
    /// How full the store is.
    pub store: StoreUse,
    /// Alerts that no destination wanted, counted up to 500; null if the store does not say.
    #[serde(default)]
    pub unrouted: Option<u64>,
    /// The Slack apps.
    pub apps: Vec<App>,
    /// Events that were ignored since the start, of all apps.
    #[serde(default)]
    pub ignored: Ignored,
    /// Messages that may be incidents.
    #[serde(default)]
    pub near_misses: Counted,
    /// Bodies that could not be read.
    #[serde(default)]
    pub quarantine: Counted,
    /// The configured destinations, and others that have unfinished or dead deliveries.
    pub destinations: Vec<Destination>,
}

/// Which configuration is in use.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Configuration {
    /// Whether it is the newest one.
    pub is_newest: bool,
    /// Since when it is in use.
    pub in_use_since: Timestamp,
    /// When a newer one was refused.
    pub refused_at: Option<Timestamp>,
    /// Why it was, or empty.
    pub refused_reason: String,
}

impl From<ops::Configuration> for Configuration {
    fn from(one: ops::Configuration) -> Self {
        Self {
            is_newest: one.refused.is_none(),
            in_use_since: one.in_use_since,
            refused_at: one.refused.as_ref().map(|refused| refused.at),
            refused_reason: one.refused.map(|refused| refused.reason).unwrap_or_default(),
        }
    }
}

/// How full the store is.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct StoreUse {
    /// In use.
    pub used_bytes: u64,
    /// Left until `max_size`, or on the disk if that is less.
    pub free_bytes: u64,
    /// Why no alert is taken, or empty.
    #[serde(default)]
    pub problem: String,
}

/// A Slack app.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct App {
    /// Its name.
    pub name: String,
    /// How requests to it are signed.
    #[serde(default)]
    pub signing: Signing,
    /// How its history is read; null if it has no token.
    pub catch_up: Option<CatchUp>,
    /// The bots that have posted incidents, the newest first.
    #[serde(default)]
    pub bots: Vec<Bot>,
    /// Events that were ignored since the start.
    #[serde(default)]
    pub ignored: Ignored,
    /// Messages with the title of incidents that were not taken since the start.
    #[serde(default)]
    pub refused: Vec<Refused>,
}

/// How requests to an app are signed. On a path that several apps share, a request that verifies
/// with none of their secrets counts for each.
#[derive(Clone, Debug, Default, JsonSchema, Serialize, Deserialize)]
pub struct Signing {
    /// When a request last verified; null if none has since the start.
    pub last_verified_at: Option<Timestamp>,
    /// Requests with well-formed, recent headers and a wrong signature since then: if there are any
    /// and nothing verifies, the signing secret is another one than Slack's.
    pub rejected: u64,
    /// Requests without such headers, since the start: scanners, and no reason to act.
    pub strangers: u64,
}

/// A bot that has posted incidents in a channel.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Bot {
    /// Slack's id of the bot, or empty.
    pub bot_id: String,
    /// Slack's id of the bot's app, or empty.
    pub app_id: String,
    /// The channel; its first id, if Slack has changed it.
    pub channel: String,
    /// The number of incidents.
    pub incidents: u64,
    /// When the newest of them reached the relay.
    pub last: Timestamp,
}

impl Bot {
    pub(in crate::ops) fn new(poster: store::Poster) -> Self {
        let store::Poster { bot_id, app_id, channel, incidents, last, .. } = poster;
        Self { bot_id, app_id, channel: channel.to_string(), incidents, last }
    }
}

/// How an app's history is read.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct CatchUp {
    /// Why it is not read at the moment, or empty.
    pub problem: String,
    /// Configured names whose channels are not known.
    pub unresolved: Vec<String>,
    /// Its channels.
    pub channels: Vec<Channel>,
}

/// How a channel's history is read.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Channel {
    /// Its id.
    pub id: String,
    /// Its name, or empty.
    pub name: String,
    /// Up to where its history was read.
    pub committed: Option<Timestamp>,
    /// When it was last read to its end.
    pub last_success_at: Option<Timestamp>,
    /// How long ago that was.
    pub lag_seconds: Option<u64>,
    /// Why it could not be read the last time, or empty.
    pub problem: String,
    /// Nothing can be posted in it any more.
    pub archived: bool,
    /// Incidents that Slack did not push, since the start.
    pub missed_pushes: u64,
    /// Those of the last 24 hours that Slack should have pushed: the relay was there.
    #[serde(default)]
    pub missed_pushes_in_a_day: u64,
}

/// A destination.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact that the API states")]
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// Whether it is in the configuration; if not, its deliveries are orphaned.
    pub configured: bool,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// The pause, if it is paused.
    #[serde(default)]
    pub pause: Option<Pause>,
    /// Whether only probes are sent.
    pub breaker_open: bool,
    /// The breaker, if it is open.
    #[serde(default)]
    pub breaker: Option<Breaker>,
    /// Until when it has asked to be left alone, if it has.
    #[serde(default)]
    pub quiet_until: Option<Timestamp>,
    /// Whether readers come to it, and nothing is sent.
    #[serde(default)]
    pub read: bool,
    /// Deliveries that wait, without the refused ones.
    pub pending: u64,
    /// Deliveries that wait after three or more refusals, without evidence against the alert.
    #[serde(default)]
    pub refused: u64,
    /// Deliveries that are being attempted.
    pub leased: u64,
    /// Deliveries that were given up.
    pub dead: u64,
    /// When the oldest unfinished one was accepted.
    pub oldest_pending_at: Option<Timestamp>,
    /// Everything that an operator should look at, also what is wrong although alerts are
    /// delivered, such as a recipient that a mail server refuses; or empty.
    #[serde(default)]
    pub problem: String,
    /// What is wrong although alerts are delivered, or empty.
    #[serde(default)]
    pub notice: String,
    /// The newest attempt that failed since the start.
    pub last_failure: Option<Attempt>,
    /// When a reader last asked since the start; null if none has, or if it is not read.
    #[serde(default)]
    pub last_read_at: Option<Timestamp>,
}

/// A pause in force.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Pause {
    /// When it began.
    pub since: Timestamp,
    /// When it ends by itself; null if it does not.
    pub until: Option<Timestamp>,
    /// The operator's reason, or empty.
    pub reason: String,
}

impl From<store::PauseView> for Pause {
    fn from(pause: store::PauseView) -> Self {
        let store::PauseView { since, until, reason } = pause;
        Self { since, until, reason }
    }
}

/// An open breaker: one alert at a time is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Breaker {
    /// When it opened.
    pub since: Timestamp,
    /// When the next alert may be tried.
    pub next_try_at: Timestamp,
}
