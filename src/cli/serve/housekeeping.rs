//! What is done every few seconds: secrets are read again, old messages are removed.

use std::{sync::Arc, time::Duration};

use super::parts::Parts;
use crate::{
    ids::DestinationName,
    logging::chain,
    secret::Secret,
    store::{Retention, Store},
};

/// Between two rounds of housekeeping.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Every so many rounds secrets are read again, and what retention allows is removed.
const SECRETS_EVERY: u64 = 2;
const PRUNE_EVERY: u64 = 12;

impl Parts {
    pub(super) fn start_housekeeping(&self, secrets: Vec<Secret>, retention: Retention) {
        let (store, clock) = (Arc::clone(&self.store), self.clock.clone());
        let (metrics, shutdown) = (self.metrics.clone(), self.shutdown.clone());
        let heartbeat = shutdown.heartbeat("housekeeping", clock.instant());
        self.shutdown.spawn(async move {
            for round in 0_u64.. {
                heartbeat.beat(clock.instant());
                metrics.upkeep();
                if round % SECRETS_EVERY == 0 {
                    refresh(&secrets);
                }
                if round % PRUNE_EVERY == 0 {
                    prune(store.as_ref(), retention).await;
                }
                tokio::select! {
                    () = clock.sleep(HOUSEKEEPING) => {}
                    () = shutdown.stopped() => return,
                }
            }
        });
    }
}

pub(super) async fn warn_of_orphans(store: &dyn Store, known: &[DestinationName]) {
    match store.stats().await {
        Ok(stats) => {
            for (destination, stats) in &stats.destinations {
                let waiting = stats.pending + stats.dead;
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
        Err(error) => tracing::error!(error = chain(&error), "the store gives no numbers"),
    }
}

fn refresh(secrets: &[Secret]) {
    for secret in secrets {
        match secret.refresh() {
            Ok(false) => {}
            Ok(true) => tracing::info!(?secret, "a secret has changed and is in use"),
            Err(error) => tracing::error!(
                error = chain(&error),
                "a secret cannot be read again; the value before it stays in use"
            ),
        }
    }
}

async fn prune(store: &dyn Store, retention: Retention) {
    match store.prune(retention).await {
        Ok(pruned) if pruned.messages + pruned.identities == 0 => {}
        Ok(pruned) => tracing::info!(
            messages = pruned.messages,
            identities = pruned.identities,
            "old messages removed, as retention says"
        ),
        Err(error) => tracing::error!(error = chain(&error), "old messages cannot be removed"),
    }
}
