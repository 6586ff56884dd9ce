//! Feeds: deliveries get numbers, readers get pages of them, and passed numbers count as delivered.

use async_trait::async_trait;
use tokio_postgres::types::Type;

use super::{
    database::{Param, Priority},
    deliver::{Bodies, delivery},
    row::{alert_id, get, time},
    shared::Shared,
    store::PostgresStore,
};
use crate::{
    ids::{AlertId, DestinationName, MessageTs},
    store::{
        FEED_PAGE_MAX_BYTES, FeedPage, Feeds, StoreError, Taken, feed::Entries, stored::clean,
    },
};

/// The most deliveries that one transaction changes, so that other writers do not wait for long.
const PIECE: i64 = 1000;

/// Lets one transaction at a time number a feed's deliveries, so that a reader who sees a number
/// sees all numbers before it. The first argument is arbitrary and used for nothing else.
const LOCK: &str = "SELECT pg_advisory_xact_lock(1182090308, id) FROM relay.destinations \
    WHERE name = $1";

/// Selects the end of the feed, whether it is paused, and whether a delivery waits for a number.
pub(super) const STATE: &str = "
    WITH clock AS (SELECT relay.now_us($1) AS now)
    SELECT greatest(t.numbered, clock.now), t.paused_at IS NOT NULL, EXISTS (
        SELECT 1 FROM relay.deliveries d
        WHERE d.destination = t.id AND d.state = :PENDING AND d.due_at <= clock.now
            AND d.number IS NULL
            AND (d.leased_until IS NULL OR d.leased_until <= least(clock.now, $3)))
    FROM relay.destinations t, clock WHERE t.name = $2";

const NUMBER: &str = "
    WITH clock AS (SELECT relay.now_us($1) AS now),
    t AS (SELECT id, numbered FROM relay.destinations WHERE name = $2 AND paused_at IS NULL),
    waiting AS (
        SELECT d.id, d.due_at FROM relay.deliveries d
        WHERE d.destination = (SELECT id FROM t) AND d.state = :PENDING
            AND d.due_at <= (SELECT now FROM clock) AND d.number IS NULL
            AND (d.leased_until IS NULL
                OR d.leased_until <= (SELECT least(now, $5) FROM clock))
        ORDER BY d.due_at, d.id LIMIT $4 FOR UPDATE SKIP LOCKED),
    new AS (
        SELECT w.id, greatest(t.numbered, clock.now, $3)
            + row_number() OVER (ORDER BY w.due_at, w.id) AS number
        FROM waiting w, t, clock),
    done AS (
        UPDATE relay.deliveries d SET number = new.number FROM new WHERE d.id = new.id
        RETURNING d.number)
    UPDATE relay.destinations SET numbered = last.number
    FROM (SELECT max(number) AS number FROM done) AS last
    WHERE name = $2 AND last.number IS NOT NULL";

/// Selects a page. `before` is the size of the bodies in the rows before; only the first row of
/// each message contains the body.
pub(super) const PAGE: &str = "
    SELECT * FROM (
    SELECT a.key, a.ordinal, d.id, d.attempts::int8, d.alert_faults::int8, d.since + t.paused_for,
        a.attachment, m.received_at, m.posted_at, m.source::int8, m.event_id, m.team,
        CASE WHEN row_number() OVER (PARTITION BY m.id ORDER BY d.number) = 1 THEN m.raw END,
        a.level, coalesce(a.search, ''), d.evidence::int8, d.accepted, d.number,
        sum(octet_length(m.raw)) OVER (ORDER BY d.number) - octet_length(m.raw) AS before
    FROM relay.destinations t CROSS JOIN LATERAL (
        (SELECT * FROM relay.deliveries p WHERE p.destination = t.id AND p.state = :PENDING
            AND p.number > $2 ORDER BY p.number LIMIT $3)
        UNION ALL
        (SELECT * FROM relay.deliveries p WHERE p.destination = t.id AND p.state = :DELIVERED
            AND p.number > $2 ORDER BY p.number LIMIT $3)) d
    JOIN relay.alerts a ON a.seq = d.id / :PER_ALERT
    JOIN relay.messages m ON m.id = d.id / :PER_ALERT / :PER_MESSAGE
    WHERE t.name = $1 AND t.paused_at IS NULL ORDER BY d.number LIMIT $3) page
    WHERE before < $4 ORDER BY number";

pub(super) const TAKEN: &str = "
    WITH clock AS (SELECT relay.now_us($1) AS now),
    given AS (
        SELECT d.id FROM relay.deliveries d
        WHERE d.destination = (SELECT id FROM relay.destinations WHERE name = $2)
            AND d.state = :PENDING AND d.number <= $3
        ORDER BY d.number LIMIT $4 FOR UPDATE),
    done AS (
        UPDATE relay.deliveries d
        SET state = :DELIVERED, finished_at = clock.now, token = NULL, leased_until = NULL
        FROM given, clock WHERE d.id = given.id RETURNING d.id, d.number)
    SELECT a.key, a.ordinal, m.received_at, m.posted_at
    FROM done JOIN relay.alerts a ON a.seq = done.id / :PER_ALERT
    JOIN relay.messages m ON m.id = done.id / :PER_ALERT / :PER_MESSAGE ORDER BY done.number";

const GIVE_UP: &str = "
    WITH clock AS (SELECT relay.now_us($1) AS now),
    selected AS (
        SELECT a.seq * :PER_ALERT + t.id AS id
        FROM unnest($3, $4) AS g (key, ordinal)
        JOIN relay.alerts a ON a.key = g.key AND a.ordinal = g.ordinal
        JOIN relay.destinations t ON t.name = $2),
    found AS (
        SELECT d.id FROM relay.deliveries d JOIN selected ON selected.id = d.id
        WHERE d.state = :PENDING
            AND (d.leased_until IS NULL
                OR d.leased_until <= (SELECT least(now, $6) FROM clock))
        ORDER BY d.id FOR UPDATE OF d),
    ended AS (
        UPDATE relay.deliveries d
        SET state = :DEAD, finished_at = clock.now, dead_reason = $5, token = NULL
        FROM found, clock WHERE d.id = found.id RETURNING d.id)
    SELECT a.key, a.ordinal FROM ended JOIN relay.alerts a ON a.seq = ended.id / :PER_ALERT";

#[async_trait]
impl Feeds for PostgresStore {
    async fn feed_page(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: usize,
    ) -> Result<FeedPage, StoreError> {
        let shared = &self.shared;
        let name = destination.as_str();
        let now = shared.now();
        let judged = shared.lease_time();
        let params: [Param<'_>; _] =
            [(&now, Type::INT8), (&name, Type::TEXT), (&judged, Type::INT8)];
        let rows = shared.database.run(Priority::Urgent, STATE, &params).await?;
        // A destination without deliveries may not be stored yet.
        let Some(row) = rows.first() else {
            let end = shared.clock.now().micros();
            return Ok(Entries::default().page(end));
        };
        let end: i64 = get(row, 0)?;
        // Nothing is numbered for a reader with a number from the future: each new number would
        // have to follow that one.
        if get(row, 1)? || after > end {
            return Ok(Entries::default().page(end));
        }
        let mut entries = look(shared, destination, after, limit).await?;
        if get(row, 2)? && entries.has_room() && entries.len() < limit {
            number(shared, name, after, limit - entries.len()).await?;
            // Read again, so that a page shows a number only after the commit.
            entries = look(shared, destination, after, limit).await?;
        }
        Ok(entries.page(end))
    }

    async fn feed_taken(
        &self,
        destination: &DestinationName,
        up_to: i64,
    ) -> Result<Vec<Taken>, StoreError> {
        let shared = &self.shared;
        let now = shared.now();
        let name = destination.as_str();
        let params: [Param<'_>; _] =
            [(&now, Type::INT8), (&name, Type::TEXT), (&up_to, Type::INT8), (&PIECE, Type::INT8)];
        let rows = shared.database.run(Priority::Urgent, TAKEN, &params).await?;
        rows.iter()
            .map(|row| {
                Ok(Taken {
                    alert: alert_id(row, 0)?,
                    received_at: time(row, 2)?,
                    posted_at: MessageTs::from_micros(get(row, 3)?),
                })
            })
            .collect()
    }

    async fn give_up(
        &self,
        destination: &DestinationName,
        alerts: &[AlertId],
        reason: &'static str,
    ) -> Result<Vec<AlertId>, StoreError> {
        let shared = &self.shared;
        let now = shared.now();
        let name = destination.as_str();
        let judged = shared.lease_time();
        let keys: Vec<String> =
            alerts.iter().map(|alert| clean(&alert.message.to_string()).into_owned()).collect();
        let ordinals: Vec<i64> = alerts.iter().map(|alert| i64::from(alert.ordinal)).collect();
        let params: [Param<'_>; _] = [
            (&now, Type::INT8),
            (&name, Type::TEXT),
            (&keys, Type::TEXT_ARRAY),
            (&ordinals, Type::INT8_ARRAY),
            (&reason, Type::TEXT),
            (&judged, Type::INT8),
        ];
        let rows = shared.database.run(Priority::Urgent, GIVE_UP, &params).await?;
        rows.iter().map(|row| alert_id(row, 0)).collect()
    }
}

async fn look(
    shared: &Shared,
    destination: &DestinationName,
    after: i64,
    limit: usize,
) -> Result<Entries, StoreError> {
    let name = destination.as_str();
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let bytes = i64::try_from(FEED_PAGE_MAX_BYTES).unwrap_or(i64::MAX);
    let params: [Param<'_>; _] =
        [(&name, Type::TEXT), (&after, Type::INT8), (&limit, Type::INT8), (&bytes, Type::INT8)];
    let rows = shared.database.run(Priority::Urgent, PAGE, &params).await?;
    let mut entries = Entries::default();
    let mut bodies = Bodies::default();
    for row in &rows {
        entries.push(get(row, 17)?, delivery(row, destination, &mut bodies)?);
    }
    Ok(entries)
}

async fn number(shared: &Shared, name: &str, after: i64, limit: usize) -> Result<(), StoreError> {
    let now = shared.now();
    let judged = shared.lease_time();
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut transaction = shared.database.begin(Priority::Urgent).await?;
    transaction.query(LOCK, &[(&name, Type::TEXT)]).await?;
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&name, Type::TEXT),
        (&after, Type::INT8),
        (&limit, Type::INT8),
        (&judged, Type::INT8),
    ];
    transaction.query(NUMBER, &params).await?;
    transaction.commit().await
}
