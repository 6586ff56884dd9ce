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
    http_server::{self, Peer},
    intake::events_api::EventsApi,
    metrics::{Metric, Metrics},
    ops::{self, Control, api, auth::Auth, health},
    shutdown::Shutdown,
    store::Store,
};

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
        let service = move |_peer| {
            let api = api.clone();
            service_fn(move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.answer(request).await) }
            })
        };
        let settings = http_server::Settings { idle_timeout: server.idle_timeout };
        let (clock, shutdown) = (self.clock.clone(), self.shutdown.clone());
        self.shutdown.spawn(http_server::serve(listener, service, settings, clock, shutdown));
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
        let settings = http_server::Settings { idle_timeout: server.idle_timeout };
        let router = TowerToHyperService::new(router);
        let service = move |peer: Peer| {
            let router = router.clone();
            service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer);
                router.call(request)
            })
        };
        let (clock, shutdown) = (self.clock.clone(), self.shutdown.clone());
        self.shutdown.spawn(http_server::serve(listener, service, settings, clock, shutdown));
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
