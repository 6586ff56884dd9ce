//! Relays that want the same rows at the same time.

use tokio_postgres::NoTls;

use super::{Place, accept, admin, column, direct_url, message, soar};
use crate::{
    clock::Clock,
    store::{
        Accepted, Lease, NewMessage, Next, Outcome, Reference, Store,
        contract::attempt,
        postgres::deliver::{Job, record},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_on_two_relays_at_once_is_kept_once() {
    let place = Place::new();
    let (one, other) = (place.open().await, place.open().await);
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
    assert_eq!(place.sql("SELECT count(*) FROM relay.revisions"), ["20"]);
}

/// An edit whose relay has not committed yet is waited for: nothing is left to chance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_waits_for_the_relay_that_is_writing_one() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, message(1)).await.unwrap();
    let other = Session::new(&place).await;
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
        other.until_somebody_waits("FOR NO KEY UPDATE").await;
        other.run("COMMIT").await;
    });
    assert_eq!(accepted.unwrap(), Accepted::Duplicate);
    assert_eq!(place.sql("SELECT count(*) FROM relay.revisions"), ["1"]);
}

/// A connection of somebody else.
pub(super) struct Session {
    client: tokio_postgres::Client,
    _connection: tokio::task::JoinSet<Result<(), tokio_postgres::Error>>,
}

impl Session {
    pub(super) async fn new(place: &Place) -> Self {
        let mut tasks = tokio::task::JoinSet::new();
        let url = direct_url(&place.database);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tasks.spawn(connection);
        Self { client, _connection: tasks }
    }

    pub(super) async fn run(&self, sql: &str) -> Vec<String> {
        column(&self.client, sql).await.unwrap()
    }

    /// Until a statement of this database that contains the text waits for a lock.
    async fn until_somebody_waits(&self, text: &str) {
        let waits = format!(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
             AND wait_event_type = 'Lock' AND query LIKE '%{text}%'"
        );
        let start = Clock::system().now();
        while self.run(&waits).await.is_empty() {
            // Within a transaction the server shows what it showed first.
            self.run("SELECT 1 FROM pg_stat_clear_snapshot()").await;
            assert!(Clock::system().now().since(start).as_secs() < 30, "nobody waits: {text}");
            tokio::task::yield_now().await;
        }
    }
}

/// The relay holds the first row when it waits at the gate, somebody else holds the second and
/// waits for the first; then the gate opens. Only the relay looks for circles: PostgreSQL breaks
/// off its transaction, and it tries again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_in_a_circle_of_locks_are_written_all_the_same() {
    let place = Place::new();
    let set = format!("ALTER DATABASE {} SET deadlock_timeout = '100ms'", place.database);
    admin("postgres", &set).unwrap();
    let store = place.open().await;
    store.accept(vec![message(1), message(2)], None, None).await.unwrap();
    let mut leases = store.lease_due(&soar(), 2).await.unwrap();
    leases.sort_by_key(|lease| lease.delivery().id);
    let [first, second] = [0, 1].map(|index: usize| leases[index].delivery().id);
    place.sql(&format!(
        "CREATE FUNCTION relay.gate() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
         CREATE TRIGGER gate BEFORE UPDATE ON relay.deliveries
            FOR EACH ROW WHEN (OLD.id = {first}) EXECUTE FUNCTION relay.gate()"
    ));
    let (gate, other) = (Session::new(&place).await, Session::new(&place).await);
    gate.run("SELECT pg_advisory_lock(1)").await;
    other.run("SET deadlock_timeout = '1h'").await;
    let lock = |id| format!("SELECT 1 FROM relay.deliveries WHERE id = {id} FOR UPDATE");
    other.run(&format!("BEGIN; {}", lock(second))).await;
    // In the wrong order: rows are changed in the order of their numbers.
    let jobs: Vec<Job> = leases.iter().rev().map(job).collect();
    let recorded = record(&store.shared, &jobs);
    let circle = async {
        gate.until_somebody_waits("UPDATE relay.deliveries").await;
        let (closed, open) = (lock(first), "SELECT pg_advisory_unlock(1)");
        tokio::join!(other.run(&closed), async {
            gate.until_somebody_waits(&closed).await;
            gate.run(open).await;
        });
        other.run("COMMIT").await;
    };
    let (recorded, ()) = tokio::join!(recorded, circle);
    assert_eq!(recorded.unwrap(), [true, true]);
    assert_eq!(place.sql("SELECT count(*) FROM relay.deliveries WHERE state = 1"), ["2"]);
    assert_eq!(place.sql("SELECT count(*) FROM relay.attempts WHERE number = 1"), ["2"]);
}

fn job(lease: &Lease) -> Job {
    Job {
        id: lease.delivery().id,
        token: lease.token(),
        refusals: lease.delivery().refusals,
        outcome: delivered(),
        reply: tokio::sync::oneshot::channel().0,
    }
}

fn delivered() -> Outcome {
    let next = Next::Delivered(Reference::default());
    Outcome { attempt: attempt(Clock::system().now(), ""), next, projection: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgresql_breaks_off_for_others_is_tried_again() {
    let place = Place::new();
    let store = place.open().await;
    place.sql(
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
            place.sql(&format!(
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
            assert_eq!(place.sql("SELECT last_value FROM relay.tries"), ["3"], "{code} {table}");
        }
    }
    assert_eq!(place.sql("SELECT count(*) FROM relay.deliveries WHERE state = 1"), ["4"]);
}
