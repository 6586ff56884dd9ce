//! The command line; everything is in the library.

use std::process::ExitCode;

/// An incident takes some sixty small allocations: with the system's allocator it costs a fifteenth
/// more CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    slack_soar_relay::cli::main()
}
