//! Messages of many kinds, through the real binary: what becomes of each is counted, logged and
//! shown, and nothing that has our title is left out in silence.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use slack_soar_relay::clock::Clock;

use crate::{
    harness::{
        SECRET,
        fake_slack::TOKEN,
        http,
        slack::{self, TITLE},
        soar::FakeSoar,
    },
    process::{Process, command},
};

pub(crate) const CHANNEL: &str = "C0123456789";
const CONSOLE: &str = "https://console.humansecurity.com/codeDefender/analyzer/script/7?from=slack";
const OTHER_SECRET: &str = "another-signing-secret";

/// A relay with one app that takes incidents of every bot, and one that takes those of one app.
pub(crate) struct Relay {
    pub(crate) process: Process,
    pub(crate) dir: tempfile::TempDir,
    _soar: FakeSoar,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let apps = format!(
            "  apps:\n\
             \x20 - {{name: main, signing_secret: {{env: SECRET}}, channels: [{CHANNEL}]}}\n\
             \x20 - {{name: listed, signing_secret: {{env: OTHER}}, channels: [{CHANNEL}], \
             bots: [A0VENDOR]}}\n"
        );
        Self::with(&apps, "low").await
    }

    /// A relay with that YAML below `slack`, and a destination of alerts from that severity on.
    pub(crate) async fn with(slack: &str, min_severity: &str) -> Self {
        let soar = FakeSoar::new([]).await;
        let dir = tempfile::tempdir().unwrap();
        let yaml = format!(
            "server: {{listen: 127.0.0.1:0, ops_listen: 127.0.0.1:0, drain_delay: 0s}}\n\
             slack:\n{slack}destinations:\n  - {{name: soar, preset: webhook, url: {{env: URL}}, \
             when: {{min_severity: {min_severity}}}}}\n"
        );
        std::fs::write(dir.path().join("relay.yaml"), yaml).unwrap();
        std::fs::write(dir.path().join("secret"), SECRET).unwrap();
        std::fs::write(dir.path().join("other"), OTHER_SECRET).unwrap();
        let mut debug = command();
        debug.args(["--log-level", "info,slack_soar_relay=debug"]);
        let env =
            [("OTHER", OTHER_SECRET.to_owned()), ("TOKEN", TOKEN.to_owned()), ("URL", soar.url())];
        let env = env.map(|(name, value)| (name.to_owned(), value));
        let process = Process::start_by(debug, dir.path(), &env);
        Self { process, dir, _soar: soar }
    }

    pub(crate) async fn post(&self, app: &str, body: &[u8]) -> u16 {
        let secret = if app == "main" { SECRET } else { OTHER_SECRET };
        let headers = slack::signed(secret, Clock::system().now(), body);
        let path = format!("/slack/events/{app}");
        http::post(self.process.public, &path, &headers, body).await.status
    }

    pub(crate) async fn post_message(&self, app: &str, inner: &Value) {
        let body = slack::event(inner).to_string();
        assert_eq!(self.post(app, body.as_bytes()).await, 200, "{inner:#}");
    }

    pub(crate) async fn api(&self, method: &str, path: &str) -> (u16, Value) {
        let headers = [
            ("Host".to_owned(), "localhost".to_owned()),
            ("Content-Type".to_owned(), "application/json".to_owned()),
        ];
        let path = format!("/api/v1{path}");
        let answer = http::request(self.process.ops, method, &path, &headers, b"").await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    /// Every series of `events_total` that is not 0.
    pub(crate) async fn events(&self) -> BTreeMap<String, u64> {
        let text = http::get(self.process.ops, "/metrics").await.text();
        let series = text.lines().filter_map(|line| {
            let line = line.strip_prefix("slack_soar_relay_events_total{")?;
            let (labels, value) = line.split_once("} ")?;
            Some((labels.to_owned(), value.parse::<u64>().unwrap()))
        });
        series.filter(|(_, value)| *value > 0).collect()
    }

    /// Runs a command against it; gives back exit code and standard output.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = command()
            .args(arguments)
            .arg("--config")
            .arg(self.dir.path().join("relay.yaml"))
            .envs([("OTHER", OTHER_SECRET), ("URL", "http://127.0.0.1:9/")])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

/// A post by the vendor's bot, the `n`th of a test.
pub(crate) fn post(n: usize, rest: Value) -> Value {
    let mut message = json!({
        "type": "message", "channel": CHANNEL, "channel_type": "channel", "text": "",
        "bot_id": "B0RELAYBOT1", "ts": ts(n), "event_ts": ts(n),
    });
    let Value::Object(rest) = rest else { panic!("an object") };
    for (key, value) in rest {
        message[key] = value;
    }
    message
}

pub(crate) fn ts(n: usize) -> String {
    format!("1795939{:03}.{:06}", n / 1000, n % 1000 + 1)
}

pub(crate) fn blocks() -> Value {
    let cell = |text: &str| json!({"type": "mrkdwn", "text": text});
    json!([
        {"type": "header", "text": {"type": "plain_text", "text": TITLE}},
        {"type": "section", "text": {"type": "mrkdwn", "text": "PII Harvesting"}},
        {"type": "section", "fields": [
            cell("*Script*\n`<https://cdn.evil.example/pay.js>`"),
            cell("*Risk Level*\nHigh"),
            cell("*Host Domain*\n<http://shop.example|shop.example>"),
        ]},
        {"type": "actions", "elements": [{"type": "button", "action_id": "a", "url": CONSOLE,
            "text": {"type": "plain_text", "text": "View in Console"}}]},
    ])
}

pub(crate) fn known() -> Value {
    json!([slack::attachment()])
}

/// A kind of message: its name, the app that it is posted to, the message, and what it must come
/// to: outcome and reason in the counters, and the level in the log.
type Kind = (&'static str, &'static str, Value, [&'static str; 3]);

const ACCEPTED: [&str; 3] = ["accepted", "", "INFO"];
const NEAR_MISS: [&str; 3] = ["ignored", "near_miss", "WARN"];

fn ignored(reason: &'static str) -> [&'static str; 3] {
    ["ignored", reason, "DEBUG"]
}

#[expect(clippy::too_many_lines, reason = "a list of forty messages")]
fn kinds() -> Vec<Kind> {
    let without_bot = |mut message: Value| {
        message.as_object_mut().unwrap().remove("bot_id");
        message
    };
    let by_soar = |mut message: Value| {
        message["bot_id"] = "B0SOARBOT1".into();
        message
    };
    let talk = format!("New case 4711: {TITLE} <{CONSOLE}|View in Console>");
    let rich = json!([{"type": "rich_text", "elements": [
        {"type": "rich_text_section", "elements": [
            {"type": "emoji", "name": "rotating_light"},
            {"type": "text", "text": "Code Defender", "style": {"bold": true}},
            {"type": "text", "text": " has detected a new incident\n"},
            {"type": "link", "url": CONSOLE, "text": "View in Console"}]}]}]);
    let quote = json!([{"type": "rich_text", "elements": [
        {"type": "rich_text_quote", "elements": [{"type": "text", "text": TITLE}]}]}]);
    let edit = json!({"type": "message", "subtype": "message_changed", "hidden": true,
        "channel": CHANNEL, "ts": ts(900), "event_ts": ts(900),
        "message": post(10, json!({"attachments": known(), "edited": {"ts": ts(900)}}))});
    let mut known_edit = edit.clone();
    known_edit["message"]["ts"] = ts(1).into();
    let link = |rest: Value| {
        let mut attachment =
            json!({"actions": [{"type": "button", "text": "Open", "url": CONSOLE}]});
        for (key, value) in rest.as_object().unwrap() {
            attachment[key] = value.clone();
        }
        json!([attachment])
    };
    let unfurl = json!([{"title": TITLE, "from_url": "https://evil.example/x"}]);
    vec![
        (
            "classic app",
            "main",
            post(1, json!({"subtype": "bot_message", "attachments": known()})),
            ACCEPTED,
        ),
        (
            "sent twice",
            "main",
            post(1, json!({"subtype": "bot_message", "attachments": known()})),
            ["duplicate", "", "DEBUG"],
        ),
        ("edited", "main", known_edit, ["ignored", "known_edit", "INFO"]),
        ("edit of an unknown one", "main", edit, ACCEPTED),
        (
            "current app",
            "main",
            post(2, json!({"app_id": "A1", "user": "U1", "attachments": known()})),
            ACCEPTED,
        ),
        (
            "file_share",
            "main",
            post(3, json!({"subtype": "file_share", "attachments": known()})),
            ACCEPTED,
        ),
        (
            "me_message",
            "main",
            post(4, json!({"subtype": "me_message", "attachments": known()})),
            ACCEPTED,
        ),
        (
            "reply_broadcast",
            "main",
            post(5, json!({"subtype": "reply_broadcast", "attachments": known()})),
            ACCEPTED,
        ),
        (
            "unknown subtype",
            "main",
            post(6, json!({"subtype": "bot_message_v9", "attachments": known()})),
            ACCEPTED,
        ),
        (
            "profile only",
            "main",
            without_bot(post(
                7,
                json!({"bot_profile": {"id": "B0RELAYBOT1", "app_id": "A1"},
                    "attachments": known()}),
            )),
            ACCEPTED,
        ),
        (
            "subtype only",
            "main",
            without_bot(post(
                8,
                json!({"subtype": "bot_message", "username": "HUMAN", "attachments": known()}),
            )),
            ACCEPTED,
        ),
        (
            "the listed app in the profile",
            "listed",
            post(
                9,
                json!({"bot_profile": {"id": "B0RELAYBOT1", "app_id": "A0VENDOR"},
                    "attachments": known()}),
            ),
            ACCEPTED,
        ),
        (
            "blocks of the listed app",
            "listed",
            post(11, json!({"app_id": "A0VENDOR", "blocks": blocks()})),
            ACCEPTED,
        ),
        (
            "a bot that is not listed",
            "listed",
            post(12, json!({"attachments": known()})),
            ignored("bot_not_allowed"),
        ),
        (
            "blocks of a bot that is not listed",
            "listed",
            post(13, json!({"blocks": blocks()})),
            NEAR_MISS,
        ),
        (
            "blocks by another bot",
            "main",
            by_soar(post(14, json!({"blocks": blocks()}))),
            NEAR_MISS,
        ),
        (
            "a case announced in a thread",
            "main",
            by_soar(post(15, json!({"thread_ts": ts(1), "text": talk}))),
            NEAR_MISS,
        ),
        (
            "a case announced in the channel",
            "main",
            by_soar(post(16, json!({"text": talk}))),
            NEAR_MISS,
        ),
        (
            "another title",
            "main",
            post(
                17,
                json!({"attachments": link(json!({"title": "Client-side Defense: finding"}))}),
            ),
            NEAR_MISS,
        ),
        (
            "a console link in a text",
            "main",
            post(18, json!({"text": format!("see {CONSOLE}")})),
            NEAR_MISS,
        ),
        ("nothing but the title", "main", post(19, json!({"text": TITLE})), NEAR_MISS),
        ("a quoted title", "main", post(20, json!({"blocks": quote})), NEAR_MISS),
        (
            "a reply in the new layout",
            "main",
            post(21, json!({"thread_ts": ts(1), "blocks": blocks()})),
            NEAR_MISS,
        ),
        (
            "a broadcast reply in the new layout",
            "main",
            post(
                22,
                json!({"subtype": "thread_broadcast", "thread_ts": ts(1), "root": {"text": "x"},
                    "blocks": blocks()}),
            ),
            NEAR_MISS,
        ),
        (
            "a person",
            "main",
            without_bot(post(23, json!({"user": "U1", "attachments": known()}))),
            ignored("no_bot"),
        ),
        (
            "a person with blocks",
            "main",
            without_bot(post(24, json!({"user": "U1", "blocks": blocks()}))),
            ignored("no_bot"),
        ),
        (
            "an unfurled page",
            "main",
            without_bot(post(25, json!({"user": "U1", "attachments": unfurl}))),
            ignored("unfurl"),
        ),
        (
            "another channel",
            "main",
            post(26, json!({"channel": "C0MISTYPED", "attachments": known()})),
            ignored("channel"),
        ),
        (
            "blocks in another channel",
            "main",
            post(27, json!({"channel": "C0MISTYPED", "blocks": blocks()})),
            ignored("channel"),
        ),
        (
            "chatter in another channel",
            "main",
            post(28, json!({"channel": "C0LUNCH", "text": "pizza?"})),
            ignored("channel"),
        ),
        (
            "chatter",
            "main",
            without_bot(post(29, json!({"user": "U1", "text": "good morning"}))),
            ignored("title"),
        ),
        (
            "a build",
            "main",
            post(30, json!({"attachments": [{"title": "Build passed"}]})),
            ignored("title"),
        ),
        (
            "a topic",
            "main",
            post(31, json!({"subtype": "channel_topic", "topic": TITLE, "text": TITLE})),
            ignored("subtype"),
        ),
        (
            "a join",
            "main",
            post(32, json!({"subtype": "channel_join", "text": "joined"})),
            ignored("subtype"),
        ),
        (
            "a deletion",
            "main",
            post(
                33,
                json!({"subtype": "message_deleted", "deleted_ts": ts(1),
                    "previous_message": {"attachments": known()}}),
            ),
            ignored("subtype"),
        ),
        (
            "a tombstone",
            "main",
            post(34, json!({"subtype": "tombstone", "text": TITLE})),
            ignored("subtype"),
        ),
        ("blocks", "main", post(35, json!({"text": TITLE, "blocks": blocks()})), ACCEPTED),
        (
            "blocks in an attachment",
            "main",
            post(36, json!({"attachments": [{"color": "#f00", "blocks": blocks()}]})),
            ACCEPTED,
        ),
        ("rich text", "main", post(37, json!({"blocks": rich})), ACCEPTED),
        (
            "the title in a fallback",
            "main",
            post(38, json!({"attachments": link(json!({"fallback": TITLE, "text": "PII"}))})),
            ACCEPTED,
        ),
        (
            "the title as author",
            "main",
            post(39, json!({"attachments": link(json!({"author_name": TITLE}))})),
            ACCEPTED,
        ),
        (
            "the title as footer",
            "main",
            post(40, json!({"attachments": link(json!({"footer": format!("*{TITLE}*")}))})),
            ACCEPTED,
        ),
        (
            "nothing but a text",
            "main",
            post(41, json!({"text": format!(":warning: {TITLE}\n<{CONSOLE}|View in Console>")})),
            ACCEPTED,
        ),
        (
            "the first of a thread",
            "main",
            post(42, json!({"thread_ts": ts(42), "blocks": blocks()})),
            ACCEPTED,
        ),
    ]
}

#[tokio::test]
async fn the_counters_and_the_log_agree_on_forty_kinds_of_messages() {
    let mut relay = Relay::start().await;
    let kinds = kinds();
    assert!(kinds.len() >= 40);
    let mut ignored: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, app, message, [outcome, reason, level]) in &kinds {
        let before = relay.events().await;
        relay.post_message(app, message).await;
        let mut expected = before;
        let labels = format!("app=\"{app}\",outcome=\"{outcome}\",reason=\"{reason}\"");
        *expected.entry(labels).or_default() += 1;
        assert_eq!(relay.events().await, expected, "{name}");
        if *outcome == "ignored" {
            *ignored.entry(*reason).or_default() += 1;
        }
        let ts = message["message"]["ts"].as_str().or_else(|| message["ts"].as_str()).unwrap();
        let is_it = |line: &Value| {
            let says = |key: &str, value: &str| line[key].as_str().is_some_and(|it| it == value);
            line.to_string().contains(ts)
                && says("level", level)
                && (line["reason"].is_null() || *reason == "near_miss" || says("reason", reason))
        };
        relay.process.log_of(ts, is_it).await;
    }
    let status = relay.api("GET", "/status").await.1;
    assert_eq!(status["ignored"], json!(ignored));
    assert_eq!(status["near_misses"], json!({"unread": 10, "total": 10}));
    let refused = status["apps"][0]["refused"].as_array().unwrap();
    let mistyped = refused.iter().find(|one| one["channel"] == "C0MISTYPED").unwrap();
    assert_eq!((&mistyped["reason"], &mistyped["count"]), (&json!("channel"), &json!(2)));
}

#[tokio::test]
async fn the_first_refusal_of_what_has_our_title_is_a_warning_that_names_the_channel() {
    let mut relay = Relay::start().await;
    let person = |n| {
        let mut message = post(n, json!({"user": "U1", "attachments": known()}));
        message.as_object_mut().unwrap().remove("bot_id");
        message
    };
    let unfurl = json!([{"title": TITLE, "is_msg_unfurl": true}]);
    for (app, message, reason) in [
        ("main", person(1), "no_bot"),
        ("main", post(2, json!({"channel": "C0MISTYPED", "attachments": known()})), "channel"),
        ("main", post(3, json!({"attachments": unfurl})), "unfurl"),
        ("listed", post(4, json!({"attachments": known()})), "bot_not_allowed"),
    ] {
        relay.post_message(app, &message).await;
        let is_warning = |line: &Value| line["level"] == "WARN";
        let lines = relay.process.log_of(reason, is_warning).await;
        let warning = lines.last().unwrap();
        assert_eq!(lines.len(), 2, "one for each at DEBUG, and the first as a warning: {lines:#?}");
        assert_eq!((&warning["channel"], &warning["ts"]), (&message["channel"], &message["ts"]));
        assert_eq!(warning["reason"], reason);
    }
    relay.post_message("main", &person(5)).await;
    relay.post_message("main", &post(6, json!({"attachments": known()}))).await;
    let lines = relay.process.log_of("main", |line| line["level"] == "INFO").await;
    assert!(lines.iter().all(|line| line["level"] != "WARN"), "not twice a minute: {lines:#?}");
}

/// The alert of a message that was posted to a relay.
async fn alert_of(relay: &Relay, app: &str, message: &Value) -> Value {
    relay.post_message(app, message).await;
    let ts = message["ts"].as_str().unwrap();
    let (status, detail) = relay.api("GET", &format!("/alerts/{app}:{CHANNEL}:{ts}:0")).await;
    assert_eq!(status, 200, "{message:#}");
    detail["alert"].clone()
}

#[tokio::test]
async fn an_incident_in_a_new_layout_is_an_alert_with_all_that_could_be_read() {
    let relay = Relay::start().await;
    let message = post(1, json!({"text": TITLE, "attachments": [], "blocks": blocks()}));
    let alert = alert_of(&relay, "main", &message).await;
    assert_eq!(alert["title"], TITLE);
    assert_eq!(alert["name"], "Code Defender High Alert");
    assert_eq!(alert["category"], "PII Harvesting");
    assert_eq!(alert["script"]["url"], "https://cdn.evil.example/pay.js");
    assert_eq!(alert["host_domain"]["name"], "shop.example");
    assert_eq!(alert["deep_link"], CONSOLE);
    assert_eq!(alert["parse_problems"], json!(["layout"]));
    assert_eq!(alert["attachment"], message, "the raw message is attached");

    let button = json!([{"type": "button", "text": "Open", "url": CONSOLE}]);
    let fallback = json!([{"id": 1, "fallback": TITLE, "text": "PII", "actions": button}]);
    let alert = alert_of(&relay, "main", &post(2, json!({"attachments": fallback}))).await;
    let problems = ["layout", "severity_missing", "script_missing", "host_missing"];
    assert_eq!(alert["parse_problems"], json!(problems));
    assert_eq!((&alert["category"], &alert["deep_link"]), (&json!("PII"), &json!(CONSOLE)));
}

#[tokio::test]
async fn a_message_of_the_known_shape_is_read_as_before() {
    let relay = Relay::start().await;
    let attachment = |fields: Value| {
        json!([{"id": 1, "title": TITLE, "text": "PII\nmore", "fields": fields,
            "actions": [{"type": "button", "text": "View in Console", "url": CONSOLE}]}])
    };
    let bold = attachment(json!([
        {"title": "*Script:*", "value": "<https://cdn.evil.example/a.js>"},
        {"title": "Risk Level:", "value": "*Low*"},
        {"title": "Host Domain ", "value": "shop.example"}]));
    let alert = alert_of(&relay, "main", &post(1, json!({"attachments": bold}))).await;
    let severity = json!({"raw": "*Low*", "level": "low", "priority": 40, "recognised": true});
    assert_eq!(alert["severity"], severity);
    assert_eq!(alert["script"]["host"], "cdn.evil.example");
    assert_eq!(alert["parse_problems"], json!([]));
    let two = attachment(json!([{"title": "Severity", "value": "CVSS 9.8"},
        {"title": "Risk Level", "value": "Low"}, {"title": "Script", "value": "a.example/a.js"},
        {"title": "Host Domain", "value": "shop.example"}]));
    let alert = alert_of(&relay, "main", &post(2, json!({"attachments": two}))).await;
    assert_eq!(alert["name"], "Code Defender Low Alert");
    let mut long_ts = post(3, json!({"attachments": known()}));
    long_ts["ts"] = "1795939372.0003889".into();
    relay.post_message("main", &long_ts).await;
    let (_, detail) =
        relay.api("GET", &format!("/alerts/main:{CHANNEL}:1795939372.000388:0")).await;
    assert_eq!(detail["alert"]["ticket_id"], "1795939372000388");
    let profile = json!({"id": "B9", "app_id": "A0VENDOR", "name": "vendor", "team_id": "T1"});
    let by_profile =
        post(4, json!({"bot_id": "B9", "bot_profile": profile, "attachments": known()}));
    assert_eq!(alert_of(&relay, "listed", &by_profile).await["slack"]["bot_id"], "B9");
}

#[tokio::test]
async fn a_bot_that_answers_its_own_alerts_makes_at_most_twenty_an_hour() {
    let mut relay = Relay::start().await;
    for n in 0..22 {
        relay.post_message("main", &post(n, json!({"blocks": blocks()}))).await;
    }
    relay.post_message("main", &post(0, json!({"blocks": blocks()}))).await;
    let status = relay.api("GET", "/status").await.1;
    assert_eq!(status["near_misses"]["total"], 2);
    assert_eq!(status["apps"][0]["bots"][0]["incidents"], 20);
    let events = relay.events().await;
    let duplicate = "app=\"main\",outcome=\"duplicate\",reason=\"\"";
    assert_eq!(events[duplicate], 1, "what is an alert already is not a near miss: {events:?}");
    relay.post_message("main", &post(99, json!({"attachments": known()}))).await;
    let said = |line: &Value| line["level"] == "INFO" && line.to_string().contains(&ts(99));
    let lines = relay.process.log_of("", said).await;
    let warned = lines.iter().filter(|line| {
        line["message"].as_str().is_some_and(|text| text.contains("within an hour; what else"))
    });
    assert_eq!(warned.count(), 1, "said once");
}

#[tokio::test]
async fn a_near_miss_is_listed_explained_and_adopted_once() {
    let relay = Relay::start().await;
    relay.post_message("main", &post(1, json!({"attachments": known()}))).await;
    let mut renamed = slack::attachment();
    renamed["title"] = "Client-side Defense: finding".into();
    relay.post_message("main", &post(2, json!({"attachments": [renamed]}))).await;
    let id = format!("main:{CHANNEL}:{}:0", ts(2));
    assert_eq!(relay.api("GET", "/status").await.1["near_misses"]["unread"], 1);
    let server = format!("http://{}", relay.process.ops);
    // A monitor or a page of another site may ask for the list, and reads nothing.
    let host = [("Host".to_owned(), "localhost".to_owned())];
    let asked = http::request(relay.process.ops, "GET", "/api/v1/near-misses", &host, b"").await;
    assert_eq!(asked.status, 200);
    assert_eq!(relay.api("GET", "/status").await.1["near_misses"]["unread"], 1);
    let (code, out) = relay.run(&["explain", "--near-miss", &id, "--server", &server, "--json"]);
    let explained: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &explained["outcome"]), (Some(1), &json!("near_miss")), "{out}");
    assert_eq!(explained["alerts"][0]["alert"]["script"]["url"], "https://cdn.example/pay.js");
    let (code, out) = relay.run(&["alerts", "list", "--near-misses", "--server", &server]);
    assert_eq!(code, Some(0));
    assert!(out.contains(&id) && out.contains("title"), "{out}");
    assert_eq!(
        relay.api("GET", "/status").await.1["near_misses"],
        json!({"unread": 0, "total": 1})
    );
    let (code, out) = relay.run(&["alerts", "adopt", &id, "--server", &server, "--json"]);
    let adopted: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, adopted), (Some(0), json!({"changed": 1, "alert_ids": [id]})));
    let again = relay.api("POST", &format!("/near-misses/{id}/adopt")).await;
    assert_eq!(again, (200, json!({"changed": 0, "alert_ids": [id]})), "adopted once");
    let detail = relay.api("GET", &format!("/alerts/{id}")).await.1;
    assert_eq!(detail["alert"]["script"]["url"], "https://cdn.example/pay.js");
    assert_eq!(detail["deliveries"][0]["destination"], "soar");
    let before = relay.events().await;
    let mut later = slack::attachment();
    later["title"] = "Client-side Defense: finding".into();
    relay.post_message("main", &post(2, json!({"attachments": [later]}))).await;
    let duplicate = "app=\"main\",outcome=\"duplicate\",reason=\"\"";
    let after = relay.events().await;
    assert_eq!(after[duplicate], before.get(duplicate).copied().unwrap_or_default() + 1);
    assert_eq!(relay.api("POST", "/near-misses/main:C1:1.000001:0/adopt").await.0, 404);
}

#[tokio::test]
async fn an_unreadable_body_is_listed_and_explained() {
    let relay = Relay::start().await;
    assert_eq!(relay.post("main", b"{\"type\": \"event_callback\", \"event\": {broken").await, 200);
    let server = format!("http://{}", relay.process.ops);
    let unread = async || relay.api("GET", "/status").await.1["quarantine"].clone();
    let patience = tokio::time::timeout(crate::harness::PATIENCE, async {
        while unread().await["total"] != 1 {}
    });
    patience.await.expect("it is kept");
    assert_eq!(unread().await, json!({"unread": 1, "total": 1}));
    let (code, out) = relay.run(&["alerts", "list", "--quarantine", "--server", &server, "--json"]);
    let listed: Value = serde_json::from_str(&out).unwrap();
    let body = &listed["quarantine"][0];
    assert_eq!((code, &body["app"], &body["unread"]), (Some(0), &json!("main"), &json!(true)));
    assert_eq!(unread().await, json!({"unread": 0, "total": 1}));
    let id = body["id"].to_string();
    let (code, out) = relay.run(&["explain", "--quarantine", &id, "--server", &server]);
    assert_eq!(code, Some(1));
    assert!(out.contains("unparsable"), "{out}");
}

#[tokio::test]
async fn explain_says_which_destination_takes_an_alert_and_which_does_not() {
    let relay = Relay::start().await;
    let path = relay.dir.path().join("message.json");
    let explain = |message: &Value, app: &str| {
        std::fs::write(&path, message.to_string()).unwrap();
        let arguments = ["explain", "--json", "--app", app, "--message", path.to_str().unwrap()];
        let (code, out) = relay.run(&arguments);
        (code, serde_json::from_str::<Value>(&out).unwrap())
    };
    let high = slack::event(&post(1, json!({"attachments": known()})));
    let (code, explained) = explain(&high, "main");
    assert_eq!((code, &explained["outcome"]), (Some(0), &json!("alert")));
    let soar = json!([{"name": "soar", "takes": true, "refused_by": null}]);
    assert_eq!(explained["alerts"][0]["destinations"], soar);
    let mut quiet = slack::attachment();
    quiet["fields"][1]["value"] = "Informative".into();
    let (code, explained) = explain(&post(1, json!({"attachments": [quiet]})), "main");
    assert_eq!((code, &explained["outcome"]), (Some(1), &json!("alert")));
    assert_eq!(explained["alerts"][0]["destinations"][0]["refused_by"], "min_severity");
    let (code, explained) = explain(&high, "listed");
    assert_eq!((code, &explained["reason"]), (Some(1), &json!("bot_not_allowed")));
    assert_eq!(explained["attachments"][0]["title"], TITLE);
    let arguments = ["explain", "--app", "nobody", "--message", path.to_str().unwrap()];
    assert_eq!(relay.run(&arguments).0, Some(2));
}
