//! Writes the page of the destinations: `cargo run --example destinations-page >
//! docs/destinations.md`, after a preset was changed.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().write_all(slack_soar_relay::destination::reference::page().as_bytes())
}
