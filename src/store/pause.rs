//! Pauses of destinations, with an end and a reason: the role [`Pauses`].

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::{OperatorAction, StoreError};
use crate::{clock::Timestamp, ids::DestinationName};

/// Desired state of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paused {
    /// Nothing is leased.
    Yes(Pause),
    /// Deliveries go on.
    No,
}

/// A pause as an operator asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// Length of the pause, measured by the store's clock. A pause without a length lasts until
    /// the destination is resumed.
    pub length: Option<Duration>,
    /// The operator's reason, or empty.
    pub reason: String,
}

/// A pause in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseView {
    /// Time at which the pause began.
    pub since: Timestamp,
    /// Time at which the pause ends, if it ends by itself.
    pub until: Option<Timestamp>,
    /// The operator's reason, or empty.
    pub reason: String,
}

/// The role that keeps which destinations are paused.
#[async_trait]
pub trait Pauses: fmt::Debug + Send + Sync {
    /// Pauses or resumes a destination. The state survives a restart. Time in a pause does not
    /// count as age. Pausing a paused destination replaces the end and the reason, but not the
    /// beginning. The action, if one is given, is added to the journal in the same transaction.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn set_paused(
        &self,
        destination: &DestinationName,
        paused: Paused,
        deed: Option<OperatorAction>,
    ) -> Result<(), StoreError>;

    /// Resumes the destinations whose pauses have ended, adds that to the journal as an action of
    /// the relay, and returns their names. If several processes call this, each name is returned
    /// to one of them.
    ///
    /// The end is judged by a time of day that has been steady for some minutes
    /// ([`SteadyTime`](crate::clock::SteadyTime)). A clock that is wrong for a while therefore ends
    /// no pause, and a pause that ended before the store was opened ends only after these minutes.
    /// If the clock was ahead when a pause began, the pause is shortened to its length.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn end_pauses(&self) -> Result<Vec<DestinationName>, StoreError>;
}
