//! Pauses of destinations, with an end and a reason.

use std::time::Duration;

use async_trait::async_trait;

use super::{OperatorAction, StoreError};
use crate::{clock::Timestamp, ids::DestinationName};

/// Whether a destination is paused.
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
    /// How long the pause lasts, counted by the store's clock; without one until a resume.
    pub length: Option<Duration>,
    /// The operator's reason, or empty.
    pub reason: String,
}

/// A pause in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseView {
    /// When it began.
    pub since: Timestamp,
    /// When it ends by itself, if it does.
    pub until: Option<Timestamp>,
    /// The operator's reason, or empty.
    pub reason: String,
}

/// The part of a store that keeps which destinations are paused.
#[async_trait]
pub trait Pauses {
    /// Pauses or resumes a destination. Survives a restart. Paused time does not count as age. A
    /// pause of a paused destination replaces the end and the reason, and not the beginning. The
    /// deed, if one is given, is kept with it.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn set_paused(
        &self,
        destination: &DestinationName,
        paused: Paused,
        deed: Option<OperatorAction>,
    ) -> Result<(), StoreError>;

    /// Resumes the destinations whose pauses have reached their end, keeps that as an action of the
    /// relay, and returns their names. Of several processes one returns each.
    ///
    /// The end is judged by a time of day that has kept step for some minutes
    /// ([`SteadyTime`](crate::clock::SteadyTime)): a clock that is wrong for a while ends no pause,
    /// and a pause that ended before the store was opened ends only then. A clock that was ahead
    /// when the pause began makes it no longer than it was meant to be.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn end_pauses(&self) -> Result<Vec<DestinationName>, StoreError>;
}
