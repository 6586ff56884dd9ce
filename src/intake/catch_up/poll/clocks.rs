//! Compares our clock with Slack's, and chooses the times that operators are shown.

use std::time::Duration;

use super::Poller;
use crate::{clock::Timestamp, ids::ChannelId, intake::catch_up::status::Topic, metrics::Metric};

/// Distance by which our clock may be ahead and still be shown as the time.
const AHEAD: Duration = Duration::from_secs(900);

impl Poller {
    /// Returns our time of day, or the believed time if ours is far ahead.
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

    /// Tells operators if the clocks contradict each other, and corrects times that a wrong clock
    /// has shown and that are now in the future.
    pub(super) fn watch_clocks(&self) {
        let reader = &self.reader;
        let own = reader.ground.clock.now();
        let moment = reader.api.moment();
        if let (Some(believed), Some(_)) = (moment.believed, moment.skew_seconds) {
            let skew = Duration::from_secs(own.since(believed).as_secs()).as_secs_f64()
                - Duration::from_secs(believed.since(own).as_secs()).as_secs_f64();
            reader.ground.metrics.gauge(Metric::ClockSkew, &[]).set(skew);
        }
        let problem = if moment.is_contradictory() {
            let skew = moment.skew_seconds.unwrap_or_default();
            let side = if skew < 0 { "behind" } else { "ahead of" };
            format!(
                "this machine's clock is {} s {side} Slack's: the cursor moves by the earlier of \
                 the two, and at 300 s every push is refused",
                skew.abs()
            )
        } else {
            String::new()
        };
        // The seconds change while the problem stays, so the text alone does not show a new
        // problem.
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
