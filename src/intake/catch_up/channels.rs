//! Finds the channels behind configured names, once; or those that the bot is in, now and then, if
//! every channel is ours. An id that was found stays in the store: a channel that is renamed stays
//! the same, and other relays that share the store need not find it.

use std::sync::Arc;

use super::{Poller, SLOW_RETRY, reader::Beat};
use crate::{
    ids::{ChannelId, MessageTs},
    logging::chain,
    metrics::Metric,
    slack::web_api::{ApiError, Channel},
    store::StoreError,
};

impl Poller {
    /// Lists the channels of the workspace if there is still one to find, or one that the bot may
    /// have joined. Returns false if Slack did not answer and it should be tried again soon.
    pub(super) async fn find_channels(&mut self) -> bool {
        let known = self.channels.known();
        let lists_members = known.is_every();
        let is_complete = known.unresolved.is_empty() && !lists_members && self.lost.is_empty();
        if is_complete || self.now() < self.list_again {
            return true;
        }
        let error = match self.list(lists_members).await {
            Ok(members) => {
                if lists_members {
                    self.member_of = Some(members);
                }
                self.list_again = self.now() + SLOW_RETRY;
                self.board.status().problem.clear();
                self.complain_of_unresolved();
                return true;
            }
            Err(ApiError::Token(code)) => {
                self.lose_access(&format!("Slack says {code}"));
                return true;
            }
            Err(error) => error,
        };
        let (app, problem) = (&self.reader.app, chain(&error));
        tracing::error!(%app, error = problem, "the channels of app {app} cannot be listed");
        self.board.status().problem = format!("the channels cannot be listed: {problem}");
        let is_slow = matches!(error, ApiError::Configuration { .. });
        if is_slow {
            self.list_again = self.now() + SLOW_RETRY;
        }
        is_slow
    }

    /// Goes through the pages, as far as something is left to find.
    async fn list(&mut self, lists_members: bool) -> Result<Vec<ChannelId>, ApiError> {
        let reader = Arc::clone(&self.reader);
        let (mut cursor, mut members) = (None::<String>, Vec::new());
        loop {
            let (api, from) = (&reader.api, cursor.as_deref());
            let call = move || api.channels(from);
            let page = reader.patiently(Beat(Some(&self.heartbeat)), call).await?;
            for channel in page.channels {
                let id = ChannelId::new(&channel.id);
                if self.channels.known().unresolved.contains(&channel.name) {
                    self.learn(&channel.name, &id).await;
                }
                self.find_again(&channel).await;
                if lists_members && channel.is_member {
                    self.name_metrics(&id);
                    members.push(id);
                }
                self.note_name(&channel, &members);
            }
            let is_complete = !lists_members
                && self.channels.known().unresolved.is_empty()
                && self.lost.is_empty();
            if page.next_cursor.is_none() || page.next_cursor == cursor || is_complete {
                return Ok(members);
            }
            cursor = page.next_cursor;
        }
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
            reader.parts.store.set_channel_id(&reader.app, written, id).await?;
            self.unkept.remove(0);
        }
        Ok(())
    }

    /// Takes over what other relays have found out.
    pub(super) async fn recall(&mut self) -> Result<(), StoreError> {
        let reader = Arc::clone(&self.reader);
        for (written, id) in self.channels.recall(&*reader.parts.store, &reader.app).await? {
            self.held.remove(&id);
            self.begin_with(&written, &id);
        }
        Ok(())
    }

    pub(super) fn begin_with(&self, written: &str, id: &ChannelId) {
        self.name_metrics(id);
        self.board.status().channels.retain(|status| status.id.as_str() != written);
        tracing::info!(app = %self.reader.app, channel = %id, "channel {written} is {id}");
    }

    /// Up to where the channel's history was read, be it under an id that it had before.
    pub(super) async fn place(&self, channel: &ChannelId) -> Result<Option<MessageTs>, StoreError> {
        let (store, app) = (&self.reader.parts.store, &self.reader.app);
        let mut place = store.cursor(app, channel).await?;
        if place.is_some() {
            return Ok(place);
        }
        for (written, _) in store.channel_ids(app).await?.iter().filter(|(_, id)| id == channel) {
            place = place.max(store.cursor(app, &ChannelId::new(written)).await?);
        }
        Ok(place)
    }

    /// An alert rule on a series that does not exist yet never fires.
    fn name_metrics(&self, id: &ChannelId) {
        let (app, metrics) = (self.reader.app.as_str(), &self.reader.parts.metrics);
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
