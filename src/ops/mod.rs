//! The listener for operators and Kubernetes: health, metrics, and the API.
//!
//! `cli` builds [`router`] and implements [`Control`], through which the API asks the running
//! parts. Nothing here sends an alert by itself, except a test on demand.

pub mod api;
pub mod auth;
mod concerns;
mod control;
pub mod health;
pub mod openapi;
mod problem;
pub mod view;
mod waiting;

use std::sync::Arc;

use axum::Router;

use self::auth::Auth;
use crate::ground::Ground;

pub use self::{
    control::{
        Backfill, Configuration, Control, Controls, DestinationHealth, FeedItem, FeedKey, FeedWish,
        NoAdoption, NoBackfill, NoItems, NoRouting, NoTest, Refused, Routing, Tested,
    },
    problem::Problem,
};

/// Returns the routes of the ops listener.
pub fn router(ground: Ground, controls: Controls, auth: Auth) -> Router {
    let health = Arc::new(health::Health::new(ground.clone(), controls.clone()));
    health::router(Arc::clone(&health)).merge(api::router(ground, controls, auth, health))
}
