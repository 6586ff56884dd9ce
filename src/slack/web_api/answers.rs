//! What is asked of the Web API, and what its answers come to.

use super::body::Hold;
use crate::ids::{ChannelId, MessageTs};

/// Who we are, and what we may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The workspace.
    pub team_id: String,
    /// The bot as a member of channels.
    pub user_id: String,
    /// The scopes of the token.
    pub scopes: Vec<String>,
}

/// A channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// Its id.
    pub id: String,
    /// Its name, without `#`.
    pub name: String,
    /// The bot is in it.
    pub is_member: bool,
    /// Nothing can be posted in it any more.
    pub is_archived: bool,
}

/// A page of the list of channels.
#[derive(Clone, Debug, Default)]
pub struct ChannelPage {
    /// The channels; a page may be empty and not the last.
    pub channels: Vec<Channel>,
    /// Where the next page begins; none for the last.
    pub next_cursor: Option<String>,
}

/// A part of a channel's history, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// The channel.
    pub channel: ChannelId,
    /// Nothing before this.
    pub oldest: MessageTs,
    /// Nothing after this.
    pub latest: MessageTs,
    /// Where the page begins; none for the first.
    pub cursor: Option<String>,
    /// How many messages it may have, at most [`PAGE`](super::PAGE).
    pub limit: usize,
}

/// A page of a channel's history, in no order that is relied on.
#[derive(Debug, Default)]
pub struct HistoryPage {
    /// The messages as text, each with its channel, which Slack leaves out here.
    pub messages: Vec<String>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
    /// There is more, whether or not there is a cursor.
    pub has_more: bool,
    /// The answer's size.
    pub bytes: usize,
    /// Leave to hold the page in memory; given back when it is dropped.
    pub hold: Option<Hold>,
}
