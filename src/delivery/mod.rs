//! From the store to the destinations: one worker a destination, so that a dead one delays nobody.
//!
//! A worker leases what is due, makes attempts, and records what became of them; a feed waits to be
//! read instead. This module never hears from Slack: it meets `intake` only in the store.

mod attempt;
pub mod backoff;
pub mod breaker;
pub mod feed;
pub mod handle;
mod mark;
mod numbers;
pub mod outcome;
pub mod worker;
