//! Order of the channels: a page each, in turn; a channel that fails is put aside with a pause of
//! its own. Pure; moments are those of [`Clock::uptime`](crate::clock::Clock::uptime).

use std::{collections::BTreeMap, time::Duration};

use super::pace::backoff;
use crate::ids::ChannelId;

/// First pause of a channel whose pages lead nowhere; the pauses are 1, 2, 4, 8 and 10 min.
const ASTRAY: Duration = Duration::from_secs(60);
const ASTRAY_MAX: Duration = Duration::from_secs(600);

/// Next turns of the channels that are read.
#[derive(Debug, Default)]
pub(super) struct Turns {
    all: BTreeMap<ChannelId, Turn>,
    /// Number of turns given. Among the channels that are due, the one whose last turn has the
    /// lowest number is next.
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
    /// Sets the channels to read. New ones are due at once.
    pub(super) fn keep(&mut self, channels: &[ChannelId], now: Duration) {
        self.all.retain(|id, _| channels.contains(id));
        for id in channels {
            if !self.all.contains_key(id) {
                self.set(id, now, 0);
            }
        }
    }

    /// Returns the channel whose turn is next, if one is due.
    pub(super) fn next(&self, now: Duration) -> Option<ChannelId> {
        let due = self.all.iter().filter(|(_, turn)| turn.at <= now);
        due.min_by_key(|(_, turn)| (turn.number, turn.at)).map(|(id, _)| id.clone())
    }

    /// Returns the number of channels that are due.
    pub(super) fn due(&self, now: Duration) -> usize {
        self.all.values().filter(|turn| turn.at <= now).count()
    }

    /// Returns when the next channel is due.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.all.values().map(|turn| turn.at).min()
    }

    /// Records that a page was read and there are more: the channel is due after the others.
    pub(super) fn goes_on(&mut self, channel: &ChannelId, now: Duration) {
        self.set(channel, now, 0);
    }

    /// Records that the channel was read to its end and is due again at `again`.
    pub(super) fn went_well(&mut self, channel: &ChannelId, again: Duration) {
        self.set(channel, again, 0);
        if let Some(turn) = self.all.get_mut(channel) {
            turn.given_up = 0;
        }
    }

    /// Records a passing failure: the pause is 1, 2, 4 .. 60 s, spread by `jitter`. Returns the
    /// number of failures in a row.
    pub(super) fn failed(&mut self, channel: &ChannelId, now: Duration, jitter: f64) -> u32 {
        let failures = self.failures(channel).saturating_add(1);
        let pause = backoff(failures).mul_f64(0.8 + 0.4 * jitter);
        self.set(channel, now.saturating_add(pause), failures);
        failures
    }

    /// Records that the channel's pages lead nowhere.
    pub(super) fn went_astray(&mut self, channel: &ChannelId, now: Duration) {
        let given_up = self.all.get(channel).map_or(0, |turn| turn.given_up);
        let pause = ASTRAY.saturating_mul(1 << given_up.min(4)).min(ASTRAY_MAX);
        self.put_aside(channel, now.saturating_add(pause));
        if let Some(turn) = self.all.get_mut(channel) {
            turn.given_up = given_up.saturating_add(1);
        }
    }

    /// Puts the channel aside until a moment.
    pub(super) fn put_aside(&mut self, channel: &ChannelId, until: Duration) {
        self.set(channel, until, self.failures(channel).saturating_add(1));
    }

    /// Makes the channel due now, even if it was put aside or not read at all.
    pub(super) fn take_up(&mut self, channel: &ChannelId, now: Duration) {
        self.set(channel, now, 0);
    }

    /// Makes every channel that is not put aside due at `at`, unless it is due earlier.
    pub(super) fn bring_forward(&mut self, at: Duration) {
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
        *turn = Turn { at, number: self.number, failures, given_up: turn.given_up };
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
            assert_eq!(turns.next_at(), Some(at(pause)));
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
            assert_eq!(turns.next_at(), Some(at(60 * minutes)));
        }
        turns.went_well(&ids[0], at(0));
        turns.went_astray(&ids[0], at(0));
        assert_eq!(turns.next_at(), Some(at(60)));
    }

    #[test]
    fn a_channel_that_was_put_aside_is_not_brought_forward() {
        let (mut turns, ids) = (Turns::default(), ids(2));
        turns.keep(&ids, at(0));
        turns.went_well(&ids[0], at(60));
        turns.went_astray(&ids[1], at(0));
        turns.bring_forward(at(10));
        assert_eq!(turns.next(at(10)), Some(ids[0].clone()));
        assert_eq!(turns.due(at(10)), 1);
        turns.take_up(&ids[1], at(10));
        assert_eq!(turns.due(at(10)), 2);
    }

    proptest! {
        /// Each channel has one page after another, waits, fails, or goes astray. A turn takes a
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
