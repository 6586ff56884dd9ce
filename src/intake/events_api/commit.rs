//! Stores messages with incidents, and the new ids of channels, before Slack is answered 200. If
//! they cannot be stored the answer is 503, and Slack sends the event again.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::runtime::Handle;

use super::endpoints::ReceivingApp;
use crate::{
    code_defender::verdict::{Doubt, Reason, Vouched},
    ground::Ground,
    ids::ChannelId,
    intake::{
        IncidentMessage,
        doubt::{Kept, Scales},
        fate::{Acceptance, Fate},
        notes::Notes,
        notice::Notice,
        posters::Note,
        trace::{Arrival, Trace},
    },
    logging::chain,
    shutdown::Shutdown,
    slack::lifecycle::Change,
    store::StoreError,
};

/// Part of the 3 s that Slack waits, network included, that is ours.
const ACK_BUDGET: Duration = Duration::from_millis(2_500);

/// Limit of a commit. A commit that takes longer is unlikely to end in time.
const COMMIT_BUDGET: Duration = Duration::from_millis(1_500);

/// Work that must be durable before Slack is answered.
#[derive(Debug)]
pub(super) enum Work {
    /// Store a message with incidents.
    Store(IncidentMessage),
    /// Store incidents in a new layout, or keep the message as a near miss if another bot may only
    /// be repeating an incident.
    Weigh(IncidentMessage, Vouched),
    /// Keep a near miss.
    Keep(IncidentMessage, Doubt),
    /// Store a channel's new id.
    ChangeId { old: ChannelId, new: ChannelId },
}

/// Commits the work of requests. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Committer {
    pub(super) ground: Ground,
    pub(super) notes: Arc<Notes>,
}

impl Committer {
    /// Does the work, counts and logs what became of it, and returns that. The work goes on even if
    /// the peer that waits for the answer goes away.
    pub(super) async fn commit(
        &self,
        app: &Arc<ReceivingApp>,
        work: Work,
        arrival: Arrival,
    ) -> Fate {
        let used = self.ground.clock.instant().saturating_duration_since(arrival.started);
        let budget = ACK_BUDGET.saturating_sub(used).min(COMMIT_BUDGET);
        let commit = Commit { committer: self.clone(), app: Arc::clone(app), arrival };
        let work = async move { commit.run(work, budget).await };
        RunToEnd { work: Some(Box::pin(work)), shutdown: self.ground.shutdown.clone() }.await
    }
}

/// The work of one request.
struct Commit {
    committer: Committer,
    app: Arc<ReceivingApp>,
    arrival: Arrival,
}

impl Commit {
    async fn run(self, work: Work, budget: Duration) -> Fate {
        let fate = match work {
            Work::Store(incident) => self.store(incident, budget).await,
            Work::Weigh(incident, vouched) => self.weigh(incident, vouched, budget).await,
            Work::Keep(incident, doubt) => self.keep(incident, doubt, budget).await,
            Work::ChangeId { old, new } => self.change_id(old, new, budget).await,
        };
        self.app.counters.fates.count(fate);
        fate
    }

    async fn store(&self, incident: IncidentMessage, budget: Duration) -> Fate {
        let IncidentMessage { message, certainty, bot } = incident;
        let note = Note::of(&message, bot);
        let trace = Trace::of(&message);
        let routed = message.alerts.iter().any(|alert| !alert.destinations.is_empty());
        let accept = self.committer.ground.store.accept(vec![message], None, None);
        let stored = match tokio::time::timeout(budget, accept).await {
            Ok(Ok(results)) => results.into_iter().next().unwrap_or(Err(StoreError::Closed)),
            Ok(Err(error)) => Err(error),
            // The message may still be stored. Slack sends it again, and the store recognises it
            // then.
            Err(_elapsed) => Err(StoreError::Busy),
        };
        match stored {
            Ok(accepted) => {
                self.committer.notes.posters.note(note, accepted);
                let acceptance = Acceptance::of(accepted, routed, certainty);
                let now = self.committer.ground.clock.instant();
                let duration = now.saturating_duration_since(self.arrival.started);
                self.app.problems.count(&trace, accepted);
                trace.log_stored(Some(&self.arrival), duration, acceptance);
                Fate::Stored(acceptance)
            }
            Err(error) => {
                trace.log_refused(&self.arrival, &error);
                Fate::Store
            }
        }
    }

    async fn weigh(&self, incident: IncidentMessage, vouched: Vouched, budget: Duration) -> Fate {
        let began = self.committer.ground.clock.instant();
        let asked = tokio::time::timeout(budget, self.scales().doubt(&incident, vouched)).await;
        let used = self.committer.ground.clock.instant().saturating_duration_since(began);
        let budget = budget.saturating_sub(used);
        match asked.unwrap_or(Err(StoreError::Busy)) {
            Ok(None) => self.store(incident, budget).await,
            Ok(Some(doubt)) => self.keep(incident, doubt, budget).await,
            Err(error) => {
                Trace::of(&incident.message).log_refused(&self.arrival, &error);
                Fate::Store
            }
        }
    }

    async fn keep(&self, incident: IncidentMessage, doubt: Doubt, budget: Duration) -> Fate {
        let trace = Trace::of(&incident.message);
        let kept = tokio::time::timeout(budget, self.scales().keep(incident, doubt)).await;
        match kept.unwrap_or(Err(StoreError::Busy)) {
            Ok(Kept::AsAlert) => Fate::Stored(Acceptance::Duplicate),
            Ok(Kept::New | Kept::Before) => Fate::Ignored(Reason::NearMiss),
            Err(error) => {
                trace.log_refused(&self.arrival, &error);
                Fate::Store
            }
        }
    }

    fn scales(&self) -> Scales<'_> {
        let Committer { ground, notes } = &self.committer;
        Scales { store: ground.store.as_ref(), notes, clock: &ground.clock }
    }

    /// Stores a channel's new id: an event that is lost after a 200 does not come again.
    async fn change_id(&self, old: ChannelId, new: ChannelId, budget: Duration) -> Fate {
        let app = &self.app.name;
        let Some(channels) = self.app.admission.channels.get(app) else {
            return Fate::Lifecycle;
        };
        let change = channels.change_id(&*self.committer.ground.store, app, &old, &new);
        let changed = match tokio::time::timeout(budget, change).await {
            Ok(changed) => changed,
            Err(_elapsed) => Err(StoreError::Busy),
        };
        match changed {
            Ok(is_ours) => {
                // The app's own poller reads on under the new id at once. Others find it in the
                // store.
                if is_ours {
                    let old = old.as_str().to_owned();
                    let new = new.as_str().to_owned();
                    self.app.notices.tell(Notice::Changed(Change::IdChanged { old, new }));
                }
                Fate::Lifecycle
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(
                    %app, %old, %new, error,
                    "the new id of channel {old} could not be stored: answered 503"
                );
                Fate::Store
            }
        }
    }
}

/// A future that goes on in a task of its own if it is dropped before it has finished.
struct RunToEnd {
    work: Option<Pin<Box<dyn Future<Output = Fate> + Send>>>,
    shutdown: Shutdown,
}

impl Future for RunToEnd {
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

impl Drop for RunToEnd {
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && Handle::try_current().is_ok()
        {
            drop(self.shutdown.spawn(work));
        }
    }
}
