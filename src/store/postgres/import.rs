//! Taking in a whole store, in one transaction, where there is nothing yet.

use tokio_postgres::types::Type;

use super::{
    PostgresStore,
    door::{Haste, Transaction},
    row::count,
};
use crate::store::transfer::{Table, TransferError};

/// The transaction that takes everything in. Dropped unfinished it leaves nothing.
#[derive(Debug)]
pub(in crate::store) struct Import<'a>(Transaction<'a>);

impl<'a> Import<'a> {
    /// Begins, and keeps relays from adding anything meanwhile.
    pub(in crate::store) async fn begin(store: &'a PostgresStore) -> Result<Self, TransferError> {
        let mut transaction = store.shared.door.begin(Haste::Patient).await?;
        transaction.take_time().await?;
        transaction.batch("LOCK TABLE relay.messages IN EXCLUSIVE MODE").await?;
        let rows = transaction.query("SELECT count(*) FROM relay.messages", &[]).await?;
        let there = rows.first().map_or(Ok(0), |row| count(row, 0))?;
        if there > 0 {
            return Err(TransferError::NotEmpty(there));
        }
        Ok(Self(transaction))
    }

    /// Writes the rows of a JSON array; returns how many.
    pub(in crate::store) async fn write(
        &mut self,
        table: &Table,
        rows: &str,
    ) -> Result<u64, TransferError> {
        let sql = format!("WITH new AS ({} RETURNING 1) SELECT count(*) FROM new", table.write);
        let written = self.0.query(&sql, &[(&rows, Type::TEXT)]).await?;
        Ok(written.first().map_or(Ok(0), |row| count(row, 0))?)
    }

    /// Makes everything durable; new messages get higher numbers.
    pub(in crate::store) async fn finish(mut self) -> Result<(), TransferError> {
        let numbers = "SELECT setval('relay.message_id', max(id)) FROM relay.messages
            HAVING max(id) IS NOT NULL";
        self.0.query(numbers, &[]).await?;
        self.0.commit().await.map_err(TransferError::Unsure)
    }
}
