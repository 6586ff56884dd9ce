//! Prints results to standard output and messages to standard error.

use std::io::{Write, stdout};

use serde::Serialize;

use super::terminal;
use crate::logging;

/// Prints a line of the result, with control characters escaped; JSON keeps its meaning. Ignores
/// errors, since a closed pipe is not a failure of the command.
pub(super) fn say(line: &str) {
    drop(writeln!(stdout(), "{}", terminal::safe(line)));
}

/// Prints indented JSON, the form that all commands use.
pub(super) fn say_json(value: &impl Serialize) -> anyhow::Result<()> {
    say(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints a line to standard error, with control characters escaped.
pub(super) fn complain(line: &str) {
    logging::complain(&terminal::safe(line));
}
