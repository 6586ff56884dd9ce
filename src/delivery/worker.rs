//! Worker of one destination: leases deliveries that are due, keeps as many attempts going as it
//! may, and wakes at once for a new alert.

use std::{
    collections::VecDeque,
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _};
use metrics::Gauge;
use tokio::task::JoinSet;

use super::{
    attempt::{Attempts, Health},
    breaker::Probe,
    handle::WorkerHandle,
    mark::mark,
    numbers::Numbers,
};
use crate::{
    clock::Moment,
    code_defender::matcher::Matcher,
    destination::Destination,
    ground::Ground,
    ids::DestinationName,
    metrics::Metric,
    shutdown::Heartbeat,
    store::{Hasten, Lease, StoreError},
};

/// Longest time between two heartbeats of a worker, and between two checks for overdue alerts.
pub(super) const LOOK_AROUND: Duration = Duration::from_secs(10);

/// Pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Time by which a lease must outlast the attempt, so that the outcome can be recorded. A lease
/// that does not is released unused; otherwise two attempts at one alert could be in flight at
/// once. The configuration makes every lease 30 s longer than an attempt.
const LEASE_RESERVE: Duration = Duration::from_secs(5);

/// Destination of a worker, and limits of the attempts.
#[derive(Debug)]
pub struct WorkerPlan {
    /// Destination of the alerts.
    pub destination: Arc<Destination>,
    /// Most attempts in flight at once.
    pub concurrency: NonZeroUsize,
    /// Most attempts a minute by this process, if there is a limit.
    pub rate_limit: Option<NonZeroU32>,
    /// Age at which a delivery is given up.
    pub max_age: Duration,
    /// Longest time that an attempt takes.
    pub timeout: Duration,
    /// Digest of the destination's settings, without the secrets.
    pub settings: [u8; 32],
}

/// Size of a message beyond which its alerts are attempted one after the other, since each takes up
/// to ten times as much memory while it is sent.
const LARGE_BYTES: usize = 512 * 1024;

/// Worker of one destination.
#[derive(Debug)]
pub struct Worker {
    attempts: Arc<Attempts>,
    plan: WorkerPlan,
    limiter: Option<DefaultDirectRateLimiter>,
    limited_until: Option<Moment>,
    /// Time of the next check of everything that waits, which is not done in every turn of the
    /// loop.
    look_at: Moment,
    /// Mark of the settings under which refusals are counted, once the store has taken it.
    settings: Option<u16>,
    ready: VecDeque<Lease>,
    running: JoinSet<()>,
    /// Shared with the attempt at an alert of a large message, while there is one.
    large: Arc<()>,
    breaker_open: Gauge,
    heartbeat: Heartbeat,
}

impl Worker {
    /// Returns a worker that does nothing until [`Worker::run`]. The worker stops with the shutdown
    /// of `ground`; `matcher` is replaced when the configuration is.
    pub fn new(plan: WorkerPlan, ground: Ground, matcher: Arc<ArcSwap<Matcher>>) -> Self {
        let destination = plan.destination.name();
        Self {
            breaker_open: ground.metrics.gauge(Metric::BreakerOpen, &[destination.as_str()]),
            heartbeat: ground.shutdown.heartbeat(&loop_name(destination), ground.clock.instant()),
            limiter: plan.rate_limit.map(|limit| RateLimiter::direct(Quota::per_minute(limit))),
            limited_until: None,
            look_at: ground.clock.moment(),
            settings: None,
            ready: VecDeque::new(),
            running: JoinSet::new(),
            large: Arc::new(()),
            attempts: Arc::new(Attempts {
                numbers: Numbers::new(destination, &ground.metrics),
                destination: Arc::clone(&plan.destination),
                store: ground.store,
                clock: ground.clock,
                shutdown: ground.shutdown,
                outages: ground.outages,
                matcher,
                max_age: plan.max_age,
                health: Mutex::new(Health::default()),
                unrecorded: AtomicUsize::new(0),
                overdue: AtomicBool::new(false),
                // The state of the destination before the start is not known.
                recovered: AtomicBool::new(true),
            }),
            plan,
        }
    }

    /// Returns the access for others to this worker.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle::new(Arc::clone(&self.attempts))
    }

    /// Delivers until [`Shutdown::stop`](crate::shutdown::Shutdown::stop). Attempts in flight then
    /// end within their time limit.
    pub async fn run(mut self) {
        let stopped = self.attempts.shutdown.stopped();
        tokio::pin!(stopped);
        let hint = self.attempts.store.due_hint(self.plan.destination.name());
        while !self.attempts.shutdown.is_stopping() {
            self.heartbeat.beat(self.attempts.clock.instant());
            let is_overdue = self.attempts.overdue.swap(false, Ordering::Relaxed);
            if is_overdue || self.attempts.clock.moment() >= self.look_at {
                self.look_around().await;
                self.look_at = self.attempts.clock.moment() + LOOK_AROUND;
            }
            self.end_waits_if_recovered().await;
            let wake_at = self.start_what_may_start().await;
            // A new alert is not a reason to wake while every slot is taken.
            let has_room = self.running.len() < self.plan.concurrency.get();
            tokio::select! {
                ended = self.running.join_next(), if !self.running.is_empty() => note_end(ended),
                () = hint.notified(), if has_room => {}
                () = self.attempts.clock.sleep_to(wake_at) => {}
                () = stopped.as_mut() => {}
            }
            while let Some(ended) = self.running.try_join_next() {
                note_end(Some(ended));
            }
        }
        self.give_back().await;
        let loop_name = loop_name(self.plan.destination.name());
        self.attempts.shutdown.forget_heartbeat(&loop_name, &self.heartbeat);
        // The hint may have woken this worker, and another one may serve the destination now.
        hint.notify_one();
        while let Some(ended) = self.running.join_next().await {
            note_end(Some(ended));
        }
        self.breaker_open.set(0.0);
    }

    /// Notes changed settings, ends waits that a wrong clock caused, and gives up overdue alerts.
    async fn look_around(&mut self) {
        self.note_settings().await;
        self.hasten(Hasten::Misdated).await;
        let beat = || self.heartbeat.beat(self.attempts.clock.instant());
        let store = self.attempts.store.as_ref();
        let expired = self.attempts.numbers.expire_overdue(store, self.plan.max_age, beat).await;
        if let Err(error) = expired {
            self.attempts.outages.failed("give up overdue alerts", &error);
        }
    }

    /// Tells the store when settings or secrets have changed. The refusals before that are
    /// forgotten, since they do not show that an alert is at fault.
    async fn note_settings(&mut self) {
        let mark = mark(&self.plan.settings, &self.plan.destination.secrets_digest());
        if self.settings == Some(mark) {
            return;
        }
        let destination = self.plan.destination.name().clone();
        match self.attempts.store.note_settings(&destination, mark).await {
            Ok(anew) => {
                self.settings = Some(mark);
                // The leases at hand were taken under the earlier settings.
                self.give_back().await;
                if anew > 0 {
                    tracing::info!(
                        %destination,
                        anew,
                        "settings or secrets of {destination} have changed: {anew} refused alerts \
                         are tried anew"
                    );
                }
            }
            Err(error) => {
                self.attempts.outages.failed("store changed settings", &error);
            }
        }
    }

    /// Makes waiting alerts due after the destination has recovered. Alerts that failed by a
    /// destination fault otherwise wait for up to a quarter of an hour.
    async fn end_waits_if_recovered(&self) {
        let recovered = &self.attempts.recovered;
        if recovered.swap(false, Ordering::Relaxed) && !self.hasten(Hasten::Recovered).await {
            recovered.store(true, Ordering::Relaxed);
        }
    }

    /// Makes some waiting alerts due now. Returns `false` if the store failed.
    async fn hasten(&self, whom: Hasten) -> bool {
        let destination = self.plan.destination.name();
        match self.attempts.store.hasten(destination, whom).await {
            Ok(0) => true,
            Ok(hastened) => {
                let message = match whom {
                    Hasten::Recovered => "alerts that waited for the destination are due now",
                    Hasten::Misdated => {
                        "the clock was set back: alerts that it delayed are due now"
                    }
                };
                tracing::info!(%destination, hastened, "{message}");
                true
            }
            Err(error) => {
                self.attempts.outages.failed("make waiting alerts due", &error);
                false
            }
        }
    }

    /// Starts attempts while there is room and work. Returns when to look again.
    async fn start_what_may_start(&mut self) -> Moment {
        let Ok(next_due) = self.refill().await else {
            return self.attempts.clock.moment() + STORE_PAUSE;
        };
        while self.capacity() > 0 {
            let Some(lease) = self.ready.pop_front() else {
                break;
            };
            let is_large = lease.delivery().raw.len() > LARGE_BYTES;
            // Only one alert of a large message at a time.
            if is_large && Arc::strong_count(&self.large) > 1 && self.is_fresh(&lease) {
                self.ready.push_front(lease);
                break;
            }
            if !self.is_fresh(&lease) || !self.within_rate() {
                self.attempts.store.release(lease).await;
                continue;
            }
            let attempt = Arc::clone(&self.attempts).make(lease);
            let large = is_large.then(|| Arc::clone(&self.large));
            self.running.spawn(async move {
                attempt.await;
                drop(large);
            });
        }
        let (gate, open) = self.gate();
        self.breaker_open.set(if open { 1.0 } else { 0.0 });
        if self.capacity() == 0 && gate.is_some() {
            self.give_back().await;
        }
        // While something holds the destination back, a delivery that is due is not a reason to
        // wake.
        gate.or(next_due).map_or(self.look_at, |at| at.min(self.look_at))
    }

    /// Leases as many deliveries as may run now and as many again, so that a slot that becomes free
    /// has its next alert at hand. Returns when the next delivery is due.
    ///
    /// # Errors
    /// The store failed, which is logged.
    async fn refill(&mut self) -> Result<Option<Moment>, ()> {
        let capacity = self.capacity();
        if capacity == 0 || self.ready.len() >= capacity {
            return Ok(None);
        }
        let destination = self.plan.destination.name();
        let store = &self.attempts.store;
        let failed = |error: StoreError| self.attempts.outages.failed("lease due alerts", &error);
        let probe = self.health(|health| health.breaker.probe());
        if probe == Some(Probe::Oldest) && self.ready.is_empty() {
            let oldest = store.lease_oldest(destination).await.map_err(failed)?;
            self.ready.extend(oldest);
        }
        let wanted = match probe {
            Some(_) => 1,
            None => capacity + self.plan.concurrency.get(),
        };
        let missing = wanted.saturating_sub(self.ready.len());
        if missing == 0 {
            return Ok(None);
        }
        let leased = store.lease_due(destination, missing).await.map_err(failed)?;
        if probe == Some(Probe::Due) && leased.is_empty() && self.ready.is_empty() {
            // Nothing is due: the probe takes the oldest alert instead of being skipped.
            let oldest = store.lease_oldest(destination).await.map_err(failed)?;
            if oldest.is_some() {
                self.ready.extend(oldest);
                return Ok(None);
            }
        }
        // Fewer than asked for: that is everything due, or as many bytes as one call leases. In the
        // second case more is due already, and `next_due` makes the worker look again at once.
        let all = leased.len() < missing;
        self.ready.extend(leased);
        if !all {
            return Ok(None);
        }
        let next_due = store.next_due(destination).await.map_err(failed)?;
        let clock = &self.attempts.clock;
        self.attempts.outages.answered();
        Ok(next_due.map(|at| clock.moment() + at.since(clock.now())))
    }

    /// Returns the number of attempts that may start now.
    fn capacity(&self) -> usize {
        let now = self.attempts.clock.moment();
        let running = self.running.len();
        let free = self.plan.concurrency.get().saturating_sub(running);
        let unrecorded = self.attempts.unrecorded.load(Ordering::Relaxed);
        if unrecorded > 0 || self.limited_until.is_some_and(|until| now < until) {
            return 0;
        }
        self.health(|health| {
            if health.quiet_until.is_some_and(|until| now < until) {
                return 0;
            }
            health.breaker.capacity(now, free, running)
        })
    }

    /// Returns until when something holds the destination back, and whether the breaker is open.
    fn gate(&self) -> (Option<Moment>, bool) {
        let now = self.attempts.clock.moment();
        let (probe_at, quiet_until) =
            self.health(|health| (health.breaker.probe_at(), health.quiet_until));
        let gate = probe_at.max(quiet_until).max(self.limited_until).filter(|until| *until > now);
        (gate, probe_at.is_some())
    }

    /// Takes one attempt from the rate limit. Returns `false` if none is left for now.
    fn within_rate(&mut self) -> bool {
        let Some(limiter) = &self.limiter else {
            return true;
        };
        match limiter.check() {
            Ok(()) => true,
            Err(not_yet) => {
                let wait = not_yet.wait_time_from(limiter.clock().now());
                self.limited_until = Some(self.attempts.clock.moment() + wait);
                false
            }
        }
    }

    fn is_fresh(&self, lease: &Lease) -> bool {
        outlasts(lease.expires_at(), self.attempts.clock.moment(), self.plan.timeout)
    }

    /// Releases the leases that are not used yet.
    async fn give_back(&mut self) {
        for lease in self.ready.drain(..) {
            self.attempts.store.release(lease).await;
        }
    }

    fn health<T>(&self, look: impl FnOnce(&Health) -> T) -> T {
        look(&self.attempts.health())
    }
}

/// Returns whether a lease lasts until an attempt that begins now has ended and is recorded.
fn outlasts(expires_at: Moment, now: Moment, timeout: Duration) -> bool {
    expires_at > now + timeout + LEASE_RESERVE
}

/// Returns the name of a destination's loop among the heartbeats.
pub(super) fn loop_name(destination: &DestinationName) -> String {
    format!("delivery to {destination}")
}

fn note_end(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended {
        tracing::error!(%error, "an attempt broke off; its alert will be attempted again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_attempt_begins_that_may_outlast_its_lease() {
        let (now, timeout) = (Moment::default(), Duration::from_secs(200));
        let fresh = now + timeout + Duration::from_secs(30);
        assert!(outlasts(fresh, now, timeout), "the shortest lease that may be configured");
        assert!(!outlasts(fresh, now + Duration::from_secs(40), timeout), "waited for a slot");
    }
}
