//! What a running relay has seen: a wrong signing secret and missing pushes show only there.

use std::time::Duration;

use super::Finding;
use crate::{
    cli::ops_client::reachable,
    config::{App, Config},
    http_client,
};

const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn examine(config: &Config) -> anyhow::Result<Vec<Finding>> {
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
    findings.extend(unready(&client, &address.to_string()).await);
    for app in &config.apps {
        findings.push(pushes(app, &metrics));
    }
    Ok(findings)
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

fn pushes(app: &App, metrics: &str) -> Finding {
    let check = format!("pushes to {}", app.name);
    let sum = |name: &str, labels: &[(&str, &str)]| sum(metrics, (name, app.name.as_str()), labels);
    let refused = sum("events_total", &[("reason", "bad_signature")]);
    let received = sum("events_received_total", &[("source", "push")]);
    let missed = sum("missed_push_total", &[("cause", "push")]);
    if refused > 0.0 && received == 0.0 {
        let advice = "the signing secret is wrong: open https://api.slack.com/apps, choose the app, \
                      Basic Information, App Credentials, Signing Secret, Show, and put that value \
                      where `signing_secret` points to";
        return Finding::fail(&check, format!("all {refused} had a wrong signature"), advice);
    }
    if missed > 0.0 {
        let advice = "open https://api.slack.com/apps, choose the app, Event Subscriptions: it must \
                      be on, its Request URL verified, and Delayed Events on";
        return Finding::warn(&check, format!("{missed} incidents were not pushed"), advice);
    }
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
