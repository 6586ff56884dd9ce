//! The composition root: puts the parts together, starts them, and ends them in order.
//!
//! `serve`, `demo` and the tests start the same [`Relay`].

use std::{
    collections::BTreeMap, convert::Infallible, net::SocketAddr, process::ExitCode, sync::Arc,
    thread::available_parallelism, time::Duration,
};

use anyhow::Context;
use hyper::service::service_fn;
use hyper_util::service::TowerToHyperService;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

use super::open_store::open_store;
use crate::{
    clock::Clock,
    code_defender::matcher::{Matcher, Watch},
    config::{self, Config},
    delivery::worker::{self, Plan, Worker},
    destination::http::HttpDestination,
    http_server,
    ids::DestinationName,
    intake::{
        Admission,
        events_api::{self, EventsApi},
        routing::Route,
    },
    logging::chain,
    metrics::{Metric, Metrics},
    ops::health,
    secret::Secret,
    shutdown::Shutdown,
    store::{Retention, Store},
};

/// Two threads carry far more than Slack ever sends, and a small pod has no more cores.
const MAX_THREADS: usize = 2;

/// For name lookups.
const MAX_BLOCKING_THREADS: usize = 8;

/// Requests in flight and attempts end within this; what has not is attempted again after a start.
const GRACE: Duration = Duration::from_secs(16);

/// Between two looks at what is unfinished.
const SETTLE_PAUSE: Duration = Duration::from_millis(10);

/// Between two rounds of housekeeping.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Every so many rounds secrets are read again, and what retention allows is removed.
const SECRETS_EVERY: u64 = 2;
const PRUNE_EVERY: u64 = 12;

/// Runs until SIGTERM or Ctrl-C; a second one ends the process at once.
pub(super) fn run(config: Config) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let relay = Relay::start(config, Clock::system()).await?;
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending: no longer ready, still accepting for the drain delay");
        tokio::select! {
            () = relay.stop() => Ok(ExitCode::SUCCESS),
            _ = term.recv() => Ok(ExitCode::FAILURE),
            _ = interrupt.recv() => Ok(ExitCode::FAILURE),
        }
    });
    runtime.shutdown_background();
    code
}

/// The runtime of `serve` and `demo`.
///
/// # Errors
/// The system gives no threads.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    let threads = available_parallelism().map_or(1, |cores| cores.get().min(MAX_THREADS));
    let mut builder =
        if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("the runtime cannot be started")
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    /// Where Slack calls.
    pub public: SocketAddr,
    /// Where operators and Kubernetes call.
    pub ops: SocketAddr,
    store: Arc<dyn Store>,
    clock: Clock,
    shutdown: Shutdown,
    drain_delay: Duration,
}

/// What every part is built with.
struct Parts {
    store: Arc<dyn Store>,
    clock: Clock,
    metrics: Metrics,
    shutdown: Shutdown,
    matcher: Arc<Matcher>,
}

impl Relay {
    /// Opens the store, binds the listeners and starts everything.
    ///
    /// # Errors
    /// What could not be opened, bound or built; nothing runs then.
    pub async fn start(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
        let store = open_store(&config.store, &clock, &metrics).await?;
        let public = http_server::bind(config.server.listen).await?;
        let ops = http_server::bind(config.server.ops_listen).await?;
        let relay = Self {
            public: public.local_addr()?,
            ops: ops.local_addr()?,
            store,
            clock: clock.clone(),
            shutdown: shutdown.clone(),
            drain_delay: config.server.drain_delay,
        };
        let parts = Parts {
            store: Arc::clone(&relay.store),
            matcher: Arc::new(Matcher::new(config.matching.clone())),
            clock,
            metrics,
            shutdown,
        };
        name_every_metric(&config, &parts.metrics);
        parts.start_workers(&config)?;
        parts.start_ops(ops, &config);
        parts.start_public(public, &config);
        parts.start_housekeeping(config.secrets, config.retention);
        tracing::info!(
            public = %relay.public,
            ops = %relay.ops,
            version = env!("CARGO_PKG_VERSION"),
            "listening on {} for Slack and on {} for operators",
            relay.public,
            relay.ops
        );
        Ok(relay)
    }

    /// Waits until no delivery is unfinished.
    pub async fn settled(&self) {
        loop {
            let stats = self.store.stats().await.unwrap_or_default();
            let unfinished: u64 =
                stats.destinations.iter().map(|(_, stats)| stats.pending + stats.leased).sum();
            if unfinished == 0 {
                return;
            }
            Clock::system().sleep(SETTLE_PAUSE).await;
        }
    }

    /// Ends in order: not ready, still accepting; nothing new; attempts end; the store closes.
    pub async fn stop(self) {
        self.shutdown.drain();
        self.clock.sleep(self.drain_delay).await;
        self.shutdown.stop();
        if tokio::time::timeout(GRACE, self.shutdown.finished()).await.is_err() {
            tracing::warn!("not everything ended in time; it will be attempted again");
        }
        self.store.close().await;
        tracing::info!("ended");
    }
}

impl Parts {
    fn start_workers(&self, config: &Config) -> anyhow::Result<()> {
        let mut workers = Vec::new();
        for destination in &config.destinations {
            let settings = destination.http.clone();
            let (name, timeout) = (settings.name.clone(), settings.timeout);
            let http = HttpDestination::new(settings, self.clock.clone())
                .with_context(|| format!("destination {name}"))?;
            let plan = Plan {
                destination: Arc::new(http),
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
            workers.push(Worker::new(plan, parts));
        }
        for worker in workers {
            self.shutdown.spawn(worker.run());
        }
        Ok(())
    }

    fn start_public(&self, listener: TcpListener, config: &Config) {
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

    fn start_ops(&self, listener: TcpListener, config: &Config) {
        let destinations = config.destinations.iter().map(|one| one.http.name.clone());
        let router = health::router(health::Parts {
            store: Arc::clone(&self.store),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
            destinations: destinations.clone().collect(),
        });
        let settings = http_server::Settings { idle_timeout: config.server.idle_timeout };
        let service = TowerToHyperService::new(router);
        let (clock, shutdown) = (self.clock.clone(), self.shutdown.clone());
        self.shutdown.spawn(http_server::serve(listener, service, settings, clock, shutdown));
        let store = Arc::clone(&self.store);
        let known: Vec<DestinationName> = destinations.collect();
        self.shutdown.spawn(async move { warn_of_orphans(store.as_ref(), &known).await });
    }

    fn start_housekeeping(&self, secrets: Vec<Secret>, retention: Retention) {
        let (store, clock) = (Arc::clone(&self.store), self.clock.clone());
        let (metrics, shutdown) = (self.metrics.clone(), self.shutdown.clone());
        let heartbeat = shutdown.heartbeat("housekeeping", clock.instant());
        self.shutdown.spawn(async move {
            for round in 0_u64.. {
                heartbeat.beat(clock.instant());
                metrics.upkeep();
                if round % SECRETS_EVERY == 0 {
                    refresh(&secrets);
                }
                if round % PRUNE_EVERY == 0 {
                    prune(store.as_ref(), retention).await;
                }
                tokio::select! {
                    () = clock.sleep(HOUSEKEEPING) => {}
                    () = shutdown.stopped() => return,
                }
            }
        });
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
fn name_every_metric(config: &Config, metrics: &Metrics) {
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

async fn warn_of_orphans(store: &dyn Store, known: &[DestinationName]) {
    match store.stats().await {
        Ok(stats) => {
            for (destination, stats) in &stats.destinations {
                let waiting = stats.pending + stats.dead;
                if waiting > 0 && !known.contains(destination) {
                    tracing::warn!(
                        %destination,
                        waiting,
                        "{waiting} deliveries are for {destination}, which is not configured any \
                         more; they are kept"
                    );
                }
            }
        }
        Err(error) => tracing::error!(error = chain(&error), "the store gives no numbers"),
    }
}

fn refresh(secrets: &[Secret]) {
    for secret in secrets {
        match secret.refresh() {
            Ok(false) => {}
            Ok(true) => tracing::info!(?secret, "a secret has changed and is in use"),
            Err(error) => tracing::error!(
                error = chain(&error),
                "a secret cannot be read again; the value before it stays in use"
            ),
        }
    }
}

async fn prune(store: &dyn Store, retention: Retention) {
    match store.prune(retention).await {
        Ok(pruned) if pruned.messages + pruned.identities == 0 => {}
        Ok(pruned) => tracing::info!(
            messages = pruned.messages,
            identities = pruned.identities,
            "old messages removed, as retention says"
        ),
        Err(error) => tracing::error!(error = chain(&error), "old messages cannot be removed"),
    }
}
