//! Options of every subcommand: the configuration file and the log.

use std::{
    io::{IsTerminal, stderr},
    path::PathBuf,
};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::{environment::environment, output::complain};
use crate::{
    config::{self, Loaded, Salvaged},
    logging::{self, Format},
};

/// Options of every subcommand.
#[derive(Args, Debug)]
pub(super) struct Common {
    /// Path of the configuration file.
    #[arg(long, global = true, env = "RELAY_CONFIG", value_name = "FILE", help_heading = GLOBAL)]
    pub(super) config: Option<PathBuf>,
    /// Format of the log [default: text on a terminal, otherwise json].
    #[arg(long, global = true, value_parser = log_format(), help_heading = GLOBAL)]
    pub(super) log_format: Option<Format>,
    /// Level of the log: error, warn, info, debug or trace, or a filter per module.
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL", help_heading = GLOBAL)]
    pub(super) log_level: String,
}

/// Help heading of the options of every subcommand.
const GLOBAL: &str = "Global options";

/// Returns a parser with a fixed list of values, which shells can complete.
fn log_format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["text", "json"]).try_map(|word| word.parse::<Format>())
}

/// Path of the configuration file if none is given.
const DEFAULT_CONFIG: &str = "relay.yaml";

/// An invalid configuration or command line, reported with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadConfiguration(pub(super) String);

impl Common {
    pub(super) fn path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG))
    }

    /// Loads the configuration, and logs its warnings.
    pub(super) fn load(&self) -> anyhow::Result<config::Config> {
        Ok(self.load_with_sources()?.0)
    }

    /// Reads the configuration as far as possible, for a command that does not need all of it.
    /// Prints one line of warning if there are problems.
    pub(super) fn salvage(&self) -> Salvaged {
        let path = self.path();
        let salvaged = config::salvage(&path, &environment);
        if let Some(first) = salvaged.problems.first() {
            let more = match salvaged.problems.len() - 1 {
                0 => String::new(),
                1 => "; and 1 more problem".to_owned(),
                more => format!("; and {more} more problems"),
            };
            let line = format!("{}{more} (`check` lists all)", first.in_file(&path));
            match self.log_format {
                Some(Format::Json) => logging::say(Format::Json, "WARN", &line),
                Some(Format::Text) | None => complain(&format!("warning: {line}")),
            }
        }
        salvaged
    }

    /// Returns the error for a command that needs an unreadable value, given by its JSON pointer.
    pub(super) fn unusable(&self, salvaged: &Salvaged, pointer: &str) -> anyhow::Error {
        let problem = salvaged.problem_of(pointer);
        BadConfiguration(problem.map_or_else(
            || format!("{}: cannot be read", self.path().display()),
            |problem| problem.in_file(&self.path()),
        ))
        .into()
    }

    pub(super) fn load_with_sources(&self) -> anyhow::Result<(config::Config, config::Sources)> {
        let path = self.path();
        let Loaded { config, warnings, sources } = config::load(&path, &environment)
            .map_err(|problems| BadConfiguration(problems.to_string()))?;
        for warning in warnings {
            tracing::warn!("{}", warning.in_file(&path));
        }
        Ok((config, sources))
    }

    pub(super) fn start_log(&self, level: &str) -> anyhow::Result<()> {
        let no_colour = environment("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = stderr().is_terminal() && !no_colour;
        logging::init(self.log_format.unwrap_or_else(default_format), level, colour)
            .map_err(|error| BadConfiguration(format!("--log-level: {error}")).into())
    }
}

/// Returns the format of the log if `--log-format` is not given.
pub(super) fn default_format() -> Format {
    if stderr().is_terminal() { Format::Text } else { Format::Json }
}
