//! Catch-up's state of each channel: the role [`History`].

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::StoreError;
use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, MessageTs},
};

/// The furthest that a cursor may move beyond the store's own time. Clocks differ a little.
pub const CURSOR_AHEAD: Duration = Duration::from_secs(300);

/// Time at which the history of a channel was to be read for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Time of the planned first reading.
    pub at: Timestamp,
    /// `true` if the time was confirmed by Slack's clock.
    pub is_sure: bool,
}

/// A move of the catch-up cursor, committed together with the last page it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorMove {
    /// App that reads the channel.
    pub app: AppName,
    /// Channel that was read.
    pub channel: ChannelId,
    /// Start of the history that was read. A cursor before it does not move, since the history in
    /// between was not read.
    pub from: MessageTs,
    /// End of the history that was read.
    pub to: MessageTs,
    /// Newest message in that history. It is kept beside the cursor and never goes back.
    pub seen: Option<MessageTs>,
    /// Term of the poller. A move of an older term is refused.
    pub term: u64,
}

/// A message that is stored under another channel id than the one asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookAlike {
    /// Timestamp of both messages.
    pub ts: MessageTs,
    /// Channel id under which the message is stored.
    pub channel: ChannelId,
    /// Search text of the first alert; `None` once retention has removed it.
    pub search: Option<String>,
}

/// The role that keeps how far catch-up has read, and the ids of channels.
#[async_trait]
pub trait History: fmt::Debug + Send + Sync {
    /// Returns the catch-up cursor of a channel.
    ///
    /// # Errors
    /// The engine failed.
    async fn cursor(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError>;

    /// Returns the largest [`CursorMove::seen`] of a channel.
    ///
    /// # Errors
    /// The engine failed.
    async fn newest_seen(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError>;

    /// Returns the channels that have a cursor, the furthest cursor first.
    ///
    /// # Errors
    /// The engine failed.
    async fn read_channels(&self, app: &AppName) -> Result<Vec<ChannelId>, StoreError>;

    /// Returns the planned first reading of each channel, by the channel's id or by its configured
    /// name, as stored by [`History::set_beginning`].
    ///
    /// # Errors
    /// The engine failed.
    async fn beginnings(&self, app: &AppName) -> Result<Vec<(String, Beginning)>, StoreError>;

    /// Stores the planned first reading of a channel. An existing value stays, except that a
    /// confirmed time replaces one that was not confirmed.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn set_beginning(
        &self,
        app: &AppName,
        written: &str,
        beginning: Beginning,
    ) -> Result<(), StoreError>;

    /// Moves a cursor back to `cursor.to` if it is after that, unless a newer term has moved it.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn put_cursor_back(&self, cursor: &CursorMove) -> Result<(), StoreError>;

    /// Returns the channel ids behind the names and ids that the configuration writes, as stored
    /// by [`History::set_channel_id`].
    ///
    /// # Errors
    /// The engine failed.
    async fn channel_ids(&self, app: &AppName) -> Result<Vec<(String, ChannelId)>, StoreError>;

    /// Stores the id behind a channel's name, or behind an id that Slack has replaced, in place of
    /// an earlier one.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn set_channel_id(
        &self,
        app: &AppName,
        written: &str,
        id: &ChannelId,
    ) -> Result<(), StoreError>;

    /// Returns the id chains of the app: for each channel whose id Slack has changed, all ids it
    /// has had, oldest first, at most [`CHAIN_MAX`](super::CHAIN_MAX).
    ///
    /// # Errors
    /// The engine failed.
    async fn chains(&self, app: &AppName) -> Result<Vec<Vec<ChannelId>>, StoreError>;

    /// Stores that Slack replaced the channel id `old` with `new`, as described at
    /// [`with_new_id`](super::with_new_id).
    ///
    /// In the same transaction [`History::channel_ids`] changes, so that everything behind `old`,
    /// and `old` itself, leads to `new`; and the cursor of `new` moves back to the cursor of the
    /// older ids, if that is before it. No accept of any process runs at the same time.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn replace_channel_id(
        &self,
        app: &AppName,
        old: &ChannelId,
        new: &ChannelId,
    ) -> Result<(), StoreError>;

    /// Finds messages with these timestamps that are stored under another id of the app, and under
    /// none of the ids `own`.
    ///
    /// # Errors
    /// The engine failed.
    async fn look_alikes(
        &self,
        app: &AppName,
        own: &[ChannelId],
        timestamps: &[MessageTs],
    ) -> Result<Vec<LookAlike>, StoreError>;

    /// Removes and returns messages that catch-up has brought and no push, if they were posted
    /// before that time. Each message is returned once. Returns a bounded number, oldest first;
    /// call again until the result is empty.
    ///
    /// # Errors
    /// The engine failed.
    async fn take_unpushed(
        &self,
        app: &AppName,
        posted_before: MessageTs,
    ) -> Result<Vec<(ChannelId, MessageTs)>, StoreError>;

    /// Returns the term under which this process may poll for the app, or `None` if another
    /// process polls.
    ///
    /// # Errors
    /// The engine failed.
    async fn poller_term(&self, app: &AppName) -> Result<Option<u64>, StoreError>;

    /// Gives up the right to poll for the app until this process asks for a term again. Returns
    /// `false` if no other process can take over, because the store is not shared.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn stop_polling(&self, _app: &AppName) -> Result<bool, StoreError> {
        Ok(false)
    }
}
