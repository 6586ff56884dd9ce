//! Reads a whole store, to copy it to PostgreSQL. No other process may have the store open.

use std::{fmt, path::Path};

use rusqlite::{Connection, OptionalExtension};

use super::{
    OpenError,
    files::Locks,
    open::{self, Opened},
};
use crate::store::{
    sql::with_numbers,
    transfer::{
        error::TransferError,
        table::{MessageRange, Table},
    },
};

/// Bytes and messages after which a range ends.
const BYTES: i64 = 4 * 1024 * 1024;
const MESSAGES: usize = 500;

/// A store that is open for reading, locked against other processes.
pub struct Export {
    connection: Connection,
    _locks: Locks,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Export")
    }
}

impl Export {
    /// Opens an existing store.
    ///
    /// # Errors
    /// [`OpenError`]: the store is in use, damaged or missing.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if let Err(missing) = std::fs::metadata(path) {
            return Err(OpenError::Failed { path: path.to_owned(), source: missing.into() });
        }
        let Opened { writer, locks, .. } = open::open(path, u64::MAX)?;
        Ok(Self { connection: writer, _locks: locks })
    }

    /// Returns the end of the range of messages that begins at `first`, or `None` after the last
    /// message.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(in crate::store) fn range(&self, first: i64) -> Result<Option<i64>, TransferError> {
        let look = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT id, coalesce(length(raw), 0) FROM messages WHERE id >= ?1 ORDER BY id",
            )?;
            let mut rows = statement.query([first])?;
            let (mut end, mut bytes, mut messages) = (None, 0, 0);
            while bytes < BYTES
                && messages < MESSAGES
                && let Some(row) = rows.next()?
            {
                end = Some(row.get::<_, i64>(0)? + 1);
                bytes += row.get::<_, i64>(1)?;
                messages += 1;
            }
            rusqlite::Result::Ok(end)
        };
        look().map_err(failed)
    }

    /// Returns the rows of a table that belong to a range of messages, as a JSON array, and their
    /// number.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(in crate::store) fn read(
        &self,
        table: &Table,
        MessageRange { start, end }: MessageRange,
    ) -> Result<(String, u64), TransferError> {
        let look = || {
            let rows: Option<String> = self
                .connection
                .prepare_cached(&with_numbers(table.read))?
                .query_row([start, end], |row| row.get(0))
                .optional()?;
            let rows = rows.unwrap_or_else(|| "[]".to_owned());
            let count = self
                .connection
                .prepare_cached("SELECT json_array_length(?1)")?
                .query_row([&rows], |row| row.get(0))?;
            rusqlite::Result::Ok((rows, count))
        };
        look().map_err(failed)
    }
}

fn failed(error: rusqlite::Error) -> TransferError {
    TransferError::Source(error.into())
}
