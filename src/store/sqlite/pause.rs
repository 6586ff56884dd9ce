//! The role [`Pauses`]: begins and ends pauses of destinations.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::{
    SqliteStore,
    db::Db,
    job::Purpose,
    job::{Mode, Write, answer},
    journal,
    row::destination_name,
};
use crate::{
    clock::{SteadySpan, Timestamp},
    ids::DestinationName,
    store::{OperatorAction, Pause, PauseView, Paused, Pauses, StoreError, stored::clean},
};

/// The columns of a pause in `destinations t`, as [`view`] reads them.
pub(super) const COLUMNS: &str = "t.paused_at, t.paused_until, t.pause_reason";

/// Reads a pause from the columns that begin at `column`.
pub(super) fn view(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<PauseView>> {
    let Some(since) = row.get::<_, Option<i64>>(column)? else {
        return Ok(None);
    };
    let until: Option<i64> = row.get(column + 1)?;
    Ok(Some(PauseView {
        since: Timestamp::from_micros(since),
        until: until.map(Timestamp::from_micros),
        reason: row.get(column + 2)?,
    }))
}

#[async_trait]
impl Pauses for SqliteStore {
    async fn set_paused(
        &self,
        destination: &DestinationName,
        paused: Paused,
        deed: Option<OperatorAction>,
    ) -> Result<(), StoreError> {
        set_paused(self, destination, paused, deed).await
    }

    async fn end_pauses(&self) -> Result<Vec<DestinationName>, StoreError> {
        end_pauses(self).await
    }
}

/// Stops the clock of a destination, or lets it go on.
async fn set_paused(
    store: &SqliteStore,
    destination: &DestinationName,
    paused: Paused,
    deed: Option<OperatorAction>,
) -> Result<(), StoreError> {
    let (shared, name) = (Arc::clone(&store.shared), destination.clone());
    let woken = name.clone();
    let work = move |db: &mut Db<'_>, _: Mode| {
        // Adds the row of a destination that has not had a delivery yet.
        db.destination(&name)?;
        let changed = match &paused {
            Paused::Yes(pause) => begin(db, &name, pause)?,
            Paused::No => end(db, &name)?,
        };
        deed.iter().try_for_each(|deed| journal::note(db, deed, changed).map(drop))
    };
    let (job, reply) = Write::new(work, move |_durable| shared.hints.wake(Some(&woken)));
    // No lease is granted between the change and the commit, so no attempt begins in a pause.
    store.submit(job.stopping_leases());
    answer(reply).await
}

/// Begins or changes a pause. Returns 1 if anything changed, or else 0.
fn begin(db: &mut Db<'_>, destination: &DestinationName, pause: &Pause) -> rusqlite::Result<u64> {
    let length = pause.length.map(micros);
    let changed = db.execute(
        "UPDATE destinations
         SET paused_at = coalesce(paused_at, ?2), paused_until = ?2 + ?3, pause_length = ?3,
            pause_reason = ?4
         WHERE name = ?1
            AND (paused_at IS NULL OR ?3 IS NOT NULL OR pause_length IS NOT NULL
                OR pause_reason <> ?4)",
        params![destination.as_str(), db.now().micros(), length, clean(&pause.reason)],
    )?;
    db.forget();
    Ok(u64::try_from(changed).unwrap_or(u64::MAX))
}

/// Ends a pause. Returns 1 if the destination was paused, or else 0.
fn end(db: &mut Db<'_>, destination: &DestinationName) -> rusqlite::Result<u64> {
    // The clock may have been set back during the pause, which must not age anything.
    let changed = db.execute(
        "UPDATE destinations
         SET paused_for = paused_for + max(0, ?2 - paused_at), paused_at = NULL,
            paused_until = NULL, pause_length = NULL, pause_reason = ''
         WHERE name = ?1 AND paused_at IS NOT NULL",
        params![destination.as_str(), db.now().micros()],
    )?;
    db.forget();
    Ok(u64::try_from(changed).unwrap_or(u64::MAX))
}

/// Ends the pauses that have reached their end. Writes nothing if there are none, as is usual.
async fn end_pauses(store: &SqliteStore) -> Result<Vec<DestinationName>, StoreError> {
    let span = store.shared.steady_time();
    let look = move |_: &_, db: &Connection| {
        let (ended, misdated) = find(db, span)?;
        Ok(!ended.is_empty() || !misdated.is_empty())
    };
    if !store.view_reader(look).await? {
        return Ok(Vec::new());
    }
    let work = move |db: &mut Db<'_>, _: Mode| {
        // An operator may have changed a pause since the first look.
        let (ended, misdated) = find(db.connection(), span)?;
        for name in &misdated {
            db.execute(
                "UPDATE destinations SET paused_until = ?2 + pause_length WHERE name = ?1",
                params![name.as_str(), span.until.micros()],
            )?;
        }
        for name in &ended {
            let changed = end(db, name)?;
            journal::note(db, &OperatorAction::end_of_pause(name.as_str()), changed)?;
        }
        Ok(ended)
    };
    let (job, reply) = Write::new(work, |_durable| ());
    // `Finish`, since deliveries after a pause make room on a full disk.
    store.submit(job.stopping_leases().with(Purpose::Finish));
    let ended = answer(reply).await?;
    for name in &ended {
        store.shared.hints.wake(Some(name));
    }
    Ok(ended)
}

/// Returns the destinations whose pauses have ended, and those whose pauses would last longer than
/// their length, because the clock was ahead when they began.
fn find(
    db: &Connection,
    span: SteadySpan,
) -> rusqlite::Result<(Vec<DestinationName>, Vec<DestinationName>)> {
    let (until, from) = (span.until.micros(), span.from.map_or(i64::MIN, Timestamp::micros));
    let (mut ended, mut misdated) = (Vec::new(), Vec::new());
    let mut statement = db.prepare_cached(
        "SELECT name, paused_until, pause_length FROM destinations WHERE paused_until IS NOT NULL",
    )?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let (name, end, length) = (destination_name(row, 0)?, row.get(1)?, row.get::<_, i64>(2)?);
        // An end from before the start of the relay counts only once the clock has been steady,
        // since until then the clock may be ahead.
        if (from..=until).contains(&end) {
            ended.push(name);
        } else if end > until.saturating_add(length) {
            misdated.push(name);
        }
    }
    Ok((ended, misdated))
}

fn micros(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}
