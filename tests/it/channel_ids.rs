//! A channel whose id Slack changes: every message stays one alert, whatever is heard of it when.

use serde_json::{Value, json};

use crate::harness::{
    Setup, TestRelay,
    fake_slack::{Channel, State},
    slack,
    soar::FakeSoar,
    world::{self, DAY, INFO, MINUTE, SECOND, id_in as id, problem_is, sorted},
};

const OLD: &str = "G0OLD000001";
const NEW: &str = "C0NEW000001";

/// One private channel, under its old id.
struct World(world::World);

impl std::ops::Deref for World {
    type Target = world::World;

    fn deref(&self) -> &world::World {
        &self.0
    }
}

impl World {
    async fn new() -> Self {
        let world = world::World::new().await;
        world.slack.state().channels = vec![Channel::new(OLD, "cd_alerts")];
        Self(world)
    }

    async fn start(&self, channels: &str) -> TestRelay {
        let relay = self.setup_in(channels).start().await;
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
}

fn changed() -> Value {
    changed_from(OLD, NEW)
}

fn changed_from(old: &str, new: &str) -> Value {
    slack::event(&json!({"type": "channel_id_changed", "old_channel_id": old,
        "new_channel_id": new, "event_ts": "1612206778.000000"}))
}

async fn push(relay: &TestRelay, message: &Value) {
    relay.post_as_slack_does(&slack::event(message)).await;
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
        relay.post_as_slack_does(&changed()).await;
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
        relay.post_as_slack_does(&changed()).await;
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
    relay.post_as_slack_does(&changed()).await;
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
    relay.post_as_slack_does(&changed()).await;
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
    relay.post_as_slack_does(&changed()).await;
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

/// The relay was away for longer than a first reading goes back. Meanwhile the channel got an id
/// that says nothing of the old one.
#[tokio::test]
async fn a_lost_channel_is_read_on_from_where_it_was_though_every_channel_is_read() {
    const SHARED: &str = "C0SHARED001";
    for is_told in [false, true] {
        let world = World::new().await;
        let mut relay = world.start("[]").await;
        let first = world.post(OLD);
        relay.clock.advance(MINUTE);
        relay.caught_up_in(OLD).await;
        relay.settled().await;
        relay.stop().await;
        relay.clock.advance(MINUTE);
        let missed = world.post(OLD);
        world.slack.state().change_id(OLD, SHARED);
        // It was renamed as well, so that its history alone tells which channel it is.
        world.slack.state().channel(SHARED).name = "shared".to_owned();
        relay.clock.advance(3 * DAY);
        relay.restart().await;
        relay.caught_up_in(SHARED).await;
        if is_told {
            assert_eq!(relay.post(&changed_from(OLD, SHARED)).await, 200);
        }
        for _ in 0..3 {
            relay.clock.advance(MINUTE);
            relay.caught_up_in(SHARED).await;
        }
        let expected = sorted(vec![id(OLD, &first), id(OLD, &missed)]);
        assert_eq!(world.arrived(&relay).await, expected, "told: {is_told}");
        // What comes next is read on from there, also after a restart.
        relay.stop().await;
        relay.restart().await;
        let later = world.post(SHARED);
        relay.clock.advance(MINUTE);
        relay.caught_up_in(SHARED).await;
        let expected = sorted([expected, vec![id(OLD, &later)]].concat());
        assert_eq!(world.arrived(&relay).await, expected, "told: {is_told}, restarted");
    }
}

/// Answers that Slack may give instead of describing a channel. None of them says that the id is
/// unknown.
const UNTOLD: [&str; 5] = [
    "missing_scope",
    "team_access_not_granted",
    "invalid_arguments",
    "internal_error",
    "a_word_of_tomorrow",
];

fn describe_nothing(state: &mut State, code: &'static str) {
    state.sick_methods.insert(INFO, code);
}

#[tokio::test]
async fn two_channels_stay_two_though_slack_describes_neither() {
    for code in UNTOLD {
        let world = World::new().await;
        world.slack.state().channels.push(Channel::new(NEW, "other"));
        let relay = world.start("[G0OLD000001]").await;
        let both = [world.post(OLD), world.post(NEW)];
        relay.clock.advance(MINUTE);
        relay.caught_up_in(OLD).await;
        relay.settled().await;
        describe_nothing(&mut world.slack.state(), code);
        let mut relay = relay;
        relay
            .reload(|yaml| yaml.replace("[G0OLD000001]", "[G0OLD000001, C0NEW000001]"))
            .await
            .unwrap();
        // The old one is unknown for the moment, so that it cannot speak for itself.
        world.slack.state().channel(OLD).member = false;
        relay
            .time_passes_until(10 * SECOND, problem_is(&relay, |problem| problem.contains(code)))
            .await;
        world.slack.state().sick_methods.clear();
        world.slack.state().channel(OLD).member = true;
        let expected = sorted(vec![id(OLD, &both[0]), id(NEW, &both[1])]);
        world.brings(&relay, &expected).await;
        assert_eq!(world.arrived(&relay).await, expected, "{code}");
    }
}

#[tokio::test]
async fn a_moved_channel_doubles_nothing_while_slack_describes_neither_id() {
    for code in UNTOLD {
        let world = World::new().await;
        let mut relay = world.start("[G0OLD000001, C0NEW000001]").await;
        let first = world.post(OLD);
        relay.clock.advance(MINUTE);
        relay.caught_up_in(OLD).await;
        relay.settled().await;
        describe_nothing(&mut world.slack.state(), code);
        world.change_id();
        let later = world.post(NEW);
        relay
            .time_passes_until(10 * SECOND, problem_is(&relay, |problem| problem.contains(code)))
            .await;
        assert_eq!(world.arrived(&relay).await, [id(OLD, &first)], "{code}");
        world.slack.state().sick_methods.clear();
        let expected = sorted(vec![id(OLD, &first), id(OLD, &later)]);
        world.brings(&relay, &expected).await;
        relay.stop().await;
        assert_eq!(sorted(world.soar.ids()), expected, "{code}");
    }
}
