//! Whether each destination can be reached: a request to its host, never to its path, so that no
//! case is opened and no key is shown to a stranger. One that is read is reached by its reader.

use std::time::Duration;

use super::Finding;
use crate::{
    config::{Config, Destination},
    destination::{preset::Transport, transport::mail},
    http_client,
    logging::chain,
};

/// A destination that takes longer is as good as down.
const TIMEOUT: Duration = Duration::from_secs(10);

/// `is_whole`: the file has no mistake, so a destination that is not there is not configured.
pub(super) async fn examine(config: &Config, is_whole: bool) -> Vec<Finding> {
    let (destinations, ops_listen) = (&config.destinations, config.server.ops_listen);
    let mut findings = Vec::new();
    for destination in destinations {
        let check = format!("destination {}", destination.http.name);
        if destination.http.feed_token().is_some() {
            let only_here = if ops_listen.ip().is_loopback() {
                ", by readers elsewhere through a proxy on this machine (docs/feed.md)"
            } else {
                ""
            };
            let message = format!("is read at {ops_listen}/api/v1/feed{only_here}");
            findings.push(Finding::ok(&check, message));
            continue;
        }
        findings.push(match reach(destination).await {
            Ok(message) => Finding::ok(&check, message),
            Err(message) => {
                let advice = "let this machine reach it: name lookup, firewall, proxy, ca_file; \
                              and compare its `url`";
                Finding::fail(&check, message, advice)
            }
        });
    }
    if destinations.is_empty() && is_whole {
        let message = "none: alerts are stored and go nowhere";
        findings.push(Finding::warn("destinations", message, "add one under `destinations`"));
    }
    findings
}

async fn reach(destination: &Destination) -> Result<String, String> {
    match destination.http.preset.transport() {
        Transport::Stdout => Ok("writes to the relay's own output".to_owned()),
        Transport::Email => reach_mail(destination).await,
        Transport::Http | Transport::Feed => reach_http(destination).await,
    }
}

async fn reach_mail(destination: &Destination) -> Result<String, String> {
    let url = reqwest::Url::parse(destination.http.url.reveal().trim())
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(TIMEOUT, mail::reach(&url)).await {
        Ok(Ok(server)) => Ok(format!("{server} takes connections")),
        Ok(Err(error)) => Err(format!("the mail server: {}", chain(&*error))),
        Err(_elapsed) => {
            Err(format!("the mail server does not answer within {} s", TIMEOUT.as_secs()))
        }
    }
}

async fn reach_http(destination: &Destination) -> Result<String, String> {
    let client = http_client::build(&destination.http.client).map_err(|error| chain(&error))?;
    let given = destination.http.url.reveal();
    let url = reqwest::Url::parse(given.trim()).map_err(|error| error.to_string())?;
    http_client::check_host(&url).map_err(|error| error.to_string())?;
    let origin = url.origin().ascii_serialization();
    let sent = tokio::time::timeout(TIMEOUT, client.head(&origin).send()).await;
    match sent {
        Ok(Ok(response)) if response.status().as_u16() == 407 => {
            Err("the proxy asks for a user and password".to_owned())
        }
        Ok(Ok(_any_answer)) => Ok(format!("{origin} answers")),
        Ok(Err(error)) => Err(format!("{origin}: {}", chain(&error.without_url()))),
        Err(_elapsed) => Err(format!("{origin} does not answer within {} s", TIMEOUT.as_secs())),
    }
}
