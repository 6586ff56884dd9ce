//! One destination's worker: leases what is due, keeps as many attempts going as it may, and wakes
//! at once for a new alert.

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
    handle::Handle,
    mark::mark,
    numbers::Numbers,
};
use crate::{
    clock::Moment,
    code_defender::matcher::Matcher,
    destination::Destination,
    ground::Ground,
    ids::DestinationName,
    logging::chain,
    metrics::Metric,
    shutdown::Heartbeat,
    store::{Hasten, Lease, StoreError},
};

/// A worker looks around at least this often: its heartbeat, and alerts that grew too old.
pub(super) const LOOK_AROUND: Duration = Duration::from_secs(10);

/// After the store failed to answer.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// A lease must outlast the attempt by this, for its outcome to be recorded; one that does not is
/// given back unused, or two attempts at one alert could be in flight at once. The configuration
/// makes every lease 30 s longer than an attempt.
const LEASE_RESERVE: Duration = Duration::from_secs(5);

/// What one worker does.
#[derive(Debug)]
pub struct Plan {
    /// Where the alerts go.
    pub destination: Arc<Destination>,
    /// Attempts at once.
    pub concurrency: NonZeroUsize,
    /// Attempts a minute, if there is a limit. It counts for this process only.
    pub rate_limit: Option<NonZeroU32>,
    /// The age at which an alert is given up.
    pub max_age: Duration,
    /// The longest time that one attempt takes.
    pub timeout: Duration,
    /// A digest of the destination's settings but for its secrets.
    pub settings: [u8; 32],
}

/// Alerts of a message with more bytes are attempted one after the other: each takes up to ten
/// times as much memory while it is sent.
const LARGE_BYTES: usize = 512 * 1024;

/// A destination's worker.
#[derive(Debug)]
pub struct Worker {
    attempts: Arc<Attempts>,
    plan: Plan,
    limiter: Option<DefaultDirectRateLimiter>,
    limited_until: Option<Moment>,
    /// When to look around again: it means a look at everything that waits.
    look_at: Moment,
    /// Under which settings refusals are counted, once the store knows.
    settings: Option<u16>,
    ready: VecDeque<Lease>,
    running: JoinSet<()>,
    /// Held by the attempt at an alert of a large message, if one is under way.
    large: Arc<()>,
    breaker_open: Gauge,
    heartbeat: Heartbeat,
}

impl Worker {
    /// Returns a worker that does nothing until [`Worker::run`]. The worker stops with the shutdown
    /// of `ground`; `matcher` is replaced when the configuration is.
    pub fn new(plan: Plan, ground: Ground, matcher: Arc<ArcSwap<Matcher>>) -> Self {
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
                matcher,
                max_age: plan.max_age,
                health: Mutex::new(Health::default()),
                unrecorded: AtomicUsize::new(0),
                overdue: AtomicBool::new(false),
                // How the destination was before the start is not known.
                recovered: AtomicBool::new(true),
            }),
            plan,
        }
    }

    /// What others may know of this worker, and ask of it.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.attempts))
    }

    /// Works until [`Shutdown::stop`](crate::shutdown::Shutdown::stop); attempts in flight then
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
            // A new alert is no reason to wake while every slot is taken.
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
        // The hint may have come to us, and there may be another worker now.
        hint.notify_one();
        while let Some(ended) = self.running.join_next().await {
            note_end(Some(ended));
        }
        self.breaker_open.set(0.0);
    }

    async fn look_around(&mut self) {
        self.note_settings().await;
        self.hasten(Hasten::Misdated).await;
        let beat = || self.heartbeat.beat(self.attempts.clock.instant());
        let store = self.attempts.store.as_ref();
        self.attempts.numbers.bury_the_too_old(store, self.plan.max_age, beat).await;
    }

    /// Refusals under other settings or secrets say nothing about an alert.
    async fn note_settings(&mut self) {
        let mark = mark(&self.plan.settings, &self.plan.destination.secrets_digest());
        if self.settings == Some(mark) {
            return;
        }
        let destination = self.plan.destination.name().clone();
        match self.attempts.store.note_settings(&destination, mark).await {
            Ok(anew) => {
                self.settings = Some(mark);
                // They were leased under the settings before.
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
                let error = chain(&error);
                tracing::error!(%destination, error, "the store does not take the settings");
            }
        }
    }

    /// Alerts that failed by the destination's fault have waits of their own, up to a quarter of an
    /// hour. Once it works they need not.
    async fn end_waits_if_recovered(&self) {
        let recovered = &self.attempts.recovered;
        if recovered.swap(false, Ordering::Relaxed) && !self.hasten(Hasten::Recovered).await {
            recovered.store(true, Ordering::Relaxed);
        }
    }

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
                let error = chain(&error);
                tracing::error!(%destination, error, "the store does not say what waits");
                false
            }
        }
    }

    /// Starts attempts while there is room and work; returns when to look again.
    async fn start_what_may_start(&mut self) -> Moment {
        let Ok(next_due) = self.refill().await else {
            return self.attempts.clock.moment() + STORE_PAUSE;
        };
        while self.capacity() > 0 {
            let Some(lease) = self.ready.pop_front() else {
                break;
            };
            let is_large = lease.delivery().raw.len() > LARGE_BYTES;
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
        // While something holds the destination back, what is due is no reason to wake.
        gate.or(next_due).map_or(self.look_at, |at| at.min(self.look_at))
    }

    /// Leases as much as may run now and as much again, so that a slot that becomes free finds its
    /// next alert at hand. Returns when the next one is due.
    async fn refill(&mut self) -> Result<Option<Moment>, ()> {
        let capacity = self.capacity();
        if capacity == 0 || self.ready.len() >= capacity {
            return Ok(None);
        }
        let destination = self.plan.destination.name();
        let store = &self.attempts.store;
        let failed = |error: StoreError| {
            let error = chain(&error);
            tracing::error!(%destination, error, "the store does not say what is due");
        };
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
            // Nothing is due: the probe takes the oldest alert, so that it is not left out.
            let oldest = store.lease_oldest(destination).await.map_err(failed)?;
            if oldest.is_some() {
                self.ready.extend(oldest);
                return Ok(None);
            }
        }
        // Fewer are all that is due, or as many bytes as one call leases: in that case something is
        // due already, and the worker looks again at once.
        let all = leased.len() < missing;
        self.ready.extend(leased);
        if !all {
            return Ok(None);
        }
        let next_due = store.next_due(destination).await.map_err(failed)?;
        let clock = &self.attempts.clock;
        Ok(next_due.map(|at| clock.moment() + at.since(clock.now())))
    }

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

    /// Until when something holds the destination back, and whether its breaker is open.
    fn gate(&self) -> (Option<Moment>, bool) {
        let now = self.attempts.clock.moment();
        let (probe_at, quiet_until) =
            self.health(|health| (health.breaker.probe_at(), health.quiet_until));
        let gate = probe_at.max(quiet_until).max(self.limited_until).filter(|until| *until > now);
        (gate, probe_at.is_some())
    }

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

    async fn give_back(&mut self) {
        for lease in self.ready.drain(..) {
            self.attempts.store.release(lease).await;
        }
    }

    fn health<T>(&self, look: impl FnOnce(&Health) -> T) -> T {
        look(&self.attempts.health())
    }
}

/// Whether a lease lasts until an attempt that begins now has ended and is recorded.
fn outlasts(expires_at: Moment, now: Moment, timeout: Duration) -> bool {
    expires_at > now + timeout + LEASE_RESERVE
}

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
