//! Decides with the store about incidents in a new layout and about messages that may be incidents.
//! They are rare, so a few queries for each cost little.

use std::time::Duration;

use super::{admission::IncidentMessage, notes::Notes, posters::TEST_BOT};
use crate::{
    clock::Clock,
    code_defender::verdict::{Doubt, Vouched},
    ids::{AlertId, MessageKey},
    store::{NewNearMiss, Poster, Store, StoreError},
};

/// Time for which a bot that posted an incident counts as one that reports incidents.
const REPORTS: Duration = Duration::from_secs(90 * 24 * 3600);

/// Sources from which a doubtful incident is decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scales<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) notes: &'a Notes,
    pub(super) clock: &'a Clock,
}

/// Form in which the store has a message that is not plainly an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// A near miss, since now.
    New,
    /// A near miss, since an earlier reading.
    Before,
    /// An alert, accepted before.
    AsAlert,
}

impl Scales<'_> {
    /// Returns the reason why a message with an incident in a new layout is not an alert; `None` if
    /// it is one. A SOAR's bot that announces a case repeats title and link, and must not cause
    /// another case.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn doubt(
        self,
        incident: &IncidentMessage,
        vouched: Vouched,
    ) -> Result<Option<Doubt>, StoreError> {
        let IncidentMessage { message, bot, .. } = incident;
        if self.is_known(incident).await? {
            return Ok(None);
        }
        let app = &message.key.app;
        if vouched == Vouched::ByNobody {
            let is_another = |poster: &Poster| !poster.is_same_bot(&bot.bot_id, &bot.app_id);
            if self.reporters(&message.key).await?.iter().any(is_another) {
                return Ok(Some(Doubt::OtherBot));
            }
        }
        let may_alert = self.notes.may_alert(app, bot, message.posted_at);
        Ok((!may_alert).then_some(Doubt::TooMany))
    }

    /// Returns the bots that have recently reported incidents in the channel of a message.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn reporters(self, key: &MessageKey) -> Result<Vec<Poster>, StoreError> {
        self.notes.posters.write(self.store).await?;
        let since = self.clock.now() - REPORTS;
        let mut posters = self.store.posters(&key.app).await?;
        posters.retain(|one| {
            one.channel == key.channel
                && one.incidents > 0
                && one.last >= since
                && one.has_id()
                && one.bot_id != TEST_BOT
        });
        Ok(posters)
    }

    /// Keeps a near miss, unless the message is an alert or a near miss already.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn keep(
        self,
        incident: IncidentMessage,
        doubt: Doubt,
    ) -> Result<Kept, StoreError> {
        if self.is_known(&incident).await? {
            return Ok(Kept::AsAlert);
        }
        let IncidentMessage { message, bot, .. } = incident;
        let app = message.key.app.clone();
        let channel = message.key.channel.clone();
        let ts = message.key.ts.to_string();
        let near_miss =
            NewNearMiss { message, reason: doubt.label(), bot_id: bot.bot_id, app_id: bot.app_id };
        // Only the first reading is logged, since the overlap of catch-up brings the message again.
        if !self.store.keep_near_miss(near_miss).await? {
            return Ok(Kept::Before);
        }
        let reason = doubt.label();
        let why = doubt.explain();
        tracing::warn!(
            %app,
            %channel,
            ts,
            reason,
            "message {ts} in {channel} is kept as a near miss: {why}; \
             see `alerts list --near-misses`"
        );
        Ok(Kept::New)
    }

    /// Returns whether the first incident of the message is an alert already.
    async fn is_known(self, incident: &IncidentMessage) -> Result<bool, StoreError> {
        let message = &incident.message;
        let ordinal = message.alerts.first().map_or(0, |alert| alert.ordinal);
        let id = AlertId { message: message.key.clone(), ordinal };
        Ok(self.store.alert(&id).await?.is_some())
    }
}
