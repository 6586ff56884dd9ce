//! Layout of the tables: created and migrated when a relay starts.

use super::{
    database::{Database, Priority},
    error::OpenError,
    row::get,
};
use crate::store::StoreError;

/// All migrations, in order. The version of a layout is the number of migrations that were applied.
const MIGRATIONS: &[&str] =
    &[include_str!("../migrations/postgres-1.sql"), include_str!("../migrations/postgres-2.sql")];

/// Functions of the newest layout. Creating them again does no harm.
const FUNCTIONS: &str = include_str!("../migrations/postgres-2-functions.sql");

/// Lets one relay at a time migrate. The number is arbitrary and used for nothing else.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7310593858020254319)";

/// Migrates the tables to the newest layout. Changes nothing if they have it, so a role without the
/// privilege to change tables can use those that another role has migrated.
pub(super) async fn migrate(database: &Database) -> Result<(), OpenError> {
    if is_current(database).await? {
        return Ok(());
    }
    let mut transaction = database.begin(Priority::Background).await?;
    transaction.lift_limits().await?;
    transaction.query(LOCK, &[]).await?;
    let existing = "SELECT to_regnamespace('relay') IS NOT NULL, \
        to_regclass('relay.layout') IS NOT NULL, to_regproc('relay.accept_batch') IS NOT NULL";
    let rows = transaction.query(existing, &[]).await?;
    let (has_schema, has_layout, has_functions) = match rows.first() {
        Some(row) => (get(row, 0)?, get(row, 1)?, get(row, 2)?),
        None => (false, false, false),
    };
    if !has_schema {
        transaction.batch("CREATE SCHEMA relay").await.map_err(migration_error)?;
    }
    let mut version = 0;
    if has_layout {
        let rows = transaction.query("SELECT version FROM relay.layout FOR UPDATE", &[]).await?;
        version = rows.first().map_or(Ok(0), |row| get::<i32>(row, 0))?;
    }
    // Another relay may have migrated while this one waited for the lock.
    if is_newest(version)? && has_functions {
        return Ok(());
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.batch(migration).await.map_err(migration_error)?;
    }
    transaction.batch(FUNCTIONS).await.map_err(migration_error)?;
    transaction.commit().await?;
    tracing::info!(from = version, "the tables in PostgreSQL are up to date");
    Ok(())
}

/// Returns whether the tables have the newest layout, and its functions exist: earlier builds made
/// layout 2 without them.
///
/// # Errors
/// [`OpenError::Newer`] if they have a layout that this version does not know.
pub(super) async fn is_current(database: &Database) -> Result<bool, OpenError> {
    let exists = "SELECT to_regclass('relay.layout') IS NOT NULL, \
        to_regproc('relay.accept_batch') IS NOT NULL";
    let rows = database.run(Priority::Background, exists, &[]).await?;
    let (has_layout, has_functions) = match rows.first() {
        Some(row) => (get(row, 0)?, get(row, 1)?),
        None => (false, false),
    };
    if !has_layout {
        return Ok(false);
    }
    let rows = database.run(Priority::Background, "SELECT version FROM relay.layout", &[]).await?;
    let version = rows.first().map_or(Ok(0), |row| get(row, 0))?;
    Ok(is_newest(version)? && has_functions)
}

fn is_newest(version: i32) -> Result<bool, OpenError> {
    let newest = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    if version > newest { Err(OpenError::Newer(version)) } else { Ok(version == newest) }
}

/// Returns the error of a migration, with advice if the role lacks a privilege.
fn migration_error(error: StoreError) -> OpenError {
    let denied = |error: &tokio_postgres::Error| {
        error.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE)
    };
    if let StoreError::Engine(source) = error {
        let is_denied = source.downcast_ref().is_some_and(denied);
        return if is_denied { OpenError::Rights(source) } else { OpenError::Failed(source) };
    }
    error.into()
}
