//! Relays that change the same rows at the same time.

use std::time::Duration;

use tokio_postgres::NoTls;

use super::{PostgresStore, TestDatabase, accept, admin, column, direct_url, message, soar};
use crate::{
    clock::{Clock, STEADY_AFTER},
    ids::{AlertId, ChannelId, DestinationName, MessageTs, TsKey},
    store::{
        Accepted, Desk, History, Inbox, Lease, NewMessage, Next, Outcome, Queue, Recorded,
        Reference, Retention, Source, Upkeep,
        contract::attempt,
        postgres::record::{Job, record},
        sql::with_numbers,
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_on_two_relays_at_once_is_kept_once() {
    let db = TestDatabase::new();
    let one = db.open().await;
    let other = db.open().await;
    for n in 0..20 {
        accept(&one, message(n)).await.unwrap();
        let edit = NewMessage {
            is_edit: true,
            edited_ts: "5.0".to_owned(),
            raw: format!("edit {n}").into(),
            ..message(n)
        };
        let (a, b) = tokio::join!(accept(&one, edit.clone()), accept(&other, edit));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert!([a, b].contains(&Accepted::Revision), "{a:?} {b:?}");
        assert!([a, b].contains(&Accepted::Duplicate), "{a:?} {b:?}");
    }
    assert_eq!(db.sql("SELECT count(*) FROM relay.revisions"), ["20"]);
}

/// The second relay waits until the first has committed its revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_waits_for_the_relay_that_is_writing_one() {
    let db = TestDatabase::new();
    let store = db.open().await;
    accept(&store, message(1)).await.unwrap();
    let other = Session::new(&db).await;
    other
        .run(
            "BEGIN;
             SELECT 1 FROM relay.alerts FOR NO KEY UPDATE;
             INSERT INTO relay.revisions (message, received_at, edited_ts, raw)
                SELECT id, 0, '5.0', 'edit' FROM relay.messages",
        )
        .await;
    let edited_ts = "5.0".to_owned();
    let edit = NewMessage { is_edit: true, edited_ts, raw: "edit".into(), ..message(1) };
    let (accepted, ()) = tokio::join!(accept(&store, edit), async {
        other.until_blocked("accept_batch").await;
        other.run("COMMIT").await;
    });
    assert_eq!(accepted.unwrap(), Accepted::Duplicate);
    assert_eq!(db.sql("SELECT count(*) FROM relay.revisions"), ["1"]);
}

/// One relay is storing a message under the new id when another relay learns of the id: the change
/// waits for the first relay, and later accepts find its message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channels_new_id_waits_for_the_relay_that_is_storing_under_it() {
    let db = TestDatabase::new();
    let store = db.open().await;
    let (old, new) = (message(1), under_new_id(message(1)));
    let other = Session::new(&db).await;
    other
        .run(&format!(
            "BEGIN;
             SELECT relay.identify(ARRAY['{key}']);
             INSERT INTO relay.messages VALUES (77, 0, 0, 0, '', '', '{{}}');
             INSERT INTO relay.alerts VALUES (77 * 4096, '{key}', 0, 0, 1, 'high', '')",
            key = new.key
        ))
        .await;
    let (app, ids) = (&old.key.app, [&old.key.channel, &new.key.channel]);
    let (changed, ()) = tokio::join!(store.replace_channel_id(app, ids[0], ids[1]), async {
        other.until_blocked("pg_advisory_xact_lock(").await;
        other.run("COMMIT").await;
    });
    changed.unwrap();
    assert_eq!(accept(&store, old).await.unwrap(), Accepted::Duplicate);
    assert_eq!(db.sql("SELECT count(*) FROM relay.alerts"), ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_of_which_one_knows_the_new_id_make_one_alert() {
    let db = TestDatabase::new();
    let one = db.open().await;
    let other = db.open().await;
    for n in 0..30 {
        let (mut old, mut new) = (message(n), message(n));
        old.key.channel = ChannelId::new(&format!("G0OLD{n:06}"));
        new.key.channel = ChannelId::new(&format!("C0NEW{n:06}"));
        let read = NewMessage { source: Source::CatchUp, ..old.clone() };
        // One relay learns of the change and reads history; the other gets the message by push.
        let (read, pushed) = tokio::join!(
            async {
                let (app, ids) = (&old.key.app, [&old.key.channel, &new.key.channel]);
                one.replace_channel_id(app, ids[0], ids[1]).await.unwrap();
                accept(&one, read).await.unwrap()
            },
            accept(&other, new.clone()),
        );
        let results = [read, pushed.unwrap()];
        assert!(results.contains(&Accepted::Duplicate), "{n}: {results:?}");
        assert!(results.contains(&Accepted::New { alerts: 1 }), "{n}: {results:?}");
        // From now on both relays recognise the message under both ids.
        for (relay, message) in [(&one, &new), (&other, &old), (&one, &old), (&other, &new)] {
            let again = accept(relay, message.clone()).await.unwrap();
            assert_eq!(again, Accepted::Duplicate, "{n}");
        }
    }
    assert_eq!(db.sql("SELECT count(*) FROM relay.alerts"), ["30"]);
    assert_eq!(db.sql("SELECT count(*) FROM relay.messages"), ["30"]);
    let sources = db.sql("SELECT DISTINCT sources FROM relay.alerts");
    assert_eq!(sources, ["3"], "each remembers that both ways brought it");
    assert_eq!(db.sql("SELECT count(*) FROM relay.unpushed"), ["0"], "none was missed");
}

fn under_new_id(mut message: NewMessage) -> NewMessage {
    message.key.channel = ChannelId::new("C0NEW000001");
    message
}

/// If two relays with different configurations route an alert at once, the first one decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_that_two_relays_route_at_once_is_routed_by_one() {
    let db = TestDatabase::new();
    let one = db.open().await;
    let other = db.open().await;
    for n in 0..20 {
        let mut unrouted = message(n);
        unrouted.alerts.iter_mut().for_each(|alert| alert.destinations.clear());
        let id = AlertId { message: unrouted.key.clone(), ordinal: 0 };
        accept(&one, unrouted).await.unwrap();
        let chat = [DestinationName::new("chat").unwrap()];
        let soar = [soar()];
        let (a, b) = tokio::join!(one.route(&id, &soar, None), other.route(&id, &chat, None));
        assert_eq!(a.unwrap().made + b.unwrap().made, 1);
    }
    assert_eq!(db.sql("SELECT count(*) FROM relay.deliveries"), ["20"]);
}

/// Retention checks a message again after a relay has routed it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_waits_for_a_relay_that_routes_an_alert_and_keeps_the_message() {
    let db = TestDatabase::new();
    let clock = Clock::manual(Clock::system().now());
    let store = PostgresStore::open(db.settings(), clock.clone(), &db.metrics).await.unwrap();
    let mut unrouted = message(1);
    unrouted.alerts.iter_mut().for_each(|alert| alert.destinations.clear());
    accept(&store, unrouted).await.unwrap();
    db.sql("INSERT INTO relay.destinations (name) VALUES ('soar')");
    let other = Session::new(&db).await;
    other
        .run(
            "BEGIN;
             SELECT 1 FROM relay.messages FOR UPDATE;
             INSERT INTO relay.deliveries (id, destination, due_at, since)
                SELECT a.seq * 65536 + t.id, t.id, 0, 0 FROM relay.alerts a, relay.destinations t",
        )
        .await;
    // Retention relies on a clock that has been steady since the store was opened.
    clock.advance(STEADY_AFTER);
    let retention = Retention { delivered: Duration::ZERO, dead: Duration::ZERO };
    let (pruned, ()) = tokio::join!(store.prune(retention), async {
        other.until_blocked("FROM relay.messages").await;
        other.run("COMMIT").await;
    });
    assert_eq!(pruned.unwrap().messages, 0);
    assert_eq!(db.sql("SELECT count(*) FROM relay.deliveries"), ["1"]);
    assert_eq!(db.sql("SELECT count(*) FROM relay.messages WHERE raw IS NOT NULL"), ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_the_first_layout_are_migrated_with_their_channel_ids() {
    let db = TestDatabase::new();
    db.sql(&format!(
        "CREATE SCHEMA relay; {}
         INSERT INTO relay.messages
            VALUES (1, 0, 0, 0, '', '', '{{}}'), (2, 0, 0, 0, '', '', '{{}}');
         SELECT setval('relay.message_id', 2);
         INSERT INTO relay.alerts
            VALUES (4096, 'main:G0OLD000001:1600000000.000000', 0, 0, 1, 'high', ''),
            (8192, 'main:C0MID000001:1700000000.000000', 0, 0, 1, 'high', '');
         INSERT INTO relay.channel_ids VALUES ('main', 'cd_alerts', 'C0NEW000001'),
            ('main', 'G0OLD000001', 'C0MID000001'), ('main', 'C0MID000001', 'C0NEW000001'),
            ('main', 'G0OLD000000', 'C0NEW000001'),
            ('main', 'C0THERE0001', 'C0THERE0001'), ('other', 'name', 'C0NEW000001')",
        with_numbers(include_str!("../../migrations/postgres-1.sql"))
    ));
    let store = db.open().await;
    let app = message(0).key.app;
    let chain = ["G0OLD000001", "C0MID000001", "G0OLD000000", "C0NEW000001"].map(ChannelId::new);
    assert_eq!(store.chains(&app).await.unwrap(), [chain.to_vec()]);
    let mut again = under_new_id(message(0));
    again.key.ts = TsKey::Ts(MessageTs::from_micros(1_600_000_000_000_000));
    assert_eq!(accept(&store, again).await.unwrap(), Accepted::Duplicate);
    // A relay of the first layout that still runs is told to take its other path.
    let nulls = vec!["NULL"; 20].join(", ");
    assert_eq!(db.sql(&format!("SELECT relay.accept({nulls})")), ["f"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_an_earlier_build_did_not_create_are_added() {
    let db = TestDatabase::new();
    accept(&db.open().await, message(1)).await.unwrap();
    db.sql(
        "DROP FUNCTION relay.accept_batch, relay.keep_revision, relay.alert_seq,
            relay.delivery_id, relay.message_of",
    );
    let store = db.open().await;
    assert_eq!(accept(&store, message(1)).await.unwrap(), Accepted::Duplicate);
    assert_eq!(accept(&store, message(2)).await.unwrap(), Accepted::New { alerts: 1 });
    assert_eq!(db.sql("SELECT version FROM relay.layout"), ["2"]);
}

/// A connection beside those of the store.
pub(super) struct Session {
    client: tokio_postgres::Client,
    _connection: tokio::task::JoinSet<Result<(), tokio_postgres::Error>>,
}

impl Session {
    pub(super) async fn new(db: &TestDatabase) -> Self {
        let mut tasks = tokio::task::JoinSet::new();
        let url = direct_url(&db.database);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tasks.spawn(connection);
        Self { client, _connection: tasks }
    }

    pub(super) async fn run(&self, sql: &str) -> Vec<String> {
        column(&self.client, sql).await.unwrap()
    }

    /// Waits until a statement of this database that contains the text waits for a lock.
    async fn until_blocked(&self, text: &str) {
        let waits = format!(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
             AND wait_event_type = 'Lock' AND query LIKE '%{text}%'"
        );
        let start = Clock::system().now();
        while self.run(&waits).await.is_empty() {
            // Within a transaction the server repeats the first snapshot of its statistics.
            self.run("SELECT 1 FROM pg_stat_clear_snapshot()").await;
            assert!(Clock::system().now().since(start).as_secs() < 30, "not blocked: {text}");
            tokio::task::yield_now().await;
        }
    }
}

/// The relay has locked the first row when it waits at the gate; another session has locked the
/// second row and waits for the first; then the gate opens. Only the relay's session detects
/// deadlocks, so PostgreSQL cancels its transaction, and the relay repeats it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_in_a_deadlock_are_written_all_the_same() {
    let db = TestDatabase::new();
    let set = format!("ALTER DATABASE {} SET deadlock_timeout = '100ms'", db.database);
    admin("postgres", &set).unwrap();
    let store = db.open().await;
    store.accept(vec![message(1), message(2)], None, None).await.unwrap();
    let mut leases = store.lease_due(&soar(), 2).await.unwrap();
    leases.sort_by_key(|lease| lease.delivery().id);
    let [first, second] = [0, 1].map(|index: usize| leases[index].delivery().id);
    db.sql(&format!(
        "CREATE FUNCTION relay.gate() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
         CREATE TRIGGER gate BEFORE UPDATE ON relay.deliveries
            FOR EACH ROW WHEN (OLD.id = {first}) EXECUTE FUNCTION relay.gate()"
    ));
    let (gate, other) = (Session::new(&db).await, Session::new(&db).await);
    gate.run("SELECT pg_advisory_lock(1)").await;
    other.run("SET deadlock_timeout = '1h'").await;
    let lock = |id| format!("SELECT 1 FROM relay.deliveries WHERE id = {id} FOR UPDATE");
    other.run(&format!("BEGIN; {}", lock(second))).await;
    // In reverse, since the store must sort them: rows are changed in the order of their numbers.
    let jobs: Vec<Job> = leases.iter().rev().map(job).collect();
    let recorded = record(&store.shared, &jobs);
    let circle = async {
        gate.until_blocked("UPDATE relay.deliveries").await;
        let (closed, open) = (lock(first), "SELECT pg_advisory_unlock(1)");
        tokio::join!(other.run(&closed), async {
            gate.until_blocked(&closed).await;
            gate.run(open).await;
        });
        other.run("COMMIT").await;
    };
    let (recorded, ()) = tokio::join!(recorded, circle);
    assert_eq!(recorded.unwrap(), [Recorded::Kept; 2]);
    assert_eq!(db.sql("SELECT count(*) FROM relay.deliveries WHERE state = 1"), ["2"]);
    assert_eq!(db.sql("SELECT count(*) FROM relay.attempts WHERE number = 1"), ["2"]);
}

fn job(lease: &Lease) -> Job {
    Job::new(lease, delivered()).0
}

fn delivered() -> Outcome {
    let next = Next::Delivered(Reference::default());
    Outcome { attempt: attempt(Clock::system().now(), ""), next, projection: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_postgresql_cancels_for_another_is_repeated() {
    let db = TestDatabase::new();
    let store = db.open().await;
    // Two tries fail, and the third is the last one.
    db.sql(
        "CREATE SEQUENCE relay.tries;
         CREATE FUNCTION relay.again() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN
                IF nextval('relay.tries') < 3 THEN
                    RAISE EXCEPTION 'not now' USING ERRCODE = TG_ARGV[0];
                END IF;
                RETURN NULL;
            END $$",
    );
    for (n, code) in [(1, "40001"), (2, "40P01")] {
        for table in ["messages", "attempts"] {
            db.sql(&format!(
                "SELECT setval('relay.tries', 1, false);
                 DROP TRIGGER IF EXISTS again ON relay.messages;
                 DROP TRIGGER IF EXISTS again ON relay.attempts;
                 CREATE TRIGGER again BEFORE INSERT ON relay.{table}
                    FOR EACH STATEMENT EXECUTE FUNCTION relay.again('{code}')"
            ));
            let number = n * 10 + i64::from(table == "attempts");
            let accepted = accept(&store, message(number)).await.unwrap();
            assert_eq!(accepted, Accepted::New { alerts: 1 }, "{code} {table}");
            let lease = store.lease_due(&soar(), 1).await.unwrap().remove(0);
            store.record(lease, delivered()).await.unwrap();
            assert_eq!(db.sql("SELECT last_value FROM relay.tries"), ["3"], "{code} {table}");
        }
    }
    assert_eq!(db.sql("SELECT count(*) FROM relay.deliveries WHERE state = 1"), ["4"]);
}
