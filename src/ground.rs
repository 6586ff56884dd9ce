//! The four things that nearly every part of a running relay is built with. `cli::serve` makes one
//! [`Ground`] at the start and gives each part a clone.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    clock::{Clock, rough},
    logging::chain,
    metrics::Metrics,
    shutdown::Shutdown,
    store::{Store, StoreError},
};

/// Time without a failure after which an outage of the store has ended. Loops ask the store every
/// second, and one kind of request may succeed while another fails.
const CALM: Duration = Duration::from_secs(10);

/// Pause between two log lines about failures of the same outage.
const REMINDER: Duration = Duration::from_secs(60);

/// Log of the store's outages. Loops that fail because of the store try again every second, so an
/// outage is logged when it begins, once a minute while it lasts, and when it ends. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StoreOutages {
    clock: Clock,
    current: Arc<Mutex<Option<Outage>>>,
}

#[derive(Debug)]
struct Outage {
    began: Instant,
    last_failure: Instant,
    last_logged: Instant,
}

impl StoreOutages {
    /// Creates a log without an outage.
    pub fn new(clock: Clock) -> Self {
        Self { clock, current: Arc::default() }
    }

    /// Logs that the store failed while a loop tried to `task`.
    pub fn failed(&self, task: &str, error: &StoreError) {
        let error = chain(error);
        let now = self.clock.instant();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = current.is_none();
        let outage =
            current.get_or_insert(Outage { began: now, last_failure: now, last_logged: now });
        outage.last_failure = now;
        if is_new || now.saturating_duration_since(outage.last_logged) >= REMINDER {
            outage.last_logged = now;
            tracing::error!(
                error,
                "the store fails: could not {task}; trying again (logged once a minute)"
            );
        }
    }

    /// Logs the end of an outage once the store has not failed for ten seconds.
    pub fn answered(&self) {
        let now = self.clock.instant();
        let mut outage = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |at| now.saturating_duration_since(at);
        if let Some(Outage { began, .. }) = outage.take_if(|one| since(one.last_failure) >= CALM) {
            tracing::info!("the store works again, {} after it failed", rough(since(began)));
        }
    }
}

/// Store, clock, metrics and shutdown signal of one relay. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Store that holds the alerts and the cursors.
    pub store: Arc<dyn Store>,
    /// Source of time, jitter and random tokens.
    pub clock: Clock,
    /// Registry of every metric.
    pub metrics: Metrics,
    /// Signal to stop, and the heartbeats of the internal loops.
    pub shutdown: Shutdown,
    /// Log of the store's outages.
    pub outages: StoreOutages,
}

impl Ground {
    /// Returns a clone whose [`Shutdown`] can be stopped alone; stopping this one stops both.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { shutdown: self.shutdown.child(), ..self.clone() }
    }
}
