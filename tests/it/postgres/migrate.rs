//! `migrate-store`: a relay moves from its file to the database without losing anything.

use serde_json::json;
use tempfile::TempDir;

use super::{Relays, api, both_ways, cluster::TestServer, ids, stored};
use crate::{
    harness::{
        slack,
        soar::{FakeSoar, Mood},
    },
    process::{Process, command, until_all},
};

both_ways! {
    a_relay_moves_to_postgresql_with_what_it_has_not_delivered,
    near_misses_and_the_bots_that_post_incidents_move_too,
}

/// Creates a folder with the same configuration, except that the store is a file.
fn on_file(relays: &Relays) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let yaml = std::fs::read_to_string(relays.folder().join("relay.yaml")).unwrap();
    let (before, after) = yaml.split_once("store:").unwrap();
    let after = after.split_once('\n').unwrap().1;
    std::fs::write(folder.path().join("relay.yaml"), [before, after].concat()).unwrap();
    folder
}

fn migrate(relays: &Relays, on_file: &TempDir) -> (Option<i32>, String) {
    let output = command()
        .args(["migrate-store", "--to", "postgres", "--from"])
        .arg(format!("sqlite:{}", on_file.path().join("relay.db").display()))
        .arg("--config")
        .arg(relays.folder().join("relay.yaml"))
        .envs(relays.env.iter().cloned())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

async fn a_relay_moves_to_postgresql_with_what_it_has_not_delivered(server: TestServer) {
    let soar = FakeSoar::new([Mood::Status(503)]).await;
    let relays = Relays::new(server.url(), &soar);
    let on_file = on_file(&relays);
    let migrate = || migrate(&relays, &on_file);

    let mut old = Process::start(on_file.path(), &relays.env);
    for n in 0..20 {
        assert_eq!(old.post(n).await, Some(200));
    }
    let (code, said) = migrate();
    assert!(code == Some(1) && said.contains("another relay is using the store"), "{said}");
    old.terminate();
    let (code, said) = migrate();
    assert!(code == Some(0) && said.contains("20 deliveries"), "{said}");
    let (code, said) = migrate();
    assert!(code == Some(1) && said.contains("already holds 20 messages"), "{said}");
    assert_eq!(stored(&server.cluster).await.len(), 20);

    // Due now, as after a retry by hand, so that the test does not wait for the next attempt.
    server.cluster.sql("UPDATE relay.deliveries SET due_at = 0").await;
    soar.becomes(Mood::Status(200));
    let new = relays.start();
    assert_eq!(new.post(3).await, Some(200), "known, and taken once");
    let counts = until_all(&soar, &ids(0..20)).await;
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

async fn near_misses_and_the_bots_that_post_incidents_move_too(server: TestServer) {
    let soar = FakeSoar::ok().await;
    let relays = Relays::new(server.url(), &soar);
    let on_file = on_file(&relays);
    let mut old = Process::start(on_file.path(), &relays.env);
    assert_eq!(old.post(1).await, Some(200));
    let mut renamed = slack::message(2);
    renamed["attachments"][0]["title"] = "Client-side Defense: finding".into();
    let renamed = slack::event(&renamed).to_string();
    assert_eq!(old.post_body(renamed.as_bytes()).await, Some(200));
    let before = api(&old, "GET", "/status").await;
    assert_eq!(before["near_misses"], json!({"unread": 1, "total": 1}));
    assert_eq!(before["apps"][0]["bots"][0]["incidents"], 1);
    old.terminate();
    let (code, said) = migrate(&relays, &on_file);
    assert_eq!(code, Some(0), "{said}");

    let new = relays.start();
    let after = api(&new, "GET", "/status").await;
    assert_eq!(after["near_misses"], before["near_misses"]);
    assert_eq!(after["apps"][0]["bots"], before["apps"][0]["bots"]);
    let id = slack::id(2);
    let listed = api(&new, "GET", "/near-misses").await;
    assert_eq!(listed["near_misses"][0]["id"], *id);
    assert_eq!(listed["near_misses"][0]["reason"], "title");
    let adopted = api(&new, "POST", &format!("/near-misses/{id}/adopt")).await;
    assert_eq!(adopted, json!({"changed": 1, "alert_ids": [id]}));
    until_all(&soar, &ids(1..3)).await;
}
