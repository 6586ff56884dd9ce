//! Evicts the text of delivered messages before its retention ends, while space is short, the
//! oldest first. Identities stay, so that an evicted message is still known when it comes again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rusqlite::named_params;

use super::{
    SqliteStore,
    db::Db,
    job::Purpose,
    retain::{cut_off, empty},
    shared::Shared,
};
use crate::store::{FEED_PAGE_MAX_ITEMS, StoreError};

/// Numbers of messages that one transaction scans, and that it evicts. More would delay other
/// writes.
const SCANNED: usize = 512;
const EVICTED: usize = 64;

/// Number of pages that one transaction returns to the file system.
const PAGES: u32 = 64;

/// The longest time that a caller waits for space. Slack waits three seconds for an answer.
const BUDGET: Duration = Duration::from_millis(500);

/// Makes room if space is short. Only one call evicts at a time.
///
/// # Errors
/// [`StoreError::Full`]: undelivered alerts fill the store, or other files fill the disk.
pub(super) async fn make_room(store: &SqliteStore) -> Result<(), StoreError> {
    let shared = &store.shared;
    if !shared.size.is_short() {
        if shared.size.is_at_ease() {
            shared.eviction.note_enough_space();
        }
        return Ok(());
    }
    let deadline = shared.clock.instant() + BUDGET;
    let running = match shared.eviction.running.try_lock() {
        Ok(running) => running,
        // There is still room for this message, and the other call makes more.
        Err(_taken) if !shared.size.is_full() => return Ok(()),
        // The store is full, so this message depends on the room that the other call makes.
        Err(_taken) => match tokio::time::timeout(BUDGET, shared.eviction.running.lock()).await {
            Ok(running) => running,
            Err(_elapsed) => return Err(StoreError::Full),
        },
    };
    while shared.clock.instant() < deadline && !shared.size.has_enough() {
        if !step(store).await? {
            break;
        }
    }
    drop(running);
    if shared.size.is_full() { Err(StoreError::Full) } else { Ok(()) }
}

/// Evicts some messages, and returns pages to the file system if the disk is short of space.
/// Returns `true` if another step may make more room.
async fn step(store: &SqliteStore) -> Result<bool, StoreError> {
    let shared = &store.shared;
    let mut may_find_more = false;
    if !shared.eviction.rests(shared.clock.instant()) {
        let after = shared.eviction.next_position();
        let work = move |db: &mut Db<'_>, _| evict_some(db, after);
        let Scanned { evicted, last } = store.write_for(Purpose::Room, work).await?;
        shared.eviction.count(evicted);
        shared.eviction.advance(last, shared.clock.instant());
        may_find_more = true;
    }
    if shared.size.disk().is_short() {
        let shared = Arc::clone(shared);
        let work = move |db: &mut Db<'_>, _| return_pages(&shared, db);
        may_find_more |= store.write_for(Purpose::Room, work).await?;
    }
    Ok(may_find_more)
}

/// Result of one transaction.
struct Scanned {
    evicted: u64,
    /// The last message that was scanned, unless it is the last one of all.
    last: Option<i64>,
}

/// Evicts some of the delivered messages after the number `after`.
fn evict_some(db: &Db<'_>, after: i64) -> rusqlite::Result<Scanned> {
    let scanned: Vec<(i64, i64, bool)> = db
        .statement(
            // `behind` is the number in each feed up to which no reader asks again: a reader that
            // was killed asks once more for the page that it got last.
            "WITH feeds AS MATERIALIZED (
                SELECT t.id, coalesce((
                    SELECT d.number FROM deliveries d INDEXED BY deliveries_numbered
                    WHERE d.destination = t.id AND d.state = 1 AND d.number IS NOT NULL
                    ORDER BY d.number DESC LIMIT 1 OFFSET :page), -1) AS behind
                FROM destinations t WHERE t.numbered > 0)
             SELECT m.id, m.alerts, m.raw IS NOT NULL
                AND NOT EXISTS (
                    SELECT 1 FROM alerts a
                    WHERE a.seq >= m.id AND a.seq < m.id + m.alerts AND NOT EXISTS (
                        SELECT 1 FROM deliveries d
                        WHERE d.id >= a.seq << 16 AND d.id < (a.seq + 1) << 16))
                AND NOT EXISTS (
                    SELECT 1 FROM deliveries d LEFT JOIN feeds f ON f.id = d.destination
                    WHERE d.id >= m.id << 16 AND d.id < (m.id + m.alerts) << 16
                    AND (d.state NOT IN (1, 3) OR d.number > f.behind))
             FROM messages m WHERE m.id > :after ORDER BY m.id LIMIT :limit",
        )?
        .query_map(
            named_params! {":page": FEED_PAGE_MAX_ITEMS, ":after": after, ":limit": SCANNED},
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?
        .collect::<rusqlite::Result<_>>()?;
    let mut evicted = 0;
    for (id, alerts, may_go) in &scanned {
        if !may_go {
            continue;
        }
        empty(db, *id, *alerts)?;
        evicted += 1;
        if evicted == EVICTED {
            return Ok(Scanned { evicted: count(evicted), last: Some(*id) });
        }
    }
    let last = scanned.last().filter(|_| scanned.len() == SCANNED).map(|(id, ..)| *id);
    Ok(Scanned { evicted: count(evicted), last })
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Cuts unused pages off the file. Returns `true` if there were any.
fn return_pages(shared: &Shared, db: &Db<'_>) -> rusqlite::Result<bool> {
    // The commit writes the change to the log, which the writer empties afterwards.
    shared.gives_back.store(true, Ordering::Release);
    cut_off(db, PAGES)
}
