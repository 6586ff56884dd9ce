//! `doctor` and `manifest`: the real binary, against a Slack in each broken state.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use slack_soar_relay::clock::Clock;

use crate::harness::{
    BEGIN, SECRET, Setup,
    fake_slack::{CHANNEL, Channel, FakeSlack, TOKEN, Trouble},
    http, slack,
    soar::FakeSoar,
};

const HEX_SECRET: &str = "8f742231b10e8888abcd99baaaa85a5f";

struct World {
    dir: tempfile::TempDir,
    slack: FakeSlack,
    soar: FakeSoar,
    channels: String,
    ops: String,
    env: Vec<(String, String)>,
}

impl World {
    async fn new() -> Self {
        let soar = FakeSoar::ok().await;
        let env = [("SIGNING", HEX_SECRET), ("TOKEN", TOKEN), ("URL", &soar.url())];
        Self {
            dir: tempfile::tempdir().unwrap(),
            slack: FakeSlack::new(Clock::system()).await,
            channels: format!("[{CHANNEL}]"),
            ops: "127.0.0.1:1".to_owned(),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            soar,
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    fn write(&self) {
        let yaml = format!(
            "server: {{listen: 127.0.0.1:2, ops_listen: '{}'}}\nslack:\n  api_url: {}\n  \
             apps:\n    - {{name: main, signing_secret: {{env: SIGNING}}, \
             bot_token: {{env: TOKEN}}, channels: {}}}\n\
             destinations:\n  - {{name: soar, preset: webhook, url: {{env: URL}}}}\n",
            self.ops,
            self.slack.api_url(),
            self.channels
        );
        std::fs::write(self.dir.path().join("relay.yaml"), yaml).unwrap();
    }

    /// Runs the doctor; returns its exit code and what it said.
    async fn doctor(&self) -> (i32, String) {
        self.write();
        let (code, out) = run(self.dir.path(), &["doctor"], &self.env).await;
        assert!(!out.contains("hunter2"), "{out}");
        (code, out)
    }

    /// The doctor exits 1, and one line that says FAIL has these words.
    async fn fails_with(&self, words: &[&str]) {
        let (code, out) = self.doctor().await;
        let is_it =
            |line: &&str| line.starts_with("FAIL") && words.iter().all(|word| line.contains(word));
        assert!(out.lines().any(|line| is_it(&line)), "{words:?} is not in\n{out}");
        assert_eq!(code, 1, "{out}");
    }
}

/// Runs the binary in a folder, on a thread of its own: the fakes live on this one.
async fn run(dir: &Path, arguments: &[&str], env: &[(String, String)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slack-soar-relay"));
    command.args(arguments).current_dir(dir).envs(env.iter().cloned());
    command.env_remove("RELAY_CONFIG");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

#[tokio::test]
async fn a_healthy_setup_passes_and_is_reminded_of_settings_that_slack_does_not_tell() {
    let world = World::new().await;
    let (code, out) = world.doctor().await;
    assert_eq!(code, 0, "{out}");
    let is_bad = |line: &str| line.starts_with("warn") || line.starts_with("FAIL");
    assert!(!out.lines().any(is_bad), "{out}");
    for line in ["store: none yet", "disk:", "token: valid", "scopes: complete", "clock: 0 s"] {
        assert!(out.contains(line), "{line} is not in\n{out}");
    }
    assert!(out.contains("the bot is in #cd_alerts") && out.contains("destination soar: http://"));
    assert!(out.contains("Delayed Events"), "{out}");
    assert!(world.soar.received().iter().all(|one| one.body.is_null()), "no case is opened");
    let (code, out) = run(world.dir.path(), &["doctor", "--json"], &world.env).await;
    let result: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &result["ok"]), (0, &json!(true)));
}

#[tokio::test]
async fn a_mail_server_is_tried_over_smtp_and_standard_output_always_passes() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = "slack: {apps: [{name: main, signing_secret: {env: SECRET}}]}
destinations:
  - {name: mail, preset: email, url: {env: MAIL}, params: {from: a@b.example, to: c@d.example}}
  - {name: out, preset: stdout}
";
    std::fs::write(dir.path().join("relay.yaml"), config).unwrap();
    let env = vec![
        ("SECRET".to_owned(), "8f742231b10e8888abcd99yyyzzz85a5".to_owned()),
        ("MAIL".to_owned(), format!("smtp://{address}")),
    ];
    let doctor = ["doctor", "--config", "relay.yaml"];
    let (_, out) = run(dir.path(), &doctor, &env).await;
    assert!(out.contains(&format!("destination mail: {address} takes connections")), "{out}");
    assert!(out.contains("destination out: writes to the relay's own output"), "{out}");
    drop(server);
    let (code, out) = run(dir.path(), &doctor, &env).await;
    let line = out.lines().find(|line| line.contains("destination mail")).unwrap();
    assert!(line.starts_with("FAIL") && line.contains("the mail server: "), "{out}");
    assert_eq!(code, 1);
}

#[tokio::test]
async fn a_dead_token_is_named_with_where_to_get_another() {
    let mut world = World::new().await;
    world.slack.revoke(Some("token_revoked"));
    world.fails_with(&["token_revoked", "Reinstall", "xoxb-"]).await;
    world.set("TOKEN", "xapp-1-hunter2");
    world.fails_with(&["invalid_auth", "another kind of token"]).await;
}

#[tokio::test]
async fn a_missing_scope_is_named_with_where_to_add_it() {
    let world = World::new().await;
    world.slack.state().scopes.retain(|scope| *scope != "groups:history");
    world.fails_with(&["missing: groups:history", "Add an OAuth Scope", "Reinstall"]).await;
}

#[tokio::test]
async fn a_channel_without_the_bot_is_named_with_how_to_invite_it() {
    let mut world = World::new().await;
    world.slack.state().channel(CHANNEL).member = false;
    world.fails_with(&["the bot is not in #cd_alerts", "/invite"]).await;
    world.slack.state().channel(CHANNEL).private = true;
    world.fails_with(&["channel_not_found", "/invite"]).await;
    world.channels = "[nowhere]".to_owned();
    world.fails_with(&["channel nowhere", "no such channel"]).await;
    world.channels = "[]".to_owned();
    world.fails_with(&["the bot is not in any channel", "/invite"]).await;
    let mut archived = Channel::new("C0000000007", "old");
    archived.archived = true;
    world.slack.state().channels.push(archived);
    world.channels = "[C0000000007]".to_owned();
    world.fails_with(&["#old is archived"]).await;
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_reported_before_pushes_are_refused() {
    let world = World::new().await;
    world.slack.state().skew_seconds = 600;
    world.fails_with(&["clock: -", "timedatectl"]).await;
    world.slack.state().skew_seconds = -90;
    let (code, out) = world.doctor().await;
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("warn  slack main, clock: 9"), "{out}");
}

#[tokio::test]
async fn a_slack_or_a_destination_out_of_reach_is_named() {
    let mut world = World::new().await;
    world.slack.trouble("auth.test", 0, Trouble::Status(503));
    world.fails_with(&["web api", "status 503", "firewall"]).await;
    world.set("URL", "http://127.0.0.1:1/hook?key=hunter2");
    world.fails_with(&["destination soar", "http://127.0.0.1:1", "firewall"]).await;
}

#[tokio::test]
async fn a_signing_secret_that_is_none_is_named_with_where_it_stands() {
    let mut world = World::new().await;
    world.set("SIGNING", TOKEN);
    world.fails_with(&["signing secret", "is a token", "Basic Information"]).await;
    world.set("SIGNING", "too-short");
    let (code, out) = world.doctor().await;
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("warn  slack main, signing secret"), "{out}");
}

#[tokio::test]
async fn a_damaged_store_is_named() {
    let world = World::new().await;
    std::fs::write(world.dir.path().join("relay.db"), "this is not a database at all").unwrap();
    world.fails_with(&["store:", "not a SQLite database"]).await;
}

#[tokio::test]
async fn beside_a_running_relay_a_wrong_signing_secret_shows() {
    let mut world = World::new().await;
    let relay = Setup::default().destination("soar", &world.soar, "").start().await;
    world.ops = relay.relay().ops.to_string();
    let (code, out) = world.doctor().await;
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("pushes to main: no verified request"), "{out}");
    let body = slack::incident(1).to_string().into_bytes();
    let headers = slack::signed("not-the-secret", relay.clock.now(), &body);
    assert_eq!(http::post(relay.public(), "/slack/events", &headers, &body).await.status, 401);
    world.fails_with(&["now: app main", "wrong signature", "Signing Secret"]).await;
    let headers = slack::signed(SECRET, relay.clock.now(), &body);
    assert_eq!(http::post(relay.public(), "/slack/events", &headers, &body).await.status, 200);
    relay.settled().await;
    assert_eq!(world.doctor().await.0, 0, "a stranger's request is not a fault");
}

#[tokio::test]
async fn the_doctor_reads_a_store_in_use_and_knows_a_renamed_channel_by_its_id() {
    let slack = FakeSlack::new(Clock::manual(BEGIN)).await;
    let soar = FakeSoar::ok().await;
    let setup = Setup::default().destination("soar", &soar, "");
    let mut relay = setup.catch_up(&slack, "[cd_alerts]").start().await;
    relay.caught_up().await;
    assert_eq!(relay.post(&slack::incident(1)).await, 200);
    slack.state().channel(CHANNEL).name = "renamed".to_owned();
    slack.state().skew_seconds = Clock::system().now().since(BEGIN).as_secs().try_into().unwrap();
    let yaml = format!(
        "server: {{ops_listen: '{}'}}\nslack:\n  api_url: {}\n  apps: [{{name: main, \
         signing_secret: {{env: SIGNING}}, bot_token: {{env: TOKEN}}, channels: [cd_alerts]}}]\n",
        relay.relay().ops,
        slack.api_url()
    );
    std::fs::write(relay.dir().join("doctor.yaml"), yaml).unwrap();
    let env = [("SIGNING", HEX_SECRET), ("TOKEN", TOKEN)];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (code, out) = run(relay.dir(), &["doctor", "--config", "doctor.yaml"], &env).await;
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("relay.db is intact"), "{out}");
    assert!(out.contains("the bot is in #renamed"), "{out}");
    relay.settled().await;
    relay.stop().await;
    let (code, out) = run(relay.dir(), &["doctor", "--config", "doctor.yaml"], &env).await;
    assert!(code == 0 && out.contains("relay.db is intact"), "{out}");
    assert!(out.contains("#renamed") && out.contains("none answers"), "{out}");
}

/// The keys of docs.slack.dev/reference/app-manifest that a manifest of ours may have.
const MANIFEST_KEYS: &[(&str, &[&str])] = &[
    ("", &["display_information", "features", "oauth_config", "settings"]),
    ("display_information", &["name", "description"]),
    ("features", &["bot_user"]),
    ("features.bot_user", &["display_name", "always_online"]),
    ("oauth_config", &["scopes"]),
    ("oauth_config.scopes", &["bot"]),
    (
        "settings",
        &[
            "event_subscriptions",
            "org_deploy_enabled",
            "socket_mode_enabled",
            "token_rotation_enabled",
        ],
    ),
    ("settings.event_subscriptions", &["request_url", "bot_events"]),
];

fn check_keys(at: &str, value: &Value) {
    let Some(object) = value.as_object() else {
        return;
    };
    let (_, allowed) = MANIFEST_KEYS.iter().find(|(path, _)| *path == at).expect(at);
    for (key, value) in object {
        assert!(allowed.contains(&key.as_str()), "{at}.{key}");
        check_keys(format!("{at}.{key}").trim_start_matches('.'), value);
    }
}

#[tokio::test]
async fn the_manifest_has_slacks_fields_and_needs_neither_a_configuration_nor_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let url = "https://relay.example.com/";
    let (code, out) = run(dir.path(), &["manifest", "--url", url, "--json"], &[]).await;
    assert_eq!(code, 0, "{out}");
    let manifest: Value = serde_json::from_str(&out).unwrap();
    check_keys("", &manifest);
    let subscriptions = &manifest["settings"]["event_subscriptions"];
    assert_eq!(subscriptions["request_url"], "https://relay.example.com/slack/events");
    let scopes = &manifest["oauth_config"]["scopes"]["bot"];
    let all = "channels:history channels:read groups:history groups:read incoming-webhook";
    assert_eq!(*scopes, json!(all.split(' ').collect::<Vec<_>>()));
    assert!(manifest["display_information"]["name"].as_str().unwrap().len() <= 35);
    let whole = "https://relay.example.com/slack/events";
    let (_, same) = run(dir.path(), &["manifest", "--url", whole, "--json"], &[]).await;
    assert_eq!(same, out);
    let (_, yaml) = run(dir.path(), &["manifest", "--url", url], &[]).await;
    assert!(yaml.contains("request_url: ") && yaml.contains("- message.groups"), "{yaml}");
    let config = "slack:\n  apps:\n    - {name: main, signing_secret: {env: A}, \
                  channels: [G0123456789]}\n    - {name: other, \
                  signing_secret: {env: B}, bot_token: {env: C}}\n";
    std::fs::write(dir.path().join("relay.yaml"), config).unwrap();
    let (code, out) = run(dir.path(), &["manifest", "--url", url], &[]).await;
    assert!(code == 2 && out.contains("--app main or other"), "{out}");
    let arguments = ["manifest", "--url", url, "--json", "--app", "main", "--no-incoming-webhook"];
    let (code, out) = run(dir.path(), &arguments, &[]).await;
    assert_eq!(code, 0, "{out}");
    let manifest: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(manifest["oauth_config"]["scopes"]["bot"], json!(["groups:history"]));
    let subscriptions = &manifest["settings"]["event_subscriptions"];
    assert_eq!(subscriptions["request_url"], "https://relay.example.com/slack/events/main");
    let events = json!(["message.groups", "app_uninstalled", "tokens_revoked"]);
    assert_eq!(subscriptions["bot_events"], events);
    let (code, out) =
        run(dir.path(), &["manifest", "--url", "http://relay.example.com"], &[]).await;
    assert!(code == 2 && out.contains("https://"), "{out}");
}
