//! Retention: first the text of what is finished goes, much later its identity.

use tokio_postgres::types::Type;

use super::{
    door::{Haste, Param, Transaction},
    row::{count, get},
    shared::Shared,
};
use crate::store::{IDENTITY_KEPT, Pruned, Retention, StoreError};

/// How many messages one transaction empties: others want to write too.
const PIECE: i64 = 256;

/// No delivery of the message is pending or ended too lately; without any it counts from when the
/// message was received. `$1` is the time, `$2` and `$3` how long delivered and dead ones are kept.
macro_rules! may_go {
    () => {
        "NOT EXISTS (
            SELECT 1 FROM relay.deliveries d
            WHERE d.id >= m.id * 268435456 AND d.id < (m.id + 1) * 268435456
            AND (d.state = 0 OR d.finished_at >
                (SELECT now FROM clock) - CASE d.state WHEN 2 THEN $3 ELSE $2 END))
        AND (m.received_at <= (SELECT now FROM clock) - $2 OR EXISTS (
            SELECT 1 FROM relay.deliveries d
            WHERE d.id >= m.id * 268435456 AND d.id < (m.id + 1) * 268435456))"
    };
}

const FIND: &str = concat!(
    "WITH clock AS (SELECT relay.now_us($1) AS now)
     SELECT m.received_at, m.id FROM relay.messages m
     WHERE m.raw IS NOT NULL AND (m.received_at, m.id) > ($4, $5)
        AND m.received_at <= (SELECT now FROM clock) - least($2, $3) AND ",
    may_go!(),
    " ORDER BY m.received_at, m.id LIMIT $6"
);

/// Whoever wants to change one of these deliveries waits, and then finds none.
const LOCK: &str = "
    SELECT d.id FROM unnest($1) AS m (id) JOIN relay.deliveries d
        ON d.id >= m.id * 268435456 AND d.id < (m.id + 1) * 268435456
    ORDER BY d.id FOR UPDATE OF d";

const STILL: &str = concat!(
    "WITH clock AS (SELECT relay.now_us($1) AS now)
     SELECT m.id FROM relay.messages m WHERE m.id = ANY ($4) AND m.raw IS NOT NULL AND ",
    may_go!(),
    " ORDER BY m.id FOR UPDATE OF m"
);

const EMPTY: &str = "
    WITH gone AS (SELECT id FROM unnest($1) AS m (id)),
    a AS (DELETE FROM relay.attempts l USING gone
          WHERE l.delivery >= gone.id * 268435456 AND l.delivery < (gone.id + 1) * 268435456),
    d AS (DELETE FROM relay.deliveries d USING gone
          WHERE d.id >= gone.id * 268435456 AND d.id < (gone.id + 1) * 268435456),
    r AS (DELETE FROM relay.revisions r USING gone WHERE r.message = gone.id),
    s AS (UPDATE relay.alerts a SET search = NULL FROM gone
          WHERE a.seq >= gone.id * 4096 AND a.seq < (gone.id + 1) * 4096)
    UPDATE relay.messages m SET raw = NULL FROM gone WHERE m.id = gone.id";

const FORGET: &str = "
    WITH old AS (
        SELECT m.id FROM relay.messages m
        WHERE m.raw IS NULL AND m.received_at <= relay.now_us($1) - $2
        ORDER BY m.id LIMIT $3 FOR UPDATE SKIP LOCKED),
    a AS (DELETE FROM relay.alerts a USING old
          WHERE a.seq >= old.id * 4096 AND a.seq < (old.id + 1) * 4096),
    m AS (DELETE FROM relay.messages m USING old WHERE m.id = old.id RETURNING m.id)
    SELECT count(*) FROM m";

/// How long things are kept, in microseconds.
#[derive(Clone, Copy)]
struct Kept {
    delivered: i64,
    dead: i64,
}

/// Removes all that retention allows. Several relays may do so at once.
pub(super) async fn prune(shared: &Shared, retention: Retention) -> Result<Pruned, StoreError> {
    let micros = |kept: std::time::Duration| i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
    let kept = Kept { delivered: micros(retention.delivered), dead: micros(retention.dead) };
    let mut pruned = Pruned::default();
    let mut after = (i64::MIN, i64::MIN);
    loop {
        let found = find(shared, kept, after).await?;
        let Some(last) = found.last() else { break };
        after = *last;
        pruned.messages += empty(shared, kept, found.iter().map(|(_, id)| *id).collect()).await?;
    }
    let (now, identity) = (shared.now(), micros(IDENTITY_KEPT));
    loop {
        let params: [Param<'_>; _] =
            [(&now, Type::INT8), (&identity, Type::INT8), (&PIECE, Type::INT8)];
        let rows = shared.door.run(Haste::Patient, FORGET, &params).await?;
        let removed = rows.first().map_or(Ok(0), |row| count(row, 0))?;
        pruned.identities += removed;
        if removed < PIECE.unsigned_abs() {
            return Ok(pruned);
        }
    }
}

/// The next messages that may be emptied, behind those.
async fn find(
    shared: &Shared,
    kept: Kept,
    (received_at, id): (i64, i64),
) -> Result<Vec<(i64, i64)>, StoreError> {
    let now = shared.now();
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&kept.delivered, Type::INT8),
        (&kept.dead, Type::INT8),
        (&received_at, Type::INT8),
        (&id, Type::INT8),
        (&PIECE, Type::INT8),
    ];
    let rows = shared.door.run(Haste::Patient, FIND, &params).await?;
    rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
}

/// Empties messages, if they may still go; returns how many went.
async fn empty(shared: &Shared, kept: Kept, found: Vec<i64>) -> Result<u64, StoreError> {
    let mut transaction = shared.door.begin(Haste::Patient).await?;
    transaction.query(LOCK, &[(&found, Type::INT8_ARRAY)]).await?;
    let gone = still(shared, kept, &mut transaction, &found).await?;
    transaction.query(EMPTY, &[(&gone, Type::INT8_ARRAY)]).await?;
    transaction.commit().await?;
    Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
}

async fn still(
    shared: &Shared,
    kept: Kept,
    transaction: &mut Transaction<'_>,
    found: &[i64],
) -> Result<Vec<i64>, StoreError> {
    let now = shared.now();
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&kept.delivered, Type::INT8),
        (&kept.dead, Type::INT8),
        (&found, Type::INT8_ARRAY),
    ];
    let rows = transaction.query(STILL, &params).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}
