//! The role [`Feeds`]: numbers deliveries, and serves them to readers by their numbers.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    SqliteStore,
    db::Db,
    deliver::{LastBody, delivery},
    job::Mode,
    operate,
    row::alert_id,
    shared::Shared,
};
use crate::{
    clock::Timestamp,
    ids::{AlertId, DestinationName, MessageTs},
    store::{FeedPage, Feeds, StoreError, Taken, feed::Entries},
};

/// Number of deliveries that one transaction marks. More would delay other writes.
const PIECE: i64 = 1000;

/// A page as one snapshot shows it.
struct Look {
    entries: Entries,
    end: i64,
    /// Number of deliveries that the page still has room for, or 0 if none waits for a number.
    missing: usize,
}

#[async_trait]
impl Feeds for SqliteStore {
    async fn feed_page(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: usize,
    ) -> Result<FeedPage, StoreError> {
        page(self, destination, after, limit).await
    }

    async fn feed_taken(
        &self,
        destination: &DestinationName,
        up_to: i64,
    ) -> Result<Vec<Taken>, StoreError> {
        taken(self, destination, up_to).await
    }

    async fn give_up(
        &self,
        destination: &DestinationName,
        alerts: &[AlertId],
        reason: &'static str,
    ) -> Result<Vec<AlertId>, StoreError> {
        give_up(self, destination, alerts, reason).await
    }
}

/// Returns a page. Gives numbers to deliveries that are due, if the page has room for them.
async fn page(
    store: &SqliteStore,
    destination: &DestinationName,
    after: i64,
    limit: usize,
) -> Result<FeedPage, StoreError> {
    let find = |name: DestinationName| {
        store.lease_reader(move |shared, db| look(shared, db, &name, (after, limit)))
    };
    let mut found = find(destination.clone()).await?;
    if found.missing > 0 {
        let (shared, name) = (Arc::clone(&store.shared), destination.clone());
        // The writer gives the numbers, so each is committed before the next one is chosen.
        let missing = found.missing;
        store
            .write_stopping_leases(move |db, _mode| number(&shared, db, &name, (after, missing)))
            .await?;
        // Read again, so that a page shows a number only after the commit.
        found = find(destination.clone()).await?;
    }
    Ok(found.entries.page(found.end))
}

/// Reads the number of a destination, the last number of its feed, and whether it is paused.
fn known(
    db: &Connection,
    destination: &DestinationName,
) -> rusqlite::Result<Option<(i64, i64, bool)>> {
    db.prepare_cached(
        "SELECT id, numbered, paused_at IS NOT NULL FROM destinations WHERE name = ?1",
    )?
    .query_row([destination.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
    .optional()
}

fn look(
    shared: &Shared,
    db: &Connection,
    destination: &DestinationName,
    (after, limit): (i64, usize),
) -> rusqlite::Result<Look> {
    let now = shared.clock.now();
    let (mut entries, mut missing) = (Entries::default(), 0);
    let Some((id, numbered, is_paused)) = known(db, destination)? else {
        return Ok(Look { entries, end: now.micros(), missing });
    };
    let end = numbered.max(now.micros());
    // Nothing is numbered for a reader with a number from the future: each new number would have to
    // follow that one.
    if is_paused || after > end {
        return Ok(Look { entries, end, missing });
    }
    // Pending and delivered entries are two ranges of the index, each in the order of the numbers.
    // Delivered ones are included for a reader that was killed and asks once more.
    let mut statement = db.prepare_cached(
        "SELECT c.app, c.channel, a.ts, a.ordinal,
            d.id, d.attempts, d.alert_faults, d.since + t.paused_for, a.attachment,
            m.received_at, m.posted_at, m.source, m.event_id, m.team, m.raw,
            a.level, coalesce(a.search, ''), d.evidence, d.accepted, d.number, m.id
         FROM (
            SELECT * FROM (
                SELECT * FROM deliveries INDEXED BY deliveries_numbered
                WHERE destination = ?1 AND state = 0 AND number > ?2 ORDER BY number LIMIT ?3)
            UNION ALL SELECT * FROM (
                SELECT * FROM deliveries INDEXED BY deliveries_numbered
                WHERE destination = ?1 AND state = 1 AND number > ?2 ORDER BY number LIMIT ?3)) d
         CROSS JOIN destinations t ON t.id = d.destination
         CROSS JOIN alerts a ON a.seq = d.id >> 16
         CROSS JOIN channels c ON c.id = a.channel
         CROSS JOIN messages m ON m.id = a.message
         ORDER BY d.number LIMIT ?3",
    )?;
    let mut rows = statement.query(params![id, after, limit])?;
    let mut bodies = LastBody::default();
    while entries.has_room()
        && let Some(row) = rows.next()?
    {
        let (raw, _) = bodies.read(row, 20)?;
        entries.push(row.get(19)?, delivery(row, destination, raw)?);
    }
    if entries.has_room() && entries.len() < limit && !waiting(shared, db, id, 1)?.is_empty() {
        missing = limit - entries.len();
    }
    Ok(Look { entries, end, missing })
}

/// Finds deliveries that are due, not leased, and without a number.
fn waiting(
    shared: &Shared,
    db: &Connection,
    destination: i64,
    limit: usize,
) -> rusqlite::Result<Vec<i64>> {
    let now = shared.clock.now();
    db.prepare_cached(
        "SELECT id FROM deliveries INDEXED BY deliveries_due
         WHERE destination = ?1 AND state = 0 AND due_at <= ?2 AND number IS NULL
            AND id NOT IN (SELECT value FROM json_each(?3)) ORDER BY due_at, id LIMIT ?4",
    )?
    .query_map(
        params![destination, now.micros(), shared.leases.live_json(shared.clock.moment()), limit],
        |row| row.get(0),
    )?
    .collect()
}

fn number(
    shared: &Shared,
    db: &Db<'_>,
    destination: &DestinationName,
    (after, limit): (i64, usize),
) -> rusqlite::Result<()> {
    let Some((id, numbered, false)) = known(db.connection(), destination)? else {
        return Ok(());
    };
    let mut number = numbered.max(db.now().micros()).max(after);
    for delivery in waiting(shared, db.connection(), id, limit)? {
        number += 1;
        db.execute("UPDATE deliveries SET number = ?2 WHERE id = ?1", [delivery, number])?;
    }
    db.execute("UPDATE destinations SET numbered = ?2 WHERE id = ?1", [id, number]).map(drop)
}

/// Marks some of the pending deliveries up to a number as delivered. Writes nothing if there are
/// none, as is usual.
async fn taken(
    store: &SqliteStore,
    destination: &DestinationName,
    up_to: i64,
) -> Result<Vec<Taken>, StoreError> {
    let name = destination.clone();
    let found = store.lease_reader(move |_shared, db| pending(db, &name, up_to)).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    store
        .write_stopping_leases(move |db, _mode| {
            let mut taken = Vec::new();
            // The conditions are checked again: since the look a delivery may have been cancelled,
            // or lost its number in a retry.
            for (delivery, one) in &found {
                let changed = db.execute(
                    "UPDATE deliveries SET state = 1, finished_at = ?2 WHERE id = ?1 AND state = 0
                     AND number <= ?3",
                    params![delivery, db.now().micros(), up_to],
                )?;
                taken.extend((changed > 0).then(|| one.clone()));
            }
            Ok(taken)
        })
        .await
}

fn pending(
    db: &Connection,
    destination: &DestinationName,
    up_to: i64,
) -> rusqlite::Result<Vec<(i64, Taken)>> {
    db.prepare_cached(
        "SELECT c.app, c.channel, a.ts, a.ordinal, d.id, m.received_at, m.posted_at
         FROM destinations t
         CROSS JOIN deliveries d INDEXED BY deliveries_numbered
            ON d.destination = t.id AND d.state = 0 AND d.number <= ?2
         CROSS JOIN alerts a ON a.seq = d.id >> 16
         CROSS JOIN channels c ON c.id = a.channel
         CROSS JOIN messages m ON m.id = a.message
         WHERE t.name = ?1 ORDER BY d.number LIMIT ?3",
    )?
    .query_map(params![destination.as_str(), up_to, PIECE], |row| {
        let taken = Taken {
            alert: alert_id(row)?,
            received_at: Timestamp::from_micros(row.get(5)?),
            posted_at: MessageTs::from_micros(row.get(6)?),
        };
        Ok((row.get(4)?, taken))
    })?
    .collect()
}

/// The range of all ages.
const ANY_AGE: (Timestamp, Timestamp) =
    (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));

/// Turns the pending deliveries of these alerts into dead letters.
async fn give_up(
    store: &SqliteStore,
    destination: &DestinationName,
    alerts: &[AlertId],
    reason: &'static str,
) -> Result<Vec<AlertId>, StoreError> {
    let (shared, name) = (Arc::clone(&store.shared), destination.clone());
    let alerts = alerts.to_vec();
    let work = move |db: &mut Db<'_>, _: Mode| {
        let found = deliveries(db.connection(), &name, &alerts)?;
        operate::mark_dead(&shared, db, &found, ANY_AGE, reason)
    };
    store.write_stopping_leases(work).await
}

/// Finds the deliveries of alerts to a destination.
fn deliveries(
    db: &Connection,
    destination: &DestinationName,
    alerts: &[AlertId],
) -> rusqlite::Result<Vec<(i64, AlertId)>> {
    let Some((id, ..)) = known(db, destination)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for alert in alerts {
        if let Some(seq) = operate::find_alert(db, alert)? {
            found.push((operate::delivery_id(seq, id), alert.clone()));
        }
    }
    Ok(found)
}
