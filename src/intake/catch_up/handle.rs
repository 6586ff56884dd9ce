//! What others ask of a poller: how it is doing, and to read history once more.

use std::{sync::Arc, time::Duration};

use super::{
    Found, ReadError, Status,
    reader::{Beat, Reader, Task},
    status::Board,
    window::Window,
};
use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, MessageTs},
    intake::channels::Channels,
    slack::web_api::ApiError,
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
    /// The relay is ending.
    #[error("the relay is ending; what was read is stored")]
    Stopped,
    /// It could not be read to its end.
    #[error(transparent)]
    Read(#[from] ReadError),
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

    /// Reads so much history now, of one channel (by id, or by name) or of all, beside the usual
    /// readings. Moves no cursor.
    ///
    /// # Errors
    /// [`BackfillError`]; what was read before is stored.
    pub async fn backfill(
        &self,
        since: Duration,
        channel: Option<String>,
    ) -> Result<Found, BackfillError> {
        let chosen = self.chosen(channel.as_deref())?;
        let (this, shutdown) = (self.clone(), self.reader.parts.shutdown.clone());
        // It goes on when whoever asked has gone away.
        let reading = shutdown.clone().spawn(async move {
            tokio::select! {
                result = this.read_back(since, chosen) => result,
                () = shutdown.stopped() => Err(BackfillError::Stopped),
            }
        });
        reading.await.unwrap_or(Err(BackfillError::Stopped))
    }

    async fn read_back(
        &self,
        since: Duration,
        channels: Vec<ChannelId>,
    ) -> Result<Found, BackfillError> {
        let (reader, beat) = (&self.reader, Beat(None));
        if reader.api.slack_now().is_none() {
            let call = || reader.api.auth_test();
            reader.patiently(beat, call).await.map_err(BackfillError::Silent)?;
        }
        let mut sum = Found::default();
        for channel in channels {
            let now = reader.api.slack_now().unwrap_or_else(|| reader.parts.clock.now());
            let ts = |at: Timestamp| MessageTs::from_micros(at.micros());
            let task = Task {
                channel,
                window: Window { oldest: ts(now - since), latest: ts(now) },
                source: Source::Backfill,
                cursor: None,
                counted_to: None,
            };
            let Found { found, new, known } = reader.read(&task, beat).await?;
            sum.found += found;
            sum.new += new;
            sum.known += known;
        }
        Ok(sum)
    }

    fn chosen(&self, channel: Option<&str>) -> Result<Vec<ChannelId>, BackfillError> {
        let status = self.board.status();
        let mut all = self.channels.known().ids.clone();
        let more = status.channels.iter().map(|channel| channel.id.clone());
        all.extend(more.filter(|id| !self.channels.known().ids.contains(id)));
        let Some(wanted) = channel.map(|channel| channel.trim_start_matches('#')) else {
            return Ok(all);
        };
        let by_name = status.channels.iter().find(|channel| channel.name == wanted);
        let id = by_name.map_or_else(|| ChannelId::new(wanted), |channel| channel.id.clone());
        let unknown = || BackfillError::UnknownChannel(wanted.to_owned());
        all.contains(&id).then(|| vec![id]).ok_or_else(unknown)
    }
}
