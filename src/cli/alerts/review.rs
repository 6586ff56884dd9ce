//! `alerts list --near-misses`, `alerts list --quarantine` and `alerts adopt`.

use std::process::ExitCode;

use clap::Args;

use crate::{
    cli::{
        ops_client::{OpsClient, Target},
        output::{complain, say, say_json},
        terminal::{Colour, Screen, harmless, indented},
    },
    clock::{Clock, rough},
    ops::view::{Adopted, NearMisses, Quarantine},
};

/// Turn near misses into alerts.
#[derive(Args, Debug)]
pub(super) struct Adopt {
    /// Ids of near misses, from `alerts list --near-misses`.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

impl Adopt {
    /// Adopts the near misses one after the other.
    pub(super) async fn run(self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let mut sum = Adopted { changed: 0, alert_ids: Vec::new() };
        let mut refused = 0_u32;
        for id in &self.ids {
            match client.post::<Adopted>(&["near-misses", id, "adopt"], &[]).await {
                Ok(adopted) => {
                    sum.changed += adopted.changed;
                    sum.alert_ids.extend(adopted.alert_ids);
                }
                Err(error) => {
                    // The others are adopted all the same; the exit code says that one was refused.
                    refused += 1;
                    complain(&format!("{id}: {error:#}"));
                }
            }
        }
        if self.json {
            say_json(&sum)?;
        } else {
            let noun = if sum.changed == 1 { "alert" } else { "alerts" };
            say(&format!("{} new {noun}.", sum.changed));
            for id in &sum.alert_ids {
                say(&harmless(id));
            }
        }
        Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Lists the stored near misses.
pub(super) async fn near_misses(
    client: &OpsClient,
    query: &[(&str, String)],
    json: bool,
) -> anyhow::Result<ExitCode> {
    if json {
        say(&indented(&client.get_text(&["near-misses"], query).await?));
        return Ok(ExitCode::SUCCESS);
    }
    let page: NearMisses = client.get(&["near-misses"], query).await?;
    if page.near_misses.is_empty() {
        complain("No near misses.");
        return Ok(ExitCode::SUCCESS);
    }
    let now = Clock::system().now();
    let rows: Vec<Vec<(String, Colour)>> = page
        .near_misses
        .iter()
        .map(|one| {
            let state = match (one.adopted, one.unread) {
                (true, _) => "adopted",
                (false, true) => "new",
                (false, false) => "seen",
            };
            let bot = if one.bot_id.is_empty() { &one.app_id } else { &one.bot_id };
            vec![
                (rough(now.since(one.received_at)), Colour::Plain),
                (state.to_owned(), Colour::Plain),
                (harmless(&one.reason), Colour::Plain),
                (harmless(bot), Colour::Plain),
                (harmless(&one.id), Colour::Plain),
                (harmless(&one.summary.replace('\n', ", ")), Colour::Plain),
            ]
        })
        .collect();
    say(&Screen::new().table(&["AGE", "STATE", "REASON", "BOT", "ID", "SUMMARY"], &rows));
    if let Some(next) = page.next {
        complain(&format!("There are more; add --before {next} for the next ones."));
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists the quarantined bodies.
pub(super) async fn quarantine(client: &OpsClient, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        say(&indented(&client.get_text(&["quarantine"], &[]).await?));
        return Ok(ExitCode::SUCCESS);
    }
    let page: Quarantine = client.get(&["quarantine"], &[]).await?;
    if page.quarantine.is_empty() {
        complain("No quarantined bodies.");
        return Ok(ExitCode::SUCCESS);
    }
    let now = Clock::system().now();
    let rows: Vec<Vec<(String, Colour)>> = page
        .quarantine
        .iter()
        .map(|one| {
            vec![
                (rough(now.since(one.received_at)), Colour::Plain),
                (if one.unread { "new" } else { "seen" }.to_owned(), Colour::Plain),
                (one.id.to_string(), Colour::Plain),
                (one.app.clone(), Colour::Plain),
                (one.bytes.to_string(), Colour::Plain),
                (harmless(&one.body), Colour::Plain),
            ]
        })
        .collect();
    say(&Screen::new().table(&["AGE", "STATE", "ID", "APP", "BYTES", "BEGINNING"], &rows));
    Ok(ExitCode::SUCCESS)
}
