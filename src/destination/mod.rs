//! Destinations: whatever takes an alert. `delivery` calls [`Destination::deliver`] and follows the
//! [`Advice`] of its error; it never learns what kind of receiver it is.
//!
//! `preset` says what a kind of receiver wants to be sent, `access` what a destination's secrets
//! come to, and `transport` sends.

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
