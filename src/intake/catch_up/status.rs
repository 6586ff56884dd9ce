//! What catch-up knows of itself, for operators.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, MessageTs},
};

/// One app's catch-up.
#[derive(Clone, Debug)]
pub struct Status {
    /// The app.
    pub app: AppName,
    /// Why Slack's Web API is not called at the moment, or empty.
    pub problem: String,
    /// The configured names whose channels are not known.
    pub unresolved: Vec<String>,
    /// The channels that are read.
    pub channels: Vec<ChannelStatus>,
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
}

/// The status that the poller keeps and others read. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Board(Arc<Mutex<Status>>);

impl Board {
    pub(super) fn new(app: AppName) -> Self {
        let (problem, unresolved, channels) = (String::new(), Vec::new(), Vec::new());
        Self(Arc::new(Mutex::new(Status { app, problem, unresolved, channels })))
    }

    pub(super) fn status(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        };
        change(&mut new);
        status.channels.push(new);
    }
}
