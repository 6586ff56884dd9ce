//! Errors of opening and of connections, and the meaning of a server's error for the store.

use deadpool_postgres::PoolError;
use tokio_postgres::{Error, error::SqlState};

use crate::store::StoreError;

/// Error of opening the store in PostgreSQL. No message contains the URL or its password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be parsed.
    #[error(
        "store.postgres.url is not a URL such as \
         postgresql://relay:password@db.example.com/relay?sslmode=require"
    )]
    Url,
    /// The server may lose a commit that it acknowledged.
    #[error(
        "PostgreSQL may lose what it has acknowledged: {0}; switch it on, or set \
         `allow_unsafe: true` if alerts may be lost"
    )]
    Unsafe(String),
    /// The database's encoding cannot represent every text.
    #[error(
        "the database has the encoding {0}, which cannot store every alert; \
         create it with: CREATE DATABASE relay ENCODING 'UTF8' TEMPLATE template0"
    )]
    Encoding(String),
    /// The tables have a layout of a newer version of the relay.
    #[error(
        "the tables were created by a newer version of the relay (layout {0}); \
         start that version"
    )]
    Newer(i32),
    /// The role lacks the privilege to create the tables.
    #[error(
        "the database role may not create the relay's tables; \
         let its owner run: CREATE SCHEMA relay AUTHORIZATION <the role>"
    )]
    Rights(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server refused the relay, or could not be reached.
    #[error("PostgreSQL cannot be used as a store")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        if let StoreError::Engine(source) = error {
            return Self::Failed(source);
        }
        Self::Failed(error.into())
    }
}

/// A failure that the server did not report as an error.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("could not connect to PostgreSQL")]
    Connect(#[source] PoolError),
    #[error("PostgreSQL could not be reached a moment ago")]
    BackingOff,
    #[error("PostgreSQL did not answer in time")]
    Timeout,
    #[error("PostgreSQL warned at the commit: it may not be on the standby")]
    NotReplicated,
    #[error("the stored value was not written by this relay")]
    InvalidValue(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<ConnectionError> for StoreError {
    fn from(error: ConnectionError) -> Self {
        Self::Engine(error.into())
    }
}

/// Returns the store's error for an error of the server or the driver.
pub(super) fn store_error(error: Error) -> StoreError {
    match error.code() {
        Some(code) if *code == SqlState::DISK_FULL => StoreError::Full,
        Some(code) if is_fault_of_item(code) => StoreError::Item(error.into()),
        Some(_) | None => StoreError::Engine(error.into()),
    }
}

/// Returns whether the error is about the data itself: a data exception (class 22) or a value that
/// exceeds a limit of the server (class 54). A violated constraint is not: the data is sound, and
/// the tables are not as the relay expects.
fn is_fault_of_item(code: &SqlState) -> bool {
    ["22", "54"].iter().any(|class| code.code().starts_with(class))
}

/// Returns whether the same transaction may succeed when it is tried again at once.
pub(super) fn is_retryable(error: &StoreError) -> bool {
    let StoreError::Engine(source) = error else {
        return false;
    };
    let code = source.downcast_ref::<Error>().and_then(Error::code);
    code.is_some_and(|code| {
        [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(code)
    })
}
