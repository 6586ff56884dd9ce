//! What catch-up knows of itself, for operators.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, MessageTs},
};

/// One app's catch-up.
#[derive(Clone, Debug)]
pub struct Status {
    /// The app.
    pub app: AppName,
    /// What is wrong with it as a whole, or empty.
    pub problem: String,
    /// The configured names whose channels are not known.
    pub unresolved: Vec<String>,
    /// The channels that are read.
    pub channels: Vec<ChannelStatus>,
    problems: BTreeMap<Topic, String>,
}

/// What can be wrong with an app's catch-up as a whole, each apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// Slack's Web API may not be called, or does not answer.
    Access,
    /// The channels cannot be listed.
    Listing,
    /// Our clock and Slack's contradict each other.
    Clock,
    /// The store does not say what to read.
    Store,
}

/// One channel's catch-up.
#[derive(Clone, Debug)]
pub struct ChannelStatus {
    /// The channel.
    pub id: ChannelId,
    /// Its name, if it is known.
    pub name: String,
    /// Up to where its history was read.
    pub committed: Option<MessageTs>,
    /// When it was last read to its end.
    pub last_success: Option<Timestamp>,
    /// Why it could not be, if it could not the last time; or what Slack reported of it.
    pub problem: String,
    /// Nothing can be posted in it any more.
    pub is_archived: bool,
    /// Incidents that no push has brought, since the start.
    pub missed: u64,
    /// Those that Slack should have pushed, by the hour since 1970 in which that was found out.
    withheld: BTreeMap<i64, u64>,
}

/// Incidents that Slack did not push are counted for so many hours, the current one included.
const HOURS_KEPT: i64 = 25;

impl ChannelStatus {
    /// Counts an incident that Slack should have pushed.
    pub(super) fn note_withheld(&mut self, now: Timestamp) {
        let hour = hour(now);
        *self.withheld.entry(hour).or_default() += 1;
        self.withheld.retain(|counted, _| hour - counted < HOURS_KEPT);
    }

    /// Returns how many incidents of about the last 24 hours Slack should have pushed.
    pub fn withheld_in_a_day(&self, now: Timestamp) -> u64 {
        let hour = hour(now);
        let recent = self.withheld.iter().filter(|(counted, _)| hour - *counted < HOURS_KEPT);
        recent.map(|(_, number)| number).sum()
    }
}

fn hour(at: Timestamp) -> i64 {
    at.seconds().div_euclid(3600)
}

/// The status that the poller keeps and others read. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Board(Arc<Mutex<Status>>);

impl Board {
    pub(super) fn new(app: AppName) -> Self {
        Self(Arc::new(Mutex::new(Status {
            app,
            problem: String::new(),
            unresolved: Vec::new(),
            channels: Vec::new(),
            problems: BTreeMap::new(),
        })))
    }

    /// Shows what is wrong, or with an empty text that nothing is. Returns whether it is a problem
    /// that was not shown before.
    pub(super) fn say(&self, topic: Topic, problem: &str) -> bool {
        let mut status = self.status();
        let is_new =
            !problem.is_empty() && status.problems.get(&topic).is_none_or(|it| it != problem);
        if problem.is_empty() {
            status.problems.remove(&topic);
        } else {
            status.problems.insert(topic, problem.to_owned());
        }
        let all: Vec<&str> = status.problems.values().map(String::as_str).collect();
        status.problem = all.join("; ");
        is_new
    }

    pub(super) fn status(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a problem of that kind.
    pub(super) fn shows(&self, topic: Topic) -> bool {
        self.status().problems.contains_key(&topic)
    }

    /// Changes what is known of a channel.
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
