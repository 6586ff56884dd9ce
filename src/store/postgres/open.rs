//! Opening: what can be wrong, and waiting for a server that is not there yet.

use std::time::Duration;

use tokio_postgres::{Error, error::SqlState};

use super::{
    door::{Door, Haste, Trouble},
    row::get,
};
use crate::{clock::Clock, store::StoreError};

/// For how long, and how often, a server that is not there yet is looked for.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

/// Why the store in PostgreSQL could not be opened. No message holds the URL or its password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be read.
    #[error(
        "store.postgres.url is not a URL such as \
         postgresql://relay:password@db.example.com/relay?sslmode=require"
    )]
    Url,
    /// The server may forget a commit.
    #[error(
        "PostgreSQL may lose what it has acknowledged: {0}; switch it on, or say \
         `allow_unsafe: true` if alerts may be lost"
    )]
    Unsafe(String),
    /// The database cannot hold every text.
    #[error(
        "the database has the encoding {0}, in which not every alert can be stored; \
         make it with: CREATE DATABASE relay ENCODING 'UTF8' TEMPLATE template0"
    )]
    Encoding(String),
    /// The tables are of a newer version of the relay.
    #[error(
        "the tables were made by a newer version of the relay (layout {0}); \
         start that version"
    )]
    Newer(i32),
    /// The role may not make the tables.
    #[error(
        "the database role may not make the relay's tables; \
         let its owner run: CREATE SCHEMA relay AUTHORIZATION <the role>"
    )]
    Rights(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server refused, or could not be reached.
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

/// Waits for the server to answer. What waiting does not mend ends it.
pub(super) async fn wait_for(door: &Door) -> Result<(), OpenError> {
    let clock = Clock::system();
    let end = clock.now() + PATIENCE;
    loop {
        let Err(error) = door.run(Haste::Patient, "SELECT 1", &[]).await else {
            return Ok(());
        };
        let StoreError::Engine(source) = &error else {
            return Err(error.into());
        };
        let is_pause = matches!(source.downcast_ref(), Some(Trouble::Pause));
        if !is_pause {
            if is_final(source.as_ref()) || clock.now() >= end {
                return Err(error.into());
            }
            let error = crate::logging::chain(source.as_ref());
            tracing::warn!(error, "PostgreSQL is not there yet");
        }
        clock.sleep(PAUSE).await;
    }
}

/// Refuses a database in which an alert could not be stored for a letter of it.
pub(super) async fn check_encoding(door: &Door) -> Result<(), OpenError> {
    let sql = "SELECT current_setting('server_encoding')";
    let rows = door.run(Haste::Patient, sql, &[]).await?;
    let encoding: String = rows.first().map_or(Ok(String::new()), |row| get(row, 0))?;
    if encoding == "UTF8" { Ok(()) } else { Err(OpenError::Encoding(encoding)) }
}

/// Whether the server was reached and refused: a wrong password, an unknown database, a setting.
fn is_final(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<Error>() {
            return match error.code() {
                Some(code) => !is_passing(code),
                None => is_tls(error),
            };
        }
        cause = error.source();
    }
    // The hook that looks at the server's settings has no source.
    crate::logging::chain(error).contains("may lose what it has acknowledged")
}

/// The server starts, ends, is full, or is a standby.
fn is_passing(code: &SqlState) -> bool {
    ["57", "53", "08", "25"].iter().any(|class| code.code().starts_with(class))
}

fn is_tls(error: &Error) -> bool {
    error.to_string().contains("TLS handshake")
}
