//! The load, and the receiver at the other end. One thread, keep-alive connections, requests made
//! before the clock starts.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::events::{Kind, request};

const CONNECTIONS: u64 = 32;

/// Connections of an open loop.
const OPEN_CONNECTIONS: usize = 8;

/// Requests made ahead for one connection; unique, so each is sent once.
const AHEAD: u64 = 12_000;

#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn note(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    pub(crate) fn add(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Latencies in milliseconds.
    pub(crate) fn p99(&self) -> f64 {
        self.percentile(99)
    }

    /// Latencies in milliseconds.
    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted[sorted.len() * percent / 100].as_secs_f64() * 1e3
    }
}

/// Sends one request and checks that the answer is 200.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) {
    stream.write_all(request).await.unwrap();
    let mut read = 0;
    loop {
        read += stream.read(&mut buffer[read..]).await.unwrap();
        let answer = &buffer[..read];
        if answer.ends_with(b"\r\n\r\n") || answer.windows(6).any(|end| end == b"\r\n\r\nok") {
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(answer));
            return;
        }
        assert!(read > 0, "closed");
    }
}

async fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Requests for 32 connections in turn, so that messages arrive in the order of their time.
fn dealt(kind: Kind, number: u64) -> Vec<Vec<Vec<u8>>> {
    let mut hands = vec![Vec::new(); CONNECTIONS as usize];
    for hand in (0..hands.len()).cycle().take(number as usize) {
        hands[hand].push(request(kind).0);
    }
    hands
}

/// Posts on 32 connections to each server as fast as possible; returns the number of requests, and
/// the rate per second.
pub(crate) async fn closed(to: &[SocketAddr], kind: Kind, seconds: u64) -> (u64, f64) {
    let ahead: Vec<_> = to
        .iter()
        .flat_map(|to| dealt(kind, CONNECTIONS * AHEAD).into_iter().map(|hand| (*to, hand)))
        .collect();
    let (started, end) = (Instant::now(), Duration::from_secs(seconds));
    let mut connections = JoinSet::new();
    for (to, requests) in ahead {
        connections.spawn(async move {
            let (mut stream, mut buffer) = (connect(to).await, vec![0; 4096]);
            let mut sent = 0_u64;
            for request in &requests {
                if started.elapsed() >= end {
                    break;
                }
                exchange(&mut stream, request, &mut buffer).await;
                sent += 1;
            }
            sent
        });
    }
    let sent: u64 = connections.join_all().await.into_iter().sum();
    (sent, sent as f64 / started.elapsed().as_secs_f64())
}

/// Posts that many requests on 32 connections.
pub(crate) async fn count(to: SocketAddr, kind: Kind, number: u64) {
    let mut connections = JoinSet::new();
    for requests in dealt(kind, number) {
        connections.spawn(async move {
            let (mut stream, mut buffer) = (connect(to).await, vec![0; 4096]);
            for request in &requests {
                exchange(&mut stream, request, &mut buffer).await;
            }
        });
    }
    connections.join_all().await;
}

/// Result of posting at a fixed rate: the time of each answer, and the time at which each alert was
/// sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) latencies: Latencies,
    pub(crate) at: HashMap<String, Instant>,
}

/// At a fixed rate, whatever the answers take, on eight connections in turn. A latency counts from
/// when its request was due. The connections look at the clock all the time: a timer would be late
/// by more than an answer takes.
pub(crate) async fn open(to: SocketAddr, kind: Kind, rate: u64, seconds: u64) -> Sent {
    let requests: Vec<_> = (0..rate * seconds).map(|_| request(kind)).collect();
    let started = Instant::now() + Duration::from_millis(50);
    let mut connections = JoinSet::new();
    let mut shares: Vec<Vec<_>> = (0..OPEN_CONNECTIONS).map(|_| Vec::new()).collect();
    for (number, (request, id)) in (0_u32..).zip(requests) {
        let due = started + Duration::from_secs(1) * number / rate as u32;
        shares[number as usize % OPEN_CONNECTIONS].push((due, request, id));
    }
    for share in shares {
        connections.spawn(async move {
            let (mut stream, mut buffer) = (connect(to).await, vec![0; 4096]);
            let mut sent = Sent::default();
            for (due, request, id) in share {
                while Instant::now() < due {
                    tokio::task::yield_now().await;
                }
                sent.at.insert(id, due);
                exchange(&mut stream, &request, &mut buffer).await;
                sent.latencies.note(due.elapsed());
            }
            sent
        });
    }
    connections.join_all().await.into_iter().fold(Sent::default(), |mut all, one| {
        all.latencies.0.extend(one.latencies.0);
        all.at.extend(one.at);
        all
    })
}

type Arrivals = Arc<Mutex<HashMap<String, Instant>>>;

/// A receiver of alerts.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    arrivals: Arrivals,
}

impl Sink {
    /// Takes connections and never answers.
    pub(crate) async fn silent() -> Self {
        Self::start(None).await
    }

    /// Answers 200 at once, and notes what came when.
    pub(crate) async fn answering() -> Self {
        Self::start(Some(Duration::ZERO)).await
    }

    /// Takes as long for it as the quickest of real receivers.
    pub(crate) async fn working() -> Self {
        Self::start(Some(Duration::from_millis(10))).await
    }

    /// Answers 200 at once on a listener that is there already.
    pub(crate) fn answering_on(listener: TcpListener) -> Self {
        Self::start_on(listener, Some(Duration::ZERO))
    }

    async fn start(answers: Option<Duration>) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answers)
    }

    fn start_on(listener: TcpListener, answers: Option<Duration>) -> Self {
        let address = listener.local_addr().unwrap();
        let arrivals = Arrivals::default();
        let noted = Arc::clone(&arrivals);
        tokio::spawn(async move {
            loop {
                let (stream, _peer) = listener.accept().await.unwrap();
                tokio::spawn(receive(stream, answers, Arc::clone(&noted)));
            }
        });
        Self { address, arrivals }
    }

    pub(crate) fn clear(&self) {
        self.arrivals.lock().unwrap().clear();
    }

    /// Waits until so many alerts have come.
    pub(crate) async fn has(&self, alerts: u64) {
        let started = Instant::now();
        while (self.arrivals.lock().unwrap().len() as u64) < alerts {
            assert!(started.elapsed() < Duration::from_secs(120), "the alerts do not come");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn latencies(&self, sent: &HashMap<String, Instant>) -> Latencies {
        let arrivals = self.arrivals.lock().unwrap();
        Latencies(sent.iter().map(|(id, at)| arrivals[id].duration_since(*at)).collect())
    }
}

async fn receive(mut stream: TcpStream, answers: Option<Duration>, noted: Arrivals) {
    let mut buffer = vec![0; 65_536];
    let mut filled = 0;
    loop {
        let Ok(read @ 1..) = stream.read(&mut buffer[filled..]).await else { return };
        filled += read;
        let text = String::from_utf8_lossy(&buffer[..filled]).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let field = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
        };
        let length: usize = field("content-length: ").parse().unwrap_or(0);
        let Some(work) = answers.filter(|_complete| body.len() >= length) else { continue };
        noted.lock().unwrap().insert(field("idempotency-key: "), Instant::now());
        filled = 0;
        if !work.is_zero() {
            tokio::time::sleep(work).await;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}
