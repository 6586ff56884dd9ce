//! The channels of one app: those configured by id, those by name as they become known, or all.
//!
//! While a name is not known, no channel can be told to be none of ours, so incidents from every
//! channel are taken. Slack's API may be down when we start; that must lose nothing.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{code_defender::matcher::Watch, ids::ChannelId};

/// One app's channels. Shared by the receiver, which asks, and by catch-up, which finds out.
#[derive(Debug)]
pub struct Channels(ArcSwap<Known>);

/// What is known of them at one moment.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// What the matcher lets through.
    pub(super) watch: Watch,
    /// The channels whose ids are known.
    pub(super) ids: Vec<ChannelId>,
    /// Ids that Slack has replaced: events under them may still be on their way.
    retired: Vec<ChannelId>,
    /// The names whose ids are not.
    pub(super) unresolved: Vec<String>,
}

impl Channels {
    /// These ids and names; every channel if there are none. `bots` are those that may post.
    pub fn new(ids: Vec<ChannelId>, names: Vec<String>, bots: Vec<String>) -> Self {
        let watch = Watch { channels: Vec::new(), bots };
        Self(ArcSwap::from_pointee(
            Known { watch, ids, retired: Vec::new(), unresolved: names }.settled(),
        ))
    }

    /// What was found out before: the id behind a name, or the one that took an id's place.
    /// Returns whether that changes anything.
    pub fn learn(&self, written: &str, id: &ChannelId) -> bool {
        let before = self.0.rcu(|known| match known.with(written, id) {
            Some(changed) => Arc::new(changed),
            None => Arc::clone(known),
        });
        before.with(written, id).is_some()
    }

    pub(super) fn known(&self) -> Arc<Known> {
        self.0.load_full()
    }
}

impl Known {
    /// What is known with that too, unless it was known or is about no channel of ours.
    fn with(&self, written: &str, id: &ChannelId) -> Option<Self> {
        let is_name = self.unresolved.iter().any(|name| name == written);
        let is_old_id = written != id.as_str() && self.ids.iter().any(|id| id.as_str() == written);
        if !is_name && !is_old_id {
            return None;
        }
        let mut known = self.clone();
        known.unresolved.retain(|name| name != written);
        let retired = &mut known.retired;
        retired.retain(|retired| retired != id && retired.as_str() != written);
        retired.extend(known.ids.extract_if(.., |id| id.as_str() == written));
        if !known.ids.contains(id) {
            known.ids.push(id.clone());
        }
        Some(known.settled())
    }

    /// Without a doubt every message outside of these channels is none of ours.
    fn settled(mut self) -> Self {
        self.watch.channels = if self.unresolved.is_empty() {
            [self.ids.as_slice(), &self.retired].concat()
        } else {
            Vec::new()
        };
        self
    }

    /// Every channel is one of ours.
    pub(super) fn is_every(&self) -> bool {
        self.ids.is_empty() && self.unresolved.is_empty()
    }

    /// Whether a message that the matcher let through is from a channel of ours for certain.
    pub(super) fn is_certain(&self, channel: &ChannelId) -> bool {
        self.unresolved.is_empty() || self.ids.contains(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(texts: &[&str]) -> Vec<ChannelId> {
        texts.iter().map(|text| ChannelId::new(text)).collect()
    }

    #[test]
    fn while_a_name_is_unknown_every_channel_is_let_through_without_certainty() {
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
    fn without_channels_every_one_is_ours() {
        let known = Channels::new(Vec::new(), Vec::new(), Vec::new()).known();
        assert!(known.watch.channels.is_empty() && known.is_certain(&ChannelId::new("C1")));
    }

    #[test]
    fn an_id_that_took_the_place_of_ours_is_ours_and_no_other() {
        let channels = Channels::new(ids(&["C1"]), Vec::new(), Vec::new());
        channels.learn("C1", &ChannelId::new("C2"));
        channels.learn("C8", &ChannelId::new("C9"));
        assert_eq!(channels.known().ids, ids(&["C2"]));
        assert_eq!(channels.known().watch.channels, ids(&["C2", "C1"]), "events on their way");
    }

    #[test]
    fn what_is_known_already_or_is_none_of_ours_changes_nothing() {
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
    fn an_id_that_comes_and_goes_is_known_once() {
        let channels = Channels::new(ids(&["C1"]), Vec::new(), Vec::new());
        for _ in 0..3 {
            assert!(channels.learn("C1", &ChannelId::new("C2")));
            assert!(channels.learn("C2", &ChannelId::new("C1")));
        }
        assert_eq!(channels.known().watch.channels, ids(&["C1", "C2"]));
    }
}
