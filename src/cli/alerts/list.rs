//! `alerts list`: lists alerts, near misses or quarantined bodies.

use std::process::ExitCode;

use clap::Args;

use super::review;
use crate::{
    cli::{
        ops_client::{OpsClient, Target},
        output::{complain, say},
        terminal::{Colour, Screen, harmless, indented},
    },
    clock::{Clock, Timestamp, rough},
    ops::view::{Page, Row},
};

/// List alerts, newest first.
#[derive(Args, Debug)]
pub(super) struct List {
    /// Only alerts with a delivery in this state.
    #[arg(
        long,
        value_parser = [
            "pending", "refused", "leased", "dead", "paused", "orphaned", "delivered", "cancelled",
            "unrouted",
        ],
    )]
    state: Option<String>,
    /// Only alerts of this severity.
    #[arg(long, value_parser = ["informative", "low", "medium", "high", "critical"])]
    severity: Option<String>,
    /// Only alerts whose id, category, script, host or title contains this text.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Maximum number of alerts.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Only alerts older than this number, which the previous list printed at its end.
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
    /// List near misses, messages that resemble incidents and are not alerts, and mark them as
    /// seen.
    #[arg(long, conflicts_with_all = ["state", "severity", "search"])]
    near_misses: bool,
    /// List quarantined bodies, which are authentic and could not be parsed, and mark them as seen.
    #[arg(
        long,
        conflicts_with_all = ["near_misses", "state", "severity", "search", "before", "limit"],
    )]
    quarantine: bool,
    /// Print the relay's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

impl List {
    pub(super) async fn run(self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let query: Vec<_> = [
            ("state", self.state.clone()),
            ("severity", self.severity.clone()),
            ("q", self.search.clone()),
            ("before", self.before.map(|before| before.to_string())),
            ("limit", Some(self.limit.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
        if self.near_misses {
            return review::near_misses(client, &query, self.json).await;
        }
        if self.quarantine {
            return review::quarantine(client, self.json).await;
        }
        if self.json {
            say(&indented(&client.get_text(&["alerts"], &query).await?));
            return Ok(ExitCode::SUCCESS);
        }
        let page: Page = client.get(&["alerts"], &query).await?;
        if page.alerts.is_empty() {
            // Not on standard output, whose lines a script reads as alerts.
            complain("No alerts.");
            return Ok(ExitCode::SUCCESS);
        }
        let now = Clock::system().now();
        let rows: Vec<_> = page.alerts.iter().map(|row| cells(row, now)).collect();
        let head = ["AGE", "SEVERITY", "ID", "DELIVERIES", "SUMMARY"];
        say(&Screen::new().table(&head, &rows));
        if let Some(next) = page.next {
            complain(&format!("There are more; add --before {next} for the next ones."));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn cells(row: &Row, now: Timestamp) -> Vec<(String, Colour)> {
    let states: Vec<&str> = row.deliveries.iter().map(|one| one.state.as_str()).collect();
    let worst =
        ["dead", "refused", "orphaned", "leased", "pending", "paused", "cancelled", "delivered"];
    let worst = worst.into_iter().find(|state| states.contains(state)).unwrap_or("unrouted");
    let deliveries: Vec<String> =
        row.deliveries.iter().map(|one| format!("{} {}", one.destination, one.state)).collect();
    let deliveries =
        if deliveries.is_empty() { "unrouted".to_owned() } else { deliveries.join(", ") };
    vec![
        (rough(now.since(row.received_at)), Colour::Plain),
        (row.severity.clone(), Colour::of(&row.severity)),
        (harmless(&row.id), Colour::Plain),
        (deliveries, Colour::of(worst)),
        (harmless(&row.summary.replace('\n', ", ")), Colour::Plain),
    ]
}
