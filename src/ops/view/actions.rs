//! What the API answers to actions.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    alert::{Attempt, Reference},
    status::Pause,
};
use crate::{
    ids::{AlertId, DestinationName},
    store::{CHANGES_NAMED, Changes},
};

/// What a retry or cancel did, of one alert or of many.
#[derive(Clone, Debug, Default, JsonSchema, Serialize, Deserialize)]
pub struct Changed {
    /// How many deliveries it changed.
    pub changed: u64,
    /// Which deliveries it changed, at most [`CHANGES_NAMED`](crate::store::CHANGES_NAMED) of them.
    #[serde(default)]
    pub deliveries: Vec<ChangedDelivery>,
    /// How many more it changed.
    #[serde(default)]
    pub not_named: u64,
    /// What a retry made of unrouted alerts; absent if there was none among those meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed: Option<Routed>,
}

/// A delivery that was changed.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct ChangedDelivery {
    /// The alert.
    pub alert_id: String,
    /// Where it goes.
    pub destination: String,
}

impl Changed {
    /// Makes the answer of what the store has changed.
    pub fn new(changes: &Changes) -> Self {
        let mut answer = Self::default();
        answer.add(changes.changed, &changes.named);
        answer
    }

    /// Adds what else was changed: so many, and these among them.
    pub fn add(&mut self, changed: u64, named: &[(AlertId, DestinationName)]) {
        let room = CHANGES_NAMED.saturating_sub(self.deliveries.len());
        self.changed += changed;
        self.deliveries.extend(named.iter().take(room).map(|(alert, destination)| {
            ChangedDelivery { alert_id: alert.to_string(), destination: destination.to_string() }
        }));
        let named = u64::try_from(self.deliveries.len()).unwrap_or(u64::MAX);
        self.not_named = self.changed.saturating_sub(named);
    }

    /// Adds the answer of another request.
    pub fn join(&mut self, other: Self) {
        self.changed += other.changed;
        self.deliveries.extend(other.deliveries);
        self.not_named += other.not_named;
        if let Some(routed) = other.routed {
            self.routed.get_or_insert_default().add(routed);
        }
    }
}

/// What a retry made of unrouted alerts, by the configuration in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Routed {
    /// Alerts that are routed now.
    pub alerts: u64,
    /// How many of them go to each destination.
    pub by_destination: BTreeMap<String, u64>,
    /// Alerts that stay unrouted.
    pub left: u64,
    /// Why one of those stays unrouted, or empty.
    pub reason: String,
}

impl Routed {
    /// Adds what was made of others.
    pub fn add(&mut self, other: Self) {
        self.alerts += other.alerts;
        self.left += other.left;
        for (name, alerts) in other.by_destination {
            *self.by_destination.entry(name).or_default() += alerts;
        }
        if self.reason.is_empty() {
            self.reason = other.reason;
        }
    }
}

/// The answer of `POST /api/v1/destinations/{name}/pause|resume`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct PauseState {
    /// Its name.
    pub destination: String,
    /// Whether it is paused now.
    pub paused: bool,
    /// The pause, if it is.
    #[serde(default)]
    pub pause: Option<Pause>,
}

/// The answer of `POST /api/v1/destinations/{name}/test`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct TestReport {
    /// The destination.
    pub destination: String,
    /// The id under which the test alert went; it is not stored.
    pub alert_id: String,
    /// Whether the destination took it.
    pub delivered: bool,
    /// What the destination made of it.
    pub reference: Reference,
    /// How the attempt went.
    #[serde(flatten)]
    pub attempt: Attempt,
}
