//! Channels of one app: configured by id, configured by name and resolved to an id, or all.
//!
//! While a name is not resolved, any channel may be the one with that name, so incidents from every
//! channel are accepted. Slack's API may be down at the start, and that must lose nothing.

use std::{slice, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use crate::{
    code_defender::matcher::Watch,
    ids::{AppName, ChannelId},
    store::{History, StoreError, with_new_id},
};

/// Channels of one app. Shared by the receiver, which reads them, and catch-up, which resolves
/// them.
#[derive(Debug)]
pub struct Channels {
    known: ArcSwap<Known>,
    /// Held from a read of the store until the result is applied, so that an older result does not
    /// replace a newer one.
    turn: Mutex<()>,
}

/// Knowledge about the channels at one moment.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Channels and bots from which the matcher accepts incidents.
    pub(super) watch: Watch,
    /// Channels whose ids are known, each by its present id.
    pub(super) ids: Vec<ChannelId>,
    /// Ids of each channel whose id Slack has changed, oldest first. Events under a former id may
    /// still arrive.
    chains: Vec<Vec<ChannelId>>,
    /// Configured names whose ids are not known.
    pub(super) unresolved: Vec<String>,
}

impl Channels {
    /// Creates the channels of an app; without ids and names the app takes every channel. `bots`
    /// are the accepted bots.
    pub fn new(ids: Vec<ChannelId>, names: Vec<String>, bots: Vec<String>) -> Self {
        let watch = Watch { channels: Vec::new(), bots };
        let known = Known { watch, ids, chains: Vec::new(), unresolved: names };
        Self { known: ArcSwap::from_pointee(known.settled()), turn: Mutex::new(()) }
    }

    /// Applies the id of a configured name, or the new id of a configured id. Returns whether that
    /// changes anything.
    pub fn learn(&self, written: &str, id: &ChannelId) -> bool {
        let before = self.known.rcu(|known| match known.with(written, id) {
            Some(changed) => Arc::new(changed),
            None => Arc::clone(known),
        });
        before.with(written, id).is_some()
    }

    /// Applies the channel ids in the store, which another relay may have found. Called before
    /// anything is received and in each round of catch-up. Returns the ids that are new here.
    ///
    /// # Errors
    /// The store failed.
    pub async fn recall(
        &self,
        store: &dyn History,
        app: &AppName,
    ) -> Result<Vec<(String, ChannelId)>, StoreError> {
        let _turn = self.turn.lock().await;
        self.recall_in_turn(store, app).await
    }

    async fn recall_in_turn(
        &self,
        store: &dyn History,
        app: &AppName,
    ) -> Result<Vec<(String, ChannelId)>, StoreError> {
        let mut learnt = store.channel_ids(app).await?;
        let chains = store.chains(app).await?;
        if self.known().chains != chains {
            self.known.rcu(|known| {
                let mut known = Known::clone(known);
                known.chains.clone_from(&chains);
                known.settled()
            });
        }
        learnt.retain(|(written, id)| self.learn(written, id));
        Ok(learnt)
    }

    /// Stores, and then applies, that Slack has replaced the id `old` with `new`. Returns `false`
    /// if neither is an id of these channels.
    ///
    /// # Errors
    /// The store failed. Nothing was applied then: the receiver must not join ids that the store
    /// keeps apart.
    pub(super) async fn change_id(
        &self,
        store: &dyn History,
        app: &AppName,
        old: &ChannelId,
        new: &ChannelId,
    ) -> Result<bool, StoreError> {
        let _turn = self.turn.lock().await;
        // Another relay may have resolved a name to the old id.
        self.recall_in_turn(store, app).await?;
        let known = self.known();
        let is_ours = |id: &ChannelId| !id.as_str().is_empty() && known.may_be_ours(id);
        if old == new || new.as_str().is_empty() || !(is_ours(old) || is_ours(new)) {
            return Ok(false);
        }
        store.replace_channel_id(app, old, new).await?;
        self.known.rcu(|known| known.replaced(old, new));
        tracing::warn!(
            %app,
            %old,
            %new,
            "Slack has changed the id of channel {old} to {new}; its alerts keep their ids"
        );
        Ok(true)
    }

    pub(super) fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }
}

impl Known {
    /// Returns the state with this id learned, or `None` if nothing changes.
    fn with(&self, written: &str, id: &ChannelId) -> Option<Self> {
        let is_name = self.unresolved.iter().any(|name| name == written);
        let is_old_id = written != id.as_str() && self.ids.iter().any(|id| id.as_str() == written);
        if !is_name && !is_old_id {
            return None;
        }
        let mut known = self.clone();
        known.unresolved.retain(|name| name != written);
        known.ids.retain(|id| id.as_str() != written);
        if !known.ids.contains(id) {
            known.ids.push(id.clone());
        }
        Some(known.settled())
    }

    fn replaced(&self, old: &ChannelId, new: &ChannelId) -> Self {
        let (chains, _) = with_new_id(self.chains.clone(), old, new);
        let known = Self { chains, ..self.clone() };
        known.with(old.as_str(), new).unwrap_or(known).settled()
    }

    /// Restricts the accepted channels to the known ids if every name is resolved.
    fn settled(mut self) -> Self {
        self.watch.channels.clear();
        if self.unresolved.is_empty() {
            for id in self.ids.iter().flat_map(|id| self.chain(id)).cloned().collect::<Vec<_>>() {
                if !self.watch.channels.contains(&id) {
                    self.watch.channels.push(id);
                }
            }
        }
        self
    }

    /// Returns every id of a channel, oldest first.
    pub(super) fn chain<'a>(&'a self, id: &'a ChannelId) -> &'a [ChannelId] {
        let chain = self.chains.iter().find(|chain| chain.contains(id));
        chain.map_or(slice::from_ref(id), Vec::as_slice)
    }

    /// Returns whether the app takes every channel.
    pub(super) fn is_every(&self) -> bool {
        self.ids.is_empty() && self.unresolved.is_empty()
    }

    /// Returns whether a channel of an accepted message certainly belongs to the app.
    pub(super) fn is_certain(&self, channel: &ChannelId) -> bool {
        self.unresolved.is_empty() || self.ids.iter().any(|id| self.chain(id).contains(channel))
    }

    /// Returns whether incidents of a channel are accepted.
    fn may_be_ours(&self, channel: &ChannelId) -> bool {
        self.watch.channels.is_empty() || self.watch.channels.contains(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(texts: &[&str]) -> Vec<ChannelId> {
        texts.iter().map(|text| ChannelId::new(text)).collect()
    }

    #[test]
    fn while_a_name_is_not_resolved_every_channel_is_accepted_without_certainty() {
        let channels = Channels::new(ids(&["C1"]), vec!["cd_alerts".into()], Vec::new());
        let known = channels.known();
        assert!(known.watch.channels.is_empty());
        assert!(known.is_certain(&ChannelId::new("C1")));
        assert!(!known.is_certain(&ChannelId::new("C2")));
        channels.learn("cd_alerts", &ChannelId::new("C2"));
        let known = channels.known();
        assert_eq!(known.watch.channels, ids(&["C1", "C2"]));
        assert!(known.unresolved.is_empty());
    }

    #[test]
    fn without_configured_channels_every_channel_is_accepted() {
        let known = Channels::new(Vec::new(), Vec::new(), Vec::new()).known();
        assert!(known.watch.channels.is_empty() && known.is_certain(&ChannelId::new("C1")));
    }

    #[test]
    fn a_new_id_of_a_configured_channel_is_accepted_and_no_other() {
        let channels = Channels::new(ids(&["C1"]), Vec::new(), Vec::new());
        channels.known.rcu(|known| known.replaced(&ChannelId::new("C1"), &ChannelId::new("C2")));
        channels.learn("C8", &ChannelId::new("C9"));
        let known = channels.known();
        assert_eq!(known.ids, ids(&["C2"]));
        assert_eq!(known.watch.channels, ids(&["C1", "C2"]), "events on their way");
        assert_eq!(known.chain(&known.ids[0]), ids(&["C1", "C2"]));
        assert_eq!(known.chain(&ChannelId::new("C8")), ids(&["C8"]));
    }

    #[test]
    fn an_id_that_is_known_or_belongs_to_another_channel_changes_nothing() {
        let channels = Channels::new(ids(&["C1"]), vec!["cd_alerts".into()], Vec::new());
        let told = [("C1", "C3", true), ("cd_alerts", "C2", true), ("C8", "C9", false)];
        for (written, id, changes) in told {
            assert_eq!(channels.learn(written, &ChannelId::new(id)), changes, "{written}");
        }
        let before = channels.known();
        for (written, id) in [("C1", "C3"), ("cd_alerts", "C2"), ("C8", "C9"), ("C3", "C3")] {
            assert!(!channels.learn(written, &ChannelId::new(id)), "{written}");
        }
        assert!(Arc::ptr_eq(&before, &channels.known()));
    }

    #[test]
    fn an_id_that_changes_back_and_forth_is_known_once() {
        let channels = Channels::new(ids(&["C1"]), Vec::new(), Vec::new());
        let [one, other] = ["C1", "C2"].map(ChannelId::new);
        for _ in 0..3 {
            channels.known.rcu(|known| known.replaced(&one, &other));
            assert_eq!(channels.known().ids, ids(&["C2"]));
            channels.known.rcu(|known| known.replaced(&other, &one));
            assert_eq!(channels.known().ids, ids(&["C1"]));
        }
        assert_eq!(channels.known().watch.channels, ids(&["C1", "C2"]));
    }
}
