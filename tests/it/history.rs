//! Incidents in a new layout and near misses that only a channel's history brings: as by push.

use std::{slice, time::Duration};

use serde_json::{Value, json};
use slack_soar_relay::{
    clock::Timestamp,
    intake::catch_up::{BackfillRequest, HistoryTime, Purpose},
};

use crate::{
    harness::{
        BEGIN, TestRelay,
        fake_slack::{CHANNEL, Trouble},
        slack::{self, TITLE},
        world::{DAY, HISTORY, MINUTE, SECOND, World, channel_status, id, problem_is, sorted},
    },
    kinds::blocks,
};

const VENDOR: &str = "B0VENDOR";
const SOAR: &str = "B0SOAR";

fn ago(minutes: u64) -> Timestamp {
    BEGIN - Duration::from_secs(60 * minutes)
}

impl World {
    /// Posts a message of a bot that many minutes before the test begins.
    fn posted(&self, bot: &str, minutes_ago: u64, rest: &Value) -> String {
        let mut message = json!({"type": "message", "bot_id": bot, "text": ""});
        for (key, value) in rest.as_object().unwrap() {
            message[key] = value.clone();
        }
        id(&self.slack.state().post_at(CHANNEL, ago(minutes_ago), message))
    }
}

/// Returns ids and reasons of all near misses.
async fn near_misses(relay: &TestRelay) -> Vec<(String, String)> {
    let (status, listed) = relay.api("GET", "/near-misses").await;
    assert_eq!(status, 200, "{listed}");
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    let all = listed["near_misses"].as_array().unwrap().iter();
    all.map(|one| (text(one, "id"), text(one, "reason"))).collect()
}

fn outcome(outcome: &str, reason: &str) -> String {
    format!(r#"events_total{{app="main",outcome="{outcome}",reason="{reason}"}}"#)
}

#[tokio::test]
async fn an_incident_in_a_new_layout_and_a_near_miss_of_history_are_treated_as_by_push() {
    let world = World::new().await;
    let alert = world.posted(VENDOR, 9, &json!({"blocks": blocks()}));
    let miss = world.posted(VENDOR, 8, &json!({"text": TITLE}));
    let mut relay = world.start().await;
    relay.caught_up().await;
    assert_eq!(world.arrived(&relay).await, slice::from_ref(&alert));
    let (_, detail) = relay.api("GET", &format!("/alerts/{alert}")).await;
    assert_eq!(detail["alert"]["parse_problems"], json!(["layout"]));
    let (_, status) = relay.api("GET", "/status").await;
    assert_eq!(status["near_misses"], json!({"unread": 1, "total": 1}));
    assert_eq!(status["apps"][0]["bots"][0]["incidents"], 1);
    assert_eq!(near_misses(&relay).await, [(miss, "evidence".to_owned())]);
    assert_eq!(relay.metric(&outcome("accepted", "")).await, 1.0);
    assert_eq!(relay.metric(&outcome("ignored", "near_miss")).await, 1.0);
    // History that is read again brings nothing new.
    relay.stop().await;
    relay.restart().await;
    relay.caught_up().await;
    assert_eq!(world.arrived(&relay).await, [alert]);
    assert_eq!(near_misses(&relay).await.len(), 1);
}

#[tokio::test]
async fn a_case_that_another_bot_announces_in_history_makes_no_loop_whichever_page_it_is_on() {
    let attachments = json!([slack::attachment()]);
    for incident in [json!({"attachments": attachments}), json!({"blocks": blocks()})] {
        for pages in [1, 3] {
            let world = World::new().await;
            let expected = world.posted(VENDOR, 500, &incident);
            for n in 1..(pages - 1) * 200 {
                world.posted(VENDOR, 490, &json!({"text": format!("build {n}")}));
            }
            let announced = world.posted(SOAR, 400, &json!({"blocks": blocks()}));
            let relay = world.start().await;
            relay.caught_up().await;
            assert_eq!(sorted(world.arrived(&relay).await), [expected], "{pages} {incident}");
            let other_bot = (announced, "other_bot".to_owned());
            assert_eq!(near_misses(&relay).await, [other_bot], "{pages} {incident}");
        }
    }
}

#[tokio::test]
async fn a_case_that_another_bot_announces_makes_no_loop_though_its_window_is_given_up_once() {
    for (fault, times, reason) in [
        (Trouble::Revoke, 1, "other_bot"),
        (Trouble::Status(500), 8, "other_bot"),
        (Trouble::Error("not_in_channel"), 1, "history"),
    ] {
        let world = World::new().await;
        let expected = world.posted(VENDOR, 500, &json!({"blocks": blocks()}));
        for n in 0..200 {
            world.posted(VENDOR, 490, &json!({"text": format!("build {n}")}));
        }
        let announced = world.posted(SOAR, 400, &json!({"blocks": blocks()}));
        for call in 1..=times {
            world.slack.trouble(HISTORY, call, fault.clone());
        }
        let relay = world.start().await;
        let is_read = async {
            while world.calls_for(CHANNEL) < 1 + times {
                tokio::task::yield_now().await;
            }
        };
        relay.time_passes_until(SECOND, is_read).await;
        world.slack.revoke(None);
        world.brings(&relay, &[expected]).await;
        relay.time_passes_until(SECOND, relay.caught_up()).await;
        let listed = near_misses(&relay).await;
        assert_eq!(listed, [(announced, reason.to_owned())], "{fault:?}");
    }
}

/// Posts an incident in a new layout and, before it, as many other messages as a page has. Returns
/// the incident's id.
fn incident_before_another_page(world: &World, minutes_ago: u64) -> String {
    for n in 0..200 {
        world.posted(VENDOR, minutes_ago + 10, &json!({"text": format!("build {n}")}));
    }
    world.posted(VENDOR, minutes_ago, &json!({"blocks": blocks()}))
}

#[tokio::test]
async fn an_incident_in_a_new_layout_is_a_near_miss_if_a_later_page_can_never_be_read() {
    let world = World::new().await;
    let incident = incident_before_another_page(&world, 10);
    for later in (1..200).step_by(2) {
        world.slack.trouble(HISTORY, later, Trouble::Error("channel_not_found"));
    }
    let relay = world.start().await;
    let is_read_twice = async {
        while world.calls_for(CHANNEL) < 5 {
            tokio::task::yield_now().await;
        }
    };
    relay.time_passes_until(MINUTE, is_read_twice).await;
    problem_is(&relay, |problem| problem.contains("channel_not_found")).await;
    assert_eq!(near_misses(&relay).await, [(incident, "history".to_owned())]);
    assert!(world.arrived(&relay).await.is_empty());
    assert_eq!(relay.metric(&outcome("ignored", "near_miss")).await, 1.0);
    let status = channel_status(&relay, CHANNEL).await;
    assert_eq!(status["committed"], Value::Null, "the window counts as not read");
}

#[tokio::test]
async fn an_incident_in_a_new_layout_is_stored_though_slack_revokes_the_token_meanwhile() {
    let world = World::new().await;
    let incident = incident_before_another_page(&world, 10);
    world.slack.trouble(HISTORY, 1, Trouble::Revoke);
    let relay = world.start().await;
    problem_is(&relay, |problem| problem.contains("token_revoked")).await;
    assert!(
        world.arrived(&relay).await.is_empty(),
        "the window is read again, from its first page"
    );
    world.slack.revoke(None);
    world.brings(&relay, &[incident]).await;
    assert!(near_misses(&relay).await.is_empty());
}

#[tokio::test]
async fn a_backfill_that_fails_has_kept_the_incidents_in_a_new_layout_that_it_has_read() {
    let world = World::new().await;
    let relay = world.start().await;
    relay.caught_up().await;
    // Older than anything that catch-up reads by itself.
    let incident = incident_before_another_page(&world, 4 * 24 * 60);
    world.slack.trouble(HISTORY, 1, Trouble::Error("not_in_channel"));
    let request = BackfillRequest {
        since: HistoryTime::Ago(5 * DAY),
        until: None,
        channel: None,
        purpose: Purpose::Deliver,
    };
    let backfill = async || {
        let handles = relay.relay().catch_up();
        handles[0].backfill(request.clone()).await.unwrap()
    };
    let report = backfill().await;
    assert_eq!((report.channels, report.failures.len()), (0, 1));
    assert!(world.arrived(&relay).await.is_empty());
    assert_eq!(near_misses(&relay).await, [(incident.clone(), "history".to_owned())]);
    assert_eq!(relay.metric(&outcome("ignored", "near_miss")).await, 1.0);
    // The next backfill reads the rest, and decides.
    let report = backfill().await;
    assert_eq!((report.channels, report.failures.len()), (1, 0));
    assert_eq!(world.arrived(&relay).await, [incident]);
}
