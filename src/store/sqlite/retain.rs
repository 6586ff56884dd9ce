//! Retention: first the text of what is finished goes, much later its identity.

use rusqlite::{Connection, named_params, params};

use super::{SqliteStore, db::Db, threads::Shared};
use crate::{
    clock::Timestamp,
    store::{IDENTITY_KEPT, Pruned, Retention, StoreError, stored::PER_ALERT},
};

/// How many messages one look finds.
const FOUND: i64 = 2048;

/// How many messages one transaction empties: others want to write too.
const PIECE: usize = 64;

/// How many pages one transaction gives back to the file system.
const PAGES: i64 = 256;

/// Removes all that may go, a piece at a time.
pub(super) async fn prune(store: &SqliteStore, retention: Retention) -> Result<Pruned, StoreError> {
    let mut pruned = Pruned::default();
    let mut round = Round::new(store.shared.clock.now(), retention);
    loop {
        let look = move |_: &Shared, db: &Connection| {
            let found = round.find(db)?;
            Ok((round, found))
        };
        let (next, found) = store.view_reader(look).await?;
        for piece in found.chunks(PIECE) {
            let piece = piece.to_vec();
            pruned.messages += store.write(move |db, _mode| round.empty(db, &piece)).await?;
        }
        if found.is_empty() {
            break;
        }
        round = next;
    }
    let mut after = Some(0);
    while let Some(id) = after {
        let (removed, next) = store.write(move |db, _mode| forget(db, id)).await?;
        pruned.identities += removed;
        after = next;
    }
    while store.write(|db, _mode| shrink(db)).await? {}
    Ok(pruned)
}

/// Up to when something must have ended to be removed, and from where to look on.
#[derive(Clone, Copy, Debug)]
struct Round {
    delivered: i64,
    dead: i64,
    after: (i64, i64),
}

impl Round {
    fn new(now: Timestamp, retention: Retention) -> Self {
        Self {
            delivered: (now - retention.delivered).micros(),
            dead: (now - retention.dead).micros(),
            after: (i64::MIN, i64::MIN),
        }
    }

    /// Finds the next messages that may be emptied, and moves on behind them.
    fn find(&mut self, db: &Connection) -> rusqlite::Result<Vec<i64>> {
        let found: Vec<(i64, i64)> = db
            .prepare_cached(&format!(
                "SELECT m.received_at, m.id FROM messages m INDEXED BY messages_kept
                 WHERE m.raw IS NOT NULL AND m.received_at <= max(:delivered, :dead)
                 AND m.received_at >= :after_time
                 AND (m.received_at > :after_time OR m.id > :after_id)
                 AND {MAY_GO} ORDER BY m.received_at, m.id LIMIT :limit"
            ))?
            .query_map(
                named_params! {
                    ":delivered": self.delivered,
                    ":dead": self.dead,
                    ":after_time": self.after.0,
                    ":after_id": self.after.1,
                    ":limit": FOUND,
                },
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?
            .collect::<rusqlite::Result<_>>()?;
        if let Some(last) = found.last() {
            self.after = *last;
        }
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// Empties messages, if they may still go; returns how many went.
    fn empty(&self, db: &Db<'_>, messages: &[i64]) -> rusqlite::Result<u64> {
        let mut emptied = 0;
        for id in messages {
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

/// No delivery of the message is pending or ended too lately; without any it counts from when the
/// message was received.
const MAY_GO: &str = "NOT EXISTS (
        SELECT 1 FROM deliveries d WHERE d.id >= m.id << 16 AND d.id < (m.id + m.alerts) << 16
        AND (d.state = 0 OR d.finished_at > iif(d.state = 2, :dead, :delivered)))
    AND (m.received_at <= :delivered OR EXISTS (
        SELECT 1 FROM deliveries d WHERE d.id >= m.id << 16 AND d.id < (m.id + m.alerts) << 16))";

fn empty(db: &Db<'_>, id: i64, alerts: i64) -> rusqlite::Result<()> {
    let deliveries = [id * PER_ALERT, (id + alerts) * PER_ALERT];
    db.execute("DELETE FROM attempts WHERE delivery >= ?1 AND delivery < ?2", deliveries)?;
    db.execute("DELETE FROM deliveries WHERE id >= ?1 AND id < ?2", deliveries)?;
    db.execute("DELETE FROM revisions WHERE message = ?1", [id])?;
    db.execute("UPDATE alerts SET search = NULL WHERE seq >= ?1 AND seq < ?2", [id, id + alerts])?;
    db.execute("UPDATE messages SET raw = NULL WHERE id = ?1", [id])?;
    Ok(())
}

/// Removes identities that are old enough, looking at a piece of the messages behind `after`, in
/// the order of their numbers. Returns how many went, and where to look on, until none is old. The
/// newest stays, so that no number is ever given twice.
fn forget(db: &Db<'_>, after: i64) -> rusqlite::Result<(u64, Option<i64>)> {
    let too_old = (db.now() - IDENTITY_KEPT).micros();
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

/// Gives unused pages back, as long as they are more than a tenth; returns whether it did.
fn shrink(db: &Db<'_>) -> rusqlite::Result<bool> {
    let pages =
        |pragma: &str| db.connection().pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let free = pages("freelist_count")?;
    if free <= pages("page_count")? / 10 {
        return Ok(false);
    }
    let mut statement = db.statement(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut steps = statement.query(())?;
    while steps.next()?.is_some() {}
    drop(steps);
    Ok(pages("freelist_count")? < free)
}
