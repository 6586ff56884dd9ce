//! The role [`History`]: cursors, ids of channels, and messages that no push has brought yet.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::{
    SqliteStore,
    db::{Db, chains},
    row::StoredTs,
};
use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, MessageTs, TsKey},
    store::{
        Beginning, CURSOR_AHEAD, CursorMove, History, LookAlike, NewMessage, Source, StoreError,
        former_ids,
        stored::{clean, source_number},
        with_new_id,
    },
};

/// The largest number of messages that one call of `take_unpushed` returns.
const PIECE: i64 = 1000;

#[async_trait]
impl History for SqliteStore {
    async fn cursor(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError> {
        let (app, channel) = (app.clone(), channel.clone());
        self.view_reader(move |_shared, db| cursor(db, &app, &channel)).await
    }

    async fn newest_seen(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError> {
        let (app, channel) = (app.clone(), channel.clone());
        self.view_reader(move |_shared, db| newest_seen(db, &app, &channel)).await
    }

    async fn read_channels(&self, app: &AppName) -> Result<Vec<ChannelId>, StoreError> {
        let app = app.clone();
        self.view_reader(move |_shared, db| read_channels(db, &app)).await
    }

    async fn beginnings(&self, app: &AppName) -> Result<Vec<(String, Beginning)>, StoreError> {
        let app = app.clone();
        self.view_reader(move |_shared, db| beginnings(db, &app)).await
    }

    async fn set_beginning(
        &self,
        app: &AppName,
        written: &str,
        beginning: Beginning,
    ) -> Result<(), StoreError> {
        let (app, written) = (app.clone(), written.to_owned());
        self.write(move |db, _mode| set_beginning(db, &app, &written, beginning)).await
    }

    async fn put_cursor_back(&self, cursor: &CursorMove) -> Result<(), StoreError> {
        let cursor = cursor.clone();
        self.write(move |db, _mode| put_cursor_back(db, &cursor)).await
    }

    async fn channel_ids(&self, app: &AppName) -> Result<Vec<(String, ChannelId)>, StoreError> {
        let app = app.clone();
        self.view_reader(move |_shared, db| channel_ids(db, &app)).await
    }

    async fn set_channel_id(
        &self,
        app: &AppName,
        written: &str,
        id: &ChannelId,
    ) -> Result<(), StoreError> {
        let (app, written, id) = (app.clone(), written.to_owned(), id.clone());
        self.write(move |db, _mode| set_channel_id(db, &app, &written, &id)).await
    }

    async fn chains(&self, app: &AppName) -> Result<Vec<Vec<ChannelId>>, StoreError> {
        let app = app.clone();
        self.view_reader(move |_shared, db| chains(db, &app)).await
    }

    async fn replace_channel_id(
        &self,
        app: &AppName,
        old: &ChannelId,
        new: &ChannelId,
    ) -> Result<(), StoreError> {
        let (app, old, new) = (app.clone(), old.clone(), new.clone());
        self.write(move |db, _mode| replace_channel_id(db, &app, &old, &new)).await
    }

    async fn look_alikes(
        &self,
        app: &AppName,
        own: &[ChannelId],
        timestamps: &[MessageTs],
    ) -> Result<Vec<LookAlike>, StoreError> {
        let (app, own, timestamps) = (app.clone(), own.to_vec(), timestamps.to_vec());
        self.view_reader(move |_shared, db| look_alikes(db, &app, &own, &timestamps)).await
    }

    async fn take_unpushed(
        &self,
        app: &AppName,
        posted_before: MessageTs,
    ) -> Result<Vec<(ChannelId, MessageTs)>, StoreError> {
        let app = app.clone();
        self.write(move |db, _mode| take_unpushed(db, &app, posted_before)).await
    }

    /// Always 1, since no other process can have this store open.
    async fn poller_term(&self, _app: &AppName) -> Result<Option<u64>, StoreError> {
        Ok(Some(1))
    }
}

/// Reads the cursor of a channel.
fn cursor(
    db: &Connection,
    app: &AppName,
    channel: &ChannelId,
) -> rusqlite::Result<Option<MessageTs>> {
    db.prepare_cached("SELECT ts FROM cursors WHERE app = ?1 AND channel = ?2")?
        .query_row(params![app.as_str(), clean(channel.as_str())], |row| {
            row.get(0).map(MessageTs::from_micros)
        })
        .optional()
}

/// Adds a message that catch-up brought first to the unpushed ones, and removes a pushed one.
pub(super) fn note_source(
    db: &Db<'_>,
    channel: i64,
    message: &NewMessage,
    is_news: bool,
) -> rusqlite::Result<()> {
    let key = params![channel, StoredTs(message.key.ts)];
    match message.source {
        Source::Push => {
            db.execute("DELETE FROM unpushed WHERE channel = ?1 AND ts = ?2", key)?;
        }
        // If a push has brought the message before, no push was missed.
        Source::CatchUp if is_news => {
            db.execute(
                "INSERT INTO unpushed (channel, ts, posted_at)
                 SELECT ?1, ?2, ?3 WHERE NOT EXISTS (
                    SELECT 1 FROM alerts WHERE channel = ?1 AND ts = ?2 AND sources & ?4 != 0)
                 ON CONFLICT DO NOTHING",
                params![
                    channel,
                    StoredTs(message.key.ts),
                    message.posted_at.micros(),
                    1_i64 << source_number(Source::Push),
                ],
            )?;
        }
        Source::CatchUp | Source::Backfill => {}
    }
    Ok(())
}

/// Removes and returns some of the app's unpushed messages, oldest first.
fn take_unpushed(
    db: &Db<'_>,
    app: &AppName,
    posted_before: MessageTs,
) -> rusqlite::Result<Vec<(ChannelId, MessageTs)>> {
    let found: Vec<(i64, String, i64)> = db
        .statement(
            "SELECT u.rowid, c.channel, u.posted_at
             FROM unpushed u JOIN channels c ON c.id = u.channel
             WHERE c.app = ?1 AND u.posted_at < ?2 ORDER BY u.posted_at LIMIT ?3",
        )?
        .query_map(params![app.as_str(), posted_before.micros(), PIECE], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    // Removed in the same transaction, so that each missed push is counted once, also across
    // restarts.
    for (id, ..) in &found {
        db.execute("DELETE FROM unpushed WHERE rowid = ?1", [id])?;
    }
    let read = |(_, channel, posted_at): (i64, String, i64)| {
        (ChannelId::new(&channel), MessageTs::from_micros(posted_at))
    };
    Ok(found.into_iter().map(read).collect())
}

/// Moves a cursor forward, unless a newer term has moved it, and not into the future.
pub(super) fn move_cursor(db: &Db<'_>, cursor: &CursorMove) -> rusqlite::Result<()> {
    // A cursor in the future would skip every message until then.
    if cursor.to.micros() > (db.now() + CURSOR_AHEAD).micros() {
        tracing::error!(
            app = %cursor.app,
            channel = %cursor.channel,
            "the cursor of {} is not moved into the future: look at this machine's clock",
            cursor.channel
        );
        return Ok(());
    }
    db.execute(
        "INSERT INTO cursors (app, channel, ts, term, seen) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET ts = max(ts, excluded.ts), term = excluded.term,
            seen = coalesce(max(seen, excluded.seen), seen, excluded.seen)
         WHERE excluded.term >= term AND ts >= ?6",
        params![
            cursor.app.as_str(),
            clean(cursor.channel.as_str()),
            cursor.to.micros(),
            term(cursor),
            cursor.seen.map(MessageTs::micros),
            cursor.from.micros(),
        ],
    )
    .map(drop)
}

/// Moves a cursor back, unless a newer term has moved it.
fn put_cursor_back(db: &Db<'_>, cursor: &CursorMove) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE cursors SET ts = ?3, term = ?4
         WHERE app = ?1 AND channel = ?2 AND ts > ?3 AND term <= ?4",
        params![
            cursor.app.as_str(),
            clean(cursor.channel.as_str()),
            cursor.to.micros(),
            term(cursor),
        ],
    )
    .map(drop)
}

fn term(cursor: &CursorMove) -> i64 {
    i64::try_from(cursor.term).unwrap_or(i64::MAX)
}

fn newest_seen(
    db: &Connection,
    app: &AppName,
    channel: &ChannelId,
) -> rusqlite::Result<Option<MessageTs>> {
    let seen: Option<Option<i64>> = db
        .prepare_cached("SELECT seen FROM cursors WHERE app = ?1 AND channel = ?2")?
        .query_row(params![app.as_str(), clean(channel.as_str())], |row| row.get(0))
        .optional()?;
    Ok(seen.flatten().map(MessageTs::from_micros))
}

pub(super) fn channel_ids(
    db: &Connection,
    app: &AppName,
) -> rusqlite::Result<Vec<(String, ChannelId)>> {
    db.prepare_cached("SELECT written, id FROM channel_ids WHERE app = ?1 ORDER BY written")?
        .query_map([app.as_str()], |row| {
            let id: String = row.get(1)?;
            Ok((row.get(0)?, ChannelId::new(&id)))
        })?
        .collect()
}

fn set_channel_id(
    db: &Db<'_>,
    app: &AppName,
    written: &str,
    id: &ChannelId,
) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO channel_ids (app, written, id) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET id = excluded.id",
        params![app.as_str(), clean(written), clean(id.as_str())],
    )
    .map(drop)
}

/// Stores that Slack replaced the id `old` with `new`.
fn replace_channel_id(
    db: &mut Db<'_>,
    app: &AppName,
    old: &ChannelId,
    new: &ChannelId,
) -> rusqlite::Result<()> {
    let before = chains(db.connection(), app)?;
    // Before the chains change, since the former ids are those of the old chains.
    take_over_cursor(db, app, &before, old, new)?;
    let (_, chain) = with_new_id(before, old, new);
    // Old chains are removed as a whole: the first id and the places of the others may change.
    for id in [old, new].into_iter().chain(&chain) {
        db.execute(
            "DELETE FROM chains WHERE app = ?1 AND first = (
                SELECT first FROM chains WHERE app = ?1 AND channel = ?2)",
            params![app.as_str(), clean(id.as_str())],
        )?;
    }
    let first = chain.first().unwrap_or(old);
    for (place, id) in (0_i64..).zip(&chain) {
        db.execute(
            "INSERT INTO chains (app, channel, first, place) VALUES (?1, ?2, ?3, ?4)",
            params![app.as_str(), clean(id.as_str()), clean(first.as_str()), place],
        )?;
    }
    db.execute(
        "UPDATE channel_ids SET id = ?3 WHERE app = ?1 AND id = ?2",
        params![app.as_str(), clean(old.as_str()), clean(new.as_str())],
    )?;
    set_channel_id(db, app, old.as_str(), new)?;
    db.forget();
    Ok(())
}

/// Moves the cursor of `new` back to the cursor of the older ids, unless one chain already holds
/// both ids.
fn take_over_cursor(
    db: &Db<'_>,
    app: &AppName,
    chains: &[Vec<ChannelId>],
    old: &ChannelId,
    new: &ChannelId,
) -> rusqlite::Result<()> {
    let former: Vec<&str> = former_ids(chains, old, new).iter().map(ChannelId::as_str).collect();
    db.execute(
        "UPDATE cursors SET ts = min(cursors.ts, former.ts)
         FROM (SELECT max(ts) AS ts FROM cursors
            WHERE app = ?1 AND channel IN (SELECT value FROM json_each(?3))) AS former
         WHERE app = ?1 AND channel = ?2 AND former.ts IS NOT NULL",
        params![app.as_str(), clean(new.as_str()), serde_json::Value::from(former).to_string(),],
    )
    .map(drop)
}

/// Reads the channels that have a cursor, the furthest cursor first.
fn read_channels(db: &Connection, app: &AppName) -> rusqlite::Result<Vec<ChannelId>> {
    db.prepare_cached("SELECT channel FROM cursors WHERE app = ?1 ORDER BY ts DESC, channel")?
        .query_map([app.as_str()], |row| Ok(ChannelId::new(row.get_ref(0)?.as_str()?)))?
        .collect()
}

fn beginnings(db: &Connection, app: &AppName) -> rusqlite::Result<Vec<(String, Beginning)>> {
    db.prepare_cached("SELECT written, at, is_sure FROM beginnings WHERE app = ?1")?
        .query_map([app.as_str()], |row| {
            let at = Timestamp::from_micros(row.get(1)?);
            Ok((row.get(0)?, Beginning { at, is_sure: row.get(2)? }))
        })?
        .collect()
}

fn set_beginning(
    db: &Db<'_>,
    app: &AppName,
    written: &str,
    beginning: Beginning,
) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO beginnings (app, written, at, is_sure) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET at = excluded.at, is_sure = excluded.is_sure
         WHERE excluded.is_sure > is_sure",
        params![app.as_str(), clean(written), beginning.at.micros(), beginning.is_sure],
    )
    .map(drop)
}

/// Finds messages that are stored under another id of the app, and under none of the ids `own`.
fn look_alikes(
    db: &Connection,
    app: &AppName,
    own: &[ChannelId],
    timestamps: &[MessageTs],
) -> rusqlite::Result<Vec<LookAlike>> {
    let own: Vec<&str> = own.iter().map(ChannelId::as_str).collect();
    let own = serde_json::Value::from(own).to_string();
    // `CROSS JOIN` keeps this order: an app has few channels, and the key of the alerts begins with
    // the channel.
    let mut statement = db.prepare_cached(
        "SELECT c.channel, a.search
         FROM channels c CROSS JOIN alerts a ON a.channel = c.id AND a.ts = :ts AND a.ordinal = 0
         WHERE c.app = :app AND c.channel NOT IN (SELECT value FROM json_each(:own))
            AND NOT EXISTS (
                SELECT 1 FROM json_each(:own) o
                JOIN channels k ON k.app = :app AND k.channel = o.value
                JOIN alerts b ON b.channel = k.id AND b.ts = :ts)
         ORDER BY c.id",
    )?;
    let mut found = Vec::new();
    for ts in timestamps {
        let values =
            named_params! { ":app": app.as_str(), ":own": own, ":ts": StoredTs(TsKey::Ts(*ts)) };
        let mut rows = statement.query(values)?;
        while let Some(row) = rows.next()? {
            let channel = ChannelId::new(row.get_ref(0)?.as_str()?);
            found.push(LookAlike { ts: *ts, channel, search: row.get(1)? });
        }
    }
    Ok(found)
}
