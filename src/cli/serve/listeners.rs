//! Starts the two listeners: the public one for Slack, and the one for operators.

use std::convert::Infallible;

use hyper::{
    Request,
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use crate::{
    config::Server,
    ground::Ground,
    http_server::{self, Peer, WhenFull},
    intake::events_api::EventsApi,
    ops::{self, Controls, auth::Auth},
};

/// Most connections of each listener. Together with the store's files and the connections to
/// destinations they stay below 1,024 open files, the usual limit of a process.
const PUBLIC_CONNECTIONS: usize = 512;
const OPS_CONNECTIONS: usize = 256;

/// Serves the Events API until the relay stops.
pub(super) fn start_public(
    ground: &Ground,
    listener: TcpListener,
    server: &Server,
    api: EventsApi,
) {
    let service = move |peer: Peer| {
        let api = api.clone();
        service_fn(move |request| {
            let (api, peer) = (api.clone(), peer.clone());
            async move { Ok::<_, Infallible>(api.answer(request, || peer.verified()).await) }
        })
    };
    let settings = http_server::Settings {
        name: "public",
        idle_timeout: server.idle_timeout,
        max_connections: PUBLIC_CONNECTIONS,
        when_full: WhenFull::Wait,
    };
    ground.shutdown.spawn(http(ground, settings).serve(listener, service));
}

/// Serves health, metrics and the API until the relay stops.
///
/// # Errors
/// Fails if the listener does not have a local address.
pub(super) fn start_ops(
    ground: &Ground,
    listener: TcpListener,
    server: &Server,
    controls: Controls,
) -> anyhow::Result<()> {
    let auth = Auth::new(server.ops_token.clone(), listener.local_addr()?);
    if matches!(auth, Auth::Off) {
        tracing::warn!(
            "the API is off: `server.ops_listen` is not a loopback address, and there is no \
             `server.ops_token`"
        );
    }
    let router = TowerToHyperService::new(ops::router(ground.clone(), controls, auth));
    let service = move |peer: Peer| {
        let router = router.clone();
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            router.call(request)
        })
    };
    let settings = http_server::Settings {
        name: "ops",
        idle_timeout: server.idle_timeout,
        max_connections: OPS_CONNECTIONS,
        when_full: WhenFull::Evict,
    };
    ground.shutdown.spawn(http(ground, settings).serve(listener, service));
    Ok(())
}

fn http(ground: &Ground, settings: http_server::Settings) -> http_server::Server {
    let Ground { clock, metrics, shutdown, .. } = ground;
    http_server::Server::new(settings, clock.clone(), metrics, shutdown.clone())
}
