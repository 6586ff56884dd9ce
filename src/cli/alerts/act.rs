//! `alerts retry` and `alerts cancel`.

use std::{process::ExitCode, time::Duration};

use clap::Args;

use crate::{
    cli::{
        ops_client::{OpsClient, Target},
        output::{complain, say, say_json},
        terminal::{harmless, progress},
    },
    clock::Clock,
    ops::view::{Changed, Destination, Status},
};

/// Interval at which the progress of a change is requested.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Retry deliveries now.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(super) struct Retry {
    /// Ids of alerts, from `alerts list`.
    #[arg(group = "which", value_name = "ID")]
    ids: Vec<String>,
    /// Retry all dead deliveries.
    #[arg(long, group = "which")]
    all_dead: bool,
    /// Route all unrouted alerts again, by the configuration in use.
    #[arg(long, group = "which")]
    all_unrouted: bool,
    /// Only deliveries to this destination [default: all].
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// Cancel waiting or dead deliveries.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(super) struct Cancel {
    /// Ids of alerts, from `alerts list`.
    #[arg(group = "which", value_name = "ID")]
    ids: Vec<String>,
    /// Cancel all dead deliveries of a destination.
    #[arg(long, group = "which", requires = "destination")]
    all_dead: bool,
    /// Cancel all waiting deliveries of a destination, such as one that was removed from the
    /// configuration.
    #[arg(long, group = "which", requires = "destination")]
    all_pending: bool,
    /// Only deliveries to this destination [default: all].
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// A change to deliveries, and how the result is printed.
struct Change {
    verb: &'static str,
    done: &'static str,
    destination: Option<String>,
    json: bool,
}

impl Retry {
    pub(super) async fn run(self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let change = Change {
            verb: "retry",
            done: "to be tried again now",
            destination: self.destination,
            json: self.json,
        };
        match (self.all_dead, self.all_unrouted) {
            (true, _) => change.on_all(client, "dead").await,
            (_, true) => change.on_all(client, "unrouted").await,
            (false, false) => change.on(client, self.ids).await,
        }
    }
}

impl Cancel {
    pub(super) async fn run(self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let change = Change {
            verb: "cancel",
            done: "cancelled",
            destination: self.destination,
            json: self.json,
        };
        match (self.all_dead, self.all_pending) {
            (true, _) => change.on_all(client, "dead").await,
            (_, true) => change.on_all(client, "pending").await,
            (false, false) => change.on(client, self.ids).await,
        }
    }
}

impl Change {
    fn query(&self) -> Vec<(&'static str, String)> {
        self.destination.iter().map(|name| ("destination", name.clone())).collect()
    }

    /// Changes the alerts one after the other.
    async fn on(self, client: &OpsClient, ids: Vec<String>) -> anyhow::Result<ExitCode> {
        let bar = progress(u64::try_from(ids.len()).unwrap_or(u64::MAX), self.verb);
        if ids.len() < 2 {
            bar.finish_and_clear();
        }
        let mut sum = Changed::default();
        let mut refused = 0_u32;
        for id in &ids {
            match client.post::<Changed>(&["alerts", id, self.verb], &self.query()).await {
                Ok(answer) => sum.join(answer),
                Err(error) => {
                    // The other alerts are changed all the same; the exit code says that one was
                    // refused.
                    refused += 1;
                    bar.suspend(|| complain(&format!("{id}: {error:#}")));
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.print(sum)?;
        Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Changes all deliveries in a state with one request, and shows the progress.
    async fn on_all(self, client: &OpsClient, state: &str) -> anyhow::Result<ExitCode> {
        let total = self.left(client, state).await?;
        let bar = progress(total, self.verb);
        if total < 2 {
            bar.finish_and_clear();
        }
        let mut query = self.query();
        query.push(("state", state.to_owned()));
        let path = ["alerts", self.verb];
        let answer = client.post::<Changed>(&path, &query);
        tokio::pin!(answer);
        // The relay answers only when every delivery is changed, so the progress is read from its
        // status meanwhile. Without a terminal there is no bar, and the relay is not asked.
        let clock = Clock::system();
        let answer = loop {
            tokio::select! {
                answer = answer.as_mut() => break answer?,
                () = clock.sleep(POLL_INTERVAL), if !bar.is_hidden() => {
                    // Only the bar needs this; the relay goes on without it.
                    if let Ok(left) = self.left(client, state).await {
                        bar.set_position(total.saturating_sub(left));
                    }
                }
            }
        };
        bar.finish_and_clear();
        self.print(answer)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the number of deliveries in a state.
    async fn left(&self, client: &OpsClient, state: &str) -> anyhow::Result<u64> {
        let status: Status = client.get(&["status"], &[]).await?;
        let selected = status
            .destinations
            .iter()
            .filter(|one| self.destination.as_ref().is_none_or(|name| *name == one.name));
        let number = |one: &Destination| match state {
            "dead" => one.dead,
            "pending" => one.pending + one.refused,
            // The relay does not count unrouted alerts per destination.
            _ => 0,
        };
        Ok(selected.map(number).sum())
    }

    fn print(&self, answer: Changed) -> anyhow::Result<()> {
        if self.json {
            say_json(&answer)?;
            return Ok(());
        }
        let noun = if answer.changed == 1 { "delivery" } else { "deliveries" };
        say(&format!("{} {noun} {}.", answer.changed, self.done));
        let Some(routed) = answer.routed else {
            return Ok(());
        };
        for (name, alerts) in &routed.by_destination {
            let what = if *alerts == 1 { "alert goes" } else { "alerts go" };
            say(&format!("{alerts} unrouted {what} to {name}."));
        }
        if routed.left > 0 {
            say(&format!("{} stay unrouted: {}.", routed.left, harmless(&routed.reason)));
        }
        Ok(())
    }
}
