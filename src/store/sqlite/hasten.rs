//! Ends waits: when a destination works again, when its settings have changed, and when the clock
//! has been set back.

use std::sync::Arc;

use rusqlite::{Connection, named_params, params};

use super::{SqliteStore, db::Db, job::Mode, job::Purpose, operate::PIECE, shared::Shared};
use crate::{
    ids::DestinationName,
    store::{Hasten, StoreError, stored::HELD_MAX_US},
};

/// Makes waiting deliveries due now, in transactions of bounded size. Returns their number.
pub(super) async fn hasten(
    store: &SqliteStore,
    destination: &DestinationName,
    whom: Hasten,
) -> Result<u64, StoreError> {
    let mut total = 0;
    loop {
        let name = destination.clone();
        // Nearly always nothing is found, and then nothing is written.
        let look = move |shared: &Shared, db: &Connection| delayed(shared, db, &name, whom);
        let found = store.view_reader(look).await?;
        if found.is_empty() {
            return Ok(total);
        }
        let shared = Arc::clone(&store.shared);
        let is_last = found.len() < usize::try_from(PIECE).unwrap_or(usize::MAX);
        let work = move |db: &mut Db<'_>, _mode: Mode| make_due(&shared, db, &found, whom);
        let changed = store.write_stopping_leases(work).await?;
        total += changed;
        // If nothing of a whole piece has changed, everything was leased or recorded since the
        // look. The next call looks again.
        if is_last || changed == 0 {
            store.shared.hints.wake(Some(destination));
            return Ok(total);
        }
    }
}

/// Returns the SQL condition for the deliveries to change, among those that are due after `:now`.
const fn condition(whom: Hasten) -> &'static str {
    match whom {
        Hasten::Recovered => "attempts > 0 AND because = 0",
        Hasten::Misdated => "due_at - :now > iif(attempts = 0, :held, wait)",
    }
}

/// Finds deliveries to change, at most [`PIECE`].
fn delayed(
    shared: &Shared,
    db: &Connection,
    destination: &DestinationName,
    whom: Hasten,
) -> rusqlite::Result<Vec<i64>> {
    let leased = shared.leases.live_json(shared.clock.moment());
    // `:held = :held` uses the parameter in statements whose condition does not.
    db.prepare_cached(&format!(
        "SELECT id FROM deliveries INDEXED BY deliveries_due
         WHERE destination = (SELECT id FROM destinations WHERE name = :name) AND state = 0
            AND due_at > :now AND :held = :held AND {}
            AND id NOT IN (SELECT value FROM json_each(:leased)) LIMIT :piece",
        condition(whom)
    ))?
    .query_map(
        named_params! {
            ":name": destination.as_str(), ":now": shared.clock.now().micros(),
            ":held": HELD_MAX_US, ":leased": leased, ":piece": PIECE,
        },
        |row| row.get(0),
    )?
    .collect()
}

/// Makes those deliveries due now that still meet the condition and are not leased. Returns their
/// number.
fn make_due(
    shared: &Shared,
    db: &Db<'_>,
    deliveries: &[i64],
    whom: Hasten,
) -> rusqlite::Result<u64> {
    let live = shared.leases.live(shared.clock.moment());
    // The condition is checked again, since outcomes may have been recorded since the look.
    let mut statement = db.statement(&format!(
        "UPDATE deliveries SET due_at = :now, wait = 0
         WHERE id = :id AND state = 0 AND due_at > :now AND :held = :held AND {}",
        condition(whom)
    ))?;
    let mut changed = 0;
    for id in deliveries.iter().filter(|id| !live.contains(id)) {
        let values = named_params! {
            ":id": id, ":now": db.now().micros(), ":held": HELD_MAX_US,
        };
        changed += statement.execute(values)?;
    }
    Ok(u64::try_from(changed).unwrap_or(u64::MAX))
}

/// Stores the mark of the settings. If it has changed, resets the refusals.
pub(super) async fn note_settings(
    store: &SqliteStore,
    destination: &DestinationName,
    mark: u16,
) -> Result<u64, StoreError> {
    let name = destination.clone();
    let work = move |db: &mut Db<'_>, _: Mode| reset_refusals(db, &name, mark);
    let changed = store.write_for(Purpose::Finish, work).await?;
    if changed > 0 {
        store.shared.hints.wake(Some(destination));
    }
    Ok(changed)
}

fn reset_refusals(
    db: &mut Db<'_>,
    destination: &DestinationName,
    mark: u16,
) -> rusqlite::Result<u64> {
    let id = db.destination(destination)?.id;
    // `IS NOT`, since a destination has no mark at first.
    let is_new = db.execute(
        "UPDATE destinations SET settings = ?2 WHERE id = ?1 AND settings IS NOT ?2",
        params![id, mark],
    )?;
    if is_new == 0 {
        return Ok(0);
    }
    let changed = db.execute(
        "UPDATE deliveries SET alert_faults = 0, accepted = 0, evidence = 0,
            due_at = min(due_at, ?2), wait = 0
         WHERE id IN (SELECT id FROM deliveries INDEXED BY deliveries_refused
            WHERE destination = ?1 AND state = 0 AND alert_faults > 0)",
        params![id, db.now().micros()],
    )?;
    Ok(u64::try_from(changed).unwrap_or(u64::MAX))
}
