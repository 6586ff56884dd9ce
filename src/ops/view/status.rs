//! Answer of the API about the relay as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    alert::Attempt,
    concern::Concern,
    review::{Counted, Ignored, Refused},
};
use crate::{clock::Timestamp, store};

/// Answer of `GET /api/v1/status`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Status {
    /// Version of the relay.
    pub version: String,
    /// Time of day at the relay, for ages.
    #[serde(default)]
    pub now: Option<Timestamp>,
    /// Time at which the relay was started.
    pub started_at: Timestamp,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// `true` if no concern needs a person.
    #[serde(default)]
    pub healthy: bool,
    /// Conditions that a person should know, the most urgent first.
    #[serde(default)]
    pub concerns: Vec<Concern>,
    /// `true` if `/readyz` answers 200.
    pub ready: bool,
    /// Reason why the relay is not ready, or empty.
    pub not_ready_reason: String,
    /// Configuration in use.
    pub configuration: Configuration,
    /// Space that the store takes.
    pub store: StoreUse,
    /// Number of unrouted alerts, counted up to 500; null if the store does not answer.
    #[serde(default)]
    pub unrouted: Option<u64>,
    /// Configured Slack apps.
    pub apps: Vec<App>,
    /// Number of events that were ignored since the start, of all apps.
    #[serde(default)]
    pub ignored: Ignored,
    /// Messages that resemble an incident.
    #[serde(default)]
    pub near_misses: Counted,
    /// Bodies that could not be parsed.
    #[serde(default)]
    pub quarantine: Counted,
    /// Configured destinations, and others that have unfinished or dead deliveries.
    pub destinations: Vec<Destination>,
}

/// The configuration in use.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Configuration {
    /// `true` if no newer configuration was refused.
    pub is_newest: bool,
    /// Time at which the configuration was taken into use.
    pub in_use_since: Timestamp,
    /// Time at which a newer configuration was refused.
    pub refused_at: Option<Timestamp>,
    /// Reason of the refusal, or empty.
    pub refused_reason: String,
}

/// Space that the store takes.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct StoreUse {
    /// `false` if the store did not answer; every number that it counts is 0 then.
    #[serde(default = "answers")]
    pub answers: bool,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes left until `max_size`, or on the disk if that is less.
    pub free_bytes: u64,
    /// Reason why alerts are not taken, or empty.
    #[serde(default)]
    pub problem: String,
}

/// Older relays do not say whether their store answers.
const fn answers() -> bool {
    true
}

/// A Slack app.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct App {
    /// Name of the app.
    pub name: String,
    /// State of request signing.
    #[serde(default)]
    pub signing: Signing,
    /// State of catch-up; null if the app does not have a token.
    pub catch_up: Option<CatchUp>,
    /// Bots that have posted incidents, the newest first.
    #[serde(default)]
    pub bots: Vec<Bot>,
    /// Number of events that were ignored since the start, by reason.
    #[serde(default)]
    pub ignored: Ignored,
    /// Messages with an incident's title that were not taken since the start.
    #[serde(default)]
    pub refused: Vec<Refused>,
}

/// State of request signing for one app. On a path that several apps share, a request that does not
/// verify with any of their secrets counts for each app.
#[derive(Clone, Debug, Default, JsonSchema, Serialize, Deserialize)]
pub struct Signing {
    /// Time at which a request last verified; null if none has since the start.
    pub last_verified_at: Option<Timestamp>,
    /// Requests since then with well-formed, recent headers and a wrong signature. If there are any
    /// and nothing verifies, the signing secret differs from Slack's.
    pub rejected: u64,
    /// Requests without such headers since the start: scanners, and not a reason to act.
    pub strangers: u64,
}

/// A bot that has posted incidents in a channel.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Bot {
    /// Slack's id of the bot, or empty.
    pub bot_id: String,
    /// Slack's id of the bot's app, or empty.
    pub app_id: String,
    /// Id of the channel; its first id, if Slack has changed it.
    pub channel: String,
    /// Number of incidents.
    pub incidents: u64,
    /// Time at which the newest incident reached the relay.
    pub last: Timestamp,
}

impl Bot {
    pub(in crate::ops) fn new(poster: store::Poster) -> Self {
        let store::Poster { bot_id, app_id, channel, incidents, last, .. } = poster;
        Self { bot_id, app_id, channel: channel.to_string(), incidents, last }
    }
}

/// State of catch-up for one app.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct CatchUp {
    /// Reason why history cannot be read at the moment, or empty.
    pub problem: String,
    /// Configured names whose channels are not known.
    pub unresolved: Vec<String>,
    /// Channels that are read.
    pub channels: Vec<Channel>,
}

/// State of catch-up for one channel.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Channel {
    /// Id of the channel.
    pub id: String,
    /// Name of the channel, or empty.
    pub name: String,
    /// Position up to which history was read.
    pub committed: Option<Timestamp>,
    /// Time at which history was last read to its end.
    pub last_success_at: Option<Timestamp>,
    /// Seconds since that time.
    pub lag_seconds: Option<u64>,
    /// Reason why history could not be read the last time, or empty.
    pub problem: String,
    /// `true` if the channel is archived.
    pub archived: bool,
    /// Number of incidents that Slack did not push, since the start.
    pub missed_pushes: u64,
    /// Number of incidents of the last 24 hours that Slack should have pushed, since the relay was
    /// running.
    #[serde(default)]
    pub missed_pushes_in_a_day: u64,
}

/// A destination and the state of its deliveries.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact that the API states")]
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Destination {
    /// Name of the destination.
    pub name: String,
    /// `true` if the destination is configured; otherwise its deliveries are orphaned.
    pub configured: bool,
    /// `true` if an operator has paused the destination.
    pub paused: bool,
    /// Pause in force; null if the destination is not paused.
    #[serde(default)]
    pub pause: Option<Pause>,
    /// `true` if the breaker is open, so that only probes are sent.
    pub breaker_open: bool,
    /// Open breaker; null if the breaker is closed.
    #[serde(default)]
    pub breaker: Option<Breaker>,
    /// Time until which the destination has asked for no requests.
    #[serde(default)]
    pub quiet_until: Option<Timestamp>,
    /// `true` if the destination is a feed, which readers ask.
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
    /// Time at which the alert of the oldest unfinished delivery was accepted.
    pub oldest_pending_at: Option<Timestamp>,
    /// Messages of every concern about this destination, or empty.
    #[serde(default)]
    pub problem: String,
    /// Fault that does not stop deliveries, such as a recipient that a mail server refuses; or
    /// empty.
    #[serde(default)]
    pub notice: String,
    /// Newest failed attempt since the start.
    pub last_failure: Option<Attempt>,
    /// Time at which a reader last asked since the start; null if none has, or if the destination
    /// is not a feed.
    #[serde(default)]
    pub last_read_at: Option<Timestamp>,
}

/// A pause in force.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Pause {
    /// Time at which the pause began.
    pub since: Timestamp,
    /// Time at which the pause ends by itself; null if it does not.
    pub until: Option<Timestamp>,
    /// Reason that the operator gave, or empty.
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
    /// Time at which the breaker opened.
    pub since: Timestamp,
    /// Time at which the next alert may be tried.
    pub next_try_at: Timestamp,
}
