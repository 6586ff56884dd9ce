//! `alerts`: lists stored alerts and acts on them, through the ops API of the running relay.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{options::Common, serve};

mod act;
mod list;
mod review;
mod show;

/// List alerts, and act on them.
#[derive(Args, Debug)]
pub struct Alerts {
    #[command(subcommand)]
    command: AlertsCommand,
}

#[derive(Debug, Subcommand)]
enum AlertsCommand {
    /// List alerts, newest first.
    List(list::List),
    /// Show an alert with its deliveries and every attempt.
    Show(show::Show),
    /// Retry dead, cancelled or waiting deliveries now, and route unrouted alerts.
    Retry(act::Retry),
    /// Turn near misses into alerts: messages that resemble incidents and were not accepted.
    Adopt(review::Adopt),
    /// Cancel waiting or dead deliveries. They are kept and can be retried.
    Cancel(act::Cancel),
}

impl Alerts {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let target = match &self.command {
            AlertsCommand::List(list) => &list.target,
            AlertsCommand::Show(show) => &show.target,
            AlertsCommand::Retry(retry) => &retry.target,
            AlertsCommand::Adopt(adopt) => &adopt.target,
            AlertsCommand::Cancel(cancel) => &cancel.target,
        };
        let client = target.client(common)?;
        serve::runtime()?.block_on(async move {
            match self.command {
                AlertsCommand::List(list) => list.run(&client).await,
                AlertsCommand::Show(show) => show.run(&client).await,
                AlertsCommand::Retry(retry) => retry.run(&client).await,
                AlertsCommand::Adopt(adopt) => adopt.run(&client).await,
                AlertsCommand::Cancel(cancel) => cancel.run(&client).await,
            }
        })
    }
}
