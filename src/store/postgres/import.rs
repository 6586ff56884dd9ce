//! Importing a whole store in one transaction, into a database without messages.

use tokio_postgres::types::Type;

use super::{
    database::{Database, Priority, Transaction},
    row::count,
};
use crate::store::transfer::{error::TransferError, table::Table};

/// The transaction of an import. Dropping it before it is finished leaves the database as it was.
#[derive(Debug)]
pub(in crate::store) struct Import<'a>(Transaction<'a>);

impl<'a> Import<'a> {
    /// Begins the import, and keeps relays from adding messages until it ends.
    pub(super) async fn begin(database: &'a Database) -> Result<Self, TransferError> {
        let mut transaction = database.begin(Priority::Background).await?;
        transaction.lift_limits().await?;
        transaction.batch("LOCK TABLE relay.messages IN EXCLUSIVE MODE").await?;
        let rows = transaction.query("SELECT count(*) FROM relay.messages", &[]).await?;
        let messages = rows.first().map_or(Ok(0), |row| count(row, 0))?;
        if messages > 0 {
            return Err(TransferError::NotEmpty(messages));
        }
        Ok(Self(transaction))
    }

    /// Writes the rows of a JSON array. Returns the number of rows.
    pub(in crate::store) async fn write(
        &mut self,
        table: &Table,
        rows: &str,
    ) -> Result<u64, TransferError> {
        let sql = format!("WITH new AS ({} RETURNING 1) SELECT count(*) FROM new", table.write);
        let written = self.0.query(&sql, &[(&rows, Type::TEXT)]).await?;
        Ok(written.first().map_or(Ok(0), |row| count(row, 0))?)
    }

    /// Commits. New messages get higher numbers than the imported ones.
    pub(in crate::store) async fn finish(mut self) -> Result<(), TransferError> {
        let next_id = "SELECT setval('relay.message_id', max(id)) FROM relay.messages
            HAVING max(id) IS NOT NULL";
        self.0.query(next_id, &[]).await?;
        self.0.commit().await.map_err(TransferError::Unconfirmed)
    }
}
