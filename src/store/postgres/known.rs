//! What a batch brings of messages that are known: another way by which they came, or an edit. And
//! what catch-up has found, until a push brings it too.

use tokio_postgres::types::Type;

use super::{
    door::{Param, Transaction},
    flat::Item,
    row::get,
};
use crate::store::{
    NewMessage, REVISIONS_KEPT, Source, StoreError,
    stored::{clean, source_number},
};

/// What is to be written of messages that were known, or that catch-up brought.
#[derive(Default)]
pub(super) struct Known<'a> {
    /// Of messages that were known: key, and the source's bit.
    keys: Vec<&'a str>,
    bits: Vec<i32>,
    /// By push, and known.
    pushed: Vec<&'a str>,
    /// By catch-up, and new, or known without it having been there.
    found: Vec<Found<'a>>,
    edited: Vec<&'a Item<'a>>,
}

struct Found<'a> {
    key: &'a str,
    message: &'a NewMessage,
    is_new: bool,
}

impl<'a> Known<'a> {
    pub(super) fn of(items: &'a [Item<'a>]) -> Self {
        let mut known = Self::default();
        for item in items {
            known.note(item);
        }
        known
    }

    fn note(&mut self, item: &'a Item<'a>) {
        let Item { key, message, .. } = item;
        let new = usize::try_from(item.new_alerts()).unwrap_or(usize::MAX);
        let is_new = new == message.alerts.len();
        let is_edit = new == 0 && message.is_edit;
        if !is_new {
            self.keys.push(key);
            self.bits.push(1 << source_number(message.source));
        }
        self.edited.extend(is_edit.then_some(item));
        match message.source {
            Source::Push if !is_new => self.pushed.push(key),
            Source::CatchUp if is_new || new == 0 => {
                self.found.push(Found { key, message, is_new });
            }
            Source::Push | Source::CatchUp | Source::Backfill => {}
        }
    }

    /// Whether there is nothing to write.
    pub(super) const fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.found.is_empty()
    }

    /// Writes it, and returns the places of the edits that were not known.
    pub(super) async fn write(
        mut self,
        transaction: &mut Transaction<'_>,
    ) -> Result<Vec<usize>, StoreError> {
        if !self.keys.is_empty() {
            self.remember(transaction).await?;
        }
        self.write_found(transaction).await?;
        let mut revised = Vec::new();
        for item in &self.edited {
            if revise(transaction, &item.key, item.message).await? {
                revised.push(item.place);
            }
        }
        Ok(revised)
    }

    /// Remembers by which ways messages came. They are locked first, in the order of the keys, as
    /// alerts are inserted: so two relays do not wait for one another in a circle, and whoever
    /// comes second with an edit sees the first one's. A lock is also something to commit: what is
    /// known may not be on the standby yet, and its commit waits for that.
    async fn remember(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        const LOCK: &str = "
            SELECT FROM unnest($1) AS known (key) JOIN relay.alerts a ON a.key = known.key
            ORDER BY a.key, a.ordinal FOR NO KEY UPDATE OF a";
        const REMEMBER: &str = "
            UPDATE relay.alerts SET sources = sources | new.bit
            FROM (SELECT key, bit_or(bit) AS bit FROM unnest($1, $2) AS u (key, bit)
                  GROUP BY key) AS new
            WHERE alerts.key = new.key AND alerts.sources & new.bit <> new.bit
            RETURNING alerts.key";
        const PUSHED: &str = "DELETE FROM relay.unpushed WHERE key = ANY ($1)";
        transaction.query(LOCK, &[(&self.keys, Type::TEXT_ARRAY)]).await?;
        let params: [Param<'_>; _] =
            [(&self.keys, Type::TEXT_ARRAY), (&self.bits, Type::INT4_ARRAY)];
        let news = transaction.query(REMEMBER, &params).await?;
        let news = news.iter().map(|row| get::<&str>(row, 0)).collect::<Result<Vec<_>, _>>()?;
        self.found.retain(|found| found.is_new || news.contains(&found.key));
        if !self.pushed.is_empty() {
            transaction.query(PUSHED, &[(&self.pushed, Type::TEXT_ARRAY)]).await?;
        }
        Ok(())
    }

    async fn write_found(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        const SQL: &str = "
            INSERT INTO relay.unpushed (key, app, channel, posted_at)
            SELECT * FROM unnest($1, $2, $3, $4) AS u (key, app, channel, posted_at)
            WHERE NOT EXISTS (
                SELECT 1 FROM relay.alerts a WHERE a.key = u.key AND a.sources & $5 <> 0)
            ON CONFLICT (key) DO NOTHING";
        if self.found.is_empty() {
            return Ok(());
        }
        let keys: Vec<&str> = self.found.iter().map(|found| found.key).collect();
        let messages = || self.found.iter().map(|found| found.message);
        let apps: Vec<&str> = messages().map(|message| message.key.app.as_str()).collect();
        let channels: Vec<_> =
            messages().map(|message| clean(message.key.channel.as_str())).collect();
        let posted_at: Vec<i64> = messages().map(|message| message.posted_at.micros()).collect();
        let push = 1_i32 << source_number(Source::Push);
        let params: [Param<'_>; _] = [
            (&keys, Type::TEXT_ARRAY),
            (&apps, Type::TEXT_ARRAY),
            (&channels, Type::TEXT_ARRAY),
            (&posted_at, Type::INT8_ARRAY),
            (&push, Type::INT4),
        ];
        transaction.query(SQL, &params).await.map(drop)
    }
}

/// Keeps the bytes beside the message's first alert, unless retention has emptied it, or they or
/// others of the same edit are kept already. Returns whether they are new.
async fn revise(
    transaction: &mut Transaction<'_>,
    key: &str,
    message: &NewMessage,
) -> Result<bool, StoreError> {
    const SQL: &str = "
        INSERT INTO relay.revisions (message, received_at, edited_ts, raw)
        SELECT m.id, $2, $4, $3 FROM relay.alerts a JOIN relay.messages m ON m.id = a.seq / 4096
        WHERE a.key = $1 AND m.raw IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM relay.alerts b JOIN relay.messages n ON n.id = b.seq / 4096
            WHERE b.key = $1 AND (n.raw = $3 OR EXISTS (
                SELECT 1 FROM relay.revisions r WHERE r.message = n.id
                AND (r.raw = $3 OR r.edited_ts = $4 AND $4 <> ''))))
        ORDER BY a.ordinal LIMIT 1
        RETURNING message";
    const TRIM: &str = "
        DELETE FROM relay.revisions WHERE message = $1 AND id NOT IN (
            SELECT id FROM relay.revisions WHERE message = $1 ORDER BY id DESC LIMIT $2)";
    let received_at = message.received_at.micros();
    let raw: &[u8] = &message.raw;
    let edited_ts = clean(&message.edited_ts);
    let params: [Param<'_>; _] = [
        (&key, Type::TEXT),
        (&received_at, Type::INT8),
        (&raw, Type::BYTEA),
        (&edited_ts, Type::TEXT),
    ];
    let rows = transaction.query(SQL, &params).await?;
    let Some(row) = rows.first() else {
        return Ok(false);
    };
    let id: i64 = get(row, 0)?;
    let kept = i64::from(REVISIONS_KEPT);
    transaction.query(TRIM, &[(&id, Type::INT8), (&kept, Type::INT8)]).await?;
    Ok(true)
}
