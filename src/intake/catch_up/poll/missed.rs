//! Counts the incidents that Slack did not push.

use std::time::Duration;

use super::Poller;
use crate::{ids::MessageTs, logging::chain, metrics::Metric};

/// Age at which an incident that no push has brought counts as missed. Slack's last retry comes
/// after 5 minutes.
const MISSED_AFTER: Duration = Duration::from_secs(600);

impl Poller {
    /// Counts the incidents that catch-up has found and that are old enough to be missed pushes.
    pub(super) async fn count_missed(&self) {
        let ground = &self.reader.ground;
        let Some(now) = self.reader.api.moment().believed else {
            return;
        };
        // By Slack's clock, like the timestamps of messages.
        let ready_at = now - ground.clock.now().since(self.reader.ready_at);
        // One microsecond more, so that a message of exactly that age is included.
        let before = MessageTs::from_micros((now - MISSED_AFTER).micros().saturating_add(1));
        loop {
            let taken = match ground.store.take_unpushed(&self.reader.app, before).await {
                Ok(taken) if taken.is_empty() => return,
                Ok(taken) => taken,
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(error, "missed pushes could not be read from the store");
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
