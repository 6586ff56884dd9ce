//! `doctor`: what a configuration cannot say, tried live. One line a check, and for each fault
//! what to do about it, in words for somebody who never made a Slack app. It writes nothing but a
//! file of a few kilobytes beside the store, or a number in PostgreSQL, and works while the relay
//! runs.

mod destinations;
mod relay;
mod slack;
mod store;

use std::{path::Path, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{Common, say, say_json, serve};
use crate::config::{Problem, Salvaged};

/// Check live: store, disk, clock, Slack and destinations.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    /// What was looked at.
    check: String,
    /// What was found.
    message: String,
    /// What to do, or empty.
    advice: String,
}

impl Finding {
    fn ok(check: &str, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, check, message.into(), String::new())
    }

    fn warn(check: &str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Level::Warn, check, message.into(), advice.into())
    }

    fn fail(check: &str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Level::Fail, check, message.into(), advice.into())
    }

    fn new(level: Level, check: &str, message: String, advice: String) -> Self {
        Self { level, check: check.to_owned(), message, advice }
    }
}

/// What Slack tells nobody, so that no check can.
const BY_HAND: &str = "whether Delayed Events is on cannot be asked: open \
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

/// Returns the mistakes of the configuration file. The other checks go on without what is wrong.
fn configuration(path: &Path, salvaged: &Salvaged) -> Vec<Finding> {
    const CHECK: &str = "configuration";
    let finding = |problem: &Problem| {
        let advice = problem.hint.clone().unwrap_or_default();
        let message = Problem { hint: None, ..problem.clone() }.in_file(path);
        if problem.is_of_environment {
            let advice = "the relay has it in its own environment, or does not start; set it here \
                          to have what needs it checked";
            Finding::warn(CHECK, message, advice)
        } else {
            Finding::fail(CHECK, message, advice)
        }
    };
    if salvaged.problems.is_empty() {
        let remarks = match salvaged.warnings.len() {
            0 => String::new(),
            1 => "; `check` has 1 remark".to_owned(),
            many => format!("; `check` has {many} remarks"),
        };
        return vec![Finding::ok(CHECK, format!("{} is right{remarks}", path.display()))];
    }
    salvaged.problems.iter().map(finding).collect()
}

async fn examine(common: &Common, salvaged: &Salvaged) -> anyhow::Result<Vec<Finding>> {
    let config = &salvaged.config;
    // Otherwise what is not there may only be unreadable.
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
    findings.extend(relay::examine(common, salvaged).await?);
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
