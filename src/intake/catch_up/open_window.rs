//! A window that is being read: the messages found so far and the decisions still to be made.

use std::collections::BTreeMap;

use super::{
    task::WindowTask,
    window::{HistoryPages, Window},
};
use crate::{
    code_defender::verdict::{Doubt, Vouched},
    ids::MessageTs,
    intake::{admission::IncidentMessage, fate::Fate},
    slack::web_api::HistoryQuery,
};

/// Numbers of messages with incidents that a reading has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// All messages with incidents.
    pub found: u64,
    /// Messages that the store did not know.
    pub new: u64,
    /// Messages that the store knew.
    pub known: u64,
    /// Messages that the store did not know and that were marked as known.
    pub marked: u64,
}

impl ReadCounts {
    /// Adds the numbers of another reading.
    pub fn add(&mut self, other: Self) {
        let Self { found, new, known, marked } = other;
        self.found += found;
        self.new += new;
        self.known += known;
        self.marked += marked;
    }
}

/// Totals of a window. Messages that the store did not know are counted at once, all others when
/// the window has been read to its end.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) counts: ReadCounts,
    pub(super) fates: BTreeMap<Fate, u64>,
    /// Newest message that is not from the future.
    pub(super) newest: Option<MessageTs>,
}

/// A message with incidents, found in a page of history.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) incident: IncidentMessage,
    /// `true` if the message was not seen before in this window.
    pub(super) is_first: bool,
    /// `true` if no earlier reading has counted the message.
    pub(super) is_fresh: bool,
    /// Decision that is needed before the message is stored.
    pub(super) question: Question,
}

impl Candidate {
    pub(super) const fn is_in_new_layout(&self) -> bool {
        matches!(self.question, Question::NewLayout(_))
    }
}

/// A decision about a message with incidents that depends on the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    /// No decision is needed: the message is stored.
    Settled,
    /// Does another bot report the incidents of this channel?
    NewLayout(Vouched),
    /// Is the message an alert already? If not, it is kept as a near miss.
    NearMiss(Doubt),
}

/// A window that is being read, page by page.
#[derive(Debug)]
pub(super) struct OpenWindow {
    pub(super) task: WindowTask,
    pub(super) pages: HistoryPages,
    pub(super) tally: Tally,
    /// Incidents in a new layout, held until it is known which bot reports incidents.
    pub(super) held: Vec<Candidate>,
}

impl OpenWindow {
    pub(super) fn new(task: WindowTask) -> Self {
        let pages = HistoryPages::new(task.window);
        Self { task, pages, tally: Tally::default(), held: Vec::new() }
    }

    /// Returns the request for the next page.
    pub(super) fn query(&self) -> HistoryQuery {
        let (Window { oldest, latest }, cursor) = self.pages.request();
        HistoryQuery {
            channel: self.task.channel.clone(),
            oldest,
            latest,
            cursor: cursor.map(str::to_owned),
            limit: self.pages.limit(),
        }
    }
}
