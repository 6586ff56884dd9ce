//! The four things that nearly every part of a running relay is built with. `cli::serve` makes one
//! [`Ground`] at the start and gives each part a clone.

use std::sync::Arc;

use crate::{clock::Clock, metrics::Metrics, shutdown::Shutdown, store::Store};

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
}

impl Ground {
    /// Returns a clone whose [`Shutdown`] can be stopped alone; stopping this one stops both.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { shutdown: self.shutdown.child(), ..self.clone() }
    }
}
