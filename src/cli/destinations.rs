//! `destinations`: lists, pauses, resumes and tests destinations, through the ops API of the
//! running relay.

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    ops_client::{OpsClient, Target},
    options::Common,
    output::{say, say_json},
    send_test, serve, status,
    terminal::{Screen, harmless},
};
use crate::{
    clock::{Clock, rough},
    code_defender::risk_level::RiskLevel,
    config,
    ops::view::{PauseState, Status},
};

/// List destinations, and act on them.
#[derive(Args, Debug)]
pub struct Destinations {
    #[command(subcommand)]
    command: DestinationsCommand,
}

#[derive(Debug, Subcommand)]
enum DestinationsCommand {
    /// List the destinations with their states, waiting deliveries and pauses.
    List(ListDestinations),
    /// Stop sending to a destination until it is resumed. Alerts wait, and the pause does not count
    /// towards their age.
    Pause(Pause),
    /// Resume sending to a destination.
    Resume(Resume),
    /// Send a test alert directly to a destination, without storing it, and report the result.
    Test(TestDestination),
}

#[derive(Args, Debug)]
struct ListDestinations {
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct Pause {
    /// Name of the destination.
    name: String,
    /// Length of the pause, such as 30m or 2h [default: until `destinations resume`].
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    length: Option<String>,
    /// Reason for the pause, shown wherever the pause is.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct Resume {
    /// Name of the destination.
    name: String,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct TestDestination {
    /// Name of the destination.
    name: String,
    /// Severity of the test alert.
    #[arg(long, default_value = "High", value_parser = send_test::severity)]
    severity: RiskLevel,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Allowance for the time of the answer, so that a pause of `2h` is not shown as `1h`.
const SECOND: Duration = Duration::from_secs(1);

fn duration(text: &str) -> Result<String, String> {
    match config::duration(text) {
        Some(length) if !length.is_zero() => Ok(text.to_owned()),
        Some(_) | None => Err("use a duration such as 30m, 2h or 3d".to_owned()),
    }
}

impl Destinations {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let target = match &self.command {
            DestinationsCommand::List(list) => &list.target,
            DestinationsCommand::Pause(pause) => &pause.target,
            DestinationsCommand::Resume(resume) => &resume.target,
            DestinationsCommand::Test(test) => &test.target,
        };
        let client = target.client(common)?;
        serve::runtime()?.block_on(async move {
            match self.command {
                DestinationsCommand::List(list) => list.run(&client).await,
                DestinationsCommand::Pause(pause) => pause.run(&client).await,
                DestinationsCommand::Resume(resume) => resume.run(&client).await,
                DestinationsCommand::Test(test) => {
                    send_test::to_one(&client, &test.name, test.severity, test.json).await
                }
            }
        })
    }
}

impl ListDestinations {
    async fn run(self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let status: Status = client.get(&["status"], &[]).await?;
        if self.json {
            say_json(&json!({"destinations": status.destinations}))?;
        } else {
            let now = status::now(&status);
            say(&status::destinations(&status, Screen::new(), now));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Pause {
    async fn run(self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let mut query = Vec::new();
        query.extend(self.length.map(|length| ("for", length)));
        query.extend(self.reason.map(|reason| ("reason", reason)));
        let state: PauseState = client.post(&["destinations", &self.name, "pause"], &query).await?;
        print(&state, self.json)
    }
}

impl Resume {
    async fn run(self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let state: PauseState = client.post(&["destinations", &self.name, "resume"], &[]).await?;
        print(&state, self.json)
    }
}

fn print(state: &PauseState, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        say_json(state)?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = &state.destination;
    say(&match &state.pause {
        None => format!("{name} is sent to again."),
        Some(pause) => {
            let left = pause.until.map(|until| rough(until.since(Clock::system().now()) + SECOND));
            let end = left.map_or("until `destinations resume`".to_owned(), |left| {
                format!("for {left}, then it resumes by itself")
            });
            let reason = match pause.reason.as_str() {
                "" => String::new(),
                reason => format!(" ({})", harmless(reason)),
            };
            format!("{name} is paused{reason} {end}.")
        }
    });
    Ok(ExitCode::SUCCESS)
}
