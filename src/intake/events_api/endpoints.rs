//! The paths of the Events API, and the app that a request is for: by its path, by the secret that
//! signed it, and by its workspace.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::Counter;

use super::signing::{SigningHealth, SigningStats};
use crate::{
    ground::Ground,
    ids::AppName,
    intake::{
        Admission,
        fate::{Fate, FateCounters},
        notes::Notes,
        notice::{Notice, Notices},
        trace::ProblemCounters,
    },
    metrics::{Metric, Metrics},
    secret::Secret,
    slack::{
        envelope::Teams,
        signature::{Signed, Verifier},
    },
    store::Source,
};

/// Path that serves every app.
pub(super) const SHORT_PATH: &str = "/slack/events";

/// Number of distinct secrets that the short path tries at most: a stranger's body is hashed once
/// for each.
pub const MAX_SHORT_PATH_SECRETS: usize = 16;

/// Longest time for which the secret files of one Slack app may differ while they are rotated one
/// after the other, even if the relay was started in between.
///
/// During this time an event for an app whose secret may still change is refused. Slack sends the
/// event again after a minute, and after five.
const SETTLING: Duration = Duration::from_secs(600);

/// Settings of one Slack app that sends events.
#[derive(Clone, Debug)]
pub struct AppSettings {
    /// Configured name of the app.
    pub name: AppName,
    /// Signing secret, and the previous one while it is rotated.
    pub signing_secrets: Vec<Secret>,
    /// Workspace or organisation whose events the app takes; `None` for all.
    pub team: Option<String>,
    /// Channel to the app's poller.
    pub notices: Notices,
}

/// One configured app with its counters.
#[derive(Debug)]
pub(super) struct ReceivingApp {
    pub(super) name: AppName,
    team: Option<String>,
    secrets: Vec<Secret>,
    pub(super) admission: Arc<Admission>,
    pub(super) notices: Notices,
    pub(super) rate_limited: Counter,
    pub(super) counters: Counters,
    pub(super) problems: ProblemCounters,
    pub(super) signing: Arc<SigningStats>,
}

/// Counters of requests under the name of an app, or under an empty name.
#[derive(Debug)]
pub(super) struct Counters {
    received: Counter,
    tests: Counter,
    pub(super) fates: FateCounters,
}

/// A path to which Slack posts, and the apps it serves.
#[derive(Debug)]
pub(super) struct Endpoint {
    path: String,
    pub(super) verifier: Verifier,
    apps: Vec<Arc<ReceivingApp>>,
    /// Counters of requests that belong to no app.
    unclaimed: Arc<Counters>,
    settling: Mutex<Settling>,
}

/// Version of the secrets that was seen last, and the uptime at which it was new.
#[derive(Debug)]
struct Settling {
    version: u64,
    since: Duration,
}

/// App to which a signed request belongs.
#[derive(Debug)]
pub(super) enum Owner<'e> {
    App(&'e Arc<ReceivingApp>),
    /// No app with that secret takes events of the request's workspace.
    Nobody,
    /// An app takes events of the workspace, but its secret may not have been rotated yet.
    Unsettled,
}

/// All endpoints of a configuration.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Vec<Arc<Endpoint>>,
    unclaimed: Arc<Counters>,
}

impl Counters {
    fn new(app: &str, metrics: &Metrics, notes: &Arc<Notes>) -> Self {
        Self {
            received: metrics.counter(Metric::EventsReceived, &[app, Source::Push.as_str()]),
            tests: metrics.counter(Metric::EventsReceived, &[app, "test"]),
            fates: FateCounters::new(app, metrics, notes),
        }
    }

    /// Returns the counter for a signed request: a push, or an operator's test.
    pub(super) const fn received(&self, is_test: bool) -> &Counter {
        if is_test { &self.tests } else { &self.received }
    }
}

impl ReceivingApp {
    fn new(
        settings: AppSettings,
        admission: Arc<Admission>,
        metrics: &Metrics,
        notes: &Arc<Notes>,
        signing: Arc<SigningStats>,
    ) -> Self {
        let name = settings.name.as_str();
        // Alert rules need the series from the start.
        for source in [Source::CatchUp, Source::Backfill] {
            metrics.counter(Metric::EventsReceived, &[name, source.as_str()]).increment(0);
        }
        Self {
            admission,
            team: settings.team,
            secrets: settings.signing_secrets,
            notices: settings.notices,
            rate_limited: metrics.counter(Metric::AppRateLimited, &[name]),
            counters: Counters::new(name, metrics, notes),
            problems: ProblemCounters::new(name, metrics),
            signing,
            name: settings.name,
        }
    }

    fn holds(&self, signed: &Signed) -> bool {
        self.secrets.iter().any(|secret| signed.is_by(secret))
    }

    fn is_rotated_with(&self, signed: &Signed) -> bool {
        self.secrets.iter().any(|secret| signed.is_rotated_with(secret))
    }
}

impl Endpoint {
    fn new(
        path: String,
        apps: Vec<Arc<ReceivingApp>>,
        unclaimed: &Arc<Counters>,
        uptime: Duration,
    ) -> Self {
        // Apps may share a secret: its file is read once, and its value tried once.
        let mut secrets: Vec<Secret> = Vec::new();
        for secret in apps.iter().flat_map(|app| &app.secrets) {
            if !secrets.contains(secret) {
                secrets.push(secret.clone());
            }
        }
        let verifier = Verifier::new(secrets);
        let settling = Mutex::new(Settling { version: verifier.version(), since: uptime });
        Self { path, verifier, apps, unclaimed: Arc::clone(unclaimed), settling }
    }

    /// Returns the app to which a signed request belongs.
    ///
    /// A type of body that does not name a workspace belongs to the first app with that secret. A
    /// body that names none although its type does belongs to the only app with that secret.
    pub(super) fn owner(
        &self,
        signed: &Signed,
        teams: Option<&Teams<'_>>,
        uptime: Duration,
    ) -> Owner<'_> {
        let version = self.verifier.version();
        let mut found = self.find(signed, teams);
        // Another file may have changed after the one whose secret made the signature.
        if found.is_none() && self.verifier.read_again(version) {
            found = self.find(signed, teams);
        }
        match (found, teams) {
            (Some(app), _) => Owner::App(app),
            (None, Some(teams)) if self.is_settling(uptime) && self.serves_another(teams) => {
                Owner::Unsettled
            }
            (None, _) => Owner::Nobody,
        }
    }

    fn find(&self, signed: &Signed, teams: Option<&Teams<'_>>) -> Option<&Arc<ReceivingApp>> {
        match teams {
            None => self.holders(signed).next(),
            Some(teams) if teams.is_empty() => self.only_holder(signed),
            // While the files of one Slack app differ for a moment, the request may belong to an
            // app whose own secret has not changed yet.
            Some(teams) => for_team(|| self.holders(signed), teams)
                .or_else(|| for_team(|| self.rotated_with(signed), teams)),
        }
    }

    /// Returns the apps with the secret that made the signature.
    fn holders(&self, signed: &Signed) -> impl Iterator<Item = &Arc<ReceivingApp>> {
        let is_only = self.apps.len() == 1;
        self.apps.iter().filter(move |app| is_only || app.holds(signed))
    }

    fn only_holder(&self, signed: &Signed) -> Option<&Arc<ReceivingApp>> {
        let mut holders = self.holders(signed);
        holders.next().filter(|_| holders.next().is_none())
    }

    /// Returns the apps whose secret is rotated together with the one that made the signature.
    fn rotated_with(&self, signed: &Signed) -> impl Iterator<Item = &Arc<ReceivingApp>> {
        self.apps.iter().filter(|app| app.is_rotated_with(signed))
    }

    /// Returns whether the secrets were loaded or changed a short while ago.
    fn is_settling(&self, uptime: Duration) -> bool {
        let version = self.verifier.version();
        let mut settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        if settling.version != version {
            *settling = Settling { version, since: uptime };
        }
        uptime.saturating_sub(settling.since) < SETTLING
    }

    /// Returns whether one of several apps takes the events of that workspace.
    fn serves_another(&self, teams: &Teams<'_>) -> bool {
        self.apps.len() > 1
            && self.apps.iter().any(|app| {
                let is_named =
                    |team: &String| teams.name_workspace(team) || teams.name_organisation(team);
                app.team.as_ref().is_some_and(is_named)
            })
    }

    /// Returns the counters for a signed request that belongs to no app: those of the app with that
    /// secret if there is only one.
    pub(super) fn counters_without_owner(&self, signed: &Signed) -> &Counters {
        self.only_holder(signed).map_or(&self.unclaimed, |only| &only.counters)
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn apps(&self) -> &[Arc<ReceivingApp>] {
        &self.apps
    }

    /// Tells the pollers that an event was answered 503, which Slack may not send again.
    pub(super) fn notify_refused(&self) {
        for app in &self.apps {
            app.notices.tell(Notice::Refused);
        }
    }

    /// Counts a request that is refused before its app is known.
    pub(super) fn count_refused(&self, fate: Fate) {
        match self.apps.as_slice() {
            [only] => only.counters.fates.count(fate),
            _ => self.unclaimed.fates.count(fate),
        }
    }
}

/// Returns the app that takes the events of a workspace named by the request, or else of its
/// organisation. An app without `team` takes those of all.
fn for_team<'e, I: Iterator<Item = &'e Arc<ReceivingApp>>>(
    apps: impl Fn() -> I,
    teams: &Teams<'_>,
) -> Option<&'e Arc<ReceivingApp>> {
    let is_workspace = |team: &String| teams.name_workspace(team);
    let is_organisation = |team: &String| teams.name_organisation(team);
    apps()
        .find(|app| app.team.as_ref().is_none_or(is_workspace))
        .or_else(|| apps().find(|app| app.team.as_ref().is_some_and(is_organisation)))
}

impl Endpoints {
    /// Creates the endpoints of these apps. Signing statistics are taken over from the endpoints
    /// `before`.
    pub(super) fn new(
        apps: Vec<AppSettings>,
        admission: &Arc<Admission>,
        notes: &Arc<Notes>,
        ground: &Ground,
        before: Option<&Self>,
    ) -> Self {
        let uptime = ground.clock.uptime();
        let metrics = &ground.metrics;
        let unclaimed = Arc::new(Counters::new("", metrics, notes));
        let receiving = |app: AppSettings| {
            let signing = before.and_then(|endpoints| endpoints.signing_of(&app.name));
            let signing = signing.unwrap_or_default();
            Arc::new(ReceivingApp::new(app, Arc::clone(admission), metrics, notes, signing))
        };
        let apps: Vec<_> = apps.into_iter().map(receiving).collect();
        let endpoint = |path: String, apps: Vec<Arc<ReceivingApp>>| {
            Arc::new(Endpoint::new(path, apps, &unclaimed, uptime))
        };
        let own = |app: &Arc<ReceivingApp>| {
            endpoint(format!("{SHORT_PATH}/{}", app.name), vec![Arc::clone(app)])
        };
        let mut all: Vec<Arc<Endpoint>> = apps.iter().map(own).collect();
        let secrets = apps.iter().flat_map(|app| app.secrets.clone());
        // The short path tries every secret on each body, strangers' included, so it is served for
        // a few secrets only.
        if is_short_path_served(&secrets.collect::<Vec<_>>()) {
            all.insert(0, endpoint(SHORT_PATH.to_owned(), apps));
        }
        Self { all, unclaimed }
    }

    fn apps(&self) -> impl Iterator<Item = &Arc<ReceivingApp>> {
        self.all.iter().flat_map(|endpoint| &endpoint.apps)
    }

    fn signing_of(&self, app: &AppName) -> Option<Arc<SigningStats>> {
        self.apps().find(|known| known.name == *app).map(|app| Arc::clone(&app.signing))
    }

    /// Returns the signing health of each app.
    pub(super) fn signing(&self) -> Vec<(AppName, SigningHealth)> {
        let mut all: Vec<(AppName, SigningHealth)> = Vec::new();
        for app in self.apps() {
            if all.iter().all(|(known, _)| *known != app.name) {
                all.push((app.name.clone(), app.signing.health()));
            }
        }
        all
    }

    pub(super) fn find(&self, path: &str) -> Option<&Arc<Endpoint>> {
        self.all.iter().find(|endpoint| endpoint.path == path)
    }

    /// Counts a request that is not for a configured app.
    pub(super) fn count_unclaimed(&self, fate: Fate) {
        self.unclaimed.fates.count(fate);
    }
}

/// Returns whether the short path is served for apps with these signing secrets.
pub fn is_short_path_served(secrets: &[Secret]) -> bool {
    let mut values: Vec<_> = secrets.iter().map(Secret::reveal).collect();
    values.sort_unstable();
    values.dedup();
    values.len() <= MAX_SHORT_PATH_SECRETS
}
