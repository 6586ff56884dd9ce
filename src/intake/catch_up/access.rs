//! Whether Slack's Web API may be called, and what notices of the receiver change about it.
//!
//! An event may be late, or about somebody else: what it says of the token or of a channel is a
//! reason to ask Slack, and Slack's answer counts.

use std::time::Duration;

use super::{
    ChannelStatus, EXTRA_GAP, Poller, RATE_LIMITED_BACK, SLOW_RETRY, moved, reader::backoff,
    status::Topic, with_cure,
};
use crate::{
    ids::{ChannelId, MessageTs},
    intake::notice::Notice,
    logging::chain,
    slack::{
        lifecycle::Change,
        web_api::{ApiError, Identity},
    },
};

/// What is known of the token.
#[derive(Debug)]
pub(super) enum Access {
    /// Nothing yet, or there is reason to ask again. History is asked for all the same.
    Unknown,
    /// Slack takes it.
    Good(Identity),
    /// Slack does not. Nothing is called until the token has changed, or, since Slack may have
    /// changed its mind, until then.
    Lost { until: Duration, token: Option<u64> },
}

impl Access {
    pub(super) const fn is_good(&self) -> bool {
        matches!(self, Self::Good(_))
    }

    pub(super) const fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Until when nothing is called with that token.
    pub(super) fn lost_until(&self, current: Option<u64>) -> Option<Duration> {
        match self {
            Self::Lost { until, token } => {
                Some(if *token == current { *until } else { Duration::ZERO })
            }
            Self::Good(_) | Self::Unknown => None,
        }
    }
}

impl Poller {
    /// Whether history can be asked for; asks who we are if that is not known.
    pub(super) async fn has_access(&mut self) -> bool {
        let now = self.uptime();
        let lost_until = self.access.lost_until(self.reader.api.token_version());
        if self.access.is_good() {
            return true;
        }
        if lost_until.is_some_and(|until| until > now) || self.ask_access_at > now {
            return !self.access.is_lost();
        }
        self.access_asked_at = now;
        let result = self.reader.api.auth_test().await;
        self.note_heard(!matches!(result, Err(ApiError::Transient(_))));
        match result {
            Ok(identity) => {
                self.board.say(Topic::Access, "");
                self.access = Access::Good(identity);
                self.access_failures = 0;
                return true;
            }
            Err(error @ ApiError::Token(_)) => {
                self.lose_access(&error);
                return false;
            }
            Err(ApiError::Throttled { wait }) => {
                self.ask_access_at = self.uptime().saturating_add(wait);
            }
            Err(error) => self.access_failed(&error),
        }
        !self.access.is_lost()
    }

    fn access_failed(&mut self, error: &ApiError) {
        self.access_failures = self.access_failures.saturating_add(1);
        let is_slow = matches!(error, ApiError::Configuration { .. });
        let pause = if is_slow { SLOW_RETRY } else { backoff(self.access_failures) };
        self.ask_access_at = self.uptime() + pause;
        let problem = with_cure(&chain(error), error.cure());
        if self.board.say(Topic::Access, &problem) {
            let app = &self.reader.app;
            tracing::error!(
                %app,
                error = problem,
                "Slack does not say who app {app} is; it is asked again, and history is read"
            );
        }
    }

    /// Nothing is called with this token any more.
    pub(super) fn lose_access(&mut self, error: &ApiError) {
        let why = format!("Slack says {}", error.code());
        self.note_heard(true);
        if self.board.say(Topic::Access, &why) {
            tracing::error!(
                app = %self.reader.app,
                "catch-up of app {} has stopped: {why}. Pushes are still received. {}",
                self.reader.app,
                error.cure()
            );
        }
        self.reads.values_mut().for_each(|read| read.begun = None);
        let token = self.reader.api.token_version();
        self.access = Access::Lost { until: self.uptime() + SLOW_RETRY, token };
    }

    /// Takes a notice in.
    pub(super) async fn apply_notice(&mut self, notice: Notice) {
        match notice {
            Notice::RateLimited { minute } => {
                let now = self.reader.api.moment();
                // A minute from the future can only be one of the last ones.
                let minute = minute.min(now.earliest).max(now.earliest - RATE_LIMITED_BACK);
                let begin = MessageTs::from_micros(minute.micros());
                self.also_from = Some(self.also_from.map_or(begin, |from| from.min(begin)));
                self.also_read.clear();
                self.read_sooner();
            }
            Notice::Refused => self.read_sooner(),
            Notice::Changed(change) => self.apply(change).await,
        }
    }

    fn read_sooner(&mut self) {
        let at = (self.begun_at + EXTRA_GAP).max(self.uptime());
        self.turns.hurry(at);
    }

    async fn apply(&mut self, change: Change) {
        match change {
            Change::TokensRevoked { of_bot: false } => {}
            Change::TokensRevoked { of_bot: true } | Change::AppUninstalled => {
                // Many such events are one reason to ask.
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

    /// Slack is asked how the channel is.
    fn doubt(&mut self, channel: &ChannelId) {
        if self.if_ours(channel, |_status| {}) {
            self.doubts.add(channel, self.uptime());
        }
    }

    /// Asks Slack about one channel of which an event said something. One that is archived is asked
    /// about again, since it may be opened.
    pub(super) async fn ask_doubted(&mut self) {
        let now = self.uptime();
        if self.access.is_lost() {
            return;
        }
        let Some(channel) = self.doubts.due(now) else {
            return;
        };
        match self.reader.api.channel(&channel).await {
            Ok(found) => {
                self.if_ours(&channel, |status| {
                    status.name.clone_from(&found.name);
                    status.is_archived = found.is_archived;
                });
                if !found.is_member {
                    self.removed_from(&channel);
                }
                if found.is_archived {
                    self.doubts.ask_later(&channel, now, SLOW_RETRY);
                } else {
                    self.doubts.settle(&channel);
                }
            }
            Err(error @ ApiError::Token(_)) => self.lose_access(&error),
            Err(ApiError::Throttled { wait }) => self.doubts.wait_until(now.saturating_add(wait)),
            // A private channel that the bot is not in does not exist for it.
            Err(ApiError::Configuration { code, .. }) if code.as_str() == moved::UNKNOWN => {
                self.doubts.settle(&channel);
                self.removed_from(&channel);
            }
            Err(ApiError::Configuration { .. } | ApiError::Transient(_) | ApiError::Ours(_)) => {
                self.doubts.ask_later(&channel, now, Duration::ZERO);
            }
        }
    }

    fn removed_from(&self, channel: &ChannelId) {
        let problem = "the bot was removed from the channel";
        let mut is_new = false;
        self.if_ours(channel, |status| {
            is_new = status.problem != problem;
            problem.clone_into(&mut status.problem);
        });
        if is_new {
            tracing::error!(
                app = %self.reader.app,
                %channel,
                "the bot was removed from {channel}: neither pushes nor catch-up will bring its \
                 incidents. In Slack, invite it into the channel again"
            );
        }
    }

    /// Changes the status of a channel that is ours; returns whether it is.
    fn if_ours(&self, id: &ChannelId, change: impl FnOnce(&mut ChannelStatus)) -> bool {
        let known = self.channels.known();
        let is_ours =
            known.ids.contains(id) || self.member_of.iter().flatten().any(|member| member == id);
        if is_ours {
            self.board.channel(id, change);
        }
        is_ours
    }
}
