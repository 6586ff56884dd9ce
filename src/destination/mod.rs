//! Destinations: receivers of alerts. `delivery` calls [`Destination::deliver`] and follows the
//! [`Advice`] of the error; the kind of receiver is hidden from it.
//!
//! `preset` describes what a kind of receiver wants to be sent, `access` derives address and
//! credentials from a destination's secrets, and `transport` sends.

pub use self::{
    error::SetupError,
    outcome::{Advice, Answer, DeliveryError, Receipt},
    settings::{HeaderValue, Settings},
    transport::Destination,
};

mod access;
mod error;
mod headers;
mod outcome;
pub mod preset;
pub mod reference;
pub mod rendered;
mod settings;
pub mod transport;
