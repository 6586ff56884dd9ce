//! Counts the incidents that Slack did not push.

use std::time::Duration;

use super::Poller;
use crate::{ids::MessageTs, logging::chain, metrics::Metric};

/// An incident that no push has brought by then was missed: Slack's last retry comes after 5 min.
const MISSED_AFTER: Duration = Duration::from_secs(600);

impl Poller {
    /// Counts what catch-up brought and no push has, once it is old enough.
    pub(super) async fn count_missed(&self) {
        let ground = &self.reader.ground;
        let Some(now) = self.reader.api.moment().believed else {
            return;
        };
        // By Slack's clock, since messages are.
        let ready_at = now - ground.clock.now().since(self.reader.ready_at);
        // Exactly so old is old enough.
        let before = MessageTs::from_micros((now - MISSED_AFTER).micros().saturating_add(1));
        loop {
            let taken = match ground.store.take_unpushed(&self.reader.app, before).await {
                Ok(taken) if taken.is_empty() => return,
                Ok(taken) => taken,
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(error, "the store does not say what was missed");
                    return;
                }
            };
            let mut withheld = 0_u64;
            for (channel, ts) in taken {
                let channel = self.read_id(channel);
                let is_downtime = ts.micros() < ready_at.micros();
                withheld += u64::from(!is_downtime);
                let cause = if is_downtime { "downtime" } else { "push" };
                let labels = [self.reader.app.as_str(), channel.as_str(), cause];
                ground.metrics.counter(Metric::MissedPush, &labels).increment(1);
                self.board.channel(&channel, |status| {
                    status.missed += 1;
                    if !is_downtime {
                        status.note_withheld(ground.clock.now());
                    }
                });
            }
            if withheld > 0 {
                tracing::warn!(
                    app = %self.reader.app,
                    withheld,
                    "Slack did not push {withheld} incidents of app {} that catch-up found: look \
                     at Event Subscriptions in the app's settings",
                    self.reader.app
                );
            }
        }
    }
}
