//! Incidents that do not have the known shape, and messages that may be incidents. Whether one is
//! an alert depends on what the store knows: they are rare enough to ask it.

use std::time::Duration;

use super::{IncidentMessage, notes::Notes, posters::TEST_BOT};
use crate::{
    clock::Clock,
    code_defender::verdict::{Doubt, Vouched},
    ids::{AlertId, MessageKey},
    store::{NewNearMiss, Poster, Store, StoreError},
};

/// A bot that has posted incidents this lately is the one that reports them.
const REPORTS: Duration = Duration::from_secs(90 * 24 * 3600);

/// What an incident of an unknown shape is weighed with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scales<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) notes: &'a Notes,
    pub(super) clock: &'a Clock,
}

impl Scales<'_> {
    /// Returns why a message with an incident in a new layout is not an alert, if so. A SOAR's bot
    /// that announces its case has our title and link too, and must not make another case of it.
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

    /// Returns the bots that have reported incidents in the channel of a message lately.
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

    /// Keeps a near miss, unless it is an alert already or is kept. Returns whether it is an alert.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn keep(
        self,
        incident: IncidentMessage,
        doubt: Doubt,
    ) -> Result<bool, StoreError> {
        if self.is_known(&incident).await? {
            return Ok(true);
        }
        let IncidentMessage { message, bot, .. } = incident;
        let (app, channel, ts) =
            (message.key.app.clone(), message.key.channel.clone(), message.key.ts.to_string());
        let near_miss =
            NewNearMiss { message, reason: doubt.label(), bot_id: bot.bot_id, app_id: bot.app_id };
        if self.store.keep_near_miss(near_miss).await? {
            let (reason, why) = (doubt.label(), doubt.explain());
            tracing::warn!(
                %app,
                %channel,
                ts,
                reason,
                "message {ts} in {channel} is kept as a near miss: {why}; \
                 see `alerts list --near-misses`"
            );
        }
        Ok(false)
    }

    async fn is_known(self, incident: &IncidentMessage) -> Result<bool, StoreError> {
        let message = &incident.message;
        let ordinal = message.alerts.first().map_or(0, |alert| alert.ordinal);
        let id = AlertId { message: message.key.clone(), ordinal };
        Ok(self.store.alert(&id).await?.is_some())
    }
}
