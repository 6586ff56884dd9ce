//! What every part is built with, and the two listeners.

use std::{convert::Infallible, sync::Arc};

use hyper::{
    Request,
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use crate::{
    clock::Clock,
    config::{App, Config, Server},
    http_server::{self, Peer, WhenFull},
    intake::events_api::EventsApi,
    metrics::{Metric, Metrics},
    ops::{self, Control, api, auth::Auth, health},
    shutdown::Shutdown,
    store::Store,
};

/// Connections at once on each listener. Together with the store's files and the connections to
/// destinations they stay below 1,024 open files, the usual limit of a process.
const PUBLIC_CONNECTIONS: usize = 512;
const OPS_CONNECTIONS: usize = 256;

/// What every part is built with.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) shutdown: Shutdown,
}

impl Parts {
    pub(super) fn start_public(&self, listener: TcpListener, server: &Server, api: EventsApi) {
        let service = move |peer: Peer| {
            let api = api.clone();
            service_fn(move |request| {
                let (api, peer) = (api.clone(), peer.clone());
                async move { Ok::<_, Infallible>(api.answer(request, || peer.verified()).await) }
            })
        };
        let public = self.server(http_server::Settings {
            name: "public",
            idle_timeout: server.idle_timeout,
            max_connections: PUBLIC_CONNECTIONS,
            when_full: WhenFull::Wait,
        });
        self.shutdown.spawn(public.serve(listener, service));
    }

    fn server(&self, settings: http_server::Settings) -> http_server::Server {
        let (clock, shutdown) = (self.clock.clone(), self.shutdown.clone());
        http_server::Server::new(settings, clock, &self.metrics, shutdown)
    }

    pub(super) fn start_ops(
        &self,
        listener: TcpListener,
        server: &Server,
        control: Arc<dyn Control>,
    ) -> anyhow::Result<()> {
        let health = health::Parts {
            store: Arc::clone(&self.store),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
            control: Arc::clone(&control),
        };
        let auth = Auth::new(server.ops_token.clone(), listener.local_addr()?);
        if matches!(auth, Auth::Off) {
            tracing::warn!(
                "the API is off: `server.ops_listen` is not a loopback address, and there is no \
                 `server.ops_token`"
            );
        }
        let api =
            api::Parts { store: Arc::clone(&self.store), control, auth, clock: self.clock.clone() };
        let router = ops::router(health, api);
        let router = TowerToHyperService::new(router);
        let service = move |peer: Peer| {
            let router = router.clone();
            service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                router.call(request)
            })
        };
        let ops = self.server(http_server::Settings {
            name: "ops",
            idle_timeout: server.idle_timeout,
            max_connections: OPS_CONNECTIONS,
            when_full: WhenFull::Evict,
        });
        self.shutdown.spawn(ops.serve(listener, service));
        Ok(())
    }
}

/// An alert rule on a series that does not exist yet never fires, so the series exist from the
/// start.
pub(super) fn name_every_metric(config: &Config, metrics: &Metrics) {
    let commit = option_env!("RELAY_COMMIT").unwrap_or("unknown");
    metrics.gauge(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION"), commit]).set(1.0);
    metrics.gauge(Metric::ConfigReload, &[]).set(1.0);
    metrics.gauge(Metric::ClockSkew, &[]).set(0.0);
    metrics.counter(Metric::LogLinesDropped, &[]).increment(0);
    metrics.counter(Metric::SlackApiCalls, &["conversations.history", "ok"]).increment(0);
    name_metrics_of(&config.apps, metrics);
}

/// The series of these apps; those that exist stay as they are.
pub(super) fn name_metrics_of(apps: &[App], metrics: &Metrics) {
    for app in apps {
        for channel in &app.channels {
            let names = [app.name.as_str(), channel.as_str()];
            metrics.gauge(Metric::CatchUpLastSuccess, &names).increment(0.0);
            for cause in ["push", "downtime"] {
                let names = [app.name.as_str(), channel.as_str(), cause];
                metrics.counter(Metric::MissedPush, &names).increment(0);
            }
        }
    }
}
