//! The running parts, as the ops API sees them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use super::sample;
use crate::{
    alert::mapping::{Origin, alert_of_stored},
    clock::Clock,
    code_defender::{
        matcher::{self, Matcher},
        risk_level::RiskLevel,
    },
    config::{self, Fingerprint},
    delivery::{outcome::describe, worker::Handle},
    destination::{DeliveryError, Destination, Receipt},
    ids::{AlertId, AppName, ChannelId, DestinationName, MessageKey, MessageTs, TsKey},
    ops::{Configuration, Control, DestinationHealth, Tested},
    secret::Secret,
    store::{Reference, Source},
};

/// A destination, and the worker that serves it.
#[derive(Clone, Debug)]
pub(super) struct Served {
    /// Of what it was made of.
    pub(super) fingerprint: Fingerprint,
    pub(super) secrets: Vec<Secret>,
    pub(super) destination: Arc<dyn Destination>,
    pub(super) worker: Handle,
}

/// What runs by one configuration.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) apps: Vec<config::App>,
    pub(super) served: Vec<Served>,
    pub(super) matching: matcher::Settings,
    pub(super) matcher: Arc<Matcher>,
    pub(super) clock: Clock,
    pub(super) configuration: Arc<ArcSwap<Configuration>>,
}

impl Running {
    fn find(&self, name: &DestinationName) -> Option<&Served> {
        self.served.iter().find(|one| one.destination.name() == name)
    }

    async fn attempt(
        &self,
        destination: &dyn Destination,
        id: &AlertId,
        posted_at: MessageTs,
        severity: RiskLevel,
    ) -> Result<Receipt, DeliveryError> {
        let test = sample::Test { app: self.apps.first(), matching: &self.matching, severity };
        let origin = Origin {
            id,
            posted_at,
            source: Source::Push.as_str(),
            event_id: "",
            team: "",
            bot_id: "",
        };
        let raw = test.message(posted_at).to_string();
        let alert = alert_of_stored(raw.as_bytes(), 0, &origin, &self.matcher)
            .map_err(|error| DeliveryError::Alert { answer: None, reason: error.to_string() })?;
        destination.deliver(&alert).await
    }
}

#[async_trait]
impl Control for Running {
    fn apps(&self) -> Vec<AppName> {
        self.apps.iter().map(|app| app.name.clone()).collect()
    }

    fn configuration(&self) -> Configuration {
        self.configuration.load().as_ref().clone()
    }

    fn destinations(&self) -> Vec<DestinationHealth> {
        let health = |one: &Served| DestinationHealth {
            name: one.destination.name().clone(),
            breaker_open: one.worker.breaker_open(),
            last_failure: one.worker.last_failure(),
        };
        self.served.iter().map(health).collect()
    }

    fn matcher(&self) -> Arc<Matcher> {
        Arc::clone(&self.matcher)
    }

    fn hurry(&self, destination: Option<&DestinationName>) {
        let meant = |one: &&Served| destination.is_none_or(|name| name == one.destination.name());
        self.served.iter().filter(meant).for_each(|one| one.worker.probe_now());
    }

    async fn test(&self, destination: &DestinationName, severity: RiskLevel) -> Option<Tested> {
        let served = self.find(destination)?;
        let app = self.apps.first()?;
        let started_at = self.clock.now();
        let posted_at = MessageTs::from_micros(started_at.micros());
        let channel = ChannelId::new(sample::channel(Some(app)));
        let message = MessageKey { app: app.name.clone(), channel, ts: TsKey::Ts(posted_at) };
        let alert = AlertId { message, ordinal: 0 };
        let started = self.clock.instant();
        let result = self.attempt(&*served.destination, &alert, posted_at, severity).await;
        let duration = self.clock.instant().saturating_duration_since(started);
        let attempt = describe(&result, started_at, duration);
        let reference = result.as_ref().map_or_else(
            |_failed| Reference::default(),
            |receipt| Reference {
                id: receipt.reference_id.clone(),
                url: receipt.reference_url.clone(),
            },
        );
        Some(Tested { alert, attempt, delivered: result.is_ok(), reference })
    }
}

/// What runs by the configuration in use, whichever that is at the moment.
#[derive(Debug)]
pub(super) struct Current(pub(super) ArcSwap<Running>);

#[async_trait]
impl Control for Current {
    fn apps(&self) -> Vec<AppName> {
        self.0.load().apps()
    }

    fn configuration(&self) -> Configuration {
        self.0.load().configuration()
    }

    fn destinations(&self) -> Vec<DestinationHealth> {
        self.0.load().destinations()
    }

    fn matcher(&self) -> Arc<Matcher> {
        self.0.load().matcher()
    }

    fn hurry(&self, destination: Option<&DestinationName>) {
        self.0.load().hurry(destination);
    }

    async fn test(&self, destination: &DestinationName, severity: RiskLevel) -> Option<Tested> {
        self.0.load_full().test(destination, severity).await
    }
}
