//! What operators and Kubernetes see, on a listener of their own: health, metrics, and the API.
//!
//! `cli` builds [`router`]; what the API needs of the running parts it asks through [`Control`],
//! which `cli` implements. Nothing here sends an alert by itself, but for a test on demand.

pub mod api;
pub mod auth;
mod concerns;
mod control;
pub mod health;
mod problem;
pub mod view;
mod waiting;

use std::sync::Arc;

use axum::Router;

pub use self::{
    control::{
        Backfill, Backfilled, Breaker, CatchUp, CaughtUp, Configuration, Control,
        DestinationHealth, FeedItem, FeedKey, FeedWish, NoAdoption, NoBackfill, NoItems, NoRouting,
        NoTest, Refusal, Refused, Routing, Signing, Tested, Unread,
    },
    problem::Problem,
};

/// Everything on the ops listener.
pub fn router(health: health::Parts, api: api::Parts) -> Router {
    let health = Arc::new(health::Health::new(health));
    health::router(Arc::clone(&health)).merge(api::router(api, health))
}
