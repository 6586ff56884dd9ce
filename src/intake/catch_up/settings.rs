//! Settings of catch-up.

use std::time::Duration;

/// Pace and reach of catch-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUpSettings {
    /// Time between the starts of two readings of a channel.
    pub every: Duration,
    /// Time before the cursor at which each reading begins.
    pub overlap: Duration,
    /// Age at which a message is certain to be visible in history; the cursor stays that far
    /// behind.
    pub settle: Duration,
    /// Time before now at which the first reading of a channel begins.
    pub first_lookback: Duration,
}
