//! The store in PostgreSQL, for several relays that share one database.
//!
//! Two tasks write accepted messages (`accept`) and outcomes (`record`), each all that waits in one
//! transaction. Everything else is short transactions on a pool. No transaction is open while the
//! relay does anything else, and no state in memory would have to be shared with another process.

mod accept;
mod batch;
mod catch_up;
pub mod checkup;
mod connect;
mod cursor;
mod database;
mod deliver;
mod error;
mod feed;
mod import;
mod inbox;
mod journal;
mod layout;
mod open;
mod operate;
mod pause;
mod poller;
mod poster;
mod record;
mod reschedule;
mod retain;
mod review;
mod row;
mod settings;
mod shared;
mod store;
#[cfg(test)]
#[cfg(feature = "postgres-tests")]
mod tests;
mod view;
mod watch;

pub(in crate::store) use self::import::Import;
pub use self::{connect::Url, error::OpenError, settings::Settings, store::PostgresStore};
