//! Channels whose id Slack has changed. An event says so, which the receiver keeps; where it was
//! lost, Slack's other answers show it.
//!
//! Two things prove that two ids are one channel's. Slack no longer knows one of them, and the
//! other has the configured name, or the same characters behind the first (`G` becomes `C`). Or
//! history shows, under one of them, a message that is known under the other: the same microsecond,
//! the same incident; and Slack does not say that they are two. Two channels do not get the same
//! incident in the same microsecond, so a wrong guess would take an unheard-of coincidence.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
    time::Duration,
};

use bytes::Bytes;

use super::{
    Poller,
    reader::{Beat, ReadError, Reader},
    task::Task,
};
use crate::{
    ids::{ChannelId, MessageTs, TsKey},
    intake::Admitted,
    logging::chain,
    slack::{
        message,
        web_api::{ApiError, Channel, HistoryPage, HistoryQuery, PAGE},
    },
    store::{LookAlike, NewMessage},
};

/// So many channels that are not read are looked into for one that is lost, each with one call.
const STRANGERS: usize = 20;

/// How far back from where a lost channel was read its messages are looked for.
const SEARCHED: Duration = Duration::from_secs(30 * 24 * 3600);

/// The pause of the search after a passing failure.
const SEARCH_RETRY: Duration = Duration::from_secs(60);

/// Slack's word for an id that it does not know, or does not know any more.
pub(super) const UNKNOWN: &str = "channel_not_found";

impl Poller {
    /// Looks for a channel that Slack does not know by its id: among all that are listed, then
    /// among those that nothing but their history can tell.
    pub(super) fn lose(&mut self, channel: &ChannelId) {
        let is_looked_for = self.suspects.iter().any(|(lost, _)| lost == channel);
        if !is_looked_for && self.lost.insert(channel.clone()) {
            self.listing.begin_anew(self.uptime());
        }
    }

    /// Reads on under the new id, which the receiver has kept, at once.
    pub(super) fn read_under(&mut self, old: &ChannelId, new: &ChannelId) {
        if let Some(member) = self.member_of.iter_mut().flatten().find(|member| *member == old) {
            member.clone_from(new);
        }
        if let Some(read) = self.reads.get_mut(new) {
            // Its cursor may have been put back.
            (read.begun, read.moved_to) = (None, None);
        }
        if self.ours().contains(new) {
            self.turns.take_up(new, self.uptime());
            self.begin_with(old.as_str(), new);
        }
    }

    /// Takes a channel that Slack lists for one that it no longer knows by its old id, if it has
    /// the name by which it was found, or but for the first letter the same id.
    pub(super) async fn find_again(&mut self, listed: &Channel) {
        let new = ChannelId::new(&listed.id);
        if !listed.is_member || self.lost.is_empty() || self.lost.contains(&new) {
            return;
        }
        let reader = &self.reader;
        let names = reader.ground.store.channel_ids(&reader.app).await.unwrap_or_default();
        let has_name = |old: &ChannelId| {
            names.iter().any(|(written, id)| id == old && *written == listed.name)
        };
        let is_same = |old: &&ChannelId| is_twin(old, &new) || has_name(old);
        match self.lost.iter().find(is_same).cloned() {
            Some(old) => self.take_for(&old, &new).await,
            None => self.listing.note_stranger(new),
        }
    }

    /// All channels are listed: what is still lost may be one of the strangers among them that were
    /// not read before.
    pub(super) fn suspect(&mut self, strangers: Vec<ChannelId>) {
        let ours = self.ours();
        let unread: Vec<ChannelId> =
            strangers.into_iter().filter(|id| !ours.contains(id)).take(STRANGERS).collect();
        for lost in std::mem::take(&mut self.lost) {
            self.suspects.extend(unread.iter().map(|stranger| (lost.clone(), stranger.clone())));
        }
    }

    /// Looks through the history of one stranger for a message of a channel that is lost.
    pub(super) async fn search_suspect(&mut self) {
        let now = self.uptime();
        if self.access.is_lost() || self.history_at.max(self.search_at) > now {
            return;
        }
        let Some((lost, stranger)) = self.suspects.pop_front() else {
            return;
        };
        match self.shows_messages_of(&stranger, &lost).await {
            Ok(true) => self.take_for(&lost, &stranger).await,
            Err(ReadError::Slack(ApiError::Throttled { wait })) => {
                self.history_at = self.uptime().saturating_add(wait);
                self.suspects.push_front((lost, stranger));
            }
            Err(ReadError::Slack(error @ ApiError::Token(_))) => self.lose_access(&error),
            Err(ReadError::Slack(ApiError::Transient(_)) | ReadError::Store(_)) => {
                self.search_at = self.uptime() + SEARCH_RETRY;
                self.suspects.push_back((lost, stranger));
            }
            // It is another channel, or one that cannot be read.
            Ok(false)
            | Err(
                ReadError::Slack(ApiError::Configuration { .. } | ApiError::Ours(_))
                | ReadError::Astray(_)
                | ReadError::TooLarge,
            ) => {}
        }
    }

    /// Whether the newest messages that are known under an id are in the history of another one.
    async fn shows_messages_of(
        &self,
        stranger: &ChannelId,
        lost: &ChannelId,
    ) -> Result<bool, ReadError> {
        let reader = &self.reader;
        let place = self.place(lost, reader.api.moment()).await.map_err(ReadError::Store)?;
        let Some(latest) = place.committed else {
            return Ok(false);
        };
        let lookback = self.settings.first_lookback.max(SEARCHED);
        let lookback = i64::try_from(lookback.as_micros()).unwrap_or(i64::MAX);
        let query = HistoryQuery {
            channel: stranger.clone(),
            oldest: MessageTs::from_micros(latest.micros().saturating_sub(lookback)),
            latest,
            cursor: None,
            limit: PAGE,
        };
        let page = reader.api.history(&query).await.map_err(ReadError::Slack)?;
        let timestamp = |raw: &String| message::parse(raw).ok()?.ts.parse().ok();
        let timestamps: Vec<MessageTs> = page.messages.iter().filter_map(timestamp).collect();
        let (store, own) = (&reader.ground.store, [stranger.clone()]);
        let alike = store.look_alikes(&reader.app, &own, &timestamps).await;
        let known = self.channels.known();
        let is_lost = |one: &LookAlike| known.chain(lost).contains(&one.channel);
        Ok(alike.map_err(ReadError::Store)?.iter().any(is_lost))
    }

    /// Reads a channel on under another id, once that is kept.
    async fn take_for(&mut self, old: &ChannelId, new: &ChannelId) {
        let reader = &self.reader;
        match self.channels.change_id(&*reader.ground.store, &reader.app, old, new).await {
            Ok(is_ours) => {
                self.lost.remove(old);
                if is_ours {
                    self.read_under(old, new);
                }
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(%old, %new, error, "the new id of {old} is not kept; tried again");
            }
        }
    }

    /// Takes former ids off the board.
    pub(super) fn forget_former_ids(&self) {
        let known = self.channels.known();
        let is_read = |id: &ChannelId| {
            known.ids.contains(id) || self.member_of.iter().flatten().any(|member| member == id)
        };
        let is_former = |id: &ChannelId| known.chain(id).len() > 1 && !is_read(id);
        self.board.status().channels.retain(|one| !is_former(&one.id));
    }

    /// Returns the id under which the channel is read.
    pub(super) fn read_id(&self, channel: ChannelId) -> ChannelId {
        let known = self.channels.known();
        let chain = known.chain(&channel);
        let mut read = self.member_of.iter().flatten().chain(&known.ids);
        read.find(|id| chain.contains(id)).cloned().unwrap_or(channel)
    }
}

/// Slack's own change: `G012Y48650T` became `C012Y48650T`
/// (<https://docs.slack.dev/reference/events/channel_id_changed>).
fn is_twin(one: &ChannelId, other: &ChannelId) -> bool {
    let rest = |id: &ChannelId| {
        let text = id.as_str();
        text.get(1..)
            .filter(|rest| rest.len() >= 8 && text.starts_with(['C', 'G']))
            .map(str::to_owned)
    };
    one != other && rest(one).is_some_and(|rest_of_one| Some(rest_of_one) == rest(other))
}

impl Reader {
    /// Finds out whether messages of the page are known under another id, and keeps that this one
    /// and the channel's own are one channel's if they are. Returns whether any was.
    pub(super) async fn recognise(
        &self,
        task: &Task,
        page: &HistoryPage,
        beat: Beat<'_>,
    ) -> Result<bool, ReadError> {
        let found = self.incidents(task, page);
        if found.is_empty() {
            return Ok(false);
        }
        let timestamps: Vec<MessageTs> = found.keys().copied().collect();
        let known = self.channels.known();
        let own = known.chain(&task.channel);
        let (store, app) = (&*self.ground.store, &self.app);
        let alike = store.look_alikes(app, own, &timestamps).await.map_err(ReadError::Store)?;
        let (mut asked, mut is_joined) = (BTreeSet::new(), false);
        for one in alike {
            let is_alike = found.get(&one.ts).is_some_and(|message| is_alike(message, &one));
            if !is_alike || !asked.insert(one.channel.clone()) {
                continue;
            }
            let (here, there) = (task.channel.clone(), one.channel);
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

    /// The messages of the page with incidents, without their bytes.
    fn incidents(&self, task: &Task, page: &HistoryPage) -> BTreeMap<MessageTs, NewMessage> {
        let admission = self.admission.load();
        let post = self.post(task.source, self.ground.clock.now());
        let incident = |raw: &String| {
            let message = message::parse(raw).ok()?;
            match admission.admit(&message, raw, post, Bytes::new) {
                Admitted::Incident(incoming) | Admitted::NewLayout(incoming, _) => {
                    match incoming.message.key.ts {
                        TsKey::Ts(ts) => Some((ts, incoming.message)),
                        TsKey::Digest(_) => None,
                    }
                }
                Admitted::NearMiss(..) | Admitted::Refused(_) | Admitted::Ignored(_) => None,
            }
        };
        page.messages.iter().filter_map(incident).collect()
    }

    /// Asks Slack whether the channel that is read and another one are the same.
    async fn compare(
        &self,
        task: &Task,
        there: &ChannelId,
        beat: Beat<'_>,
    ) -> Result<Relation, ReadError> {
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
        self.note_answer(there);
        Ok(Relation::Two)
    }

    /// Returns what Slack says of a channel; `None` if it does not know the id.
    ///
    /// # Errors
    /// Slack does not tell, for the moment or until somebody lets it. Until it does the channel is
    /// not read: two ids taken for one would lose alerts, and one taken for two would double them.
    async fn describe(
        &self,
        channel: &ChannelId,
        beat: Beat<'_>,
    ) -> Result<Option<Channel>, ReadError> {
        // The call may take half as long as a loop may be silent.
        beat.beat(self);
        let described = self.api.channel(channel).await;
        beat.beat(self);
        match described {
            Ok(described) => Ok(Some(described)),
            Err(error) if error.code() == UNKNOWN => Ok(None),
            Err(error) => Err(ReadError::Slack(error)),
        }
    }

    fn answered_at(&self, channel: &ChannelId) -> Option<Duration> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(channel).copied()
    }

    /// Notes that Slack has just answered for this id.
    pub(super) fn note_answer(&self, channel: &ChannelId) {
        let now = self.ground.clock.uptime();
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(channel.clone(), now);
    }
}

/// How a channel that is read and another one are related.
enum Relation {
    /// They are two.
    Two,
    /// The other one was this one before.
    MovedHere,
    /// This one is the other one now.
    MovedThere,
}

/// Whether a message holds the incident that is known, as far as both can still be compared.
fn is_alike(message: &NewMessage, known: &LookAlike) -> bool {
    let own = message.alerts.first().map(|alert| &alert.search);
    message.is_edit || known.search.is_none() || known.search.as_ref() == own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_differ_in_their_kind_alone_are_one_channels() {
        let is_twin = |one, other| is_twin(&ChannelId::new(one), &ChannelId::new(other));
        assert!(is_twin("G012Y48650T", "C012Y48650T"));
        assert!(!is_twin("G012Y48650T", "G012Y48650T"), "it is the same");
        assert!(!is_twin("D012Y48650T", "C012Y48650T"), "a direct message is never shared");
        assert!(!is_twin("G012345", "C012345"), "too short for one of Slack's");
    }
}
