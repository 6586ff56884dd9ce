//! The contract suite on PostgreSQL, and tests of what only PostgreSQL promises. `tests/run
//! postgres` starts the server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, types::Type};

use super::{
    OpenError, PostgresStore, Settings, Url,
    database::{Param, Priority},
};
use crate::{
    clock::{Clock, Timestamp},
    ids::{AlertId, AppName, ChannelId, DestinationName, MessageKey, MessageTs, TsKey},
    metrics::{Metric, Metrics},
    store::{
        Accepted, Action, AlertQuery, AlertView, Because, CursorMove, Desk, Feeds, History, Inbox,
        Journal, NewAlert, NewMessage, Next, OperatorAction, Outcome, Pause, Paused, Pauses, Queue,
        Reference, Selection, Source, Store, StoreError, Upkeep,
        contract::{Backend, LEASE, attempt, contract},
        sqlite::{Export, SqliteStore},
        transfer::{TransferError, transfer},
    },
};

mod accept;
mod contention;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Returns the URL of the server for the tests.
#[expect(clippy::disallowed_methods, reason = "only the tests are told where it is")]
fn server() -> String {
    std::env::var("TEST_DATABASE_URL")
        .expect("TEST_DATABASE_URL names a PostgreSQL server for tests: see tests/run postgres")
}

/// Returns the URL of a database on that server.
fn database_url(name: &str) -> String {
    on(&server(), name)
}

/// Returns the URL of a database without the pooler that may stand in between. The pooler does not
/// know users and does not support `LISTEN`.
#[expect(clippy::disallowed_methods, reason = "only the tests are told where it is")]
fn direct_url(name: &str) -> String {
    on(&std::env::var("TEST_DATABASE_DIRECT_URL").unwrap_or_else(|_none| server()), name)
}

fn on(server: &str, name: &str) -> String {
    let mut url = url::Url::parse(server).unwrap();
    url.set_path(name);
    url.into()
}

/// Runs SQL in a database, on a thread of its own, since `Drop` cannot wait in the test's runtime.
fn admin(database: &str, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let (url, sql) = (database_url(database), sql.to_owned());
    std::thread::spawn(move || Runtime::new().unwrap().block_on(run(&url, &sql))).join().unwrap()
}

/// Runs SQL. Returns the first column of every row.
async fn run(url: &str, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut tasks = tokio::task::JoinSet::new();
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tasks.spawn(connection);
    column(&client, sql).await
}

async fn column(client: &Client, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client.simple_query(sql).await?;
    let text = |message: &SimpleQueryMessage| {
        if let SimpleQueryMessage::Row(row) = message {
            return row.get(0).map(str::to_owned);
        }
        None
    };
    Ok(rows.iter().filter_map(text).collect())
}

/// A database for one test, which is dropped with this value.
struct TestDatabase {
    database: String,
    metrics: Metrics,
}

impl TestDatabase {
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

impl Drop for TestDatabase {
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

impl Backend for TestDatabase {
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

contract!(TestDatabase::new());

fn app() -> AppName {
    AppName::new("main").unwrap()
}

fn soar() -> DestinationName {
    DestinationName::new("soar").unwrap()
}

fn message(number: i64) -> NewMessage {
    let ts = MessageTs::from_micros((1_600_000_000 + number) * 1_000_000);
    NewMessage {
        key: MessageKey { app: app(), channel: ChannelId::new("C1"), ts: TsKey::Ts(ts) },
        posted_at: ts,
        source: Source::Push,
        event_id: String::new(),
        team: String::new(),
        received_at: Clock::system().now(),
        raw: vec![b'x'; 1000].into(),
        is_edit: false,
        edited_ts: String::new(),
        alerts: vec![NewAlert {
            ordinal: 0,
            attachment: 0,
            level: "high",
            problems: Vec::new(),
            search: "text".to_owned(),
            destinations: vec![soar()],
        }],
    }
}

async fn accept(store: &PostgresStore, message: NewMessage) -> Result<Accepted, StoreError> {
    store.accept(vec![message], None, None).await?.remove(0)
}

/// Returns the message of an error with its causes.
fn chain(error: &OpenError) -> String {
    crate::logging::chain(error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_may_lose_a_commit_is_refused_unless_allowed() {
    let db = TestDatabase::new();
    let off = format!("ALTER DATABASE {} SET synchronous_commit = off", db.database);
    admin("postgres", &off).unwrap();
    let error = db.try_open(db.settings()).await.unwrap_err();
    let said = chain(&error);
    assert!(said.contains("synchronous_commit=off") && said.contains("allow_unsafe"), "{said}");
    let forced = Settings { allow_unsafe: true, ..db.settings() };
    accept(&db.try_open(forced).await.unwrap(), message(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_another_encoding_is_refused() {
    let db = TestDatabase::new();
    let other = format!("{}_latin", db.database);
    let make = format!("CREATE DATABASE {other} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    admin("postgres", &make).unwrap();
    let error = db.try_open(settings(&database_url(&other))).await.unwrap_err();
    admin("postgres", &format!("DROP DATABASE {other} WITH (FORCE)")).unwrap();
    assert!(matches!(&error, OpenError::Encoding(name) if name == "LATIN1"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_hangs_does_not_keep_the_relay_from_the_next() {
    let db = TestDatabase::new();
    // The kernel accepts connections to this listener, and nothing answers them.
    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = database_url(&db.database);
    let (login, rest) = url.rsplit_once('@').unwrap();
    let both = format!("{login}@{},{rest}", hung.local_addr().unwrap());
    let clock = Clock::system();
    let start = clock.now();
    let store = db.try_open(settings(&both)).await.unwrap();
    accept(&store, message(1)).await.unwrap();
    let took = clock.now().since(start);
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_a_newer_version_are_refused() {
    let db = TestDatabase::new();
    drop(db.open().await);
    db.sql("UPDATE relay.layout SET version = 99");
    let error = db.try_open(db.settings()).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer(99)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_start_at_the_same_time_create_the_tables_once() {
    let db = Arc::new(TestDatabase::new());
    let mut opens = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let db = Arc::clone(&db);
        opens.spawn(async move { db.open().await });
    }
    let stores = opens.join_all().await;
    for (store, number) in stores.iter().zip(0..) {
        assert_eq!(accept(store, message(number)).await.unwrap(), Accepted::New { alerts: 1 });
    }
    assert_eq!(db.sql("SELECT count(*) FROM relay.layout"), ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_needs_no_more_than_its_own_schema() {
    let db = TestDatabase::new();
    let role = format!("role_of_{}", db.database);
    db.sql(&format!("CREATE ROLE {role} LOGIN"));
    let mut url = url::Url::parse(&direct_url(&db.database)).unwrap();
    url.set_username(&role).unwrap();
    let error = db.try_open(settings(url.as_str())).await.unwrap_err();
    assert!(matches!(error, OpenError::Rights(_)), "{error:?}");
    assert!(chain(&error).contains("CREATE SCHEMA relay AUTHORIZATION"), "{error}");
    db.sql(&format!("CREATE SCHEMA relay AUTHORIZATION {role}"));
    let store = db.try_open(settings(url.as_str())).await.unwrap();
    accept(&store, message(1)).await.unwrap();
    assert_eq!(store.lease_due(&soar(), 1).await.unwrap().len(), 1);
    store
        .prune(crate::store::Retention { delivered: Duration::ZERO, dead: Duration::ZERO })
        .await
        .unwrap();
    store.close().await;
    drop(store);
    db.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_url_nor_password_is_shown() {
    let db = TestDatabase::new();
    let mut url = url::Url::parse(&direct_url(&db.database)).unwrap();
    url.set_username("nobody_of_that_name").unwrap();
    url.set_password(Some("hunter2")).unwrap();
    let settings = settings(url.as_str());
    assert!(!format!("{settings:?}").contains("hunter2"));
    let error = db.try_open(settings).await.unwrap_err();
    let said = format!("{} {error:?}", chain(&error));
    assert!(said.contains("nobody_of_that_name") && !said.contains("hunter2"), "{said}");
    let bad = self::settings("postgresql://u:hunter2@h:x/d");
    let error = db.try_open(bad).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_the_server_cannot_store_does_not_stop_its_neighbours() {
    let db = TestDatabase::new();
    let store = db.open().await;
    let mut batch: Vec<NewMessage> = (0..8).map(message).collect();
    // The relay's checks pass a key of this size, and no index of the server can hold it, since
    // random text cannot be compressed.
    let noise: String = (0..100_000).map(|_| fastrand::alphanumeric()).collect();
    batch[3].key.channel = ChannelId::new(&noise);
    let cursor = CursorMove {
        app: app(),
        channel: ChannelId::new("C1"),
        to: MessageTs::from_micros(7),
        seen: None,
        from: MessageTs::from_micros(0),
        term: 1,
    };
    let results = store.accept(batch, None, Some(cursor)).await.unwrap();
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(accepted) => assert_eq!((accepted, index != 3), (Accepted::New { alerts: 1 }, true)),
            Err(error) => assert!(matches!(error, StoreError::Item(_)) && index == 3, "{error:?}"),
        }
    }
    assert_eq!(db.sql("SELECT ts FROM relay.cursors"), ["7"]);
    assert_eq!(db.sql("SELECT count(*) FROM relay.alerts"), ["7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_reported_and_nothing_is_stored_in_part() {
    let db = TestDatabase::new();
    let store = db.open().await;
    db.sql(
        "CREATE FUNCTION relay.disk() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$;
         CREATE TRIGGER disk BEFORE INSERT ON relay.messages
            FOR EACH ROW EXECUTE FUNCTION relay.disk()",
    );
    let error = accept(&store, message(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Full), "{error:?}");
    assert_eq!(db.sql("SELECT count(*) FROM relay.alerts"), ["0"]);
    db.sql("DROP TRIGGER disk ON relay.messages");
    assert_eq!(accept(&store, message(1)).await.unwrap(), Accepted::New { alerts: 1 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_messages_in_opposite_order_do_not_block_two_relays() {
    let db = TestDatabase::new();
    let one = db.open().await;
    let other = db.open().await;
    for round in 0..20 {
        let forward: Vec<NewMessage> = (0..50).map(|n| message(round * 50 + n)).collect();
        let backward: Vec<NewMessage> = forward.iter().rev().cloned().collect();
        let (a, b) =
            tokio::join!(one.accept(forward, None, None), other.accept(backward, None, None));
        let new = |results: Vec<Result<Accepted, StoreError>>| {
            results.into_iter().filter(|one| matches!(one, Ok(Accepted::New { .. }))).count()
        };
        assert_eq!(new(a.unwrap()) + new(b.unwrap()), 50);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_of_another_relay_is_respected_and_fenced() {
    let db = TestDatabase::new();
    let clock = Clock::manual(Timestamp::from_seconds(1_700_000_000));
    let open = || PostgresStore::open(db.settings(), clock.clone(), &db.metrics);
    let one = open().await.unwrap();
    let other = open().await.unwrap();
    accept(&one, message(1)).await.unwrap();
    let slow = one.lease_due(&soar(), 1).await.unwrap().remove(0);
    assert!(other.lease_due(&soar(), 1).await.unwrap().is_empty());
    assert_eq!(other.act(Selection::default(), Action::Cancel, None).await.unwrap().changed, 0);
    clock.advance(LEASE);
    let quick = other.lease_due(&soar(), 1).await.unwrap().remove(0);
    let outcome = |next| Outcome { attempt: attempt(clock.now(), ""), next, projection: None };
    one.record(slow, outcome(Next::Dead { reason: "rejected" })).await.unwrap();
    assert_eq!(db.stale_leases(), 1);
    other.record(quick, outcome(Next::Delivered(Reference::default()))).await.unwrap();
    assert_eq!(db.sql("SELECT state || '/' || attempts FROM relay.deliveries"), ["1/1"]);
    assert_eq!(db.stale_leases(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_relay_polls_and_what_an_older_term_writes_is_refused() {
    let db = TestDatabase::new();
    let clock = Clock::manual(Timestamp::from_seconds(1_700_000_000));
    let open = || PostgresStore::open(db.settings(), clock.clone(), &db.metrics);
    let one = open().await.unwrap();
    let other = open().await.unwrap();
    let first = one.poller_term(&app()).await.unwrap().unwrap();
    assert_eq!(one.poller_term(&app()).await.unwrap(), Some(first));
    assert_eq!(other.poller_term(&app()).await.unwrap(), None);
    let elsewhere = AppName::new("other").unwrap();
    assert!(other.poller_term(&elsewhere).await.unwrap().is_some(), "each app has its own");
    // Longer than the right lasts without a renewal.
    clock.advance(Duration::from_secs(15));
    let second = other.poller_term(&app()).await.unwrap().unwrap();
    assert!(second > first);
    assert_eq!(one.poller_term(&app()).await.unwrap(), None);
    let cursor = |to, term| CursorMove {
        app: app(),
        channel: ChannelId::new("C1"),
        to: MessageTs::from_micros(to),
        seen: None,
        from: MessageTs::from_micros(0),
        term,
    };
    let late = one.accept(vec![message(1)], None, Some(cursor(20, first))).await.unwrap();
    assert!(late[0].is_ok(), "its messages are stored all the same");
    let channel = ChannelId::new("C1");
    assert_eq!(other.cursor(&app(), &channel).await.unwrap(), None);
    other.accept(Vec::new(), None, Some(cursor(10, second))).await.unwrap();
    let moved = other.cursor(&app(), &channel).await.unwrap();
    assert_eq!(moved, Some(MessageTs::from_micros(10)));
    other.close().await;
    let third = one.poller_term(&app()).await.unwrap().unwrap();
    assert!(third > second, "closing gives up the right at once");
    let another = open().await.unwrap();
    assert!(one.poller_term(&elsewhere).await.unwrap().is_some());
    assert!(one.stop_polling(&app()).await.unwrap(), "another may poll");
    assert_eq!(another.poller_term(&elsewhere).await.unwrap(), None, "given up for one app only");
    assert!(another.poller_term(&app()).await.unwrap().unwrap() > third);
    assert_eq!(one.poller_term(&app()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_to_poll_is_renewed_and_passes_on_within_15_s_of_a_death() {
    let db = TestDatabase::new();
    let one = db.open().await;
    let other = db.open().await;
    let first = one.poller_term(&app()).await.unwrap().unwrap();
    let clock = Clock::system();
    let start = clock.now();
    // Longer than the right lasts without a renewal.
    while clock.now().since(start) < Duration::from_secs(12) {
        assert_eq!(other.poller_term(&app()).await.unwrap(), None, "it is renewed by itself");
        clock.sleep(Duration::from_millis(200)).await;
    }
    drop(one);
    let died = clock.now();
    let second = loop {
        if let Some(term) = other.poller_term(&app()).await.unwrap() {
            break term;
        }
        clock.sleep(Duration::from_millis(200)).await;
    };
    assert!(second > first);
    let took = clock.now().since(died);
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_listens_is_notified_of_what_another_accepts() {
    let db = TestDatabase::new();
    let url = Arc::new(direct_url(&db.database));
    let listening = || Settings {
        listen_url: Some(Url::new({
            let url = Arc::clone(&url);
            move || Arc::clone(&url)
        })),
        ..db.settings()
    };
    // The clock stands still, so time does not wake a worker.
    let clock = Clock::manual(Timestamp::from_seconds(1_700_000_000));
    let open = || PostgresStore::open(listening(), clock.clone(), &db.metrics);
    let one = open().await.unwrap();
    let other = open().await.unwrap();
    let hint = other.due_hint(&soar());
    hint.notified().await;
    accept(&one, message(1)).await.unwrap();
    hint.notified().await;
    assert_eq!(other.lease_due(&soar(), 1).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_names_in_notifications_are_not_kept() {
    let db = TestDatabase::new();
    let url = Arc::new(direct_url(&db.database));
    let listen_url = Some(Url::new(move || Arc::clone(&url)));
    let settings = Settings { listen_url, ..db.settings() };
    let clock = Clock::manual(Timestamp::from_seconds(1_700_000_000));
    let store = PostgresStore::open(settings, clock, &db.metrics).await.unwrap();
    let hint = store.due_hint(&soar());
    hint.notified().await;
    db.sql("SELECT pg_notify('relay_due', 'name-' || n) FROM generate_series(1, 5000) AS s (n)");
    db.sql("SELECT pg_notify('relay_due', 'soar')");
    hint.notified().await;
    assert_eq!(store.shared.hints.len(), 1, "unknown names are not kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_costs_the_same_behind_a_long_backlog() {
    let db = TestDatabase::new();
    let store = db.open().await;
    accept(&store, message(0)).await.unwrap();
    // The shifts number the rows as the layout does: 2^12 alerts for each message, and 2^16
    // deliveries for each alert.
    let fill = |from: u32, to: u32| {
        db.sql(&format!(
            "INSERT INTO relay.deliveries (id, destination, due_at, since)
             SELECT (n::int8 << 28) + t.id, t.id, n, 0
             FROM generate_series({from}, {to}) AS s (n), relay.destinations t;
             INSERT INTO relay.alerts (seq, key, ordinal, attachment, sources, level, search)
             SELECT id::int8 << 12, 'main:C2:' || (1600000000 + id) || '.000000', 0, 0, 1,
                'high', ''
             FROM generate_series({from}, {to}) AS s (id);
             INSERT INTO relay.messages (id, received_at, posted_at, source, event_id, team, raw)
             SELECT id, 0, 0, 0, '', '', 'x' FROM generate_series({from}, {to}) AS s (id);
             ANALYZE relay.deliveries, relay.alerts, relay.messages"
        ))
    };
    let pages = async || {
        for lease in store.lease_due(&soar(), 20).await.unwrap() {
            let next = Next::Delivered(Reference::default());
            let attempt = attempt(Clock::system().now(), "");
            store.record(lease, Outcome { attempt, next, projection: None }).await.unwrap();
        }
        let (name, one, number, time) = ("soar", 1_i64, 7_i64, None::<i64>);
        let params: [Param<'_>; _] = [
            (&time, Type::INT8),
            (&name, Type::TEXT),
            (&one, Type::INT8),
            (&number, Type::INT8),
            (&number, Type::INT8),
            (&i64::MAX, Type::INT8),
        ];
        touched(&store, super::deliver::CLAIM, &params).await
    };
    fill(10, 1_200);
    let short = pages().await;
    fill(2_000, 300_000);
    let long = pages().await;
    assert!(long <= short * 2, "{short} pages before 1k, {long} before 300k");
}

/// Compares both stores through their public calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_moved_from_sqlite_completely_or_not_at_all() {
    let db = TestDatabase::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.db");
    let clock = Clock::manual(Timestamp::from_seconds(1_700_000_000));
    let from = {
        let settings = crate::store::sqlite::SqliteSettings {
            path: path.clone(),
            max_size_bytes: 1 << 30,
            lease: LEASE,
        };
        SqliteStore::open(&settings, clock.clone(), &Metrics::new()).unwrap()
    };
    let ids = fill(&from, &clock).await;
    let before = look(&from, &ids).await;
    assert!(Export::open(&path).is_err(), "a running relay's store is left alone");
    from.close().await;
    drop(from);

    let export = Export::open(&path).unwrap();
    let open = || PostgresStore::open(db.settings(), clock.clone(), &db.metrics);
    let to = open().await.unwrap();
    db.sql(
        "CREATE FUNCTION relay.no() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not yet'; END $$;
         CREATE TRIGGER no BEFORE INSERT ON relay.attempts
            FOR EACH ROW EXECUTE FUNCTION relay.no()",
    );
    transfer(&export, &to).await.unwrap_err();
    assert_eq!(db.sql("SELECT count(*) FROM relay.messages"), ["0"]);
    assert_eq!(db.sql("SELECT count(*) FROM relay.destinations"), ["0"]);
    db.sql("DROP TRIGGER no ON relay.attempts");
    // A relay that ran on the empty database has already read history.
    db.sql("INSERT INTO relay.cursors VALUES ('main', 'C1', 9000000000000000, 1)");
    let moved = transfer(&export, &to).await.unwrap();
    assert!(moved.contains(&("messages", 1_203)), "{moved:?}");
    assert_eq!(look(&to, &ids).await, before);
    let again = transfer(&export, &to).await.unwrap_err();
    assert!(matches!(again, TransferError::NotEmpty(1_203)), "{again:?}");

    assert_eq!(accept(&to, message(3)).await.unwrap(), Accepted::Duplicate, "identities moved");
    let edited_ts = "5.0".to_owned();
    let edit = NewMessage { raw: "anew".into(), is_edit: true, edited_ts, ..message(0) };
    assert_eq!(accept(&to, edit).await.unwrap(), Accepted::Duplicate, "edits moved");
    assert_eq!(accept(&to, message(9_999)).await.unwrap(), Accepted::New { alerts: 1 });
    let newest = to.alerts(AlertQuery { limit: 1, ..AlertQuery::default() }).await.unwrap();
    assert_eq!(newest[0].posted_at, message(9_999).posted_at, "new ones get higher numbers");
    assert_eq!(to.lease_due(&soar(), 5_000).await.unwrap().len(), 1_201);
}

/// Adds alerts in every state. Returns the ids that the test compares.
async fn fill(store: &SqliteStore, clock: &Clock) -> Vec<AlertId> {
    let batch = (0..1_200).map(message).collect();
    store.accept(batch, None, None).await.unwrap();
    let mut odd = message(5_000);
    odd.key.ts = TsKey::Digest([0, 255, 1, 2, 3, 4, 5, 6]);
    // A message is bytes, and need not be text.
    odd.raw = bytes::Bytes::from_static(b"a\0b\xff");
    odd.alerts[0].search = "\u{FFFD}\u{10FFFF}'\"\\ \u{1}\n".to_owned();
    let mut two = message(5_001);
    two.alerts = vec![
        NewAlert { destinations: Vec::new(), ..two.alerts[0].clone() },
        NewAlert { ordinal: 7, attachment: 9, ..two.alerts[0].clone() },
    ];
    let found = NewMessage { source: Source::CatchUp, ..message(5_002) };
    let cursor = CursorMove {
        app: app(),
        channel: ChannelId::new("C1"),
        to: MessageTs::from_micros(77),
        seen: None,
        from: MessageTs::from_micros(0),
        term: 1,
    };
    let ids = [&message(0), &message(1), &message(2), &odd, &two, &found]
        .map(|message| AlertId { message: message.key.clone(), ordinal: 0 });
    store.accept(vec![odd, two, found], None, Some(cursor)).await.unwrap();
    let edited_ts = "5.0".to_owned();
    let edit = NewMessage { raw: "edited".into(), is_edit: true, edited_ts, ..message(0) };
    store.accept(vec![edit], None, None).await.unwrap();
    let ends = [
        Next::Delivered(Reference { id: "42".to_owned(), url: "https://x/42".to_owned() }),
        Next::Dead { reason: "rejected" },
        Next::Dead { reason: "expired" },
        Next::Retry { wait: Duration::from_secs(5), because: Because::Refused },
    ];
    for (lease, next) in store.lease_due(&soar(), 4).await.unwrap().into_iter().zip(ends) {
        let attempt = attempt(clock.now(), "said \u{FFFD}");
        store.record(lease, Outcome { attempt, next, projection: None }).await.unwrap();
    }
    let one = Selection { alert: Some(ids[2].clone()), ..Selection::default() };
    store.act(one, Action::Cancel, None).await.unwrap();
    store.quarantine(&app(), b"\xff{");
    store.set_channel_id(&app(), "alerts", &ChannelId::new("C1")).await.unwrap();
    let deed = |action| {
        let (who, selection) = ("::1 (token)".to_owned(), "destination chat".to_owned());
        OperatorAction { who, action, selection }
    };
    let chat = DestinationName::new("chat").unwrap();
    let paused = Paused::Yes(Pause::default());
    store.set_paused(&chat, paused, Some(deed("pause"))).await.unwrap();
    store.note(deed("test"), 1).await.unwrap();
    clock.advance(Duration::from_secs(5));
    store.feed_page(&soar(), 0, 2).await.unwrap();
    ids.to_vec()
}

/// Returns everything that the store knows of these alerts and of itself, except row numbers.
async fn look(store: &dyn Store, ids: &[AlertId]) -> Vec<String> {
    let mut seen = Vec::new();
    for id in ids {
        let view = store.alert(id).await.unwrap().unwrap();
        seen.push(format!("{:?}", AlertView { seq: 0, ..view }));
    }
    let stats = store.stats().await.unwrap();
    let channel = ChannelId::new("C1");
    seen.push(format!("{:?}", stats.destinations));
    for (number, delivery) in store.feed_page(&soar(), 0, 2).await.unwrap().entries {
        seen.push(format!("{number} {}", delivery.alert));
    }
    seen.push(format!("{:?}", store.cursor(&app(), &channel).await.unwrap()));
    seen.push(format!("{:?}", store.channel_ids(&app()).await.unwrap()));
    seen.push(format!("{:?}", store.journal(10).await.unwrap()));
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_a_feed_does_not_skip_an_alert_that_commits_late() {
    let db = TestDatabase::new();
    let store = db.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    let (late, connection) =
        tokio_postgres::connect(&database_url(&db.database), NoTls).await.unwrap();
    tasks.spawn(connection);
    accept(&store, message(1)).await.unwrap();
    // Another relay takes the next number and commits late.
    late.batch_execute(
        "BEGIN;
         INSERT INTO relay.messages (id, received_at, posted_at, source, event_id, team, raw)
            SELECT nextval('relay.message_id'), received_at, posted_at, source, event_id, team, raw
            FROM relay.messages LIMIT 1;
         INSERT INTO relay.alerts (seq, key, ordinal, attachment, sources, level, search)
            SELECT m.id * 4096, 'main:C1:1.000000', 0, 0, 1, 'high', 'late'
            FROM relay.messages m ORDER BY m.id DESC LIMIT 1;
         INSERT INTO relay.deliveries (id, destination, due_at, since)
            SELECT a.seq * 65536 + t.id, t.id, d.due_at, d.since FROM relay.alerts a,
                relay.destinations t, relay.deliveries d WHERE a.search = 'late'",
    )
    .await
    .unwrap();
    accept(&store, message(2)).await.unwrap();
    let read = async |after| {
        let page = store.feed_page(&soar(), after, 100).await.unwrap().entries;
        let last = page.last().map_or(after, |(number, _)| *number);
        (page.into_iter().map(|(_, one)| one.alert.to_string()).collect::<Vec<_>>(), last)
    };
    let (first, after) = read(0).await;
    assert_eq!(first.len(), 2, "{first:?}");
    store.feed_taken(&soar(), after).await.unwrap();
    late.batch_execute("COMMIT").await.unwrap();
    assert_eq!(read(after).await.0, ["main:C1:1.000000:0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_a_feed_costs_the_same_behind_a_long_history_and_before_a_long_backlog() {
    use super::feed::{PAGE, STATE, TAKEN};
    let db = TestDatabase::new();
    let store = db.open().await;
    accept(&store, message(0)).await.unwrap();
    // Half of them were delivered long ago, and half of them have no number yet.
    let fill = |from: u32, to: u32| {
        db.sql(&format!(
            "INSERT INTO relay.messages (id, received_at, posted_at, source, event_id, team, raw)
             SELECT id, 0, 0, 0, '', '', 'x' FROM generate_series({from}, {to}) AS s (id);
             INSERT INTO relay.alerts (seq, key, ordinal, attachment, sources, level, search)
             SELECT id::int8 << 12, 'main:C2:' || (1600000000 + id) || '.000000', 0, 0, 1,
                'high', '' FROM generate_series({from}, {to}) AS s (id);
             INSERT INTO relay.deliveries (id, destination, due_at, since, state, number)
             SELECT (n::int8 << 28) + t.id, t.id, n, 0, n % 2,
                CASE n % 2 WHEN 1 THEN n END
             FROM generate_series({from}, {to}) AS s (n), relay.destinations t;
             ANALYZE relay.deliveries, relay.alerts, relay.messages"
        ))
    };
    let (name, time, few, bytes) = ("soar", None::<i64>, 20_i64, 4_000_000_i64);
    let pages = async |after: i64| {
        let state: [Param<'_>; _] =
            [(&time, Type::INT8), (&name, Type::TEXT), (&i64::MAX, Type::INT8)];
        let page: [Param<'_>; _] =
            [(&name, Type::TEXT), (&after, Type::INT8), (&few, Type::INT8), (&bytes, Type::INT8)];
        let taken: [Param<'_>; _] =
            [(&time, Type::INT8), (&name, Type::TEXT), (&after, Type::INT8), (&few, Type::INT8)];
        let mut sum = 0;
        for (sql, params) in [(STATE, &state[..]), (PAGE, &page[..]), (TAKEN, &taken[..])] {
            sum += touched(&store, sql, params).await;
        }
        sum
    };
    fill(10, 1_200);
    let page = store.feed_page(&soar(), 1_200, 20).await.unwrap();
    assert_eq!(page.entries.len(), 20, "those that have waited for a number");
    let short = pages(1_200).await;
    fill(2_000, 200_000);
    let long = pages(200_000).await;
    assert!(long <= short * 2, "{short} pages among 1k, {long} among 200k");
}

/// Returns the number of pages that a statement touches. Unlike the time, the number does not
/// depend on the load of the machine.
async fn touched(store: &PostgresStore, sql: &str, params: &[Param<'_>]) -> u32 {
    let sql = format!("EXPLAIN (ANALYZE, BUFFERS) {sql}");
    let mut transaction = store.shared.database.begin(Priority::Urgent).await.unwrap();
    let plan = transaction.query(&sql, params).await.unwrap();
    let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
    let buffers = plan.iter().find(|line| line.contains("Buffers: shared")).unwrap();
    buffers
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("hit=").or(word.strip_prefix("read=")))
        .map(|pages| pages.parse::<u32>().unwrap())
        .sum()
}
