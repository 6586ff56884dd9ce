//! Whose turn it is: channels are read a page at a time, in turn, and one that fails is put aside
//! with a pause of its own. Pure; moments are those of
//! [`Clock::uptime`](crate::clock::Clock::uptime).

use std::{collections::BTreeMap, time::Duration};

use super::reader::backoff;
use crate::ids::ChannelId;

/// The pause of a channel whose pages lead nowhere: 1, 2, 4, 8, 10 min.
const ASTRAY: Duration = Duration::from_secs(60);
const ASTRAY_MAX: Duration = Duration::from_secs(600);

/// The channels that are read.
#[derive(Debug, Default)]
pub(super) struct Turns {
    all: BTreeMap<ChannelId, Turn>,
    /// Grows with each turn that is given: among channels that are due, the one that has waited
    /// longest is next.
    number: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    at: Duration,
    number: u64,
    /// Failures in a row.
    failures: u32,
    /// Windows in a row that were given up.
    given_up: u32,
}

impl Turns {
    /// Reads these channels from now on, and no others. New ones are due at once.
    pub(super) fn keep(&mut self, channels: &[ChannelId], now: Duration) {
        self.all.retain(|id, _| channels.contains(id));
        for id in channels {
            if !self.all.contains_key(id) {
                self.set(id, now, 0);
            }
        }
    }

    /// The channel whose turn it is, if one is due.
    pub(super) fn next(&self, now: Duration) -> Option<ChannelId> {
        let due = self.all.iter().filter(|(_, turn)| turn.at <= now);
        due.min_by_key(|(_, turn)| (turn.number, turn.at)).map(|(id, _)| id.clone())
    }

    /// How many are due.
    pub(super) fn due(&self, now: Duration) -> usize {
        self.all.values().filter(|turn| turn.at <= now).count()
    }

    /// When the next one is due.
    pub(super) fn wake(&self) -> Option<Duration> {
        self.all.values().map(|turn| turn.at).min()
    }

    /// A page of the channel was read, and there are more: they wait for the others' turns.
    pub(super) fn goes_on(&mut self, channel: &ChannelId, now: Duration) {
        self.set(channel, now, 0);
    }

    /// The channel was read to its end and is due again at that moment.
    pub(super) fn went_well(&mut self, channel: &ChannelId, again: Duration) {
        self.set(channel, again, 0);
        if let Some(turn) = self.all.get_mut(channel) {
            turn.given_up = 0;
        }
    }

    /// The channel failed for the moment: 1, 2, 4 .. 60 s, spread by `jitter`. Returns how often in
    /// a row.
    pub(super) fn failed(&mut self, channel: &ChannelId, now: Duration, jitter: f64) -> u32 {
        let failures = self.failures(channel).saturating_add(1);
        let pause = backoff(failures).mul_f64(0.8 + 0.4 * jitter);
        self.set(channel, now.saturating_add(pause), failures);
        failures
    }

    /// The channel's pages lead nowhere.
    pub(super) fn went_astray(&mut self, channel: &ChannelId, now: Duration) {
        let given_up = self.all.get(channel).map_or(0, |turn| turn.given_up);
        let pause = ASTRAY.saturating_mul(1 << given_up.min(4)).min(ASTRAY_MAX);
        self.put_aside(channel, now.saturating_add(pause));
        if let Some(turn) = self.all.get_mut(channel) {
            turn.given_up = given_up.saturating_add(1);
        }
    }

    /// The channel is not asked for before that moment.
    pub(super) fn put_aside(&mut self, channel: &ChannelId, until: Duration) {
        self.set(channel, until, self.failures(channel).saturating_add(1));
    }

    /// The channel is due now, even if it was put aside or not read at all.
    pub(super) fn take_up(&mut self, channel: &ChannelId, now: Duration) {
        self.set(channel, now, 0);
    }

    /// Every channel that is not put aside is due at that moment, if it was not before.
    pub(super) fn hurry(&mut self, at: Duration) {
        for turn in self.all.values_mut().filter(|turn| turn.failures == 0) {
            turn.at = turn.at.min(at);
        }
    }

    fn failures(&self, channel: &ChannelId) -> u32 {
        self.all.get(channel).map_or(0, |turn| turn.failures)
    }

    fn set(&mut self, channel: &ChannelId, at: Duration, failures: u32) {
        self.number += 1;
        let turn = self.all.entry(channel.clone()).or_default();
        (turn.at, turn.number, turn.failures) = (at, self.number, failures);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(count: usize) -> Vec<ChannelId> {
        (0..count).map(|n| ChannelId::new(&format!("C{n:03}"))).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_channel_that_fails_is_asked_later_and_later_until_it_answers() {
        let (mut turns, ids) = (Turns::default(), ids(1));
        turns.keep(&ids, at(0));
        for (failed, pause) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
            assert_eq!(usize::try_from(turns.failed(&ids[0], at(0), 0.5)).unwrap(), failed + 1);
            assert_eq!(turns.wake(), Some(at(pause)));
        }
        turns.went_well(&ids[0], at(60));
        assert_eq!(turns.failed(&ids[0], at(60), 0.5), 1);
    }

    #[test]
    fn a_channel_whose_windows_are_given_up_waits_longer_though_its_pages_are_read() {
        let (mut turns, ids) = (Turns::default(), ids(1));
        turns.keep(&ids, at(0));
        for minutes in [1, 2, 4, 8, 10, 10] {
            turns.goes_on(&ids[0], at(0));
            turns.went_astray(&ids[0], at(0));
            assert_eq!(turns.wake(), Some(at(60 * minutes)));
        }
        turns.went_well(&ids[0], at(0));
        turns.went_astray(&ids[0], at(0));
        assert_eq!(turns.wake(), Some(at(60)));
    }

    #[test]
    fn a_reason_to_hurry_is_none_for_what_was_put_aside() {
        let (mut turns, ids) = (Turns::default(), ids(2));
        turns.keep(&ids, at(0));
        turns.went_well(&ids[0], at(60));
        turns.went_astray(&ids[1], at(0));
        turns.hurry(at(10));
        assert_eq!(turns.next(at(10)), Some(ids[0].clone()));
        assert_eq!(turns.due(at(10)), 1);
        turns.take_up(&ids[1], at(10));
        assert_eq!(turns.due(at(10)), 2);
    }

    proptest! {
        /// Each channel needs so many pages, fails, or goes astray, as the dice say. A turn takes a
        /// second.
        #[test]
        fn no_channel_waits_for_more_than_one_turn_of_each_other(
            kinds in prop::collection::vec(0_u8..4, 1..20),
        ) {
            let (mut turns, ids) = (Turns::default(), ids(kinds.len()));
            turns.keep(&ids, at(0));
            let mut due_since = vec![Some(0_u64); ids.len()];
            for now in 0..600_u64 {
                for (n, id) in ids.iter().enumerate() {
                    let is_due = turns.all[id].at <= at(now);
                    due_since[n] = is_due.then(|| due_since[n].unwrap_or(now));
                    let waited = now - due_since[n].unwrap_or(now);
                    prop_assert!(waited <= u64::try_from(ids.len()).unwrap(), "{id} waits");
                }
                let Some(id) = turns.next(at(now)) else { continue };
                let n = ids.iter().position(|one| *one == id).unwrap();
                due_since[n] = None;
                match kinds[n] {
                    0 => turns.went_well(&id, at(now)),
                    1 => turns.went_well(&id, at(now + 60)),
                    2 => drop(turns.failed(&id, at(now), 0.5)),
                    _ => turns.went_astray(&id, at(now)),
                }
            }
        }
    }
}
