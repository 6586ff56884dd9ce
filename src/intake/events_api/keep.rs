//! Keeps messages with incidents, and the new ids of channels, before Slack hears 200. When they
//! cannot be kept the answer is 503, and Slack sends the event again.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};

use super::{Inner, answer::status, endpoints::Endpoint};
use crate::{
    ids::ChannelId,
    intake::{
        IncidentMessage,
        fate::{Arrival, Fate, Trace},
        notice::Notice,
        posters::Note,
    },
    logging::chain,
    slack::lifecycle::Change,
    store::StoreError,
};

/// Slack waits 3 s, network included; this much of it is ours.
const ACK_BUDGET: Duration = Duration::from_millis(2_500);

/// A commit that takes longer than this will not become quick.
const COMMIT_BUDGET: Duration = Duration::from_millis(1_500);

impl Inner {
    /// Stores, then answers. Slack hears 200 only when the alert is on disk.
    pub(super) async fn store(
        &self,
        incoming: IncidentMessage,
        arrival: Arrival<'_>,
    ) -> (Option<Fate>, Response<Full<Bytes>>) {
        let IncidentMessage { message, certainty, bot } = incoming;
        let note = Note::of(&message, bot);
        let trace = Trace::of(&message);
        let routed = message.alerts.iter().any(|alert| !alert.destinations.is_empty());
        let accept = self.parts.store.accept(vec![message], None, None);
        let stored = match tokio::time::timeout(self.budget(arrival), accept).await {
            Ok(Ok(results)) => results.into_iter().next().unwrap_or(Err(StoreError::Closed)),
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(StoreError::Busy),
        };
        match stored {
            Ok(accepted) => {
                self.parts.posters.note(note, accepted);
                let fate = Fate::of(accepted, routed, certainty);
                let now = self.parts.clock.instant();
                let duration = now.saturating_duration_since(arrival.started);
                trace.log_accepted(Some(&arrival), duration, fate);
                (Some(fate), status(StatusCode::OK))
            }
            Err(error) => {
                trace.log_refused(&arrival, &error);
                (Some(Fate::Store), status(StatusCode::SERVICE_UNAVAILABLE))
            }
        }
    }

    /// Keeps a channel's new id, then answers: an event that is lost after a 200 does not come
    /// again. Its own poller is told to read on under the new id; others find it in the store.
    pub(super) async fn change_id(
        &self,
        endpoint: &Endpoint,
        old: ChannelId,
        new: ChannelId,
        arrival: Arrival<'_>,
    ) -> (Option<Fate>, Response<Full<Bytes>>) {
        let (app, store) = (&endpoint.app, &*self.parts.store);
        let Some(channels) = endpoint.admission.channels.get(app) else {
            return (Some(Fate::Lifecycle), status(StatusCode::OK));
        };
        let change = channels.change_id(store, app, &old, &new);
        let changed = match tokio::time::timeout(self.budget(arrival), change).await {
            Ok(changed) => changed,
            Err(_elapsed) => Err(StoreError::Busy),
        };
        match changed {
            Ok(is_ours) => {
                if is_ours {
                    let (old, new) = (old.as_str().to_owned(), new.as_str().to_owned());
                    endpoint.notices.tell(Notice::Changed(Change::IdChanged { old, new }));
                }
                (Some(Fate::Lifecycle), status(StatusCode::OK))
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(%app, %old, %new, error, "the new id of {old} is not kept: 503");
                (Some(Fate::Store), status(StatusCode::SERVICE_UNAVAILABLE))
            }
        }
    }

    /// Returns how long a commit may take.
    fn budget(&self, arrival: Arrival<'_>) -> Duration {
        let used = self.parts.clock.instant().saturating_duration_since(arrival.started);
        ACK_BUDGET.saturating_sub(used).min(COMMIT_BUDGET)
    }
}
