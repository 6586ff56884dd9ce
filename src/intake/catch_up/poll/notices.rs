//! Applies the receiver's notices: reasons to read sooner, and changes of the app or of a channel.

use std::time::Duration;

use super::Poller;
use crate::{
    ids::{ChannelId, MessageTs},
    intake::{
        catch_up::{access::Access, pace::EXTRA_GAP},
        notice::Notice,
    },
    slack::lifecycle::Change,
};

/// Longest time before now in which a rate-limited minute is read again.
const RATE_LIMITED_BACK: Duration = Duration::from_secs(24 * 3600);

impl Poller {
    /// Applies a notice.
    pub(super) async fn apply_notice(&mut self, notice: Notice) {
        match notice {
            Notice::RateLimited { minute } => {
                let now = self.reader.api.moment();
                // A minute in the future can only be one of the last ones: the clocks differ.
                let minute = minute.min(now.earliest).max(now.earliest - RATE_LIMITED_BACK);
                let begin = MessageTs::from_micros(minute.micros());
                self.gap_from = Some(self.gap_from.map_or(begin, |from| from.min(begin)));
                self.gap_read.clear();
                self.read_sooner();
            }
            Notice::Refused => self.read_sooner(),
            Notice::Changed(change) => self.apply_change(change).await,
        }
    }

    fn read_sooner(&mut self) {
        let at = (self.begun_at + EXTRA_GAP).max(self.uptime());
        self.turns.bring_forward(at);
    }

    async fn apply_change(&mut self, change: Change) {
        match change {
            Change::TokensRevoked { of_bot: false } => {}
            Change::TokensRevoked { of_bot: true } | Change::AppUninstalled => {
                // Slack is asked once, however many such events arrive.
                if self.access.is_good() {
                    self.access = Access::Unknown;
                    self.ask_access_at = (self.access_asked_at + EXTRA_GAP).max(self.uptime());
                }
            }
            Change::Renamed { channel, name } => {
                let id = ChannelId::new(&channel);
                if self.channels.known().unresolved.contains(&name) {
                    self.learn(&name, &id).await;
                }
                self.if_ours(&id, |status| status.name.clone_from(&name));
            }
            Change::Archived { channel } => self.doubt(&ChannelId::new(&channel)),
            Change::IdChanged { old, new } => {
                self.read_under(&ChannelId::new(&old), &ChannelId::new(&new));
            }
            Change::MemberLeft { channel, user } => {
                let is_somebody_else = match &self.access {
                    Access::Good(identity) => identity.user_id != user,
                    Access::Unknown | Access::Lost { .. } => false,
                };
                if !is_somebody_else {
                    self.doubt(&ChannelId::new(&channel));
                }
            }
        }
    }

    /// Plans a question to Slack about the channel, if the channel belongs to the app.
    fn doubt(&mut self, channel: &ChannelId) {
        if self.if_ours(channel, |_status| {}) {
            self.doubts.add(channel, self.uptime());
        }
    }
}
