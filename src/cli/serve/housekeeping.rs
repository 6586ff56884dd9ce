//! Periodic work: reads secrets again, ends pauses, and removes old messages.

use std::{sync::Arc, time::Duration};

use super::live::Live;
use crate::{
    ids::DestinationName,
    logging::{self, chain},
    metrics::Metric,
    secret::Secret,
    store::{Desk, Retention, Upkeep},
};

/// Time between two rounds. Shorter than the timeout of an accept, which saves a system call: Tokio
/// makes one for a timer that ends before all others, and this timer always ends before those of
/// accepts.
const PAUSE: Duration = Duration::from_secs(1);

/// Rounds between two readings of the secrets.
const SECRETS_EVERY: u64 = 10;

/// Rounds between two checks for pauses that have ended.
const RESUME_EVERY: u64 = 5;

/// Time from the beginning of one removal to the beginning of the next.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Starts the periodic work, which runs until the relay stops.
pub(super) fn start(live: Arc<Live>) {
    // Retention has a task of its own: it may take minutes after it was shortened, and secrets are
    // read again meanwhile.
    remove_old_messages(Arc::clone(&live));
    let shutdown = live.ground.shutdown.clone();
    let heartbeat = shutdown.heartbeat("housekeeping", live.ground.clock.instant());
    shutdown.clone().spawn(async move {
        let clock = &live.ground.clock;
        warn_of_orphans(live.ground.store.as_ref(), &live.destinations()).await;
        let dropped = live.ground.metrics.counter(Metric::LogLinesDropped, &[]);
        let mut complaints = Complaints::default();
        let mut failure_is_logged = false;
        for round in 0_u64.. {
            heartbeat.beat(clock.instant());
            live.ground.metrics.upkeep();
            dropped.absolute(logging::dropped_lines());
            if round % SECRETS_EVERY == 0 {
                refresh_secrets(&live, &mut complaints).await;
            }
            if round % RESUME_EVERY == 0 {
                end_pauses(&live, &mut failure_is_logged).await;
            }
            tokio::select! {
                () = clock.sleep(PAUSE) => {}
                () = shutdown.stopped() => return,
            }
        }
    });
}

fn remove_old_messages(live: Arc<Live>) {
    let shutdown = live.ground.shutdown.clone();
    let heartbeat = shutdown.heartbeat("retention", live.ground.clock.instant());
    shutdown.clone().spawn(async move {
        let clock = &live.ground.clock;
        loop {
            let until = clock.moment() + PRUNE_EVERY;
            let pruning = prune(live.ground.store.as_ref(), live.retention().await);
            tokio::pin!(pruning);
            let mut is_pruned = false;
            // A removal that takes long must not look like a loop that hangs, so the heartbeat goes
            // on beside it.
            while !is_pruned || clock.moment() < until {
                heartbeat.beat(clock.instant());
                tokio::select! {
                    () = pruning.as_mut(), if !is_pruned => is_pruned = true,
                    () = clock.sleep(PAUSE) => {}
                    () = shutdown.stopped() => return,
                }
            }
        }
    });
}

/// Warns of deliveries that no worker attempts any more.
pub(super) async fn warn_of_orphans(store: &dyn Desk, known: &[DestinationName]) {
    match store.stats().await {
        Ok(stats) => {
            for (destination, stats) in &stats.destinations {
                let waiting = stats.pending + stats.refused + stats.leased + stats.dead;
                if waiting > 0 && !known.contains(destination) {
                    tracing::warn!(
                        %destination,
                        waiting,
                        "{waiting} deliveries are for {destination}, which is not configured any \
                         more; they are kept"
                    );
                }
            }
        }
        Err(error) => tracing::error!(error = chain(&error), "could not read store statistics"),
    }
}

/// Secrets that cannot be read again, each with the reason that was logged.
#[derive(Default)]
struct Complaints(Vec<(Secret, String)>);

impl Complaints {
    /// Stores the reason for a secret. Returns `true` if the reason differs from the previous one.
    fn is_news(&mut self, secret: &Secret, reason: Option<&str>) -> bool {
        let before = self.0.iter().position(|(known, _)| known == secret);
        let before = before.map(|at| self.0.swap_remove(at).1);
        self.0.extend(reason.map(|reason| (secret.clone(), reason.to_owned())));
        before.as_deref() != reason
    }
}

async fn refresh_secrets(live: &Live, complaints: &mut Complaints) {
    for secret in live.secrets().await {
        let name = secret.name();
        match secret.refresh() {
            Ok(is_new) => {
                let is_readable_again = complaints.is_news(&secret, None);
                if is_new {
                    tracing::info!(secret = name, "a secret has changed and is in use");
                    // The old secret may be the reason for an open breaker; alerts need not wait
                    // for its next probe.
                    live.probe_destinations_with(&secret);
                } else if is_readable_again {
                    tracing::info!(secret = name, "a secret can be read again, and is the same");
                }
            }
            Err(error) => {
                let reason = chain(&error);
                // A file may stay unreadable for long and is read every ten seconds: each reason is
                // logged once.
                if complaints.is_news(&secret, Some(&reason)) {
                    tracing::warn!(
                        secret = name,
                        reason,
                        "a secret cannot be used now, the previous value stays in use: {reason}"
                    );
                }
            }
        }
    }
}

/// Ends the pauses whose time is over. `is_logged` is `true` while the log already has the current
/// failure.
async fn end_pauses(live: &Live, is_logged: &mut bool) {
    match live.ground.store.end_pauses().await {
        Ok(ended) => {
            *is_logged = false;
            for destination in ended {
                tracing::info!(
                    %destination,
                    "the pause of {destination} has ended: its waiting alerts are sent"
                );
            }
        }
        Err(error) => {
            if !std::mem::replace(is_logged, true) {
                tracing::error!(error = chain(&error), "could not end pauses");
            }
        }
    }
}

async fn prune(store: &dyn Upkeep, retention: Retention) {
    match store.prune(retention).await {
        Ok(pruned) if pruned.messages + pruned.identities == 0 => {}
        Ok(pruned) => tracing::info!(
            messages = pruned.messages,
            identities = pruned.identities,
            "removed old messages, as `retention` says"
        ),
        Err(error) => tracing::error!(error = chain(&error), "could not remove old messages"),
    }
}
