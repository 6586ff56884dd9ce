//! The role [`Review`]: keeps near misses and quarantined bodies for review.

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqliteStore, db::Db, job::Purpose, row::app_name};
use crate::{
    clock::Timestamp,
    ids::{AlertId, MessageKey, MessageTs},
    store::{
        Counted, NEAR_MISS_KEPT, NEAR_MISSES, NearMiss, NewNearMiss, Quarantined, Review,
        StoreError, ToReview, stored::clean,
    },
};

const COLUMNS: &str = "id, key, reason, posted_at, received_at, event_id, team, bot_id, app_id,
    summary, adopted, read";

#[async_trait]
impl Review for SqliteStore {
    async fn keep_near_miss(&self, near_miss: NewNearMiss) -> Result<bool, StoreError> {
        self.write_for(Purpose::Intake, move |db, _mode| keep(db, &near_miss)).await
    }

    async fn near_misses(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<NearMiss>, StoreError> {
        self.view_reader(move |_shared, db| {
            db.prepare_cached(&format!(
                "SELECT {COLUMNS}, x'' FROM near_misses WHERE id < ?1 ORDER BY id DESC LIMIT ?2"
            ))?
            .query_map(params![before.unwrap_or(i64::MAX), limit], near_miss)?
            .collect()
        })
        .await
    }

    async fn near_miss(&self, id: &AlertId) -> Result<Option<NearMiss>, StoreError> {
        let key = id.message.to_string();
        self.view_reader(move |_shared, db| {
            let sql = format!("SELECT {COLUMNS}, raw FROM near_misses WHERE key = ?1");
            db.prepare_cached(&sql)?.query_row([clean(&key)], near_miss).optional()
        })
        .await
    }

    async fn mark_adopted(&self, seq: i64) -> Result<(), StoreError> {
        self.write(move |db, _mode| {
            db.execute("UPDATE near_misses SET adopted = 1, read = 1 WHERE id = ?1", [seq])
                .map(drop)
        })
        .await
    }

    async fn quarantined(&self, limit: u32) -> Result<Vec<Quarantined>, StoreError> {
        self.view_reader(move |_shared, db| quarantined(db, limit)).await
    }

    async fn mark_read(&self, near_misses: &[i64], quarantined: &[i64]) -> Result<(), StoreError> {
        let (near_misses, quarantined) = (near_misses.to_vec(), quarantined.to_vec());
        self.write(move |db, _mode| {
            for id in &near_misses {
                db.execute("UPDATE near_misses SET read = 1 WHERE id = ?1", [id])?;
            }
            for id in &quarantined {
                db.execute("UPDATE quarantine SET read = 1 WHERE id = ?1", [id])?;
            }
            Ok(())
        })
        .await
    }

    async fn to_review(&self) -> Result<ToReview, StoreError> {
        self.view_reader(|_shared, db| {
            let count = |table: &str| {
                let sql = format!("SELECT count(*) FILTER (WHERE read = 0), count(*) FROM {table}");
                db.prepare_cached(&sql)?.query_row((), |row| {
                    let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
                    Ok(Counted { unread: number(0)?, total: number(1)? })
                })
            };
            let unread_of = db
                .prepare_cached(
                    "SELECT substr(key, 1, instr(key, ':') - 1) AS app, count(*) FROM near_misses
                     WHERE read = 0 GROUP BY app ORDER BY app",
                )?
                .query_map((), |row| {
                    Ok((app_name(row, 0)?, row.get::<_, i64>(1)?.cast_unsigned()))
                })?
                .collect::<rusqlite::Result<_>>()?;
            let (near_misses, quarantine) = (count("near_misses")?, count("quarantine")?);
            Ok(ToReview { near_misses, quarantine, unread_of })
        })
        .await
    }
}

fn keep(db: &Db<'_>, near_miss: &NewNearMiss) -> rusqlite::Result<bool> {
    let NewNearMiss { message, reason, bot_id, app_id } = near_miss;
    let summary = message.alerts.first().map_or("", |alert| &alert.search);
    let inserted = db.execute(
        "INSERT INTO near_misses (key, reason, posted_at, received_at, event_id, team, bot_id,
            app_id, summary, raw)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
        params![
            clean(&message.key.to_string()),
            reason,
            message.posted_at.micros(),
            message.received_at.micros(),
            clean(&message.event_id),
            clean(&message.team),
            clean(bot_id),
            clean(app_id),
            clean(summary),
            &message.raw[..],
        ],
    )?;
    if inserted == 1 {
        db.execute(
            "DELETE FROM near_misses WHERE id IN (
                SELECT id FROM near_misses ORDER BY id DESC LIMIT -1 OFFSET ?1)",
            [NEAR_MISSES],
        )?;
    }
    Ok(inserted == 1)
}

fn near_miss(row: &Row<'_>) -> rusqlite::Result<NearMiss> {
    let key: String = row.get(1)?;
    let message: MessageKey = key.parse().map_err(|error: crate::ids::IdError| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, error.into())
    })?;
    Ok(NearMiss {
        seq: row.get(0)?,
        id: AlertId { message, ordinal: 0 },
        reason: row.get(2)?,
        posted_at: MessageTs::from_micros(row.get(3)?),
        received_at: Timestamp::from_micros(row.get(4)?),
        event_id: row.get(5)?,
        team: row.get(6)?,
        bot_id: row.get(7)?,
        app_id: row.get(8)?,
        summary: row.get(9)?,
        is_adopted: row.get(10)?,
        is_read: row.get(11)?,
        raw: Bytes::from(row.get::<_, Vec<u8>>(12)?),
    })
}

fn quarantined(db: &Connection, limit: u32) -> rusqlite::Result<Vec<Quarantined>> {
    db.prepare_cached(
        "SELECT id, app, received_at, read, body FROM quarantine ORDER BY id DESC LIMIT ?1",
    )?
    .query_map([limit], |row| {
        Ok(Quarantined {
            id: row.get(0)?,
            app: app_name(row, 1)?,
            received_at: Timestamp::from_micros(row.get(2)?),
            is_read: row.get(3)?,
            body: Bytes::from(row.get::<_, Vec<u8>>(4)?),
        })
    })?
    .collect()
}

/// Removes near misses that are too old.
pub(super) fn forget(db: &Db<'_>, now: Timestamp) -> rusqlite::Result<()> {
    let too_old = (now - NEAR_MISS_KEPT).micros();
    db.execute("DELETE FROM near_misses WHERE received_at < ?1", [too_old]).map(drop)
}
