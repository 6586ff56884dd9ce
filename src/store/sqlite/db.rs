//! The writer's connection, with what it knows by heart.

use std::collections::HashMap;

use rusqlite::{
    CachedStatement, Connection, ToSql, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, Value, ValueRef},
};

use super::writer::is_items_own;
use crate::{
    clock::{Clock, Timestamp},
    ids::{AppName, ChannelId, DestinationName, MessageTs, TsKey},
    store::stored::clean,
};

/// A destination, with its clock, which stands still while it is paused.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownDestination {
    pub(super) id: i64,
    paused_at: Option<i64>,
    paused_for: i64,
}

impl KnownDestination {
    /// What the destination's clock shows at that time.
    pub(super) fn clock(self, now: Timestamp) -> i64 {
        self.paused_at.unwrap_or(now.micros()) - self.paused_for
    }
}

/// The one connection that writes.
pub(super) struct Db {
    connection: Connection,
    clock: Clock,
    next_seq: i64,
    channels: HashMap<(AppName, ChannelId), i64>,
    destinations: HashMap<DestinationName, KnownDestination>,
}

impl Db {
    pub(super) fn new(connection: Connection, clock: Clock) -> rusqlite::Result<Self> {
        let last: Option<i64> =
            connection.query_row("SELECT max(seq) FROM alerts", (), |row| row.get(0))?;
        let next_seq = last.unwrap_or(0) + 1;
        let (channels, destinations) = (HashMap::new(), HashMap::new());
        Ok(Self { connection, clock, next_seq, channels, destinations })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    pub(super) fn statement(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.prepare_cached(sql)
    }

    /// Runs a statement; returns how many rows it changed.
    pub(super) fn execute(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
    ) -> rusqlite::Result<usize> {
        self.statement(sql)?.execute(values)
    }

    pub(super) fn begin(&self) -> rusqlite::Result<()> {
        self.execute("BEGIN IMMEDIATE", ()).map(drop)
    }

    pub(super) fn commit(&self) -> rusqlite::Result<()> {
        self.execute("COMMIT", ()).map(drop)
    }

    /// Undoes the transaction, if SQLite has not done so already.
    pub(super) fn roll_back(&mut self) {
        self.forget();
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK", ())
        {
            tracing::error!(%error, "the store could not undo a transaction");
        }
    }

    /// Does something that can fail through its own fault, and undoes only that if it does. The
    /// outer error is the engine's, the inner one is the item's.
    pub(super) fn apart<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<rusqlite::Result<T>> {
        self.execute("SAVEPOINT item", ())?;
        let result = work(self);
        if let Err(error) = &result {
            if !is_items_own(error) {
                return result.map(Ok);
            }
            self.forget();
            self.execute("ROLLBACK TO item", ())?;
        }
        self.execute("RELEASE item", ())?;
        Ok(result)
    }

    /// Writes something that was not there before.
    pub(super) fn probe(&self) -> rusqlite::Result<()> {
        self.execute(
            "INSERT INTO probe (id, number) VALUES (0, 1)
             ON CONFLICT DO UPDATE SET number = number + 1",
            (),
        )
        .map(drop)
    }

    /// Forgets what may just have been undone.
    pub(super) fn forget(&mut self) {
        self.channels.clear();
        self.destinations.clear();
    }

    /// A number for an alert, larger than all before.
    pub(super) fn next_seq(&self) -> i64 {
        self.next_seq
    }

    pub(super) fn use_seq(&mut self) {
        self.next_seq += 1;
    }

    /// The channel's number; it gets one if it has none.
    pub(super) fn channel(&mut self, app: &AppName, channel: &ChannelId) -> rusqlite::Result<i64> {
        let key = (app.clone(), channel.clone());
        if let Some(id) = self.channels.get(&key) {
            return Ok(*id);
        }
        let names = params![clean(app.as_str()), clean(channel.as_str())];
        self.execute(
            "INSERT INTO channels (app, channel) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            names,
        )?;
        let id = self
            .statement("SELECT id FROM channels WHERE app = ?1 AND channel = ?2")?
            .query_row(names, |row| row.get(0))?;
        self.channels.insert(key, id);
        Ok(id)
    }

    /// The destination; it gets a number if it has none.
    pub(super) fn destination(
        &mut self,
        name: &DestinationName,
    ) -> rusqlite::Result<KnownDestination> {
        if let Some(known) = self.destinations.get(name) {
            return Ok(*known);
        }
        self.execute(
            "INSERT INTO destinations (name) VALUES (?1) ON CONFLICT DO NOTHING",
            [name.as_str()],
        )?;
        let known = self
            .statement("SELECT id, paused_at, paused_for FROM destinations WHERE name = ?1")?
            .query_row([name.as_str()], |row| {
                Ok(KnownDestination {
                    id: row.get(0)?,
                    paused_at: row.get(1)?,
                    paused_for: row.get(2)?,
                })
            })?;
        self.destinations.insert(name.clone(), known);
        Ok(known)
    }
}

/// A message's timestamp as it is stored: the integer, or the bytes of the digest.
pub(super) struct StoredTs(pub(super) TsKey);

impl ToSql for StoredTs {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match &self.0 {
            TsKey::Ts(ts) => ToSqlOutput::Owned(Value::Integer(ts.micros())),
            TsKey::Digest(digest) => ToSqlOutput::Borrowed(ValueRef::Blob(digest)),
        })
    }
}

impl FromSql for StoredTs {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        if let Ok(micros) = value.as_i64() {
            return Ok(Self(TsKey::Ts(MessageTs::from_micros(micros))));
        }
        let digest = <[u8; 8]>::try_from(value.as_blob()?)
            .map_err(|wrong_length| FromSqlError::Other(wrong_length.into()))?;
        Ok(Self(TsKey::Digest(digest)))
    }
}
