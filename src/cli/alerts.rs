//! `alerts`: look at stored alerts and act on them, through the running relay's ops API.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{
    Common,
    ops_client::{OpsClient, Target},
    serve,
};

mod act;
mod list;
mod review;
mod show;

/// Look at alerts, and act on them.
#[derive(Args, Debug)]
pub struct Alerts {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List alerts, newest first.
    List(list::List),
    /// Show one alert: what is known of it, and every attempt.
    Show(show::Show),
    /// Try again what is dead, cancelled or waiting, and route what is unrouted.
    Retry(act::Retry),
    /// Make alerts of near misses: messages that may be incidents and were not taken.
    Adopt(review::Adopt),
    /// End what is waiting or dead. It is kept, and can be retried.
    Cancel(act::Cancel),
}

impl Alerts {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let target = match &self.what {
            What::List(list) => &list.target,
            What::Show(show) => &show.target,
            What::Retry(retry) => &retry.target,
            What::Adopt(adopt) => &adopt.target,
            What::Cancel(cancel) => &cancel.target,
        };
        let client = target.client(common)?;
        serve::runtime()?.block_on(async move {
            match self.what {
                What::List(list) => list.run(&client).await,
                What::Show(show) => show.run(&client).await,
                What::Retry(retry) => retry.run(&client).await,
                What::Adopt(adopt) => adopt.run(&client).await,
                What::Cancel(cancel) => cancel.run(&client).await,
            }
        })
    }
}
