//! The accept loop and its limits. `cli` runs one for Slack and one for operators.
//!
//! `axum::serve` 0.8 installs no timer, so a client that sends half a head keeps its connection for
//! ever; this loop closes it. HTTP/1.1 only: Slack and probes speak it, and a slow HTTP/2 preface
//! would be one more thing to time.

use std::{convert::Infallible, error::Error, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{clock::Clock, shutdown::Shutdown};

/// Connections at once; the next one waits in the backlog until one of these ends.
const MAX_CONNECTIONS: usize = 512;

/// Bytes of a request's head. hyper answers 431 beyond it.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Bytes read ahead of a connection; at least a head must fit.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// How long requests in flight may take once nothing new is accepted.
const GRACE: Duration = Duration::from_secs(3);

/// How long the loop waits after a failed `accept` (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What differs from one listener to another.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For reading a request's head, and for a connection that waits for its next request.
    pub idle_timeout: Duration,
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Accepts connections until [`Shutdown::stop`], each with a service of its own, then lets requests
/// in flight finish.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: impl Fn(Peer) -> S,
    settings: Settings,
    clock: Clock,
    shutdown: Shutdown,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(settings.idle_timeout)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(READ_BUFFER_BYTES);
    while let Some((stream, peer, place)) =
        next_connection(&listener, &places, &clock, &shutdown).await
    {
        let connection = protocol.serve_connection(TokioIo::new(stream), service(Peer(peer)));
        let (stopped, clock) = (shutdown.stopped(), clock.clone());
        shutdown.spawn(async move {
            let _place: OwnedSemaphorePermit = place;
            tokio::pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => log_end(ended),
                () = stopped => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => log_end(ended),
                        () = clock.sleep(GRACE) => {}
                    }
                }
            }
        });
    }
}

/// A place first, then the connection: at the limit new ones wait in the backlog, where the
/// kernel keeps them, and not in our memory.
async fn next_connection(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    clock: &Clock,
    shutdown: &Shutdown,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let stopped = shutdown.stopped();
    tokio::pin!(stopped);
    let place = tokio::select! {
        place = Arc::clone(places).acquire_owned() => place.ok()?,
        () = stopped.as_mut() => return None,
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped.as_mut() => return None,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection ended before it began");
                    continue;
                }
                return Some((stream, peer, place));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
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
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}
