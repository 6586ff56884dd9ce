//! A server that may lose commits that it acknowledged.

use super::{Relays, cluster::Cluster, until};
use crate::{harness::soar::FakeSoar, process::command};

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
