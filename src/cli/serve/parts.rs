//! What every part is built with, and the parts themselves: workers and the two listeners.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use anyhow::Context;
use hyper::service::service_fn;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use super::housekeeping::warn_of_orphans;
use crate::{
    cli::control::{Running, Served},
    clock::Clock,
    code_defender::matcher::{Matcher, Watch},
    config::{self, Config},
    delivery::worker::{self, Plan, Worker},
    destination::{Destination, http::HttpDestination},
    http_server,
    ids::DestinationName,
    intake::{
        Admission,
        events_api::{self, EventsApi},
        routing::Route,
    },
    metrics::{Metric, Metrics},
    ops::{self, api, auth::Auth, health},
    shutdown::Shutdown,
    store::Store,
};

/// What every part is built with.
pub(super) struct Parts {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) shutdown: Shutdown,
    pub(super) matcher: Arc<Matcher>,
}

impl Parts {
    pub(super) fn start_workers(&self, config: &Config) -> anyhow::Result<Running> {
        let (mut workers, mut served) = (Vec::new(), Vec::new());
        for destination in &config.destinations {
            let settings = destination.http.clone();
            let (name, timeout) = (settings.name.clone(), settings.timeout);
            let http = HttpDestination::new(settings, self.clock.clone())
                .with_context(|| format!("destination {name}"))?;
            let http: Arc<dyn Destination> = Arc::new(http);
            let plan = Plan {
                destination: Arc::clone(&http),
                concurrency: destination.concurrency,
                rate_limit: destination.rate_limit,
                max_age: destination.max_age,
                timeout,
            };
            let parts = worker::Parts {
                store: Arc::clone(&self.store),
                clock: self.clock.clone(),
                metrics: self.metrics.clone(),
                shutdown: self.shutdown.clone(),
                matcher: Arc::clone(&self.matcher),
            };
            let worker = Worker::new(plan, parts);
            served.push(Served { destination: http, worker: worker.handle() });
            workers.push(worker);
        }
        for worker in workers {
            self.shutdown.spawn(worker.run());
        }
        Ok(Running {
            apps: config.apps.clone(),
            served,
            matching: config.matching.clone(),
            matcher: Arc::clone(&self.matcher),
            clock: self.clock.clone(),
        })
    }

    pub(super) fn start_public(&self, listener: TcpListener, config: &Config) {
        let watches = config.apps.iter().map(watch).collect::<BTreeMap<_, _>>();
        let routes = config.destinations.iter().map(route).collect();
        let admission = Admission::new(Arc::clone(&self.matcher), watches, routes);
        let apps = config.apps.iter().map(app).collect();
        let api = EventsApi::new(
            apps,
            events_api::Parts {
                admission: Arc::new(admission),
                store: Arc::clone(&self.store),
                clock: self.clock.clone(),
                metrics: self.metrics.clone(),
                shutdown: self.shutdown.clone(),
            },
        );
        let service = service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        let settings = http_server::Settings { idle_timeout: config.server.idle_timeout };
        let (clock, shutdown) = (self.clock.clone(), self.shutdown.clone());
        self.shutdown.spawn(http_server::serve(listener, service, settings, clock, shutdown));
    }

    pub(super) fn start_ops(
        &self,
        listener: TcpListener,
        config: &Config,
        running: Running,
    ) -> anyhow::Result<()> {
        let destinations = config.destinations.iter().map(|one| one.http.name.clone());
        let health = health::Parts {
            store: Arc::clone(&self.store),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
            destinations: destinations.clone().collect(),
        };
        let auth = Auth::new(config.server.ops_token.clone(), listener.local_addr()?);
        if matches!(auth, Auth::Off) {
            tracing::warn!(
                "the API is off: `server.ops_listen` is not a loopback address, and there is no \
                 `server.ops_token`"
            );
        }
        let api = api::Parts {
            store: Arc::clone(&self.store),
            control: Arc::new(running),
            auth,
            clock: self.clock.clone(),
        };
        let router = ops::router(health, api);
        let settings = http_server::Settings { idle_timeout: config.server.idle_timeout };
        let service = TowerToHyperService::new(router);
        let (clock, shutdown) = (self.clock.clone(), self.shutdown.clone());
        self.shutdown.spawn(http_server::serve(listener, service, settings, clock, shutdown));
        let store = Arc::clone(&self.store);
        let known: Vec<DestinationName> = destinations.collect();
        self.shutdown.spawn(async move { warn_of_orphans(store.as_ref(), &known).await });
        Ok(())
    }
}

fn app(app: &config::App) -> events_api::App {
    events_api::App { name: app.name.clone(), signing_secrets: app.signing_secrets.clone() }
}

fn watch(app: &config::App) -> (crate::ids::AppName, Watch) {
    let watch = Watch { channels: app.channels.clone(), bots: app.bots.clone() };
    (app.name.clone(), watch)
}

fn route(destination: &config::Destination) -> Route {
    Route { destination: destination.http.name.clone(), when: destination.when.clone() }
}

/// An alert rule on a series that does not exist yet never fires, so the series exist from the
/// start.
pub(super) fn name_every_metric(config: &Config, metrics: &Metrics) {
    let commit = option_env!("RELAY_COMMIT").unwrap_or("unknown");
    metrics.gauge(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION"), commit]).set(1.0);
    metrics.gauge(Metric::ConfigReload, &[]).set(1.0);
    metrics.gauge(Metric::ClockSkew, &[]).set(0.0);
    metrics.counter(Metric::SlackApiCalls, &["conversations.history", "ok"]).increment(0);
    for app in &config.apps {
        for channel in &app.channels {
            let names = [app.name.as_str(), channel.as_str()];
            metrics.gauge(Metric::CatchUpLastSuccess, &names).set(0.0);
            for cause in ["push", "downtime"] {
                let names = [app.name.as_str(), channel.as_str(), cause];
                metrics.counter(Metric::MissedPush, &names).increment(0);
            }
        }
    }
}
