//! Walks the tables of docs/operations.md: provokes everything that they list, and finds it in the
//! log, on the command line and in the metrics.

use std::{fs, time::Duration};

use slack_soar_relay::{
    clock::Clock,
    ops::view::{ConcernKind, WaitKind},
    trouble::Trouble,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

use crate::{
    harness::{
        BEGIN, PATIENCE, Setup, TestRelay,
        fake_slack::{CHANNEL, FakeSlack},
        http, log,
        slack::{self, id, incident, signed},
        soar::{self, FakeSoar, Mood},
    },
    status::{ask, concern, is_said_everywhere},
};

/// A relay in trouble, and what it needs to stay so.
struct World {
    relay: TestRelay,
    _soar: FakeSoar,
    _slack: Option<FakeSlack>,
}

impl World {
    async fn new(soar: FakeSoar, more: &str) -> Self {
        let relay = Setup::default().destination("soar", &soar, more).start().await;
        Self { relay, _soar: soar, _slack: None }
    }

    async fn with(mood: Mood) -> Self {
        let world = Self::new(FakeSoar::new([mood]).await, "concurrency: 1").await;
        assert_eq!(world.relay.post(&incident(1)).await, 200);
        world
    }

    /// Lets time pass until the status has the concern.
    async fn until(self, step: u64, kind: ConcernKind) -> Self {
        let found = concern(&self.relay, kind.as_str());
        self.relay.time_passes_until(Duration::from_secs(step), found).await;
        self
    }

    async fn act(&self, action: &str) {
        assert_eq!(self.relay.api("POST", &format!("/destinations/soar/{action}")).await.0, 200);
    }

    async fn orphaned(mut self) -> Self {
        self.relay.stop().await;
        self.relay.rename_destination("soar", "other");
        self.relay.restart().await;
        self
    }
}

/// Nobody has this address.
const REFUSED: &str = "nobody@b.example";

/// A mail server that takes every mail, and refuses that recipient. Returns its address.
async fn mail_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    soar::spawn(async move {
        loop {
            let (stream, _peer) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            stream.write_all(b"220 mail\r\n").await.unwrap();
            let (mut line, mut is_data) = (String::new(), false);
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                let answer = match line.trim_end() {
                    "." => Some("250 taken"),
                    _ if is_data => None,
                    "DATA" => Some("354 go on"),
                    command if command.contains(REFUSED) => Some("550 no such user"),
                    _ => Some("250 ok"),
                };
                is_data = (is_data || line.starts_with("DATA")) && !line.starts_with(".\r");
                if let Some(answer) = answer {
                    stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
                }
                line.clear();
            }
        }
    });
    url
}

#[expect(clippy::too_many_lines, reason = "one kind after the other, each in a few lines")]
async fn concerned(kind: ConcernKind) -> World {
    match kind {
        ConcernKind::NotReady => {
            let world = World::new(FakeSoar::ok().await, "").await;
            let db = world.relay.dir().join("relay.db");
            fs::rename(&db, db.with_extension("moved")).unwrap();
            assert_eq!(world.relay.post(&incident(1)).await, 503);
            world
        }
        ConcernKind::Signing => {
            let world = World::new(FakeSoar::ok().await, "").await;
            let body = incident(1).to_string().into_bytes();
            let headers = signed("not-the-secret", world.relay.clock.now(), &body);
            let answer = http::post(world.relay.public(), "/slack/events", &headers, &body).await;
            assert_eq!(answer.status, 401);
            world
        }
        ConcernKind::Configuration => {
            let mut world = World::new(FakeSoar::ok().await, "").await;
            let mistake = |yaml: &str| yaml.replace("preset: webhook", "preset: webhok");
            assert!(world.relay.reload(mistake).await.is_err());
            world
        }
        ConcernKind::BreakerOpen => World::with(Mood::Status(503)).await.until(1, kind).await,
        ConcernKind::Refused => World::with(Mood::Status(400)).await.until(1, kind).await,
        ConcernKind::Dead => {
            let world =
                World::new(FakeSoar::new([Mood::Status(503)]).await, "retry: {max_age: 1h}");
            let world = world.await;
            assert_eq!(world.relay.post(&incident(1)).await, 200);
            world.until(30, kind).await
        }
        ConcernKind::Paused => {
            let world = World::new(FakeSoar::ok().await, "").await;
            world.act("pause?for=2h&reason=upgrade").await;
            assert_eq!(world.relay.post(&incident(1)).await, 200);
            world
        }
        ConcernKind::Orphaned => World::with(Mood::Status(503)).await.orphaned().await,
        ConcernKind::Unrouted => {
            let soar = FakeSoar::ok().await;
            let world = World::new(soar, "when: {min_severity: critical}").await;
            assert_eq!(world.relay.post(&incident(1)).await, 200);
            world
        }
        ConcernKind::NearMisses | ConcernKind::NotTaken => {
            let world = World::new(FakeSoar::ok().await, "").await;
            let mut inner = slack::message(1);
            if kind == ConcernKind::NearMisses {
                inner["attachments"][0]["title"] = "Client-side Defense: finding".into();
            } else {
                for sign_of_a_bot in ["bot_id", "subtype"] {
                    inner.as_object_mut().unwrap().remove(sign_of_a_bot);
                }
            }
            assert_eq!(world.relay.post(&slack::event(&inner)).await, 200);
            world
        }
        ConcernKind::Quarantine => {
            let world = World::new(FakeSoar::ok().await, "").await;
            assert_eq!(world.relay.post_bytes(b"{broken").await, 200);
            world.until(1, kind).await
        }
        ConcernKind::CatchUp | ConcernKind::MissedPush => {
            let slack = FakeSlack::new(Clock::manual(BEGIN)).await;
            let soar = FakeSoar::ok().await;
            let setup = Setup::default().destination("soar", &soar, "");
            let relay = setup.catch_up(&slack, &format!("[{CHANNEL}]")).start().await;
            relay.caught_up().await;
            if kind == ConcernKind::CatchUp {
                slack.revoke(Some("token_revoked"));
            } else {
                slack.state().post_incident(CHANNEL);
            }
            World { relay, _soar: soar, _slack: Some(slack) }.until(15, kind).await
        }
        ConcernKind::Behind => {
            let mood = Mood::Header(429, "retry-after", "3600");
            World::with(mood).await.until(30, kind).await
        }
        ConcernKind::Destination => {
            let soar = FakeSoar::ok().await;
            let mail = format!(
                "preset: email\nurl: {{env: MAIL}}\nparams: {{from: relay@a.example, to: \
                 'soc@b.example, {REFUSED}'}}"
            );
            let setup = Setup::default().env("MAIL", &mail_server().await);
            let relay = setup.destination("soar", &soar, &mail).start().await;
            assert_eq!(relay.post(&incident(1)).await, 200);
            relay.settled().await;
            World { relay, _soar: soar, _slack: None }
        }
    }
}

async fn waiting(kind: WaitKind) -> World {
    match kind {
        WaitKind::Attempt => World::with(Mood::Hang).await,
        WaitKind::Turn => {
            let world = World::with(Mood::Hang).await;
            // The next one or two are at hand already.
            for n in 2..=6 {
                assert_eq!(world.relay.post(&incident(n)).await, 200);
            }
            world
        }
        WaitKind::Retry => World::with(Mood::Status(503)).await,
        WaitKind::Asked => World::with(Mood::Header(429, "retry-after", "3600")).await,
        WaitKind::Refused => concerned(ConcernKind::Refused).await,
        WaitKind::Breaker => concerned(ConcernKind::BreakerOpen).await,
        WaitKind::Pause => concerned(ConcernKind::Paused).await,
        WaitKind::Reader => {
            let soar = FakeSoar::ok().await;
            let relay = Setup::default().feed("soar", "").start().await;
            assert_eq!(relay.post(&incident(1)).await, 200);
            World { relay, _soar: soar, _slack: None }
        }
        WaitKind::Orphaned => concerned(ConcernKind::Orphaned).await,
        WaitKind::Dead => concerned(ConcernKind::Dead).await,
    }
}

fn is_logged(trouble: &Trouble) {
    let (lines, (level, text)) = (log::lines(), trouble.log.split_once(' ').unwrap());
    let found = lines.iter().any(|line| {
        let message = line["message"].as_str().unwrap();
        line["level"] == level && message.contains(text)
    });
    assert!(found, "{}: {:?} is not in {lines:#?}", trouble.word, trouble.log);
}

/// Waits until a series with that name and these labels has a bad value.
async fn is_measured(relay: &TestRelay, trouble: &Trouble) {
    let (name, labels) = trouble.series.split_once('{').unwrap_or((trouble.series, "}"));
    let labels: Vec<&str> =
        labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
    let name = format!("slack_soar_relay_{name}");
    let measured = async {
        loop {
            let text = http::get(relay.relay().ops, "/metrics").await.text();
            let is_bad = text.lines().any(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap_or_default();
                series.split('{').next() == Some(name.as_str())
                    && labels.iter().all(|label| series.contains(label))
                    && value.parse().is_ok_and(|value: f64| trouble.bad.is(value))
            });
            if is_bad {
                return;
            }
        }
    };
    let measured = tokio::time::timeout(PATIENCE, measured).await;
    assert!(measured.is_ok(), "{}: {}", trouble.word, trouble.series);
}

#[tokio::test]
async fn everything_of_concern_is_found_in_the_log_the_status_the_doctor_and_the_metrics() {
    for kind in ConcernKind::ALL {
        log::keep();
        let (world, trouble) = (concerned(kind).await, kind.trouble());
        is_said_everywhere(&world.relay, kind.as_str(), &[trouble.said]).await;
        is_measured(&world.relay, &trouble).await;
        is_logged(&trouble);
    }
}

#[tokio::test]
async fn every_way_to_stand_still_is_found_in_the_log_the_alert_and_the_metrics() {
    for kind in WaitKind::ALL {
        log::keep();
        let (world, trouble) = (waiting(kind).await, kind.trouble());
        let alert = if kind == WaitKind::Turn { id(6) } else { id(1) };
        let shown = async {
            loop {
                let (_, found) = world.relay.api("GET", &format!("/alerts/{alert}")).await;
                let waiting = &found["deliveries"][0]["waiting"];
                if waiting["kind"] == kind.as_str() {
                    return waiting["reason"].as_str().unwrap().to_owned();
                }
            }
        };
        let reason = tokio::time::timeout(PATIENCE, shown).await;
        let reason = reason.unwrap_or_else(|_elapsed| panic!("{}", kind.as_str()));
        assert!(reason.contains(trouble.said), "{}: {reason}", kind.as_str());
        let (_, text, _) = ask(&world.relay, &["alerts", "show", &alert]).await;
        assert!(text.contains(trouble.said), "{}: {text}", kind.as_str());
        is_measured(&world.relay, &trouble).await;
        is_logged(&trouble);
    }
}
