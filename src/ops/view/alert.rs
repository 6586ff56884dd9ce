//! Alerts, their deliveries and the attempts at them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::waiting::Waiting;
use crate::{
    clock::Timestamp,
    ids::DestinationName,
    store::{self, AlertView, AttemptView, DeliveryView},
};

/// Answer of `GET /api/v1/alerts`, newest first.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Page {
    /// Alerts of this page.
    pub alerts: Vec<Row>,
    /// Value of `before` for the next page; null on the last page.
    pub next: Option<i64>,
}

/// An alert in a list.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Row {
    /// Id of the alert.
    pub id: String,
    /// Severity: informative, low, medium, high or critical.
    pub severity: String,
    /// Category, script, host and title.
    pub summary: String,
    /// Time at which the message was posted in Slack.
    pub posted_at: Timestamp,
    /// Time at which the message reached the relay.
    pub received_at: Timestamp,
    /// Source that brought the message first: push, `catch_up` or backfill.
    pub source: String,
    /// Every source that has brought the message.
    pub sources: Vec<String>,
    /// One delivery for each destination; empty if the alert is unrouted.
    pub deliveries: Vec<Delivery>,
}

/// Answer of `GET /api/v1/alerts/{id}`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Detail {
    /// Keys of the list, here with every attempt.
    #[serde(flatten)]
    pub row: Row,
    /// Slack's `event_id`, or empty.
    pub event_id: String,
    /// Slack's `team_id`, or empty.
    pub team: String,
    /// Alert, version 1, as it would be sent now; null if the message cannot be mapped.
    #[schemars(with = "Option<serde_json::Value>")]
    pub alert: Option<Box<RawValue>>,
    /// Reason why `alert` is null, or empty.
    pub alert_problem: String,
    /// Message as Slack sent it; a string if the message is not JSON; null once retention has
    /// removed the message.
    #[schemars(with = "Option<serde_json::Value>")]
    pub raw: Option<Box<RawValue>>,
    /// Later versions of the message, oldest first.
    pub revisions: Vec<Revision>,
}

/// A later version of a message.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Revision {
    /// Time at which the version reached the relay.
    pub received_at: Timestamp,
    /// Version as Slack sent it.
    #[schemars(with = "serde_json::Value")]
    pub raw: Box<RawValue>,
}

/// The delivery of an alert to one destination.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Delivery {
    /// Name of the destination.
    pub destination: String,
    /// State: pending, refused, leased, dead, paused, orphaned, delivered or cancelled.
    pub state: String,
    /// Number of attempts so far.
    pub attempt_count: u32,
    /// Time of the next attempt; null if none is due.
    pub due_at: Option<Timestamp>,
    /// Time at which the delivery ended; null while it is unfinished.
    pub finished_at: Option<Timestamp>,
    /// Reason why the delivery is dead, or empty.
    pub dead_reason: String,
    /// Case that the destination made of the alert.
    pub reference: Reference,
    /// Reason why the delivery waits, and until when; null once the delivery has ended, and in
    /// lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Every attempt that is kept, oldest first; null in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<Attempt>>,
}

/// The case that a destination made of an alert.
#[derive(Clone, Debug, Default, JsonSchema, Serialize, Deserialize)]
pub struct Reference {
    /// Id of the case, or empty.
    pub id: String,
    /// Link to the case, or empty.
    pub url: String,
}

/// One attempt at a delivery.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Attempt {
    /// Time at which the attempt began.
    pub started_at: Timestamp,
    /// Duration in milliseconds.
    pub duration_ms: u64,
    /// Class: delivered, duplicate, `destination_fault`, auth, throttled, refused or timeout.
    pub class: String,
    /// HTTP status; null if there was no answer.
    pub status: Option<u16>,
    /// Beginning of the answer, or the error.
    pub excerpt: String,
}

impl Row {
    pub(in crate::ops) fn new(view: &AlertView, configured: &[DestinationName]) -> Self {
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
    pub(in crate::ops) fn new(view: &DeliveryView, configured: &[DestinationName]) -> Self {
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

    pub(in crate::ops) fn with_attempts(
        view: &DeliveryView,
        configured: &[DestinationName],
    ) -> Self {
        let attempts = view.log.iter().map(Attempt::stored).collect();
        Self { attempts: Some(attempts), ..Self::new(view, configured) }
    }
}

impl Reference {
    pub(in crate::ops) fn new(reference: &store::Reference) -> Self {
        Self { id: reference.id.clone(), url: reference.url.clone() }
    }
}

impl Attempt {
    pub(in crate::ops) fn new(attempt: &store::Attempt) -> Self {
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
