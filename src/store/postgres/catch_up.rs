//! State of catch-up: cursors, ids of channels, and the messages that Slack did not push.

use async_trait::async_trait;
use tokio_postgres::{Row, types::Type};

use super::{
    database::{Param, Priority},
    poller,
    row::get,
    store::PostgresStore,
};
use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, MessageTs},
    store::{
        Beginning, CursorMove, History, LookAlike, StoreError, former_ids, stored::clean,
        with_new_id,
    },
};

/// Waits for the accepts under way, and makes later ones wait until the transaction ends, so that
/// each accept sees all ids of a channel. `postgres-2.sql` uses the same lock.
const CHAINS_LOCK: &str = "SELECT pg_advisory_xact_lock(5071129380421576193)";

/// Most messages that one call of `take_unpushed` returns.
const MAX_TAKEN: i64 = 1000;

/// Selects the channel ids of an app by the text in the configuration.
pub(super) const CHANNEL_IDS: &str =
    "SELECT written, id FROM relay.channel_ids WHERE app = $1 ORDER BY written";

const CHAINS: &str =
    "SELECT channel, place::int8 FROM relay.chains WHERE app = $1 ORDER BY first, place";

#[async_trait]
impl History for PostgresStore {
    async fn cursor(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError> {
        const SQL: &str = "SELECT ts FROM relay.cursors WHERE app = $1 AND channel = $2";
        read_ts(self, SQL, app, channel).await
    }

    async fn newest_seen(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError> {
        const SQL: &str = "SELECT seen FROM relay.cursors
            WHERE app = $1 AND channel = $2 AND seen IS NOT NULL";
        read_ts(self, SQL, app, channel).await
    }

    async fn read_channels(&self, app: &AppName) -> Result<Vec<ChannelId>, StoreError> {
        const SQL: &str =
            "SELECT channel FROM relay.cursors WHERE app = $1 ORDER BY ts DESC, channel";
        let shared = &self.shared;
        let params: [Param<'_>; _] = [(&app.as_str(), Type::TEXT)];
        let rows = shared.database.run(Priority::Background, SQL, &params).await?;
        rows.iter().map(|row| Ok(ChannelId::new(get(row, 0)?))).collect()
    }

    async fn beginnings(&self, app: &AppName) -> Result<Vec<(String, Beginning)>, StoreError> {
        const SQL: &str = "SELECT written, at, is_sure FROM relay.beginnings WHERE app = $1";
        let shared = &self.shared;
        let params: [Param<'_>; _] = [(&app.as_str(), Type::TEXT)];
        let rows = shared.database.run(Priority::Background, SQL, &params).await?;
        rows.iter()
            .map(|row| {
                let at = Timestamp::from_micros(get(row, 1)?);
                Ok((get(row, 0)?, Beginning { at, is_sure: get(row, 2)? }))
            })
            .collect()
    }

    async fn set_beginning(
        &self,
        app: &AppName,
        written: &str,
        beginning: Beginning,
    ) -> Result<(), StoreError> {
        // The first plan stays, so that a restart before the first reading does not shorten the
        // history. A time that Slack has confirmed is better than one by the clock of this machine.
        const SQL: &str = "
            INSERT INTO relay.beginnings AS b (app, written, at, is_sure) VALUES ($1, $2, $3, $4)
            ON CONFLICT (app, written) DO UPDATE SET at = excluded.at, is_sure = excluded.is_sure
            WHERE excluded.is_sure AND NOT b.is_sure";
        let shared = &self.shared;
        let app = app.as_str();
        let written = clean(written);
        let at = beginning.at.micros();
        let params: [Param<'_>; _] = [
            (&app, Type::TEXT),
            (&written, Type::TEXT),
            (&at, Type::INT8),
            (&beginning.is_sure, Type::BOOL),
        ];
        shared.database.run(Priority::Background, SQL, &params).await.map(drop)
    }

    /// Changes nothing if another relay polls under a newer term.
    async fn put_cursor_back(&self, cursor: &CursorMove) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE relay.cursors SET ts = $3, term = $4
            WHERE app = $1 AND channel = $2 AND ts > $3 AND term <= $4
            AND NOT EXISTS (SELECT FROM relay.pollers p WHERE p.app = $1 AND p.term > $4)";
        let shared = &self.shared;
        let app = cursor.app.as_str();
        let channel = clean(cursor.channel.as_str());
        let ts = cursor.to.micros();
        let term = i64::try_from(cursor.term).unwrap_or(i64::MAX);
        let params: [Param<'_>; _] =
            [(&app, Type::TEXT), (&channel, Type::TEXT), (&ts, Type::INT8), (&term, Type::INT8)];
        shared.database.run(Priority::Background, SQL, &params).await.map(drop)
    }

    async fn channel_ids(&self, app: &AppName) -> Result<Vec<(String, ChannelId)>, StoreError> {
        let shared = &self.shared;
        let params: [Param<'_>; _] = [(&app.as_str(), Type::TEXT)];
        let rows = shared.database.run(Priority::Background, CHANNEL_IDS, &params).await?;
        rows.iter().map(|row| Ok((get(row, 0)?, ChannelId::new(get(row, 1)?)))).collect()
    }

    async fn set_channel_id(
        &self,
        app: &AppName,
        written: &str,
        id: &ChannelId,
    ) -> Result<(), StoreError> {
        const SQL: &str = "
            INSERT INTO relay.channel_ids (app, written, id) VALUES ($1, $2, $3)
            ON CONFLICT (app, written) DO UPDATE SET id = excluded.id";
        let shared = &self.shared;
        let app = app.as_str();
        let written = clean(written);
        let id = clean(id.as_str());
        let params: [Param<'_>; _] =
            [(&app, Type::TEXT), (&written, Type::TEXT), (&id, Type::TEXT)];
        shared.database.run(Priority::Background, SQL, &params).await.map(drop)
    }

    async fn chains(&self, app: &AppName) -> Result<Vec<Vec<ChannelId>>, StoreError> {
        let shared = &self.shared;
        let params: [Param<'_>; _] = [(&app.as_str(), Type::TEXT)];
        read_chains(&shared.database.run(Priority::Background, CHAINS, &params).await?)
    }

    /// Accepts wait for this transaction, so it must be short.
    async fn replace_channel_id(
        &self,
        app: &AppName,
        old: &ChannelId,
        new: &ChannelId,
    ) -> Result<(), StoreError> {
        // Reading continues where the history of the older ids ended.
        const TAKE_OVER: &str = "
            UPDATE relay.cursors c SET ts = least(c.ts, former.ts)
            FROM (SELECT max(ts) AS ts FROM relay.cursors WHERE app = $1 AND channel = ANY ($3))
                AS former
            WHERE c.app = $1 AND c.channel = $2 AND former.ts IS NOT NULL";
        const DELETE: &str = "
            DELETE FROM relay.chains WHERE app = $1 AND first IN (
                SELECT first FROM relay.chains WHERE app = $1 AND channel = ANY ($2))";
        const INSERT: &str = "
            INSERT INTO relay.chains (app, channel, first, place)
            SELECT $1, c.id, $2, c.place - 1 FROM unnest($3) WITH ORDINALITY AS c (id, place)";
        const WRITTEN: &str = "
            UPDATE relay.channel_ids SET id = $3 WHERE app = $1 AND id = $2";
        const SELF: &str = "
            INSERT INTO relay.channel_ids (app, written, id) VALUES ($1, $2, $3)
            ON CONFLICT (app, written) DO UPDATE SET id = excluded.id";
        let shared = &self.shared;
        let name = app.as_str();
        let old_id = clean(old.as_str());
        let new_id = clean(new.as_str());
        let mut transaction = shared.database.begin(Priority::Batch).await?;
        transaction.query(CHAINS_LOCK, &[]).await?;
        let rows = transaction.query(CHAINS, &[(&name, Type::TEXT)]).await?;
        let before = read_chains(&rows)?;
        let former: Vec<_> =
            former_ids(&before, old, new).iter().map(|id| clean(id.as_str())).collect();
        let take_over: [Param<'_>; _] =
            [(&name, Type::TEXT), (&new_id, Type::TEXT), (&former, Type::TEXT_ARRAY)];
        transaction.query(TAKE_OVER, &take_over).await?;
        let (_, chain) = with_new_id(before, old, new);
        let chain: Vec<_> = chain.iter().map(|id| clean(id.as_str())).collect();
        let first = chain.first().unwrap_or(&old_id);
        let both = [&old_id, &new_id];
        let either: [Param<'_>; _] = [(&name, Type::TEXT), (&&both[..], Type::TEXT_ARRAY)];
        transaction.query(DELETE, &either).await?;
        let all: [Param<'_>; _] =
            [(&name, Type::TEXT), (first, Type::TEXT), (&chain, Type::TEXT_ARRAY)];
        transaction.query(INSERT, &all).await?;
        let change: [Param<'_>; _] =
            [(&name, Type::TEXT), (&old_id, Type::TEXT), (&new_id, Type::TEXT)];
        transaction.query(WRITTEN, &change).await?;
        transaction.finish(&[(SELF, &change)]).await
    }

    async fn look_alikes(
        &self,
        app: &AppName,
        own: &[ChannelId],
        timestamps: &[MessageTs],
    ) -> Result<Vec<LookAlike>, StoreError> {
        // `channels` goes from channel to channel in the index of the alerts, with one look-up for
        // each.
        const SQL: &str = "
            WITH RECURSIVE channels (id) AS (
                SELECT (SELECT split_part(a.key, ':', 2) FROM relay.alerts a
                        WHERE a.key > $1 || ':' AND a.key < $1 || ';' ORDER BY a.key LIMIT 1)
                UNION ALL
                SELECT (SELECT split_part(a.key, ':', 2) FROM relay.alerts a
                        WHERE a.key > $1 || ':' || channels.id || ';' AND a.key < $1 || ';'
                        ORDER BY a.key LIMIT 1)
                FROM channels WHERE channels.id IS NOT NULL)
            SELECT t.micros, c.id, a.search
            FROM channels c
            CROSS JOIN unnest($3, $4) AS t (micros, ts)
            JOIN relay.alerts a ON a.key = $1 || ':' || c.id || ':' || t.ts AND a.ordinal = 0
            WHERE c.id IS NOT NULL AND c.id <> ALL ($2) AND NOT EXISTS (
                SELECT FROM unnest($2) AS o (id)
                JOIN relay.alerts b ON b.key = $1 || ':' || o.id || ':' || t.ts)
            ORDER BY t.micros, c.id";
        let shared = &self.shared;
        let app = app.as_str();
        let own: Vec<_> = own.iter().map(|id| clean(id.as_str())).collect();
        let micros: Vec<i64> = timestamps.iter().map(|ts| ts.micros()).collect();
        let texts: Vec<String> = timestamps.iter().map(ToString::to_string).collect();
        let params: [Param<'_>; _] = [
            (&app, Type::TEXT),
            (&own, Type::TEXT_ARRAY),
            (&micros, Type::INT8_ARRAY),
            (&texts, Type::TEXT_ARRAY),
        ];
        let rows = shared.database.run(Priority::Background, SQL, &params).await?;
        rows.iter()
            .map(|row| {
                let ts = MessageTs::from_micros(get(row, 0)?);
                Ok(LookAlike { ts, channel: ChannelId::new(get(row, 1)?), search: get(row, 2)? })
            })
            .collect()
    }

    async fn take_unpushed(
        &self,
        app: &AppName,
        posted_before: MessageTs,
    ) -> Result<Vec<(ChannelId, MessageTs)>, StoreError> {
        // Rows that another relay is taking are skipped, so that each message is returned once.
        const SQL: &str = "
            DELETE FROM relay.unpushed WHERE key IN (
                SELECT key FROM relay.unpushed WHERE app = $1 AND posted_at < $2
                ORDER BY posted_at LIMIT $3 FOR UPDATE SKIP LOCKED)
            RETURNING channel, posted_at";
        let shared = &self.shared;
        let app = app.as_str();
        let before = posted_before.micros();
        let params: [Param<'_>; _] =
            [(&app, Type::TEXT), (&before, Type::INT8), (&MAX_TAKEN, Type::INT8)];
        let rows = shared.database.run(Priority::Background, SQL, &params).await?;
        let mut taken = rows
            .iter()
            .map(|row| Ok((ChannelId::new(get(row, 0)?), MessageTs::from_micros(get(row, 1)?))))
            .collect::<Result<Vec<_>, StoreError>>()?;
        // `RETURNING` does not keep the order of the query.
        taken.sort_by_key(|(_, posted_at)| *posted_at);
        Ok(taken)
    }

    /// The right to poll ends 10 s after it was last renewed.
    async fn poller_term(&self, app: &AppName) -> Result<Option<u64>, StoreError> {
        poller::term(&self.shared, app).await
    }

    async fn stop_polling(&self, app: &AppName) -> Result<bool, StoreError> {
        poller::give_up(&self.shared, Some(app)).await.map(|()| true)
    }
}

/// Reads one timestamp of a channel's cursor. `sql` takes the app and the channel.
async fn read_ts(
    store: &PostgresStore,
    sql: &str,
    app: &AppName,
    channel: &ChannelId,
) -> Result<Option<MessageTs>, StoreError> {
    let app = app.as_str();
    let channel = clean(channel.as_str());
    let params: [Param<'_>; _] = [(&app, Type::TEXT), (&channel, Type::TEXT)];
    let rows = store.shared.database.run(Priority::Background, sql, &params).await?;
    rows.first().map(|row| get(row, 0).map(MessageTs::from_micros)).transpose()
}

fn read_chains(rows: &[Row]) -> Result<Vec<Vec<ChannelId>>, StoreError> {
    let mut chains: Vec<Vec<ChannelId>> = Vec::new();
    for row in rows {
        let id = ChannelId::new(get(row, 0)?);
        match (get::<i64>(row, 1)?, chains.last_mut()) {
            (0, _) | (_, None) => chains.push(vec![id]),
            (_, Some(chain)) => chain.push(id),
        }
    }
    Ok(chains)
}
