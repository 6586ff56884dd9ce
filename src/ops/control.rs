//! The running parts, as the API sees them.
//!
//! `cli` implements [`Control`], since only the composition root sees all parts. The trait exists for
//! that direction alone (`ops` may not use `intake`, `delivery` or `config`) and has one
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
    /// The Slack apps.
    fn apps(&self) -> Vec<AppName>;

    /// The configured destinations, in the order of the configuration.
    fn destinations(&self) -> Vec<DestinationHealth>;

    /// How the newest configuration fared.
    fn configuration(&self) -> Configuration;

    /// Reads a duration as the configuration writes it, such as `2h`.
    fn duration(&self, text: &str) -> Option<Duration>;

    /// How incidents are read.
    fn matcher(&self) -> Arc<Matcher>;

    /// An operator wants these destinations tried now, whatever their breakers say; all of them,
    /// if none is named.
    fn hurry(&self, destination: Option<&DestinationName>);

    /// Adds what is counted in memory to the store, so that it gives the newest numbers.
    ///
    /// # Errors
    /// The store failed.
    async fn write_counts(&self, store: &dyn Posters) -> Result<(), StoreError>;

    /// Returns the events of an app that were ignored since the start, by reason; of no app, if the
    /// name is empty.
    fn ignored(&self, app: &str) -> BTreeMap<&'static str, u64>;

    /// Returns the messages of an app with the title of incidents that were not taken.
    fn refused(&self, app: &AppName) -> Vec<view::Refused>;

    /// Makes of a near miss what the store would be given for its alerts.
    ///
    /// # Errors
    /// [`NoAdoption`].
    fn adopt(&self, near_miss: &NearMiss) -> Result<NewMessage, NoAdoption>;

    /// Returns which destinations want a stored alert by the configuration in use. Changes nothing.
    ///
    /// # Errors
    /// [`NoRouting`].
    fn route(&self, alert: &AlertView) -> Result<Routing, NoRouting>;

    /// Sends an unmistakable test alert to one destination, past the store.
    ///
    /// # Errors
    /// [`NoTest`]; nothing was sent.
    async fn test(
        &self,
        destination: &DestinationName,
        severity: RiskLevel,
    ) -> Result<Tested, NoTest>;

    /// The destinations that are read.
    fn feeds(&self) -> Vec<FeedKey>;

    /// What such a destination has for a reader.
    ///
    /// # Errors
    /// [`NoItems`].
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

/// Why a near miss does not become an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAdoption {
    /// Its app is not configured any more.
    Unknown(AppName),
    /// The stored message is unreadable.
    Unreadable,
}

/// The destinations that want an alert, and those that do not.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// Those that want it, in the order of the configuration.
    pub wanted_by: Vec<DestinationName>,
    /// The others, each with the key of its `when` that refuses the alert.
    pub refused_by: Vec<(DestinationName, &'static str)>,
}

/// Why it cannot be said who wants an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRouting {
    /// Retention has removed the message.
    Gone,
    /// The stored message holds no such incident.
    Unreadable,
}

/// Which history an operator means.
#[derive(Clone, Debug)]
pub struct Backfill {
    /// From when on: a duration before now or a moment. May be missing if `mark_known` is set.
    pub since: Option<String>,
    /// Up to when: as `since`; now, if it is missing.
    pub until: Option<String>,
    /// Only notes that the incidents are known, and delivers none; needs `until`.
    pub mark_known: bool,
    /// One channel, by id or name; all, if none is named.
    pub channel: Option<String>,
    /// One app; all, if none is named.
    pub app: Option<String>,
}

/// Why history was not read to its end.
#[derive(Clone, Debug)]
pub enum NoBackfill {
    /// The request cannot be meant so.
    Meaningless(String),
    /// There is no such app or channel, or none that can be read.
    Nothing(String),
    /// Slack or the store failed.
    Failed(String),
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
    /// The breaker, if it is open: one alert at a time is tried.
    pub breaker: Option<view::Breaker>,
    /// Until when the destination has asked to be left alone, if it is.
    pub quiet_until: Option<Timestamp>,
    /// Whether readers come to it, and nothing is sent.
    pub is_read: bool,
    /// The newest attempt that failed since the start.
    pub last_failure: Option<Attempt>,
    /// When a reader last asked since the start, if it is one that is read.
    pub last_read: Option<Timestamp>,
    /// What is wrong although alerts are delivered, or empty.
    pub problem: String,
}

/// A destination that is read, and what opens it.
#[derive(Clone, Debug)]
pub struct FeedKey {
    /// Its name.
    pub name: DestinationName,
    /// Its token.
    pub token: Secret,
}

/// What a reader asks for.
#[derive(Clone, Copy, Debug)]
pub struct FeedWish {
    /// The number of the last item that it has taken, with every one before it.
    pub after: i64,
    /// The most items that it wants.
    pub limit: usize,
    /// How long it waits while there is none.
    pub wait: Duration,
}

/// An item of a feed.
#[derive(Debug)]
pub struct FeedItem {
    /// Its number, larger than that of every item before it.
    pub seq: i64,
    /// The alert.
    pub alert: Alert,
}

/// Why a feed gives nothing.
#[derive(Debug)]
pub enum NoItems {
    /// There is no such feed any more.
    Gone,
    /// No number beyond this one has been given.
    Beyond(i64),
    /// The store failed.
    Store(StoreError),
}

/// Why there was no test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTest {
    /// There is no such destination.
    Unknown,
    /// Nothing is sent to it: it is read.
    Read,
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
