//! What runs by the configuration in use, and how another takes its place: all or nothing.
//!
//! The receiver looks at one snapshot for each request. A worker whose destination is the same as
//! before goes on, breaker and all; the others end after their attempts in flight, and new ones
//! begin. The store, the listeners and what is in them stay.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::parts::{Parts, name_every_metric, name_metrics_of};
use crate::{
    cli::control::{Current, Running, Served},
    code_defender::matcher::{Matcher, Watch},
    config::{self, Config},
    delivery::worker::{self, Plan, Worker},
    destination::{Destination, http::HttpDestination},
    ids::{AppName, DestinationName},
    intake::{
        Admission,
        events_api::{self, EventsApi},
        routing::Route,
    },
    ops::{Configuration, Refused},
    secret::Secret,
    store::Retention,
};

/// The parts that a reload may replace.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) parts: Parts,
    pub(super) events_api: EventsApi,
    pub(super) current: Arc<Current>,
    configuration: Arc<ArcSwap<Configuration>>,
    /// What workers read incidents with.
    matcher: Arc<ArcSwap<Matcher>>,
    /// The configuration in use. Its lock makes reloads follow one another.
    config: Mutex<Config>,
}

/// What a reload did to the destinations.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) added: Vec<String>,
    pub(super) changed: Vec<String>,
    pub(super) removed: Vec<String>,
}

/// A destination that can be spoken to, and what its worker is to do.
type Prepared<'c> = (&'c config::Destination, Option<Arc<dyn Destination>>);

impl Live {
    /// Builds everything and starts the workers.
    ///
    /// # Errors
    /// A destination cannot be built; nothing has begun then.
    pub(super) fn start(parts: Parts, config: Config) -> anyhow::Result<Arc<Self>> {
        name_every_metric(&config, &parts.metrics);
        let matcher = Arc::new(Matcher::new(config.matching.clone()));
        let prepared = prepare(&config, &[], &parts)?;
        let events_api = EventsApi::new(
            config.apps.iter().map(app).collect(),
            &admission(&config, &matcher),
            events_api::Parts {
                store: Arc::clone(&parts.store),
                clock: parts.clock.clone(),
                metrics: parts.metrics.clone(),
                shutdown: parts.shutdown.clone(),
            },
        );
        let configuration = Configuration { in_use_since: parts.clock.now(), refused: None };
        let configuration = Arc::new(ArcSwap::from_pointee(configuration));
        let shared = Arc::new(ArcSwap::new(Arc::clone(&matcher)));
        let served = hire(prepared, &[], &parts, &shared);
        let running = running(&config, served, matcher, (&parts, &configuration));
        Ok(Arc::new(Self {
            current: Arc::new(Current(ArcSwap::from_pointee(running))),
            events_api,
            configuration,
            matcher: shared,
            config: Mutex::new(config),
            parts,
        }))
    }

    /// Puts another configuration in the place of the one in use.
    ///
    /// # Errors
    /// What stands in the way; everything runs on as before then.
    pub(super) async fn replace(&self, config: Config) -> anyhow::Result<Changes> {
        let mut in_use = self.config.lock().await;
        refuse_what_cannot_change(&in_use, &config)?;
        let before = self.current.0.load_full();
        let prepared = prepare(&config, &before.served, &self.parts)?;
        // From here on nothing can fail.
        warn_of_what_waits_for_a_restart(&in_use, &config);
        name_metrics_of(&config.apps, &self.parts.metrics);
        let matcher = Arc::new(Matcher::new(config.matching.clone()));
        let changes = changes(&before.served, &config);
        self.matcher.store(Arc::clone(&matcher));
        let served = hire(prepared, &before.served, &self.parts, &self.matcher);
        let admission = admission(&config, &matcher);
        self.events_api.replace(config.apps.iter().map(app).collect(), &admission);
        let context = (&self.parts, &self.configuration);
        self.current.0.store(Arc::new(running(&config, served, matcher, context)));
        let now = self.parts.clock.now();
        self.configuration.store(Configuration { in_use_since: now, refused: None }.into());
        *in_use = config;
        Ok(changes)
    }

    /// Notes that a configuration was refused. Returns whether that is news.
    pub(super) fn note_refused(&self, reason: &str) -> bool {
        let before = self.configuration.load_full();
        let refused = Refused { at: self.parts.clock.now(), reason: reason.to_owned() };
        let in_use_since = before.in_use_since;
        let now = Configuration { in_use_since, refused: Some(refused) };
        self.configuration.store(Arc::new(now));
        before.refused.as_ref().is_none_or(|refused| refused.reason != reason)
    }

    /// Whether the newest configuration is not the one in use, and since when.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.configuration.load().refused.clone()
    }

    /// Every secret of the configuration in use.
    pub(super) async fn secrets(&self) -> Vec<Secret> {
        self.config.lock().await.secrets.clone()
    }

    /// How long the configuration in use keeps what is finished.
    pub(super) async fn retention(&self) -> Retention {
        self.config.lock().await.retention
    }

    /// The configured destinations.
    pub(super) fn destinations(&self) -> Vec<DestinationName> {
        self.current.0.load().served.iter().map(|one| one.destination.name().clone()).collect()
    }

    /// A rotated secret may be what a destination behind an open breaker was waiting for.
    pub(super) fn hurry_those_with(&self, secret: &Secret) {
        for served in &self.current.0.load().served {
            if served.secrets.contains(secret) {
                served.worker.probe_now();
            }
        }
    }
}

/// Everything about the destinations that can fail. Those that are the same as before need nothing.
fn prepare<'c>(
    config: &'c Config,
    before: &[Served],
    parts: &Parts,
) -> anyhow::Result<Vec<Prepared<'c>>> {
    let prepare = |one: &'c config::Destination| {
        if unchanged(before, one).is_some() {
            return Ok((one, None));
        }
        let http = HttpDestination::new(one.http.clone(), parts.clock.clone())
            .with_context(|| format!("destination {}", one.http.name))?;
        let http: Arc<dyn Destination> = Arc::new(http);
        Ok((one, Some(http)))
    };
    config.destinations.iter().map(prepare).collect()
}

/// Ends the workers whose destinations are gone or changed, and starts those that are new.
fn hire(
    prepared: Vec<Prepared<'_>>,
    before: &[Served],
    parts: &Parts,
    matcher: &Arc<ArcSwap<Matcher>>,
) -> Vec<Served> {
    let kept = |one: &Served| prepared.iter().any(|(new, _)| is_unchanged(one, new));
    before.iter().filter(|one| !kept(one)).for_each(|one| one.worker.retire());
    let hire = |(one, destination): Prepared<'_>| {
        let Some(destination) = destination else {
            return unchanged(before, one).cloned();
        };
        let plan = Plan {
            destination: Arc::clone(&destination),
            concurrency: one.concurrency,
            rate_limit: one.rate_limit,
            max_age: one.max_age,
            timeout: one.http.timeout,
        };
        let worker = worker::Parts {
            store: Arc::clone(&parts.store),
            clock: parts.clock.clone(),
            metrics: parts.metrics.clone(),
            shutdown: parts.shutdown.child(),
            matcher: Arc::clone(matcher),
        };
        let worker = Worker::new(plan, worker);
        let served = Served {
            fingerprint: one.fingerprint,
            secrets: one.http.secrets().cloned().collect(),
            destination,
            worker: worker.handle(),
        };
        parts.shutdown.spawn(worker.run());
        Some(served)
    };
    prepared.into_iter().filter_map(hire).collect()
}

fn unchanged<'s>(before: &'s [Served], one: &config::Destination) -> Option<&'s Served> {
    before.iter().find(|served| is_unchanged(served, one))
}

fn is_unchanged(served: &Served, one: &config::Destination) -> bool {
    *served.destination.name() == one.http.name && served.fingerprint == one.fingerprint
}

fn changes(before: &[Served], config: &Config) -> Changes {
    let mut changes = Changes::default();
    for one in &config.destinations {
        let known = before.iter().any(|served| *served.destination.name() == one.http.name);
        if !known {
            changes.added.push(one.http.name.to_string());
        } else if unchanged(before, one).is_none() {
            changes.changed.push(one.http.name.to_string());
        }
    }
    for served in before {
        let name = served.destination.name();
        if config.destinations.iter().all(|one| one.http.name != *name) {
            changes.removed.push(name.to_string());
        }
    }
    changes
}

fn running(
    config: &Config,
    served: Vec<Served>,
    matcher: Arc<Matcher>,
    (parts, configuration): (&Parts, &Arc<ArcSwap<Configuration>>),
) -> Running {
    Running {
        apps: config.apps.clone(),
        served,
        matching: config.matching.clone(),
        matcher,
        clock: parts.clock.clone(),
        configuration: Arc::clone(configuration),
    }
}

fn admission(config: &Config, matcher: &Arc<Matcher>) -> Arc<Admission> {
    let watches = config.apps.iter().map(watch).collect::<BTreeMap<_, _>>();
    let routes = config.destinations.iter().map(route).collect();
    Arc::new(Admission::new(Arc::clone(matcher), watches, routes))
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

fn app(app: &config::App) -> events_api::App {
    events_api::App { name: app.name.clone(), signing_secrets: app.signing_secrets.clone() }
}

fn watch(app: &config::App) -> (AppName, Watch) {
    let watch = Watch { channels: app.channels.clone(), bots: app.bots.clone() };
    (app.name.clone(), watch)
}

fn route(destination: &config::Destination) -> Route {
    Route { destination: destination.http.name.clone(), when: destination.when.clone() }
}
