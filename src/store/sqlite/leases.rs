//! Who holds which delivery. In memory only: the lock on the store proves that the holders of an
//! earlier process are gone.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{clock::Moment, store::stored::PER_ALERT};

#[derive(Debug)]
struct Held {
    token: u64,
    expires_at: Moment,
    /// Its outcome is with the writer; until that has answered, the lease does not expire.
    recording: bool,
}

impl Held {
    fn is_live(&self, now: Moment) -> bool {
        self.recording || self.expires_at > now
    }
}

/// Every lease of this process.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<i64, Held>>,
    gate: Mutex<()>,
}

impl Leases {
    /// While this is held no lease is granted. `lease_due` holds it from its first look to its
    /// grant, the writer while it commits what an operator does to deliveries.
    pub(super) fn gate(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<i64, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The deliveries that nobody else may have now.
    pub(super) fn live(&self, now: Moment) -> HashSet<i64> {
        self.held().iter().filter(|(_, held)| held.is_live(now)).map(|(id, _)| *id).collect()
    }

    /// The same as a JSON array, for SQL.
    pub(super) fn live_json(&self, now: Moment) -> String {
        let ids: Vec<String> = self.live(now).iter().map(ToString::to_string).collect();
        format!("[{}]", ids.join(","))
    }

    /// When the first live lease of a destination ends.
    pub(super) fn first_end(&self, destination: i64, now: Moment) -> Option<Moment> {
        self.held()
            .iter()
            .filter(|(id, held)| *id % PER_ALERT == destination && held.is_live(now))
            .map(|(_, held)| held.expires_at)
            .min()
    }

    pub(super) fn grant(&self, id: i64, token: u64, expires_at: Moment) {
        self.held().insert(id, Held { token, expires_at, recording: false });
    }

    /// Holds the lease while its outcome is written. `false`: it has passed to somebody else.
    pub(super) fn start_recording(&self, id: i64, token: u64) -> bool {
        self.with(id, token, |held| held.recording = true)
    }

    /// The outcome could not be written: the lease is as before.
    pub(super) fn stop_recording(&self, id: i64, token: u64) {
        self.with(id, token, |held| held.recording = false);
    }

    fn with(&self, id: i64, token: u64, change: impl FnOnce(&mut Held)) -> bool {
        let mut held = self.held();
        let own = held.get_mut(&id).filter(|held| held.token == token);
        own.map(change).is_some()
    }

    /// Ends the lease. `false`: it had passed to somebody else.
    pub(super) fn end(&self, id: i64, token: u64) -> bool {
        let mut held = self.held();
        let own = held.get(&id).is_some_and(|held| held.token == token);
        if own {
            held.remove(&id);
        }
        own
    }
}
