//! The running parts, as the API sees them.
//!
//! `cli` implements [`Control`], since only the composition root sees all parts. The trait exists
//! for that direction alone (`ops` may not use `intake`, `delivery` or `config`) and has one
//! implementation, which stands for one configuration. [`Controls`] gives the one in use, so a
//! request that asks once sees one configuration throughout.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    alert::Alert,
    clock::Timestamp,
    code_defender::{matcher::Matcher, risk_level::RiskLevel},
    ids::{AlertId, AppName, DestinationName},
    ops::view::{self, BackfillReport},
    secret::Secret,
    store::{AlertView, Attempt, NearMiss, NewMessage, Posters, Reference, StoreError},
};

/// Source of the [`Control`] in use. Cheap to clone.
#[derive(Clone)]
pub struct Controls(Arc<dyn Fn() -> Arc<dyn Control> + Send + Sync>);

impl Controls {
    /// Returns a source that calls `current` each time.
    pub fn new(current: impl Fn() -> Arc<dyn Control> + Send + Sync + 'static) -> Self {
        Self(Arc::new(current))
    }

    /// Returns the control of the configuration in use.
    pub fn current(&self) -> Arc<dyn Control> {
        (self.0)()
    }
}

impl fmt::Debug for Controls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Controls").field(&self.current()).finish()
    }
}

/// The relay as it runs by one configuration.
#[async_trait]
pub trait Control: Send + Sync + fmt::Debug {
    /// Returns the names of the Slack apps.
    fn apps(&self) -> Vec<AppName>;

    /// Returns the configured destinations, in the order of the configuration.
    fn destinations(&self) -> Vec<DestinationHealth>;

    /// Returns whether the newest configuration is in use.
    fn configuration(&self) -> Configuration;

    /// Parses a duration in the form of the configuration, such as `2h`.
    fn duration(&self, text: &str) -> Option<Duration>;

    /// Returns the matcher of the configuration in use.
    fn matcher(&self) -> Arc<Matcher>;

    /// Sends a probe now, even if the breaker is open: to one destination, or to all if `None`.
    fn probe_now(&self, destination: Option<&DestinationName>);

    /// Writes the counts that are kept in memory to the store, so that the store has the newest
    /// numbers.
    ///
    /// # Errors
    /// Fails if the store fails.
    async fn write_counts(&self, store: &dyn Posters) -> Result<(), StoreError>;

    /// Returns the number of events of an app that were ignored since the start, by reason; an
    /// empty name stands for events that belong to no app.
    fn ignored(&self, app: &str) -> BTreeMap<&'static str, u64>;

    /// Returns the messages of an app with the title of incidents that were not taken.
    fn refused(&self, app: &AppName) -> Vec<view::Refused>;

    /// Makes a near miss the message that the store accepts as alerts.
    ///
    /// # Errors
    /// Returns [`NoAdoption`].
    fn adopt(&self, near_miss: &NearMiss) -> Result<NewMessage, NoAdoption>;

    /// Returns which destinations want a stored alert by the configuration in use. Does not change
    /// anything.
    ///
    /// # Errors
    /// Returns [`NoRouting`].
    fn route(&self, alert: &AlertView) -> Result<Routing, NoRouting>;

    /// Sends an unmistakable test alert to one destination, without the store.
    ///
    /// # Errors
    /// Returns [`NoTest`] if nothing was sent.
    async fn test(
        &self,
        destination: &DestinationName,
        severity: RiskLevel,
    ) -> Result<Tested, NoTest>;

    /// Returns the configured feeds.
    fn feeds(&self) -> Vec<FeedKey>;

    /// Marks items as delivered and returns those that follow.
    ///
    /// # Errors
    /// Returns [`NoItems`].
    async fn read(&self, feed: &DestinationName, wish: FeedWish) -> Result<Vec<FeedItem>, NoItems>;

    /// Returns the state of request signing for each app.
    fn signing(&self) -> Vec<(AppName, view::Signing)>;

    /// Returns the state of catch-up for each app that has a token.
    fn catch_up(&self) -> Vec<(AppName, view::CatchUp)>;

    /// Reads history now.
    ///
    /// # Errors
    /// Returns [`NoBackfill`]. Messages that were read before the failure are stored.
    async fn backfill(&self, request: &Backfill) -> Result<BackfillReport, NoBackfill>;
}

/// Reason why a near miss does not become an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAdoption {
    /// The near miss's app is no longer configured.
    Unknown(AppName),
    /// The stored message is unreadable.
    Unreadable,
}

/// The destinations that want an alert, and those that do not.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// Destinations that want the alert, in the order of the configuration.
    pub wanted_by: Vec<DestinationName>,
    /// Other destinations, each with the key of its `when` that refuses the alert.
    pub refused_by: Vec<(DestinationName, &'static str)>,
}

/// Reason why an alert cannot be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRouting {
    /// Retention has removed the message.
    Gone,
    /// The stored message does not hold such an incident.
    Unreadable,
}

/// The part of history that an operator asks for.
#[derive(Clone, Debug)]
pub struct Backfill {
    /// Beginning: a duration before now, or a time. May be absent if `mark_known` is set.
    pub since: Option<String>,
    /// End, in the same forms; now, if absent.
    pub until: Option<String>,
    /// `true` notes incidents as known and delivers none; needs `until`.
    pub mark_known: bool,
    /// Id or name of one channel; every channel, if absent.
    pub channel: Option<String>,
    /// Name of one app; every app, if absent.
    pub app: Option<String>,
}

/// Reason why history was not read to its end.
#[derive(Clone, Debug)]
pub enum NoBackfill {
    /// The request contradicts itself or cannot be parsed.
    Invalid(String),
    /// No app can read such a channel.
    Nothing(String),
    /// Slack or the store failed.
    Failed(String),
}

/// The configuration in use.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Time at which the configuration was taken into use.
    pub in_use_since: Timestamp,
    /// The newest configuration, if it was refused.
    pub refused: Option<Refused>,
}

impl From<Configuration> for view::Configuration {
    fn from(one: Configuration) -> Self {
        Self {
            is_newest: one.refused.is_none(),
            in_use_since: one.in_use_since,
            refused_at: one.refused.as_ref().map(|refused| refused.at),
            refused_reason: one.refused.map(|refused| refused.reason).unwrap_or_default(),
        }
    }
}

/// A configuration that was refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Time of the refusal.
    pub at: Timestamp,
    /// Every mistake of the configuration, as text for a person.
    pub reason: String,
}

/// The health of one destination.
#[derive(Clone, Debug)]
pub struct DestinationHealth {
    /// Name of the destination.
    pub name: DestinationName,
    /// The breaker, if it is open.
    pub breaker: Option<view::Breaker>,
    /// Time until which the destination has asked for no requests.
    pub quiet_until: Option<Timestamp>,
    /// `true` if the destination is a feed.
    pub is_read: bool,
    /// Newest failed attempt since the start.
    pub last_failure: Option<Attempt>,
    /// Time at which a reader of the feed last asked since the start.
    pub last_read: Option<Timestamp>,
    /// Fault that does not stop deliveries, or empty.
    pub problem: String,
}

/// A feed and its token.
#[derive(Clone, Debug)]
pub struct FeedKey {
    /// Name of the feed.
    pub name: DestinationName,
    /// Token that opens the feed.
    pub token: Secret,
}

/// A reader's request.
#[derive(Clone, Copy, Debug)]
pub struct FeedWish {
    /// Number of the last item that the reader has taken, with every item before it.
    pub after: i64,
    /// Most items of the answer.
    pub limit: usize,
    /// Time to wait while there is no item.
    pub wait: Duration,
}

/// An item of a feed.
#[derive(Debug)]
pub struct FeedItem {
    /// Number of the item, larger than that of every item before it.
    pub seq: i64,
    /// Alert of the item.
    pub alert: Alert,
}

/// Reason why a feed does not answer.
#[derive(Debug)]
pub enum NoItems {
    /// The feed is no longer configured.
    Gone,
    /// Numbers beyond this one have not been given to any item.
    Beyond(i64),
    /// The store failed.
    Store(StoreError),
}

/// Reason why no test alert was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTest {
    /// The destination is not configured.
    Unknown,
    /// The destination is a feed, so nothing is sent to it.
    Read,
}

/// Result of a test.
#[derive(Clone, Debug)]
pub struct Tested {
    /// Id of the test alert.
    pub alert: AlertId,
    /// The attempt itself.
    pub attempt: Attempt,
    /// `true` if the destination accepted the alert.
    pub delivered: bool,
    /// Case that the destination made of the alert.
    pub reference: Reference,
}
