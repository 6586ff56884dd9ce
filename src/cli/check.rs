//! `check`: reports everything that is wrong with the configuration at once.

use std::{path::Path, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};

use super::{
    environment::environment,
    output::{say, say_json},
};
use crate::config::{self, Config, Problem};

/// Validate the configuration.
#[derive(Args, Debug)]
pub struct Check {
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Returns a check that prints lines of text.
    pub(super) const fn text() -> Self {
        Self { json: false }
    }

    pub(super) fn run(&self, path: &Path) -> anyhow::Result<ExitCode> {
        let loaded = config::load(path, &environment);
        let (config, problems, warnings) = match loaded {
            Ok(loaded) => (Some(loaded.config), Vec::new(), loaded.warnings),
            Err(problems) => (None, problems.list, Vec::new()),
        };
        if self.json {
            let result = json!({
                "ok": config.is_some(), "file": path,
                "problems": as_json(&problems), "warnings": as_json(&warnings),
            });
            say_json(&result)?;
        } else {
            print(path, config.as_ref(), &problems, &warnings);
        }
        Ok(if config.is_some() { ExitCode::SUCCESS } else { ExitCode::from(2) })
    }
}

fn print(path: &Path, config: Option<&Config>, problems: &[Problem], warnings: &[Problem]) {
    for problem in problems {
        say(&problem.in_file(path));
    }
    for warning in warnings {
        say(&format!("{} [warning]", warning.in_file(path)));
    }
    if let Some(config) = config {
        let (apps, destinations) = (config.apps.len(), config.destinations.len());
        let file = path.display();
        say(&format!(
            "{file}: ok ({}, {})",
            counted(apps, "app"),
            counted(destinations, "destination")
        ));
    }
}

fn as_json(problems: &[Problem]) -> Vec<Value> {
    let as_json = |problem: &Problem| {
        let (line, column) = problem.position.unzip();
        let Problem { path, message, hint, .. } = problem;
        json!({"line": line, "column": column, "path": path, "message": message, "hint": hint})
    };
    problems.iter().map(as_json).collect()
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
