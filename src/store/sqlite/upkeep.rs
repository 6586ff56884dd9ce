//! The role [`Upkeep`]: retention, readiness and shutdown.

use std::sync::atomic::Ordering;

use async_trait::async_trait;

use super::{SqliteStore, evict, job::Purpose, retain};
use crate::store::{Pruned, Retention, StoreError, Upkeep};

#[async_trait]
impl Upkeep for SqliteStore {
    async fn prune(&self, retention: Retention) -> Result<Pruned, StoreError> {
        // Pruning goes on in a full store; the error is for callers that add something.
        drop(evict::make_room(self).await);
        let mut pruned = Pruned::default();
        // A clock that was set a short while ago is not believed: removal cannot be undone.
        if let Some(now) = self.shared.believed_now() {
            pruned = retain::remove_old(self, now, retention).await?;
        }
        while self.write_for(Purpose::Room, |db, _mode| retain::shrink(db)).await? {}
        Ok(pruned)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        evict::make_room(self).await?;
        self.write_for(Purpose::Intake, |db, _mode| db.probe()).await?;
        if self.shared.size.is_full() { Err(StoreError::Full) } else { Ok(()) }
    }

    async fn close(&self) {
        self.shared.is_closing.store(true, Ordering::Release);
        self.queues().take();
        self.shared.ended.cancelled().await;
    }
}
