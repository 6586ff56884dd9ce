//! What the receiver tells catch-up: reasons to read history sooner, and changes in Slack.

use tokio::sync::mpsc;

use crate::{clock::Timestamp, slack::lifecycle::Change};

/// How many wait at most. One that finds no room is dropped: all of them lead to the same reading,
/// which is under way or about to be.
const WAITING: usize = 256;

/// Something that catch-up should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Slack left out events of the minute that began then.
    RateLimited {
        /// When the minute began.
        minute: Timestamp,
    },
    /// We answered 503.
    Refused,
    /// The app or a channel changed.
    Changed(Change),
}

/// Where notices of one app go: to its poller, or nowhere if it has none. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Notices(Option<mpsc::Sender<Notice>>);

impl Notices {
    /// For an app with a poller, which takes the other end.
    pub fn new() -> (Self, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(Some(sender)), receiver)
    }

    /// Never waits.
    pub(super) fn tell(&self, notice: Notice) {
        if let Some(sender) = &self.0 {
            drop(sender.try_send(notice));
        }
    }
}
