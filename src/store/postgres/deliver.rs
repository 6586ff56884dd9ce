//! Leases of due deliveries, and the queue's other calls.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio_postgres::{Row, types::Type};

use super::{
    database::{Param, Priority},
    operate, record, reschedule,
    row::{alert_id, bytes, get, small, time},
    shared::{Shared, reply_of},
    store::PostgresStore,
};
use crate::{
    clock::Timestamp,
    ids::{AlertId, DestinationName, MessageTs},
    store::{
        Delivery, Hasten, Lease, Outcome, Projection, Queue, Recorded, Refusals, StoreError,
        Unrecorded,
        sql::PER_MESSAGE,
        stored::{PER_ALERT, source_of},
    },
};

/// Statement that leases the deliveries of destination `t` which the query `$due` selects, and
/// returns them in the given order. Only the first row of each message contains the body.
macro_rules! claim {
    ($due:literal, $order:literal) => {
        concat!(
            "
WITH clock AS (SELECT relay.now_us($1) AS now),
judged AS (SELECT least(now, $6) AS now FROM clock),
t AS (SELECT id, paused_for, settings FROM relay.destinations
    WHERE name = $2 AND paused_at IS NULL),
due AS (",
            $due,
            "),
mine AS (
    UPDATE relay.deliveries d SET token = $4, leased_until = (SELECT now FROM clock) + $5
    FROM due WHERE d.id = due.id
    RETURNING d.id, d.due_at, d.attempts, d.alert_faults, d.since, d.evidence, d.accepted)
SELECT a.key, a.ordinal, d.id, d.attempts::int8, d.alert_faults::int8, d.since + t.paused_for,
    a.attachment, m.received_at, m.posted_at, m.source::int8, m.event_id, m.team,
    CASE WHEN row_number() OVER (PARTITION BY m.id ORDER BY ",
            $order,
            ") = 1 THEN m.raw END,
    a.level, coalesce(a.search, ''), d.evidence::int8, d.accepted, t.settings
FROM mine d JOIN relay.alerts a ON a.seq = d.id / :PER_ALERT
JOIN relay.messages m ON m.id = d.id / :PER_ALERT / :PER_MESSAGE CROSS JOIN t
ORDER BY ",
            $order
        )
    };
}

pub(super) const CLAIM: &str = claim!(
    "
    SELECT d.id FROM relay.deliveries d
    WHERE d.destination = (SELECT id FROM t) AND d.state = :PENDING
        AND d.due_at <= (SELECT now FROM clock)
        AND (d.leased_until IS NULL OR d.leased_until <= (SELECT now FROM judged))
    ORDER BY d.due_at, d.id LIMIT $3 FOR UPDATE SKIP LOCKED",
    "d.due_at, d.id"
);

/// Leases the oldest delivery. The oldest 64 are found in the index of pending deliveries; most of
/// them can be leased, so the query reads few rows.
const CLAIM_OLDEST: &str = claim!(
    "
    SELECT d.id FROM relay.deliveries d
    WHERE d.id IN (
            SELECT o.id FROM relay.deliveries o
            WHERE o.destination = (SELECT id FROM t) AND o.state = :PENDING ORDER BY o.id LIMIT 64)
        AND d.state = :PENDING
        AND (d.due_at <= (SELECT now FROM clock)
            OR (d.attempts > 0 AND d.because = :DESTINATION_FAULT))
        AND (d.leased_until IS NULL OR d.leased_until <= (SELECT now FROM judged))
    ORDER BY d.id LIMIT $3 FOR UPDATE SKIP LOCKED",
    "d.id"
);

#[async_trait]
impl Queue for PostgresStore {
    async fn lease_due(
        &self,
        destination: &DestinationName,
        n: usize,
    ) -> Result<Vec<Lease>, StoreError> {
        let shared = &self.shared;
        lease(shared, CLAIM, destination, n).await
    }

    async fn lease_oldest(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Lease>, StoreError> {
        let shared = &self.shared;
        lease(shared, CLAIM_OLDEST, destination, 1).await.map(|mut leases| leases.pop())
    }

    async fn next_due(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Timestamp>, StoreError> {
        const SQL: &str = "
            WITH clock AS (SELECT relay.now_us($1) AS now),
            t AS (SELECT id FROM relay.destinations WHERE name = $2 AND paused_at IS NULL)
            SELECT coalesce(
                (SELECT d.due_at - now FROM relay.deliveries d
                 WHERE d.destination = (SELECT id FROM t) AND d.state = :PENDING
                    AND (d.leased_until IS NULL
                        OR d.leased_until <= (SELECT least(now, $3) FROM clock))
                 ORDER BY d.due_at, d.id LIMIT 1),
                (SELECT min(d.leased_until) - least(now, $3) FROM relay.deliveries d
                 WHERE d.destination = (SELECT id FROM t) AND d.state = :PENDING)
            ) FROM clock";
        let shared = &self.shared;
        let now = shared.now();
        let name = destination.as_str();
        let judged = shared.lease_time();
        // Only the distance comes from the database, so a difference between the clocks does no
        // harm. Read before the query, so that a worker wakes too early rather than too late.
        let local = shared.clock.now();
        let params: [Param<'_>; _] =
            [(&now, Type::INT8), (&name, Type::TEXT), (&judged, Type::INT8)];
        let rows = shared.database.run(Priority::Urgent, SQL, &params).await?;
        let distance: Option<i64> = rows.first().map(|row| get(row, 0)).transpose()?.flatten();
        Ok(distance.map(|distance| Timestamp::from_micros(local.micros().saturating_add(distance))))
    }

    async fn release(&self, lease: Lease) {
        const SQL: &str = "UPDATE relay.deliveries SET token = NULL, leased_until = NULL
            WHERE id = $1 AND token = $2 AND state = :PENDING";
        let shared = &self.shared;
        let id = lease.delivery().id;
        let token = lease.token().cast_signed();
        let params: [Param<'_>; _] = [(&id, Type::INT8), (&token, Type::INT8)];
        match shared.database.run(Priority::Urgent, SQL, &params).await {
            Ok(_) => shared.wake_all(Some(&lease.delivery().destination)).await,
            Err(error) => tracing::debug!(%error, "could not release a lease; it ends by itself"),
        }
    }

    async fn record(&self, lease: Lease, outcome: Outcome) -> Result<Recorded, Unrecorded> {
        let (job, answered) = record::Job::new(&lease, outcome.clone());
        let recorded = match self.submit_outcome(job) {
            Ok(()) => reply_of(answered).await,
            Err(error) => Err(error),
        };
        match recorded {
            Ok(Recorded::Kept) => {}
            Ok(Recorded::Anew) => self.shared.wake_all(Some(&lease.delivery().destination)).await,
            Ok(Recorded::Stale) => self.shared.stale_leases.increment(1),
            Err(source) => return Err(Unrecorded { lease, outcome, source }),
        }
        // Errors were returned above.
        Ok(recorded.unwrap_or(Recorded::Stale))
    }

    fn due_hint(&self, destination: &DestinationName) -> Arc<Notify> {
        self.shared.hints.of(destination)
    }

    async fn expire(
        &self,
        destination: &DestinationName,
        max_age: Duration,
        reason: &'static str,
    ) -> Result<Vec<AlertId>, StoreError> {
        operate::expire(&self.shared, destination, max_age, reason).await
    }

    async fn hasten(
        &self,
        destination: &DestinationName,
        which: Hasten,
    ) -> Result<u64, StoreError> {
        reschedule::make_due(&self.shared, destination, which).await
    }

    async fn note_settings(
        &self,
        destination: &DestinationName,
        mark: u16,
    ) -> Result<u64, StoreError> {
        reschedule::note_settings(&self.shared, destination, mark).await
    }
}

async fn lease(
    shared: &Shared,
    claim: &str,
    destination: &DestinationName,
    n: usize,
) -> Result<Vec<Lease>, StoreError> {
    // The lease ends by the database's clock and begins within the query. The holder counts from
    // before the query, so it stops relying on the lease before the lease ends.
    let expires_at = shared.clock.moment() + shared.lease;
    // PostgreSQL has no unsigned integers, so the token is stored as a signed one.
    let token = shared.clock.token();
    let name = destination.as_str();
    let now = shared.now();
    let lease = shared.lease_us();
    let limit = i64::try_from(n).unwrap_or(i64::MAX);
    let signed = token.cast_signed();
    let judged = shared.lease_time();
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&name, Type::TEXT),
        (&limit, Type::INT8),
        (&signed, Type::INT8),
        (&lease, Type::INT8),
        (&judged, Type::INT8),
    ];
    let rows = shared.database.run(Priority::Urgent, claim, &params).await?;
    let mut bodies = Bodies::default();
    rows.iter()
        .map(|row| {
            let delivery = delivery(row, destination, &mut bodies)?;
            Ok(Lease::new(delivery, get(row, 17)?, token, expires_at))
        })
        .collect()
}

/// Bodies of the rows so far, by the numbers of their messages.
#[derive(Default)]
pub(super) struct Bodies(HashMap<i64, Bytes>);

/// The numbers of a message's deliveries, divided by this, are the number of the message.
const DELIVERIES_PER_MESSAGE: i64 = PER_MESSAGE * PER_ALERT;

impl Bodies {
    /// Returns the body of a delivery's message, from this row or from an earlier row of the
    /// message.
    fn of(&mut self, delivery: i64, body: Option<Bytes>) -> Bytes {
        let known = self.0.entry(delivery / DELIVERIES_PER_MESSAGE).or_default();
        if let Some(body) = body {
            *known = body;
        }
        known.clone()
    }
}

/// Returns the delivery in the first seventeen columns of a row.
pub(super) fn delivery(
    row: &Row,
    destination: &DestinationName,
    bodies: &mut Bodies,
) -> Result<Delivery, StoreError> {
    let id = get(row, 2)?;
    Ok(Delivery {
        alert: alert_id(row, 0)?,
        destination: destination.clone(),
        id,
        attempts: small(row, 3)?,
        refusals: Refusals {
            count: small(row, 4)?,
            evidence: small(row, 15)?,
            accepted: get(row, 16)?,
        },
        pending_since: time(row, 5)?,
        attachment: small(row, 6)?,
        received_at: time(row, 7)?,
        posted_at: MessageTs::from_micros(get(row, 8)?),
        source: source_of(get(row, 9)?),
        event_id: get(row, 10)?,
        team: get(row, 11)?,
        raw: bodies.of(id, bytes(row, 12)?),
        projection: Projection { level: get(row, 13)?, search: get(row, 14)? },
    })
}
