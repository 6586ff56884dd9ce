//! Connections to the file of a store, and their settings.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

/// How long a statement waits for a lock that somebody else, such as a backup, holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// How large the write-ahead log grows before it is copied into the file. That takes milliseconds
/// during which nothing is committed: at this size fewer than one commit in a hundred meets it, at
/// SQLite's own 4 MB too many. A small store has a small log.
const WAL_BYTES: u64 = 16 * 1024 * 1024;
const WAL_SHARE: u64 = 8;

/// SQLite's own 4,096 would hold two messages of the usual size, and leave a third of it empty.
const PAGE_BYTES: u64 = 8192;

pub(super) fn connect_writer(
    path: &Path,
    max_size_bytes: u64,
    is_new: bool,
) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    // Only `close` checkpoints: whoever merely drops the store leaves it as a crash would.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // These two have no effect once there is a table, but the second one would write, and there may
    // be no space for it.
    if is_new {
        db.pragma_update(None, "page_size", PAGE_BYTES)?;
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let journal: String =
        db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let synchronous: i64 = db.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    // Durability hangs on these two, so what SQLite made of them is looked at.
    if journal != "wal" || synchronous != 2 {
        let found = format!("journal_mode is {journal}, synchronous is {synchronous}");
        return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(1), Some(found)));
    }
    limit_wal(&db, WAL_BYTES.min(max_size_bytes / WAL_SHARE))?;
    common(&db)?;
    Ok(db)
}

fn limit_wal(db: &Connection, bytes: u64) -> rusqlite::Result<()> {
    let page: u64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
    db.pragma_update(None, "wal_autocheckpoint", (bytes / page).max(1))?;
    db.pragma_update(None, "journal_size_limit", bytes)
}

pub(super) fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    common(&db)?;
    Ok(db)
}

fn common(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.pragma_update(None, "mmap_size", 0)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Undoes the transaction, if there is one and SQLite has not done so already.
pub(super) fn roll_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute("ROLLBACK", ())
    {
        tracing::error!(%error, "the store could not undo a transaction");
    }
}

/// Copies the log into the file and gives its space back, as far as no reader is in the way: the
/// writer does not wait for one.
pub(super) fn empty_log(connection: &Connection) {
    let empty = || {
        connection.busy_timeout(Duration::ZERO)?;
        let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_busy| Ok(()));
        connection.busy_timeout(BUSY_TIMEOUT)?;
        emptied
    };
    if let Err(error) = empty() {
        tracing::debug!(%error, "the store's log cannot be emptied now");
    }
}
