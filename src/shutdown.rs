//! Starts and stops tasks: the one door for `spawn`, the two steps of a graceful stop, and the
//! heartbeats from which `/livez` learns that the loops run.
//!
//! First step, *draining*: not ready, still accepting. Second step, *stopping*: nothing new.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

/// Handle that everything shares that runs until the process ends. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    stopping: CancellationToken,
    tasks: TaskTracker,
    heartbeats: Arc<Mutex<BTreeMap<String, Heartbeat>>>,
}

impl Shutdown {
    /// Returns a handle for a process that is not stopping.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task that [`Shutdown::finished`] waits for.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Returns a handle for tasks that may be stopped before the others: stopping the child stops
    /// its tasks alone, stopping this handle stops them too.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            draining: self.draining.child_token(),
            stopping: self.stopping.child_token(),
            ..self.clone()
        }
    }

    /// Takes the first step: readiness goes off, connections are closed after their answer.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Takes the second step: nothing new is accepted or started.
    pub fn stop(&self) {
        self.draining.cancel();
        self.stopping.cancel();
    }

    /// Returns whether the first step was taken.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Returns whether the second step was taken.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Completes when the first step is taken.
    pub fn drained(&self) -> WaitForCancellationFutureOwned {
        self.draining.clone().cancelled_owned()
    }

    /// Completes when the second step is taken.
    pub fn stopped(&self) -> WaitForCancellationFutureOwned {
        self.stopping.clone().cancelled_owned()
    }

    /// Completes when every task has ended. Call [`Shutdown::stop`] first.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Registers a loop that must call [`Heartbeat::beat`] at least every 30 seconds.
    pub fn heartbeat(&self, name: &str, now: Instant) -> Heartbeat {
        let heartbeat = Heartbeat { start: now, last_ms: Arc::new(AtomicU64::new(0)) };
        let mut all = self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.to_owned(), heartbeat.clone());
        heartbeat
    }

    /// Returns the names of the loops that have been silent for longer than `limit`.
    pub fn silent_loops(&self, now: Instant, limit: Duration) -> Vec<String> {
        let all = self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|(_, heartbeat)| heartbeat.age(now) > limit)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Forgets a loop that has ended on purpose, unless another one has taken its name.
    pub fn forget_heartbeat(&self, name: &str, heartbeat: &Heartbeat) {
        let mut all = self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(name).is_some_and(|known| Arc::ptr_eq(&known.last_ms, &heartbeat.last_ms)) {
            all.remove(name);
        }
    }
}

/// The sign of life of one loop.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Notes that the loop still runs.
    pub fn beat(&self, now: Instant) {
        let since_start = now.saturating_duration_since(self.start).as_millis();
        self.last_ms.store(u64::try_from(since_start).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn age(&self, now: Instant) -> Duration {
        let last = self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_child_stops_alone_or_with_its_parent() {
        let parent = Shutdown::new();
        let (first, second) = (parent.child(), parent.child());
        first.stop();
        assert!(first.is_stopping() && !parent.is_draining() && !second.is_stopping());
        parent.stop();
        assert!(second.is_stopping());
    }

    #[test]
    fn a_loop_that_stopped_turning_is_named() {
        let shutdown = Shutdown::new();
        let start = Clock::system().instant();
        let (alive, dead) = (shutdown.heartbeat("a", start), shutdown.heartbeat("b", start));
        let later = start + Duration::from_secs(60);
        alive.beat(later);
        assert_eq!(shutdown.silent_loops(later, Duration::from_secs(30)), ["b"]);
        shutdown.forget_heartbeat("b", &alive);
        assert_eq!(shutdown.silent_loops(later, Duration::from_secs(30)), ["b"]);
        shutdown.forget_heartbeat("b", &dead);
        assert!(shutdown.silent_loops(later, Duration::from_secs(30)).is_empty());
    }
}
