//! Questions to a poller from outside: its status, and a backfill of history.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    open_window::ReadCounts,
    read::{Beat, ReadError, Reader},
    status::{Board, CatchUpStatus},
    task::{Purpose, WindowTask},
    window::{Window, ts},
};
use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, MessageTs},
    intake::channels::{Channels, Known},
    slack::web_api::{ApiError, Astray, Pages},
    store::Source,
};

/// Reason why a backfill did not read history.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// The channel does not belong to the app.
    #[error("`{0}` is not one of the app's channels")]
    UnknownChannel(String),
    /// Slack does not answer, so the time is not known.
    #[error("Slack does not answer")]
    Silent(#[source] ApiError),
    /// Slack does not list the channels.
    #[error("the channels cannot be listed")]
    Unlisted(#[source] ApiError),
    /// Slack's list of channels does not end.
    #[error("the channels cannot be listed")]
    Endless(#[source] Astray),
    /// The first time is later than the last.
    #[error("`since` is later than `until`")]
    Reversed,
    /// The bot is not in any channel of the app.
    #[error("the bot is not in any of the app's channels")]
    Nowhere,
    /// The relay is stopping.
    #[error("the relay is stopping; run the backfill again when it is back")]
    Stopped,
    /// A channel could not be read to its end.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Result of a backfill.
#[derive(Debug, Default)]
pub struct BackfillReport {
    /// Numbers of the channels that were read to their end.
    pub counts: ReadCounts,
    /// Number of channels that were read to their end.
    pub channels: u64,
    /// Channels that could not be read.
    pub failures: Vec<BackfillFailure>,
}

/// A part of a backfill that failed. The incidents that were read before are stored.
#[derive(Debug)]
pub struct BackfillFailure {
    /// Channel that could not be read to its end; `None` if the channels could not be listed.
    pub channel: Option<ChannelId>,
    /// Reason of the failure.
    pub error: BackfillError,
}

/// A point in history that an operator names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryTime {
    /// Time before now, by Slack's clock.
    Ago(Duration),
    /// Timestamp of a message.
    At(MessageTs),
}

impl HistoryTime {
    /// Returns the message timestamp that stands for this time.
    fn by(self, now: Timestamp) -> MessageTs {
        match self {
            Self::Ago(before) => MessageTs::from_micros((now - before).micros()),
            Self::At(ts) => ts,
        }
    }
}

/// History that an operator wants to be read.
#[derive(Clone, Debug)]
pub struct BackfillRequest {
    /// First time, included.
    pub since: HistoryTime,
    /// Last time, included; `None` for now.
    pub until: Option<HistoryTime>,
    /// Id or name of one channel; `None` for all.
    pub channel: Option<String>,
    /// Use of the incidents that the store does not know.
    pub purpose: Purpose,
}

/// Access to a poller from outside. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PollerHandle {
    reader: Arc<Reader>,
    channels: Arc<Channels>,
    board: Board,
}

impl PollerHandle {
    pub(super) fn new(reader: Arc<Reader>, channels: Arc<Channels>, board: Board) -> Self {
        Self { reader, channels, board }
    }

    /// Returns the state of catch-up.
    pub fn status(&self) -> CatchUpStatus {
        let mut status = self.board.status().clone();
        status.unresolved.clone_from(&self.channels.known().unresolved);
        status
    }

    /// Returns the name of the app whose history is read.
    pub fn app(&self) -> &AppName {
        &self.reader.app
    }

    /// Reads history now, beside the poller's own readings, and moves no cursor. A channel that
    /// cannot be read does not keep the others from being read.
    ///
    /// # Errors
    /// [`BackfillError`] if no channel could be asked for, or the relay stops.
    pub async fn backfill(
        &self,
        request: BackfillRequest,
    ) -> Result<BackfillReport, BackfillError> {
        let this = self.clone();
        let shutdown = self.reader.ground.shutdown.clone();
        // A task of its own, so that the backfill goes on when the client disconnects.
        let reading = shutdown.clone().spawn(async move {
            tokio::select! {
                result = this.read_history(request) => result,
                () = shutdown.stopped() => Err(BackfillError::Stopped),
            }
        });
        reading.await.unwrap_or(Err(BackfillError::Stopped))
    }

    async fn read_history(
        &self,
        request: BackfillRequest,
    ) -> Result<BackfillReport, BackfillError> {
        let reader = &self.reader;
        let beat = Beat(None);
        let wanted = request.channel.as_deref().map(|channel| channel.trim_start_matches('#'));
        let mut report = BackfillReport::default();
        let channels = self.choose(wanted, &mut report.failures).await?;
        if reader.api.slack_now().is_none() {
            let call = || reader.api.auth_test();
            reader.patiently(beat, call).await.map_err(BackfillError::Silent)?;
        }
        let began = reader.ground.clock.uptime();
        for channel in channels {
            let now = reader.api.moment();
            // An incident after the end must not be marked as known: if the clocks disagree, the
            // earlier one counts then.
            let end = match request.purpose {
                Purpose::Deliver => now.latest,
                Purpose::MarkKnown => now.earliest,
            };
            let oldest = request.since.by(now.earliest);
            let latest = request.until.map_or(ts(end), |until| until.by(end).min(ts(end)));
            if oldest > latest {
                return Err(BackfillError::Reversed);
            }
            let task = WindowTask {
                channel,
                began,
                window: Window { oldest, latest },
                now: ts(now.earliest),
                source: Source::Backfill,
                purpose: request.purpose,
                cursor: None,
                counted_to: None,
            };
            let channel = task.channel.clone();
            match reader.read(task, beat).await {
                Ok(counts) => {
                    report.counts.add(counts);
                    report.channels += 1;
                }
                Err(error) => {
                    let is_token = matches!(&error, ReadError::Slack(ApiError::Token(_)));
                    let error = BackfillError::Read(error);
                    report.failures.push(BackfillFailure { channel: Some(channel), error });
                    if is_token {
                        // Slack rejects the token for every other channel too.
                        break;
                    }
                }
            }
        }
        Ok(report)
    }

    /// Returns the channels to read. If Slack does not list the channels although they are needed,
    /// the known ones are returned and the failure is added to `failures`.
    ///
    /// # Errors
    /// [`BackfillError`] if there is no channel to read.
    async fn choose(
        &self,
        wanted: Option<&str>,
        failures: &mut Vec<BackfillFailure>,
    ) -> Result<Vec<ChannelId>, BackfillError> {
        let known = self.channels.known();
        let mut all = self.named(&known).await?;
        let is_wanted = |(id, name): &(ChannelId, String)| {
            wanted.is_none_or(|wanted| [id.as_str(), name.as_str()].contains(&wanted))
        };
        // Only the relay that polls has a list of the channels that the bot is in, and that may be
        // another relay: Slack is asked unless the known channels are enough.
        let is_enough = wanted.is_some() && all.iter().any(is_wanted);
        if (known.is_every() || !known.unresolved.is_empty()) && !is_enough {
            match self.listed(&known).await {
                Ok(listed) => all.extend(listed),
                Err(error) if all.is_empty() || wanted.is_some() => return Err(error),
                Err(error) => failures.push(BackfillFailure { channel: None, error }),
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

    /// Returns the known channels of the app, once for each known name and once without.
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

    /// Returns the channels of the app that Slack lists, with their names.
    async fn listed(&self, known: &Known) -> Result<Vec<(ChannelId, String)>, BackfillError> {
        let reader = &self.reader;
        let mut cursor = None::<String>;
        let mut listed = Vec::new();
        let mut pages = Pages::default();
        let mut seen = HashSet::new();
        loop {
            let api = &reader.api;
            let from = cursor.as_deref();
            let page = reader.patiently(Beat(None), move || api.channels(from)).await;
            let page = page.map_err(BackfillError::Unlisted)?;
            let mut has_news = false;
            for channel in page.channels {
                has_news |= seen.insert(channel.id.clone());
                // Channels whose ids are known were chosen without this list.
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
            // A list that turns in a circle must not keep the operator's request waiting for ever.
            let next = page.next_cursor.as_deref();
            pages.follow(next, has_news).map_err(BackfillError::Endless)?;
            cursor = page.next_cursor;
        }
    }
}
