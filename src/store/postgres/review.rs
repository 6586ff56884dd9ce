//! Near misses and quarantined bodies, which a person should review.

use async_trait::async_trait;
use tokio_postgres::{Row, types::Type};

use super::{
    database::{Param, Priority},
    row::{alert_id_of, app, bytes, count, get, time},
    shared::Shared,
    store::PostgresStore,
};
use crate::{
    ids::{AlertId, MessageTs},
    store::{
        Counted, NEAR_MISS_KEPT, NEAR_MISSES, NearMiss, NewNearMiss, Quarantined, Review,
        StoreError, ToReview, stored::clean,
    },
};

const COLUMNS: &str = "id, key, reason, posted_at, received_at, event_id, team, bot_id, app_id,
    summary, adopted, read";

#[async_trait]
impl Review for PostgresStore {
    async fn keep_near_miss(&self, near_miss: NewNearMiss) -> Result<bool, StoreError> {
        const INSERT: &str = "
            INSERT INTO relay.near_misses (key, reason, posted_at, received_at, event_id, team,
                bot_id, app_id, summary, raw)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING RETURNING id";
        const DROP: &str = "
            DELETE FROM relay.near_misses WHERE id IN (
                SELECT id FROM relay.near_misses ORDER BY id DESC OFFSET $1)";
        let NewNearMiss { message, reason, bot_id, app_id } = &near_miss;
        let key = message.key.to_string();
        let key = clean(&key);
        let posted_at = message.posted_at.micros();
        let received_at = message.received_at.micros();
        let event_id = clean(&message.event_id);
        let team = clean(&message.team);
        let bot_id = clean(bot_id);
        let app_id = clean(app_id);
        let summary = clean(message.alerts.first().map_or("", |alert| &alert.search));
        let raw = &message.raw[..];
        let params: [Param<'_>; _] = [
            (&key, Type::TEXT),
            (reason, Type::TEXT),
            (&posted_at, Type::INT8),
            (&received_at, Type::INT8),
            (&event_id, Type::TEXT),
            (&team, Type::TEXT),
            (&bot_id, Type::TEXT),
            (&app_id, Type::TEXT),
            (&summary, Type::TEXT),
            (&raw, Type::BYTEA),
        ];
        let mut transaction = self.shared.database.begin(Priority::Background).await?;
        let is_new = !transaction.query(INSERT, &params).await?.is_empty();
        let kept = i64::from(NEAR_MISSES);
        transaction.query(DROP, &[(&kept, Type::INT8)]).await?;
        transaction.commit().await?;
        Ok(is_new)
    }

    async fn near_misses(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<NearMiss>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS}, ''::bytea FROM relay.near_misses
             WHERE id < $1 ORDER BY id DESC LIMIT $2"
        );
        let before = before.unwrap_or(i64::MAX);
        let limit = i64::from(limit);
        let params: [Param<'_>; _] = [(&before, Type::INT8), (&limit, Type::INT8)];
        let rows = self.shared.database.run(Priority::Background, &sql, &params).await?;
        rows.iter().map(near_miss).collect()
    }

    async fn near_miss(&self, id: &AlertId) -> Result<Option<NearMiss>, StoreError> {
        let sql = format!("SELECT {COLUMNS}, raw FROM relay.near_misses WHERE key = $1");
        let key = id.message.to_string();
        let key = clean(&key);
        let rows =
            self.shared.database.run(Priority::Background, &sql, &[(&key, Type::TEXT)]).await?;
        rows.first().map(near_miss).transpose()
    }

    async fn mark_adopted(&self, seq: i64) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE relay.near_misses SET adopted = true, read = true WHERE id = $1";
        self.shared.database.run(Priority::Background, SQL, &[(&seq, Type::INT8)]).await.map(drop)
    }

    async fn quarantined(&self, limit: u32) -> Result<Vec<Quarantined>, StoreError> {
        const SQL: &str = "SELECT id, app, received_at, read, body FROM relay.quarantine
            ORDER BY id DESC LIMIT $1";
        let limit = i64::from(limit);
        let rows =
            self.shared.database.run(Priority::Background, SQL, &[(&limit, Type::INT8)]).await?;
        let quarantined = |row| {
            Ok(Quarantined {
                id: get(row, 0)?,
                app: app(row, 1)?,
                received_at: time(row, 2)?,
                is_read: get(row, 3)?,
                body: bytes(row, 4)?.unwrap_or_default(),
            })
        };
        rows.iter().map(quarantined).collect()
    }

    async fn mark_read(&self, near_misses: &[i64], quarantined: &[i64]) -> Result<(), StoreError> {
        let mut transaction = self.shared.database.begin(Priority::Background).await?;
        for (sql, ids) in [
            ("UPDATE relay.near_misses SET read = true WHERE id = ANY ($1)", near_misses),
            ("UPDATE relay.quarantine SET read = true WHERE id = ANY ($1)", quarantined),
        ] {
            transaction.query(sql, &[(&ids, Type::INT8_ARRAY)]).await?;
        }
        transaction.commit().await
    }

    async fn to_review(&self) -> Result<ToReview, StoreError> {
        const SQL: &str = "
            SELECT (SELECT count(*) FROM relay.near_misses WHERE NOT read),
                (SELECT count(*) FROM relay.near_misses),
                (SELECT count(*) FROM relay.quarantine WHERE NOT read),
                (SELECT count(*) FROM relay.quarantine)";
        const BY_APP: &str = "SELECT split_part(key, ':', 1) AS app, count(*)
            FROM relay.near_misses WHERE NOT read GROUP BY app ORDER BY app";
        let rows = self.shared.database.run(Priority::Background, SQL, &[]).await?;
        let row = rows.first().ok_or(StoreError::Busy)?;
        let by_app = self.shared.database.run(Priority::Background, BY_APP, &[]).await?;
        let unread_of = by_app.iter().map(|row| Ok((app(row, 0)?, count(row, 1)?)));
        Ok(ToReview {
            near_misses: Counted { unread: count(row, 0)?, total: count(row, 1)? },
            quarantine: Counted { unread: count(row, 2)?, total: count(row, 3)? },
            unread_of: unread_of.collect::<Result<_, StoreError>>()?,
        })
    }
}

fn near_miss(row: &Row) -> Result<NearMiss, StoreError> {
    Ok(NearMiss {
        seq: get(row, 0)?,
        id: alert_id_of(row, 1, 0)?,
        reason: get(row, 2)?,
        posted_at: MessageTs::from_micros(get(row, 3)?),
        received_at: time(row, 4)?,
        event_id: get(row, 5)?,
        team: get(row, 6)?,
        bot_id: get(row, 7)?,
        app_id: get(row, 8)?,
        summary: get(row, 9)?,
        is_adopted: get(row, 10)?,
        is_read: get(row, 11)?,
        raw: bytes(row, 12)?.unwrap_or_default(),
    })
}

/// Removes near misses that are older than their retention.
pub(super) async fn forget(shared: &Shared, now: i64) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM relay.near_misses WHERE received_at < $1::int8 - $2::int8";
    let kept = i64::try_from(NEAR_MISS_KEPT.as_micros()).unwrap_or(i64::MAX);
    let params: [Param<'_>; _] = [(&now, Type::INT8), (&kept, Type::INT8)];
    shared.database.run(Priority::Background, SQL, &params).await.map(drop)
}
