//! The ops API: who may use it, what it shows, and what it does.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    OPS_TOKEN, Setup, TestRelay,
    http::{self, Answer},
    log,
    slack::{self, id, incident},
    soar::{FakeSoar, Mood},
};

/// A request with these headers, whatever the API thinks of them.
async fn ask(relay: &TestRelay, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let headers: Vec<_> = headers.iter().map(owned).collect();
    http::request(relay.relay().ops, method, path, &headers, b"").await
}

const STATUS: &str = "/api/v1/status";
const LOCAL: (&str, &str) = ("Host", "127.0.0.1:9090");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn problem(answer: &Answer) -> Value {
    assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["status"], json!(answer.status));
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
    problem
}

/// The states of an alert's deliveries, by destination.
async fn states(relay: &TestRelay, alert: &str) -> Vec<(String, String)> {
    let (status, alert) = relay.api("GET", &format!("/alerts/{alert}")).await;
    assert_eq!(status, 200, "{alert}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let deliveries = alert["deliveries"].as_array().unwrap().iter();
    deliveries.map(|one| (text(&one["destination"]), text(&one["state"]))).collect()
}

/// Waits until the alert's only delivery is in that state.
async fn until(relay: &TestRelay, alert: &str, state: &str) {
    let reached = async {
        while states(relay, alert).await[0].1 != state {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, reached).await.expect(state);
}

/// A relay whose SOAR has refused the first `n` incidents for good, and has accepted number 99.
async fn with_dead(n: u32, soar: &FakeSoar) -> TestRelay {
    soar.becomes(Mood::TakesOnly(id(99), 422, "no such field: priority".to_owned()));
    let relay = Setup::default().destination("soar", soar, "concurrency: 1").start().await;
    for n in 0..n {
        assert_eq!(relay.post(&incident(n)).await, 200);
    }
    let refused = r#"delivery_attempts_total{destination="soar",class="refused"}"#;
    relay.metric_is(refused, |refused| refused >= f64::from(n)).await;
    assert_eq!(relay.post(&incident(99)).await, 200);
    let dead = async {
        while relay.metric(r#"deliveries{destination="soar",state="dead"}"#).await < f64::from(n) {
            tokio::task::yield_now().await;
        }
    };
    relay.time_passes_until(Duration::from_secs(1), dead).await;
    relay
}

#[tokio::test]
async fn the_token_opens_the_api_and_nothing_else_does() {
    let relay = Setup::default().server(", ops_token: {env: OPS_TOKEN}").start().await;
    for wrong in [None, Some("Bearer wrong"), Some("Basic YTpi"), Some("Bearer ")] {
        let headers: Vec<_> = wrong.map(|value| ("Authorization", value)).into_iter().collect();
        for path in [STATUS, "/api/v1/alerts", "/api/v1/nothing"] {
            let answer = ask(&relay, "GET", path, &headers).await;
            assert_eq!(answer.status, 401, "{wrong:?} {path}");
            assert!(answer.head.contains("www-authenticate: Bearer"), "{}", answer.head);
            assert!(!problem(&answer).to_string().contains(OPS_TOKEN));
        }
    }
    let bearer = format!("Bearer {OPS_TOKEN}");
    let right = [("Authorization", bearer.as_str())];
    assert_eq!(ask(&relay, "GET", STATUS, &right).await.status, 200);
    let pause = "/api/v1/destinations/nobody/pause";
    assert_eq!(ask(&relay, "POST", pause, &right).await.status, 404, "no JSON is needed with it");
    for open in ["/metrics", "/livez", "/readyz", "/healthz"] {
        assert_eq!(ask(&relay, "GET", open, &[]).await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn on_another_address_there_is_no_api_without_a_token() {
    let relay = Setup::default().server(", ops_listen: 0.0.0.0:0").start().await;
    for path in [STATUS, "/api/v1/alerts", "/api/v1/nothing"] {
        let answer = ask(&relay, "GET", path, &[LOCAL]).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(problem(&answer)["detail"].as_str().unwrap().contains("ops_token"));
    }
    assert_eq!(ask(&relay, "GET", "/metrics", &[]).await.status, 200);
    let setup = Setup::default().server(", ops_listen: 0.0.0.0:0, ops_token: {env: OPS_TOKEN}");
    let relay = setup.start().await;
    assert_eq!(ask(&relay, "GET", STATUS, &[]).await.status, 401);
    let bearer = format!("Bearer {OPS_TOKEN}");
    let headers = [("Authorization", bearer.as_str()), ("Host", "relay.example")];
    assert_eq!(ask(&relay, "GET", STATUS, &headers).await.status, 200);
}

#[tokio::test]
async fn a_website_cannot_reach_the_open_api_through_a_browser() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let rebound = ask(&relay, "GET", STATUS, &[("Host", "evil.example:9090")]).await;
    assert_eq!(rebound.status, 403);
    problem(&rebound);
    let pause = "/api/v1/destinations/soar/pause";
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(problem(&ask(&relay, "POST", pause, &[LOCAL, form]).await)["status"], 415);
    assert_eq!(ask(&relay, "POST", pause, &[LOCAL]).await.status, 415);
    assert_eq!(ask(&relay, "POST", pause, &[("Host", "evil.example"), JSON]).await.status, 403);
    let (_, status) = relay.api("GET", "/status").await;
    assert_eq!(status["destinations"][0]["paused"], false, "nothing was done");
}

#[tokio::test]
async fn what_is_not_there_or_makes_no_sense_is_a_problem_document() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let local = [LOCAL, JSON];
    let cases = [
        ("GET", "/alerts/main:C0123456789:1.000000:0", 404),
        ("GET", "/alerts/nonsense", 404),
        ("POST", "/alerts/main:C0123456789:1.000000:0/retry", 404),
        ("POST", "/alerts/nonsense/cancel", 404),
        ("POST", "/destinations/nobody/pause", 404),
        ("POST", "/destinations/No%20Name/resume", 404),
        ("POST", "/destinations/nobody/test", 404),
        ("GET", "/nothing", 404),
        ("GET", "/alerts/x/retry", 405),
        ("DELETE", "/alerts/x", 405),
        ("POST", "/status", 405),
        ("GET", "/alerts?state=broken", 400),
        ("GET", "/alerts?severity=huge", 400),
        ("GET", "/alerts?limit=0", 400),
        ("GET", "/alerts?limit=501", 400),
        ("GET", "/alerts?limit=many", 400),
        ("GET", "/alerts?before=x", 400),
        ("GET", "/alerts?stat=dead", 400),
        ("GET", "/status?verbose=1", 400),
        ("POST", "/alerts/retry", 400),
        ("POST", "/alerts/retry?state=delivered", 400),
        ("POST", "/alerts/cancel?state=cancelled", 400),
        ("POST", "/alerts/cancel?state=unrouted", 400),
        ("POST", "/alerts/retry?state=unrouted&destination=nobody", 404),
        ("POST", "/alerts/retry?state=dead&destination=nobody", 404),
        ("POST", "/alerts/x/retry?destinaton=soar", 400),
        ("POST", "/destinations/soar/test?severity=huge", 400),
    ];
    for (method, path, status) in cases {
        let answer = ask(&relay, method, &format!("/api/v1{path}"), &local).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        problem(&answer);
        assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
    }
    let form = "/api/v1/alerts?state=&severity=&q=&before=&limit=";
    assert_eq!(ask(&relay, "GET", form, &local).await.status, 200, "as a form sends nothing");
    let wrong = ask(&relay, "POST", STATUS, &local).await;
    assert!(wrong.head.contains("allow: GET"), "{}", wrong.head);
    assert!(soar.received().is_empty());
}

#[tokio::test]
async fn a_selection_in_the_body_is_refused_and_not_overlooked() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    let headers = [LOCAL, JSON].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let path = format!("/api/v1/alerts/{}/cancel", id(1));
    let body = br#"{"destination": "another"}"#;
    let answer = http::post(relay.relay().ops, &path, &headers, body).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let pause = "/api/v1/destinations/soar/pause";
    assert_eq!(http::post(relay.relay().ops, pause, &headers, b" {} ").await.status, 200);
}

#[tokio::test]
async fn the_status_says_how_each_destination_is_doing() {
    let (good, bad) = (FakeSoar::ok().await, FakeSoar::new([Mood::Status(503)]).await);
    let setup = Setup::default().destination("good", &good, "").destination("bad", &bad, "");
    let mut relay = setup.start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    bad.has_received(1).await;
    until_status(&relay, |status| status["destinations"][1]["last_failure"]["status"] == 503).await;
    let (_, status) = relay.api("GET", "/status").await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let app = &status["apps"][0];
    assert_eq!((&status["ready"], &app["name"]), (&json!(true), &json!("main")));
    assert_eq!((&app["catch_up"], app["bots"].as_array().unwrap().len()), (&Value::Null, 1));
    let good = &status["destinations"][0];
    assert_eq!((&good["name"], &good["configured"]), (&json!("good"), &json!(true)));
    let bad = &status["destinations"][1];
    assert_eq!((&bad["pending"], &bad["breaker_open"]), (&json!(1), &json!(false)));
    assert_eq!(bad["oldest_pending_at"], "2020-09-21T12:05:50.000Z");
    assert_eq!(bad["last_failure"]["class"], "destination_fault");
    relay.stop().await;
    relay.rename_destination("bad", "other");
    relay.restart().await;
    let (_, status) = relay.api("GET", "/status").await;
    let names: Vec<_> = status["destinations"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 3, "{status}");
    assert_eq!((&names[2]["name"], &names[2]["configured"]), (&json!("bad"), &json!(false)));
}

async fn until_status(relay: &TestRelay, is_so: impl Fn(&Value) -> bool) {
    let reached = async {
        while !is_so(&relay.api("GET", "/status").await.1) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, reached).await.expect("the status never came");
}

#[tokio::test]
async fn lists_are_paged_filtered_and_searched() {
    let soar = FakeSoar::ok().await;
    let setup = Setup::default().destination("soar", &soar, "when: {min_severity: high}");
    let relay = setup.start().await;
    for n in 0..7 {
        let mut message = slack::message(n);
        if n == 3 {
            message["attachments"][0]["fields"][1]["value"] = json!("Low");
            message["attachments"][0]["text"] = json!("Überraschung\nodd");
        }
        assert_eq!(relay.post(&slack::event(&message)).await, 200);
    }
    relay.settled().await;
    let ids = |page: &Value| -> Vec<String> {
        let rows = page["alerts"].as_array().unwrap().iter();
        rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let mut all = Vec::new();
    let mut path = "/alerts?limit=3".to_owned();
    loop {
        let (status, page) = relay.api("GET", &path).await;
        assert_eq!(status, 200);
        all.extend(ids(&page));
        match page["next"].as_i64() {
            Some(next) => path = format!("/alerts?limit=3&before={next}"),
            None => break,
        }
    }
    assert_eq!(all, (0..7).rev().map(id).collect::<Vec<_>>(), "newest first, each once");
    let list = async |query: &str| ids(&relay.api("GET", &format!("/alerts?{query}")).await.1);
    assert_eq!(list("severity=low").await, [id(3)]);
    assert_eq!(list("state=unrouted").await, [id(3)]);
    assert_eq!(list("state=delivered&severity=High").await.len(), 6);
    assert_eq!(list("state=dead").await.len(), 0);
    assert_eq!(list("q=%C3%BCBERraschung").await, [id(3)], "whatever the case");
    assert_eq!(list("q=sniffing&limit=2").await, [id(6), id(5)]);
    assert_eq!(list(&format!("q={}", id(5))).await, [id(5)]);
    let (_, page) = relay.api("GET", "/alerts?limit=1").await;
    let row = &page["alerts"][0];
    assert_eq!((&row["severity"], &row["sources"]), (&json!("high"), &json!(["push"])));
    assert_eq!(row["posted_at"], "2020-09-21T11:51:40.000Z");
    assert_eq!(row["deliveries"][0]["state"], "delivered");
    assert_eq!(row["deliveries"][0]["attempt_count"], 1);
}

#[tokio::test]
async fn an_alert_is_shown_with_its_message_and_every_attempt() {
    let soar =
        FakeSoar::new([Mood::Body(503, "maintenance until ten".to_owned()), Mood::Status(200)])
            .await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    soar.has_received(1).await;
    until(&relay, &id(1), "pending").await;
    relay.clock.advance(Duration::from_secs(2));
    relay.settled().await;
    let (status, shown) = relay.api("GET", &format!("/alerts/{}", id(1))).await;
    assert_eq!((status, &shown["id"]), (200, &json!(id(1))));
    assert_eq!(shown["raw"], slack::message(1));
    assert_eq!(shown["alert"], soar.received()[1].body, "as the destination got it");
    assert_eq!(shown["alert"]["schema"], "slack-soar-relay/alert/v1");
    assert_eq!(
        (&shown["event_id"], &shown["team"]),
        (&json!("Ev0RELAY0001"), &json!("T0RELAYTEAM"))
    );
    let delivery = &shown["deliveries"][0];
    assert_eq!((&delivery["state"], &delivery["attempt_count"]), (&json!("delivered"), &json!(2)));
    assert_eq!(delivery["reference"], json!({"id": "", "url": ""}));
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!((&attempts[0]["status"], &attempts[1]["status"]), (&json!(503), &json!(200)));
    assert_eq!(attempts[0]["class"], "destination_fault");
    assert!(attempts[0]["excerpt"].as_str().unwrap().contains("maintenance until ten"));
    assert_eq!(attempts[1]["class"], "delivered");
    assert!(!shown.to_string().contains("hunter2"), "the destination's URL is a secret");
}

#[tokio::test]
async fn a_dead_alert_is_retried_and_a_delivered_one_is_not() {
    let soar = FakeSoar::ok().await;
    let relay = with_dead(1, &soar).await;
    let (_, shown) = relay.api("GET", &format!("/alerts/{}", id(0))).await;
    assert_eq!(shown["deliveries"][0]["dead_reason"], "refused");
    soar.becomes(Mood::Status(200));
    let retry = format!("/alerts/{}/retry", id(0));
    let elsewhere = relay.api("POST", &format!("{retry}?destination=other")).await;
    assert_eq!(elsewhere.0, 404, "{elsewhere:?}");
    let (status, changed) = relay.api("POST", &format!("{retry}?destination=soar")).await;
    assert_eq!((status, &changed["changed"]), (200, &json!(1)));
    relay.settled().await;
    assert_eq!(states(&relay, &id(0)).await, [("soar".to_owned(), "delivered".to_owned())]);
    let (status, refused) = relay.api("POST", &retry).await;
    assert_eq!(status, 409);
    assert!(refused["detail"].as_str().unwrap().contains("already delivered to soar"));
    assert_eq!(relay.api("POST", &format!("/alerts/{}/cancel", id(0))).await.0, 409);
    assert_eq!(soar.taken(), [id(99), id(0)]);
}

#[tokio::test]
async fn an_attempt_under_way_cannot_be_cancelled() {
    let soar = FakeSoar::new([Mood::Hang]).await;
    let relay = Setup::default().destination("soar", &soar, "timeout: 1s").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    soar.has_received(1).await;
    let cancel = format!("/alerts/{}/cancel", id(1));
    let (status, refused) = relay.api("POST", &cancel).await;
    assert_eq!(status, 409, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("under way"));
    let (status, same) = relay.api("POST", &format!("/alerts/{}/retry", id(1))).await;
    assert_eq!((status, &same["changed"]), (200, &json!(0)), "it is being tried already");
    until(&relay, &id(1), "pending").await;
    assert_eq!(relay.api("POST", &cancel).await.1["changed"], 1);
    assert_eq!(relay.api("POST", &cancel).await.0, 200, "once more is the same");
    assert_eq!(states(&relay, &id(1)).await[0].1, "cancelled");
    soar.becomes(Mood::Status(200));
    relay.clock.advance(Duration::from_secs(3600));
    assert_eq!(relay.api("POST", &format!("/alerts/{}/retry", id(1))).await.1["changed"], 1);
    relay.settled().await;
    assert_eq!(soar.taken(), [id(1)]);
}

#[tokio::test]
async fn two_people_who_retry_at_once_cause_one_delivery() {
    let soar = FakeSoar::ok().await;
    let relay = with_dead(1, &soar).await;
    soar.becomes(Mood::Status(200));
    let path = format!("/alerts/{}/retry", id(0));
    let (one, other) = tokio::join!(relay.api("POST", &path), relay.api("POST", &path));
    let changed = |answer: &(u16, Value)| answer.1["changed"].as_u64().unwrap_or(0);
    assert_eq!(changed(&one) + changed(&other), 1, "{one:?} {other:?}");
    relay.settled().await;
    assert_eq!(soar.taken(), [id(99), id(0)]);
}

#[tokio::test]
async fn all_dead_ones_of_a_destination_are_retried_at_once() {
    let soar = FakeSoar::ok().await;
    let relay = with_dead(9, &soar).await;
    soar.becomes(Mood::Status(200));
    let (status, changed) = relay.api("POST", "/alerts/retry?state=dead&destination=soar").await;
    assert_eq!((status, &changed["changed"]), (200, &json!(9)));
    relay.settled().await;
    assert_eq!(soar.taken().len(), 1 + 9);
    let (status, changed) = relay.api("POST", "/alerts/retry?state=dead").await;
    assert_eq!((status, &changed["changed"]), (200, &json!(0)));
}

#[tokio::test]
async fn a_retry_by_hand_does_not_wait_for_the_breaker() {
    let soar = FakeSoar::new([Mood::Status(503)]).await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    for n in 1..=5 {
        soar.has_received(n).await;
        until(&relay, &id(1), "pending").await;
        let due = if n < 5 { 15 } else { 0 };
        relay.clock.advance(Duration::from_secs(due));
    }
    until_status(&relay, |status| status["destinations"][0]["breaker_open"] == true).await;
    soar.becomes(Mood::Status(200));
    assert_eq!(relay.api("POST", &format!("/alerts/{}/retry", id(1))).await.0, 200);
    relay.settled().await;
    assert_eq!(soar.taken(), [id(1)]);
    let (_, status) = relay.api("GET", "/status").await;
    assert_eq!(status["destinations"][0]["breaker_open"], false);
}

#[tokio::test]
async fn a_paused_destination_gets_nothing_until_it_is_resumed() {
    let soar = FakeSoar::ok().await;
    let mut relay = Setup::default().destination("soar", &soar, "").start().await;
    let (status, paused) = relay.api("POST", "/destinations/soar/pause").await;
    let pause = json!({"since": "2020-09-21T12:05:50.000Z", "until": null, "reason": ""});
    let expected = json!({"destination": "soar", "paused": true, "pause": pause});
    assert_eq!((status, paused), (200, expected));
    assert_eq!(relay.post(&incident(1)).await, 200);
    relay.stop().await;
    relay.restart().await;
    assert_eq!(relay.api("GET", "/status").await.1["destinations"][0]["paused"], true);
    assert_eq!(states(&relay, &id(1)).await[0].1, "paused");
    assert!(soar.received().is_empty());
    assert_eq!(relay.api("POST", "/destinations/soar/resume").await.1["paused"], false);
    relay.settled().await;
    assert_eq!(soar.taken(), [id(1)]);
}

#[tokio::test]
async fn a_test_of_a_destination_reports_what_it_answered_and_stores_nothing() {
    let soar =
        FakeSoar::new([Mood::Status(200), Mood::Body(401, "bad key hunter2".to_owned())]).await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let (status, report) = relay.api("POST", "/destinations/soar/test?severity=critical").await;
    assert_eq!((status, &report["delivered"]), (200, &json!(true)), "{report}");
    assert_eq!((&report["class"], &report["status"]), (&json!("delivered"), &json!(200)));
    let sent = &soar.received()[0];
    assert_eq!(sent.body["is_test"], true);
    assert_eq!(sent.body["severity"]["level"], "critical");
    assert_eq!(sent.body["id"], report["alert_id"]);
    assert!(sent.body["details"].as_str().unwrap().starts_with("Test from slack-soar-relay"));
    let (status, report) = relay.api("POST", "/destinations/soar/test").await;
    assert_eq!((status, &report["delivered"]), (200, &json!(false)));
    assert_eq!((&report["class"], &report["status"]), (&json!("auth"), &json!(401)));
    assert!(!report.to_string().contains("hunter2"), "{report}");
    let id = report["alert_id"].as_str().unwrap();
    assert_eq!(relay.api("GET", &format!("/alerts/{id}")).await.0, 404);
    assert_eq!(relay.api("GET", "/alerts").await.1["alerts"], json!([]));
}

#[tokio::test]
async fn each_action_leaves_one_line_that_says_who_did_what() {
    log::keep();
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    relay.api("POST", "/destinations/soar/pause").await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    relay.api("POST", &format!("/alerts/{}/cancel", id(1))).await;
    relay.api("GET", "/alerts").await;
    let lines = log::lines().into_iter();
    let audit: Vec<Value> = lines.filter(|line| line["audit"] == true).collect();
    assert_eq!(audit.len(), 2, "{audit:#?}");
    assert_eq!(audit[0]["action"], "pause");
    assert_eq!(audit[0]["selection"], "destination soar");
    assert_eq!(audit[1]["selection"], format!("alert {}", id(1)));
    assert_eq!((&audit[1]["action"], &audit[1]["changed"]), (&json!("cancel"), &json!(1)));
    assert!(audit[1]["who"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", audit[1]);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let store = rusqlite::Connection::open_with_flags(relay.dir().join("relay.db"), flags).unwrap();
    let mut query =
        store.prepare("SELECT who, action, selection FROM actions ORDER BY id").unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
    let kept: Vec<[String; 3]> = query.query_map([], row).unwrap().map(Result::unwrap).collect();
    let said = |line: &Value| {
        ["who", "action", "selection"].map(|key| line[key].as_str().unwrap().to_owned())
    };
    assert_eq!(kept, audit.iter().map(said).collect::<Vec<_>>(), "the store has the same");
    assert!(kept[0][0].ends_with("(loopback)"), "{kept:?}");
}

const NOWHERE: &str = "when: {channels: [C9999999999]}";

/// A relay whose only destination wants nothing of what was posted.
async fn with_unrouted(n: u32, soar: &FakeSoar) -> TestRelay {
    let relay = Setup::default().destination("soar", soar, NOWHERE).start().await;
    for number in 0..n {
        assert_eq!(relay.post(&incident(number)).await, 200);
    }
    relay
}

fn mended(yaml: &str) -> String {
    yaml.replace(NOWHERE, "when: {min_severity: low}")
}

#[tokio::test]
async fn an_unrouted_alert_goes_where_the_configuration_in_use_sends_it() {
    let soar = FakeSoar::ok().await;
    let mut relay = with_unrouted(1, &soar).await;
    let retry = format!("/alerts/{}/retry", id(0));
    let (status, refused) = relay.api("POST", &retry).await;
    let detail = refused["detail"].as_str().unwrap();
    assert_eq!(status, 409);
    assert!(detail.contains("`soar` refuses it by `when.channels`"), "{detail}");
    assert_eq!(relay.api("POST", &format!("{retry}?destination=other")).await.0, 404);
    relay.reload(mended).await.unwrap();
    let (status, changed) = relay.api("POST", &retry).await;
    assert_eq!((status, &changed["changed"]), (200, &json!(1)));
    assert_eq!(changed["routed"]["by_destination"], json!({"soar": 1}));
    assert_eq!(changed["deliveries"][0]["destination"], "soar");
    relay.settled().await;
    assert_eq!(relay.api("POST", &retry).await.0, 409, "it is delivered");
    // Routing is decided once: one that was added later does not get it.
    let other = "destinations:\n  - {name: other, preset: webhook, url: {env: URL_SOAR}}\n";
    relay.reload(|yaml| yaml.replace("destinations:\n", other)).await.unwrap();
    relay.stop().await;
    relay.restart().await;
    assert_eq!(relay.api("POST", &retry).await.0, 409);
    assert_eq!(relay.api("POST", &format!("{retry}?destination=other")).await.0, 404);
    relay.settled().await;
    assert_eq!(soar.taken(), [id(0)]);
}

#[tokio::test]
async fn two_people_who_route_an_alert_at_once_cause_one_delivery() {
    let soar = FakeSoar::ok().await;
    let mut relay = with_unrouted(1, &soar).await;
    relay.reload(mended).await.unwrap();
    let path = format!("/alerts/{}/retry", id(0));
    let all = "/alerts/retry?state=unrouted";
    let (one, other, every) =
        tokio::join!(relay.api("POST", &path), relay.api("POST", &path), relay.api("POST", all));
    let changed = |answer: &(u16, Value)| answer.1["changed"].as_u64().unwrap_or(0);
    let sum = changed(&one) + changed(&other) + changed(&every);
    assert_eq!(sum, 1, "{one:?} {other:?} {every:?}");
    relay.settled().await;
    assert_eq!(soar.taken(), [id(0)]);
}

#[tokio::test]
async fn all_unrouted_alerts_are_routed_at_once_and_the_rest_is_explained() {
    let soar = FakeSoar::ok().await;
    let mut relay = with_unrouted(4, &soar).await;
    let mut low = slack::message(9);
    low["attachments"][0]["fields"][1]["value"] = json!("Informative");
    assert_eq!(relay.post(&slack::event(&low)).await, 200);
    let path = "/alerts/retry?state=unrouted";
    let (status, none) = relay.api("POST", path).await;
    assert_eq!((status, &none["changed"], &none["routed"]["left"]), (200, &json!(0), &json!(5)));
    assert!(none["routed"]["reason"].as_str().unwrap().contains("when.channels"));
    relay.reload(mended).await.unwrap();
    let (status, answer) = relay.api("POST", path).await;
    let routed = &answer["routed"];
    assert_eq!((status, &answer["changed"], &routed["alerts"]), (200, &json!(4), &json!(4)));
    assert_eq!((&routed["by_destination"], &routed["left"]), (&json!({"soar": 4}), &json!(1)));
    let reason = routed["reason"].as_str().unwrap();
    assert!(reason.contains(&id(9)) && reason.contains("when.min_severity"), "{reason}");
    relay.settled().await;
    assert_eq!(soar.taken().len(), 4);
    let (_, again) = relay.api("POST", path).await;
    assert_eq!((&again["changed"], &again["routed"]["left"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn a_retry_of_all_unrouted_alerts_that_fails_midway_is_in_the_journal() {
    let soar = FakeSoar::ok().await;
    let mut relay = with_unrouted(3, &soar).await;
    relay.reload(mended).await.unwrap();
    let store = rusqlite::Connection::open(relay.dir().join("relay.db")).unwrap();
    store
        .execute_batch(
            "CREATE TRIGGER no BEFORE INSERT ON deliveries
             WHEN (SELECT count(*) FROM deliveries) = 2 BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
    let all = "/alerts/retry?state=unrouted";
    let (status, failed) = relay.api("POST", all).await;
    assert!(status >= 500, "{failed}");
    let journal = || -> Vec<(String, u64)> {
        let mut look = store.prepare("SELECT selection, changed FROM actions ORDER BY id").unwrap();
        let entry = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        look.query_map([], entry).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(journal(), [("all unrouted".to_owned(), 2)]);
    store.execute_batch("DROP TRIGGER no").unwrap();
    assert_eq!(relay.api("POST", all).await.1["changed"], 1);
    assert_eq!(journal().last(), Some(&("all unrouted".to_owned(), 1)));
    relay.settled().await;
    assert_eq!(soar.taken().len(), 3);
}

#[tokio::test]
async fn what_a_retry_or_cancel_changed_is_named_in_one_form() {
    let soar = FakeSoar::ok().await;
    let mut relay = with_unrouted(3, &soar).await;
    relay.reload(mended).await.unwrap();
    assert_eq!(relay.api("POST", "/destinations/soar/pause").await.0, 200);
    let named = |numbers: &[u32]| {
        let one = |number: &u32| json!({"alert_id": id(*number), "destination": "soar"});
        numbers.iter().map(one).collect::<Vec<Value>>()
    };
    let check = |answer: &Value, numbers: &[u32]| {
        let mut deliveries = answer["deliveries"].as_array().cloned().unwrap_or_default();
        deliveries.sort_by_key(|one| one["alert_id"].to_string());
        assert_eq!(deliveries, named(numbers), "{answer}");
        assert_eq!(answer["changed"], json!(numbers.len()), "{answer}");
        assert_eq!(answer["not_named"], 0, "{answer}");
    };
    let api = async |path: &str| relay.api("POST", path).await.1;
    check(&api(&format!("/alerts/{}/retry", id(0))).await, &[0]);
    check(&api("/alerts/retry?state=unrouted").await, &[1, 2]);
    check(&api(&format!("/alerts/{}/cancel", id(1))).await, &[1]);
    check(&api("/alerts/cancel?state=pending&destination=soar").await, &[0, 2]);
    check(&api("/alerts/cancel?state=pending&destination=soar").await, &[]);
    let server = format!("http://{}", relay.relay().ops);
    let run = async |arguments: Vec<String>| {
        let server = server.clone();
        let ran = tokio::task::spawn_blocking(move || {
            let mut all = vec!["alerts"];
            all.extend(arguments.iter().map(String::as_str));
            all.extend(["--json", "--server", &server]);
            crate::process::run(&all)
        });
        serde_json::from_str::<Value>(&ran.await.unwrap().1).unwrap()
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    check(&run(words(&["retry", &id(0), &id(2)])).await, &[0, 2]);
    check(&run(words(&["cancel", "--all-pending", "--destination", "soar"])).await, &[0, 2]);
}

#[tokio::test]
async fn an_unrouted_alert_whose_message_is_gone_says_so() {
    let soar = FakeSoar::ok().await;
    let setup = Setup::default().destination("soar", &soar, NOWHERE);
    let mut relay = setup.more("retention: {delivered: 1h}\n").start().await;
    assert_eq!(relay.post(&incident(0)).await, 200);
    relay.reload(mended).await.unwrap();
    let alert = format!("/alerts/{}", id(0));
    let gone = async {
        loop {
            let (_, shown) = relay.api("GET", &alert).await;
            if shown["raw"].is_null() {
                return;
            }
        }
    };
    relay.time_passes_until(Duration::from_secs(60), gone).await;
    let (status, refused) = relay.api("POST", &format!("{alert}/retry")).await;
    let detail = refused["detail"].as_str().unwrap();
    assert!(status == 409 && detail.contains("is gone, as retention says"), "{detail}");
    let (status, none) = relay.api("POST", "/alerts/retry?state=unrouted").await;
    assert_eq!((status, &none["changed"], &none["routed"]["left"]), (200, &json!(0), &json!(0)));
}

#[tokio::test]
async fn the_command_line_says_where_unrouted_alerts_go() {
    let soar = FakeSoar::ok().await;
    let mut relay = with_unrouted(3, &soar).await;
    let server = format!("http://{}", relay.relay().ops);
    let run = async |arguments: &[&str]| {
        let mut all = vec!["alerts".to_owned(), "retry".to_owned()];
        all.extend(arguments.iter().map(|one| (*one).to_owned()));
        all.extend(["--server".to_owned(), server.clone()]);
        let ran = tokio::task::spawn_blocking(move || {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            crate::process::run(&all)
        });
        ran.await.unwrap()
    };
    let (code, out, err) = run(&[&id(0)]).await;
    assert!(code == 1 && err.contains("when.channels"), "{out}{err}");
    let (code, out, _) = run(&["--all-unrouted"]).await;
    assert_eq!(code, 0, "as with `--all-dead`, nothing to do is not a failure");
    assert!(out.contains("3 stay unrouted: no destination takes alert"), "{out}");
    relay.reload(mended).await.unwrap();
    let (code, out, err) = run(&[&id(0)]).await;
    let one = "1 delivery to be tried again now.\n1 unrouted alert goes to soar.\n";
    assert_eq!((code, out.as_str()), (0, one), "{err}");
    let (code, out, err) = run(&["--all-unrouted"]).await;
    let two = "2 deliveries to be tried again now.\n2 unrouted alerts go to soar.\n";
    assert_eq!((code, out.as_str()), (0, two), "{err}");
    relay.settled().await;
    assert_eq!(soar.taken().len(), 3);
}
