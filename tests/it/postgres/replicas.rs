//! Several relays: no delivery is made twice, and none is lost with the relay that held it.

use std::time::Duration;

use serde_json::{Value, json};
use slack_soar_relay::clock::Clock;
use tokio::task::spawn_blocking;

use super::{CONCURRENCY, Relays, api, both_ways, cluster::TestServer, ids, metric, stored, until};
use crate::{
    harness::{
        BEGIN, Setup,
        fake_slack::{CHANNEL, Call, Channel, FakeSlack, Sick, Trouble},
        http, slack,
        soar::{FakeSoar, Mood},
    },
    process::{Process, command, until_all},
};

both_ways! {
    an_event_on_three_relays_at_once_is_one_alert_and_one_delivery,
    nothing_is_lost_or_doubled_by_kills_and_two_outages_of_the_database,
    a_relay_frozen_past_its_lease_does_not_overwrite_what_another_did,
    what_an_operator_does_on_one_relay_holds_for_all,
    another_relay_reads_history_within_15_s_of_the_pollers_death,
    what_slack_says_it_withheld_is_read_whichever_relay_it_tells,
    a_relay_that_stands_by_reads_a_withheld_minute_once_though_another_channel_fails,
    a_channels_new_id_counts_for_all_relays_whichever_slack_tells,
    a_channels_name_that_one_relay_found_counts_for_all,
    a_backfill_on_any_relay_reads_every_channel_that_the_bot_is_in,
    a_relay_that_cannot_reach_slack_leaves_polling_to_one_that_can,
    the_doctor_says_how_the_database_is,
}

async fn an_event_on_three_relays_at_once_is_one_alert_and_one_delivery(server: TestServer) {
    const ALERTS: u32 = 60;
    let soar = FakeSoar::ok().await;
    let relays = Relays::new(server.url(), &soar);
    // All start at the same time, on an empty database.
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
    assert_eq!(stored(&server.cluster).await.len(), usize::try_from(ALERTS).unwrap());
    let attempts = "SELECT count(*) FROM relay.deliveries WHERE state = 1 AND attempts = 1";
    until("every delivery is recorded once", async || {
        server.cluster.sql(attempts).await == [ALERTS.to_string()]
    })
    .await;
}

async fn nothing_is_lost_or_doubled_by_kills_and_two_outages_of_the_database(server: TestServer) {
    const ALERTS: u32 = 1000;
    const OUTAGE: Duration = Duration::from_secs(10);
    let seed = Clock::system().token();
    let mut random = fastrand::Rng::with_seed(seed);
    let soar = FakeSoar::ok().await;
    let relays = Relays::new(server.url(), &soar);
    let mut processes = [relays.start(), relays.start()];
    let mut kills = 0;
    for n in 0..ALERTS {
        if n == 300 || n == 700 {
            server.cluster.stop();
            let start = Clock::system().now();
            let mut refused = 0;
            while Clock::system().now().since(start) < OUTAGE {
                let answer = processes[random.usize(..2)].post(n).await;
                assert_eq!(answer, Some(503), "while the database is down, seed {seed}");
                refused += 1;
            }
            assert!(refused > 3);
            server.cluster.start();
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
    assert_eq!(stored(&server.cluster).await, expected, "seed {seed}");
}

/// Posts an event to random relays until one takes it, as Slack does.
async fn deliver(processes: &[Process; 2], n: u32, random: &mut fastrand::Rng) {
    until("somebody takes the event", async || {
        processes[random.usize(..2)].post(n).await == Some(200)
    })
    .await;
}

async fn a_relay_frozen_past_its_lease_does_not_overwrite_what_another_did(server: TestServer) {
    let soar = FakeSoar::new([Mood::Hang]).await;
    let relays = Relays::new(server.url(), &soar);
    let frozen = relays.start();
    assert_eq!(frozen.post(1).await, Some(200));
    soar.has_received(1).await;
    frozen.signal("-STOP");
    soar.becomes(Mood::Status(200));
    let other = relays.start();
    until_all(&soar, &ids(1..2)).await;
    let delivered = "SELECT attempts FROM relay.deliveries WHERE state = 1";
    until("the other's outcome is recorded", async || server.cluster.sql(delivered).await == ["1"])
        .await;
    frozen.signal("-CONT");
    until("the late outcome is counted", async || {
        metric(&frozen, "stale_leases_total").await > 0.0
    })
    .await;
    assert_eq!(server.cluster.sql(delivered).await, ["1"]);
    assert_eq!(metric(&other, "stale_leases_total").await, 0.0);
    assert_eq!(soar.taken(), ids(1..2));
}

async fn what_an_operator_does_on_one_relay_holds_for_all(server: TestServer) {
    let soar = FakeSoar::ok().await;
    let relays = Relays::new(server.url(), &soar);
    let (one, other) = (relays.start(), relays.start());
    api(&one, "POST", "/destinations/soar/pause").await;
    for process in [&one, &other] {
        let status = api(process, "GET", "/status").await;
        assert_eq!(status["destinations"][0]["paused"], true, "{status}");
    }
    for n in 1..4 {
        assert_eq!(other.post(n).await, Some(200));
    }
    let state = async |process, n| {
        let alert = api(process, "GET", &format!("/alerts/{}", slack::id(n))).await;
        alert["deliveries"][0]["state"].as_str().unwrap().to_owned()
    };
    for n in [1, 2] {
        api(&one, "POST", &format!("/alerts/{}/cancel", slack::id(n))).await;
        assert_eq!(state(&other, n).await, "cancelled");
    }
    api(&other, "POST", &format!("/alerts/{}/retry", slack::id(1))).await;
    assert_eq!(state(&one, 1).await, "paused");
    assert_eq!(soar.taken().len(), 0, "nobody sends what is paused");
    api(&other, "POST", "/destinations/soar/resume").await;
    until_all(&soar, &[slack::id(1), slack::id(3)]).await;
    until("both are delivered", async || {
        state(&one, 1).await == "delivered" && state(&one, 3).await == "delivered"
    })
    .await;
    assert_eq!(state(&one, 2).await, "cancelled");
    assert_eq!(soar.taken().len(), 2, "what was cancelled is not sent");
}

async fn another_relay_reads_history_within_15_s_of_the_pollers_death(server: TestServer) {
    let clock = Clock::system();
    let (workspace, soar) = (FakeSlack::new(clock.clone()).await, FakeSoar::ok().await);
    let mut relays = Relays::new(server.url(), &soar);
    relays.catch_up(&workspace);
    let count = async |table| server.cluster.sql(&format!("SELECT count(*) FROM {table}")).await;
    let poller = relays.start();
    until("history is read", async || count("relay.cursors").await == ["1"]).await;
    let calls = workspace.all_calls();
    let other = relays.start();
    let began = clock.now();
    until("the other one has asked twice", async || {
        http::get(other.ops, "/readyz").await.status == 200
            && clock.now().since(began) > Duration::from_secs(4)
    })
    .await;
    assert_eq!(workspace.all_calls(), calls, "one relay polls");
    poller.signal("-KILL");
    let died = clock.now();
    let message = workspace.state().post_at(CHANNEL, died, slack::message(0));
    let id = format!("main:{CHANNEL}:{}:0", message["ts"].as_str().unwrap());
    until_all(&soar, &[id]).await;
    let took = clock.now().since(died);
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(count("relay.pollers WHERE term = 2").await, ["1"]);
}

async fn what_slack_says_it_withheld_is_read_whichever_relay_it_tells(server: TestServer) {
    let clock = Clock::system();
    let (workspace, soar) = (FakeSlack::new(clock.clone()).await, FakeSoar::ok().await);
    let mut relays = Relays::new(server.url(), &soar);
    relays.catch_up(&workspace);
    let cursors = "SELECT ts FROM relay.cursors";
    let _poller = relays.start();
    until("history is read", async || server.cluster.sql(cursors).await.len() == 1).await;
    let read_to = server.cluster.sql(cursors).await;
    let other = relays.start();
    // Long before the poller's overlap.
    let minute = clock.now() - Duration::from_secs(7200);
    let message = workspace.state().post_at(CHANNEL, minute, slack::message(0));
    let limited = json!({"type": "app_rate_limited", "minute_rate_limited": minute.seconds()});
    assert_eq!(other.post_body(limited.to_string().as_bytes()).await, Some(200));
    let id = format!("main:{CHANNEL}:{}:0", message["ts"].as_str().unwrap());
    until_all(&soar, &[id]).await;
    assert_eq!(server.cluster.sql("SELECT term FROM relay.pollers").await, ["1"]);
    assert_eq!(server.cluster.sql(cursors).await, read_to, "only the poller moves it");
}

async fn a_relay_that_stands_by_reads_a_withheld_minute_once_though_another_channel_fails(
    server: TestServer,
) {
    const FAILS: &str = "C7777777777";
    let clock = Clock::system();
    let workspace = FakeSlack::new(clock.clone()).await;
    workspace.state().channels.push(Channel::new(FAILS, "other"));
    let soar = FakeSoar::ok().await;
    let mut relays = Relays::new(server.url(), &soar);
    relays.catch_up_in(&workspace, &format!("[{CHANNEL}, {FAILS}]"));
    let cursors = "SELECT channel FROM relay.cursors";
    let _poller = relays.start();
    until("history is read", async || server.cluster.sql(cursors).await.len() == 2).await;
    let other = relays.start();
    workspace.state().sick.insert(FAILS, Sick::Error("internal_error"));
    // Long before the overlap of the poller, so that the other relay's calls can be told apart.
    let minute = clock.now() - Duration::from_secs(7200);
    let limited = json!({"type": "app_rate_limited", "minute_rate_limited": minute.seconds()});
    assert_eq!(other.post_body(limited.to_string().as_bytes()).await, Some(200));
    let oldest = format!("{}.", minute.seconds());
    let calls = |channel: &str| {
        let calls = workspace.calls("conversations.history");
        let is_told = |call: &&Call| {
            call.query.get("channel").is_some_and(|id| id == channel)
                && call.query.get("oldest").is_some_and(|from| from.starts_with(&oldest))
        };
        calls.iter().filter(is_told).count()
    };
    until("the sick channel was tried again", async || calls(FAILS) >= 3).await;
    assert_eq!(calls(CHANNEL), 1, "read to its end, it is left alone");
}

async fn a_channels_new_id_counts_for_all_relays_whichever_slack_tells(server: TestServer) {
    const NEW: &str = "C7777777777";
    let clock = Clock::system();
    let (workspace, soar) = (FakeSlack::new(clock.clone()).await, FakeSoar::ok().await);
    let mut relays = Relays::new(server.url(), &soar);
    relays.catch_up(&workspace);
    relays.more("catch_up: {every: 3s}\n");
    let read = "SELECT channel FROM relay.cursors WHERE term = 1 ORDER BY channel";
    let poller = relays.start();
    until("history is read", async || server.cluster.sql(read).await == [CHANNEL]).await;
    let other = relays.start();
    workspace.state().channels = vec![Channel::new(NEW, "cd_alerts")];
    let changed = json!({"type": "channel_id_changed", "old_channel_id": CHANNEL,
        "new_channel_id": NEW});
    let changed = slack::event(&changed).to_string();
    assert_eq!(other.post_body(changed.as_bytes()).await, Some(200));
    // The poller may not know the new id yet, and then ignores the push.
    let early = workspace.state().post_incident(NEW);
    let push = slack::event(&early).to_string();
    assert_eq!(poller.post_body(push.as_bytes()).await, Some(200));
    let first_id = |message: &Value| {
        let mut message = message.clone();
        message["channel"] = json!(CHANNEL);
        id(&message)
    };
    let mut arrived = vec![first_id(&early)];
    until_all(&soar, &arrived).await;
    until("it polls there", async || server.cluster.sql(read).await == [CHANNEL, NEW]).await;
    // Now both relays take pushes under the new id: history does not show these messages.
    for (n, process) in [&poller, &other].into_iter().enumerate() {
        let mut pushed = early.clone();
        pushed["ts"] = json!(format!("{}.{n:06}", clock.now().seconds()));
        let push = slack::event(&pushed).to_string();
        assert_eq!(process.post_body(push.as_bytes()).await, Some(200));
        arrived.push(first_id(&pushed));
        let counts = until_all(&soar, &arrived).await;
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    }
}

async fn a_channels_name_that_one_relay_found_counts_for_all(server: TestServer) {
    let clock = Clock::system();
    let (workspace, soar) = (FakeSlack::new(clock.clone()).await, FakeSoar::ok().await);
    let mut relays = Relays::new(server.url(), &soar);
    relays.catch_up_in(&workspace, "['#cd_alerts']");
    let unavailable = (0..1000).map(|after| (after, Trouble::Status(503)));
    unavailable
        .for_each(|(after, trouble)| workspace.trouble("conversations.list", after, trouble));
    let unresolved = async |process: &Process| {
        api(process, "GET", "/status").await["apps"][0]["catch_up"]["unresolved"].clone()
    };
    let processes = [relays.start(), relays.start()];
    for process in &processes {
        assert_eq!(unresolved(process).await, json!(["cd_alerts"]));
    }
    workspace.state().forget_troubles();
    until("both know the channel", async || {
        unresolved(&processes[0]).await == json!([]) && unresolved(&processes[1]).await == json!([])
    })
    .await;
    for process in &processes {
        let mut elsewhere = slack::message(1);
        elsewhere["channel"] = json!("C9999999999");
        let push = slack::event(&elsewhere).to_string();
        assert_eq!(process.post_body(push.as_bytes()).await, Some(200));
        let ignored = r#"events_total{app="main",outcome="ignored",reason="channel"}"#;
        assert_eq!(metric(process, ignored).await, 1.0);
    }
    assert_eq!(workspace.calls("auth.test").len(), 1, "one relay asked Slack");
}

async fn a_backfill_on_any_relay_reads_every_channel_that_the_bot_is_in(server: TestServer) {
    let clock = Clock::system();
    let (workspace, soar) = (FakeSlack::new(clock.clone()).await, FakeSoar::ok().await);
    let mut relays = Relays::new(server.url(), &soar);
    relays.catch_up_in(&workspace, "[]");
    let long_ago = clock.now() - Duration::from_secs(5 * 24 * 3600);
    let message = workspace.state().post_at(CHANNEL, long_ago, slack::message(0));
    let poller = relays.start();
    let cursors = "SELECT channel FROM relay.cursors";
    until("history is read", async || server.cluster.sql(cursors).await == [CHANNEL]).await;
    let other = relays.start();
    let found = api(&other, "POST", "/backfill?since=6d").await;
    assert_eq!(found, json!({"found": 1, "new": 1, "known": 0, "marked": 0}));
    let found = api(&poller, "POST", "/backfill?since=6d").await;
    assert_eq!(found, json!({"found": 1, "new": 0, "known": 1, "marked": 0}));
    until_all(&soar, &[id(&message)]).await;
}

async fn a_relay_that_cannot_reach_slack_leaves_polling_to_one_that_can(server: TestServer) {
    let clock = Clock::manual(BEGIN);
    let (workspace, soar) = (FakeSlack::new(clock.clone()).await, FakeSoar::ok().await);
    let message = workspace.post();
    let setup = |slack: &FakeSlack| {
        let store = "store: {postgres: {url: {env: DATABASE_URL}}}\n";
        let setup = Setup::default().destination("soar", &soar, "").more(store);
        setup.env("DATABASE_URL", &server.url()).catch_up(slack, &format!("[{CHANNEL}]"))
    };
    let unreachable = setup(&FakeSlack::new(clock.clone()).await);
    let cut_off = unreachable.start().await;
    let terms = "SELECT term FROM relay.pollers";
    until("it polls", async || server.cluster.sql(terms).await == ["1"]).await;
    let other = setup(&workspace).start().await;
    let ids = [id(&message)];
    other.time_passes_until(Duration::from_millis(500), until_all(&soar, &ids)).await;
    assert_ne!(server.cluster.sql(terms).await, ["1"]);
    other.settled().await;
    assert_eq!(soar.ids(), ids);
    drop(cut_off);
}

/// Returns the alert id of a posted incident.
fn id(message: &Value) -> String {
    format!("main:{}:{}:0", message["channel"].as_str().unwrap(), message["ts"].as_str().unwrap())
}

async fn the_doctor_says_how_the_database_is(server: TestServer) {
    let (workspace, soar) = (FakeSlack::new(Clock::system()).await, FakeSoar::ok().await);
    let mut relays = Relays::new(server.url(), &soar);
    relays.catch_up(&workspace);
    let doctor = async || {
        let mut command = command();
        command.arg("doctor").arg("--config").arg(relays.folder().join("relay.yaml"));
        command.envs(relays.env.iter().cloned());
        let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = doctor().await;
    assert!(code == Some(0) && said.contains("store: PostgreSQL 1"), "{said}");
    assert!(said.contains("commit: no tables yet"), "{said}");
    relays.start().terminate();
    let (code, said) = doctor().await;
    assert!(said.contains("durability: synchronous_commit=on, fsync=on"), "{said}");
    assert!(code == Some(0) && said.contains("commit: a small write takes"), "{said}");
    server.cluster.sql("ALTER ROLE postgres SET synchronous_commit = off").await;
    // A restart closes the pooler's connections, which are older than the setting.
    server.cluster.stop();
    server.cluster.start();
    let (code, said) = doctor().await;
    let line = said.lines().find(|line| line.contains("synchronous_commit=off"));
    assert!(code == Some(1) && line.is_some_and(|line| line.starts_with("FAIL")), "{said}");
    server.cluster.stop();
    let (code, said) = doctor().await;
    let line = said.lines().find(|line| line.contains("  store: "));
    assert!(code == Some(1) && line.is_some_and(|line| line.starts_with("FAIL")), "{said}");
    server.cluster.start();
}
