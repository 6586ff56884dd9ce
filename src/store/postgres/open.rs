//! Opening: waits for a server that is not up yet, and checks the database.

use std::time::Duration;

use tokio_postgres::{Error, error::SqlState};

use super::{
    database::{Database, Priority},
    error::{ConnectionError, OpenError},
    row::get,
};
use crate::{clock::Clock, store::StoreError};

/// Time for which a start waits for a server that is not up.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Time between two attempts to reach the server.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Waits until the server answers. Fails at once if the server refused the relay.
pub(super) async fn wait_for(database: &Database) -> Result<(), OpenError> {
    let clock = Clock::system();
    let end = clock.now() + MAX_WAIT;
    loop {
        let Err(error) = database.run(Priority::Background, "SELECT 1", &[]).await else {
            return Ok(());
        };
        let StoreError::Engine(source) = &error else {
            return Err(error.into());
        };
        // This error of the pool only says that no connection was tried, so it decides nothing.
        let is_backing_off = matches!(source.downcast_ref(), Some(ConnectionError::BackingOff));
        if !is_backing_off {
            if is_final(source.as_ref()) || clock.now() >= end {
                return Err(error.into());
            }
            let error = crate::logging::chain(source.as_ref());
            tracing::warn!(error, "PostgreSQL is not up yet");
        }
        clock.sleep(RETRY_EVERY).await;
    }
}

/// Refuses a database whose encoding cannot represent every text.
pub(super) async fn check_encoding(database: &Database) -> Result<(), OpenError> {
    let sql = "SELECT current_setting('server_encoding')";
    let rows = database.run(Priority::Background, sql, &[]).await?;
    let encoding: String = rows.first().map_or(Ok(String::new()), |row| get(row, 0))?;
    if encoding == "UTF8" { Ok(()) } else { Err(OpenError::Encoding(encoding)) }
}

/// Returns whether the server was reached and refused: a wrong password, an unknown database, an
/// unsafe setting.
fn is_final(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<Error>() {
            return match error.code() {
                Some(code) => !is_transient(code),
                None => is_tls(error),
            };
        }
        cause = error.source();
    }
    // The pool's hook that checks the server's settings reports its error as text only.
    crate::logging::chain(error).contains("may lose what it has acknowledged")
}

/// Returns whether the server is starting, stopping, out of resources, or a standby.
fn is_transient(code: &SqlState) -> bool {
    ["57", "53", "08", "25"].iter().any(|class| code.code().starts_with(class))
}

fn is_tls(error: &Error) -> bool {
    error.to_string().contains("TLS handshake")
}
