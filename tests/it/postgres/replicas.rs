//! Several relays: none doubles what another does, none loses what another held.

use std::time::Duration;

use slack_soar_relay::clock::Clock;
use tokio::task::JoinSet;

use super::{
    CONCURRENCY, Relays,
    cluster::{Cluster, Pooler},
    ids, metric, stored, until,
};
use crate::{
    harness::soar::{FakeSoar, Mood},
    process::{Process, until_all},
};

/// A server, by itself or behind a pooler.
struct Place {
    // Dropped first, while the server still answers.
    pooler: Option<Pooler>,
    cluster: Cluster,
}

impl Place {
    fn direct() -> Self {
        Self { pooler: None, cluster: Cluster::new() }
    }

    fn pooled() -> Self {
        let cluster = Cluster::new();
        Self { pooler: Some(Pooler::new(&cluster)), cluster }
    }

    fn url(&self) -> String {
        self.pooler.as_ref().map_or_else(|| self.cluster.url(), Pooler::url)
    }
}

#[tokio::test]
async fn an_event_on_three_relays_at_once_is_one_alert_and_one_delivery() {
    three_relays(&Place::direct()).await;
}

#[tokio::test]
async fn an_event_on_three_relays_at_once_is_one_alert_behind_a_pooler_too() {
    three_relays(&Place::pooled()).await;
}

async fn three_relays(place: &Place) {
    const ALERTS: u32 = 60;
    let soar = FakeSoar::ok().await;
    let relays = Relays::new(place.url(), &soar);
    // They start at once, on an empty database.
    let starts: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..3).map(|_| scope.spawn(|| relays.start())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let processes: [Process; 3] = starts.try_into().map_err(|_| "three").unwrap();
    for n in 0..ALERTS {
        let [a, b, c] = &processes;
        let answers = tokio::join!(a.post(n), b.post(n), c.post(n));
        assert_eq!(answers, (Some(200), Some(200), Some(200)), "event {n}");
    }
    let counts = until_all(&soar, &ids(0..ALERTS)).await;
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert_eq!(stored(&place.cluster).await.len(), usize::try_from(ALERTS).unwrap());
    let attempts = "SELECT count(*) FROM relay.deliveries WHERE state = 1 AND attempts = 1";
    until("every delivery is recorded once", async || {
        place.cluster.sql(attempts).await == [ALERTS.to_string()]
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_by_kills_and_two_outages_of_the_database() {
    kills_and_outages(&Place::direct()).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_by_kills_and_two_outages_behind_a_pooler() {
    kills_and_outages(&Place::pooled()).await;
}

async fn kills_and_outages(place: &Place) {
    const ALERTS: u32 = 1000;
    const OUTAGE: Duration = Duration::from_secs(10);
    let seed = Clock::system().token();
    let mut random = fastrand::Rng::with_seed(seed);
    let soar = FakeSoar::ok().await;
    let relays = Relays::new(place.url(), &soar);
    let mut processes = [relays.start(), relays.start()];
    let mut kills = 0;
    for n in 0..ALERTS {
        if n == 300 || n == 700 {
            place.cluster.stop();
            let start = Clock::system().now();
            let mut refused = 0;
            while Clock::system().now().since(start) < OUTAGE {
                let answer = processes[random.usize(..2)].post(n).await;
                assert_eq!(answer, Some(503), "while the database is down, seed {seed}");
                refused += 1;
            }
            assert!(refused > 3);
            place.cluster.start();
        }
        if random.u32(..100) == 0 {
            let victim = random.usize(..2);
            processes[victim].signal("-KILL");
            kills += 1;
            deliver(&processes, n, &mut random).await;
            processes[victim] = relays.start();
        }
        deliver(&processes, n, &mut random).await;
    }
    let counts = until_all(&soar, &ids(0..ALERTS)).await;
    // At a kill at most `concurrency` attempts are in flight.
    let extra: usize = counts.values().map(|count| count - 1).sum();
    assert!(extra <= kills * CONCURRENCY, "{extra} were sent twice by {kills} kills, seed {seed}");
    let expected = ids(0..ALERTS).into_iter().collect();
    assert_eq!(stored(&place.cluster).await, expected, "seed {seed}");
}

/// As Slack does: again until somebody takes it.
async fn deliver(processes: &[Process; 2], n: u32, random: &mut fastrand::Rng) {
    until("somebody takes the event", async || {
        processes[random.usize(..2)].post(n).await == Some(200)
    })
    .await;
}

#[tokio::test]
async fn a_relay_frozen_past_its_lease_does_not_overwrite_what_another_did() {
    let place = Place::direct();
    let soar = FakeSoar::new([Mood::Hang]).await;
    let relays = Relays::new(place.url(), &soar);
    let frozen = relays.start();
    assert_eq!(frozen.post(1).await, Some(200));
    soar.has_received(1).await;
    frozen.signal("-STOP");
    soar.becomes(Mood::Status(200));
    let other = relays.start();
    until_all(&soar, &ids(1..2)).await;
    let delivered = "SELECT attempts FROM relay.deliveries WHERE state = 1";
    until("the other's outcome is recorded", async || place.cluster.sql(delivered).await == ["1"])
        .await;
    frozen.signal("-CONT");
    until("the late outcome is counted", async || {
        metric(&frozen, "stale_leases_total").await > 0.0
    })
    .await;
    assert_eq!(place.cluster.sql(delivered).await, ["1"]);
    assert_eq!(metric(&other, "stale_leases_total").await, 0.0);
    assert_eq!(soar.taken(), ids(1..2));
}

#[tokio::test]
async fn a_pause_and_dead_letters_are_shared() {
    let place = Place::direct();
    let soar = FakeSoar::ok().await;
    let relays = Relays::new(place.url(), &soar);
    let (one, other) = (relays.start(), relays.start());
    place.cluster.sql("INSERT INTO relay.destinations (name, paused_at) VALUES ('soar', 0)").await;
    assert_eq!(one.post(1).await, Some(200));
    for process in [&one, &other] {
        until("the pause is seen", async || {
            metric(process, "deliveries{destination=\"soar\",state=\"paused\"}").await == 1.0
        })
        .await;
    }
    let mut posts = JoinSet::new();
    posts.spawn(async move { other.post(2).await });
    assert_eq!(posts.join_all().await, [Some(200)]);
    assert_eq!(soar.taken().len(), 0, "nobody sends what is paused");
    place.cluster.sql("UPDATE relay.destinations SET paused_at = NULL").await;
    until_all(&soar, &ids(1..3)).await;
}
