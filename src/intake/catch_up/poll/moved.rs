//! Finds a channel whose id Slack has changed although the event that says so was lost.
//!
//! Two things prove that two ids belong to one channel. Either Slack no longer knows one of them,
//! and the other has the configured name or differs in the first letter only (`G` becomes `C`). Or
//! history under one id shows a message that is known under the other: the same microsecond and the
//! same incident. Two channels do not get the same incident in the same microsecond, so a wrong
//! guess would take an extraordinary coincidence.

use std::time::Duration;

use super::Poller;
use crate::{
    ids::{ChannelId, MessageTs},
    intake::catch_up::read::ReadError,
    logging::chain,
    slack::{
        message,
        web_api::{ApiError, Channel, HistoryQuery, PAGE},
    },
    store::LookAlike,
};

/// Most channels whose history is searched for messages of a lost one, with one call each.
const STRANGERS: usize = 20;

/// Time before a lost channel's cursor in which messages are searched for.
const SEARCHED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Pause of the search after a passing failure.
const SEARCH_RETRY: Duration = Duration::from_secs(60);

impl Poller {
    /// Starts the search for a channel whose id Slack does not know: first in the list of channels,
    /// then in the history of channels that are not read.
    pub(super) fn lose(&mut self, channel: &ChannelId) {
        let is_looked_for = self.suspects.iter().any(|(lost, _)| lost == channel);
        if !is_looked_for && self.lost.insert(channel.clone()) {
            self.listing.restart(self.uptime());
        }
    }

    /// Continues under the new id, which is in the store, at once.
    pub(super) fn read_under(&mut self, old: &ChannelId, new: &ChannelId) {
        if let Some(member) = self.member_of.iter_mut().flatten().find(|member| *member == old) {
            member.clone_from(new);
        }
        if let Some(read) = self.reads.get_mut(new) {
            // The cursor may have been put back.
            read.open = None;
            read.moved_to = None;
        }
        if self.ours().contains(new) {
            self.turns.take_up(new, self.uptime());
            self.begin_with(old.as_str(), new);
        }
    }

    /// Compares a listed channel with the lost ones: the same name, or the same id but for the
    /// first letter, means the same channel.
    pub(super) async fn match_lost(&mut self, listed: &Channel) {
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
            None => self.listing.walk.strangers.push(new),
        }
    }

    /// Plans, after all channels were listed, the search for the channels that are still lost in
    /// the history of strangers that are not read.
    pub(super) fn suspect(&mut self, strangers: Vec<ChannelId>) {
        let ours = self.ours();
        let unread: Vec<ChannelId> =
            strangers.into_iter().filter(|id| !ours.contains(id)).take(STRANGERS).collect();
        for lost in std::mem::take(&mut self.lost) {
            self.suspects.extend(unread.iter().map(|stranger| (lost.clone(), stranger.clone())));
        }
    }

    /// Searches the history of one stranger for a message of a lost channel.
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
            // Another channel, or one that cannot be read.
            Ok(false)
            | Err(
                ReadError::Slack(ApiError::Configuration { .. } | ApiError::Ours(_))
                | ReadError::Astray(_)
                | ReadError::TooLarge,
            ) => {}
        }
    }

    /// Returns whether the newest messages known under the lost id are in the history of a
    /// stranger.
    async fn shows_messages_of(
        &self,
        stranger: &ChannelId,
        lost: &ChannelId,
    ) -> Result<bool, ReadError> {
        let reader = &self.reader;
        let progress = self.progress(lost, reader.api.moment()).await.map_err(ReadError::Store)?;
        // Messages of a channel that was never read are not in the store, so nothing can be
        // compared.
        let Some(latest) = progress.committed else {
            return Ok(false);
        };
        let lookback = self.settings.first_lookback.max(SEARCHED);
        let lookback = i64::try_from(lookback.as_micros()).unwrap_or(i64::MAX);
        // Up to the cursor, since up to there the lost channel's incidents are in the store. Only
        // one page, since Slack's allowance for history is for the known channels first.
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
        let own = [stranger.clone()];
        let alike = reader.ground.store.look_alikes(&reader.app, &own, &timestamps).await;
        let known = self.channels.known();
        let is_lost = |one: &LookAlike| known.chain(lost).contains(&one.channel);
        Ok(alike.map_err(ReadError::Store)?.iter().any(is_lost))
    }

    /// Records that a channel has another id, and continues under that.
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
                tracing::error!(
                    %old, %new, error,
                    "the new id of {old} could not be stored; it is tried again"
                );
            }
        }
    }

    /// Removes former ids from the status.
    pub(super) fn forget_former_ids(&self) {
        let known = self.channels.known();
        let is_read = |id: &ChannelId| {
            known.ids.contains(id) || self.member_of.iter().flatten().any(|member| member == id)
        };
        let is_former = |id: &ChannelId| known.chain(id).len() > 1 && !is_read(id);
        self.board.status().channels.retain(|one| !is_former(&one.id));
    }

    /// Returns the id under which a channel is read.
    pub(super) fn read_id(&self, channel: ChannelId) -> ChannelId {
        let known = self.channels.known();
        let chain = known.chain(&channel);
        let mut read = self.member_of.iter().flatten().chain(&known.ids);
        read.find(|id| chain.contains(id)).cloned().unwrap_or(channel)
    }
}

/// Returns whether two ids differ in the first letter only, as Slack's own example does:
/// `G012Y48650T` became `C012Y48650T`
/// (<https://docs.slack.dev/reference/events/channel_id_changed>).
fn is_twin(one: &ChannelId, other: &ChannelId) -> bool {
    let rest = |id: &ChannelId| {
        let text = id.as_str();
        text.get(1..)
            .filter(|rest| rest.len() >= 8 && text.starts_with(['C', 'G']))
            .map(str::to_owned)
    };
    one != other && rest(one).is_some() && rest(one) == rest(other)
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
