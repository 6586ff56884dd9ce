//! Bugs of other relays of alerts and webhooks that this one must not have, one test each. The
//! names say what went wrong there.

use std::time::Duration;

use slack_soar_relay::config;

use crate::{
    harness::{
        Setup, http,
        slack::{self, id, incident},
        soar::{FakeSoar, Mood},
    },
    source::root,
};

const SECOND: Duration = Duration::from_secs(1);

fn attempts(class: &str) -> String {
    format!(r#"delivery_attempts_total{{destination="soar",class="{class}"}}"#)
}

fn dead(reason: &str) -> String {
    format!(r#"dead_letters_total{{destination="soar",reason="{reason}"}}"#)
}

/// A bridge that never looked at the status took every answer for success.
#[tokio::test]
async fn bridge_status_unchecked() {
    let moods = [
        Mood::Status(500),
        Mood::Status(302),
        Mood::Body(200, r#"{"error": {"code": 400}}"#.to_owned()),
        Mood::Status(200),
    ];
    let soar = FakeSoar::new(moods).await;
    let preset = "preset: google-secops-webhook";
    let relay = Setup::default().destination("soar", &soar, preset).start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    relay.time_passes_until(SECOND, soar.has_received(4)).await;
    relay.settled().await;
    assert_eq!(relay.metric(&attempts("delivered")).await, 1.0);
}

/// The message was stored and its delivery queued in two steps: a crash between them lost it.
#[tokio::test]
async fn dual_write_gap() {
    let soar = FakeSoar::new([Mood::Status(503)]).await;
    let mut relay = Setup::default().destination("soar", &soar, "").start().await;
    for n in 0..20 {
        assert_eq!(relay.post(&incident(n)).await, 200);
        let (status, alert) = relay.api("GET", &format!("/alerts/{}", id(n))).await;
        assert_eq!((status, alert["deliveries"].as_array().map(Vec::len)), (200, Some(1)));
    }
    relay.stop().await;
    soar.becomes(Mood::Status(200));
    relay.restart().await;
    // After a start nothing waits for a destination that was at fault before it: no time passes
    // here, in which a lease could, on a busy machine.
    relay.settled().await;
    assert_eq!(soar.taken().len(), 20);
}

/// Two requests at once both looked for the event, both missed it, and both stored it.
#[tokio::test]
async fn check_then_insert_race() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let event = incident(1);
    let (a, b, c, d) = tokio::join!(
        relay.post(&event),
        relay.post(&event),
        relay.post(&event),
        relay.post(&event)
    );
    assert_eq!([a, b, c, d], [200; 4]);
    relay.settled().await;
    assert_eq!(soar.ids(), [id(1)]);
    let outcome = |outcome| format!(r#"events_total{{app="main",outcome="{outcome}",reason=""}}"#);
    assert_eq!(relay.metric(&outcome("accepted")).await, 1.0);
    assert_eq!(relay.metric(&outcome("duplicate")).await, 3.0);
}

/// A worker whose claim had passed to another one finished the work of both.
#[tokio::test]
async fn stale_lease_renew() {
    let soar = FakeSoar::new([Mood::Hang, Mood::Status(200)]).await;
    let relay = Setup::default().destination("soar", &soar, "timeout: 2s").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    soar.has_received(1).await;
    relay.clock.advance(Duration::from_secs(91));
    soar.has_received(2).await;
    relay.metric_is("stale_leases_total", |stale| stale == 1.0).await;
    relay.settled().await;
    let (_, alert) = relay.api("GET", &format!("/alerts/{}", id(1))).await;
    assert_eq!(alert["deliveries"][0]["state"], "delivered");
    assert_eq!(soar.taken(), [id(1)]);
}

/// A key was rotated, the destination said 403, and the alerts of those minutes were dropped.
#[tokio::test]
async fn rotation_403_drop() {
    let soar = FakeSoar::new([Mood::Status(403)]).await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    for n in 0..10 {
        assert_eq!(relay.post(&incident(n)).await, 200);
    }
    relay.time_passes_until(Duration::from_secs(60), soar.has_received(50)).await;
    soar.becomes(Mood::Status(200));
    relay.time_passes_until(Duration::from_secs(60), relay.settled()).await;
    let mut taken = soar.taken();
    taken.sort();
    assert_eq!(taken, (0..10).map(id).collect::<Vec<_>>());
    assert_eq!(relay.metric(&dead("refused")).await + relay.metric(&dead("max_age")).await, 0.0);
}

/// One record that was too large stopped every record behind it.
#[tokio::test]
async fn oversized_record() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "concurrency: 1").start().await;
    let mut large = slack::message(1);
    large["attachments"][0]["text"] = "x".repeat(1_000_000).into();
    assert_eq!(relay.post(&slack::event(&large)).await, 200);
    assert_eq!(relay.post(&incident(2)).await, 200);
    relay.settled().await;
    assert_eq!(soar.taken(), [id(1), id(2)]);
}

/// A full disk was answered 200, or ended the process; and nothing was let out any more.
#[tokio::test]
async fn store_full() {
    let soar = FakeSoar::new([Mood::Status(503)]).await;
    let setup = Setup::default().destination("soar", &soar, "");
    let relay = setup.more("store: {sqlite: {max_size: 2MiB}}\n").start().await;
    let mut taken = Vec::new();
    loop {
        let n = u32::try_from(taken.len()).unwrap();
        match relay.post(&slack::large_incident(n, 50_000)).await {
            200 => taken.push(id(n)),
            refused => {
                assert_eq!(refused, 503);
                relay.clock.advance(Duration::from_secs(6));
                // There may be room again: the store's log has been emptied meanwhile.
                if http::get(relay.relay().ops, "/readyz").await.status == 503 {
                    break;
                }
            }
        }
    }
    assert!(!taken.is_empty() && taken.len() < 60, "{}", taken.len());
    soar.becomes(Mood::Status(200));
    relay.time_passes_until(SECOND, relay.settled()).await;
    let mut delivered = soar.taken();
    delivered.sort();
    taken.sort();
    assert_eq!(delivered, taken, "what was acknowledged goes out");
}

/// A destination that failed at once was called again at once, thousands of times a minute.
#[tokio::test]
async fn hot_loop_backoff() {
    let soar = FakeSoar::new([Mood::Reset]).await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    let hour = Duration::from_secs(3600);
    let end = relay.clock.now() + hour;
    let passes = async {
        while relay.clock.now() < end {
            tokio::task::yield_now().await;
        }
    };
    relay.time_passes_until(Duration::from_secs(5), passes).await;
    let attempts = soar.received().len();
    assert!((5..400).contains(&attempts), "{attempts} in an hour: a probe every ten seconds");
    soar.becomes(Mood::Status(200));
    relay.time_passes_until(Duration::from_secs(60), relay.settled()).await;
}

/// An output with a mistake in its settings was switched off, with one line in the log.
#[test]
fn invalid_output_disabled() {
    let env = |_: &str| Some("not-a-URL".to_owned());
    let yaml = "slack: {apps: [{name: main, signing_secret: {env: SECRET}}]}\n\
                destinations: [{name: soar, preset: webhook, url: {env: URL}}]\n";
    let problems = config::parse(yaml, root(), &env).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(matches!(told.as_slice(), [one] if one.contains("destinations[0]")), "{told:?}");
}

/// "Too many requests" was taken for a refusal, and the alert dropped.
#[tokio::test]
async fn no_retry_after_429() {
    let soar = FakeSoar::new([429, 429, 200].map(Mood::Status)).await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    soar.has_received(1).await;
    relay.metric_is(&attempts("throttled"), |attempts| attempts == 1.0).await;
    relay.clock.advance(Duration::from_secs(59));
    relay.metric_is(r#"deliveries{destination="soar",state="pending"}"#, |n| n == 1.0).await;
    assert_eq!(soar.received().len(), 1, "not before a minute has passed");
    relay.time_passes_until(SECOND, relay.settled()).await;
    assert_eq!(soar.taken(), [id(1)]);
    assert_eq!(relay.metric(&attempts("throttled")).await, 2.0);
}
