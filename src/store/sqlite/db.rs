//! The writer's connection in a transaction, and a cache of the rows that every write needs.

use std::{collections::HashMap, sync::Arc};

use rusqlite::{CachedStatement, Connection, params};

use super::error::is_items_own;
use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, DestinationName},
    store::stored::clean,
};

/// A destination with its clock, which stops while the destination is paused.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownDestination {
    pub(super) id: i64,
    paused_at: Option<i64>,
    paused_for: i64,
}

impl KnownDestination {
    /// Returns the time of the destination's clock at a time of day.
    pub(super) fn clock(self, now: Timestamp) -> i64 {
        self.paused_at.unwrap_or(now.micros()) - self.paused_for
    }
}

/// For each channel id, the numbers of all ids that the channel has had, oldest first.
type Chains = HashMap<(AppName, ChannelId), Arc<[i64]>>;

/// Cached rows, kept from one transaction to the next.
pub(super) struct Memory {
    next_seq: i64,
    channels: HashMap<(AppName, ChannelId), i64>,
    /// Chains of channels that have had several ids; `None` until they are read.
    chains: Option<Chains>,
    destinations: HashMap<DestinationName, KnownDestination>,
}

impl Memory {
    pub(super) fn new(connection: &Connection) -> rusqlite::Result<Self> {
        let last: Option<i64> =
            connection.query_row("SELECT max(seq) FROM alerts", (), |row| row.get(0))?;
        let next_seq = last.unwrap_or(0) + 1;
        Ok(Self { next_seq, channels: HashMap::new(), chains: None, destinations: HashMap::new() })
    }

    /// Clears the cache, since a rollback may have removed cached rows.
    pub(super) fn forget(&mut self) {
        self.channels.clear();
        self.chains = None;
        self.destinations.clear();
    }
}

/// The connection that writes, in a transaction.
pub(super) struct Db<'w> {
    connection: &'w Connection,
    memory: &'w mut Memory,
    now: Timestamp,
    /// Insert statements of a new alert.
    pub(super) inserts: Inserts<'w>,
}

/// Statements that are prepared once for a transaction.
pub(super) struct Inserts<'w> {
    pub(super) alert: CachedStatement<'w>,
    pub(super) delivery: CachedStatement<'w>,
    pub(super) message: CachedStatement<'w>,
}

impl<'w> Inserts<'w> {
    fn new(connection: &'w Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            alert: connection.prepare_cached(
                "INSERT INTO alerts
                    (seq, channel, ts, ordinal, message, attachment, sources, level, search)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (channel, ts, ordinal) DO NOTHING",
            )?,
            delivery: connection.prepare_cached(
                "INSERT INTO deliveries (id, destination, due_at, since) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO NOTHING",
            )?,
            message: connection.prepare_cached(
                "INSERT INTO messages
                    (id, alerts, received_at, posted_at, source, event_id, team, raw)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?,
        })
    }
}

impl<'w> Db<'w> {
    /// Begins a transaction.
    pub(super) fn begin(
        connection: &'w Connection,
        memory: &'w mut Memory,
        now: Timestamp,
    ) -> rusqlite::Result<Self> {
        let db = Self { connection, memory, now, inserts: Inserts::new(connection)? };
        db.execute("BEGIN IMMEDIATE", ())?;
        Ok(db)
    }

    /// Returns the time at which the transaction began.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) fn connection(&self) -> &Connection {
        self.connection
    }

    pub(super) fn statement(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.prepare_cached(sql)
    }

    /// Runs a statement. Returns the number of changed rows.
    pub(super) fn execute(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
    ) -> rusqlite::Result<usize> {
        self.statement(sql)?.execute(values)
    }

    pub(super) fn commit(&self) -> rusqlite::Result<()> {
        self.execute("COMMIT", ()).map(drop)
    }

    /// Runs work behind a savepoint, and rolls back only that if the item itself is at fault. The
    /// inner error is the item's, the outer error the engine's.
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

    /// Writes a new value, to prove that writes work.
    pub(super) fn probe(&self) -> rusqlite::Result<()> {
        self.execute(
            "INSERT INTO probe (id, number) VALUES (0, 1)
             ON CONFLICT DO UPDATE SET number = number + 1",
            (),
        )
        .map(drop)
    }

    /// Clears the cache after a rollback, or a change of cached rows.
    pub(super) fn forget(&mut self) {
        self.memory.forget();
    }

    /// Returns the number for the next alert, larger than all earlier ones.
    pub(super) fn next_seq(&self) -> i64 {
        self.memory.next_seq
    }

    pub(super) fn use_seq(&mut self) {
        self.memory.next_seq += 1;
    }

    /// Returns the number of a channel id, adding a row if there is none.
    pub(super) fn channel(&mut self, app: &AppName, channel: &ChannelId) -> rusqlite::Result<i64> {
        let key = (app.clone(), channel.clone());
        if let Some(id) = self.memory.channels.get(&key) {
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
        self.memory.channels.insert(key, id);
        Ok(id)
    }

    /// Returns the numbers of the ids that the channel has had, oldest first; `None` if it has had
    /// just this one.
    pub(super) fn chain(
        &mut self,
        app: &AppName,
        channel: &ChannelId,
    ) -> rusqlite::Result<Option<Arc<[i64]>>> {
        if self.memory.chains.is_none() {
            self.memory.chains = Some(self.read_chains()?);
        }
        let chains = self.memory.chains.as_ref().filter(|chains| !chains.is_empty());
        Ok(chains.and_then(|chains| chains.get(&(app.clone(), channel.clone()))).cloned())
    }

    fn read_chains(&mut self) -> rusqlite::Result<Chains> {
        let apps: Vec<String> = self
            .statement("SELECT DISTINCT app FROM chains")?
            .query_map((), |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut all = HashMap::new();
        for app in apps.iter().filter_map(|app| AppName::new(app).ok()) {
            for chain in chains(self.connection, &app)? {
                let mut numbers = Vec::with_capacity(chain.len());
                for id in &chain {
                    numbers.push(self.channel(&app, id)?);
                }
                let numbers: Arc<[i64]> = numbers.into();
                all.extend(chain.into_iter().map(|id| ((app.clone(), id), Arc::clone(&numbers))));
            }
        }
        Ok(all)
    }

    /// Returns the destination, adding a row if there is none.
    pub(super) fn destination(
        &mut self,
        name: &DestinationName,
    ) -> rusqlite::Result<KnownDestination> {
        if let Some(known) = self.memory.destinations.get(name) {
            return Ok(*known);
        }
        self.execute(
            "INSERT INTO destinations (name) VALUES (?1) ON CONFLICT DO NOTHING",
            [name.as_str()],
        )?;
        // Read after the insert, which returns no row if the destination is known.
        let known = self
            .statement("SELECT id, paused_at, paused_for FROM destinations WHERE name = ?1")?
            .query_row([name.as_str()], |row| {
                Ok(KnownDestination {
                    id: row.get(0)?,
                    paused_at: row.get(1)?,
                    paused_for: row.get(2)?,
                })
            })?;
        self.memory.destinations.insert(name.clone(), known);
        Ok(known)
    }
}

/// Reads the id chains of an app.
pub(super) fn chains(db: &Connection, app: &AppName) -> rusqlite::Result<Vec<Vec<ChannelId>>> {
    let mut chains: Vec<Vec<ChannelId>> = Vec::new();
    let mut statement = db
        .prepare_cached("SELECT channel, place FROM chains WHERE app = ?1 ORDER BY first, place")?;
    let mut rows = statement.query([app.as_str()])?;
    while let Some(row) = rows.next()? {
        let id = ChannelId::new(row.get_ref(0)?.as_str()?);
        match (row.get::<_, i64>(1)?, chains.last_mut()) {
            (0, _) | (_, None) => chains.push(vec![id]),
            (_, Some(chain)) => chain.push(id),
        }
    }
    Ok(chains)
}
