//! `status`: one screen that says whether the running relay needs a person, and for what.

use std::{process::ExitCode, time::Duration};

use anyhow::anyhow;
use clap::Args;

use super::{
    Common, complain,
    ops_client::{OpsClient, Target},
    posters, say, serve,
    terminal::{Colour, Screen, cut, harmless},
};
use crate::{
    clock::{Clock, Timestamp, rough},
    ops::view::{App, Channel, Concern, Destination, Status as View},
};

/// A relay that takes longer is as good as down. Its own limit for the store is shorter.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two screens.
const REFRESH: Duration = Duration::from_secs(2);

/// So many concerns and channels fit a screen; the rest is counted.
const CONCERNS: usize = 8;
const CHANNELS: usize = 5;

/// The longest text of a concern, in characters; `--json` has all of it.
const TEXT_CHARS: usize = 300;

/// The widest name in the table.
const NAME_WIDTH: usize = 24;

/// Show on one screen how the running relay is; exit with 1 if it needs a person.
///
/// It needs one if it is not ready or does not answer, a breaker is open, alerts are dead, refused,
/// orphaned or unrouted, a destination is paused, the newest configuration was refused, history is
/// not read, no request verifies while others are rejected, or Slack did not push an incident of
/// the last 24 hours.
#[derive(Args, Debug)]
pub struct Status {
    /// Show it again every two seconds, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// Print the relay's JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Status {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let client = self.target.client(common)?;
        serve::runtime()?.block_on(async move {
            if self.watch { self.again_and_again(&client).await } else { self.once(&client).await }
        })
    }

    async fn once(&self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let (status, text) = ask(client).await?;
        say(&self.shown(&status, &text)?);
        Ok(if status.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn again_and_again(&self, client: &OpsClient) -> ! {
        let clock = Clock::system();
        loop {
            let shown = match ask(client).await {
                Ok((status, text)) => self.shown(&status, &text),
                Err(error) => Err(error),
            };
            if !self.json {
                Screen::clear();
            }
            match shown {
                Ok(shown) => say(&shown),
                Err(error) => complain(&format!("{error:#}")),
            }
            clock.sleep(REFRESH).await;
        }
    }

    fn shown(&self, status: &View, text: &str) -> anyhow::Result<String> {
        if self.json {
            let value: serde_json::Value = serde_json::from_str(text)?;
            return Ok(serde_json::to_string_pretty(&value)?);
        }
        Ok(screen(status, Screen::narrow(), now(status)))
    }
}

/// Asks for the status, and returns it with the relay's own text.
async fn ask(client: &OpsClient) -> anyhow::Result<(View, String)> {
    let asked = client.get_text(&["status"], &[]);
    let text = tokio::time::timeout(PATIENCE, asked).await.map_err(|_elapsed| {
        anyhow!("the relay does not answer within {} s: is it hung?", PATIENCE.as_secs())
    })??;
    Ok((serde_json::from_str(&text)?, text))
}

/// The relay's time, since this machine's may differ.
pub(super) fn now(status: &View) -> Timestamp {
    status.now.unwrap_or_else(|| Clock::system().now())
}

fn screen(status: &View, screen: Screen, now: Timestamp) -> String {
    let mut lines = vec![headline(status, screen)];
    for concern in status.concerns.iter().take(CONCERNS) {
        lines.push(told(concern, screen));
    }
    if status.concerns.len() > CONCERNS {
        let more = status.concerns.len() - CONCERNS;
        lines.push(format!("  and {more} more: --json shows all"));
    }
    lines.push(String::new());
    lines.extend(store(status, now));
    for app in &status.apps {
        lines.push(pushes(app, screen, now));
        lines.extend(bots(app, screen, now));
        lines.extend(history(app, screen, now));
    }
    lines.push(String::new());
    lines.push(destinations(&status.destinations, screen, now));
    lines.join("\n")
}

fn headline(status: &View, screen: Screen) -> String {
    let people = status.concerns.iter().filter(|concern| concern.needs_person).count();
    let (colour, verdict) = match people {
        0 if status.healthy => (Colour::Green, "ok".to_owned()),
        1 => (Colour::Red, "NOT OK: 1 thing needs a person".to_owned()),
        people => (Colour::Red, format!("NOT OK: {people} things need a person")),
    };
    let uptime = rough(Duration::from_secs(status.uptime_seconds));
    let version = harmless(&status.version);
    format!("{}  (relay {version}, up {uptime})", screen.paint(colour, &verdict))
}

fn told(concern: &Concern, screen: Screen) -> String {
    let Concern { needs_person, about, message, advice, .. } = concern;
    let (mark, colour) = if *needs_person { ("!", Colour::Red) } else { ("-", Colour::Yellow) };
    let about = if about.is_empty() { "the relay" } else { about };
    let text = cut(&harmless(&format!("{about}: {message}")), TEXT_CHARS);
    let message = screen.wrapped("  ", "    ", &text);
    // Painted after it was measured.
    let message = format!("{}{}", screen.paint(colour, mark), message.get(1..).unwrap_or_default());
    format!("{message}\n{}", screen.wrapped("    -> ", "       ", advice))
}

fn store(status: &View, now: Timestamp) -> Vec<String> {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let used = mib(status.store.used_bytes);
    // A database has no limit of its own.
    let left = match mib(status.store.free_bytes) {
        free if free < 1 << 30 => format!(", {free} MiB left"),
        _ => String::new(),
    };
    let since = rough(now.since(status.configuration.in_use_since));
    vec![format!("store          {used} MiB used{left}; configuration in use for {since}")]
}

fn pushes(app: &App, screen: Screen, now: Timestamp) -> String {
    let verified = app.signing.last_verified_at.map_or_else(
        || "no request has verified since the start".to_owned(),
        |at| format!("last verified request {} ago", rough(now.since(at))),
    );
    let missed: u64 =
        app.catch_up.iter().flat_map(|one| &one.channels).map(|one| one.missed_pushes).sum();
    let rest = match &app.catch_up {
        None => "without a bot_token no history is read".to_owned(),
        Some(_) => format!("pushes missed since the start: {missed}"),
    };
    let strangers = match app.signing.strangers {
        0 => String::new(),
        number => format!("; requests of strangers: {number}"),
    };
    let text = format!("{verified}; {rest}{strangers}");
    screen.wrapped(&label(&format!("app {}", app.name)), INDENT, &text)
}

/// The bots that have posted incidents, and what allows only them.
fn bots(app: &App, screen: Screen, now: Timestamp) -> Option<String> {
    let seen = posters::seen(&app.bots, now)?;
    let text = format!("{seen} -> {}", posters::allow(&app.bots));
    Some(screen.wrapped(&label("  posted by"), INDENT, &text))
}

/// What follows a label begins in the same column.
const INDENT: &str = "               ";

fn label(text: &str) -> String {
    format!("{:<14} ", cut(&harmless(text), INDENT.len() - 1))
}

fn history(app: &App, screen: Screen, now: Timestamp) -> Vec<String> {
    let Some(catch_up) = &app.catch_up else {
        return Vec::new();
    };
    let channels = &catch_up.channels;
    let line = |channel: &Channel| {
        let name = if channel.name.is_empty() { &channel.id } else { &channel.name };
        let read = match channel.last_success_at {
            Some(at) => format!("history read {} ago", rough(now.since(at))),
            None => "history never read since the start".to_owned(),
        };
        let archived = if channel.archived { ", archived" } else { "" };
        screen.wrapped(&label(&format!("  {name}")), INDENT, &format!("{read}{archived}"))
    };
    let mut lines: Vec<String> = channels.iter().take(CHANNELS).map(line).collect();
    if channels.len() > CHANNELS {
        lines.push(format!("{INDENT}and {} more channels", channels.len() - CHANNELS));
    }
    lines
}

/// The table of destinations, which fits the screen.
pub(super) fn destinations(all: &[Destination], screen: Screen, now: Timestamp) -> String {
    if all.is_empty() {
        return "no destination: alerts are stored and go nowhere".to_owned();
    }
    let row = |one: &Destination| {
        let state = state(one);
        let plain = |text: String| (text, Colour::Plain);
        let age = |at: Option<Timestamp>| at.map_or("-".to_owned(), |at| rough(now.since(at)));
        let dead = if one.dead > 0 { Colour::Red } else { Colour::Plain };
        vec![
            plain(cut(&harmless(&one.name), NAME_WIDTH)),
            (state.to_owned(), Colour::of(state)),
            plain((one.pending + one.leased).to_string()),
            plain(one.refused.to_string()),
            (one.dead.to_string(), dead),
            plain(age(one.oldest_pending_at)),
            plain(remark(one, now)),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let head = ["DESTINATION", "STATE", "WAITING", "REFUSED", "DEAD", "OLDEST", ""];
    screen.table(&head, &rows)
}

/// The word for a destination in the table.
fn state(one: &Destination) -> &'static str {
    match one {
        one if !one.configured => "orphaned",
        one if one.pause.is_some() || one.paused => "paused",
        one if one.breaker_open => "failing",
        one if one.refused > 0 => "refused",
        one if one.read => "read",
        _ => "ok",
    }
}

/// The end of a pause, the next try, or the newest failure: whatever matters most.
fn remark(one: &Destination, now: Timestamp) -> String {
    if let Some(pause) = &one.pause {
        let end = pause
            .until
            .map_or("no end".to_owned(), |until| format!("{} left", rough(until.since(now))));
        return if pause.reason.is_empty() { end } else { format!("{end}: {}", pause.reason) };
    }
    if let Some(breaker) = &one.breaker {
        return format!("next try in {}", rough(breaker.next_try_at.since(now)));
    }
    if one.read {
        let at = one.last_read_at.map(|at| format!("read {} ago", rough(now.since(at))));
        return at.unwrap_or_else(|| "never read".to_owned());
    }
    match &one.last_failure {
        None => String::new(),
        Some(failure) => {
            let ago = rough(now.since(failure.started_at));
            let status = failure.status.map(|status| format!(" {status}")).unwrap_or_default();
            format!("failed {ago} ago:{status} {}", failure.class)
        }
    }
}
