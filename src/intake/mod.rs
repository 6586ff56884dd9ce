//! The way from Slack's message to the store: recognising incidents, routing them, and answering
//! Slack.
//!
//! [`events_api`] receives pushes and [`catch_up`] reads history; both call [`Admission::admit`].
//! This module never talks to a destination: it meets `delivery` only in the store.

mod admission;
pub mod catch_up;
pub mod channels;
mod doubt;
pub mod events_api;
mod fate;
pub mod notes;
pub mod notice;
mod outcomes;
pub mod posters;
pub mod routing;
mod trace;

pub use self::{
    admission::{Admission, Admitted, Certainty, IncidentMessage, Post, RouteDecision},
    outcomes::outcomes,
};
