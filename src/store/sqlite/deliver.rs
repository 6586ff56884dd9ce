//! Leases deliveries and records outcomes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    SqliteStore,
    db::Db,
    job::Purpose,
    job::{Write, answer},
    row::alert_id,
    shared::Shared,
};
use crate::{
    clock::Timestamp,
    ids::{DestinationName, MessageTs},
    store::{
        ATTEMPTS_KEPT, Attempt, Because, Delivery, Lease, Next, Outcome, Projection, Recorded,
        Reference, Refusals, Unrecorded,
        stored::{DEAD, DELIVERED, PENDING, PER_ALERT, because_number, clean, excerpt, source_of},
    },
};

/// Selects the deliveries of the destination `?1` that may be leased at the time `?2`.
macro_rules! claim {
    ($which:literal, $order:literal) => {
        concat!(
            "SELECT c.app, c.channel, a.ts, a.ordinal,
                d.id, d.attempts, d.alert_faults, d.since + t.paused_for, a.attachment,
                m.received_at, m.posted_at, m.source, m.event_id, m.team, m.raw,
                a.level, coalesce(a.search, ''), d.evidence, d.accepted, m.id, t.settings
             FROM destinations t
             CROSS JOIN deliveries d ",
            $which,
            "
             CROSS JOIN alerts a ON a.seq = d.id >> 16
             CROSS JOIN channels c ON c.id = a.channel
             CROSS JOIN messages m ON m.id = a.message
             WHERE t.name = ?1 AND t.paused_at IS NULL
             ORDER BY ",
            $order
        )
    };
}

const CLAIM: &str = claim!(
    "INDEXED BY deliveries_due ON d.destination = t.id AND d.state = 0 AND d.due_at <= ?2",
    "d.due_at"
);

/// The index holds the numbers of all waiting deliveries, so the oldest ones are found without
/// reading their rows.
const CLAIM_OLDEST: &str = claim!(
    "ON d.id IN (
        SELECT id FROM deliveries INDEXED BY deliveries_due
        WHERE destination = t.id AND state = 0 ORDER BY id LIMIT 64)
     AND (d.due_at <= ?2 OR (d.attempts > 0 AND d.because = 0))",
    "d.id"
);

/// Leases up to `n` deliveries.
pub(super) fn lease_due(
    shared: &Shared,
    reader: &Connection,
    destination: &DestinationName,
    n: usize,
) -> rusqlite::Result<Vec<Lease>> {
    lease(shared, reader, CLAIM, destination, n)
}

/// Leases the delivery of the oldest alert, due or not, unless it waits for another reason than a
/// fault of the destination.
pub(super) fn lease_oldest(
    shared: &Shared,
    reader: &Connection,
    destination: &DestinationName,
) -> rusqlite::Result<Option<Lease>> {
    lease(shared, reader, CLAIM_OLDEST, destination, 1).map(|mut leases| leases.pop())
}

/// Leases up to `n` of the deliveries that the claim selects.
fn lease(
    shared: &Shared,
    reader: &Connection,
    claim: &str,
    destination: &DestinationName,
    n: usize,
) -> rusqlite::Result<Vec<Lease>> {
    let _gate = shared.leases.gate();
    let now = shared.clock.now();
    // Live leases are listed before the snapshot is read: a delivery that is finished in between is
    // still in the list, so it is not taken for a waiting one.
    let live = shared.leases.live(shared.clock.moment());
    let mut statement = reader.prepare_cached(claim)?;
    let mut rows = statement.query(params![destination.as_str(), now.micros()])?;
    let mut found = Vec::new();
    let (mut bodies, mut bytes) = (LastBody::default(), 0);
    while found.len() < n
        && bytes <= LEASED_MAX_BYTES
        && let Some(row) = rows.next()?
    {
        if !live.contains(&row.get(4)?) {
            let (raw, new_bytes) = bodies.read(row, 19)?;
            bytes += new_bytes;
            found.push((delivery(row, destination, raw)?, row.get(20)?));
        }
    }
    // Nothing is leased if a row could not be read.
    Ok(found.into_iter().map(|(delivery, settings)| grant(shared, delivery, settings)).collect())
}

fn grant(shared: &Shared, delivery: Delivery, settings: Option<i64>) -> Lease {
    let expires_at = shared.clock.moment() + shared.lease;
    let token = shared.clock.token();
    shared.leases.grant(delivery.id, token, expires_at);
    Lease::new(delivery, settings, token, expires_at)
}

/// Bytes of messages after which one call leases no more. A worker holds the leases of two calls,
/// and a message may have megabytes.
const LEASED_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Body of the previous row, which alerts of the same message share.
#[derive(Default)]
pub(super) struct LastBody(Option<(i64, Bytes)>);

impl LastBody {
    /// Returns the body of a row, and the number of bytes that were read for it: 0 if the previous
    /// row has the same message. `column` holds the number of the message.
    pub(super) fn read(
        &mut self,
        row: &Row<'_>,
        column: usize,
    ) -> rusqlite::Result<(Bytes, usize)> {
        let message = row.get(column)?;
        if let Some((known, raw)) = &self.0
            && *known == message
        {
            return Ok((raw.clone(), 0));
        }
        let raw = Bytes::copy_from_slice(row.get_ref(14)?.as_blob()?);
        self.0 = Some((message, raw.clone()));
        let bytes = raw.len();
        Ok((raw, bytes))
    }
}

/// Reads a delivery from the first nineteen columns of a row, except the body.
pub(super) fn delivery(
    row: &Row<'_>,
    destination: &DestinationName,
    raw: Bytes,
) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        alert: alert_id(row)?,
        destination: destination.clone(),
        id: row.get(4)?,
        attempts: row.get(5)?,
        refusals: Refusals { count: row.get(6)?, evidence: row.get(17)?, accepted: row.get(18)? },
        pending_since: Timestamp::from_micros(row.get(7)?),
        attachment: row.get(8)?,
        received_at: Timestamp::from_micros(row.get(9)?),
        posted_at: MessageTs::from_micros(row.get(10)?),
        source: source_of(row.get(11)?),
        event_id: row.get(12)?,
        team: row.get(13)?,
        raw,
        projection: Projection { level: row.get(15)?, search: row.get(16)? },
    })
}

/// Returns the due time of the first delivery that is not leased, or else the end of the first
/// lease.
pub(super) fn next_due(
    shared: &Shared,
    reader: &Connection,
    destination: &DestinationName,
) -> rusqlite::Result<Option<Timestamp>> {
    let moment = shared.clock.moment();
    // As in `lease`, before the snapshot is read: a delivery that is finished in between is not
    // taken for a waiting one.
    let live = shared.leases.live(moment);
    let Some(id) = reader
        .prepare_cached("SELECT id FROM destinations WHERE name = ?1 AND paused_at IS NULL")?
        .query_row([destination.as_str()], |row| row.get::<_, i64>(0))
        .optional()?
    else {
        return Ok(None);
    };
    let mut statement = reader.prepare_cached(
        "SELECT id, due_at FROM deliveries INDEXED BY deliveries_due
         WHERE destination = ?1 AND state = 0 ORDER BY due_at",
    )?;
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        if !live.contains(&row.get(0)?) {
            return Ok(Some(Timestamp::from_micros(row.get(1)?)));
        }
    }
    // All are leased. A lease that ends without an outcome makes its delivery due.
    let first_end = shared.leases.first_end(id, moment);
    Ok(first_end.map(|end| shared.clock.now() + end.since(moment)))
}

/// New values of a delivery's row.
#[derive(Default)]
struct Change<'a> {
    state: i64,
    wait: Option<Duration>,
    because: Option<Because>,
    dead_reason: Option<&'static str>,
    reference: Option<&'a Reference>,
}

impl Change<'_> {
    /// Returns the change after a refusal that no longer counts: the delivery is due now.
    fn anew() -> Self {
        Self { wait: Some(Duration::ZERO), because: Some(Because::Fault), ..Self::default() }
    }
}

impl<'a> From<&'a Next> for Change<'a> {
    fn from(next: &'a Next) -> Self {
        match next {
            Next::Delivered(reference) => {
                Self { state: DELIVERED, reference: Some(reference), ..Self::default() }
            }
            Next::Dead { reason } => {
                Self { state: DEAD, dead_reason: Some(reason), ..Self::default() }
            }
            Next::Retry { wait, because } => Self {
                state: PENDING,
                wait: Some(*wait),
                because: Some(*because),
                ..Self::default()
            },
        }
    }
}

/// Records an outcome, unless another worker holds the lease by now.
pub(super) async fn record(
    store: &SqliteStore,
    lease: Lease,
    outcome: Outcome,
) -> Result<Recorded, Unrecorded> {
    let (id, token) = (lease.delivery().id, lease.token());
    // From here on the lease does not expire, or another worker could repeat the attempt while the
    // outcome of this one is being written.
    if !store.shared.leases.start_recording(id, token) {
        store.shared.stale_leases.increment(1);
        return Ok(Recorded::Stale);
    }
    let before = Before { refusals: lease.delivery().refusals, settings: lease.settings() };
    let (shared, written) = (Arc::clone(&store.shared), outcome.clone());
    let (job, reply) = Write::new(
        move |db, _mode| write(db, id, before, &written),
        // Runs even if the caller no longer waits for the answer.
        move |durable| {
            if durable {
                shared.leases.end(id, token);
            } else {
                shared.leases.stop_recording(id, token);
            }
        },
    );
    store.submit(job.with(Purpose::Finish));
    let recorded = match answer(reply).await {
        Ok(recorded) => recorded,
        Err(source) => return Err(Unrecorded { lease, outcome, source }),
    };
    match recorded {
        Recorded::Kept => {}
        Recorded::Anew => store.shared.hints.wake(Some(&lease.delivery().destination)),
        Recorded::Stale => store.shared.stale_leases.increment(1),
    }
    Ok(recorded)
}

/// State at the time of the lease. A refusal counts only if the state is still the same.
#[derive(Clone, Copy)]
struct Before {
    refusals: Refusals,
    settings: Option<i64>,
}

/// Writes an outcome: the new state of the delivery, and the attempt.
fn write(db: &Db<'_>, id: i64, before: Before, outcome: &Outcome) -> rusqlite::Result<Recorded> {
    // Decided in this transaction: settings and refusals may have changed since the lease.
    let is_anew = outcome.next.is_refusal() && !is_as_before(db, id, before)?;
    let change = if is_anew { Change::anew() } else { Change::from(&outcome.next) };
    let text = |part: fn(&Reference) -> &str| change.reference.map(|all| clean(part(all)));
    let is_refusal = change.because == Some(Because::Refused);
    let due_at = change.wait.map(|wait| (db.now() + wait).micros());
    let number = db
        .statement(
            "UPDATE deliveries SET state = ?2, attempts = attempts + 1,
                alert_faults = alert_faults + ?3, evidence = evidence + ?4,
                due_at = coalesce(?5, due_at), wait = coalesce(?5 - ?6, wait), because = ?7,
                finished_at = ?8, dead_reason = ?9, reference_id = ?10, reference_url = ?11
             WHERE id = ?1 AND state = 0 RETURNING attempts",
        )?
        .query_row(
            params![
                id,
                change.state,
                i64::from(is_refusal),
                i64::from(is_refusal && before.refusals.accepted),
                due_at,
                db.now().micros(),
                change.because.map_or(0, because_number),
                (change.state != PENDING).then(|| db.now().micros()),
                change.dead_reason,
                text(|reference| &reference.id),
                text(|reference| &reference.url),
            ],
            |row| row.get(0),
        )
        .optional()?;
    // The lease had expired, and the delivery was ended meanwhile, for example by an operator.
    let Some(number) = number else { return Ok(Recorded::Stale) };
    if let Some(Projection { level, search }) = &outcome.projection {
        db.execute(
            "UPDATE alerts SET level = ?2, search = ?3 WHERE seq = ?1 AND search IS NOT NULL",
            params![id / PER_ALERT, level, clean(search)],
        )?;
    }
    if change.state == DELIVERED {
        note_acceptance(db, id % PER_ALERT, before.settings)?;
    }
    log(db, id, number, &outcome.attempt)?;
    Ok(if is_anew { Recorded::Anew } else { Recorded::Kept })
}

/// The largest number of refused deliveries that one acceptance marks. The next acceptance marks
/// others; late evidence only delays a dead letter.
const MARKED_MAX: usize = 1000;

/// Marks the refused deliveries of a destination, after it has accepted another alert under the
/// settings that are still in use.
fn note_acceptance(db: &Db<'_>, destination: i64, settings: Option<i64>) -> rusqlite::Result<()> {
    // Nearly always there is nothing to mark, and a look costs a third of an update.
    let mut are_any = db.statement(
        "SELECT 1 FROM deliveries INDEXED BY deliveries_refused
         WHERE destination = ?1 AND accepted = 0 AND state = 0 AND alert_faults > 0",
    )?;
    if !are_any.exists([destination])? {
        return Ok(());
    }
    db.execute(
        "UPDATE deliveries SET accepted = 1 WHERE id IN (
            SELECT id FROM deliveries INDEXED BY deliveries_refused
            WHERE destination = ?1 AND accepted = 0 AND state = 0 AND alert_faults > 0
            LIMIT ?2)
            AND ?3 IS (SELECT settings FROM destinations WHERE id = ?1)",
        params![destination, MARKED_MAX, settings],
    )
    .map(drop)
}

/// Returns `true` if settings and refusals are the same as at the time of the lease, so that this
/// refusal counts.
fn is_as_before(db: &Db<'_>, id: i64, before: Before) -> rusqlite::Result<bool> {
    let Before { refusals, settings } = before;
    db.statement(
        "SELECT 1 FROM deliveries d JOIN destinations t ON t.id = d.destination
         WHERE d.id = ?1 AND t.settings IS ?2 AND d.alert_faults = ?3 AND d.evidence = ?4",
    )?
    .exists(params![id, settings, refusals.count, refusals.evidence])
}

fn log(db: &Db<'_>, delivery: i64, number: u32, attempt: &Attempt) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO attempts (delivery, number, started_at, duration, class, status, excerpt)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            delivery,
            number,
            attempt.started_at.micros(),
            i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX),
            attempt.class,
            attempt.status,
            excerpt(&attempt.excerpt),
        ],
    )?;
    if let Some(oldest) = number.checked_sub(ATTEMPTS_KEPT).filter(|oldest| *oldest > 0) {
        db.execute(
            "DELETE FROM attempts WHERE delivery = ?1 AND number <= ?2",
            params![delivery, oldest],
        )?;
    }
    Ok(())
}
