//! A running worker, seen from outside: what holds its destination back, and how to end it.

use std::sync::Arc;

use super::attempt::Attempts;
use crate::{
    clock::{Moment, Timestamp},
    store::Attempt,
};

/// A look at a worker from outside. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Attempts>);

/// An open breaker: one alert at a time is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenBreaker {
    /// When it opened.
    pub since: Timestamp,
    /// When the next alert may be tried.
    pub probe_at: Timestamp,
}

impl Handle {
    pub(super) fn new(attempts: Arc<Attempts>) -> Self {
        Self(attempts)
    }

    /// Returns the breaker if it is open.
    pub fn open_breaker(&self) -> Option<OpenBreaker> {
        let health = self.0.health();
        let (since, probe_at) = (health.breaker.open_since()?, health.breaker.probe_at()?);
        // A destination that asked for a longer rest is not probed before it is over.
        let probe_at = health.quiet_until.map_or(probe_at, |quiet| quiet.max(probe_at));
        Some(OpenBreaker { since: self.time_of(since), probe_at: self.time_of(probe_at) })
    }

    /// Returns until when the destination has asked to be left alone, if it still is.
    pub fn quiet_until(&self) -> Option<Timestamp> {
        let until = self.0.health().quiet_until?;
        (until > self.0.clock.moment()).then(|| self.time_of(until))
    }

    /// Returns the newest attempt that failed since the start, if one has.
    pub fn last_failure(&self) -> Option<Attempt> {
        self.0.health().last_failure.clone()
    }

    /// Ends the worker: attempts in flight end and are recorded, what it holds unused is given
    /// back, and nothing new begins.
    pub fn retire(&self) {
        self.0.shutdown.stop();
    }

    /// An operator says that the destination is well: what waits for the breaker, or because the
    /// destination asked to be left alone, may be tried at the worker's next wake.
    pub fn probe_now(&self) {
        let now = self.0.clock.moment();
        let mut health = self.0.health();
        health.breaker.probe_now(now);
        health.quiet_until = None;
    }

    /// The time of day that the clock shows at that moment, or showed.
    fn time_of(&self, moment: Moment) -> Timestamp {
        let (now, shown) = (self.0.clock.moment(), self.0.clock.now());
        if moment > now { shown + moment.since(now) } else { shown - now.since(moment) }
    }
}
