//! The connector in `deploy/siemplify`: the real one, in a real Python, against a real relay. What
//! stands in for the SOAR is a stub of its SDK, in `tests/siemplify`.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer};
use serde_json::{Map, Value, json};

use crate::{
    harness::{
        FEED_TOKEN, Setup, TestRelay,
        slack::{self, incident},
        soar::{FakeSoar, Mood},
    },
    source::root,
};

/// A SOAR that runs the connector now and then.
struct Platform {
    dir: tempfile::TempDir,
    params: Vec<(String, String)>,
}

/// Result of a run.
struct Run {
    ok: bool,
    /// Alerts that the platform was given; `None` if the run ended before.
    alerts: Vec<Value>,
    log: String,
}

impl Platform {
    fn new(relay: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("context.json"), "{}").unwrap();
        let mut platform = Self { dir, params: Vec::new() };
        platform.set("Relay URL", relay);
        platform.set("Feed Token", FEED_TOKEN);
        platform.set("PythonProcessTimeout", "30");
        platform
    }

    fn of(relay: &TestRelay) -> Self {
        Self::new(&format!("http://{}", relay.relay().ops))
    }

    fn set(&mut self, name: &str, value: &str) {
        self.params.retain(|(known, _)| known != name);
        self.params.push((name.to_owned(), value.to_owned()));
    }

    async fn run(&self) -> Run {
        self.run_with("", &[]).await
    }

    /// A run that is killed in that call of the SDK.
    async fn run_that_dies_in(&self, call: &str) -> Run {
        self.run_with(call, &[]).await
    }

    async fn run_with(&self, dies: &str, arguments: &[&str]) -> Run {
        let params: Vec<_> = self
            .params
            .iter()
            .map(|(name, value)| json!({"param_name": name, "param_value": value}))
            .collect();
        let input = json!({"connector_info": {
            "identifier": "relay-1", "environment": "Of the connector", "params": params,
        }});
        let mut command = Command::new("python3");
        command.arg(root().join("deploy/siemplify/connector.py")).args(arguments);
        command.env("PYTHONPATH", root().join("tests/siemplify"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_PROXY", "*").env("STUB_DIES", dies);
        // As at the platform: what is printed waits in a buffer.
        command.env_remove("PYTHONUNBUFFERED");
        command.env("STUB_CONTEXT", self.dir.path().join("context.json"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("python3 is needed");
            child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        let ended = ended.await.unwrap();
        let log = String::from_utf8(ended.stderr).unwrap();
        assert!(!log.contains(FEED_TOKEN), "{log}");
        let package = serde_json::from_slice::<Value>(&ended.stdout).ok();
        let result = package.and_then(|package| {
            serde_json::from_str::<Value>(package["ResultObjectJson"].as_str()?).ok()
        });
        let alerts =
            result.map_or_else(Vec::new, |result| result["cases"].as_array().unwrap().clone());
        Run { ok: ended.status.success(), alerts, log }
    }

    /// The connector's place in the feed, as the platform keeps it.
    fn place(&self) -> Value {
        let text = fs::read(self.dir.path().join("context.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["relay-1/feed_after"].clone()
    }

    fn keep(&self, place: &str) {
        let context = json!({"relay-1/feed_after": place}).to_string();
        fs::write(self.dir.path().join("context.json"), context).unwrap();
    }
}

impl Run {
    fn tickets(&self) -> Vec<&str> {
        self.alerts.iter().map(|alert| alert["display_id"].as_str().unwrap()).collect()
    }

    fn failed_with(&self, words: &str) {
        assert!(!self.ok && self.alerts.is_empty(), "{}", self.log);
        assert!(self.log.contains(words), "{}", self.log);
    }
}

fn tickets(numbers: std::ops::Range<u32>) -> Vec<String> {
    let ticket = |n| slack::message(n)["ts"].as_str().unwrap().replace('.', "");
    numbers.map(ticket).collect()
}

async fn post(relay: &TestRelay, numbers: std::ops::Range<u32>) {
    for n in numbers {
        assert_eq!(relay.post(&incident(n)).await, 200);
    }
}

async fn pending(relay: &TestRelay) -> f64 {
    relay.metric(r#"deliveries{destination="pull",state="pending"}"#).await
}

/// Messages of every kind that the mapping knows.
fn messages() -> Vec<Value> {
    let changed = |n: u32, change: &dyn Fn(&mut Value)| {
        let mut message = slack::message(n);
        change(&mut message);
        message
    };
    let field = |at: usize, text: &str| {
        let text = text.to_owned();
        move |message: &mut Value| {
            message["attachments"][0]["fields"][at]["value"] = json!(text);
        }
    };
    vec![
        slack::message(5),
        // A half goes to the even neighbour, in microseconds and in milliseconds.
        changed(6, &|message| message["ts"] = json!("1600689944.000500")),
        changed(7, &|message| message["ts"] = json!("1600689944.000515")),
        changed(8, &|message| message["ts"] = json!("nonsense")),
        changed(9, &field(1, "Severe")),
        changed(10, &field(0, "`https://cdn.example/שלום\u{1f600}.js`")),
        changed(11, &field(2, "plain.example")),
        changed(12, &|message| {
            message["attachments"][0]["text"] =
                json!("first &amp; \"quoted\"\r\n<https://a.example|b>\n\u{1f600}");
        }),
        changed(13, &|message| {
            let attachment = message["attachments"][0].as_object_mut().unwrap();
            attachment.retain(|key, _| key == "title");
        }),
        changed(14, &|message| message["attachments"][0]["text"] = json!(5)),
        changed(15, &|message| {
            let second = message["attachments"][0].clone();
            message["attachments"].as_array_mut().unwrap().push(second);
        }),
        changed(16, &field(0, "x")),
    ]
}

#[tokio::test]
async fn every_field_is_as_the_webhook_of_google_secops_gets_it() {
    const WAYS: [(&str, &str, &str); 4] = [
        ("a", "micros", "clean"),
        ("b", "micros", "as_predecessor"),
        ("c", "article", "clean"),
        ("d", "article", "as_predecessor"),
    ];
    let soars =
        [FakeSoar::ok().await, FakeSoar::ok().await, FakeSoar::ok().await, FakeSoar::ok().await];
    let mut setup = Setup::default().feed("pull", "");
    for (soar, (name, id_scheme, values)) in soars.iter().zip(WAYS) {
        let params = format!("{{id_scheme: {id_scheme}, values: {values}, environment: Ours}}");
        let more = format!("preset: google-secops-webhook\nconcurrency: 1\nparams: {params}");
        setup = setup.destination(name, soar, &more);
    }
    let relay = setup.start().await;
    let messages = messages();
    for message in &messages {
        assert_eq!(relay.post(&slack::event(message)).await, 200, "{message}");
    }
    let expected = messages.len() + 1;
    for (soar, (_, id_scheme, values)) in soars.iter().zip(WAYS) {
        soar.has_received(expected).await;
        let mut platform = Platform::of(&relay);
        platform.set("Environment", "Ours");
        platform.set("ID Scheme", id_scheme);
        platform.set("Values", values);
        let run = platform.run().await;
        assert!(run.ok, "{}", run.log);
        let mut sent: Vec<Map<String, Value>> = soar
            .received()
            .into_iter()
            .map(|received| received.body.as_object().unwrap().clone())
            .collect();
        for body in &mut sent {
            body.remove("source_system");
        }
        let keys: Vec<_> = sent[0].keys().cloned().collect();
        let mut returned: Vec<Map<String, Value>> = run
            .alerts
            .iter()
            .map(|alert| keys.iter().map(|key| (key.clone(), alert[key].clone())).collect())
            .collect();
        let by_id = |one: &Map<String, Value>| json!(one).to_string();
        sent.sort_by_key(by_id);
        returned.sort_by_key(by_id);
        assert_eq!(returned.len(), expected);
        for (returned, sent) in returned.iter().zip(&sent) {
            assert_eq!(returned, sent, "{id_scheme} {values}");
        }
    }
}

#[tokio::test]
async fn runs_bring_every_alert_once_and_a_piece_at_a_time() {
    let relay = Setup::default().feed("pull", "").start().await;
    post(&relay, 1..6).await;
    let mut platform = Platform::of(&relay);
    platform.set("Max Alerts Per Run", "2");
    for (numbers, left) in [(1..3, 5.0), (3..5, 3.0), (5..6, 1.0), (0..0, 0.0), (0..0, 0.0)] {
        let run = platform.run().await;
        assert!(run.ok, "{}", run.log);
        assert_eq!(run.tickets(), tickets(numbers));
        assert_eq!(pending(&relay).await, left, "only what an earlier run has brought is taken");
    }
    assert_eq!(platform.run().await.alerts.len(), 0);
    post(&relay, 6..7).await;
    let run = platform.run().await;
    assert_eq!(run.tickets(), tickets(6..7));
    assert_eq!(run.alerts[0]["environment"], "Of the connector");
    assert_eq!(run.alerts[0]["is_test_case"], false);
}

#[tokio::test]
async fn a_run_that_dies_is_made_again_and_loses_nothing() {
    let relay = Setup::default().feed("pull", "").start().await;
    post(&relay, 1..4).await;
    let platform = Platform::of(&relay);
    let died = platform.run_that_dies_in("return_package").await;
    assert!(!died.ok && died.alerts.is_empty());
    assert_eq!((platform.place(), pending(&relay).await), (Value::Null, 3.0));
    let died = platform.run_that_dies_in("set_connector_context_property").await;
    assert!(!died.ok && died.alerts.len() == 3);
    assert_eq!((platform.place(), pending(&relay).await), (Value::Null, 3.0));
    let died = platform.run_that_dies_in("kept").await;
    assert!(!died.ok);
    assert_eq!(died.tickets(), tickets(1..4), "they are out before the place is kept");
    assert_ne!(platform.place(), Value::Null);
    platform.keep("");
    let again = platform.run().await;
    assert_eq!(again.tickets(), tickets(1..4), "under the same ids, by which the platform knows");
    assert!(platform.run().await.ok);
    assert_eq!(pending(&relay).await, 0.0);
}

#[tokio::test]
async fn a_trial_run_keeps_no_place() {
    let relay = Setup::default().feed("pull", "").start().await;
    post(&relay, 1..3).await;
    let platform = Platform::of(&relay);
    let trial = platform.run_with("", &["False"]).await;
    assert_eq!(trial.tickets(), tickets(1..3));
    assert_eq!(platform.place(), Value::Null);
    assert_eq!(platform.run().await.tickets(), tickets(1..3));
}

#[tokio::test]
async fn a_place_that_makes_no_sense_is_no_reason_to_stand_still() {
    let relay = Setup::default().feed("pull", "").start().await;
    post(&relay, 1..3).await;
    let platform = Platform::of(&relay);
    let digits = "9".repeat(20_000);
    for place in [
        "160068994400.05",
        "9000000000000000000",
        "9223372036854775808",
        "18446744073709551616",
        "-1",
        "1e3",
        "1_000",
        "\u{ff11}\u{ff12}",
        "nan",
        "true",
        "after all",
        "{\"after\": 5}",
        "[5]",
        &digits,
    ] {
        platform.keep(place);
        let run = platform.run().await;
        assert!(run.ok && run.log.contains("reading from the beginning"), "{place}: {}", run.log);
        assert!(run.log.len() < 2_000, "{}", run.log);
        assert_eq!(run.tickets(), tickets(1..3), "{place}");
    }
    assert!(platform.place().as_str().unwrap().parse::<i64>().unwrap() > 0);
    assert!(platform.run().await.alerts.is_empty());
}

#[tokio::test]
async fn what_stands_in_the_way_is_said_and_changes_nothing() {
    let relay = Setup::default().feed("pull", "").start().await;
    post(&relay, 1..2).await;
    let mut platform = Platform::of(&relay);
    platform.set("Feed Token", "wrong");
    platform.run().await.failed_with("the relay answers 401: send the destination's `feed_token`");
    platform.set("Feed Token", FEED_TOKEN);
    platform.set("Destination", "other");
    platform.run().await.failed_with("opens no feed `other`, but pull");
    platform.set("Destination", "pull");
    for (name, wrong, words) in [
        ("Max Alerts Per Run", "0", "from 1 to 500"),
        ("Max Alerts Per Run", "many", "no whole number"),
        ("ID Scheme", "micro", "micros, article"),
        ("Values", "dirty", "clean, as_predecessor"),
        ("CA Certificate", "nonsense", "no PEM certificate"),
        ("Relay URL", "http://relay.example.com", "https://"),
        ("Relay URL", "", "https://"),
        ("Relay URL", "http://127.0.0.1:1", "does not answer"),
    ] {
        let before = platform.params.clone();
        platform.set(name, wrong);
        platform.run().await.failed_with(words);
        platform.params = before;
    }
    assert_eq!(platform.place(), Value::Null);
    assert_eq!(platform.run().await.tickets(), tickets(1..2));
}

#[tokio::test]
async fn a_redirect_does_not_get_the_token_and_a_strange_answer_takes_nothing_along() {
    let thief = FakeSoar::ok().await;
    let url: &'static str = Box::leak(thief.base().into_boxed_str());
    for (mood, words) in [
        (Mood::Header(302, "location", url), "the relay answers 302"),
        (Mood::Body(200, "<html>log in</html>".to_owned()), "does not answer as a relay does"),
        (Mood::Body(200, r#"{"items": 5, "next": null}"#.to_owned()), "as a relay does"),
        (Mood::Body(200, r#"{"items": [5], "next": 5}"#.to_owned()), "as a relay does"),
        (Mood::Body(200, r#"{"items": [], "next": Infinity}"#.to_owned()), "as a relay does"),
        (Mood::Body(200, r#"{"items": [], "next": 1.5}"#.to_owned()), "as a relay does"),
        (Mood::Body(200, r#"{"items": [], "next": -1}"#.to_owned()), "as a relay does"),
        (Mood::Body(200, "[".repeat(100_000)), "as a relay does"),
        (Mood::Status(503), "the relay answers 503"),
    ] {
        let proxy = FakeSoar::new([mood]).await;
        let platform = Platform::new(&proxy.base());
        platform.run().await.failed_with(words);
        assert_eq!(platform.place(), Value::Null);
    }
    assert!(thief.received().is_empty());
}

/// A relay's proxy that speaks TLS with a certificate of its own making.
fn proxy(relay: SocketAddr) -> (u16, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.into())
            .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            // A client that breaks off is what this is about.
            drop(pass_on(StreamOwned::new(session, stream), relay));
        }
    });
    (port, pem)
}

/// One request, and its answer.
fn pass_on(mut client: impl Read + Write, relay: SocketAddr) -> io::Result<()> {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        request.extend(byte);
    }
    let mut relay = TcpStream::connect(relay)?;
    relay.write_all(&request)?;
    let mut answer = Vec::new();
    relay.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.flush()
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let relay = Setup::default().feed("pull", "").start().await;
    post(&relay, 1..2).await;
    let (port, pem) = proxy(relay.relay().ops);
    let mut platform = Platform::new(&format!("https://localhost:{port}"));
    platform.run().await.failed_with("CERTIFICATE_VERIFY_FAILED");
    platform.set("CA Certificate", &pem.replace('\n', " "));
    let run = platform.run().await;
    assert!(run.ok, "{}", run.log);
    assert_eq!(run.tickets(), tickets(1..2));
    platform.set("Relay URL", &format!("https://127.0.0.1:{port}"));
    platform.run().await.failed_with("CERTIFICATE_VERIFY_FAILED");
}
