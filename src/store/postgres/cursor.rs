//! Moves of catch-up's cursors, in the transaction of the messages that they cover.

use tokio_postgres::types::Type;

use super::{
    database::{Param, Transaction},
    row::get,
};
use crate::{
    clock::Timestamp,
    ids::MessageTs,
    store::{CURSOR_AHEAD, CursorMove, StoreError, stored::clean},
};

/// Moves a cursor forward, unless another relay polls under a newer term. A move to more
/// than [`CURSOR_AHEAD`] after the database's clock is refused.
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
        WHERE excluded.term >= c.term AND c.ts >= $6";
    let app = cursor.app.as_str();
    let channel = clean(cursor.channel.as_str());
    let ts = cursor.to.micros();
    let term = i64::try_from(cursor.term).unwrap_or(i64::MAX);
    // The row lock keeps a newer term from beginning before this transaction ends.
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
    let from = cursor.from.micros();
    let params: [Param<'_>; _] = [
        (&app, Type::TEXT),
        (&channel, Type::TEXT),
        (&ts, Type::INT8),
        (&term, Type::INT8),
        (&seen, Type::INT8),
        (&from, Type::INT8),
    ];
    transaction.query(SQL, &params).await.map(drop)
}
