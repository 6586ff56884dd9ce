//! Secrets in files: rotated while requests come in and alerts go out.

use std::time::Duration;

use crate::harness::{
    PATIENCE, Setup, TestRelay, http, log,
    slack::{self, id, incident},
    soar::{FakeSoar, Mood},
};

const SECOND: Duration = Duration::from_secs(1);

async fn post(relay: &TestRelay, secret: &str, n: u32) -> u16 {
    let body = incident(n).to_string().into_bytes();
    let headers = slack::signed(secret, relay.clock.now(), &body);
    http::post(relay.public(), "/slack/events", &headers, &body).await.status
}

fn attempts(class: &str) -> String {
    format!(r#"delivery_attempts_total{{destination="soar",class="{class}"}}"#)
}

const APP: &str = "    - name: main\n      signing_secret: {file: current}\n      \
                   previous_signing_secret: {file: previous}\n";

#[tokio::test]
async fn rotating_the_signing_secret_under_load_loses_no_event_and_answers_no_401() {
    const ROTATIONS: u32 = 20;
    const EACH: u32 = 10;
    let soar = FakeSoar::ok().await;
    let relay = Setup::default()
        .apps(APP)
        .destination("soar", &soar, "")
        .file("current", "secret-0")
        .file("previous", "unused")
        .start()
        .await;
    for rotation in 1..=ROTATIONS {
        let [old, new] = [rotation - 1, rotation].map(|n| format!("secret-{n}"));
        relay.write("previous", &old);
        relay.write("current", &new);
        // Slack signs with the new one from now on; what it signed before is still on its way.
        for n in 0..EACH {
            let secret = if n % 2 == 0 { &new } else { &old };
            assert_eq!(post(&relay, secret, rotation * EACH + n).await, 200, "{rotation} {n}");
        }
    }
    relay.settled().await;
    assert_eq!(soar.received().len(), usize::try_from(ROTATIONS * EACH).unwrap());
    let refused = r#"events_total{app="main",outcome="rejected",reason="bad_signature"}"#;
    assert_eq!(relay.metric(refused).await, 0.0);
    assert_eq!(post(&relay, "secret-0", 0).await, 401, "one that is no longer configured");
}

#[tokio::test]
async fn a_signing_secret_that_cannot_be_read_leaves_the_old_one_in_use() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default()
        .apps("    - {name: main, signing_secret: {file: current}}\n")
        .destination("soar", &soar, "")
        .file("current", "secret-0")
        .start()
        .await;
    let path = relay.write("current", "");
    assert_eq!(post(&relay, "", 1).await, 401, "an empty secret is none");
    assert_eq!(post(&relay, "secret-0", 1).await, 200);
    std::fs::remove_file(path).unwrap();
    assert_eq!(post(&relay, "another", 2).await, 401);
    assert_eq!(post(&relay, "secret-0", 2).await, 200);
    soar.has_received(2).await;
    relay.settled().await;
}

#[tokio::test]
async fn a_secret_file_that_becomes_flawed_leaves_the_old_value_in_use_and_is_said_once() {
    log::keep();
    let relay = Setup::default()
        .apps("    - {name: main, signing_secret: {file: current}}\n")
        .file("current", "\u{feff}secret-0\r\n")
        .start()
        .await;
    assert_eq!(post(&relay, "secret-0", 1).await, 200, "what surrounds it is left out");
    relay.write("current", "\"secret-1\"\n");
    let said = || {
        let lines = log::lines().into_iter();
        let lines =
            lines.filter(|line| line["reason"].to_string().contains("has quotes around it"));
        lines.map(|line| line["level"].clone()).collect::<Vec<_>>()
    };
    let wait = async {
        while said().is_empty() {
            relay.clock.advance(SECOND);
            assert_eq!(post(&relay, "secret-0", 2).await, 200);
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it is not said");
    for _ in 0..30 {
        relay.clock.advance(SECOND);
        assert_eq!(post(&relay, "secret-1", 3).await, 401);
    }
    assert_eq!(said(), ["WARN"]);
}

#[tokio::test]
async fn a_destinations_key_that_was_just_rotated_costs_no_failed_attempt() {
    let soar = FakeSoar::new([Mood::Wants("key-0")]).await;
    let key = "headers: {Authorization: {file: key}}";
    let relay = Setup::default().destination("soar", &soar, key).file("key", "key-0").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    soar.has_received(1).await;
    relay.write("key", "key-1");
    soar.becomes(Mood::Wants("key-1"));
    assert_eq!(relay.post(&incident(2)).await, 200);
    relay.settled().await;
    assert_eq!(soar.taken(), [id(1), id(2)]);
    assert_eq!(soar.received().len(), 3, "the attempt that was refused was made again at once");
    assert_eq!(relay.metric(&attempts("delivered")).await, 2.0);
    assert_eq!(relay.metric(&attempts("auth")).await, 0.0);
}

#[tokio::test]
async fn a_key_that_is_rotated_in_a_storm_of_401_is_used_without_waiting_for_the_breaker() {
    const ALERTS: u32 = 30;
    let soar = FakeSoar::new([Mood::Wants("key-1")]).await;
    let key = "headers: {Authorization: {file: key}}";
    let relay = Setup::default().destination("soar", &soar, key).file("key", "key-0").start().await;
    for n in 0..ALERTS {
        assert_eq!(relay.post(&incident(n)).await, 200);
    }
    let open = r#"breaker_open{destination="soar"}"#;
    relay.metric_is(open, |open| open == 1.0).await;
    assert!(soar.received().len() < 20, "the breaker ends the storm");
    relay.write("key", "key-1");
    let began = relay.clock.now();
    // Small steps: a busy machine must not make the relay's time run ahead of its answers.
    relay.time_passes_until(SECOND / 10, relay.settled()).await;
    assert!(relay.clock.now().since(began) < Duration::from_secs(30), "breaker's time");
    let mut taken = soar.taken();
    taken.sort();
    let mut expected: Vec<String> = (0..ALERTS).map(id).collect();
    expected.sort();
    assert_eq!(taken, expected);
}

#[tokio::test]
async fn a_reload_with_another_key_in_a_storm_of_401_ends_it() {
    const ALERTS: u32 = 30;
    let soar = FakeSoar::new([Mood::Wants("key-1")]).await;
    let mut relay = Setup::default()
        .destination("soar", &soar, "headers: {Authorization: {file: old}}")
        .file("old", "key-0")
        .start()
        .await;
    for n in 0..ALERTS {
        assert_eq!(relay.post(&incident(n)).await, 200);
    }
    soar.has_received(5).await;
    relay.write("fresh", "key-1");
    relay.reload(|yaml| yaml.replace("{file: old}", "{file: fresh}")).await.unwrap();
    relay.time_passes_until(SECOND, relay.settled()).await;
    assert_eq!(soar.taken().len(), usize::try_from(ALERTS).unwrap());
    assert_eq!(relay.metric(r#"deliveries{destination="soar",state="dead"}"#).await, 0.0);
}

#[tokio::test]
async fn a_secret_is_read_again_while_old_messages_are_being_removed() {
    log::keep();
    let relay = Setup::default()
        .apps("    - {name: main, signing_secret: {file: current}}\n")
        .file("current", "secret-0")
        .start()
        .await;
    // Whoever removes something waits for this.
    let other = rusqlite::Connection::open(relay.dir().join("relay.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let passes = async |seconds: u32| {
        for _ in 0..seconds {
            relay.clock.advance(SECOND);
            assert_eq!(http::get(relay.relay().ops, "/livez").await.status, 200);
        }
    };
    passes(61).await;
    relay.write("current", "secret-1");
    passes(20).await;
    let said = log::lines();
    let is_said =
        |line: &serde_json::Value| line["message"] == "a secret has changed and is in use";
    assert!(said.iter().any(is_said), "{said:#?}");
    other.execute_batch("COMMIT").unwrap();
}
