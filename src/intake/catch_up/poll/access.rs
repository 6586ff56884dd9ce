//! Asks Slack who we are, and about channels that an event has put in doubt.
//!
//! An event may be late, or about somebody else. It is only a reason to ask Slack about the token
//! or the channel, and Slack's answer counts.

use std::time::Duration;

use super::{Poller, with_cure};
use crate::{
    ids::ChannelId,
    intake::catch_up::{
        access::Access,
        pace::{SLOW_RETRY, backoff},
        read::UNKNOWN_CHANNEL,
        status::Topic,
    },
    logging::chain,
    slack::web_api::ApiError,
};

impl Poller {
    /// Returns whether Slack may be called. Asks who we are if that is not known.
    pub(super) async fn has_access(&mut self) -> bool {
        let now = self.uptime();
        if self.access.is_good() {
            return true;
        }
        let lost_until = self.access.lost_until(self.reader.api.token_version());
        // While it is not known who we are, history is read all the same: the token may be good.
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

    /// Stops every call with the present token, which Slack rejects.
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
        let token = self.reader.api.token_version();
        self.access = Access::Lost { until: self.uptime() + SLOW_RETRY, token };
        self.drop_windows();
    }

    /// Asks Slack about one channel of which an event has said something. An archived channel is
    /// asked about again, since it may be opened.
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
            // To the bot, a private channel that it is not in does not exist.
            Err(ApiError::Configuration { code, .. }) if code.as_str() == UNKNOWN_CHANNEL => {
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
}
