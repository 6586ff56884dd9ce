//! Reads columns of rows. A column of an unexpected type or content is an error, never a panic.

use bytes::Bytes;
use tokio_postgres::{Row, types::FromSql};

use super::error::{ConnectionError, store_error};
use crate::{
    clock::Timestamp,
    ids::{AlertId, AppName, DestinationName, IdError, MessageKey},
    store::StoreError,
};

/// Returns a column of a row.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(store_error)
}

/// Returns a column that is never negative.
pub(super) fn count(row: &Row, column: usize) -> Result<u64, StoreError> {
    get::<i64>(row, column).map(|number| u64::try_from(number).unwrap_or(0))
}

/// Returns a number as `u32`, or `u32::MAX` if it does not fit.
pub(super) fn small(row: &Row, column: usize) -> Result<u32, StoreError> {
    get::<i64>(row, column).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// Returns a time in microseconds as a timestamp.
pub(super) fn time(row: &Row, column: usize) -> Result<Timestamp, StoreError> {
    get(row, column).map(Timestamp::from_micros)
}

/// Returns a column of bytes, or `None` if it is NULL.
pub(super) fn bytes(row: &Row, column: usize) -> Result<Option<Bytes>, StoreError> {
    Ok(get::<Option<&[u8]>>(row, column)?.map(Bytes::copy_from_slice))
}

/// Returns the id of the message's alert with this ordinal, from a column that holds the
/// message's key.
pub(super) fn alert_id_of(row: &Row, column: usize, ordinal: u32) -> Result<AlertId, StoreError> {
    let message = get::<&str>(row, column)?.parse::<MessageKey>().map_err(invalid)?;
    Ok(AlertId { message, ordinal })
}

/// Returns the name of an app.
pub(super) fn app(row: &Row, column: usize) -> Result<AppName, StoreError> {
    AppName::new(get(row, column)?).map_err(invalid)
}

/// Returns an alert's id from two columns: the message's key, then the ordinal.
pub(super) fn alert_id(row: &Row, column: usize) -> Result<AlertId, StoreError> {
    let message = get::<&str>(row, column)?.parse::<MessageKey>().map_err(invalid)?;
    Ok(AlertId { message, ordinal: small(row, column + 1)? })
}

/// Returns the name of a destination.
pub(super) fn destination(row: &Row, column: usize) -> Result<DestinationName, StoreError> {
    DestinationName::new(get(row, column)?).map_err(invalid)
}

fn invalid(error: IdError) -> StoreError {
    ConnectionError::InvalidValue(error.into()).into()
}
