//! The command line: one file a subcommand. [`serve`] puts the parts together.
//!
//! Results go to standard output, the log to standard error. Exit codes: 0 ok, 1 failed, 2 usage or
//! configuration.

pub mod check;
pub mod demo;
pub mod migrate_store;
mod open_store;
pub mod render;
mod sample;
pub mod serve;

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{self, Loaded},
    logging::{self, Format},
};

/// Relays PerimeterX / HUMAN Code Defender incidents from Slack to a SOAR.
#[derive(Debug, Parser)]
#[command(name = "slack-soar-relay", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand takes.
#[derive(Args, Debug)]
pub struct Common {
    /// The configuration file.
    #[arg(long, global = true, env = "RELAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How log lines look [default: text on a terminal, else json].
    #[arg(long, global = true, value_name = "text|json")]
    log_format: Option<Format>,
    /// What is logged: error, warn, info, debug or trace, or a filter for each part.
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL")]
    log_level: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay until SIGTERM or Ctrl-C.
    Serve,
    /// Show the relay at work: no configuration, no network, a pretend SOAR.
    Demo(demo::Demo),
    /// Validate the configuration; print every problem with its line.
    Check(check::Check),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Print the request that a destination would be sent for a message.
    Render(render::Render),
    /// Move a stopped relay's store from SQLite to PostgreSQL.
    MigrateStore(migrate_store::MigrateStore),
}

/// Where the configuration is if nothing is said.
const DEFAULT_CONFIG: &str = "relay.yaml";

/// A configuration that is wrong: exit code 2 and not 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadConfiguration(String);

/// Parses the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    let Cli { common, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = !error.use_stderr();
            drop(error.print());
            return if is_help { ExitCode::SUCCESS } else { ExitCode::from(2) };
        }
    };
    match run(&common, command) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            if error.is::<BadConfiguration>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(common: &Common, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve => {
            common.start_log(&common.log_level)?;
            serve::run(common.load()?)
        }
        Command::Demo(demo) => {
            let level = if common.log_level == "info" { "warn" } else { &common.log_level };
            common.start_log(level)?;
            demo.run()
        }
        Command::Check(check) => check.run(&common.path()),
        Command::Schema => {
            say(&serde_json::to_string_pretty(&config::schema())?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Render(render) => render.run(common),
        Command::MigrateStore(migrate) => {
            common.start_log(&common.log_level)?;
            migrate.run(&common.load()?)
        }
    }
}

impl Common {
    fn path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG))
    }

    /// Loads the configuration; its warnings go to the log.
    fn load(&self) -> anyhow::Result<config::Config> {
        let path = self.path();
        let Loaded { config, warnings } = config::load(&path, &environment)
            .map_err(|problems| BadConfiguration(problems.to_string()))?;
        for warning in warnings {
            tracing::warn!("{}:{warning}", path.display());
        }
        Ok(config)
    }

    fn start_log(&self, level: &str) -> anyhow::Result<()> {
        let is_terminal = stderr().is_terminal();
        let text = if is_terminal { Format::Text } else { Format::Json };
        let colour = is_terminal && environment("NO_COLOR").is_none_or(|value| value.is_empty());
        logging::init(self.log_format.unwrap_or(text), level, colour)
            .map_err(|error| BadConfiguration(format!("--log-level: {error}")).into())
    }
}

/// The environment's one door. A value that is not UTF-8 is as good as none.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A line of result. A reader that went away is no failure of ours.
fn say(line: &str) {
    drop(writeln!(stdout(), "{line}"));
}

/// A line of complaint.
fn complain(line: &str) {
    drop(writeln!(stderr(), "{line}"));
}
