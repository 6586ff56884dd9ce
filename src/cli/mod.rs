//! The command line: one file a subcommand. [`serve`] puts the parts together.
//!
//! Results go to standard output, the log to standard error. Exit codes: 0 ok, 1 failed, 2 usage or
//! configuration.

pub mod alerts;
pub mod backfill;
pub mod backup;
mod catch_up;
pub mod check;
pub mod completions;
mod control;
pub mod demo;
pub mod destinations;
pub mod doctor;
pub mod explain;
pub mod healthcheck;
pub mod manifest;
pub mod migrate_store;
mod moment;
mod open_store;
mod ops_client;
mod posters;
mod reference;
pub mod render;
mod review;
mod sample;
pub mod schema;
pub mod send_test;
pub mod serve;
pub mod setup;
pub mod status;
mod terminal;

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};

use serde::Serialize;

pub use self::reference::reference;
use self::serve::ConfigFile;
use crate::{
    config::{self, Loaded, Salvaged},
    logging::{self, Format},
};

/// Relays PerimeterX / HUMAN Code Defender incidents from Slack to a SOAR.
#[derive(Debug, Parser)]
#[command(name = "slack-soar-relay", version, about)]
#[command(arg_required_else_help = true, propagate_version = true)]
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
    #[arg(long, global = true, env = "RELAY_CONFIG", value_name = "FILE", help_heading = GLOBAL)]
    config: Option<PathBuf>,
    /// How log lines look [default: text on a terminal, else json].
    #[arg(long, global = true, value_parser = log_format(), help_heading = GLOBAL)]
    log_format: Option<Format>,
    /// What is logged: error, warn, info, debug or trace, or a filter for each part.
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL", help_heading = GLOBAL)]
    log_level: String,
}

/// The heading of the options that every command takes.
const GLOBAL: &str = "Global options";

/// Returns a parser whose values shells can complete.
fn log_format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["text", "json"]).try_map(|word| word.parse::<Format>())
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay until SIGTERM or Ctrl-C.
    Serve,
    /// Ask for what a first configuration needs, write it, and check it.
    Setup(setup::Setup),
    /// Show the relay at work: no configuration, no network, a pretend SOAR.
    Demo(demo::Demo),
    /// Validate the configuration; print every problem with its line.
    Check(check::Check),
    /// Check live what a configuration cannot say: store, clock, Slack, destinations.
    Doctor(doctor::Doctor),
    /// Print the manifest of the Slack app that the configuration needs.
    Manifest(manifest::Manifest),
    /// Print the JSON Schema of the configuration file, or of alerts.
    Schema(schema::Schema),
    /// Print the request that a destination would be sent for a message.
    Render(render::Render),
    /// Show on one screen how the running relay is; exit with 1 if it needs a person.
    Status(status::Status),
    /// Look at destinations and pause, resume or test them, through the running relay.
    Destinations(destinations::Destinations),
    /// Say whether a message would become an alert, where it would go, and why not.
    Explain(explain::Explain),
    /// Look at alerts and act on them, through the running relay.
    Alerts(alerts::Alerts),
    /// Send a test incident through the running relay, and report what became of it.
    SendTest(send_test::SendTest),
    /// Ask the running relay to read the channels' history again.
    Backfill(backfill::Backfill),
    /// Copy the store, while the relay runs or not.
    Backup(backup::Backup),
    /// Move a stopped relay's store from SQLite to PostgreSQL.
    MigrateStore(migrate_store::MigrateStore),
    /// Print a completion script for a shell.
    Completions(completions::Completions),
    /// Print the man page.
    Man(completions::Man),
    /// Ask the running relay whether it is ready; exit with 0 if it is.
    Healthcheck(healthcheck::Healthcheck),
}

/// Where the configuration is if nothing is said.
const DEFAULT_CONFIG: &str = "relay.yaml";

/// A configuration or a command line that is wrong: exit code 2 and not 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadConfiguration(String);

/// Parses the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    let Cli { common, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            // The same everywhere: clap would name the subcommand, which has no version of its own.
            say(concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let is_help = !error.use_stderr();
            drop(error.print());
            return if is_help { ExitCode::SUCCESS } else { ExitCode::from(2) };
        }
    };
    // Its errors are read by whatever reads its log.
    let is_log = matches!(command, Command::Serve);
    let default = if is_log { usual_format() } else { Format::Text };
    match run(&common, command) {
        Ok(code) => {
            logging::flush();
            code
        }
        Err(error) => {
            let format = common.log_format.unwrap_or(default);
            for line in format!("{error:#}").lines() {
                logging::say(format, "ERROR", &terminal::safe(line));
            }
            if error.is::<BadConfiguration>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(common: &Common, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve => {
            common.start_log(&common.log_level)?;
            let (config, sources) = common.load_with_sources()?;
            let env = Arc::new(environment);
            serve::run(config, ConfigFile { path: common.path(), env, sources })
        }
        Command::Demo(demo) => {
            let level = if common.log_level == "info" { "warn" } else { &common.log_level };
            common.start_log(level)?;
            demo.run()
        }
        Command::Setup(setup) => setup.run(common),
        Command::Check(check) => check.run(&common.path()),
        Command::Schema(schema) => schema.run(),
        Command::Doctor(doctor) => doctor.run(common),
        Command::Manifest(manifest) => manifest.run(common),
        Command::Render(render) => render.run(common),
        Command::Status(status) => status.run(common),
        Command::Destinations(destinations) => destinations.run(common),
        Command::Explain(explain) => explain.run(common),
        Command::Alerts(alerts) => alerts.run(common),
        Command::SendTest(test) => test.run(common),
        Command::Backfill(backfill) => backfill.run(common),
        Command::Backup(backup) => backup.run(common),
        Command::MigrateStore(migrate) => migrate.run(common),
        Command::Completions(completions) => Ok(completions.run()),
        Command::Man(man) => man.run(),
        Command::Healthcheck(healthcheck) => healthcheck.run(common),
    }
}

impl Common {
    fn path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG))
    }

    /// Loads the configuration; its warnings go to the log.
    fn load(&self) -> anyhow::Result<config::Config> {
        Ok(self.load_with_sources()?.0)
    }

    /// Reads the configuration as far as possible, for a command that does not need all of it. The
    /// problems are one line of warning.
    fn salvage(&self) -> Salvaged {
        let path = self.path();
        let salvaged = config::salvage(&path, &environment);
        if let Some(first) = salvaged.problems.first() {
            let more = match salvaged.problems.len() - 1 {
                0 => String::new(),
                1 => "; and 1 more problem".to_owned(),
                more => format!("; and {more} more problems"),
            };
            let line = format!("{}{more} (`check` shows all)", first.in_file(&path));
            match self.log_format {
                Some(Format::Json) => logging::say(Format::Json, "WARN", &line),
                Some(Format::Text) | None => complain(&format!("warning: {line}")),
            }
        }
        salvaged
    }

    /// Returns the error for a command that needs what the file says at this JSON pointer.
    fn unusable(&self, salvaged: &Salvaged, pointer: &str) -> anyhow::Error {
        let problem = salvaged.problem_of(pointer);
        BadConfiguration(problem.map_or_else(
            || format!("{}: cannot be read", self.path().display()),
            |problem| problem.in_file(&self.path()),
        ))
        .into()
    }

    fn load_with_sources(&self) -> anyhow::Result<(config::Config, config::Sources)> {
        let path = self.path();
        let Loaded { config, warnings, sources } = config::load(&path, &environment)
            .map_err(|problems| BadConfiguration(problems.to_string()))?;
        for warning in warnings {
            tracing::warn!("{}", warning.in_file(&path));
        }
        Ok((config, sources))
    }

    fn start_log(&self, level: &str) -> anyhow::Result<()> {
        let no_colour = environment("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = stderr().is_terminal() && !no_colour;
        logging::init(self.log_format.unwrap_or_else(usual_format), level, colour)
            .map_err(|error| BadConfiguration(format!("--log-level: {error}")).into())
    }
}

/// The format of the log if nothing is said.
fn usual_format() -> Format {
    if stderr().is_terminal() { Format::Text } else { Format::Json }
}

/// The environment's one door. What is not UTF-8 in a value becomes U+FFFD, which no secret may
/// have.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// A line of result. A reader that went away is no failure of ours. Whatever others wrote in it
/// cannot play tricks with a terminal, and JSON stays the same JSON.
fn say(line: &str) {
    drop(writeln!(stdout(), "{}", terminal::safe(line)));
}

/// JSON in the one form that every command prints: indented.
fn say_json(value: &impl Serialize) -> anyhow::Result<()> {
    say(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A line of complaint.
fn complain(line: &str) {
    logging::complain(&terminal::safe(line));
}
