//! Which app a request is for: by its path, by the secret that signed it, and by its workspace.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::Counter;

use super::signing::{Signing, SigningHealth};
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

/// The path that serves every app.
pub(super) const SHORT_PATH: &str = "/slack/events";

/// The most distinct secrets that the short path tries: a stranger's body is hashed once for each.
pub const MAX_SHORT_PATH_SECRETS: usize = 16;

/// Secret files of one Slack app that are rotated one after the other differ for no longer, even
/// where the relay was started in between: an event for an app whose secret may not have followed
/// yet is refused so long, and Slack sends it again after a minute, and after five.
const SETTLING: Duration = Duration::from_secs(600);

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
    pub(super) problems: ProblemCounters,
    pub(super) signing: Arc<Signing>,
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
    /// The version of the secrets that was found last, and when.
    changed: Mutex<(u64, Duration)>,
}

/// Whose a signed request is.
#[derive(Debug)]
pub(super) enum Owner<'d> {
    /// That app's.
    App(&'d Arc<Endpoint>),
    /// It is for a workspace that no app with that secret takes events of.
    Nobody,
    /// It is for the workspace of an app whose secret may not have been rotated yet.
    Unsettled,
}

/// Every path that leads to an app.
#[derive(Debug)]
pub(super) struct Doors(Vec<Door>);

impl Counters {
    fn new(app: &str, metrics: &Metrics, notes: &Arc<Notes>) -> Self {
        Self {
            received: metrics.counter(Metric::EventsReceived, &[app, Source::Push.as_str()]),
            tests: metrics.counter(Metric::EventsReceived, &[app, "test"]),
            fates: FateCounters::new(app, metrics, notes),
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
    fn new(
        app: App,
        admission: Arc<Admission>,
        notes: &Arc<Notes>,
        metrics: &Metrics,
        signing: Arc<Signing>,
    ) -> Self {
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
            counters: Counters::new(name, metrics, notes),
            problems: ProblemCounters::new(name, metrics),
            signing,
            app: app.name,
        }
    }

    fn holds(&self, signed: &Signed) -> bool {
        self.secrets.iter().any(|secret| signed.is_by(secret))
    }

    fn goes_with(&self, signed: &Signed) -> bool {
        self.secrets.iter().any(|secret| signed.goes_with(secret))
    }
}

impl Door {
    fn new(
        path: String,
        endpoints: Vec<Arc<Endpoint>>,
        unclaimed: &Arc<Counters>,
        now: Duration,
    ) -> Self {
        // Apps may share one secret: its file is read once, and its value tried once.
        let mut secrets: Vec<Secret> = Vec::new();
        for secret in endpoints.iter().flat_map(|endpoint| &endpoint.secrets) {
            if !secrets.contains(secret) {
                secrets.push(secret.clone());
            }
        }
        let verifier = Verifier::new(secrets);
        let changed = Mutex::new((verifier.version(), now));
        Self { path, verifier, endpoints, unclaimed: Arc::clone(unclaimed), changed }
    }

    /// Returns whose a signed request is. If it is of a type that names no workspace, it belongs to
    /// the first app with that secret; if it names none though its type does, to the only one.
    pub(super) fn owner(
        &self,
        signed: &Signed,
        teams: Option<&Teams<'_>>,
        now: Duration,
    ) -> Owner<'_> {
        let version = self.verifier.version();
        let mut found = self.find(signed, teams);
        // Another file may have followed the one that made the signature hold.
        if found.is_none() && self.verifier.read_again(version) {
            found = self.find(signed, teams);
        }
        match (found, teams) {
            (Some(endpoint), _) => Owner::App(endpoint),
            (None, Some(teams)) if self.is_settling(now) && self.serves_another(teams) => {
                Owner::Unsettled
            }
            (None, _) => Owner::Nobody,
        }
    }

    fn find(&self, signed: &Signed, teams: Option<&Teams<'_>>) -> Option<&Arc<Endpoint>> {
        match teams {
            None => self.holders(signed).next(),
            Some(teams) if teams.is_empty() => self.only_holder(signed),
            Some(teams) => of_team(|| self.holders(signed), teams)
                .or_else(|| of_team(|| self.followers(signed), teams)),
        }
    }

    fn only_holder(&self, signed: &Signed) -> Option<&Arc<Endpoint>> {
        let mut holders = self.holders(signed);
        holders.next().filter(|_| holders.next().is_none())
    }

    /// The apps whose secret is rotated with the one that made the signature, while the files
    /// differ for a moment: they are the same Slack app's.
    fn followers(&self, signed: &Signed) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(|endpoint| endpoint.goes_with(signed))
    }

    /// Returns whether the secrets were read or changed a short while ago.
    fn is_settling(&self, now: Duration) -> bool {
        let version = self.verifier.version();
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if changed.0 != version {
            *changed = (version, now);
        }
        now.saturating_sub(changed.1) < SETTLING
    }

    /// Returns whether one of several apps takes the events of that workspace.
    fn serves_another(&self, teams: &Teams<'_>) -> bool {
        self.endpoints.len() > 1
            && self.endpoints.iter().any(|endpoint| {
                let is_named =
                    |team: &String| teams.name_workspace(team) || teams.name_organisation(team);
                endpoint.team.as_ref().is_some_and(is_named)
            })
    }

    /// Returns the counters for a signed request that is for no app: those of the only app with
    /// that secret, if there is just one.
    pub(super) fn counters_without_owner(&self, signed: &Signed) -> &Counters {
        self.only_holder(signed).map_or(&self.unclaimed, |only| &only.counters)
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

    /// How requests to the apps of this path are signed.
    pub(super) fn signing(&self) -> impl Iterator<Item = (&AppName, &Signing)> {
        self.endpoints.iter().map(|endpoint| (&endpoint.app, &*endpoint.signing))
    }

    /// Counts a request that is refused before anybody knows whose it is.
    pub(super) fn count_refused(&self, fate: Fate) {
        match self.endpoints.as_slice() {
            [only] => only.counters.fates.count(fate),
            _ => self.unclaimed.fates.count(fate),
        }
    }

    /// The apps that have the secret which made the signature.
    fn holders(&self, signed: &Signed) -> impl Iterator<Item = &Arc<Endpoint>> {
        let is_only = self.endpoints.len() == 1;
        self.endpoints.iter().filter(move |endpoint| is_only || endpoint.holds(signed))
    }
}

/// Returns the app that takes the events of a workspace that is named, or else of an organisation.
/// An app without `team` takes those of all.
fn of_team<'d, I: Iterator<Item = &'d Arc<Endpoint>>>(
    apps: impl Fn() -> I,
    teams: &Teams<'_>,
) -> Option<&'d Arc<Endpoint>> {
    let is_workspace = |team: &String| teams.name_workspace(team);
    let is_organisation = |team: &String| teams.name_organisation(team);
    apps()
        .find(|endpoint| endpoint.team.as_ref().is_none_or(is_workspace))
        .or_else(|| apps().find(|endpoint| endpoint.team.as_ref().is_some_and(is_organisation)))
}

impl Doors {
    /// Every path that leads to these apps. What is known of their requests is taken over from the
    /// doors `before`.
    pub(super) fn new(
        apps: Vec<App>,
        admission: &Arc<Admission>,
        notes: &Arc<Notes>,
        ground: &Ground,
        before: Option<&Self>,
    ) -> Self {
        let now = ground.clock.uptime();
        let unclaimed = Arc::new(Counters::new("", &ground.metrics, notes));
        let endpoint = |app: App| {
            let signing = before.and_then(|doors| doors.signing_of(&app.name));
            let signing = signing.unwrap_or_default();
            Arc::new(Endpoint::new(app, Arc::clone(admission), notes, &ground.metrics, signing))
        };
        let endpoints: Vec<_> = apps.into_iter().map(endpoint).collect();
        let own = |endpoint: &Arc<Endpoint>| {
            let path = format!("{SHORT_PATH}/{}", endpoint.app);
            Door::new(path, vec![Arc::clone(endpoint)], &unclaimed, now)
        };
        let mut doors: Vec<Door> = endpoints.iter().map(own).collect();
        let secrets = endpoints.iter().flat_map(|endpoint| endpoint.secrets.clone());
        if is_short_path_served(&secrets.collect::<Vec<_>>()) {
            doors.insert(0, Door::new(SHORT_PATH.to_owned(), endpoints, &unclaimed, now));
        }
        Self(doors)
    }

    fn signing_of(&self, app: &AppName) -> Option<Arc<Signing>> {
        let all = self.0.iter().flat_map(|door| &door.endpoints);
        let mut of_app = all.filter(|endpoint| endpoint.app == *app);
        of_app.next().map(|endpoint| Arc::clone(&endpoint.signing))
    }

    /// How requests to each app are signed.
    pub(super) fn signing(&self) -> Vec<(AppName, SigningHealth)> {
        let mut all: Vec<(AppName, SigningHealth)> = Vec::new();
        for (app, signing) in self.0.iter().flat_map(Door::signing) {
            if all.iter().all(|(known, _)| known != app) {
                all.push((app.clone(), signing.health()));
            }
        }
        all
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
