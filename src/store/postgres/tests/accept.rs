//! Accepting messages: what is written, what is known, and failures within Slack's patience.

use super::{TestDatabase, accept, app, message, soar};
use crate::{
    clock::{Clock, Timestamp},
    ids::{ChannelId, DestinationName, MessageTs},
    store::{
        Accepted, CursorMove, Inbox, NewAlert, NewMessage, Pause, Paused, Pauses, Queue, Source,
        StoreError, postgres::PostgresStore,
    },
};

/// Returns messages with several alerts for several destinations, without any order.
fn odd_messages() -> Vec<NewMessage> {
    let to =
        |names: &[&str]| names.iter().map(|name| DestinationName::new(name).unwrap()).collect();
    let alert = |ordinal, attachment, names: &[&str]| NewAlert {
        ordinal,
        attachment,
        destinations: to(names),
        search: format!("text \0 {ordinal}"),
        ..message(0).alerts.remove(0)
    };
    let mut batch: Vec<NewMessage> = (0..4).rev().map(message).collect();
    batch[0].alerts = vec![alert(0, 0, &["soar"]), alert(2, 5, &["chat", "soar", "chat"])];
    batch[1].alerts = vec![alert(0, 1, &[])];
    batch[2].alerts = vec![alert(1, 1, &["chat"]), alert(0, 0, &["mail", "soar"])];
    batch[3].event_id = "Ev\u{0}1".to_owned();
    for message in &mut batch {
        message.received_at = Timestamp::from_seconds(1_700_000_000);
    }
    batch
}

fn cursor() -> CursorMove {
    let to = MessageTs::from_micros(7);
    CursorMove {
        app: app(),
        channel: ChannelId::new("C1"),
        to,
        seen: None,
        from: MessageTs::from_micros(0),
        term: 1,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_stored_the_same_with_and_without_a_cursor_beside_them() {
    let mut written = Vec::new();
    for cursor in [None, Some(cursor())] {
        let db = TestDatabase::new();
        let clock = Clock::manual(Timestamp::from_seconds(1_700_000_000));
        let open = PostgresStore::open(db.settings(), clock.clone(), &db.metrics);
        let store = open.await.unwrap();
        // The clock of each destination shows another time, from which the age of a delivery
        // counts.
        for name in ["soar", "chat", "mail"] {
            let name = DestinationName::new(name).unwrap();
            store.set_paused(&name, Paused::Yes(Pause::default()), None).await.unwrap();
            clock.advance(std::time::Duration::from_secs(5));
        }
        store.set_paused(&soar(), Paused::No, None).await.unwrap();
        let hold = clock.now() + std::time::Duration::from_secs(60);
        let results = store.accept(odd_messages(), Some(hold), cursor).await.unwrap();
        let results: Vec<Accepted> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, [2, 1, 2, 1].map(|alerts| Accepted::New { alerts }));
        let tables = ["messages", "alerts", "deliveries"]
            .map(|table| db.sql(&format!("SELECT t::text FROM relay.{table} t ORDER BY 1")));
        assert_eq!(tables.each_ref().map(Vec::len), [4, 6, 7], "{tables:?}");
        written.push(tables);
    }
    assert_eq!(written[0], written[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_messages_are_told_from_new_ones_in_the_same_batch() {
    let db = TestDatabase::new();
    let store = db.open().await;
    assert_eq!(accept(&store, message(1)).await.unwrap(), Accepted::New { alerts: 1 });
    let batch = [0, 1, 2, 3, 3].map(message).to_vec();
    let results = store.accept(batch, None, None).await.unwrap();
    let results: Vec<Accepted> = results.into_iter().map(Result::unwrap).collect();
    let (new, known) = (Accepted::New { alerts: 1 }, Accepted::Duplicate);
    assert_eq!(results, [new, known, new, new, known]);
    for table in ["messages", "alerts", "deliveries"] {
        assert_eq!(db.sql(&format!("SELECT count(*) FROM relay.{table}")), ["4"], "{table}");
    }
}

/// The database may be restored to a time before a destination was known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_lost_its_number_gets_another_and_no_delivery_is_lost() {
    let names = ["mail", "soar"].map(|name| DestinationName::new(name).unwrap()).to_vec();
    let again = NewMessage {
        alerts: vec![NewAlert { destinations: names, ..message(2).alerts.remove(0) }],
        ..message(2)
    };
    for again in [again.clone(), NewMessage { source: Source::CatchUp, ..again }] {
        let db = TestDatabase::new();
        let store = db.open().await;
        accept(&store, message(1)).await.unwrap();
        // The relay remembers the number of a destination that the database no longer has, as after
        // an older copy was restored.
        db.sql(
            "TRUNCATE relay.messages, relay.alerts, relay.deliveries, relay.destinations
             RESTART IDENTITY",
        );
        // Slack sends a refused message again, and by then the numbers have been forgotten.
        let error = accept(&store, again.clone()).await.unwrap_err();
        assert!(matches!(error, StoreError::Engine(_)), "{error:?}");
        assert_eq!(accept(&store, again.clone()).await.unwrap(), Accepted::New { alerts: 1 });
        for name in &again.alerts[0].destinations {
            assert_eq!(store.lease_due(name, 2).await.unwrap().len(), 1, "{name}");
        }
    }
}

/// Checks that the message is refused before Slack's timeout, and that nothing is stored.
async fn is_refused_in_time(store: &PostgresStore, db: &TestDatabase, message: NewMessage) {
    let start = Clock::system().now();
    let error = accept(store, message).await.unwrap_err();
    let took = Clock::system().now().since(start);
    assert!(matches!(error, StoreError::Engine(_)), "{error:?}");
    assert!(took.as_millis() < 2_000, "{took:?}");
    assert_eq!(db.sql("SELECT count(*) FROM relay.alerts"), ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_fails_the_accept_before_slacks_timeout() {
    let db = TestDatabase::new();
    let store = db.open().await;
    accept(&store, message(1)).await.unwrap();
    let other = super::contention::Session::new(&db).await;
    other.run("BEGIN; LOCK TABLE relay.deliveries").await;
    is_refused_in_time(&store, &db, message(2)).await;
    other.run("COMMIT").await;
    assert_eq!(accept(&store, message(2)).await.unwrap(), Accepted::New { alerts: 1 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_fails_the_accept_before_slacks_timeout() {
    let db = TestDatabase::new();
    let store = db.open().await;
    accept(&store, message(1)).await.unwrap();
    db.sql(
        "CREATE FUNCTION relay.slow() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(30); RETURN NULL; END $$;
         CREATE TRIGGER slow BEFORE INSERT ON relay.messages
            FOR EACH STATEMENT EXECUTE FUNCTION relay.slow()",
    );
    is_refused_in_time(&store, &db, message(2)).await;
    db.sql("DROP TRIGGER slow ON relay.messages");
    assert_eq!(accept(&store, message(2)).await.unwrap(), Accepted::New { alerts: 1 });
}
