//! A channel whose id Slack changes: every message stays one alert, whatever is heard of it when.

use std::time::Duration;

use serde_json::{Value, json};
use slack_soar_relay::clock::Clock;

use crate::harness::{
    BEGIN, Setup, TestRelay,
    fake_slack::{Channel, FakeSlack},
    slack,
    soar::FakeSoar,
};

const OLD: &str = "G0OLD000001";
const NEW: &str = "C0NEW000001";
const MINUTE: Duration = Duration::from_secs(60);

struct World {
    slack: FakeSlack,
    soar: FakeSoar,
}

impl World {
    /// One private channel, under its old id.
    async fn new() -> Self {
        let slack = FakeSlack::new(Clock::manual(BEGIN)).await;
        slack.state().channels = vec![Channel::new(OLD, "cd_alerts")];
        Self { slack, soar: FakeSoar::ok().await }
    }

    async fn start(&self, channels: &str) -> TestRelay {
        let setup = Setup::default().destination("soar", &self.soar, "");
        let relay = setup.catch_up(&self.slack, channels).start().await;
        relay.caught_up_in(OLD).await;
        relay
    }

    /// Posts an incident, which history shows.
    fn post(&self, channel: &str) -> Value {
        self.slack.state().post_incident(channel)
    }

    fn change_id(&self) {
        self.slack.state().change_id(OLD, NEW);
    }

    /// The ids that the SOAR was sent, sorted: each time that it was.
    async fn arrived(&self, relay: &TestRelay) -> Vec<String> {
        relay.settled().await;
        let mut ids = self.soar.ids();
        ids.sort();
        ids
    }
}

fn changed() -> Value {
    changed_from(OLD, NEW)
}

fn changed_from(old: &str, new: &str) -> Value {
    slack::event(&json!({"type": "channel_id_changed", "old_channel_id": old,
        "new_channel_id": new, "event_ts": "1612206778.000000"}))
}

/// The alert id of a message under an id of its channel.
fn id(channel: &str, message: &Value) -> String {
    format!("main:{channel}:{}:0", message["ts"].as_str().unwrap())
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

async fn push(relay: &TestRelay, message: &Value) {
    assert_eq!(relay.post(&slack::event(message)).await, 200);
}

#[tokio::test]
async fn every_message_stays_one_alert_whichever_id_brought_it_first() {
    for channels in ["[]", "[cd_alerts]", "[G0OLD000001]", "[G0OLD000001, C0NEW000001]"] {
        let world = World::new().await;
        let mut relay = world.start(channels).await;
        let first = world.post(OLD);
        push(&relay, &first).await;
        relay.clock.advance(MINUTE);
        relay.caught_up_in(OLD).await;
        world.change_id();
        // This one comes before the change is heard of.
        let early = world.post(NEW);
        push(&relay, &early).await;
        assert_eq!(relay.post(&changed()).await, 200);
        let later = world.post(NEW);
        push(&relay, &later).await;
        relay.caught_up_in(NEW).await;
        for _ in 0..3 {
            relay.clock.advance(MINUTE);
            relay.caught_up_in(NEW).await;
        }
        let found = world.post(NEW);
        relay.clock.advance(MINUTE);
        relay.caught_up_in(NEW).await;
        let taken = matches!(channels, "[]" | "[G0OLD000001, C0NEW000001]");
        let early = id(if taken { NEW } else { OLD }, &early);
        let expected = sorted(vec![id(OLD, &first), early, id(OLD, &later), id(OLD, &found)]);
        assert_eq!(world.arrived(&relay).await, expected, "{channels}");
        relay.stop().await;
        relay.restart().await;
        push(&relay, &later).await;
        push(&relay, &first).await;
        let (status, report) = relay.api("POST", "/backfill?since=24h").await;
        assert_eq!((status, &report["new"], &report["known"]), (200, &json!(0), &json!(4)));
        relay.clock.advance(15 * MINUTE);
        relay.caught_up_in(NEW).await;
        assert_eq!(world.arrived(&relay).await, expected, "{channels}, after a restart");
    }
}

#[tokio::test]
async fn an_event_that_was_lost_is_made_up_for_by_what_history_shows() {
    for channels in
        ["[]", "[cd_alerts]", "[G0OLD000001]", "[C0NEW000001]", "[G0OLD000001, C0NEW000001]"]
    {
        let world = World::new().await;
        let before = if channels == "[C0NEW000001]" { "[G0OLD000001]" } else { channels };
        let mut relay = world.start(before).await;
        let first = world.post(OLD);
        push(&relay, &first).await;
        let found = world.post(OLD);
        relay.clock.advance(MINUTE);
        relay.caught_up_in(OLD).await;
        world.change_id();
        relay.stop().await;
        relay.rewrite(|yaml| yaml.replace(before, channels));
        relay.restart().await;
        relay.clock.advance(15 * MINUTE);
        relay.caught_up_in(NEW).await;
        let later = world.post(NEW);
        push(&relay, &later).await;
        relay.clock.advance(MINUTE);
        relay.caught_up_in(NEW).await;
        let expected = sorted(vec![id(OLD, &first), id(OLD, &found), id(OLD, &later)]);
        assert_eq!(world.arrived(&relay).await, expected, "{channels}");
        let (status, report) = relay.api("POST", "/backfill?since=24h").await;
        assert_eq!((status, &report["new"], &report["known"]), (200, &json!(0), &json!(3)));
        // And the event comes after all.
        assert_eq!(relay.post(&changed()).await, 200);
        assert_eq!(world.arrived(&relay).await, expected, "{channels}");
    }
}

#[tokio::test]
async fn two_channels_with_alike_messages_of_one_microsecond_stay_two() {
    let world = World::new().await;
    world.slack.state().channels.push(Channel::new(NEW, "other"));
    let both = [world.post(OLD), world.post(NEW)];
    assert_eq!(both[0]["ts"], both[1]["ts"]);
    let expected = sorted(vec![id(OLD, &both[0]), id(NEW, &both[1])]);
    for channels in ["[]", "[G0OLD000001, C0NEW000001]"] {
        let relay = world.start(channels).await;
        relay.caught_up_in(NEW).await;
        let (status, report) = relay.api("POST", "/backfill?since=24h").await;
        assert_eq!((status, &report["known"]), (200, &json!(2)));
        relay.settled().await;
    }
    let ids = world.soar.ids();
    assert!(expected.iter().all(|id| ids.iter().filter(|one| *one == id).count() == 2), "{ids:?}");
}

#[tokio::test]
async fn any_id_of_a_channel_is_wanted_searched_for_and_shown() {
    let world = World::new().await;
    let (old, new) = (FakeSoar::ok().await, FakeSoar::ok().await);
    let relay = Setup::default()
        .destination("old", &old, "when: {channels: [G0OLD000001]}")
        .destination("new", &new, "when: {channels: [C0NEW000001]}")
        .catch_up(&world.slack, "[G0OLD000001]")
        .start()
        .await;
    relay.caught_up_in(OLD).await;
    world.change_id();
    assert_eq!(relay.post(&changed()).await, 200);
    let message = world.post(NEW);
    push(&relay, &message).await;
    relay.settled().await;
    let alert = id(OLD, &message);
    for soar in [&old, &new] {
        assert_eq!(soar.ids(), std::slice::from_ref(&alert));
        let slack = &soar.received()[0].body["slack"];
        assert_eq!((&slack["channel"], &slack["channel_first"]), (&json!(NEW), &json!(OLD)));
    }
    for text in [OLD, NEW, &id(NEW, &message), &alert] {
        let (_, list) = relay.api("GET", &format!("/alerts?q={text}")).await;
        assert_eq!(list["alerts"][0]["id"], json!(alert), "{text}");
    }
    for channel in [OLD, NEW] {
        let (status, shown) = relay.api("GET", &format!("/alerts/{}", id(channel, &message))).await;
        assert_eq!((status, &shown["id"]), (200, &json!(alert)), "{channel}");
    }
}

#[tokio::test]
async fn without_a_token_the_event_alone_says_which_channel_it_is() {
    let soar = FakeSoar::ok().await;
    let apps = "    - {name: main, signing_secret: {env: SECRET}, channels: [G0OLD000001]}\n";
    let mut relay = Setup::default().destination("soar", &soar, "").apps(apps).start().await;
    let mut posted = slack::message(1);
    posted["channel"] = json!(OLD);
    push(&relay, &posted).await;
    assert_eq!(relay.post(&changed()).await, 200);
    for restarts in [false, true] {
        if restarts {
            relay.stop().await;
            relay.restart().await;
        }
        posted["channel"] = json!(NEW);
        push(&relay, &posted).await;
        let mut next = slack::message(2);
        next["channel"] = json!(NEW);
        push(&relay, &next).await;
        relay.settled().await;
        assert_eq!(soar.ids(), [id(OLD, &posted), id(OLD, &next)]);
    }
}

#[tokio::test]
async fn a_push_under_another_id_than_history_is_not_a_missed_one() {
    let world = World::new().await;
    let relay = world.start("[G0OLD000001]").await;
    let mut message = world.post(OLD);
    relay.clock.advance(MINUTE);
    relay.caught_up_in(OLD).await;
    world.change_id();
    assert_eq!(relay.post(&changed()).await, 200);
    message["channel"] = json!(NEW);
    push(&relay, &message).await;
    relay.caught_up_in(NEW).await;
    let missed = world.post(NEW);
    for _ in 0..2 {
        // What is on its way arrives before its lease ends.
        relay.settled().await;
        relay.clock.advance(15 * MINUTE);
        relay.caught_up_in(NEW).await;
    }
    let counted = |channel: &str| {
        format!(r#"missed_push_total{{app="main",channel="{channel}",cause="push"}}"#)
    };
    relay.metric_is(&counted(NEW), |count| count == 1.0).await;
    assert_eq!(relay.metric(&counted(OLD)).await, 0.0);
    assert_eq!(world.arrived(&relay).await, sorted(vec![id(OLD, &message), id(OLD, &missed)]));
}
