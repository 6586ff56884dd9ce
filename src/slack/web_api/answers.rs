//! Queries to the Web API, and the values read from its answers.

use super::body::Hold;
use crate::ids::{ChannelId, MessageTs};

/// Identity and scopes of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Id of the workspace.
    pub team_id: String,
    /// User id of the bot, as a member of channels.
    pub user_id: String,
    /// Scopes of the token.
    pub scopes: Vec<String>,
}

/// A channel as the Web API describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// Id of the channel.
    pub id: String,
    /// Name of the channel, without `#`.
    pub name: String,
    /// `true` if the bot is a member.
    pub is_member: bool,
    /// `true` if nothing can be posted in the channel any more.
    pub is_archived: bool,
}

/// A page of the list of channels.
#[derive(Clone, Debug, Default)]
pub struct ChannelPage {
    /// Channels of the page, which may be empty without being the last.
    pub channels: Vec<Channel>,
    /// Cursor of the next page; `None` for the last.
    pub next_cursor: Option<String>,
}

/// A part of a channel's history, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Id of the channel.
    pub channel: ChannelId,
    /// Timestamp of the first message.
    pub oldest: MessageTs,
    /// Timestamp of the last message.
    pub latest: MessageTs,
    /// Cursor of the page; `None` for the first.
    pub cursor: Option<String>,
    /// Number of messages asked for, at most [`PAGE`](super::PAGE).
    pub limit: usize,
}

/// A page of a channel's history, in no particular order.
#[derive(Debug, Default)]
pub struct HistoryPage {
    /// Messages as text, each with its channel, which Slack leaves out here.
    pub messages: Vec<String>,
    /// Cursor of the next page, if Slack gave one.
    pub next_cursor: Option<String>,
    /// `true` if there are more messages, with or without a cursor.
    pub has_more: bool,
    /// Size of the answer in bytes.
    pub bytes: usize,
    /// Permit to hold the page in memory, returned when dropped.
    pub hold: Option<Hold>,
}
