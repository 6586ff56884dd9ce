//! The accept loop over real sockets, with a router that answers when the test permits.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{Extension, http::Uri};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::Semaphore,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server for a few connections. Requests are verified at once if their path says so, and
/// answered as [`Running::allow_answers`] permits.
struct Running {
    address: SocketAddr,
    connections: ConnectionTable,
    shutdown: Shutdown,
    permits: Arc<Permits>,
}

/// Control over the answers of a [`Running`] server.
struct Permits {
    may_answer: Semaphore,
    begun: Semaphore,
    answers: AtomicUsize,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

impl Running {
    async fn requests_have_begun(&self, number: u32) {
        self.permits.begun.acquire_many(number).await.unwrap().forget();
    }

    fn allow_answers(&self, number: usize) {
        self.permits.may_answer.add_permits(number);
    }
}

fn start(max_connections: usize, limits: TimeLimits, answer_bytes: usize) -> Running {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let settings = ListenerSettings {
        name: "public",
        idle_timeout: PATIENCE,
        max_connections,
        when_full: WhenFull::Wait,
    };
    let shutdown = Shutdown::new();
    let mut server = Server::new(settings, Clock::system(), &Metrics::new(), shutdown.clone());
    server.limits = limits;
    let permits = Arc::new(Permits {
        may_answer: Semaphore::new(0),
        begun: Semaphore::new(0),
        answers: AtomicUsize::new(0),
    });
    let running = Running {
        address: listener.local_addr().unwrap(),
        connections: server.connections.clone(),
        shutdown: shutdown.clone(),
        permits: Arc::clone(&permits),
    };
    let router =
        Router::new().fallback(move |Extension(peer): Extension<Peer>, uri: Uri| async move {
            if uri.path() == "/verified" {
                peer.mark_verified();
            }
            permits.begun.add_permits(1);
            permits.may_answer.acquire().await.unwrap().forget();
            permits.answers.fetch_add(1, Ordering::SeqCst);
            "x".repeat(answer_bytes)
        });
    shutdown.spawn(server.serve(listener, router));
    running
}

async fn send(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads until the connection is closed.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let all = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    drop(all.expect("it is not closed"));
    String::from_utf8(bytes).unwrap()
}

/// Reads one answer with a short body.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let read = timeout(PATIENCE, stream.read(&mut bytes)).await;
    let read = read.expect("no answer").unwrap();
    String::from_utf8(bytes[..read].to_vec()).unwrap()
}

#[tokio::test]
async fn a_verified_request_is_answered_however_many_come_after_it() {
    let running = start(4, TimeLimits::DEFAULT, 1);
    let mut slack = TcpStream::connect(running.address).await.unwrap();
    send(&mut slack, "/verified").await;
    running.requests_have_begun(1).await;
    let mut unverified = TcpStream::connect(running.address).await.unwrap();
    send(&mut unverified, "/").await;
    running.requests_have_begun(1).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(running.address).await.unwrap());
        let mut newest = TcpStream::connect(running.address).await.unwrap();
        send(&mut newest, "/").await;
        running.requests_have_begun(1).await;
    }
    assert_eq!(rest(&mut unverified).await, "", "the oldest of the others made room");
    running.allow_answers(1_000);
    assert!(answer(&mut slack).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn verified_is_the_request_and_not_the_connection() {
    let running = start(2, TimeLimits::DEFAULT, 1);
    running.allow_answers(1);
    let mut proxy = TcpStream::connect(running.address).await.unwrap();
    send(&mut proxy, "/verified").await;
    assert!(answer(&mut proxy).await.starts_with("HTTP/1.1 200 OK"));
    send(&mut proxy, "/").await;
    running.requests_have_begun(2).await;
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut other = TcpStream::connect(running.address).await.unwrap();
        send(&mut other, "/verified").await;
        running.requests_have_begun(1).await;
        others.push(other);
    }
    assert_eq!(rest(&mut proxy).await, "");
}

#[tokio::test]
async fn an_old_connection_ends_with_an_answer_that_says_so() {
    let running = start(4, TimeLimits { old_age: Duration::ZERO, ..TimeLimits::DEFAULT }, 1);
    running.allow_answers(1);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    send(&mut stream, "/").await;
    let all = rest(&mut stream).await;
    assert!(all.starts_with("HTTP/1.1 200 OK") && all.ends_with("\r\n\r\nx"), "{all}");
    assert!(all.contains("connection: close"), "{all}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off_and_not_answered_ahead() {
    const REQUESTS: usize = 1_000;
    let write_stall = Duration::from_millis(100);
    let running = start(4, TimeLimits { write_stall, ..TimeLimits::DEFAULT }, 100_000);
    running.allow_answers(REQUESTS);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(running.address).await.unwrap();
    let requests = "GET / HTTP/1.1\r\nHost: relay\r\n\r\n".repeat(REQUESTS);
    stream.write_all(requests.as_bytes()).await.unwrap();
    running.requests_have_begun(1).await;
    let is_closed = async {
        while running.connections.open() > 0 {
            running.connections.connection_closed().await;
        }
    };
    timeout(PATIENCE, is_closed).await.expect("it stays open");
    // Each answer fills more than what the kernel takes for a peer with so small a window.
    let answers = running.permits.answers.load(Ordering::SeqCst);
    assert!(answers < REQUESTS / 4, "{answers} answers were made that nobody reads");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_cut_off() {
    let longest_request = Duration::from_millis(100);
    let running = start(4, TimeLimits { longest_request, ..TimeLimits::DEFAULT }, 1);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    send(&mut stream, "/verified").await;
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_burst_of_connections_waits_in_the_kernel_until_it_is_accepted() {
    const BURST: usize = 600;
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    for _ in 0..BURST {
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    // A client whose handshake was dropped believes that it is connected; this side has not heard
    // of it.
    let listener = listener.into_std().unwrap();
    let accepted = std::iter::from_fn(|| listener.accept().ok());
    assert_eq!(accepted.take(BURST).count(), BURST);
}
