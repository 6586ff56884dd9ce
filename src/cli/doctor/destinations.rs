//! Checks that each destination can be reached.
//!
//! Requests go to the host and never to the path, so that no case is opened and no key is sent.
//! Feeds are not contacted, since their readers contact the relay.

use std::time::Duration;

use super::finding::Finding;
use crate::{
    config::{Config, DestinationConfig},
    destination::{preset::Transport, transport::mail},
    http_client,
    logging::chain,
};

/// Time limit for the answer of a destination.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Checks all destinations. `is_whole`: the file could be read completely.
pub(super) async fn examine(config: &Config, is_whole: bool) -> Vec<Finding> {
    let destinations = &config.destinations;
    let ops_listen = config.server.ops_listen;
    let mut findings = Vec::new();
    for destination in destinations {
        let check = format!("destination {}", destination.http.name);
        // The reader of a feed connects to the relay, so there is no address to reach from here.
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
                let advice = "check the name lookup, firewall, proxy and `ca_file` of this \
                              machine, and the `url` of the destination";
                Finding::fail(&check, message, advice)
            }
        });
    }
    // In a file with mistakes the missing destinations may be among the parts that could not be
    // read.
    if destinations.is_empty() && is_whole {
        let message = "none: alerts are stored and sent nowhere";
        findings.push(Finding::warn("destinations", message, "add one under `destinations`"));
    }
    findings
}

async fn reach(destination: &DestinationConfig) -> Result<String, String> {
    match destination.http.preset.transport() {
        Transport::Stdout => Ok("writes to the relay's own output".to_owned()),
        Transport::Email => reach_mail(destination).await,
        Transport::Http | Transport::Feed => reach_http(destination).await,
    }
}

async fn reach_mail(destination: &DestinationConfig) -> Result<String, String> {
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

async fn reach_http(destination: &DestinationConfig) -> Result<String, String> {
    let client = http_client::build(&destination.http.client).map_err(|error| chain(&error))?;
    let given = destination.http.url.reveal();
    let url = reqwest::Url::parse(given.trim()).map_err(|error| error.to_string())?;
    http_client::check_host(&url).map_err(|error| error.to_string())?;
    let origin = url.origin().ascii_serialization();
    let sent = tokio::time::timeout(TIMEOUT, client.head(&origin).send()).await;
    match sent {
        Ok(Ok(response)) if response.status().as_u16() == 407 => {
            Err("the proxy requires a user and password".to_owned())
        }
        Ok(Ok(_any_answer)) => Ok(format!("{origin} answers")),
        Ok(Err(error)) => Err(format!("{origin}: {}", chain(&error.without_url()))),
        Err(_elapsed) => Err(format!("{origin} does not answer within {} s", TIMEOUT.as_secs())),
    }
}
