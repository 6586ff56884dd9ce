//! Operators' actions on deliveries, routing by hand, and expiry.

use std::{sync::Arc, time::Duration};

use rusqlite::{Connection, OptionalExtension, Row, ToSql, named_params, params};

use super::{
    SqliteStore,
    db::Db,
    job::{Mode, Write, answer},
    journal,
    row::StoredTs,
    row::{alert_id, destination_name},
    shared::Shared,
};
use crate::{
    clock::Timestamp,
    ids::{AlertId, DestinationName},
    store::{
        Action, CHANGES_NAMED, Changes, Deed, OperatorAction, REFUSALS, Routed, Selection, State,
        StoreError,
        stored::{CANCELLED, DEAD, PENDING, PER_ALERT, clean},
    },
};

/// Number of deliveries that one transaction changes. More would delay other writes.
pub(super) const PIECE: u64 = 1000;

/// A selection by numbers: all deliveries of a destination, or the one of an alert.
#[derive(Clone, Copy)]
struct Range {
    destination: i64,
    alert: Option<i64>,
    /// Only deliveries with at least this many refusals.
    refusals: u32,
    /// Time at which the action began. Deliveries changed since then are not changed again.
    began: Timestamp,
}

/// Applies an action in transactions of bounded size. Returns what changed.
pub(super) async fn act(
    store: &SqliteStore,
    selection: &Selection,
    action: Action,
    deed: Option<OperatorAction>,
) -> Result<Changes, StoreError> {
    let began = store.shared.clock.now();
    let mut changes = Changes::default();
    let mut deed = deed.map(Deed::New);
    loop {
        let (shared, meant, kept) = (Arc::clone(&store.shared), selection.clone(), deed.clone());
        let room = CHANGES_NAMED.saturating_sub(changes.named.len());
        let work = move |db: &mut Db<'_>, _: Mode| {
            let changed = act_on_piece(&shared, db, &meant, (action, began))?;
            let number = u64::try_from(changed.len()).unwrap_or(u64::MAX);
            // In the transaction of the change, so that no crash leaves a change without its entry.
            let entry = kept.as_ref().map(|deed| journal::keep(db, deed, number)).transpose()?;
            let named = named(db, changed.get(..room.min(changed.len())).unwrap_or_default())?;
            Ok((number, named, entry))
        };
        let (shared, meant) = (Arc::clone(&store.shared), selection.destination.clone());
        let (job, reply) = Write::new(work, move |_durable| shared.hints.wake(meant.as_ref()));
        store.submit(job.stopping_leases());
        let (number, named, entry) = answer(reply).await?;
        // Later pieces add to the entry of the first one.
        deed = entry.map(Deed::More);
        changes.changed += number;
        changes.named.extend(named);
        if number < PIECE {
            return Ok(changes);
        }
    }
}

/// Returns alert and destination of each delivery.
fn named(db: &Db<'_>, deliveries: &[i64]) -> rusqlite::Result<Vec<(AlertId, DestinationName)>> {
    let mut statement = db.statement(
        "SELECT c.app, c.channel, a.ts, a.ordinal, t.name
         FROM alerts a JOIN channels c ON c.id = a.channel JOIN destinations t ON t.id = ?2
         WHERE a.seq = ?1",
    )?;
    let mut named = Vec::with_capacity(deliveries.len());
    for id in deliveries {
        let row = |row: &Row<'_>| Ok((alert_id(row)?, destination_name(row, 4)?));
        named.extend(statement.query_row([id / PER_ALERT, id % PER_ALERT], row).optional()?);
    }
    Ok(named)
}

/// Turns some of the deliveries that wait, are not leased and are older than `max_age` into dead
/// letters. Returns their alerts. Writes nothing if there are none, as is usual.
pub(super) async fn expire(
    store: &SqliteStore,
    destination: &DestinationName,
    max_age: Duration,
    reason: &'static str,
) -> Result<Vec<AlertId>, StoreError> {
    let name = destination.clone();
    let span = store.shared.steady_time();
    let born = (span.from.unwrap_or(Timestamp::from_micros(i64::MIN)), span.until - max_age);
    let look = move |shared: &Shared, db: &Connection| too_old(shared, db, &name, born);
    let found = store.view_reader(look).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let shared = Arc::clone(&store.shared);
    store.write_stopping_leases(move |db, _mode| mark_dead(&shared, db, &found, born, reason)).await
}

/// Applies an action to about [`PIECE`] deliveries of a selection. Returns the numbers of those
/// that changed; fewer than [`PIECE`] means that nothing is left, since changed deliveries are no
/// longer selected.
fn act_on_piece(
    shared: &Shared,
    db: &mut Db<'_>,
    selection: &Selection,
    (action, began): (Action, Timestamp),
) -> rusqlite::Result<Vec<i64>> {
    let mut changed = Vec::new();
    let alert = match &selection.alert {
        None => None,
        Some(id) => match find_alert(db.connection(), id)? {
            None => return Ok(changed),
            found => found,
        },
    };
    // A refused delivery is stored as pending, with the number of its refusals.
    let refusals = if selection.state == Some(State::Refused) { REFUSALS } else { 0 };
    for destination in destinations(db, selection.destination.as_ref())? {
        let range = Range { destination, alert, refusals, began };
        for state in states(selection.state, action) {
            changed.extend(match (action, state) {
                (Action::Retry, PENDING) => retry_pending(shared, db, range)?,
                (Action::Retry, _) => retry_ended(db, range, state)?,
                (Action::Cancel, PENDING) => cancel_pending(shared, db, range)?,
                (Action::Cancel, _) => cancel_dead(db, range)?,
            });
            if u64::try_from(changed.len()).unwrap_or(u64::MAX) >= PIECE {
                return Ok(changed);
            }
        }
    }
    Ok(changed)
}

/// Returns the states that an action changes, among the selected ones.
fn states(meant: Option<State>, action: Action) -> impl Iterator<Item = i64> {
    let meant = meant.map(|one| if one == State::Refused { State::Pending } else { one });
    let changed: &[(State, i64)] = match action {
        Action::Retry => {
            &[(State::Pending, PENDING), (State::Dead, DEAD), (State::Cancelled, CANCELLED)]
        }
        Action::Cancel => &[(State::Pending, PENDING), (State::Dead, DEAD)],
    };
    changed
        .iter()
        .filter(move |(state, _)| meant.is_none_or(|meant| meant == *state))
        .map(|(_, number)| *number)
}

fn destinations(db: &Db<'_>, one: Option<&DestinationName>) -> rusqlite::Result<Vec<i64>> {
    db.statement("SELECT id FROM destinations WHERE ?1 IS NULL OR name = ?1")?
        .query_map([one.map(DestinationName::as_str)], |row| row.get(0))?
        .collect()
}

/// Makes pending deliveries due now and resets their age and refusals, except leased ones.
fn retry_pending(shared: &Shared, db: &Db<'_>, range: Range) -> rusqlite::Result<Vec<i64>> {
    let leased = shared.leases.live_json(shared.clock.moment());
    let set = "due_at = min(due_at, :now), wait = 0, alert_faults = 0, accepted = 0, evidence = 0,
        since = (SELECT coalesce(paused_at, max(:now, :began)) - paused_for FROM destinations
                 WHERE id = :destination)";
    let which = "state = 0 AND (due_at > :now OR alert_faults > 0
            OR since < (SELECT coalesce(paused_at, :began) - paused_for FROM destinations
                        WHERE id = :destination))
        AND id NOT IN (SELECT value FROM json_each(:leased))";
    let began = range.began.micros();
    let values: [(&str, &dyn ToSql); 2] = [(":leased", &leased), (":began", &began)];
    change(db, range, (set, "deliveries_due", which), &values)
}

/// Makes dead or cancelled deliveries pending, as if they were accepted now.
fn retry_ended(db: &Db<'_>, range: Range, state: i64) -> rusqlite::Result<Vec<i64>> {
    let set = "state = 0, due_at = :now, wait = 0, because = 0, alert_faults = 0, accepted = 0,
        evidence = 0, finished_at = NULL, dead_reason = NULL, number = NULL,
        since = (SELECT coalesce(paused_at, max(:now, :began)) - paused_for FROM destinations
                 WHERE id = :destination)";
    let which = "state >= 2 AND state = :state";
    let began = range.began.micros();
    let values: [(&str, &dyn ToSql); 2] = [(":state", &state), (":began", &began)];
    change(db, range, (set, "deliveries_ended", which), &values)
}

/// Cancels pending deliveries, except leased ones.
fn cancel_pending(shared: &Shared, db: &Db<'_>, range: Range) -> rusqlite::Result<Vec<i64>> {
    let leased = shared.leases.live_json(shared.clock.moment());
    let which = "state = 0 AND id NOT IN (SELECT value FROM json_each(:leased))";
    let values: [(&str, &dyn ToSql); 1] = [(":leased", &leased)];
    change(db, range, ("state = 3, finished_at = :now", "deliveries_due", which), &values)
}

fn cancel_dead(db: &Db<'_>, range: Range) -> rusqlite::Result<Vec<i64>> {
    let set = "state = 3, finished_at = :now";
    change(db, range, (set, "deliveries_ended", "state >= 2 AND state = 2"), &[])
}

/// Changes up to [`PIECE`] deliveries of a range. Returns their numbers.
fn change(
    db: &Db<'_>,
    range: Range,
    (set, index, which): (&str, &str, &str),
    more: &[(&str, &dyn ToSql)],
) -> rusqlite::Result<Vec<i64>> {
    // An alert's delivery is found by its number, the deliveries of a destination by an index.
    let (hint, id) = match range.alert {
        Some(alert) => ("NOT INDEXED", Some(delivery_id(alert, range.destination))),
        None => ("INDEXED BY", None),
    };
    let index = if id.is_some() { "" } else { index };
    let by_id = if id.is_some() { "id = :id" } else { ":id IS NULL" };
    // `:now = :now` and `:id IS NULL` use parameters that not every action needs.
    let sql = format!(
        "UPDATE deliveries SET {set} WHERE :now = :now AND id IN (
            SELECT id FROM deliveries {hint} {index}
            WHERE destination = :destination AND alert_faults >= :refusals AND {by_id} AND {which}
            LIMIT :piece)
         RETURNING id"
    );
    let now = db.now().micros();
    let mut values = named_params! {
        ":now": now, ":destination": range.destination, ":id": id, ":piece": PIECE,
        ":refusals": range.refusals,
    }
    .to_vec();
    values.extend_from_slice(more);
    db.statement(&sql)?.query_map(values.as_slice(), |row| row.get(0))?.collect()
}

/// Returns the number of an alert's delivery to a destination.
pub(super) const fn delivery_id(alert: i64, destination: i64) -> i64 {
    alert * PER_ALERT + destination
}

/// Returns the number of an alert. The id may name the channel by any id that the channel has had.
pub(super) fn find_alert(db: &Connection, alert: &AlertId) -> rusqlite::Result<Option<i64>> {
    // The order in which an accept looks for a message: the id as given, then the other ids of the
    // channel, oldest first.
    let under_its_own = "SELECT a.seq FROM channels c JOIN alerts a ON a.channel = c.id
         WHERE c.app = ?1 AND c.channel = ?2 AND a.ts = ?3 AND a.ordinal = ?4";
    let under_another = "SELECT a.seq
         FROM chains own JOIN chains o ON o.app = own.app AND o.first = own.first
         JOIN channels c ON c.app = o.app AND c.channel = o.channel
         JOIN alerts a ON a.channel = c.id
         WHERE own.app = ?1 AND own.channel = ?2 AND a.ts = ?3 AND a.ordinal = ?4
         ORDER BY o.place LIMIT 1";
    let message = &alert.message;
    for sql in [under_its_own, under_another] {
        let values = params![
            message.app.as_str(),
            clean(message.channel.as_str()),
            StoredTs(message.ts),
            alert.ordinal,
        ];
        let found = db.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Adds a delivery to each of these destinations to an alert that does not have any, unless
/// retention has removed the message.
pub(super) async fn route(
    store: &SqliteStore,
    alert: &AlertId,
    destinations: &[DestinationName],
    deed: Option<Deed>,
) -> Result<Routed, StoreError> {
    let shared = Arc::clone(&store.shared);
    let (alert, names, woken) = (alert.clone(), destinations.to_vec(), destinations.to_vec());
    let work = move |db: &mut Db<'_>, _: Mode| {
        let made = make_deliveries(db, &alert, &names)?;
        // In the same transaction, so that no crash leaves deliveries without an entry.
        let entry = deed.as_ref().map(|deed| journal::keep(db, deed, made)).transpose()?;
        Ok(Routed { made, entry })
    };
    let (job, reply) = Write::new(work, move |_durable| {
        for name in &woken {
            shared.hints.wake(Some(name));
        }
    });
    store.submit(job);
    answer(reply).await
}

/// Adds the deliveries. Returns their number.
fn make_deliveries(
    db: &mut Db<'_>,
    alert: &AlertId,
    destinations: &[DestinationName],
) -> rusqlite::Result<u64> {
    let Some(seq) = find_alert(db.connection(), alert)? else {
        return Ok(0);
    };
    // Checked in the transaction: another call may route the alert, or retention empty the message.
    let is_free = db
        .statement(
            "SELECT 1 FROM alerts a JOIN messages m ON m.id = a.message
             WHERE a.seq = ?1 AND m.raw IS NOT NULL AND NOT EXISTS (
                SELECT 1 FROM deliveries WHERE id >= ?2 AND id < ?2 + ?3)",
        )?
        .exists([seq, seq * PER_ALERT, PER_ALERT])?;
    if !is_free {
        return Ok(0);
    }
    let mut made = 0;
    for name in destinations {
        let destination = db.destination(name)?;
        let (id, now) = (delivery_id(seq, destination.id), db.now());
        let since = destination.clock(now);
        made += db.inserts.delivery.execute([id, destination.id, now.micros(), since])?;
    }
    Ok(u64::try_from(made).unwrap_or(u64::MAX))
}

/// Finds pending deliveries whose age is counted from a time in this range, with their alerts.
/// Leased ones are left out, since their workers decide.
fn too_old(
    shared: &Shared,
    reader: &Connection,
    destination: &DestinationName,
    (born_from, born_before): (Timestamp, Timestamp),
) -> rusqlite::Result<Vec<(i64, AlertId)>> {
    let leased = shared.leases.live_json(shared.clock.moment());
    reader
        .prepare_cached(
            "SELECT c.app, c.channel, a.ts, a.ordinal, d.id
             FROM destinations t
             CROSS JOIN deliveries d INDEXED BY deliveries_due
                ON d.destination = t.id AND d.state = 0
             CROSS JOIN alerts a ON a.seq = d.id >> 16
             CROSS JOIN channels c ON c.id = a.channel
             WHERE t.name = ?1 AND t.paused_at IS NULL
                AND d.since + t.paused_for >= ?5 AND d.since + t.paused_for < ?2
                AND d.id NOT IN (SELECT value FROM json_each(?4)) LIMIT ?3",
        )?
        .query_map(
            params![destination.as_str(), born_before.micros(), PIECE, leased, born_from.micros(),],
            |row| Ok((row.get(4)?, alert_id(row)?)),
        )?
        .collect()
}

/// Turns those deliveries into dead letters that still wait, are not leased, and whose age is still
/// counted from a time in this range. Returns their alerts.
pub(super) fn mark_dead(
    shared: &Shared,
    db: &Db<'_>,
    deliveries: &[(i64, AlertId)],
    (born_from, born_before): (Timestamp, Timestamp),
    reason: &str,
) -> rusqlite::Result<Vec<AlertId>> {
    let live = shared.leases.live(shared.clock.moment());
    let mut dead = Vec::new();
    for (id, alert) in deliveries.iter().filter(|(id, _)| !live.contains(id)) {
        // Everything is checked again: since the look the delivery may have ended, or a retry may
        // have set its age anew.
        let changed = db.execute(
            "UPDATE deliveries SET state = 2, finished_at = ?2, dead_reason = ?3
             WHERE id = ?1 AND state = 0 AND since + (
                SELECT paused_for FROM destinations t WHERE t.id = destination)
                BETWEEN ?4 AND ?5 - 1",
            params![id, db.now().micros(), reason, born_from.micros(), born_before.micros()],
        )?;
        dead.extend((changed > 0).then(|| alert.clone()));
    }
    Ok(dead)
}
