//! A changed configuration while the relay runs: what is replaced, what goes on, what is refused.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Setup, TestRelay, http,
    slack::{self, id, incident},
    soar::{FakeSoar, Mood},
};

const SECOND: Duration = Duration::from_secs(1);
const RELOADED: &str = "config_last_reload_successful";

fn deliveries(destination: &str, state: &str) -> String {
    format!(r#"deliveries{{destination="{destination}",state="{state}"}}"#)
}

fn breaker(destination: &str) -> String {
    format!(r#"breaker_open{{destination="{destination}"}}"#)
}

/// A destination `second` beside the first one.
fn with_second(yaml: &str) -> String {
    let second = "  - {name: second, preset: webhook, url: {env: SECOND_URL}}\n";
    yaml.replace("destinations:\n", &format!("destinations:\n{second}"))
}

fn without_first(yaml: &str) -> String {
    let from = yaml.find("  - name: first").unwrap();
    format!("{}{}", &yaml[..from], if yaml.contains("name: second") { "" } else { "  []\n" })
}

async fn start(first: &FakeSoar, second: &FakeSoar) -> TestRelay {
    let setup = Setup::default().destination("first", first, "").env("SECOND_URL", &second.url());
    let setup = setup.env("DB", "postgresql://relay:secret@db.example.com/relay");
    setup.start().await
}

async fn configuration(relay: &TestRelay) -> Value {
    relay.api("GET", "/status").await.1["configuration"].clone()
}

#[tokio::test]
async fn a_second_app_leaves_the_first_ones_url_as_it_is() {
    let (first, second) = (FakeSoar::ok().await, FakeSoar::ok().await);
    let mut relay = start(&first, &second).await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    let other = "  apps:\n    - {name: other, signing_secret: {env: OTHER_SECRET}}\n";
    relay.reload(|yaml| yaml.replace("  apps:\n", other)).await.unwrap();
    assert_eq!(relay.post(&incident(2)).await, 200);
    let same = relay.reload(|yaml| yaml.replace("OTHER_SECRET", "SECRET")).await.unwrap_err();
    assert!(same.contains("slack.apps[0].team: `team` is missing"), "{same}");
    assert!(same.contains("slack.apps[1].team: `team` is missing"), "{same}");
    assert_eq!(relay.post(&incident(3)).await, 200, "the last good one stays");
    relay.settled().await;
    assert_eq!(first.received().len(), 3);
}

#[tokio::test]
async fn a_new_destination_works_at_once_and_an_unchanged_one_keeps_its_breaker() {
    let (first, second) = (FakeSoar::new([Mood::Status(500)]).await, FakeSoar::ok().await);
    let mut relay = start(&first, &second).await;
    for n in 0..5 {
        assert_eq!(relay.post(&incident(n)).await, 200);
    }
    relay.time_passes_until(SECOND, relay.metric_is(&breaker("first"), |open| open == 1.0)).await;
    relay.reload(with_second).await.unwrap();
    assert_eq!(relay.metric(&breaker("first")).await, 1.0);
    assert_eq!(relay.post(&incident(5)).await, 200);
    second.has_received(1).await;
    assert_eq!(second.ids(), [id(5)], "what was accepted before was not for it");
    relay
        .reload(|yaml| yaml.replace("- name: first\n", "- name: first\n    timeout: 5s\n"))
        .await
        .unwrap();
    first.becomes(Mood::Status(200));
    relay.time_passes_until(SECOND, relay.settled()).await;
    assert_eq!(relay.metric(&breaker("first")).await, 0.0);
    assert_eq!(http::get(relay.relay().ops, "/livez").await.status, 200);
}

#[tokio::test]
async fn a_removed_destination_with_pending_deliveries_keeps_them_as_orphans() {
    let (first, second) = (FakeSoar::new([Mood::Status(500)]).await, FakeSoar::ok().await);
    let mut relay = start(&first, &second).await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    first.has_received(1).await;
    relay.metric_is(&deliveries("first", "pending"), |pending| pending == 1.0).await;
    relay.reload(|yaml| without_first(&with_second(yaml))).await.unwrap();
    let attempts = first.received().len();
    assert_eq!(relay.metric(&deliveries("first", "orphaned")).await, 1.0);
    assert_eq!(relay.metric(&deliveries("first", "pending")).await, 0.0);
    let (_, status) = relay.api("GET", "/status").await;
    let destinations = status["destinations"].as_array().unwrap();
    let first_status = destinations.iter().find(|one| one["name"] == "first").unwrap();
    assert_eq!(first_status["configured"], false);
    assert_eq!(relay.post(&incident(2)).await, 200);
    second.has_received(1).await;
    relay.clock.advance(Duration::from_secs(60));
    relay.metric_is(&deliveries("second", "pending"), |pending| pending == 0.0).await;
    assert_eq!(first.received().len(), attempts, "nobody attempts what is orphaned");
    first.becomes(Mood::Status(200));
    let back = "  - {name: first, preset: webhook, url: {env: URL_FIRST}}\n";
    relay.reload(|yaml| format!("{yaml}{back}")).await.unwrap();
    relay.time_passes_until(SECOND, relay.settled()).await;
    assert_eq!(first.taken(), [id(1)]);
    assert_eq!(relay.metric(&deliveries("first", "orphaned")).await, 0.0);
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_the_reason_is_told() {
    let (first, second) = (FakeSoar::ok().await, FakeSoar::ok().await);
    let mut relay = start(&first, &second).await;
    assert_eq!(relay.metric(RELOADED).await, 1.0);
    for (broken, reason) in [
        ("destinations: [", "is not valid YAML"),
        ("destination: []\n", "did you mean"),
        ("", "not empty"),
    ] {
        let told = relay.reload(|_good| broken.to_owned()).await.unwrap_err();
        assert!(told.contains("relay.yaml") && told.contains(reason), "{told}");
        assert_eq!(relay.metric(RELOADED).await, 0.0);
        let configuration = configuration(&relay).await;
        assert_eq!(configuration["is_newest"], false);
        assert_eq!(configuration["refused_reason"], told);
    }
    assert_eq!(relay.post(&incident(1)).await, 200);
    first.has_received(1).await;
    let good = "server: {listen: 127.0.0.1:0, ops_listen: 127.0.0.1:0}\nslack: {apps: [{name: \
                main, signing_secret: {env: SECRET}}]}\ndestinations: [{name: second, preset: \
                webhook, url: {env: SECOND_URL}}]\n";
    relay.reload(|_broken| good.to_owned()).await.unwrap();
    assert_eq!(relay.metric(RELOADED).await, 1.0);
    assert_eq!(configuration(&relay).await["is_newest"], true);
    assert_eq!(relay.post(&incident(2)).await, 200);
    second.has_received(1).await;
    relay.settled().await;
}

#[tokio::test]
async fn a_refused_file_is_tried_again_also_after_the_clock_was_set_back() {
    let (first, second) = (FakeSoar::ok().await, FakeSoar::ok().await);
    let mut relay = start(&first, &second).await;
    let missing = relay.dir().join("url");
    let more = "  - {name: more, preset: webhook, url: {file: url}}\n";
    let told = relay.reload(|yaml| format!("{yaml}{more}")).await.unwrap_err();
    assert!(told.contains("url"), "{told}");
    // A file that was not there is no source that could have changed.
    relay.clock.jump(relay.clock.now() - Duration::from_secs(24 * 3600));
    std::fs::write(missing, second.url()).unwrap();
    relay.time_passes_until(SECOND, relay.metric_is(RELOADED, |ok| ok == 1.0)).await;
    assert_eq!(configuration(&relay).await["is_newest"], true);
}

#[tokio::test]
async fn one_invalid_destination_refuses_the_whole_file() {
    let (first, second) = (FakeSoar::ok().await, FakeSoar::ok().await);
    let mut relay = start(&first, &second).await;
    let told =
        relay.reload(|yaml| with_second(yaml).replace("SECOND_URL", "NOWHERE")).await.unwrap_err();
    assert!(told.contains("NOWHERE is not set"), "{told}");
    assert_eq!(relay.post(&incident(1)).await, 200);
    first.has_received(1).await;
    relay.settled().await;
    assert_eq!(relay.api("GET", "/status").await.1["destinations"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_change_while_it_runs_is_refused_by_name() {
    let (first, second) = (FakeSoar::ok().await, FakeSoar::ok().await);
    let mut relay = start(&first, &second).await;
    let good = relay.yaml().to_owned();
    for (from, to, key) in [
        ("{listen: 127.0.0.1:0", "{listen: 127.0.0.1:1", "`server.listen`"),
        ("ops_listen: 127.0.0.1:0", "ops_listen: 127.0.0.1:1", "`server.ops_listen`"),
        ("destinations:", "store: {sqlite: {path: other.db}}\ndestinations:", "`store`"),
        ("destinations:", "store: {postgres: {url: {env: DB}}}\ndestinations:", "`store`"),
        ("destinations:", "delivery: {lease: 120s}\ndestinations:", "`delivery.lease`"),
    ] {
        let told = relay.reload(|yaml| with_second(&yaml.replace(from, to))).await.unwrap_err();
        assert!(told.contains(key) && told.contains("restart"), "{told}");
        relay.rewrite(|_refused| good.clone());
    }
    assert_eq!(relay.post(&incident(1)).await, 200);
    first.has_received(1).await;
    relay.settled().await;
    assert_eq!(second.received().len(), 0, "nothing of a refused file is in use");
}

#[tokio::test]
async fn a_changed_file_is_noticed_even_behind_a_symbolic_link() {
    let (first, second) = (FakeSoar::ok().await, FakeSoar::ok().await);
    let mut relay = start(&first, &second).await;
    let path = relay.write("relay.yaml", relay.yaml());
    let versions = path.parent().unwrap().join("..data");
    std::fs::create_dir(&versions).unwrap();
    std::fs::write(versions.join("relay.yaml"), with_second(relay.yaml())).unwrap();
    let link = path.with_extension("link");
    std::os::unix::fs::symlink("..data/relay.yaml", &link).unwrap();
    std::fs::rename(link, &path).unwrap();
    let is_there = async {
        while relay.api("GET", "/status").await.1["destinations"].as_array().unwrap().len() < 2 {}
    };
    relay.time_passes_until(SECOND, is_there).await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    second.has_received(1).await;
    relay.settled().await;
    relay.rewrite(|_yaml| "rubbish".to_owned());
    relay.time_passes_until(SECOND, relay.metric_is(RELOADED, |ok| ok == 0.0)).await;
}

#[tokio::test]
async fn a_preset_of_ones_own_is_read_again_when_its_file_changes() {
    let soar = FakeSoar::ok().await;
    let preset = |word: &str| {
        format!("preset: mine\nabout: mine\nrequest: {{body: '{{\"say\": \"{word}\"}}'}}\n")
    };
    let relay = Setup::default()
        .destination("soar", &soar, "preset: mine")
        .more("presets_dir: .\n")
        .file("mine.yaml", &preset("before"))
        .start()
        .await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    soar.has_received(1).await;
    relay.settled().await;
    relay.write("mine.yaml", &preset("after"));
    let since = configuration(&relay).await["in_use_since"].clone();
    let reloaded = async { while configuration(&relay).await["in_use_since"] == since {} };
    relay.time_passes_until(SECOND, reloaded).await;
    assert_eq!(relay.post(&incident(2)).await, 200);
    let received = soar.has_received(2).await;
    let said: Vec<&str> = received.iter().map(|one| one.body["say"].as_str().unwrap()).collect();
    assert_eq!(said, ["before", "after"]);
    relay.settled().await;
}

#[tokio::test]
async fn apps_titles_and_routes_are_those_of_the_newest_file() {
    let (first, second) = (FakeSoar::ok().await, FakeSoar::ok().await);
    let mut relay = start(&first, &second).await;
    let titles = "match: {titles: [Another title]}\ndestinations:\n";
    relay.reload(|yaml| yaml.replace("destinations:\n", titles)).await.unwrap();
    assert_eq!(relay.post(&incident(1)).await, 200);
    let near_miss = r#"events_total{app="main",outcome="ignored",reason="near_miss"}"#;
    assert_eq!(relay.metric(near_miss).await, 1.0);
    let two = "  apps:\n    - {name: other, signing_secret: {env: OTHER_SECRET}}\n";
    relay
        .reload(|yaml| yaml.replace(titles, "destinations:\n").replace("  apps:\n", two))
        .await
        .unwrap();
    let body = incident(3).to_string().into_bytes();
    let headers = slack::signed("another-signing-secret", relay.clock.now(), &body);
    let answer = http::post(relay.public(), "/slack/events/other", &headers, &body).await;
    assert_eq!(answer.status, 200);
    first.has_received(1).await;
    relay.settled().await;
    assert_eq!(first.ids(), [id(3).replace("main:", "other:")]);
}

#[tokio::test]
async fn a_retry_after_a_better_mapping_puts_lists_right_too() {
    let (first, second) = (FakeSoar::new([Mood::Status(500)]).await, FakeSoar::ok().await);
    let mut relay = start(&first, &second).await;
    let mut message = slack::message(1);
    message["attachments"][0]["fields"][1] = json!({"title": "Danger", "value": "Low"});
    assert_eq!(relay.post(&slack::event(&message)).await, 200);
    // Until the attempt is recorded: it is not to meet the better mood of the destination.
    let failed = r#"delivery_attempts_total{destination="first",class="destination_fault"}"#;
    relay.metric_is(failed, |failed| failed == 1.0).await;
    relay.metric_is(&deliveries("first", "pending"), |pending| pending == 1.0).await;
    let listed = async |relay: &TestRelay, severity: &str| {
        let path = format!("/alerts?severity={severity}");
        relay.api("GET", &path).await.1["alerts"].as_array().unwrap().len()
    };
    assert_eq!(listed(&relay, "high").await, 1, "the relay does not know that title");
    let mapping = "match: {fields: {risk: [Danger]}}\ndestinations:\n";
    relay.reload(|yaml| yaml.replace("destinations:\n", mapping)).await.unwrap();
    first.becomes(Mood::Status(200));
    assert_eq!(relay.api("POST", &format!("/alerts/{}/retry", id(1))).await.0, 200);
    relay.time_passes_until(SECOND, relay.settled()).await;
    let sent = first.received().pop().unwrap();
    assert_eq!(sent.body["severity"]["level"], "low");
    assert_eq!((listed(&relay, "low").await, listed(&relay, "high").await), (1, 0));
}

#[tokio::test]
async fn an_attempt_under_way_ends_and_is_recorded_when_its_destination_changes() {
    let (first, second) = (FakeSoar::new([Mood::Hang]).await, FakeSoar::ok().await);
    let setup = Setup::default().destination("first", &first, "timeout: 1s\nconcurrency: 1");
    let mut relay = setup.env("SECOND_URL", &second.url()).start().await;
    assert_eq!(relay.post(&incident(1)).await, 200);
    first.has_received(1).await;
    relay.reload(|yaml| yaml.replace("URL_FIRST", "SECOND_URL")).await.unwrap();
    assert_eq!(relay.post(&incident(2)).await, 200);
    second.has_received(1).await;
    relay.time_passes_until(Duration::from_millis(100), second.has_received(2)).await;
    relay.settled().await;
    let (_, alert) = relay.api("GET", &format!("/alerts/{}", id(1))).await;
    let attempts = alert["deliveries"][0]["attempts"].as_array().unwrap();
    let classes: Vec<&str> = attempts.iter().map(|one| one["class"].as_str().unwrap()).collect();
    assert_eq!(classes, ["timeout", "delivered"], "{alert:#}");
}

#[tokio::test]
async fn reloads_under_load_lose_and_refuse_nothing() {
    const ALERTS: u32 = 300;
    let (first, second) = (FakeSoar::ok().await, FakeSoar::ok().await);
    let mut relay = start(&first, &second).await;
    for n in 0..ALERTS {
        if n % 10 == 0 {
            let timeout = format!("- name: first\n    timeout: {}s\n", 2 + n / 10 % 2);
            relay
                .reload(|yaml| {
                    let lines = yaml.lines().filter(|line| !line.contains("  timeout: "));
                    let rest: String = lines.flat_map(|line| [line, "\n"]).collect();
                    rest.replace("- name: first\n", &timeout)
                })
                .await
                .unwrap();
        }
        relay.post_as_slack_does(&incident(n)).await;
    }
    relay.settled().await;
    let mut taken = first.taken();
    taken.sort();
    let mut expected: Vec<String> = (0..ALERTS).map(id).collect();
    expected.sort();
    assert_eq!(taken, expected, "each once");
}

#[tokio::test]
async fn a_paused_destination_stays_paused_across_reloads_and_restarts() {
    let (first, second) = (FakeSoar::ok().await, FakeSoar::ok().await);
    let mut relay = start(&first, &second).await;
    assert_eq!(relay.api("POST", "/destinations/first/pause").await.0, 200);
    assert_eq!(relay.post(&incident(1)).await, 200);
    relay
        .reload(|yaml| yaml.replace("- name: first\n", "- name: first\n    timeout: 5s\n"))
        .await
        .unwrap();
    assert_eq!(relay.metric(&deliveries("first", "paused")).await, 1.0);
    relay.stop().await;
    relay.restart().await;
    relay.clock.advance(Duration::from_secs(60));
    assert_eq!(relay.post(&incident(2)).await, 200);
    assert_eq!(relay.metric(&deliveries("first", "paused")).await, 2.0);
    assert_eq!(first.received().len(), 0);
    assert_eq!(relay.api("POST", "/destinations/first/resume").await.0, 200);
    relay.time_passes_until(SECOND, relay.settled()).await;
    assert_eq!(first.received().len(), 2);
}
