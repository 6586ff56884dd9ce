//! Making room: when space is short, the text of what is delivered goes before its time, the oldest
//! first. Its identity stays, so that it is still known when it comes again.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::Counter;
use rusqlite::named_params;

use super::{SqliteStore, db::Db, purpose::Purpose, retain::empty, threads::Shared};
use crate::store::{FEED_PAGE_MAX_ITEMS, StoreError};

/// How many messages one transaction passes, and how many of them it empties: others want to write
/// too.
const LOOK: usize = 512;
const PIECE: usize = 64;

/// How many pages one transaction gives back to the file system.
const PAGES: u32 = 64;

/// How long whoever needs room waits for it; Slack waits three seconds.
const BUDGET: Duration = Duration::from_millis(500);

/// After a walk through all messages that found nothing, none is begun for that long, unless a
/// delivery may have ended meanwhile.
const REST: Duration = Duration::from_millis(500);

/// Where making room stands.
#[derive(Debug)]
pub(super) struct Relief {
    /// Held by the one that makes room.
    turn: tokio::sync::Mutex<()>,
    /// The message up to which was looked.
    walked: AtomicI64,
    /// Whether anything was found since the first message.
    has_found: AtomicBool,
    rests_until: Mutex<Option<Instant>>,
    /// Whether something was written since then that may have ended a delivery.
    has_news: AtomicBool,
    /// Whether the log says that alerts go before their time.
    is_said: AtomicBool,
    pruned_early: Counter,
}

impl Relief {
    pub(super) fn new(pruned_early: Counter) -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            walked: AtomicI64::new(0),
            has_found: AtomicBool::new(false),
            rests_until: Mutex::default(),
            has_news: AtomicBool::new(false),
            is_said: AtomicBool::new(false),
            pruned_early,
        }
    }

    /// Hears that a delivery may have ended.
    pub(super) fn wake(&self) {
        self.has_news.store(true, Ordering::Release);
    }

    /// Returns the message behind which the walk goes on. A new one sees all that has ended by now.
    fn begin_walk(&self) -> i64 {
        let after = self.walked.load(Ordering::Acquire);
        if after == 0 {
            self.has_news.store(false, Ordering::Release);
        }
        after
    }

    pub(super) fn rests(&self, now: Instant) -> bool {
        if self.has_news.load(Ordering::Acquire) {
            return false;
        }
        let until = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }

    /// A walk has come to its end; the next one begins at the first message.
    fn end_walk(&self, now: Instant) {
        self.walked.store(0, Ordering::Release);
        if !self.has_found.swap(false, Ordering::AcqRel) {
            let mut until = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
            *until = Some(now + REST);
        }
    }

    fn count(&self, removed: u64) {
        if removed == 0 {
            return;
        }
        self.has_found.store(true, Ordering::Release);
        self.pruned_early.increment(removed);
        if !self.is_said.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                "the store is short of space: the text of delivered alerts is removed before \
                 retention says so, the oldest first (pruned_early_total counts it); raise \
                 max_size, free space on the disk, or shorten retention"
            );
        }
    }
}

/// Makes room if space is short. If another call is doing so already, this one waits for it only
/// when the store is full.
///
/// # Errors
/// [`StoreError::Full`]: what is not delivered fills the store, or others fill the disk.
pub(super) async fn make_room(store: &SqliteStore) -> Result<(), StoreError> {
    let shared = &store.shared;
    if !shared.size.is_short() {
        if shared.size.is_at_ease() {
            shared.relief.is_said.store(false, Ordering::Release);
        }
        return Ok(());
    }
    let deadline = shared.clock.instant() + BUDGET;
    let turn = match shared.relief.turn.try_lock() {
        Ok(turn) => turn,
        Err(_taken) if !shared.size.is_full() => return Ok(()),
        Err(_taken) => match tokio::time::timeout(BUDGET, shared.relief.turn.lock()).await {
            Ok(turn) => turn,
            Err(_elapsed) => return Err(StoreError::Full),
        },
    };
    while shared.clock.instant() < deadline && !shared.size.has_enough() {
        if !step(store).await? {
            break;
        }
    }
    drop(turn);
    if shared.size.is_full() { Err(StoreError::Full) } else { Ok(()) }
}

/// Empties a piece of the messages, and gives pages back if the disk is short; returns whether
/// another step may find more.
async fn step(store: &SqliteStore) -> Result<bool, StoreError> {
    let shared = &store.shared;
    let mut goes_on = false;
    if !shared.relief.rests(shared.clock.instant()) {
        let after = shared.relief.begin_walk();
        let work = move |db: &mut Db<'_>, _| empty_some(db, after);
        let Walked { emptied, last } = store.write_for(Purpose::Room, work).await?;
        shared.relief.count(emptied);
        match last {
            Some(last) => shared.relief.walked.store(last, Ordering::Release),
            None => shared.relief.end_walk(shared.clock.instant()),
        }
        goes_on = true;
    }
    if shared.size.disk().is_short() {
        let giving = std::sync::Arc::clone(shared);
        let work = move |db: &mut Db<'_>, _| give_back(&giving, db);
        goes_on |= store.write_for(Purpose::Room, work).await?;
    }
    Ok(goes_on)
}

/// What one transaction has passed.
struct Walked {
    emptied: u64,
    /// The last message, unless there is none behind it.
    last: Option<i64>,
}

/// Empties a piece of what may go behind that message.
fn empty_some(db: &Db<'_>, after: i64) -> rusqlite::Result<Walked> {
    let passed: Vec<(i64, i64, bool)> = db
        .statement(
            // Of each feed, the number behind which nobody has to read again: a reader that was
            // killed asks once more for the page that it was given last.
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
            named_params! {":page": FEED_PAGE_MAX_ITEMS, ":after": after, ":limit": LOOK},
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?
        .collect::<rusqlite::Result<_>>()?;
    let mut emptied = 0;
    for (id, alerts, may_go) in &passed {
        if !may_go {
            continue;
        }
        empty(db, *id, *alerts)?;
        emptied += 1;
        if emptied == PIECE {
            return Ok(Walked { emptied: count(emptied), last: Some(*id) });
        }
    }
    let last = passed.last().filter(|_| passed.len() == LOOK).map(|(id, ..)| *id);
    Ok(Walked { emptied: count(emptied), last })
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Cuts unused pages off the file; the log, in which that is written, is emptied after the commit.
/// Returns whether there were any.
fn give_back(shared: &Shared, db: &Db<'_>) -> rusqlite::Result<bool> {
    shared.gives_back.store(true, Ordering::Release);
    super::retain::cut_off(db, PAGES)
}
