//! The real binary: exit codes, signals, and what a `kill -9` costs.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Lines},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use slack_soar_relay::{
    clock::{Clock, Timestamp},
    destination::preset::Preset,
};
use tokio::sync::mpsc;

use crate::harness::{
    PATIENCE, SECRET,
    fake_slack::{CHANNEL, FakeSlack, TOKEN, Trouble},
    http,
    slack::{self, incident},
    soar::{FakeSoar, Mood},
};

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slack-soar-relay"));
    command.env("SECRET", SECRET).env("RELAY_CONFIG", "/nowhere/relay.yaml");
    command
}

pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command().args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A relay in a process of its own. It is killed when the test ends.
pub(crate) struct Process {
    child: Child,
    pub(crate) public: SocketAddr,
    pub(crate) ops: SocketAddr,
    log: mpsc::UnboundedReceiver<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    pub(crate) fn start(dir: &Path, env: &[(String, String)]) -> Self {
        Self::start_by(command(), dir, env)
    }

    /// Starts a relay by a command that ends in the command of the relay.
    pub(crate) fn start_by(command: Command, dir: &Path, env: &[(String, String)]) -> Self {
        let (mut process, lines) = Self::start_unread(command, dir, env);
        // A log that nobody reads must not stop the relay.
        let (lines_read, log) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| drop(lines_read.send(line)));
        });
        process.log = log;
        process
    }

    /// Through another program, which ends by running what its arguments say.
    pub(crate) fn start_in(
        mut other: Command,
        relay: &Command,
        dir: &Path,
        env: &[(String, String)],
    ) -> Self {
        other.arg(relay.get_program());
        for (name, value) in relay.get_envs() {
            other.env(name, value.unwrap_or_default());
        }
        Self::start_by(other, dir, env)
    }

    /// Starts a relay like [`Process::start_by`]; the log is not read, unless the caller does.
    fn start_unread(
        mut command: Command,
        dir: &Path,
        env: &[(String, String)],
    ) -> (Self, Lines<BufReader<ChildStderr>>) {
        let mut child = command
            .args(["serve", "--log-format", "json", "--config"])
            .arg(dir.join("relay.yaml"))
            .envs(env.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let started = loop {
            let Some(line) = lines.next() else { panic!("it never listened: {said:#?}") };
            let line = line.unwrap();
            if line.contains("listening on") {
                break line;
            }
            said.push(line);
        };
        let started: Value = serde_json::from_str(&started).unwrap();
        let address = |key: &str| started[key].as_str().unwrap().parse().unwrap();
        let (public, ops) = (address("public"), address("ops"));
        let (_, log) = mpsc::unbounded_channel();
        (Self { child, public, ops, log }, lines)
    }

    /// The lines of the log that hold this text, as far as the one for which `is_last` holds.
    pub(crate) async fn log_of(
        &mut self,
        text: &str,
        is_last: impl Fn(&Value) -> bool,
    ) -> Vec<Value> {
        let mut found = Vec::new();
        loop {
            let line = tokio::time::timeout(PATIENCE, self.log.recv()).await;
            let line = line.expect("the log does not say it").expect("the log has ended");
            let json: Value = serde_json::from_str(&line).expect("a line of the log is not JSON");
            if line.contains(text) {
                let ends = is_last(&json);
                found.push(json);
                if ends {
                    return found;
                }
            }
        }
    }

    /// Returns the most memory that it has had, in KiB, without the pages of its program file: the
    /// kernel takes those back before a limit is met, and a debug build has far more of them.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        value("VmHWM:") - value("RssFile:")
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Ends it at once.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as an operator does.
    pub(crate) fn terminate(&mut self) {
        self.signal("-TERM");
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }

    pub(crate) async fn post(&self, n: u32) -> Option<u16> {
        self.post_body(incident(n).to_string().as_bytes()).await
    }

    pub(crate) async fn post_body(&self, body: &[u8]) -> Option<u16> {
        let headers = slack::signed(SECRET, Clock::system().now(), body);
        let posted = http::try_post(self.public, "/slack/events", &headers, body).await;
        posted.map(|answer| answer.status)
    }
}

pub(crate) fn write_config(dir: &Path, destinations: &[&str]) {
    let mut yaml = "server: {listen: 127.0.0.1:0, ops_listen: 127.0.0.1:0, drain_delay: 0s}\n\
                    slack: {apps: [{name: main, signing_secret: {env: SECRET}}]}\n\
                    destinations:\n"
        .to_owned();
    for name in destinations {
        yaml.extend(["  - {name: ", name, ", preset: webhook, url: {env: URL_", name, "}}\n"]);
    }
    if destinations.is_empty() {
        yaml += "  []\n";
    }
    std::fs::write(dir.join("relay.yaml"), yaml).unwrap();
}

#[test]
fn the_demo_ends_with_0_and_shows_the_request() {
    let (code, out, _) = run(&["demo", "--once"]);
    assert_eq!(code, 0);
    assert!(out.contains("\"priority\": 80"), "{out}");
    assert!(out.contains("6. Delivered"), "{out}");
}

#[test]
fn check_finds_every_problem_and_exits_2() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay.yaml");
    let text = "slack: {apps: [{name: Main, signing_secret: plain}]}\nserver: {lisen: x}\n\
                destinations: [{name: a, preset: webhook, url: {env: URL}, timeout: 15}]\n";
    std::fs::write(&path, text).unwrap();
    let (code, out, _) = run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert_eq!(out.lines().count(), 5, "{out}");
    assert!(out.contains("relay.yaml:2:"), "{out}");
    assert!(!out.contains("plain"), "{out}");
    let (code, _, err) = run(&["serve", "--config", path.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert_eq!(err.lines().count(), 5, "{err}");
}

#[test]
fn a_usage_error_exits_2_and_help_exits_0() {
    assert_eq!(run(&["serv"]).0, 2);
    assert_eq!(run(&["--help"]).0, 0);
    let version = format!("slack-soar-relay {}\n", env!("CARGO_PKG_VERSION"));
    for place in [&[][..], &["serve"], &["alerts", "list"]] {
        let (code, out, _) = run(&[place, &["--version"]].concat());
        assert_eq!((code, &out), (0, &version), "{place:?}");
    }
    assert_eq!(run(&["check"]).0, 2, "the file does not exist");
    assert_eq!(run(&["render", "--preset", "nope"]).0, 2);
}

#[test]
fn schema_and_render_need_no_configuration() {
    let (code, out, _) = run(&["schema"]);
    let schema: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &schema["additionalProperties"]), (0, &serde_json::json!(false)));
    for preset in ["webhook", "google-secops-webhook"] {
        let (code, out, err) = run(&["render", "--preset", preset]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("1600689944000500"), "{out}");
    }
}

#[test]
fn a_preset_of_presets_dir_is_rendered_without_recompiling() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = "slack: {apps: [{name: main, signing_secret: {env: SECRET}}]}\n\
                presets_dir: own\n\
                destinations: [{name: mine, preset: own-soar, url: {env: SECRET_URL},\n  \
                params: {token: {env: SECRET}}}]\n";
    std::fs::write(dir.path().join("relay.yaml"), yaml).unwrap();
    std::fs::create_dir(dir.path().join("own")).unwrap();
    let preset = "preset: own-soar\nabout: x\nparams: {token: {type: secret, help: x}}\n\
                  auth: [{header: {name: X-Token, value: '{{ params.token }}'}}]\n\
                  request: {body: '[{{ alert.ticket_id }}, {{ params.token }}]'}\n";
    std::fs::write(dir.path().join("own/own-soar.yaml"), preset).unwrap();
    let config = dir.path().join("relay.yaml");
    let shown = command()
        .env("SECRET_URL", "https://soar.example.com/in")
        .args(["render", "--destination", "mine", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    let out = String::from_utf8(shown.stdout).unwrap();
    assert!(out.contains("x-token: ***"), "{out}");
    assert!(out.contains(r#"["1600689944000500", "***"]"#), "{out}");
}

#[test]
fn every_preset_is_rendered_without_a_configuration() {
    for preset in Preset::builtin_names() {
        let (code, out, err) = run(&["render", "--json", "--preset", preset]);
        assert_eq!(code, 0, "{preset}: {err}");
        let request: Value = serde_json::from_str(&out).unwrap();
        assert!(request["body"].is_object(), "{preset}: {out}");
    }
}

#[test]
fn a_corrupt_store_is_said_clearly_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let store = dir.path().join("relay.db");
    std::fs::write(&store, "this is not a database, whatever its name says").unwrap();
    let config = dir.path().join("relay.yaml");
    let (code, _, err) = run(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("relay.db"), "{err}");
    assert!(std::fs::read_to_string(&store).unwrap().starts_with("this is not a database"));
}

#[tokio::test]
async fn stdout_gets_each_alert_as_a_line_of_json() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let config = dir.path().join("relay.yaml");
    let yaml = std::fs::read_to_string(&config).unwrap();
    let (start, _) = yaml.split_once("destinations:").unwrap();
    let yaml = format!("{start}destinations: [{{name: shown, preset: stdout}}]\n");
    std::fs::write(&config, yaml).unwrap();
    let mut process = Process::start(dir.path(), &[]);
    assert_eq!(process.post(1).await, Some(200));
    assert_eq!(process.post(2).await, Some(200));
    let lines = BufReader::new(process.child.stdout.take().unwrap()).lines().take(2);
    let lines = tokio::task::spawn_blocking(|| lines.map(Result::unwrap).collect::<Vec<_>>());
    let mut ids: Vec<Value> = lines.await.unwrap().iter().map(|line| id_of(line)).collect();
    ids.sort_by_key(ToString::to_string);
    assert_eq!(ids, [slack::id(1), slack::id(2)]);
}

fn id_of(line: &str) -> Value {
    serde_json::from_str::<Value>(line).unwrap()["id"].clone()
}

#[tokio::test]
async fn sigterm_ends_with_0_and_a_second_relay_on_the_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let mut process = Process::start(dir.path(), &[]);
    assert_eq!(http::get(process.ops, "/readyz").await.status, 200);
    let config = dir.path().join("relay.yaml");
    let (code, _, err) = run(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(code, 1, "{err}");
    process.signal("-TERM");
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn healthcheck_says_whether_the_relay_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let process = Process::start(dir.path(), &[]);
    let url = format!("http://{}/readyz", process.ops);
    assert_eq!(run(&["healthcheck", &url]), (0, "ok\n".to_owned(), String::new()));
    let (code, _, err) = run(&["healthcheck", &format!("http://{}/readyz", process.public)]);
    assert_eq!(code, 1, "{err}");
    drop(process);
    let (code, _, err) = run(&["healthcheck", &url]);
    assert_eq!((code, err), (1, format!("{url} does not answer\n")));
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_by_five_kills_while_a_destination_is_down() {
    const ALERTS: u32 = 200;
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &["up", "down"]);
    let (up, down) = (FakeSoar::ok().await, FakeSoar::new([Mood::Status(503)]).await);
    let env = [("URL_up".to_owned(), up.url()), ("URL_down".to_owned(), down.url())];
    let mut process = Process::start(dir.path(), &env);
    for n in 0..ALERTS {
        loop {
            match process.post(n).await {
                Some(200) => break,
                // A 503 of a busy machine: it lives, and holds the store.
                Some(_) => {}
                None => {
                    drop(process);
                    process = Process::start(dir.path(), &env);
                }
            }
        }
        if n % 40 == 20 {
            process.signal("-KILL");
        }
    }
    down.becomes(Mood::Status(200));
    let expected: Vec<String> = (0..ALERTS).map(slack::id).collect();
    for soar in [&up, &down] {
        let counts = until_all(soar, &expected).await;
        // At a kill at most `concurrency` attempts are in flight.
        let extra: usize = counts.values().map(|count| count - 1).sum();
        assert!(extra <= 5 * 4, "{extra} were sent twice");
    }
}

#[tokio::test]
async fn a_kill_between_two_pages_of_history_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let (slack, soar) = (FakeSlack::new(clock.clone()).await, FakeSoar::ok().await);
    let hour_ago = clock.now() - Duration::from_secs(3600);
    let mut expected = Vec::new();
    for n in 0..450 {
        let at = hour_ago + Duration::from_secs(n);
        let message = slack.state().post_at(CHANNEL, at, slack::message(0));
        expected.push(format!("main:{CHANNEL}:{}:0", message["ts"].as_str().unwrap()));
    }
    slack.trouble("conversations.history", 1, Trouble::Hang);
    let yaml = format!(
        "server: {{listen: 127.0.0.1:0, ops_listen: 127.0.0.1:0, drain_delay: 0s}}\n\
         slack:\n  api_url: {}\n  apps: [{{name: main, signing_secret: {{env: SECRET}}, \
         bot_token: {{env: TOKEN}}, channels: [{CHANNEL}]}}]\n\
         destinations: [{{name: up, preset: webhook, url: {{env: URL_up}}}}]\n",
        slack.api_url()
    );
    std::fs::write(dir.path().join("relay.yaml"), yaml).unwrap();
    let env = [("URL_up".to_owned(), soar.url()), ("TOKEN".to_owned(), TOKEN.to_owned())];
    let process = Process::start(dir.path(), &env);
    slack.has_answered(3).await;
    process.signal("-KILL");
    let process = Process::start(dir.path(), &env);
    let counts = until_all(&soar, &expected).await;
    let extra: usize = counts.values().map(|count| count - 1).sum();
    assert!(extra <= 4, "{extra} were sent twice, more than were in flight");
    drop(process);
}

/// Waits until the SOAR has taken all of them; returns how often each was taken.
pub(crate) async fn until_all(soar: &FakeSoar, expected: &[String]) -> BTreeMap<String, usize> {
    let started: Timestamp = Clock::system().now();
    let mut seen = 0;
    loop {
        let mut counts = BTreeMap::new();
        for id in soar.taken() {
            *counts.entry(id).or_insert(0) += 1;
        }
        if expected.iter().all(|id| counts.contains_key(id)) {
            assert_eq!(counts.len(), expected.len(), "{counts:?}, expected {expected:?}");
            return counts;
        }
        let took = Clock::system().now().since(started).as_secs();
        assert!(took < 90, "{} of {} after {took} s", counts.len(), expected.len());
        seen = soar.more_than(seen).await;
    }
}

#[tokio::test]
async fn one_grep_by_its_id_follows_an_alert_from_slack_to_the_soar() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &["soar"]);
    let soar = FakeSoar::new([Mood::Status(500), Mood::Status(200)]).await;
    let mut process = Process::start(dir.path(), &[("URL_soar".to_owned(), soar.url())]);
    let body = incident(1).to_string().into_bytes();
    let mut headers = slack::signed(SECRET, Clock::system().now(), &body);
    headers.push(("X-Slack-Retry-Num".to_owned(), "1".to_owned()));
    headers.push(("X-Slack-Retry-Reason".to_owned(), "http_timeout".to_owned()));
    headers.push(("X-Request-Id".to_owned(), "req-7".to_owned()));
    let posted = http::post(process.public, "/slack/events", &headers, &body).await;
    assert_eq!(posted.status, 200);
    let mut story = process.log_of(&slack::id(1), |line| line["outcome"] == "delivered").await;
    // Two tasks write: the first attempt may end while the accept is still on its way to the log.
    story.sort_by_key(|line| line["attempt"].as_u64());
    let outcomes: Vec<&Value> = story.iter().map(|line| &line["outcome"]).collect();
    assert_eq!(outcomes, ["accepted", "destination_fault", "delivered"], "{story:#?}");
    for (key, value) in [
        ("alert_id", json!(slack::id(1))),
        ("request_id", json!("req-7")),
        ("slack.channel", json!("C0123456789")),
        ("slack.event_id", json!("Ev0RELAY0001")),
        ("slack.team_id", json!("T0RELAYTEAM")),
        ("slack.ts", json!("1600689100.000002")),
        ("slack.retry_num", json!("1")),
        ("slack.retry_reason", json!("http_timeout")),
    ] {
        assert_eq!(story[0][key], value, "{key}");
    }
    assert!(story[0]["duration_ms"].is_u64());
    for (attempt, line) in (1..).zip(&story[1..]) {
        assert_eq!(line["alert_id"], slack::id(1));
        assert_eq!(line["destination"], "soar");
        assert_eq!(line["attempt"], attempt);
    }
    assert_eq!(story[1]["status"], 500);
    for secret in [SECRET, "hunter2"] {
        assert!(story.iter().all(|line| !line.to_string().contains(secret)));
    }
}

#[tokio::test]
async fn sighup_takes_a_changed_file_into_use_and_a_broken_one_not() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &["first"]);
    let (first, second) = (FakeSoar::ok().await, FakeSoar::ok().await);
    let env = [("URL_first".to_owned(), first.url()), ("URL_second".to_owned(), second.url())];
    let mut process = Process::start(dir.path(), &env);
    std::fs::write(dir.path().join("relay.yaml"), "destinations: none\n").unwrap();
    process.signal("-HUP");
    let refused = process.log_of("is refused", |_first| true).await;
    assert!(refused[0]["reason"].as_str().unwrap().contains("relay.yaml"), "{refused:?}");
    write_config(dir.path(), &["second"]);
    process.signal("-HUP");
    let taken = process.log_of("is in use", |_first| true).await;
    assert_eq!((&taken[0]["added"], &taken[0]["removed"]), (&json!("second"), &json!("first")));
    assert_eq!(process.post(1).await, Some(200));
    second.has_received(1).await;
}

/// Fills the pipe, the buffer, and what is being written, several times over.
async fn fill_the_log(relay: &Process) {
    for n in 0..800 {
        let mut event = incident(n);
        // Each is logged with the id of its event.
        event["event_id"] = json!("E".repeat(4_000));
        assert_eq!(relay.post_body(event.to_string().as_bytes()).await, Some(200), "{n}");
    }
}

async fn dropped_lines(relay: &Process) -> f64 {
    let name = "slack_soar_relay_log_lines_dropped_total ";
    let wait = async {
        loop {
            let metrics = http::get(relay.ops, "/metrics").await.text();
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let dropped: f64 = line.parse().unwrap();
            if dropped > 0.0 {
                return dropped;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("no line was dropped")
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_neither_posts_nor_probes_nor_the_end() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let (mut relay, unread) = Process::start_unread(command(), dir.path(), &[]);
    fill_the_log(&relay).await;
    dropped_lines(&relay).await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(http::get(relay.ops, path).await.status, 200, "{path}");
    }
    relay.signal("-TERM");
    let ended = tokio::task::spawn_blocking(move || relay.child.wait().unwrap().code());
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it does not end");
    assert_eq!(ended.unwrap(), Some(0));
    drop(unread);
}

#[tokio::test]
async fn a_log_that_is_read_again_says_once_how_many_lines_are_missing() {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &[]);
    let (relay, lines) = Process::start_unread(command(), dir.path(), &[]);
    fill_the_log(&relay).await;
    let dropped = dropped_lines(&relay).await;
    let read = tokio::task::spawn_blocking(move || {
        let lines = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let mut accepted = 0;
        for line in lines {
            if let Some(missing) = line["lines"].as_f64() {
                return (accepted, missing, line);
            }
            accepted += i32::from(line["outcome"] == "accepted");
        }
        panic!("it is not said");
    });
    let (accepted, missing, line) =
        tokio::time::timeout(PATIENCE, read).await.expect("it is not said").unwrap();
    assert_eq!(line["level"], "WARN");
    assert!(missing >= dropped, "{line}");
    assert_eq!(f64::from(accepted) + missing, 800.0, "every line is written or counted");
}

#[tokio::test]
async fn an_output_that_nobody_reads_holds_one_thread_and_delays_no_other_destination() {
    let dir = tempfile::tempdir().unwrap();
    let soar = FakeSoar::ok().await;
    write_config(dir.path(), &["soar"]);
    let path = dir.path().join("relay.yaml");
    let yaml = std::fs::read_to_string(&path).unwrap();
    let more = "  - {name: out, preset: stdout, timeout: 1s, concurrency: 8}\n";
    std::fs::write(&path, yaml + more).unwrap();
    let relay = Process::start(dir.path(), &[("URL_soar".to_owned(), soar.url())]);
    for n in 0..40 {
        let mut message = slack::message(n);
        message["attachments"][0]["text"] = json!("x".repeat(20_000));
        let body = slack::event(&message).to_string();
        assert_eq!(relay.post_body(body.as_bytes()).await, Some(200));
    }
    soar.has_received(40).await;
    let series = r#"delivery_attempts_total{destination="out",class="timeout"}"#;
    let wait = async {
        loop {
            let metrics = http::get(relay.ops, "/metrics").await.text();
            let line = metrics.lines().find(|line| line.contains(series)).unwrap_or("0 0");
            let timeouts: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            if timeouts >= 5.0 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("no attempt timed out");
    let threads = std::fs::read_dir(format!("/proc/{}/task", relay.child.id())).unwrap();
    let names = threads
        .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    assert_eq!(names.filter(|name| name.trim() == "stdout").count(), 1);
    assert_eq!(http::get(relay.ops, "/livez").await.status, 200);
}

#[tokio::test]
async fn a_signed_message_of_a_million_attachments_or_incidents_takes_little_memory() {
    const TITLED: &str = r#"{"title":"Code Defender has detected a new incident"}"#;
    let soar = FakeSoar::ok().await;
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &["soar"]);
    let relay = Process::start(dir.path(), &[("URL_soar".to_owned(), soar.url())]);
    let mut second = 0;
    let mut body = |items: &str| {
        second += 1;
        format!(
            r#"{{"type":"event_callback","event":{{"type":"message","channel":"{CHANNEL}",
            "bot_id":"B1","ts":"16006899{second:02}.000500","attachments":[{items}]}}}}"#
        )
    };
    let fill = |item: &str| vec![item; (4 * 1024 * 1024 - 512) / (item.len() + 1)].join(",");
    let empty = format!("{},{TITLED}", fill("{}"));
    for _ in 0..3 {
        post_as_slack_does(&relay, &body(&empty)).await;
    }
    post_as_slack_does(&relay, &body(&fill(TITLED))).await;
    let wanted = 3 + 101;
    for known in 0..wanted {
        assert!(soar.more_than(known).await > known, "{known} alerts of {wanted} have arrived");
    }
    let received = soar.received();
    let rest = received.iter().find(|one| one.header("idempotency-key").ends_with(":100"));
    assert_eq!(rest.unwrap().body["parse_problems"][0], "too_many");
    let used = relay.peak_memory_kib();
    assert!(used < 100 * 1024, "{used} KiB");
}

/// Posts until it is taken: a slow disk may need more than one try for megabytes, as in production.
pub(crate) async fn post_as_slack_does(relay: &Process, body: &str) {
    for _ in 0..50 {
        if relay.post_body(body.as_bytes()).await == Some(200) {
            return;
        }
    }
    panic!("the message is not taken");
}
