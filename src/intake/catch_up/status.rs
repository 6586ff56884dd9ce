//! State of catch-up that operators see.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, MessageTs},
};

/// State of one app's catch-up.
#[derive(Clone, Debug)]
pub struct CatchUpStatus {
    /// Name of the app.
    pub app: AppName,
    /// Problems that concern every channel, or empty.
    pub problem: String,
    /// Configured channel names whose ids are not known.
    pub unresolved: Vec<String>,
    /// Channels that are read.
    pub channels: Vec<ChannelStatus>,
    problems: BTreeMap<Topic, String>,
}

/// Subject of a problem that concerns every channel. Each has at most one problem at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// Slack rejects the token, or does not answer.
    Access,
    /// The channels cannot be listed.
    Listing,
    /// Our clock and Slack's contradict each other.
    Clock,
    /// The store does not say what to read.
    Store,
}

/// State of one channel's catch-up.
#[derive(Clone, Debug)]
pub struct ChannelStatus {
    /// Id under which the channel is read.
    pub id: ChannelId,
    /// Name of the channel, or empty if it is not known.
    pub name: String,
    /// Cursor of the channel.
    pub committed: Option<MessageTs>,
    /// Time at which a window was last read to its end.
    pub last_success: Option<Timestamp>,
    /// Reason why the last reading failed, or what Slack has reported about the channel; or empty.
    pub problem: String,
    /// The channel is archived: nothing can be posted in it.
    pub is_archived: bool,
    /// Number of incidents since the start that no push has brought.
    pub missed: u64,
    /// Incidents that Slack should have pushed, by the hour since 1970 in which they were counted.
    withheld: BTreeMap<i64, u64>,
}

/// Hours for which incidents that Slack did not push are counted, the current one included.
const HOURS_KEPT: i64 = 25;

impl ChannelStatus {
    /// Counts an incident that Slack should have pushed.
    pub(super) fn note_withheld(&mut self, now: Timestamp) {
        let hour = hour(now);
        *self.withheld.entry(hour).or_default() += 1;
        self.withheld.retain(|counted, _| hour - counted < HOURS_KEPT);
    }

    /// Returns the number of incidents in about the last 24 hours that Slack should have pushed.
    pub fn withheld_in_a_day(&self, now: Timestamp) -> u64 {
        let hour = hour(now);
        let recent = self.withheld.iter().filter(|(counted, _)| hour - *counted < HOURS_KEPT);
        recent.map(|(_, number)| number).sum()
    }
}

fn hour(at: Timestamp) -> i64 {
    at.seconds().div_euclid(3600)
}

/// Status that the poller changes and others read. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Board(Arc<Mutex<CatchUpStatus>>);

impl Board {
    pub(super) fn new(app: AppName) -> Self {
        Self(Arc::new(Mutex::new(CatchUpStatus {
            app,
            problem: String::new(),
            unresolved: Vec::new(),
            channels: Vec::new(),
            problems: BTreeMap::new(),
        })))
    }

    /// Shows a problem, or removes it if `problem` is empty. Returns whether the problem is new.
    pub(super) fn say(&self, topic: Topic, problem: &str) -> bool {
        let mut status = self.status();
        let is_new =
            !problem.is_empty() && status.problems.get(&topic).is_none_or(|shown| shown != problem);
        if problem.is_empty() {
            status.problems.remove(&topic);
        } else {
            status.problems.insert(topic, problem.to_owned());
        }
        let all: Vec<&str> = status.problems.values().map(String::as_str).collect();
        status.problem = all.join("; ");
        is_new
    }

    pub(super) fn status(&self) -> MutexGuard<'_, CatchUpStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a problem of the topic is shown.
    pub(super) fn shows(&self, topic: Topic) -> bool {
        self.status().problems.contains_key(&topic)
    }

    /// Changes the status of a channel, which is added if it is new.
    pub(super) fn channel(&self, id: &ChannelId, change: impl FnOnce(&mut ChannelStatus)) {
        let mut status = self.status();
        if let Some(known) = status.channels.iter_mut().find(|known| known.id == *id) {
            return change(known);
        }
        let mut new = ChannelStatus {
            id: id.clone(),
            name: String::new(),
            committed: None,
            last_success: None,
            problem: String::new(),
            is_archived: false,
            missed: 0,
            withheld: BTreeMap::new(),
        };
        change(&mut new);
        status.channels.push(new);
    }
}
