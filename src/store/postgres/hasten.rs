//! Ends waits: when a destination works again, when its settings have changed, and when the
//! database's clock has been set back.

use tokio_postgres::types::Type;

use super::{
    door::{Haste, Param},
    operate::{PIECE, counted},
    shared::Shared,
};
use crate::{
    ids::DestinationName,
    store::{Hasten, StoreError, stored::HELD_MAX_US},
};

/// Makes due now what is meant, a piece at a time; returns how many deliveries that are.
pub(super) async fn hasten(
    shared: &Shared,
    destination: &DestinationName,
    whom: Hasten,
) -> Result<u64, StoreError> {
    let meant = match whom {
        Hasten::Recovered => "d.attempts > 0 AND d.because = 0",
        Hasten::Misdated => {
            redate_leases(shared, destination).await?;
            "d.due_at - (SELECT now FROM clock) > CASE WHEN d.attempts = 0 THEN $4 ELSE d.wait END"
        }
    };
    let sql = format!(
        "WITH clock AS (SELECT relay.now_us($1) AS now),
         found AS (
            SELECT d.id FROM relay.deliveries d
            WHERE d.destination = (SELECT id FROM relay.destinations WHERE name = $2)
                AND d.state = 0 AND d.due_at > (SELECT now FROM clock)
                AND (d.leased_until IS NULL
                    OR d.leased_until <= (SELECT least(now, $5) FROM clock))
                AND $4::int8 IS NOT NULL AND {meant}
            ORDER BY d.id LIMIT $3 FOR UPDATE SKIP LOCKED),
         changed AS (
            UPDATE relay.deliveries d SET due_at = clock.now, wait = 0
            FROM found, clock WHERE d.id = found.id RETURNING d.id)
         SELECT count(*) FROM changed"
    );
    let (now, name, judged) = (shared.now(), destination.as_str(), shared.lease_time());
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&name, Type::TEXT),
        (&PIECE, Type::INT8),
        (&HELD_MAX_US, Type::INT8),
        (&judged, Type::INT8),
    ];
    let mut total = 0;
    loop {
        let changed = counted(shared, &sql, &params).await?;
        total += changed;
        if changed > 0 {
            shared.wake_all(Some(destination)).await;
        }
        if changed < PIECE.unsigned_abs() {
            return Ok(total);
        }
    }
}

/// A lease that ends later than any could is from before the clock was set back. Its holder keeps
/// it for as long as one that begins now.
async fn redate_leases(shared: &Shared, destination: &DestinationName) -> Result<(), StoreError> {
    const SQL: &str = "
        WITH clock AS (SELECT relay.now_us($1) AS now),
        found AS (
            SELECT d.id FROM relay.deliveries d
            WHERE d.destination = (SELECT id FROM relay.destinations WHERE name = $2)
                AND d.state = 0 AND d.leased_until > (SELECT now FROM clock) + 2 * $3
            ORDER BY d.id FOR UPDATE SKIP LOCKED)
        UPDATE relay.deliveries d SET leased_until = clock.now + $3
        FROM found, clock WHERE d.id = found.id";
    let (now, name, lease) = (shared.now(), destination.as_str(), shared.lease_us());
    let params: [Param<'_>; _] = [(&now, Type::INT8), (&name, Type::TEXT), (&lease, Type::INT8)];
    shared.door.run(Haste::Patient, SQL, &params).await.map(drop)
}

/// Notes the settings; if they have changed, refusals are counted anew.
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
            WHERE d.destination IN (SELECT id FROM t) AND d.state = 0 AND d.alert_faults > 0
            ORDER BY d.id FOR UPDATE),
        changed AS (
            UPDATE relay.deliveries d SET alert_faults = 0, accepted = false, evidence = 0,
                due_at = least(d.due_at, clock.now), wait = 0
            FROM found, clock WHERE d.id = found.id RETURNING d.id)
        SELECT count(*) FROM changed";
    let id = shared.destination(destination).await?;
    let (now, mark) = (shared.now(), i64::from(mark));
    let params: [Param<'_>; _] = [(&now, Type::INT8), (&id, Type::INT4), (&mark, Type::INT8)];
    let changed = counted(shared, SQL, &params).await?;
    if changed > 0 {
        shared.wake_all(Some(destination)).await;
    }
    Ok(changed)
}
