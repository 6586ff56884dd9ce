//! `alerts retry` and `alerts cancel`

use std::{process::ExitCode, time::Duration};

use clap::Args;

use super::{OpsClient, Target};
use crate::{
    cli::{
        complain, say, say_json,
        terminal::{harmless, progress},
    },
    clock::Clock,
    ops::view::{Changed, Destination, Status},
};

/// Between two looks at how far a change has come.
const LOOK: Duration = Duration::from_millis(200);

/// Retry alerts.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(super) struct Retry {
    /// Ids, as `alerts list` shows them.
    #[arg(group = "which", value_name = "ID")]
    ids: Vec<String>,
    /// All that were given up.
    #[arg(long, group = "which")]
    all_dead: bool,
    /// All that no destination wanted: each goes to those that want it now.
    #[arg(long, group = "which")]
    all_unrouted: bool,
    /// Only at this destination [default: at all].
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// Cancel alerts.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(super) struct Cancel {
    /// Ids, as `alerts list` shows them.
    #[arg(group = "which", value_name = "ID")]
    ids: Vec<String>,
    /// All that were given up at a destination.
    #[arg(long, group = "which", requires = "destination")]
    all_dead: bool,
    /// All that wait for a destination, for example one that left the configuration.
    #[arg(long, group = "which", requires = "destination")]
    all_pending: bool,
    /// Only at this destination [default: at all].
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// What is done, and how it is told.
struct Deed {
    verb: &'static str,
    done: &'static str,
    destination: Option<String>,
    json: bool,
}

impl Retry {
    pub(super) async fn run(self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let (destination, json) = (self.destination, self.json);
        let done = "to be tried again now";
        let deed = Deed { verb: "retry", done, destination, json };
        match (self.all_dead, self.all_unrouted) {
            (true, _) => deed.on_all(client, "dead").await,
            (_, true) => deed.on_all(client, "unrouted").await,
            (false, false) => deed.on(client, self.ids).await,
        }
    }
}

impl Cancel {
    pub(super) async fn run(self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let (destination, json) = (self.destination, self.json);
        let deed = Deed { verb: "cancel", done: "cancelled", destination, json };
        match (self.all_dead, self.all_pending) {
            (true, _) => deed.on_all(client, "dead").await,
            (_, true) => deed.on_all(client, "pending").await,
            (false, false) => deed.on(client, self.ids).await,
        }
    }
}

impl Deed {
    fn query(&self) -> Vec<(&'static str, String)> {
        self.destination.iter().map(|name| ("destination", name.clone())).collect()
    }

    /// One after the other; one that is refused does not stop the others.
    async fn on(self, client: &OpsClient, ids: Vec<String>) -> anyhow::Result<ExitCode> {
        let bar = progress(u64::try_from(ids.len()).unwrap_or(u64::MAX), self.verb);
        if ids.len() < 2 {
            bar.finish_and_clear();
        }
        let (mut sum, mut refused) = (Changed::default(), 0_u32);
        for id in &ids {
            match client.post::<Changed>(&["alerts", id, self.verb], &self.query()).await {
                Ok(answer) => sum.join(answer),
                Err(error) => {
                    refused += 1;
                    bar.suspend(|| complain(&format!("{id}: {error:#}")));
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.tell(sum)?;
        Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// All of them in one request; the bar follows how many are left.
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
        let clock = Clock::system();
        let answer = loop {
            tokio::select! {
                answer = answer.as_mut() => break answer?,
                () = clock.sleep(LOOK), if !bar.is_hidden() => {
                    let left = self.left(client, state).await?;
                    bar.set_position(total.saturating_sub(left));
                }
            }
        };
        bar.finish_and_clear();
        self.tell(answer)?;
        Ok(ExitCode::SUCCESS)
    }

    /// How many deliveries are in that state.
    async fn left(&self, client: &OpsClient, state: &str) -> anyhow::Result<u64> {
        let status: Status = client.get(&["status"], &[]).await?;
        let meant = status
            .destinations
            .iter()
            .filter(|one| self.destination.as_ref().is_none_or(|name| *name == one.name));
        let number = |one: &Destination| match state {
            "dead" => one.dead,
            "pending" => one.pending + one.refused,
            // The relay does not count them.
            _ => 0,
        };
        Ok(meant.map(number).sum())
    }

    fn tell(&self, answer: Changed) -> anyhow::Result<()> {
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
