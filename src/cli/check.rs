//! `check`: everything that is wrong with the configuration, in one go.

use std::{path::Path, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{environment, say};
use crate::config::{self, Config, Problem};

/// Validate the configuration.
#[derive(Args, Debug)]
pub struct Check {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, path: &Path) -> anyhow::Result<ExitCode> {
        let loaded = config::load(path, &environment);
        let (config, problems, warnings) = match loaded {
            Ok(loaded) => (Some(loaded.config), Vec::new(), loaded.warnings),
            Err(problems) => (None, problems.list, Vec::new()),
        };
        if self.json {
            let result = json!({
                "ok": config.is_some(), "problems": problems, "warnings": warnings,
            });
            say(&serde_json::to_string_pretty(&result)?);
        } else {
            print(path, config.as_ref(), &problems, &warnings);
        }
        Ok(if config.is_some() { ExitCode::SUCCESS } else { ExitCode::from(2) })
    }
}

fn print(path: &Path, config: Option<&Config>, problems: &[Problem], warnings: &[Problem]) {
    let file = path.display();
    for problem in problems {
        say(&format!("{file}:{problem}"));
    }
    for warning in warnings {
        say(&format!("{file}:{warning} [warning]"));
    }
    if let Some(config) = config {
        let (apps, destinations) = (config.apps.len(), config.destinations.len());
        say(&format!("{file}: ok ({}, {})", many(apps, "app"), many(destinations, "destination")));
    }
}

fn many(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
