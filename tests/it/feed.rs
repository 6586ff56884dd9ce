//! A destination that is read: what its readers get, and what becomes of what they have passed.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{
    FEED_TOKEN, OPS_TOKEN, PATIENCE, Setup, TestRelay,
    http::{self, Answer},
    log,
    slack::{self, id, incident},
    soar::{FakeSoar, Mood},
};
use crate::process::{Process, command};

async fn ask(relay: &TestRelay, query: &str, token: &str) -> Answer {
    let headers = [("Authorization".to_owned(), format!("Bearer {token}"))];
    let path = format!("/api/v1/feed{query}");
    http::request(relay.relay().ops, "GET", &path, &headers, b"").await
}

/// The ids of the items, the number to go on from, and everything.
async fn read(relay: &TestRelay, query: &str) -> (Vec<String>, i64, Value) {
    let answer = ask(relay, query, FEED_TOKEN).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let page: Value = serde_json::from_slice(&answer.body).unwrap();
    let items = page["items"].as_array().unwrap();
    let ids = items.iter().map(|item| item["alert"]["id"].as_str().unwrap().to_owned()).collect();
    (ids, page["next"].as_i64().unwrap(), page)
}

fn problem(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
    assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["status"], json!(status));
    problem["detail"].as_str().unwrap().to_owned()
}

async fn state(relay: &TestRelay, alert: &str) -> String {
    let (_, detail) = relay.api("GET", &format!("/alerts/{alert}")).await;
    detail["deliveries"][0]["state"].as_str().unwrap().to_owned()
}

async fn post(relay: &TestRelay, numbers: std::ops::Range<u32>) {
    for n in numbers {
        assert_eq!(relay.post(&incident(n)).await, 200);
    }
}

fn ids(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(id).collect()
}

/// Returns whether a line of the log about that alert has these words.
fn logged(alert: &str, words: &str) -> bool {
    let is_it = |line: &Value| {
        line["alert_id"] == alert
            && line["message"].as_str().is_some_and(|text| text.contains(words))
    };
    log::lines().iter().any(is_it)
}

/// The destination as the status shows it.
async fn shown(relay: &TestRelay) -> Value {
    relay.api("GET", "/status").await.1["destinations"][0].clone()
}

#[tokio::test]
async fn a_reader_gets_every_alert_and_what_it_has_passed_is_delivered() {
    log::keep();
    let relay = Setup::default().feed("pull", "").start().await;
    assert_eq!(shown(&relay).await["last_read_at"], Value::Null);
    let (none, after, _) = read(&relay, "").await;
    assert_eq!((none.len(), after), (0, 0));
    post(&relay, 1..4).await;
    let (first, after, page) = read(&relay, "?after=0&limit=2").await;
    assert_eq!(first, ids(1..3));
    assert_eq!(page["items"][1]["seq"], json!(after));
    let alert = &page["items"][0]["alert"];
    assert_eq!(alert["schema"], "slack-soar-relay/alert/v1");
    let (_, detail) = relay.api("GET", &format!("/alerts/{}", id(1))).await;
    assert_eq!(*alert, detail["alert"], "the alert that every other destination gets");
    let waits = relay.metric(r#"deliveries{destination="pull",state="pending"}"#).await;
    assert_eq!(waits, 3.0, "what was given is not delivered yet");
    relay.clock.advance(Duration::from_secs(7));
    let (rest, last, _) = read(&relay, &format!("?after={after}")).await;
    assert_eq!(rest, ids(3..4));
    assert_eq!(
        [state(&relay, &id(2)).await, state(&relay, &id(3)).await],
        ["delivered", "pending"]
    );
    assert_eq!(read(&relay, &format!("?after={last}")).await.0, ids(0..0));
    relay.settled().await;
    let counted = r#"delivery_attempts_total{destination="pull",class="delivered"}"#;
    assert_eq!(relay.metric(counted).await, 3.0);
    let took = r#"delivery_seconds_sum{destination="pull"}"#;
    assert!(relay.metric(took).await >= 14.0);
    assert!(logged(&id(2), "delivered to pull"));
    assert_eq!(read(&relay, "?after=0").await.0, ids(1..4), "whoever lost its place begins anew");
    assert!(shown(&relay).await["last_read_at"].is_string());
}

#[tokio::test]
async fn only_its_own_token_opens_a_feed_and_it_opens_nothing_else() {
    let setup = Setup::default().feed("pull", "").server(", ops_token: {env: OPS_TOKEN}");
    let relay = setup.start().await;
    for wrong in ["", "wrong", OPS_TOKEN] {
        let answer = ask(&relay, "?nonsense", wrong).await;
        assert!(problem(&answer, 401).contains("feed_token"));
        assert!(answer.head.contains("www-authenticate: Bearer"), "{}", answer.head);
    }
    let host = [("Host".to_owned(), "localhost".to_owned())];
    let bare = http::request(relay.relay().ops, "GET", "/api/v1/feed", &host, b"").await;
    problem(&bare, 401);
    for path in ["/api/v1/status", "/api/v1/alerts", "/api/v1/feed/x"] {
        let headers = [("Authorization".to_owned(), format!("Bearer {FEED_TOKEN}"))];
        let answer = http::request(relay.relay().ops, "GET", path, &headers, b"").await;
        problem(&answer, 401);
    }
    let posted = http::post(relay.relay().ops, "/api/v1/feed", &[], b"").await;
    problem(&posted, 405);
    assert_eq!(ask(&relay, "", FEED_TOKEN).await.status, 200);
    // On any address, and whether or not there is an API for operators beside it.
    let setup = Setup::default().feed("pull", "").server(", ops_listen: 0.0.0.0:0");
    let relay = setup.start().await;
    assert_eq!(ask(&relay, "", FEED_TOKEN).await.status, 200);
    problem(&ask(&relay, "", "wrong").await, 401);
}

#[tokio::test]
async fn without_a_feed_there_is_nothing_to_read() {
    let relay = Setup::default().start().await;
    let (status, answer) = relay.api("GET", "/feed").await;
    assert_eq!(status, 404);
    assert!(answer["detail"].as_str().unwrap().contains("preset: feed"), "{answer}");
    let relay = Setup::default().server(", ops_token: {env: OPS_TOKEN}").start().await;
    problem(&ask(&relay, "", "wrong").await, 401);
    problem(&ask(&relay, "", OPS_TOKEN).await, 404);
}

#[tokio::test]
async fn feeds_are_told_apart_by_their_tokens_or_by_name() {
    let other = "params: {feed_token: {env: OTHER_SECRET}}\nwhen: {min_severity: critical}";
    let setup = Setup::default().feed("all", "").feed("few", other).feed("twin", "");
    let relay = setup.start().await;
    post(&relay, 1..3).await;
    assert_eq!(read(&relay, "?destination=all").await.0, ids(1..3));
    let detail = problem(&ask(&relay, "", FEED_TOKEN).await, 400);
    assert!(detail.contains("destination=") && detail.contains("all, twin"), "{detail}");
    for name in ["few", "nobody", "No Name".replace(' ', "%20").as_str()] {
        let query = format!("?destination={name}");
        assert!(problem(&ask(&relay, &query, FEED_TOKEN).await, 404).contains("all, twin"));
    }
    let few = ask(&relay, "", "another-signing-secret").await;
    assert_eq!((few.status, few.text().as_str()), (200, r#"{"items":[],"next":0}"#));
    let (_, all, _) = read(&relay, "?destination=all").await;
    read(&relay, &format!("?destination=all&after={all}")).await;
    let (_, detail) = relay.api("GET", &format!("/alerts/{}", id(1))).await;
    let states: Vec<_> = detail["deliveries"].as_array().unwrap().iter().collect();
    assert_eq!(states.len(), 2, "`when` decides as everywhere");
    assert_eq!([&states[0]["state"], &states[1]["state"]], ["delivered", "pending"]);
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_a_problem_document_and_marks_nothing() {
    let relay = Setup::default().feed("pull", "").start().await;
    post(&relay, 1..2).await;
    read(&relay, "").await;
    for query in [
        "?after=x",
        "?after=-1",
        "?after=99999999999999999999",
        "?limit=0",
        "?limit=501",
        "?limit=many",
        "?wait=20",
        "?wait=51s",
        "?wait=1m",
        "?since=0",
        "?after=1&after=2",
    ] {
        problem(&ask(&relay, query, FEED_TOKEN).await, 400);
    }
    let beyond = relay.clock.now().micros() + 3_600_000_000;
    let detail = problem(&ask(&relay, &format!("?after={beyond}"), FEED_TOKEN).await, 409);
    assert!(detail.contains("after=0"), "{detail}");
    assert_eq!(state(&relay, &id(1)).await, "pending");
    assert_eq!(read(&relay, "?after=&limit=&wait=").await.0.len(), 1);
}

/// A question that waits; returns once it does.
async fn waiting(relay: &Arc<TestRelay>, query: &str) -> JoinSet<Answer> {
    let (asking, query) = (Arc::clone(relay), query.to_owned());
    relay.clock.advance(Duration::from_secs(1));
    let now = relay.clock.now().to_string();
    let mut asked = JoinSet::new();
    asked.spawn(async move { ask(&asking, &query, FEED_TOKEN).await });
    let begun = async {
        while shown(relay).await["last_read_at"] != now.as_str() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.expect("it does not wait");
    asked
}

async fn answered(mut reader: JoinSet<Answer>) -> Answer {
    let answer = tokio::time::timeout(PATIENCE, reader.join_next()).await;
    answer.expect("it waits on").unwrap().unwrap()
}

#[tokio::test]
async fn who_waits_is_answered_by_a_new_alert_at_once() {
    let relay = Arc::new(Setup::default().feed("pull", "").start().await);
    let readers = [waiting(&relay, "?wait=20s").await, waiting(&relay, "?wait=50s").await];
    post(&relay, 1..2).await;
    // The clock stands still, so nothing else can end the wait.
    for reader in readers {
        let answer = answered(reader).await;
        assert!(answer.text().contains(&id(1)), "every reader gets it: {}", answer.text());
    }
}

#[tokio::test]
async fn readers_beyond_the_64_that_wait_are_told_to_come_back() {
    let relay = Arc::new(Setup::default().feed("pull", "").start().await);
    let mut readers = JoinSet::new();
    for _ in 0..65 {
        let relay = Arc::clone(&relay);
        readers.spawn(async move { ask(&relay, "?wait=50s", FEED_TOKEN).await });
    }
    // The clock stands still, so whoever waits is not answered.
    let first = tokio::time::timeout(PATIENCE, readers.join_next()).await.expect("all wait");
    let told = problem(&first.unwrap().unwrap(), 503);
    assert!(told.contains("64 requests wait"), "{told}");
    assert_eq!(read(&relay, "").await.0.len(), 0, "whoever does not wait is answered");
    post(&relay, 1..2).await;
    while let Some(answer) = tokio::time::timeout(PATIENCE, readers.join_next()).await.unwrap() {
        assert_eq!(answer.unwrap().status, 200);
    }
}

#[tokio::test]
async fn who_waits_is_answered_with_nothing_when_its_time_is_over() {
    let relay = Arc::new(Setup::default().feed("pull", "").start().await);
    let reader = waiting(&relay, "?after=7&wait=20s").await;
    let begun = relay.clock.now();
    let answer = relay.time_passes_until(Duration::from_secs(1), answered(reader)).await;
    assert_eq!(answer.text(), r#"{"items":[],"next":7}"#);
    assert!(relay.clock.now().since(begun) >= Duration::from_secs(20));
}

#[tokio::test]
async fn who_waits_is_answered_when_the_relay_ends() {
    let relay = Arc::new(Setup::default().feed("pull", "").start().await);
    let reader = waiting(&relay, "?wait=50s").await;
    relay.relay().drain();
    let answer = answered(reader).await;
    assert_eq!(answer.text(), r#"{"items":[],"next":0}"#);
}

#[tokio::test]
async fn a_reader_goes_on_where_it_was_after_a_restart() {
    let mut relay = Setup::default().feed("pull", "").start().await;
    post(&relay, 1..4).await;
    let (first, after, _) = read(&relay, "?limit=2").await;
    assert_eq!(first, ids(1..3));
    relay.stop().await;
    relay.restart().await;
    post(&relay, 4..5).await;
    assert_eq!(read(&relay, &format!("?after={after}")).await.0, ids(3..5));
}

#[tokio::test]
async fn a_reload_with_another_token_answers_who_waits_and_opens_to_the_new_one() {
    let mut relay = Setup::default()
        .feed("pull", "params: {feed_token: {file: token}}")
        .file("token", FEED_TOKEN)
        .file("other", "another")
        .start()
        .await;
    post(&relay, 1..2).await;
    relay.reload(|yaml| yaml.replace("{file: token}", "{file: other}")).await.unwrap();
    problem(&ask(&relay, "", FEED_TOKEN).await, 401);
    assert!(ask(&relay, "", "another").await.text().contains(&id(1)));
    // One that is rotated in its place is used at once.
    relay.write("other", "rotated");
    assert!(ask(&relay, "", "rotated").await.text().contains(&id(1)));
    problem(&ask(&relay, "", "another").await, 401);
    assert_eq!(relay.metric(r#"breaker_open{destination="pull"}"#).await, 0.0);
    assert_eq!(http::get(relay.relay().ops, "/livez").await.status, 200);
}

#[tokio::test]
async fn a_destination_that_becomes_a_feed_gives_what_waited_for_it() {
    let soar = FakeSoar::new([Mood::Status(503)]).await;
    let setup = Setup::default().destination("soar", &soar, "preset: webhook").env("T", FEED_TOKEN);
    let mut relay = setup.start().await;
    post(&relay, 1..3).await;
    soar.has_received(2).await;
    let changed = relay
        .reload(|yaml| {
            let start = yaml.find("    url:").unwrap();
            format!("{}    preset: feed\n    params: {{feed_token: {{env: T}}}}\n", &yaml[..start])
        })
        .await;
    changed.unwrap();
    // An attempt in flight ends first; what failed is due again later.
    let all = async {
        let (mut got, mut after) = (Vec::new(), 0);
        while got.len() < 2 {
            let (more, next, _) = read(&relay, &format!("?after={after}")).await;
            got.extend(more);
            after = next;
        }
        got.sort();
        got
    };
    assert_eq!(relay.time_passes_until(Duration::from_secs(1), all).await, ids(1..3));
}

#[tokio::test]
async fn what_nobody_reads_dies_of_its_age_and_comes_again_when_it_is_retried() {
    let relay = Setup::default().feed("pull", "retry: {max_age: 1h}").start().await;
    post(&relay, 1..3).await;
    let (_, after, _) = read(&relay, "").await;
    let dead = r#"dead_letters_total{destination="pull",reason="max_age"}"#;
    relay.clock.advance(Duration::from_secs(3601));
    relay.metric_is(dead, |dead| dead == 2.0).await;
    assert_eq!(read(&relay, "").await.0, ids(0..0));
    assert_eq!(read(&relay, &format!("?after={after}")).await.0, ids(0..0));
    assert_eq!(state(&relay, &id(1)).await, "dead", "nobody says that it has it");
    let (status, _) = relay.api("POST", &format!("/alerts/{}/retry", id(1))).await;
    assert_eq!(status, 200);
    let (again, last, _) = read(&relay, &format!("?after={after}")).await;
    assert_eq!(again, ids(1..2));
    read(&relay, &format!("?after={last}")).await;
    assert_eq!(state(&relay, &id(1)).await, "delivered");
    let (status, refusal) = relay.api("POST", &format!("/alerts/{}/retry", id(1))).await;
    assert_eq!(status, 409, "{refusal}");
    relay.api("POST", &format!("/alerts/{}/cancel", id(2))).await;
    relay.settled().await;
}

#[tokio::test]
async fn a_paused_feed_gives_nothing_until_it_is_resumed() {
    let relay = Arc::new(Setup::default().feed("pull", "").start().await);
    post(&relay, 1..2).await;
    relay.api("POST", "/destinations/pull/pause").await;
    assert_eq!(read(&relay, "").await.0, ids(0..0));
    let reader = waiting(&relay, "?wait=50s").await;
    relay.api("POST", "/destinations/pull/resume").await;
    let answer = answered(reader).await;
    assert!(answer.text().contains(&id(1)), "{}", answer.text());
}

#[tokio::test]
async fn nothing_can_be_sent_to_a_feed_as_a_test() {
    let relay = Setup::default().feed("pull", "").start().await;
    let (status, answer) = relay.api("POST", "/destinations/pull/test").await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("it is read"), "{answer}");
    assert_eq!(relay.api("POST", "/destinations/nobody/test").await.0, 404);
}

#[tokio::test]
async fn a_message_that_cannot_be_read_any_more_is_dead_and_stops_nobody() {
    log::keep();
    let mut relay = Setup::default().feed("pull", "").start().await;
    post(&relay, 1..4).await;
    relay.stop().await;
    let db = rusqlite::Connection::open(relay.dir().join("relay.db")).unwrap();
    for n in [1, 2] {
        db.execute("UPDATE messages SET raw = X'78' WHERE id = ?1", [n]).unwrap();
    }
    drop(db);
    relay.restart().await;
    assert_eq!(read(&relay, "?limit=1").await.0, ids(3..4), "behind those that cannot be read");
    assert_eq!([state(&relay, &id(1)).await, state(&relay, &id(3)).await], ["dead", "pending"]);
    let dead = r#"dead_letters_total{destination="pull",reason="refused"}"#;
    assert_eq!(relay.metric(dead).await, 2.0);
    assert!(logged(&id(2), "cannot be read"));
}

#[tokio::test]
async fn hostile_texts_come_through_a_feed_as_they_are() {
    let traps = "\"</script>\\\n\r\t{{ 1 }}%}\u{202e}\u{2028}\u{1f600}'},:1}] שלום";
    let relay = Setup::default().feed("pull", "").start().await;
    let mut message = slack::message(1);
    message["attachments"][0]["text"] = json!(traps);
    message["attachments"][0]["fields"][0]["value"] = json!(traps);
    message["attachments"][0]["fields"][2]["value"] = json!(traps);
    assert_eq!(relay.post(&slack::event(&message)).await, 200);
    let page = read(&relay, "").await.2;
    let alert = &page["items"][0]["alert"];
    assert_eq!(alert["attachment"]["text"], json!(traps));
    assert_eq!(alert["script"]["raw"], json!(traps));
    assert_eq!(alert["host_domain"]["raw"], json!(traps));
}

const CONFIG: &str = "server: {listen: '127.0.0.1:0', ops_listen: '127.0.0.1:0', drain_delay: 0s}
slack: {apps: [{name: main, signing_secret: {env: SECRET}}]}
destinations:
  - name: pull
    preset: feed
    params: {feed_token: {env: FEED_TOKEN}}
";

/// Runs the real binary on that configuration; returns its exit code and all that it said.
async fn run(yaml: &str, arguments: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("relay.yaml");
    std::fs::write(&config, yaml).unwrap();
    run_in(&config, arguments).await
}

async fn run_in(config: &std::path::Path, arguments: &[&str]) -> (i32, String) {
    let mut command = command();
    command.args(arguments).arg("--config").arg(config).env("FEED_TOKEN", FEED_TOKEN);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!text.contains(FEED_TOKEN), "{text}");
    (output.status.code().unwrap(), text)
}

#[tokio::test]
async fn check_render_and_doctor_know_what_a_feed_is() {
    let (code, said) = run(CONFIG, &["check"]).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(CONFIG, &["render", "--destination", "pull"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("GIVE feed://\nauthorization: ***\n\n{"), "{said}");
    assert!(said.contains(r#""ticket_id":"1600689944000500""#), "{said}");
    let (_, said) = run(CONFIG, &["doctor"]).await;
    let line = said.lines().find(|line| line.contains("destination pull")).unwrap();
    assert!(line.starts_with("ok  ") && line.contains("/api/v1/feed"), "{line}");
    let sending = CONFIG.to_owned() + "    concurrency: 2\n    timeout: 5s\n";
    let (code, said) = run(&sending, &["check"]).await;
    assert_eq!(code, 0, "{said}");
    let warned = said.matches("read, not sent to").count();
    assert_eq!(warned, 2, "{said}");
    for (wrong, words) in [
        (CONFIG.replace("params: {feed_token: {env: FEED_TOKEN}}", "params: {}"), "`feed_token`"),
        (CONFIG.replace("{env: FEED_TOKEN}", "plain"), "{env: NAME}"),
        (CONFIG.replace("{env: FEED_TOKEN}", "''"), "{env: NAME}"),
        (CONFIG.to_owned() + "    url: {env: SECRET}\n", "url"),
        (CONFIG.to_owned() + "    headers: {X-Team: soc}\n", "`headers`"),
    ] {
        let (code, said) = run(&wrong, &["check"]).await;
        assert_eq!(code, 2, "{wrong}: {said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(said.lines().count(), 1, "one mistake, one line: {said}");
    }
}

#[tokio::test]
async fn a_test_through_the_front_door_waits_for_its_reader() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("relay.yaml");
    std::fs::write(&config, CONFIG).unwrap();
    let env = [("FEED_TOKEN".to_owned(), FEED_TOKEN.to_owned())];
    let process = Process::start(dir.path(), &env);
    let (ops, public) = (format!("http://{}", process.ops), process.public);
    let url = format!("http://{public}/slack/events");
    let send = ["send-test", "--server", &ops, "--url", &url, "--wait", "0"];
    let (code, said) = run_in(&config, &send).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("pull: pending; delivered when a reader of this feed"), "{said}");
    let one = ["send-test", "--server", &ops, "--destination", "pull"];
    let (code, said) = run_in(&config, &one).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("nothing is sent to `pull`, it is read"), "{said}");
    let headers = [("Authorization".to_owned(), format!("Bearer {FEED_TOKEN}"))];
    let get = async |query: &str| {
        let path = format!("/api/v1/feed{query}");
        let answer = http::request(process.ops, "GET", &path, &headers, b"").await;
        serde_json::from_slice::<Value>(&answer.body).unwrap()
    };
    let page = get("").await;
    assert_eq!(page["items"][0]["alert"]["is_test"], true);
    get(&format!("?after={}", page["next"])).await;
    let list = ["alerts", "list", "--server", &ops, "--state", "delivered", "--json"];
    let (code, said) = run_in(&config, &list).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("main:"), "{said}");
}
