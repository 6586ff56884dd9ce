//! `destinations`: list, pause, resume and test destinations, through the running relay's ops API.

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Common,
    ops_client::{OpsClient, Target},
    say, say_json, send_test, serve, status,
    terminal::{Screen, harmless},
};
use crate::{
    clock::{Clock, rough},
    code_defender::risk_level::RiskLevel,
    config,
    ops::view::{PauseState, Status},
};

/// Look at destinations, and act on them.
#[derive(Args, Debug)]
pub struct Destinations {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the destinations: state, what waits, pauses.
    List(List),
    /// Send nothing to a destination until it is resumed; alerts wait, and grow no older.
    Pause(Pause),
    /// Send to a destination again.
    Resume(Resume),
    /// Send a test alert to one destination now, past the store, and report.
    Test(Test),
}

#[derive(Args, Debug)]
struct List {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct Pause {
    /// The destination.
    name: String,
    /// How long, such as 30m or 2h; then it resumes by itself [default: until it is resumed].
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    length: Option<String>,
    /// Why: shown wherever the pause is.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct Resume {
    /// The destination.
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct Test {
    /// The destination.
    name: String,
    /// The severity of the test alert.
    #[arg(long, default_value = "High", value_parser = send_test::severity)]
    severity: RiskLevel,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// The answer took a moment: `2h` is not to be shown as `1h`.
const SECOND: Duration = Duration::from_secs(1);

fn duration(text: &str) -> Result<String, String> {
    match config::duration(text) {
        Some(length) if !length.is_zero() => Ok(text.to_owned()),
        Some(_) | None => Err("use a duration such as 30m, 2h or 3d".to_owned()),
    }
}

impl Destinations {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let target = match &self.what {
            What::List(list) => &list.target,
            What::Pause(pause) => &pause.target,
            What::Resume(resume) => &resume.target,
            What::Test(test) => &test.target,
        };
        let client = target.client(common)?;
        serve::runtime()?.block_on(async move {
            match self.what {
                What::List(list) => list.run(&client).await,
                What::Pause(pause) => pause.run(&client).await,
                What::Resume(resume) => resume.run(&client).await,
                What::Test(test) => {
                    send_test::to_one(&client, &test.name, test.severity, test.json).await
                }
            }
        })
    }
}

impl List {
    async fn run(self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let status: Status = client.get(&["status"], &[]).await?;
        if self.json {
            say_json(&json!({"destinations": status.destinations}))?;
        } else {
            let now = status::now(&status);
            say(&status::destinations(&status.destinations, Screen::new(), now));
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
        tell(&state, self.json)
    }
}

impl Resume {
    async fn run(self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let state: PauseState = client.post(&["destinations", &self.name, "resume"], &[]).await?;
        tell(&state, self.json)
    }
}

fn tell(state: &PauseState, json: bool) -> anyhow::Result<ExitCode> {
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
