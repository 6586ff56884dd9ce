//! Channels of which an event said something that only Slack can confirm. Pure; moments are those
//! of [`Clock::uptime`](crate::clock::Clock::uptime).
//!
//! Each channel has a pause of its own, which grows with every question. A channel that stays
//! archived, or about which Slack never answers, is asked about less and less often and keeps no
//! other channel waiting.

use std::{collections::BTreeMap, time::Duration};

use super::pace::EXTRA_GAP;
use crate::ids::ChannelId;

/// Longest pause between two questions about one channel.
const LONGEST: Duration = Duration::from_secs(3600);

/// Channels about which Slack has to be asked.
#[derive(Debug, Default)]
pub(super) struct Doubts(BTreeMap<ChannelId, ChannelDoubt>);

#[derive(Clone, Copy, Debug)]
struct ChannelDoubt {
    at: Duration,
    asked_at: Option<Duration>,
    times: u32,
}

impl Doubts {
    /// Adds a channel of which an event said something. Many such events are one reason to ask.
    pub(super) fn add(&mut self, channel: &ChannelId, now: Duration) {
        let new = ChannelDoubt { at: now, asked_at: None, times: 0 };
        let doubt = self.0.entry(channel.clone()).or_insert(new);
        let soonest = doubt.asked_at.map_or(now, |asked_at| (asked_at + EXTRA_GAP).max(now));
        doubt.at = doubt.at.min(soonest);
    }

    /// Returns the channel to ask about now, if there is one.
    pub(super) fn due(&self, now: Duration) -> Option<ChannelId> {
        let due = self.0.iter().filter(|(_, doubt)| doubt.at <= now);
        due.min_by_key(|(_, doubt)| doubt.at).map(|(channel, _)| channel.clone())
    }

    /// Returns when the next question is due.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.0.values().map(|doubt| doubt.at).min()
    }

    /// Plans the next question: after twice the last pause, and not before `least` has passed.
    pub(super) fn ask_later(&mut self, channel: &ChannelId, now: Duration, least: Duration) {
        if let Some(doubt) = self.0.get_mut(channel) {
            let pause = EXTRA_GAP.saturating_mul(1 << doubt.times.min(16)).max(least);
            *doubt = ChannelDoubt {
                at: now + pause.min(LONGEST),
                asked_at: Some(now),
                times: doubt.times.saturating_add(1),
            };
        }
    }

    /// Postpones every question until `at`.
    pub(super) fn wait_until(&mut self, at: Duration) {
        self.0.values_mut().for_each(|doubt| doubt.at = doubt.at.max(at));
    }

    /// Removes a channel about which Slack has answered.
    pub(super) fn settle(&mut self, channel: &ChannelId) {
        self.0.remove(channel);
    }

    /// Removes all other channels.
    pub(super) fn keep(&mut self, channels: &[ChannelId]) {
        self.0.retain(|channel, _| channels.contains(channel));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_channel_is_asked_about_with_growing_pauses_of_its_own() {
        let mut doubts = Doubts::default();
        let [a, b] = ["C1", "C2"].map(ChannelId::new);
        doubts.add(&a, seconds(0));
        doubts.add(&b, seconds(1));
        let mut now = seconds(0);
        let mut asked = Vec::new();
        while now < seconds(4 * 3600) {
            now = doubts.next_at().unwrap().max(now);
            let channel = doubts.due(now).unwrap();
            if channel == a {
                asked.push(now.as_secs());
                doubts.ask_later(&channel, now, Duration::ZERO);
            } else {
                assert_eq!(now, seconds(1));
                doubts.settle(&channel);
            }
        }
        assert_eq!(asked[..6], [0, 10, 30, 70, 150, 310]);
        assert_eq!(asked[asked.len() - 1] - asked[asked.len() - 2], 3600);
    }

    #[test]
    fn a_new_event_is_asked_about_soon_and_not_at_once_again() {
        let mut doubts = Doubts::default();
        let channel = ChannelId::new("C1");
        doubts.add(&channel, seconds(0));
        doubts.ask_later(&channel, seconds(5), seconds(600));
        assert_eq!(doubts.next_at(), Some(seconds(605)));
        doubts.add(&channel, seconds(6));
        assert_eq!(doubts.next_at(), Some(seconds(15)));
        doubts.add(&channel, seconds(100));
        assert_eq!(doubts.next_at(), Some(seconds(15)));
        doubts.wait_until(seconds(60));
        assert_eq!((doubts.due(seconds(59)), doubts.next_at()), (None, Some(seconds(60))));
        doubts.keep(&[]);
        assert_eq!(doubts.next_at(), None);
    }
}
