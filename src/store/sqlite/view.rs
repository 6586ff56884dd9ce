//! Reads alerts and numbers for operators and metrics.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, params};

use super::{
    operate::find_alert,
    pause,
    row::{alert_id, destination_name},
    shared::Shared,
};
use crate::{
    clock::Timestamp,
    ids::{AlertId, MessageTs},
    store::{
        AlertView, AttemptView, DeliveryView, DestinationStats, REFUSALS, Reference, Revision,
        State, Stats,
        stored::{CANCELLED, DEAD, DELIVERED, PENDING, PER_ALERT, source_of, sources_of},
    },
};

/// Returns one alert with its message, revisions, deliveries and attempts.
pub(super) fn alert(
    shared: &Shared,
    db: &Connection,
    id: &AlertId,
) -> rusqlite::Result<Option<AlertView>> {
    let leased = shared.leases.live(shared.clock.moment());
    let Some(seq) = find_alert(db, id)? else {
        return Ok(None);
    };
    let mut view = by_seq(db, seq)?;
    view.raw = db
        .prepare_cached(
            "SELECT m.raw FROM alerts a JOIN messages m ON m.id = a.message WHERE a.seq = ?1",
        )?
        .query_row([seq], |row| row.get::<_, Option<Vec<u8>>>(0))?
        .map(Bytes::from);
    view.revisions = revisions(db, seq)?;
    view.deliveries = deliveries(db, seq, |id| leased.contains(&id))?;
    for delivery in &mut view.deliveries {
        delivery.log = attempts(db, seq, delivery)?;
    }
    Ok(Some(view))
}

/// Reads an alert without raw message, revisions and deliveries.
pub(super) fn by_seq(db: &Connection, seq: i64) -> rusqlite::Result<AlertView> {
    db.prepare_cached(
        "SELECT c.app, c.channel, a.ts, a.ordinal, a.seq, a.attachment, a.sources, a.level,
            coalesce(a.search, ''), m.received_at, m.posted_at, m.source, m.event_id, m.team
         FROM alerts a JOIN channels c ON c.id = a.channel JOIN messages m ON m.id = a.message
         WHERE a.seq = ?1",
    )?
    .query_row([seq], |row| {
        Ok(AlertView {
            id: alert_id(row)?,
            seq: row.get(4)?,
            attachment: row.get(5)?,
            sources: sources_of(row.get(6)?),
            level: row.get(7)?,
            search: row.get(8)?,
            received_at: Timestamp::from_micros(row.get(9)?),
            posted_at: MessageTs::from_micros(row.get(10)?),
            source: source_of(row.get(11)?),
            event_id: row.get(12)?,
            team: row.get(13)?,
            raw: None,
            revisions: Vec::new(),
            deliveries: Vec::new(),
        })
    })
}

/// Reads the revisions of the whole message, whichever version brought this alert.
fn revisions(db: &Connection, seq: i64) -> rusqlite::Result<Vec<Revision>> {
    db.prepare_cached(
        "SELECT r.received_at, r.raw FROM revisions r WHERE r.message IN (
            SELECT b.message FROM alerts a JOIN alerts b ON b.channel = a.channel AND b.ts = a.ts
            WHERE a.seq = ?1)
         ORDER BY r.id",
    )?
    .query_map([seq], |row| {
        let received_at = Timestamp::from_micros(row.get(0)?);
        Ok(Revision { received_at, raw: Bytes::from(row.get::<_, Vec<u8>>(1)?) })
    })?
    .collect()
}

pub(super) fn deliveries(
    db: &Connection,
    seq: i64,
    is_leased: impl Fn(i64) -> bool,
) -> rusqlite::Result<Vec<DeliveryView>> {
    db.prepare_cached(
        "SELECT t.name, d.id, d.state, d.attempts, d.due_at, d.finished_at,
            coalesce(d.dead_reason, ''), coalesce(d.reference_id, ''),
            coalesce(d.reference_url, ''), d.alert_faults, t.paused_at IS NOT NULL
         FROM deliveries d JOIN destinations t ON t.id = d.destination
         WHERE d.id >= ?1 AND d.id < ?2 ORDER BY t.name",
    )?
    .query_map([seq * PER_ALERT, (seq + 1) * PER_ALERT], |row| {
        let id = row.get(1)?;
        let waits =
            Waiting { is_leased: is_leased(id), is_paused: row.get(10)?, refusals: row.get(9)? };
        let state = state_of(row.get(2)?, waits);
        let due_at = Timestamp::from_micros(row.get(4)?);
        Ok(DeliveryView {
            destination: destination_name(row, 0)?,
            state,
            attempts: row.get(3)?,
            due_at: state.is_waiting().then_some(due_at),
            finished_at: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_micros),
            dead_reason: row.get(6)?,
            reference: Reference { id: row.get(7)?, url: row.get(8)? },
            log: Vec::new(),
        })
    })?
    .collect()
}

/// Values that decide the state of an unfinished delivery.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    pub(super) is_leased: bool,
    pub(super) is_paused: bool,
    pub(super) refusals: u32,
}

/// Returns the state of a delivery with a stored number.
pub(super) fn state_of(number: i64, waits: Waiting) -> State {
    match number {
        DELIVERED => State::Delivered,
        DEAD => State::Dead,
        CANCELLED => State::Cancelled,
        _ if waits.is_leased => State::Leased,
        _ if waits.is_paused => State::Paused,
        _ if waits.refusals >= REFUSALS => State::Refused,
        _ => State::Pending,
    }
}

/// Returns the stored number of a state, or `None` if there are several.
pub(super) const fn number_of(state: State) -> Option<i64> {
    match state {
        State::Pending | State::Refused | State::Leased | State::Paused => Some(PENDING),
        State::Delivered => Some(DELIVERED),
        State::Dead => Some(DEAD),
        State::Cancelled => Some(CANCELLED),
        State::Orphaned => None,
    }
}

fn attempts(
    db: &Connection,
    seq: i64,
    delivery: &DeliveryView,
) -> rusqlite::Result<Vec<AttemptView>> {
    db.prepare_cached(
        "SELECT started_at, duration, class, status, excerpt FROM attempts
         WHERE delivery = ?1 + (SELECT id FROM destinations WHERE name = ?2) ORDER BY number",
    )?
    .query_map(params![seq * PER_ALERT, delivery.destination.as_str()], |row| {
        Ok(AttemptView {
            started_at: Timestamp::from_micros(row.get(0)?),
            duration: Duration::from_micros(row.get(1)?),
            class: row.get(2)?,
            status: row.get(3)?,
            excerpt: row.get(4)?,
        })
    })?
    .collect()
}

/// Returns the numbers of the destinations. Unfinished and dead deliveries are counted by their
/// indexes, so only a long backlog takes long.
pub(super) fn stats(shared: &Shared, db: &Connection) -> rusqlite::Result<Stats> {
    let leased = shared.leases.live_json(shared.clock.moment());
    let pause = pause::COLUMNS;
    // `state >= 2` repeats the condition of a partial index, without which SQLite does not use it.
    let mut statement = db.prepare_cached(&format!(
        "WITH waiting AS (
            SELECT destination, count(*) AS number, min(id) AS oldest
            FROM deliveries INDEXED BY deliveries_due WHERE state = 0 GROUP BY destination),
         dead AS (
            SELECT destination, count(*) AS number FROM deliveries INDEXED BY deliveries_ended
            WHERE state >= 2 AND state = 2 GROUP BY destination),
         leased AS (
            SELECT destination, count(*) AS number FROM deliveries
            WHERE state = 0 AND id IN (SELECT value FROM json_each(?1)) GROUP BY destination),
         refused AS (
            SELECT destination, count(*) AS number FROM deliveries INDEXED BY deliveries_refused
            WHERE state = 0 AND alert_faults > 0 AND alert_faults >= ?2
                AND id NOT IN (SELECT value FROM json_each(?1)) GROUP BY destination)
         SELECT t.name,
            coalesce(w.number, 0) - coalesce(l.number, 0) - coalesce(r.number, 0),
            coalesce(l.number, 0), coalesce(x.number, 0), m.received_at, coalesce(r.number, 0),
            {pause}
         FROM destinations t
         LEFT JOIN waiting w ON w.destination = t.id
         LEFT JOIN dead x ON x.destination = t.id
         LEFT JOIN leased l ON l.destination = t.id
         LEFT JOIN refused r ON r.destination = t.id
         LEFT JOIN alerts a ON a.seq = w.oldest >> 16
         LEFT JOIN messages m ON m.id = a.message
         WHERE w.number > 0 OR x.number > 0 OR t.paused_at IS NOT NULL
         ORDER BY t.name",
    ))?;
    let destinations = statement
        .query_map(params![leased, REFUSALS], |row| {
            let stats = DestinationStats {
                pending: row.get(1)?,
                leased: row.get(2)?,
                dead: row.get(3)?,
                oldest_pending: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_micros),
                refused: row.get(5)?,
                pause: pause::view(row, 6)?,
            };
            Ok((destination_name(row, 0)?, stats))
        })?
        .collect::<rusqlite::Result<_>>()?;
    // Only commits read the free space otherwise, and an idle relay does not commit.
    shared.size.look_at_disk(shared.clock.instant());
    let (used_bytes, free_bytes) = shared.size.used_and_free();
    Ok(Stats { destinations, used_bytes, free_bytes, problem: shared.problem() })
}
