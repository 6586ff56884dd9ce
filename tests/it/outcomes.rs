//! Walks the table of what can become of an event: provokes each in a real relay, and finds it in
//! the log, the status, the doctor and the metrics.

use std::time::Duration;

use serde_json::{Value, json};
use slack_soar_relay::{clock::Clock, intake, trouble::Outcome};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    harness::{
        PATIENCE, SECRET,
        fake_slack::{FakeSlack, Trouble},
        http,
        slack::{self, TITLE},
        world::LIST,
    },
    kinds::{CHANNEL, Relay, known, post, ts},
    status::doctor_of,
};

const EVENTS: &str = "/slack/events";

/// A relay that takes the incidents of one app, and what it needs beside it.
struct World {
    relay: Relay,
    slack: Option<FakeSlack>,
    peers: Vec<TcpStream>,
}

impl World {
    async fn with(apps: &str, min_severity: &str) -> Self {
        let relay = Relay::with(&format!("  apps:\n{apps}"), min_severity).await;
        Self { relay, slack: None, peers: Vec::new() }
    }

    /// A relay with one app, which has that YAML besides.
    async fn new(more: &str) -> Self {
        let app = format!("signing_secret: {{env: SECRET}}, channels: [{CHANNEL}]");
        Self::with(&format!("  - {{name: main, {app}{more}}}\n"), "low").await
    }

    async fn has_taken(self, message: &Value) -> Self {
        self.relay.post_message("main", message).await;
        self
    }

    async fn answers(self, expected: u16, path: &str, headers: &[(String, String)]) -> Self {
        let body = slack::event(&incident()).to_string();
        let answer = http::post(self.relay.process.public, path, headers, body.as_bytes()).await;
        assert_eq!(answer.status, expected);
        self
    }

    /// Sends a part of each body, which grows to that size, and waits for nothing.
    async fn half_of(mut self, bodies: usize, bytes: usize) -> Self {
        for _ in 0..bodies {
            let mut peer = TcpStream::connect(self.relay.process.public).await.unwrap();
            let mut head = format!("POST {EVENTS} HTTP/1.1\r\nHost: relay\r\n");
            for (name, value) in signed(SECRET, 0) {
                head.extend([&*name, ": ", &value, "\r\n"]);
            }
            let length = (bytes + 1).to_string();
            head.extend(["Content-Length: ", &length, "\r\n\r\n"]);
            peer.write_all(head.as_bytes()).await.unwrap();
            // The relay may have answered and closed before it has all.
            drop(peer.write_all(&vec![b'x'; bytes]).await);
            self.peers.push(peer);
        }
        self
    }
}

/// Headers for the body of [`incident`], so many seconds old.
fn signed(secret: &str, age: u64) -> Vec<(String, String)> {
    let at = Clock::system().now() - Duration::from_secs(age);
    slack::signed(secret, at, slack::event(&incident()).to_string().as_bytes())
}

fn incident() -> Value {
    post(1, json!({"attachments": known()}))
}

fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut message = incident();
    change(&mut message);
    message
}

fn by_a_person(message: &mut Value) {
    message.as_object_mut().unwrap().remove("bot_id");
}

async fn unresolved() -> World {
    let slack = FakeSlack::new(Clock::system()).await;
    for after in 0..1_000 {
        slack.trouble(LIST, after, Trouble::Status(503));
    }
    let yaml = format!(
        "  api_url: {}\n  apps:\n  - {{name: main, signing_secret: {{env: SECRET}}, bot_token: \
         {{env: TOKEN}}, channels: [cd_alerts]}}\n",
        slack.api_url()
    );
    let relay = Relay::with(&yaml, "low").await;
    World { relay, slack: Some(slack), peers: Vec::new() }.has_taken(&incident()).await
}

async fn by_a_wrong_app(other: &str) -> World {
    let apps = format!(
        "  - {{name: main, signing_secret: {{file: secret}}, team: T0MAIN}}\n  - {{name: other, \
         signing_secret: {{file: other}}, team: {other}}}\n"
    );
    World::with(&apps, "low").await
}

async fn ignored(reason: &str) -> World {
    match reason {
        "known_edit" => {
            let edit = json!({"type": "message", "subtype": "message_changed", "hidden": true,
                "channel": CHANNEL, "ts": ts(9), "event_ts": ts(9),
                "message": changed(|it| it["edited"] = json!({"ts": ts(9)}))});
            World::new("").await.has_taken(&incident()).await.has_taken(&edit).await
        }
        "title" => World::new("").await.has_taken(&post(1, json!({"text": "hello"}))).await,
        "near_miss" => World::new("").await.has_taken(&post(1, json!({"text": TITLE}))).await,
        "no_bot" => World::new("").await.has_taken(&changed(by_a_person)).await,
        "bot_not_allowed" => World::new(", bots: [A0VENDOR]").await.has_taken(&incident()).await,
        "channel" => {
            let elsewhere = changed(|it| it["channel"] = "C0MISTYPED".into());
            World::new("").await.has_taken(&elsewhere).await
        }
        "unfurl" => {
            let unfurl = json!([{"title": TITLE, "from_url": "https://evil.example/x"}]);
            World::new("").await.has_taken(&post(1, json!({"attachments": unfurl}))).await
        }
        "subtype" => {
            let joined = post(1, json!({"subtype": "channel_join", "text": "joined"}));
            World::new("").await.has_taken(&joined).await
        }
        "type" => World::new("").await.has_taken(&json!({"type": "reaction_added"})).await,
        "lifecycle" => {
            let channel = json!({"id": CHANNEL, "name": "alerts"});
            let renamed = json!({"type": "channel_rename", "channel": channel});
            World::new("").await.has_taken(&renamed).await
        }
        "unparsable" => {
            let world = World::new("").await;
            assert_eq!(world.relay.post("main", b"{broken").await, 200);
            world
        }
        "team" => by_a_wrong_app("T0OTHER").await.answers(200, EVENTS, &signed(SECRET, 0)).await,
        other => panic!("nobody knows how to provoke {other}"),
    }
}

async fn rejected(reason: &str) -> World {
    match reason {
        // The workspace of every event in these tests.
        "team" => {
            by_a_wrong_app("T0RELAYTEAM").await.answers(503, EVENTS, &signed(SECRET, 0)).await
        }
        "" => {
            let path = "/slack/events/nobody";
            World::new("").await.answers(404, path, &signed(SECRET, 0)).await
        }
        "bad_signature" => World::new("").await.answers(401, EVENTS, &signed("not it", 0)).await,
        "stale" => World::new("").await.answers(401, EVENTS, &signed(SECRET, 600)).await,
        "too_large" => {
            let many = (0..65).map(|n| (format!("X-{n}"), "1".to_owned())).collect::<Vec<_>>();
            World::new("").await.answers(431, EVENTS, &many).await
        }
        "slow" => World::new("").await.half_of(1, 10).await,
        "overload" => World::new("").await.half_of(8, 1024 * 1024).await,
        "store" => {
            let world = World::new("").await;
            let db = world.relay.dir.path().join("relay.db");
            std::fs::rename(&db, db.with_extension("moved")).unwrap();
            world.answers(503, EVENTS, &signed(SECRET, 0)).await
        }
        other => panic!("nobody knows how to provoke {other}"),
    }
}

async fn provoked(outcome: &Outcome) -> World {
    match (outcome.outcome, outcome.reason) {
        ("accepted", "") => World::new("").await.has_taken(&incident()).await,
        ("accepted", "channel_unresolved") => unresolved().await,
        ("accepted", "no_destination") => {
            let app = "  - {name: main, signing_secret: {env: SECRET}}\n";
            World::with(app, "critical").await.has_taken(&incident()).await
        }
        ("duplicate", "") => {
            World::new("").await.has_taken(&incident()).await.has_taken(&incident()).await
        }
        ("ignored", reason) => ignored(reason).await,
        ("rejected", reason) => rejected(reason).await,
        other => panic!("nobody knows how to provoke {other:?}"),
    }
}

/// Returns whether a value of the status is set.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_so) => *is_so,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
    }
}

/// Waits until the row is true of the relay.
async fn is_found(mut relay: Relay, row: &Outcome) {
    let Outcome { outcome, reason, log, status, doctor, .. } = row;
    let counted = format!("outcome=\"{outcome}\",reason=\"{reason}\"");
    let pointer = format!("/{}", status.replace('.', "/"));
    let found = async {
        while !relay.events().await.keys().any(|labels| labels.contains(&counted)) {}
        while !status.is_empty()
            && !relay.api("GET", "/status").await.1.pointer(&pointer).is_some_and(says_something)
        {
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_late| panic!("{row:?}"));
    let (_, said) = doctor_of(relay.process.ops, relay.dir.path()).await;
    assert!(said.contains(doctor), "{row:?} is not in\n{said}");
    let (level, text) = log.split_once(' ').unwrap();
    relay.process.log_of(text, |line| line["level"] == level).await;
}

#[tokio::test]
async fn whatever_becomes_of_an_event_is_found_where_the_table_says() {
    for row in intake::outcomes() {
        let World { relay, slack: _slack, peers: _peers } = provoked(&row).await;
        is_found(relay, &row).await;
    }
}
