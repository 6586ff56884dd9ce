//! Retention: removes the text of finished messages, and much later their identities.

use std::sync::atomic::Ordering;

use rusqlite::{Connection, named_params, params};

use super::{SqliteStore, db::Db, job::Purpose, journal, poster, review, shared::Shared};
use crate::{
    clock::Timestamp,
    store::{IDENTITY_KEPT, Pruned, Retention, StoreError, stored::PER_ALERT},
};

/// Number of messages that one read scans, and number of reads without a result that end a round;
/// the next round goes on from there. A million messages are scanned within an hour, at 30 MB a
/// minute. An index of the finished messages would make each new alert 5 % more expensive.
const LOOK: usize = 2048;
const LOOKS_IN_VAIN: usize = 8;

/// Number of messages that one transaction empties. More would delay other writes.
const PIECE: usize = 64;

/// Number of pages that one transaction returns to the file system.
const PAGES: u32 = 256;

/// Removes everything that is older than its retention at this time.
pub(super) async fn remove_old(
    store: &SqliteStore,
    now: Timestamp,
    retention: Retention,
) -> Result<Pruned, StoreError> {
    let mut pruned = Pruned::default();
    let round = Round::new(now, retention);
    let mut in_vain = 0;
    while in_vain < LOOKS_IN_VAIN {
        let after = store.shared.walked.load(Ordering::Acquire);
        let look = move |_: &Shared, db: &Connection| round.look(db, after);
        let seen = store.view_reader(look).await?;
        let may_go: Vec<i64> =
            seen.iter().filter(|(_, may_go)| *may_go).map(|(id, _)| *id).collect();
        in_vain += usize::from(may_go.is_empty());
        for piece in may_go.chunks(PIECE) {
            let piece = piece.to_vec();
            let work = move |db: &mut Db<'_>, _| round.empty(db, &piece);
            pruned.messages += store.write_for(Purpose::Room, work).await?;
        }
        // After the last message the next round begins again.
        let last = seen.last().filter(|_| seen.len() == LOOK).map_or(0, |(id, _)| *id);
        store.shared.walked.store(last, Ordering::Release);
        if last == 0 {
            break;
        }
    }
    let mut after = Some(0);
    while let Some(id) = after {
        let work = move |db: &mut Db<'_>, _| forget(db, now, id);
        let (removed, next) = store.write_for(Purpose::Room, work).await?;
        pruned.identities += removed;
        after = next;
    }
    let work = move |db: &mut Db<'_>, _| {
        journal::forget(db, now)?;
        poster::forget(db, now)?;
        review::forget(db, now)
    };
    store.write_for(Purpose::Room, work).await?;
    Ok(pruned)
}

/// Times before which deliveries must have ended for their message to be emptied.
#[derive(Clone, Copy, Debug)]
struct Round {
    delivered: i64,
    dead: i64,
}

impl Round {
    fn new(now: Timestamp, retention: Retention) -> Self {
        Self {
            delivered: (now - retention.delivered).micros(),
            dead: (now - retention.dead).micros(),
        }
    }

    /// Returns the next messages after a number, and whether each may be emptied.
    fn look(&self, db: &Connection, after: i64) -> rusqlite::Result<Vec<(i64, bool)>> {
        db.prepare_cached(&format!(
            "SELECT m.id, m.received_at <= max(:delivered, :dead) AND m.raw IS NOT NULL AND {MAY_GO}
             FROM messages m WHERE m.id > :after ORDER BY m.id LIMIT :limit"
        ))?
        .query_map(
            named_params! {
                ":delivered": self.delivered,
                ":dead": self.dead,
                ":after": after,
                ":limit": LOOK,
            },
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?
        .collect()
    }

    /// Empties those messages that may still be emptied. Returns their number.
    fn empty(&self, db: &Db<'_>, messages: &[i64]) -> rusqlite::Result<u64> {
        let mut emptied = 0;
        for id in messages {
            // Checked again: since the look a retry may have made a delivery pending.
            let alerts: Option<i64> = db
                .statement(&format!(
                    "SELECT m.alerts FROM messages m
                     WHERE m.id = :id AND m.raw IS NOT NULL AND {MAY_GO}"
                ))?
                .query_map(
                    named_params! {":id": id, ":delivered": self.delivered, ":dead": self.dead},
                    |row| row.get(0),
                )?
                .next()
                .transpose()?;
            if let Some(alerts) = alerts {
                empty(db, *id, alerts)?;
                emptied += 1;
            }
        }
        Ok(emptied)
    }
}

/// Condition for a message to be emptied: no delivery is pending or ended too recently. A message
/// without deliveries counts from the time at which it was received.
const MAY_GO: &str = "NOT EXISTS (
        SELECT 1 FROM deliveries d WHERE d.id >= m.id << 16 AND d.id < (m.id + m.alerts) << 16
        AND (d.state = 0 OR d.finished_at > iif(d.state = 2, :dead, :delivered)))
    AND (m.received_at <= :delivered OR EXISTS (
        SELECT 1 FROM deliveries d WHERE d.id >= m.id << 16 AND d.id < (m.id + m.alerts) << 16))";

/// Removes everything of a message but its identity.
pub(super) fn empty(db: &Db<'_>, id: i64, alerts: i64) -> rusqlite::Result<()> {
    let deliveries = [id * PER_ALERT, (id + alerts) * PER_ALERT];
    db.execute("DELETE FROM attempts WHERE delivery >= ?1 AND delivery < ?2", deliveries)?;
    db.execute("DELETE FROM deliveries WHERE id >= ?1 AND id < ?2", deliveries)?;
    db.execute("DELETE FROM revisions WHERE message = ?1", [id])?;
    db.execute("UPDATE alerts SET search = NULL WHERE seq >= ?1 AND seq < ?2", [id, id + alerts])?;
    db.execute("UPDATE messages SET raw = NULL WHERE id = ?1", [id])?;
    Ok(())
}

/// Removes old identities among the next messages after `after`. Returns their number, and the
/// message to go on from, or `None` once a read finds no old message.
fn forget(db: &Db<'_>, now: Timestamp, after: i64) -> rusqlite::Result<(u64, Option<i64>)> {
    let too_old = (now - IDENTITY_KEPT).micros();
    // The newest message stays, so that no number is given twice: the next number is one more than
    // the largest one in the store.
    let piece: Vec<(i64, i64, bool, bool)> = db
        .statement(
            "SELECT id, alerts, received_at <= ?1,
                raw IS NULL AND id < (SELECT max(id) FROM messages)
             FROM messages WHERE id > ?2 ORDER BY id LIMIT ?3",
        )?
        .query_map(params![too_old, after, PIECE], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut removed = 0;
    for (id, alerts, ..) in piece.iter().filter(|(_, _, old, free)| *old && *free) {
        db.execute("DELETE FROM alerts WHERE seq >= ?1 AND seq < ?2", [*id, *id + *alerts])?;
        db.execute("DELETE FROM messages WHERE id = ?1", [*id])?;
        removed += 1;
    }
    let next = piece.iter().any(|(_, _, old, _)| *old).then(|| piece.last().map(|last| last.0));
    Ok((removed, next.flatten()))
}

/// Returns pages to the file system while more than a tenth is unused. Returns `true` if it did.
pub(super) fn shrink(db: &Db<'_>) -> rusqlite::Result<bool> {
    let pages =
        |pragma: &str| db.connection().pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    if pages("freelist_count")? <= pages("page_count")? / 10 {
        return Ok(false);
    }
    cut_off(db, PAGES)
}

/// Cuts at most that many unused pages off the file. Returns `true` if there were any.
pub(super) fn cut_off(db: &Db<'_>, at_most: u32) -> rusqlite::Result<bool> {
    let free = || {
        let free = db.connection().pragma_query_value(None, "freelist_count", |row| row.get(0));
        free.map(|free: i64| free)
    };
    let before = free()?;
    if before == 0 {
        return Ok(false);
    }
    let mut statement = db.statement(&format!("PRAGMA incremental_vacuum({at_most})"))?;
    let mut steps = statement.query(())?;
    while steps.next()?.is_some() {}
    drop(steps);
    Ok(free()? < before)
}
