//! The contract on PostgreSQL, and what only PostgreSQL promises. `tests/run postgres` starts the
//! server.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

use super::{OpenError, PostgresStore, Settings, Url};
use crate::{
    clock::{Clock, Timestamp},
    ids::{AppName, ChannelId, DestinationName, MessageKey, MessageTs, TsKey},
    metrics::{Metric, Metrics},
    store::{
        Accepted, Action, CursorMove, NewAlert, NewMessage, Next, Outcome, Reference, Selection,
        Source, Store, StoreError,
        contract::{Backend, LEASE, attempt, contract},
    },
};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Where the server for the tests is.
#[expect(clippy::disallowed_methods, reason = "only the tests are told where it is")]
fn server() -> String {
    std::env::var("TEST_DATABASE_URL")
        .expect("TEST_DATABASE_URL names a PostgreSQL server for tests: see tests/run postgres")
}

/// The same server, another database.
fn database_url(name: &str) -> String {
    let mut url = url::Url::parse(&server()).unwrap();
    url.set_path(name);
    url.into()
}

/// Runs SQL in a database, on a thread of its own: a test's `Drop` has no runtime to wait in.
fn admin(database: &str, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let (url, sql) = (database_url(database), sql.to_owned());
    std::thread::spawn(move || Runtime::new().unwrap().block_on(run(&url, &sql))).join().unwrap()
}

/// Runs SQL; returns the first column of every row.
async fn run(url: &str, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut tasks = tokio::task::JoinSet::new();
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tasks.spawn(connection);
    column(&client, sql).await
}

async fn column(client: &Client, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client.simple_query(sql).await?;
    let text = |message: &tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    Ok(rows.iter().filter_map(text).collect())
}

/// A database of its own, gone with the test.
struct Place {
    database: String,
    metrics: Metrics,
}

impl Place {
    fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = format!("relay_test_{}_{number}", std::process::id());
        admin("postgres", &format!("CREATE DATABASE {database}")).unwrap();
        Self { database, metrics: Metrics::new() }
    }

    fn settings(&self) -> Settings {
        settings(&database_url(&self.database))
    }

    async fn open(&self) -> PostgresStore {
        self.try_open(self.settings()).await.unwrap()
    }

    async fn try_open(&self, settings: Settings) -> Result<PostgresStore, OpenError> {
        PostgresStore::open(settings, Clock::system(), &self.metrics).await
    }

    fn sql(&self, sql: &str) -> Vec<String> {
        admin(&self.database, sql).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(admin("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.database)));
    }
}

fn settings(url: &str) -> Settings {
    let url = Arc::new(url.to_owned());
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Settings {
        url: Url::new(move || Arc::clone(&url)),
        listen_url: None,
        tls: Arc::new(tls),
        max_connections: 6,
        allow_unsafe: false,
        lease: LEASE,
    }
}

impl Backend for Place {
    fn open(&self, clock: &Clock, _max_size: u64) -> Arc<dyn Store> {
        let opening = PostgresStore::open(self.settings(), clock.clone(), &self.metrics);
        Arc::new(tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(opening).unwrap()
        }))
    }

    fn stale_leases(&self) -> u64 {
        let page = self.metrics.render();
        let name = Metric::StaleLeases.name();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or(0)
    }

    fn limit(&self, _max_size: u64) -> u64 {
        u64::MAX
    }

    fn leases_outlive_a_crash(&self) -> bool {
        true
    }
}

contract!(Place::new());
