//! Checks for `doctor` of a store that another process may have open. Nothing here writes.

use std::path::Path;

use super::{catch_up, disk, error::OpenError, open, paths::directory};
use crate::ids::{AppName, ChannelId};

/// The largest number of problems to report.
const PROBLEMS: i64 = 10;

/// Reads every page of the store. Returns the problems found, or `None` if there is no store yet.
///
/// # Errors
/// [`OpenError`]: the store cannot be opened.
pub fn integrity(path: &Path) -> Result<Option<Vec<String>>, OpenError> {
    let Some(db) = open::look(path)? else {
        return Ok(None);
    };
    let read = || {
        let mut statement = db.prepare(&format!("PRAGMA integrity_check({PROBLEMS})"))?;
        let rows = statement.query_map((), |row| row.get::<_, String>(0))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let mut found = read().map_err(|source| OpenError::engine(path, source))?;
    found.retain(|line| line != "ok");
    Ok(Some(found))
}

/// Returns the bytes that are free on the disk of the store for a user who is not root.
///
/// # Errors
/// The free space cannot be read.
pub fn free_bytes(path: &Path) -> std::io::Result<u64> {
    disk::available(directory(path))
}

/// Returns the ids that the relay has found for the configured channels of an app.
///
/// # Errors
/// [`OpenError`]: the store cannot be read.
pub fn known_channels(path: &Path, app: &AppName) -> Result<Vec<(String, ChannelId)>, OpenError> {
    let Some(db) = open::look(path)? else {
        return Ok(Vec::new());
    };
    catch_up::channel_ids(&db, app).map_err(|source| OpenError::engine(path, source))
}
