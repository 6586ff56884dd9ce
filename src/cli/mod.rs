//! The command line, one file per subcommand. [`serve`] is the composition root.
//!
//! Results go to standard output, the log to standard error. Exit codes: 0 success, 1 failure, 2
//! invalid usage or configuration.

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
mod environment;
pub mod explain;
pub mod healthcheck;
pub mod manifest;
pub mod migrate_store;
mod moment;
mod open_store;
mod ops_client;
mod options;
mod output;
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

use std::{process::ExitCode, sync::Arc};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

use self::{
    environment::environment,
    options::{BadConfiguration, Common, default_format},
    output::say,
    serve::ConfigFile,
};
use crate::logging::{self, Format};

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

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay until SIGTERM or Ctrl-C.
    Serve,
    /// Create a first configuration from a few questions, and check it.
    Setup(setup::Setup),
    /// Show the relay at work with a pretend SOAR, without configuration and network.
    Demo(demo::Demo),
    /// Validate the configuration, and print every problem with its line.
    Check(check::Check),
    /// Check the live environment: store, clock, Slack and destinations.
    Doctor(doctor::Doctor),
    /// Print the manifest of the Slack app that the configuration needs.
    Manifest(manifest::Manifest),
    /// Print the JSON Schema of the configuration file, or of alerts.
    Schema(schema::Schema),
    /// Print the request that would be sent to a destination for a message.
    Render(render::Render),
    /// Show the state of the running relay on one screen. Exits with 1 if it needs attention.
    Status(status::Status),
    /// List, pause, resume or test destinations, through the running relay.
    Destinations(destinations::Destinations),
    /// Explain whether a message would become an alert, and where it would be sent.
    Explain(explain::Explain),
    /// List, show, retry or cancel alerts, through the running relay.
    Alerts(alerts::Alerts),
    /// Send a test incident through the running relay, and report the result.
    SendTest(send_test::SendTest),
    /// Make the running relay read the channels' history again.
    Backfill(backfill::Backfill),
    /// Copy the store, even while the relay is running.
    Backup(backup::Backup),
    /// Move a stopped relay's store from SQLite to PostgreSQL.
    MigrateStore(migrate_store::MigrateStore),
    /// Print a completion script for a shell.
    Completions(completions::Completions),
    /// Print the man page.
    Man(completions::Man),
    /// Check whether the running relay is ready. Exits with 0 if it is.
    Healthcheck(healthcheck::Healthcheck),
}

/// Returns the reference of the command line as Markdown.
pub fn reference() -> String {
    reference::page(Cli::command())
}

/// Parses the command line, runs the subcommand, and returns the exit code.
pub fn main() -> ExitCode {
    let Cli { common, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            // Clap would print the subcommand's name, but there is only one version.
            say(concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let is_help = !error.use_stderr();
            drop(error.print());
            return if is_help { ExitCode::SUCCESS } else { ExitCode::from(2) };
        }
    };
    // The errors of `serve` are part of its log; those of other commands are for a person.
    let is_serve = matches!(command, Command::Serve);
    let default = if is_serve { default_format() } else { Format::Text };
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
            // At the usual level the log would be mixed with the steps that the demo prints.
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
        Command::Completions(completions) => Ok(completions.run(Cli::command())),
        Command::Man(man) => man.run(Cli::command()),
        Command::Healthcheck(healthcheck) => healthcheck.run(common),
    }
}
