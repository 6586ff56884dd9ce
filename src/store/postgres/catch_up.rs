//! What catch-up keeps: its cursors, the ids of channels; and the list of what no push has brought.

use tokio_postgres::types::Type;

use super::{
    door::{Haste, Param, Transaction},
    row::get,
    shared::Shared,
};
use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, MessageTs},
    store::{CURSOR_AHEAD, CursorMove, StoreError, stored::clean},
};

/// How many messages one call of `take_unpushed` gives.
const PIECE: i64 = 1000;

/// Takes a piece of an app's messages off the list of what no push has brought, the oldest first.
pub(super) async fn take_unpushed(
    shared: &Shared,
    app: &AppName,
    posted_before: MessageTs,
) -> Result<Vec<(ChannelId, MessageTs)>, StoreError> {
    const SQL: &str = "
        DELETE FROM relay.unpushed WHERE key IN (
            SELECT key FROM relay.unpushed WHERE app = $1 AND posted_at < $2
            ORDER BY posted_at LIMIT $3 FOR UPDATE SKIP LOCKED)
        RETURNING channel, posted_at";
    let (app, before) = (app.as_str(), posted_before.micros());
    let params: [Param<'_>; _] = [(&app, Type::TEXT), (&before, Type::INT8), (&PIECE, Type::INT8)];
    let rows = shared.door.run(Haste::Patient, SQL, &params).await?;
    let mut taken = rows
        .iter()
        .map(|row| Ok((ChannelId::new(get(row, 0)?), MessageTs::from_micros(get(row, 1)?))))
        .collect::<Result<Vec<_>, StoreError>>()?;
    taken.sort_by_key(|(_, posted_at)| *posted_at);
    Ok(taken)
}

/// What is known of an app's channels.
pub(super) const CHANNEL_IDS: &str =
    "SELECT written, id FROM relay.channel_ids WHERE app = $1 ORDER BY written";

pub(super) async fn channel_ids(
    shared: &Shared,
    app: &AppName,
) -> Result<Vec<(String, ChannelId)>, StoreError> {
    let params: [Param<'_>; _] = [(&app.as_str(), Type::TEXT)];
    let rows = shared.door.run(Haste::Patient, CHANNEL_IDS, &params).await?;
    rows.iter().map(|row| Ok((get(row, 0)?, ChannelId::new(get(row, 1)?)))).collect()
}

pub(super) async fn set_channel_id(
    shared: &Shared,
    app: &AppName,
    written: &str,
    id: &ChannelId,
) -> Result<(), StoreError> {
    const SQL: &str = "
        INSERT INTO relay.channel_ids (app, written, id) VALUES ($1, $2, $3)
        ON CONFLICT (app, written) DO UPDATE SET id = excluded.id";
    let (app, written, id) = (app.as_str(), clean(written), clean(id.as_str()));
    let params: [Param<'_>; _] = [(&app, Type::TEXT), (&written, Type::TEXT), (&id, Type::TEXT)];
    shared.door.run(Haste::Patient, SQL, &params).await.map(drop)
}

/// Up to where a channel's history was read.
pub(super) async fn cursor(
    shared: &Shared,
    app: &AppName,
    channel: &ChannelId,
) -> Result<Option<MessageTs>, StoreError> {
    const SQL: &str = "SELECT ts FROM relay.cursors WHERE app = $1 AND channel = $2";
    let (app, channel) = (app.as_str(), clean(channel.as_str()));
    let params: [Param<'_>; _] = [(&app, Type::TEXT), (&channel, Type::TEXT)];
    let rows = shared.door.run(Haste::Patient, SQL, &params).await?;
    rows.first().map(|row| get(row, 0).map(MessageTs::from_micros)).transpose()
}

/// The newest message that moves of a cursor have seen.
pub(super) async fn newest_seen(
    shared: &Shared,
    app: &AppName,
    channel: &ChannelId,
) -> Result<Option<MessageTs>, StoreError> {
    const SQL: &str = "SELECT seen FROM relay.cursors
        WHERE app = $1 AND channel = $2 AND seen IS NOT NULL";
    let (app, channel) = (app.as_str(), clean(channel.as_str()));
    let params: [Param<'_>; _] = [(&app, Type::TEXT), (&channel, Type::TEXT)];
    let rows = shared.door.run(Haste::Patient, SQL, &params).await?;
    rows.first().map(|row| get(row, 0).map(MessageTs::from_micros)).transpose()
}

/// Puts a cursor back, unless a newer term polls.
pub(super) async fn put_cursor_back(
    shared: &Shared,
    cursor: &CursorMove,
) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE relay.cursors SET ts = $3, term = $4
        WHERE app = $1 AND channel = $2 AND ts > $3 AND term <= $4
        AND NOT EXISTS (SELECT FROM relay.pollers p WHERE p.app = $1 AND p.term > $4)";
    let (app, channel) = (cursor.app.as_str(), clean(cursor.channel.as_str()));
    let ts = cursor.to.micros();
    let term = i64::try_from(cursor.term).unwrap_or(i64::MAX);
    let params: [Param<'_>; _] =
        [(&app, Type::TEXT), (&channel, Type::TEXT), (&ts, Type::INT8), (&term, Type::INT8)];
    shared.door.run(Haste::Patient, SQL, &params).await.map(drop)
}

/// Moves a cursor forward, unless a newer term polls: its holder cannot begin while this looks. By
/// the database's clock it is never moved into the future.
pub(super) async fn move_cursor(
    transaction: &mut Transaction<'_>,
    now: Option<i64>,
    cursor: &CursorMove,
) -> Result<(), StoreError> {
    const NOW: &str = "SELECT relay.now_us($1)";
    const TERM: &str = "SELECT term FROM relay.pollers WHERE app = $1 FOR SHARE";
    const SQL: &str = "
        INSERT INTO relay.cursors AS c (app, channel, ts, term, seen) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (app, channel) DO UPDATE
        SET ts = greatest(c.ts, excluded.ts), term = excluded.term,
            seen = greatest(c.seen, excluded.seen)
        WHERE excluded.term >= c.term";
    let (app, channel) = (cursor.app.as_str(), clean(cursor.channel.as_str()));
    let ts = cursor.to.micros();
    let term = i64::try_from(cursor.term).unwrap_or(i64::MAX);
    let rows = transaction.query(TERM, &[(&app, Type::TEXT)]).await?;
    if let Some(row) = rows.first()
        && get::<i64>(row, 0)? > term
    {
        tracing::warn!(app, %channel, term, "another relay polls now: the cursor was not moved");
        return Ok(());
    }
    let rows = transaction.query(NOW, &[(&now, Type::INT8)]).await?;
    let now = rows.first().map(|row| get::<i64>(row, 0)).transpose()?.unwrap_or(0);
    if ts > (Timestamp::from_micros(now) + CURSOR_AHEAD).micros() {
        tracing::error!(
            app,
            %channel,
            "the cursor of {channel} is not moved into the future: look at the clocks of this \
             machine and of the database"
        );
        return Ok(());
    }
    let seen = cursor.seen.map(MessageTs::micros);
    let params: [Param<'_>; _] = [
        (&app, Type::TEXT),
        (&channel, Type::TEXT),
        (&ts, Type::INT8),
        (&term, Type::INT8),
        (&seen, Type::INT8),
    ];
    transaction.query(SQL, &params).await.map(drop)
}
