//! Parts from which a poller is built.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::{
    clock::Timestamp,
    ground::Ground,
    ids::AppName,
    intake::{admission::Admission, channels::Channels, notes::Notes, notice::Notice},
    slack::web_api::WebApi,
};

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
pub struct PolledApp {
    /// Configured name of the app.
    pub name: AppName,
    /// Channels of the app, shared with the receiver.
    pub channels: Arc<Channels>,
    /// Notices from the receiver.
    pub notices: mpsc::Receiver<Notice>,
    /// Slack's Web API with the app's token.
    pub api: WebApi,
}
