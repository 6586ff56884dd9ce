//! Moves everything from a store in SQLite to an empty one in PostgreSQL, for `migrate-store`.
//!
//! Rows travel as JSON, a range of messages at a time, in one transaction of PostgreSQL: after a
//! failure the database is as it was, and the transfer can be repeated. Messages keep their
//! numbers; those of alerts and deliveries follow from them.

pub(in crate::store) mod error;
pub(in crate::store) mod table;

pub use self::error::TransferError;
use self::table::{MessageRange, RANGED, Table, WHOLE};
use super::{
    postgres::{Import, PostgresStore},
    sqlite::Export,
};

/// Number of rows moved of each table, with the name of the rows.
pub type Moved = Vec<(&'static str, u64)>;

/// Moves everything.
///
/// # Errors
/// [`TransferError`]. The database is as it was, unless the error says otherwise.
pub async fn transfer(from: &Export, to: &PostgresStore) -> Result<Moved, TransferError> {
    let mut import = to.begin_import().await?;
    let mut moved: Moved = WHOLE.iter().chain(RANGED).map(|table| (table.name, 0)).collect();
    for table in WHOLE {
        copy(from, &mut import, table, MessageRange { start: 0, end: 1 }, &mut moved).await?;
    }
    let mut start = i64::MIN;
    while let Some(end) = from.range(start)? {
        for table in RANGED {
            copy(from, &mut import, table, MessageRange { start, end }, &mut moved).await?;
        }
        start = end;
    }
    import.finish().await?;
    Ok(moved)
}

async fn copy(
    from: &Export,
    import: &mut Import<'_>,
    table: &Table,
    range: MessageRange,
    moved: &mut Moved,
) -> Result<(), TransferError> {
    let (rows, read) = from.read(table, range)?;
    let written = import.write(table, &rows).await?;
    if written != read {
        return Err(TransferError::Incomplete { name: table.name, read, written });
    }
    if let Some((_, total)) = moved.iter_mut().find(|(name, _)| *name == table.name) {
        *total += written;
    }
    Ok(())
}
