//! `backfill`: makes the running relay read history now, through the same pipeline as pushes, or
//! mark the history's incidents as known.

use std::process::ExitCode;

use clap::Args;

use super::{
    moment,
    ops_client::Target,
    options::Common,
    output::{say, say_json},
    serve,
};
use crate::ops::view::{BackfillReport, Unread};

/// Read the channels' history again.
#[derive(Args, Debug)]
pub struct Backfill {
    /// Start of the period: a duration before now such as 24h, or a time (RFC 3339, seconds or
    /// milliseconds since 1970, or the timestamp of a message).
    #[arg(long, value_name = "TIME", value_parser = since, required_unless_present = "mark_known")]
    since: Option<String>,
    /// End of the period, inclusive, in the same forms [default: now].
    #[arg(long, value_name = "TIME", value_parser = until)]
    until: Option<String>,
    /// Only mark the incidents as known without delivering them, since another tool has.
    #[arg(long, requires = "until")]
    mark_known: bool,
    /// Only this channel, by id or by name [default: all].
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Only this app [default: all].
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

fn since(text: &str) -> Result<String, String> {
    moment::since(text).map(|_moment| text.to_owned())
}

fn until(text: &str) -> Result<String, String> {
    moment::until(text).map(|_moment| text.to_owned())
}

impl Backfill {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let client = self.target.client(common)?;
        let mut query = Vec::new();
        query.extend(self.since.map(|since| ("since", since)));
        query.extend(self.until.map(|until| ("until", until)));
        query.extend(self.mark_known.then(|| ("mark_known", true.to_string())));
        query.extend(self.channel.map(|channel| ("channel", channel)));
        query.extend(self.app.map(|app| ("app", app)));
        let report: BackfillReport =
            serve::runtime()?.block_on(client.post(&["backfill"], &query))?;
        if self.json {
            say_json(&report)?;
        } else {
            let BackfillReport { found, new, known, marked, ref failures } = report;
            let done = if self.mark_known {
                format!("{marked} marked as known")
            } else {
                format!("{new} new")
            };
            say(&format!("{found} found, {done}, {known} already known"));
            for Unread { app, channel, problem } in failures {
                let source = match channel.as_str() {
                    "" => format!("the channels of app {app}"),
                    channel => format!("channel {channel} of app {app}"),
                };
                say(&format!("not read: {source}: {problem}"));
            }
        }
        // Channels that were read are stored even if others failed; the exit code says that some
        // part of the history is missing.
        Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
