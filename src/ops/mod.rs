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

use self::auth::Auth;
use crate::ground::Ground;

pub use self::{
    control::{
        Backfill, Backfilled, Breaker, CatchUp, CaughtUp, Configuration, Control,
        DestinationHealth, FeedItem, FeedKey, FeedWish, NoAdoption, NoBackfill, NoItems, NoRouting,
        NoTest, Refusal, Refused, Routing, Signing, Tested, Unread,
    },
    problem::Problem,
};

/// Returns the routes of the ops listener.
pub fn router(ground: Ground, control: Arc<dyn Control>, auth: Auth) -> Router {
    let health = Arc::new(health::Health::new(ground.clone(), Arc::clone(&control)));
    health::router(Arc::clone(&health)).merge(api::router(ground, control, auth, health))
}
