//! `alerts show`: shows one alert with its deliveries and attempts.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::{
    cli::{
        ops_client::{OpsClient, Target},
        output::say,
        terminal::{Colour, Screen, harmless, indented},
    },
    clock::{Clock, Timestamp, rough},
    ops::view::{Attempt, Delivery, Detail},
};

/// Show an alert with its deliveries and every attempt.
#[derive(Args, Debug)]
pub(super) struct Show {
    /// Id of the alert, from `alerts list`.
    id: String,
    /// Print the relay's answer as JSON, with the raw message and the whole alert.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

impl Show {
    pub(super) async fn run(self, client: &OpsClient) -> anyhow::Result<ExitCode> {
        let text = client.get_text(&["alerts", &self.id], &[]).await?;
        if self.json {
            say(&indented(&text));
            return Ok(ExitCode::SUCCESS);
        }
        let detail: Detail = serde_json::from_str(&text)?;
        let screen = Screen::new();
        let now = Clock::system().now();
        about(&detail, screen, now);
        for delivery in &detail.row.deliveries {
            say("");
            say(&headline(delivery, screen, now));
            match delivery.attempts.as_deref() {
                None | Some([]) => say(&format!("  {}", unattempted(&delivery.state))),
                Some(all) => attempts(all, screen),
            }
        }
        if detail.row.deliveries.is_empty() {
            say("\nunrouted: no destination accepted the alert");
            say("  `alerts retry` routes it again, by the configuration in use");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn about(detail: &Detail, screen: Screen, now: Timestamp) {
    let row = &detail.row;
    // An alert whose message cannot be mapped is missing: its fields are left out below, and the
    // rest comes from the store.
    let alert: Value = detail
        .alert
        .as_ref()
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    let text = |pointer: &str| {
        alert.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let ago = rough(now.since(row.received_at));
    let received = format!("{} ({ago} ago), by {}", row.received_at, row.sources.join(" and "));
    let problems: Vec<&str> = alert
        .pointer("/parse_problems")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let revisions = match detail.revisions.len() {
        0 => String::new(),
        number => format!("edited {number} times in Slack (--json shows the revisions)"),
    };
    say(&screen.paint(Colour::Bold, &harmless(&row.id)));
    for (label, value) in [
        ("name", text("/name")),
        ("severity", row.severity.clone()),
        ("details", text("/details")),
        ("script", text("/script/url")),
        ("host", text("/host_domain/name")),
        ("console", text("/deep_link")),
        ("posted", row.posted_at.to_string()),
        ("received", received),
        ("unreadable", problems.join(", ")),
        ("problem", detail.alert_problem.clone()),
        ("revisions", revisions),
    ] {
        if !value.is_empty() {
            say(&format!("  {label:<11}{}", harmless(&value)));
        }
    }
}

fn headline(delivery: &Delivery, screen: Screen, now: Timestamp) -> String {
    let state = screen.paint(Colour::of(&delivery.state), &delivery.state);
    let mut line = vec![format!("{}: {state}", delivery.destination)];
    if !delivery.dead_reason.is_empty() {
        line.push(format!(" ({})", explained(&delivery.dead_reason)));
    }
    if let Some(at) = delivery.finished_at {
        line.push(format!(" at {at}"));
    }
    if let Some(waiting) = &delivery.waiting {
        line.push(format!("\n  {}", harmless(&waiting.reason)));
        if let Some(at) = waiting.next_try_at {
            line.push(match rough(at.since(now)) {
                soon if soon == "0s" => "; next attempt now".to_owned(),
                wait => format!("; next attempt in {wait}, at {at}"),
            });
        }
    } else if let Some(due_at) = delivery.due_at {
        line.push(match rough(due_at.since(now)) {
            soon if soon == "0s" => ", due now".to_owned(),
            wait => format!(", next attempt in {wait}"),
        });
    }
    for reference in [&delivery.reference.id, &delivery.reference.url] {
        if !reference.is_empty() {
            line.push(format!(", {}", harmless(reference)));
        }
    }
    line.concat()
}

/// Explains the reason for which a delivery was given up.
fn explained(reason: &str) -> &str {
    match reason {
        "max_age" => "max_age: undelivered for too long",
        "refused" => "refused: the destination rejects this alert and accepts others",
        other => other,
    }
}

/// Returns the text for a delivery without attempts. If it is delivered, its destination is a feed.
fn unattempted(state: &str) -> &'static str {
    match state {
        "delivered" => "confirmed by a reader of the feed",
        "dead" | "cancelled" => "no attempt",
        _ => "no attempt yet",
    }
}

fn attempts(attempts: &[Attempt], screen: Screen) {
    let row = |attempt: &Attempt| {
        let status = attempt.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        vec![
            (format!("  {}", attempt.started_at), Colour::Plain),
            (format!("{} ms", attempt.duration_ms), Colour::Plain),
            (attempt.class.clone(), Colour::of(&attempt.class)),
            (status, Colour::Plain),
            (harmless(&attempt.excerpt), Colour::Plain),
        ]
    };
    let rows: Vec<_> = attempts.iter().map(row).collect();
    say(&screen.table(&["  ATTEMPT", "TOOK", "CLASS", "STATUS", "ANSWER"], &rows));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_delivery_does_not_wait_for_an_attempt() {
        assert_eq!(unattempted("pending"), "no attempt yet");
        assert_eq!(unattempted("cancelled"), "no attempt");
        assert!(unattempted("delivered").contains("reader"));
    }
}
