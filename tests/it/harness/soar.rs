//! A SOAR that keeps what it is sent, dedupes nothing, and answers as it is told.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::PATIENCE;

/// Answer of the SOAR.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    Status(u16),
    /// A status with a body.
    Body(u16, String),
    /// A status with one header.
    Header(u16, &'static str, &'static str),
    /// 200 to whoever shows this `Authorization`, 401 to others.
    Wants(&'static str),
    /// 200 to the alert with this id, and to others the status with the body.
    TakesOnly(String, u16, String),
    /// Never sends an answer.
    Hang,
    /// Closes the connection.
    Reset,
}

#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// `true` if the answer was a success.
    taken: bool,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

struct State {
    moods: Vec<Mood>,
    received: Vec<Received>,
    count: watch::Sender<usize>,
}

pub(crate) struct FakeSoar {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    count: watch::Receiver<usize>,
    server: JoinHandle<()>,
}

impl Drop for FakeSoar {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeSoar {
    /// Answers with these, one a request, and then with the last for ever.
    pub(crate) async fn new(moods: impl IntoIterator<Item = Mood>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, count) = watch::channel(0);
        let moods: Vec<_> = moods.into_iter().collect();
        let state = Arc::new(Mutex::new(State { moods, received: Vec::new(), count: sender }));
        let server = spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, count, server }
    }

    pub(crate) async fn ok() -> Self {
        Self::new([Mood::Status(200)]).await
    }

    /// Returns the URL of the SOAR.
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?key=hunter2", self.address)
    }

    /// From now on it answers so.
    pub(crate) fn becomes(&self, mood: Mood) {
        self.state.lock().unwrap().moods = vec![mood];
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    /// The alert ids it was sent, in order.
    pub(crate) fn ids(&self) -> Vec<String> {
        let received = self.received();
        received.iter().map(|one| one.header("idempotency-key").to_owned()).collect()
    }

    /// The alert ids that it answered with success, in order.
    pub(crate) fn taken(&self) -> Vec<String> {
        let received = self.received();
        let taken = received.iter().filter(|one| one.taken);
        taken.map(|one| one.header("idempotency-key").to_owned()).collect()
    }

    /// Waits a moment for more requests than so many; returns how many there are.
    pub(crate) async fn more_than(&self, requests: usize) -> usize {
        let mut count = self.count.clone();
        let more = count.wait_for(|count| *count > requests);
        drop(tokio::time::timeout(PATIENCE, more).await.map(|found| drop(found.unwrap())));
        self.received().len()
    }

    /// Waits until it has been sent so many requests.
    pub(crate) async fn has_received(&self, requests: usize) -> Vec<Received> {
        let mut count = self.count.clone();
        let enough = count.wait_for(|count| *count >= requests);
        let waited = tokio::time::timeout(PATIENCE, enough).await.map(|found| drop(found.unwrap()));
        assert!(waited.is_ok(), "{} of {requests} requests", self.received().len());
        self.received()
    }
}

#[expect(clippy::disallowed_methods, reason = "the harness ends its own tasks")]
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    loop {
        let (stream, _peer) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            drop(connection.await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect::<Vec<_>>();
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let mood = {
        let mut state = state.lock().unwrap();
        let next = state.moods[0].clone();
        if state.moods.len() > 1 {
            state.moods.remove(0);
        }
        let shows = |key: &str| {
            let is_key = |(name, value): &(String, String)| name == "authorization" && value == key;
            headers.iter().any(is_key)
        };
        let is_for =
            |id: &str| headers.iter().any(|(name, value)| name == "idempotency-key" && value == id);
        let next = match next.clone() {
            Mood::Wants(key) => Mood::Status(if shows(key) { 200 } else { 401 }),
            Mood::TakesOnly(id, ..) if is_for(&id) => Mood::Status(200),
            Mood::TakesOnly(_, status, body) => Mood::Body(status, body),
            Mood::Status(_) | Mood::Body(..) | Mood::Header(..) | Mood::Hang | Mood::Reset => next,
        };
        let taken = matches!(next, Mood::Status(200));
        state.received.push(Received { taken, headers, body });
        state.count.send_replace(state.received.len());
        next
    };
    let response = |status: u16| Response::builder().status(status).body(Full::default()).unwrap();
    match mood {
        Mood::Status(status) => Ok(response(status)),
        Mood::Body(status, body) => Ok(response(status).map(|_empty| Full::from(body))),
        Mood::Header(status, name, value) => {
            let mut response = response(status);
            response.headers_mut().insert(name, value.parse().unwrap());
            Ok(response)
        }
        Mood::Hang | Mood::Wants(_) | Mood::TakesOnly(..) => {
            std::future::pending::<Infallible>().await;
            unreachable!()
        }
        Mood::Reset => Err(std::io::Error::other("reset")),
    }
}
