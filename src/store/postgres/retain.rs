//! Retention: first the text of what is finished goes, much later its identity.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio_postgres::types::Type;

use super::{
    PostgresStore, accept, answer,
    door::{Haste, Param, Transaction},
    journal, poller, poster, review,
    row::{count, get},
    shared::Shared,
};
use crate::store::{IDENTITY_KEPT, Pruned, Retention, StoreError, Upkeep};

/// How many messages one look passes, whatever became of them, and how many looks without a find
/// end a walk; the next one goes on there. An index would lead straight to those that may go, and
/// make each new alert dearer.
const LOOK: usize = 2048;
const LOOKS_IN_VAIN: usize = 8;

/// How many messages one transaction empties: others want to write too.
const PIECE: usize = 256;

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

/// The next messages behind `$5`: whether each may be emptied, and whether its identity may go.
const LOOK_AT: &str = concat!(
    "WITH clock AS (SELECT relay.now_us($1) AS now)
     SELECT m.id, m.raw IS NULL AND m.received_at <= (SELECT now FROM clock) - $4,
        m.raw IS NOT NULL AND m.received_at <= (SELECT now FROM clock) - least($2, $3) AND ",
    may_go!(),
    " FROM relay.messages m WHERE m.id > $5 ORDER BY m.id LIMIT $6"
);

/// Whoever wants to give one of these messages a delivery waits, and then finds it emptied; and who
/// has just done so is waited for.
const LOCK_MESSAGES: &str = "SELECT FROM relay.messages WHERE id = ANY ($1) ORDER BY id FOR UPDATE";

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
        SELECT m.id FROM relay.messages m WHERE m.id = ANY ($1) AND m.raw IS NULL
        ORDER BY m.id FOR UPDATE SKIP LOCKED),
    a AS (DELETE FROM relay.alerts a USING old
          WHERE a.seq >= old.id * 4096 AND a.seq < (old.id + 1) * 4096),
    r AS (DELETE FROM relay.revisions r USING old WHERE r.message = old.id),
    m AS (DELETE FROM relay.messages m USING old WHERE m.id = old.id RETURNING m.id)
    SELECT count(*) FROM m";

/// How long things are kept, in microseconds, counted back from `now`.
#[derive(Clone, Copy)]
struct Kept {
    now: i64,
    delivered: i64,
    dead: i64,
    identity: i64,
}

/// What one look has passed.
#[derive(Default)]
struct Seen {
    /// The last message, unless there is none behind it.
    last: Option<i64>,
    may_go: Vec<i64>,
    old: Vec<i64>,
}

/// The database's time of day if it has kept step for some minutes, or nothing: what a clock that
/// was set a short while ago calls old would be gone for good.
async fn believed_now(shared: &Shared) -> Result<Option<i64>, StoreError> {
    let span = shared.steady_time().await?;
    Ok(span.from.is_none().then_some(span.until.micros()))
}

#[async_trait]
impl Upkeep for PostgresStore {
    /// Several relays may prune at once.
    async fn prune(&self, retention: Retention) -> Result<Pruned, StoreError> {
        let shared = &self.shared;
        let Some(now) = believed_now(shared).await? else {
            return Ok(Pruned::default());
        };
        let micros = |kept: Duration| i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
        let kept = Kept {
            now,
            delivered: micros(retention.delivered),
            dead: micros(retention.dead),
            identity: micros(IDENTITY_KEPT),
        };
        let mut pruned = Pruned::default();
        let mut in_vain = 0;
        while in_vain < LOOKS_IN_VAIN {
            let seen = look(shared, kept, shared.walked.load(Ordering::Acquire)).await?;
            in_vain += usize::from(seen.may_go.is_empty() && seen.old.is_empty());
            for piece in seen.may_go.chunks(PIECE) {
                pruned.messages += empty(shared, kept, piece).await?;
            }
            for piece in seen.old.chunks(PIECE) {
                pruned.identities += forget(shared, piece).await?;
            }
            // Behind the last message it begins again, the next time.
            shared.walked.store(seen.last.unwrap_or(0), Ordering::Release);
            if seen.last.is_none() {
                break;
            }
        }
        journal::forget(shared, now).await?;
        poster::forget(shared, now).await?;
        review::forget(shared, now).await?;
        Ok(pruned)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let (reply, answered) = oneshot::channel();
        self.submit(accept::Job::Probe(reply))?;
        answer(answered).await
    }

    /// Another process polls at once; leases that were not given back end by themselves.
    async fn close(&self) {
        self.queues().take();
        let mut writers = self.writers.lock().await;
        while writers.join_next().await.is_some() {}
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        if let Err(error) = poller::give_up(&self.shared, None).await {
            tracing::debug!(%error, "the right to poll is not given up; it ends by itself");
        }
        self.shared.door.close();
    }
}

/// Passes the next messages behind that one.
async fn look(shared: &Shared, kept: Kept, after: i64) -> Result<Seen, StoreError> {
    let limit = i64::try_from(LOOK).unwrap_or(i64::MAX);
    let params: [Param<'_>; _] = [
        (&kept.now, Type::INT8),
        (&kept.delivered, Type::INT8),
        (&kept.dead, Type::INT8),
        (&kept.identity, Type::INT8),
        (&after, Type::INT8),
        (&limit, Type::INT8),
    ];
    let rows = shared.door.run(Haste::Patient, LOOK_AT, &params).await?;
    let mut seen = Seen::default();
    for row in &rows {
        let id = get(row, 0)?;
        if get(row, 1)? {
            seen.old.push(id);
        }
        if get(row, 2)? {
            seen.may_go.push(id);
        }
        seen.last = Some(id);
    }
    seen.last = seen.last.filter(|_| rows.len() == LOOK);
    Ok(seen)
}

/// Empties messages, if they may still go; returns how many went.
async fn empty(shared: &Shared, kept: Kept, found: &[i64]) -> Result<u64, StoreError> {
    let mut transaction = shared.door.begin(Haste::Patient).await?;
    transaction.query(LOCK_MESSAGES, &[(&found, Type::INT8_ARRAY)]).await?;
    transaction.query(LOCK, &[(&found, Type::INT8_ARRAY)]).await?;
    let gone = still(kept, &mut transaction, found).await?;
    transaction.query(EMPTY, &[(&gone, Type::INT8_ARRAY)]).await?;
    transaction.commit().await?;
    Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
}

async fn still(
    kept: Kept,
    transaction: &mut Transaction<'_>,
    found: &[i64],
) -> Result<Vec<i64>, StoreError> {
    let params: [Param<'_>; _] = [
        (&kept.now, Type::INT8),
        (&kept.delivered, Type::INT8),
        (&kept.dead, Type::INT8),
        (&found, Type::INT8_ARRAY),
    ];
    let rows = transaction.query(STILL, &params).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}

/// Removes identities that are old enough; returns how many went.
async fn forget(shared: &Shared, old: &[i64]) -> Result<u64, StoreError> {
    let rows = shared.door.run(Haste::Patient, FORGET, &[(&old, Type::INT8_ARRAY)]).await?;
    rows.first().map_or(Ok(0), |row| count(row, 0))
}
