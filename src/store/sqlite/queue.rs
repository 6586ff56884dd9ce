//! The role [`Queue`]: hands out leases and takes outcomes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{SqliteStore, deliver, hasten, operate};
use crate::{
    clock::Timestamp,
    ids::{AlertId, DestinationName},
    store::{Hasten, Lease, Outcome, Queue, Recorded, StoreError, Unrecorded},
};

#[async_trait]
impl Queue for SqliteStore {
    async fn lease_due(
        &self,
        destination: &DestinationName,
        n: usize,
    ) -> Result<Vec<Lease>, StoreError> {
        let destination = destination.clone();
        self.lease_reader(move |shared, db| deliver::lease_due(shared, db, &destination, n)).await
    }

    async fn lease_oldest(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Lease>, StoreError> {
        let destination = destination.clone();
        self.lease_reader(move |shared, db| deliver::lease_oldest(shared, db, &destination)).await
    }

    async fn record(&self, lease: Lease, outcome: Outcome) -> Result<Recorded, Unrecorded> {
        deliver::record(self, lease, outcome).await
    }

    async fn release(&self, lease: Lease) {
        if self.shared.leases.end(lease.delivery().id, lease.token()) {
            self.shared.hints.wake(Some(&lease.delivery().destination));
        }
    }

    async fn next_due(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Timestamp>, StoreError> {
        let destination = destination.clone();
        self.lease_reader(move |shared, db| deliver::next_due(shared, db, &destination)).await
    }

    fn due_hint(&self, destination: &DestinationName) -> Arc<Notify> {
        self.shared.hints.of(destination)
    }

    async fn expire(
        &self,
        destination: &DestinationName,
        max_age: Duration,
        reason: &'static str,
    ) -> Result<Vec<AlertId>, StoreError> {
        operate::expire(self, destination, max_age, reason).await
    }

    async fn hasten(&self, destination: &DestinationName, whom: Hasten) -> Result<u64, StoreError> {
        hasten::hasten(self, destination, whom).await
    }

    async fn note_settings(
        &self,
        destination: &DestinationName,
        mark: u16,
    ) -> Result<u64, StoreError> {
        hasten::note_settings(self, destination, mark).await
    }
}
