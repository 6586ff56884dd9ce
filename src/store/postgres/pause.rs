//! Pauses of destinations.

use async_trait::async_trait;
use tokio_postgres::{Row, types::Type};

use super::{
    database::{Param, Priority},
    row::{destination, get},
    shared::Shared,
    store::PostgresStore,
};
use crate::{
    clock::Timestamp,
    ids::DestinationName,
    store::{OperatorAction, Pause, PauseView, Paused, Pauses, StoreError, stored::clean},
};

/// The columns of `relay.destinations t` that [`view`] reads.
pub(super) const COLUMNS: &str = "t.paused_at, t.paused_until, t.pause_reason";

/// Returns the pause from [`COLUMNS`], the first of which has this index, or `None` if the
/// destination is not paused.
pub(super) fn view(row: &Row, column: usize) -> Result<Option<PauseView>, StoreError> {
    let Some(since) = get::<Option<i64>>(row, column)? else {
        return Ok(None);
    };
    Ok(Some(PauseView {
        since: Timestamp::from_micros(since),
        until: get::<Option<i64>>(row, column + 1)?.map(Timestamp::from_micros),
        reason: get(row, column + 2)?,
    }))
}

#[async_trait]
impl Pauses for PostgresStore {
    async fn set_paused(
        &self,
        destination: &DestinationName,
        paused: Paused,
        deed: Option<OperatorAction>,
    ) -> Result<(), StoreError> {
        set_paused(&self.shared, destination, paused, deed).await
    }

    async fn end_pauses(&self) -> Result<Vec<DestinationName>, StoreError> {
        end_pauses(&self.shared).await
    }
}

/// Pauses or resumes a destination, and writes the action to the journal.
async fn set_paused(
    shared: &Shared,
    destination: &DestinationName,
    paused: Paused,
    deed: Option<OperatorAction>,
) -> Result<(), StoreError> {
    const BEGIN: &str = "UPDATE relay.destinations
        SET paused_at = coalesce(paused_at, relay.now_us($1)),
            paused_until = relay.now_us($1) + $6, pause_length = $6, pause_reason = $7
        WHERE id = $2 AND (paused_at IS NULL OR $6 IS NOT NULL OR pause_length IS NOT NULL
            OR pause_reason <> $7)";
    // `greatest`: the clock may have been set back during the pause, which must not age deliveries.
    // The last two conditions only give types to parameters that this statement does not need.
    const END: &str = "UPDATE relay.destinations
        SET paused_for = paused_for + greatest(0, relay.now_us($1) - paused_at),
            paused_at = NULL, paused_until = NULL, pause_length = NULL, pause_reason = ''
        WHERE id = $2 AND paused_at IS NOT NULL AND $6::int8 IS NULL AND $7::text = ''";
    let id = shared.destination(destination).await?;
    let (change, pause) = match paused {
        Paused::Yes(pause) => (BEGIN, pause),
        Paused::No => (END, Pause::default()),
    };
    let sql = format!(
        "WITH changed AS ({change} RETURNING id)
         INSERT INTO relay.actions (at, who, action, selection, changed)
         SELECT relay.now_us($1), $3, $4, $5, (SELECT count(*) FROM changed) WHERE $3 IS NOT NULL"
    );
    let now = shared.now();
    let who = deed.as_ref().map(|deed| clean(&deed.who));
    let verb = deed.as_ref().map(|deed| deed.action);
    let what = deed.as_ref().map(|deed| clean(&deed.selection));
    let length = pause.length.map(|length| i64::try_from(length.as_micros()).unwrap_or(i64::MAX));
    let reason = clean(&pause.reason);
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&id, Type::INT4),
        (&who, Type::TEXT),
        (&verb, Type::TEXT),
        (&what, Type::TEXT),
        (&length, Type::INT8),
        (&reason, Type::TEXT),
    ];
    shared.database.run(Priority::Urgent, &sql, &params).await?;
    shared.wake_all(Some(destination)).await;
    Ok(())
}

/// Resumes the destinations whose pause has ended; returns their names. The row lock of the update
/// lets one of several relays end each pause.
async fn end_pauses(shared: &Shared) -> Result<Vec<DestinationName>, StoreError> {
    const MISDATED: &str = "UPDATE relay.destinations SET paused_until = $1 + pause_length
        WHERE paused_until > $1 + pause_length";
    const ENDED: &str = "
        WITH ended AS (
            UPDATE relay.destinations
            SET paused_for = paused_for + greatest(0, relay.now_us($1) - paused_at),
                paused_at = NULL, paused_until = NULL, pause_length = NULL, pause_reason = ''
            WHERE paused_until BETWEEN $2 AND $3 RETURNING name),
        kept AS (
            INSERT INTO relay.actions (at, who, action, selection, changed)
            SELECT relay.now_us($1), $4, $5, replace($6, '*', name), 1 FROM ended)
        SELECT name FROM ended";
    let span = shared.steady_time().await?;
    // An end further away than the pause is long was written before the clock was set back.
    let until = span.until.micros();
    shared.database.run(Priority::Background, MISDATED, &[(&until, Type::INT8)]).await?;
    let from = span.from.map_or(i64::MIN, Timestamp::micros);
    let now = shared.now();
    let deed = OperatorAction::end_of_pause("*");
    let params: [Param<'_>; _] = [
        (&now, Type::INT8),
        (&from, Type::INT8),
        (&until, Type::INT8),
        (&deed.who, Type::TEXT),
        (&deed.action, Type::TEXT),
        (&deed.selection, Type::TEXT),
    ];
    let rows = shared.database.run(Priority::Background, ENDED, &params).await?;
    let ended: Vec<_> = rows.iter().map(|row| destination(row, 0)).collect::<Result<_, _>>()?;
    for name in &ended {
        shared.wake_all(Some(name)).await;
    }
    Ok(ended)
}
