//! A primary with a synchronous standby: acknowledged alerts are on both.

use slack_soar_relay::clock::Clock;

use super::{Relays, both_ways, cluster::TestServer, ids, stored, until};
use crate::{harness::soar::FakeSoar, process::until_all};

both_ways! {
    nothing_acknowledged_is_lost_when_the_standby_takes_over,
    a_commit_that_stops_waiting_for_its_standby_is_not_acknowledged,
}

async fn nothing_acknowledged_is_lost_when_the_standby_takes_over(primary: TestServer) {
    const ALERTS: u32 = 200;
    let standby = primary.standby();
    let soar = FakeSoar::ok().await;
    let relays = Relays::new(primary.url_with(&standby), &soar);
    let relay = relays.start();
    until("the standby is synchronous", async || {
        primary.cluster.sql("SELECT sync_state FROM pg_stat_replication").await == ["sync"]
    })
    .await;
    for n in 0..ALERTS {
        if n == ALERTS / 2 {
            primary.cluster.stop();
            assert_eq!(relay.post(n).await, Some(503), "nobody takes writes");
            let acknowledged = ids(0..n);
            standby.cluster.promote();
            let kept = stored(&standby.cluster).await;
            let lost: Vec<_> = acknowledged.iter().filter(|id| !kept.contains(*id)).collect();
            assert!(lost.is_empty(), "{lost:?}");
        }
        until("the event is taken", async || relay.post(n).await == Some(200)).await;
    }
    until_all(&soar, &ids(0..ALERTS)).await;
}

async fn a_commit_that_stops_waiting_for_its_standby_is_not_acknowledged(primary: TestServer) {
    let standby = primary.standby();
    let soar = FakeSoar::ok().await;
    let relays = Relays::new(primary.url(), &soar);
    let relay = relays.start();
    until("the event is taken", async || relay.post(0).await == Some(200)).await;
    standby.cluster.stop();
    // The server warns, and then reports that it has committed.
    let waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
        WHERE wait_event = 'SyncRep' AND backend_type = 'client backend'";
    let start = Clock::system().now();
    let answers = async {
        // The second time the alerts are known, and still not on the standby.
        for n in [1, 2, 3, 1, 2, 3] {
            assert_eq!(relay.post(n).await, Some(503), "event {n}");
        }
    };
    let cancels = async {
        loop {
            primary.cluster.sql(waiting).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = answers => {}
        () = cancels => {}
    }
    assert!(Clock::system().now().since(start).as_secs() < 40);
    standby.cluster.start();
    until("the event is taken", async || relay.post(1).await == Some(200)).await;
}
