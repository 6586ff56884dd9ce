//! Recognises a channel whose id Slack has changed by a message that is known under another id.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Beat, ReadError, Reader, UNKNOWN_CHANNEL};
use crate::{
    ids::{ChannelId, MessageTs, TsKey},
    intake::{admission::Admitted, catch_up::task::WindowTask},
    slack::{
        message,
        web_api::{Channel, HistoryPage},
    },
    store::{LookAlike, NewMessage},
};

impl Reader {
    /// Looks for messages of the page that the store knows under another channel id, and records
    /// the two ids as one channel's if Slack does not say that they are two channels. Returns
    /// whether any ids were joined.
    ///
    /// # Errors
    /// [`ReadError`] if the store or Slack does not answer; the page must not be stored then.
    pub(super) async fn recognise(
        &self,
        task: &WindowTask,
        page: &HistoryPage,
        beat: Beat<'_>,
    ) -> Result<bool, ReadError> {
        let found = self.incidents(task, page);
        // The usual page holds no incident, and then neither the store nor Slack is asked.
        if found.is_empty() {
            return Ok(false);
        }
        let timestamps: Vec<MessageTs> = found.keys().copied().collect();
        let known = self.channels.known();
        let own = known.chain(&task.channel);
        let store = &*self.ground.store;
        let app = &self.app;
        let alike = store.look_alikes(app, own, &timestamps).await.map_err(ReadError::Store)?;
        let mut asked = BTreeSet::new();
        let mut is_joined = false;
        for one in alike {
            let is_alike = found.get(&one.ts).is_some_and(|message| is_alike(message, &one));
            // Slack is asked once about each channel, however many messages the two have in common.
            if !is_alike || !asked.insert(one.channel.clone()) {
                continue;
            }
            let here = task.channel.clone();
            let there = one.channel;
            let (old, new) = match self.compare(task, &there, beat).await? {
                Relation::Two => continue,
                Relation::MovedHere => (there, here),
                Relation::MovedThere => (here, there),
            };
            let changed = self.channels.change_id(store, app, &old, &new).await;
            is_joined |= changed.map_err(ReadError::Store)?;
        }
        Ok(is_joined)
    }

    /// Returns the messages of the page that hold incidents, without their bytes.
    fn incidents(&self, task: &WindowTask, page: &HistoryPage) -> BTreeMap<MessageTs, NewMessage> {
        let admission = self.admission.load();
        let post = self.post(task.source, self.ground.clock.now());
        let incident = |raw: &String| {
            let message = message::parse(raw).ok()?;
            match admission.admit(&message, raw, post, Bytes::new) {
                Admitted::Incident(incident) | Admitted::NewLayout(incident, _) => {
                    match incident.message.key.ts {
                        TsKey::Ts(ts) => Some((ts, incident.message)),
                        TsKey::Digest(_) => None,
                    }
                }
                Admitted::NearMiss(..) | Admitted::Refused(_) | Admitted::Ignored(_) => None,
            }
        };
        page.messages.iter().filter_map(incident).collect()
    }

    /// Asks Slack how the channel that is read is related to another one.
    async fn compare(
        &self,
        task: &WindowTask,
        there: &ChannelId,
        beat: Beat<'_>,
    ) -> Result<Relation, ReadError> {
        // Slack has answered for the other id since this window was begun: that id is not a former
        // one.
        if self.answered_at(there).is_some_and(|at| at >= task.began) {
            return Ok(Relation::Two);
        }
        let Some(other) = self.describe(there, beat).await? else {
            return Ok(Relation::MovedHere);
        };
        if other.id == task.channel.as_str() {
            return Ok(Relation::MovedHere);
        }
        let Some(own) = self.describe(&task.channel, beat).await? else {
            return Ok(Relation::MovedThere);
        };
        if own.id == there.as_str() {
            return Ok(Relation::MovedThere);
        }
        if !own.name.is_empty() && own.name == other.name {
            return Ok(Relation::MovedHere);
        }
        // Remembered, so that the next page of this window does not ask again.
        self.note_answer(there);
        Ok(Relation::Two)
    }

    /// Returns Slack's description of a channel; `None` if Slack does not know the id.
    ///
    /// # Errors
    /// [`ReadError::Slack`] if Slack does not tell. The channel is not read until Slack does: two
    /// channels taken for one would lose alerts, and one taken for two would double them.
    async fn describe(
        &self,
        channel: &ChannelId,
        beat: Beat<'_>,
    ) -> Result<Option<Channel>, ReadError> {
        // The call may take half of the time that a loop may go without a heartbeat.
        beat.beat(self);
        let described = self.api.channel(channel).await;
        beat.beat(self);
        match described {
            Ok(described) => Ok(Some(described)),
            Err(error) if error.code() == UNKNOWN_CHANNEL => Ok(None),
            Err(error) => Err(ReadError::Slack(error)),
        }
    }
}

/// Relation of the channel that is read to another channel id.
enum Relation {
    /// The ids belong to two channels.
    Two,
    /// The other id is a former id of this channel.
    MovedHere,
    /// The other id is the new id of this channel.
    MovedThere,
}

/// Returns whether a message holds the incident that is known, as far as the two can be compared.
fn is_alike(message: &NewMessage, known: &LookAlike) -> bool {
    let own = message.alerts.first().map(|alert| &alert.search);
    message.is_edit || known.search.is_none() || known.search.as_ref() == own
}
