//! The tables: made and brought up to date when a relay starts, by one at a time.

use super::{
    OpenError,
    door::{Door, Haste},
    row::get,
};
use crate::store::StoreError;

/// What was done, in order. The layout's version is how many of these were.
const MIGRATIONS: &[&str] =
    &[include_str!("../migrations/postgres-1.sql"), include_str!("../migrations/postgres-2.sql")];

/// Two relays that start at once take turns. The number is of no meaning, and nobody else's.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7310593858020254319)";

/// Brings the tables up to date. What is up to date is only looked at, so a role that may change
/// no tables can use what another has prepared.
pub(super) async fn prepare(door: &Door) -> Result<(), OpenError> {
    if is_current(version(door).await?)? {
        return Ok(());
    }
    let mut transaction = door.begin(Haste::Patient).await?;
    transaction.take_time().await?;
    transaction.query(LOCK, &[]).await?;
    let has_schema = "SELECT to_regnamespace('relay') IS NOT NULL, to_regclass('relay.layout') \
        IS NOT NULL";
    let rows = transaction.query(has_schema, &[]).await?;
    let (has_schema, has_layout) = match rows.first() {
        Some(row) => (get(row, 0)?, get(row, 1)?),
        None => (false, false),
    };
    if !has_schema {
        transaction.batch("CREATE SCHEMA relay").await.map_err(needs_rights)?;
    }
    let mut done = 0;
    if has_layout {
        let rows = transaction.query("SELECT version FROM relay.layout FOR UPDATE", &[]).await?;
        done = rows.first().map_or(Ok(0), |row| get::<i32>(row, 0))?;
    }
    if is_current(done)? {
        return Ok(());
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(done).unwrap_or(0)) {
        transaction.batch(migration).await.map_err(needs_rights)?;
    }
    transaction.commit().await?;
    tracing::info!(from = done, "the tables in PostgreSQL are up to date");
    Ok(())
}

/// Whether there are tables that this version can use.
pub(super) async fn is_there(door: &Door) -> Result<bool, OpenError> {
    is_current(version(door).await?)
}

async fn version(door: &Door) -> Result<i32, OpenError> {
    let there = "SELECT to_regclass('relay.layout') IS NOT NULL";
    let rows = door.run(Haste::Patient, there, &[]).await?;
    let is_there = rows.first().map_or(Ok(false), |row| get(row, 0))?;
    if !is_there {
        return Ok(0);
    }
    let rows = door.run(Haste::Patient, "SELECT version FROM relay.layout", &[]).await?;
    Ok(rows.first().map_or(Ok(0), |row| get::<i32>(row, 0))?)
}

/// Whether nothing is to be done.
fn is_current(version: i32) -> Result<bool, OpenError> {
    let newest = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    if version > newest { Err(OpenError::Newer(version)) } else { Ok(version == newest) }
}

fn needs_rights(error: StoreError) -> OpenError {
    let denied = |error: &tokio_postgres::Error| {
        error.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE)
    };
    if let StoreError::Engine(source) = error {
        let is_denied = source.downcast_ref().is_some_and(denied);
        return if is_denied { OpenError::Rights(source) } else { OpenError::Failed(source) };
    }
    error.into()
}
