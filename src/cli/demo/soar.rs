//! The pretend SOAR: records the requests that it receives, and can be stopped and started.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::{
    clock::Clock,
    http_server::{self, ListenerSettings, WhenFull},
    metrics::Metrics,
    shutdown::Shutdown,
};

/// Body of the answers while the SOAR is stopped.
const STOPPED: &str = r#"{"error": "the pretend SOAR is stopped"}"#;

/// Something that happened at the SOAR.
#[derive(Debug)]
pub(super) enum Note {
    /// The SOAR received a request.
    Took { head: String, body: String },
    /// The SOAR refused a request while stopped.
    Refused,
    /// The SOAR was stopped or started.
    Switched { stopped: bool },
}

/// Switch that stops and starts the SOAR. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Switch {
    stopped: Arc<AtomicBool>,
    notes: mpsc::Sender<Note>,
}

impl Switch {
    async fn set(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::SeqCst);
        drop(self.notes.send(Note::Switched { stopped }).await);
    }

    /// Stops or starts the SOAR. Blocks the thread.
    pub(super) fn toggle(&self) {
        let stopped = !self.stopped.fetch_xor(true, Ordering::SeqCst);
        drop(self.notes.blocking_send(Note::Switched { stopped }));
    }

    async fn answer(self, request: Request) -> Response {
        match request.uri().path() {
            "/stop" => self.set(true).await,
            "/start" => self.set(false).await,
            _ if self.stopped.load(Ordering::SeqCst) => {
                drop(self.notes.send(Note::Refused).await);
                return (StatusCode::SERVICE_UNAVAILABLE, STOPPED).into_response();
            }
            _ => drop(self.notes.send(noted(request).await).await),
        }
        "{}".into_response()
    }
}

async fn noted(request: Request) -> Note {
    let mut head = format!("{} {}", request.method(), request.uri().path());
    for (name, value) in request.headers() {
        head.extend(["\n", name.as_str(), ": ", value.to_str().unwrap_or("?")]);
    }
    let body = request.into_body().collect().await;
    let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body = serde_json::from_slice::<serde_json::Value>(&bytes)
        .and_then(|json| serde_json::to_string_pretty(&json))
        .unwrap_or_else(|_no_json| String::from_utf8_lossy(&bytes).into_owned());
    Note::Took { head, body }
}

/// Starts the SOAR on a loopback port.
pub(super) fn start(end: &Shutdown) -> anyhow::Result<(SocketAddr, Switch, mpsc::Receiver<Note>)> {
    let listener = http_server::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = listener.local_addr()?;
    let (notes, received) = mpsc::channel(64);
    let switch = Switch { stopped: Arc::default(), notes };
    let answering = switch.clone();
    let router = Router::new().fallback(move |request: Request| answering.answer(request));
    let settings = ListenerSettings {
        name: "soar",
        idle_timeout: Duration::from_secs(75),
        max_connections: 64,
        when_full: WhenFull::Evict,
    };
    let metrics = Metrics::new();
    let server = http_server::Server::new(settings, Clock::system(), &metrics, end.clone());
    end.spawn(server.serve(listener, router));
    Ok((address, switch, received))
}
