//! Keeps messages with incidents, and the new ids of channels, before Slack hears 200. When they
//! cannot be kept the answer is 503, and Slack sends the event again.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use tokio::runtime::Handle;

use super::{Inner, answer::status, endpoints::Endpoint};
use crate::{
    clock::Clock,
    code_defender::verdict::{Doubt, Reason, Vouched},
    ids::ChannelId,
    intake::{
        IncidentMessage,
        doubt::Scales,
        fate::{Acceptance, Fate},
        notes::Notes,
        notice::Notice,
        posters::Note,
        trace::{Arrival, Trace},
    },
    logging::chain,
    shutdown::Shutdown,
    slack::lifecycle::Change,
    store::{Store, StoreError},
};

/// Slack waits 3 s, network included; this much of it is ours.
const ACK_BUDGET: Duration = Duration::from_millis(2_500);

/// A commit that takes longer than this will not become quick.
const COMMIT_BUDGET: Duration = Duration::from_millis(1_500);

impl Inner {
    /// Stores, then answers. Slack hears 200 only when the alert is on disk.
    pub(super) async fn store(
        &self,
        endpoint: &Arc<Endpoint>,
        incoming: IncidentMessage,
        arrival: Arrival,
    ) -> Response<Full<Bytes>> {
        let budget = self.budget(&arrival);
        let keeping = Keeping::new(self, endpoint, arrival);
        self.answer_to(async move { keeping.store(incoming, budget).await }).await
    }

    /// Stores an incident in a new layout, or keeps it as a near miss if it may be somebody else's
    /// talk of an incident. Either is durable before Slack hears 200.
    pub(super) async fn weigh(
        &self,
        endpoint: &Arc<Endpoint>,
        incident: IncidentMessage,
        vouched: Vouched,
        arrival: Arrival,
    ) -> Response<Full<Bytes>> {
        let budget = self.budget(&arrival);
        let keeping = Keeping::new(self, endpoint, arrival);
        self.answer_to(async move { keeping.weigh(incident, vouched, budget).await }).await
    }

    /// Keeps a near miss, then answers.
    pub(super) async fn keep(
        &self,
        endpoint: &Arc<Endpoint>,
        incident: IncidentMessage,
        doubt: Doubt,
        arrival: Arrival,
    ) -> Response<Full<Bytes>> {
        let budget = self.budget(&arrival);
        let keeping = Keeping::new(self, endpoint, arrival);
        self.answer_to(async move { keeping.keep(incident, doubt, budget).await }).await
    }

    /// Keeps a channel's new id, then answers: an event that is lost after a 200 does not come
    /// again. Its own poller is told to read on under the new id; others find it in the store.
    pub(super) async fn change_id(
        &self,
        endpoint: &Arc<Endpoint>,
        old: ChannelId,
        new: ChannelId,
        arrival: Arrival,
    ) -> Response<Full<Bytes>> {
        let budget = self.budget(&arrival);
        let keeping = Keeping::new(self, endpoint, arrival);
        self.answer_to(async move { keeping.change_id(old, new, budget).await }).await
    }

    /// Answers when the work is done. It is done, counted and logged even if the peer that waits
    /// for the answer goes away meanwhile.
    async fn answer_to(
        &self,
        work: impl Future<Output = Fate> + Send + 'static,
    ) -> Response<Full<Bytes>> {
        let shutdown = self.ground.shutdown.clone();
        let fate = ToTheEnd { work: Some(Box::pin(work)), shutdown }.await;
        let is_kept = fate != Fate::Store;
        status(if is_kept { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
    }

    /// Returns how long a commit may take.
    fn budget(&self, arrival: &Arrival) -> Duration {
        let used = self.ground.clock.instant().saturating_duration_since(arrival.started);
        ACK_BUDGET.saturating_sub(used).min(COMMIT_BUDGET)
    }
}

/// Everything that keeping one event takes.
struct Keeping {
    store: Arc<dyn Store>,
    clock: Clock,
    notes: Arc<Notes>,
    endpoint: Arc<Endpoint>,
    arrival: Arrival,
}

impl Keeping {
    fn new(inner: &Inner, endpoint: &Arc<Endpoint>, arrival: Arrival) -> Self {
        let (store, clock) = (Arc::clone(&inner.ground.store), inner.ground.clock.clone());
        let notes = Arc::clone(&inner.notes);
        Self { store, clock, notes, endpoint: Arc::clone(endpoint), arrival }
    }

    async fn store(self, incoming: IncidentMessage, budget: Duration) -> Fate {
        let IncidentMessage { message, certainty, bot } = incoming;
        let note = Note::of(&message, bot);
        let trace = Trace::of(&message);
        let routed = message.alerts.iter().any(|alert| !alert.destinations.is_empty());
        let accept = self.store.accept(vec![message], None, None);
        let stored = match tokio::time::timeout(budget, accept).await {
            Ok(Ok(results)) => results.into_iter().next().unwrap_or(Err(StoreError::Closed)),
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(StoreError::Busy),
        };
        let fate = match stored {
            Ok(accepted) => {
                self.notes.posters.note(note, accepted);
                let acceptance = Acceptance::of(accepted, routed, certainty);
                let now = self.clock.instant();
                let duration = now.saturating_duration_since(self.arrival.started);
                self.endpoint.problems.count(&trace, accepted);
                trace.log_stored(Some(&self.arrival), duration, acceptance);
                Fate::Stored(acceptance)
            }
            Err(error) => {
                trace.log_refused(&self.arrival, &error);
                Fate::Store
            }
        };
        self.endpoint.counters.fates.count(fate);
        fate
    }

    async fn weigh(self, incident: IncidentMessage, vouched: Vouched, budget: Duration) -> Fate {
        let began = self.clock.instant();
        let asked = tokio::time::timeout(budget, self.scales().doubt(&incident, vouched)).await;
        let budget = budget.saturating_sub(self.clock.instant().saturating_duration_since(began));
        match asked.unwrap_or(Err(StoreError::Busy)) {
            Ok(None) => self.store(incident, budget).await,
            Ok(Some(doubt)) => self.keep(incident, doubt, budget).await,
            Err(error) => {
                Trace::of(&incident.message).log_refused(&self.arrival, &error);
                self.endpoint.counters.fates.count(Fate::Store);
                Fate::Store
            }
        }
    }

    async fn keep(self, incident: IncidentMessage, doubt: Doubt, budget: Duration) -> Fate {
        let trace = Trace::of(&incident.message);
        let kept = tokio::time::timeout(budget, self.scales().keep(incident, doubt)).await;
        let fate = match kept.unwrap_or(Err(StoreError::Busy)) {
            Ok(true) => Fate::Stored(Acceptance::Duplicate),
            Ok(false) => Fate::Ignored(Reason::NearMiss),
            Err(error) => {
                trace.log_refused(&self.arrival, &error);
                Fate::Store
            }
        };
        self.endpoint.counters.fates.count(fate);
        fate
    }

    fn scales(&self) -> Scales<'_> {
        Scales { store: self.store.as_ref(), notes: &self.notes, clock: &self.clock }
    }

    async fn change_id(self, old: ChannelId, new: ChannelId, budget: Duration) -> Fate {
        let fate = self.changed_id(old, new, budget).await;
        self.endpoint.counters.fates.count(fate);
        fate
    }

    async fn changed_id(&self, old: ChannelId, new: ChannelId, budget: Duration) -> Fate {
        let app = &self.endpoint.app;
        let Some(channels) = self.endpoint.admission.channels.get(app) else {
            return Fate::Lifecycle;
        };
        let change = channels.change_id(&*self.store, app, &old, &new);
        let changed = match tokio::time::timeout(budget, change).await {
            Ok(changed) => changed,
            Err(_elapsed) => Err(StoreError::Busy),
        };
        match changed {
            Ok(is_ours) => {
                if is_ours {
                    let (old, new) = (old.as_str().to_owned(), new.as_str().to_owned());
                    self.endpoint.notices.tell(Notice::Changed(Change::IdChanged { old, new }));
                }
                Fate::Lifecycle
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(%app, %old, %new, error, "the new id of {old} is not kept: 503");
                Fate::Store
            }
        }
    }
}

/// Work that goes on in a task of its own if whoever waits for it goes away.
struct ToTheEnd {
    work: Option<Pin<Box<dyn Future<Output = Fate> + Send>>>,
    shutdown: Shutdown,
}

impl Future for ToTheEnd {
    type Output = Fate;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Fate> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl Drop for ToTheEnd {
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && Handle::try_current().is_ok()
        {
            drop(self.shutdown.spawn(work));
        }
    }
}
