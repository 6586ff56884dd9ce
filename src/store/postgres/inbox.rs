//! Queues messages for the task that writes them.

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{
    accept::{self, Batch, Results},
    shared::reply_of,
    store::PostgresStore,
};
use crate::{
    clock::Timestamp,
    ids::AppName,
    store::{CursorMove, Inbox, NewMessage, StoreError, stored::quarantined},
};

#[async_trait]
impl Inbox for PostgresStore {
    async fn accept(
        &self,
        batch: Vec<NewMessage>,
        hold_until: Option<Timestamp>,
        cursor: Option<CursorMove>,
    ) -> Result<Results, StoreError> {
        let hold_us = hold_until.map_or(0, |until| self.shared.distance(until));
        let batch = Batch { messages: batch, hold_us, cursor };
        let weight = batch.weight();
        let held = self.shared.waiting.hold(batch, weight.bytes).ok_or(StoreError::Busy)?;
        let (reply, answered) = oneshot::channel();
        self.submit(accept::Job::Accept { batch: held.hand_over(), weight, reply })?;
        reply_of(answered).await
    }

    fn quarantine(&self, app: &AppName, body: &[u8]) {
        let app = app.clone();
        let body = quarantined(body).to_vec();
        let held = self.shared.waiting.hold((), body.len()).ok_or(StoreError::Busy);
        let sent =
            held.and_then(|held| self.submit(accept::Job::Quarantine { app, body, _queued: held }));
        if let Err(error) = sent {
            tracing::debug!(%error, "could not keep an unreadable body");
        }
    }
}
