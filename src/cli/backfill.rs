//! `backfill`: asks the running relay to read history now, through the same pipeline.

use std::process::ExitCode;

use clap::Args;

use super::{Common, ops_client::Target, say, serve};
use crate::{config, ops::view::BackfillReport};

/// Read history again.
#[derive(Args, Debug)]
pub struct Backfill {
    /// How far back, such as 24h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: String,
    /// One channel, by id or by name [default: all].
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// One app [default: all].
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

fn duration(text: &str) -> Result<String, String> {
    let parsed = config::duration(text).map(|_duration| text.to_owned());
    parsed.ok_or_else(|| "use a duration such as 24h or 7d".to_owned())
}

impl Backfill {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let client = self.target.client(common)?;
        let mut query = vec![("since", self.since)];
        query.extend(self.channel.map(|channel| ("channel", channel)));
        query.extend(self.app.map(|app| ("app", app)));
        let report: BackfillReport =
            serve::runtime()?.block_on(client.post(&["backfill"], &query))?;
        if self.json {
            say(&serde_json::to_string_pretty(&report)?);
        } else {
            let BackfillReport { found, new, known } = report;
            say(&format!("{found} found, {new} new, {known} already known"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
