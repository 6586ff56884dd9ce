//! Several relays on one PostgreSQL, as real processes, while relays and servers are killed. Each
//! test starts its own servers; `tests/run postgres` installs the packages.

mod cluster;
mod durability;
mod failover;
mod migrate;
mod replicas;
mod tls;

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;
use slack_soar_relay::clock::Clock;

use self::cluster::Cluster;
use crate::{
    harness::{
        PATIENCE,
        fake_slack::{CHANNEL, FakeSlack, TOKEN},
        http, slack,
        soar::FakeSoar,
    },
    process::Process,
};

/// Makes two tests of each function: on a server, and behind a pooler.
macro_rules! both_ways {
    ($($test:ident),+ $(,)?) => {
        mod direct {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::TestServer::direct()).await;
            })+
        }
        mod pooled {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::TestServer::pooled()).await;
            })+
        }
    };
}
use both_ways;

/// Concurrent attempts of each relay.
const CONCURRENCY: usize = 4;

/// A folder with the configuration of relays that share a database.
struct Relays {
    folder: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Relays {
    /// Writes a configuration. Leases are as short as allowed, so that those of a killed relay end
    /// soon.
    fn new(database: String, soar: &FakeSoar) -> Self {
        let yaml = format!(
            "server: {{listen: 127.0.0.1:0, ops_listen: 127.0.0.1:0, drain_delay: 0s}}\n\
             slack: {{apps: [{{name: main, signing_secret: {{env: SECRET}}}}]}}\n\
             store: {{postgres: {{url: {{env: DATABASE_URL}}}}}}\n\
             delivery: {{lease: 31s}}\n\
             destinations:\n  - {{name: soar, preset: webhook, url: {{env: URL}}, \
             timeout: 1s, concurrency: {CONCURRENCY}}}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("relay.yaml"), yaml).unwrap();
        let env = vec![("DATABASE_URL".to_owned(), database), ("URL".to_owned(), soar.url())];
        Self { folder, env }
    }

    /// Lets relays trust this certificate.
    fn trust(&mut self, authority: &str) {
        std::fs::write(self.folder().join("ca.pem"), authority).unwrap();
        let path = self.folder().join("relay.yaml");
        let yaml = std::fs::read_to_string(&path).unwrap();
        let database = "url: {env: DATABASE_URL}";
        let yaml = yaml.replace(database, &format!("{database}, ca_file: ca.pem"));
        std::fs::write(path, yaml).unwrap();
    }

    /// Lets relays read the history of the usual channel.
    fn catch_up(&mut self, slack: &FakeSlack) {
        self.catch_up_in(slack, &format!("[{CHANNEL}]"));
    }

    /// Lets relays read the history of these channels (YAML).
    fn catch_up_in(&mut self, slack: &FakeSlack, channels: &str) {
        let path = self.folder().join("relay.yaml");
        let yaml = std::fs::read_to_string(&path).unwrap();
        let app = "signing_secret: {env: SECRET}";
        let token = format!("{app}, bot_token: {{env: TOKEN}}, channels: {channels}");
        let api = format!("slack: {{api_url: '{}', ", slack.api_url());
        std::fs::write(path, yaml.replace(app, &token).replace("slack: {", &api)).unwrap();
        self.env.push(("TOKEN".to_owned(), TOKEN.to_owned()));
    }

    /// Adds top-level YAML to the configuration.
    fn more(&mut self, yaml: &str) {
        let path = self.folder().join("relay.yaml");
        let before = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, before + yaml).unwrap();
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn start(&self) -> Process {
        Process::start(self.folder(), &self.env)
    }
}

/// Returns a value from a process's `/metrics`.
async fn metric(process: &Process, series: &str) -> f64 {
    let text = http::get(process.ops, "/metrics").await.text();
    let series = format!("slack_soar_relay_{series} ");
    let line = text.lines().find(|line| line.starts_with(&series));
    line.map_or(0.0, |line| line[series.len()..].parse().unwrap())
}

/// Calls the API of a process from this machine.
async fn api(process: &Process, method: &str, path: &str) -> Value {
    let headers = [
        ("Host".to_owned(), "localhost".to_owned()),
        ("Content-Type".to_owned(), "application/json".to_owned()),
    ];
    let path = format!("/api/v1{path}");
    let answer = http::request(process.ops, method, &path, &headers, b"").await;
    assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text());
    serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
}

/// Repeats a check until it succeeds.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Clock::system().now();
    while !is_so().await {
        assert!(Clock::system().now().since(start) < PATIENCE * 3, "never: {what}");
        tokio::task::yield_now().await;
    }
}

/// Returns the ids of the alerts in the database.
async fn stored(cluster: &Cluster) -> BTreeSet<String> {
    let ids = "SELECT key || ':' || ordinal FROM relay.alerts";
    cluster.sql(ids).await.into_iter().collect()
}

fn ids(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(slack::id).collect()
}
