//! What an operator does: retry, cancel, pause, resume; and what grows too old.

use tokio_postgres::types::Type;

use super::{
    door::{Haste, Param},
    row::{alert_id, count, get},
    shared::Shared,
};
use crate::{
    clock::Timestamp,
    ids::{AlertId, DestinationName},
    store::{
        Action, Paused, Selection, State, StoreError,
        stored::{CANCELLED, DEAD, PENDING, clean},
    },
};

/// How many deliveries are changed in one transaction: others want to write too.
const PIECE: i64 = 1000;

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
/// Returns how many it made. Of two that try at once the second waits for the first one's;
/// so does retention, or it is waited for.
pub(super) async fn route(
    shared: &Shared,
    alert: &AlertId,
    destinations: &[DestinationName],
) -> Result<u64, StoreError> {
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
    let Some(seq) = find_alert(shared, Haste::Patient, alert).await? else {
        return Ok(0);
    };
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
    transaction.commit().await?;
    if made > 0 {
        for name in destinations {
            shared.wake_all(Some(name)).await;
        }
    }
    Ok(u64::try_from(made).unwrap_or(u64::MAX))
}

/// Applies the action piece by piece; returns how many deliveries it changed.
pub(super) async fn act(
    shared: &Shared,
    selection: &Selection,
    action: Action,
) -> Result<u64, StoreError> {
    let alert = match &selection.alert {
        None => None,
        Some(id) => match find_alert(shared, Haste::Patient, id).await? {
            None => return Ok(0),
            found => found,
        },
    };
    let mut total = 0;
    for state in states(selection.state, action) {
        loop {
            let changed =
                change(shared, alert, selection.destination.as_ref(), (action, state)).await?;
            total += changed;
            if changed > 0 {
                shared.wake_all(selection.destination.as_ref()).await;
            }
            if changed < PIECE.unsigned_abs() {
                break;
            }
        }
    }
    Ok(total)
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
    let meant = |state: State| meant.is_none_or(|meant| meant == state);
    changed.iter().filter(|(state, _)| meant(*state)).map(|(_, number)| *number).collect()
}

/// Changes a piece. Rows are locked in the order of their numbers, and looked at again once they
/// are: what somebody leased or changed meanwhile is left alone.
async fn change(
    shared: &Shared,
    alert: Option<i64>,
    destination: Option<&DestinationName>,
    (action, state): (Action, i64),
) -> Result<u64, StoreError> {
    let set = match (action, state) {
        (Action::Retry, PENDING) => "due_at = clock.now",
        (Action::Retry, _) => {
            "state = 0, due_at = clock.now, alert_faults = 0, finished_at = NULL,
             dead_reason = NULL, token = NULL, leased_until = NULL, number = NULL,
             since = (SELECT coalesce(t.paused_at, clock.now) - t.paused_for
                      FROM relay.destinations t WHERE t.id = d.destination)"
        }
        (Action::Cancel, _) => "state = 3, finished_at = clock.now, token = NULL",
    };
    let which = match (action, state) {
        (Action::Retry, PENDING) => {
            "d.state = 0 AND d.due_at > (SELECT now FROM clock)
             AND (d.leased_until IS NULL OR d.leased_until <= (SELECT now FROM clock))"
        }
        (Action::Cancel, PENDING) => {
            "d.state = 0
             AND (d.leased_until IS NULL OR d.leased_until <= (SELECT now FROM clock))"
        }
        (_, CANCELLED) => "d.state >= 2 AND d.state = 3",
        (_, _) => "d.state >= 2 AND d.state = 2",
    };
    let sql = format!(
        "WITH clock AS (SELECT relay.now_us($1) AS now),
         t AS (SELECT id FROM relay.destinations WHERE $2::text IS NULL OR name = $2),
         found AS (
            SELECT d.id FROM relay.deliveries d
            WHERE d.destination IN (SELECT id FROM t) AND {which}
                AND ($3::int8 IS NULL OR d.id BETWEEN $3 * 65536 AND $3 * 65536 + 65535)
            ORDER BY d.id LIMIT $4 FOR UPDATE),
         changed AS (
            UPDATE relay.deliveries d SET {set} FROM found, clock WHERE d.id = found.id
            RETURNING d.id)
         SELECT count(*) FROM changed"
    );
    let (now, name) = (shared.now(), destination.map(DestinationName::as_str));
    let params: [Param<'_>; _] =
        [(&now, Type::INT8), (&name, Type::TEXT), (&alert, Type::INT8), (&PIECE, Type::INT8)];
    counted(shared, &sql, &params).await
}

async fn counted(shared: &Shared, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
    let rows = shared.door.run(Haste::Patient, sql, params).await?;
    rows.first().map_or(Ok(0), |row| count(row, 0))
}

/// Gives up a piece of what waits, is not leased, and counts its age from before that time; returns
/// whose deliveries that were.
pub(super) async fn expire(
    shared: &Shared,
    destination: &DestinationName,
    born_before: Timestamp,
    reason: &'static str,
) -> Result<Vec<AlertId>, StoreError> {
    const SQL: &str = "
        WITH clock AS (SELECT relay.now_us($1) AS now),
        t AS (SELECT id, paused_for FROM relay.destinations
              WHERE name = $2 AND paused_at IS NULL),
        found AS (
            SELECT d.id FROM relay.deliveries d
            WHERE d.destination = (SELECT id FROM t) AND d.state = 0
                AND d.since < (SELECT clock.now + $3 - t.paused_for FROM clock, t)
                AND (d.leased_until IS NULL OR d.leased_until <= (SELECT now FROM clock))
            ORDER BY d.id LIMIT $4 FOR UPDATE SKIP LOCKED),
        buried AS (
            UPDATE relay.deliveries d
            SET state = 2, finished_at = clock.now, dead_reason = $5, token = NULL
            FROM found, clock WHERE d.id = found.id RETURNING d.id)
        SELECT a.key, a.ordinal FROM buried JOIN relay.alerts a ON a.seq = buried.id / 65536";
    let (now, name, age) = (shared.now(), destination.as_str(), shared.distance(born_before));
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&name, Type::TEXT),
        (&age, Type::INT8),
        (&PIECE, Type::INT8),
        (&reason, Type::TEXT),
    ];
    let rows = shared.door.run(Haste::Patient, SQL, &params).await?;
    rows.iter().map(|row| alert_id(row, 0)).collect()
}

/// Stops the destination's clock, or lets it go on.
pub(super) async fn set_paused(
    shared: &Shared,
    destination: &DestinationName,
    paused: Paused,
) -> Result<(), StoreError> {
    let id = shared.destination(destination).await?;
    let sql = match paused {
        Paused::Yes => {
            "UPDATE relay.destinations SET paused_at = relay.now_us($1)
             WHERE id = $2 AND paused_at IS NULL"
        }
        Paused::No => {
            "UPDATE relay.destinations
             SET paused_for = paused_for + relay.now_us($1) - paused_at, paused_at = NULL
             WHERE id = $2 AND paused_at IS NOT NULL"
        }
    };
    let now = shared.now();
    shared.door.run(Haste::Hot, sql, &[(&now, Type::INT8), (&id, Type::INT4)]).await?;
    shared.wake_all(Some(destination)).await;
    Ok(())
}
