//! One integration-test binary: the relay as the outside sees it, over loopback sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::float_cmp,
    reason = "a failed step is a failed test"
)]

mod architecture;
mod bad_input;
mod catch_up;
mod channel_ids;
mod conformance;
mod disk;
mod documents;
mod doubt;
mod events_api;
mod faulty_file;
mod feed;
mod first_setup;
mod guides;
mod harness;
mod history;
mod imports;
mod kinds;
mod operate;
mod operations;
mod ops_api;
mod outages;
mod outcomes;
mod outgoing;
mod peers;
mod posters;
#[cfg(feature = "postgres-tests")]
mod postgres;
mod process;
mod reload;
mod secrets;
mod setup;
mod shells;
mod siemplify;
mod signing;
mod source;
mod status;
mod strangers;
mod troubles;
mod web_api;
mod words;
