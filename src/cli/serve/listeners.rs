//! Starts the two listeners: the public one for Slack, and the one for operators.

use tokio::net::TcpListener;

use crate::{
    config::ServerConfig,
    ground::Ground,
    http_server::{self, ListenerSettings, WhenFull},
    intake::events_api::EventsApi,
    ops::{self, Controls, auth::Auth},
};

/// Most connections of each listener. Together with the store's files and the connections to
/// destinations, both listeners stay below 1,024 open files, the usual limit of a process.
const PUBLIC_CONNECTIONS: usize = 512;
const OPS_CONNECTIONS: usize = 256;

/// Serves the Events API until the relay stops.
pub(super) fn start_public(
    ground: &Ground,
    listener: TcpListener,
    server: &ServerConfig,
    api: &EventsApi,
) {
    let settings = ListenerSettings {
        name: "public",
        idle_timeout: server.idle_timeout,
        max_connections: PUBLIC_CONNECTIONS,
        when_full: WhenFull::Wait,
    };
    ground.shutdown.spawn(http(ground, settings).serve(listener, api.router()));
}

/// Serves health, metrics and the API until the relay stops.
///
/// # Errors
/// Fails if the listener does not have a local address.
pub(super) fn start_ops(
    ground: &Ground,
    listener: TcpListener,
    server: &ServerConfig,
    controls: Controls,
) -> anyhow::Result<()> {
    let auth = Auth::new(server.ops_token.clone(), listener.local_addr()?);
    if matches!(auth, Auth::Off) {
        tracing::warn!(
            "the API is off: `server.ops_listen` is not a loopback address, and there is no \
             `server.ops_token`"
        );
    }
    let router = ops::router(ground.clone(), controls, auth);
    let settings = ListenerSettings {
        name: "ops",
        idle_timeout: server.idle_timeout,
        max_connections: OPS_CONNECTIONS,
        // Health checks share this listener, and must get in even while authorised requests hold
        // every connection.
        when_full: WhenFull::Evict,
    };
    ground.shutdown.spawn(http(ground, settings).serve(listener, router));
    Ok(())
}

fn http(ground: &Ground, settings: ListenerSettings) -> http_server::Server {
    let Ground { clock, metrics, shutdown, .. } = ground;
    http_server::Server::new(settings, clock.clone(), metrics, shutdown.clone())
}
