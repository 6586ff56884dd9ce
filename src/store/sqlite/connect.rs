//! Connections to the file of a store, and their settings.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

/// Time for which a statement waits for a lock that another process, such as a backup, holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Size of the write-ahead log at which it is copied into the file, and the largest share of a
/// small store. Nothing is committed during the milliseconds of a copy: at this size less than one
/// commit in a hundred waits for it, at SQLite's default of 4 MB more.
const WAL_BYTES: u64 = 16 * 1024 * 1024;
const WAL_SHARE: u64 = 8;

/// Page size. SQLite's default of 4,096 holds two usual messages and wastes a third of the page.
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
    // Only `close` checkpoints. A dropped store is left as after a crash.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Both pragmas have no effect once there is a table, but the second one would still write, and
    // the disk may be full.
    if is_new {
        db.pragma_update(None, "page_size", PAGE_BYTES)?;
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let journal: String =
        db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let synchronous: i64 = db.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    // Durability depends on both settings, so their effective values are checked.
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

/// Rolls the transaction back, unless SQLite has already done so.
pub(super) fn roll_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute("ROLLBACK", ())
    {
        tracing::error!(%error, "the store could not roll a transaction back");
    }
}

/// Copies the write-ahead log into the file and truncates the log, unless a reader needs it. Does
/// not wait for readers.
pub(super) fn empty_log(connection: &Connection) {
    let empty = || {
        connection.busy_timeout(Duration::ZERO)?;
        let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_busy| Ok(()));
        connection.busy_timeout(BUSY_TIMEOUT)?;
        emptied
    };
    if let Err(error) = empty() {
        tracing::debug!(%error, "the write-ahead log cannot be emptied now");
    }
}
