//! Waiting times of an operator with 100,000 alerts in the store: lists, filters, searches and one
//! alert, asked of a relay over loopback.
//!
//! `cargo bench --bench operate`. The store is filled through its own `accept` and `record`. The
//! run fails if the median of any request is over the promised 100 ms. Beside the time stands the
//! CPU time of the relay for the request: on a busy machine the rest is waiting for other
//! processes.
//!
//! Before that the store is copied while 1,000 alerts a second come in; the run fails if the copy
//! is not sound or lacks an alert that was acknowledged before.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures time, and may end on anything unexpected"
)]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use serde_json::json;
use slack_soar_relay::{
    cli::serve::Relay,
    clock::Clock,
    config,
    ids::{AppName, ChannelId, DestinationName, MessageKey, MessageTs, TsKey},
    metrics::Metrics,
    store::{
        Attempt, Inbox, NewAlert, NewMessage, Next, Outcome, Queue, Reference, Source, Upkeep,
        sqlite::{SqliteSettings, SqliteStore, backup},
    },
};

const ALERTS: i64 = 100_000;
const BATCH: i64 = 1_000;
const ROUNDS: usize = 15;
const PROMISED: Duration = Duration::from_millis(100);

/// The first alert, of which every hundredth differs from the others.
const FIRST_TS: i64 = 1_600_000_000_000_000;

/// Not configured, so that nothing is delivered while we measure.
const DESTINATION: &str = "elsewhere";

fn message(n: i64) -> NewMessage {
    let ts = MessageTs::from_micros(FIRST_TS + n * 1_000_000);
    let is_rare = n % 1_000 == 0;
    let script = format!("cdn{}.vendor.example/assets/checkout/v{n}/bundle.min.js", n % 97);
    let title = "Code Defender has detected a new incident";
    let raw = json!({
        "type": "message", "subtype": "bot_message", "ts": ts.to_string(), "channel": "C0123456789",
        "bot_id": "B0123456789",
        "attachments": [{
            "title": title, "text": format!("PII Sniffing\n{}", "reads a form field. ".repeat(20)),
            "fields": [
                {"title": "Script", "value": script}, {"title": "Risk Level", "value": "High"},
                {"title": "Host Domain", "value": "<https://shop.example|shop.example>"},
            ],
        }],
    });
    let destination = DestinationName::new(DESTINATION).unwrap();
    NewMessage {
        key: MessageKey {
            app: AppName::new("main").unwrap(),
            channel: ChannelId::new("C0123456789"),
            ts: TsKey::Ts(ts),
        },
        posted_at: ts,
        source: Source::Push,
        event_id: format!("Ev{n:010}"),
        team: "T0123456789".to_owned(),
        received_at: Clock::system().now(),
        raw: raw.to_string().into(),
        is_edit: false,
        edited_ts: String::new(),
        alerts: vec![NewAlert {
            problems: Vec::new(),
            ordinal: 0,
            attachment: 0,
            level: if is_rare { "critical" } else { "high" },
            search: format!("PII Sniffing\n{script}\nshop.example\n{title}"),
            destinations: if n % 1_000 == 1 { Vec::new() } else { vec![destination] },
        }],
    }
}

/// Copies the store while 1,000 alerts a second come in. Returns whether the copy is whole.
async fn copy_under_load(store: &SqliteStore, path: &Path) -> bool {
    const AT_ONCE: i64 = 10;
    let (from, to) = (path.to_owned(), path.with_extension("copy"));
    let copy = to.clone();
    let started = Instant::now();
    let copying = tokio::task::spawn_blocking(move || backup(&from, &copy, drop).unwrap());
    let mut accepted = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while !copying.is_finished() {
        tick.tick().await;
        let first = ALERTS + accepted;
        let batch = (first..first + AT_ONCE).map(|n| store.accept(vec![message(n)], None, None));
        let results = futures(batch).await;
        assert!(results.iter().all(|result| result.as_ref().is_ok_and(|all| all[0].is_ok())));
        accepted += AT_ONCE;
    }
    let copied = copying.await.unwrap();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "copied {} alerts, {:.0} MB, in {seconds:.1} s, while {accepted} more were accepted",
        copied.alerts,
        u32::try_from(copied.bytes / 1_000_000).map_or(f64::MAX, f64::from),
    );
    let db = rusqlite::Connection::open(&to).unwrap();
    let sound: String = db.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    fs::remove_file(to).unwrap();
    sound == "ok" && copied.alerts >= u64::try_from(ALERTS).unwrap()
}

/// 100,000 alerts: 1 % dead, 4 % pending, 0.1 % unrouted, the others delivered.
async fn fill(path: &Path) -> bool {
    let started = Instant::now();
    let settings = SqliteSettings {
        path: path.to_owned(),
        max_size_bytes: 8 * 1024 * 1024 * 1024,
        lease: Duration::from_secs(90),
    };
    let store = SqliteStore::open(&settings, Clock::system(), &Metrics::new()).unwrap();
    let destination = DestinationName::new(DESTINATION).unwrap();
    for start in (0..ALERTS).step_by(usize::try_from(BATCH).unwrap()) {
        let batch = (start..start + BATCH).map(message).collect();
        let accepted = store.accept(batch, None, None).await.unwrap();
        assert!(accepted.iter().all(Result::is_ok));
        if start >= ALERTS - 4 * BATCH {
            continue;
        }
        let leases = store.lease_due(&destination, 2_000).await.unwrap();
        let records = leases.into_iter().zip(0..).map(|(lease, n)| {
            let next = match n % 100 {
                0 => Next::Dead { reason: "max_age" },
                _ => Next::Delivered(Reference::default()),
            };
            let attempt = Attempt {
                started_at: Clock::system().now(),
                duration: Duration::from_millis(120),
                class: "delivered",
                status: Some(200),
                excerpt: "{}".to_owned(),
            };
            store.record(lease, Outcome { attempt, next, projection: None })
        });
        for recorded in futures(records).await {
            assert!(recorded.is_ok());
        }
    }
    println!("{ALERTS} alerts stored in {:.1} s", started.elapsed().as_secs_f64());
    let is_whole = copy_under_load(&store, path).await;
    store.close().await;
    is_whole
}

/// All at once, so that they share their commits.
async fn futures<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_done = true;
        for (future, output) in &mut waiting {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => is_done = false,
                }
            }
        }
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

/// Returns the CPU time of all threads of this process.
fn worked() -> Duration {
    let of = |task: fs::DirEntry| {
        let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
        times.split(' ').next()?.parse::<u64>().ok()
    };
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    Duration::from_nanos(tasks.filter_map(of).sum())
}

/// Returns the time of a request, the CPU time in it, and the size of the answer.
fn ask(relay: SocketAddr, path: &str) -> (Duration, Duration, usize) {
    let before = worked();
    let started = Instant::now();
    let mut stream = TcpStream::connect(relay).unwrap();
    let head =
        format!("GET /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{path}");
    let took = started.elapsed();
    (took, worked().saturating_sub(before), answer.len())
}

fn measure(relay: SocketAddr) -> bool {
    let id =
        |n: i64| format!("main:C0123456789:{}:0", MessageTs::from_micros(FIRST_TS + n * 1_000_000));
    let requests = [
        ("newest page", "/alerts".to_owned()),
        ("largest page", "/alerts?limit=500".to_owned()),
        ("oldest page", "/alerts?before=51".to_owned()),
        ("rare severity", "/alerts?severity=critical".to_owned()),
        ("absent severity", "/alerts?severity=low".to_owned()),
        ("dead", "/alerts?state=dead".to_owned()),
        ("pending", "/alerts?state=pending".to_owned()),
        ("leased (none)", "/alerts?state=leased".to_owned()),
        ("cancelled (none)", "/alerts?state=cancelled".to_owned()),
        ("delivered", "/alerts?state=delivered".to_owned()),
        ("unrouted", "/alerts?state=unrouted".to_owned()),
        ("search: all match", "/alerts?q=sniffing".to_owned()),
        ("search: one script, oldest", "/alerts?q=%2Fv7%2Fbundle".to_owned()),
        ("search: nothing matches", "/alerts?q=skimmer.example".to_owned()),
        ("search: no ASCII", "/alerts?q=%C3%9Cberraschung".to_owned()),
        ("search: an id", format!("/alerts?q={}", id(7))),
        ("search: dead and absent", "/alerts?state=dead&q=skimmer".to_owned()),
        ("search: delivered and absent", "/alerts?state=delivered&q=skimmer".to_owned()),
        ("one alert", format!("/alerts/{}", id(50_000))),
        ("status", "/status".to_owned()),
    ];
    println!("{:<30} {:>9} {:>9} {:>9} {:>9}", "request", "median", "worst", "work", "bytes");
    let mut kept = true;
    for (name, path) in requests {
        let mut rounds: Vec<_> = (0..ROUNDS).map(|_| ask(relay, &path)).collect();
        rounds.sort();
        let ((median, _, bytes), (worst, ..)) = (rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
        rounds.sort_by_key(|(_, work, _)| *work);
        let work = rounds[ROUNDS / 2].1;
        let mark = if median > PROMISED { "  over 100 ms" } else { "" };
        kept &= median <= PROMISED;
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
        let times = [median, worst, work].map(ms);
        println!("{name:<30} {:>9} {:>9} {:>9} {bytes:>9}{mark}", times[0], times[1], times[2]);
    }
    kept
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let is_whole = runtime.block_on(fill(&folder.path().join("relay.db")));
    let yaml = "server: {listen: 127.0.0.1:0, ops_listen: 127.0.0.1:0, drain_delay: 0s}\n\
                slack: {apps: [{name: main, signing_secret: {env: SECRET}}]}\n\
                store: {sqlite: {max_size: 8GiB}}\n";
    let env = |_: &str| Some("a-secret-of-the-benchmark".to_owned());
    let config = config::parse(yaml, folder.path(), &env).unwrap().config;
    let relay = runtime.block_on(Relay::start(config, Clock::system())).unwrap();
    let kept = measure(relay.ops);
    runtime.block_on(relay.stop());
    if kept && is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
