//! Views for operators and metrics: alerts, lists and statistics.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use tokio_postgres::{Row, types::Type};

use super::{
    database::{Param, Priority},
    operate::{self, find_alert},
    pause,
    row::{alert_id, bytes, count, destination, get, small, time},
    shared::Shared,
    store::PostgresStore,
};
use crate::{
    clock::Timestamp,
    ids::{AlertId, DestinationName, MessageTs},
    store::{
        Action, AlertQuery, AlertView, AttemptView, Changes, Deed, DeliveryView, Desk,
        DestinationStats, OperatorAction, REFUSALS, Reference, Revision, Routed, Selection, State,
        Stats, StoreError,
        search::Search,
        stored::{CANCELLED, DEAD, DELIVERED, PENDING, PER_ALERT, source_of, sources_of},
    },
};

/// Rows that one query of a list reads.
const STEP: i64 = 500;

#[async_trait]
impl Desk for PostgresStore {
    async fn alert(&self, id: &AlertId) -> Result<Option<AlertView>, StoreError> {
        let shared = &self.shared;
        let Some(seq) = find_alert(shared, Priority::Background, id).await? else {
            return Ok(None);
        };
        let Some(mut view) = by_seqs(shared, &[seq]).await?.pop() else {
            return Ok(None);
        };
        let raw = "SELECT raw FROM relay.messages WHERE id = $1 / :PER_MESSAGE";
        let rows = shared.database.run(Priority::Background, raw, &[(&seq, Type::INT8)]).await?;
        view.raw = rows.first().map(|row| bytes(row, 0)).transpose()?.flatten();
        view.revisions = revisions(shared, seq).await?;
        attempts(shared, seq, &mut view.deliveries).await?;
        Ok(Some(view))
    }

    async fn alerts(&self, query: AlertQuery) -> Result<Vec<AlertView>, StoreError> {
        let shared = &self.shared;
        let wanted = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let mut search = query.text.as_deref().map(Search::new);
        let others = if search.is_some() { other_ids(shared).await? } else { HashMap::new() };
        let sql = list_query(&query);
        let now = shared.now();
        let judged = shared.lease_time();
        let mut before = query.before.unwrap_or(i64::MAX / PER_ALERT);
        let configured: Option<Vec<&str>> =
            query.configured.as_ref().map(|all| all.iter().map(DestinationName::as_str).collect());
        let mut found: Vec<i64> = Vec::new();
        while found.len() < wanted {
            let params: [Param<'_>; _] = [
                (&now, Type::INT8),
                (&before, Type::INT8),
                (&query.level, Type::TEXT),
                (&STEP, Type::INT8),
                (&configured, Type::TEXT_ARRAY),
                (&judged, Type::INT8),
            ];
            let rows = shared.database.run(Priority::Background, &sql, &params).await?;
            let Some(last) = rows.last() else { break };
            before = get(last, 3)?;
            for row in &rows {
                // Compared here and not in SQL, so that both engines ignore case in the same way.
                if matches(row, search.as_mut(), &others)? {
                    found.push(get(row, 3)?);
                }
            }
        }
        found.truncate(wanted);
        by_seqs(shared, &found).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        const USED: &str = "
            SELECT sum(pg_total_relation_size(c.oid))::int8 FROM pg_class c
            WHERE c.relkind = 'r' AND c.relnamespace = 'relay'::regnamespace";
        let shared = &self.shared;
        let pause = pause::COLUMNS;
        // Pending and dead deliveries are counted by their indexes, so only a long backlog takes
        // long.
        let sql = format!(
            "WITH clock AS (SELECT least(relay.now_us($1), $3) AS now),
            waiting AS (
                SELECT d.destination, count(*) AS number, min(d.id) AS oldest,
                    count(*) FILTER (WHERE d.leased_until > (SELECT now FROM clock)) AS leased,
                    count(*) FILTER (WHERE d.alert_faults >= $2
                        AND (d.leased_until > (SELECT now FROM clock)) IS NOT TRUE) AS refused
                FROM relay.deliveries d WHERE d.state = :PENDING GROUP BY d.destination),
            dead AS (
                SELECT d.destination, count(*) AS number FROM relay.deliveries d
                WHERE d.state >= :DEAD AND d.state = :DEAD GROUP BY d.destination)
            SELECT t.name, coalesce(w.number - w.leased - w.refused, 0), coalesce(w.leased, 0),
                coalesce(x.number, 0), m.received_at, coalesce(w.refused, 0), {pause}
            FROM relay.destinations t
            LEFT JOIN waiting w ON w.destination = t.id
            LEFT JOIN dead x ON x.destination = t.id
            LEFT JOIN relay.messages m ON m.id = w.oldest / :PER_ALERT / :PER_MESSAGE
            WHERE w.number > 0 OR x.number > 0 OR t.paused_at IS NOT NULL
            ORDER BY t.name"
        );
        let now = shared.now();
        let judged = shared.lease_time();
        let refusals = i64::from(REFUSALS);
        let params: [Param<'_>; _] =
            [(&now, Type::INT8), (&refusals, Type::INT8), (&judged, Type::INT8)];
        let rows = shared.database.run(Priority::Background, &sql, &params).await?;
        let one = |row: &Row| {
            let stats = DestinationStats {
                pending: count(row, 1)?,
                leased: count(row, 2)?,
                dead: count(row, 3)?,
                oldest_pending: get::<Option<i64>>(row, 4)?.map(Timestamp::from_micros),
                refused: count(row, 5)?,
                pause: pause::view(row, 6)?,
            };
            Ok((destination(row, 0)?, stats))
        };
        let destinations = rows.iter().map(one).collect::<Result<_, StoreError>>()?;
        let rows = shared.database.run(Priority::Background, USED, &[]).await?;
        let used_bytes = rows.first().map_or(Ok(0), |row| count(row, 0))?;
        let problem = String::new();
        // PostgreSQL does not tell how much space is left on its disk.
        Ok(Stats { destinations, used_bytes, free_bytes: u64::MAX - used_bytes, problem })
    }

    async fn act(
        &self,
        selection: Selection,
        action: Action,
        deed: Option<OperatorAction>,
    ) -> Result<Changes, StoreError> {
        operate::act(self, &selection, action, deed).await
    }

    async fn route(
        &self,
        alert: &AlertId,
        destinations: &[DestinationName],
        deed: Option<Deed>,
    ) -> Result<Routed, StoreError> {
        operate::route(&self.shared, alert, destinations, deed.as_ref()).await
    }
}

/// Returns the query for the next rows of a list, newest first: key, ordinal, search, seq.
fn list_query(query: &AlertQuery) -> String {
    let is_known = "($5::text[] IS NULL
        OR d.destination IN (SELECT id FROM relay.destinations WHERE name = ANY ($5)))";
    let leased = "d.leased_until > (SELECT now FROM clock)";
    let is_free = format!("({leased}) IS NOT TRUE AND {is_known}");
    let not_paused = "d.destination IN (SELECT id FROM relay.destinations WHERE paused_at IS NULL)";
    let among = |which: &str| {
        format!("AND a.seq IN (SELECT d.id / :PER_ALERT FROM relay.deliveries d WHERE {which})")
    };
    let by_state = match query.state {
        None => String::new(),
        Some(State::Pending) => among(&format!(
            "d.state = :PENDING AND {is_free} AND {not_paused} AND d.alert_faults < {REFUSALS}"
        )),
        Some(State::Refused) => among(&format!(
            "d.state = :PENDING AND {is_free} AND {not_paused} AND d.alert_faults >= {REFUSALS}"
        )),
        Some(State::Paused) => among(&format!(
            "d.state = :PENDING AND {is_free} AND NOT ({not_paused}) AND {is_known}"
        )),
        Some(State::Leased) => among(&format!("d.state = :PENDING AND {leased} AND {is_known}")),
        Some(State::Orphaned) => {
            among(&format!("d.state IN (:PENDING, :DEAD) AND NOT ({is_known})"))
        }
        // Nearly all alerts have a delivered one, so each row is checked by itself.
        Some(State::Delivered) => "AND EXISTS (SELECT 1 FROM relay.deliveries d
            WHERE d.id BETWEEN a.seq * :PER_ALERT AND (a.seq + 1) * :PER_ALERT - 1
                AND d.state = :DELIVERED)"
            .to_owned(),
        Some(State::Dead) => among(&format!("d.state >= :DEAD AND d.state = :DEAD AND {is_known}")),
        Some(State::Cancelled) => among("d.state >= :DEAD AND d.state = :CANCELLED"),
    };
    let unrouted = if query.unrouted {
        "AND NOT EXISTS (SELECT 1 FROM relay.deliveries e
            WHERE e.id BETWEEN a.seq * :PER_ALERT AND (a.seq + 1) * :PER_ALERT - 1)"
    } else {
        ""
    };
    format!(
        "WITH clock AS (SELECT least(relay.now_us($1), $6) AS now)
         SELECT a.key, a.ordinal, a.search, a.seq FROM relay.alerts a
         WHERE a.seq < $2 AND a.search IS NOT NULL
            AND ($5::text[] IS NULL OR cardinality($5) >= 0) AND ($3::text IS NULL OR a.level = $3)
         {by_state} {unrouted} ORDER BY a.seq DESC LIMIT $4"
    )
}

/// Returns the other ids of each channel whose id has changed, as `app:channel` by `app:channel`.
async fn other_ids(shared: &Shared) -> Result<HashMap<String, Vec<String>>, StoreError> {
    const SQL: &str = "
        SELECT c.app || ':' || c.channel, o.app || ':' || o.channel
        FROM relay.chains c JOIN relay.chains o ON o.app = c.app AND o.first = c.first
        WHERE o.channel <> c.channel";
    let mut others: HashMap<String, Vec<String>> = HashMap::new();
    for row in &shared.database.run(Priority::Background, SQL, &[]).await? {
        others.entry(get(row, 0)?).or_default().push(get(row, 1)?);
    }
    Ok(others)
}

fn matches(
    row: &Row,
    search: Option<&mut Search>,
    others: &HashMap<String, Vec<String>>,
) -> Result<bool, StoreError> {
    let Some(search) = search else {
        return Ok(true);
    };
    if search.is_in(get(row, 2)?) {
        return Ok(true);
    }
    let key = get::<&str>(row, 0)?;
    let ordinal = small(row, 1)?;
    // The text of the alert's id, without allocating one for each row.
    if search.is_in_display(format_args!("{key}:{ordinal}")) {
        return Ok(true);
    }
    let Some((begin, ts)) = key.rsplit_once(':') else {
        return Ok(false);
    };
    let mut begins = others.get(begin).into_iter().flatten();
    Ok(begins.any(|begin| search.is_in_display(format_args!("{begin}:{ts}:{ordinal}"))))
}

/// Returns alerts with their deliveries, newest first, without raw message, revisions and attempts.
async fn by_seqs(shared: &Shared, seqs: &[i64]) -> Result<Vec<AlertView>, StoreError> {
    const SQL: &str = "
        SELECT a.key, a.ordinal, a.seq, a.attachment, a.sources::int8, a.level,
            coalesce(a.search, ''), m.received_at, m.posted_at, m.source::int8, m.event_id, m.team
        FROM relay.alerts a JOIN relay.messages m ON m.id = a.seq / :PER_MESSAGE
        WHERE a.seq = ANY ($1) ORDER BY a.seq DESC";
    let rows = shared.database.run(Priority::Background, SQL, &[(&seqs, Type::INT8_ARRAY)]).await?;
    let mut views = rows.iter().map(view).collect::<Result<Vec<_>, _>>()?;
    for (seq, delivery) in deliveries(shared, seqs).await? {
        if let Some(owner) = views.iter_mut().find(|view| view.seq == seq) {
            owner.deliveries.push(delivery);
        }
    }
    Ok(views)
}

fn view(row: &Row) -> Result<AlertView, StoreError> {
    Ok(AlertView {
        id: alert_id(row, 0)?,
        seq: get(row, 2)?,
        attachment: small(row, 3)?,
        sources: sources_of(get(row, 4)?),
        level: get(row, 5)?,
        search: get(row, 6)?,
        received_at: time(row, 7)?,
        posted_at: MessageTs::from_micros(get(row, 8)?),
        source: source_of(get(row, 9)?),
        event_id: get(row, 10)?,
        team: get(row, 11)?,
        raw: None,
        revisions: Vec::new(),
        deliveries: Vec::new(),
    })
}

async fn deliveries(shared: &Shared, seqs: &[i64]) -> Result<Vec<(i64, DeliveryView)>, StoreError> {
    const SQL: &str = "
        SELECT d.id / :PER_ALERT, t.name, d.state::int8,
            d.leased_until > least(relay.now_us($1), $3),
            d.attempts::int8, d.due_at, d.finished_at, coalesce(d.dead_reason, ''),
            coalesce(d.reference_id, ''), coalesce(d.reference_url, ''),
            d.alert_faults::int8, t.paused_at IS NOT NULL
        FROM unnest($2) AS s (seq)
        JOIN relay.deliveries d ON d.id BETWEEN s.seq * :PER_ALERT AND (s.seq + 1) * :PER_ALERT - 1
        JOIN relay.destinations t ON t.id = d.destination
        ORDER BY t.name";
    let now = shared.now();
    let judged = shared.lease_time();
    let params: [Param<'_>; _] =
        [(&now, Type::INT8), (&seqs, Type::INT8_ARRAY), (&judged, Type::INT8)];
    let rows = shared.database.run(Priority::Urgent, SQL, &params).await?;
    let one = |row: &Row| {
        // A lease comes first: its attempt goes on even if the destination is paused meanwhile.
        let state = match get(row, 2)? {
            PENDING if get::<Option<bool>>(row, 3)? == Some(true) => State::Leased,
            PENDING if get(row, 11)? => State::Paused,
            PENDING if small(row, 10)? >= REFUSALS => State::Refused,
            DELIVERED => State::Delivered,
            DEAD => State::Dead,
            CANCELLED => State::Cancelled,
            _ => State::Pending,
        };
        let delivery = DeliveryView {
            destination: destination(row, 1)?,
            state,
            attempts: small(row, 4)?,
            due_at: state.is_waiting().then_some(time(row, 5)?),
            finished_at: get::<Option<i64>>(row, 6)?.map(Timestamp::from_micros),
            dead_reason: get(row, 7)?,
            reference: Reference { id: get(row, 8)?, url: get(row, 9)? },
            log: Vec::new(),
        };
        Ok((get(row, 0)?, delivery))
    };
    rows.iter().map(one).collect()
}

/// Returns the revisions of the alert's message. They may belong to any row of the message: an edit
/// may have brought alerts later.
async fn revisions(shared: &Shared, seq: i64) -> Result<Vec<Revision>, StoreError> {
    const SQL: &str = "
        SELECT r.received_at, r.raw FROM relay.revisions r WHERE r.message IN (
            SELECT b.seq / :PER_MESSAGE FROM relay.alerts a JOIN relay.alerts b ON b.key = a.key
            WHERE a.seq = $1)
        ORDER BY r.id";
    let rows = shared.database.run(Priority::Background, SQL, &[(&seq, Type::INT8)]).await?;
    rows.iter()
        .map(|row| {
            Ok(Revision { received_at: time(row, 0)?, raw: bytes(row, 1)?.unwrap_or_default() })
        })
        .collect()
}

async fn attempts(
    shared: &Shared,
    seq: i64,
    deliveries: &mut [DeliveryView],
) -> Result<(), StoreError> {
    const SQL: &str = "
        SELECT t.name, l.started_at, l.duration, l.class, l.status, l.excerpt
        FROM relay.attempts l JOIN relay.destinations t ON t.id = l.delivery % :PER_ALERT
        WHERE l.delivery BETWEEN $1 * :PER_ALERT AND ($1 + 1) * :PER_ALERT - 1
        ORDER BY l.delivery, l.number";
    let rows = shared.database.run(Priority::Background, SQL, &[(&seq, Type::INT8)]).await?;
    for row in &rows {
        let name = destination(row, 0)?;
        let attempt = AttemptView {
            started_at: time(row, 1)?,
            duration: Duration::from_micros(count(row, 2)?),
            class: get(row, 3)?,
            status: get::<Option<i32>>(row, 4)?.and_then(|status| u16::try_from(status).ok()),
            excerpt: get(row, 5)?,
        };
        if let Some(owner) = deliveries.iter_mut().find(|one| one.destination == name) {
            owner.log.push(attempt);
        }
    }
    Ok(())
}
