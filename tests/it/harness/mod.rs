//! The relay under test, with a Slack that signs and a SOAR that takes notes.

pub(crate) mod fake_slack;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod pushes;
pub(crate) mod slack;
pub(crate) mod soar;
pub(crate) mod world;

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use serde_json::Value;
use slack_soar_relay::{
    cli::serve::{ConfigFile, Relay},
    clock::{Clock, Timestamp},
    config,
};

use self::{
    fake_slack::{FakeSlack, TOKEN},
    soar::FakeSoar,
};

pub(crate) const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

pub(crate) const OPS_TOKEN: &str = "a-token-for-operators";

pub(crate) const FEED_TOKEN: &str = "a-token-for-readers";

/// No step of a test takes so long, unless something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A relay in this process, on a store in a temporary folder.
pub(crate) struct TestRelay {
    pub(crate) clock: Clock,
    dir: tempfile::TempDir,
    yaml: String,
    env: Vec<(String, String)>,
    relay: Option<Relay>,
}

/// Changes of a test to the usual configuration.
#[derive(Default)]
pub(crate) struct Setup {
    /// YAML of the destinations' list.
    destinations: String,
    env: Vec<(String, String)>,
    /// More top-level YAML.
    more: String,
    /// YAML of the apps' list, if not the usual one.
    apps: Option<String>,
    /// Files beside the configuration.
    files: Vec<(&'static str, String)>,
    /// YAML of `slack`, before the apps.
    slack: String,
    clock: Option<Clock>,
    /// More YAML of the listeners, in braces' style.
    server: String,
}

/// The moment at which tests begin.
pub(crate) const BEGIN: Timestamp = Timestamp::from_seconds(1_600_689_950);

impl Setup {
    /// A destination `name` with that preset; `more` are further keys, one a line.
    pub(crate) fn destination(mut self, name: &str, soar: &FakeSoar, more: &str) -> Self {
        let variable = format!("URL_{}", name.to_uppercase().replace('-', "_"));
        self.destinations.extend(["  - name: ", name, "\n"]);
        if !more.contains("url:") {
            self.destinations.extend(["    url: {env: ", &variable, "}\n"]);
        }
        if !more.contains("preset:") {
            self.destinations += "    preset: webhook\n";
        }
        for line in more.lines() {
            self.destinations.extend(["    ", line, "\n"]);
        }
        self.env.push((variable, soar.url()));
        self
    }

    /// A destination that is read with `FEED_TOKEN`; `more` are further keys, one a line.
    pub(crate) fn feed(mut self, name: &str, more: &str) -> Self {
        self.destinations.extend(["  - name: ", name, "\n    preset: feed\n"]);
        if !more.contains("params:") {
            self.destinations += "    params: {feed_token: {env: FEED_TOKEN}}\n";
        }
        for line in more.lines() {
            self.destinations.extend(["    ", line, "\n"]);
        }
        self.env("FEED_TOKEN", FEED_TOKEN)
    }

    pub(crate) fn more(mut self, yaml: &str) -> Self {
        self.more += yaml;
        self
    }

    /// A file beside the configuration.
    pub(crate) fn file(mut self, name: &'static str, contents: &str) -> Self {
        self.files.push((name, contents.to_owned()));
        self
    }

    /// Sets a variable of the environment for the configuration.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn apps(mut self, yaml: &str) -> Self {
        self.apps = Some(yaml.to_owned());
        self
    }

    /// An app that reads the history of these channels (YAML) from that Slack.
    pub(crate) fn catch_up(mut self, slack: &FakeSlack, channels: &str) -> Self {
        self.slack = format!("  api_url: {}\n", slack.api_url());
        self.clock = Some(slack.state().clock());
        self.apps(&format!(
            "    - {{name: main, signing_secret: {{env: SECRET}}, bot_token: {{env: TOKEN}}, \
             channels: {channels}}}\n"
        ))
    }

    /// YAML of `slack`, before the apps.
    pub(crate) fn slack(mut self, yaml: &str) -> Self {
        yaml.clone_into(&mut self.slack);
        self
    }

    /// More of `server`, such as `, ops_token: {env: OPS_TOKEN}`.
    pub(crate) fn server(mut self, yaml: &str) -> Self {
        self.server += yaml;
        self
    }

    pub(crate) async fn start(self) -> TestRelay {
        self.start_with_idle("10s").await
    }

    pub(crate) async fn start_with_idle(self, idle_timeout: &str) -> TestRelay {
        log::begin();
        let apps = self.apps.unwrap_or_else(|| {
            "    - {name: main, signing_secret: {env: SECRET}, channels: [C0123456789]}\n"
                .to_owned()
        });
        let server = if self.server.contains("ops_listen") {
            self.server
        } else {
            format!("{}, ops_listen: 127.0.0.1:0", self.server)
        };
        let yaml = format!(
            "server: {{listen: 127.0.0.1:0, drain_delay: 0s, idle_timeout: {idle_timeout}\
             {server}}}\nslack:\n{}  apps:\n{apps}destinations:\n{}{}",
            self.slack,
            if self.destinations.is_empty() { "  []\n" } else { &self.destinations },
            self.more
        );
        let mut env = self.env;
        env.push(("SECRET".to_owned(), SECRET.to_owned()));
        env.push(("OPS_TOKEN".to_owned(), OPS_TOKEN.to_owned()));
        env.push(("OTHER_SECRET".to_owned(), "another-signing-secret".to_owned()));
        env.push(("TOKEN".to_owned(), TOKEN.to_owned()));
        let clock = self.clock.unwrap_or_else(|| Clock::manual(BEGIN));
        let dir = tempfile::tempdir().unwrap();
        let mut relay = TestRelay { clock, dir, yaml, env, relay: None };
        for (name, contents) in self.files {
            relay.write(name, &contents);
        }
        relay.restart().await;
        relay
    }
}

impl TestRelay {
    /// Starts on the same files as before.
    pub(crate) async fn restart(&mut self) {
        let variables = self.env.clone();
        let env = move |name: &str| {
            let found = variables.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        let path = self.write("relay.yaml", &self.yaml);
        let loaded = config::load(&path, &env).unwrap_or_else(|problems| panic!("{problems}"));
        let mut relay = Relay::start(loaded.config, self.clock.clone()).await.unwrap();
        relay.follow(ConfigFile { path, env: Arc::new(env), sources: loaded.sources });
        self.relay = Some(relay);
    }

    /// Puts a file beside the configuration, whole at once, as whoever rotates a secret does.
    pub(crate) fn write(&self, name: &str, contents: &str) -> PathBuf {
        let (path, new) = (self.dir.path().join(name), self.dir.path().join("new"));
        fs::write(&new, contents).unwrap();
        fs::rename(new, &path).unwrap();
        path
    }

    /// Changes the configuration file; the relay does not know it yet.
    pub(crate) fn rewrite(&mut self, change: impl FnOnce(&str) -> String) {
        self.yaml = change(&self.yaml);
        self.write("relay.yaml", &self.yaml);
    }

    /// Changes the configuration file and has it read.
    pub(crate) async fn reload(
        &mut self,
        change: impl FnOnce(&str) -> String,
    ) -> Result<(), String> {
        self.rewrite(change);
        self.relay().reload().await
    }

    pub(crate) async fn stop(&mut self) {
        self.relay.take().unwrap().stop().await;
    }

    /// Changes the configuration for the next start.
    pub(crate) fn rename_destination(&mut self, from: &str, to: &str) {
        self.yaml = self.yaml.replace(&format!("- name: {from}\n"), &format!("- name: {to}\n"));
    }

    /// The configuration as it was last written.
    pub(crate) fn yaml(&self) -> &str {
        &self.yaml
    }

    /// Returns the folder of the relay's files.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) fn relay(&self) -> &Relay {
        self.relay.as_ref().unwrap()
    }

    pub(crate) fn public(&self) -> std::net::SocketAddr {
        self.relay().public
    }

    /// Posts an event to `/slack/events`, signed now.
    pub(crate) async fn post(&self, event: &Value) -> u16 {
        self.post_bytes(event.to_string().as_bytes()).await
    }

    /// Posts an event until it is taken: on a busy disk a commit may take longer than the relay
    /// has, and Slack sends it again after a 503.
    pub(crate) async fn post_as_slack_does(&self, event: &Value) {
        let taken = async {
            loop {
                match self.post(event).await {
                    200 => return,
                    503 => {}
                    other => panic!("{other}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("it is never taken");
    }

    pub(crate) async fn post_bytes(&self, body: &[u8]) -> u16 {
        self.post_to("/slack/events", SECRET, body).await
    }

    /// Posts a body, signed now.
    pub(crate) async fn post_to(&self, path: &str, secret: &str, body: &[u8]) -> u16 {
        let headers = slack::signed(secret, self.clock.now(), body);
        http::post(self.public(), path, &headers, body).await.status
    }

    /// A value of `/metrics`: that of the series `name{labels}`, or 0.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = http::get(self.relay().ops, "/metrics").await.text();
        let series = format!("slack_soar_relay_{series} ");
        let line = text.lines().find(|line| line.starts_with(&series));
        line.map_or(0.0, |line| line[series.len()..].parse().unwrap())
    }

    /// Waits until a series has such a value.
    pub(crate) async fn metric_is(&self, series: &str, is: impl Fn(f64) -> bool) -> f64 {
        let wait = async {
            loop {
                let value = self.metric(series).await;
                if is(value) {
                    return value;
                }
            }
        };
        if let Ok(value) = tokio::time::timeout(PATIENCE, wait).await {
            return value;
        }
        let (_, status) = self.api("GET", "/status").await;
        panic!("{series} stays as it is: {status}");
    }

    /// Lets the relay's time pass until something is so.
    pub(crate) async fn time_passes_until<F: Future>(&self, step: Duration, until: F) -> F::Output {
        tokio::pin!(until);
        for _ in 0..2_000 {
            match tokio::time::timeout(Duration::from_millis(10), until.as_mut()).await {
                Ok(output) => return output,
                Err(_not_yet) => self.clock.advance(step),
            }
        }
        panic!("it never became so");
    }

    /// Waits until the channel's history has been read to its end at this time or later.
    pub(crate) async fn caught_up_in(&self, channel: &str) {
        let now = self.clock.now().seconds_f64();
        let name = "catch_up_last_success_timestamp_seconds";
        let series = format!("{name}{{app=\"main\",channel=\"{channel}\"}}");
        self.metric_is(&series, |read_at| read_at >= now).await;
    }

    /// Lets second after second pass until history has been read to its end.
    pub(crate) async fn pass_until_caught_up(&self) {
        let begin = self.clock.now().seconds_f64();
        let name = "catch_up_last_success_timestamp_seconds";
        let series = format!("{name}{{app=\"main\",channel=\"{}\"}}", fake_slack::CHANNEL);
        let wait = async {
            while self.metric(&series).await < begin {
                // What is on its way arrives before its lease ends.
                self.relay().settled().await;
                self.clock.advance(Duration::from_secs(1));
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("never caught up");
    }

    pub(crate) async fn caught_up(&self) {
        self.caught_up_in(fake_slack::CHANNEL).await;
    }

    /// Asks the ops API as somebody on this machine, and gives back what it answers.
    pub(crate) async fn api(&self, method: &str, path: &str) -> (u16, Value) {
        let headers = [
            ("Host".to_owned(), "localhost".to_owned()),
            ("Content-Type".to_owned(), "application/json".to_owned()),
        ];
        let path = format!("/api/v1{path}");
        let answer = http::request(self.relay().ops, method, &path, &headers, b"").await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    /// Waits until nothing is pending or leased.
    pub(crate) async fn settled(&self) {
        tokio::time::timeout(PATIENCE, self.relay().settled()).await.expect("not settled");
    }
}
