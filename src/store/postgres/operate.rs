//! Operators' actions on deliveries (retry, cancel, route), and the expiry of old deliveries.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{
    database::{Param, Priority},
    journal,
    row::{self, alert_id, count, get},
    shared::Shared,
    store::PostgresStore,
};
use crate::{
    clock::Timestamp,
    ids::{AlertId, DestinationName},
    store::{
        Action, Changes, Deed, Journal, OperatorAction, REFUSALS, Routed, Selection, State,
        StoreError,
        stored::{CANCELLED, DEAD, PENDING, clean},
    },
};

/// The most deliveries that one transaction changes, so that other writers do not wait for long.
pub(super) const PIECE: i64 = 1000;

/// Returns the number of an alert. Its id may contain any id of the channel.
pub(super) async fn find_alert(
    shared: &Shared,
    priority: Priority,
    id: &AlertId,
) -> Result<Option<i64>, StoreError> {
    const BY_KEY: &str = "SELECT seq FROM relay.alerts WHERE key = $1 AND ordinal = $2";
    const BY_OTHER_KEYS: &str = "
        SELECT a.seq FROM relay.keys_of($1) AS c JOIN relay.alerts a ON a.key = c.key
        WHERE a.ordinal = $2 ORDER BY c.place LIMIT 1";
    let key = id.message.to_string();
    let ordinal = i64::from(id.ordinal);
    let key = clean(&key);
    let params: [Param<'_>; _] = [(&key, Type::TEXT), (&ordinal, Type::INT8)];
    // The order in which an accept looks for a message. Nearly always the first query finds the
    // alert.
    for sql in [BY_KEY, BY_OTHER_KEYS] {
        let rows = shared.database.run(priority, sql, &params).await?;
        if let Some(row) = rows.first() {
            return get(row, 0).map(Some);
        }
    }
    Ok(None)
}

/// Adds a delivery to each of the destinations to an alert without deliveries, unless retention has
/// removed its message. The lock on the message makes concurrent calls and retention take turns.
pub(super) async fn route(
    shared: &Shared,
    alert: &AlertId,
    destinations: &[DestinationName],
    deed: Option<&Deed>,
) -> Result<Routed, StoreError> {
    const LOCK: &str = "SELECT FROM relay.messages WHERE id = $1 / :PER_MESSAGE FOR UPDATE";
    const SQL: &str = "
        INSERT INTO relay.deliveries (id, destination, due_at, since)
        SELECT $1 * :PER_ALERT + t.id, t.id, clock.now,
            coalesce(t.paused_at, clock.now) - t.paused_for
        FROM (SELECT relay.now_us($2) AS now) AS clock, relay.destinations t
        WHERE t.name = ANY ($3)
            AND EXISTS (SELECT FROM relay.messages m
                WHERE m.id = $1 / :PER_MESSAGE AND m.raw IS NOT NULL)
            AND NOT EXISTS (SELECT FROM relay.deliveries d
                WHERE d.id BETWEEN $1 * :PER_ALERT AND ($1 + 1) * :PER_ALERT - 1)
        RETURNING id";
    // No alert has the number -1, so an unknown id changes nothing.
    let seq = find_alert(shared, Priority::Background, alert).await?.unwrap_or(-1);
    for name in destinations {
        shared.destination(name).await?;
    }
    let now = shared.now();
    let names: Vec<&str> = destinations.iter().map(DestinationName::as_str).collect();
    let params: [Param<'_>; _] =
        [(&seq, Type::INT8), (&now, Type::INT8), (&names, Type::TEXT_ARRAY)];
    let mut transaction = shared.database.begin(Priority::Background).await?;
    transaction.query(LOCK, &[(&seq, Type::INT8)]).await?;
    let made = transaction.query(SQL, &params).await?.len();
    let made = u64::try_from(made).unwrap_or(u64::MAX);
    let entry = match deed {
        Some(deed) => Some(journal::keep(shared, &mut transaction, deed, made).await?),
        None => None,
    };
    transaction.commit().await?;
    if made > 0 {
        for name in destinations {
            shared.wake_all(Some(name)).await;
        }
    }
    Ok(Routed { made, entry })
}

/// Applies an action, a piece at a time; returns what was changed.
pub(super) async fn act(
    store: &PostgresStore,
    selection: &Selection,
    action: Action,
    deed: Option<OperatorAction>,
) -> Result<Changes, StoreError> {
    let shared = &store.shared;
    let alert = match &selection.alert {
        None => None,
        Some(id) => match find_alert(shared, Priority::Background, id).await? {
            None => {
                // The journal has actions without an effect as well.
                if let Some(deed) = deed {
                    store.note(deed, 0).await?;
                }
                return Ok(Changes::default());
            }
            found => found,
        },
    };
    let refusals = if selection.state == Some(State::Refused) { REFUSALS } else { 0 };
    let mut changes = Changes::default();
    let mut entry = deed.as_ref().map_or(Entry::None, Entry::New);
    let mut began = None;
    for state in states(selection.state, action) {
        loop {
            let destination = selection.destination.as_ref();
            let piece = Change { alert, destination, action, state, refusals, began };
            let changed = change(shared, piece, entry).await?;
            if let Some(number) = changed.entry {
                entry = Entry::Existing(number);
            }
            // Later pieces leave alone what earlier ones have retried, or a retry of pending
            // deliveries would never end.
            began = began.or(Some(changed.at));
            let number = changed.named.len();
            changes.add(changed.named);
            if number > 0 {
                // Workers begin with this piece while the next one is changed.
                shared.wake_all(selection.destination.as_ref()).await;
            }
            if i64::try_from(number).unwrap_or(i64::MAX) < PIECE {
                break;
            }
        }
    }
    Ok(changes)
}

/// Returns the stored states that an action changes, restricted to the selected state. Finished
/// states come last: a retry makes them pending, and must not change them twice.
fn states(selected: Option<State>, action: Action) -> Vec<i64> {
    let changed: &[(State, i64)] = match action {
        Action::Retry => {
            &[(State::Pending, PENDING), (State::Dead, DEAD), (State::Cancelled, CANCELLED)]
        }
        Action::Cancel => &[(State::Pending, PENDING), (State::Dead, DEAD)],
    };
    // A refused delivery is stored as pending.
    let selected =
        selected.map(|state| if state == State::Refused { State::Pending } else { state });
    let is_selected = |state: State| selected.is_none_or(|selected| selected == state);
    changed.iter().filter(|(state, _)| is_selected(*state)).map(|(_, number)| *number).collect()
}

/// Journal entry of an action.
#[derive(Clone, Copy)]
enum Entry<'d> {
    /// The action is not written to the journal.
    None,
    /// The next piece writes the entry.
    New(&'d OperatorAction),
    /// The entry with this number exists; each piece adds to its count.
    Existing(i64),
}

impl Entry<'_> {
    /// Returns the part of the statement that writes the entry, beside `clock` and `changed`.
    fn sql(self) -> &'static str {
        match self {
            Self::None => "SELECT NULL::int8 AS id",
            Self::New(_) => {
                "INSERT INTO relay.actions (at, who, action, selection, changed)
                 SELECT clock.now, $6, $7, $8, (SELECT count(*) FROM changed) FROM clock
                 RETURNING id"
            }
            Self::Existing(_) => {
                "UPDATE relay.actions SET changed = actions.changed + (SELECT count(*) FROM changed)
                 WHERE id = $5 RETURNING id"
            }
        }
    }
}

/// The deliveries that a piece of an action changes, and the action.
#[derive(Clone, Copy)]
struct Change<'a> {
    /// Number of the only alert.
    alert: Option<i64>,
    /// Name of the only destination.
    destination: Option<&'a DestinationName>,
    action: Action,
    /// Stored state of the deliveries before the change.
    state: i64,
    /// The fewest refusals of the deliveries.
    refusals: u32,
    /// Time of the first piece by the database's clock, `None` for the first piece itself. A retry
    /// leaves pending deliveries alone that are as young as that: an earlier piece retried them.
    began: Option<i64>,
}

/// Result of a piece.
struct Changed {
    named: Vec<(AlertId, DestinationName)>,
    /// Number of the journal entry.
    entry: Option<i64>,
    /// Time of the change by the database's clock.
    at: i64,
}

impl Change<'_> {
    /// Returns the statement that changes the deliveries and writes the journal entry. Rows are
    /// locked in the order of their numbers and checked again under the lock, so a delivery that
    /// was leased or changed meanwhile is left alone.
    fn sql(self, entry: Entry<'_>) -> String {
        let Self { action, state, refusals, .. } = self;
        let set = match (action, state) {
            (Action::Retry, PENDING) => {
                "due_at = least(d.due_at, clock.now), wait = 0, alert_faults = 0, accepted = false,
                 evidence = 0,
                 since = (SELECT coalesce(t.paused_at, greatest(clock.now, $9)) - t.paused_for
                          FROM relay.destinations t WHERE t.id = d.destination)"
            }
            (Action::Retry, _) => {
                "state = :PENDING, due_at = clock.now, wait = 0, because = :DESTINATION_FAULT,
                 alert_faults = 0, accepted = false, evidence = 0, finished_at = NULL,
                 dead_reason = NULL, token = NULL, leased_until = NULL, number = NULL,
                 since = (SELECT coalesce(t.paused_at, clock.now) - t.paused_for
                          FROM relay.destinations t WHERE t.id = d.destination)"
            }
            (Action::Cancel, _) => "state = :CANCELLED, finished_at = clock.now, token = NULL",
        };
        let which = match (action, state) {
            (Action::Retry, PENDING) => {
                "d.state = :PENDING AND (d.due_at > (SELECT now FROM clock) OR d.alert_faults > 0
                    OR d.since < (SELECT coalesce(t.paused_at, $9, clock.now) - t.paused_for
                        FROM clock, relay.destinations t WHERE t.id = d.destination))
                 AND (d.leased_until IS NULL
                    OR d.leased_until <= (SELECT least(now, $10) FROM clock))"
            }
            (Action::Cancel, PENDING) => {
                "d.state = :PENDING AND (d.leased_until IS NULL
                    OR d.leased_until <= (SELECT least(now, $10) FROM clock))"
            }
            // `>= :DEAD` is the condition of the index of finished deliveries.
            (_, CANCELLED) => "d.state >= :DEAD AND d.state = :CANCELLED",
            (_, _) => "d.state >= :DEAD AND d.state = :DEAD",
        };
        // The conditions on `$9` and `$10` alone are true; they give the parameters types in pieces
        // that do not use them.
        format!(
            "WITH clock AS (SELECT relay.now_us($1) AS now),
             t AS (SELECT id FROM relay.destinations WHERE $2::text IS NULL OR name = $2),
             found AS (
                SELECT d.id FROM relay.deliveries d
                WHERE d.destination IN (SELECT id FROM t) AND $9 IS NOT DISTINCT FROM $9
                    AND $10 IS NOT NULL AND {which}
                    AND d.alert_faults >= {refusals}
                    AND ($3::int8 IS NULL
                        OR d.id BETWEEN $3 * :PER_ALERT AND ($3 + 1) * :PER_ALERT - 1)
                ORDER BY d.id LIMIT $4 FOR UPDATE),
             changed AS (
                UPDATE relay.deliveries d SET {set} FROM found, clock WHERE d.id = found.id
                RETURNING d.id, d.destination),
             kept AS ({}),
             named AS (
                SELECT c.id, a.key, a.ordinal, t.name
                FROM changed c JOIN relay.alerts a ON a.seq = c.id / :PER_ALERT
                JOIN relay.destinations t ON t.id = c.destination)
             SELECT (SELECT id FROM kept), clock.now, n.key, n.ordinal, n.name
             FROM clock LEFT JOIN named n ON true ORDER BY n.id",
            entry.sql()
        )
    }
}

/// Changes one piece of deliveries.
async fn change(
    shared: &Shared,
    piece: Change<'_>,
    entry: Entry<'_>,
) -> Result<Changed, StoreError> {
    let Change { alert, destination, began, .. } = piece;
    let sql = piece.sql(entry);
    let now = shared.now();
    let judged = shared.lease_time();
    let name = destination.map(DestinationName::as_str);
    let (number, who, verb, what) = match entry {
        Entry::None => (None, clean(""), "", clean("")),
        Entry::New(deed) => (None, clean(&deed.who), deed.action, clean(&deed.selection)),
        Entry::Existing(number) => (Some(number), clean(""), "", clean("")),
    };
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&name, Type::TEXT),
        (&alert, Type::INT8),
        (&PIECE, Type::INT8),
        (&number, Type::INT8),
        (&who, Type::TEXT),
        (&verb, Type::TEXT),
        (&what, Type::TEXT),
        (&began, Type::INT8),
        (&judged, Type::INT8),
    ];
    let rows = shared.database.run(Priority::Background, &sql, &params).await?;
    // One row comes even if nothing was changed. It holds the entry and the time.
    let first = rows.first().ok_or(StoreError::Busy)?;
    let mut changed = Changed { named: Vec::new(), entry: get(first, 0)?, at: get(first, 1)? };
    for row in &rows {
        if get::<Option<&str>>(row, 2)?.is_some() {
            changed.named.push((alert_id(row, 2)?, row::destination(row, 4)?));
        }
    }
    Ok(changed)
}

/// Runs a statement that returns one count.
pub(super) async fn run_count(
    shared: &Shared,
    sql: &str,
    params: &[Param<'_>],
) -> Result<u64, StoreError> {
    let rows = shared.database.run(Priority::Background, sql, params).await?;
    rows.first().map_or(Ok(0), |row| count(row, 0))
}

/// Gives up a piece of the deliveries that are pending, not leased, and older than `max_age` by the
/// database's clock; returns their alerts.
pub(super) async fn expire(
    shared: &Shared,
    destination: &DestinationName,
    max_age: Duration,
    reason: &'static str,
) -> Result<Vec<AlertId>, StoreError> {
    const SQL: &str = "
        WITH clock AS (SELECT relay.now_us($1) AS now),
        t AS (SELECT id, paused_for FROM relay.destinations
              WHERE name = $2 AND paused_at IS NULL),
        found AS (
            SELECT d.id FROM relay.deliveries d
            WHERE d.destination = (SELECT id FROM t) AND d.state = :PENDING
                AND d.since + (SELECT paused_for FROM t) < $3
                AND d.since + (SELECT paused_for FROM t) >= $6
                AND (d.leased_until IS NULL
                    OR d.leased_until <= (SELECT least(now, $7) FROM clock))
            ORDER BY d.id LIMIT $4 FOR UPDATE SKIP LOCKED),
        expired AS (
            UPDATE relay.deliveries d
            SET state = :DEAD, finished_at = clock.now, dead_reason = $5, token = NULL
            FROM found, clock WHERE d.id = found.id RETURNING d.id)
        SELECT a.key, a.ordinal FROM expired JOIN relay.alerts a
            ON a.seq = expired.id / :PER_ALERT";
    // `from` keeps deliveries from before the start of the relay from expiring by a clock that has
    // not been steady for long.
    let span = shared.steady_time().await?;
    let since_before = (span.until - max_age).micros();
    let since_from = span.from.map_or(i64::MIN, Timestamp::micros);
    let now = shared.now();
    let name = destination.as_str();
    let judged = shared.lease_time();
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&name, Type::TEXT),
        (&since_before, Type::INT8),
        (&PIECE, Type::INT8),
        (&reason, Type::TEXT),
        (&since_from, Type::INT8),
        (&judged, Type::INT8),
    ];
    let rows = shared.database.run(Priority::Background, SQL, &params).await?;
    rows.iter().map(|row| alert_id(row, 0)).collect()
}
