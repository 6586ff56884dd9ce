//! The right to poll Slack, which one process at a time has for each app.
//!
//! The right is a row that the holder renews and that ends by the database's clock. Each new holder
//! gets a higher term; writes under an older term are refused.

use std::{sync::PoisonError, time::Duration};

use tokio_postgres::types::Type;

use super::{
    database::{Param, Priority},
    row::get,
    shared::Shared,
};
use crate::{ids::AppName, store::StoreError};

/// Time after which the right of a process that does not renew it ends.
const HELD: Duration = Duration::from_secs(10);

/// Takes or renews the right. A row that ends later than a new one would was written before the
/// database's clock was set back; it counts as ended.
const RENEW: &str = "
WITH clock AS (SELECT relay.now_us($1) AS now)
INSERT INTO relay.pollers AS p (app, holder, term, ends_at)
SELECT $2, $3, 1, now + $4 FROM clock
ON CONFLICT (app) DO UPDATE SET holder = excluded.holder, ends_at = excluded.ends_at,
    term = p.term + CASE WHEN p.holder = excluded.holder THEN 0 ELSE 1 END
WHERE p.holder = excluded.holder OR p.ends_at <= (SELECT now FROM clock)
    OR p.ends_at > excluded.ends_at
RETURNING p.term";

/// Returns the term under which this process polls for the app; takes the right if it is free.
/// Returns `None` while another process has it.
pub(super) async fn term(shared: &Shared, app: &AppName) -> Result<Option<u64>, StoreError> {
    {
        // From now on `renew` keeps the right between two calls.
        let mut polled = shared.polled.lock().unwrap_or_else(PoisonError::into_inner);
        if !polled.contains(app) {
            polled.push(app.clone());
        }
    }
    let now = shared.now();
    let name = app.as_str();
    let held = i64::try_from(HELD.as_micros()).unwrap_or(i64::MAX);
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&name, Type::TEXT),
        (&shared.holder, Type::INT8),
        (&held, Type::INT8),
    ];
    let rows = shared.database.run(Priority::Urgent, RENEW, &params).await?;
    let term = rows.first().map(|row| get::<i64>(row, 0)).transpose()?;
    Ok(term.and_then(|term| u64::try_from(term).ok()))
}

/// Renews the rights that this process holds.
pub(super) async fn renew(shared: &Shared) {
    const SQL: &str = "
        UPDATE relay.pollers SET ends_at = relay.now_us($1) + $2
        WHERE holder = $3 AND ends_at > relay.now_us($1)";
    let is_asked = !shared.polled.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
    if !is_asked {
        return;
    }
    let held = i64::try_from(HELD.as_micros()).unwrap_or(i64::MAX);
    let now = shared.now();
    let params: [Param<'_>; _] =
        [(&now, Type::INT8), (&held, Type::INT8), (&shared.holder, Type::INT8)];
    if let Err(error) = shared.database.run(Priority::Urgent, SQL, &params).await {
        tracing::debug!(%error, "could not renew the right to poll");
    }
}

/// Gives up the right for this app, or for all, so that another process can take it at once.
pub(super) async fn give_up(shared: &Shared, app: Option<&AppName>) -> Result<(), StoreError> {
    const SQL: &str = "
        UPDATE relay.pollers SET ends_at = relay.now_us($1)
        WHERE holder = $2 AND app = coalesce($3, app)";
    let now = shared.now();
    let app = app.map(AppName::as_str);
    let params: [Param<'_>; _] =
        [(&now, Type::INT8), (&shared.holder, Type::INT8), (&app, Type::TEXT)];
    shared.database.run(Priority::Urgent, SQL, &params).await.map(drop)
}
