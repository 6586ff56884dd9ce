//! Strangers on both ports, against the real binary: whatever they hold, Slack and the kubelet get
//! through, and memory stays within its limit.

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use slack_soar_relay::clock::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Mutex,
    task::JoinSet,
};

use crate::{
    harness::{PATIENCE, SECRET, http, slack},
    process::{Process, command, write_config},
};

/// The chart gives the relay 128 MiB; the rest is for the kernel's buffers.
const MAX_MEMORY_KIB: u64 = 100 * 1024;

/// More than a listener has places for.
const MANY: usize = 600;

/// One attack at a time, for the sake of the tests beside them.
static ALONE: Mutex<()> = Mutex::const_new(());

fn relay(dir: &Path) -> Process {
    write_config(dir, &[]);
    Process::start(dir, &[])
}

/// The head of a request that could be Slack's, but for its signature.
fn head(length: usize) -> String {
    format!(
        "POST /slack/events HTTP/1.1\r\nHost: relay\r\nX-Slack-Signature: v0={}\r\n\
         X-Slack-Request-Timestamp: {}\r\nContent-Length: {length}\r\n\r\n",
        "0".repeat(64),
        Clock::system().now().seconds()
    )
}

/// Connects; the kernel takes little of what comes back.
async fn connect(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(to).await.unwrap()
}

async fn gets_through(process: &Process, posts: std::ops::Range<u32>) {
    for n in posts {
        let posted = tokio::time::timeout(Duration::from_secs(10), process.post(n)).await;
        assert_eq!(posted.expect("Slack waits in vain"), Some(200), "post {n}");
    }
}

async fn is_alive(process: &Process) {
    let asked = tokio::time::timeout(PATIENCE, http::get(process.ops, "/livez"));
    assert_eq!(asked.await.expect("the kubelet waits in vain").status, 200);
}

/// A value of `/metrics`: that of the series `name{labels}`, or 0.
async fn metric(process: &Process, series: &str) -> f64 {
    let text = http::get(process.ops, "/metrics").await.text();
    let series = format!("slack_soar_relay_{series} ");
    let line = text.lines().find(|line| line.starts_with(&series));
    line.map_or(0.0, |line| line[series.len()..].parse().unwrap())
}

#[tokio::test]
async fn clients_that_read_no_answers_keep_nobody_out() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let process = relay(dir.path());
    let requests = "GET /livez HTTP/1.1\r\nHost: relay\r\n\r\n".repeat(400_000 / 38);
    let mut strangers = JoinSet::new();
    for to in [process.public, process.ops] {
        for _ in 0..512 {
            let requests = requests.clone();
            let mut stream = connect(to).await;
            strangers.spawn(async move {
                // It ends when the relay closes the connection.
                drop(stream.write_all(requests.as_bytes()).await);
                drop(stream.readable().await);
                std::future::pending::<()>().await;
            });
        }
    }
    gets_through(&process, 0..10).await;
    for _ in 0..10 {
        is_alive(&process).await;
    }
    assert!(process.peak_memory_kib() < MAX_MEMORY_KIB, "{} KiB", process.peak_memory_kib());
}

#[tokio::test]
async fn requests_that_only_announce_a_body_take_no_place() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let process = relay(dir.path());
    let mut strangers = Vec::new();
    for length in [1_000; 300].into_iter().chain([70_000; 40]) {
        let mut stream = connect(process.public).await;
        stream.write_all(head(length).as_bytes()).await.unwrap();
        strangers.push(stream);
    }
    let mut large = slack::message(1_000);
    large["attachments"][0]["text"] = "x".repeat(100_000).into();
    let large = slack::event(&large).to_string();
    assert_eq!(process.post_body(large.as_bytes()).await, Some(200));
    gets_through(&process, 0..3).await;
    let overload = r#"events_total{app="main",outcome="rejected",reason="overload"}"#;
    assert_eq!(metric(&process, overload).await, 0.0);
}

/// Connects again as soon as it is closed, and says the same each time. A stranger has an address
/// of its own, or the ports that the kernel keeps for a while after a connection would run out.
async fn come_back(from: u8, to: SocketAddr, says: String) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        // A stranger without a free port tries again, and does not leave the others alone.
        socket.set_reuseaddr(true).unwrap();
        if socket.bind(SocketAddr::from(([127, 0, 1, from], 0))).is_err() {
            tokio::task::yield_now().await;
            continue;
        }
        let Ok(mut stream) = socket.connect(to).await else {
            tokio::task::yield_now().await;
            continue;
        };
        drop(stream.write_all(says.as_bytes()).await);
        while stream.read(&mut [0; 256]).await.is_ok_and(|bytes| bytes > 0) {}
    }
}

#[tokio::test]
async fn slack_gets_through_every_time_while_others_connect_again_and_again() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let process = relay(dir.path());
    for says in [String::new(), "POST /slack/ev".to_owned(), head(1_000), head(100_000) + "half"] {
        let mut strangers = JoinSet::new();
        for from in (1..=200).cycle().take(MANY) {
            strangers.spawn(come_back(from, process.public, says.clone()));
        }
        let evicted = r#"connections_evicted_total{listener="public"}"#;
        let before = metric(&process, evicted).await;
        // A listener closes a connection for another one only once it is full.
        let is_full = async { while metric(&process, evicted).await <= before {} };
        // Six hundred clients and the relay may have one core between them.
        let full = tokio::time::timeout(PATIENCE * 4, is_full).await;
        let now = metric(&process, evicted).await;
        assert!(full.is_ok(), "{says:?}: {before} evicted, then {now}");
        gets_through(&process, 0..10).await;
    }
}

#[tokio::test]
async fn large_bodies_that_never_end_do_not_fill_the_memory() {
    const LENGTH: usize = 4 * 1024 * 1024;
    let body: &'static [u8] = vec![b'x'; LENGTH - 1].leak();
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let process = relay(dir.path());
    for strangers in [16, 500] {
        let mut sending = JoinSet::new();
        for _ in 0..strangers {
            sending.spawn(async move {
                let mut stream = TcpStream::connect(process.public).await.unwrap();
                drop(stream.write_all(head(LENGTH).as_bytes()).await);
                drop(stream.write_all(body).await);
                stream
            });
        }
        gets_through(&process, 0..3).await;
        let sent = tokio::time::timeout(PATIENCE * 3, sending.join_all()).await.unwrap();
        gets_through(&process, 3..6).await;
        drop(sent);
        let peak = process.peak_memory_kib();
        assert!(peak < MAX_MEMORY_KIB, "{peak} KiB with {strangers} strangers");
    }
    // Nothing that is stored, so this is about the door alone.
    assert_eq!(process.post_body(body).await, Some(200), "one of the largest fits");
}

#[tokio::test]
async fn without_file_descriptors_connections_make_room_for_others() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let mut few_files = Command::new("sh");
    let program = command().get_program().to_owned();
    few_files.args(["-c", "ulimit -n 96; exec \"$0\" \"$@\""]).arg(program);
    few_files.env("SECRET", SECRET);
    let mut process = Process::start_by(few_files, dir.path(), &[]);
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(process.public).await.unwrap());
    }
    gets_through(&process, 0..5).await;
    let said = process.log_of("cannot accept connections", |_| true).await;
    assert_eq!(said[0]["level"], "WARN");
    is_alive(&process).await;
}

/// Holds every flush to disk back while a file exists.
const SLOW_DISK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void wait_for_disk(void) {
    const char *path = getenv("DISK_HANGS");
    while (path && access(path, F_OK) == 0) usleep(10000);
}
int fdatasync(int fd) {
    wait_for_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
int fsync(int fd) {
    wait_for_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_that_a_hanging_disk_made_us_refuse_are_not_kept_in_memory() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let (source, library) = (dir.path().join("disk.c"), dir.path().join("disk.so"));
    fs::write(&source, SLOW_DISK).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).arg("-ldl");
    assert!(compiler.status().unwrap().success());
    write_config(dir.path(), &[]);
    let hangs = dir.path().join("hangs");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let env = [("LD_PRELOAD".to_owned(), text(&library)), ("DISK_HANGS".to_owned(), text(&hangs))];
    let process = Process::start(dir.path(), &env);
    gets_through(&process, 0..1).await;
    fs::write(&hangs, "").unwrap();
    let text = "x".repeat(600_000);
    let signed = (1..201).map(|n| {
        let body = slack::incident(n).to_string().replace("PII Sniffing", &text).into_bytes();
        (slack::signed(SECRET, Clock::system().now(), &body), body)
    });
    let signed: Vec<_> = signed.collect();
    let mut posts = JoinSet::new();
    for (headers, body) in signed {
        if posts.len() == 24 {
            assert_ne!(posts.join_next().await.unwrap().unwrap(), 200);
        }
        let to = process.public;
        posts.spawn(async move { http::post(to, "/slack/events", &headers, &body).await.status });
    }
    for status in posts.join_all().await {
        assert_ne!(status, 200);
    }
    let peak = process.peak_memory_kib();
    assert!(peak < MAX_MEMORY_KIB, "{peak} KiB");
    fs::remove_file(&hangs).unwrap();
    // The first may be refused too, while the batch at hand is being written.
    let again = async { while process.post(1_000).await != Some(200) {} };
    tokio::time::timeout(PATIENCE, again).await.expect("the store never took anything again");
    gets_through(&process, 1_001..1_010).await;
    let host = [("Host".to_owned(), "localhost".to_owned())];
    let alerts = http::request(process.ops, "GET", "/api/v1/alerts?limit=500", &host, b"").await;
    let alerts: serde_json::Value = serde_json::from_slice(&alerts.body).unwrap();
    let stored = alerts["alerts"].as_array().unwrap().len();
    assert!(stored < 11 + 64, "{stored} are stored, of which 11 were acknowledged");
}
