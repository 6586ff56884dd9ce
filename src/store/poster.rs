//! Which bots have posted incidents: whoever may post in a channel may inject one, and a bot that
//! only talks about incidents is told from the one that reports them by what it did before.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId},
};

/// How long a bot is remembered after its last incident.
pub const POSTER_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

/// A bot that has posted incidents in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poster {
    /// The configured app that received them.
    pub app: AppName,
    /// The channel.
    pub channel: ChannelId,
    /// Slack's id of the bot, or empty.
    pub bot_id: String,
    /// Slack's id of the bot's app, or empty.
    pub app_id: String,
    /// The number of incidents.
    pub incidents: u64,
    /// When the newest of them reached the relay.
    pub last: Timestamp,
}

impl Poster {
    /// Returns whether Slack has said which bot it is. One of which nothing is known cannot be told
    /// from any other.
    pub fn has_id(&self) -> bool {
        !self.bot_id.is_empty() || !self.app_id.is_empty()
    }

    /// Returns whether two posters are one bot. A bot may have posted with and without its app's
    /// id.
    pub fn is_same_bot(&self, bot_id: &str, app_id: &str) -> bool {
        let is_same = |one: &str, other: &str| !one.is_empty() && one == other;
        is_same(&self.bot_id, bot_id)
            || is_same(&self.app_id, app_id)
            || (self.bot_id == bot_id && self.app_id == app_id)
    }
}

/// The part of a store that remembers which bots have posted incidents.
#[async_trait]
pub trait Posters {
    /// Adds to the incidents of these bots, and moves the time of the last one forward.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn add_posters(&self, posters: Vec<Poster>) -> Result<(), StoreError>;

    /// Returns the bots that have posted incidents of the app, the newest first.
    ///
    /// # Errors
    /// The engine failed.
    async fn posters(&self, app: &AppName) -> Result<Vec<Poster>, StoreError>;
}
