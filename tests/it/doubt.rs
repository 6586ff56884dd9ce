//! Catch-up when clocks and Slack's answers cannot be believed: nothing is missed, nothing stands
//! still in silence, and one sick channel costs the others nothing.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use serde_json::json;
use slack_soar_relay::clock::{Clock, Timestamp};

use crate::{
    harness::{
        BEGIN, PATIENCE, TestRelay,
        fake_slack::{BOT_USER, CHANNEL, Channel, FakeSlack, Sick, TOKEN, Trouble},
        http, slack,
        soar::FakeSoar,
        world::{
            AUTH, DAY, HISTORY, INFO, LIST, MINUTE, SECOND, World, catch_up_status, channel_status,
            id, problem_is,
        },
    },
    process::{Process, until_all},
};

const HOUR_SECONDS: i64 = 3600;
const DAY_SECONDS: i64 = 24 * HOUR_SECONDS;

async fn last_success(relay: &TestRelay, channel: &str) -> f64 {
    let name = "catch_up_last_success_timestamp_seconds";
    relay.metric(&format!("{name}{{app=\"main\",channel=\"{channel}\"}}")).await
}

/// Nothing that the relay keeps or shows is later than now.
async fn nothing_is_late(relay: &TestRelay) {
    let now = relay.clock.now();
    assert!(last_success(relay, CHANNEL).await <= now.seconds_f64());
    for (committed, _) in cursors(relay.dir()) {
        assert!(committed <= now.micros(), "the cursor is in the future");
    }
    let status = catch_up_status(relay).await;
    let shown = status["channels"][0]["committed"].as_str().map(str::to_owned);
    assert!(shown.is_none_or(|shown| shown <= now.to_string()), "{status}");
}

fn cursors(dir: &Path) -> Vec<(i64, Option<i64>)> {
    let db = rusqlite::Connection::open(dir.join("relay.db")).unwrap();
    let mut read = db.prepare("SELECT ts, seen FROM cursors").unwrap();
    let rows = read.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

// Clocks

#[tokio::test]
async fn two_answers_with_a_date_from_the_future_blind_nothing_at_the_start() {
    for ahead in [HOUR_SECONDS, 10 * DAY_SECONDS, -DAY_SECONDS] {
        let world = World::new().await;
        let before = id(&world.slack.post());
        world.slack.trouble(AUTH, 0, Trouble::Date(ahead));
        world.slack.trouble(HISTORY, 0, Trouble::Date(ahead));
        let mut relay = world.start().await;
        world.slack.has_answered(2).await;
        problem_is(&relay, |problem| problem.contains("Slack's")).await;
        nothing_is_late(&relay).await;
        // The next answer of Slack's ends the doubt, and is asked for sooner than usual.
        relay.clock.advance(10 * SECOND);
        problem_is(&relay, str::is_empty).await;
        world.finds_after(&relay, MINUTE).await;
        nothing_is_late(&relay).await;
        relay.settled().await;
        assert!(world.soar.ids().contains(&before), "{ahead}");
        relay.stop().await;
        relay.restart().await;
        world.finds_after(&relay, MINUTE).await;
        nothing_is_late(&relay).await;
        let skew = relay.metric("clock_skew_seconds").await;
        assert!(skew.abs() <= 1.0, "{skew}");
    }
}

#[tokio::test]
async fn two_answers_with_a_wrong_date_in_the_middle_move_nothing() {
    for error in [HOUR_SECONDS, 10 * DAY_SECONDS, -10 * DAY_SECONDS] {
        let world = World::new().await;
        let mut relay = world.start().await;
        relay.caught_up().await;
        for after in 0..2 {
            world.slack.trouble(HISTORY, after, Trouble::Date(error));
        }
        world.finds_after(&relay, MINUTE).await;
        nothing_is_late(&relay).await;
        problem_is(&relay, |problem| problem.contains("Slack's")).await;
        world.finds_after(&relay, MINUTE).await;
        world.finds_after(&relay, MINUTE).await;
        problem_is(&relay, str::is_empty).await;
        relay.stop().await;
        relay.restart().await;
        world.finds_after(&relay, MINUTE).await;
        nothing_is_late(&relay).await;
    }
}

/// The relay's clock shows so many seconds too much, while Slack's is right.
fn our_clock_is_off(relay_clock: &Clock, slack: &FakeSlack, seconds: i64) {
    let right = slack.state().now();
    relay_clock.jump(Timestamp::from_micros(right.micros() + seconds * 1_000_000));
    slack.state().skew_seconds = -seconds;
}

#[tokio::test]
async fn our_clock_a_day_off_for_three_seconds_blinds_nothing() {
    for (off, at_start) in
        [(DAY_SECONDS, true), (DAY_SECONDS, false), (-DAY_SECONDS, true), (-DAY_SECONDS, false)]
    {
        let world = World::new().await;
        let clock = world.slack.state().clock();
        if at_start {
            our_clock_is_off(&clock, &world.slack, off);
        }
        let mut relay = world.start().await;
        world.slack.has_answered(2).await;
        if !at_start {
            relay.caught_up().await;
            our_clock_is_off(&clock, &world.slack, off);
        }
        if at_start {
            problem_is(&relay, |problem| problem.contains("Slack's")).await;
        }
        for _ in 0..3 {
            relay.clock.advance(SECOND);
            tokio::task::yield_now().await;
        }
        our_clock_is_off(&clock, &world.slack, 0);
        world.finds_after(&relay, MINUTE).await;
        problem_is(&relay, str::is_empty).await;
        nothing_is_late(&relay).await;
        relay.stop().await;
        relay.restart().await;
        world.finds_after(&relay, MINUTE).await;
        nothing_is_late(&relay).await;
    }
}

#[tokio::test]
async fn a_cursor_in_the_future_is_put_back_and_what_it_hid_is_found() {
    for knows_what_was_seen in [true, false] {
        let world = World::new().await;
        world.slack.post();
        let mut relay = world.start().await;
        relay.caught_up().await;
        relay.settled().await;
        relay.stop().await;
        let future = (BEGIN + 10 * DAY).micros();
        let db = rusqlite::Connection::open(relay.dir().join("relay.db")).unwrap();
        db.execute("UPDATE cursors SET ts = ?1", [future]).unwrap();
        if !knows_what_was_seen {
            db.execute("UPDATE cursors SET seen = NULL", ()).unwrap();
        }
        drop(db);
        relay.clock.advance(SECOND);
        let hidden = id(&world.slack.post());
        // What was seen reaches back for as long as the relay was blind; else it is a day.
        relay.clock.advance(if knows_what_was_seen { 3 * DAY } else { DAY / 2 });
        relay.restart().await;
        relay.caught_up().await;
        relay.settled().await;
        assert!(world.soar.ids().contains(&hidden));
        problem_is(&relay, |problem| problem.contains("put back")).await;
        nothing_is_late(&relay).await;
        world.finds_after(&relay, MINUTE).await;
        relay.clock.advance(Duration::from_secs(3700));
        relay.caught_up().await;
        problem_is(&relay, str::is_empty).await;
    }
}

#[tokio::test]
async fn a_message_from_the_future_drags_no_cursor_along() {
    let world = World::new().await;
    let relay = world.start().await;
    relay.caught_up().await;
    let future = world.slack.state().post_at(CHANNEL, BEGIN + 5 * MINUTE, slack::message(0));
    for _ in 0..10 {
        world.finds_after(&relay, MINUTE).await;
        nothing_is_late(&relay).await;
        for (_, seen) in cursors(relay.dir()) {
            assert!(seen.is_none_or(|seen| seen <= relay.clock.now().micros()));
        }
    }
    relay.settled().await;
    assert!(world.soar.ids().contains(&id(&future)));
}

/// The real binary under libfaketime, whose clock is read from a file.
struct Faked {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Faked {
    fn new(slack: &FakeSlack, soar: &FakeSoar) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let yaml = format!(
            "server: {{listen: 127.0.0.1:0, ops_listen: 127.0.0.1:0, drain_delay: 0s}}\n\
             slack:\n  api_url: {}\n  apps: [{{name: main, signing_secret: {{env: SECRET}}, \
             bot_token: {{env: TOKEN}}, channels: [{CHANNEL}]}}]\n\
             catch_up: {{every: 2s, overlap: 1s, settle: 1s}}\n\
             destinations: [{{name: up, preset: webhook, url: {{env: URL_up}}}}]\n",
            slack.api_url()
        );
        fs::write(dir.path().join("relay.yaml"), yaml).unwrap();
        let rc = dir.path().join("faketime");
        let library =
            format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
        let env = [
            ("URL_up", soar.url()),
            ("TOKEN", TOKEN.to_owned()),
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", rc.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).into();
        Self { dir, env }
    }

    fn clock_is(&self, offset: &str) {
        let new = self.dir.path().join("new");
        fs::write(&new, offset).unwrap();
        fs::rename(new, self.dir.path().join("faketime")).unwrap();
    }

    fn start(&self) -> Process {
        Process::start(self.dir.path(), &self.env)
    }
}

async fn metrics(process: &Process) -> String {
    http::get(process.ops, "/metrics").await.text()
}

#[tokio::test]
async fn the_real_relay_started_with_a_clock_a_day_ahead_finds_what_comes_after_it_is_mended() {
    let clock = Clock::system();
    let (slack, soar) = (FakeSlack::new(clock.clone()).await, FakeSoar::ok().await);
    let faked = Faked::new(&slack, &soar);
    faked.clock_is("+1d");
    let first = id(&slack.post());
    let mut process = faked.start();
    // Who we are, and two readings, two seconds apart.
    slack.has_answered(3).await;
    faked.clock_is("+0");
    let mut expected = vec![first, id(&slack.post())];
    until_all(&soar, &expected).await;
    drop(process);
    process = faked.start();
    expected.push(id(&slack.post()));
    until_all(&soar, &expected).await;
    let text = metrics(&process).await;
    let name = "slack_soar_relay_catch_up_last_success_timestamp_seconds{";
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    let shown: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(shown <= clock.now().seconds_f64(), "{line}");
    for (committed, _) in cursors(faked.dir.path()) {
        assert!(committed <= clock.now().micros());
    }
}

// Answers

#[tokio::test]
async fn an_answer_without_the_array_of_its_method_moves_no_cursor() {
    for body in [
        r#"{"ok":true}"#,
        r#"{"ok":true,"messages":null,"has_more":false}"#,
        r#"{"ok":true,"messages":{"0":{"ts":"1"}}}"#,
        r#"{"ok":true,"messages":"none"}"#,
        r#"{"ok":"true","messages":[]}"#,
        r#"{"messages":[]}"#,
        r#"{"ok":true,"messages":[],"response_metadata":{"next_cursor":{}}}"#,
        "<html>please log in</html>",
    ] {
        let world = World::new().await;
        let relay = world.setup_in("[C0123456789]").more("catch_up: {overlap: 0s}\n").start().await;
        relay.caught_up().await;
        relay.clock.advance(MINUTE / 2);
        let hidden = id(&world.slack.post());
        world.slack.trouble(HISTORY, 0, Trouble::Body(body.to_owned()));
        let before = cursors(relay.dir());
        relay.clock.advance(MINUTE / 2);
        problem_is(&relay, |problem| problem.contains("history cannot be read")).await;
        assert_eq!(cursors(relay.dir()), before, "{body}");
        relay.clock.advance(SECOND);
        relay.caught_up().await;
        relay.settled().await;
        assert_eq!(world.soar.ids(), [hidden], "{body}");
        problem_is(&relay, str::is_empty).await;
    }
}

#[tokio::test]
async fn a_list_without_channels_is_asked_for_again_at_once() {
    for body in [r#"{"ok":true}"#, r#"{"ok":true,"channels":null}"#, r#"{"ok":true,"channels":{}}"#]
    {
        for channels in ["[]", "[cd_alerts]"] {
            let world = World::new().await;
            world.slack.trouble(LIST, 0, Trouble::Body(body.to_owned()));
            let relay = world.setup_in(channels).start().await;
            problem_is(&relay, |problem| problem.contains("`channels` is missing")).await;
            world.finds_after(&relay, 2 * SECOND).await;
            problem_is(&relay, str::is_empty).await;
        }
    }
}

#[tokio::test]
async fn who_we_are_is_asked_again_if_the_answer_does_not_say_it_and_history_is_read_meanwhile() {
    let world = World::new().await;
    for after in 0..3 {
        world.slack.trouble(AUTH, after, Trouble::Body(r#"{"ok":true}"#.to_owned()));
    }
    let relay = world.start().await;
    relay.caught_up().await;
    problem_is(&relay, |problem| problem.contains("`user_id` is missing")).await;
    relay.time_passes_until(SECOND, problem_is(&relay, str::is_empty)).await;
    assert_eq!(world.slack.calls(AUTH).len(), 4);
}

#[tokio::test]
async fn a_sick_channel_is_put_aside_and_named_and_delays_no_other() {
    const SICK: &str = "C0000000001";
    for sick in [
        Sick::Error("internal_error"),
        Sick::Error("a_word_of_tomorrow"),
        Sick::TwoCursors,
        Sick::EverNewCursors,
    ] {
        let world = World::new().await;
        {
            let mut state = world.slack.state();
            state.channels.push(Channel::new(SICK, "sick"));
            state.sick.insert(SICK, sick);
        }
        let hidden = id(&world.slack.state().post_incident(SICK));
        let relay = world.setup_in("[C0000000001, C0123456789]").start().await;
        relay.caught_up().await;
        for _ in 0..5 {
            world.finds_after(&relay, MINUTE).await;
        }
        let status = catch_up_status(&relay).await;
        let channels = status["channels"].as_array().unwrap();
        let problem = |id: &str| {
            let found = channels.iter().find(|channel| channel["id"] == id).unwrap();
            (found["problem"].as_str().unwrap().to_owned(), found["committed"].clone())
        };
        let (said, committed) = problem(SICK);
        assert!(said.contains("history cannot be read") && committed.is_null(), "{said}");
        assert_eq!(problem(CHANNEL).0, "");
        assert_eq!(last_success(&relay, SICK).await, 0.0);
        let calls = world.calls_for(SICK);
        assert!(calls <= 40, "{sick:?}: {calls} calls in five minutes");
        world.slack.state().sick.clear();
        relay.clock.advance(10 * MINUTE);
        relay.caught_up_in(SICK).await;
        relay.settled().await;
        assert!(world.soar.ids().contains(&hidden), "{sick:?}");
        problem_is(&relay, str::is_empty).await;
    }
}

#[tokio::test]
async fn a_long_history_of_one_channel_leaves_the_others_their_turns() {
    let world = World::new().await;
    {
        let mut state = world.slack.state();
        state.channels.push(Channel::new("C0000000001", "long"));
        for n in 0..4_000 {
            let chatter = json!({"type": "message", "user": "U1", "text": "hi"});
            state.post_at("C0000000001", BEGIN - Duration::from_secs(n), chatter);
        }
        state.limited = true;
    }
    let relay = world.setup_in("[C0000000001, C0123456789]").start().await;
    relay
        .metric_is(&format!("slack_api_calls_total{{method=\"{HISTORY}\",result=\"ok\"}}"), |n| {
            n > 0.0
        })
        .await;
    let posted = id(&world.slack.post());
    let arrived = async {
        while !world.soar.ids().contains(&posted) {
            tokio::task::yield_now().await;
        }
    };
    // One call a minute, and 270 pages: each second one is the other channel's, at most.
    relay.time_passes_until(MINUTE / 4, arrived).await;
    assert!(world.calls_for("C0000000001") < 20);
}

#[tokio::test]
async fn a_list_that_goes_in_a_circle_ends_and_says_so() {
    let world = World::new().await;
    for (after, next) in ["a=", "b=", "a=", "b="].into_iter().enumerate() {
        let body = json!({"ok": true, "channels": [{"id": format!("C900{after}"), "name": "x"}],
            "response_metadata": {"next_cursor": next}});
        world.slack.trouble(LIST, after, Trouble::Body(body.to_string()));
    }
    let relay = world.setup_in("[cd_alerts, C0123456789]").start().await;
    problem_is(&relay, |problem| problem.contains("a cursor came back")).await;
    assert_eq!(world.slack.calls(LIST).len(), 3);
    world.finds_after(&relay, MINUTE).await;
    assert_eq!(world.slack.calls(LIST).len(), 3, "it is not asked for all the time");
}

#[tokio::test]
async fn an_organisation_wide_token_without_a_team_is_said_at_once_with_the_cure() {
    let world = World::new().await;
    world.slack.state().org_wide = true;
    let relay = world.setup_in("[cd_alerts, C0123456789]").start().await;
    problem_is(&relay, |problem| {
        problem.contains("missing_argument") && problem.contains("set `team`")
    })
    .await;
    world.finds_after(&relay, MINUTE).await;
    assert_eq!(world.slack.calls(LIST).len(), 1, "nobody mends it within minutes");
}

#[tokio::test]
async fn an_absurd_retry_after_is_kept_within_a_second_and_an_hour() {
    for (given, wait) in [(0, 2), (1_000_000_000_000, 3601)] {
        let world = World::new().await;
        let relay = world.start().await;
        relay.caught_up().await;
        world.slack.trouble(HISTORY, 0, Trouble::TooMany(Some(given)));
        relay.clock.advance(MINUTE);
        let throttled =
            format!("slack_api_calls_total{{method=\"{HISTORY}\",result=\"throttled\"}}");
        relay.metric_is(&throttled, |count| count == 1.0).await;
        world.finds_after(&relay, Duration::from_secs(wait)).await;
        assert_eq!(relay.metric(&throttled).await, 1.0);
    }
}

// Events that are late, or about somebody else

#[tokio::test]
async fn an_event_about_a_token_is_a_reason_to_ask_and_not_to_stop() {
    for event in [
        json!({"type": "tokens_revoked", "tokens": {"oauth": ["U9"], "bot": ["U0SOMEBODY"]}}),
        json!({"type": "tokens_revoked"}),
        json!({"type": "app_uninstalled"}),
    ] {
        let world = World::new().await;
        let relay = world.start().await;
        relay.caught_up().await;
        for _ in 0..5 {
            assert_eq!(relay.post(&slack::event(&event)).await, 200);
        }
        let wait = async {
            while world.slack.calls(AUTH).len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        relay.clock.advance(10 * SECOND);
        tokio::time::timeout(PATIENCE, wait).await.expect("Slack is not asked");
        world.finds_after(&relay, MINUTE).await;
        problem_is(&relay, str::is_empty).await;
        world.slack.revoke(Some("token_revoked"));
        assert_eq!(relay.post(&slack::event(&event)).await, 200);
        relay.clock.advance(10 * SECOND);
        problem_is(&relay, |problem| problem == "Slack says token_revoked").await;
    }
}

#[tokio::test]
async fn an_event_about_a_channel_counts_only_as_far_as_slack_confirms_it() {
    let world = World::new().await;
    let relay = world.start().await;
    relay.caught_up().await;
    let late = [
        json!({"type": "channel_archive", "channel": CHANNEL}),
        json!({"type": "member_left_channel", "channel": CHANNEL, "user": BOT_USER}),
        json!({"type": "member_left_channel", "channel": CHANNEL, "user": "U9"}),
    ];
    for (n, event) in late.iter().enumerate() {
        assert_eq!(relay.post(&slack::event(event)).await, 200);
        let asked = (n + 1).min(2);
        let wait = async {
            while world.slack.calls(INFO).len() < asked {
                tokio::task::yield_now().await;
            }
        };
        relay.time_passes_until(SECOND, wait).await;
    }
    world.finds_after(&relay, MINUTE).await;
    let status = catch_up_status(&relay).await;
    let channel = &status["channels"][0];
    assert_eq!((&channel["problem"], &channel["archived"]), (&json!(""), &json!(false)));

    world.slack.state().channel(CHANNEL).archived = true;
    assert_eq!(relay.post(&slack::event(&late[0])).await, 200);
    let archived = async |expected: bool| {
        let wait =
            async { while catch_up_status(&relay).await["channels"][0]["archived"] != expected {} };
        relay.time_passes_until(MINUTE, wait).await;
    };
    archived(true).await;
    world.slack.state().channel(CHANNEL).archived = false;
    archived(false).await;
}

/// Slack is told that these channels were archived.
async fn archived_says_slack(relay: &TestRelay, channels: &[&str]) {
    for channel in channels {
        let event = json!({"type": "channel_archive", "channel": channel});
        assert_eq!(relay.post(&slack::event(&event)).await, 200);
    }
}

#[tokio::test]
async fn a_channel_that_stays_archived_keeps_no_other_from_being_asked_about() {
    const FIRST: &str = "C0000000001";
    let world = World::new().await;
    world.slack.state().channels.push(Channel::new(FIRST, "first"));
    let relay = world.setup_in("[C0000000001, C0123456789]").start().await;
    relay.caught_up_in(FIRST).await;
    relay.caught_up().await;
    for channel in [FIRST, CHANNEL] {
        world.slack.state().channel(channel).archived = true;
    }
    archived_says_slack(&relay, &[FIRST, CHANNEL]).await;
    let both = async {
        for channel in [FIRST, CHANNEL] {
            while channel_status(&relay, channel).await["archived"] != true {}
        }
    };
    relay.time_passes_until(SECOND, both).await;
    assert!(relay.clock.now().since(BEGIN) < 2 * MINUTE, "at once, and not in turn for ever");
}

#[tokio::test]
async fn a_channel_that_slack_does_not_describe_is_asked_about_ever_more_seldom() {
    let world = World::new().await;
    let relay = world.start().await;
    relay.caught_up().await;
    for after in 0..1000 {
        world.slack.trouble(INFO, after, Trouble::Error("internal_error"));
    }
    archived_says_slack(&relay, &[CHANNEL]).await;
    for _ in 0..240 {
        relay.clock.advance(MINUTE);
        relay.caught_up().await;
    }
    let calls = world.slack.calls(INFO).len();
    assert!((5..=14).contains(&calls), "{calls} calls in four hours");
}

#[tokio::test]
async fn a_channel_that_the_bot_left_is_not_asked_about_any_more() {
    let world = World::new().await;
    world.slack.state().channels.push(Channel::new("C0000000001", "other"));
    let relay = world.setup_in("[]").start().await;
    relay.caught_up().await;
    world.slack.state().channel(CHANNEL).archived = true;
    archived_says_slack(&relay, &[CHANNEL]).await;
    let asked = async {
        while world.slack.calls(INFO).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    relay.time_passes_until(SECOND, asked).await;
    world.slack.state().channel(CHANNEL).member = false;
    for _ in 0..240 {
        relay.clock.advance(MINUTE);
        relay.caught_up_in("C0000000001").await;
    }
    let calls = world.slack.calls(INFO).len();
    assert!(calls <= 3, "{calls} calls in four hours");
}

/// The poller shows a sign of life between two answers of Slack's, each of which may take 15 s.
#[tokio::test]
async fn a_page_for_which_many_channels_are_compared_leaves_the_poller_alive() {
    let world = World::new().await;
    let others = ["C0000000001", "C0000000002", "C0000000003"];
    let message = world.slack.post();
    for channel in others {
        let mut state = world.slack.state();
        state.channels.push(Channel::new(channel, channel));
        state.channel(channel).member = false;
    }
    world.slack.trouble(HISTORY, 0, Trouble::Hold);
    for after in 0..6 {
        world.slack.trouble(INFO, after, Trouble::Hold);
    }
    let now = || Clock::system().moment();
    let mut asked_at = now();
    let relay = world.setup_in("[]").start().await;
    for channel in others {
        let mut pushed = message.clone();
        pushed["channel"] = json!(channel);
        assert_eq!(relay.post(&slack::event(&pushed)).await, 200);
    }
    // Who we are, the list, the page, and two descriptions for each of the others.
    for calls in 3..=9 {
        world.slack.has_answered(calls).await;
        let since = now().since(asked_at) + Duration::from_millis(1);
        let silent = relay.relay().silent_loops(since);
        assert!(!silent.contains(&"catch-up of main".to_owned()), "call {calls}: {silent:?}");
        // A sign of life is known to the millisecond.
        while now().since(asked_at) < Duration::from_millis(5) {
            tokio::task::yield_now().await;
        }
        asked_at = now();
        world.slack.release();
    }
    relay.caught_up().await;
    relay.settled().await;
    assert_eq!(world.soar.ids().len(), 4);
}

// Memory

#[cfg(target_os = "linux")]
#[tokio::test]
async fn two_hundred_messages_of_40_000_characters_are_read_in_less_than_100_mib() {
    let clock = Clock::system();
    let (slack, soar) = (FakeSlack::new(clock.clone()).await, FakeSoar::ok().await);
    let mut expected = Vec::new();
    for n in 0..200 {
        let at = clock.now() - Duration::from_secs(3600 - n);
        let mut message = slack::message(0);
        message["text"] = json!("\u{6f22}".repeat(40_000));
        expected.push(id(&slack.state().post_at(CHANNEL, at, message)));
    }
    let faked = Faked::new(&slack, &soar);
    let env: BTreeMap<_, _> = faked.env.iter().cloned().collect();
    let env = ["URL_up", "TOKEN"].map(|name| (name.to_owned(), env[name].clone()));
    let process = Process::start(faked.dir.path(), &env);
    slack.has_answered(12).await;
    process.signal("-KILL");
    drop(process);
    let process = Process::start(faked.dir.path(), &env);
    until_all(&soar, &expected).await;
    let peak = process.peak_memory_kib();
    println!("VmHWM: {} MiB", peak / 1024);
    assert!(peak < 100 * 1024, "{peak} KiB");
    let found = slack.calls(HISTORY);
    assert!(found.iter().all(|call| call.status == 200));
}
