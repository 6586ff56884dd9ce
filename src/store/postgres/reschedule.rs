//! Makes waiting deliveries due before their time: a destination works again, its settings have
//! changed, or the database's clock was set back.

use tokio_postgres::types::Type;

use super::{
    database::{Param, Priority},
    operate::{PIECE, run_count},
    shared::Shared,
};
use crate::{
    ids::DestinationName,
    store::{Hasten, StoreError, stored::HELD_MAX_US},
};

/// Makes deliveries of a destination due now, a piece at a time; returns their number.
pub(super) async fn make_due(
    shared: &Shared,
    destination: &DestinationName,
    which: Hasten,
) -> Result<u64, StoreError> {
    let condition = match which {
        Hasten::Recovered => "d.attempts > 0 AND d.because = :DESTINATION_FAULT",
        Hasten::Misdated => {
            redate_leases(shared, destination).await?;
            // A new delivery is held for at most `HELD_MAX_US`; the others know how long they wait.
            "d.due_at - (SELECT now FROM clock) > CASE WHEN d.attempts = 0 THEN $4 ELSE d.wait END"
        }
    };
    let sql = format!(
        "WITH clock AS (SELECT relay.now_us($1) AS now),
         found AS (
            SELECT d.id FROM relay.deliveries d
            WHERE d.destination = (SELECT id FROM relay.destinations WHERE name = $2)
                AND d.state = :PENDING AND d.due_at > (SELECT now FROM clock)
                AND (d.leased_until IS NULL
                    OR d.leased_until <= (SELECT least(now, $5) FROM clock))
                AND $4::int8 IS NOT NULL AND {condition}
            ORDER BY d.id LIMIT $3 FOR UPDATE SKIP LOCKED),
         changed AS (
            UPDATE relay.deliveries d SET due_at = clock.now, wait = 0
            FROM found, clock WHERE d.id = found.id RETURNING d.id)
         SELECT count(*) FROM changed"
    );
    let now = shared.now();
    let name = destination.as_str();
    let judged = shared.lease_time();
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&name, Type::TEXT),
        (&PIECE, Type::INT8),
        (&HELD_MAX_US, Type::INT8),
        (&judged, Type::INT8),
    ];
    let mut total = 0;
    loop {
        let changed = run_count(shared, &sql, &params).await?;
        total += changed;
        if changed > 0 {
            shared.wake_all(Some(destination)).await;
        }
        if changed < PIECE.unsigned_abs() {
            return Ok(total);
        }
    }
}

/// Shortens leases that end later than any could: they were granted before the clock was set back.
/// Their holders keep them for the length of a new lease.
async fn redate_leases(shared: &Shared, destination: &DestinationName) -> Result<(), StoreError> {
    const SQL: &str = "
        WITH clock AS (SELECT relay.now_us($1) AS now),
        found AS (
            SELECT d.id FROM relay.deliveries d
            WHERE d.destination = (SELECT id FROM relay.destinations WHERE name = $2)
                AND d.state = :PENDING AND d.leased_until > (SELECT now FROM clock) + 2 * $3
            ORDER BY d.id FOR UPDATE SKIP LOCKED)
        UPDATE relay.deliveries d SET leased_until = clock.now + $3
        FROM found, clock WHERE d.id = found.id";
    let now = shared.now();
    let name = destination.as_str();
    let lease = shared.lease_us();
    let params: [Param<'_>; _] = [(&now, Type::INT8), (&name, Type::TEXT), (&lease, Type::INT8)];
    shared.database.run(Priority::Background, SQL, &params).await.map(drop)
}

/// Stores the mark of a destination's settings. If it has changed, resets the counts of refusals
/// and makes the refused deliveries due; returns their number.
pub(super) async fn note_settings(
    shared: &Shared,
    destination: &DestinationName,
    mark: u16,
) -> Result<u64, StoreError> {
    const SQL: &str = "
        WITH clock AS (SELECT relay.now_us($1) AS now),
        t AS (
            UPDATE relay.destinations SET settings = $3
            WHERE id = $2 AND settings IS DISTINCT FROM $3 RETURNING id),
        found AS (
            SELECT d.id FROM relay.deliveries d
            WHERE d.destination IN (SELECT id FROM t) AND d.state = :PENDING AND d.alert_faults > 0
            ORDER BY d.id FOR UPDATE),
        changed AS (
            UPDATE relay.deliveries d SET alert_faults = 0, accepted = false, evidence = 0,
                due_at = least(d.due_at, clock.now), wait = 0
            FROM found, clock WHERE d.id = found.id RETURNING d.id)
        SELECT count(*) FROM changed";
    let id = shared.destination(destination).await?;
    let now = shared.now();
    let mark = i64::from(mark);
    let params: [Param<'_>; _] = [(&now, Type::INT8), (&id, Type::INT4), (&mark, Type::INT8)];
    let changed = run_count(shared, SQL, &params).await?;
    if changed > 0 {
        shared.wake_all(Some(destination)).await;
    }
    Ok(changed)
}
