//! Finds the channels behind configured names, once; or those that the bot is in, now and then, if
//! every channel is ours. An id that was found stays in the store: a channel that is renamed stays
//! the same, and other relays that share the store need not find it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{
    Poller, SLOW_RETRY,
    reader::{TRIES, backoff},
    status::Topic,
    window::{Place, ts},
    with_cure,
};
use crate::{
    ids::{ChannelId, MessageTs},
    logging::chain,
    metrics::Metric,
    slack::web_api::{ApiError, Astray, Channel, ChannelPage, Moment, Pages},
    store::StoreError,
};

/// So many channels that were read before the start and are not listed now are looked for.
const LOST: usize = 20;

/// The walk through the list of channels, a page at a time, and when it goes on.
#[derive(Debug)]
pub(super) struct Listing {
    at: Duration,
    failures: u32,
    walk: Walk,
}

/// What one walk has come to.
#[derive(Debug, Default)]
struct Walk {
    cursor: Option<String>,
    pages: Pages,
    seen: HashSet<String>,
    members: Vec<ChannelId>,
    /// Those of them of which nothing in the list says that they are lost ones.
    strangers: Vec<ChannelId>,
}

/// Why a walk stopped.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error(transparent)]
    Slack(#[from] ApiError),
    #[error(transparent)]
    Astray(#[from] Astray),
}

impl Listing {
    pub(super) fn new(at: Duration) -> Self {
        Self { at, failures: 0, walk: Walk::default() }
    }

    /// Begins a walk now that sees every channel.
    pub(super) fn begin_anew(&mut self, at: Duration) {
        self.walk = Walk::default();
        self.at = at;
    }

    pub(super) fn note_stranger(&mut self, channel: ChannelId) {
        self.walk.strangers.push(channel);
    }
}

impl Walk {
    /// Takes note of a page. Returns whether there is another.
    fn follow(&mut self, page: &ChannelPage) -> Result<bool, Astray> {
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

impl Poller {
    /// When the channels of the workspace are listed, if there is still one to find, one that the
    /// bot may have joined, or one that is lost.
    pub(super) fn listing_at(&self) -> Option<Duration> {
        let known = self.channels.known();
        let is_complete = known.unresolved.is_empty() && !known.is_every() && self.lost.is_empty();
        (!is_complete).then_some(self.listing.at)
    }

    /// Reads a page of the list, if it is time to. Channels that are known are read meanwhile.
    pub(super) async fn find_channels(&mut self) {
        let Some(at) = self.listing_at() else {
            self.board.say(Topic::Listing, "");
            return;
        };
        if at > self.uptime() || self.access.is_lost() {
            return;
        }
        match self.list_page().await {
            Ok(true) => self.listing.at = self.uptime(),
            Ok(false) => {
                let walk = std::mem::take(&mut self.listing.walk);
                if self.channels.known().is_every() {
                    self.now_member_of(walk).await;
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

    /// Every channel that the bot is in is ours. One that is listed for the first time may be one
    /// that was read under another id, before this process began or since.
    async fn now_member_of(&mut self, walk: Walk) {
        let reader = Arc::clone(&self.reader);
        let Walk { members, mut strangers, .. } = walk;
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
        let (mut cure, mut walks_on) = ("", false);
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
            // The next walk begins anew.
            ListError::Slack(ApiError::Ours(_)) => {
                self.listing.failures = self.listing.failures.saturating_add(1);
                backoff(self.listing.failures)
            }
            ListError::Astray(_) => SLOW_RETRY,
        };
        if !walks_on {
            self.listing.walk = Walk::default();
        }
        self.listing.at = now + pause;
        let problem = with_cure(&chain(error), cure);
        let problem = format!("the channels cannot be listed: {problem}");
        if self.board.say(Topic::Listing, &problem) {
            let app = &self.reader.app;
            tracing::error!(%app, error = problem, "the channels of app {app} cannot be listed");
        }
    }

    /// Goes through a page, as far as something is left to find. Returns whether there is another.
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
            self.find_again(channel).await;
            if lists_members && channel.is_member && !self.listing.walk.members.contains(&id) {
                self.name_metrics(&id);
                self.listing.walk.members.push(id);
            }
            self.note_name(channel, &self.listing.walk.members);
        }
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

    /// What was found counts from now on, after a restart, and for other relays.
    pub(super) async fn learn(&mut self, written: &str, id: &ChannelId) {
        self.unkept.push((written.to_owned(), id.clone()));
        if let Err(error) = self.keep_unkept().await {
            let error = chain(&error);
            tracing::error!(error, "the id of {written} is not kept yet; it is tried again");
        }
        if self.channels.learn(written, id) {
            self.begin_with(written, id);
        }
    }

    /// Nobody finds out again that an id has changed: what the store refused is offered again.
    pub(super) async fn keep_unkept(&mut self) -> Result<(), StoreError> {
        let reader = Arc::clone(&self.reader);
        while let Some((written, id)) = self.unkept.first() {
            reader.ground.store.set_channel_id(&reader.app, written, id).await?;
            self.unkept.remove(0);
        }
        Ok(())
    }

    /// Takes over what other relays have found out.
    pub(super) async fn recall(&mut self) -> Result<(), StoreError> {
        let reader = Arc::clone(&self.reader);
        for (written, id) in self.channels.recall(&*reader.ground.store, &reader.app).await? {
            self.turns.take_up(&id, self.uptime());
            self.begin_with(&written, &id);
        }
        Ok(())
    }

    pub(super) fn begin_with(&self, written: &str, id: &ChannelId) {
        self.name_metrics(id);
        self.board.status().channels.retain(|status| status.id.as_str() != written);
        tracing::info!(app = %self.reader.app, channel = %id, "channel {written} is {id}");
    }

    /// Up to where the channel's history was read, be it under an id that it had before. What was
    /// really seen counts only if the cursor lies after the earliest clock.
    pub(super) async fn place(
        &self,
        channel: &ChannelId,
        moment: Moment,
    ) -> Result<Place, StoreError> {
        let (store, app) = (&self.reader.ground.store, &self.reader.app);
        let (mut committed, mut ids) = (store.cursor(app, channel).await?, vec![channel.clone()]);
        if committed.is_none() {
            let known = store.channel_ids(app).await?;
            let before = known.iter().filter(|(_, id)| id == channel);
            ids = before.map(|(written, _)| ChannelId::new(written)).collect();
            for id in &ids {
                committed = committed.max(store.cursor(app, id).await?);
            }
        }
        let mut seen: Option<MessageTs> = None;
        if committed.is_some_and(|committed| committed > ts(moment.earliest)) {
            for id in &ids {
                seen = seen.max(store.newest_seen(app, id).await?);
            }
        }
        Ok(Place { committed, seen })
    }

    /// An alert rule on a series that does not exist yet never fires.
    fn name_metrics(&self, id: &ChannelId) {
        let (app, metrics) = (self.reader.app.as_str(), &self.reader.ground.metrics);
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
                 channel are taken. If it is a private channel, invite the bot into it",
                self.reader.app
            );
        }
    }
}
