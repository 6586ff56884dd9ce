//! The parts that run by the configuration in use, and their replacement: all or nothing.
//!
//! The receiver takes one snapshot for each request. A worker whose destination is unchanged goes
//! on, with its breaker; the others stop after their attempts in flight, and new ones start. The
//! store and the listeners stay.

use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::series::{name_every_metric, name_metrics_of};
use crate::{
    cli::{
        catch_up::{self, AppChannels, AppNotices, CatchUp, Following},
        control::{Current, Running, Served, ServedBy},
    },
    clock::Timestamp,
    code_defender::matcher::Matcher,
    config::{self, Config},
    delivery::{
        feed::Feed,
        worker::{Worker, WorkerPlan},
    },
    destination::Destination,
    ground::Ground,
    ids::DestinationName,
    intake::{
        Admission,
        catch_up::PollerParts,
        events_api::{self, EventsApi},
        notes::Notes,
        routing::Route,
    },
    ops::{Configuration, Refused},
    secret::Secret,
    store::Retention,
};

/// The parts that a reload may replace.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) ground: Ground,
    pub(super) events_api: EventsApi,
    pub(super) current: Arc<Current>,
    configuration: Arc<ArcSwap<Configuration>>,
    /// Matcher of the workers.
    matcher: Arc<ArcSwap<Matcher>>,
    /// Admission rules of the pollers.
    admission: Arc<ArcSwap<Admission>>,
    /// Counts of admitted and ignored messages, by bot and reason.
    notes: Arc<Notes>,
    /// Time at which the process was first ready.
    ready_at: Timestamp,
    /// Configuration in use. The lock makes reloads follow one another.
    in_use: Mutex<InUse>,
}

/// The configuration in use, and the pollers that run by it.
#[derive(Debug)]
struct InUse {
    config: Config,
    following: Following,
}

/// The changes of a reload.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) destinations: Diff,
    pub(super) apps: Diff,
    /// Other top-level keys of the file that changed.
    pub(super) keys: Vec<&'static str>,
}

/// Names that were added, changed and removed.
#[derive(Debug, Default)]
pub(super) struct Diff {
    pub(super) added: Vec<String>,
    pub(super) changed: Vec<String>,
    pub(super) removed: Vec<String>,
}

/// A configured destination, and its client if the destination is new or changed.
type Prepared<'c> = (&'c config::DestinationConfig, Option<Arc<Destination>>);

impl Live {
    /// Builds everything and starts the workers.
    ///
    /// # Errors
    /// Fails if a destination cannot be built; nothing has started then.
    pub(super) async fn start(ground: Ground, config: Config) -> anyhow::Result<Arc<Self>> {
        name_every_metric(&config, &ground.metrics);
        let matcher = Arc::new(Matcher::new(config.matching.clone()));
        let prepared = prepare(&config, &[], &ground)?;
        let catch_up =
            catch_up::prepare(&config, ground.store.as_ref(), &ground.clock, &ground.metrics)
                .await?;
        let admission = admission(&config, &matcher, &catch_up.channels);
        let apps = config.apps.iter().map(|one| app(one, &catch_up.notices)).collect();
        let notes = Arc::new(Notes::default());
        // All that can fail here is done: tasks start only now.
        count_posters(&notes, &ground);
        let events_api = EventsApi::new(apps, &admission, Arc::clone(&notes), ground.clone());
        let configuration = Configuration { in_use_since: ground.clock.now(), refused: None };
        let configuration = Arc::new(ArcSwap::from_pointee(configuration));
        let shared = Arc::new(ArcSwap::new(Arc::clone(&matcher)));
        let served = hire(prepared, &[], &ground, &shared);
        let admission = Arc::new(ArcSwap::new(admission));
        let ready_at = ground.clock.now();
        let following = follow(catch_up, &ground, (&admission, &notes, ready_at));
        let judge = (matcher, admission.load_full());
        let context = (&ground, &configuration, &notes, &events_api);
        let running = running((&config, &following), served, judge, context);
        Ok(Arc::new(Self {
            current: Arc::new(Current(ArcSwap::from_pointee(running))),
            events_api,
            configuration,
            matcher: shared,
            admission,
            notes,
            ready_at,
            in_use: Mutex::new(InUse { config, following }),
            ground,
        }))
    }

    /// Replaces the configuration in use.
    ///
    /// # Errors
    /// Fails if the new configuration cannot be used; everything runs on as before.
    pub(super) async fn replace(&self, config: Config) -> anyhow::Result<Changes> {
        let mut in_use = self.in_use.lock().await;
        let ground = &self.ground;
        refuse_what_cannot_change(&in_use.config, &config)?;
        let before = self.current.0.load_full();
        let prepared = prepare(&config, &before.served, ground)?;
        let catch_up = if follows_the_same(&in_use.config, &config) {
            None
        } else {
            let store = ground.store.as_ref();
            Some(catch_up::prepare(&config, store, &ground.clock, &ground.metrics).await?)
        };
        // From here on nothing can fail.
        warn_of_what_waits_for_a_restart(&in_use.config, &config);
        name_metrics_of(&config.apps, &ground.metrics);
        let matcher = Arc::new(Matcher::new(config.matching.clone()));
        let changes = changes(&before.served, &in_use.config, &config);
        self.matcher.store(Arc::clone(&matcher));
        let served = hire(prepared, &before.served, ground, &self.matcher);
        let old = &in_use.following;
        let (channels, notices) = catch_up
            .as_ref()
            .map_or((&old.channels, &old.notices), |new| (&new.channels, &new.notices));
        let admission = admission(&config, &matcher, channels);
        let apps = config.apps.iter().map(|one| app(one, notices)).collect();
        self.events_api.replace(apps, &admission);
        self.admission.store(Arc::clone(&admission));
        if let Some(catch_up) = catch_up {
            in_use.following.shutdown.stop();
            in_use.following =
                follow(catch_up, ground, (&self.admission, &self.notes, self.ready_at));
        }
        let context = (ground, &self.configuration, &self.notes, &self.events_api);
        let judge = (matcher, admission);
        let running = running((&config, &in_use.following), served, judge, context);
        self.current.0.store(Arc::new(running));
        let now = ground.clock.now();
        self.configuration.store(Configuration { in_use_since: now, refused: None }.into());
        in_use.config = config;
        Ok(changes)
    }

    /// Notes that a configuration was refused. Returns `true` if the reason differs from the one
    /// before.
    pub(super) fn note_refused(&self, reason: &str) -> bool {
        let before = self.configuration.load_full();
        let refused = Refused { at: self.ground.clock.now(), reason: reason.to_owned() };
        let in_use_since = before.in_use_since;
        let now = Configuration { in_use_since, refused: Some(refused) };
        self.configuration.store(Arc::new(now));
        before.refused.as_ref().is_none_or(|refused| refused.reason != reason)
    }

    /// Returns the refusal of the newest configuration, if it was refused.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.configuration.load().refused.clone()
    }

    /// Returns every secret of the configuration in use.
    pub(super) async fn secrets(&self) -> Vec<Secret> {
        self.in_use.lock().await.config.secrets.clone()
    }

    /// Returns the retention of the configuration in use.
    pub(super) async fn retention(&self) -> Retention {
        self.in_use.lock().await.config.retention
    }

    /// Returns the names of the configured destinations.
    pub(super) fn destinations(&self) -> Vec<DestinationName> {
        self.current.0.load().served.iter().map(|one| one.destination.name().clone()).collect()
    }

    /// Sends a probe now to each destination with this secret, since a rotated secret may have been
    /// the reason why a breaker is open.
    pub(super) fn probe_destinations_with(&self, secret: &Secret) {
        for served in &self.current.0.load().served {
            if served.secrets.contains(secret) {
                served.probe_now();
            }
        }
    }
}

/// Builds the clients of new and changed destinations, which is all that can fail.
fn prepare<'c>(
    config: &'c Config,
    before: &[Served],
    ground: &Ground,
) -> anyhow::Result<Vec<Prepared<'c>>> {
    let prepare = |one: &'c config::DestinationConfig| {
        if unchanged(before, one).is_some() {
            return Ok((one, None));
        }
        let destination = Destination::new(one.http.clone(), ground.clock.clone())
            .with_context(|| format!("destination {}", one.http.name))?;
        Ok((one, Some(Arc::new(destination))))
    };
    config.destinations.iter().map(prepare).collect()
}

/// Stops the workers whose destinations are gone or changed, and starts those of new ones.
fn hire(
    prepared: Vec<Prepared<'_>>,
    before: &[Served],
    ground: &Ground,
    matcher: &Arc<ArcSwap<Matcher>>,
) -> Vec<Served> {
    let kept = |one: &Served| prepared.iter().any(|(new, _)| is_unchanged(one, new));
    before.iter().filter(|one| !kept(one)).for_each(Served::retire);
    let hire = |(one, destination): Prepared<'_>| {
        let Some(destination) = destination else {
            // The worker of an unchanged destination goes on, with its breaker and its attempts.
            return unchanged(before, one).cloned();
        };
        Some(Served {
            fingerprint: one.fingerprint,
            secrets: one.http.secrets().cloned().collect(),
            by: start(one, &destination, ground, matcher),
            destination,
        })
    };
    prepared.into_iter().filter_map(hire).collect()
}

/// Starts the worker of a destination, or its feed.
fn start(
    one: &config::DestinationConfig,
    destination: &Arc<Destination>,
    ground: &Ground,
    matcher: &Arc<ArcSwap<Matcher>>,
) -> ServedBy {
    // Each has a shutdown of its own, so that a reload can retire it alone.
    let own = ground.child();
    let matcher = Arc::clone(matcher);
    if let Some(token) = one.http.feed_token() {
        let feed = Feed::new(destination.name(), one.max_age, own, matcher);
        ground.shutdown.spawn(Arc::clone(&feed).run());
        return ServedBy::Feed(feed, token.clone());
    }
    let plan = WorkerPlan {
        destination: Arc::clone(destination),
        concurrency: one.concurrency,
        rate_limit: one.rate_limit,
        max_age: one.max_age,
        timeout: one.http.timeout,
        settings: one.fingerprint,
    };
    let worker = Worker::new(plan, own, matcher);
    let handle = worker.handle();
    ground.shutdown.spawn(worker.run());
    ServedBy::Worker(handle)
}

fn unchanged<'s>(before: &'s [Served], one: &config::DestinationConfig) -> Option<&'s Served> {
    before.iter().find(|served| is_unchanged(served, one))
}

fn is_unchanged(served: &Served, one: &config::DestinationConfig) -> bool {
    *served.destination.name() == one.http.name && served.fingerprint == one.fingerprint
}

fn changes(served: &[Served], before: &Config, now: &Config) -> Changes {
    let mut destinations = Diff::default();
    for one in &now.destinations {
        let known = served.iter().any(|served| *served.destination.name() == one.http.name);
        if !known {
            destinations.added.push(one.http.name.to_string());
        } else if unchanged(served, one).is_none() {
            destinations.changed.push(one.http.name.to_string());
        }
    }
    for served in served {
        let name = served.destination.name();
        if now.destinations.iter().all(|one| one.http.name != *name) {
            destinations.removed.push(name.to_string());
        }
    }
    let mut apps = Diff::default();
    for app in &now.apps {
        match before.apps.iter().find(|known| known.name == app.name) {
            None => apps.added.push(app.name.to_string()),
            Some(known) if known != app => apps.changed.push(app.name.to_string()),
            Some(_same) => {}
        }
    }
    for app in &before.apps {
        if now.apps.iter().all(|one| one.name != app.name) {
            apps.removed.push(app.name.to_string());
        }
    }
    let keys = [
        ("match", before.matching == now.matching),
        ("catch_up", before.catch_up == now.catch_up),
        ("slack.api_url", before.slack_api == now.slack_api),
        ("retention", before.retention == now.retention),
    ];
    let keys = keys.into_iter().filter(|(_, is_same)| !is_same).map(|(key, _)| key).collect();
    Changes { destinations, apps, keys }
}

fn running(
    (config, following): (&Config, &Following),
    served: Vec<Served>,
    (matcher, admission): (Arc<Matcher>, Arc<Admission>),
    (ground, configuration, notes, events_api): (
        &Ground,
        &Arc<ArcSwap<Configuration>>,
        &Arc<Notes>,
        &EventsApi,
    ),
) -> Running {
    Running {
        apps: config.apps.clone(),
        served,
        matching: config.matching.clone(),
        matcher,
        admission,
        clock: ground.clock.clone(),
        configuration: Arc::clone(configuration),
        notes: Arc::clone(notes),
        events_api: events_api.clone(),
        catch_up: following.handles.clone(),
    }
}

fn admission(config: &Config, matcher: &Arc<Matcher>, channels: &AppChannels) -> Arc<Admission> {
    let routes = config.destinations.iter().map(route).collect();
    Arc::new(Admission::new(Arc::clone(matcher), channels.clone(), routes))
}

/// Returns whether the same pollers can go on, with their counts.
fn follows_the_same(in_use: &Config, new: &Config) -> bool {
    in_use.apps == new.apps && in_use.catch_up == new.catch_up && in_use.slack_api == new.slack_api
}

fn follow(
    catch_up: CatchUp,
    ground: &Ground,
    (admission, notes, ready_at): (&Arc<ArcSwap<Admission>>, &Arc<Notes>, Timestamp),
) -> Following {
    catch_up.start(&PollerParts {
        ground: ground.child(),
        admission: Arc::clone(admission),
        notes: Arc::clone(notes),
        ready_at,
    })
}

/// Writes the counts of bots to the store until the relay stops.
fn count_posters(notes: &Arc<Notes>, ground: &Ground) {
    let notes = Arc::clone(notes);
    let store = Arc::clone(&ground.store);
    let clock = ground.clock.clone();
    let shutdown = ground.shutdown.clone();
    ground
        .shutdown
        .spawn(async move { notes.posters.run(store.as_ref(), &clock, &shutdown).await });
}

fn refuse_what_cannot_change(in_use: &Config, new: &Config) -> anyhow::Result<()> {
    let (old, server) = (&in_use.server, &new.server);
    let is_same_lease = in_use.store.lease == new.store.lease;
    let kept = [
        ("server.listen", old.listen == server.listen),
        ("server.ops_listen", old.ops_listen == server.ops_listen),
        ("delivery.lease", is_same_lease),
        ("store", in_use.store == new.store || !is_same_lease),
    ];
    let changed: Vec<&str> =
        kept.into_iter().filter(|(_, is_same)| !is_same).map(|(name, _)| name).collect();
    anyhow::ensure!(
        changed.is_empty(),
        "`{}` cannot change while the relay runs: restart it, or change it back",
        changed.join("` and `")
    );
    Ok(())
}

fn warn_of_what_waits_for_a_restart(in_use: &Config, new: &Config) {
    let (old, server) = (&in_use.server, &new.server);
    let kept = [
        ("server.idle_timeout", old.idle_timeout == server.idle_timeout),
        ("server.drain_delay", old.drain_delay == server.drain_delay),
        ("server.ops_token", old.ops_token == server.ops_token),
    ];
    for (key, _) in kept.into_iter().filter(|(_, is_same)| !is_same) {
        tracing::warn!(key, "`{key}` has changed and is in use from the next start");
    }
}

fn app(app: &config::AppConfig, notices: &AppNotices) -> events_api::AppSettings {
    events_api::AppSettings {
        name: app.name.clone(),
        signing_secrets: app.signing_secrets.clone(),
        team: app.team.clone(),
        notices: notices.get(&app.name).cloned().unwrap_or_default(),
    }
}

fn route(destination: &config::DestinationConfig) -> Route {
    Route { destination: destination.http.name.clone(), when: destination.when.clone() }
}
