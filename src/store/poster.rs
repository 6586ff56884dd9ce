//! Bots that have posted incidents: the role [`Posters`].
//!
//! Anyone who may post in a channel may inject an incident, so operators are shown which bots have.
//! A bot that only talks about incidents is told from the bot that reports them by its history.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::StoreError;
use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId},
};

/// Time for which a bot is remembered after its last incident.
pub const POSTER_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

/// A bot that has posted incidents in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poster {
    /// Configured app that received the incidents.
    pub app: AppName,
    /// Channel in which the bot posted.
    pub channel: ChannelId,
    /// Slack's id of the bot, or empty.
    pub bot_id: String,
    /// Slack's id of the bot's app, or empty.
    pub app_id: String,
    /// Number of incidents.
    pub incidents: u64,
    /// Time at which the newest incident reached the relay.
    pub last: Timestamp,
}

impl Poster {
    /// Returns `true` if Slack has identified the bot. Bots without any id cannot be told apart.
    pub fn has_id(&self) -> bool {
        !self.bot_id.is_empty() || !self.app_id.is_empty()
    }

    /// Returns `true` if these ids belong to the same bot. One id in common is enough, since a bot
    /// may have posted with and without the id of its app.
    pub fn is_same_bot(&self, bot_id: &str, app_id: &str) -> bool {
        let is_same = |one: &str, other: &str| !one.is_empty() && one == other;
        is_same(&self.bot_id, bot_id)
            || is_same(&self.app_id, app_id)
            || (self.bot_id == bot_id && self.app_id == app_id)
    }
}

/// The role that remembers which bots have posted incidents.
#[async_trait]
pub trait Posters: fmt::Debug + Send + Sync {
    /// Adds to the number of incidents of these bots, and moves the time of the last one forward.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn add_posters(&self, posters: Vec<Poster>) -> Result<(), StoreError>;

    /// Returns the bots that have posted incidents to the app, the newest incident first.
    ///
    /// # Errors
    /// The engine failed.
    async fn posters(&self, app: &AppName) -> Result<Vec<Poster>, StoreError>;
}
