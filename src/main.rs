//! The command line; everything is in the library.

use std::process::ExitCode;

/// Each incident takes about sixty small allocations: the system's allocator costs it a tenth more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    slack_soar_relay::cli::main()
}
