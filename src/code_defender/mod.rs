//! Recognising Code Defender incidents in Slack messages and reading them. Pure.
//!
//! [`matcher`] decides whether a message holds incidents, `survey` looks for them outside the known
//! layout, [`incident`] reads one, and [`risk_level`] reads the severity. No incident is refused
//! because one of its fields cannot be read.

pub mod incident;
mod labels;
mod links;
pub mod matcher;
mod prefilter;
pub mod risk_level;
pub mod settings;
mod subtypes;
mod survey;
pub mod verdict;
