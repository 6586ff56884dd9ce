//! The Events API, played: each event is sent at once and, while it is not answered with 2xx in
//! 3 s, again at once, after 1 min and after 5 min; with Delayed Events then hourly for a day
//! (docs.slack.dev/apis/events-api).

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use slack_soar_relay::clock::Timestamp;

use super::{SECRET, http, slack};

/// Slack waits no longer for an answer.
const CUT_OFF: Duration = Duration::from_secs(3);

struct Pending {
    event: Value,
    due: Timestamp,
    sent: u32,
    reason: &'static str,
}

/// The events of one app that are not delivered yet.
#[derive(Default)]
pub(crate) struct Pushes {
    pending: Vec<Pending>,
    pub(crate) delayed_events: bool,
    pub(crate) given_up: usize,
    number: u32,
}

impl Pushes {
    /// Something happened: it will be sent.
    pub(crate) fn add(&mut self, inner: &Value, now: Timestamp) {
        self.number += 1;
        let mut event = slack::event(inner);
        event["event_id"] = json!(format!("Ev{}", self.number));
        event["event_time"] = json!(now.seconds());
        self.pending.push(Pending { event, due: now, sent: 0, reason: "" });
    }

    /// Sends what is due. Where `is_lost` says so, Slack misses the answer.
    pub(crate) async fn deliver_due(
        &mut self,
        to: SocketAddr,
        now: Timestamp,
        mut is_lost: impl FnMut() -> bool,
    ) {
        while let Some(at) = self.pending.iter().position(|one| one.due <= now) {
            let mut one = self.pending.remove(at);
            let reason = match (send(to, now, &one).await, is_lost()) {
                (Ok(()), false) => continue,
                (Ok(()), true) => "http_timeout",
                (Err(reason), _) => reason,
            };
            one.sent += 1;
            one.reason = reason;
            let wait = match one.sent {
                1 => Some(0),
                2 => Some(60),
                3 => Some(300),
                _ if self.delayed_events && one.sent < 3 + 24 => Some(3600),
                _ => None,
            };
            match wait {
                Some(seconds) => {
                    one.due = now + Duration::from_secs(seconds);
                    self.pending.push(one);
                }
                None => self.given_up += 1,
            }
        }
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.pending.iter().map(|one| one.due).min()
    }
}

async fn send(to: SocketAddr, now: Timestamp, one: &Pending) -> Result<(), &'static str> {
    let body = one.event.to_string().into_bytes();
    let mut headers = slack::signed(SECRET, now, &body);
    if one.sent > 0 {
        headers.push(("X-Slack-Retry-Num".to_owned(), one.sent.to_string()));
        headers.push(("X-Slack-Retry-Reason".to_owned(), one.reason.to_owned()));
    }
    let sent = http::try_post(to, "/slack/events", &headers, &body);
    match tokio::time::timeout(CUT_OFF, sent).await {
        Ok(Some(answer)) if (200..300).contains(&answer.status) => Ok(()),
        Ok(Some(_)) => Err("http_error"),
        Ok(None) => Err("connection_failed"),
        Err(_elapsed) => Err("http_timeout"),
    }
}
