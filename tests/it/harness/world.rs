//! A Slack whose history is read and a SOAR that takes notes, and what tests ask of a relay between
//! them.

use std::time::Duration;

use serde_json::Value;
use slack_soar_relay::clock::Clock;

use super::{BEGIN, PATIENCE, Setup, TestRelay, fake_slack::FakeSlack, soar::FakeSoar};

pub(crate) const AUTH: &str = "auth.test";
pub(crate) const HISTORY: &str = "conversations.history";
pub(crate) const INFO: &str = "conversations.info";
pub(crate) const LIST: &str = "conversations.list";

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct World {
    pub(crate) slack: FakeSlack,
    pub(crate) soar: FakeSoar,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self { slack: FakeSlack::new(Clock::manual(BEGIN)).await, soar: FakeSoar::ok().await }
    }

    /// A relay that reads the usual channel.
    pub(crate) fn setup(&self) -> Setup {
        self.setup_in("[C0123456789]")
    }

    pub(crate) fn setup_in(&self, channels: &str) -> Setup {
        Setup::default().destination("soar", &self.soar, "").catch_up(&self.slack, channels)
    }

    pub(crate) async fn start(&self) -> TestRelay {
        self.setup().start().await
    }

    /// Returns the ids that the SOAR was sent, sorted, each as often as it was sent.
    pub(crate) async fn arrived(&self, relay: &TestRelay) -> Vec<String> {
        relay.settled().await;
        sorted(self.soar.ids())
    }

    /// Lets time pass until the SOAR has been sent exactly these, in any order. What is on its way
    /// arrives before its lease ends.
    pub(crate) async fn brings(&self, relay: &TestRelay, expected: &[String]) {
        let wait = async {
            while sorted(self.soar.ids()) != expected {
                relay.settled().await;
                relay.clock.advance(5 * SECOND);
                catch_up_status(relay).await;
            }
        };
        let arrived = tokio::time::timeout(PATIENCE, wait).await;
        assert!(arrived.is_ok(), "{:?} instead of {expected:?}", self.soar.ids());
        relay.settled().await;
    }

    /// Posts an incident, lets that much time pass at once, and none until the SOAR has it.
    pub(crate) async fn finds_after(&self, relay: &TestRelay, leap: Duration) {
        let id = id(&self.slack.post());
        relay.clock.advance(leap);
        let arrived = async {
            while !self.soar.ids().contains(&id) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, arrived).await.unwrap_or_else(|_| panic!("{id} is lost"));
        relay.settled().await;
    }

    /// The calls for a channel's history.
    pub(crate) fn calls_for(&self, channel: &str) -> usize {
        self.calls_about(HISTORY, channel)
    }

    /// The calls of a method that are about a channel.
    pub(crate) fn calls_about(&self, method: &str, channel: &str) -> usize {
        let calls = self.slack.calls(method);
        calls
            .iter()
            .filter(|call| call.query.get("channel").is_some_and(|id| id == channel))
            .count()
    }
}

/// The alert id of a posted incident.
pub(crate) fn id(message: &Value) -> String {
    id_in(message["channel"].as_str().unwrap(), message)
}

/// The alert id of a message under an id of its channel.
pub(crate) fn id_in(channel: &str, message: &Value) -> String {
    format!("main:{channel}:{}:0", message["ts"].as_str().unwrap())
}

pub(crate) fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

pub(crate) async fn catch_up_status(relay: &TestRelay) -> Value {
    relay.api("GET", "/status").await.1["apps"][0]["catch_up"].clone()
}

/// Returns the entry of one channel in the status.
pub(crate) async fn channel_status(relay: &TestRelay, channel: &str) -> Value {
    let status = catch_up_status(relay).await;
    let channels = status["channels"].as_array().unwrap();
    channels.iter().find(|one| one["id"] == channel).cloned().unwrap_or_default()
}

/// Waits until the app's or the channels' problems are like that.
pub(crate) async fn problem_is(relay: &TestRelay, is: impl Fn(&str) -> bool) {
    let wait = async {
        loop {
            let status = catch_up_status(relay).await;
            let problem = |of: &Value| of["problem"].as_str().unwrap_or_default().to_owned();
            let channels = status["channels"].as_array().cloned().unwrap_or_default();
            let all: Vec<String> = channels.iter().chain([&status]).map(problem).collect();
            let all: Vec<String> = all.into_iter().filter(|one| !one.is_empty()).collect();
            if is(&all.join("\n")) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the status does not say it");
}
