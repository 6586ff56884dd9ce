//! The leases of this process. They are kept in memory only, since the lock on the store proves
//! that the holders of an earlier process are gone.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{clock::Moment, store::stored::PER_ALERT};

#[derive(Debug)]
struct Held {
    token: u64,
    expires_at: Moment,
    /// Set while the writer has the outcome. The lease does not expire meanwhile.
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
    /// Locks out new leases. `lease_due` holds the gate from the first read to the grant, and the
    /// writer while it commits changes of deliveries other than outcomes.
    pub(super) fn gate(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<i64, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the numbers of the deliveries that are leased.
    pub(super) fn live(&self, now: Moment) -> HashSet<i64> {
        self.held().iter().filter(|(_, held)| held.is_live(now)).map(|(id, _)| *id).collect()
    }

    /// Returns the numbers of the leased deliveries as a JSON array, for SQL.
    pub(super) fn live_json(&self, now: Moment) -> String {
        let ids: Vec<String> = self.live(now).iter().map(ToString::to_string).collect();
        format!("[{}]", ids.join(","))
    }

    /// Returns the end of the first live lease of a destination.
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

    /// Keeps the lease while its outcome is written. Returns `false` if another worker holds it.
    pub(super) fn start_recording(&self, id: i64, token: u64) -> bool {
        self.with(id, token, |held| held.recording = true)
    }

    /// Lets the lease expire again, after its outcome could not be written.
    pub(super) fn stop_recording(&self, id: i64, token: u64) {
        self.with(id, token, |held| held.recording = false);
    }

    fn with(&self, id: i64, token: u64, change: impl FnOnce(&mut Held)) -> bool {
        let mut held = self.held();
        let own = held.get_mut(&id).filter(|held| held.token == token);
        own.map(change).is_some()
    }

    /// Ends the lease. Returns `false` if another worker holds it.
    pub(super) fn end(&self, id: i64, token: u64) -> bool {
        let mut held = self.held();
        let own = held.get(&id).is_some_and(|held| held.token == token);
        if own {
            held.remove(&id);
        }
        own
    }
}
