//! A server that may lose commits that it acknowledged.

use serde_json::Value;
use tokio::task::spawn_blocking;

use super::{Relays, api, cluster::Cluster, until};
use crate::{
    harness::soar::FakeSoar,
    process::{command, run},
};

#[tokio::test]
async fn a_server_that_does_not_flush_is_refused_unless_allowed() {
    let cluster = Cluster::new();
    for statement in ["ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"] {
        cluster.sql(statement).await;
    }
    until("the server has it", async || cluster.sql("SHOW fsync").await == ["off"]).await;
    let soar = FakeSoar::ok().await;
    let relays = Relays::new(cluster.url(), &soar);
    let config = relays.folder().join("relay.yaml");

    let refused = command()
        .args(["serve", "--config"])
        .arg(&config)
        .envs(relays.env.iter().cloned())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("fsync=off") && said.contains("allow_unsafe"), "{said}");

    let text = std::fs::read_to_string(&config).unwrap();
    let allowed = text.replace("{env: DATABASE_URL}", "{env: DATABASE_URL}, allow_unsafe: true");
    assert_ne!(text, allowed, "{text}");
    std::fs::write(&config, allowed).unwrap();
    let relay = relays.start();
    until("the event is taken", async || relay.post(1).await == Some(200)).await;
}

#[tokio::test]
async fn an_outage_of_the_database_is_logged_once_and_shown_as_long_as_it_lasts() {
    let cluster = Cluster::new();
    let soar = FakeSoar::ok().await;
    let relays = Relays::new(cluster.url(), &soar);
    let mut relay = relays.start();
    until("the event is taken", async || relay.post(1).await == Some(200)).await;

    cluster.stop();
    until("the relay notices", async || {
        api(&relay, "GET", "/status").await["store"]["answers"] == false
    })
    .await;
    assert_eq!(relay.post(2).await, Some(503));
    let server = format!("http://{}", relay.ops);
    let (code, said, _) =
        spawn_blocking(move || run(&["status", "--server", &server])).await.unwrap();
    let shown = ["store          does not answer", "nothing is delivered or counted"];
    assert!(code == 1 && shown.iter().all(|text| said.contains(text)), "{said}");
    let row = said.lines().find(|line| line.starts_with("soar")).unwrap();
    assert_eq!(row.split_whitespace().filter(|cell| *cell == "?").count(), 3, "{said}");

    let said = |line: &Value, text: &str| line["message"].as_str().unwrap().starts_with(text);
    relay.log_of("the store ", |line| said(line, "the store fails")).await;
    cluster.start();
    let log = relay.log_of("the store ", |line| said(line, "the store works again")).await;
    assert!(!log.iter().any(|line| said(line, "the store fails")), "{log:?}");
    until("the event is taken", async || relay.post(2).await == Some(200)).await;
}
