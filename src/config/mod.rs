//! The configuration: one YAML file, validated completely before anything starts.
//!
//! `cli` loads the file and hands each component its own settings; no other module uses this one.
//! The file is parsed into a tree with positions, validated against the published schema, and only
//! then deserialized and resolved. Every problem found on the way is reported, not just the first.

mod checked;
mod destinations;
mod file;
mod load;
mod problem;
mod recover;
mod reference;
mod resolve;
mod salvage;
mod sanity;
mod schema;
mod slack;
mod sources;
mod tree;
mod units;

pub use self::{
    checked::{AppConfig, Config, DestinationConfig, PostgresConfig, ServerConfig, StoreConfig},
    load::{Loaded, load, load_again, parse},
    problem::{Problem, Problems},
    reference::reference,
    salvage::{Salvaged, salvage},
    schema::schema,
    sources::{Fingerprint, Sources},
    units::duration,
};

/// A commented configuration with every key. Lines that are commented out show the defaults.
pub const EXAMPLE: &str = include_str!("../../deploy/relay.example.yaml");

#[cfg(test)]
mod tests;
