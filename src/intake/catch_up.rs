//! Catch-up: reads the history of each channel for what Slack did not push.
//!
//! One [`Poller`] an app. It asks who we are, finds the channels behind configured names once, and
//! reads each channel from a little before where it was last read up to now, by Slack's clock:
//! `window` says which part, `reader` reads it through the same admission as a push. Channels take
//! turns, a page each (`turns`). What Slack will not give is tried again later and told to
//! operators; the receiver never depends on it. Every wait is measured by time that has passed,
//! never by the time of day, which may leap.

mod access;
mod channels;
mod handle;
mod missed;
mod reader;
mod status;
mod time;
mod turns;
mod window;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use self::{
    access::Access,
    channels::Listing,
    reader::{Open, Reader, TRIES, Task, backoff},
    status::{Board, Topic},
    turns::Turns,
    window::{Place, Plan, ts},
};
pub use self::{
    handle::{BackfillError, Handle},
    reader::{Found, ReadError},
    status::{ChannelStatus, Status},
};
use crate::{
    clock::{Clock, Timestamp},
    ids::{AppName, ChannelId, MessageTs},
    intake::{Admission, channels::Channels, notice::Notice},
    logging::chain,
    metrics::Metrics,
    shutdown::{Heartbeat, Shutdown},
    slack::web_api::{ApiError, WebApi},
    store::{CursorMove, Source, Store, StoreError},
};

/// Extra readings are at least so far apart, however many reasons there are.
const EXTRA_GAP: Duration = Duration::from_secs(10);

/// Another process polls: so soon it is asked again whether it still does. It is believed for 10 s
/// after its last sign of life, so another one takes over within 15 s of its death.
const STAND_BY: Duration = Duration::from_secs(3);

/// Slack was not heard for so long, through retries of two minutes: perhaps another relay hears it.
const DEAF: Duration = Duration::from_secs(300);

/// So long this one does not ask to poll after that; relays that stand by ask sooner.
const STEP_ASIDE: Duration = Duration::from_secs(10);

/// What a person must change is not changed within minutes.
const SLOW_RETRY: Duration = Duration::from_secs(600);

/// A minute that Slack left out is not looked for further back than this.
const RATE_LIMITED_BACK: Duration = Duration::from_secs(24 * 3600);

/// A resting poller shows a sign of life, and looks at the clocks, at least this often.
const REST: Duration = Duration::from_secs(10);

/// How often and how far history is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Between the starts of two readings.
    pub every: Duration,
    /// How far each goes back before the one before it.
    pub overlap: Duration,
    /// Messages newer than this may still appear.
    pub settle: Duration,
    /// How far the first one of a channel goes back.
    pub first_lookback: Duration,
}

/// What every poller works with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Parts {
    /// What is an incident, and where it goes; replaced when the configuration is.
    pub admission: Arc<ArcSwap<Admission>>,
    /// Where it is kept, with the cursors.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Clock,
    /// Numbers.
    pub metrics: Metrics,
    /// When to end, and the heartbeat.
    pub shutdown: Shutdown,
    /// When this process was first ready: what was posted before it is missed for its downtime.
    pub ready_at: Timestamp,
}

/// An app whose history is read.
#[derive(Debug)]
pub struct App {
    /// Its configured name.
    pub name: AppName,
    /// Its channels, shared with the receiver.
    pub channels: Arc<Channels>,
    /// What the receiver tells.
    pub notices: mpsc::Receiver<Notice>,
    /// Slack, with the app's token.
    pub api: WebApi,
}

/// How long the status shows that a cursor was found in the future.
const PUT_BACK_SHOWN: Duration = Duration::from_secs(3600);

/// The loop that reads one app's channels. Moments are those of [`Clock::uptime`].
#[derive(Debug)]
pub struct Poller {
    reader: Arc<Reader>,
    channels: Arc<Channels>,
    notices: mpsc::Receiver<Notice>,
    settings: Settings,
    board: Board,
    heartbeat: Heartbeat,
    access: Access,
    /// When Slack is asked who we are, unless it has said so.
    ask_access_at: Duration,
    access_asked_at: Duration,
    access_failures: u32,
    /// The channels that the bot is in, if every channel is ours.
    member_of: Option<Vec<ChannelId>>,
    listing: Listing,
    /// Channels of which Slack is asked whether they are what an event said.
    doubted: BTreeSet<ChannelId>,
    ask_doubted_at: Duration,
    turns: Turns,
    reads: HashMap<ChannelId, Read>,
    /// Slack allows no call for history before that.
    history_at: Duration,
    /// The first minute that Slack left out, until it has been read everywhere.
    also_from: Option<MessageTs>,
    /// The channels in which it has been read.
    also_read: BTreeSet<ChannelId>,
    /// What was found out of channels and the store did not take.
    unkept: Vec<(String, ChannelId)>,
    /// Whether another process polls for the app.
    stands_by: bool,
    /// When the store was last asked what to do.
    asked_at: Duration,
    store_failures: u32,
    /// Since when nothing that was asked of Slack was answered.
    silent_since: Option<Duration>,
    /// When a window was last begun.
    begun_at: Duration,
}

/// What the poller remembers of a channel from one page to the next.
#[derive(Debug, Default)]
struct Read {
    begun: Option<Begun>,
    /// Up to where messages have been counted.
    counted: Option<MessageTs>,
    /// Since when the channel waits for its first cursor.
    waits_since: Option<Duration>,
    /// What is shown until then, though the channel is read.
    shown: Option<(String, Duration)>,
}

/// A window that is being read.
#[derive(Debug)]
struct Begun {
    open: Open,
    at: Duration,
    /// What it covers of what Slack left out.
    also_from: Option<MessageTs>,
    /// Up to where its messages are counted once it is read.
    counts_to: MessageTs,
}

/// Applies what the store knows of the app's channels: before anything is received, and in each
/// round, since another relay may have found it out. Returns what is new of it.
///
/// # Errors
/// The store failed.
pub async fn recall(
    store: &dyn Store,
    app: &AppName,
    channels: &Channels,
) -> Result<Vec<(String, ChannelId)>, StoreError> {
    let mut learnt = store.channel_ids(app).await?;
    learnt.retain(|(written, id)| channels.learn(written, id));
    Ok(learnt)
}

impl Poller {
    /// A poller that has not begun, and the handle to it.
    pub fn new(app: App, settings: Settings, parts: Parts) -> (Self, Handle) {
        let name = format!("catch-up of {}", app.name);
        let heartbeat = parts.shutdown.heartbeat(&name, parts.clock.instant());
        let board = Board::new(app.name.clone());
        let now = parts.clock.uptime();
        let reader = Arc::new(Reader::new(app.name, app.api, parts));
        let handle = Handle {
            reader: Arc::clone(&reader),
            channels: Arc::clone(&app.channels),
            board: board.clone(),
        };
        let poller = Self {
            reader,
            channels: app.channels,
            notices: app.notices,
            settings,
            board,
            heartbeat,
            access: Access::Unknown,
            ask_access_at: now,
            access_asked_at: now,
            access_failures: 0,
            member_of: None,
            listing: Listing::new(now),
            doubted: BTreeSet::new(),
            ask_doubted_at: now,
            turns: Turns::default(),
            reads: HashMap::new(),
            history_at: now,
            also_from: None,
            also_read: BTreeSet::new(),
            unkept: Vec::new(),
            stands_by: false,
            asked_at: now,
            store_failures: 0,
            silent_since: None,
            begun_at: now,
        };
        (poller, handle)
    }

    /// Reads until the process stops.
    pub async fn run(mut self) {
        let shutdown = self.reader.parts.shutdown.clone();
        tokio::select! {
            () = self.work() => {}
            () = shutdown.stopped() => {}
        }
        shutdown.forget_heartbeat(&format!("catch-up of {}", self.reader.app), &self.heartbeat);
    }

    async fn work(&mut self) {
        loop {
            self.heartbeat.beat(self.reader.parts.clock.instant());
            self.round().await;
            self.watch_clocks();
            if self.wake() > self.uptime() {
                self.count_missed().await;
                let aside = if self.steps_aside().await { STEP_ASIDE } else { Duration::ZERO };
                self.rest(aside).await;
            }
            while let Ok(notice) = self.notices.try_recv() {
                self.apply_notice(notice).await;
            }
        }
    }

    /// Lets another relay poll, if this one has long heard nothing of Slack. If all are deaf, the
    /// right to poll goes round, to each for some minutes.
    async fn steps_aside(&mut self) -> bool {
        let now = self.uptime();
        let is_deaf = self.silent_since.is_some_and(|since| now.saturating_sub(since) >= DEAF);
        if self.stands_by || !is_deaf {
            return false;
        }
        self.silent_since = None;
        let app = self.reader.app.clone();
        let is_free = matches!(self.reader.parts.store.stop_polling(&app).await, Ok(true));
        if is_free {
            tracing::warn!(%app, "catch-up of app {app} is left to another relay: Slack is silent");
        }
        is_free
    }

    /// Waits until there is something to do, or a notice.
    async fn rest(&mut self, aside: Duration) {
        let clock = self.reader.parts.clock.clone();
        let aside_until = self.uptime() + aside;
        loop {
            self.heartbeat.beat(clock.instant());
            self.watch_clocks();
            let left = self.wake().max(aside_until).saturating_sub(self.uptime());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                Some(notice) = self.notices.recv() => self.apply_notice(notice).await,
                () = clock.sleep(left.min(REST)) => {}
            }
        }
    }

    /// When there is something to do.
    fn wake(&self) -> Duration {
        let every = self.settings.every;
        if self.store_failures > 0 {
            return self.asked_at + every.min(backoff(self.store_failures));
        }
        let asks_again = self.asked_at + every;
        if self.stands_by && self.also_from.is_none() {
            return self.asked_at + every.min(STAND_BY);
        }
        if let Some(at) = self.access.lost_until(self.reader.api.token_version()) {
            return at.max(self.ask_access_at);
        }
        let access = (!self.access.is_good()).then_some(self.ask_access_at);
        let listing = self.listing_at();
        let doubted = (!self.doubted.is_empty()).then_some(self.ask_doubted_at);
        let turn = self.turns.wake().map(|at| at.max(self.history_at));
        [access, listing, doubted, turn].into_iter().flatten().fold(asks_again, Duration::min)
    }

    /// Asks the store what to do, and reads a page of every channel that is due.
    async fn round(&mut self) {
        let term = self.ask_store().await;
        self.asked_at = self.uptime();
        self.stands_by = matches!(term, Ok(None));
        let term = match term {
            // Slack has told this process, and not the one that polls, what it left out: this one
            // reads it too, and leaves the cursors alone.
            Ok(term) if term.is_some() || self.also_from.is_some() => term,
            Ok(_) => return self.reads.values_mut().for_each(|read| read.begun = None),
            Err(error) => {
                self.store_failures = self.store_failures.saturating_add(1);
                let problem = format!("the store does not say what to read: {}", chain(&error));
                if self.board.say(Topic::Store, &problem) {
                    tracing::error!(error = chain(&error), "the store does not say what to read");
                }
                return;
            }
        };
        self.store_failures = 0;
        self.board.say(Topic::Store, "");
        if !self.has_access().await {
            return;
        }
        self.find_channels().await;
        self.ask_doubted().await;
        self.turns.keep(&self.ours(), self.uptime());
        for _ in 0..self.turns.due(self.uptime()) {
            if self.access.is_lost() || self.history_at > self.uptime() {
                return;
            }
            if let Some(channel) = self.turns.next(self.uptime()) {
                self.heartbeat.beat(self.reader.parts.clock.instant());
                self.turn(&channel, term).await;
            }
        }
    }

    /// The term under which this process polls, if it does. Whether it does or not, what other
    /// relays have found out of the channels counts here too: both receive.
    async fn ask_store(&mut self) -> Result<Option<u64>, StoreError> {
        let store = Arc::clone(&self.reader.parts.store);
        let term = store.poller_term(&self.reader.app).await?;
        self.keep_unkept().await?;
        self.recall().await?;
        Ok(term)
    }

    fn ours(&self) -> Vec<ChannelId> {
        let known = self.channels.known();
        let all = self.member_of.iter().flatten().chain(&known.ids);
        let ours: BTreeSet<ChannelId> = all.cloned().collect();
        ours.into_iter().collect()
    }

    /// Reads the next page of a channel.
    async fn turn(&mut self, channel: &ChannelId, term: Option<u64>) {
        let reader = Arc::clone(&self.reader);
        let mut read = self.reads.remove(channel).unwrap_or_default();
        let result = match self.begin(channel, term, &mut read).await {
            Ok(begun) => reader.step(&mut begun.open).await,
            Err(error) => Err(ReadError::Store(error)),
        };
        match result {
            Ok(None) => {
                self.note_heard(true);
                self.turns.went_well(channel, self.uptime());
            }
            Ok(Some(found)) => {
                self.note_heard(true);
                self.finish(channel, found, &mut read);
            }
            Err(error) => self.note_failure(channel, &error, &mut read),
        }
        self.reads.insert(channel.clone(), read);
    }

    /// The window that is being read of the channel, begun now if there is none.
    async fn begin<'r>(
        &mut self,
        channel: &ChannelId,
        term: Option<u64>,
        read: &'r mut Read,
    ) -> Result<&'r mut Begun, StoreError> {
        if let Some(begun) = read.begun.take() {
            return Ok(read.begun.insert(begun));
        }
        let reader = Arc::clone(&self.reader);
        let (now, moment) = (self.uptime(), reader.api.moment());
        let place = self.place(channel, moment).await?;
        let waited = now.saturating_sub(*read.waits_since.get_or_insert(now));
        let plan = Plan::new(place, self.also_from, moment, waited, self.settings);
        let cursor = |to| {
            term.map(|term| CursorMove {
                app: reader.app.clone(),
                channel: channel.clone(),
                to,
                seen: None,
                term,
            })
        };
        if let Some(back) = plan.put_back
            && let Some(cursor) = cursor(back)
        {
            reader.parts.store.put_cursor_back(&cursor).await?;
            self.tell_of_put_back(channel, place, back, read);
        }
        // A count that a wrong clock has moved into the future tells nothing.
        let counted = read.counted.filter(|counted| *counted <= ts(moment.latest));
        let task = Task {
            channel: channel.clone(),
            window: plan.window,
            source: Source::CatchUp,
            cursor: plan.commit.and_then(cursor),
            now: ts(moment.earliest),
            counted_to: counted.or(place.committed.filter(|to| *to <= ts(moment.latest))),
        };
        self.begun_at = now;
        let counts_to = ts(moment.believed.unwrap_or(moment.earliest));
        let also_from = self.also_from;
        Ok(read.begun.insert(Begun { open: Open::new(task), at: now, also_from, counts_to }))
    }

    fn tell_of_put_back(
        &self,
        channel: &ChannelId,
        place: Place,
        back: MessageTs,
        read: &mut Read,
    ) {
        let shown = |ts: MessageTs| Timestamp::from_micros(ts.micros());
        let was = place.committed.map(shown).unwrap_or_default();
        let problem = format!(
            "a wrong clock had left the cursor in the future, at {was}: it was put back, and \
             history is read again from {}",
            shown(back)
        );
        tracing::error!(
            app = %self.reader.app,
            %channel,
            %was,
            "catch-up of {channel} was blind: {problem}. What is older is read by `backfill`"
        );
        read.shown = Some((problem, self.uptime() + PUT_BACK_SHOWN));
    }

    /// A channel was read to its end.
    fn finish(&mut self, channel: &ChannelId, found: Found, read: &mut Read) {
        let Some(Begun { open, at, also_from, counts_to }) = read.begun.take() else {
            return;
        };
        read.counted = read.counted.max(Some(counts_to));
        if found.new > 0 {
            tracing::info!(
                app = %self.reader.app,
                %channel,
                new = found.new,
                "catch-up found {} incidents in {channel} that were not known",
                found.new
            );
        }
        let now = self.uptime();
        self.turns.went_well(channel, (at + self.settings.every).max(now));
        self.note_also_read(channel, also_from);
        if open.task.cursor.is_some() {
            read.waits_since = None;
        }
        read.shown = read.shown.take().filter(|(_, until)| *until > now);
        let problem = read.shown.as_ref().map_or("", |(problem, _)| problem);
        let read_at = self.time_to_show();
        self.board.channel(channel, |status| {
            if let Some(cursor) = &open.task.cursor {
                status.committed = Some(cursor.to);
            }
            status.last_success = Some(read_at);
            problem.clone_into(&mut status.problem);
        });
        self.show_last_success(channel, read_at);
    }

    /// What Slack left out has been read in the channel, or cannot be; in the last one, it is done.
    fn note_also_read(&mut self, channel: &ChannelId, also_from: Option<MessageTs>) {
        if self.also_from.is_none() || self.also_from != also_from {
            return;
        }
        self.also_read.insert(channel.clone());
        if self.ours().iter().all(|channel| self.also_read.contains(channel)) {
            self.also_from = None;
        }
    }

    /// Puts the channel aside, and tells operators once of each new problem.
    fn note_failure(&mut self, channel: &ChannelId, error: &ReadError, read: &mut Read) {
        let now = self.uptime();
        let jitter = self.reader.parts.clock.jitter();
        match error {
            ReadError::Slack(ApiError::Throttled { wait }) => {
                self.history_at = now.saturating_add(*wait);
                return;
            }
            ReadError::Slack(error @ ApiError::Token(_)) => return self.lose_access(error),
            ReadError::Slack(ApiError::Configuration { .. }) => {
                self.note_heard(true);
                read.begun = None;
                self.turns.put_aside(channel, now + SLOW_RETRY);
                self.note_also_read(channel, self.also_from);
            }
            ReadError::Slack(ApiError::Transient(_)) | ReadError::Store(_) => {
                self.note_heard(!matches!(error, ReadError::Slack(_)));
                // The window goes on where it was, unless that never works.
                if self.turns.failed(channel, now, jitter).is_multiple_of(TRIES) {
                    read.begun = None;
                }
            }
            ReadError::Slack(ApiError::Ours(_)) | ReadError::Astray(_) | ReadError::TooLarge => {
                self.note_heard(true);
                read.begun = None;
                self.turns.went_astray(channel, now);
            }
        }
        self.show_failure(channel, error);
    }

    fn show_failure(&self, channel: &ChannelId, error: &ReadError) {
        let cure = match error {
            ReadError::Slack(error) => error.cure(),
            ReadError::Astray(_) | ReadError::TooLarge | ReadError::Store(_) => "",
        };
        let problem = with_cure(&chain(error), cure);
        let mut is_new = false;
        self.board.channel(channel, |status| {
            is_new = status.problem != problem;
            status.problem.clone_from(&problem);
        });
        if is_new {
            tracing::error!(
                app = %self.reader.app,
                %channel,
                error = problem,
                "catch-up cannot read {channel} of app {}; others are read on, and `doctor` says \
                 what to do",
                self.reader.app
            );
        }
    }

    /// Something that was asked of Slack was answered, or not.
    fn note_heard(&mut self, is_heard: bool) {
        let now = self.uptime();
        self.silent_since = if is_heard { None } else { self.silent_since.or(Some(now)) };
    }

    fn uptime(&self) -> Duration {
        self.reader.parts.clock.uptime()
    }
}

/// A problem, and what to do about it.
fn with_cure(problem: &str, cure: &str) -> String {
    if cure.is_empty() { problem.to_owned() } else { format!("{problem}: {cure}") }
}
