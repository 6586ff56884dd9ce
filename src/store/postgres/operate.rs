//! What an operator does: retry, cancel; and what grows too old.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{
    PostgresStore,
    door::{Haste, Param},
    journal,
    row::{self, alert_id, count, get},
    shared::Shared,
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

/// How many deliveries are changed in one transaction: others want to write too.
pub(super) const PIECE: i64 = 1000;

/// The alert's number, also if the id names another id of its channel.
pub(super) async fn find_alert(
    shared: &Shared,
    haste: Haste,
    id: &AlertId,
) -> Result<Option<i64>, StoreError> {
    const UNDER_ITS_OWN: &str = "SELECT seq FROM relay.alerts WHERE key = $1 AND ordinal = $2";
    const UNDER_ANOTHER: &str = "
        SELECT a.seq FROM relay.keys_of($1) AS c JOIN relay.alerts a ON a.key = c.key
        WHERE a.ordinal = $2 ORDER BY c.place LIMIT 1";
    let (key, ordinal) = (id.message.to_string(), i64::from(id.ordinal));
    let key = clean(&key);
    let params: [Param<'_>; _] = [(&key, Type::TEXT), (&ordinal, Type::INT8)];
    for sql in [UNDER_ITS_OWN, UNDER_ANOTHER] {
        let rows = shared.door.run(haste, sql, &params).await?;
        if let Some(row) = rows.first() {
            return get(row, 0).map(Some);
        }
    }
    Ok(None)
}

/// Gives an alert without deliveries one for each of the destinations, unless its message is gone.
/// Of two that try at once the second waits for the first one's; so does retention, or it is waited
/// for.
pub(super) async fn route(
    shared: &Shared,
    alert: &AlertId,
    destinations: &[DestinationName],
    deed: Option<&Deed>,
) -> Result<Routed, StoreError> {
    const LOCK: &str = "SELECT FROM relay.messages WHERE id = $1 / 4096 FOR UPDATE";
    const SQL: &str = "
        INSERT INTO relay.deliveries (id, destination, due_at, since)
        SELECT $1 * 65536 + t.id, t.id, clock.now, coalesce(t.paused_at, clock.now) - t.paused_for
        FROM (SELECT relay.now_us($2) AS now) AS clock, relay.destinations t
        WHERE t.name = ANY ($3)
            AND EXISTS (SELECT FROM relay.messages m WHERE m.id = $1 / 4096 AND m.raw IS NOT NULL)
            AND NOT EXISTS (SELECT FROM relay.deliveries d
                WHERE d.id BETWEEN $1 * 65536 AND $1 * 65536 + 65535)
        RETURNING id";
    // No alert has this number.
    let seq = find_alert(shared, Haste::Patient, alert).await?.unwrap_or(-1);
    for name in destinations {
        shared.destination(name).await?;
    }
    let now = shared.now();
    let names: Vec<&str> = destinations.iter().map(DestinationName::as_str).collect();
    let params: [Param<'_>; _] =
        [(&seq, Type::INT8), (&now, Type::INT8), (&names, Type::TEXT_ARRAY)];
    let mut transaction = shared.door.begin(Haste::Patient).await?;
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

/// Applies the action piece by piece; returns what it changed.
pub(super) async fn act(
    store: &PostgresStore,
    selection: &Selection,
    action: Action,
    deed: Option<OperatorAction>,
) -> Result<Changes, StoreError> {
    let shared = &store.shared;
    let alert = match &selection.alert {
        None => None,
        Some(id) => match find_alert(shared, Haste::Patient, id).await? {
            None => {
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
    let mut kept = deed.as_ref().map_or(Kept::Not, Kept::Next);
    let mut began = None;
    for state in states(selection.state, action) {
        loop {
            let destination = selection.destination.as_ref();
            let piece = Change { alert, destination, action, state, refusals, began };
            let changed = change(shared, piece, kept).await?;
            if let Some(entry) = changed.entry {
                kept = Kept::As(entry);
            }
            began = began.or(Some(changed.at));
            let number = changed.named.len();
            changes.add(changed.named);
            if number > 0 {
                shared.wake_all(selection.destination.as_ref()).await;
            }
            if i64::try_from(number).unwrap_or(i64::MAX) < PIECE {
                break;
            }
        }
    }
    Ok(changes)
}

/// The states that the action changes, among those that are meant. What ended comes last: it
/// becomes pending, and must not be changed twice.
fn states(meant: Option<State>, action: Action) -> Vec<i64> {
    let changed: &[(State, i64)] = match action {
        Action::Retry => {
            &[(State::Pending, PENDING), (State::Dead, DEAD), (State::Cancelled, CANCELLED)]
        }
        Action::Cancel => &[(State::Pending, PENDING), (State::Dead, DEAD)],
    };
    let meant = meant.map(|one| if one == State::Refused { State::Pending } else { one });
    let meant = |state: State| meant.is_none_or(|meant| meant == state);
    changed.iter().filter(|(state, _)| meant(*state)).map(|(_, number)| *number).collect()
}

/// How the journal keeps an action.
#[derive(Clone, Copy)]
enum Kept<'d> {
    Not,
    /// With the next piece.
    Next(&'d OperatorAction),
    /// Under this number; each piece adds to it.
    As(i64),
}

impl Kept<'_> {
    /// The statement's part that keeps it, beside `clock` and `changed`.
    fn sql(self) -> &'static str {
        match self {
            Self::Not => "SELECT NULL::int8 AS id",
            Self::Next(_) => {
                "INSERT INTO relay.actions (at, who, action, selection, changed)
                 SELECT clock.now, $6, $7, $8, (SELECT count(*) FROM changed) FROM clock
                 RETURNING id"
            }
            Self::As(_) => {
                "UPDATE relay.actions SET changed = actions.changed + (SELECT count(*) FROM changed)
                 WHERE id = $5 RETURNING id"
            }
        }
    }
}

/// Which deliveries a piece of an action changes, and to what.
#[derive(Clone, Copy)]
struct Change<'a> {
    alert: Option<i64>,
    destination: Option<&'a DestinationName>,
    action: Action,
    /// The state that they are in.
    state: i64,
    /// They were refused at least so often.
    refusals: u32,
    /// When the first piece was changed, by the database's clock: what was changed since then is as
    /// new as a retry makes it.
    began: Option<i64>,
}

/// A piece that was changed.
struct Changed {
    named: Vec<(AlertId, DestinationName)>,
    /// The number under which the journal has it.
    entry: Option<i64>,
    at: i64,
}

impl Change<'_> {
    /// The statement that changes it and keeps that. Rows are locked in the order of their numbers,
    /// and looked at again once they are: what somebody leased or changed meanwhile is left alone.
    fn sql(self, kept: Kept<'_>) -> String {
        let Self { action, state, refusals, .. } = self;
        let set = match (action, state) {
            (Action::Retry, PENDING) => {
                "due_at = least(d.due_at, clock.now), wait = 0, alert_faults = 0, accepted = false,
                 evidence = 0,
                 since = (SELECT coalesce(t.paused_at, greatest(clock.now, $9)) - t.paused_for
                          FROM relay.destinations t WHERE t.id = d.destination)"
            }
            (Action::Retry, _) => {
                "state = 0, due_at = clock.now, wait = 0, because = 0, alert_faults = 0,
                 accepted = false, evidence = 0, finished_at = NULL, dead_reason = NULL,
                 token = NULL, leased_until = NULL, number = NULL,
                 since = (SELECT coalesce(t.paused_at, clock.now) - t.paused_for
                          FROM relay.destinations t WHERE t.id = d.destination)"
            }
            (Action::Cancel, _) => "state = 3, finished_at = clock.now, token = NULL",
        };
        let which = match (action, state) {
            (Action::Retry, PENDING) => {
                "d.state = 0 AND (d.due_at > (SELECT now FROM clock) OR d.alert_faults > 0
                    OR d.since < (SELECT coalesce(t.paused_at, $9, clock.now) - t.paused_for
                        FROM clock, relay.destinations t WHERE t.id = d.destination))
                 AND (d.leased_until IS NULL
                    OR d.leased_until <= (SELECT least(now, $10) FROM clock))"
            }
            (Action::Cancel, PENDING) => {
                "d.state = 0 AND (d.leased_until IS NULL
                    OR d.leased_until <= (SELECT least(now, $10) FROM clock))"
            }
            (_, CANCELLED) => "d.state >= 2 AND d.state = 3",
            (_, _) => "d.state >= 2 AND d.state = 2",
        };
        format!(
            "WITH clock AS (SELECT relay.now_us($1) AS now),
             t AS (SELECT id FROM relay.destinations WHERE $2::text IS NULL OR name = $2),
             found AS (
                SELECT d.id FROM relay.deliveries d
                WHERE d.destination IN (SELECT id FROM t) AND $9 IS NOT DISTINCT FROM $9
                    AND $10 IS NOT NULL AND {which}
                    AND d.alert_faults >= {refusals}
                    AND ($3::int8 IS NULL OR d.id BETWEEN $3 * 65536 AND $3 * 65536 + 65535)
                ORDER BY d.id LIMIT $4 FOR UPDATE),
             changed AS (
                UPDATE relay.deliveries d SET {set} FROM found, clock WHERE d.id = found.id
                RETURNING d.id, d.destination),
             kept AS ({}),
             named AS (
                SELECT c.id, a.key, a.ordinal, t.name
                FROM changed c JOIN relay.alerts a ON a.seq = c.id / 65536
                JOIN relay.destinations t ON t.id = c.destination)
             SELECT (SELECT id FROM kept), clock.now, n.key, n.ordinal, n.name
             FROM clock LEFT JOIN named n ON true ORDER BY n.id",
            kept.sql()
        )
    }
}

/// Changes a piece.
async fn change(shared: &Shared, piece: Change<'_>, kept: Kept<'_>) -> Result<Changed, StoreError> {
    let Change { alert, destination, began, .. } = piece;
    let sql = piece.sql(kept);
    let (now, judged) = (shared.now(), shared.lease_time());
    let name = destination.map(DestinationName::as_str);
    let (entry, who, verb, what) = match kept {
        Kept::Not => (None, clean(""), "", clean("")),
        Kept::Next(deed) => (None, clean(&deed.who), deed.action, clean(&deed.selection)),
        Kept::As(entry) => (Some(entry), clean(""), "", clean("")),
    };
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&name, Type::TEXT),
        (&alert, Type::INT8),
        (&PIECE, Type::INT8),
        (&entry, Type::INT8),
        (&who, Type::TEXT),
        (&verb, Type::TEXT),
        (&what, Type::TEXT),
        (&began, Type::INT8),
        (&judged, Type::INT8),
    ];
    let rows = shared.door.run(Haste::Patient, &sql, &params).await?;
    let first = rows.first().ok_or(StoreError::Busy)?;
    let mut changed = Changed { named: Vec::new(), entry: get(first, 0)?, at: get(first, 1)? };
    for row in &rows {
        if get::<Option<&str>>(row, 2)?.is_some() {
            changed.named.push((alert_id(row, 2)?, row::destination(row, 4)?));
        }
    }
    Ok(changed)
}

pub(super) async fn counted(
    shared: &Shared,
    sql: &str,
    params: &[Param<'_>],
) -> Result<u64, StoreError> {
    let rows = shared.door.run(Haste::Patient, sql, params).await?;
    rows.first().map_or(Ok(0), |row| count(row, 0))
}

/// Gives up a piece of what waits, is not leased, and is older than that by the database's clock;
/// returns whose deliveries that were.
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
            WHERE d.destination = (SELECT id FROM t) AND d.state = 0
                AND d.since + (SELECT paused_for FROM t) < $3
                AND d.since + (SELECT paused_for FROM t) >= $6
                AND (d.leased_until IS NULL
                    OR d.leased_until <= (SELECT least(now, $7) FROM clock))
            ORDER BY d.id LIMIT $4 FOR UPDATE SKIP LOCKED),
        buried AS (
            UPDATE relay.deliveries d
            SET state = 2, finished_at = clock.now, dead_reason = $5, token = NULL
            FROM found, clock WHERE d.id = found.id RETURNING d.id)
        SELECT a.key, a.ordinal FROM buried JOIN relay.alerts a ON a.seq = buried.id / 65536";
    let span = shared.steady_time().await?;
    let born_before = (span.until - max_age).micros();
    let born_from = span.from.map_or(i64::MIN, Timestamp::micros);
    let (now, name, judged) = (shared.now(), destination.as_str(), shared.lease_time());
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&name, Type::TEXT),
        (&born_before, Type::INT8),
        (&PIECE, Type::INT8),
        (&reason, Type::TEXT),
        (&born_from, Type::INT8),
        (&judged, Type::INT8),
    ];
    let rows = shared.door.run(Haste::Patient, SQL, &params).await?;
    rows.iter().map(|row| alert_id(row, 0)).collect()
}
