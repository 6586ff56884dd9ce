//! The accept loop and its limits. `cli` runs one for Slack and one for operators.
//!
//! `axum::serve` 0.8 installs no timer, so a client that sends half a head keeps its connection for
//! ever; this loop closes it. HTTP/1.1 only: Slack and probes speak it, and a slow HTTP/2 preface
//! would be one more thing to time.
//!
//! A listener that is full closes one connection for each new one (`house`), so strangers who hold
//! connections do not keep others out.

mod house;
mod watched;

use std::{
    convert::Infallible, error::Error, future::Future, io, net::SocketAddr, pin::pin, sync::Arc,
    time::Duration,
};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Counter;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use self::{
    house::{House, Limits, Phase, Visit},
    watched::{Answer, InProgress, Watched},
};
use crate::{
    clock::{Clock, Seldom},
    metrics::{Metric, Metrics},
    shutdown::Shutdown,
};

/// Bytes of a request's head. hyper answers 431 beyond it.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Bytes read ahead of a connection; at least a head must fit.
const READ_BUFFER_BYTES: usize = 48 * 1024;

/// Connections that wait to be accepted. The kernel drops the handshakes of others, whose clients
/// then wait for a second or more; it also caps the number (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// How long requests in flight may take once nothing new is accepted.
const GRACE: Duration = Duration::from_secs(3);

/// How long the loop waits after a failed `accept` (too many open files, say), unless a connection
/// ends before.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often time limits are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How often the same trouble is logged: strangers can cause it at will.
const SAID_EVERY: Duration = Duration::from_secs(60);

const LIMITS: Limits = Limits {
    // Slack and proxies read at once, and a browser on a bad line reads something.
    write_stall: Duration::from_secs(10),
    longest_request: Duration::from_secs(600),
    old_age: Duration::from_secs(600),
};

/// What happens when a listener has as many connections as it may have, and all of them are busy
/// with verified requests. Others are closed to make room in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The new connection waits until one of them ends.
    Wait,
    /// The oldest of them is closed.
    Evict,
}

/// What differs from one listener to another.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the listener is called in metrics and in the log.
    pub name: &'static str,
    /// For reading a request's head, and for a connection that waits for its next request.
    pub idle_timeout: Duration,
    /// Connections at once.
    pub max_connections: usize,
    /// What happens beyond that.
    pub when_full: WhenFull,
}

/// Who is at the other end of a connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peer {
    address: SocketAddr,
    visit: Arc<Visit>,
}

impl Peer {
    /// The address the connection comes from; a proxy's, if there is one in front.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says that the request in progress comes from somebody we know, so that its connection is
    /// not closed to make room for others. Does not extend to the connection's next request: a
    /// proxy sends everybody's over the same one.
    pub fn verified(&self) {
        self.visit.enter(Phase::Verified);
    }
}

/// An accept loop.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    limits: Limits,
    house: House,
    clock: Clock,
    shutdown: Shutdown,
    evicted: Counter,
    said_full: Seldom,
    said_failed: Seldom,
}

impl Server {
    /// Returns a loop that accepts nothing yet.
    pub fn new(settings: Settings, clock: Clock, metrics: &Metrics, shutdown: Shutdown) -> Self {
        Self {
            evicted: metrics.counter(Metric::ConnectionsEvicted, &[settings.name]),
            settings,
            limits: LIMITS,
            house: House::new(SWEEP_EVERY),
            clock,
            shutdown,
            said_full: Seldom::every(SAID_EVERY),
            said_failed: Seldom::every(SAID_EVERY),
        }
    }

    /// Accepts connections until [`Shutdown::stop`], each with a service of its own, then lets
    /// requests in flight finish.
    pub async fn serve<S, B>(self, listener: TcpListener, service: impl Fn(Peer) -> S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Send + 'static,
        S::Future: Send + 'static,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut protocol = http1::Builder::new();
        protocol
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.idle_timeout)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(READ_BUFFER_BYTES);
        while let Some((stream, address)) = self.next_connection(&listener).await {
            let (clock, shutdown) = (self.clock.clone(), self.shutdown.clone());
            let visit = Arc::new(Visit::new(self.limits, clock, shutdown));
            let place = self.house.let_in(&visit);
            let service = service(Peer { address, visit: Arc::clone(&visit) });
            let guest = Arc::clone(&visit);
            let service =
                service_fn(move |request| attend(InProgress::begin(&guest), service.call(request)));
            let stream = TokioIo::new(Watched::new(stream, Arc::clone(&visit)));
            let connection = protocol.serve_connection(stream, service);
            let (stopped, clock) = (self.shutdown.stopped(), self.clock.clone());
            self.shutdown.spawn(async move {
                let _place = place;
                let mut connection = pin!(connection);
                let mut told_to_leave = pin!(visit.told_to_leave());
                tokio::select! {
                    biased;
                    ended = connection.as_mut() => return log_end(ended),
                    () = told_to_leave.as_mut() => return,
                    () = stopped => connection.as_mut().graceful_shutdown(),
                }
                tokio::select! {
                    ended = connection => log_end(ended),
                    () = told_to_leave => {}
                    () = clock.sleep(GRACE) => {}
                }
            });
        }
    }

    /// Accepts a connection and makes room for it. `None` once nothing new is to be accepted.
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
                Ok(Err(error)) => self.accept_failed(&error).await,
                Err(_nobody_came) => {}
            }
        }
    }

    /// Without file descriptors `accept` fails at once, again and again, and what would free one is
    /// the end of a connection.
    async fn accept_failed(&self, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
            return;
        }
        let is_making_room = self.evict();
        if self.said_failed.is_due(self.clock.instant()) {
            tracing::warn!(
                %error,
                listener = self.settings.name,
                connections = self.house.present(),
                "cannot accept connections on the {} listener; {} (said once a minute)",
                self.settings.name,
                if is_making_room { "others are closed to make room" } else { "trying again" },
            );
        }
        drop(timeout(ACCEPT_PAUSE, self.house.somebody_left()).await);
    }

    async fn make_room(&self) {
        while self.house.present() >= self.settings.max_connections {
            if self.said_full.is_due(self.clock.instant()) {
                tracing::warn!(
                    listener = self.settings.name,
                    "the {} listener has {} connections, as many as it may have: for each new one \
                     the one that has been idle longest is closed (said once a minute)",
                    self.settings.name,
                    self.settings.max_connections,
                );
            }
            if !self.house.is_somebody_leaving() {
                self.evict();
            }
            if timeout(SWEEP_EVERY, self.house.somebody_left()).await.is_err() {
                self.sweep();
            }
        }
    }

    fn evict(&self) -> bool {
        let is_evicted = self.house.evict(self.settings.when_full);
        if is_evicted {
            self.evicted.increment(1);
        }
        is_evicted
    }

    fn sweep(&self) {
        self.house.sweep(self.clock.instant());
    }
}

/// Sees a request through. The last answer of an old connection, or of one that the process is
/// about to close, says that it is.
async fn attend<B>(
    progress: InProgress,
    answer: impl Future<Output = Result<Response<B>, Infallible>>,
) -> Result<Response<Answer<B>>, Infallible> {
    // hyper would answer request after request into its own buffer.
    progress.visit().answers_are_read().await;
    let mut response = answer.await?;
    if progress.visit().ends_with_this_answer() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Answer::new(body, progress)))
}

/// Slow, broken and hostile clients are the internet's normal noise.
fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended early");
    }
}

/// Binds a listener.
///
/// # Errors
/// What the system said, with the address.
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
