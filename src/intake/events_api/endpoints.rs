//! Which app a request is for: by its path, by the secret that signed it, and by its workspace.

use std::sync::Arc;

use metrics::Counter;

use crate::{
    ids::AppName,
    intake::{
        Admission,
        fate::{Fate, FateCounters},
        notice::{Notice, Notices},
    },
    metrics::{Metric, Metrics},
    secret::Secret,
    slack::{
        envelope::Teams,
        signature::{Signed, Verifier},
    },
    store::Source,
};

/// The path that serves every app.
pub(super) const SHORT_PATH: &str = "/slack/events";

/// The most distinct secrets that the short path tries: a stranger's body is hashed once for each.
pub const MAX_SHORT_PATH_SECRETS: usize = 16;

/// One Slack app that may send us events.
#[derive(Clone, Debug)]
pub struct App {
    /// Its configured name.
    pub name: AppName,
    /// Its signing secret, and the previous one while it is rotated.
    pub signing_secrets: Vec<Secret>,
    /// The workspace or organisation whose events it takes; every one if there is none.
    pub team: Option<String>,
    /// Where its poller hears of what it should know.
    pub notices: Notices,
}

/// What is known of one app, and its counters.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) app: AppName,
    team: Option<String>,
    secrets: Vec<Secret>,
    pub(super) admission: Arc<Admission>,
    pub(super) notices: Notices,
    pub(super) rate_limited: Counter,
    pub(super) counters: Counters,
}

/// Counters of requests under the name of an app, or under none.
#[derive(Debug)]
pub(super) struct Counters {
    received: Counter,
    tests: Counter,
    pub(super) fates: FateCounters,
}

/// A path, and the apps that may be posted to there.
#[derive(Debug)]
pub(super) struct Door {
    path: String,
    pub(super) verifier: Verifier,
    endpoints: Vec<Arc<Endpoint>>,
    /// For requests of which no app can be told.
    unclaimed: Arc<Counters>,
}

/// Every path that leads to an app.
#[derive(Debug)]
pub(super) struct Doors(Vec<Door>);

impl Counters {
    fn new(app: &str, metrics: &Metrics) -> Self {
        Self {
            received: metrics.counter(Metric::EventsReceived, &[app, Source::Push.as_str()]),
            tests: metrics.counter(Metric::EventsReceived, &[app, "test"]),
            fates: FateCounters::new(app, metrics),
        }
    }
}

impl Counters {
    /// Returns the counter for a signed request: of Slack's, or of an operator's test.
    pub(super) fn received(&self, is_test: bool) -> &Counter {
        if is_test { &self.tests } else { &self.received }
    }
}

impl Endpoint {
    fn new(app: App, admission: Arc<Admission>, metrics: &Metrics) -> Self {
        let name = app.name.as_str();
        for source in [Source::CatchUp, Source::Backfill] {
            metrics.counter(Metric::EventsReceived, &[name, source.as_str()]).increment(0);
        }
        Self {
            admission,
            team: app.team,
            secrets: app.signing_secrets,
            notices: app.notices,
            rate_limited: metrics.counter(Metric::AppRateLimited, &[name]),
            counters: Counters::new(name, metrics),
            app: app.name,
        }
    }
}

impl Door {
    fn new(path: String, endpoints: Vec<Arc<Endpoint>>, unclaimed: &Arc<Counters>) -> Self {
        // Apps may share one secret: its file is read once, and its value tried once.
        let mut secrets: Vec<Secret> = Vec::new();
        for secret in endpoints.iter().flat_map(|endpoint| &endpoint.secrets) {
            if !secrets.contains(secret) {
                secrets.push(secret.clone());
            }
        }
        let verifier = Verifier::new(secrets);
        Self { path, verifier, endpoints, unclaimed: Arc::clone(unclaimed) }
    }

    /// Returns the app that a signed request is for. `None` if the request names a workspace, and
    /// none of the apps with that secret takes its events. A request that names none is for the
    /// first of them.
    pub(super) fn owner(&self, signed: &Signed, teams: Option<&Teams<'_>>) -> Option<&Endpoint> {
        self.holders(signed).find(|endpoint| match (&endpoint.team, teams) {
            (Some(team), Some(teams)) => teams.contain(team),
            (None, _) | (_, None) => true,
        })
    }

    /// Returns the counters for a signed request that is for no app: those of the only app with
    /// that secret, if there is just one.
    pub(super) fn counters_without_owner(&self, signed: &Signed) -> &Counters {
        let mut holders = self.holders(signed);
        match (holders.next(), holders.next()) {
            (Some(only), None) => &only.counters,
            (None, _) | (_, Some(_)) => &self.unclaimed,
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Tells the pollers that something was answered 503, which Slack may not send again.
    pub(super) fn tell_refused(&self) {
        for endpoint in &self.endpoints {
            endpoint.notices.tell(Notice::Refused);
        }
    }

    /// Counts a request that is refused before anybody knows whose it is.
    pub(super) fn count_refused(&self, fate: Fate) {
        match self.endpoints.as_slice() {
            [only] => only.counters.fates.count(fate),
            _ => self.unclaimed.fates.count(fate),
        }
    }

    /// The apps that have the secret which made the signature.
    fn holders(&self, signed: &Signed) -> impl Iterator<Item = &Endpoint> {
        let is_only = self.endpoints.len() == 1;
        let holds = |secrets: &[Secret]| secrets.iter().any(|secret| signed.is_by(secret));
        self.endpoints
            .iter()
            .map(AsRef::as_ref)
            .filter(move |endpoint: &&Endpoint| is_only || holds(&endpoint.secrets))
    }
}

impl Doors {
    pub(super) fn new(apps: Vec<App>, admission: &Arc<Admission>, metrics: &Metrics) -> Self {
        let unclaimed = Arc::new(Counters::new("", metrics));
        let endpoint = |app| Arc::new(Endpoint::new(app, Arc::clone(admission), metrics));
        let endpoints: Vec<_> = apps.into_iter().map(endpoint).collect();
        let own = |endpoint: &Arc<Endpoint>| {
            let path = format!("{SHORT_PATH}/{}", endpoint.app);
            Door::new(path, vec![Arc::clone(endpoint)], &unclaimed)
        };
        let mut doors: Vec<Door> = endpoints.iter().map(own).collect();
        let secrets = endpoints.iter().flat_map(|endpoint| endpoint.secrets.clone());
        if is_short_path_served(&secrets.collect::<Vec<_>>()) {
            doors.insert(0, Door::new(SHORT_PATH.to_owned(), endpoints, &unclaimed));
        }
        Self(doors)
    }

    pub(super) fn find(&self, path: &str) -> Option<&Door> {
        self.0.iter().find(|door| door.path == path)
    }
}

/// Returns whether apps with these signing secrets can be told apart on the short path.
pub fn is_short_path_served(secrets: &[Secret]) -> bool {
    let mut values: Vec<_> = secrets.iter().map(Secret::reveal).collect();
    values.sort_unstable();
    values.dedup();
    values.len() <= MAX_SHORT_PATH_SECRETS
}
