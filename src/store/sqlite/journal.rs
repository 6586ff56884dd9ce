//! The role [`Journal`]: keeps operators' actions.

use async_trait::async_trait;
use rusqlite::{Row, params};

use super::{SqliteStore, db::Db};
use crate::{
    clock::Timestamp,
    store::{
        Deed, EntryId, JOURNAL_ENTRIES, JOURNAL_KEPT, Journal, JournalEntry, OperatorAction,
        StoreError, stored::clean,
    },
};

#[async_trait]
impl Journal for SqliteStore {
    async fn note(&self, deed: OperatorAction, changed: u64) -> Result<(), StoreError> {
        self.write(move |db, _mode| note(db, &deed, changed).map(drop)).await
    }

    async fn journal(&self, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
        self.view_reader(move |_, db| {
            db.prepare_cached(
                "SELECT at, who, action, selection, changed FROM actions ORDER BY id DESC LIMIT ?1",
            )?
            .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], entry)?
            .collect()
        })
        .await
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<JournalEntry> {
    Ok(JournalEntry {
        at: Timestamp::from_micros(row.get(0)?),
        who: row.get(1)?,
        action: row.get(2)?,
        selection: row.get(3)?,
        changed: u64::try_from(row.get::<_, i64>(4)?).unwrap_or_default(),
    })
}

/// Adds the changes of a call to the journal, in the same transaction. Returns the entry.
pub(super) fn keep(db: &Db<'_>, deed: &Deed, changed: u64) -> rusqlite::Result<EntryId> {
    match deed {
        Deed::New(deed) => note(db, deed, changed),
        Deed::More(entry) => add(db, *entry, changed).map(|()| *entry),
    }
}

/// Adds an entry, in the same transaction. Returns the entry.
pub(super) fn note(db: &Db<'_>, deed: &OperatorAction, changed: u64) -> rusqlite::Result<EntryId> {
    let OperatorAction { who, action, selection } = deed;
    let changed = i64::try_from(changed).unwrap_or(i64::MAX);
    db.execute(
        "INSERT INTO actions (at, who, action, selection, changed) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![db.now().micros(), clean(who), action, clean(selection), changed],
    )?;
    Ok(EntryId(db.connection().last_insert_rowid()))
}

/// Adds the changes of another call to an existing entry.
fn add(db: &Db<'_>, EntryId(id): EntryId, changed: u64) -> rusqlite::Result<()> {
    let changed = i64::try_from(changed).unwrap_or(i64::MAX);
    db.execute("UPDATE actions SET changed = changed + ?2 WHERE id = ?1", params![id, changed])?;
    Ok(())
}

/// Removes entries that are too old or too many.
pub(super) fn forget(db: &Db<'_>, now: Timestamp) -> rusqlite::Result<()> {
    let too_old = (now - JOURNAL_KEPT).micros();
    db.execute(
        "DELETE FROM actions WHERE at < ?1 OR id <= (SELECT max(id) FROM actions) - ?2",
        params![too_old, JOURNAL_ENTRIES],
    )?;
    Ok(())
}
