//! What others ask of a poller: how it is doing, and to read history once more.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    Found, ReadError, Status,
    reader::{Beat, Reader},
    status::Board,
    task::{Purpose, Task},
    window::{Window, ts},
};
use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, MessageTs},
    intake::channels::{Channels, Known},
    slack::web_api::{ApiError, Astray, Pages},
    store::Source,
};

/// Why history was not read for an operator.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// No such channel is read.
    #[error("`{0}` is none of the app's channels")]
    UnknownChannel(String),
    /// Slack's time is not known, since it does not answer.
    #[error("Slack does not answer")]
    Silent(#[source] ApiError),
    /// Slack does not say which channels there are.
    #[error("the channels cannot be listed")]
    Unlisted(#[source] ApiError),
    /// Slack's list of channels has no end.
    #[error("the channels cannot be listed")]
    Endless(#[source] Astray),
    /// The first moment is later than the last.
    #[error("`since` is later than `until`")]
    Reversed,
    /// There is nothing to read.
    #[error("the bot is in none of the app's channels")]
    Nowhere,
    /// The relay is ending.
    #[error("the relay is ending; what was read is stored")]
    Stopped,
    /// It could not be read to its end.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What reading history for an operator came to.
#[derive(Debug, Default)]
pub struct ReadBack {
    /// What was found in the channels that were read to their end.
    pub found: Found,
    /// How many those are.
    pub channels: u64,
    /// What could not be read.
    pub failures: Vec<Unread>,
}

/// History that could not be read. What was read of it before is stored.
#[derive(Debug)]
pub struct Unread {
    /// The channel; none, if not even the channels are known.
    pub channel: Option<ChannelId>,
    /// Why.
    pub error: BackfillError,
}

/// A moment that an operator names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long before now, by Slack's clock.
    Ago(Duration),
    /// By the timestamps of messages.
    At(MessageTs),
}

impl Moment {
    fn by(self, now: Timestamp) -> MessageTs {
        match self {
            Self::Ago(before) => MessageTs::from_micros((now - before).micros()),
            Self::At(ts) => ts,
        }
    }
}

/// The history that an operator wants read.
#[derive(Clone, Debug)]
pub struct History {
    /// The first moment, itself included.
    pub since: Moment,
    /// The last moment, itself included; now, if none is given.
    pub until: Option<Moment>,
    /// One channel, by id or by name, or all.
    pub channel: Option<String>,
    /// What becomes of incidents that are not known.
    pub purpose: Purpose,
}

/// What others ask of a poller. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) reader: Arc<Reader>,
    pub(super) channels: Arc<Channels>,
    pub(super) board: Board,
}

impl Handle {
    /// What catch-up knows of itself.
    pub fn status(&self) -> Status {
        let mut status = self.board.status().clone();
        status.unresolved.clone_from(&self.channels.known().unresolved);
        status
    }

    /// The app whose history this reads.
    pub fn app(&self) -> &AppName {
        &self.reader.app
    }

    /// Reads history now, beside the usual readings. Moves no cursor. A channel that cannot be read
    /// keeps no other from being read.
    ///
    /// # Errors
    /// [`BackfillError`] if no channel could be asked for; what was read before is stored.
    pub async fn backfill(&self, history: History) -> Result<ReadBack, BackfillError> {
        let (this, shutdown) = (self.clone(), self.reader.ground.shutdown.clone());
        // It goes on when whoever asked has gone away.
        let reading = shutdown.clone().spawn(async move {
            tokio::select! {
                result = this.read_back(history) => result,
                () = shutdown.stopped() => Err(BackfillError::Stopped),
            }
        });
        reading.await.unwrap_or(Err(BackfillError::Stopped))
    }

    async fn read_back(&self, history: History) -> Result<ReadBack, BackfillError> {
        let (reader, beat) = (&self.reader, Beat(None));
        let wanted = history.channel.as_deref().map(|channel| channel.trim_start_matches('#'));
        let mut sum = ReadBack::default();
        let channels = self.chosen(wanted, &mut sum.failures).await?;
        if reader.api.slack_now().is_none() {
            let call = || reader.api.auth_test();
            reader.patiently(beat, call).await.map_err(BackfillError::Silent)?;
        }
        let began = reader.ground.clock.uptime();
        for channel in channels {
            let now = reader.api.moment();
            // Clocks that disagree must not mark as known what came later.
            let end = match history.purpose {
                Purpose::Deliver => now.latest,
                Purpose::MarkKnown => now.earliest,
            };
            let oldest = history.since.by(now.earliest);
            let latest = history.until.map_or(ts(end), |until| until.by(end).min(ts(end)));
            if oldest > latest {
                return Err(BackfillError::Reversed);
            }
            let task = Task {
                channel,
                began,
                window: Window { oldest, latest },
                now: ts(now.earliest),
                source: Source::Backfill,
                purpose: history.purpose,
                cursor: None,
                counted_to: None,
            };
            let channel = task.channel.clone();
            match reader.read(task, beat).await {
                Ok(found) => {
                    sum.found.add(found);
                    sum.channels += 1;
                }
                Err(error) => {
                    let is_tokens = matches!(&error, ReadError::Slack(ApiError::Token(_)));
                    let error = BackfillError::Read(error);
                    sum.failures.push(Unread { channel: Some(channel), error });
                    if is_tokens {
                        // It opens no other channel either.
                        break;
                    }
                }
            }
        }
        Ok(sum)
    }

    /// The channels that are meant. Only one relay keeps a list of those that the bot is in, and it
    /// may be another one: Slack is asked, unless what is known here is enough. If Slack does not
    /// tell, what is known is read all the same, and the rest is among the `failures`.
    async fn chosen(
        &self,
        wanted: Option<&str>,
        failures: &mut Vec<Unread>,
    ) -> Result<Vec<ChannelId>, BackfillError> {
        let known = self.channels.known();
        let mut all = self.named(&known).await?;
        let is_wanted = |(id, name): &(ChannelId, String)| {
            wanted.is_none_or(|wanted| [id.as_str(), name.as_str()].contains(&wanted))
        };
        let is_enough = wanted.is_some() && all.iter().any(is_wanted);
        if (known.is_every() || !known.unresolved.is_empty()) && !is_enough {
            match self.listed(&known).await {
                Ok(listed) => all.extend(listed),
                Err(error) if all.is_empty() || wanted.is_some() => return Err(error),
                Err(error) => failures.push(Unread { channel: None, error }),
            }
            if all.is_empty() {
                return Err(BackfillError::Nowhere);
            }
        }
        let chosen: BTreeSet<_> = all.into_iter().filter(is_wanted).map(|(id, _)| id).collect();
        match wanted {
            Some(wanted) if chosen.is_empty() => {
                Err(BackfillError::UnknownChannel(wanted.to_owned()))
            }
            Some(_) | None => Ok(chosen.into_iter().collect()),
        }
    }

    /// The channels of ours that are known, with each name that is.
    async fn named(&self, known: &Known) -> Result<Vec<(ChannelId, String)>, BackfillError> {
        let reader = &self.reader;
        let kept = reader.ground.store.channel_ids(&reader.app).await.map_err(ReadError::Store)?;
        let kept = kept.into_iter().filter(|(_, id)| known.ids.contains(id));
        let mut named: Vec<_> = kept.map(|(written, id)| (id, written)).collect();
        named.extend(known.ids.iter().map(|id| (id.clone(), String::new())));
        let status = self.board.status();
        named.extend(status.channels.iter().map(|one| (one.id.clone(), one.name.clone())));
        Ok(named)
    }

    /// The channels of ours that Slack lists.
    async fn listed(&self, known: &Known) -> Result<Vec<(ChannelId, String)>, BackfillError> {
        let reader = &self.reader;
        let (mut cursor, mut listed) = (None::<String>, Vec::new());
        let (mut pages, mut seen) = (Pages::default(), HashSet::new());
        loop {
            let (api, from) = (&reader.api, cursor.as_deref());
            let page = reader.patiently(Beat(None), move || api.channels(from)).await;
            let page = page.map_err(BackfillError::Unlisted)?;
            let mut has_news = false;
            for channel in page.channels {
                has_news |= seen.insert(channel.id.clone());
                let is_ours = if known.is_every() {
                    channel.is_member
                } else {
                    known.unresolved.contains(&channel.name)
                };
                if is_ours {
                    listed.push((ChannelId::new(&channel.id), channel.name));
                }
            }
            if page.next_cursor.is_none() {
                return Ok(listed);
            }
            let next = page.next_cursor.as_deref();
            pages.follow(next, has_news).map_err(BackfillError::Endless)?;
            cursor = page.next_cursor;
        }
    }
}
