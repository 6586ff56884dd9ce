//! Delivery from the store to the destinations: one worker for each destination, so that one that
//! is down delays no other.
//!
//! A [`worker`] leases the deliveries that are due, makes attempts and records their outcomes; a
//! [`feed`] waits to be read instead. This module never talks to Slack: it meets `intake` only in
//! the store.

mod attempt;
pub mod backoff;
pub mod breaker;
pub mod feed;
pub mod handle;
mod mark;
mod numbers;
pub mod outcome;
pub mod worker;
