//! Results of checks.

use serde::Serialize;

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warn,
    Fail,
}

/// A check with its result.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// Name of the check.
    pub(super) check: String,
    /// Description of the result.
    pub(super) message: String,
    /// Advice on what to do; empty if nothing.
    pub(super) advice: String,
}

impl Finding {
    pub(super) fn ok(check: &str, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, check, message.into(), String::new())
    }

    pub(super) fn warn(check: &str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Level::Warn, check, message.into(), advice.into())
    }

    pub(super) fn fail(check: &str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Level::Fail, check, message.into(), advice.into())
    }

    pub(super) fn new(level: Level, check: &str, message: String, advice: String) -> Self {
        Self { level, check: check.to_owned(), message, advice }
    }
}
