//! Finds the ids of the channels that are configured by name, once; or, if the app takes every
//! channel, the channels that the bot is in, now and then. An id that was found is stored: a
//! channel that is renamed stays the same, and other relays that share the store need not find it
//! again.

use std::{sync::Arc, time::Duration};

use super::{Poller, with_cure};
use crate::{
    ids::{ChannelId, MessageTs},
    intake::catch_up::{
        listing::ChannelWalk,
        pace::{SLOW_RETRY, TRIES, backoff},
        status::Topic,
        window::{ReadProgress, ts},
    },
    logging::chain,
    metrics::Metric,
    slack::web_api::{ApiError, Astray, Channel, Moment},
    store::StoreError,
};

/// Most channels that were read before the start, are not listed now, and are looked for.
const LOST: usize = 20;

/// Reason why a walk through the list of channels stopped.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error(transparent)]
    Slack(#[from] ApiError),
    #[error(transparent)]
    Astray(#[from] Astray),
}

impl Poller {
    /// Returns when the next page of the list of channels is due; `None` if there is no channel to
    /// find, none that the bot may have joined, and none that is lost.
    pub(super) fn listing_at(&self) -> Option<Duration> {
        let known = self.channels.known();
        let is_complete = known.unresolved.is_empty() && !known.is_every() && self.lost.is_empty();
        (!is_complete).then_some(self.listing.at)
    }

    /// Reads a page of the list of channels if one is due.
    pub(super) async fn find_channels(&mut self) {
        let Some(at) = self.listing_at() else {
            self.board.say(Topic::Listing, "");
            return;
        };
        if at > self.uptime() || self.access.is_lost() {
            return;
        }
        match self.list_page().await {
            // One page in each round: a long list must not delay the channels that are known.
            Ok(true) => self.listing.at = self.uptime(),
            Ok(false) => {
                let walk = std::mem::take(&mut self.listing.walk);
                if self.channels.known().is_every() {
                    self.set_members(walk).await;
                } else {
                    self.suspect(walk.strangers);
                }
                self.listing.at = self.uptime() + SLOW_RETRY;
                self.board.say(Topic::Listing, "");
                self.complain_of_unresolved();
            }
            Err(error) => self.list_failed(&error),
        }
    }

    /// Applies a complete list for an app that takes every channel.
    async fn set_members(&mut self, walk: ChannelWalk) {
        let reader = Arc::clone(&self.reader);
        let ChannelWalk { members, mut strangers, .. } = walk;
        // A channel that is listed for the first time may have been read under another id, before
        // this process began.
        if self.member_of.is_none()
            && let Ok(read) = reader.ground.store.read_channels(&reader.app).await
        {
            let known = self.channels.known();
            let is_listed =
                |id: &ChannelId| known.chain(id).iter().any(|one| members.contains(one));
            strangers.extend(members.iter().filter(|id| !read.contains(id)).cloned());
            let gone = read.iter().filter(|id| !is_listed(id)).take(LOST);
            self.lost.extend(gone.filter(|_| !strangers.is_empty()).cloned());
        }
        self.suspect(strangers);
        self.member_of = Some(members);
    }

    fn list_failed(&mut self, error: &ListError) {
        let now = self.uptime();
        let mut cure = "";
        let mut walks_on = false;
        let pause = match error {
            ListError::Slack(ApiError::Throttled { wait }) => {
                self.listing.at = now.saturating_add(*wait);
                return;
            }
            ListError::Slack(error @ ApiError::Token(_)) => return self.lose_access(error),
            ListError::Slack(error @ ApiError::Configuration { .. }) => {
                cure = error.cure();
                SLOW_RETRY
            }
            ListError::Slack(ApiError::Transient(_)) => {
                self.note_heard(false);
                self.listing.failures = self.listing.failures.saturating_add(1);
                walks_on = !self.listing.failures.is_multiple_of(TRIES);
                backoff(self.listing.failures)
            }
            // The list begins again: this page may never be answered.
            ListError::Slack(ApiError::Ours(_)) => {
                self.listing.failures = self.listing.failures.saturating_add(1);
                backoff(self.listing.failures)
            }
            ListError::Astray(_) => SLOW_RETRY,
        };
        if !walks_on {
            self.listing.walk = ChannelWalk::default();
        }
        self.listing.at = now + pause;
        let problem = with_cure(&chain(error), cure);
        let problem = format!("the channels cannot be listed: {problem}");
        if self.board.say(Topic::Listing, &problem) {
            let app = &self.reader.app;
            tracing::error!(%app, error = problem, "the channels of app {app} cannot be listed");
        }
    }

    /// Reads a page and looks for the channels that are missing. Returns whether there is another
    /// page to read.
    async fn list_page(&mut self) -> Result<bool, ListError> {
        let reader = Arc::clone(&self.reader);
        let page = reader.api.channels(self.listing.walk.cursor.as_deref()).await?;
        self.note_heard(true);
        self.listing.failures = 0;
        let lists_members = self.channels.known().is_every();
        for channel in &page.channels {
            let id = ChannelId::new(&channel.id);
            if self.channels.known().unresolved.contains(&channel.name) {
                self.learn(&channel.name, &id).await;
            }
            self.match_lost(channel).await;
            if lists_members && channel.is_member && !self.listing.walk.members.contains(&id) {
                self.name_metrics(&id);
                self.listing.walk.members.push(id);
            }
            self.note_name(channel, &self.listing.walk.members);
        }
        // The list of members counts only when it is whole. What else is searched for may all be
        // found before the last page.
        let is_complete =
            !lists_members && self.channels.known().unresolved.is_empty() && self.lost.is_empty();
        Ok(self.listing.walk.follow(&page)? && !is_complete)
    }

    fn note_name(&self, channel: &Channel, members: &[ChannelId]) {
        let id = ChannelId::new(&channel.id);
        if self.channels.known().ids.contains(&id) || members.contains(&id) {
            self.board.channel(&id, |status| status.name.clone_from(&channel.name));
        }
    }

    /// Applies an id that was found, and stores it for other relays and for the next start.
    pub(super) async fn learn(&mut self, written: &str, id: &ChannelId) {
        self.unkept.push((written.to_owned(), id.clone()));
        if let Err(error) = self.keep_unkept().await {
            let error = chain(&error);
            tracing::error!(error, "the id of {written} could not be stored; it is tried again");
        }
        if self.channels.learn(written, id) {
            self.begin_with(written, id);
        }
    }

    /// Stores the ids that were found and are not stored yet. Nothing finds them a second time, so
    /// they are kept until the store takes them.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn keep_unkept(&mut self) -> Result<(), StoreError> {
        let reader = Arc::clone(&self.reader);
        while let Some((written, id)) = self.unkept.first() {
            reader.ground.store.set_channel_id(&reader.app, written, id).await?;
            self.unkept.remove(0);
        }
        Ok(())
    }

    /// Applies the channel ids that other relays have found.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn recall(&mut self) -> Result<(), StoreError> {
        let reader = Arc::clone(&self.reader);
        for (written, id) in self.channels.recall(&*reader.ground.store, &reader.app).await? {
            self.turns.take_up(&id, self.uptime());
            self.begin_with(&written, &id);
        }
        Ok(())
    }

    /// Shows a channel under the id that was found.
    pub(super) fn begin_with(&self, written: &str, id: &ChannelId) {
        self.name_metrics(id);
        self.board.status().channels.retain(|status| status.id.as_str() != written);
        tracing::info!(app = %self.reader.app, channel = %id, "channel {written} is {id}");
    }

    /// Returns how far the channel's history was read, also under a former id or a configured name.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn progress(
        &self,
        channel: &ChannelId,
        moment: Moment,
    ) -> Result<ReadProgress, StoreError> {
        let store = &self.reader.ground.store;
        let app = &self.reader.app;
        let mut committed = store.cursor(app, channel).await?;
        let mut ids = vec![channel.clone()];
        if committed.is_none() {
            let known = store.channel_ids(app).await?;
            let before = known.iter().filter(|(_, id)| id == channel);
            ids = before.map(|(written, _)| ChannelId::new(written)).collect();
            for id in &ids {
                committed = committed.max(store.cursor(app, id).await?);
            }
        }
        // What was really seen matters only if the cursor lies after the earliest clock.
        let mut seen: Option<MessageTs> = None;
        if committed.is_some_and(|committed| committed > ts(moment.earliest)) {
            for id in &ids {
                seen = seen.max(store.newest_seen(app, id).await?);
            }
        }
        Ok(ReadProgress { committed, seen })
    }

    /// Creates the channel's series at 0, since an alert rule never fires on a series that does not
    /// exist yet.
    fn name_metrics(&self, id: &ChannelId) {
        let app = self.reader.app.as_str();
        let metrics = &self.reader.ground.metrics;
        for cause in ["push", "downtime"] {
            metrics.counter(Metric::MissedPush, &[app, id.as_str(), cause]).increment(0);
        }
        metrics.gauge(Metric::CatchUpLastSuccess, &[app, id.as_str()]).increment(0.0);
    }

    fn complain_of_unresolved(&self) {
        for name in &self.channels.known().unresolved {
            tracing::error!(
                app = %self.reader.app,
                "no channel of app {} is named {name}; until it is found, incidents of every \
                 channel are accepted. If it is a private channel, invite the bot into it",
                self.reader.app
            );
        }
    }
}
