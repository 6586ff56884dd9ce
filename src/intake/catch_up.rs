//! Catch-up: reads the history of each channel for what Slack did not push.
//!
//! One [`Poller`] an app. It asks who we are, finds the channels behind configured names once, and
//! reads each channel from a little before where it was last read up to now, by Slack's clock:
//! `window` says which part, `reader` reads it through the same admission as a push. What Slack
//! will not give is tried again later and told to operators; the receiver never depends on it.

mod access;
mod channels;
mod handle;
mod missed;
mod moved;
mod reader;
mod status;
mod window;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use self::{
    access::Access,
    reader::{Beat, Reader, Task, backoff},
    status::Board,
    window::Window,
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
    metrics::{Metric, Metrics},
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

/// The loop that reads one app's channels.
#[derive(Debug)]
pub struct Poller {
    reader: Arc<Reader>,
    channels: Arc<Channels>,
    notices: mpsc::Receiver<Notice>,
    settings: Settings,
    board: Board,
    heartbeat: Heartbeat,
    access: Access,
    /// The channels that the bot is in, if every channel is ours.
    member_of: Option<Vec<ChannelId>>,
    list_again: Timestamp,
    /// Channels that are not asked for before a time.
    held: BTreeMap<ChannelId, Timestamp>,
    /// Channels that Slack no longer knows by that id, until the others have been looked through.
    lost: BTreeSet<ChannelId>,
    /// Channels that the bot is in, where nothing else says that they are not the lost ones.
    strangers: Vec<ChannelId>,
    /// Up to where each channel's messages have been counted.
    counted: BTreeMap<ChannelId, MessageTs>,
    /// The first minute that Slack left out, until it has been read.
    also_from: Option<MessageTs>,
    failures: u32,
    /// What was found out of channels and the store did not take.
    unkept: Vec<(String, ChannelId)>,
    /// Whether another process polls for the app.
    stands_by: bool,
    /// When something was last read, or nothing was to be.
    heard_at: Timestamp,
}

impl Poller {
    /// A poller that has not begun, and the handle to it.
    pub fn new(app: App, settings: Settings, parts: Parts) -> (Self, Handle) {
        let name = format!("catch-up of {}", app.name);
        let heartbeat = parts.shutdown.heartbeat(&name, parts.clock.instant());
        let board = Board::new(app.name.clone());
        let heard_at = parts.clock.now();
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
            member_of: None,
            list_again: Timestamp::default(),
            held: BTreeMap::new(),
            lost: BTreeSet::new(),
            strangers: Vec::new(),
            counted: BTreeMap::new(),
            also_from: None,
            failures: 0,
            unkept: Vec::new(),
            stands_by: false,
            heard_at,
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
            let started = self.now();
            let all_read = self.round().await;
            self.failures = if all_read { 0 } else { self.failures.saturating_add(1) };
            if all_read {
                self.heard_at = self.now();
            }
            self.count_missed().await;
            let aside = if self.steps_aside().await { STEP_ASIDE } else { Duration::ZERO };
            self.rest(started, aside).await;
        }
    }

    /// Lets another relay poll, if this one has long heard nothing of Slack. If all are deaf, the
    /// right to poll goes round, to each for some minutes.
    async fn steps_aside(&mut self) -> bool {
        if self.stands_by || self.now().since(self.heard_at) < DEAF {
            return false;
        }
        self.heard_at = self.now();
        let app = self.reader.app.clone();
        let is_free = matches!(self.reader.parts.store.stop_polling(&app).await, Ok(true));
        if is_free {
            tracing::warn!(%app, "catch-up of app {app} is left to another relay: Slack is silent");
        }
        is_free
    }

    /// Waits for the next reading, or for a reason to read sooner.
    async fn rest(&mut self, started: Timestamp, aside: Duration) {
        let again = self.now() + backoff(self.failures);
        let every = self.settings.every;
        let regular = started + if self.stands_by { every.min(STAND_BY) } else { every };
        let next = if self.failures > 0 { regular.min(again) } else { regular };
        let aside_until = self.now() + aside;
        let mut next = next.max(aside_until);
        let clock = self.reader.parts.clock.clone();
        loop {
            self.heartbeat.beat(clock.instant());
            let now = clock.now();
            if now >= next {
                return;
            }
            let notice = tokio::select! {
                Some(notice) = self.notices.recv() => notice,
                () = clock.sleep_until(next.min(now + Duration::from_secs(10))) => continue,
            };
            if self.heed(notice).await {
                next = next.min(started + EXTRA_GAP).max(aside_until);
            }
        }
    }

    /// Reads every channel that is due. Returns whether nothing has to be tried again soon.
    async fn round(&mut self) -> bool {
        let term = self.ask_store().await;
        self.stands_by = matches!(term, Ok(None));
        let term = match term {
            // Slack has told this process, and not the one that polls, what it left out: this one
            // reads it too, and leaves the cursors alone.
            Ok(term) if term.is_some() || self.also_from.is_some() => term,
            Ok(_) => return true,
            Err(error) => {
                tracing::error!(error = chain(&error), "the store does not say what to read");
                return false;
            }
        };
        if !self.has_access().await {
            return matches!(self.access, Access::Lost { .. });
        }
        let mut all_read = self.find_channels().await;
        if !self.access.is_good() {
            return true;
        }
        let began = self.now();
        let mut due: VecDeque<ChannelId> = self.due().into();
        let mut tried = BTreeSet::new();
        while let Some(channel) = self.next_due(&mut due, &tried).await {
            tried.insert(channel.clone());
            match self.read(&channel, term, began).await {
                Ok(()) => {}
                Err(ReadError::Slack(ApiError::Token(code))) => {
                    self.lose_access(&format!("Slack says {code}"));
                    return true;
                }
                Err(error) => {
                    let is_slow = self.note_failure(&channel, &error);
                    all_read &= is_slow;
                    // A refusal is an answer: then Slack is heard.
                    if !is_slow && self.now().since(self.heard_at) >= DEAF {
                        return false;
                    }
                }
            }
        }
        if all_read {
            self.also_from = None;
        }
        all_read
    }

    /// The term under which this process polls, if it does. Whether it does or not, what other
    /// relays have found out of the channels counts here too: both receive.
    async fn ask_store(&mut self) -> Result<Option<u64>, StoreError> {
        let store = Arc::clone(&self.reader.parts.store);
        let term = store.poller_term(&self.reader.app).await?;
        self.keep_unkept().await?;
        self.recall().await?;
        self.forget_former_ids();
        Ok(term)
    }

    fn due(&self) -> Vec<ChannelId> {
        let now = self.now();
        let known = self.channels.known();
        let all = self.member_of.iter().flatten().chain(&known.ids);
        let due = all.filter(|id| self.held.get(*id).is_none_or(|until| *until <= now));
        let due: BTreeSet<ChannelId> = due.cloned().collect();
        due.into_iter().collect()
    }

    async fn read(
        &mut self,
        channel: &ChannelId,
        term: Option<u64>,
        began: Timestamp,
    ) -> Result<(), ReadError> {
        let reader = Arc::clone(&self.reader);
        let parts = &reader.parts;
        let committed = self.place(channel).await.map_err(ReadError::Store)?;
        let now = reader.api.slack_now().unwrap_or_else(|| parts.clock.now());
        let window = Window::next(committed, self.also_from, now, self.settings);
        let to = window.committed(self.settings.settle);
        let to = committed.map_or(to, |committed| committed.max(to));
        let task = Task {
            channel: channel.clone(),
            began,
            window,
            source: Source::CatchUp,
            cursor: term.map(|term| CursorMove {
                app: reader.app.clone(),
                channel: channel.clone(),
                to,
                term,
            }),
            counted_to: self.counted.get(channel).copied().or(committed),
        };
        let found = reader.read(&task, Beat(Some(&self.heartbeat))).await?;
        if found.new > 0 {
            tracing::info!(
                app = %reader.app,
                %channel,
                new = found.new,
                "catch-up found {} incidents in {channel} that were not known",
                found.new
            );
        }
        self.held.remove(channel);
        self.counted.insert(channel.clone(), window.latest);
        let read_at = parts.clock.now();
        self.board.channel(channel, |status| {
            status.committed = Some(to);
            status.last_success = Some(read_at);
            status.problem.clear();
        });
        let labels = [reader.app.as_str(), channel.as_str()];
        let gauge = parts.metrics.gauge(Metric::CatchUpLastSuccess, &labels);
        gauge.set(read_at.seconds_f64());
        self.heard_at = read_at;
        Ok(())
    }

    /// Tells operators once of each new problem. Returns whether there is no hurry to try again.
    fn note_failure(&mut self, channel: &ChannelId, error: &ReadError) -> bool {
        let problem = chain(error);
        let is_slow = matches!(error, ReadError::Slack(ApiError::Configuration { .. }));
        if is_slow {
            self.held.insert(channel.clone(), self.now() + SLOW_RETRY);
        }
        if let ReadError::Slack(ApiError::Configuration { code, .. }) = error
            && code.as_str() == moved::UNKNOWN
        {
            self.lost.insert(channel.clone());
            self.list_again = Timestamp::default();
        }
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
                "catch-up cannot read {channel} of app {}; `doctor` says what to do",
                self.reader.app
            );
        }
        is_slow
    }

    fn now(&self) -> Timestamp {
        self.reader.parts.clock.now()
    }
}
