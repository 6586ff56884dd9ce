//! Reads one window of one channel to its end: every page through the same admission as a push,
//! each page one accept, the cursor with the last one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use metrics::Counter;

use super::{
    PollerParts,
    task::{Purpose, Task},
    weigh::{Candidate, Question},
    window::{Next, Page, Reading, Sight},
};
use crate::{
    clock::Timestamp,
    code_defender::verdict::Reason,
    ground::Ground,
    ids::{AppName, ChannelId, MessageTs},
    intake::{
        Admission, Admitted, IncidentMessage, Post,
        channels::Channels,
        fate::{Acceptance, Fate, FateCounters, ProblemCounters},
        notes::{Notes, log_ignored},
        posters::Note,
        trace::Trace,
    },
    logging::chain,
    metrics::Metric,
    shutdown::Heartbeat,
    slack::{
        message,
        web_api::{ApiError, Astray, Failure, HistoryPage, HistoryQuery, WebApi},
    },
    store::{Accepted, CursorMove, NewMessage, Source, StoreError},
};

/// A sleeping loop shows a sign of life at least this often.
const BEAT: Duration = Duration::from_secs(10);

/// How often one request is tried before the window is given up for this time.
pub(super) const TRIES: u32 = 8;

const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Why a window was not read to its end. What was read of it is stored; the cursor has not moved.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Slack did not give it.
    #[error("history cannot be read")]
    Slack(#[source] ApiError),
    /// Slack's pages have no end.
    #[error("history cannot be read to its end")]
    Astray(#[from] Astray),
    /// One message alone is larger than any that Slack sends.
    #[error("a message of its history is too large to be read")]
    TooLarge,
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
    /// Those that were not known and were marked as known, to be delivered to nobody.
    pub marked: u64,
}

impl Found {
    /// Adds what was found elsewhere.
    pub fn add(&mut self, other: Self) {
        let Self { found, new, known, marked } = other;
        self.found += found;
        self.new += new;
        self.known += known;
        self.marked += marked;
    }
}

/// Reads for one app.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) app: AppName,
    pub(super) api: WebApi,
    pub(super) channels: Arc<Channels>,
    pub(super) ground: Ground,
    pub(super) admission: Arc<ArcSwap<Admission>>,
    pub(super) notes: Arc<Notes>,
    pub(super) ready_at: Timestamp,
    fates: FateCounters,
    problems: ProblemCounters,
    received: Vec<(Source, Counter)>,
    /// When Slack last answered for a channel's id.
    pub(super) heard: Mutex<BTreeMap<ChannelId, Duration>>,
}

/// What a window comes to. Counted when it was read to its end; what is new to the store is counted
/// at once.
#[derive(Debug, Default)]
struct Tally {
    found: Found,
    fates: BTreeMap<Fate, u64>,
    /// The newest message that is not from the future.
    newest: Option<MessageTs>,
}

/// A window that is being read, page by page.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) task: Task,
    reading: Reading,
    tally: Tally,
    /// Incidents in a new layout, until it is known which bot reports incidents.
    pub(super) layouts: Vec<Candidate>,
}

impl Open {
    pub(super) fn new(task: Task) -> Self {
        let reading = Reading::new(task.window);
        Self { reading, task, tally: Tally::default(), layouts: Vec::new() }
    }

    pub(super) fn count_near_misses(&mut self, times: u64) {
        *self.tally.fates.entry(Fate::Ignored(Reason::NearMiss)).or_default() += times;
    }
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
        let fates = FateCounters::new(app.as_str(), metrics, &notes);
        let problems = ProblemCounters::new(app.as_str(), metrics);
        let heard = Mutex::default();
        Self {
            app,
            api,
            channels,
            ground,
            admission,
            notes,
            ready_at,
            fates,
            problems,
            received: received.into(),
            heard,
        }
    }

    /// Reads the window to its end, with patience for what fails for the moment.
    pub(super) async fn read(&self, task: Task, beat: Beat<'_>) -> Result<Found, ReadError> {
        let (mut open, mut failed) = (Open::new(task), 0);
        loop {
            beat.beat(self);
            match self.step(&mut open, beat).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => failed = 0,
                Err(ReadError::Slack(error)) => {
                    self.wait_after(error, &mut failed, beat).await.map_err(ReadError::Slack)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the next page, and stores what it brings. Returns what was found if it was the last.
    ///
    /// # Errors
    /// [`ReadError`]; the same page may be asked for again.
    pub(super) async fn step(
        &self,
        open: &mut Open,
        beat: Beat<'_>,
    ) -> Result<Option<Found>, ReadError> {
        let page = match self.api.history(&query(open)).await {
            Ok(page) => page,
            Err(ApiError::Transient(Failure::TooLarge)) => {
                return if open.reading.shrink() { Ok(None) } else { Err(ReadError::TooLarge) };
            }
            Err(ApiError::Ours(code)) if code.as_str() == "invalid_cursor" => {
                let goes_on = open.reading.restart();
                return if goes_on {
                    Ok(None)
                } else {
                    Err(ReadError::Slack(ApiError::Ours(code)))
                };
            }
            Err(error) => return Err(ReadError::Slack(error)),
        };
        // Before anything is taken note of: if this fails, the same page is asked for again.
        if self.recognise(&open.task, &page, beat).await? {
            // What its older ids left unread lies before this window.
            open.task.cursor = None;
        }
        self.note_answer(&open.task.channel);
        let limit = open.reading.limit();
        let (facts, candidates) = self.admit(open, &page);
        let (layouts, candidates): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(Candidate::is_in_new_layout);
        open.layouts.extend(layouts);
        let mut near_misses = 0;
        let candidates = self.weigh(&open.task, candidates, &mut near_misses).await?;
        open.count_near_misses(near_misses);
        if let Some(is_limited) = facts.is_limited(limit) {
            self.api.limit_history(is_limited);
        }
        // What the page brought is stored even if the pages lead nowhere.
        let next = open.reading.take(&facts);
        let cursor = match next {
            Ok(Next::Last) => open.task.cursor.clone(),
            Ok(Next::More) | Err(_) => None,
        };
        let cursor = cursor.map(|cursor| CursorMove { seen: open.tally.newest, ..cursor });
        self.take_in(open, candidates, cursor, !matches!(next, Ok(Next::More))).await?;
        // The page is held until here: it counts as memory in use.
        drop(page);
        match next? {
            Next::Last => Ok(Some(self.count(open))),
            Next::More => Ok(None),
        }
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
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.wait_after(error, &mut failed, beat).await?,
            }
        }
    }

    /// Waits after an error, if it may be gone then.
    async fn wait_after(
        &self,
        error: ApiError,
        failed: &mut u32,
        beat: Beat<'_>,
    ) -> Result<(), ApiError> {
        match error {
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

    /// Waits, with signs of life.
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

    /// What the page says about the window, and its messages with incidents.
    fn admit(&self, open: &mut Open, page: &HistoryPage) -> (Page, Vec<Candidate>) {
        let Open { task, reading, tally, .. } = open;
        let mut candidates = Vec::new();
        let mut facts = Page {
            count: page.messages.len(),
            next_cursor: page.next_cursor.clone(),
            has_more: page.has_more,
            bytes: page.bytes,
            ..Page::default()
        };
        let post = self.post(task.source, self.ground.clock.now());
        for text in &page.messages {
            let Ok(message) = message::parse(text) else {
                continue;
            };
            let ts: Option<MessageTs> = message.ts.parse().ok();
            let sight = ts.map_or(Sight::First, |ts| reading.see(ts));
            if let Some(ts) = ts {
                facts.has_news |= sight != Sight::Known;
                let (first, last) = facts.ends.unwrap_or((ts, ts));
                facts.ends = Some((first.min(ts), last.max(ts)));
                tally.newest = tally.newest.max(Some(ts).filter(|ts| *ts <= task.now));
            }
            let is_first = sight == Sight::First;
            let is_fresh = is_first && task.is_fresh(ts);
            let raw = || Bytes::copy_from_slice(text.as_bytes());
            let (incoming, question) = match self.admission.load().admit(&message, text, post, raw)
            {
                Admitted::Incident(incident) => (incident, Question::Nothing),
                Admitted::NewLayout(incident, vouched) => (incident, Question::Layout(vouched)),
                Admitted::NearMiss(incident, doubt) => (incident, Question::NearMiss(doubt)),
                Admitted::Refused(reason) if is_fresh => {
                    let clock = &self.ground.clock;
                    let now = (clock.now(), clock.instant());
                    self.notes.refused(&self.app, reason, &message, now);
                    *tally.fates.entry(Fate::Ignored(reason)).or_default() += 1;
                    continue;
                }
                Admitted::Ignored(reason) if is_fresh => {
                    log_ignored(&self.app, reason, &message);
                    *tally.fates.entry(Fate::Ignored(reason)).or_default() += 1;
                    continue;
                }
                // Counted before.
                Admitted::Refused(_) | Admitted::Ignored(_) => continue,
            };
            if task.may_take(ts) {
                candidates.push(Candidate { incoming, is_first, is_fresh, question });
            }
        }
        (facts, candidates)
    }

    pub(super) fn post(&self, source: Source, received_at: Timestamp) -> Post<'_> {
        let (event_id, team, event_time) = ("", "", 0);
        Post { app: &self.app, source, event_id, team, event_time, received_at }
    }

    pub(super) async fn accept(
        &self,
        open: &mut Open,
        candidates: Vec<Candidate>,
        cursor: Option<CursorMove>,
    ) -> Result<(), ReadError> {
        if candidates.is_empty() && cursor.is_none() {
            return Ok(());
        }
        let messages = candidates.iter().map(|one| one.incoming.message.clone());
        let batch = match open.task.purpose {
            Purpose::Deliver => messages.collect(),
            Purpose::MarkKnown => messages.map(NewMessage::into_identity).collect(),
        };
        let stored = self.ground.store.accept(batch, None, cursor).await;
        for (result, candidate) in stored.map_err(ReadError::Store)?.into_iter().zip(candidates) {
            self.note(&open.task, result, &candidate, &mut open.tally);
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
        let Candidate { incoming, is_first, is_fresh, .. } = candidate;
        let IncidentMessage { message, certainty, .. } = incoming;
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
        if task.purpose == Purpose::MarkKnown {
            match accepted {
                Accepted::New { .. } => tally.found.marked += 1,
                Accepted::Revision | Accepted::Duplicate => {
                    tally.found.known += u64::from(*is_first);
                }
            }
            return;
        }
        self.notes.posters.note(Note::of(message, incoming.bot.clone()), accepted);
        let is_routed = message.alerts.iter().any(|alert| !alert.destinations.is_empty());
        let acceptance = Acceptance::of(accepted, is_routed, *certainty);
        let fate = Fate::Stored(acceptance);
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
        let trace = Trace::of(message);
        self.problems.count(&trace, accepted);
        trace.log_stored(None, Duration::ZERO, acceptance);
    }

    fn count_at_once(&self, task: &Task, fate: Fate) {
        self.fates.count(fate);
        self.count_received(task.source, 1);
    }

    fn count(&self, open: &mut Open) -> Found {
        for (fate, times) in std::mem::take(&mut open.tally.fates) {
            self.fates.count_many(fate, times);
            self.count_received(open.task.source, times);
        }
        open.tally.found
    }

    fn count_received(&self, source: Source, times: u64) {
        if let Some((_, counter)) = self.received.iter().find(|(known, _)| *known == source) {
            counter.increment(times);
        }
    }
}

/// Shows that a loop still turns, if a loop it is: a backfill is an operator's request.
#[derive(Clone, Copy)]
pub(super) struct Beat<'a>(pub(super) Option<&'a Heartbeat>);

impl Beat<'_> {
    pub(super) fn beat(self, reader: &Reader) {
        if let Some(heartbeat) = self.0 {
            heartbeat.beat(reader.ground.clock.instant());
        }
    }
}

/// 1, 2, 4 .. 60 s.
pub(super) fn backoff(failed: u32) -> Duration {
    BACKOFF.saturating_mul(1 << failed.saturating_sub(1).min(6)).min(BACKOFF_MAX)
}

fn query(open: &Open) -> HistoryQuery {
    let (window, cursor) = open.reading.request();
    HistoryQuery {
        channel: open.task.channel.clone(),
        oldest: window.oldest,
        latest: window.latest,
        cursor: cursor.map(str::to_owned),
        limit: open.reading.limit(),
    }
}
