//! Whether Slack's Web API may be called, and what notices of the receiver change about it.

use std::sync::Arc;

use super::{ChannelStatus, Poller, RATE_LIMITED_BACK, SLOW_RETRY, reader::Beat};
use crate::{
    clock::Timestamp,
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
    /// Nothing yet.
    Unknown,
    /// Slack takes it.
    Good(Identity),
    /// Slack does not, or the app is gone. Nothing is called until the token has changed, or, since
    /// Slack may have changed its mind, until then.
    Lost { until: Timestamp, token: Option<u64> },
}

impl Access {
    pub(super) const fn is_good(&self) -> bool {
        matches!(self, Self::Good(_))
    }
}

impl Poller {
    /// Whether history can be asked for; asks who we are if that is not known.
    pub(super) async fn has_access(&mut self) -> bool {
        match &self.access {
            Access::Good(_) => return true,
            Access::Lost { until, token }
                if self.now() < *until && *token == self.reader.api.token_version() =>
            {
                return false;
            }
            Access::Lost { .. } | Access::Unknown => {}
        }
        let reader = Arc::clone(&self.reader);
        let call = || reader.api.auth_test();
        match reader.patiently(Beat(Some(&self.heartbeat)), call).await {
            Ok(identity) => {
                self.warn_of_skew();
                self.board.status().problem.clear();
                self.access = Access::Good(identity);
                true
            }
            Err(ApiError::Token(code)) => {
                self.lose_access(&format!("Slack says {code}"));
                false
            }
            Err(error) => {
                let problem = chain(&error);
                tracing::error!(
                    app = %reader.app,
                    error = problem,
                    "catch-up of app {} cannot begin; it is tried again",
                    reader.app
                );
                self.board.status().problem = problem;
                false
            }
        }
    }

    /// Nothing is called with this token any more.
    pub(super) fn lose_access(&mut self, why: &str) {
        if !matches!(self.access, Access::Lost { .. }) {
            tracing::error!(
                app = %self.reader.app,
                "catch-up of app {} has stopped: {why}. Pushes are still received. In Slack: \
                 OAuth & Permissions, Reinstall to Workspace, then put the new Bot User OAuth \
                 Token where `bot_token` points to",
                self.reader.app
            );
        }
        why.clone_into(&mut self.board.status().problem);
        let token = self.reader.api.token_version();
        self.access = Access::Lost { until: self.now() + SLOW_RETRY, token };
    }

    fn warn_of_skew(&self) {
        let Some(slack) = self.reader.api.slack_now() else {
            return;
        };
        let now = self.now();
        let skew = now.since(slack).max(slack.since(now)).as_secs();
        if skew >= 60 {
            tracing::error!(
                skew_seconds = skew,
                "this machine's clock is {skew} s away from Slack's; at 300 s every push is refused"
            );
        }
    }

    /// Takes a notice in; returns whether it is a reason to read history soon.
    pub(super) async fn heed(&mut self, notice: Notice) -> bool {
        match notice {
            Notice::RateLimited { minute } => {
                let begin = minute.max(self.now() - RATE_LIMITED_BACK);
                let begin = MessageTs::from_micros(begin.micros());
                self.also_from = Some(self.also_from.map_or(begin, |from| from.min(begin)));
                true
            }
            Notice::Refused => true,
            Notice::Changed(change) => self.apply(change).await,
        }
    }

    async fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::TokensRevoked { of_bot: false } => false,
            Change::TokensRevoked { of_bot: true } => {
                self.lose_access("the bot's token was revoked");
                false
            }
            Change::AppUninstalled => {
                self.lose_access("the app was removed from the workspace");
                false
            }
            Change::Renamed { channel, name } => {
                let id = ChannelId::new(&channel);
                if self.channels.known().unresolved.contains(&name) {
                    self.learn(&name, &id).await;
                }
                self.if_ours(&id, |status| status.name.clone_from(&name));
                false
            }
            Change::Archived { channel } => {
                let id = ChannelId::new(&channel);
                self.if_ours(&id, |status| status.is_archived = true);
                false
            }
            Change::IdChanged { old, new } => {
                self.read_under(&ChannelId::new(&old), &ChannelId::new(&new))
            }
            Change::MemberLeft { channel, user } => {
                let is_us = match &self.access {
                    Access::Good(identity) => identity.user_id == user,
                    Access::Unknown | Access::Lost { .. } => false,
                };
                if is_us {
                    self.removed_from(&ChannelId::new(&channel));
                }
                false
            }
        }
    }

    fn removed_from(&self, channel: &ChannelId) {
        let problem = "the bot was removed from the channel";
        let is_ours = self.if_ours(channel, |status| problem.clone_into(&mut status.problem));
        if is_ours {
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
