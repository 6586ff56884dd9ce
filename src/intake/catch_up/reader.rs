//! Reads one window of one channel to its end: every page through the same admission as a push,
//! each page one accept, the cursor with the last one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use metrics::Counter;

use super::{
    Parts,
    window::{Next, Page, Reading, Window},
};
use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, MessageTs},
    intake::{
        Admitted, Certainty, Post,
        channels::Channels,
        fate::{self, Fate, FateCounters, Trace},
    },
    logging::chain,
    metrics::Metric,
    shutdown::Heartbeat,
    slack::{
        message,
        web_api::{ApiError, HistoryPage, HistoryQuery, WebApi},
    },
    store::{Accepted, CursorMove, NewMessage, Source, StoreError},
};

/// A sleeping loop shows a sign of life at least this often.
const BEAT: Duration = Duration::from_secs(10);

/// How often one request is tried before the window is given up for this time.
const TRIES: u32 = 8;

const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Why a window was not read to its end. What was read of it is stored; the cursor has not moved.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Slack did not give it.
    #[error("history cannot be read")]
    Slack(#[source] ApiError),
    /// The store did not take it.
    #[error("what was read cannot be stored")]
    Store(#[source] StoreError),
}

/// What was in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Messages with incidents.
    pub found: u64,
    /// Those that were not known.
    pub new: u64,
    /// Those that were.
    pub known: u64,
}

/// What to read, and on whose account.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) channel: ChannelId,
    /// When the round began that this is part of: ids that Slack has answered for since are in use.
    pub(super) began: Timestamp,
    pub(super) window: Window,
    pub(super) source: Source,
    /// Moves with the last page.
    pub(super) cursor: Option<CursorMove>,
    /// Messages up to here have been counted before.
    pub(super) counted_to: Option<MessageTs>,
}

/// Reads for one app.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) app: AppName,
    pub(super) api: WebApi,
    pub(super) channels: Arc<Channels>,
    pub(super) parts: Parts,
    fates: FateCounters,
    received: Vec<(Source, Counter)>,
    /// When Slack last answered for a channel's id.
    heard: Mutex<BTreeMap<ChannelId, Timestamp>>,
}

/// What a window comes to. Counted when it was read to its end; what is new to the store is counted
/// at once.
#[derive(Default)]
struct Tally {
    found: Found,
    fates: BTreeMap<Fate, u64>,
    /// A message may come twice: where two pages meet, or since the window was begun anew.
    seen: BTreeSet<String>,
}

/// A message with incidents, and what counts about it.
pub(super) struct Candidate {
    pub(super) message: NewMessage,
    certainty: Certainty,
    is_first: bool,
    is_fresh: bool,
}

impl Reader {
    pub(super) fn new(app: AppName, api: WebApi, channels: Arc<Channels>, parts: Parts) -> Self {
        let metrics = &parts.metrics;
        let received = [Source::CatchUp, Source::Backfill].map(|source| {
            let labels = [app.as_str(), source.as_str()];
            (source, metrics.counter(Metric::EventsReceived, &labels))
        });
        let fates = FateCounters::new(&app, metrics);
        let heard = Mutex::default();
        Self { fates, received: received.into(), app, api, channels, parts, heard }
    }

    pub(super) fn heard(&self) -> MutexGuard<'_, BTreeMap<ChannelId, Timestamp>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the window to its end.
    pub(super) async fn read(&self, task: &Task, beat: Beat<'_>) -> Result<Found, ReadError> {
        let mut reading = Reading::new(task.window);
        let mut tally = Tally::default();
        loop {
            let page = match self.ask(&reading, &task.channel, beat).await {
                Ok(page) => page,
                Err(ApiError::Ours(code)) if code.as_str() == "invalid_cursor" => {
                    if !reading.restart() {
                        return Err(ReadError::Slack(ApiError::Ours(code)));
                    }
                    continue;
                }
                Err(error) => return Err(ReadError::Slack(error)),
            };
            let facts = facts(&page);
            if let Some(is_limited) = facts.is_limited() {
                self.api.limit_history(is_limited);
            }
            let next = reading.take(&facts);
            let mut candidates = self.admit(task, &page, &mut tally);
            if self.recognise(task, &candidates, beat).await? {
                for candidate in &mut candidates {
                    self.admit_again(task, candidate);
                }
            }
            self.note_heard(&task.channel);
            let cursor = match next {
                Next::Last => task.cursor.clone(),
                Next::More => None,
            };
            self.accept(task, candidates, cursor, &mut tally).await?;
            if next == Next::Last {
                return Ok(self.count(task, tally));
            }
        }
    }

    /// One page, however long Slack makes us wait for it.
    async fn ask(
        &self,
        reading: &Reading,
        channel: &ChannelId,
        beat: Beat<'_>,
    ) -> Result<HistoryPage, ApiError> {
        let (window, cursor) = reading.request();
        let query = HistoryQuery {
            channel: channel.clone(),
            oldest: window.oldest,
            latest: window.latest,
            cursor: cursor.map(str::to_owned),
        };
        let (api, query) = (&self.api, &query);
        self.patiently(beat, move || api.history(query)).await
    }

    /// Calls until there is an answer, a reason not to call again, or [`TRIES`] have failed.
    pub(super) async fn patiently<T, F: Future<Output = Result<T, ApiError>>>(
        &self,
        beat: Beat<'_>,
        call: impl Fn() -> F,
    ) -> Result<T, ApiError> {
        let mut failed = 0;
        loop {
            beat.beat(self);
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match error {
                ApiError::Throttled { until } => self.wait_until(until, beat).await,
                ApiError::Transient(failure) => {
                    failed += 1;
                    if failed == TRIES {
                        return Err(ApiError::Transient(failure));
                    }
                    let delay = backoff(failed).mul_f64(0.8 + 0.4 * self.parts.clock.jitter());
                    self.wait_until(self.parts.clock.now() + delay, beat).await;
                }
                ApiError::Token(_) | ApiError::Configuration { .. } | ApiError::Ours(_) => {
                    return Err(error);
                }
            }
        }
    }

    /// Waits, with signs of life.
    pub(super) async fn wait_until(&self, at: Timestamp, beat: Beat<'_>) {
        let clock = &self.parts.clock;
        while clock.now() < at {
            beat.beat(self);
            clock.sleep_until(at.min(clock.now() + BEAT)).await;
        }
    }

    fn admit(&self, task: &Task, page: &HistoryPage, tally: &mut Tally) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let post = self.post(task, self.parts.clock.now());
        for raw in &page.messages {
            let Ok(message) = message::parse(raw) else {
                continue;
            };
            let is_first = tally.seen.insert(message.ts.clone().into_owned());
            let is_fresh = is_first && task.is_fresh(message.ts.parse().ok());
            let raw = || Bytes::copy_from_slice(raw.as_bytes());
            match self.parts.admission.load().admit(&message, post, raw) {
                Admitted::Incident(message, certainty) => {
                    candidates.push(Candidate { message, certainty, is_first, is_fresh });
                }
                Admitted::Ignored(reason) if is_fresh => {
                    fate::log_near_miss(&self.app, &message, reason);
                    *tally.fates.entry(Fate::Ignored(reason)).or_default() += 1;
                }
                Admitted::Ignored(_counted_before) => {}
            }
        }
        candidates
    }

    /// Judges a message anew, since the channel turned out to have had another id.
    fn admit_again(&self, task: &Task, candidate: &mut Candidate) {
        let raw = candidate.message.raw.clone();
        let text = String::from_utf8_lossy(&raw);
        let Ok(message) = message::parse(&text) else {
            return;
        };
        let post = self.post(task, candidate.message.received_at);
        let admitted = self.parts.admission.load().admit(&message, post, || raw.clone());
        if let Admitted::Incident(message, certainty) = admitted {
            candidate.message = message;
            candidate.certainty = certainty;
        }
    }

    fn post(&self, task: &Task, received_at: Timestamp) -> Post<'_> {
        let (event_id, team, event_time) = ("", "", 0);
        Post { app: &self.app, source: task.source, event_id, team, event_time, received_at }
    }

    async fn accept(
        &self,
        task: &Task,
        candidates: Vec<Candidate>,
        cursor: Option<CursorMove>,
        tally: &mut Tally,
    ) -> Result<(), ReadError> {
        if candidates.is_empty() && cursor.is_none() {
            return Ok(());
        }
        let batch = candidates.iter().map(|one| one.message.clone()).collect();
        let stored = self.parts.store.accept(batch, None, cursor).await;
        for (result, candidate) in stored.map_err(ReadError::Store)?.into_iter().zip(candidates) {
            self.note(task, result, &candidate, tally);
        }
        Ok(())
    }

    fn note(
        &self,
        task: &Task,
        result: Result<Accepted, StoreError>,
        candidate: &Candidate,
        tally: &mut Tally,
    ) {
        let Candidate { message, certainty, is_first, is_fresh } = candidate;
        tally.found.found += u64::from(*is_first);
        let accepted = match result {
            Ok(accepted) => accepted,
            Err(error) => {
                let key = message.key.to_string();
                tracing::error!(
                    message_key = key,
                    error = chain(&error),
                    "message {key} cannot be stored; catch-up goes on without it"
                );
                return self.count_at_once(task, Fate::Store);
            }
        };
        let is_routed = message.alerts.iter().any(|alert| !alert.destinations.is_empty());
        let fate = Fate::of(accepted, is_routed, *certainty);
        match accepted {
            Accepted::New { .. } => tally.found.new += 1,
            Accepted::Revision => tally.found.known += u64::from(*is_first),
            Accepted::Duplicate => {
                tally.found.known += u64::from(*is_first);
                *tally.fates.entry(fate).or_default() += u64::from(*is_fresh);
                return;
            }
        }
        self.count_at_once(task, fate);
        Trace::of(message).log_accepted(None, Duration::ZERO, fate);
    }

    fn count_at_once(&self, task: &Task, fate: Fate) {
        self.fates.count(fate);
        self.count_received(task.source, 1);
    }

    fn count(&self, task: &Task, tally: Tally) -> Found {
        for (fate, times) in tally.fates {
            self.fates.count_many(fate, times);
            self.count_received(task.source, times);
        }
        tally.found
    }

    fn count_received(&self, source: Source, times: u64) {
        if let Some((_, counter)) = self.received.iter().find(|(known, _)| *known == source) {
            counter.increment(times);
        }
    }
}

impl Task {
    /// Whether the message has not been counted by an earlier reading.
    fn is_fresh(&self, ts: Option<MessageTs>) -> bool {
        ts.is_none_or(|ts| self.counted_to.is_none_or(|counted| ts > counted))
    }
}

/// Shows that a loop still turns, if a loop it is: a backfill is an operator's request.
#[derive(Clone, Copy)]
pub(super) struct Beat<'a>(pub(super) Option<&'a Heartbeat>);

impl Beat<'_> {
    pub(super) fn beat(self, reader: &Reader) {
        if let Some(heartbeat) = self.0 {
            heartbeat.beat(reader.parts.clock.instant());
        }
    }
}

/// 1, 2, 4 .. 60 s.
pub(super) fn backoff(failed: u32) -> Duration {
    BACKOFF.saturating_mul(1 << failed.saturating_sub(1).min(6)).min(BACKOFF_MAX)
}

fn facts(page: &HistoryPage) -> Page {
    let times = || {
        let messages = page.messages.iter().filter_map(|raw| message::parse(raw).ok());
        messages.filter_map(|message| message.ts.parse::<MessageTs>().ok())
    };
    Page {
        count: page.messages.len(),
        ends: times().min().zip(times().max()),
        next_cursor: page.next_cursor.clone(),
        has_more: page.has_more,
    }
}
