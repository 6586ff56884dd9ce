//! The journal of operators' actions.

use async_trait::async_trait;
use tokio_postgres::types::Type;

use super::{
    database::{Param, Priority, Transaction},
    row::{count, get, time},
    shared::Shared,
    store::PostgresStore,
};
use crate::store::{
    Deed, EntryId, JOURNAL_ENTRIES, JOURNAL_KEPT, Journal, JournalEntry, OperatorAction,
    StoreError, stored::clean,
};

#[async_trait]
impl Journal for PostgresStore {
    async fn note(&self, deed: OperatorAction, changed: u64) -> Result<(), StoreError> {
        let mut transaction = self.shared.database.begin(Priority::Background).await?;
        keep(&self.shared, &mut transaction, &Deed::New(deed), changed).await?;
        transaction.commit().await
    }

    async fn journal(&self, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
        const SQL: &str = "SELECT at, who, action, selection, changed FROM relay.actions
            ORDER BY id DESC LIMIT $1";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows =
            self.shared.database.run(Priority::Background, SQL, &[(&limit, Type::INT8)]).await?;
        let entry = |row| {
            Ok(JournalEntry {
                at: time(row, 0)?,
                who: get(row, 1)?,
                action: get(row, 2)?,
                selection: get(row, 3)?,
                changed: count(row, 4)?,
            })
        };
        rows.iter().map(entry).collect()
    }
}

/// Writes a journal entry, or adds to one, in this transaction. Returns the number of the entry.
pub(super) async fn keep(
    shared: &Shared,
    transaction: &mut Transaction<'_>,
    deed: &Deed,
    changed: u64,
) -> Result<EntryId, StoreError> {
    const NEW: &str = "INSERT INTO relay.actions (at, who, action, selection, changed)
        VALUES (relay.now_us($1), $2, $3, $4, $5) RETURNING id";
    const MORE: &str = "UPDATE relay.actions SET changed = changed + $2 WHERE id = $1";
    let changed = i64::try_from(changed).unwrap_or(i64::MAX);
    match deed {
        Deed::New(OperatorAction { who, action, selection }) => {
            let now = shared.now();
            let who = clean(who);
            let selection = clean(selection);
            let params: [Param<'_>; _] = [
                (&now, Type::INT8),
                (&who, Type::TEXT),
                (action, Type::TEXT),
                (&selection, Type::TEXT),
                (&changed, Type::INT8),
            ];
            let rows = transaction.query(NEW, &params).await?;
            rows.first().map_or(Err(StoreError::Busy), |row| get(row, 0).map(EntryId))
        }
        Deed::More(entry) => {
            let params: [Param<'_>; _] = [(&entry.0, Type::INT8), (&changed, Type::INT8)];
            transaction.query(MORE, &params).await?;
            Ok(*entry)
        }
    }
}

/// Removes entries that are too old, and the oldest beyond the limit.
pub(super) async fn forget(shared: &Shared, now: i64) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM relay.actions WHERE at < $1::int8 - $2::int8
        OR id <= (SELECT max(id) FROM relay.actions) - $3";
    let kept = i64::try_from(JOURNAL_KEPT.as_micros()).unwrap_or(i64::MAX);
    let params: [Param<'_>; _] =
        [(&now, Type::INT8), (&kept, Type::INT8), (&JOURNAL_ENTRIES, Type::INT8)];
    shared.database.run(Priority::Background, SQL, &params).await.map(drop)
}
