//! What the API answers, as types: `api` writes them, the command line reads them. Additive
//! changes only. Texts that are absent are empty, moments are RFC 3339.

mod actions;
mod concern;
mod waiting;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::{
    actions::{Changed, PauseState, Routed, TestReport},
    concern::{Concern, ConcernKind},
    waiting::{WaitKind, Waiting},
};
use crate::{
    clock::Timestamp,
    ids::DestinationName,
    ops,
    store::{self, AlertView, AttemptView, DeliveryView},
};

/// The answer of `GET /api/v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// The configured destinations, and others that have unfinished or dead deliveries.
    pub destinations: Vec<Destination>,
}

/// Which configuration is in use.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

impl From<super::Configuration> for Configuration {
    fn from(one: super::Configuration) -> Self {
        Self {
            is_newest: one.refused.is_none(),
            in_use_since: one.in_use_since,
            refused_at: one.refused.as_ref().map(|refused| refused.at),
            refused_reason: one.refused.map(|refused| refused.reason).unwrap_or_default(),
        }
    }
}

/// How full the store is.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct App {
    /// Its name.
    pub name: String,
    /// How its history is read; null if it has no token.
    pub catch_up: Option<CatchUp>,
    /// The bots that have posted incidents, the newest first.
    #[serde(default)]
    pub bots: Vec<Bot>,
}

/// A bot that has posted incidents in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    pub(super) fn new(poster: store::Poster) -> Self {
        let store::Poster { bot_id, app_id, channel, incidents, last, .. } = poster;
        Self { bot_id, app_id, channel: channel.to_string(), incidents, last }
    }
}

/// How an app's history is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CatchUp {
    /// Why it is not read at the moment, or empty.
    pub problem: String,
    /// Configured names whose channels are not known.
    pub unresolved: Vec<String>,
    /// Its channels.
    pub channels: Vec<Channel>,
}

/// How a channel's history is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

impl CatchUp {
    pub(super) fn new(catch_up: ops::CatchUp, now: Timestamp) -> Self {
        let channel = |one: ops::CaughtUp| Channel {
            id: one.id.to_string(),
            name: one.name,
            committed: one.committed.map(|ts| Timestamp::from_micros(ts.micros())),
            last_success_at: one.last_success,
            lag_seconds: one.last_success.map(|at| now.since(at).as_secs()),
            problem: one.problem,
            archived: one.is_archived,
            missed_pushes: one.missed,
            missed_pushes_in_a_day: one.withheld_in_a_day,
        };
        Self {
            problem: catch_up.problem,
            unresolved: catch_up.unresolved,
            channels: catch_up.channels.into_iter().map(channel).collect(),
        }
    }
}

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
}

/// A destination.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// When it opened.
    pub since: Timestamp,
    /// When the next alert may be tried.
    pub next_try_at: Timestamp,
}

impl From<ops::Breaker> for Breaker {
    fn from(breaker: ops::Breaker) -> Self {
        Self { since: breaker.since, next_try_at: breaker.probe_at }
    }
}

/// The answer of `GET /api/v1/feed`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeedPage {
    /// The items, in the order of their numbers.
    pub items: Vec<FeedItem>,
    /// The `after` of the next request, once these are taken.
    pub next: i64,
}

/// An item of a feed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeedItem {
    /// Its number, larger than that of every item before it.
    pub seq: i64,
    /// The alert, version 1.
    pub alert: Box<RawValue>,
}

/// The answer of `GET /api/v1/alerts`, newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    /// The alerts.
    pub alerts: Vec<Row>,
    /// The `before` of the next page, if there is one.
    pub next: Option<i64>,
}

/// An alert in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// informative, low, medium, high or critical.
    pub severity: String,
    /// Category, script, host and title.
    pub summary: String,
    /// When it was posted in Slack.
    pub posted_at: Timestamp,
    /// When it reached the relay.
    pub received_at: Timestamp,
    /// Who brought it first: push, `catch_up` or backfill.
    pub source: String,
    /// Everyone who has brought it.
    pub sources: Vec<String>,
    /// One for each destination. None: no destination wanted it.
    pub deliveries: Vec<Delivery>,
}

/// The answer of `GET /api/v1/alerts/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Detail {
    /// What a list says of it too; here with every attempt.
    #[serde(flatten)]
    pub row: Row,
    /// Slack's `event_id`, or empty.
    pub event_id: String,
    /// Slack's `team_id`, or empty.
    pub team: String,
    /// The alert, version 1, as it would be sent now; null if it cannot be made.
    pub alert: Option<Box<RawValue>>,
    /// Why `alert` is null, or empty.
    pub alert_problem: String,
    /// The message as Slack sent it; a text if it is no JSON; null once retention has removed it.
    pub raw: Option<Box<RawValue>>,
    /// Later versions of the message, oldest first.
    pub revisions: Vec<Revision>,
}

/// A later version of a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Revision {
    /// When it reached the relay.
    pub received_at: Timestamp,
    /// As Slack sent it.
    pub raw: Box<RawValue>,
}

/// An alert's way to one destination.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// Where it goes.
    pub destination: String,
    /// pending, refused, leased, dead, paused, orphaned, delivered or cancelled.
    pub state: String,
    /// Attempts made so far.
    pub attempt_count: u32,
    /// When it is tried next, if it waits.
    pub due_at: Option<Timestamp>,
    /// When it ended, if it has.
    pub finished_at: Option<Timestamp>,
    /// Why it is dead, or empty.
    pub dead_reason: String,
    /// What the destination made of it.
    pub reference: Reference,
    /// What it waits for and until when; null if it has ended. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Every attempt kept, oldest first; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<Attempt>>,
}

/// What a destination made of an alert.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reference {
    /// The case's id, or empty.
    pub id: String,
    /// A link to it, or empty.
    pub url: String,
}

/// One attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// delivered, duplicate, `destination_fault`, auth, throttled, refused or timeout.
    pub class: String,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The beginning of the answer, or what went wrong.
    pub excerpt: String,
}

impl Row {
    pub(super) fn new(view: &AlertView, configured: &[DestinationName]) -> Self {
        Self {
            id: view.id.to_string(),
            severity: view.level.clone(),
            summary: view.search.clone(),
            posted_at: Timestamp::from_micros(view.posted_at.micros()),
            received_at: view.received_at,
            source: view.source.as_str().to_owned(),
            sources: view.sources.iter().map(|source| source.as_str().to_owned()).collect(),
            deliveries: view.deliveries.iter().map(|one| Delivery::new(one, configured)).collect(),
        }
    }
}

impl Delivery {
    pub(super) fn new(view: &DeliveryView, configured: &[DestinationName]) -> Self {
        let state = if configured.contains(&view.destination) {
            view.state
        } else {
            view.state.without_destination()
        };
        Self {
            destination: view.destination.to_string(),
            state: state.to_string(),
            attempt_count: view.attempts,
            due_at: view.due_at,
            finished_at: view.finished_at,
            dead_reason: view.dead_reason.clone(),
            reference: Reference::new(&view.reference),
            waiting: None,
            attempts: None,
        }
    }

    pub(super) fn with_attempts(view: &DeliveryView, configured: &[DestinationName]) -> Self {
        let attempts = view.log.iter().map(Attempt::stored).collect();
        Self { attempts: Some(attempts), ..Self::new(view, configured) }
    }
}

impl Reference {
    pub(super) fn new(reference: &store::Reference) -> Self {
        Self { id: reference.id.clone(), url: reference.url.clone() }
    }
}

impl Attempt {
    pub(super) fn new(attempt: &store::Attempt) -> Self {
        Self {
            started_at: attempt.started_at,
            duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
            class: attempt.class.to_owned(),
            status: attempt.status,
            excerpt: attempt.excerpt.clone(),
        }
    }

    fn stored(view: &AttemptView) -> Self {
        Self {
            started_at: view.started_at,
            duration_ms: u64::try_from(view.duration.as_millis()).unwrap_or(u64::MAX),
            class: view.class.clone(),
            status: view.status,
            excerpt: view.excerpt.clone(),
        }
    }
}
