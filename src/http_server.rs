//! The accept loop and its limits. `cli` runs one loop for Slack and one for operators.
//!
//! `axum::serve` 0.8 does not set a timer, so a client that sends half of a head keeps its
//! connection forever; this loop closes it. Only HTTP/1.1 is spoken: Slack and probes use it, and
//! the slow preface of HTTP/2 would be one more thing to time.
//!
//! A listener that is full closes one connection for each new one (`connections`), so strangers who
//! hold connections do not keep others out.

mod connections;
mod tracking;

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Counter;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};
use tower::Service;

pub use self::connections::WhenFull;
use self::{
    connections::{Connection, ConnectionTable, Phase, TimeLimits},
    tracking::{RequestGuard, TrackedBody, TrackedStream},
};
use crate::{
    clock::{Clock, Seldom},
    metrics::{Metric, Metrics},
    shutdown::Shutdown,
};

/// Limit of a request's head. hyper answers 431 beyond it.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Limit of hyper's read buffer; at least a head must fit.
const READ_BUFFER_BYTES: usize = 48 * 1024;

/// Connections that may wait to be accepted. The kernel drops the handshakes of others, whose
/// clients then wait for a second or more; it also caps this number (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// Time for requests in progress to finish once nothing new is accepted.
const GRACE: Duration = Duration::from_secs(3);

/// Pause after a failed `accept` (too many open files, for example), unless a connection closes
/// before.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Interval at which time limits are checked.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Interval between log lines about the same trouble: strangers can cause it at will.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Settings of one listener.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Name of the listener in metrics and in the log.
    pub name: &'static str,
    /// Time to read a request's head, and for a connection to wait for its next request.
    pub idle_timeout: Duration,
    /// Number of connections at once.
    pub max_connections: usize,
    /// Behaviour when that many verified requests are in progress.
    pub when_full: WhenFull,
}

/// The other end of a connection, as an extension of every request. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peer {
    address: SocketAddr,
    connection: Arc<Connection>,
}

impl Peer {
    /// Returns the address from which the connection comes: the proxy's, if there is one in front.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Marks the sender of the request in progress as authenticated, so that its connection is not
    /// closed to make room for others. The next request on the connection is unverified again: a
    /// proxy sends everybody's over the same one.
    pub fn mark_verified(&self) {
        self.connection.enter(Phase::Verified);
    }
}

/// An accept loop that serves one [`Router`].
#[derive(Debug)]
pub struct Server {
    settings: ListenerSettings,
    limits: TimeLimits,
    connections: ConnectionTable,
    clock: Clock,
    shutdown: Shutdown,
    evicted: Counter,
    full_warning: Seldom,
    accept_warning: Seldom,
}

impl Server {
    /// Creates a loop that accepts nothing yet.
    pub fn new(
        settings: ListenerSettings,
        clock: Clock,
        metrics: &Metrics,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            evicted: metrics.counter(Metric::ConnectionsEvicted, &[settings.name]),
            settings,
            limits: TimeLimits::DEFAULT,
            connections: ConnectionTable::new(SWEEP_EVERY),
            clock,
            shutdown,
            full_warning: Seldom::every(WARN_EVERY),
            accept_warning: Seldom::every(WARN_EVERY),
        }
    }

    /// Accepts connections until [`Shutdown::stop`], then lets requests in progress finish. Every
    /// request carries its [`Peer`] as an extension.
    pub async fn serve(self, listener: TcpListener, router: Router) {
        let mut protocol = http1::Builder::new();
        protocol
            .timer(TokioTimer::new())
            // hyper applies this also while a connection waits for its next request.
            .header_read_timeout(self.settings.idle_timeout)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(READ_BUFFER_BYTES);
        while let Some((stream, address)) = self.next_connection(&listener).await {
            let connection =
                Arc::new(Connection::new(self.limits, self.clock.clone(), self.shutdown.clone()));
            let entry = self.connections.insert(&connection);
            let stream = TokioIo::new(TrackedStream::new(stream, Arc::clone(&connection)));
            let peer = Peer { address, connection: Arc::clone(&connection) };
            let router = router.clone();
            let service = service_fn(move |request| respond(router.clone(), peer.clone(), request));
            let http = protocol.serve_connection(stream, service);
            let stopped = self.shutdown.stopped();
            let clock = self.clock.clone();
            self.shutdown.spawn(async move {
                // The connection counts towards the limit until the entry is dropped.
                let _entry = entry;
                let mut http = pin!(http);
                let mut close_requested = pin!(connection.close_requested());
                tokio::select! {
                    biased;
                    ended = http.as_mut() => return log_end(ended),
                    () = close_requested.as_mut() => return,
                    () = stopped => http.as_mut().graceful_shutdown(),
                }
                tokio::select! {
                    ended = http => log_end(ended),
                    () = close_requested => {}
                    () = clock.sleep(GRACE) => {}
                }
            });
        }
    }

    /// Accepts a connection and makes room for it. Returns `None` once the server stops.
    async fn next_connection(&self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
        let stopped = self.shutdown.stopped();
        let next = async {
            let (stream, address) = self.accept(listener).await;
            self.make_room().await;
            (stream, address)
        };
        tokio::select! {
            biased;
            () = stopped => None,
            connection = next => Some(connection),
        }
    }

    async fn accept(&self, listener: &TcpListener) -> (TcpStream, SocketAddr) {
        loop {
            self.sweep();
            match timeout(SWEEP_EVERY, listener.accept()).await {
                Ok(Ok((stream, address))) => match stream.set_nodelay(true) {
                    Ok(()) => return (stream, address),
                    Err(error) => tracing::debug!(%error, "a connection ended before it began"),
                },
                Ok(Err(error)) => self.recover_from_accept(&error).await,
                Err(_elapsed) => {}
            }
        }
    }

    async fn recover_from_accept(&self, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
            return;
        }
        // Without file descriptors `accept` fails at once, again and again. Closing a connection
        // frees one.
        let is_evicting = self.evict();
        if self.accept_warning.is_due(self.clock.instant()) {
            tracing::warn!(
                %error,
                listener = self.settings.name,
                connections = self.connections.open(),
                "cannot accept connections on the {} listener; {} (logged once a minute)",
                self.settings.name,
                if is_evicting { "others are closed to make room" } else { "trying again" },
            );
        }
        drop(timeout(ACCEPT_PAUSE, self.connections.connection_closed()).await);
    }

    async fn make_room(&self) {
        while self.connections.open() >= self.settings.max_connections {
            if self.full_warning.is_due(self.clock.instant()) {
                tracing::warn!(
                    listener = self.settings.name,
                    "the {} listener has {} connections, its limit: for each new one, the one that \
                     has been idle longest is closed (logged once a minute)",
                    self.settings.name,
                    self.settings.max_connections,
                );
            }
            if !self.connections.is_one_closing() {
                self.evict();
            }
            if timeout(SWEEP_EVERY, self.connections.connection_closed()).await.is_err() {
                self.sweep();
            }
        }
    }

    fn evict(&self) -> bool {
        let is_evicted = self.connections.evict(self.settings.when_full);
        if is_evicted {
            self.evicted.increment(1);
        }
        is_evicted
    }

    fn sweep(&self) {
        self.connections.sweep(self.clock.instant());
    }
}

/// Answers one request, and tracks its progress for the connection table.
async fn respond(
    mut router: Router,
    peer: Peer,
    mut request: Request<Incoming>,
) -> Result<Response<TrackedBody<Body>>, Infallible> {
    let guard = RequestGuard::begin(&peer.connection);
    // hyper reads ahead, and would collect the answers to pipelined requests in its own buffer.
    guard.connection().answers_read().await;
    request.extensions_mut().insert(peer);
    // A router is always ready, so `poll_ready` need not be asked.
    let mut response = router.call(request).await?;
    if guard.connection().ends_with_this_answer() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| TrackedBody::new(body, guard)))
}

/// Logs how a connection ended. Slow, broken and hostile clients are normal on the internet.
fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended early");
    }
}

/// Binds a listener to an address.
///
/// # Errors
/// The system's error, with the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

#[cfg(test)]
mod tests;
