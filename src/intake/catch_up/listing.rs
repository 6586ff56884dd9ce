//! A walk through the workspace's list of channels, one page at a time. Pure; moments are those of
//! [`Clock::uptime`](crate::clock::Clock::uptime).

use std::{collections::HashSet, time::Duration};

use crate::{
    ids::ChannelId,
    slack::web_api::{Astray, ChannelPage, Pages},
};

/// The walk under way, and the time of its next page.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) at: Duration,
    /// Failures in a row.
    pub(super) failures: u32,
    pub(super) walk: ChannelWalk,
}

/// Pages that were read of the list, and the channels found on them.
#[derive(Debug, Default)]
pub(super) struct ChannelWalk {
    pub(super) cursor: Option<String>,
    pages: Pages,
    seen: HashSet<String>,
    /// Channels that the bot is in.
    pub(super) members: Vec<ChannelId>,
    /// Channels that the bot is in and that could not be matched with a lost channel.
    pub(super) strangers: Vec<ChannelId>,
}

impl Listing {
    pub(super) fn new(at: Duration) -> Self {
        Self { at, failures: 0, walk: ChannelWalk::default() }
    }

    /// Begins another walk at that time.
    pub(super) fn restart(&mut self, at: Duration) {
        self.walk = ChannelWalk::default();
        self.at = at;
    }
}

impl ChannelWalk {
    /// Records a page. Returns whether there is another.
    ///
    /// # Errors
    /// [`Astray`] if Slack's pages do not end.
    pub(super) fn follow(&mut self, page: &ChannelPage) -> Result<bool, Astray> {
        let before = self.seen.len();
        self.seen.extend(page.channels.iter().map(|channel| channel.id.clone()));
        if page.next_cursor.is_some() {
            let has_news = self.seen.len() > before;
            self.pages.follow(page.next_cursor.as_deref(), has_news)?;
        }
        self.cursor.clone_from(&page.next_cursor);
        Ok(self.cursor.is_some())
    }
}
