//! TLS to the database, verified by the operator's own authority.

use super::{Relays, cluster::Cluster, until};
use crate::{harness::soar::FakeSoar, process::command};

#[tokio::test]
async fn the_database_is_spoken_to_over_tls_that_is_verified() {
    let cluster = Cluster::new();
    let authority = cluster.speak_tls();
    let soar = FakeSoar::ok().await;
    let url = format!("{}?sslmode=verify-full", cluster.url());
    let mut relays = Relays::new(url, &soar);

    let refused = command()
        .args(["serve", "--config"])
        .arg(relays.folder().join("relay.yaml"))
        .envs(relays.env.iter().cloned())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("UnknownIssuer"), "{said}");

    relays.trust(&authority);
    let relay = relays.start();
    until("the event is taken", async || relay.post(1).await == Some(200)).await;
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name = 'slack-soar-relay'";
    assert_eq!(cluster.sql(encrypted).await, ["t"]);
}
