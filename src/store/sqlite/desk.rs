//! The role [`Desk`]: shows alerts and applies operators' actions.

use async_trait::async_trait;

use super::{SqliteStore, list, operate, view};
use crate::{
    ids::{AlertId, DestinationName},
    store::{
        Action, AlertQuery, AlertView, Changes, Deed, Desk, OperatorAction, Routed, Selection,
        Stats, StoreError,
    },
};

#[async_trait]
impl Desk for SqliteStore {
    async fn alert(&self, id: &AlertId) -> Result<Option<AlertView>, StoreError> {
        let id = id.clone();
        self.view_reader(move |shared, db| view::alert(shared, db, &id)).await
    }

    async fn alerts(&self, query: AlertQuery) -> Result<Vec<AlertView>, StoreError> {
        self.view_reader(move |shared, db| list::alerts(shared, db, &query)).await
    }

    async fn act(
        &self,
        selection: Selection,
        action: Action,
        deed: Option<OperatorAction>,
    ) -> Result<Changes, StoreError> {
        operate::act(self, &selection, action, deed).await
    }

    async fn route(
        &self,
        alert: &AlertId,
        destinations: &[DestinationName],
        deed: Option<Deed>,
    ) -> Result<Routed, StoreError> {
        operate::route(self, alert, destinations, deed).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.view_reader(view::stats).await
    }
}
