//! `status`: shows on one screen whether the running relay needs attention, and for what.

use std::{process::ExitCode, time::Duration};

use anyhow::anyhow;
use clap::Args;

use super::{
    ops_client::{OpsClient, Target},
    options::Common,
    output::{complain, say},
    posters, serve,
    terminal::{Colour, Screen, cut, harmless},
};
use crate::{
    clock::{Clock, Timestamp, rough},
    ops::view::{App, Channel, Concern, Destination, Status as View},
};

/// Time limit for the answer, longer than the relay's own limit for requests to its store.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Interval at which `--watch` refreshes the screen.
const REFRESH: Duration = Duration::from_secs(2);

/// Maximum number of concerns that are shown; the others are counted.
const CONCERNS: usize = 8;

/// Maximum number of channels of an app that are shown; the others are counted.
const CHANNELS: usize = 5;

/// Maximum length of a concern's text, in characters. `--json` shows the whole text.
const TEXT_CHARS: usize = 300;

/// Maximum width of a name in the table.
const NAME_WIDTH: usize = 24;

/// Show the state of the running relay on one screen. Exits with 1 if it needs attention.
///
/// The relay needs attention if it is not ready or does not answer, a breaker is open, alerts are
/// dead, refused, orphaned or unrouted, a destination is paused, the newest configuration was
/// refused, history cannot be read, no request verifies while others are rejected, near misses or
/// quarantined bodies are unread, or Slack did not push an incident of the last 24 hours.
#[derive(Args, Debug)]
pub struct Status {
    /// Refresh the screen every two seconds until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// Print the relay's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Status {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let client = self.target.client(common)?;
        serve::runtime()?.block_on(async move {
            if self.watch { self.watch(&client).await } else { self.once(&client).await }
        })
    }

    async fn once(&self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let (status, text) = ask(client).await?;
        say(&self.format(&status, &text)?);
        Ok(if status.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn watch(&self, client: &OpsClient) -> ! {
        let clock = Clock::system();
        loop {
            let shown = match ask(client).await {
                Ok((status, text)) => self.format(&status, &text),
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

    /// Formats the status as JSON or as one screen.
    fn format(&self, status: &View, text: &str) -> anyhow::Result<String> {
        if self.json {
            let value: serde_json::Value = serde_json::from_str(text)?;
            return Ok(serde_json::to_string_pretty(&value)?);
        }
        Ok(screen(status, Screen::narrow(), now(status)))
    }
}

/// Requests the status. Returns it together with the text of the answer.
async fn ask(client: &OpsClient) -> anyhow::Result<(View, String)> {
    let asked = client.get_text(&["status"], &[]);
    let text = tokio::time::timeout(TIMEOUT, asked).await.map_err(|_elapsed| {
        anyhow!("the relay does not answer within {} s: does it hang?", TIMEOUT.as_secs())
    })??;
    Ok((serde_json::from_str(&text)?, text))
}

/// Returns the time of the relay, whose clock may differ from this machine's.
pub(super) fn now(status: &View) -> Timestamp {
    status.now.unwrap_or_else(|| Clock::system().now())
}

fn screen(status: &View, screen: Screen, now: Timestamp) -> String {
    let mut lines = vec![headline(status, screen)];
    for concern in status.concerns.iter().take(CONCERNS) {
        lines.push(concern_lines(concern, screen));
    }
    if status.concerns.len() > CONCERNS {
        let more = status.concerns.len() - CONCERNS;
        lines.push(format!("  and {more} more (--json shows all)"));
    }
    lines.push(String::new());
    lines.extend(store(status, now));
    for app in &status.apps {
        lines.push(pushes(app, screen, now));
        lines.extend(bots(app, screen, now));
        lines.extend(history(app, screen, now));
    }
    lines.push(String::new());
    lines.push(destinations(status, screen, now));
    lines.join("\n")
}

fn headline(status: &View, screen: Screen) -> String {
    let urgent = status.concerns.iter().filter(|concern| concern.needs_person).count();
    let (colour, verdict) = match urgent {
        0 if status.healthy => (Colour::Green, "ok".to_owned()),
        1 => (Colour::Red, "NOT OK: 1 problem needs attention".to_owned()),
        urgent => (Colour::Red, format!("NOT OK: {urgent} problems need attention")),
    };
    let uptime = rough(Duration::from_secs(status.uptime_seconds));
    let version = harmless(&status.version);
    format!("{}  (relay {version}, up {uptime})", screen.paint(colour, &verdict))
}

fn concern_lines(concern: &Concern, screen: Screen) -> String {
    let Concern { needs_person, about, message, advice, .. } = concern;
    let (mark, colour) = if *needs_person { ("!", Colour::Red) } else { ("-", Colour::Yellow) };
    let about = if about.is_empty() { "the relay" } else { about };
    let text = cut(&harmless(&format!("{about}: {message}")), TEXT_CHARS);
    let message = screen.wrapped("  ", "    ", &text);
    // The mark is painted after wrapping, which counts characters.
    let message = format!("{}{}", screen.paint(colour, mark), message.get(1..).unwrap_or_default());
    format!("{message}\n{}", screen.wrapped("    -> ", "       ", advice))
}

fn store(status: &View, now: Timestamp) -> Vec<String> {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let used = mib(status.store.used_bytes);
    // The limit of a database is not known; the relay reports a huge number.
    let left = match mib(status.store.free_bytes) {
        free if free < 1 << 30 => format!(", {free} MiB left"),
        _ => String::new(),
    };
    let since = rough(now.since(status.configuration.in_use_since));
    if !status.store.answers {
        return vec![format!("store          does not answer; configuration in use for {since}")];
    }
    vec![format!("store          {used} MiB used{left}; configuration in use for {since}")]
}

fn pushes(app: &App, screen: Screen, now: Timestamp) -> String {
    let verified = app.signing.last_verified_at.map_or_else(
        || "no verified request since the start".to_owned(),
        |at| format!("last verified request {} ago", rough(now.since(at))),
    );
    let missed: u64 =
        app.catch_up.iter().flat_map(|one| &one.channels).map(|one| one.missed_pushes).sum();
    let rest = match &app.catch_up {
        None => "history is not read without a bot_token".to_owned(),
        Some(_) => format!("pushes missed since the start: {missed}"),
    };
    let strangers = match app.signing.strangers {
        0 => String::new(),
        number => format!("; requests without Slack's headers: {number}"),
    };
    let text = format!("{verified}; {rest}{strangers}");
    screen.wrapped(&label(&format!("app {}", app.name)), INDENT, &text)
}

/// Lists the bots that have posted incidents, with the `bots` key that allows only them.
fn bots(app: &App, screen: Screen, now: Timestamp) -> Option<String> {
    let seen = posters::seen(&app.bots, now)?;
    let text = format!("{seen} -> {}", posters::allow(&app.bots));
    Some(screen.wrapped(&label("  posted by"), INDENT, &text))
}

/// Indentation of continuation lines, as wide as a label.
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
            None => "history not read since the start".to_owned(),
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

/// Formats the table of destinations.
pub(super) fn destinations(status: &View, screen: Screen, now: Timestamp) -> String {
    let all = &status.destinations;
    if all.is_empty() {
        return "no destination: alerts are stored and sent nowhere".to_owned();
    }
    // While the store does not answer, nothing is counted; a 0 would say that nothing waits.
    let number = |count: u64| {
        if status.store.answers { count.to_string() } else { "?".to_owned() }
    };
    let row = |one: &Destination| {
        let state = state(one);
        let plain = |text: String| (text, Colour::Plain);
        let age = |at: Option<Timestamp>| at.map_or("-".to_owned(), |at| rough(now.since(at)));
        let dead = if one.dead > 0 { Colour::Red } else { Colour::Plain };
        vec![
            plain(cut(&harmless(&one.name), NAME_WIDTH)),
            (state.to_owned(), Colour::of(state)),
            plain(number(one.pending + one.leased)),
            plain(number(one.refused)),
            (number(one.dead), dead),
            plain(age(one.oldest_pending_at)),
            plain(remark(one, now)),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let head = ["DESTINATION", "STATE", "WAITING", "REFUSED", "DEAD", "OLDEST", ""];
    screen.table(&head, &rows)
}

/// Returns the state of a destination as one word.
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

/// Returns the most important remark about a destination: the end of its pause, the next attempt,
/// or the newest failure.
fn remark(one: &Destination, now: Timestamp) -> String {
    if let Some(pause) = &one.pause {
        let end = pause.until.map_or("until resumed".to_owned(), |until| {
            format!("{} left", rough(until.since(now)))
        });
        return if pause.reason.is_empty() { end } else { format!("{end}: {}", pause.reason) };
    }
    if let Some(breaker) = &one.breaker {
        return format!("next attempt in {}", rough(breaker.next_try_at.since(now)));
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
