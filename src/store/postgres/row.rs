//! Reading rows: a column that is not what it should be is an error, never a panic.

use bytes::Bytes;
use tokio_postgres::{Row, types::FromSql};

use super::door::{Trouble, failed};
use crate::{
    clock::Timestamp,
    ids::{AlertId, AppName, DestinationName, IdError, MessageKey},
    store::StoreError,
};

/// A column of a row.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(failed)
}

/// A number that is never negative.
pub(super) fn count(row: &Row, column: usize) -> Result<u64, StoreError> {
    get::<i64>(row, column).map(|number| u64::try_from(number).unwrap_or(0))
}

/// A number that fits, or the largest there is.
pub(super) fn small(row: &Row, column: usize) -> Result<u32, StoreError> {
    get::<i64>(row, column).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// A moment.
pub(super) fn time(row: &Row, column: usize) -> Result<Timestamp, StoreError> {
    get(row, column).map(Timestamp::from_micros)
}

/// Bytes, if there are any.
pub(super) fn bytes(row: &Row, column: usize) -> Result<Option<Bytes>, StoreError> {
    Ok(get::<Option<&[u8]>>(row, column)?.map(Bytes::copy_from_slice))
}

/// The identity of an alert of the message whose key is in that column.
pub(super) fn alert_id_of(row: &Row, column: usize, ordinal: u32) -> Result<AlertId, StoreError> {
    let message = get::<&str>(row, column)?.parse::<MessageKey>().map_err(foreign)?;
    Ok(AlertId { message, ordinal })
}

/// An app's name.
pub(super) fn app(row: &Row, column: usize) -> Result<AppName, StoreError> {
    AppName::new(get(row, column)?).map_err(foreign)
}

/// The alert's identity, from the message's key and the ordinal in two columns from this one on.
pub(super) fn alert_id(row: &Row, column: usize) -> Result<AlertId, StoreError> {
    let message = get::<&str>(row, column)?.parse::<MessageKey>().map_err(foreign)?;
    Ok(AlertId { message, ordinal: small(row, column + 1)? })
}

/// A destination's name.
pub(super) fn destination(row: &Row, column: usize) -> Result<DestinationName, StoreError> {
    DestinationName::new(get(row, column)?).map_err(foreign)
}

fn foreign(error: IdError) -> StoreError {
    StoreError::Engine(Trouble::Foreign(error.into()).into())
}
