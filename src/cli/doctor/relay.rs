//! Checks a running relay: the concerns of its status, its bots, and the requests from Slack.

use std::{net::SocketAddr, time::Duration};

use anyhow::anyhow;

use super::finding::{Finding, Level};
use crate::{
    cli::{
        ops_client::{NoRelay, Refused, Target, reachable},
        options::Common,
        posters,
    },
    clock::{Clock, Timestamp, rough},
    config::{AppConfig, Salvaged},
    http_client,
    ops::view::{App, Bot, Concern, Status},
};

/// Time limit for `/readyz`.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for the status, longer than the relay's own limits for its store.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn examine(common: &Common, salvaged: &Salvaged) -> Vec<Finding> {
    let config = &salvaged.config;
    let Ok(address) = reachable(config.server.ops_listen, "ops_listen", "--server") else {
        return Vec::new();
    };
    let status = match status(common, salvaged).await {
        Ok(status) => status,
        Err(error) if is_absence(&error) => {
            let message = format!("none answers at {address}, so its state is not checked");
            return vec![Finding::ok("relay", message)];
        }
        Err(error) => {
            let advice = "let this command use the API: set `ops_token`, or the environment \
                          variable RELAY_OPS_TOKEN";
            let message = format!("its status cannot be read: {error:#}");
            let mut findings = vec![Finding::warn("relay", message, advice)];
            // Readiness needs no token.
            findings.extend(unready(address).await);
            return findings;
        }
    };
    let mut findings = vec![Finding::ok("relay", format!("running, answers at {address}"))];
    findings.extend(status.concerns.iter().map(finding));
    let now = status.now.unwrap_or_else(|| Clock::system().now());
    for app in &config.apps {
        if let Some(seen) = status.apps.iter().find(|one| one.name == app.name.as_str()) {
            findings.push(bots(app, &seen.bots, now));
            findings.push(pushes(seen, now));
        }
    }
    findings
}

async fn status(common: &Common, salvaged: &Salvaged) -> anyhow::Result<Status> {
    let client = Target::default().client_by(common, salvaged)?;
    let answer = tokio::time::timeout(STATUS_TIMEOUT, client.get(&["status"], &[])).await;
    answer.map_err(|_elapsed| anyhow!("no answer within {} s", STATUS_TIMEOUT.as_secs()))?
}

/// Returns whether an error means that no relay is running at the address.
fn is_absence(error: &anyhow::Error) -> bool {
    let is_stranger = |refused: &Refused| !refused.is_from_relay;
    error.is::<NoRelay>() || error.downcast_ref().is_some_and(is_stranger)
}

/// Converts a concern of the running relay to a finding. A concern that needs a person is a
/// failure.
fn finding(concern: &Concern) -> Finding {
    let Concern { needs_person, about, message, advice, .. } = concern;
    let level = if *needs_person { Level::Fail } else { Level::Warn };
    let about = if about.is_empty() { "relay" } else { about };
    Finding::new(level, &format!("now: {about}"), message.clone(), advice.clone())
}

/// Reports the bots that have posted incidents, and whether only they may.
fn bots(app: &AppConfig, bots: &[Bot], now: Timestamp) -> Finding {
    let check = format!("bots of {}", app.name);
    let seen = posters::seen(bots, now);
    match (app.bots.is_empty(), seen) {
        (false, seen) => {
            let message = seen.unwrap_or_else(|| "none has posted an incident yet".to_owned());
            Finding::ok(&check, message)
        }
        (true, None) => {
            let message = "none has posted an incident yet; every bot may, since `bots` is empty";
            Finding::ok(&check, message)
        }
        (true, Some(seen)) => {
            let message = format!("every bot may post incidents; so far: {seen}");
            let advice = format!(
                "if these bots are Code Defender's, add this to the app: {}",
                posters::allow(bots)
            );
            Finding::warn(&check, message, advice)
        }
    }
}

/// Requests `/readyz`, and reports the reason if the relay is not ready.
async fn unready(address: SocketAddr) -> Option<Finding> {
    let client = http_client::build(&http_client::Settings::default()).ok()?;
    let asked = async {
        let answer = client.get(format!("http://{address}/readyz")).send().await.ok()?;
        let is_ready = answer.status().is_success();
        (!is_ready).then_some(answer.text().await.ok()?)
    };
    let reason = tokio::time::timeout(READY_TIMEOUT, asked).await.ok()??;
    let advice = "stored alerts are still delivered; docs/operations.md says what to do when the \
                  store or its disk is full, and when its files are gone";
    Some(Finding::fail("ready", reason.trim(), advice))
}

/// Reports the last request of Slack's that verified. Requests that do not verify are concerns.
fn pushes(app: &App, now: Timestamp) -> Finding {
    let message = match app.signing.last_verified_at {
        Some(at) => format!("last verified request {} ago", rough(now.since(at))),
        None => "no verified request since the start".to_owned(),
    };
    Finding::ok(&format!("pushes to {}", app.name), message)
}
