//! Which bots have posted incidents, as operators see it.

use serde_json::{Value, json};

use crate::{
    harness::{Setup, TestRelay, slack, soar::FakeSoar},
    process::{Process, run, write_config},
};

async fn bots(relay: &TestRelay) -> Value {
    relay.api("GET", "/status").await.1["apps"][0]["bots"].clone()
}

#[tokio::test]
async fn the_status_counts_the_incidents_of_each_bot_over_restarts() {
    let soar = FakeSoar::new([]).await;
    let mut relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(bots(&relay).await, json!([]));
    let mut by_another = slack::message(7);
    by_another["bot_id"] = "B2".into();
    by_another["bot_profile"] = json!({"id": "B2", "app_id": "A2", "name": "other"});
    let mut twice = slack::message(8);
    twice["attachments"] = json!([slack::attachment(), slack::attachment()]);
    for event in [slack::message(1), slack::message(1), slack::message(2), twice, by_another] {
        assert_eq!(relay.post(&slack::event(&event)).await, 200);
    }
    let row = |bot_id: &str, app_id: &str, incidents: u64, n: u32| {
        let posted_at = slack::message(n)["ts"].as_str().unwrap()[..10].to_owned();
        let last = relay_time(posted_at.parse().unwrap(), n);
        json!({"bot_id": bot_id, "app_id": app_id, "channel": "C0123456789",
            "incidents": incidents, "last": last})
    };
    let expected = json!([row("B0RELAYBOT1", "", 4, 8), row("B2", "A2", 1, 7)]);
    assert_eq!(bots(&relay).await, expected);
    relay.stop().await;
    relay.restart().await;
    assert_eq!(bots(&relay).await, expected);
}

/// The moment of the `n`th incident as the API writes it.
fn relay_time(seconds: i64, n: u32) -> Value {
    let at = slack_soar_relay::clock::Timestamp::from_micros(
        seconds * 1_000_000 + i64::from(n % 1000) + 1,
    );
    serde_json::to_value(at).unwrap()
}

#[tokio::test]
async fn the_doctor_and_the_status_name_the_bots_and_the_line_that_allows_only_them() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let process = Process::start(dir.path(), &[]);
    assert_eq!(process.post(1).await, Some(200));
    let path = dir.path().join("relay.yaml");
    let yaml = std::fs::read_to_string(&path).unwrap();
    let yaml = yaml.replacen("127.0.0.1:0", &process.public.to_string(), 1).replacen(
        "127.0.0.1:0",
        &process.ops.to_string(),
        1,
    );
    std::fs::write(&path, &yaml).unwrap();
    let config = path.to_str().unwrap();
    let (_, out, err) = run(&["doctor", "--config", config]);
    let line = out.lines().find(|line| line.contains("bots of main")).expect(&err);
    assert!(line.starts_with("warn") && line.contains("B0RELAYBOT1 (1 incident, "), "{line}");
    assert!(line.ends_with("bots: [B0RELAYBOT1]"), "{line}");
    let (_, out, err) = run(&["status", "--config", config]);
    assert!(out.contains("B0RELAYBOT1 (1 incident, "), "{out}{err}");
    assert!(out.contains("bots: [B0RELAYBOT1]"), "{out}{err}");
    let (code, out, _) = run(&["check", "--config", config]);
    assert!(code == 0 && out.contains("slack.apps[0].bots: empty"), "{out}");
    let pasted = yaml.replace("name: main,", "name: main, bots: [B0RELAYBOT1],");
    std::fs::write(&path, pasted).unwrap();
    let (_, out, _) = run(&["check", "--config", config]);
    assert!(!out.contains(".bots"), "{out}");
    let (_, out, _) = run(&["doctor", "--config", config]);
    assert!(out.contains("ok    bots of main: B0RELAYBOT1 (1 incident, "), "{out}");
}
