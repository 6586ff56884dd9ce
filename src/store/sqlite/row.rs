//! Reads and writes the column types of the store.

use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, Type, Value, ValueRef},
};

use crate::ids::{
    AlertId, AppName, ChannelId, DestinationName, IdError, MessageKey, MessageTs, TsKey,
};

/// The timestamp of a message as stored: an integer, or the bytes of the digest.
pub(super) struct StoredTs(pub(super) TsKey);

impl ToSql for StoredTs {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match &self.0 {
            TsKey::Ts(ts) => ToSqlOutput::Owned(Value::Integer(ts.micros())),
            TsKey::Digest(digest) => ToSqlOutput::Borrowed(ValueRef::Blob(digest)),
        })
    }
}

impl FromSql for StoredTs {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        if let Ok(micros) = value.as_i64() {
            return Ok(Self(TsKey::Ts(MessageTs::from_micros(micros))));
        }
        let digest = <[u8; 8]>::try_from(value.as_blob()?)
            .map_err(|wrong_length| FromSqlError::Other(wrong_length.into()))?;
        Ok(Self(TsKey::Digest(digest)))
    }
}

/// Reads the id of an alert from the first columns: `app`, `channel`, `ts` and `ordinal`.
pub(super) fn alert_id(row: &Row<'_>) -> rusqlite::Result<AlertId> {
    let message = MessageKey {
        app: AppName::new(row.get_ref(0)?.as_str()?).map_err(not_a_name)?,
        channel: ChannelId::new(row.get_ref(1)?.as_str()?),
        ts: row.get::<_, StoredTs>(2)?.0,
    };
    Ok(AlertId { message, ordinal: row.get(3)? })
}

/// Reads the name of a destination.
pub(super) fn destination_name(row: &Row<'_>, column: usize) -> rusqlite::Result<DestinationName> {
    DestinationName::new(row.get_ref(column)?.as_str()?).map_err(not_a_name)
}

fn not_a_name(error: IdError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, error.into())
}

/// Reads the name of an app.
pub(super) fn app_name(row: &Row<'_>, column: usize) -> rusqlite::Result<AppName> {
    AppName::new(row.get_ref(column)?.as_str()?).map_err(not_a_name)
}
