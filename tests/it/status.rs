//! The output of `status`, `destinations`, `alerts show` and `doctor`, as the real binary, beside a
//! relay in each state.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};
use slack_soar_relay::clock::{Clock, STEADY_AFTER};

use crate::harness::{
    PATIENCE, SECRET, Setup, TestRelay,
    fake_slack::{CHANNEL, FakeSlack, TOKEN},
    http, log,
    slack::{self, id, incident},
    soar::{FakeSoar, Mood},
};

/// Runs the binary on a thread of its own: the relay and the fakes live on this one.
pub(crate) async fn run(arguments: &[&str], dir: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slack-soar-relay"));
    command.args(arguments).current_dir(dir).env_remove("RELAY_CONFIG");
    command.env("SECRET", SECRET).env("TOKEN", TOKEN);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs a command that talks to the relay.
pub(crate) async fn ask(relay: &TestRelay, arguments: &[&str]) -> (i32, String, String) {
    let server = format!("http://{}", relay.relay().ops);
    run(&[arguments, &["--server", &server]].concat(), relay.dir()).await
}

/// Returns the output of `status` and its exit code. Every line fits a terminal of 80 columns,
/// unless it is one word.
async fn status(relay: &TestRelay) -> (i32, String) {
    let (code, out, err) = ask(relay, &["status"]).await;
    assert_eq!(err, "", "{out}");
    for line in out.lines() {
        assert!(line.chars().count() <= 80, "{line:?} in\n{out}");
    }
    assert!(out.lines().count() <= 40, "{out}");
    (code, out)
}

/// The doctor beside the relay. The rest of its configuration is of no concern here.
pub(crate) async fn doctor(relay: &TestRelay) -> (i32, String) {
    doctor_of(relay.relay().ops, relay.dir()).await
}

/// The doctor beside the relay with that ops listener, from a folder of its own.
pub(crate) async fn doctor_of(ops: SocketAddr, dir: &Path) -> (i32, String) {
    let slack = FakeSlack::new(Clock::system()).await;
    let yaml = format!(
        "server: {{ops_listen: '{ops}'}}\nslack: {{api_url: '{}', apps: [{{name: main, \
         signing_secret: {{env: SECRET}}}}]}}\nstore: {{sqlite: {{path: elsewhere.db}}}}\n",
        slack.api_url()
    );
    std::fs::write(dir.join("doctor.yaml"), yaml).unwrap();
    let (code, out, _) = run(&["doctor", "--config", "doctor.yaml"], dir).await;
    (code, out)
}

/// Waits until the status has a concern of this kind; returns it.
pub(crate) async fn concern(relay: &TestRelay, kind: &str) -> Value {
    let found = async {
        loop {
            let (_, status) = relay.api("GET", "/status").await;
            let concerns = status["concerns"].as_array().unwrap();
            if let Some(found) = concerns.iter().find(|concern| concern["kind"] == kind) {
                return found.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_late| panic!("{kind}"))
}

/// The concern is in `status`, which then fails, and in `doctor`, which fails if a person is
/// needed.
pub(crate) async fn is_said_everywhere(relay: &TestRelay, kind: &str, words: &[&str]) {
    let concern = concern(relay, kind).await;
    let needs_person = concern["needs_person"].as_bool().unwrap();
    let (code, out) = status(relay).await;
    let flat = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(code == 1, needs_person, "{kind}: {out}");
    let (code, said) = doctor(relay).await;
    assert_eq!(code == 1, needs_person, "{kind}: {said}");
    let level = if needs_person { "FAIL" } else { "warn" };
    let line = said
        .lines()
        .find(|line| line.starts_with(level) && words.iter().all(|word| line.contains(word)));
    assert!(line.is_some(), "{words:?} not in\n{said}");
    for word in words {
        assert!(flat.contains(word), "{word} not in\n{out}");
    }
}

#[tokio::test]
async fn a_healthy_relay_is_ok_on_one_screen_and_exits_0() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    relay.settled().await;
    let (code, out) = status(&relay).await;
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("ok "), "{out}");
    assert!(out.contains("soar "), "{out}");
    let (code, out, _) = ask(&relay, &["status", "--json"]).await;
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["healthy"], &json["concerns"]), (0, &json!(true), &json!([])));
    let (code, out) = doctor(&relay).await;
    assert_eq!(code, 0, "{out}");
}

#[tokio::test]
async fn a_relay_that_is_down_is_said_to_be_and_every_command_exits_1() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["destinations", "list"],
        &["destinations", "pause", "soar", "--for", "2h"],
        &["destinations", "resume", "soar"],
        &["destinations", "test", "soar"],
    ] {
        let arguments = [command, &["--server", &server]].concat();
        let (code, out, err) = run(&arguments, dir.path()).await;
        assert_eq!((code, out.as_str()), (1, ""), "{command:?} {err}");
        assert!(err.contains("no relay answers at") && err.contains("is it running"), "{err}");
    }
}

#[tokio::test]
async fn an_open_breaker_is_said_with_the_next_try_and_the_last_answer() {
    log::keep();
    let soar = FakeSoar::new([Mood::Body(503, "down for maintenance".to_owned())]).await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    assert_eq!(relay.post(&incident(2)).await, 200);
    let opens = async { concern(&relay, "breaker_open").await };
    relay.time_passes_until(Duration::from_secs(1), opens).await;
    let (code, out) = status(&relay).await;
    assert_eq!(code, 1, "{out}");
    let words = ["soar", "its breaker is open", "2 alerts wait", "503", "down for maintenance"];
    is_said_everywhere(&relay, "breaker_open", &words).await;
    let (_, shown, _) = ask(&relay, &["alerts", "show", &id(2)]).await;
    assert!(shown.contains("the breaker has been open for"), "{shown}");
    assert!(shown.contains("next attempt"), "{shown}");
    assert!(!shown.contains("due now"), "{shown}");
    let (_, alert) = relay.api("GET", &format!("/alerts/{}", id(2))).await;
    let waiting = &alert["deliveries"][0]["waiting"];
    let (_, status) = relay.api("GET", "/status").await;
    let breaker = &status["destinations"][0]["breaker"];
    assert_eq!(waiting["kind"], "breaker");
    assert_eq!(waiting["next_try_at"], breaker["next_try_at"]);
    soar.becomes(Mood::Status(200));
    assert_eq!(relay.api("POST", &format!("/alerts/{}/retry", id(1))).await.0, 200);
    relay.settled().await;
    let said = |words: &str| {
        log::lines().iter().any(|line| line["message"].as_str().unwrap().contains(words))
    };
    assert!(said("soar failed several times in a row"), "the opening is logged");
    assert!(said("soar works again after"), "the closing is logged");
}

#[tokio::test]
async fn an_open_breaker_is_said_with_what_the_last_answer_asks_of_a_person() {
    for (mood, advice) in [
        (Mood::Status(401), "token or password is not accepted"),
        (Mood::Status(404), "there is nothing at that address"),
        (Mood::Status(500), "see to its log or its operator"),
        (Mood::Reset, "tries the way to it"),
    ] {
        let soar = FakeSoar::new([mood]).await;
        let relay = Setup::default().destination("soar", &soar, "").start().await;
        assert_eq!(relay.post(&incident(1)).await, 200);
        let opens = async { concern(&relay, "breaker_open").await };
        relay.time_passes_until(Duration::from_secs(1), opens).await;
        let words = ["soar", advice, "`slack-soar-relay destinations test soar` tries it now"];
        is_said_everywhere(&relay, "breaker_open", &words).await;
    }
}

#[tokio::test]
async fn a_pause_with_an_end_is_shown_everywhere_and_ends_by_itself() {
    log::keep();
    let soar = FakeSoar::ok().await;
    let mut relay = Setup::default().destination("soar", &soar, "").start().await;
    let body = br#"{"for": "2h", "reason": "the SOAR moves house"}"#;
    let headers = [("Host", "localhost"), ("Content-Type", "application/json")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let path = "/api/v1/destinations/soar/pause";
    let answer = http::request(relay.relay().ops, "POST", path, &headers, body).await;
    let pause = json!({
        "since": "2020-09-21T12:05:50.000Z", "until": "2020-09-21T14:05:50.000Z",
        "reason": "the SOAR moves house",
    });
    let state: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(state, json!({"destination": "soar", "paused": true, "pause": pause}));
    assert_eq!(relay.post(&incident(1)).await, 200);
    let words = ["soar", "paused", "the SOAR moves house", "1 alert waits", "destinations resume"];
    is_said_everywhere(&relay, "paused", &words).await;
    let (_, out, _) = ask(&relay, &["destinations", "list"]).await;
    assert!(out.contains("paused") && out.contains("the SOAR moves house"), "{out}");
    let (_, shown, _) = ask(&relay, &["alerts", "show", &id(1)]).await;
    assert!(shown.contains("an operator has paused its destination (the SOAR moves house)"));
    assert!(shown.contains("next attempt") && !shown.contains("due now"), "{shown}");
    let (_, alert) = relay.api("GET", &format!("/alerts/{}", id(1))).await;
    let waiting = &alert["deliveries"][0]["waiting"];
    assert_eq!((&waiting["kind"], &waiting["next_try_at"]), (&json!("pause"), &pause["until"]));
    relay.stop().await;
    relay.restart().await;
    assert_eq!(relay.api("GET", "/status").await.1["destinations"][0]["pause"], pause);
    assert!(soar.received().is_empty());
    // The clock is believed once it has kept step for some minutes.
    let ends =
        async { while relay.api("GET", "/status").await.1["destinations"][0]["paused"] == true {} };
    relay.time_passes_until(STEADY_AFTER / 5, ends).await;
    relay.settled().await;
    assert_eq!(soar.taken(), [id(1)]);
    let (_, status) = relay.api("GET", "/status").await;
    assert_eq!(status["destinations"][0]["pause"], Value::Null);
    let lines = log::lines();
    let said = |words: &[&str]| {
        let is_it = |line: &Value| {
            words.iter().all(|word| line["message"].as_str().unwrap().contains(word))
        };
        lines.iter().any(is_it)
    };
    assert!(said(&["pause destination soar for 7200 s (the SOAR moves house)"]));
    assert!(said(&["the pause of soar has ended"]));
}

#[tokio::test]
async fn destinations_are_listed_paused_resumed_and_tested_from_the_command_line() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let pause = ["destinations", "pause", "soar", "--for", "30m", "--reason", "upgrade"];
    let (code, out, err) = ask(&relay, &pause).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(out, "soar is paused (upgrade) for 1s, then it resumes by itself.\n", "of 2020");
    let (code, out, _) = ask(&relay, &["destinations", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &listed["destinations"][0]["pause"]["reason"]), (0, &json!("upgrade")));
    let (code, out, _) = ask(&relay, &["destinations", "pause", "soar", "--json"]).await;
    let state: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &state["pause"]["until"]), (0, &Value::Null), "the newest pause counts");
    let (code, out, _) = ask(&relay, &["destinations", "resume", "soar"]).await;
    assert_eq!((code, out.as_str()), (0, "soar is sent to again.\n"));
    let (code, out, _) = ask(&relay, &["destinations", "test", "soar"]).await;
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("soar: delivered, status 200"), "{out}");
    soar.becomes(Mood::Status(401));
    let (code, out, _) = ask(&relay, &["destinations", "test", "soar", "--json"]).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["status"], &report["delivered"]), (1, &json!(401), &json!(false)));
    for bad in ["0s", "2", "soon"] {
        let (code, _, err) = ask(&relay, &["destinations", "pause", "soar", "--for", bad]).await;
        assert_eq!(code, 2, "{err}");
        let (status, problem) =
            relay.api("POST", &format!("/destinations/soar/pause?for={bad}")).await;
        assert_eq!(status, 400, "{problem}");
    }
    for verb in ["pause", "resume", "test"] {
        let (code, out, err) = ask(&relay, &["destinations", verb, "nobody"]).await;
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains("there is no destination `nobody`"), "{err}");
    }
}

#[tokio::test]
async fn dead_and_refused_alerts_are_said_with_the_command_that_helps() {
    let soar = FakeSoar::new([Mood::Body(400, "unknown field".to_owned())]).await;
    let relay = Setup::default().destination("soar", &soar, "retry: {max_age: 1h}").start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    let refused = async { concern(&relay, "refused").await };
    relay.time_passes_until(Duration::from_secs(1), refused).await;
    let words = ["soar", "refuses 1 alert", "400", "unknown field", "alerts list --state refused"];
    is_said_everywhere(&relay, "refused", &words).await;
    let (_, alert) = relay.api("GET", &format!("/alerts/{}", id(1))).await;
    assert_eq!(alert["deliveries"][0]["waiting"]["kind"], "refused");
    let dead = async { concern(&relay, "dead").await };
    relay.time_passes_until(Duration::from_secs(20), dead).await;
    let words = ["soar", "given up: 1 alert", "alerts retry --all-dead --destination soar"];
    is_said_everywhere(&relay, "dead", &words).await;
    let (_, alert) = relay.api("GET", &format!("/alerts/{}", id(1))).await;
    assert_eq!(alert["deliveries"][0]["waiting"]["kind"], "dead");
}

#[tokio::test]
async fn orphaned_and_unrouted_alerts_are_said_with_the_command_that_helps() {
    let soar = FakeSoar::new([Mood::Status(503)]).await;
    let setup = Setup::default().destination("soar", &soar, "when: {min_severity: critical}");
    let mut relay = setup.start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    let words = ["no destination wanted 1 alert", "alerts retry --all-unrouted"];
    is_said_everywhere(&relay, "unrouted", &words).await;
    let mut critical = slack::message(2);
    critical["attachments"][0]["fields"][1]["value"] = json!("Critical");
    assert_eq!(relay.post(&slack::event(&critical)).await, 200);
    soar.has_received(1).await;
    relay.stop().await;
    relay.rename_destination("soar", "other");
    relay.restart().await;
    let words = ["soar", "not configured any more", "1 alert waits", "cancel --all-pending"];
    is_said_everywhere(&relay, "orphaned", &words).await;
    let (_, shown, _) = ask(&relay, &["alerts", "show", &id(2)]).await;
    assert!(shown.contains("its destination is not configured any more"), "{shown}");
}

#[tokio::test]
async fn a_refused_configuration_is_said_with_its_reason() {
    let soar = FakeSoar::ok().await;
    let mut relay = Setup::default().destination("soar", &soar, "").start().await;
    let refused = relay.reload(|yaml| yaml.replace("preset: webhook", "preset: webhok")).await;
    assert!(refused.is_err());
    let words = ["newest configuration was refused", "webhok", "slack-soar-relay check"];
    is_said_everywhere(&relay, "configuration", &words).await;
}

#[tokio::test]
async fn a_reload_says_what_it_changed_of_apps_and_destinations() {
    log::keep();
    let soar = FakeSoar::ok().await;
    let mut relay = Setup::default().destination("soar", &soar, "").start().await;
    let change = |yaml: &str| {
        yaml.replace(
            "channels: [C0123456789]}",
            "channels: [C0123456789, C0000000002]}\n    - \
            {name: second, signing_secret: {env: OTHER_SECRET}}",
        ) + "retention: {dead: 10d}\n"
    };
    relay.reload(change).await.unwrap();
    let lines = log::lines();
    let line = lines.iter().find(|line| line["keys"] == "retention").expect("it is not logged");
    let message = line["message"].as_str().unwrap();
    let words = "app second added, app main changed, retention changed";
    assert!(message.ends_with(words), "{message}");
    assert_eq!((&line["level"], &line["apps_added"]), (&json!("INFO"), &json!("second")));
}

#[tokio::test]
async fn catch_up_that_cannot_read_and_pushes_that_are_missed_are_said() {
    let slack = FakeSlack::new(Clock::manual(crate::harness::BEGIN)).await;
    let soar = FakeSoar::ok().await;
    let setup = Setup::default().destination("soar", &soar, "");
    let relay = setup.catch_up(&slack, &format!("[{CHANNEL}]")).start().await;
    relay.caught_up().await;
    slack.state().post_incident(CHANNEL);
    let missed = async { concern(&relay, "missed_push").await };
    relay.time_passes_until(Duration::from_secs(15), missed).await;
    let words = ["app main", "did not push 1 incidents", "Event Subscriptions"];
    is_said_everywhere(&relay, "missed_push", &words).await;
    slack.revoke(Some("token_revoked"));
    let fails = async { concern(&relay, "catch_up").await };
    relay.time_passes_until(Duration::from_secs(15), fails).await;
    let words = ["app main", "history is not read", "token_revoked", "slack-soar-relay doctor"];
    is_said_everywhere(&relay, "catch_up", &words).await;
}

#[tokio::test]
async fn a_test_of_the_way_to_the_soar_is_no_push() {
    let soar = FakeSoar::ok().await;
    let relay = Setup::default().destination("soar", &soar, "").start().await;
    let (public, server) = (relay.public(), format!("http://{}", relay.relay().ops));
    let yaml = "slack: {apps: [{name: main, signing_secret: {env: SECRET}, channels: \
                [C0123456789]}]}\ndestinations: []\n";
    std::fs::write(relay.dir().join("sender.yaml"), yaml).unwrap();
    let body = slack::event(&slack::message(1)).to_string();
    let mut headers = slack::signed(SECRET, relay.clock.now(), body.as_bytes());
    headers.push(("X-Slack-Soar-Relay-Test".to_owned(), "1".to_owned()));
    let answer = http::post(public, "/slack/events", &headers, body.as_bytes()).await;
    assert_eq!((answer.status, server.is_empty()), (200, false));
    relay.settled().await;
    let received = async |source: &str| {
        let series = format!(r#"events_received_total{{app="main",source="{source}"}}"#);
        relay.metric(&series).await
    };
    assert_eq!((received("push").await, received("test").await), (0.0, 1.0));
    let (_, status) = relay.api("GET", "/status").await;
    assert_eq!(status["apps"][0]["signing"]["last_verified_at"], Value::Null, "nor by Slack");
    let (_, out) = doctor(&relay).await;
    assert!(out.contains("pushes to main: no verified request since the start"), "{out}");
}
