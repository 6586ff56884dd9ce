//! What the API knows of the running parts, and asks of them. `cli` implements it, since only the
//! composition root sees them all.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    clock::Timestamp,
    code_defender::{matcher::Matcher, risk_level::RiskLevel},
    ids::{AlertId, AppName, DestinationName},
    store::{Attempt, Reference},
};

/// The running relay, as far as the API needs it.
#[async_trait]
pub trait Control: Send + Sync + fmt::Debug {
    /// The Slack apps.
    fn apps(&self) -> Vec<AppName>;

    /// The configured destinations, in the order of the configuration.
    fn destinations(&self) -> Vec<DestinationHealth>;

    /// How the newest configuration fared.
    fn configuration(&self) -> Configuration;

    /// How incidents are read.
    fn matcher(&self) -> Arc<Matcher>;

    /// An operator wants these destinations tried now, whatever their breakers say; all of them,
    /// if none is named.
    fn hurry(&self, destination: Option<&DestinationName>);

    /// Sends an unmistakable test alert to one destination, past the store. `None` if there is no
    /// such destination.
    async fn test(&self, destination: &DestinationName, severity: RiskLevel) -> Option<Tested>;
}

/// Which configuration is in use.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Since when.
    pub in_use_since: Timestamp,
    /// The newest one, if it was refused: the one before it stays in use.
    pub refused: Option<Refused>,
}

/// A configuration that is not in use.
#[derive(Clone, Debug)]
pub struct Refused {
    /// When it was refused.
    pub at: Timestamp,
    /// Everything that is wrong with it, for the person who can mend it.
    pub reason: String,
}

/// How a destination's worker is doing.
#[derive(Clone, Debug)]
pub struct DestinationHealth {
    /// Its name.
    pub name: DestinationName,
    /// Only probes are sent.
    pub breaker_open: bool,
    /// The newest attempt that failed since the start.
    pub last_failure: Option<Attempt>,
}

/// What became of a test.
#[derive(Clone, Debug)]
pub struct Tested {
    /// The id under which the test alert went.
    pub alert: AlertId,
    /// How the attempt went.
    pub attempt: Attempt,
    /// Whether the destination took it.
    pub delivered: bool,
    /// What the destination made of it.
    pub reference: Reference,
}
