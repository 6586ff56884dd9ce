//! Retention: removes the text of finished alerts first, and their identities much later.

use std::{sync::atomic::Ordering, time::Duration};

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio_postgres::types::Type;

use super::{
    accept,
    database::{Param, Priority, Transaction},
    journal, poster, review,
    row::{count, get},
    shared::{Shared, reply_of},
    store::PostgresStore,
};
use crate::store::{IDENTITY_KEPT, Pruned, Retention, StoreError, Upkeep};

/// The messages that one step of a walk reads. Walking needs no index, which would make each accept
/// slower.
const STEP: usize = 2048;

/// Steps without a message to remove after which a walk ends. The next walk continues there.
const IDLE_STEPS: usize = 8;

/// The most messages that one transaction empties, so that other writers do not wait for long.
const PIECE: usize = 256;

/// Condition that no delivery of message `m` is pending or finished too recently. A message without
/// deliveries counts from the time it was received. `$1` is the time; `$2` and `$3` are the
/// retention of delivered and of dead deliveries.
macro_rules! may_be_emptied {
    () => {
        "NOT EXISTS (
            SELECT 1 FROM relay.deliveries d
            WHERE d.id >= m.id * :PER_MESSAGE * :PER_ALERT
                AND d.id < (m.id + 1) * :PER_MESSAGE * :PER_ALERT
            AND (d.state = :PENDING OR d.finished_at >
                (SELECT now FROM clock) - CASE d.state WHEN :DEAD THEN $3 ELSE $2 END))
        AND (m.received_at <= (SELECT now FROM clock) - $2 OR EXISTS (
            SELECT 1 FROM relay.deliveries d
            WHERE d.id >= m.id * :PER_MESSAGE * :PER_ALERT
                AND d.id < (m.id + 1) * :PER_MESSAGE * :PER_ALERT))"
    };
}

/// Reads the next messages after number `$5`: whether the identity may be removed, and whether the
/// message may be emptied.
const STEP_SQL: &str = concat!(
    "WITH clock AS (SELECT relay.now_us($1) AS now)
     SELECT m.id, m.raw IS NULL AND m.received_at <= (SELECT now FROM clock) - $4,
        m.raw IS NOT NULL AND m.received_at <= (SELECT now FROM clock) - least($2, $3) AND ",
    may_be_emptied!(),
    " FROM relay.messages m WHERE m.id > $5 ORDER BY m.id LIMIT $6"
);

/// Makes `route`, which adds deliveries to a message, and this transaction wait for each other.
const LOCK_MESSAGES: &str = "SELECT FROM relay.messages WHERE id = ANY ($1) ORDER BY id FOR UPDATE";

/// Makes transactions that change one of these deliveries wait; they then do not find it.
const LOCK_DELIVERIES: &str = "
    SELECT d.id FROM unnest($1) AS m (id) JOIN relay.deliveries d
        ON d.id >= m.id * :PER_MESSAGE * :PER_ALERT
            AND d.id < (m.id + 1) * :PER_MESSAGE * :PER_ALERT
    ORDER BY d.id FOR UPDATE OF d";

/// Returns which of the messages may still be emptied, now that they are locked.
const CHECK_AGAIN: &str = concat!(
    "WITH clock AS (SELECT relay.now_us($1) AS now)
     SELECT m.id FROM relay.messages m WHERE m.id = ANY ($4) AND m.raw IS NOT NULL AND ",
    may_be_emptied!(),
    " ORDER BY m.id FOR UPDATE OF m"
);

/// Removes the texts, deliveries, attempts and revisions of messages. The identities stay.
const EMPTY: &str = "
    WITH gone AS (SELECT id FROM unnest($1) AS m (id)),
    a AS (DELETE FROM relay.attempts l USING gone
          WHERE l.delivery >= gone.id * :PER_MESSAGE * :PER_ALERT
              AND l.delivery < (gone.id + 1) * :PER_MESSAGE * :PER_ALERT),
    d AS (DELETE FROM relay.deliveries d USING gone
          WHERE d.id >= gone.id * :PER_MESSAGE * :PER_ALERT
              AND d.id < (gone.id + 1) * :PER_MESSAGE * :PER_ALERT),
    r AS (DELETE FROM relay.revisions r USING gone WHERE r.message = gone.id),
    s AS (UPDATE relay.alerts a SET search = NULL FROM gone
          WHERE a.seq >= gone.id * :PER_MESSAGE AND a.seq < (gone.id + 1) * :PER_MESSAGE)
    UPDATE relay.messages m SET raw = NULL FROM gone WHERE m.id = gone.id";

/// Removes the identities of messages that are empty.
const REMOVE: &str = "
    WITH old AS (
        SELECT m.id FROM relay.messages m WHERE m.id = ANY ($1) AND m.raw IS NULL
        ORDER BY m.id FOR UPDATE SKIP LOCKED),
    a AS (DELETE FROM relay.alerts a USING old
          WHERE a.seq >= old.id * :PER_MESSAGE AND a.seq < (old.id + 1) * :PER_MESSAGE),
    r AS (DELETE FROM relay.revisions r USING old WHERE r.message = old.id),
    m AS (DELETE FROM relay.messages m USING old WHERE m.id = old.id RETURNING m.id)
    SELECT count(*) FROM m";

/// Retention periods in microseconds, counted back from `now`.
#[derive(Clone, Copy)]
struct Kept {
    now: i64,
    delivered: i64,
    dead: i64,
    identity: i64,
}

/// Messages that one step has read.
#[derive(Default)]
struct StepResult {
    /// Number of the last message, or `None` if there are no messages after it.
    last: Option<i64>,
    /// Messages that may be emptied.
    finished: Vec<i64>,
    /// Messages whose identities may be removed.
    expired: Vec<i64>,
}

/// Returns the database's time of day if its clock has been steady for some minutes. By a clock
/// that was set a short while ago, texts might be removed too early, for good.
async fn steady_now(shared: &Shared) -> Result<Option<i64>, StoreError> {
    let span = shared.steady_time().await?;
    Ok(span.from.is_none().then_some(span.until.micros()))
}

#[async_trait]
impl Upkeep for PostgresStore {
    /// Several relays may prune at once.
    async fn prune(&self, retention: Retention) -> Result<Pruned, StoreError> {
        let shared = &self.shared;
        let Some(now) = steady_now(shared).await? else {
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
        let mut idle_steps = 0;
        while idle_steps < IDLE_STEPS {
            let step = step(shared, kept, shared.walked.load(Ordering::Acquire)).await?;
            idle_steps += usize::from(step.finished.is_empty() && step.expired.is_empty());
            for piece in step.finished.chunks(PIECE) {
                pruned.messages += empty(shared, kept, piece).await?;
            }
            for piece in step.expired.chunks(PIECE) {
                pruned.identities += remove(shared, piece).await?;
            }
            // After the last message the next walk begins with the first.
            shared.walked.store(step.last.unwrap_or(0), Ordering::Release);
            if step.last.is_none() {
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
        reply_of(answered).await
    }

    /// Gives up the right to poll, so another process can take it at once. Leases that were not
    /// released end by themselves.
    async fn close(&self) {
        self.shut_down().await;
    }
}

/// Reads the next messages after this number.
async fn step(shared: &Shared, kept: Kept, after: i64) -> Result<StepResult, StoreError> {
    let limit = i64::try_from(STEP).unwrap_or(i64::MAX);
    let params: [Param<'_>; _] = [
        (&kept.now, Type::INT8),
        (&kept.delivered, Type::INT8),
        (&kept.dead, Type::INT8),
        (&kept.identity, Type::INT8),
        (&after, Type::INT8),
        (&limit, Type::INT8),
    ];
    let rows = shared.database.run(Priority::Background, STEP_SQL, &params).await?;
    let mut step = StepResult::default();
    for row in &rows {
        let id = get(row, 0)?;
        if get(row, 1)? {
            step.expired.push(id);
        }
        if get(row, 2)? {
            step.finished.push(id);
        }
        step.last = Some(id);
    }
    // A step that is not full has reached the last message.
    step.last = step.last.filter(|_| rows.len() == STEP);
    Ok(step)
}

/// Empties messages if that is still allowed; returns their number.
async fn empty(shared: &Shared, kept: Kept, found: &[i64]) -> Result<u64, StoreError> {
    let mut transaction = shared.database.begin(Priority::Background).await?;
    transaction.query(LOCK_MESSAGES, &[(&found, Type::INT8_ARRAY)]).await?;
    transaction.query(LOCK_DELIVERIES, &[(&found, Type::INT8_ARRAY)]).await?;
    let gone = check_again(kept, &mut transaction, found).await?;
    transaction.query(EMPTY, &[(&gone, Type::INT8_ARRAY)]).await?;
    transaction.commit().await?;
    Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
}

async fn check_again(
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
    let rows = transaction.query(CHECK_AGAIN, &params).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}

/// Removes the identities of messages; returns the number of messages.
async fn remove(shared: &Shared, old: &[i64]) -> Result<u64, StoreError> {
    let rows =
        shared.database.run(Priority::Background, REMOVE, &[(&old, Type::INT8_ARRAY)]).await?;
    rows.first().map_or(Ok(0), |row| count(row, 0))
}
