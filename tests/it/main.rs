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
mod documents;
mod events_api;
mod harness;
mod operations;
mod outgoing;
#[cfg(feature = "postgres-tests")]
mod postgres;
mod process;
mod source;
