//! Hostile and broken requests: a clear refusal, never a 5xx, never a lost alert.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    PATIENCE, SECRET, Setup, TestRelay, http,
    slack::{self, incident, message},
    soar::FakeSoar,
};

const EVENTS: &str = "/slack/events";

async fn post(relay: &TestRelay, headers: &[(String, String)], body: &[u8]) -> u16 {
    let answer = http::post(relay.public(), EVENTS, headers, body).await;
    if answer.status == 401 {
        assert_eq!(answer.body.len(), 0, "nothing about why");
    }
    answer.status
}

/// Headers that are right as far as they can be checked without the body.
fn plausible(relay: &TestRelay) -> String {
    let now = relay.clock.now().seconds();
    let digest = "0".repeat(64);
    format!("X-Slack-Signature: v0={digest}\r\nX-Slack-Request-Timestamp: {now}\r\n")
}

#[tokio::test]
async fn headers_that_cannot_be_right_are_401_without_the_body() {
    let relay = Setup::default().start().await;
    let right = plausible(&relay);
    let now = relay.clock.now().seconds().to_string();
    let stale = (relay.clock.now().seconds() - 301).to_string();
    for headers in [String::new(), right.replace("v0=", "v1="), right.replace(&now, &stale)] {
        let head = format!(
            "POST {EVENTS} HTTP/1.1\r\nHost: relay\r\n{headers}Content-Length: 1000\r\n\r\n"
        );
        assert_eq!(http::raw(relay.public(), head.as_bytes()).await.status, 401, "{headers}");
    }
    let slow = r#"events_total{app="main",outcome="rejected",reason="slow"}"#;
    assert_eq!(relay.metric(slow).await, 0.0);
}

#[tokio::test]
async fn only_authentic_requests_are_in_the_time_to_acknowledge() {
    let relay = Setup::default().start().await;
    let body = incident(1).to_string().into_bytes();
    let wrong = slack::signed("wrong", relay.clock.now(), &body);
    assert_eq!(post(&relay, &wrong, &body).await, 401);
    assert_eq!(post(&relay, &[], &body).await, 401);
    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: relay\r\n{}Content-Length: 5242880\r\n\r\n",
        plausible(&relay)
    );
    assert_eq!(http::raw(relay.public(), head.as_bytes()).await.status, 413);
    assert_eq!(relay.metric("ack_seconds_count").await, 0.0);
    assert_eq!(relay.post_bytes(b"{").await, 200);
    assert_eq!(relay.metric("ack_seconds_count").await, 1.0);
}

#[tokio::test]
async fn every_broken_signature_is_401() {
    let relay = Setup::default().start().await;
    let body = incident(1).to_string().into_bytes();
    let good = slack::signed(SECRET, relay.clock.now(), &body);
    let timestamp = good[0].clone();
    let signature = good[1].clone();
    let with = |timestamp: &str, signature: &str| {
        vec![
            ("X-Slack-Request-Timestamp".to_owned(), timestamp.to_owned()),
            ("X-Slack-Signature".to_owned(), signature.to_owned()),
        ]
    };
    let (at, mac) = (timestamp.1.as_str(), signature.1.as_str());
    let seconds = relay.clock.now().seconds();
    let at_time = |offset: i64| {
        let then = slack_soar_relay::clock::Timestamp::from_seconds(seconds + offset);
        slack::signed(SECRET, then, &body)
    };
    let broken = [
        vec![],
        vec![timestamp.clone()],
        vec![signature.clone()],
        [good.clone(), vec![timestamp.clone()]].concat(),
        [good.clone(), vec![signature.clone()]].concat(),
        with(at, &mac.to_uppercase()),
        with(at, &mac[..mac.len() - 1]),
        with(at, "v0="),
        with(at, &format!("{mac}é")),
        with("abc", mac),
        with("1700000000.0", mac),
        with("", mac),
        with("99999999999999999999999", mac),
        slack::signed("wrong", relay.clock.now(), &body),
        slack::signed(SECRET, relay.clock.now(), b"another body"),
        at_time(301),
        at_time(-301),
        at_time(315_360_000),
    ];
    for headers in broken {
        assert_eq!(post(&relay, &headers, &body).await, 401, "{headers:?}");
    }
    assert_eq!(post(&relay, &at_time(300), &body).await, 200);
    assert_eq!(post(&relay, &at_time(-300), &body).await, 200);
    let stale = r#"events_total{app="main",outcome="rejected",reason="stale"}"#;
    assert_eq!(relay.metric(stale).await, 3.0);
    let bad = r#"events_total{app="main",outcome="rejected",reason="bad_signature"}"#;
    assert_eq!(relay.metric(bad).await, 15.0);
}

#[tokio::test]
async fn a_body_over_four_mebibytes_is_413_before_it_is_read() {
    let relay = Setup::default().start().await;
    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: relay\r\nX-Slack-Signature: v0=\r\n\
         X-Slack-Request-Timestamp: 1\r\nContent-Length: 5242880\r\n\r\n"
    );
    assert_eq!(http::raw(relay.public(), head.as_bytes()).await.status, 413);
}

#[tokio::test]
async fn who_sends_all_of_a_refused_body_before_looking_finds_the_answer() {
    let relay = Setup::default().start().await;
    for (signature, status) in [("X-Slack-Signature: v0=\r\n", 413), ("", 401)] {
        let mut stream = TcpStream::connect(relay.public()).await.unwrap();
        let head = format!(
            "POST {EVENTS} HTTP/1.1\r\nHost: relay\r\n{signature}\
             X-Slack-Request-Timestamp: 1\r\nContent-Length: 6291456\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..6 {
            stream.write_all(&vec![b'x'; 0x10_0000]).await.unwrap();
        }
        assert_eq!(http::read(&mut stream).await.status, status);
    }
}

#[tokio::test]
async fn a_chunked_body_over_four_mebibytes_is_413() {
    let relay = Setup::default().start().await;
    let mut request = format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: relay\r\n{}\
         Transfer-Encoding: chunked\r\n\r\n",
        plausible(&relay)
    )
    .into_bytes();
    for _ in 0..5 {
        request.extend_from_slice(b"100000\r\n");
        request.extend_from_slice(&vec![b'x'; 0x10_0000]);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(http::raw(relay.public(), &request).await.status, 413);
}

#[tokio::test]
async fn half_a_body_and_then_silence_is_408() {
    let relay = Setup::default().start().await;
    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: relay\r\n{}\
         Content-Length: 100\r\n\r\nhalf",
        plausible(&relay)
    );
    assert_eq!(http::raw(relay.public(), head.as_bytes()).await.status, 408);
    let series = r#"events_total{app="main",outcome="rejected",reason="slow"}"#;
    assert_eq!(relay.metric(series).await, 1.0);
}

#[tokio::test]
async fn too_many_headers_and_too_large_a_head_are_431() {
    let relay = Setup::default().start().await;
    let many = (0..65).map(|n| format!("X-{n}: 1\r\n")).collect::<Vec<_>>().concat();
    let large = format!("X-Large: {}\r\n", "x".repeat(33 * 1024));
    for headers in [many, large] {
        let request = format!("POST {EVENTS} HTTP/1.1\r\nHost: relay\r\n{headers}\r\n");
        assert_eq!(http::raw(relay.public(), request.as_bytes()).await.status, 431);
    }
}

#[tokio::test]
async fn slow_clients_are_closed() {
    let relay = Setup::default().start_with_idle("1s").await;
    for start in ["", "P", "POST /slack/events HTTP/1.1\r\nHost: rel"] {
        let mut stream = TcpStream::connect(relay.public()).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
        assert!(closed.await.is_ok(), "still open after {start:?}");
    }
    let mut idle = TcpStream::connect(relay.public()).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n").await.unwrap();
    assert_eq!(http::read(&mut idle).await.status, 200);
    let closed = tokio::time::timeout(PATIENCE, idle.read(&mut [0; 8])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "an idle connection is still open");
}

#[tokio::test]
async fn authentic_rubbish_is_200_and_kept() {
    let relay = Setup::default().start().await;
    let deep = "[".repeat(100_000);
    let gzip: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 0x4c];
    for body in [b"".as_slice(), b"{", b"\xff\xfe", gzip, deep.as_bytes(), b"payload=%7B%7D"] {
        assert_eq!(relay.post_bytes(body).await, 200);
    }
    let series = r#"events_total{app="main",outcome="ignored",reason="unparsable"}"#;
    assert_eq!(relay.metric(series).await, 6.0);
}

#[tokio::test]
async fn a_deeply_nested_part_of_an_event_does_not_lose_the_incident_beside_it() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let body = incident(1).to_string().replacen('{', &format!("{{\"new\":{nested},"), 1);
    assert_eq!(relay.post_bytes(body.as_bytes()).await, 200);
    relay.settled().await;
    assert_eq!(soar.ids(), [slack::id(1)]);
}

#[tokio::test]
async fn incidents_with_broken_fields_are_forwarded_with_what_can_be_read() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let mut events = Vec::new();
    let mut push = |n: u32, attachment: serde_json::Value| {
        let mut message = message(n);
        message["attachments"] = json!([attachment]);
        events.push(slack::event(&message));
    };
    push(1, json!({"title": slack::TITLE}));
    push(2, json!({"title": slack::TITLE, "text": null, "fields": 7, "actions": "x"}));
    push(3, json!({"title": slack::TITLE, "fields": [{"title": "Risk Level", "value": 5}]}));
    push(4, json!({"title": format!("{}{}", slack::TITLE, " ".repeat(1_000_000))}));
    let mut no_ts = message(5);
    no_ts["ts"] = json!("abc");
    no_ts.as_object_mut().unwrap().remove("event_ts");
    events.push(slack::event(&no_ts));
    for event in &events {
        assert_eq!(relay.post(event).await, 200);
    }
    relay.settled().await;
    let mut received = soar.received();
    received.sort_by_key(|one| one.body["id"].to_string());
    assert_eq!(received.len(), 5);
    assert_eq!(received[0].body["severity"]["level"], "high");
    let problems = received[0].body["parse_problems"].as_array().unwrap();
    for problem in ["severity_missing", "script_missing", "host_missing", "text_missing"] {
        assert!(problems.contains(&json!(problem)), "{problem}");
    }
    assert!(received[4].body["id"].as_str().unwrap().starts_with("main:C0123456789:ts-"));
    assert_eq!(received[4].body["parse_problems"][0], "ts");
}

#[tokio::test]
async fn lone_surrogates_invalid_utf8_and_nul_reach_the_soar_repaired() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let body = incident(1).to_string().replace("PII Sniffing", "PII \\ud83d \\u0000 @");
    let at = body.find('@').unwrap();
    let mut bytes = body.into_bytes();
    bytes[at] = 0xff;
    assert_eq!(relay.post_bytes(&bytes).await, 200);
    relay.settled().await;
    assert_eq!(soar.received()[0].body["category"], "PII \u{fffd} \0 \u{fffd}");
}

#[tokio::test]
async fn two_hundred_attachments_are_a_hundred_alerts_and_one_for_the_rest() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "concurrency: 32").start().await;
    let mut message = message(1);
    message["attachments"] = json!(vec![slack::attachment(); 200]);
    assert_eq!(relay.post(&slack::event(&message)).await, 200);
    relay.settled().await;
    let mut ids = soar.ids();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 101);
    let received = soar.received();
    let is_rest = |id: &str| id.ends_with(":100");
    let rest = received.iter().find(|one| is_rest(one.header("idempotency-key"))).unwrap();
    assert_eq!(rest.body["parse_problems"][0], "too_many");
    assert_eq!(rest.body["attachment"]["attachments"], message["attachments"]);
}
