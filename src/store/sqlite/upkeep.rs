//! The role [`Upkeep`]: retention, readiness and shutdown.

use std::sync::atomic::Ordering;

use async_trait::async_trait;

use super::{SqliteStore, purpose::Purpose, relieve, retain};
use crate::store::{Pruned, Retention, StoreError, Upkeep};

#[async_trait]
impl Upkeep for SqliteStore {
    async fn prune(&self, retention: Retention) -> Result<Pruned, StoreError> {
        retain::prune(self, retention).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        relieve::make_room(self).await?;
        self.write_for(Purpose::Intake, |db, _mode| db.probe()).await?;
        if self.shared.size.is_full() { Err(StoreError::Full) } else { Ok(()) }
    }

    async fn close(&self) {
        self.shared.is_closing.store(true, Ordering::Release);
        self.queues().take();
        self.shared.ended.cancelled().await;
    }
}
