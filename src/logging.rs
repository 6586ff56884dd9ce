//! Log lines: text for a person, JSON for a machine, always on standard error.

use std::{error::Error, io, str::FromStr};

use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is not a log format: use text or json")),
        }
    }
}

/// Sends the log of the whole process to standard error. `level` is `info`, or a filter such as
/// `info,slack_soar_relay::delivery=debug`.
///
/// # Errors
/// The level is not one, or logging has already begun.
pub fn init(format: Format, level: &str, colour: bool) -> Result<(), Box<dyn Error + Send + Sync>> {
    let filter = EnvFilter::try_new(level)?;
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        Format::Text => lines.with_ansi(colour).with_target(false).finish().try_init()?,
        Format::Json => lines.json().flatten_event(true).with_target(true).finish().try_init()?,
    }
    Ok(())
}

/// An error with its causes, in one line.
///
/// ```
/// let error = std::io::Error::other("no space left");
/// assert_eq!(slack_soar_relay::logging::chain(&error), "no space left");
/// ```
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
