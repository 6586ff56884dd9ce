//! Reads windows of history for one app. Every page passes the same admission as a push and is
//! stored by one accept; the cursor moves with the last page.
//!
//! This file holds the reader, its errors and its patience with Slack. `page` reads a window page
//! by page, `recognise` finds channels under another id, `decide` settles doubtful incidents, and
//! `accept` stores what is left.

mod accept;
mod decide;
mod page;
mod recognise;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use metrics::Counter;

use super::{
    pace::{TRIES, backoff},
    parts::PollerParts,
};
use crate::{
    clock::Timestamp,
    ground::Ground,
    ids::{AppName, ChannelId},
    intake::{
        admission::{Admission, Post},
        channels::Channels,
        fate::FateCounters,
        notes::Notes,
        trace::ProblemCounters,
    },
    metrics::Metric,
    shutdown::Heartbeat,
    slack::web_api::{ApiError, Astray, WebApi},
    store::{Source, StoreError},
};

/// Longest time between two heartbeats of a loop that sleeps.
const BEAT: Duration = Duration::from_secs(10);

/// Slack's error for a channel id that does not exist, or does not exist any more.
pub(super) const UNKNOWN_CHANNEL: &str = "channel_not_found";

/// Reason why a window was not read to its end. The pages that were read are stored; the cursor has
/// not moved.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Slack did not return a page.
    #[error("history cannot be read")]
    Slack(#[source] ApiError),
    /// Slack's pages do not end.
    #[error("history cannot be read to its end")]
    Astray(#[from] Astray),
    /// A single message is larger than any that Slack sends.
    #[error("a message of the history is too large to be read")]
    TooLarge,
    /// The store did not take a page.
    #[error("what was read cannot be stored")]
    Store(#[source] StoreError),
}

/// Reads history for one app.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) app: AppName,
    pub(super) api: WebApi,
    pub(super) channels: Arc<Channels>,
    pub(super) ground: Ground,
    pub(super) ready_at: Timestamp,
    admission: Arc<ArcSwap<Admission>>,
    notes: Arc<Notes>,
    fates: FateCounters,
    problems: ProblemCounters,
    received: Vec<(Source, Counter)>,
    /// Time of Slack's last answer for each channel id, by the uptime clock.
    answered: Mutex<BTreeMap<ChannelId, Duration>>,
}

impl Reader {
    pub(super) fn new(
        app: AppName,
        api: WebApi,
        channels: Arc<Channels>,
        parts: PollerParts,
    ) -> Self {
        let PollerParts { ground, admission, notes, ready_at } = parts;
        let metrics = &ground.metrics;
        let received = [Source::CatchUp, Source::Backfill].map(|source| {
            let labels = [app.as_str(), source.as_str()];
            (source, metrics.counter(Metric::EventsReceived, &labels))
        });
        Self {
            fates: FateCounters::new(app.as_str(), metrics, &notes),
            problems: ProblemCounters::new(app.as_str(), metrics),
            received: received.into(),
            answered: Mutex::default(),
            app,
            api,
            channels,
            ground,
            ready_at,
            admission,
            notes,
        }
    }

    /// Makes a call until it succeeds, fails for a lasting reason, or has failed [`TRIES`] times.
    pub(super) async fn patiently<T, F: Future<Output = Result<T, ApiError>>>(
        &self,
        beat: Beat<'_>,
        call: impl Fn() -> F,
    ) -> Result<T, ApiError> {
        let mut failed = 0;
        loop {
            beat.beat(self);
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.wait_after(error, &mut failed, beat).await?,
            }
        }
    }

    /// Waits after a passing error.
    ///
    /// # Errors
    /// The error itself if it is a lasting one, or the call has failed [`TRIES`] times.
    async fn wait_after(
        &self,
        error: ApiError,
        failed: &mut u32,
        beat: Beat<'_>,
    ) -> Result<(), ApiError> {
        match error {
            // Not a failure: Slack, or the published limit, has said when to call again.
            ApiError::Throttled { wait } => self.wait(wait, beat).await,
            ApiError::Transient(failure) => {
                *failed += 1;
                if *failed >= TRIES {
                    return Err(ApiError::Transient(failure));
                }
                let delay = backoff(*failed).mul_f64(0.8 + 0.4 * self.ground.clock.jitter());
                self.wait(delay, beat).await;
            }
            ApiError::Token(_) | ApiError::Configuration { .. } | ApiError::Ours(_) => {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Sleeps, with heartbeats.
    async fn wait(&self, length: Duration, beat: Beat<'_>) {
        let clock = &self.ground.clock;
        let end = clock.uptime().saturating_add(length);
        loop {
            let left = end.saturating_sub(clock.uptime());
            if left.is_zero() {
                return;
            }
            beat.beat(self);
            clock.sleep(left.min(BEAT)).await;
        }
    }

    /// Returns the origin of messages from history, which have no envelope.
    fn post(&self, source: Source, received_at: Timestamp) -> Post<'_> {
        Post { app: &self.app, source, event_id: "", team: "", event_time: 0, received_at }
    }

    /// Returns when Slack last answered for a channel id.
    fn answered_at(&self, channel: &ChannelId) -> Option<Duration> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).get(channel).copied()
    }

    /// Records that Slack has just answered for a channel id.
    fn note_answer(&self, channel: &ChannelId) {
        let now = self.ground.clock.uptime();
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).insert(channel.clone(), now);
    }
}

/// Heartbeat of the loop that reads. A backfill has none, since it is a request and not a loop.
#[derive(Clone, Copy)]
pub(super) struct Beat<'a>(pub(super) Option<&'a Heartbeat>);

impl Beat<'_> {
    pub(super) fn beat(self, reader: &Reader) {
        if let Some(heartbeat) = self.0 {
            heartbeat.beat(reader.ground.clock.instant());
        }
    }
}
