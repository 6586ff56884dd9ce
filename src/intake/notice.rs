//! Notices from the receiver to catch-up: reasons to read history sooner, and changes in Slack.

use tokio::sync::mpsc;

use crate::{clock::Timestamp, slack::lifecycle::Change};

/// Most notices that wait. One that finds no room is dropped: they all lead to the same reading,
/// which is under way or about to begin.
const WAITING: usize = 256;

/// A notice to catch-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Slack has rate-limited the app and left out events of a minute.
    RateLimited {
        /// Start of the minute.
        minute: Timestamp,
    },
    /// A push was answered with 503.
    Refused,
    /// The app or a channel has changed.
    Changed(Change),
}

/// Sender of notices to one app's poller. The default sends nowhere. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Notices(Option<mpsc::Sender<Notice>>);

impl Notices {
    /// Creates a channel to a poller, which takes the receiver.
    pub fn new() -> (Self, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(Some(sender)), receiver)
    }

    /// Sends a notice without waiting.
    pub(super) fn tell(&self, notice: Notice) {
        if let Some(sender) = &self.0 {
            drop(sender.try_send(notice));
        }
    }
}
