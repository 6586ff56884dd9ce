//! What the API answers to actions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Attempt, Delivery, Pause, Reference};

/// What a retry or cancel did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Changed {
    /// How many deliveries it changed.
    pub changed: u64,
    /// The alert's deliveries after it; empty if it was for more than one alert.
    #[serde(default)]
    pub deliveries: Vec<Delivery>,
    /// What a retry made of unrouted alerts; absent if there was none among those meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed: Option<Routed>,
}

/// What a retry made of unrouted alerts, by the configuration in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
