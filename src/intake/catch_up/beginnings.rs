//! When the history of each channel was first to be read. The store remembers it: however often
//! the relay is restarted before a channel can be read, what was posted meanwhile is read then, and
//! what is older than a first reading goes back is never read by itself.

use std::{collections::BTreeMap, time::Duration};

use super::{Poller, window::Place};
use crate::{
    clock::Timestamp,
    ids::{ChannelId, MessageTs},
    slack::web_api::Moment,
    store::{Beginning, StoreError},
};

/// A beginning that Slack's time did not confirm is believed if it is not older than this: the
/// clock of a machine without a battery begins in 1970.
const UNCONFIRMED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Slack tells the time in whole seconds, so a beginning may seem to be as much later than now.
pub(super) const SLACKS_SECOND: Duration = Duration::from_secs(1);

/// What is kept under ids and configured names. No beginning is kept for a channel that was read
/// before beginnings were.
pub(super) type Beginnings = BTreeMap<String, Option<Beginning>>;

impl Poller {
    /// Keeps for each channel of ours that there is to be read something of it from now on, unless
    /// that is kept. A channel whose id is not found yet counts by its name.
    pub(super) async fn note_beginnings(&mut self) -> Result<(), StoreError> {
        let (store, app) = (self.reader.ground.store.clone(), self.reader.app.clone());
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
            let is_new = self.place(&id, moment).await?.committed.is_none();
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
            let (store, app) = (&self.reader.ground.store, &self.reader.app);
            store.set_beginning(app, written, beginning).await?;
        }
        let known = self.beginnings.get_or_insert_default();
        known.insert(written.to_owned(), beginning);
        Ok(())
    }

    /// Returns when the channel's history was first to be read, under whichever of its ids or
    /// names; `None` if nothing is known of it.
    pub(super) async fn beginning(
        &mut self,
        channel: &ChannelId,
        place: Place,
        moment: Moment,
    ) -> Result<Option<Timestamp>, StoreError> {
        let (store, app) = (&self.reader.ground.store, &self.reader.app);
        let known = self.channels.known();
        let names = store.channel_ids(app).await?;
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
        let is_unsure = first.is_none_or(|first| !first.is_sure);
        if is_unsure && place.committed.is_none() && self.beginnings.is_some() {
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

/// Returns how far back the overlap may reach: where the first reading of the channel began.
pub(super) fn floor(beginning: Timestamp, first_lookback: Duration, place: Place) -> MessageTs {
    let floor = MessageTs::from_micros((beginning - first_lookback).micros());
    // Never beyond what was read.
    place.committed.map_or(floor, |committed| floor.min(committed))
}
