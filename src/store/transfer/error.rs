//! Errors of a transfer.

use crate::store::StoreError;

/// Error of a transfer.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The database holds messages already.
    #[error(
        "the database already holds {0} messages: it was moved before, or relays use it; \
         nothing was changed"
    )]
    NotEmpty(u64),
    /// PostgreSQL wrote fewer rows of a table than SQLite gave.
    #[error("{name}: {read} rows were read and {written} written; nothing was changed")]
    Incomplete {
        /// Name of the table's rows.
        name: &'static str,
        /// Number of rows read from SQLite.
        read: u64,
        /// Number of rows written to PostgreSQL.
        written: u64,
    },
    /// The SQLite file cannot be read.
    #[error("the SQLite store cannot be read; nothing was changed")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// PostgreSQL refused a statement.
    #[error("PostgreSQL refused the data; nothing was changed")]
    Target(#[from] StoreError),
    /// The answer to the commit did not arrive.
    #[error(
        "PostgreSQL did not confirm the last step; run the command again: if it says that the \
         database holds messages, all were moved"
    )]
    Unconfirmed(#[source] StoreError),
}
