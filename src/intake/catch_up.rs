//! Catch-up: reads the history of each channel for messages that Slack did not push.
//!
//! Each app has one [`Poller`]. It asks Slack who we are, finds the ids of channels that are
//! configured by name, and reads each channel from a little before its cursor up to now, by Slack's
//! clock. `window` chooses the part of history to read and follows Slack's pages; `read` passes
//! each page through the same admission as a push; `turns` lets channels take turns, a page each.
//! If Slack does not answer, the poller tries again later and tells operators; the receiver never
//! depends on it. Every wait is measured by a clock that cannot be set.
//!
//! The files form layers. `window`, `turns`, `doubts`, `listing`, `access`, `pace` and `task` are
//! values and decisions; `read` reads one window with them; `poll` is the state and the steps of a
//! poller; `handle` is the poller as seen from outside.

mod access;
mod doubts;
mod handle;
mod listing;
mod open_window;
mod pace;
mod parts;
mod poll;
mod read;
mod settings;
mod status;
mod task;
mod turns;
mod window;

pub use self::{
    handle::{
        BackfillError, BackfillFailure, BackfillReport, BackfillRequest, HistoryTime, PollerHandle,
    },
    open_window::ReadCounts,
    parts::{PolledApp, PollerParts},
    poll::Poller,
    read::ReadError,
    settings::CatchUpSettings,
    status::{CatchUpStatus, ChannelStatus},
    task::Purpose,
};
