//! The real binary in a world that misbehaves: a clock that is set wrong, and names that nobody
//! answers for.

use std::{
    net::UdpSocket,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use slack_soar_relay::clock::Clock;

use crate::{
    harness::{
        PATIENCE, SECRET, http,
        slack::{self, incident},
        soar::{FakeSoar, Mood},
    },
    process::{Process, command, write_config},
};

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A process whose clock differs from ours by what a file says.
struct OffClock {
    process: Process,
    file: PathBuf,
}

impl OffClock {
    fn start(dir: &Path, soar: &FakeSoar, offset: &str) -> Self {
        assert!(Path::new(FAKETIME).exists(), "the Debian package libfaketime is missing");
        write_config(dir, &["a"]);
        let file = dir.join("offset");
        std::fs::write(&file, offset).unwrap();
        let env = [
            ("URL_a", soar.url()),
            ("LD_PRELOAD", FAKETIME.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap().to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        let env: Vec<_> = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self { process: Process::start(dir, &env), file }
    }

    /// The process reads it at its next look at the clock, so it must never be half written.
    fn set(&self, offset: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
    }

    /// Posts an incident that is signed with a clock ahead of ours by so much.
    async fn post(&self, n: u32, ahead: Duration) -> Option<u16> {
        let body = incident(n).to_string();
        let headers = slack::signed(SECRET, Clock::system().now() + ahead, body.as_bytes());
        let posted =
            http::try_post(self.process.public, "/slack/events", &headers, body.as_bytes());
        posted.await.map(|answer| answer.status)
    }

    async fn metric(&self, series: &str) -> f64 {
        let text = http::get(self.process.ops, "/metrics").await.text();
        let line = text.lines().find(|line| line.contains(series)).expect(series);
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn an_alert_that_failed_while_the_clock_was_ahead_does_not_wait_for_that_time() {
    let dir = tempfile::tempdir().unwrap();
    let soar = FakeSoar::new([Mood::Status(500)]).await;
    let relay = OffClock::start(dir.path(), &soar, "+40m");
    assert_eq!(relay.post(1, Duration::from_secs(40 * 60)).await, Some(200));
    soar.has_received(2).await;
    soar.becomes(Mood::Status(200));
    relay.set("+0");
    let received = soar.received().len();
    soar.has_received(received + 1).await;
    assert_eq!(soar.taken(), [slack::id(1)]);
}

#[tokio::test]
async fn a_clock_that_is_days_ahead_for_a_while_gives_no_alert_up() {
    let dir = tempfile::tempdir().unwrap();
    let soar = FakeSoar::new([Mood::Status(500)]).await;
    let relay = OffClock::start(dir.path(), &soar, "+0");
    assert_eq!(relay.post(1, Duration::ZERO).await, Some(200));
    soar.has_received(1).await;
    relay.set("+4d");
    // The fifth comes more than ten seconds later, after a look at what is too old.
    soar.has_received(4).await;
    soar.has_received(5).await;
    assert_eq!(relay.metric(r#"deliveries{destination="a",state="dead"}"#).await, 0.0);
    relay.set("+0");
    soar.becomes(Mood::Status(200));
    let received = soar.received().len();
    soar.has_received(received + 1).await;
    assert_eq!(soar.taken(), [slack::id(1)]);
}

/// A small DNS server: it has 127.0.0.1 for every name, and no answer for those in `dead.test`.
/// Returns how many queries it has left without an answer.
fn dns_server(address: &str) -> Arc<AtomicUsize> {
    let socket = UdpSocket::bind((address, 53)).unwrap();
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dropped);
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let query = &buffer[..length];
            if query.windows(10).any(|part| part == b"\x04dead\x04test") {
                counted.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            // The question ends with the root label, the type and the class.
            let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            let is_address = query[end - 4..end] == [0, 1, 0, 1];
            let mut answer = [&query[..2], &[0x81, 0x80, 0, 1, 0, u8::from(is_address)]].concat();
            answer.extend([0; 4]);
            answer.extend(&query[12..end]);
            if is_address {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
            }
            drop(socket.send_to(&answer, from));
        }
    });
    dropped
}

/// Address of the server.
const SERVER: &str = "127.66.77.88";

/// Runs as root only: the process gets a `resolv.conf` of its own, and port 53 is taken.
#[tokio::test]
async fn destinations_whose_names_nobody_answers_for_delay_no_other() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("not tried: this needs root, for a resolv.conf of its own");
        return;
    }
    let dropped = dns_server(SERVER);
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &["one", "two", "three", "alive"]);
    let yaml = std::fs::read_to_string(dir.path().join("relay.yaml")).unwrap();
    let yaml = yaml.replace("{env: URL_alive}", "{env: URL_alive}, when: {min_severity: critical}");
    std::fs::write(dir.path().join("relay.yaml"), yaml).unwrap();
    let conf = dir.path().join("resolv.conf");
    std::fs::write(&conf, format!("nameserver {SERVER}\noptions timeout:5 attempts:3\n")).unwrap();
    let soar = FakeSoar::ok().await;
    let port = soar.base().rsplit(':').next().unwrap().to_owned();
    let mut env: Vec<_> = ["one", "two", "three"]
        .map(|name| (format!("URL_{name}"), format!("http://{name}.dead.test:{port}/hook")))
        .to_vec();
    env.push(("URL_alive".to_owned(), format!("http://soar.alive.test:{port}/hook")));
    let mut apart = Command::new("unshare");
    apart.args(["-m", "sh", "-c", r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#]).arg(&conf);
    let relay = Process::start_in(apart, &command(), dir.path(), &env);
    for n in 0..4 {
        assert_eq!(relay.post(n).await, Some(200));
    }
    let asked = async {
        // Two queries for each of eight look-ups.
        while dropped.load(Ordering::SeqCst) < 16 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap();
    let started = Clock::system().instant();
    for n in 4..20 {
        let mut message = slack::message(n);
        message["attachments"][0]["fields"][1]["value"] = "Critical".into();
        let body = slack::event(&message).to_string();
        assert_eq!(relay.post_body(body.as_bytes()).await, Some(200));
    }
    soar.has_received(16).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}: as long as the system waits for a server");
}
