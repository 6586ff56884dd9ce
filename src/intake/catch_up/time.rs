//! What the poller shows of time: when a channel was last read, and whether the clocks agree.

use std::time::Duration;

use super::{Poller, status::Topic};
use crate::{clock::Timestamp, ids::ChannelId, metrics::Metric};

/// A clock of ours that is further ahead is not shown to be the time.
const AHEAD: Duration = Duration::from_secs(900);

impl Poller {
    /// Our time of day, or the time that is believed if ours is far ahead of it.
    pub(super) fn time_to_show(&self) -> Timestamp {
        let own = self.reader.ground.clock.now();
        let moment = self.reader.api.moment();
        let other = moment.believed.or(self.reader.api.slack_now()).unwrap_or(own);
        if own > other + AHEAD { other } else { own }
    }

    pub(super) fn show_last_success(&self, channel: &ChannelId, at: Timestamp) {
        let labels = [self.reader.app.as_str(), channel.as_str()];
        let gauge = self.reader.ground.metrics.gauge(Metric::CatchUpLastSuccess, &labels);
        gauge.set(at.seconds_f64());
    }

    /// Tells operators if the clocks contradict each other, and takes back what a clock that has
    /// been set back has shown.
    pub(super) fn watch_clocks(&self) {
        let reader = &self.reader;
        let (own, moment) = (reader.ground.clock.now(), reader.api.moment());
        if let (Some(believed), Some(_)) = (moment.believed, moment.skew_seconds) {
            let skew = Duration::from_secs(own.since(believed).as_secs()).as_secs_f64()
                - Duration::from_secs(believed.since(own).as_secs()).as_secs_f64();
            reader.ground.metrics.gauge(Metric::ClockSkew, &[]).set(skew);
        }
        let problem = if moment.is_contradictory() {
            let skew = moment.skew_seconds.unwrap_or_default();
            let side = if skew < 0 { "behind" } else { "ahead of" };
            format!(
                "this machine's clock is {} s {side} Slack's: nothing later than the earlier one \
                 is taken for read, and at 300 s every push is refused",
                skew.abs()
            )
        } else {
            String::new()
        };
        // The seconds change while the problem stays.
        let is_shown = self.board.shows(Topic::Clock);
        if self.board.say(Topic::Clock, &problem) && !is_shown {
            tracing::error!(app = %reader.app, "{problem}");
        }
        let mut late = Vec::new();
        for channel in &mut self.board.status().channels {
            if channel.last_success.is_some_and(|at| at > own) {
                channel.last_success = Some(own);
                late.push(channel.id.clone());
            }
        }
        for channel in late {
            self.show_last_success(&channel, own);
        }
    }
}
