//! From the store to the destinations: retries, isolation, restarts, dead letters.

use std::time::Duration;

use crate::harness::{
    Setup, TestRelay, http, log,
    slack::{self, incident},
    soar::{FakeSoar, Mood},
};

/// Lets the relay's time pass until something is so.
async fn time_passes_until<F: Future>(relay: &TestRelay, step: Duration, until: F) -> F::Output {
    relay.time_passes_until(step, until).await
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_failing_soar_gets_the_alert_once_it_works() {
    let moods = [500, 404, 403, 302, 200].map(Mood::Status);
    let soar = FakeSoar::new(moods).await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    time_passes_until(&relay, SECOND, soar.has_received(5)).await;
    relay.settled().await;
    assert_eq!(soar.ids(), vec![slack::id(1); 5]);
    let attempts =
        |class| format!(r#"delivery_attempts_total{{destination="soar",class="{class}"}}"#);
    assert_eq!(relay.metric(&attempts("destination_fault")).await, 3.0);
    assert_eq!(relay.metric(&attempts("auth")).await, 1.0);
    assert_eq!(relay.metric(&attempts("delivered")).await, 1.0);
    assert_eq!(
        relay.metric(r#"dead_letters_total{destination="soar",reason="refused"}"#).await,
        0.0
    );
}

#[tokio::test]
async fn an_alert_that_is_refused_three_times_is_dead_and_delays_nobody() {
    let soar = FakeSoar::new([400, 200, 422, 413, 200].map(Mood::Status)).await;
    let relay = Setup::default().destination("soar", &soar, "concurrency: 1").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    soar.has_received(1).await;
    assert_eq!(relay.post(&incident(2)).await, 200);
    soar.has_received(2).await;
    time_passes_until(&relay, SECOND, soar.has_received(4)).await;
    relay.settled().await;
    let (first, second) = (slack::id(1), slack::id(2));
    assert_eq!(soar.ids(), [&first, &second, &first, &first].map(Clone::clone));
    assert_eq!(relay.metric(r#"deliveries{destination="soar",state="dead"}"#).await, 1.0);
    let dead = r#"dead_letters_total{destination="soar",reason="refused"}"#;
    assert_eq!(relay.metric(dead).await, 1.0);
}

#[tokio::test]
async fn a_dead_destination_never_delays_another() {
    let dead = FakeSoar::new([Mood::Hang]).await;
    let alive = FakeSoar::ok().await;
    let setup = Setup::default().destination("dead", &dead, "").destination("alive", &alive, "");
    let relay = setup.start().await;
    for n in 0..20 {
        assert_eq!(relay.post(&incident(n)).await, 200);
    }
    let received = alive.has_received(20).await;
    assert_eq!(received.len(), 20);
    assert!(dead.received().len() <= 4, "only its own slots are taken");
}

/// A call for what is due ends at 4 MiB of messages. Time stands still here, so nobody wakes later.
#[tokio::test]
async fn every_free_slot_gets_an_alert_at_once_however_large_messages_are() {
    const SLOTS: u32 = 20;
    let soar = FakeSoar::new([Mood::Hang]).await;
    let more = format!("concurrency: {SLOTS}\ntimeout: 1s");
    let relay = Setup::default().destination("soar", &soar, &more).start().await;
    assert_eq!(relay.api("POST", "/destinations/soar/pause").await.0, 200);
    for n in 0..SLOTS {
        let mut message = slack::message(n);
        message["padding"] = "x".repeat(450 * 1024).into();
        relay.post_as_slack_does(&slack::event(&message)).await;
    }
    assert_eq!(relay.api("POST", "/destinations/soar/resume").await.0, 200);
    soar.has_received(usize::try_from(SLOTS).unwrap()).await;
    soar.becomes(Mood::Status(200));
    time_passes_until(&relay, SECOND, relay.settled()).await;
}

#[tokio::test]
async fn retry_state_survives_a_restart() {
    let soar = FakeSoar::new([Mood::Status(500)]).await;
    let mut relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    soar.has_received(1).await;
    relay.stop().await;
    soar.becomes(Mood::Status(200));
    relay.restart().await;
    time_passes_until(&relay, SECOND, relay.settled()).await;
    assert_eq!(soar.ids(), vec![slack::id(1); 2]);
}

#[tokio::test]
async fn the_breaker_opens_after_five_faults_and_a_probe_closes_it() {
    let soar = FakeSoar::new([Mood::Status(500)]).await;
    let relay = Setup::default().destination("soar", &soar, "concurrency: 1").start().await;
    for n in 0..10 {
        assert_eq!(relay.post(&incident(n)).await, 200);
    }
    soar.has_received(5).await;
    let is_open = async {
        while relay.metric(r#"breaker_open{destination="soar"}"#).await < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, is_open).await.unwrap();
    assert_eq!(soar.received().len(), 5, "an open breaker lets nothing through");
    soar.becomes(Mood::Status(200));
    time_passes_until(&relay, SECOND * 10, relay.settled()).await;
    let mut ids = soar.ids().split_off(5);
    ids.sort();
    let expected: Vec<_> = (0..10).map(slack::id).collect();
    assert_eq!(ids, expected, "each once more, none twice");
    assert_eq!(relay.metric(r#"breaker_open{destination="soar"}"#).await, 0.0);
}

/// Lets a destination fail for that long; returns how long after it works again the first of the
/// alerts arrives.
async fn first_delivery_after(fault: &Mood, outage: Duration, alerts: u32) -> Duration {
    let soar = FakeSoar::new([fault.clone()]).await;
    let setup = Setup::default().destination("soar", &soar, "retry: {max_age: 720h}");
    let relay = setup.start().await;
    for n in 0..alerts {
        assert_eq!(relay.post(&incident(n)).await, 200);
    }
    let passes = async |time: Duration, step: Duration| {
        let end = relay.clock.now() + time;
        let reached = async {
            while relay.clock.now() < end {
                tokio::task::yield_now().await;
            }
        };
        time_passes_until(&relay, step, reached).await;
    };
    passes(SECOND * 30, SECOND).await;
    passes(outage, outage / 100).await;
    passes(SECOND * 30, SECOND).await;
    soar.becomes(Mood::Status(200));
    let back = relay.clock.now();
    let received = soar.received().len();
    // Small steps: what a busy machine takes for one attempt must not count as seconds.
    time_passes_until(&relay, SECOND / 10, soar.has_received(received + 1)).await;
    let first = relay.clock.now().since(back);
    // The others follow while no time passes, whatever waits of their own they had.
    relay.settled().await;
    first
}

#[tokio::test]
async fn what_has_come_back_is_used_within_seconds() {
    let (minutes, days) = (SECOND * 600, SECOND * 72 * 3600);
    for (fault, bound) in [(Mood::Reset, 15), (Mood::Status(503), 40), (Mood::Status(401), 40)] {
        for (outage, alerts) in [(minutes, 1), (minutes, 30), (days, 1)] {
            let first = first_delivery_after(&fault, outage, alerts).await;
            assert!(first <= SECOND * bound, "{first:?} after {outage:?} of {fault:?}, {alerts}");
        }
    }
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let throttled = Mood::Header(429, "retry-after", "7");
    let soar = FakeSoar::new([throttled, Mood::Status(200)]).await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let posted = relay.clock.now();
    assert_eq!(relay.post(&incident(1)).await, 200);
    time_passes_until(&relay, SECOND, soar.has_received(2)).await;
    assert!(relay.clock.now().since(posted) >= SECOND * 7);
    let throttled = r#"delivery_attempts_total{destination="soar",class="throttled"}"#;
    relay.settled().await;
    assert_eq!(relay.metric(throttled).await, 1.0);
}

#[tokio::test]
async fn an_alert_that_nobody_takes_dies_of_age_and_is_kept() {
    let soar = FakeSoar::new([Mood::Reset]).await;
    let setup = Setup::default().destination("soar", &soar, "retry: {max_age: 1h}");
    let relay = setup.start().await;
    for n in 0..10 {
        assert_eq!(relay.post(&incident(n)).await, 200);
    }
    time_passes_until(&relay, SECOND * 60, relay.settled()).await;
    assert_eq!(relay.metric(r#"deliveries{destination="soar",state="dead"}"#).await, 10.0);
    let dead = r#"dead_letters_total{destination="soar",reason="max_age"}"#;
    assert_eq!(relay.metric(dead).await, 10.0);
}

#[tokio::test]
async fn the_log_names_each_alert_that_dies_without_an_attempt() {
    log::keep();
    let soar = FakeSoar::new([Mood::Header(429, "retry-after", "3600")]).await;
    let more = "concurrency: 1\nretry: {max_age: 10m}";
    let relay = Setup::default().destination("soar", &soar, more).start().await;
    for n in 0..3 {
        assert_eq!(relay.post(&incident(n)).await, 200);
    }
    soar.has_received(1).await;
    time_passes_until(&relay, SECOND * 60, relay.settled()).await;
    assert_eq!(soar.received().len(), 1, "it is left alone as long as it asked");
    // The store knows of the deaths before the log does.
    let dead = r#"dead_letters_total{destination="soar",reason="max_age"}"#;
    relay.metric_is(dead, |dead| dead == 3.0).await;
    let lines = log::lines().into_iter().filter(|line| line["outcome"] == "expired");
    let mut dead: Vec<_> =
        lines.map(|line| line["alert_id"].as_str().unwrap().to_owned()).collect();
    dead.sort();
    assert_eq!(dead, [slack::id(0), slack::id(1), slack::id(2)]);
}

/// Google answers a wrong key with 400 "API key not valid", and others do likewise.
#[tokio::test]
async fn a_wrong_key_that_is_answered_with_400_kills_no_alert_for_a_day() {
    let soar = FakeSoar::new([Mood::Body(400, "API key not valid".to_owned())]).await;
    let mut relay = Setup::default().destination("soar", &soar, "").start().await;
    for n in 0..24 {
        assert_eq!(relay.post(&incident(n)).await, 200);
        let end = relay.clock.now() + SECOND * 3600;
        let passes = async {
            while relay.clock.now() < end {
                tokio::task::yield_now().await;
            }
        };
        time_passes_until(&relay, SECOND * 60, passes).await;
        if n == 12 {
            relay.stop().await;
            relay.restart().await;
        }
    }
    let state = |state| format!(r#"deliveries{{destination="soar",state="{state}"}}"#);
    relay.metric_is(&state("refused"), |refused| refused >= 22.0).await;
    assert_eq!(relay.metric(&state("dead")).await, 0.0);
    let (_, status) = relay.api("GET", "/status").await;
    let problem = status["destinations"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("look at its key"), "{problem}");
    let (_, listed) = relay.api("GET", "/alerts?state=refused").await;
    assert!(listed["alerts"].as_array().unwrap().len() >= 22);

    soar.becomes(Mood::Status(200));
    time_passes_until(&relay, SECOND * 60, relay.settled()).await;
    assert_eq!(relay.metric(&state("dead")).await, 0.0);
    assert_eq!(soar.taken().len(), 24);
}

#[tokio::test]
async fn routing_is_decided_by_when() {
    let (severe, tests) = (FakeSoar::ok().await, FakeSoar::ok().await);
    let relay = Setup::default()
        .destination("severe", &severe, "when: {min_severity: critical}")
        .destination("tests", &tests, "when: {test: only}")
        .start()
        .await;
    let mut critical = slack::message(1);
    critical["attachments"][0]["fields"][1]["value"] = "Critical".into();
    let mut test = slack::message(2);
    test["attachments"][0]["text"] = "Test from PerimeterX \n more details".into();
    for message in [&critical, &test, &slack::message(3)] {
        assert_eq!(relay.post(&slack::event(message)).await, 200);
    }
    relay.settled().await;
    assert_eq!((severe.ids(), tests.ids()), (vec![slack::id(1)], vec![slack::id(2)]));
}

#[tokio::test]
async fn a_destination_that_left_the_configuration_is_shown_as_orphaned() {
    let soar = FakeSoar::new([Mood::Status(500)]).await;
    let mut relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    soar.has_received(1).await;
    relay.stop().await;
    relay.rename_destination("soar", "other");
    relay.restart().await;
    assert_eq!(relay.metric(r#"deliveries{destination="soar",state="orphaned"}"#).await, 1.0);
    let metrics = http::get(relay.relay().ops, "/metrics").await.text();
    assert!(!metrics.contains("hunter2"), "a URL is a secret");
}

#[tokio::test]
async fn google_secops_answering_200_with_an_error_has_not_taken_the_alert() {
    let moods = [
        Mood::Body(200, r#"{"error": {"code": 13, "status": "INTERNAL"}}"#.into()),
        Mood::Body(200, "{}".into()),
    ];
    let soar = FakeSoar::new(moods).await;
    let setup = Setup::default().destination("soar", &soar, "preset: google-secops-webhook");
    let relay = setup.start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    time_passes_until(&relay, SECOND, relay.settled()).await;
    assert_eq!(soar.ids(), vec![slack::id(1); 2]);
    assert_eq!(soar.received()[1].body["fullURL"], serde_json::Value::Null);
    assert_eq!(soar.received()[1].body["events"][0]["fullURL"], "https://cdn.example/pay.js");
}
