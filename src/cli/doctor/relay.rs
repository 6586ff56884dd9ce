//! Checks of a running relay: each concern of its status, and the signatures of Slack's requests.

use std::time::Duration;

use super::{Finding, Level};
use crate::{
    cli::{
        Common,
        ops_client::{Target, reachable},
        posters,
    },
    clock::{Clock, Timestamp},
    config::{App, Salvaged},
    http_client,
    ops::view::{Bot, Concern, Status},
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// The relay's own limits for its store are shorter.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn examine(common: &Common, salvaged: &Salvaged) -> anyhow::Result<Vec<Finding>> {
    let config = &salvaged.config;
    let Ok(address) = reachable(config.server.ops_listen, "ops_listen", "--server") else {
        return Ok(Vec::new());
    };
    let client = http_client::build(&http_client::Settings::default())?;
    let asked = async {
        let answer = client.get(format!("http://{address}/metrics")).send().await.ok()?;
        let bytes = answer.bytes().await.ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let metrics = tokio::time::timeout(TIMEOUT, asked).await.ok().flatten();
    let Some(metrics) = metrics.filter(|text| text.contains("slack_soar_relay_build_info")) else {
        let message = format!("none answers at {address}, so what it has seen is not known");
        return Ok(vec![Finding::ok("relay", message)]);
    };
    let mut findings = vec![Finding::ok("relay", format!("runs, and answers at {address}"))];
    match status(common, salvaged).await {
        Ok(status) => {
            findings.extend(status.concerns.iter().map(finding));
            let now = status.now.unwrap_or_else(|| Clock::system().now());
            for app in &config.apps {
                let seen = status.apps.iter().find(|one| one.name == app.name.as_str());
                findings.extend(seen.map(|seen| bots(app, &seen.bots, now)));
            }
        }
        Err(error) => {
            let advice = "let this command use the API: `ops_token`, or the variable \
                          RELAY_OPS_TOKEN";
            let message = format!("its status cannot be read: {error:#}");
            findings.push(Finding::warn("relay", message, advice));
            findings.extend(unready(&client, &address.to_string()).await);
        }
    }
    for app in &config.apps {
        findings.push(pushes(app, &metrics));
    }
    Ok(findings)
}

async fn status(common: &Common, salvaged: &Salvaged) -> anyhow::Result<Status> {
    let client = Target::default().client_by(common, salvaged)?;
    let asked = tokio::time::timeout(STATUS_TIMEOUT, client.get(&["status"], &[]));
    asked
        .await
        .map_err(|_elapsed| anyhow::anyhow!("no answer within {} s", STATUS_TIMEOUT.as_secs()))?
}

/// A concern of the running relay as a finding: whatever needs a person fails.
fn finding(concern: &Concern) -> Finding {
    let Concern { needs_person, about, message, advice, .. } = concern;
    let level = if *needs_person { Level::Fail } else { Level::Warn };
    let about = if about.is_empty() { "relay" } else { about };
    Finding::new(level, &format!("now: {about}"), message.clone(), advice.clone())
}

/// Who has posted incidents, and who may.
fn bots(app: &App, bots: &[Bot], now: Timestamp) -> Finding {
    let check = format!("bots of {}", app.name);
    let seen = posters::seen(bots, now);
    match (app.bots.is_empty(), seen) {
        (false, seen) => {
            let message = seen.unwrap_or_else(|| "none has posted an incident yet".to_owned());
            Finding::ok(&check, message)
        }
        (true, None) => {
            let message = "none has posted an incident yet; any may, since `bots` is empty";
            Finding::ok(&check, message)
        }
        (true, Some(seen)) => {
            let message = format!("any may post incidents; so far: {seen}");
            let advice = format!(
                "if these are Code Defender's, add this to the app: {}",
                posters::allow(bots)
            );
            Finding::warn(&check, message, advice)
        }
    }
}

/// Why the relay takes no alerts, if it does not.
async fn unready(client: &reqwest::Client, address: &str) -> Option<Finding> {
    let asked = async {
        let answer = client.get(format!("http://{address}/readyz")).send().await.ok()?;
        let is_ready = answer.status().is_success();
        (!is_ready).then_some(answer.text().await.ok()?)
    };
    let said = tokio::time::timeout(TIMEOUT, asked).await.ok()??;
    let advice = "what is stored is still delivered; docs/operations.md says what to do when the \
                  store or its disk is full, and when its files are gone";
    Some(Finding::fail("ready", said.trim(), advice))
}

/// Says how many signed requests came; what is wrong with others is a concern of the relay's.
fn pushes(app: &App, metrics: &str) -> Finding {
    let received =
        sum(metrics, ("events_received_total", app.name.as_str()), &[("source", "push")]);
    let check = format!("pushes to {}", app.name);
    Finding::ok(&check, format!("{received} received since the start"))
}

/// The sum of a counter's series of that app with those labels.
fn sum(metrics: &str, (name, app): (&str, &str), labels: &[(&str, &str)]) -> f64 {
    let start = format!("slack_soar_relay_{name}{{");
    let label = |name: &str, value: &str| format!("{name}=\"{value}\"");
    let lines = metrics.lines().filter(|line| {
        line.starts_with(&start)
            && line.contains(&label("app", app))
            && labels.iter().all(|(name, value)| line.contains(&label(name, value)))
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_one_app_are_added_up() {
        let series = |app: &str, channel: &str, cause: &str, value: u32| {
            let labels = format!("app=\"{app}\",channel=\"{channel}\",cause=\"{cause}\"");
            format!("slack_soar_relay_missed_push_total{{{labels}}} {value}\n")
        };
        let metrics = [
            series("a", "C1", "push", 2),
            series("a", "C2", "push", 3),
            series("a", "C2", "downtime", 9),
            series("b", "C1", "push", 9),
        ]
        .concat();
        let total = sum(&metrics, ("missed_push_total", "a"), &[("cause", "push")]);
        assert!((total - 5.0).abs() < f64::EPSILON);
    }
}
