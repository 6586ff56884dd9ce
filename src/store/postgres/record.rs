//! Recording the outcomes of attempts: one task writes all that wait in one transaction.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::Type;

use super::{
    database::{Param, Priority},
    error::is_retryable,
    row::get,
    shared::{Shared, TRIES, Weight, copy, gather},
};
use crate::store::{
    ATTEMPTS_KEPT, Because, Lease, Next, Outcome, Recorded, Reference, Refusals, StoreError,
    stored::{DEAD, DELIVERED, PENDING, because_number, clean, excerpt},
};

/// The most outcomes that share a transaction.
const TRANSACTION: Weight = Weight { items: 512, bytes: usize::MAX };

/// A request to write an outcome, with the lease as it was granted.
pub(super) struct Job {
    pub(super) id: i64,
    pub(super) token: u64,
    pub(super) refusals: Refusals,
    pub(super) settings: Option<i64>,
    pub(super) outcome: Outcome,
    pub(super) reply: oneshot::Sender<Result<Recorded, StoreError>>,
}

impl Job {
    /// Returns a job for the outcome of this lease, and the receiver of the result.
    pub(super) fn new(
        lease: &Lease,
        outcome: Outcome,
    ) -> (Self, oneshot::Receiver<Result<Recorded, StoreError>>) {
        let (reply, answered) = oneshot::channel();
        let job = Self {
            id: lease.delivery().id,
            token: lease.token(),
            refusals: lease.delivery().refusals,
            settings: lease.settings(),
            outcome,
            reply,
        };
        (job, answered)
    }
}

/// Writes outcomes until every sender is gone.
pub(super) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Job>) {
    while let Some(jobs) = gather(&mut queue, TRANSACTION, |_| Weight { items: 1, bytes: 0 }).await
    {
        match record(&shared, &jobs).await {
            // The server refuses one of the outcomes for good, so each is written by itself.
            Err(StoreError::Item(_)) if jobs.len() > 1 => {
                for job in jobs {
                    let own = record(&shared, std::slice::from_ref(&job)).await;
                    let first = |own: Vec<Recorded>| own.first().copied();
                    drop(job.reply.send(own.map(|own| first(own).unwrap_or(Recorded::Stale))));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for job in jobs {
                    drop(job.reply.send(Err(copy(&error))));
                }
            }
            Ok(recorded) => {
                for (job, recorded) in jobs.into_iter().zip(recorded) {
                    drop(job.reply.send(Ok(recorded)));
                }
            }
        }
    }
}

const RECORD: &str = "
WITH clock AS (SELECT relay.now_us($1) AS now),
o AS MATERIALIZED (
    SELECT * FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
        $15, $16, $17, $18, $19, $20, $21, $22)
    AS o (id, token, state, wait, refusals, reason, reference_id, reference_url, started_at,
        duration, class, status, excerpt, level, search, evidence, because,
        settings, count_before, evidence_before, is_refusal)),
done AS (
    UPDATE relay.deliveries d SET attempts = d.attempts + 1,
        (state, alert_faults, evidence, due_at, wait, because, finished_at, dead_reason) = (
            -- `anew`: a refusal under other settings, or from before the counts were reset, does
            -- not count as evidence.
            SELECT CASE WHEN anew THEN :PENDING ELSE o.state END,
                d.alert_faults + CASE WHEN anew THEN 0 ELSE o.refusals END,
                d.evidence + CASE WHEN anew THEN 0 ELSE o.evidence END,
                CASE WHEN anew THEN clock.now ELSE coalesce(clock.now + o.wait, d.due_at) END,
                CASE WHEN anew THEN 0 ELSE coalesce(o.wait, d.wait) END,
                CASE WHEN anew THEN :DESTINATION_FAULT ELSE o.because END,
                CASE WHEN NOT anew AND o.state <> :PENDING THEN clock.now END,
                CASE WHEN NOT anew THEN o.reason END
            FROM (SELECT o.is_refusal AND (t.settings IS DISTINCT FROM o.settings
                OR d.alert_faults <> o.count_before OR d.evidence <> o.evidence_before) AS anew
            ) AS row),
        reference_id = o.reference_id, reference_url = o.reference_url,
        token = NULL, leased_until = NULL
    FROM o, clock, relay.destinations t
    WHERE d.id = o.id AND d.token = o.token AND d.state = :PENDING AND t.id = d.destination
    RETURNING d.id, d.attempts, o.token, d.destination,
        o.state = :DELIVERED AND t.settings IS NOT DISTINCT FROM o.settings AS is_evidence,
        o.is_refusal AND d.state = :PENDING
            AND (o.state <> :PENDING OR d.alert_faults = o.count_before) AS anew),
log AS (
    INSERT INTO relay.attempts (delivery, number, started_at, duration, class, status, excerpt)
    SELECT done.id, done.attempts, o.started_at, o.duration, o.class, o.status, o.excerpt
    FROM done JOIN o ON o.id = done.id AND o.token = done.token),
derived AS (
    UPDATE relay.alerts a SET level = o.level, search = o.search
    FROM done JOIN o ON o.id = done.id AND o.token = done.token
    WHERE a.seq = o.id / :PER_ALERT AND o.level IS NOT NULL AND a.search IS NOT NULL),
-- An acceptance is evidence for the refused deliveries of the destination. A row that is locked or
-- recorded here gets the evidence with the next acceptance: late evidence ends nothing too early,
-- and skipping locked rows avoids deadlocks.
refused AS (
    SELECT d.id FROM relay.deliveries d
    WHERE d.destination IN (SELECT done.destination FROM done WHERE done.is_evidence)
        AND NOT d.accepted AND d.state = :PENDING AND d.alert_faults > 0
        AND d.id NOT IN (SELECT o.id FROM o)
    LIMIT 1000 FOR UPDATE SKIP LOCKED),
marked AS (
    UPDATE relay.deliveries d SET accepted = true FROM refused WHERE d.id = refused.id)
SELECT id, token, attempts, anew FROM done";

/// Removes the attempts of a delivery up to this number.
const TRIM: &str = "DELETE FROM relay.attempts WHERE delivery = $1 AND number <= $2";

/// Writes outcomes in one transaction; returns the result of each.
pub(super) async fn record(shared: &Shared, jobs: &[Job]) -> Result<Vec<Recorded>, StoreError> {
    let columns = Columns::new(shared, jobs);
    let params = columns.params();
    let mut tries = 1;
    let rows = loop {
        match shared.database.run(Priority::Batch, RECORD, &params).await {
            Err(error) if tries < TRIES && is_retryable(&error) => tries += 1,
            result => break result?,
        }
    };
    let mut done: HashMap<(i64, i64), Recorded> = HashMap::new();
    for row in &rows {
        let id = get(row, 0)?;
        let attempts = get::<i32>(row, 2)?;
        let recorded = if get(row, 3)? { Recorded::Anew } else { Recorded::Kept };
        done.insert((id, get(row, 1)?), recorded);
        let oldest = attempts.saturating_sub(i32::try_from(ATTEMPTS_KEPT).unwrap_or(i32::MAX));
        if oldest > 0 {
            let params: [Param<'_>; _] = [(&id, Type::INT8), (&oldest, Type::INT4)];
            // A failure does no harm: the next outcome removes the attempts.
            drop(shared.database.run(Priority::Batch, TRIM, &params).await);
        }
    }
    let recorded = |job: &Job| done.get(&(job.id, job.token.cast_signed())).copied();
    Ok(jobs.iter().map(|job| recorded(job).unwrap_or(Recorded::Stale)).collect())
}

/// The parameters of [`RECORD`]: one array for each column.
#[derive(Default)]
struct Columns<'a> {
    now: Option<i64>,
    id: Vec<i64>,
    token: Vec<i64>,
    state: Vec<i32>,
    wait: Vec<Option<i64>>,
    refusals: Vec<i32>,
    reason: Vec<Option<&'static str>>,
    reference_id: Vec<Option<Cow<'a, str>>>,
    reference_url: Vec<Option<Cow<'a, str>>>,
    started_at: Vec<i64>,
    duration: Vec<i64>,
    class: Vec<&'static str>,
    status: Vec<Option<i32>>,
    excerpt: Vec<Cow<'a, str>>,
    level: Vec<Option<&'a str>>,
    search: Vec<Option<Cow<'a, str>>>,
    evidence: Vec<i32>,
    because: Vec<i32>,
    settings: Vec<Option<i64>>,
    count_before: Vec<i32>,
    evidence_before: Vec<i32>,
    is_refusal: Vec<bool>,
}

impl<'a> Columns<'a> {
    fn new(shared: &Shared, jobs: &'a [Job]) -> Self {
        let mut columns = Self { now: shared.now(), ..Self::default() };
        let mut jobs: Vec<&Job> = jobs.iter().collect();
        // Rows are changed in the order of their numbers, as in every other statement, so that
        // transactions rarely deadlock.
        jobs.sort_by_key(|job| job.id);
        for job in jobs {
            let Job { id, token, refusals, outcome: Outcome { attempt, next, projection }, .. } =
                job;
            columns.push_lease(job);
            columns.id.push(*id);
            columns.token.push(token.cast_signed());
            let (state, reason, reference) = match next {
                Next::Delivered(reference) => (DELIVERED, None, Some(reference)),
                Next::Dead { reason } => (DEAD, Some(*reason), None),
                Next::Retry { .. } => (PENDING, None, None),
            };
            columns.state.push(i32::try_from(state).unwrap_or_default());
            columns.push_wait(next, *refusals);
            columns.reason.push(reason);
            columns.push_reference(reference);
            columns.started_at.push(attempt.started_at.micros());
            let duration = i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX);
            columns.duration.push(duration);
            columns.class.push(attempt.class);
            columns.status.push(attempt.status.map(i32::from));
            columns.excerpt.push(excerpt(&attempt.excerpt));
            let projection = projection.as_ref();
            columns.level.push(projection.map(|derived| derived.level.as_str()));
            columns.search.push(projection.map(|derived| clean(&derived.search)));
        }
        columns
    }

    /// Adds the values that must be as they were at the lease for a refusal to count.
    fn push_lease(&mut self, job: &Job) {
        let small = |number| i32::try_from(number).unwrap_or(i32::MAX);
        self.settings.push(job.settings);
        self.count_before.push(small(job.refusals.count));
        self.evidence_before.push(small(job.refusals.evidence));
        self.is_refusal.push(job.outcome.next.is_refusal());
    }

    fn push_wait(&mut self, next: &Next, refusals: Refusals) {
        let (wait, because) = match next {
            Next::Retry { wait, because } => (Some(*wait), Some(*because)),
            Next::Delivered(_) | Next::Dead { .. } => (None, None),
        };
        let is_refusal = because == Some(Because::Refused);
        let micros = |wait: Duration| i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        self.wait.push(wait.map(micros));
        self.refusals.push(i32::from(is_refusal));
        self.evidence.push(i32::from(is_refusal && refusals.accepted));
        let because = because.map_or(0, because_number);
        self.because.push(i32::try_from(because).unwrap_or_default());
    }

    fn push_reference(&mut self, reference: Option<&'a Reference>) {
        self.reference_id.push(reference.map(|reference| clean(&reference.id)));
        self.reference_url.push(reference.map(|reference| clean(&reference.url)));
    }

    fn params(&self) -> [Param<'_>; 22] {
        [
            (&self.now, Type::INT8),
            (&self.id, Type::INT8_ARRAY),
            (&self.token, Type::INT8_ARRAY),
            (&self.state, Type::INT4_ARRAY),
            (&self.wait, Type::INT8_ARRAY),
            (&self.refusals, Type::INT4_ARRAY),
            (&self.reason, Type::TEXT_ARRAY),
            (&self.reference_id, Type::TEXT_ARRAY),
            (&self.reference_url, Type::TEXT_ARRAY),
            (&self.started_at, Type::INT8_ARRAY),
            (&self.duration, Type::INT8_ARRAY),
            (&self.class, Type::TEXT_ARRAY),
            (&self.status, Type::INT4_ARRAY),
            (&self.excerpt, Type::TEXT_ARRAY),
            (&self.level, Type::TEXT_ARRAY),
            (&self.search, Type::TEXT_ARRAY),
            (&self.evidence, Type::INT4_ARRAY),
            (&self.because, Type::INT4_ARRAY),
            (&self.settings, Type::INT8_ARRAY),
            (&self.count_before, Type::INT4_ARRAY),
            (&self.evidence_before, Type::INT4_ARRAY),
            (&self.is_refusal, Type::BOOL_ARRAY),
        ]
    }
}
