//! Files that are removed, replaced or moved under an open store, and who may read them.

use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use super::*;

const FILES: [&str; 4] = ["", "-wal", "-shm", ".lock"];

fn soar() -> DestinationName {
    DestinationName::new("soar").unwrap()
}

async fn try_accept(store: &SqliteStore, number: i64) -> Result<(), StoreError> {
    store.accept(vec![message(number)], None, None).await.map(drop)
}

/// Nothing new is acknowledged, and what is open goes on.
async fn assert_gone(store: &SqliteStore, why: &str) {
    let refused = try_accept(store, 7_000).await;
    assert!(matches!(&refused, Err(StoreError::Gone(_))), "{why}: {refused:?}");
    let probed = store.probe().await;
    assert!(matches!(&probed, Err(StoreError::Gone(_))), "{why}: {probed:?}");
    let problem = store.stats().await.unwrap().problem;
    assert!(problem.contains("store.db"), "{why}: {problem}");
    let act = store.act(Selection::default(), Action::Cancel, None).await;
    assert!(matches!(act, Err(StoreError::Gone(_))), "{why}: {act:?}");
    let paused = store.set_paused(&soar(), Paused::No, None).await;
    assert!(matches!(paused, Err(StoreError::Gone(_))), "{why}: {paused:?}");
}

/// Changes to the files of an open store.
type Mishap = Box<dyn Fn(&Place)>;

fn mishaps() -> Vec<(String, Mishap)> {
    let mut all: Vec<(String, Mishap)> = Vec::new();
    for suffix in FILES {
        let file = move |place: &Place| beside(&place.path(), suffix);
        all.push((
            format!("{suffix} removed"),
            Box::new(move |place| fs::remove_file(file(place)).unwrap()),
        ));
        all.push((
            format!("{suffix} replaced"),
            Box::new(move |place| {
                let copy = place.directory.path().join("copy");
                fs::copy(file(place), &copy).unwrap();
                fs::rename(copy, file(place)).unwrap();
            }),
        ));
    }
    all.push((
        "all removed".to_owned(),
        Box::new(|place| {
            for suffix in FILES {
                fs::remove_file(beside(&place.path(), suffix)).unwrap();
            }
        }),
    ));
    all.push((
        "directory moved".to_owned(),
        Box::new(|place| {
            fs::rename(place.directory.path(), place.directory.path().with_extension("away"))
                .unwrap();
        }),
    ));
    all
}

#[tokio::test]
async fn nothing_is_acknowledged_that_a_start_would_not_find() {
    for (name, mishap) in mishaps() {
        let place = Place::new();
        let store = place.try_open().unwrap();
        accept(&store, 0..3).await;
        let mut leases = store.lease_due(&soar(), 1).await.unwrap();
        mishap(&place);
        let left = listed(&place);
        assert_gone(&store, &name).await;
        store.record(leases.remove(0), delivered()).await.unwrap();
        for lease in store.lease_due(&soar(), 2).await.unwrap() {
            assert_eq!(lease.delivery().raw, message(0).raw, "{name}: what is open is read");
            store.record(lease, delivered()).await.unwrap();
        }
        store.close().await;
        assert_eq!(listed(&place), left, "{name}: nothing is made anew, nor removed");
        drop(fs::remove_dir_all(place.directory.path().with_extension("away")));
    }
}

fn listed(place: &Place) -> Vec<String> {
    let Ok(found) = fs::read_dir(place.directory.path()) else { return Vec::new() };
    let mut names: Vec<String> =
        found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn files_that_come_back_are_used_again() {
    let place = Place::new();
    let store = place.try_open().unwrap();
    accept(&store, 0..1).await;
    let away = place.directory.path().with_extension("away");
    fs::rename(place.directory.path(), &away).unwrap();
    assert_gone(&store, "moved").await;
    fs::rename(&away, place.directory.path()).unwrap();
    accept(&store, 1..2).await;
    store.probe().await.unwrap();
    assert_eq!(store.stats().await.unwrap().problem, "");
    store.close().await;
    let store = place.try_open().unwrap();
    let found = store.lease_due(&soar(), 9).await.unwrap().len();
    assert_eq!(found, 3, "the first one that was refused was written; Slack would send it again");
}

#[tokio::test]
async fn files_that_came_in_the_place_of_others_are_left_alone_at_the_end() {
    let place = Place::new();
    let store = place.try_open().unwrap();
    accept(&store, 0..1).await;
    for suffix in FILES {
        fs::remove_file(beside(&place.path(), suffix)).unwrap();
    }
    let other = place.try_open().unwrap();
    accept(&other, 100..103).await;
    store.close().await;
    accept(&other, 103..104).await;
    drop(other);
    assert_eq!(place.try_open().unwrap().lease_due(&soar(), 9).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_second_opener_is_refused_without_the_lock_file_too() {
    let place = Place::new();
    let first = place.try_open().unwrap();
    accept(&first, 0..1).await;
    fs::remove_file(beside(&place.path(), ".lock")).unwrap();
    for _ in 0..2 {
        assert!(matches!(place.try_open(), Err(OpenError::InUse(path)) if path == place.path()));
    }
    drop(first);
    drop(place.try_open().unwrap());
}

#[tokio::test]
async fn a_store_under_two_names_is_opened_once() {
    let place = Place::new();
    let first = place.try_open().unwrap();
    accept(&first, 0..1).await;
    let other = place.directory.path().join("other.db");
    std::os::unix::fs::symlink(place.path(), &other).unwrap();
    let second = open(&other, &place.metrics, MAX_SIZE, Clock::system());
    assert!(matches!(second, Err(OpenError::InUse(_))), "{second:?}");
}

#[tokio::test]
async fn a_store_that_others_could_read_is_closed_to_them() {
    let place = Place::new();
    place.fill().await;
    drop(place.try_open().unwrap());
    let ballast = beside(&place.path(), ".ballast");
    let files: Vec<PathBuf> =
        FILES.iter().map(|suffix| beside(&place.path(), suffix)).chain([ballast]).collect();
    for mode in [0o644, 0o666, 0o640] {
        for file in &files {
            fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
        }
        let store = place.try_open().unwrap();
        accept(&store, 100..101).await;
        for file in &files {
            let found = fs::metadata(file).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, 0o600, "{}", file.display());
        }
        drop(store);
    }
}

#[tokio::test]
async fn two_backups_to_one_file_at_once_make_one_whole_copy() {
    use crate::store::sqlite::backup::{BackupError, backup, remove_partial};
    let place = Place::new();
    place.fill().await;
    let folder = place.path().parent().unwrap().to_owned();
    for round in 0..30 {
        let to = folder.join(format!("copy-{round}.db"));
        let copies: Vec<_> = std::thread::scope(|scope| {
            let copy = || backup(&place.path(), &to, |_handle| ());
            let both = [scope.spawn(copy), scope.spawn(copy)];
            // The first step of a third backup, again and again.
            while !both.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                remove_partial(&folder).unwrap();
            }
            both.map(|one| one.join().unwrap()).into_iter().collect()
        });
        let whole: Vec<_> = copies.iter().filter_map(|copy| copy.as_ref().ok()).collect();
        let found = fs::metadata(&to).unwrap();
        assert_eq!(whole.len(), 1, "{copies:?}");
        assert!(copies.iter().any(|copy| matches!(copy, Err(BackupError::Exists(_)))));
        assert_eq!((whole[0].bytes, found.permissions().mode() & 0o777), (found.len(), 0o600));
    }
}
