//! Times at which channels were first to be read. The store remembers them: however often the relay
//! is restarted before a channel can be read, messages posted meanwhile are read then, and messages
//! older than the first lookback are never read without a backfill.

use std::time::Duration;

use super::Poller;
use crate::{
    clock::Timestamp,
    ids::{ChannelId, MessageTs},
    intake::catch_up::window::ReadProgress,
    slack::web_api::Moment,
    store::{Beginning, StoreError},
};

/// Age up to which a beginning is believed that Slack's time did not confirm: the clock of a
/// machine without a battery begins in 1970.
const UNCONFIRMED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Resolution of Slack's time: a beginning may seem to be later than now by as much.
pub(super) const SLACKS_SECOND: Duration = Duration::from_secs(1);

impl Poller {
    /// Stores a beginning for each channel of the app that does not have one. A channel whose id is
    /// not found yet has one by name.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn note_beginnings(&mut self) -> Result<(), StoreError> {
        let store = self.reader.ground.store.clone();
        let app = self.reader.app.clone();
        if self.beginnings.is_none() {
            let kept = store.beginnings(&app).await?;
            let kept = kept.into_iter().map(|(written, beginning)| (written, Some(beginning)));
            self.beginnings = Some(kept.collect());
        }
        let moment = self.reader.api.moment();
        for id in self.ours() {
            if self.knows_beginning(id.as_str()) {
                continue;
            }
            // A channel that was read before beginnings were stored has a cursor, and needs none.
            let is_new = self.progress(&id, moment).await?.committed.is_none();
            self.keep_beginning(id.as_str(), is_new.then(|| now(moment))).await?;
        }
        for name in self.channels.known().unresolved.clone() {
            if !self.knows_beginning(&name) {
                self.keep_beginning(&name, Some(now(moment))).await?;
            }
        }
        Ok(())
    }

    fn knows_beginning(&self, written: &str) -> bool {
        self.beginnings.as_ref().is_some_and(|known| known.contains_key(written))
    }

    async fn keep_beginning(
        &mut self,
        written: &str,
        beginning: Option<Beginning>,
    ) -> Result<(), StoreError> {
        if let Some(beginning) = beginning {
            let reader = &self.reader;
            reader.ground.store.set_beginning(&reader.app, written, beginning).await?;
        }
        let known = self.beginnings.get_or_insert_default();
        known.insert(written.to_owned(), beginning);
        Ok(())
    }

    /// Returns the time at which the channel's history was first to be read, under any of its ids
    /// and names; `None` if that is not known.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn beginning(
        &mut self,
        channel: &ChannelId,
        progress: ReadProgress,
        moment: Moment,
    ) -> Result<Option<Timestamp>, StoreError> {
        let reader = &self.reader;
        let known = self.channels.known();
        let names = reader.ground.store.channel_ids(&reader.app).await?;
        let names = names.iter().filter(|(_, id)| id == channel).map(|(name, _)| name.as_str());
        let ids = known.chain(channel).iter().map(ChannelId::as_str);
        let kept = self.beginnings.iter().flatten();
        let all: Vec<&str> = names.chain(ids).collect();
        let kept = kept.filter(|(written, _)| all.contains(&written.as_str()));
        let kept: Vec<Beginning> = kept.filter_map(|(_, beginning)| *beginning).collect();
        let Some(now) = moment.believed else {
            return Ok(kept.iter().map(|one| one.at).min());
        };
        let is_possible = |one: &&Beginning| {
            one.at <= now + SLACKS_SECOND && (one.is_sure || now.since(one.at) <= UNCONFIRMED)
        };
        let first = kept.iter().filter(is_possible).min_by_key(|one| one.at).copied();
        // Slack's time is known now: it confirms the beginning, or makes one.
        let is_unsure = first.is_none_or(|first| !first.is_sure);
        if is_unsure && progress.committed.is_none() && self.beginnings.is_some() {
            let at = first.map_or(now, |first| first.at);
            let sure = Beginning { at, is_sure: true };
            self.keep_beginning(channel.as_str(), Some(sure)).await?;
            return Ok(Some(at));
        }
        Ok(first.map(|first| first.at))
    }
}

fn now(moment: Moment) -> Beginning {
    let at = moment.believed.unwrap_or(moment.earliest);
    Beginning { at, is_sure: moment.believed.is_some() }
}

/// Returns the earliest message that the overlap may reach: where the first reading began.
pub(super) fn floor(
    beginning: Timestamp,
    first_lookback: Duration,
    progress: ReadProgress,
) -> MessageTs {
    let floor = MessageTs::from_micros((beginning - first_lookback).micros());
    // Never later than what was read.
    progress.committed.map_or(floor, |committed| floor.min(committed))
}
