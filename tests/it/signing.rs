//! The app that a signed request belongs to, and the reports of requests that do not verify.

use std::{io::Write, net::TcpStream, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    SECRET, Setup, TestRelay, http, log,
    slack::{self, incident, message},
    soar::FakeSoar,
    world::{MINUTE, sorted},
};

const EVENTS: &str = "/slack/events";
const OLD: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
const NEW: &str = "ffeeddccbbaa99887766554433221100";

fn count(app: &str, outcome: &str, reason: &str) -> String {
    format!(r#"events_total{{app="{app}",outcome="{outcome}",reason="{reason}"}}"#)
}

/// The `n`th incident, for a workspace.
fn incident_of(n: u32, team: &str) -> Vec<u8> {
    let mut event = incident(n);
    event["authorizations"] = json!([{"team_id": team}]);
    event["team_id"] = json!(team);
    event.to_string().into_bytes()
}

fn id_of(app: &str, n: u32) -> String {
    slack::id(n).replace("main:", &format!("{app}:"))
}

/// Two workspaces of one Slack app, whose secret stands in a file for each.
fn two_files(soar: &FakeSoar, main: &str, other: &str) -> Setup {
    let apps = "    - {name: main, signing_secret: {file: main}, team: T0MAIN}\n\
                \x20   - {name: other, signing_secret: {file: other}, team: T0OTHER}\n";
    let setup = Setup::default().apps(apps).destination("soar", soar, "");
    setup.file("main", main).file("other", other)
}

#[tokio::test]
async fn a_shared_secret_that_is_rotated_file_by_file_loses_no_event() {
    for first in ["main", "other"] {
        let soar = FakeSoar::ok().await;
        let relay = two_files(&soar, OLD, OLD).start().await;
        let mut n = 0;
        let mut post = async |secret: &str| {
            for team in ["T0MAIN", "T0OTHER"] {
                n += 1;
                let status = relay.post_to(EVENTS, secret, &incident_of(n, team)).await;
                assert_eq!(status, 200, "{first} first, {team} by {secret}");
            }
        };
        post(OLD).await;
        relay.write(first, NEW);
        post(NEW).await;
        post(OLD).await;
        relay.write(if first == "main" { "other" } else { "main" }, NEW);
        post(NEW).await;
        relay.settled().await;
        let expected = (1..9).map(|n| id_of(if n % 2 == 1 { "main" } else { "other" }, n));
        assert_eq!(sorted(soar.ids()), sorted(expected.collect()), "{first} first");
    }
}

#[tokio::test]
async fn an_event_for_an_app_whose_secret_may_follow_is_refused_until_it_has() {
    log::keep();
    let soar = FakeSoar::ok().await;
    // The relay was started between the two rotations.
    let relay = two_files(&soar, NEW, OLD).start().await;
    let event = incident_of(1, "T0OTHER");
    for _ in 0..3 {
        assert_eq!(relay.post_to(EVENTS, NEW, &event).await, 503, "Slack sends it again");
    }
    assert_eq!(relay.metric(&count("main", "rejected", "team")).await, 3.0);
    let warned = log::lines();
    let warned = warned.iter().filter(|line| line["team"] == "T0OTHER").count();
    assert_eq!(warned, 1);
    // Nobody's workspace is nobody's at once.
    assert_eq!(relay.post_to(EVENTS, NEW, &incident_of(2, "T0STRANGER")).await, 200);
    relay.write("other", NEW);
    assert_eq!(relay.post_to(EVENTS, NEW, &event).await, 200);
    relay.settled().await;
    assert_eq!(soar.ids(), [id_of("other", 1)]);

    // Two Slack apps that never have the same secret: their events are refused for a while only.
    let relay = two_files(&soar, NEW, OLD).start().await;
    relay.clock.advance(10 * MINUTE);
    assert_eq!(relay.post_to(EVENTS, NEW, &event).await, 200);
    assert_eq!(relay.metric(&count("main", "ignored", "team")).await, 1.0);
}

#[tokio::test]
async fn an_event_that_names_no_workspace_belongs_to_the_only_app_with_its_secret() {
    let nameless = |n| {
        let mut event = incident(n);
        event.as_object_mut().unwrap().remove("team_id");
        event["authorizations"] = json!([]);
        event.to_string().into_bytes()
    };
    let app = |name: &str, secret: &str, team: &str| {
        format!("    - {{name: {name}, signing_secret: {{env: {secret}}}, team: {team}}}\n")
    };
    let apps = [app("main", "SECRET", "T0MAIN"), app("other", "OTHER_SECRET", "T0OTHER")].concat();
    for (apps, taken) in [
        (app("main", "SECRET", "T0MAIN"), true),
        (apps, true),
        ([app("main", "SECRET", "T0MAIN"), app("other", "SECRET", "T0OTHER")].concat(), false),
    ] {
        let soar = FakeSoar::ok().await;
        let relay = Setup::default().apps(&apps).destination("soar", &soar, "").start().await;
        assert_eq!(relay.post_to(EVENTS, SECRET, &nameless(1)).await, 200);
        relay.settled().await;
        let expected = if taken { vec![slack::id(1)] } else { Vec::new() };
        assert_eq!(soar.ids(), expected, "{apps}");
        let ignored = f64::from(u8::from(!taken));
        assert_eq!(relay.metric(&count("", "ignored", "team")).await, ignored, "{apps}");
    }
}

#[tokio::test]
async fn the_events_of_an_organisation_are_taken_wherever_they_name_it() {
    let apps = "    - {name: main, signing_secret: {env: SECRET}, team: T0MAIN}\n\
                \x20   - {name: other, signing_secret: {env: SECRET}, team: E0ORG}\n";
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().apps(apps).destination("soar", &soar, "").start().await;
    let named = [
        json!({"authorizations": [{"team_id": null, "enterprise_id": "E0ORG",
            "is_enterprise_install": true}]}),
        json!({"authorizations": [{"team_id": "T0SOURCE", "enterprise_id": "E0ORG"}]}),
        json!({"authorizations": [], "context_enterprise_id": "E0ORG"}),
        json!({"authorizations": [], "context_team_id": "T0SOURCE", "enterprise_id": "E0ORG"}),
        json!({"authorizations": null, "enterprise_id": "E0ORG"}),
        json!({"context_team_id": null, "context_enterprise_id": "E0ORG", "enterprise_id": "E0X"}),
        json!({"team_id": null, "enterprise_id": "E0ORG"}),
    ];
    let mut expected = Vec::new();
    for (n, named) in (0..).zip(&named) {
        let mut event = incident(n);
        event["team_id"] = json!("T0SOURCE");
        for (key, value) in named.as_object().unwrap() {
            event[key] = value.clone();
        }
        assert_eq!(relay.post(&event).await, 200, "{named}");
        expected.push(id_of("other", n));
        // The workspace goes first where a body names both.
        event["authorizations"] = json!([{"team_id": "T0MAIN", "enterprise_id": "E0ORG"}]);
        assert_eq!(relay.post(&event).await, 200, "{named}");
        expected.push(id_of("main", n));
    }
    relay.settled().await;
    assert_eq!(sorted(soar.ids()), sorted(expected));
}

async fn signing(relay: &TestRelay, app: usize) -> Value {
    relay.api("GET", "/status").await.1["apps"][app]["signing"].clone()
}

/// The lines of that level with a number of times and an app.
fn said(level: &str, app: &str, key: &str) -> Vec<u64> {
    let lines = log::lines();
    let lines = lines.iter().filter(|line| line["level"] == level && line["app"] == app);
    lines.filter_map(|line| line[key].as_u64()).collect()
}

#[tokio::test]
async fn a_wrong_signing_secret_is_said_once_a_minute_with_a_number_until_one_verifies() {
    log::keep();
    let relay = Setup::default().start().await;
    for seconds in [0, 1, 58, 1, 1] {
        relay.clock.advance(Duration::from_secs(seconds));
        assert_eq!(relay.post_to(EVENTS, "another secret", b"{}").await, 401);
    }
    assert_eq!(said("WARN", "main", "times"), [1, 4]);
    let strangers = [
        vec![],
        slack::signed(SECRET, relay.clock.now() - 10 * MINUTE, b"{}"),
        vec![
            ("X-Slack-Request-Timestamp".to_owned(), relay.clock.now().seconds().to_string()),
            ("X-Slack-Signature".to_owned(), "v0=scanner".to_owned()),
        ],
    ];
    for headers in &strangers {
        assert_eq!(http::post(relay.public(), EVENTS, headers, b"{}").await.status, 401);
    }
    let expected = json!({"last_verified_at": null, "rejected": 5, "strangers": 3});
    assert_eq!(signing(&relay, 0).await, expected);
    assert_eq!(relay.post_bytes(b"{}").await, 200);
    assert_eq!(said("INFO", "main", "before"), [5]);
    let now = relay.clock.now().to_string();
    let expected = json!({"last_verified_at": now, "rejected": 0, "strangers": 3});
    assert_eq!(signing(&relay, 0).await, expected);
    // A stranger who knows the form is not worth a line while Slack's requests verify.
    assert_eq!(relay.post_to(EVENTS, "another secret", b"{}").await, 401);
    assert_eq!(relay.post_bytes(b"{}").await, 200);
    assert_eq!((said("WARN", "main", "times").len(), said("INFO", "main", "before").len()), (2, 1));
    // The secret is replaced at Slack.
    relay.clock.advance(2 * MINUTE);
    assert_eq!(relay.post_to(EVENTS, "another secret", b"{}").await, 401);
    assert_eq!(said("WARN", "main", "times"), [1, 4, 1]);
    assert_eq!(signing(&relay, 0).await["rejected"], 1);
}

#[tokio::test]
async fn what_is_known_of_signatures_survives_a_reload() {
    let mut relay = Setup::default().start().await;
    assert_eq!(relay.post_to(EVENTS, "another secret", b"{}").await, 401);
    relay
        .reload(|yaml| yaml.replace("channels: [C0123456789]", "channels: [C0123456780]"))
        .await
        .unwrap();
    assert_eq!(signing(&relay, 0).await["rejected"], 1);
    assert_eq!(relay.post_bytes(b"{}").await, 200);
    assert_eq!(signing(&relay, 0).await["rejected"], 0);
}

#[tokio::test]
async fn on_a_shared_path_the_app_that_never_verifies_is_seen() {
    log::keep();
    let apps = "    - {name: main, signing_secret: {env: SECRET}}\n\
                \x20   - {name: other, signing_secret: {env: OTHER_SECRET}}\n";
    let relay = Setup::default().apps(apps).start().await;
    for _ in 0..3 {
        assert_eq!(relay.post_bytes(b"{}").await, 200);
        assert_eq!(relay.post_to(EVENTS, "a third secret", b"{}").await, 401);
    }
    assert_eq!(relay.post_bytes(b"{}").await, 200);
    assert_eq!((said("WARN", "main", "times"), said("WARN", "other", "times")), (vec![], vec![1]));
    assert_eq!(signing(&relay, 0).await["rejected"], 0);
    assert_eq!(signing(&relay, 1).await["rejected"], 3);
}

#[tokio::test]
async fn an_unknown_path_is_said_once_a_minute_and_shown_escaped() {
    log::keep();
    let relay = Setup::default().start().await;
    let paths = ["/slack/events/nob\u{f6}dy\u{202e}", "/slack/events/", "/slack/event", "/"];
    for path in paths {
        assert_eq!(relay.post_to(path, SECRET, b"{}").await, 404, "{path}");
    }
    // Nobody looks for this one but scanners.
    assert_eq!(http::post(relay.public(), "/wp-login.php", &[], b"").await.status, 404);
    assert_eq!(relay.metric(&count("", "rejected", "")).await, 4.0);
    let lines = log::lines();
    let shown: Vec<&str> = lines.iter().filter_map(|line| line["path"].as_str()).collect();
    assert_eq!(shown, [r"/slack/events/nob\u{f6}dy\u{202e}"]);
}

#[tokio::test]
async fn an_authentic_body_that_cannot_be_read_is_said_once_a_minute_with_a_number() {
    log::keep();
    let relay = Setup::default().start().await;
    for n in 0..5 {
        assert_eq!(relay.post_bytes(format!("payload={n}").as_bytes()).await, 200);
    }
    assert_eq!(said("WARN", "main", "bytes"), [9]);
    assert_eq!(relay.metric(&count("main", "ignored", "unparsable")).await, 5.0);
}

#[tokio::test]
async fn an_alert_whose_peer_is_gone_before_the_commit_is_counted_and_in_the_log() {
    log::keep();
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let db = rusqlite::Connection::open(relay.dir().join("relay.db")).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let body = incident(1).to_string();
    let headers = slack::signed(SECRET, relay.clock.now(), body.as_bytes());
    let mut head = format!("POST {EVENTS} HTTP/1.1\r\nHost: relay\r\n");
    for (name, value) in &headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    let mut peer = TcpStream::connect(relay.public()).unwrap();
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    peer.write_all(request.as_bytes()).unwrap();
    let received = r#"events_received_total{app="main",source="push"}"#;
    relay.metric_is(received, |count| count == 1.0).await;
    drop(peer);
    // The relay has turned to its connections several times since.
    for _ in 0..5 {
        assert_eq!(http::get(relay.public(), "/healthz").await.status, 200);
    }
    db.execute_batch("ROLLBACK").unwrap();
    relay.metric_is(&count("main", "accepted", ""), |count| count == 1.0).await;
    let lines = log::lines();
    let accepted = lines.iter().filter(|line| line["alert_id"] == slack::id(1));
    assert_eq!(accepted.filter(|line| line["outcome"] == "accepted").count(), 1);
    relay.settled().await;
    assert_eq!(soar.ids(), [slack::id(1)]);
}

#[tokio::test]
async fn what_cannot_be_read_of_an_alert_is_counted_once() {
    const PROBLEMS: [&str; 10] = [
        "layout",
        "too_many",
        "ts",
        "severity_missing",
        "severity_unknown",
        "script_missing",
        "script_url",
        "host_missing",
        "deep_link_missing",
        "text_missing",
    ];
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let series =
        |problem: &str| format!(r#"parse_problems_total{{app="main",problem="{problem}"}}"#);
    let text = http::get(relay.relay().ops, "/metrics").await.text();
    for problem in PROBLEMS {
        let line = format!("slack_soar_relay_{} 0\n", series(problem));
        assert!(text.contains(&line), "{problem}: {text}");
    }
    let mut odd = message(1);
    odd["attachments"] = json!([
        {"title": slack::TITLE, "text": "x"},
        slack::attachment(),
        {"title": slack::TITLE, "text": "x", "fields": [{"title": "Risk Level", "value": "Odd"}]},
    ]);
    for _ in 0..3 {
        assert_eq!(relay.post(&slack::event(&odd)).await, 200);
    }
    let mut edit = json!({"type": "message", "subtype": "message_changed", "hidden": true,
        "channel": "C0123456789", "ts": "1600689999.000100", "message": odd});
    edit["message"]["text"] = json!("edited");
    assert_eq!(relay.post(&slack::event(&edit)).await, 200);
    relay.settled().await;
    let mut shown: Vec<(String, u32)> = Vec::new();
    for alert in soar.received() {
        for problem in alert.body["parse_problems"].as_array().unwrap() {
            let problem = problem.as_str().unwrap().to_owned();
            match shown.iter_mut().find(|(known, _)| *known == problem) {
                Some((_, times)) => *times += 1,
                None => shown.push((problem, 1)),
            }
        }
    }
    assert_eq!(soar.ids().len(), 3);
    assert!(shown.contains(&("script_missing".to_owned(), 2)), "{shown:?}");
    assert!(shown.contains(&("severity_unknown".to_owned(), 1)), "{shown:?}");
    for problem in PROBLEMS {
        let times = shown.iter().find(|(known, _)| known == problem).map_or(0, |(_, times)| *times);
        assert_eq!(relay.metric(&series(problem)).await, f64::from(times), "{problem}");
    }
}
