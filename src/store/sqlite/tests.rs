//! SQLite's own promises, and the ones of every store.

use std::{fs, path::Path, process::Command, sync::Arc};

use tempfile::TempDir;

use super::{OpenError, Settings, SqliteStore};
use crate::{
    clock::Clock,
    metrics::Metrics,
    store::{
        Store, StoreError,
        contract::{Bench, LEASE, START, contract_suite, message, name},
    },
};

struct SqliteBench(TempDir);

impl Bench for SqliteBench {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn open(&self, clock: &Clock, metrics: &Metrics) -> Arc<dyn Store> {
        let path = self.0.path().join("relay.db");
        let settings = Settings { path, max_size_bytes: 1 << 30, lease: LEASE };
        Arc::new(SqliteStore::open(&settings, clock.clone(), metrics).expect("opened"))
    }
}

contract_suite!(SqliteBench);

fn open(path: &Path, max_size_bytes: u64) -> Result<SqliteStore, OpenError> {
    let settings = Settings { path: path.to_owned(), max_size_bytes, lease: LEASE };
    SqliteStore::open(&settings, Clock::manual(START), &Metrics::new())
}

#[tokio::test]
async fn a_second_relay_on_the_store_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("relay.db");
    let store = open(&path, 1 << 30).expect("opened");
    assert!(matches!(open(&path, 1 << 30), Err(OpenError::InUse(_))));
    store.close().await;
    assert!(open(&path, 1 << 30).is_ok());
}

#[test]
fn a_missing_folder_is_said_and_not_made() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("nowhere/relay.db");
    assert!(matches!(open(&path, 1 << 30), Err(OpenError::NoDirectory(_))));
    assert!(!path.parent().expect("a parent").exists());
}

#[tokio::test]
async fn a_damaged_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("relay.db");
    let store = open(&path, 1 << 30).expect("opened");
    store.accept((0..50).map(message).collect(), None, None).await.expect("accepted");
    store.close().await;
    drop(store);
    let sound = fs::read(&path).expect("read");
    let garbage = b"this is no database".to_vec();
    let mut header = sound.clone();
    header.splice(0..16, *b"SQLite format 9\0");
    let half = sound.get(..5_000).expect("it is larger").to_vec();
    for damaged in [garbage, header, half] {
        fs::write(&path, &damaged).expect("written");
        let refused = open(&path, 1 << 30).expect_err("it is damaged");
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
        assert!(refused.to_string().contains("relay.db"), "{refused}");
        assert_eq!(fs::read(&path).expect("read"), damaged, "nothing was changed");
    }
    fs::write(&path, &sound).expect("written");
    assert!(open(&path, 1 << 30).is_ok());
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("relay.db");
    open(&path, 1 << 30).expect("opened").close().await;
    let connection = rusqlite::Connection::open(&path).expect("opened");
    connection.pragma_update(None, "user_version", 99).expect("changed");
    drop(connection);
    assert!(matches!(open(&path, 1 << 30), Err(OpenError::Newer { found: 99, .. })));
}

#[tokio::test]
async fn a_full_store_refuses_alerts_and_still_records() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir.path().join("relay.db"), 1024 * 1024).expect("opened");
    let mut refused = None;
    for n in 0..2_000 {
        if let Err(error) = store.accept(vec![message(n)], None, None).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(StoreError::Full)), "{refused:?}");
    assert!(matches!(store.probe().await, Err(StoreError::Full)));
    let lease = store.lease_due(&name("a"), 1).await.expect("leased").pop().expect("one");
    let attempt = crate::store::Attempt {
        started_at: START,
        duration: LEASE,
        class: "delivered",
        status: None,
        excerpt: String::new(),
    };
    let next = crate::store::Next::Delivered(crate::store::Reference::default());
    let outcome = crate::store::Outcome { attempt, next };
    assert!(store.record(lease, outcome).await.is_ok());
}

/// Not a test by itself: what [`every_commit_is_one_sync`] runs under `strace`.
const COMMITS: u32 = 25;
const PLACE: &str = "SLACK_SOAR_RELAY_TEST_COMMITS_IN";

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test calls itself under strace")]
async fn commits_for_strace() {
    let Ok(dir) = std::env::var(PLACE) else { return };
    let store = open(&Path::new(&dir).join("relay.db"), 1 << 30).expect("opened");
    for n in 0..COMMITS {
        fs::write(Path::new(&dir).join("mark"), n.to_string()).expect("marked");
        store.accept(vec![message(n)], None, None).await.expect("accepted");
    }
    fs::write(Path::new(&dir).join("mark"), "end").expect("marked");
}

#[test]
fn every_commit_is_one_sync() {
    let dir = tempfile::tempdir().expect("a folder");
    let trace = dir.path().join("trace");
    let ran = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,openat", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "store::sqlite::tests::commits_for_strace"])
        .env(PLACE, dir.path())
        .output()
        .expect("strace is needed: apt-get install strace");
    assert!(ran.status.success(), "{ran:?}");
    let trace = fs::read_to_string(&trace).expect("a trace");
    let mark = format!("{}/mark", dir.path().display());
    let syncs: Vec<usize> = trace
        .split(&mark)
        .skip(1)
        .map(|part| part.lines().filter(|line| line.contains("sync(")).count())
        .collect();
    let commits = usize::try_from(COMMITS).expect("a small number");
    let between = syncs.get(..commits).expect("a mark before every commit");
    assert!(between.iter().all(|syncs| *syncs == 1), "{between:?}");
    assert!(!trace.contains(" fsync(") || trace.contains("fdatasync("), "WAL syncs are fdatasync");
}
