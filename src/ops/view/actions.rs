//! Answers of the API to actions.

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

/// Result of a retry or a cancellation, of one alert or of many.
#[derive(Clone, Debug, Default, JsonSchema, Serialize, Deserialize)]
pub struct Changed {
    /// Number of deliveries that changed.
    pub changed: u64,
    /// Deliveries that changed, at most 1000 of them.
    #[serde(default)]
    pub deliveries: Vec<ChangedDelivery>,
    /// Number of changed deliveries that `deliveries` does not list.
    #[serde(default)]
    pub not_named: u64,
    /// Result of routing unrouted alerts again; absent if no unrouted alert was selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed: Option<Routed>,
}

/// A delivery that changed.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct ChangedDelivery {
    /// Id of the alert.
    pub alert_id: String,
    /// Name of the destination.
    pub destination: String,
}

impl Changed {
    /// Returns the answer that states the changes of the store.
    pub fn new(changes: &Changes) -> Self {
        let mut answer = Self::default();
        answer.add(changes.changed, &changes.named);
        answer
    }

    /// Adds `changed` deliveries, the first of which are `named`.
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

/// Result of routing unrouted alerts again, by the configuration in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Routed {
    /// Number of alerts that are routed now.
    pub alerts: u64,
    /// Number of newly routed alerts, by destination.
    pub by_destination: BTreeMap<String, u64>,
    /// Number of alerts that stay unrouted.
    pub left: u64,
    /// Reason why one of those alerts stays unrouted, or empty.
    pub reason: String,
}

impl Routed {
    /// Adds the result for other alerts.
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

/// Answer of `POST /api/v1/destinations/{name}/pause` and `resume`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct PauseState {
    /// Name of the destination.
    pub destination: String,
    /// `true` if the destination is paused now.
    pub paused: bool,
    /// Pause in force; null if the destination is not paused.
    #[serde(default)]
    pub pause: Option<Pause>,
}

/// Answer of `POST /api/v1/destinations/{name}/test`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct TestReport {
    /// Name of the destination.
    pub destination: String,
    /// Id of the test alert, which is not stored.
    pub alert_id: String,
    /// `true` if the destination accepted the alert.
    pub delivered: bool,
    /// Case that the destination made of the alert.
    pub reference: Reference,
    /// The attempt itself.
    #[serde(flatten)]
    pub attempt: Attempt,
}
