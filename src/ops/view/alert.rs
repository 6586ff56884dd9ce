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

/// The answer of `GET /api/v1/alerts`, newest first.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Page {
    /// The alerts.
    pub alerts: Vec<Row>,
    /// The `before` of the next page, if there is one.
    pub next: Option<i64>,
}

/// An alert in a list.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
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
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Detail {
    /// What a list says of it too; here with every attempt.
    #[serde(flatten)]
    pub row: Row,
    /// Slack's `event_id`, or empty.
    pub event_id: String,
    /// Slack's `team_id`, or empty.
    pub team: String,
    /// The alert, version 1, as it would be sent now; null if it cannot be made.
    #[schemars(with = "Option<serde_json::Value>")]
    pub alert: Option<Box<RawValue>>,
    /// Why `alert` is null, or empty.
    pub alert_problem: String,
    /// The message as Slack sent it; a text if it is no JSON; null once retention has removed it.
    #[schemars(with = "Option<serde_json::Value>")]
    pub raw: Option<Box<RawValue>>,
    /// Later versions of the message, oldest first.
    pub revisions: Vec<Revision>,
}

/// A later version of a message.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Revision {
    /// When it reached the relay.
    pub received_at: Timestamp,
    /// As Slack sent it.
    #[schemars(with = "serde_json::Value")]
    pub raw: Box<RawValue>,
}

/// An alert's way to one destination.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, JsonSchema, Serialize, Deserialize)]
pub struct Reference {
    /// The case's id, or empty.
    pub id: String,
    /// A link to it, or empty.
    pub url: String,
}

/// One attempt.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
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
