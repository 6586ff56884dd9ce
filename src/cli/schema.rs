//! `schema`: prints the JSON Schema of the configuration file or of alerts.

use std::process::ExitCode;

use clap::Args;

use super::output::say_json;
use crate::{alert, config};

/// Print the JSON Schema of the configuration file, or of alerts.
#[derive(Args, Debug)]
pub struct Schema {
    /// Print the schema of alerts, as they are sent to destinations.
    #[arg(long)]
    alert: bool,
}

impl Schema {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        say_json(&if self.alert { alert::reference::schema() } else { config::schema() })?;
        Ok(ExitCode::SUCCESS)
    }
}
