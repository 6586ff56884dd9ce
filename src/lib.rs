//! Relays PerimeterX / HUMAN Code Defender incidents from Slack to a SOAR.

pub mod alert;
pub mod cli;
pub mod clock;
pub mod code_defender;
pub mod config;
pub mod delivery;
pub mod destination;
pub mod ground;
pub mod http_client;
pub mod http_server;
pub mod ids;
pub mod intake;
pub mod logging;
pub mod metrics;
pub mod ops;
pub mod secret;
pub mod shutdown;
pub mod slack;
pub mod store;
pub mod text;
pub mod trouble;
