//! Endpoints that operators and Kubernetes see.

use slack_soar_relay::metrics::Metric;

use crate::harness::{Setup, http, soar::FakeSoar};

#[tokio::test]
async fn health_needs_no_token_and_says_what_it_means() {
    let relay = Setup::default().start().await;
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = http::get(relay.relay().ops, path).await;
        assert_eq!((answer.status, answer.text()), (200, "ok\n".to_owned()), "{path}");
    }
    assert_eq!(http::get(relay.relay().ops, "/slack/events").await.status, 404);
}

#[tokio::test]
async fn every_metric_is_exported_from_the_start() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let text = http::get(relay.relay().ops, "/metrics").await.text();
    for metric in Metric::ALL {
        assert!(text.contains(&format!("# TYPE {} ", metric.name())), "{}", metric.name());
    }
    for state in ["pending", "refused", "leased", "dead", "paused", "orphaned"] {
        let series = format!(r#"deliveries{{destination="soar",state="{state}"}} 0"#);
        assert!(text.contains(&series), "{series}");
    }
}

#[tokio::test]
async fn a_dead_destination_is_no_reason_to_be_unready() {
    let soar = FakeSoar::new([crate::harness::soar::Mood::Status(500)]).await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&crate::harness::slack::incident(1)).await, 200);
    soar.has_received(1).await;
    assert_eq!(http::get(relay.relay().ops, "/readyz").await.status, 200);
}
