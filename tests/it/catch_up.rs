//! Catch-up against a Slack that loses pushes, pages in either order, and misbehaves.

use std::time::Duration;

use serde_json::{Value, json};
use slack_soar_relay::{
    clock::{Clock, Timestamp},
    intake::catch_up::{BackfillRequest, HistoryTime, Purpose},
};

use crate::{
    harness::{
        BEGIN, PATIENCE, Setup, TestRelay,
        fake_slack::{Anchor, BOT_USER, CHANNEL, Channel, FakeSlack, Sick, State, TOKEN, Trouble},
        gateway::{ConnectProxy, TlsFront},
        http,
        pushes::Pushes,
        slack,
        soar::{FakeSoar, Mood},
        world::{DAY, HISTORY, LIST, MINUTE, World, id, problem_is},
    },
    process::{Process, until_all},
};

/// Posts chatter and, every tenth message, an incident, one a second from that time on.
fn fill(world: &World, from: Timestamp, messages: u64) -> Vec<String> {
    let mut incidents = Vec::new();
    let mut state = world.slack.state();
    for n in 0..messages {
        let at = from + Duration::from_secs(n);
        if n % 10 == 0 {
            incidents.push(id(&state.post_at(CHANNEL, at, slack::message(0))));
        } else {
            state.post_at(CHANNEL, at, json!({"type": "message", "user": "U1", "text": "hi"}));
        }
    }
    incidents
}

fn missed(cause: &str) -> String {
    format!(r#"missed_push_total{{app="main",channel="{CHANNEL}",cause="{cause}"}}"#)
}

fn outcome(outcome: &str, reason: &str) -> String {
    format!(r#"events_total{{app="main",outcome="{outcome}",reason="{reason}"}}"#)
}

fn result(method: &str, result: &str) -> String {
    format!(r#"slack_api_calls_total{{method="{method}",result="{result}"}}"#)
}

/// A minute passes, and history is read.
async fn next_reading(relay: &TestRelay) {
    relay.clock.advance(MINUTE);
    relay.caught_up().await;
}

#[tokio::test]
async fn slack_is_called_through_the_proxy_and_trusted_by_the_private_authority() {
    let slack = FakeSlack::new(Clock::manual(BEGIN)).await;
    let behind = slack.api_url()["http://".len()..].trim_end_matches("/api").parse().unwrap();
    let front = TlsFront::new("slack.example", behind).await;
    let (shared, own) = (ConnectProxy::new().await, ConnectProxy::new().await);
    let setup = |yaml: &str, app: &str| {
        let api = format!("  api_url: https://slack.example:{}/api\n", front.port());
        let channels = format!("[{CHANNEL}], {app}");
        let setup = Setup::default().catch_up(&slack, channels.trim_end_matches(", "));
        setup.slack(&(api + yaml)).file("ca.pem", &front.authority)
    };
    let proxy = format!("  proxy: {}\n", shared.url());
    let relay = setup(&format!("{proxy}  ca_file: ca.pem\n"), "").start().await;
    relay.pass_until_caught_up().await;
    let heads = shared.requests();
    let first = format!("CONNECT slack.example:{} HTTP/1.1\r\n", front.port());
    assert!(heads[0].starts_with(&first), "{heads:?}");
    let credentials = "proxy-authorization: basic cmvsyxk6cgfzcyb3b3jk";
    assert!(heads[0].to_lowercase().contains(credentials), "{heads:?}");

    let relay = setup(&proxy, &format!("proxy: \"{}\", ca_file: ca.pem", own.url())).start().await;
    relay.pass_until_caught_up().await;
    assert!(!own.requests().is_empty(), "an app's own proxy goes first");
    assert_eq!(shared.requests().len(), heads.len());
}

#[tokio::test]
async fn what_was_posted_before_the_first_start_is_found_and_read_again_without_counting() {
    let world = World::new().await;
    let expected = fill(&world, BEGIN - Duration::from_secs(3600), 25);
    let relay = world.setup().start().await;
    relay.caught_up().await;
    assert_eq!(world.arrived(&relay).await, expected);
    let received = r#"events_received_total{app="main",source="catch_up"}"#;
    assert_eq!(relay.metric(received).await, 25.0);
    assert_eq!(relay.metric(&outcome("accepted", "")).await, 3.0);
    assert_eq!(relay.metric(&outcome("ignored", "title")).await, 22.0);
    let late = fill(&world, BEGIN - Duration::from_secs(20), 5);
    for _ in 0..3 {
        next_reading(&relay).await;
    }
    assert_eq!(world.arrived(&relay).await.len(), expected.len() + late.len());
    assert_eq!(relay.metric(received).await, 26.0, "one that appeared late, none of the overlap");
}

#[tokio::test]
async fn every_page_is_read_whichever_end_is_first() {
    for (anchor, without_cursors) in [
        (Anchor::Newest, false),
        (Anchor::Oldest, false),
        (Anchor::Newest, true),
        (Anchor::Oldest, true),
    ] {
        let world = World::new().await;
        world.slack.state().anchor = anchor;
        world.slack.state().without_cursors = without_cursors;
        let expected = fill(&world, BEGIN - Duration::from_secs(7200), 850);
        let relay = world.setup().start().await;
        relay.caught_up().await;
        assert_eq!(world.arrived(&relay).await, expected, "{anchor:?} {without_cursors}");
        let calls = world.slack.calls(HISTORY).len();
        assert!(calls <= if without_cursors { 6 } else { 5 }, "{anchor:?}: {calls}");
    }
}

/// Numbers without order, the same in every run.
fn dice(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Time passes up to that moment. What is on its way is left to arrive: a lease does not last for
/// the minutes that the clock leaps.
async fn pass(relay: &TestRelay, to: Timestamp) {
    relay.settled().await;
    relay.clock.advance(to.since(relay.clock.now()));
}

/// Between two readings of the week.
const TICK: Duration = Duration::from_secs(1800);

/// A week with an incident every two hours or so. Returns how many pushes were withheld.
async fn a_week(world: &World, relay: &TestRelay, is_pushed: impl Fn(u64) -> bool) -> u32 {
    let (mut pushes, mut seed, mut withheld) = (Pushes::default(), 42, 0_u32);
    let mut expected = Vec::new();
    let end = relay.clock.now() + 7 * DAY;
    while relay.clock.now() < end + 3 * TICK {
        let tick = relay.clock.now() + TICK;
        if dice(&mut seed).is_multiple_of(4) && tick < end {
            pass(relay, relay.clock.now() + Duration::from_secs(dice(&mut seed) % 1500)).await;
            let message = world.slack.post();
            expected.push(id(&message));
            if is_pushed(dice(&mut seed)) {
                pushes.add(&message, relay.clock.now());
            } else {
                withheld += 1;
            }
        }
        while pushes.next_due().is_some_and(|due| due <= tick) {
            let due = pushes.next_due().unwrap();
            pass(relay, due).await;
            let is_lost = || dice(&mut seed).is_multiple_of(3);
            pushes.deliver_due(relay.public(), relay.clock.now(), is_lost).await;
        }
        pass(relay, tick).await;
        relay.caught_up().await;
    }
    expected.sort();
    assert!(expected.len() > 50, "{} incidents", expected.len());
    assert_eq!(world.arrived(relay).await, expected);
    withheld
}

#[tokio::test]
async fn without_any_push_every_incident_of_a_week_arrives_exactly_once() {
    let world = World::new().await;
    let relay = world.setup().more("catch_up: {every: 30m}\n").start().await;
    relay.caught_up().await;
    let withheld = a_week(&world, &relay, |_| false).await;
    assert_eq!(relay.metric(&missed("push")).await, f64::from(withheld));
    assert_eq!(relay.metric(&missed("downtime")).await, 0.0);
}

#[tokio::test]
async fn with_half_of_the_pushes_and_retries_each_arrives_once_and_the_other_half_is_counted() {
    let world = World::new().await;
    let relay = world.setup().more("catch_up: {every: 30m}\n").start().await;
    relay.caught_up().await;
    let withheld = a_week(&world, &relay, |dice| dice.is_multiple_of(2)).await;
    assert!(withheld > 10);
    assert_eq!(relay.metric(&missed("push")).await, f64::from(withheld));
    assert_eq!(relay.metric(&missed("downtime")).await, 0.0);
}

#[tokio::test]
async fn a_429_on_the_second_page_is_waited_for_and_loses_nothing() {
    for wait in [Some(30), None] {
        let world = World::new().await;
        let expected = fill(&world, BEGIN - Duration::from_secs(3600), 450);
        world.slack.trouble(HISTORY, 1, Trouble::TooMany(wait));
        let relay = world.setup().start().await;
        relay.metric_is(&result(HISTORY, "throttled"), |count| count == 1.0).await;
        assert_eq!(relay.metric(&result(HISTORY, "ok")).await, 1.0);
        relay.pass_until_caught_up().await;
        let waited = relay.clock.now().since(BEGIN).as_secs();
        assert!(waited >= 30, "{waited} s");
        assert_eq!(world.arrived(&relay).await, expected);
        assert_eq!(relay.metric(&result(HISTORY, "throttled")).await, 1.0, "it waited long enough");
    }
}

#[tokio::test]
async fn a_failing_slack_is_asked_again_with_pauses() {
    let world = World::new().await;
    let expected = fill(&world, BEGIN - Duration::from_secs(3600), 450);
    let troubles = [
        Trouble::Status(503),
        Trouble::NotJson,
        Trouble::Error("internal_error"),
        Trouble::Error("ratelimited"),
        Trouble::Error("a_word_of_tomorrow"),
        Trouble::Status(404),
    ];
    for (after, trouble) in troubles.into_iter().enumerate() {
        world.slack.trouble(HISTORY, after + 1, trouble);
    }
    let relay = world.setup().start().await;
    relay.pass_until_caught_up().await;
    assert_eq!(world.arrived(&relay).await, expected);
    assert_eq!(relay.metric(&result(HISTORY, "transient")).await, 5.0);
    let waited = relay.clock.now().since(BEGIN).as_secs();
    assert!(waited >= 30 + 1 + 2 + 4 + 8 + 16, "{waited} s");
}

#[tokio::test]
async fn an_expired_cursor_begins_the_window_anew() {
    let world = World::new().await;
    let expected = fill(&world, BEGIN - Duration::from_secs(3600), 450);
    world.slack.trouble(HISTORY, 2, Trouble::ForgetCursors);
    let relay = world.setup().start().await;
    relay.caught_up().await;
    assert_eq!(world.arrived(&relay).await, expected);
    let received = r#"events_received_total{app="main",source="catch_up"}"#;
    assert_eq!(relay.metric(received).await, 450.0, "each message is counted once");
    assert_eq!(world.slack.calls(HISTORY).len(), 3 + 3);
}

#[tokio::test]
async fn a_token_revoked_in_the_middle_stops_the_calls_and_not_the_receiver() {
    let world = World::new().await;
    let expected = fill(&world, BEGIN - Duration::from_secs(3600), 450);
    world.slack.trouble(HISTORY, 1, Trouble::Revoke);
    let relay = world.setup().start().await;
    relay.metric_is(&result(HISTORY, "token"), |count| count == 1.0).await;
    assert_eq!(relay.post(&slack::incident(1)).await, 200);
    let calls = world.slack.all_calls();
    for _ in 0..9 {
        relay.clock.advance(MINUTE);
        relay.settled().await;
    }
    assert_eq!(world.slack.all_calls(), calls, "nothing is called with a dead token");
    let status = relay.relay().catch_up()[0].status();
    assert_eq!(status.problem, "Slack says token_revoked");
    world.slack.revoke(None);
    relay.pass_until_caught_up().await;
    let mut all = expected;
    all.push(slack::id(1));
    all.sort();
    assert_eq!(world.arrived(&relay).await, all);
}

#[tokio::test]
async fn a_channel_that_slack_refuses_is_tried_slowly_and_holds_up_no_other() {
    for (code, is_private) in [("not_in_channel", false), ("channel_not_found", true)] {
        let world = World::new().await;
        let mut closed = Channel::new("C0000000001", "closed");
        closed.private = is_private;
        closed.member = false;
        world.slack.state().channels.push(closed);
        let other = world.slack.state().post_incident("C0000000001");
        let ours = world.slack.post();
        let relay = world.setup_in("[C0000000001, C0123456789]").start().await;
        relay.caught_up().await;
        assert_eq!(world.arrived(&relay).await, [id(&ours)]);
        let asked = || {
            let calls = world.slack.calls(HISTORY);
            calls.iter().filter(|call| call.query["channel"] == "C0000000001").count()
        };
        for _ in 0..5 {
            next_reading(&relay).await;
        }
        assert_eq!(asked(), 1, "{code}: only every ten minutes");
        let status = relay.relay().catch_up()[0].status();
        let closed = status.channels.iter().find(|one| one.id.as_str() == "C0000000001").unwrap();
        assert!(closed.problem.contains(code), "{}", closed.problem);
        world.slack.state().channel("C0000000001").member = true;
        relay.clock.advance(5 * MINUTE);
        relay.caught_up_in("C0000000001").await;
        let mut both = [id(&other), id(&ours)];
        both.sort();
        assert_eq!(world.arrived(&relay).await, both);
    }
}

#[tokio::test]
async fn a_private_channel_on_the_third_page_of_250_is_found_once_and_survives_its_renaming() {
    let world = World::new().await;
    {
        let mut state = world.slack.state();
        let others = (0..245).map(|n| Channel::new(&format!("C1000000{n:03}"), &format!("c{n}")));
        state.channels.extend(others);
        for n in 10..60 {
            state.channels[n].archived = true;
        }
        let mut private = Channel::new("C2000000001", "cd_private");
        private.private = true;
        state.channels.push(private);
        state.channels.extend((0..4).map(|n| Channel::new(&format!("C3000000{n:03}"), "after")));
        state.post_incident("C2000000001");
    }
    let mut relay = world.setup_in("['#cd_private']").start().await;
    relay.caught_up_in("C2000000001").await;
    assert_eq!(world.arrived(&relay).await.len(), 1);
    assert_eq!(world.slack.calls(LIST).len(), 3);
    relay.stop().await;
    world.slack.state().channel("C2000000001").name = "renamed".to_owned();
    world.slack.state().post_incident("C2000000001");
    relay.restart().await;
    relay.clock.advance(MINUTE);
    relay.caught_up_in("C2000000001").await;
    assert_eq!(world.arrived(&relay).await.len(), 2);
    assert_eq!(world.slack.calls(LIST).len(), 3, "the id is kept in the store");
    let elsewhere = slack::event(&slack::message(1));
    assert_eq!(relay.post(&elsewhere).await, 200);
    assert_eq!(relay.metric(&outcome("ignored", "channel")).await, 1.0);
}

#[tokio::test]
async fn while_a_name_is_unresolved_incidents_of_every_channel_are_accepted() {
    let world = World::new().await;
    for after in 0..30 {
        world.slack.trouble(LIST, after, Trouble::Status(503));
    }
    let relay = world.setup_in("[cd_alerts]").start().await;
    relay.metric_is(&result(LIST, "transient"), |count| count > 0.0).await;
    assert_eq!(relay.post(&slack::incident(1)).await, 200);
    let mut elsewhere = slack::message(2);
    elsewhere["channel"] = json!("C9999999999");
    assert_eq!(relay.post(&slack::event(&elsewhere)).await, 200);
    assert_eq!(world.arrived(&relay).await.len(), 2);
    assert_eq!(relay.metric(&outcome("accepted", "channel_unresolved")).await, 2.0);
    assert_eq!(relay.relay().catch_up()[0].status().unresolved, ["cd_alerts"]);
    world.slack.state().forget_troubles();
    relay.pass_until_caught_up().await;
    elsewhere["ts"] = json!("1600689100.999999");
    assert_eq!(relay.post(&slack::event(&elsewhere)).await, 200);
    assert_eq!(relay.metric(&outcome("ignored", "channel")).await, 1.0);
    assert!(relay.relay().catch_up()[0].status().unresolved.is_empty());
}

#[tokio::test]
async fn without_configured_channels_those_that_the_bot_is_in_are_read() {
    let world = World::new().await;
    let mut strange = Channel::new("C0000000001", "strange");
    strange.member = false;
    world.slack.state().channels.push(strange);
    let posted = world.slack.post();
    let relay = world.setup_in("[]").start().await;
    relay.caught_up().await;
    next_reading(&relay).await;
    assert_eq!(world.arrived(&relay).await, [id(&posted)]);
    assert_eq!(world.slack.calls(LIST).len(), 1);
    assert!(world.slack.calls(HISTORY).iter().all(|call| call.query["channel"] == CHANNEL));
    let later = {
        let mut state = world.slack.state();
        state.channel("C0000000001").member = true;
        state.post_incident("C0000000001")
    };
    relay.clock.advance(10 * MINUTE);
    relay.caught_up_in("C0000000001").await;
    assert_eq!(world.arrived(&relay).await, [id(&later), id(&posted)], "it was invited meanwhile");
    assert_eq!(world.slack.calls(LIST).len(), 2);
}

#[tokio::test]
async fn without_configured_channels_one_that_the_bot_joins_later_is_read_too() {
    let world = World::new().await;
    let mut later = Channel::new("C0000000001", "later");
    later.member = false;
    world.slack.state().channels.push(later);
    let relay = world.setup_in("[]").start().await;
    relay.caught_up().await;
    let posted = world.slack.state().post_incident("C0000000001");
    world.slack.state().channel("C0000000001").member = true;
    relay.clock.advance(60 * MINUTE);
    relay.caught_up_in("C0000000001").await;
    assert_eq!(world.arrived(&relay).await, [id(&posted)]);
}

#[tokio::test]
async fn history_that_grows_while_it_is_paged_loses_nothing() {
    for anchor in [Anchor::Newest, Anchor::Oldest] {
        let world = World::new().await;
        world.slack.state().anchor = anchor;
        let expected = fill(&world, BEGIN - Duration::from_secs(3600), 450);
        world.slack.trouble(HISTORY, 0, Trouble::Grow(30));
        world.slack.trouble(HISTORY, 1, Trouble::Grow(30));
        let relay = world.setup().start().await;
        relay.caught_up().await;
        next_reading(&relay).await;
        assert_eq!(world.arrived(&relay).await.len(), expected.len() + 60, "{anchor:?}");
    }
}

#[tokio::test]
async fn a_message_edited_into_an_incident_is_found() {
    let world = World::new().await;
    let relay = world.setup().start().await;
    relay.caught_up().await;
    let now = world.slack.state().now();
    let chatter = json!({"type": "message", "bot_id": "B0RELAYBOT1", "text": "loading"});
    let message = world.slack.state().post_at(CHANNEL, now, chatter);
    next_reading(&relay).await;
    assert!(world.arrived(&relay).await.is_empty());
    relay.clock.advance(3 * MINUTE);
    world.slack.state().edit(&message, json!([slack::attachment()]));
    next_reading(&relay).await;
    next_reading(&relay).await;
    assert_eq!(world.arrived(&relay).await, [id(&message)]);
}

#[tokio::test]
async fn an_edit_that_was_not_pushed_is_kept_once_as_a_revision() {
    let world = World::new().await;
    let relay = world.setup().start().await;
    relay.caught_up().await;
    let message = world.slack.post();
    assert_eq!(relay.post(&slack::event(&message)).await, 200);
    assert_eq!(world.arrived(&relay).await, [id(&message)]);
    let mut changed = slack::attachment();
    changed["text"] = json!("PII Sniffing\nreads the security code, too");
    let edited = world.slack.state().edit(&message, json!([changed]));
    for _ in 0..3 {
        next_reading(&relay).await;
    }
    let revisions = async || {
        let (_, shown) = relay.api("GET", &format!("/alerts/{}", id(&message))).await;
        shown["revisions"].as_array().unwrap().clone()
    };
    let kept = revisions().await;
    assert_eq!(kept.len(), 1, "{kept:#?}");
    assert!(kept[0].to_string().contains("security code"), "{kept:#?}");
    assert_eq!(relay.metric(&outcome("ignored", "known_edit")).await, 1.0);
    let pushed = json!({
        "type": "message", "subtype": "message_changed", "hidden": true, "channel": CHANNEL,
        "ts": edited["edited"]["ts"], "event_ts": edited["edited"]["ts"], "message": edited,
    });
    assert_eq!(relay.post(&slack::event(&pushed)).await, 200);
    assert_eq!(revisions().await.len(), 1, "the push comes late, with an edit that is known");
    assert_eq!(world.arrived(&relay).await, [id(&message)]);
}

#[tokio::test]
async fn five_thousand_messages_after_three_days_of_downtime_arrive_and_count_as_downtime() {
    let world = World::new().await;
    let mut relay = world.setup().start().await;
    relay.caught_up().await;
    relay.stop().await;
    let expected = fill(&world, BEGIN + DAY, 5_000);
    relay.clock.advance(3 * DAY);
    let before = world.slack.all_calls();
    relay.restart().await;
    relay.caught_up().await;
    assert_eq!(world.arrived(&relay).await, expected);
    assert!(world.slack.all_calls() - before <= 5_000 / 200 + 2);
    relay.metric_is(&missed("downtime"), |count| count == 500.0).await;
    assert_eq!(relay.metric(&missed("push")).await, 0.0);
}

#[tokio::test]
async fn a_clock_ten_minutes_off_costs_the_pushes_and_no_alert() {
    for skew in [600, -600] {
        let world = World::new().await;
        world.slack.state().skew_seconds = skew;
        let relay = world.setup().start().await;
        relay.caught_up().await;
        let mut expected = Vec::new();
        for _ in 0..5 {
            let message = world.slack.post();
            let slacks_time = world.slack.state().now();
            let mut pushes = Pushes::default();
            pushes.add(&message, slacks_time);
            pushes.deliver_due(relay.public(), slacks_time, || false).await;
            expected.push(id(&message));
            next_reading(&relay).await;
        }
        next_reading(&relay).await;
        assert_eq!(world.arrived(&relay).await, expected, "{skew}");
        assert_eq!(relay.metric(&outcome("rejected", "stale")).await, 10.0);
        relay.clock.advance(15 * MINUTE);
        relay.caught_up().await;
        relay.metric_is(&missed("push"), |count| count == 5.0).await;
    }
}

#[tokio::test]
async fn two_incidents_of_the_same_second_are_two_alerts() {
    let world = World::new().await;
    let expected = [id(&world.slack.post()), id(&world.slack.post())];
    let relay = world.setup().start().await;
    next_reading(&relay).await;
    assert_eq!(world.arrived(&relay).await, expected);
}

#[tokio::test]
async fn more_channels_than_slack_allows_calls_a_minute_are_read_in_turn() {
    let world = World::new().await;
    let ids: Vec<String> = (0..120).map(|n| format!("C4000000{n:03}")).collect();
    let others = ids.iter().map(|id| Channel::new(id, &id.to_lowercase()));
    world.slack.state().channels.extend(others);
    let mut expected: Vec<String> = Vec::new();
    for channel in ["C4000000000", "C4000000119"] {
        expected.push(id(&world.slack.state().post_incident(channel)));
    }
    let relay = world.setup_in(&format!("[{}, {CHANNEL}]", ids.join(", "))).start().await;
    // The usual channel comes first in the round, so its second reading ends the first round.
    relay.pass_until_caught_up().await;
    while world.slack.calls(HISTORY).len() < 121 {
        relay.settled().await;
        relay.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    relay.metric_is(&outcome("accepted", ""), |count| count == 2.0).await;
    assert_eq!(world.arrived(&relay).await, expected);
    assert!(world.slack.calls(HISTORY).iter().all(|call| call.status == 200), "never one too many");
    assert!(relay.clock.now().since(BEGIN) >= 2 * MINUTE);
}

#[tokio::test]
async fn each_app_reads_for_itself() {
    let world = World::new().await;
    let app = |name: &str, secret: &str| {
        format!(
            "    - {{name: {name}, signing_secret: {{env: {secret}}}, bot_token: {{env: TOKEN}}, \
             channels: [{CHANNEL}]}}\n"
        )
    };
    let ours = id(&world.slack.post());
    let setup = world.setup().apps(&[app("main", "SECRET"), app("other", "OTHER_SECRET")].concat());
    let relay = setup.start().await;
    relay.caught_up().await;
    let series = r#"events_total{app="other",outcome="accepted",reason=""}"#;
    relay.metric_is(series, |count| count == 1.0).await;
    let theirs = ours.replace("main:", "other:");
    assert_eq!(world.arrived(&relay).await, [ours, theirs]);
}

#[tokio::test]
async fn a_month_of_silence_costs_one_call_a_reading_and_ends_with_the_incident() {
    let world = World::new().await;
    let relay = world.setup().more("catch_up: {every: 24h}\n").start().await;
    relay.caught_up().await;
    for _ in 0..30 {
        relay.clock.advance(DAY);
        relay.caught_up().await;
    }
    assert_eq!(world.slack.calls(HISTORY).len(), 31);
    let message = world.slack.post();
    relay.clock.advance(DAY);
    relay.caught_up().await;
    assert_eq!(world.arrived(&relay).await, [id(&message)]);
}

#[tokio::test]
async fn an_app_with_fifteen_messages_a_minute_is_noticed_and_never_asks_too_often() {
    let world = World::new().await;
    world.slack.state().limited = true;
    let expected = fill(&world, BEGIN - Duration::from_secs(3600), 64);
    let relay = world.setup().start().await;
    relay.pass_until_caught_up().await;
    assert_eq!(world.arrived(&relay).await, expected);
    let calls = world.slack.calls(HISTORY);
    assert!((5..=6).contains(&calls.len()), "the next reading may have begun: {}", calls.len());
    assert!(calls.iter().all(|call| call.status == 200), "never one too many");
    world.slack.state().limited = false;
    let begin = relay.clock.now();
    let more = fill(&world, begin - Duration::from_secs(450), 450);
    pass(&relay, begin + MINUTE).await;
    relay.pass_until_caught_up().await;
    assert_eq!(world.arrived(&relay).await.len(), expected.len() + more.len());
    let minutes = relay.clock.now().since(begin).as_secs() / 60;
    assert!(minutes < 10, "{minutes} minutes: at fifteen a minute it would take thirty");
}

#[tokio::test]
async fn a_minute_that_slack_left_out_is_read_at_once_however_old_it_is() {
    let world = World::new().await;
    let relay = world.setup().start().await;
    relay.caught_up().await;
    relay.clock.advance(60 * MINUTE);
    relay.caught_up().await;
    let minute = relay.clock.now() - 40 * MINUTE;
    let old = world.slack.state().post_at(CHANNEL, minute, slack::message(0));
    next_reading(&relay).await;
    assert!(world.arrived(&relay).await.is_empty(), "outside of the overlap");
    let limited = json!({"type": "app_rate_limited", "minute_rate_limited": minute.seconds()});
    relay.clock.advance(Duration::from_secs(10));
    assert_eq!(relay.post(&limited).await, 200);
    relay.caught_up().await;
    assert_eq!(world.arrived(&relay).await, [id(&old)]);
}

#[tokio::test]
async fn after_a_503_history_is_read_sooner_but_not_without_pause() {
    let world = World::new().await;
    world.soar.becomes(Mood::Status(503));
    let relay = world.setup().more("store: {sqlite: {max_size: 2MiB}}\n").start().await;
    relay.caught_up().await;
    relay.clock.advance(Duration::from_secs(12));
    let readings = world.slack.calls(HISTORY).len();
    // Between two refusals there may be room again: the store's log has been emptied.
    let (mut n, mut refused) = (0, 0);
    while refused < 5 {
        match relay.post(&slack::large_incident(n, 50_000)).await {
            200 => n += 1,
            503 => refused += 1,
            status => panic!("{status}"),
        }
    }
    world.slack.has_answered(readings + 2).await;
    assert_eq!(world.slack.calls(HISTORY).len(), readings + 1, "one for all of them");
}

#[tokio::test]
async fn lifecycle_events_change_what_is_known_and_never_stop_the_receiver() {
    let world = World::new().await;
    let relay = world.setup().start().await;
    relay.caught_up().await;
    let send = async |event: Value| assert_eq!(relay.post(&slack::event(&event)).await, 200);
    {
        let mut state = world.slack.state();
        let channel = state.channel(CHANNEL);
        (channel.archived, channel.member, channel.name) = (true, false, "alerts".to_owned());
    }
    send(json!({"type": "channel_rename", "channel": {"id": CHANNEL, "name": "alerts"}})).await;
    send(json!({"type": "channel_archive", "channel": CHANNEL})).await;
    send(json!({"type": "member_left_channel", "channel": CHANNEL, "user": BOT_USER})).await;
    send(json!({"type": "member_left_channel", "channel": "C9", "user": "U9"})).await;
    let handle = &relay.relay().catch_up()[0];
    let known = || handle.status().channels.into_iter().next().unwrap();
    let told = async {
        while known().problem.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!((known().name.as_str(), known().is_archived), ("alerts", true));
    assert_eq!(known().problem, "the bot was removed from the channel");
    let mut moved = Channel::new("C7777777777", "alerts");
    moved.private = true;
    world.slack.state().channels = vec![moved];
    relay.clock.advance(Duration::from_secs(11));
    send(json!({"type": "channel_id_changed", "old_channel_id": CHANNEL,
        "new_channel_id": "C7777777777"}))
    .await;
    relay.caught_up_in("C7777777777").await;
    let mut message = world.slack.state().post_incident("C7777777777");
    assert_eq!(relay.post(&slack::event(&message)).await, 200);
    message["channel"] = json!(CHANNEL);
    assert_eq!(world.arrived(&relay).await, [id(&message)], "by the first id");
    world.slack.revoke(Some("account_inactive"));
    send(json!({"type": "app_uninstalled"})).await;
    let told = async {
        while handle.status().problem.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    let calls = world.slack.all_calls();
    relay.clock.advance(5 * MINUTE);
    assert_eq!(relay.post(&slack::incident(3)).await, 200);
    assert_eq!(world.slack.all_calls(), calls, "nothing is called any more");
    assert_eq!(relay.metric(&outcome("ignored", "lifecycle")).await, 6.0);
}

#[tokio::test]
async fn a_channel_with_a_new_id_is_read_on_from_where_the_old_one_was() {
    let world = World::new().await;
    let settings = "catch_up: {every: 1h, overlap: 1m, first_lookback: 1m}\n";
    let relay = world.setup().more(settings).start().await;
    relay.caught_up().await;
    relay.clock.advance(40 * MINUTE);
    let moved = Channel::new("C7777777777", "cd_alerts");
    world.slack.state().channels = vec![moved];
    let at = BEGIN + 10 * MINUTE;
    let mut message = world.slack.state().post_at("C7777777777", at, slack::message(0));
    let changed = json!({"type": "channel_id_changed", "old_channel_id": CHANNEL,
        "new_channel_id": "C7777777777"});
    assert_eq!(relay.post(&slack::event(&changed)).await, 200);
    relay.caught_up_in("C7777777777").await;
    message["channel"] = json!(CHANNEL);
    assert_eq!(world.arrived(&relay).await, [id(&message)], "by the first id");
}

#[tokio::test]
async fn a_backfill_reads_once_more_through_the_same_pipeline() {
    let world = World::new().await;
    let old = fill(&world, BEGIN - 5 * DAY, 100);
    let recent = fill(&world, BEGIN - Duration::from_secs(3600), 20);
    let relay = world.setup().start().await;
    relay.caught_up().await;
    assert_eq!(world.arrived(&relay).await, recent);
    let handle = &relay.relay().catch_up()[0];
    let history = |since, channel: Option<&str>| BackfillRequest {
        since: HistoryTime::Ago(since),
        until: None,
        channel: channel.map(str::to_owned),
        purpose: Purpose::Deliver,
    };
    let found = handle.backfill(history(6 * DAY, Some("C0123456789"))).await.unwrap().counts;
    assert_eq!((found.found, found.new, found.known), (12, 10, 2));
    let again = handle.backfill(history(6 * DAY, None)).await.unwrap().counts;
    assert_eq!((again.found, again.new, again.known), (12, 0, 12));
    assert!(handle.backfill(history(DAY, Some("C9999999999"))).await.is_err());
    assert_eq!(world.arrived(&relay).await.len(), old.len() + recent.len());
    relay.clock.advance(15 * MINUTE);
    relay.caught_up().await;
    assert_eq!(relay.metric(&missed("downtime")).await, 2.0, "a backfill is not a missed push");
}

#[tokio::test]
async fn history_up_to_a_moment_is_marked_as_known_and_what_is_newer_is_delivered() {
    let world = World::new().await;
    let before = fill(&world, BEGIN - 5 * DAY, 30);
    let last = before.last().unwrap().split(':').nth(2).unwrap();
    let newer = fill(&world, BEGIN - 4 * DAY, 20);
    let relay = world.setup().start().await;
    relay.caught_up().await;
    let path = format!("/backfill?mark_known=true&until={last}");
    let (status, body) = relay.api("POST", &path).await;
    let marked = json!({"found": 3, "new": 0, "known": 0, "marked": 3});
    assert_eq!((status, body), (200, marked), "the message of that moment too");
    let (_, body) = relay.api("POST", &path).await;
    assert_eq!(body, json!({"found": 3, "new": 0, "known": 3, "marked": 0}));
    for query in ["", "?state=unrouted"] {
        let (_, listed) = relay.api("GET", &format!("/alerts{query}")).await;
        assert_eq!(listed["alerts"].as_array().map(Vec::len), Some(0), "{query}: {listed}");
    }
    let (_, status) = relay.api("GET", "/status").await;
    assert!(!status.to_string().contains("\"unrouted\":3"), "{status}");
    let (status, body) = relay.api("POST", &format!("/backfill?since={last}")).await;
    let delivered = json!({"found": 3, "new": 2, "known": 1, "marked": 0});
    assert_eq!((status, body), (200, delivered));
    assert_eq!(world.arrived(&relay).await, newer);
    let (_, body) = relay.api("POST", "/backfill?since=6d&until=90h").await;
    assert_eq!(body, json!({"found": 5, "new": 0, "known": 5, "marked": 0}));
    let (_, body) = relay.api("POST", "/backfill?since=6d&until=110h").await;
    assert_eq!(body, json!({"found": 3, "new": 0, "known": 3, "marked": 0}));
    relay.settled().await;
}

#[tokio::test]
async fn a_backfill_reads_channels_that_nobody_has_listed_yet_or_says_why_it_cannot() {
    for channels in ["[]", "[cd_alerts]"] {
        let world = World::new().await;
        let old = fill(&world, BEGIN - 5 * DAY, 20);
        for after in 0..3 {
            world.slack.trouble(LIST, after, Trouble::Error("missing_scope"));
        }
        let relay = world.setup_in(channels).start().await;
        relay.metric_is(&result(LIST, "configuration"), |count| count > 0.0).await;
        for path in ["/backfill?since=6d", "/backfill?since=6d&channel=cd_alerts"] {
            let (status, problem) = relay.api("POST", path).await;
            let detail = problem["detail"].as_str().unwrap();
            assert!(status == 502 && detail.contains("missing_scope"), "{path}: {detail}");
        }
        let (status, body) = relay.api("POST", "/backfill?since=6d").await;
        assert_eq!(
            (status, body),
            (200, json!({"found": 2, "new": 2, "known": 0, "marked": 0})),
            "{channels}"
        );
        let (status, body) = relay.api("POST", "/backfill?since=6d&channel=cd_alerts").await;
        assert_eq!(
            (status, body),
            (200, json!({"found": 2, "new": 0, "known": 2, "marked": 0})),
            "{channels}"
        );
        assert_eq!(relay.api("POST", "/backfill?since=6d&channel=C0000000009").await.0, 404);
        assert_eq!(world.arrived(&relay).await, old);
        world.slack.state().channels.clear();
        let (status, problem) = relay.api("POST", "/backfill?since=6d").await;
        assert!(
            status == 404 && problem["detail"].as_str().unwrap().contains("lists all channels")
        );
    }
}

#[tokio::test]
async fn a_channel_found_by_its_name_is_read_back_by_it_after_a_restart_too() {
    let world = World::new().await;
    fill(&world, BEGIN - 5 * DAY, 20);
    let mut relay = world.setup_in("[cd_alerts]").start().await;
    relay.caught_up().await;
    relay.stop().await;
    relay.restart().await;
    let (status, body) = relay.api("POST", "/backfill?since=6d&channel=%23cd_alerts").await;
    assert_eq!((status, &body["found"]), (200, &json!(2)), "{body}");
    assert_eq!(world.slack.calls(LIST).len(), 1);
    relay.settled().await;
}

#[tokio::test]
async fn an_operator_sees_and_asks_for_history_over_the_api() {
    let world = World::new().await;
    let old = fill(&world, BEGIN - 5 * DAY, 30);
    let relay = world.setup().start().await;
    relay.caught_up().await;
    let (status, body) = relay.api("POST", "/backfill?since=6d&channel=C0123456789").await;
    assert_eq!((status, body), (200, json!({"found": 3, "new": 3, "known": 0, "marked": 0})));
    assert_eq!(world.arrived(&relay).await, old);
    for (body, expected) in [(r#"{"since": "6d"}"#, 200), (r#"{"since": 6}"#, 400)] {
        let headers = [("Host", "localhost"), ("Content-Type", "application/json")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (ops, path) = (relay.relay().ops, "/api/v1/backfill");
        let answer = http::request(ops, "POST", path, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, expected, "{body}");
    }
    for (query, expected) in [
        ("?since=6", 400),
        ("?since=6d&until=yesterday", 400),
        ("?since=1h&until=2h", 400),
        ("?mark_known=true", 400),
        ("?mark_known=true&since=6d", 400),
        ("?until=1h", 400),
        ("", 400),
        ("?since=6d&chanel=C1", 400),
        ("?since=6d&channel=C9999999999", 404),
        ("?since=6d&app=nobody", 404),
    ] {
        assert_eq!(relay.api("POST", &format!("/backfill{query}")).await.0, expected, "{query}");
    }
    let (_, status) = relay.api("GET", "/status").await;
    let catch_up = &status["apps"][0]["catch_up"];
    assert_eq!(catch_up["problem"], "");
    assert_eq!(catch_up["channels"][0]["id"], CHANNEL);
    assert_eq!(catch_up["channels"][0]["lag_seconds"], 0);
    world.slack.revoke(Some("token_revoked"));
    let (status, problem) = relay.api("POST", "/backfill?since=6d").await;
    assert!(status == 502 && problem["detail"].as_str().unwrap().contains("token_revoked"));
}

#[tokio::test]
async fn replies_in_threads_are_not_read_and_do_no_harm() {
    let world = World::new().await;
    let parent = world.slack.post();
    world.slack.state().reply(&parent, slack::message(1));
    let relay = world.setup().start().await;
    relay.caught_up().await;
    assert_eq!(world.arrived(&relay).await, [id(&parent)]);
}

#[tokio::test]
async fn delayed_events_bring_a_push_hours_later_and_it_stays_one_alert() {
    let world = World::new().await;
    let mut relay = world.setup().start().await;
    relay.caught_up().await;
    let message = world.slack.post();
    let mut pushes = Pushes::default();
    pushes.delayed_events = true;
    pushes.add(&message, relay.clock.now());
    let dead = relay.public();
    relay.stop().await;
    for _ in 0..6 {
        relay.clock.advance(pushes.next_due().unwrap().since(relay.clock.now()));
        pushes.deliver_due(dead, relay.clock.now(), || false).await;
    }
    relay.restart().await;
    relay.caught_up().await;
    pass(&relay, pushes.next_due().unwrap()).await;
    pushes.deliver_due(relay.public(), relay.clock.now(), || false).await;
    assert_eq!((pushes.next_due(), pushes.given_up), (None, 0));
    assert_eq!(relay.metric(r#"slack_retries_total{reason="connection_failed"}"#).await, 1.0);
    assert_eq!(world.arrived(&relay).await, [id(&message)]);
}

/// Calls, and minutes by Slack's clock, that a connector makes which asks for pages of that size
/// and lists the channels again for each of them, waiting whenever Slack tells it to.
fn predecessor(slack: &FakeSlack, limit: usize) -> (usize, u64) {
    let mut state = slack.state();
    let (begin, mut calls) = (state.now(), 0);
    let mut call = |state: &mut State, method: &str, query: &[(&str, String)]| loop {
        let query = query.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let (status, wait, body) = state.call(TOKEN, method, &query);
        if let (429, Some(wait)) = (status, wait) {
            state.clock().advance(Duration::from_secs(wait));
        } else {
            calls += 1;
            return body;
        }
    };
    let mut cursor = String::new();
    loop {
        call(&mut state, LIST, &[]);
        let mut query = vec![("channel", CHANNEL.to_owned()), ("limit", limit.to_string())];
        if !cursor.is_empty() {
            query.push(("cursor", cursor.clone()));
        }
        let body = call(&mut state, HISTORY, &query);
        let metadata = &body["response_metadata"];
        let Some(next) = metadata["next_cursor"].as_str() else {
            break;
        };
        next.clone_into(&mut cursor);
    }
    let minutes = state.now().since(begin).as_secs() / 60;
    (calls, minutes)
}

#[tokio::test]
async fn catching_up_costs_what_the_documentation_says() {
    let document = include_str!("../../docs/slack-setup.md");
    for messages in [100_usize, 1_000, 10_000] {
        let world = World::new().await;
        fill(&world, BEGIN - Duration::from_secs(20_000), messages.try_into().unwrap());
        let relay = world.setup().start().await;
        // The clock stands still: that is what "at once" means.
        relay.caught_up().await;
        let ours = world.slack.all_calls();
        assert!(ours <= messages / 200 + 2, "{ours} calls for {messages} messages");
        assert_eq!(world.slack.calls(LIST).len(), 0, "ids are configured");
        let mut row = format!("| {} | {ours} calls, at once |", grouped(messages));
        for limit in [1, 100] {
            let other = World::new().await;
            fill(&other, BEGIN - Duration::from_secs(20_000), messages.try_into().unwrap());
            let (calls, minutes) = predecessor(&other.slack, limit);
            row.extend([" ", &grouped(calls), " calls, ", &minutes.to_string(), " min |"]);
        }
        assert!(document.contains(&row), "the documentation lacks:\n{row}");
    }
}

fn grouped(number: usize) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", number / 1_000, number % 1_000),
    }
}

#[tokio::test]
async fn without_a_token_the_relay_only_receives() {
    let relay = Setup::default().start().await;
    assert!(relay.relay().catch_up().is_empty());
    assert_eq!(relay.post(&slack::incident(1)).await, 200);
}

#[tokio::test]
async fn a_channel_that_a_reload_adds_is_read_and_other_changes_disturb_no_poller() {
    let world = World::new().await;
    let expected = fill(&world, BEGIN - Duration::from_secs(60), 5);
    let mut relay = world.setup().start().await;
    relay.caught_up().await;
    let ignored = relay.metric(&outcome("ignored", "title")).await;
    let calls = world.slack.calls(HISTORY).len();
    relay
        .reload(|yaml| yaml.replace("- name: soar\n", "- name: soar\n    timeout: 5s\n"))
        .await
        .unwrap();
    assert_eq!(world.slack.calls(HISTORY).len(), calls, "the same poller, with what it knows");
    next_reading(&relay).await;
    assert_eq!(relay.metric(&outcome("ignored", "title")).await, ignored);
    let added = "C0000000001";
    let incident = {
        let mut state = world.slack.state();
        state.channels.push(Channel::new(added, "added"));
        state.post_at(added, BEGIN - Duration::from_secs(30), slack::message(0))
    };
    relay.reload(|yaml| yaml.replace("[C0123456789]", "[C0123456789, C0000000001]")).await.unwrap();
    relay.caught_up_in(added).await;
    let mut expected = expected;
    expected.push(id(&incident));
    expected.sort();
    assert_eq!(world.arrived(&relay).await, expected);
    assert!(relay.api("GET", "/status").await.1.to_string().contains(added));
    assert_eq!(http::get(relay.relay().ops, "/livez").await.status, 200);
}

#[tokio::test]
async fn a_backfill_goes_on_past_a_sick_channel_and_names_it() {
    const SICK: &str = "C0000000001";
    for (sick, said) in [
        (Sick::Error("not_in_channel"), "not_in_channel"),
        (Sick::Error("channel_not_found"), "channel_not_found"),
        (Sick::TwoCursors, "a cursor came back"),
    ] {
        let world = World::new().await;
        {
            let mut state = world.slack.state();
            state.channels.push(Channel::new(SICK, "sick"));
            state.sick.insert(SICK, sick);
        }
        let old = world.slack.state().post_at(CHANNEL, BEGIN - 5 * DAY, slack::message(0));
        let relay = world.setup_in("[C0000000001, C0123456789]").start().await;
        relay.caught_up().await;
        for mark in ["", "&mark_known=true&until=1h"] {
            let path = format!("/backfill?since=6d{mark}");
            let (status, report) = relay.api("POST", &path).await;
            assert_eq!((status, &report["found"]), (200, &json!(1)), "{report}");
            let failures = report["failures"].as_array().unwrap();
            assert_eq!(failures.len(), 1, "{report}");
            assert_eq!(
                (&failures[0]["app"], &failures[0]["channel"]),
                (&json!("main"), &json!(SICK))
            );
            assert!(failures[0]["problem"].as_str().unwrap().contains(said), "{report}");
        }
        assert_eq!(world.arrived(&relay).await, [id(&old)]);
        let ops = format!("http://{}", relay.relay().ops);
        let arguments = ["backfill", "--since", "6d", "--server"].map(str::to_owned);
        let arguments = [arguments.to_vec(), vec![ops]].concat();
        let output = run_beside(&arguments).await;
        assert_eq!(output.0, 1, "{output:?}");
        assert!(output.1.contains("1 found, 0 new, 1 already known"), "{output:?}");
        let all = format!("{}{}", output.1, output.2);
        assert!(all.contains(SICK) && all.contains(said), "{output:?}");
        // Only the sick one is asked for: nothing was read.
        let (status, problem) =
            relay.api("POST", &format!("/backfill?since=6d&channel={SICK}")).await;
        assert_eq!(status, 502);
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
}

/// A command of the real program, while the relay of the test goes on.
async fn run_beside(arguments: &[String]) -> (i32, String, String) {
    let arguments = arguments.to_vec();
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        crate::process::run(&arguments)
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test]
async fn a_backfill_goes_on_past_an_app_whose_token_is_revoked() {
    let world = World::new().await;
    let app = |name: &str, team: &str, token: &str| {
        format!(
            "    - {{name: {name}, signing_secret: {{env: SECRET}}, bot_token: {{env: {token}}}, \
             channels: [{CHANNEL}], team: {team}}}\n"
        )
    };
    let apps = [app("first", "T0FIRST", "REVOKED"), app("main", "T0MAIN", "TOKEN")].concat();
    let setup = world.setup().apps(&apps).env("REVOKED", "xoxb-999-999-revoked");
    let old = world.slack.state().post_at(CHANNEL, BEGIN - 5 * DAY, slack::message(0));
    let relay = setup.start().await;
    relay.caught_up().await;
    let (status, report) = relay.api("POST", "/backfill?since=6d").await;
    assert_eq!((status, &report["new"]), (200, &json!(1)), "{report}");
    assert_eq!(report["failures"].as_array().unwrap().len(), 1, "{report}");
    let failure = &report["failures"][0];
    assert_eq!(failure["app"], "first");
    assert!(failure["problem"].as_str().unwrap().contains("invalid_auth"), "{report}");
    assert_eq!(world.arrived(&relay).await, [id(&old)]);
}

#[tokio::test]
async fn a_store_that_fails_between_two_pages_loses_nothing_and_moves_no_cursor() {
    for anchor in [Anchor::Newest, Anchor::Oldest] {
        let world = World::new().await;
        world.slack.state().anchor = anchor;
        let expected = fill(&world, BEGIN - Duration::from_secs(7200), 850);
        world.slack.trouble(HISTORY, 2, Trouble::Hold);
        let relay = world.setup().start().await;
        // Who we are, two pages, and the third, which is held back.
        world.slack.has_answered(4).await;
        let db = rusqlite::Connection::open(relay.dir().join("relay.db")).unwrap();
        db.execute_batch("CREATE TRIGGER sick BEFORE INSERT ON alerts BEGIN SELECT json('{'); END")
            .unwrap();
        world.slack.release();
        problem_is(&relay, |problem| problem.contains("cannot be stored")).await;
        let moved = || db.query_row("SELECT count(*) FROM cursors", (), |row| row.get::<_, u32>(0));
        assert_eq!(moved().unwrap(), 0, "{anchor:?}");
        db.execute_batch("DROP TRIGGER sick").unwrap();
        relay.time_passes_until(Duration::from_secs(1), problem_is(&relay, str::is_empty)).await;
        assert_eq!(world.arrived(&relay).await, expected, "{anchor:?}");
        assert_eq!(moved().unwrap(), 1, "{anchor:?}");
        assert_eq!(relay.metric(&outcome("accepted", "")).await, 85.0);
        assert_eq!(relay.metric(&outcome("rejected", "store")).await, 0.0);
    }
}

const FROM_NOW_ON: &str = "catch_up: {first_lookback: 0s}\n";

#[tokio::test]
async fn what_is_posted_after_the_first_start_is_read_though_no_reading_worked_before_the_second() {
    for channels in ["[C0123456789]", "[cd_alerts]"] {
        let world = World::new().await;
        world.slack.post();
        world.slack.state().clock().advance(MINUTE);
        world.slack.state().sick.insert(CHANNEL, Sick::Error("not_in_channel"));
        if channels == "[cd_alerts]" {
            world.slack.state().sick_methods.insert(LIST, "internal_error");
        }
        let mut relay = world.setup_in(channels).more(FROM_NOW_ON).start().await;
        problem_is(&relay, |problem| !problem.is_empty()).await;
        relay.clock.advance(MINUTE);
        let mut expected = vec![id(&world.slack.post())];
        relay.clock.advance(MINUTE);
        relay.stop().await;
        relay.clock.advance(MINUTE);
        expected.push(id(&world.slack.post()));
        relay.clock.advance(2 * DAY);
        world.slack.state().sick.clear();
        world.slack.state().sick_methods.clear();
        relay.restart().await;
        relay.caught_up().await;
        assert_eq!(world.arrived(&relay).await, expected, "{channels}");
    }
}

#[tokio::test]
async fn what_was_posted_before_the_first_start_is_left_alone_after_a_restart_too() {
    let world = World::new().await;
    world.slack.post();
    world.slack.state().clock().advance(MINUTE);
    let mut relay = world.setup().more(FROM_NOW_ON).start().await;
    relay.caught_up().await;
    relay.clock.advance(MINUTE);
    let posted = id(&world.slack.post());
    for _ in 0..3 {
        relay.clock.advance(MINUTE);
        relay.caught_up().await;
        relay.stop().await;
        relay.restart().await;
        relay.caught_up().await;
    }
    assert_eq!(world.arrived(&relay).await, [posted]);
}

/// Slack answers nothing at the first start of the real program, and history not at the second.
#[tokio::test]
async fn the_real_relay_remembers_when_it_was_first_started() {
    let clock = Clock::system();
    let (slack, soar) = (FakeSlack::new(clock.clone()).await, FakeSoar::ok().await);
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!(
        "server: {{listen: 127.0.0.1:0, ops_listen: 127.0.0.1:0, drain_delay: 0s}}\n\
         slack:\n  api_url: {}\n  apps: [{{name: main, signing_secret: {{env: SECRET}}, \
         bot_token: {{env: TOKEN}}, channels: [{CHANNEL}]}}]\n\
         catch_up: {{every: 2s, overlap: 600s, settle: 1s, first_lookback: 0s}}\n\
         destinations: [{{name: up, preset: webhook, url: {{env: URL_up}}}}]\n",
        slack.api_url()
    );
    std::fs::write(dir.path().join("relay.yaml"), yaml).unwrap();
    let env = [("URL_up", soar.url()), ("TOKEN", TOKEN.to_owned())];
    let env = env.map(|(name, value)| (name.to_owned(), value));
    slack.state().post_at(CHANNEL, clock.now() - MINUTE, slack::message(0));
    slack.trouble("auth.test", 0, Trouble::Hang);
    slack.state().sick.insert(CHANNEL, Sick::Error("not_in_channel"));
    let mut expected = Vec::new();
    for calls in [1, 3] {
        let process = Process::start(dir.path(), &env);
        slack.has_answered(calls).await;
        process.signal("-KILL");
        drop(process);
        expected.push(id(&slack.post()));
    }
    slack.state().sick.clear();
    let process = Process::start(dir.path(), &env);
    until_all(&soar, &expected).await;
    drop(process);
    let process = Process::start(dir.path(), &env);
    expected.push(id(&slack.post()));
    until_all(&soar, &expected).await;
    drop(process);
    expected.sort();
    let mut ids = soar.ids();
    ids.sort();
    ids.dedup();
    assert_eq!(ids, expected, "nothing from before the first start");
}
