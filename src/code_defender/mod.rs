//! What a Code Defender incident looks like, once Slack's wire format is read. Pure.
//!
//! [`matcher`] tells incidents from everything else, [`incident`] reads one, [`risk_level`] its
//! severity. Nothing here refuses an incident for a field that it cannot read.

pub mod incident;
pub mod layout;
pub mod matcher;
pub mod risk_level;
