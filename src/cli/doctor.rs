//! `doctor`: live checks of the environment, one line each. For each fault the line says what to
//! do, in words for a person who has never set up a Slack app.
//!
//! The checks work while the relay is running. They write only a file of a few kilobytes beside the
//! store, or a number in PostgreSQL.

mod destinations;
mod finding;
mod relay;
mod slack;
mod store;

use std::{path::Path, process::ExitCode};

use clap::Args;

use self::finding::{Finding, Level};
use super::{
    options::Common,
    output::{say, say_json},
    serve,
};
use crate::config::{Problem, Salvaged};

/// Check store, disk, clock, Slack and destinations live.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// A setting of Slack that no API tells.
const BY_HAND: &str = "Slack does not tell whether Delayed Events is on: open \
    https://api.slack.com/apps, choose the app, Event Subscriptions, and switch Delayed Events on";

impl Doctor {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        common.start_log("error")?;
        let salvaged = common.salvage();
        let mut findings = configuration(&common.path(), &salvaged);
        findings.extend(serve::runtime()?.block_on(examine(common, &salvaged))?);
        let has_failed = findings.iter().any(|one| one.level == Level::Fail);
        if self.json {
            let result = serde_json::json!({
                "ok": !has_failed, "checks": findings, "by_hand": [BY_HAND],
            });
            say_json(&result)?;
        } else {
            for finding in &findings {
                print(finding);
            }
            say(&format!("      by hand: {BY_HAND}"));
        }
        Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Returns the problems of the configuration file. The other checks use the valid parts of it.
fn configuration(path: &Path, salvaged: &Salvaged) -> Vec<Finding> {
    const CHECK: &str = "configuration";
    let finding = |problem: &Problem| {
        let advice = problem.hint.clone().unwrap_or_default();
        let message = Problem { hint: None, ..problem.clone() }.in_file(path);
        if problem.is_of_environment {
            let advice = "fine if the relay has the variable in its own environment; set it here \
                          too for the checks that need it";
            Finding::warn(CHECK, message, advice)
        } else {
            Finding::fail(CHECK, message, advice)
        }
    };
    if salvaged.problems.is_empty() {
        let warnings = match salvaged.warnings.len() {
            0 => String::new(),
            1 => "; `check` prints 1 warning".to_owned(),
            many => format!("; `check` prints {many} warnings"),
        };
        return vec![Finding::ok(CHECK, format!("{} is valid{warnings}", path.display()))];
    }
    salvaged.problems.iter().map(finding).collect()
}

async fn examine(common: &Common, salvaged: &Salvaged) -> anyhow::Result<Vec<Finding>> {
    let config = &salvaged.config;
    // In an incomplete file a missing value may have been unreadable.
    let is_whole = salvaged.problems.is_empty();
    let mut findings = Vec::new();
    if salvaged.names_a_database == config.store.postgres.is_some()
        && salvaged.has_read("/store/sqlite/path")
    {
        findings.extend(store::examine(&config.store).await);
    }
    for app in &config.apps {
        findings.extend(slack::examine(config, app, is_whole).await?);
    }
    findings.extend(destinations::examine(config, is_whole).await);
    findings.extend(relay::examine(common, salvaged).await);
    Ok(findings)
}

fn print(finding: &Finding) {
    let Finding { level, check, message, advice } = finding;
    let level = match level {
        Level::Ok => "ok  ",
        Level::Warn => "warn",
        Level::Fail => "FAIL",
    };
    let advice = if advice.is_empty() { String::new() } else { format!(" -> {advice}") };
    say(&format!("{level}  {check}: {message}{advice}"));
}
