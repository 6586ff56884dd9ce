//! `POST /slack/events`: the answer table, and what counts as one alert.

use serde_json::json;

use crate::harness::{
    SECRET, Setup, http, log,
    slack::{self, incident, message},
    soar::{FakeSoar, Mood},
};

const EVENTS: &str = "/slack/events";

#[tokio::test]
async fn an_incident_is_answered_after_the_commit_and_reaches_the_soar() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    let received = soar.has_received(1).await;
    assert_eq!(received[0].body["id"], slack::id(1));
    assert_eq!(received[0].body["slack"]["event_id"], "Ev0RELAY0001");
    assert_eq!(received[0].header("idempotency-key"), slack::id(1));
    assert!(received[0].header("user-agent").starts_with("slack-soar-relay/"));
    relay.settled().await;
    let accepted = r#"events_total{app="main",outcome="accepted",reason=""}"#;
    assert_eq!(relay.metric(accepted).await, 1.0);
    assert_eq!(relay.metric(r#"events_received_total{app="main",source="push"}"#).await, 1.0);
    let class = r#"delivery_attempts_total{destination="soar",class="delivered"}"#;
    assert_eq!(relay.metric(class).await, 1.0);
}

#[tokio::test]
async fn an_answer_carries_nothing_of_its_request() {
    let relay = Setup::default().start().await;
    let wrong = slack::signed("another secret", relay.clock.now(), b"{}");
    for (status, signed) in [(200, slack::signed(SECRET, relay.clock.now(), b"{}")), (401, wrong)] {
        let more = [("X-Request-Id", "r-1"), ("Cookie", "c=1"), ("Content-Encoding", "identity")];
        let more = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let headers = [signed, more.to_vec()].concat();
        let answer = http::post(relay.public(), EVENTS, &headers, b"{}").await;
        assert_eq!(answer.status, status);
        let head = answer.head.to_lowercase();
        let names =
            head.lines().skip(1).filter_map(|line| line.split_once(':').map(|(name, _)| name));
        let mut names: Vec<_> = names.filter(|name| *name != "connection").collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "date"], "{}", answer.head);
    }
}

#[tokio::test]
async fn url_verification_is_answered_only_when_signed() {
    let relay = Setup::default().start().await;
    let body = json!({"token": "t", "challenge": "3eZbrw1a\"é", "type": "url_verification"});
    let bytes = body.to_string().into_bytes();
    let headers = slack::signed(SECRET, relay.clock.now(), &bytes);
    let answer = http::post(relay.public(), EVENTS, &headers, &bytes).await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.to_lowercase().contains("content-type: application/json"));
    let echoed: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(echoed, json!({"challenge": "3eZbrw1a\"é"}));
    let unsigned = http::post(relay.public(), EVENTS, &[], &bytes).await;
    assert_eq!((unsigned.status, unsigned.body.len()), (401, 0));
}

#[tokio::test]
async fn what_is_authentic_and_unwanted_is_answered_200_and_counted_by_reason() {
    let relay = Setup::default().start().await;
    let mut elsewhere = message(1);
    elsewhere["channel"] = json!("C9999999999");
    let mut person = message(2);
    for sign_of_a_bot in ["bot_id", "subtype"] {
        person.as_object_mut().unwrap().remove(sign_of_a_bot);
    }
    let mut renamed = message(3);
    renamed["attachments"][0]["title"] = json!("Client-Side Defense found something");
    let mut unfurl = message(4);
    unfurl["attachments"][0]["from_url"] = json!("https://evil.example");
    let mut deleted = message(5);
    deleted["subtype"] = json!("message_deleted");
    let chatter = json!({"type": "message", "channel": "C0123456789", "ts": "1.0", "text": "hi"});
    let rate_limited = json!({"type": "app_rate_limited", "minute_rate_limited": 1_518_467_820});
    let events = [
        ("channel", slack::event(&elsewhere)),
        ("no_bot", slack::event(&person)),
        ("near_miss", slack::event(&renamed)),
        ("unfurl", slack::event(&unfurl)),
        ("subtype", slack::event(&deleted)),
        ("title", slack::event(&chatter)),
        ("type", slack::event(&json!({"type": "reaction_added"}))),
        ("lifecycle", slack::event(&json!({"type": "tokens_revoked", "tokens": {}}))),
        ("type", json!({"type": "tomorrow"})),
        ("type", rate_limited),
        ("unparsable", json!("a text")),
    ];
    for (reason, event) in &events {
        let series = format!(r#"events_total{{app="main",outcome="ignored",reason="{reason}"}}"#);
        let before = relay.metric(&series).await;
        assert_eq!(relay.post(event).await, 200, "{reason}");
        assert_eq!(relay.metric(&series).await, before + 1.0, "{reason}");
    }
    assert_eq!(relay.metric(r#"app_rate_limited_total{app="main"}"#).await, 1.0);
}

#[tokio::test]
async fn a_post_without_a_destination_is_stored_and_said_to_be_unrouted() {
    let relay = Setup::default().start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    let series = r#"events_total{app="main",outcome="accepted",reason="no_destination"}"#;
    assert_eq!(relay.metric(series).await, 1.0);
}

#[tokio::test]
async fn one_message_under_eleven_event_ids_is_one_alert() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    for n in 0..11 {
        let mut event = incident(1);
        event["event_id"] = json!(format!("Ev{n}"));
        assert_eq!(relay.post(&event).await, 200);
    }
    relay.settled().await;
    assert_eq!(soar.ids(), [slack::id(1)]);
    let duplicates = r#"events_total{app="main",outcome="duplicate",reason=""}"#;
    assert_eq!(relay.metric(duplicates).await, 10.0);
}

#[tokio::test]
async fn one_event_on_fifty_connections_at_once_is_one_alert() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let event = incident(1);
    let posts: Vec<_> = (0..50).map(|_| relay.post(&event)).collect();
    for status in join_all(posts).await {
        assert_eq!(status, 200);
    }
    relay.settled().await;
    assert_eq!(soar.ids(), [slack::id(1)]);
}

async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pinned: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<F::Output>> = pinned.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut ready = true;
        for (future, result) in pinned.iter_mut().zip(&mut results) {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(output) => *result = Some(output),
                    std::task::Poll::Pending => ready = false,
                }
            }
        }
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results.into_iter().map(Option::unwrap).collect()
}

#[tokio::test]
async fn an_edit_of_a_known_incident_is_kept_and_not_sent_again() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    let mut edited = message(1);
    edited["attachments"][0]["text"] = json!("PII Sniffing\nedited");
    let edit = json!({
        "type": "message", "subtype": "message_changed", "hidden": true,
        "channel": "C0123456789", "ts": "1600689999.000100", "message": edited,
    });
    assert_eq!(relay.post(&slack::event(&edit)).await, 200);
    relay.settled().await;
    assert_eq!(soar.ids(), [slack::id(1)]);
    let series = r#"events_total{app="main",outcome="ignored",reason="known_edit"}"#;
    assert_eq!(relay.metric(series).await, 1.0);
}

#[tokio::test]
async fn an_edit_that_nobody_saw_before_is_a_new_alert_under_the_messages_own_ts() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let edit = json!({
        "type": "message", "subtype": "message_changed", "hidden": true,
        "channel": "C0123456789", "ts": "1600689999.000100", "message": message(7),
    });
    assert_eq!(relay.post(&slack::event(&edit)).await, 200);
    relay.settled().await;
    assert_eq!(soar.ids(), [slack::id(7)]);
}

#[tokio::test]
async fn two_incidents_of_one_message_are_two_alerts() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let mut message = message(1);
    let other = json!({"title": "Build passed"});
    message["attachments"] = json!([slack::attachment(), other, slack::attachment()]);
    assert_eq!(relay.post(&slack::event(&message)).await, 200);
    relay.settled().await;
    let mut tickets: Vec<_> =
        soar.received().iter().map(|one| one.body["ticket_id"].clone()).collect();
    tickets.sort_by_key(ToString::to_string);
    assert_eq!(tickets, [json!("1600689100000002"), json!("1600689100000002-1")]);
}

#[tokio::test]
async fn each_app_has_a_path_and_a_secret_of_its_own() {
    let apps = "    - {name: main, signing_secret: {env: SECRET}}\n\
                \x20   - {name: other, signing_secret: {env: OTHER_SECRET}}\n";
    let soar = FakeSoar::ok().await;
    let setup = Setup::default().apps(apps);
    let relay = setup.destination("soar", &soar, "when: {apps: [other]}").start().await;
    let body = incident(1).to_string().into_bytes();
    let with = |secret| slack::signed(secret, relay.clock.now(), &body);
    let post = async |path, headers: Vec<_>| {
        http::post(relay.public(), path, &headers, &body).await.status
    };
    assert_eq!(post("/slack/events/nobody", with(SECRET)).await, 404);
    assert_eq!(post("/slack/events/other", with(SECRET)).await, 401);
    assert_eq!(post("/slack/events/other", with("another-signing-secret")).await, 200);
    assert_eq!(post("/slack/events/main", with(SECRET)).await, 200);
    relay.settled().await;
    assert_eq!(soar.ids(), [slack::id(1).replace("main:", "other:")]);
}

const TWO_APPS: &str = "    - {name: main, signing_secret: {env: SECRET}}\n\
                        \x20   - {name: other, signing_secret: {env: OTHER_SECRET}}\n";

fn count(app: &str, outcome: &str, reason: &str) -> String {
    format!(r#"events_total{{app="{app}",outcome="{outcome}",reason="{reason}"}}"#)
}

#[tokio::test]
async fn the_short_path_serves_every_app_by_the_secret_that_signed() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().apps(TWO_APPS).destination("soar", &soar, "").start().await;
    let body = incident(1).to_string().into_bytes();
    for (secret, status) in [(SECRET, 200), ("another-signing-secret", 200), ("a stranger's", 401)]
    {
        assert_eq!(relay.post_to(EVENTS, secret, &body).await, status, "{secret}");
    }
    relay.settled().await;
    let mut ids = soar.ids();
    ids.sort();
    assert_eq!(ids, [slack::id(1), slack::id(1).replace("main:", "other:")]);
    for app in ["main", "other"] {
        assert_eq!(relay.metric(&count(app, "accepted", "")).await, 1.0, "{app}");
        assert_eq!(relay.metric(&count(app, "rejected", "bad_signature")).await, 0.0, "{app}");
    }
    assert_eq!(relay.metric(&count("", "rejected", "bad_signature")).await, 1.0);
    let challenge = json!({"type": "url_verification", "challenge": "c"}).to_string();
    for secret in [SECRET, "another-signing-secret"] {
        assert_eq!(relay.post_to(EVENTS, secret, challenge.as_bytes()).await, 200);
    }
}

#[tokio::test]
async fn apps_that_share_a_secret_are_told_apart_by_the_events_workspace() {
    log::keep();
    let apps = "    - {name: main, signing_secret: {env: SECRET}, team: T0RELAYTEAM}\n\
                \x20   - {name: other, signing_secret: {env: SECRET}, team: E0RELAYORG1}\n";
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().apps(apps).destination("soar", &soar, "").start().await;
    let from = |authorizations: serde_json::Value| {
        let mut event = incident(1);
        event["team_id"] = json!("T0SOURCE");
        event["authorizations"] = authorizations;
        event.to_string().into_bytes()
    };
    let main = from(json!([{"team_id": "T0RELAYTEAM"}]));
    let other = from(json!([{
        "team_id": null, "enterprise_id": "E0RELAYORG1", "is_enterprise_install": true,
    }]));
    let nobody = from(json!([{"team_id": "T0STRANGER"}]));
    for path in [EVENTS, "/slack/events/main"] {
        for body in [&main, &nobody, &nobody] {
            assert_eq!(relay.post_to(path, SECRET, body).await, 200);
        }
    }
    assert_eq!(relay.post_to(EVENTS, SECRET, &other).await, 200);
    relay.settled().await;
    let mut ids = soar.ids();
    ids.sort();
    assert_eq!(ids, [slack::id(1), slack::id(1).replace("main:", "other:")]);
    assert_eq!(relay.metric(&count("", "ignored", "team")).await, 2.0);
    assert_eq!(relay.metric(&count("main", "ignored", "team")).await, 2.0);
    let lines = log::lines();
    let warnings: Vec<_> = lines.iter().filter(|line| line["team"] == "T0STRANGER").collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0]["level"], "WARN");
    let challenge = json!({"type": "url_verification", "challenge": "c"}).to_string();
    assert_eq!(relay.post_to(EVENTS, SECRET, challenge.as_bytes()).await, 200);
}

#[tokio::test]
async fn a_post_to_an_unknown_app_is_404_counted_and_said_once_a_minute() {
    log::keep();
    let relay = Setup::default().start().await;
    for n in 0..5 {
        let path = format!("/slack/events/nobody-{n}\u{1b}[2J");
        assert_eq!(relay.post_to(&path, SECRET, b"{}").await, 400, "not a URL");
        let path = format!("/slack/events/nobody-{n}");
        assert_eq!(relay.post_to(&path, SECRET, b"{}").await, 404);
    }
    assert_eq!(relay.metric(&count("", "rejected", "")).await, 5.0);
    let lines = log::lines();
    assert_eq!(lines.iter().filter(|line| line["path"].is_string()).count(), 1);
}

#[tokio::test]
async fn more_than_sixteen_distinct_secrets_close_the_short_path_and_no_other() {
    let app = |n| format!("    - {{name: app-{n}, signing_secret: {{env: SECRET_{n}}}}}\n");
    let apps: Vec<String> = (0..17).map(app).collect();
    let mut setup = Setup::default();
    for n in 0..17 {
        setup = setup.env(&format!("SECRET_{n}"), &format!("secret-{n}"));
    }
    let relay = setup.apps(&apps.concat()).start().await;
    let body = incident(1).to_string().into_bytes();
    assert_eq!(relay.post_to(EVENTS, "secret-3", &body).await, 404);
    assert_eq!(relay.post_to("/slack/events/app-3", "secret-3", &body).await, 200);
}

#[tokio::test]
async fn the_secret_before_the_current_one_is_good_while_it_is_rotated() {
    let apps = "    - name: main\n      signing_secret: {env: OTHER_SECRET}\n      \
                previous_signing_secret: {env: SECRET}\n";
    let relay = Setup::default().apps(apps).start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
}

#[tokio::test]
async fn the_public_listener_has_nothing_else() {
    let relay = Setup::default().start().await;
    let ask = async |method, path| {
        let answer = http::request(relay.public(), method, path, &[], b"").await;
        assert_eq!(answer.body.len(), 0, "{method} {path}");
        answer.status
    };
    assert_eq!(ask("GET", "/healthz").await, 200);
    assert_eq!(ask("POST", "/healthz").await, 405);
    assert_eq!(ask("GET", "/slack/events").await, 405);
    assert_eq!(ask("PUT", "/slack/events/main").await, 405);
    for path in ["/", "/metrics", "/readyz", "/slack", "/slack/events/", "/api/v1/status"] {
        assert_eq!(ask("GET", path).await, 404, "{path}");
    }
}

#[tokio::test]
async fn a_retry_of_slack_is_taken_like_any_other_and_counted_by_its_reason() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let body = incident(1).to_string().into_bytes();
    for reason in ["http_timeout", "moon_phase"] {
        let mut headers = slack::signed(SECRET, relay.clock.now(), &body);
        headers.push(("X-Slack-Retry-Num".to_owned(), "1".to_owned()));
        headers.push(("X-Slack-Retry-Reason".to_owned(), reason.to_owned()));
        assert_eq!(http::post(relay.public(), EVENTS, &headers, &body).await.status, 200);
    }
    assert_eq!(relay.metric(r#"slack_retries_total{reason="http_timeout"}"#).await, 1.0);
    assert_eq!(relay.metric(r#"slack_retries_total{reason="unknown_error"}"#).await, 1.0);
    relay.settled().await;
    assert_eq!(soar.ids(), [slack::id(1)]);
}

#[tokio::test]
async fn a_full_store_is_answered_503_without_forbidding_a_retry() {
    let soar = FakeSoar::new([Mood::Hang]).await;
    let setup = Setup::default().more("store: {sqlite: {max_size: 2MiB}}\n");
    let relay = setup.destination("soar", &soar, "").start().await;
    let mut last = 200;
    for n in 0..100 {
        let body = slack::large_incident(n, 50_000).to_string().into_bytes();
        let headers = slack::signed(SECRET, relay.clock.now(), &body);
        let answer = http::post(relay.public(), EVENTS, &headers, &body).await;
        last = answer.status;
        if last != 200 {
            assert!(!answer.head.to_lowercase().contains("x-slack-no-retry"));
            break;
        }
    }
    assert_eq!(last, 503);
    let ready = http::get(relay.relay().ops, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(http::get(relay.relay().ops, "/livez").await.status, 200);
}
