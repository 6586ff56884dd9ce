//! The poller of one app: its state, and the steps that change it.
//!
//! `run` is the loop. In each round `access` asks Slack who we are, `channels` and `moved` find
//! channels, `turn` reads one page of each channel that is due, `missed` counts what Slack did not
//! push, and `clocks` compares the clocks. `notices` takes in what the receiver tells.

mod access;
mod beginnings;
mod channels;
mod clocks;
mod missed;
mod moved;
mod notices;
mod run;
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;

use super::{
    access::Access,
    doubts::Doubts,
    handle::PollerHandle,
    listing::Listing,
    open_window::OpenWindow,
    parts::{PolledApp, PollerParts},
    read::Reader,
    settings::CatchUpSettings,
    status::{Board, ChannelStatus},
    turns::Turns,
};
use crate::{
    ids::{AppName, ChannelId, MessageTs},
    intake::{channels::Channels, notice::Notice},
    shutdown::Heartbeat,
    store::Beginning,
};

/// The loop that reads one app's channels. Moments are those of
/// [`Clock::uptime`](crate::clock::Clock::uptime).
#[derive(Debug)]
pub struct Poller {
    reader: Arc<Reader>,
    channels: Arc<Channels>,
    notices: mpsc::Receiver<Notice>,
    settings: CatchUpSettings,
    board: Board,
    heartbeat: Heartbeat,
    access: Access,
    /// Time of the next question who we are, unless Slack has told.
    ask_access_at: Duration,
    access_asked_at: Duration,
    access_failures: u32,
    /// Channels that the bot is in; used if the app is configured for every channel.
    member_of: Option<Vec<ChannelId>>,
    listing: Listing,
    /// Channels whose id Slack does not know any more, until the list of channels was read.
    lost: BTreeSet<ChannelId>,
    /// Pairs of a lost channel and a stranger whose history is to be searched for its messages.
    suspects: VecDeque<(ChannelId, ChannelId)>,
    /// Time of the next search in a stranger's history.
    search_at: Duration,
    /// Channels about which an event has said something that Slack has to confirm.
    doubts: Doubts,
    /// Times at which channels were first to be read, by id or configured name; `None` until the
    /// store has told. A channel that was read before such times were stored has none.
    beginnings: Option<BTreeMap<String, Option<Beginning>>>,
    turns: Turns,
    reads: HashMap<ChannelId, ChannelRead>,
    /// Time before which Slack allows no call for history.
    history_at: Duration,
    /// Start of the earliest minute that Slack rate-limited, until history was read from there in
    /// every channel.
    gap_from: Option<MessageTs>,
    /// Channels in which history was read from there.
    gap_read: BTreeSet<ChannelId>,
    /// Channel ids that were found and that the store has not taken yet.
    unkept: Vec<(String, ChannelId)>,
    /// Another process polls for the app.
    stands_by: bool,
    /// Term of the right to poll, while this process has it.
    term: Option<u64>,
    /// Time of the last question to the store for the right to poll.
    asked_at: Duration,
    store_failures: u32,
    /// Time of the first of the calls in a row that Slack did not answer.
    silent_since: Option<Duration>,
    /// Time at which a window was last begun.
    begun_at: Duration,
}

/// State of one channel's reading, from one page to the next.
#[derive(Debug, Default)]
struct ChannelRead {
    open: Option<BegunWindow>,
    /// Newest message that was counted.
    counted: Option<MessageTs>,
    /// Time since which the channel waits for its first cursor.
    waits_since: Option<Duration>,
    /// Position to which the store should have moved the cursor.
    moved_to: Option<MessageTs>,
    /// Problem that stays in the status until a time although the channel is read.
    shown: Option<(String, Duration)>,
}

/// A window that was begun, and the facts that finishing it needs.
#[derive(Debug)]
struct BegunWindow {
    window: OpenWindow,
    at: Duration,
    /// Start of the rate-limited minutes that the window covers.
    gap_from: Option<MessageTs>,
    /// Time up to which messages count as counted once the window is read.
    counts_to: MessageTs,
    /// The time was in doubt when the window was begun: Slack's next answer may settle it.
    is_doubtful: bool,
}

impl Poller {
    /// Creates a poller that does nothing until [`Poller::run`], and the handle to it.
    pub fn new(
        app: PolledApp,
        settings: CatchUpSettings,
        parts: PollerParts,
    ) -> (Self, PollerHandle) {
        let ground = parts.ground.clone();
        let heartbeat = ground.shutdown.heartbeat(&loop_name(&app.name), ground.clock.instant());
        let board = Board::new(app.name.clone());
        let now = ground.clock.uptime();
        let reader = Arc::new(Reader::new(app.name, app.api, Arc::clone(&app.channels), parts));
        let handle =
            PollerHandle::new(Arc::clone(&reader), Arc::clone(&app.channels), board.clone());
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
            gap_from: None,
            gap_read: BTreeSet::new(),
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

    /// Returns the channels that belong to the app and whose ids are known.
    fn ours(&self) -> Vec<ChannelId> {
        let known = self.channels.known();
        let all = self.member_of.iter().flatten().chain(&known.ids);
        let ours: BTreeSet<ChannelId> = all.cloned().collect();
        ours.into_iter().collect()
    }

    /// Returns whether a channel belongs to the app.
    fn is_ours(&self, id: &ChannelId) -> bool {
        self.channels.known().ids.contains(id)
            || self.member_of.iter().flatten().any(|member| member == id)
    }

    /// Changes the status of a channel that belongs to the app; returns whether it does.
    fn if_ours(&self, id: &ChannelId, change: impl FnOnce(&mut ChannelStatus)) -> bool {
        let is_ours = self.is_ours(id);
        if is_ours {
            self.board.channel(id, change);
        }
        is_ours
    }

    /// Forgets every window that is being read, because each will be begun again.
    fn drop_windows(&mut self) {
        self.reads.values_mut().for_each(|read| read.open = None);
    }

    /// Forgets the reading of the channels that are not among `ours` any more.
    async fn forget_others(&mut self, ours: &[ChannelId]) {
        let others = self.reads.extract_if(|channel, _| !ours.contains(channel));
        let others: Vec<(ChannelId, ChannelRead)> = others.collect();
        for (channel, read) in others {
            // A channel whose id has merely changed is read again under the new one.
            let is_gone = self.read_id(channel.clone()) == channel;
            if let Some(begun) = read.open.filter(|_| is_gone) {
                self.reader.abandon(begun.window).await;
            }
        }
    }

    /// Records whether Slack has answered a call.
    fn note_heard(&mut self, is_heard: bool) {
        let now = self.uptime();
        self.silent_since = if is_heard { None } else { self.silent_since.or(Some(now)) };
    }

    fn beat(&self) {
        self.heartbeat.beat(self.reader.ground.clock.instant());
    }

    fn uptime(&self) -> Duration {
        self.reader.ground.clock.uptime()
    }
}

/// Returns the name of an app's poller among the heartbeats.
fn loop_name(app: &AppName) -> String {
    format!("catch-up of {app}")
}

/// Joins a problem and a remedy, if there is one.
fn with_cure(problem: &str, cure: &str) -> String {
    if cure.is_empty() { problem.to_owned() } else { format!("{problem}: {cure}") }
}
