//! Access to a running worker: its breaker, its last failure, and the way to stop it.

use std::sync::Arc;

use super::attempt::Attempts;
use crate::{
    clock::{Moment, Timestamp},
    store::Attempt,
};

/// Access to a running worker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WorkerHandle(Arc<Attempts>);

/// State of an open breaker: one alert at a time is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenBreaker {
    /// Time at which the breaker opened.
    pub since: Timestamp,
    /// Time at which the next probe may start.
    pub probe_at: Timestamp,
}

impl WorkerHandle {
    pub(super) fn new(attempts: Arc<Attempts>) -> Self {
        Self(attempts)
    }

    /// Returns the breaker if it is open.
    pub fn open_breaker(&self) -> Option<OpenBreaker> {
        let health = self.0.health();
        let since = health.breaker.open_since()?;
        let probe_at = health.breaker.probe_at()?;
        // A destination that asked for a longer pause is not probed before that has passed.
        let probe_at = health.quiet_until.map_or(probe_at, |quiet| quiet.max(probe_at));
        Some(OpenBreaker { since: self.time_of(since), probe_at: self.time_of(probe_at) })
    }

    /// Returns the end of the pause that the destination has asked for, if it has not passed.
    pub fn quiet_until(&self) -> Option<Timestamp> {
        let until = self.0.health().quiet_until?;
        (until > self.0.clock.moment()).then(|| self.time_of(until))
    }

    /// Returns the newest failed attempt since the start, if there is one.
    pub fn last_failure(&self) -> Option<Attempt> {
        self.0.health().last_failure.clone()
    }

    /// Stops the worker: no attempt begins, unused leases are released, and attempts in flight end
    /// and are recorded.
    pub fn retire(&self) {
        self.0.shutdown.stop();
    }

    /// Allows a probe at the worker's next wake, because an operator says that the destination
    /// works: neither the breaker nor a pause that the destination asked for holds alerts back
    /// then.
    pub fn probe_now(&self) {
        let now = self.0.clock.moment();
        let mut health = self.0.health();
        health.breaker.probe_now(now);
        health.quiet_until = None;
    }

    /// Returns the time of day at a moment of the past or the future.
    fn time_of(&self, moment: Moment) -> Timestamp {
        let now = self.0.clock.moment();
        let shown = self.0.clock.now();
        if moment > now { shown + moment.since(now) } else { shown - now.since(moment) }
    }
}
