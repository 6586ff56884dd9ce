//! The contract on SQLite, and what only SQLite promises.

use std::{
    env,
    error::Error,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, mpsc::channel},
    task::{Context, Poll, Waker},
};

use rusqlite::Connection;
use tempfile::TempDir;

use super::{
    OpenError, SqliteSettings, SqliteStore,
    db::Db,
    disk::Disk,
    paths::beside,
    size::{EVERY, Size},
};
use crate::{
    clock::{Clock, STEADY_AFTER, Timestamp},
    ids::{AlertId, AppName, ChannelId, DestinationName, MessageKey, MessageTs, TsKey},
    metrics::{Metric, Metrics},
    store::{
        Accepted, Action, AlertQuery, Desk, Feeds, History, Inbox, NewAlert, NewMessage, Next,
        Outcome, Pause, Paused, Pauses, Queue, Reference, Retention, Selection, Source, Store,
        StoreError, Upkeep,
        contract::{Backend, LEASE, MAX_SIZE, attempt, contract},
    },
};

mod disk;
mod files;

/// Directory of one test, which is removed at the end of the test.
struct Place {
    directory: TempDir,
    metrics: Metrics,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), metrics: Metrics::new() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    /// Opens the store with a clock that is set by hand.
    fn open_at(&self, clock: &Clock, max_size_bytes: u64) -> SqliteStore {
        open(&self.path(), &self.metrics, max_size_bytes, clock.clone()).unwrap()
    }

    fn try_open(&self) -> Result<SqliteStore, OpenError> {
        open(&self.path(), &self.metrics, MAX_SIZE, Clock::system())
    }

    /// Makes a store with a few alerts in it, and closes it.
    async fn fill(&self) {
        let store = self.try_open().unwrap();
        accept(&store, 0..20).await;
        store.close().await;
    }

    /// Checks that the file is refused, with its name and these words, and is not changed.
    fn assert_refused(&self, words: &str) {
        let before = fs::read(self.path()).unwrap();
        for _ in 0..2 {
            let error = self.try_open().unwrap_err();
            let mut text = error.to_string();
            if let Some(source) = error.source() {
                text = format!("{text}: {source}");
            }
            assert!(text.contains(words), "{text}");
            assert!(text.contains(&self.path().display().to_string()), "{text}");
            assert!(!matches!(error, OpenError::Failed { .. }), "{error:?}");
            assert!(fs::read(self.path()).unwrap() == before, "the file was touched");
        }
    }
}

fn open(
    path: &Path,
    metrics: &Metrics,
    max_size_bytes: u64,
    clock: Clock,
) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(
        &SqliteSettings { path: path.to_owned(), max_size_bytes, lease: LEASE },
        clock,
        metrics,
    )
}

fn message(number: i64) -> NewMessage {
    let ts = MessageTs::from_micros((1_600_000_000 + number) * 1_000_000);
    NewMessage {
        key: MessageKey {
            app: AppName::new("main").unwrap(),
            channel: ChannelId::new("C1"),
            ts: TsKey::Ts(ts),
        },
        posted_at: ts,
        source: Source::Push,
        event_id: String::new(),
        team: String::new(),
        received_at: Timestamp::from_seconds(1_700_000_000),
        raw: vec![b'x'; 1000].into(),
        is_edit: false,
        edited_ts: String::new(),
        alerts: vec![NewAlert {
            ordinal: 0,
            attachment: 0,
            level: "high",
            problems: Vec::new(),
            search: "text".to_owned(),
            destinations: vec![DestinationName::new("soar").unwrap()],
        }],
    }
}

fn noon() -> Clock {
    Clock::manual(Timestamp::from_seconds(1_700_000_000))
}

/// One accept after the other.
async fn accept(store: &SqliteStore, numbers: std::ops::Range<i64>) {
    for number in numbers {
        store.accept(vec![message(number)], None, None).await.unwrap().remove(0).unwrap();
    }
}

impl Backend for Place {
    fn open(&self, clock: &Clock, max_size: u64) -> Arc<dyn Store> {
        Arc::new(open(&self.path(), &self.metrics, max_size, clock.clone()).unwrap())
    }

    fn stale_leases(&self) -> u64 {
        let page = self.metrics.render();
        let name = Metric::StaleLeases.name();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or(0)
    }
}

contract!(Place::new());
contract!(limited Place::new());

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_is_gone() {
    let place = Place::new();
    let first = place.try_open().unwrap();
    assert!(matches!(place.try_open(), Err(OpenError::InUse(path)) if path == place.path()));
    accept(&first, 0..1).await;
    first.close().await;
    let second = place.try_open().unwrap();
    assert!(matches!(place.try_open(), Err(OpenError::InUse(_))));
    drop(second);
    drop(place.try_open().unwrap());
    drop(first);
}

#[test]
fn a_missing_directory_is_named() {
    let place = Place::new();
    let path = place.directory.path().join("not-there").join("store.db");
    let error = open(&path, &place.metrics, MAX_SIZE, Clock::system()).unwrap_err();
    assert!(matches!(&error, OpenError::NoDirectory(missing) if missing == path.parent().unwrap()));
    assert!(!path.parent().unwrap().exists());
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_refused() {
    let place = Place::new();
    for garbage in [&b"{}"[..], &[0; 100], &[b'x'; 8192]] {
        fs::write(place.path(), garbage).unwrap();
        place.assert_refused("not a SQLite database");
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let place = Place::new();
    place.fill().await;
    let whole = fs::read(place.path()).unwrap();
    // In the header, at the end of a page, within a page, and without the end of the file.
    for length in [
        1,
        16,
        50,
        100,
        1000,
        8192,
        9000,
        16384,
        whole.len() - 8192,
        whole.len() - 4096,
        whole.len() - 1,
    ] {
        fs::write(place.path(), &whole[..length]).unwrap();
        place.assert_refused("cannot be used");
    }
    let mut header = whole.clone();
    header[..16].copy_from_slice(b"SQLite format 9\0");
    fs::write(place.path(), header).unwrap();
    place.assert_refused("not a SQLite database");
    fs::write(place.path(), &whole).unwrap();
    drop(place.try_open().unwrap());
}

#[tokio::test]
async fn a_log_without_its_database_is_refused() {
    let place = Place::new();
    let store = place.try_open().unwrap();
    accept(&store, 0..1).await;
    drop(store);
    fs::write(place.path(), "").unwrap();
    place.assert_refused("its log (-wal) is not");
    fs::remove_file(place.path()).unwrap();
    let error = place.try_open().unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(!place.path().exists(), "nothing is started anew");
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused() {
    let place = Place::new();
    place.fill().await;
    Connection::open(place.path()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    place.assert_refused("newer version of the relay (layout 99");
}

#[tokio::test]
async fn a_database_of_somebody_else_is_refused_and_stays_as_it_is() {
    let place = Place::new();
    let other = Connection::open(place.path()).unwrap();
    other.execute_batch("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)").unwrap();
    drop(other);
    place.assert_refused("not a store of this relay");
}

#[tokio::test]
async fn a_store_whose_tables_are_others_is_refused() {
    let place = Place::new();
    place.fill().await;
    let tamper = |sql: &str| Connection::open(place.path()).unwrap().execute_batch(sql).unwrap();
    tamper("ANALYZE");
    drop(place.try_open().unwrap());
    tamper("DROP INDEX deliveries_due");
    place.assert_refused("its tables are not those of this version");
}

#[tokio::test]
async fn commits_are_durable_by_their_settings() {
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
    let place = Place::new();
    let store = place.try_open().unwrap();
    let pragma = async |name: &'static str| {
        let look = move |db: &mut Db<'_>, _| {
            db.connection().pragma_query_value(None, name, |row| {
                row.get::<_, rusqlite::types::Value>(0).map(|value| format!("{value:?}"))
            })
        };
        store.write(look).await.unwrap()
    };
    assert_eq!(pragma("journal_mode").await, r#"Text("wal")"#);
    assert_eq!(pragma("synchronous").await, "Integer(2)");
    assert_eq!(pragma("auto_vacuum").await, "Integer(2)");
}

#[tokio::test]
async fn what_is_acknowledged_is_in_the_files_at_once() {
    let (place, copy) = (Place::new(), Place::new());
    let store = place.try_open().unwrap();
    for number in 0..30 {
        accept(&store, number..number + 1).await;
        fs::copy(place.path(), copy.path()).unwrap();
        fs::copy(beside(&place.path(), "-wal"), beside(&copy.path(), "-wal")).unwrap();
        let found = copy.try_open().unwrap();
        let leases = found.lease_due(&DestinationName::new("soar").unwrap(), 100).await.unwrap();
        assert_eq!(i64::try_from(leases.len()).unwrap(), number + 1);
        drop(found);
    }
}

#[tokio::test]
async fn a_torn_commit_at_the_end_of_the_log_is_left_out() {
    let place = Place::new();
    let store = place.try_open().unwrap();
    accept(&store, 0..5).await;
    drop(store);
    let wal = fs::OpenOptions::new().write(true).open(beside(&place.path(), "-wal")).unwrap();
    let end = wal.metadata().unwrap().len();
    wal.write_all_at(b"torn", end - 100).unwrap();
    let store = place.try_open().unwrap();
    let leases = store.lease_due(&DestinationName::new("soar").unwrap(), 100).await.unwrap();
    assert_eq!(leases.len(), 4, "the commits before it");
    accept(&store, 4..6).await;
}

#[tokio::test]
async fn a_close_empties_the_log_and_a_drop_does_not() {
    let place = Place::new();
    let wal = || fs::metadata(beside(&place.path(), "-wal")).map_or(0, |file| file.len());
    let store = place.try_open().unwrap();
    accept(&store, 0..5).await;
    drop(store);
    assert!(wal() > 0);
    let store = place.try_open().unwrap();
    store.close().await;
    assert_eq!(wal(), 0);
}

#[tokio::test]
async fn retention_gives_space_back() {
    let place = Place::new();
    let clock = noon();
    let store = place.open_at(&clock, MAX_SIZE);
    for number in 0..20 {
        let large = NewMessage { raw: vec![b'x'; 500_000].into(), ..message(number) };
        store.accept(vec![large], None, None).await.unwrap().remove(0).unwrap();
    }
    let soar = DestinationName::new("soar").unwrap();
    loop {
        // A call leases a few megabytes and no more.
        let leased = store.lease_due(&soar, 100).await.unwrap();
        if leased.is_empty() {
            break;
        }
        assert!(leased.len() < 10);
        for lease in leased {
            store.record(lease, delivered()).await.unwrap();
        }
    }
    let none = std::time::Duration::ZERO;
    clock.advance(STEADY_AFTER);
    assert_eq!(store.prune(Retention { delivered: none, dead: none }).await.unwrap().messages, 20);
    store.close().await;
    let size = fs::metadata(place.path()).unwrap().len();
    assert!(size < 1_000_000, "{size} bytes are left of 10,000,000");
}

#[tokio::test]
async fn retention_finds_what_may_go_behind_thousands_that_may_not() {
    // More messages than one walk reads in vain.
    const PENDING: i64 = 20_000;
    let place = Place::new();
    let clock = noon();
    let store = place.open_at(&clock, MAX_SIZE);
    clock.advance(STEADY_AFTER);
    let unrouted = |number| {
        let message = message(number);
        let alerts = message.alerts.iter().cloned();
        let alerts = alerts.map(|alert| NewAlert { destinations: Vec::new(), ..alert }).collect();
        NewMessage { alerts, ..message }
    };
    let numbers = (0..PENDING).map(message).chain([unrouted(PENDING)]);
    store.accept(numbers.collect(), None, None).await.unwrap();
    let none = std::time::Duration::ZERO;
    let walk =
        async || store.prune(Retention { delivered: none, dead: none }).await.unwrap().messages;
    assert_eq!(walk().await, 0, "it looks at so many in vain, and goes on the next time");
    assert_eq!(walk().await, 1);
    let pruned = async || walk().await + walk().await;
    assert_eq!(pruned().await, 0);
    for (number, (cancelled, gone)) in (PENDING + 1..).zip([(Some(7), 2), (None, 20_000)]) {
        let alert = cancelled.map(|number| AlertId { message: message(number).key, ordinal: 0 });
        store.act(Selection { alert, ..Selection::default() }, Action::Cancel, None).await.unwrap();
        store.accept(vec![unrouted(number)], None, None).await.unwrap();
        assert_eq!(pruned().await, gone);
    }
    assert_eq!(pruned().await, 0);
}

#[tokio::test]
async fn the_newest_unreadable_bodies_are_kept() {
    let place = Place::new();
    let store = place.try_open().unwrap();
    let app = AppName::new("main").unwrap();
    for number in 0..105_u8 {
        store.quarantine(&app, &vec![number; 100_000]);
    }
    store.probe().await.unwrap();
    let look = |db: &mut Db<'_>, _| {
        db.connection().query_row(
            "SELECT count(*), hex(substr(min(body), 1, 1)), max(length(body)) FROM quarantine",
            (),
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
    };
    let (count, oldest, longest): (i64, String, i64) = store.write(look).await.unwrap();
    assert_eq!((count, oldest.as_str(), longest), (100, "05", 65_536));
}

#[tokio::test]
async fn the_size_is_looked_at_now_and_then_and_always_when_space_is_short() {
    let place = Place::new();
    let store = place.try_open().unwrap();
    let (path, wal) = (place.path(), beside(&place.path(), "-wal"));
    let start = Clock::system().instant();
    let look = move |db: &mut Db<'_>, _| {
        let mut seen = Vec::new();
        // A large store is measured at intervals, a small or nearly full one after each commit.
        for max in [MAX_SIZE, 1000] {
            let size = Size::new(max, wal.clone(), Disk::new(&path, start));
            let used = || size.used_and_free().0;
            size.keep_up(db.connection(), start);
            let first = used();
            db.execute(
                "INSERT INTO quarantine (app, received_at, body) VALUES ('a', 0, zeroblob(100000))",
                (),
            )?;
            size.keep_up(db.connection(), start + EVERY / 2);
            let soon = used();
            size.keep_up(db.connection(), start + EVERY);
            seen.push((soon > first, used() > first));
        }
        Ok(seen)
    };
    assert_eq!(store.write(look).await.unwrap(), [(false, true), (true, true)]);
}

#[tokio::test]
async fn a_full_queue_says_busy_and_empties_again() {
    let place = Place::new();
    let store = place.try_open().unwrap();
    let soar = DestinationName::new("soar").unwrap();
    let mut waiting = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    {
        // The writer waits for the gate to run the operator's action, and later jobs wait as well.
        let _gate = store.shared.leases.gate();
        let mut pause = Box::pin(store.set_paused(&soar, Paused::Yes(Pause::default()), None));
        assert!(pause.as_mut().poll(&mut context).is_pending());
        let busy = (0..100_000).find(|number| {
            let mut accept = store.accept(vec![message(*number)], None, None);
            match accept.as_mut().poll(&mut context) {
                Poll::Ready(Err(StoreError::Busy)) => true,
                Poll::Ready(other) => panic!("{other:?}"),
                Poll::Pending => {
                    waiting.push(accept);
                    false
                }
            }
        });
        assert!(busy.is_some(), "it takes in whatever comes");
    }
    assert!(waiting.len() >= 4096);
    for accept in waiting {
        accept.await.unwrap().remove(0).unwrap();
    }
    accept(&store, 100_000..100_001).await;
}

fn delivered() -> Outcome {
    let attempt = attempt(Timestamp::from_seconds(1_700_000_000), "fine");
    Outcome { attempt, next: Next::Delivered(Reference::default()), projection: None }
}

#[tokio::test]
async fn a_lease_does_not_end_while_its_outcome_is_written() {
    let place = Place::new();
    let clock = Clock::manual(Timestamp::from_seconds(1_700_000_000));
    let store = open(&place.path(), &place.metrics, MAX_SIZE, clock.clone()).unwrap();
    let soar = DestinationName::new("soar").unwrap();
    accept(&store, 0..1).await;
    let lease = store.lease_due(&soar, 1).await.unwrap().remove(0);
    let (go_on, held) = channel::<()>();
    let mut context = Context::from_waker(Waker::noop());
    // Keeps the writer busy, so that the outcome has to wait.
    let mut slow = Box::pin(store.write(move |_, _| {
        held.recv().unwrap();
        Ok(())
    }));
    assert!(slow.as_mut().poll(&mut context).is_pending());
    let mut record = store.record(lease, delivered());
    assert!(record.as_mut().poll(&mut context).is_pending());
    clock.advance(LEASE * 2);
    assert!(store.lease_due(&soar, 1).await.unwrap().is_empty());
    go_on.send(()).unwrap();
    slow.await.unwrap();
    record.await.unwrap();
    assert_eq!(store.next_due(&soar).await.unwrap(), None, "it is delivered");
    assert_eq!(place.stale_leases(), 0);
}

#[tokio::test]
async fn an_outcome_that_could_not_be_written_can_be_recorded_later() {
    let place = Place::new();
    let store = place.try_open().unwrap();
    accept(&store, 0..1).await;
    let soar = DestinationName::new("soar").unwrap();
    let lease = store.lease_due(&soar, 1).await.unwrap().remove(0);
    let sql = |sql: &'static str| {
        store.write(move |db: &mut Db<'_>, _| db.connection().execute_batch(sql))
    };
    sql("ALTER TABLE attempts RENAME TO gone").await.unwrap();
    let unrecorded = store.record(lease, delivered()).await.unwrap_err();
    assert!(matches!(unrecorded.source, StoreError::Engine(_)), "{:?}", unrecorded.source);
    assert!(store.lease_due(&soar, 1).await.unwrap().is_empty(), "the lease is still held");
    sql("ALTER TABLE gone RENAME TO attempts").await.unwrap();
    store.record(unrecorded.lease, unrecorded.outcome).await.unwrap();
    assert_eq!(store.next_due(&soar).await.unwrap(), None, "it is delivered");
}

#[tokio::test]
async fn a_panic_costs_only_its_own_transaction() {
    let place = Place::new();
    let store = place.try_open().unwrap();
    let panics = |db: &mut Db<'_>, _| -> rusqlite::Result<()> {
        db.probe()?;
        panic!("on purpose")
    };
    let error = store.write(panics).await.unwrap_err();
    assert!(matches!(error, StoreError::Engine(_)), "{error:?}");
    let count = |db: &mut Db<'_>, _| {
        db.connection().query_row("SELECT count(*) FROM probe", (), |row| row.get::<_, i64>(0))
    };
    assert_eq!(store.write(count).await.unwrap(), 0, "it was undone");
    let read = store.view_reader(|_, _| -> rusqlite::Result<()> { panic!("on purpose") }).await;
    assert!(matches!(read, Err(StoreError::Engine(_))), "{read:?}");
    store.stats().await.unwrap();
    accept(&store, 0..1).await;
}

/// Environment of the watched process: path of the store, and number of alerts to accept.
const WATCHED: [&str; 2] = ["SYNC_TEST_PATH", "SYNC_TEST_ACCEPTS"];

#[expect(clippy::disallowed_methods, reason = "a test speaks to its own child process")]
fn from_parent() -> Option<(PathBuf, i64)> {
    let [path, accepts] = WATCHED.map(|name| env::var(name).ok());
    Some((path?.into(), accepts?.parse().unwrap()))
}

/// Body of the watched process. Does nothing in every other process.
#[tokio::test]
async fn accepts_for_whoever_watches() {
    if let Some((path, accepts)) = from_parent() {
        let store = open(&path, &Metrics::new(), MAX_SIZE, Clock::system()).unwrap();
        accept(&store, 0..accepts).await;
    }
}

/// Counts the flushes to disk of a process that opens a new store, accepts and ends.
fn flushes(accepts: i64) -> usize {
    let place = Place::new();
    let trace = place.directory.path().join("trace");
    let watched = Command::new("strace")
        .args(["-f", "-e", "trace=fsync,fdatasync", "-o"])
        .arg(&trace)
        .arg(env::current_exe().unwrap())
        .args(["--exact", "store::sqlite::tests::accepts_for_whoever_watches"])
        .envs(WATCHED.into_iter().zip([place.path().display().to_string(), accepts.to_string()]))
        .output()
        .expect("strace counts the flushes to disk: install it (apt-get install strace)");
    let said = String::from_utf8_lossy(&watched.stderr);
    assert!(watched.status.success(), "strace or what it watched failed: {said}");
    assert!(place.path().exists(), "the process that is watched did nothing");
    fs::read_to_string(trace).unwrap().lines().filter(|line| line.contains("sync(")).count()
}

#[test]
fn each_lone_accept_is_one_flush_to_disk() {
    let opening = flushes(0);
    assert!((1..=12).contains(&opening), "{opening} flushes to open a new store");
    assert_eq!(flushes(50), opening + 50);
}

#[tokio::test]
async fn what_its_caller_gave_up_before_its_turn_came_is_not_written() {
    let place = Place::new();
    let store = place.try_open().unwrap();
    let (begun, has_begun) = channel();
    let (end, may_end) = channel();
    let hangs = store.write(move |_db, _mode| {
        begun.send(()).unwrap();
        may_end.recv().unwrap();
        Ok(())
    });
    let mut context = Context::from_waker(Waker::noop());
    let mut hangs = Box::pin(hangs);
    assert!(hangs.as_mut().poll(&mut context).is_pending());
    has_begun.recv().unwrap();
    for number in 0..100 {
        let mut large = message(number);
        large.raw = vec![b'x'; 1_000_000].into();
        // Dropped at the end of the round. All of them together would exceed the limit.
        let mut given_up = store.accept(vec![large], None, None);
        assert!(given_up.as_mut().poll(&mut context).is_pending(), "{number} finds no room");
    }
    let mut large = message(100);
    large.raw = vec![b'x'; 5_000_000].into();
    // The second one may exceed the limit; the third one then finds it exceeded.
    let mut waits = [101, 102].map(|number| {
        let mut other = large.clone();
        other.key = message(number).key;
        store.accept(vec![other], None, None)
    });
    for one in &mut waits {
        assert!(one.as_mut().poll(&mut context).is_pending());
    }
    let refused = store.accept(vec![large], None, None).await;
    assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
    end.send(()).unwrap();
    hangs.await.unwrap();
    for one in waits {
        one.await.unwrap().remove(0).unwrap();
    }
    let stored = store.alerts(AlertQuery { limit: 500, ..AlertQuery::default() }).await.unwrap();
    assert_eq!(stored.len(), 2);
}

/// Changes of channel ids that layout 1 knew of become chains, and alerts keep their ids.
#[tokio::test]
async fn a_store_of_the_first_layout_is_brought_up_to_date_with_its_channels() {
    let (place, other) = (Place::new(), Place::new());
    other.fill().await;
    let application: i64 = Connection::open(other.path())
        .unwrap()
        .query_row("PRAGMA application_id", (), |row| row.get(0))
        .unwrap();
    let old = Connection::open(place.path()).unwrap();
    let tables = include_str!("../migrations/sqlite-1.sql");
    old.execute_batch(&format!(
        "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; {tables}
         PRAGMA application_id = {application}; PRAGMA user_version = 1;
         INSERT INTO channels VALUES (1, 'main', 'G0OLD000001'), (2, 'main', 'C0MID000001');
         INSERT INTO messages VALUES (1, 1, 0, 1600000000000000, 0, '', '', X'7B7D'),
            (2, 1, 0, 1700000000000000, 0, '', '', X'7B7D');
         INSERT INTO alerts VALUES (1, 1, 1600000000000000, 0, 1, 0, 1, 'high', ''),
            (2, 2, 1700000000000000, 0, 2, 0, 1, 'high', '');
         INSERT INTO channel_ids VALUES ('main', 'cd_alerts', 'C0NEW000001'),
            ('main', 'G0OLD000001', 'C0MID000001'), ('main', 'C0MID000001', 'C0NEW000001'),
            ('main', 'G0OLD000000', 'C0NEW000001'),
            ('main', 'C0THERE0001', 'C0THERE0001'), ('other', 'name', 'C0NEW000001')"
    ))
    .unwrap();
    drop(old);
    let store = place.try_open().unwrap();
    let app = AppName::new("main").unwrap();
    let chain = ["G0OLD000001", "C0MID000001", "G0OLD000000", "C0NEW000001"].map(ChannelId::new);
    assert_eq!(store.chains(&app).await.unwrap(), [chain.to_vec()]);
    let ts = MessageTs::from_micros(1_600_000_000_000_000);
    let key = MessageKey { app, channel: chain[3].clone(), ts: TsKey::Ts(ts) };
    let again = NewMessage { key, ..message(0) };
    let results = store.accept(vec![again], None, None).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap(), &Accepted::Duplicate);
    store.close().await;
}
