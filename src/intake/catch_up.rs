//! Catch-up: reads the history of each channel for what Slack did not push.
//!
//! One [`Poller`] an app. It asks who we are, finds the channels behind configured names once, and
//! reads each channel from a little before where it was last read up to now, by Slack's clock:
//! `window` says which part, `reader` reads it through the same admission as a push. Channels take
//! turns, a page each (`turns`). What Slack will not give is tried again later and told to
//! operators; the receiver never depends on it. Every wait is measured by time that has passed,
//! never by the time of day, which may leap.

mod access;
mod beginnings;
mod channels;
mod doubts;
mod handle;
mod missed;
mod moved;
mod reader;
mod status;
mod task;
mod time;
mod turn;
mod turns;
mod weigh;
mod window;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use self::{
    access::Access,
    beginnings::Beginnings,
    channels::Listing,
    doubts::Doubts,
    reader::{Reader, backoff},
    status::{Board, Topic},
    turn::Read,
    turns::Turns,
};
pub use self::{
    handle::{BackfillError, Handle, History, Moment, ReadBack, Unread},
    reader::{Found, ReadError},
    status::{ChannelStatus, Status},
    task::Purpose,
};
use crate::{
    clock::Timestamp,
    ground::Ground,
    ids::{AppName, ChannelId, MessageTs},
    intake::{Admission, channels::Channels, notes::Notes, notice::Notice},
    logging::chain,
    shutdown::Heartbeat,
    slack::web_api::WebApi,
    store::StoreError,
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

/// Parts that every poller shares. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PollerParts {
    /// Store, clock, metrics and shutdown; the pollers stop with this shutdown.
    pub ground: Ground,
    /// Rules that admit and route incidents; replaced when the configuration is.
    pub admission: Arc<ArcSwap<Admission>>,
    /// Counts of admitted and ignored messages, by bot and reason.
    pub notes: Arc<Notes>,
    /// Time at which this process was first ready. A message posted earlier was missed because of
    /// downtime.
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

/// The loop that reads one app's channels. Moments are those of [`Clock::uptime`](crate::clock::Clock::uptime).
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
    /// Channels that Slack no longer knows by that id, until all others have been listed.
    lost: BTreeSet<ChannelId>,
    /// A channel that is lost, and one whose history is to be looked through for its messages.
    suspects: VecDeque<(ChannelId, ChannelId)>,
    /// No history is looked through for messages of a lost channel before that.
    search_at: Duration,
    /// Channels of which Slack is asked whether they are what an event said.
    doubts: Doubts,
    /// When each channel was first to be read, once the store has told.
    beginnings: Option<Beginnings>,
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
    /// The term under which this one reads.
    term: Option<u64>,
    /// When the store was last asked what to do.
    asked_at: Duration,
    store_failures: u32,
    /// Since when nothing that was asked of Slack was answered.
    silent_since: Option<Duration>,
    /// When a window was last begun.
    begun_at: Duration,
}

impl Poller {
    /// A poller that has not begun, and the handle to it.
    pub fn new(app: App, settings: Settings, parts: PollerParts) -> (Self, Handle) {
        let name = format!("catch-up of {}", app.name);
        let ground = &parts.ground;
        let heartbeat = ground.shutdown.heartbeat(&name, ground.clock.instant());
        let board = Board::new(app.name.clone());
        let now = ground.clock.uptime();
        let channels = Arc::clone(&app.channels);
        let reader = Arc::new(Reader::new(app.name, app.api, channels, parts));
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
            lost: BTreeSet::new(),
            suspects: VecDeque::new(),
            search_at: now,
            doubts: Doubts::default(),
            beginnings: None,
            turns: Turns::default(),
            reads: HashMap::new(),
            history_at: now,
            also_from: None,
            also_read: BTreeSet::new(),
            unkept: Vec::new(),
            stands_by: false,
            term: None,
            asked_at: now,
            store_failures: 0,
            silent_since: None,
            begun_at: now,
        };
        (poller, handle)
    }

    /// Reads until the process stops.
    pub async fn run(mut self) {
        let shutdown = self.reader.ground.shutdown.clone();
        tokio::select! {
            () = self.work() => {}
            () = shutdown.stopped() => {}
        }
        shutdown.forget_heartbeat(&format!("catch-up of {}", self.reader.app), &self.heartbeat);
    }

    async fn work(&mut self) {
        loop {
            self.heartbeat.beat(self.reader.ground.clock.instant());
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
        let is_free = matches!(self.reader.ground.store.stop_polling(&app).await, Ok(true));
        if is_free {
            tracing::warn!(%app, "catch-up of app {app} is left to another relay: Slack is silent");
        }
        is_free
    }

    /// Waits until there is something to do, or a notice.
    async fn rest(&mut self, aside: Duration) {
        let clock = self.reader.ground.clock.clone();
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
        let asks_again =
            if self.stands_by { asks_again.min(self.asked_at + STAND_BY) } else { asks_again };
        if self.stands_by && self.also_from.is_none() {
            return asks_again;
        }
        if let Some(at) = self.access.lost_until(self.reader.api.token_version()) {
            return at.max(self.ask_access_at);
        }
        let access = (!self.access.is_good()).then_some(self.ask_access_at);
        let listing = self.listing_at();
        let doubted = self.doubts.wake();
        let search_at = self.history_at.max(self.search_at);
        let suspects = (!self.suspects.is_empty()).then_some(search_at);
        let turn = self.turns.wake().map(|at| at.max(self.history_at));
        [access, listing, doubted, suspects, turn]
            .into_iter()
            .flatten()
            .fold(asks_again, Duration::min)
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
        if term != self.term {
            // A cursor of another term would not move.
            self.reads.values_mut().for_each(|read| read.begun = None);
            self.term = term;
        }
        self.store_failures = 0;
        self.board.say(Topic::Store, "");
        if !self.has_access().await {
            return;
        }
        // Each of these may wait for one answer of Slack's.
        self.beat();
        self.find_channels().await;
        self.beat();
        self.ask_doubted().await;
        let ours = self.ours();
        self.doubts.keep(&ours);
        self.turns.keep(&self.wanted(&ours), self.uptime());
        self.reads.retain(|channel, _| ours.contains(channel));
        for _ in 0..self.turns.due(self.uptime()) {
            if self.access.is_lost() || self.history_at > self.uptime() {
                return;
            }
            if let Some(channel) = self.turns.next(self.uptime()) {
                self.beat();
                self.turn(&channel, term).await;
            }
        }
        // Last, so that calls for history go to the channels that are known first.
        self.beat();
        self.search_suspect().await;
        self.beat();
    }

    fn beat(&self) {
        self.heartbeat.beat(self.reader.ground.clock.instant());
    }

    /// The term under which this process polls, if it does. Whether it does or not, what other
    /// relays have found out of the channels counts here too: both receive.
    async fn ask_store(&mut self) -> Result<Option<u64>, StoreError> {
        let store = Arc::clone(&self.reader.ground.store);
        let term = store.poller_term(&self.reader.app).await?;
        self.keep_unkept().await?;
        self.recall().await?;
        self.forget_former_ids();
        if term != self.term {
            // Another process may have kept more of them.
            self.beginnings = None;
        }
        if term.is_some() {
            self.note_beginnings().await?;
        }
        Ok(term)
    }

    fn ours(&self) -> Vec<ChannelId> {
        let known = self.channels.known();
        let all = self.member_of.iter().flatten().chain(&known.ids);
        let ours: BTreeSet<ChannelId> = all.cloned().collect();
        ours.into_iter().collect()
    }

    /// Returns which of our channels are read: all; or, where another process polls, those in which
    /// Slack has not been heard of what it left out.
    fn wanted(&self, ours: &[ChannelId]) -> Vec<ChannelId> {
        let is_wanted = |id: &&ChannelId| !self.stands_by || !self.also_read.contains(*id);
        ours.iter().filter(is_wanted).cloned().collect()
    }

    /// Something that was asked of Slack was answered, or not.
    fn note_heard(&mut self, is_heard: bool) {
        let now = self.uptime();
        self.silent_since = if is_heard { None } else { self.silent_since.or(Some(now)) };
    }

    fn uptime(&self) -> Duration {
        self.reader.ground.clock.uptime()
    }
}

/// A problem, and what to do about it.
fn with_cure(problem: &str, cure: &str) -> String {
    if cure.is_empty() { problem.to_owned() } else { format!("{problem}: {cure}") }
}
